import json
from functools import partial

import pytest
import torch

from litegpt.benchmarks import gpu_training
from litegpt.benchmarks.gpu_training import main
from litegpt.train_scripts.trainer import compile_layers


def test_the_tiny_model_trains_by_the_same_code_on_a_cpu(tmp_path, monkeypatch, capsys):
    # Inductor takes a minute here, and is tested by torch.
    monkeypatch.setattr(gpu_training, "compile_layers", partial(compile_layers, backend="eager"))
    path = tmp_path / "bench.json"
    main(str(path), device="cpu", architecture="tiny", batch_sizes=[2], num_steps=1, rounds=1)
    results = json.loads(path.read_text())
    assert set(results) == {
        f"training/tiny/{way}/{images}/sdpa/{figure}"
        for way in ("bfloat16/batch_2/eager", "bfloat16/batch_2/compiled", "8bit/batch_2/eager")
        for images in ("pixels", "features")
        for figure in ("speed", "mfu", "paper_run")
    }
    assert all(result["value"] > 0 for result in results.values())
    in_8bit = "training/tiny/8bit/batch_2/eager/pixels/sdpa"
    speed, hours = (results[f"{in_8bit}/{figure}"]["value"] for figure in ("speed", "paper_run"))
    assert hours == pytest.approx(2 * 20 * 549 * 8 / speed / 3600)
    operations = {
        images: results[f"training/tiny/bfloat16/batch_2/eager/{images}/sdpa/mfu"]["value"]
        / results[f"training/tiny/bfloat16/batch_2/eager/{images}/sdpa/speed"]["value"]
        for images in ("pixels", "features")
    }
    assert operations["features"] < operations["pixels"]
    assert "TFLOP/s in a product of bfloat16 matrices" in capsys.readouterr().out


def test_without_a_gpu_nothing_is_measured_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "bench.json"
    main(str(path), device="cuda", architecture="litegpt", batch_sizes=[1], num_steps=1, rounds=1)
    assert "No GPU here" in capsys.readouterr().out and not path.exists()
