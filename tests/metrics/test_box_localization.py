import json
import random
import time
from fractions import Fraction
from pathlib import Path

import evaluate
import numpy as np
import pytest

from litegpt.metrics.boxes import accuracy_at_iou, best_overlaps

METRIC = Path(__file__).parents[2] / "metrics" / "box_localization"
LABELS = ["Cardiomegaly", "Nodule/Mass", "Edema"]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def box(label, *xyxy):
    return {"label": label, "box": list(xyxy)}


def random_images(rng, count):
    """Boxes on a grid of hundredths, up to six an image, labels repeated within an image."""

    def random_box():
        x1, y1 = rng.randint(0, 60), rng.randint(0, 60)
        x2, y2 = rng.randint(x1 + 1, 100), rng.randint(y1 + 1, 100)
        return box(rng.choice(LABELS), x1 / 100, y1 / 100, x2 / 100, y2 / 100)

    return [[random_box() for _ in range(rng.choice([0, 1, 2, 6]))] for _ in range(count)]


def iou_by_counting_cells(a, b, inclusive):
    """IoU of boxes on the grid of hundredths, by painting both on a raster; inclusive boxes own their last cell."""

    def mask(xyxy):
        x1, y1, x2, y2 = (round(100 * value) for value in xyxy)
        cells = np.zeros((101, 101), dtype=bool)
        cells[y1 : y2 + inclusive, x1 : x2 + inclusive] = True
        return cells

    return (mask(a) & mask(b)).sum() / (mask(a) | mask(b)).sum()


def brute_force(predictions, references, threshold, inclusive=0, matched=False):
    hits = total = 0
    for image_predictions, image_references in zip(predictions, references, strict=True):
        for truth in image_references:
            rivals = [p["box"] for p in image_predictions if p["label"] == truth["label"]]
            if matched and not rivals:
                continue
            total += 1
            hits += any(iou_by_counting_cells(truth["box"], rival, inclusive) > threshold for rival in rivals)
    return hits / total


@pytest.mark.parametrize("seed", range(3))
def test_all_three_definitions_equal_counting_cells_of_a_raster(metric, seed):
    rng = random.Random(seed)
    references, predictions = random_images(rng, 60), random_images(rng, 60)
    thresholds = (0.123, 0.3, 0.456)
    results = metric.compute(predictions=predictions, references=references, thresholds=thresholds)
    for threshold in thresholds:
        key = str(threshold)
        assert results["accuracy_at_iou"][key] == pytest.approx(brute_force(predictions, references, threshold))
        matched = brute_force(predictions, references, threshold, matched=True)
        assert results["accuracy_at_iou_matched"][key] == pytest.approx(matched)
        release = brute_force(predictions, references, threshold, inclusive=1)
        assert results["accuracy_at_iou_release"][key] == pytest.approx(release)
    for label in LABELS:
        only = [[item for item in image if item["label"] == label] for image in references]
        assert results["per_class"][label]["num_boxes"] == sum(map(len, only))
        ours = results["per_class"][label]["accuracy_at_iou"]["0.3"]
        assert ours == pytest.approx(brute_force(predictions, only, 0.3))


def exact_iou(a, b, inclusive):
    """IoU of boxes in whole hundredths as a fraction; 0 where one of them is inside out, or flat and not inclusive."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    width = min(ax2, bx2) - max(ax1, bx1) + inclusive
    height = min(ay2, by2) - max(ay1, by1) + inclusive
    if width <= 0 or height <= 0:
        return Fraction(0)
    area_a = (ax2 - ax1 + inclusive) * (ay2 - ay1 + inclusive)
    area_b = (bx2 - bx1 + inclusive) * (by2 - by1 + inclusive)
    return Fraction(width * height, area_a + area_b - width * height)


@pytest.mark.parametrize("seed", range(4))
def test_odd_boxes_equal_exact_fractions(metric, seed):
    """Boxes of one cell, of the whole image, that touch at an edge, that are equal, flat or inside out."""
    rng = random.Random(seed)
    edges = [0, 1, 49, 50, 51, 99, 100]

    def odd_box(is_true):
        while True:
            x1, y1, x2, y2 = rng.choices(edges, k=4)
            if not is_true or (x1 < x2 and y1 < y2):
                return rng.choice(LABELS), (x1, y1, x2, y2)

    true = [[odd_box(True) for _ in range(rng.choice([0, 1, 3]))] for _ in range(80)]
    predicted = [[odd_box(False) for _ in range(rng.choice([0, 2, 5]))] for _ in range(80)]
    for image in range(0, 80, 5):
        predicted[image] = predicted[image] + true[image]
    thresholds = (0.00005, 0.123, 0.301, 0.456, 0.777)  # no fraction of these boxes is at one of them
    results = metric.compute(
        predictions=[[box(label, *(v / 100 for v in xyxy)) for label, xyxy in image] for image in predicted],
        references=[[box(label, *(v / 100 for v in xyxy)) for label, xyxy in image] for image in true],
        thresholds=thresholds,
    )
    for name, inclusive, matched in (("", 0, False), ("_matched", 0, True), ("_release", 1, False)):
        best = []
        for image_predicted, image_true in zip(predicted, true, strict=True):
            for label, xyxy in image_true:
                rivals = [exact_iou(xyxy, other, inclusive) for name, other in image_predicted if name == label]
                if rivals or not matched:
                    best.append(max(rivals, default=Fraction(0)))
        for threshold in thresholds:
            expected = sum(iou > threshold for iou in best) / len(best)
            assert results["accuracy_at_iou" + name][str(threshold)] == pytest.approx(expected)


@pytest.mark.parametrize("definition", ["all", "matched", "release"])
def test_weights_equal_images_that_are_really_repeated(definition):
    rng = random.Random(11)
    references, predictions = random_images(rng, 12), random_images(rng, 12)
    weights = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=25)
    weights[0], weights[1] = 1, 0
    overlaps = best_overlaps(predictions, references)
    accuracies = accuracy_at_iou(overlaps, 0.2, weights, definition)
    assert accuracies.shape == (25,) and np.isnan(accuracies[1])
    assert accuracies[0] == accuracy_at_iou(overlaps, 0.2, definition=definition)
    assert 0 < accuracies[0] < 1 and len(set(accuracies.tolist())) > 5
    for row, counts in enumerate(weights):
        repeated = (
            [image for image, n in zip(side, counts, strict=True) for _ in range(n)]
            for side in (predictions, references)
        )
        expected = accuracy_at_iou(best_overlaps(*repeated), 0.2, definition=definition)
        assert accuracies[row] == pytest.approx(expected, nan_ok=True)
        assert accuracy_at_iou(overlaps, 0.2, counts, definition) == pytest.approx(expected, nan_ok=True)
    with pytest.raises(ValueError, match="boxes in 12 images and weights for 3"):
        accuracy_at_iou(overlaps, 0.2, np.ones(3), definition)


def test_lengths_that_differ_are_an_error():
    with pytest.raises(ValueError, match="predictions for 1 images and references for 2"):
        best_overlaps([[]], [[], []])


def test_the_denominators_by_hand(metric):
    results = metric.compute(
        predictions=[[box("Edema", 0, 0, 0.5, 0.9)], [box("Edema", 0, 0, 1, 1)], []],
        references=[
            [box("Edema", 0, 0, 0.5, 0.5), box("Cardiomegaly", 0, 0, 0.5, 0.9)],  # IoU 5/9; label not named
            [box("Edema", 0, 0, 0.5, 0.5)],  # IoU 1/4
            [box("Edema", 0, 0, 1, 1)],  # no answer
        ],
    )
    assert results["accuracy_at_iou"] == {"0.3": 0.25, "0.4": 0.25, "0.5": 0.25}
    assert results["accuracy_at_iou_matched"] == {"0.3": 0.5, "0.4": 0.5, "0.5": 0.5}
    assert (results["num_boxes"], results["num_matched_boxes"]) == (4, 2)
    assert results["per_class"]["Cardiomegaly"] == {
        "num_boxes": 1,
        "accuracy_at_iou": {"0.3": 0.0, "0.4": 0.0, "0.5": 0.0},
    }


def test_inclusive_pixels_make_the_releases_iou_larger(metric):
    """Two boxes of 1 x 1 and 2 x 1 hundredths: 1/2 exactly, (2 x 2) / (3 x 2) with inclusive pixels."""
    results = metric.compute(
        predictions=[[box("Nodule/Mass", 0.5, 0.5, 0.51, 0.51)]],
        references=[[box("Nodule/Mass", 0.5, 0.5, 0.52, 0.51)]],
        thresholds=(0.4, 0.6, 0.7),
    )
    assert results["accuracy_at_iou"] == {"0.4": 1, "0.6": 0, "0.7": 0}
    assert results["accuracy_at_iou_release"] == {"0.4": 1, "0.6": 1, "0.7": 0}


def test_an_iou_at_the_threshold_does_not_count(metric):
    results = metric.compute(
        predictions=[[box("Edema", 0, 0, 0.5, 1)]], references=[[box("Edema", 0, 0, 1, 1)]], thresholds=(0.5, 0.49)
    )
    assert results["accuracy_at_iou"] == {"0.5": 0, "0.49": 1}


def test_a_box_never_counts_for_another_label_or_another_image(metric):
    results = metric.compute(
        predictions=[[box("Edema", 0, 0, 1, 1)], [box("Cardiomegaly", 0, 0, 1, 1)]],
        references=[[box("Cardiomegaly", 0, 0, 1, 1)], [box("Edema", 0, 0, 1, 1)]],
    )
    assert results["accuracy_at_iou"]["0.3"] == 0 and results["num_matched_boxes"] == 0
    assert results["accuracy_at_iou_matched"]["0.3"] is None


def test_duplicated_predictions_change_nothing(metric):
    rng = random.Random(7)
    references, predictions = random_images(rng, 30), random_images(rng, 30)
    once = metric.compute(predictions=predictions, references=references)
    assert once == metric.compute(predictions=[image * 3 for image in predictions], references=references)


@pytest.mark.parametrize("xyxy", [(1, 1, 0, 0), (0.9, 0, 0.1, 1), (0.5, 0.5, 0.5, 0.5)])
def test_a_predicted_box_inside_out_or_flat_overlaps_nothing(metric, xyxy):
    results = metric.compute(predictions=[[box("Edema", *xyxy)]], references=[[box("Edema", 0, 0, 1, 1)]])
    for name in ("accuracy_at_iou", "accuracy_at_iou_matched", "accuracy_at_iou_release"):
        assert results[name] == {"0.3": 0, "0.4": 0, "0.5": 0}


@pytest.mark.parametrize("images", [[], [[]], [[], []]])
def test_no_true_boxes_give_none_and_not_nan(metric, images):
    results = metric.compute(predictions=images, references=images)
    assert results["accuracy_at_iou"] == {"0.3": None, "0.4": None, "0.5": None}
    assert results["num_boxes"] == 0
    assert json.loads(json.dumps(results, allow_nan=False)) == results


@pytest.mark.parametrize("xyxy", [(0, 0, 200, 100), (-0.1, 0, 1, 1), (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1)])
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_a_box_outside_the_unit_square_is_an_error_that_names_the_image(metric, side, xyxy):
    inputs = {"predictions": [[], []], "references": [[], []]}
    inputs[side] = [[], [box("Edema", *xyxy)]]
    with pytest.raises(ValueError, match=rf"{side}\[1\] has the box .*not xyxy in \[0, 1\]"):
        metric.compute(**inputs)


def test_a_true_box_without_area_is_an_error(metric):
    with pytest.raises(ValueError, match="no area"):
        metric.compute(predictions=[[]], references=[[box("Edema", 0.5, 0.1, 0.5, 0.9)]])


def test_boxes_that_went_through_float32_are_accepted(metric):
    edge = float(np.float32(1.0) + np.finfo(np.float32).eps)
    results = metric.compute(predictions=[[box("Edema", 0, 0, edge, 1)]], references=[[box("Edema", 0, 0, edge, 1)]])
    assert results["accuracy_at_iou"]["0.5"] == 1


def test_three_thousand_answers_take_seconds(metric):
    """The test set of VinDr-CXR has 3,000 images; a loop over pairs of boxes would take minutes."""
    rng = random.Random(3)
    references, predictions = random_images(rng, 3000), random_images(rng, 3000)
    start = time.perf_counter()
    metric.compute(predictions=predictions, references=references)
    assert time.perf_counter() - start < 10


def test_an_iou_at_the_threshold_does_not_count_whatever_floats_make_of_it(metric):
    """0.5 exactly, of which floats make 0.5000000000000001 in some of these."""
    wide = [[{"label": "ILD", "box": [x / 100, 0.0, (x + 60) / 100, 1.0]}] for x in range(40)]
    half = [[{"label": "ILD", "box": [x / 100, 0.0, (x + 30) / 100, 1.0]}] for x in range(40)]
    results = metric.compute(predictions=half, references=wide)
    assert results["accuracy_at_iou"] == {"0.3": 1.0, "0.4": 1.0, "0.5": 0.0}
