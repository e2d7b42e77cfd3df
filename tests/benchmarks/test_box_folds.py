"""Folds by patient of a small made-up release, and scores against values worked out by hand."""

import csv
import json

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from litegpt.benchmarks.box_folds import (
    NEVER,
    BoxFolds,
    Truth,
    box_folds,
    one_of_overlapping,
    prior_predictions,
    scores,
    share_met,
    table,
    train_and_test,
    write_fold,
)
from litegpt.datasets_scripts.rows import load_rows
from litegpt.datasets_scripts.vindr_cxr import LABEL_COLUMNS

SIDE = 64
LEFT, RIGHT, LOW = [0.1, 0.2, 0.3, 0.6], [0.6, 0.2, 0.8, 0.6], [0.3, 0.7, 0.7, 0.9]


def write(path, lines):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Train: two radiographs with a box of each of six patients, and six normal ones, one of a patient with boxes."""
    folder, manifest = tmp_path_factory.mktemp("release"), []
    (folder / "annotations").mkdir()
    names = {
        "train": [f"p{n}_{k}" for n in range(6) for k in range(2)] + [f"n{n}_0" for n in range(5)] + ["p0_9"],
        "test": ["t0_0", "t1_0", "t2_0", "t3_0"],
    }
    for split, ids in names.items():
        (folder / split).mkdir()
        boxes, labels = [], []
        for number, name in enumerate(ids):
            pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{name}.png")
            reader = {"rad_id": "A"} if split == "train" else {}
            normal = name[0] == "n" or name in ("p0_9", "t3_0")
            pneumonia = name in ("p1_0", "t2_0")  # has a box in the manifest alone
            shown = [] if normal or pneumonia else [("Cardiomegaly", LOW)]
            for label, box in shown or [("No finding", None)]:
                corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), box or [""] * 4, strict=True))
                corners = {key: value and value * SIDE for key, value in corners.items()}
                if box or normal:
                    boxes.append({"image_id": name, **reader, "class_name": label, **corners})
            said = {"No finding"} if normal else {"Pneumonia"} if pneumonia else {"Cardiomegaly"}
            labels.append({"image_id": name, **reader, **{label: int(label in said) for label in LABEL_COLUMNS}})
            listed = [(label, box) for label, box in [*shown, *([("Pneumonia", LEFT)] if pneumonia else [])]]
            listed = [{"label": label, "xyxy": (np.array(box) * SIDE).tolist()} for label, box in listed]
            patient = name.split("_")[0]
            manifest.append({"image": f"{split}/{name}.png", "patient_id": patient, "boxes": json.dumps(listed)})
        write(folder / "annotations" / f"annotations_{split}.csv", boxes)
        write(folder / "annotations" / f"image_labels_{split}.csv", labels)
    write(folder / "manifest.csv", manifest)
    return folder


@pytest.fixture(scope="module")
def folds(release, cache_dir):
    return box_folds(release, cache_dir)


def patients(folds, numbers):
    return {folds.patients[number] for number in numbers}


def test_no_patient_is_trained_on_before_it_is_tested(folds):
    assert folds.numbers == [0, 1, 2, 3]
    for fold in folds.numbers:
        train, test = folds.train_numbers(fold), folds.test_numbers(fold)
        assert patients(folds, train) & patients(folds, test) == set()
        assert len(patients(folds, test)) == (4 if fold == 0 else 2)
    # p0's normal radiograph is not tested, and not trained on when p0 is tested.
    number = folds.rows["image_id"][:].index("p0_9")
    assert not folds.tested[number]
    assert [number in folds.train_numbers(fold) for fold in (0, folds.fold[number])] == [True, False]


def test_the_test_split_is_fold_0_and_its_normal_ones_are_never_trained_on(folds):
    ids = folds.rows["image_id"][:]
    assert [ids[n] for n in folds.test_numbers(0)] == ["t0_0", "t1_0", "t2_0", "t3_0"]
    assert {ids[n] for n in folds.train_numbers(1)} >= {"t0_0", "t1_0", "t2_0"}
    assert all("t3_0" not in [ids[n] for n in folds.train_numbers(fold)] for fold in folds.numbers)


def test_a_box_of_pneumonia_is_learnt_as_an_opacity_and_tested_for_no_label(folds):
    row = folds.rows["image_id"][:].index("t2_0")
    names = folds.rows.features["findings"].feature["label"].names
    (finding,) = folds.rows[row]["findings"]
    assert names[finding["label"]] == "Lung Opacity" and finding["box"] == pytest.approx(LEFT)
    assert folds.truths[row] == Truth([pytest.approx(LEFT)], {})


def test_a_fold_is_written_as_a_release_with_the_same_rows(folds, tmp_path):
    folder = write_fold(folds, 1, tmp_path / "fold")
    for split, rows in (("train", folds.train_rows(1)), ("test", folds.test_rows(1))):
        read = load_rows(str(folder), split, str(tmp_path / "cache"))
        assert read["image_id"][:] == rows["image_id"][:]
        for row, other in zip(read, rows, strict=True):
            assert [f["label"] for f in row["findings"]] == [f["label"] for f in other["findings"]]
            boxes, others = ([f["box"] for f in r["findings"]] for r in (row, other))
            assert np.allclose(boxes, others, atol=1e-4)
            assert np.array_equal(row["image"], other["image"])
    before = (folder / "annotations" / "annotations_train.csv").stat().st_mtime_ns
    write_fold(folds, 1, folder)
    assert (folder / "annotations" / "annotations_train.csv").stat().st_mtime_ns == before


def test_boxes_that_overlap_their_mean_are_one():
    near = [0.12, 0.2, 0.32, 0.6]
    assert one_of_overlapping([LEFT, RIGHT, near]) == [pytest.approx([0.11, 0.2, 0.31, 0.6]), RIGHT]


# --- Scores ----------------------------------------------------------------------------------------------------------

TRUTHS = {
    "train": Truth([LEFT], {"X": [LEFT]}),
    "a": Truth([LEFT], {"X": [LEFT]}),
    "b": Truth([RIGHT], {"Y": [RIGHT]}),
    "c": Truth([LEFT, LOW], {"X": [LEFT], "Y": [LOW]}),
    "n": Truth([], {}),
}
PREDICTIONS = {
    "a": {"any": [(0.9, LEFT)], "labels": {"X": [(0.2, RIGHT), (0.6, LEFT)], "Y": [(0.1, LEFT)]}, "point": (0.2, 0.4)},
    "b": {"any": [(0.8, LOW)], "labels": {"Y": [(0.9, LOW)]}, "point": (0.2, 0.4)},
    "c": {"any": [(0.7, LEFT), (0.6, LEFT)], "labels": {"X": [(0.5, LEFT)]}, "point": (0.5, 0.8)},
    "n": {"any": [(0.95, LOW)]},
}


@pytest.fixture
def by_hand():
    tested = np.array([False, True, True, True, True])
    fold = np.where(tested, 0, NEVER)
    return BoxFolds(Dataset.from_dict({"image_id": list(TRUTHS)}), [""] * 5, fold, ~tested, tested, [*TRUTHS.values()])


def test_scores_are_those_worked_out_by_hand(by_hand):
    found = scores(by_hand, PREDICTIONS)
    # By falling score: wrong, right, wrong, right, wrong (a second box on the same place); four true boxes.
    assert found["figures"]["own"] == pytest.approx(
        {
            "ap_0.3": (1 / 2 + 2 / 4) / 4,
            "ap_0.5": (1 / 2 + 2 / 4) / 4,
            "found_at_1": 2 / 4,
            "found_at_4": 2 / 4,
            "top1": 2 / 3,
            "point": 2 / 3,
            "acc": 2 / 4,
        }
    )
    assert found["counts"]["boxed"] == 3 and found["counts"]["without a box"] == 1
    assert found["by_label"]["X"]["own"] == 1 and found["by_label"]["Y"]["own"] == 0
    low, high = found["intervals"]["own"]["acc"]
    assert low <= 0.5 <= high and low < high


def test_controls_are_those_worked_out_by_hand(by_hand):
    found = scores(by_hand, PREDICTIONS)["figures"]
    # a, b, c get the predictions of b, c, a, which find X of c alone, then those of c, a, b: X of a and Y of c.
    assert found["shuffled"]["acc"] == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert found["shuffled"]["top1"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    # The training box, LEFT, for X, and, as there is none of Y, for Y.
    assert found["prior"]["acc"] == 2 / 4 and found["prior"]["top1"] == pytest.approx(2 / 3)
    assert found["less_prior"]["acc"] == 0 and found["less_shuffled"]["acc"] == pytest.approx(1 / 8)
    assert prior_predictions(by_hand)["n"]["any"] == [(1.0, pytest.approx(LEFT))]


def test_others_predictions_are_compared_and_what_is_missing_is_not_scored(by_hand):
    alone = {name: {"labels": one.get("labels", {})} for name, one in PREDICTIONS.items()}
    found = scores(by_hand, alone, against={"other": PREDICTIONS})
    assert found["figures"]["own"] == {"acc": 0.5}
    assert found["figures"]["less_other"] == {"acc": 0.0} and found["intervals"]["less_other"]["acc"] == [0.0, 0.0]
    assert "| 0.500 [" in table({"alone": found})
    assert share_met([alone[name] for name in "abc"], [TRUTHS[name] for name in "abc"]) == 0.5
    with pytest.raises(KeyError):
        scores(by_hand, {"a": PREDICTIONS["a"]})


def test_any_two_sets_of_rows_make_one_fold(rows):
    folds = train_and_test(rows.select(range(16)), rows.select(range(16, 24)))
    assert folds.numbers == [0] and set(folds.train_numbers(0)) <= set(range(16))
    names = {number for number in range(16, 24) if folds.tested[number]}
    assert set(folds.test_numbers(0)) == names and names
