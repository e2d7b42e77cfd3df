"""The law of the bottleneck on stages of round numbers, and a small run of all."""

import json
from dataclasses import replace

import pytest

from litegpt.benchmarks import cost_model
from litegpt.benchmarks.cost_model import Assumed, Machines, checked, machines_of, main, needs, predicted_seconds
from litegpt.benchmarks.prediction_stages import Run, Stages

STAGES = Stages(
    plan=1e-5, read=1e-3, decode=0.4, pixels=0.098, answer=0.5, shard=0.5, count=1e-5, start=10.0, size=1e7
)


def test_one_core_does_all_stages_one_after_the_other():
    assert needs(STAGES, Machines("", cores=1)) == pytest.approx({"storage": 0.0, "cores": 1.0})
    assert predicted_seconds(STAGES, Machines("", cores=1), 1000) == pytest.approx(10 + 1000 + 0.02)
    assert predicted_seconds(STAGES, Machines("", cores=4), 1000) == pytest.approx(10 + 250 + 0.02)


def test_the_slowest_resource_rules():
    gpu = Machines("", cores=16, answers=20, bandwidth=1e9)
    assert needs(STAGES, gpu) == pytest.approx({"storage": 0.01, "cores": 0.5 / 16, "GPUs": 0.05})
    faster = replace(gpu, answers=100)
    assert predicted_seconds(STAGES, faster, 10**6) == pytest.approx(10 + 20 + 10**6 * 0.5 / 16)
    many = replace(gpu, answers=6400, cores=1024)
    assert predicted_seconds(STAGES, many, 10**6) == pytest.approx(10 + 20 + 10**6 * 0.01)


def test_gpus_are_as_fast_as_was_measured_and_left_out_where_nothing_was(tmp_path, capsys):
    path = tmp_path / "gpu.json"
    measured = {"card": "A card", "date": "2026-12-01", "figures": {}}
    path.write_text(json.dumps(measured))
    assert [each.name for each in machines_of(path, Assumed())] == ["1 CPU node", "8 CPU nodes", "64 CPU nodes"]
    assert "left out" in capsys.readouterr().out
    figures = {"generation/litegpt/batch_32/jump_ahead/images": {"value": 30.0, "unit": "images/s"}}
    path.write_text(json.dumps({**measured, "figures": figures}))
    machines = machines_of(path, Assumed(cores=8, euros_per_hour=(1.0, 3.0)))
    assert machines[4] == Machines("8 GPUs", cores=64, answers=120.0, bandwidth=1.25e9, euros=24.0)
    assert "30.0 images/s" in capsys.readouterr().out


def test_the_largest_run_is_held_against_what_was_predicted_and_against_the_smallest():
    results = checked(STAGES, {10: Run(21.0, 20.0, 500.0), 100: Run(220.0, 215.0, 510.0)})
    assert results["cost_model/predicted_vs_measured"]["value"] == pytest.approx(0.5, abs=1e-3)
    assert results["cost_model/memory_100_vs_10"]["value"] == pytest.approx(1.02)


def test_without_a_checkpoint_nothing_is_measured_and_that_is_said(tmp_path, capsys):
    main(str(tmp_path / "bench.json"), str(tmp_path), "GPU.md", [1], Assumed())
    assert "nothing was measured" in capsys.readouterr().out and not (tmp_path / "bench.json").exists()


@pytest.mark.slow
def test_a_small_run_predicts_and_measures(tmp_path, monkeypatch, tiny_checkpoint, capsys):
    monkeypatch.setattr(cost_model, "FULL", (160, 192))
    monkeypatch.setattr(cost_model, "PHANTOMS", 8)
    path = tmp_path / "bench.json"
    main(str(path), str(tiny_checkpoint), str(cost_model.REPORT), [2, 9], Assumed())
    results = json.loads(path.read_text())
    assert set(results) == {"cost_model/predicted_vs_measured", "cost_model/memory_9_vs_2"}
    assert all(result["value"] > 0 for result in results.values())
    printed = capsys.readouterr().out
    assert "64 GPUs" in printed and "the storage feeds" in printed
