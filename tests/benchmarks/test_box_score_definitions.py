import json

import numpy as np
import pytest

from litegpt.benchmarks.box_score_definitions import DEFINITIONS, WrittenBox, main, print_row
from litegpt.processing.answers import Finding
from litegpt.processing.box_scores import BoxProbabilities
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

SHORT_ANSWERS = (48, *ChestXrayFindingsPipeline._forward.__defaults__[1:])


def written(box, certain: float) -> WrittenBox:
    """A box whose coordinates have the probability `certain`; the rest lies evenly on all values."""
    coordinates = np.full((4, 101), (1 - certain) / 101)
    for side, value in enumerate(box):
        coordinates[side, round(100 * value)] += certain
    return WrittenBox(Finding("ILD", box), BoxProbabilities(1.0, 0.5, coordinates))


def test_a_row_of_the_table_ranks_right_above_wrong_boxes(capsys):
    right, wrong = written((0.1, 0.2, 0.5, 0.6), 0.9), written((0.6, 0.2, 0.9, 0.6), 0.3)
    truths = [[{"label": "ILD", "box": [0.1, 0.2, 0.5, 0.55]}], []]
    print_row("good", [[right], [wrong]], truths, [0.9, 0.3])
    print_row("bad", [[right], [wrong]], truths, [0.3, 0.9])
    good, bad = capsys.readouterr().out.splitlines()
    assert good == "| good | 1.000 | 1.000 | 1.000 | 0.200 |"
    assert bad.startswith("| bad | 0.000 | 0.500 | 0.500 |")


def test_near_coordinates_count_up_to_the_distance():
    box = written((0.1, 0.2, 0.5, 0.6), 0.0)
    assert box.coordinates() == pytest.approx([1 / 101] * 4)
    assert box.coordinates(near=2) == pytest.approx([5 / 101] * 4)
    assert written((0.0, 0.2, 0.5, 1.0), 0.0).coordinates(near=2)[[0, 3]] == pytest.approx([3 / 101] * 2)


def test_the_table_has_a_row_for_every_definition(tiny_checkpoint, phantom_release, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ChestXrayFindingsPipeline._forward, "__defaults__", SHORT_ANSWERS)
    main(
        str(tmp_path / "bench.json"),
        model_name_or_path=str(tiny_checkpoint),
        data_dir=str(phantom_release),
        cache_dir=str(tmp_path),
        split="test[:4]",
        batch_size=16,
    )
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in DEFINITIONS)


def test_the_auroc_of_our_definition_is_recorded_beside_that_of_another(
    tiny_checkpoint, phantom_release, tmp_path, monkeypatch
):
    monkeypatch.setattr(ChestXrayFindingsPipeline._forward, "__defaults__", SHORT_ANSWERS)
    monkeypatch.setattr("litegpt.benchmarks.box_score_definitions.auroc", lambda scores, right: 0.75)
    path = tmp_path / "bench.json"
    main(str(path), str(tiny_checkpoint), str(phantom_release), str(tmp_path), "test[:2]", batch_size=2)
    assert json.loads(path.read_text()) == {
        "box_score/auroc": {
            "value": 0.75,
            "unit": "AUROC",
            "against": "0.750 of label x coordinates (right above wrong boxes)",
        }
    }
