"""Maps beside labels alone, in a form that a test can afford."""

import json

import torch

from litegpt.benchmarks.classifier_maps import main


def test_a_tiny_run_records_how_much_longer_maps_take(tmp_path, capsys):
    main(str(tmp_path / "bench.json"), "cpu", num_radiographs=3, batch_size=2, image_size=64, rounds=2)
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {"classifier/maps_vs_labels"} and results["classifier/maps_vs_labels"]["value"] > 0
    assert "boxes of a map" in capsys.readouterr().out


def test_without_a_gpu_nothing_is_measured_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(str(tmp_path / "bench.json"), "cuda", 3, 2, 64, 1)
    assert "No GPU here" in capsys.readouterr().out and not (tmp_path / "bench.json").exists()
