"""Where the location prior of evaluated rows comes from, and that it never learns from the row it is given to."""

import datasets
import pytest

from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.row_priors import FOLDS, other_rows, row_priors
from tests.small_finetune import write_data

FEATURES = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "patient_id": datasets.Value("string"),
        "findings": datasets.List(
            {"label": datasets.ClassLabel(names=["Mass"]), "box": datasets.List(datasets.Value("float32"))}
        ),
        "diagnoses": datasets.List(datasets.ClassLabel(names=["No finding"])),
    }
)
LEFT, RIGHT = [0.0, 0.0, 0.25, 0.25], [0.5, 0.5, 1.0, 1.0]


def rows(boxes: list[list[float] | None], patients: list[str] | None = None, first: int = 0) -> datasets.Dataset:
    """A row for each box, or for None."""
    entries = {
        "image_id": [f"image{first + number}" for number in range(len(boxes))],
        "patient_id": patients or [""] * len(boxes),
        "findings": [[] if box is None else [{"label": 0, "box": box}] for box in boxes],
        "diagnoses": [[]] * len(boxes),
    }
    return datasets.Dataset.from_dict(entries, features=FEATURES)


def test_the_boxes_of_another_split_are_given_to_all():
    learnt = row_priors(rows([LEFT, None, LEFT]), rows([RIGHT, None, RIGHT, LEFT], first=9))
    assert learnt.source == {"split": "None", "folds": None, "radiographs_with_boxes": 3}
    assert len(learnt.priors) == 3 and all(prior is learnt.priors[0] for prior in learnt.priors)
    prior = learnt.priors[0]
    assert prior.best == {"Mass": RIGHT} and prior.places["Mass"] == pytest.approx((0.75, 0.75), abs=0.02)
    assert [(box["box"], box["score"]) for box in prior.boxes] == [(RIGHT, 2 / 4), (LEFT, 1 / 4)]


@pytest.mark.parametrize("others", [None, rows([None, None], first=30)])
def test_without_boxes_there_each_patient_gets_what_the_others_give(others):
    """The one patient with boxes on the right is given the others', and these are given his at most beside theirs."""
    patients = ["p"] * 3 + [f"q{number}" for number in range(12)]
    learnt = row_priors(rows([RIGHT] * 3 + [LEFT] * 12, patients), others)
    assert learnt.source == {"split": None, "folds": FOLDS, "radiographs_with_boxes": 15}
    assert all({tuple(box["box"]) for box in prior.boxes} == {tuple(LEFT)} for prior in learnt.priors[:3])
    assert len({id(prior) for prior in learnt.priors}) == FOLDS
    assert all(prior.best == {"Mass": LEFT} for prior in learnt.priors)


def test_nothing_learnt_is_nothing_given():
    (learnt,) = row_priors(rows([LEFT]), None).priors
    assert learnt.boxes == [] and learnt.best == learnt.places == {}
    assert row_priors(rows([]), None).priors == []


def test_a_slice_of_the_prior_split_is_left_out_of_it(tmp_path, cache_dir):
    data = write_data(tmp_path / "data", {"train": 8, "test": 4})

    def others(split: str, prior_split: str = "train"):
        return other_rows(data, prior_split, load_rows(data, split, cache_dir), cache_dir, 1)

    assert others("train[-3:]")["image_id"][:] == others("test")["image_id"][:5]
    assert len(others("test")) == 8 and len(others("test", "train[:2]")) == 2
    assert len(others("train")) == 0 and others("test", "validation") is None
