"""A checkpoint whose answers have something on both sides of its operating points, and a radiograph that shows it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def phantoms(phantom_release) -> list[Path]:
    return sorted((phantom_release / "test").glob("*.dicom"))


@pytest.fixture(scope="package")
def answered_checkpoint(tiny_checkpoint, phantoms, tmp_path_factory) -> tuple[Path, Path]:
    """A tiny checkpoint that names several findings of a phantom, of which some reach their points; that phantom."""
    import torch

    from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
    from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

    model, processor = load_checkpoint(tiny_checkpoint)
    pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor)
    files = [str(path) for path in phantoms]
    for seed in range(50):  # an untrained head says little: one after another until one names enough
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.lm_head.weight, std=0.3)
        scores = [sorted({finding["score"] for finding in output["findings"]}) for output in pipe(files)]
        number = max(range(len(scores)), key=lambda index: len(scores[index]))
        if len(scores[number]) >= 3:
            break
    point = (scores[number][0] + scores[number][-1]) / 2
    processor.score_thresholds = dict.fromkeys(processor.finding_labels, point)
    processor.candidate_thresholds = processor.view_thresholds = processor.score_thresholds
    folder = tmp_path_factory.mktemp("app") / "checkpoint"
    save_checkpoint(model, processor, folder)
    return folder, phantoms[number]


@pytest.fixture(scope="package")
def answerer(answered_checkpoint):
    from litegpt.inference_scripts.answerers import AnswerSettings, LocalAnswerer

    return LocalAnswerer(AnswerSettings(str(answered_checkpoint[0])))


@pytest.fixture
def desk(answerer, tmp_path):
    from litegpt.inference_scripts.app.desk import Desk

    (tmp_path / "uploads").mkdir()
    return Desk(answerer, tmp_path / "uploads")
