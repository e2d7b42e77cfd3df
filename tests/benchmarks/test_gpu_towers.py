import json

import pytest
import torch

from litegpt.benchmarks import gpu_towers
from litegpt.benchmarks.gpu_towers import CXR_CLIP_RUN, ECAMP_RUN, main, trainings
from litegpt.train_scripts.report_masking import NOT_ASKED

NETWORKS = ("cxr_clip_resnet50", "cxr_clip_swin", "ecamp")


def test_tiny_networks_train_by_the_same_code_on_a_cpu(tmp_path, capsys):
    path = tmp_path / "bench.json"
    main(str(path), device="cpu", architecture="tiny", compiled=False, batch_size=4, num_steps=1)
    results = json.loads(path.read_text())
    assert set(results) == {
        f"towers/tiny/{network}/eager/{figure}" for network in NETWORKS for figure in ("speed", "mfu", "paper_run")
    }
    assert all(result["value"] > 0 for result in results.values())
    for network, run in (("cxr_clip_swin", CXR_CLIP_RUN), ("ecamp", ECAMP_RUN)):
        speed, hours = (results[f"towers/tiny/{network}/eager/{figure}"]["value"] for figure in ("speed", "paper_run"))
        assert hours == pytest.approx(run / speed / 3600)
    assert "TFLOP/s in a product of bfloat16 matrices" in capsys.readouterr().out


@pytest.mark.slow
def test_compiled_ones_are_measured_beside(tmp_path):
    path = tmp_path / "bench.json"
    main(str(path), device="cpu", architecture="tiny", compiled=True, batch_size=4, num_steps=1)
    results = json.loads(path.read_text())
    assert {name.split("/")[3] for name in results} == {"compiled"} and len(results) == 9


def test_the_papers_networks_have_their_sizes():
    paper = trainings("paper")
    assert tuple(paper) == NETWORKS
    sizes = {}
    for network, training in paper.items():
        with torch.device("meta"):
            model = training.model(training.config)
        sizes[network] = sum(weights.numel() for weights in model.parameters())
    # ResNet-50 without its classifier 23.5 million, Swin-Tiny 27.5, BERT 107.7 without a pooler, 2 projections.
    assert sizes["cxr_clip_resnet50"] == pytest.approx(132.7e6, rel=0.01)
    assert sizes["cxr_clip_swin"] == pytest.approx(136.0e6, rel=0.01)
    assert paper["ecamp"].config.vision_config.num_hidden_layers == 12
    assert [training.batch_size for training in paper.values()] == [128, 128, 256]


def test_batches_have_two_views_of_a_study_and_masked_words_of_a_report():
    tiny = trainings("tiny")
    studies = gpu_towers.cxr_clip_batch(tiny["cxr_clip_swin"].config, 3, "cpu", torch.float16)
    assert len(studies["pixel_values"]) == len(studies["input_ids"]) == 6
    assert (studies["attention_mask"].sum(dim=1) >= 16).all()
    reports = gpu_towers.ecamp_batch(tiny["ecamp"].config, 50, "cpu", torch.float16)
    asked = reports["labels"] != NOT_ASKED
    assert not asked[reports["attention_mask"] == 0].any()
    assert 0.6 < asked.sum() / reports["attention_mask"].sum() < 0.8


def test_without_a_gpu_nothing_is_measured_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "bench.json"
    main(str(path), device="cuda", architecture="paper", compiled=False, batch_size=None, num_steps=1)
    assert "No GPU here" in capsys.readouterr().out and not path.exists()
