"""Which boxes are known, which labels are learnt, and what becomes of a head's answers."""

import numpy as np
import pytest
import torch

from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.tower_scores.detection import ANY
from litegpt.modeling_litegpt.modeling_detector import cells_of
from litegpt.train_scripts.dense_box_loss import cell_targets
from litegpt.train_scripts.tower_tasks.detection import Detection, boxes_are_known
from litegpt.train_scripts.views import Movement
from tests.small_finetune import entry, write_entries

# Tables that state labels of whole images too: one of boxes, one of boxes and another label, one of a label alone.
STATED = [
    entry(0, image_labels=[0]),
    entry(4, image_labels=[0, 1]),
    entry(1, image_labels=[1], diagnoses=[]),
    entry(3, image_labels=[], diagnoses=[1]),
    entry(2, image_labels=[1]),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    data = write_entries(folder / "squares", {"train": STATED}, ("image_labels",))
    return load_rows(data, "train", str(folder / "cache"))


def test_a_radiograph_with_labels_and_no_box_says_nothing_of_where(rows):
    assert boxes_are_known(rows).tolist() == [True, True, False, True, True]
    assert boxes_are_known(rows.remove_columns("image_labels")).all()


def test_of_a_label_that_no_box_shows_nothing_is_known(rows):
    truths = Detection.of(rows, None, 4).truths(rows)
    assert truths.known.tolist() == [[True, True], [True, False], [True, False], [True, True], [True, True]]
    targets = truths.targets([1], [Movement()])
    assert targets["known"].tolist() == [[1, 0, 1]]


def test_labels_without_a_training_box_are_left_out(rows):
    task = Detection.of(rows.select([0, 1, 3]), None, 4)
    assert task.labels == ["Mass"] and task.left_out == {"Nodule": "no training box"}
    assert Detection.of(rows, ["Nodule"], 4).truths(rows).positive.tolist() == [False, False, False, False, True]
    with pytest.raises(ValueError, match="no boxes of 'Tumor'"):
        Detection.of(rows, ["Tumor"], 4)
    with pytest.raises(ValueError, match="nothing to learn"):
        Detection.of(rows.select([3]), None, 4)


def test_boxes_move_with_the_radiograph(rows):
    truths = Detection.of(rows, None, 4).truths(rows)
    movement = Movement(scale=(1.2, 1.1), shift=(0.05, -0.02))
    (moved,) = [movement.findings(truths.findings[0])]
    expected = cell_targets([moved], cells_of(4), 2)
    targets = truths.targets([0], [movement])
    assert torch.equal(targets["inside"], expected.inside) and torch.equal(targets["boxes"], expected.boxes)
    assert not torch.equal(expected.boxes, truths.targets([0], [Movement()])["boxes"])


def test_the_right_answers_are_found_and_those_of_unknown_labels_are_not_given(rows):
    task = Detection.of(rows, None, 4)
    truths = task.truths(rows)
    answers = np.zeros((len(truths), 3, 6))
    for number, findings in enumerate(truths.findings):
        for place, channel in enumerate((0, 1, 2)):
            box = findings[0]["box"] if findings else [0.1, 0.1, 0.4, 0.4]
            answers[number, place] = [channel, 0.9 if findings else 0.0, *box]
    predictions = task.predictions(answers, truths)
    assert [box["label"] for box in predictions[0]] == ["Mass", "Nodule", ANY]
    assert [box["label"] for box in predictions[1]] == ["Mass", ANY] and predictions[3] == []
    figures = task.validation_figures(answers, truths)
    assert figures["ap_any_0.4"] == 1 and 0 < figures["map_0.4"] < 1
