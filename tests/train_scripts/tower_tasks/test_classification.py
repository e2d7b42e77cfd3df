"""Labels and their losses: unknown ones are left out, single ones are held to be single."""

import datasets
import numpy as np
import pytest
import torch
from torch.nn import functional

from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.rows import load_rows
from litegpt.train_scripts.tower_tasks.classification import Classification, SingleLabel
from tests.small_finetune import entry, write_entries

NAMES = ["Edema", "Mass", "No finding"]
POSITIVE, NEGATIVE, UNCERTAIN = range(3)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    data = write_entries(folder / "squares", {"train": [entry(number) for number in range(8)]})
    return load_rows(data, "train", str(folder / "cache"))


def mentioned(*states: dict[int, int]) -> datasets.Dataset:
    """Rows of reports; each says what is the state of which label."""
    features = row_features([], NAMES, ("mentioned",))
    entries = [
        {
            **{name: values for name, values in entry(number).items() if name in features},
            "findings": [],
            "diagnoses": [label for label, state in said.items() if state == POSITIVE],
            "mentioned": [{"label": label, "state": state} for label, state in said.items()],
        }
        for number, said in enumerate(states)
    ]
    return datasets.Dataset.from_list(entries, features)


def test_labels_are_those_of_the_data_without_no_finding_that_can_be_learnt(rows):
    task = Classification.of(rows, None, False)
    assert task.labels == ["Mass", "Nodule", "Tumor"] and task.left_out == {}
    task = Classification.of(rows.select([0, 1]), None, False)
    assert task.labels == ["Mass", "Tumor"] and "Nodule" in task.left_out
    assert Classification.of(rows, ["Nodule"], False).labels == ["Nodule"]
    with pytest.raises(ValueError, match="no label 'Edema'"):
        Classification.of(rows, ["Edema"], False)
    with pytest.raises(ValueError, match="nothing to learn"):
        Classification.of(rows.select([1, 3]), None, False)


def test_an_unknown_label_is_left_out_and_takes_no_weight_from_others():
    rows = mentioned({0: POSITIVE, 1: NEGATIVE}, {0: NEGATIVE}, {1: POSITIVE, 0: UNCERTAIN})
    task = Classification.of(rows, None, False)
    truths = task.truths(rows)
    assert np.array_equal(truths.labels, [[1, 0], [0, np.nan], [np.nan, 1]], equal_nan=True)
    assert truths.positive.tolist() == [True, False, True]
    logits = torch.randn(3, 2, requires_grad=True)
    loss = task.loss(logits, truths.targets([0, 1, 2], []))
    loss.backward()
    known = [(0, 0, 1.0), (0, 1, 0.0), (1, 0, 0.0), (2, 1, 1.0)]
    expected = sum(
        functional.binary_cross_entropy_with_logits(logits[row, label], torch.tensor(truth))
        for row, label, truth in known
    )
    torch.testing.assert_close(loss, expected / 6)
    assert logits.grad[1, 1] == 0 and logits.grad[2, 0] == 0 and (logits.grad != 0).sum() == 4


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    rows = mentioned({0: POSITIVE, 1: NEGATIVE}, {0: NEGATIVE}, {1: POSITIVE}, {0: POSITIVE})
    task = Classification.of(rows, None, False)
    truths, logits = task.truths(rows), torch.randn(4, 2)
    parts = [task.loss(logits[part], truths.targets(part, [])) for part in ([0, 1], [2, 3])]
    torch.testing.assert_close(task.loss(logits, truths.targets([0, 1, 2, 3], [])), sum(parts) / 2)


def test_what_a_report_does_not_mention_is_negative_where_one_says_so(rows):
    said = mentioned({0: POSITIVE}, {1: UNCERTAIN}, {1: POSITIVE})
    task = Classification.of(said, None, True)
    assert np.array_equal(task.truths(said).labels, [[1, 0], [0, np.nan], [0, 1]], equal_nan=True)
    with pytest.raises(ValueError, match="not read out of reports"):
        Classification.of(rows, None, True)


def test_one_diagnosis_each_is_a_class(tmp_path):
    names = ["COVID-19", "Normal", "Pneumonia"]
    entries = [entry(number, findings=[], diagnoses=[number % 3]) for number in range(6)]
    data = write_entries(tmp_path / "classes", {"train": entries}, diagnoses=names)
    rows = load_rows(data, "train", str(tmp_path / "cache"))
    task = SingleLabel.of(rows, None, False)
    truths = task.truths(rows)
    assert task.labels == names and truths.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert truths.positive.tolist() == [True, False, True, True, False, True]
    logits = torch.randn(6, 3)
    torch.testing.assert_close(
        task.loss(logits, truths.targets(range(6), [])), functional.cross_entropy(logits, torch.arange(6) % 3)
    )
    assert task.validation_figures(np.eye(3)[[0, 1, 2, 0, 1, 1]], truths) == {"accuracy": pytest.approx(5 / 6)}


def test_several_diagnoses_are_no_class_and_the_image_is_named(tmp_path):
    entries = [entry(0, diagnoses=[0]), entry(1, diagnoses=[0, 1])]
    data = write_entries(tmp_path / "classes", {"train": entries})
    with pytest.raises(ValueError, match="image1: has 2 diagnoses"):
        SingleLabel.of(load_rows(data, "train", str(tmp_path / "cache")), None, False)
