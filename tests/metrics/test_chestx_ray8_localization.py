import json
import random
import time
from pathlib import Path

import evaluate
import numpy as np
import pytest

METRIC = Path(__file__).parents[2] / "metrics" / "chestx_ray8_localization"
LABELS = ["Cardiomegaly", "Mass", "Nodule"]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def box(label, *xyxy):
    return {"label": label, "box": list(xyxy)}


def random_images(rng, count):
    """Boxes on a grid of fiftieths, up to six an image, labels repeated within an image."""

    def random_box():
        x1, y1 = rng.randint(0, 40), rng.randint(0, 40)
        x2, y2 = rng.randint(x1 + 1, 50), rng.randint(y1 + 1, 50)
        return box(rng.choice(LABELS), x1 / 50, y1 / 50, x2 / 50, y2 / 50)

    return [[random_box() for _ in range(rng.choice([0, 1, 2, 6]))] for _ in range(count)]


def mask(xyxy):
    x1, y1, x2, y2 = (round(50 * value) for value in xyxy)
    cells = np.zeros((50, 50), dtype=bool)
    cells[y1:y2, x1:x2] = True
    return cells


def ratio(truth, detected, name):
    """IoU or IoBB by painting both boxes on a raster and counting cells."""
    truth, detected = mask(truth), mask(detected)
    return (truth & detected).sum() / ((truth | detected).sum() if name == "iou" else detected.sum())


def brute_force(predictions, references, label, name, threshold):
    """(accuracy, false positives an image) by asking every pair of boxes."""
    hits = boxes = false = images = 0
    for image_predictions, image_references in zip(predictions, references, strict=True):
        if not image_references:
            continue
        images += 1
        truths = [item["box"] for item in image_references if item["label"] == label]
        detections = [item["box"] for item in image_predictions if item["label"] == label]
        boxes += len(truths)
        hits += sum(any(ratio(t, d, name) > threshold for d in detections) for t in truths)
        false += sum(not any(ratio(t, d, name) > threshold for t in truths) for d in detections)
    return hits / boxes, false / images


@pytest.mark.parametrize("seed", range(3))
def test_all_scores_equal_counting_cells_of_a_raster(metric, seed):
    rng = random.Random(seed)
    references, predictions = random_images(rng, 40), random_images(rng, 40)
    thresholds = (0.0123, 0.123, 0.456, 0.8)
    results = metric.compute(
        predictions=predictions, references=references, iou_thresholds=thresholds, iobb_thresholds=thresholds
    )
    assert results["num_images"] == sum(map(bool, references)) < 40
    assert results["num_boxes"] == sum(map(len, references))
    for label in LABELS:
        for name in ("iou", "iobb"):
            for threshold in thresholds:
                accuracy, false = brute_force(predictions, references, label, name, threshold)
                scores = results["per_class"][label]
                assert scores[f"accuracy_at_{name}"][str(threshold)] == pytest.approx(accuracy)
                assert scores[f"false_positives_at_{name}"][str(threshold)] == pytest.approx(false)


def test_the_papers_thresholds_and_scores_by_hand(metric):
    """Two true masses in two images, three detections: IoU and IoBB worked out on paper.

    The first mass is 0.4 x 0.3. One detection covers it and a strip of 0.1 below: IoU = IoBB = 12/16 = 0.75. One lies
    inside it, 0.1 x 0.1: IoU = 1/12, IoBB = 1. The second mass, 0.4 x 0.4, is missed; the detection of a mass in its
    image touches it at 0.1 x 0.1 of 0.2 x 0.5: IoU = 1/25, IoBB = 1/10. The third image has a nodule alone.
    """
    results = metric.compute(
        predictions=[
            [box("Mass", 0.1, 0.1, 0.5, 0.5), box("Mass", 0.2, 0.2, 0.3, 0.3)],
            [box("Mass", 0.4, 0.4, 0.6, 0.9)],
            [],
        ],
        references=[
            [box("Mass", 0.1, 0.1, 0.5, 0.4)],
            [box("Mass", 0.1, 0.1, 0.5, 0.5)],
            [box("Nodule", 0.1, 0.1, 0.2, 0.2)],
        ],
    )
    half, none, third = 1 / 2, 0.0, 1 / 3
    mass = results["per_class"]["Mass"]
    assert (mass["num_boxes"], mass["num_detections"]) == (2, 3)
    assert mass["accuracy_at_iou"] == dict.fromkeys(["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"], half)
    assert mass["false_positives_at_iou"] == dict.fromkeys(
        ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"], 2 * third
    )
    assert list(mass["accuracy_at_iobb"].values())[1:] == [half] * 4 and list(mass["accuracy_at_iobb"]) == [
        "0.1",
        "0.25",
        "0.5",
        "0.75",
        "0.9",
    ]
    assert mass["false_positives_at_iobb"]["0.25"] == mass["false_positives_at_iobb"]["0.5"] == third
    assert mass["false_positives_at_iobb"]["0.9"] == 2 * third
    nodule = results["per_class"]["Nodule"]
    assert set(nodule["accuracy_at_iou"].values()) == {none} and set(nodule["false_positives_at_iobb"].values()) == {0}
    assert (results["num_images"], results["num_boxes"]) == (3, 3)


def test_a_detection_twice_as_wide_and_high_has_a_quarter(metric):
    """The paper's own words for T(IoBB) = 0.25; it counts below that threshold and not at it."""
    results = metric.compute(
        predictions=[[box("Nodule", 0, 0, 0.5, 0.5)]],
        references=[[box("Nodule", 0, 0, 0.25, 0.25)]],
        iou_thresholds=(0.24, 0.25),
        iobb_thresholds=(0.24, 0.25),
    )["per_class"]["Nodule"]
    assert results["accuracy_at_iobb"] == results["accuracy_at_iou"] == {"0.24": 1, "0.25": 0}
    assert results["false_positives_at_iobb"] == results["false_positives_at_iou"] == {"0.24": 0, "0.25": 1}


def test_a_detection_inside_a_finding_has_iobb_one_and_a_finding_inside_a_detection_has_not(metric):
    small, large = box("Mass", 0.4, 0.4, 0.5, 0.5), box("Mass", 0, 0, 1, 1)
    inside = metric.compute(predictions=[[small]], references=[[large]])["per_class"]["Mass"]
    around = metric.compute(predictions=[[large]], references=[[small]])["per_class"]["Mass"]
    assert inside["accuracy_at_iobb"]["0.9"] == 1 and inside["accuracy_at_iou"]["0.1"] == 0
    assert around["accuracy_at_iobb"]["0.1"] == 0


def test_boxes_that_all_find_the_same_finding_are_not_false(metric):
    truth = box("Mass", 0, 0, 0.5, 0.5)
    scores = metric.compute(predictions=[[truth] * 3], references=[[truth]])["per_class"]["Mass"]
    assert set(scores["accuracy_at_iou"].values()) == {1.0} and set(scores["false_positives_at_iou"].values()) == {0.0}


def test_a_box_never_counts_for_another_label_or_another_image(metric):
    results = metric.compute(
        predictions=[[box("Mass", 0, 0, 1, 1)], [box("Nodule", 0, 0, 1, 1)]],
        references=[[box("Nodule", 0, 0, 1, 1)], [box("Mass", 0, 0, 1, 1)]],
    )
    for label in ("Mass", "Nodule"):
        assert set(results["per_class"][label]["accuracy_at_iobb"].values()) == {0.0}
        assert set(results["per_class"][label]["false_positives_at_iobb"].values()) == {0.5}


def test_images_without_a_true_box_do_not_enter(metric):
    boxed = {"predictions": [[box("Mass", 0, 0, 0.1, 0.1)]], "references": [[box("Mass", 0.5, 0.5, 0.9, 0.9)]]}
    alone = metric.compute(**boxed)
    unboxed = metric.compute(
        predictions=[[box("Nodule", 0, 0, 1, 1)], *boxed["predictions"], []], references=[[], *boxed["references"], []]
    )
    assert unboxed == alone and unboxed["num_images"] == 1


def test_a_label_that_is_only_detected_has_false_positives_and_no_accuracy(metric):
    results = metric.compute(
        predictions=[[box("Nodule", 0, 0, 1, 1)], []],
        references=[[box("Mass", 0, 0, 1, 1)], [box("Mass", 0, 0, 1, 1)]],
        iou_thresholds=(0.5,),
    )["per_class"]["Nodule"]
    assert results["accuracy_at_iou"] == {"0.5": None} and results["false_positives_at_iou"] == {"0.5": 0.5}


@pytest.mark.parametrize("xyxy", [(1, 1, 0, 0), (0.9, 0, 0.1, 1), (0.5, 0.5, 0.5, 0.5)])
def test_a_predicted_box_inside_out_or_flat_is_a_false_positive(metric, xyxy):
    scores = metric.compute(predictions=[[box("Mass", *xyxy)]], references=[[box("Mass", 0, 0, 1, 1)]])["per_class"]
    for name in ("iou", "iobb"):
        assert set(scores["Mass"][f"accuracy_at_{name}"].values()) == {0.0}
        assert set(scores["Mass"][f"false_positives_at_{name}"].values()) == {1.0}


@pytest.mark.parametrize("images", [[], [[]], [[], []]])
def test_no_true_boxes_give_no_class(metric, images):
    results = metric.compute(predictions=images, references=images)
    assert results == {"per_class": {}, "num_images": 0, "num_boxes": 0}
    assert json.loads(json.dumps(results, allow_nan=False)) == results


@pytest.mark.parametrize("xyxy", [(0, 0, 200, 100), (-0.1, 0, 1, 1), (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1)])
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_a_box_outside_the_unit_square_is_an_error_that_names_the_image(metric, side, xyxy):
    inputs = {"predictions": [[], []], "references": [[], []]}
    inputs[side] = [[], [box("Mass", *xyxy)]]
    with pytest.raises(ValueError, match=rf"{side}\[1\] has the box .*not xyxy in \[0, 1\]"):
        metric.compute(**inputs)


def test_a_true_box_without_area_is_an_error(metric):
    with pytest.raises(ValueError, match="no area"):
        metric.compute(predictions=[[]], references=[[box("Mass", 0.5, 0.1, 0.5, 0.9)]])


def test_three_thousand_answers_take_seconds(metric):
    rng = random.Random(3)
    references, predictions = random_images(rng, 3000), random_images(rng, 3000)
    start = time.perf_counter()
    metric.compute(predictions=predictions, references=references)
    assert time.perf_counter() - start < 10
