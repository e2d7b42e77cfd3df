"""A step of ECAMP beside the library's masked autoencoder and BERT, in a form that a test can afford."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from litegpt.benchmarks.ecamp_vs_mae import main, ready

ROOT = Path(__file__).parents[2]


def test_a_tiny_run_records_how_many_steps_of_its_parts_a_step_is(tmp_path):
    options = ["--output", str(tmp_path / "bench.json"), "--sizes", "tiny"]
    options += ["--batch_size", "2", "--num_steps", "1", "--rounds", "1"]
    process = subprocess.run(
        [sys.executable, "benchmarks/ecamp_vs_mae.py", *options], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {"ecamp/step_vs_mae"} and 0.1 < results["ecamp/step_vs_mae"]["value"] < 10


def test_all_three_are_given_the_same_sizes_pictures_and_words(tmp_path):
    model, reports, batches = ready("tiny", 2, 2, str(tmp_path))
    assert len(reports) == 4 and len(batches) == 2
    assert batches[0]["pixel_values"].shape == (2, 1, model.config.picture_size, model.config.picture_size)
    assert (batches[0]["labels"] != -100).any() and model.super_resolution is not None


def test_without_a_gpu_nothing_is_measured_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(str(tmp_path / "bench.json"), "cuda", "tiny", batch_size=2, num_steps=1, rounds=1)
    assert "No GPU here" in capsys.readouterr().out and not (tmp_path / "bench.json").exists()
