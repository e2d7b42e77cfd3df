import json

import pytest

from litegpt.benchmarks.jump_ahead import main
from litegpt.processing.constrained_decoding import ConstrainedGreedy


@pytest.fixture
def options(tmp_path, tiny_checkpoint, phantom_release) -> dict:
    return {
        "output": str(tmp_path / "bench.json"),
        "model_name_or_path": str(tiny_checkpoint),
        "data_dir": str(phantom_release),
        "cache_dir": str(tmp_path / "cache"),
        "images": 3,
        "max_new_tokens": 40,
    }


def test_a_quick_run_records_passes_and_times(options, tmp_path, capsys):
    main(**options)
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {"jump_ahead/passes", "jump_ahead/wall_batch1", "jump_ahead/wall_batch16"}
    assert all(result["value"] > 0 and result["unit"] == "x" for result in results.values())
    printed = capsys.readouterr().out
    assert "batch1: 40.00 passes a call by plain greedy generate" in printed and "batch16: " in printed


def test_other_answers_than_those_of_ordinary_decoding_are_an_error(options, tmp_path, monkeypatch):
    decode = ConstrainedGreedy.__call__

    def wrong(self, *args, **kwargs):
        output = decode(self, *args, **kwargs)
        output.sequences[0, -2] += 1
        return output

    monkeypatch.setattr(ConstrainedGreedy, "__call__", wrong)
    with pytest.raises(SystemExit, match="not that of ordinary constrained decoding"):
        main(**options)
    assert not (tmp_path / "bench.json").exists()


def test_without_a_checkpoint_nothing_is_measured_and_that_is_said(options, tmp_path, capsys):
    main(**{**options, "model_name_or_path": str(tmp_path / "none")})
    assert "nothing was measured (`make demo` trains one)" in capsys.readouterr().out
    assert not (tmp_path / "bench.json").exists()
