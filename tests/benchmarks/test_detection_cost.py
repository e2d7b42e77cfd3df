"""The costs of insertion and views are ratios of the same radiographs, whose answers are the same."""

import json

import pytest

from litegpt.benchmarks import detection_cost


def test_every_way_has_a_ratio_for_one_at_a_time_and_in_batches(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    path = tmp_path / "bench.json"
    detection_cost.main(str(path), str(tiny_checkpoint), str(phantom_release), cache_dir, images=2)
    figures = json.loads(path.read_text())
    assert set(figures) == {
        f"detection/{way}_cost_batch{size}" for way in ("insertion", "views4", "both") for size in (1, 16)
    }
    assert all(figure["value"] > 0 and "greedy answers" in figure["against"] for figure in figures.values())


def test_other_answers_end_the_program(monkeypatch):
    class Pipe:
        device = type("Device", (), {"type": "cpu"})

        def __call__(self, group, batch_size, **way):
            return [{"answers": {"identify": str(way)}} for _ in group]

    with pytest.raises(SystemExit, match="Group 0: the answers are not those"):
        detection_cost.compared(Pipe(), [["a"]], 1)


def test_without_a_checkpoint_nothing_is_measured(tmp_path, capsys):
    detection_cost.main(str(tmp_path / "bench.json"), str(tmp_path), "nowhere", None, 1)
    assert "nothing was measured" in capsys.readouterr().out and not (tmp_path / "bench.json").exists()
