import doctest
import json
import random
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import evaluate
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from litegpt.metrics.box_detection import box_detection
from litegpt.metrics.boxes import (
    FALSE_POSITIVES,
    average_precision,
    froc_curve,
    froc_sensitivities,
    match,
    mean_average_precision,
    precision_recall_curve,
)

METRIC = Path(__file__).parents[2] / "metrics" / "box_detection"
LABELS = ["Cardiomegaly", "Nodule/Mass", "Pneumothorax"]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def truth(label, *xyxy):
    return {"label": label, "box": list(xyxy)}


def detection(score, label, *xyxy):
    return {"label": label, "box": list(xyxy), "score": score}


def on_grid(rng, size=10):
    """Corners on a coarse grid, so that boxes repeat, share edges and have an IoU exactly at a threshold."""
    x1, y1 = rng.randrange(size), rng.randrange(size)
    x2, y2 = rng.randint(x1 + 1, size), rng.randint(y1 + 1, size)
    return [x1 / size, y1 / size, x2 / size, y2 / size]


def coarse_images(rng, count):
    """Adversarial: few distinct scores and boxes, duplicates, boxes inside out or flat, labels on one side only."""
    predictions, references = [], []
    for _ in range(count):
        references.append([truth(rng.choice(LABELS), *on_grid(rng)) for _ in range(rng.choice([0, 1, 4, 12]))])
        image = [
            detection(rng.choice([0.0, 0.25, 0.5, 1.0]), rng.choice([*LABELS, "Edema"]), *on_grid(rng))
            for _ in range(rng.choice([0, 1, 6, 20]))
        ]
        for true in references[-1]:
            if rng.random() < 0.7:
                image.append(detection(rng.choice([0.25, 0.5, 1.0]), true["label"], *true["box"]))
        if image and rng.random() < 0.3:
            image.append(dict(rng.choice(image)))
        if image and rng.random() < 0.3:
            x1, y1, x2, y2 = image[0]["box"]
            image.append({**image[0], "box": rng.choice([[x2, y1, x1, y2], [x2, y2, x1, y1], [x1, y1, x1, y2]])})
        predictions.append(image)
    return predictions, references


def smooth_images(rng, count):
    """No two scores and no two boxes are equal."""

    def jitter(value):
        return min(1.0, max(0.0, value + rng.gauss(0, 0.025)))

    predictions, references = [], []
    for _ in range(count):
        image = []
        for _ in range(rng.choice([0, 1, 2, 4])):
            x1, y1 = rng.uniform(0, 0.7), rng.uniform(0, 0.7)
            image.append(truth(rng.choice(LABELS), x1, y1, x1 + rng.uniform(0.1, 0.3), y1 + rng.uniform(0.1, 0.3)))
        references.append(image)
        guesses = [
            detection(rng.random(), true["label"], *map(jitter, true["box"])) for true in image for _ in range(2)
        ]
        guesses += [detection(rng.random(), rng.choice(LABELS), *on_grid(rng)) for _ in range(rng.choice([0, 2]))]
        predictions.append(guesses)
    return predictions, references


def slow_iou(a, b):
    """Exact, for corners that are hundredths."""
    a, b = ([Fraction(round(100 * value), 100) for value in box] for box in (a, b))
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return Fraction(0)
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (area_a + area_b - width * height)


def slow_hits(predictions, references, threshold):
    """[(score, label, is true)] by asking box after box."""
    hits = []
    for detected, true in zip(predictions, references, strict=True):
        free = sorted(true, key=lambda item: item["box"])
        for item in sorted(detected, key=lambda item: (-item["score"], item["box"])):
            found = None
            for candidate in free:
                iou = slow_iou(item["box"], candidate["box"])
                if candidate["label"] == item["label"] and iou > Fraction(str(threshold)):
                    if found is None or iou > slow_iou(item["box"], found["box"]):
                        found = candidate
            if found is not None:
                free.remove(found)
            hits.append((item["score"], item["label"], found is not None))
    return hits


def slow_points(hits):
    """[(true, false detections)] of at least each score."""
    return [
        (sum(h[2] for h in hits if h[0] >= cut), sum(not h[2] for h in hits if h[0] >= cut))
        for cut in sorted({h[0] for h in hits}, reverse=True)
    ]


def slow_average_precision(hits, references, label):
    """Each true box weighs the same: the k-th has the best precision at which k or more are found."""
    count = sum(item["label"] == label for image in references for item in image)
    points = slow_points([h for h in hits if h[1] == label])
    best = [max([Fraction(t, t + f) for t, f in points if t >= k], default=0) for k in range(1, count + 1)]
    return float(sum(best) / Fraction(count))


def slow_sensitivity(hits, references, rate):
    count, allowed = sum(map(len, references)), Fraction(rate) * len(references)
    points = [(0, 0), *slow_points(hits)]
    reached = max(i for i, (_, false) in enumerate(points) if false <= allowed)
    true, false = points[reached]
    if reached + 1 < len(points):
        next_true, next_false = points[reached + 1]
        true += (next_true - true) * (allowed - false) / Fraction(next_false - false)
    return float(true / Fraction(count))


@pytest.mark.parametrize("seed", range(6))
def test_all_scores_equal_a_slow_implementation_of_the_definitions(metric, seed):
    predictions, references = coarse_images(random.Random(seed), 30)
    thresholds = (0.2, 0.4, 0.5)
    results = metric.compute(predictions=predictions, references=references, thresholds=thresholds)
    for threshold in thresholds:
        key, hits = str(threshold), slow_hits(predictions, references, threshold)
        assert any(hit[2] for hit in hits) and not all(hit[2] for hit in hits)
        expected = {label: slow_average_precision(hits, references, label) for label in LABELS}
        assert {label: v[key] for label, v in results["average_precision"].items()} == pytest.approx(expected)
        assert results["map"][key] == pytest.approx(sum(expected.values()) / len(expected))
        froc = {f"{rate:g}": slow_sensitivity(hits, references, rate) for rate in FALSE_POSITIVES}
        assert results["froc"][key]["sensitivity"] == pytest.approx(froc)
        assert results["froc"][key]["mean"] == pytest.approx(sum(froc.values()) / 7)
    assert results["num_boxes"] == sum(map(len, references))
    assert results["num_detections"] == sum(map(len, predictions))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.5, 0.75])
def test_average_precision_equals_pycocotools(seed, threshold):
    """COCO reads the envelope at fixed recalls: in the middle between two true boxes each, their mean is the area."""
    predictions, references = smooth_images(random.Random(seed), 40)

    def coco_boxes(images):
        items = [(image, item) for image, items in enumerate(images) for item in items]
        for number, (image, item) in enumerate(items, start=1):
            x1, y1, x2, y2 = item["box"]
            yield {
                "id": number,
                "image_id": image,
                "category_id": LABELS.index(item["label"]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": max(x2 - x1, 0) * max(y2 - y1, 0),
                "iscrowd": 0,
                "score": item.get("score"),
            }

    data = {
        "images": [{"id": image} for image in range(40)],
        "categories": [{"id": i} for i in range(3)],
        "info": {},
    }
    true, detected = COCO(), COCO()
    true.dataset, detected.dataset = (
        {**data, "annotations": list(coco_boxes(images))} for images in (references, predictions)
    )
    true.createIndex()
    detected.createIndex()

    ours = average_precision(match(predictions, references, threshold))
    assert set(ours) == set(LABELS)
    for number, label in enumerate(LABELS):
        count = sum(item["label"] == label for image in references for item in image)
        evaluation = COCOeval(true, detected, "bbox")
        evaluation.params.iouThrs = np.array([threshold])
        evaluation.params.recThrs = (np.arange(count) + 0.5) / count
        evaluation.params.catIds, evaluation.params.maxDets = [number], [1000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        expected = evaluation.eval["precision"].mean()
        assert 0 < expected < 1
        assert ours[label] == pytest.approx(expected, abs=1e-9)


def test_average_precision_by_hand(metric):
    """Two true boxes; by falling score: true, false, true. Precision 1, 1/2, 2/3, so the area is (1 + 2/3) / 2."""
    results = metric.compute(
        predictions=[
            [detection(0.9, "Edema", 0, 0, 0.5, 0.5), detection(0.8, "Edema", 0.5, 0.5, 1, 1)],
            [detection(0.7, "Edema", 0, 0, 0.5, 0.4)],  # IoU 0.8
        ],
        references=[[truth("Edema", 0, 0, 0.5, 0.5)], [truth("Edema", 0, 0, 0.5, 0.5)]],
        thresholds=(0.5, 0.9),
    )
    assert results["average_precision"] == {"Edema": {"0.5": pytest.approx(5 / 6), "0.9": 0.5}}
    # One false positive in two images: the second true box is reached at 1/2 an image.
    sensitivity = {"0.125": 0.5, "0.25": 0.5, "0.5": 1.0, "1": 1.0, "2": 1.0, "4": 1.0, "8": 1.0}
    assert results["froc"]["0.5"] == {"sensitivity": sensitivity, "mean": pytest.approx(6 / 7)}
    assert set(results["froc"]["0.9"]["sensitivity"].values()) == {0.5}  # the curve keeps its last sensitivity


def test_the_precision_has_an_envelope():
    """By falling score: false, true, true, true of three true boxes: 3/4 at every recall, not 1/2, 2/3, 3/4."""
    boxes = [(0, 0, 0.2, 0.2), (0.3, 0.3, 0.5, 0.5), (0.6, 0.6, 0.8, 0.8)]
    detected = [detection(0.9 - i / 10, "Edema", *box) for i, box in enumerate([(0, 0, 1, 1), *boxes])]
    matches = match([detected], [[truth("Edema", *box) for box in boxes]], 0.4)
    assert mean_average_precision(matches) == pytest.approx(0.75)
    recall, precision, score = precision_recall_curve(matches)
    assert recall == pytest.approx([0, 1 / 3, 2 / 3, 1]) and precision == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4])
    assert score == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_a_second_box_on_the_same_finding_is_a_false_positive():
    box = (0.1, 0.1, 0.6, 0.6)
    matches = match([[detection(0.5, "Edema", *box), detection(0.7, "Edema", *box)]], [[truth("Edema", *box)]], 0.4)
    assert matches.score.tolist() == [0.7, 0.5] and matches.is_true.tolist() == [True, False]


def test_one_detection_over_two_true_boxes_finds_one():
    references = [[truth("Edema", 0, 0, 0.5, 1), truth("Edema", 0, 0, 0.6, 1)]]
    matches = match([[detection(0.9, "Edema", 0, 0, 0.55, 1)]], references, 0.4)
    assert matches.is_true.tolist() == [True] and mean_average_precision(matches) == 0.5
    assert froc_sensitivities(matches, 1).tolist() == [0.5] * 7


def test_a_detection_takes_the_next_best_true_box_where_the_best_is_taken():
    """COCO's rule; PASCAL VOC's own code would call the second detection false."""
    references = [[truth("Edema", 0, 0, 0.5, 1), truth("Edema", 0.1, 0, 0.6, 1)]]
    predictions = [[detection(0.9, "Edema", 0, 0, 0.5, 1), detection(0.8, "Edema", 0.02, 0, 0.52, 1)]]
    assert match(predictions, references, 0.4).is_true.tolist() == [True, True]


@pytest.mark.parametrize(
    ("detected", "true", "iou"),
    [
        ((0, 0, 0.5, 1), (0, 0, 1, 1), 0.5),
        ((0, 0, 0.4, 1), (0, 0, 1, 1), 0.4),
        ((0.1, 0.1, 0.3, 0.7), (0.1, 0.1, 0.4, 0.9), 0.5),  # 0.5000000000000001 in floats
        ((0.27, 0.32, 0.37, 0.52), (0.27, 0.32, 0.52, 0.52), 0.4),  # 0.4000000000000001
    ],
)
def test_an_iou_at_the_threshold_does_not_count_also_where_floats_round_it_up(detected, true, iou):
    predictions, references = [[detection(0.9, "Edema", *detected)]], [[truth("Edema", *true)]]
    assert not match(predictions, references, iou).is_true[0]
    assert match(predictions, references, iou - 1e-6).is_true[0]


def test_a_box_never_counts_for_another_label_or_another_image():
    everywhere = (0, 0, 1, 1)
    predictions = [[detection(0.9, "Edema", *everywhere)], [detection(0.8, "ILD", *everywhere)]]
    matches = match(predictions, [[truth("ILD", *everywhere)], [truth("Edema", *everywhere)]], 0.4)
    assert not matches.is_true.any()


@pytest.mark.parametrize("xyxy", [(1, 1, 0, 0), (0.9, 0, 0.1, 1), (0.5, 0.5, 0.5, 0.5)])
def test_a_detection_inside_out_or_flat_is_a_false_positive(xyxy):
    matches = match([[detection(0.9, "Edema", *xyxy)]], [[truth("Edema", 0, 0, 1, 1)]], 0.0)
    assert matches.is_true.tolist() == [False]


def test_labels_on_one_side_only(metric):
    """A label that is only true has 0 and counts in mAP; one that is only detected costs in FROC alone."""
    results = metric.compute(
        predictions=[[detection(0.9, "Mass", 0, 0, 1, 1), detection(0.8, "Edema", 0, 0, 1, 1)]],
        references=[[truth("Edema", 0, 0, 1, 1), truth("ILD", 0, 0, 1, 1)]],
        thresholds=(0.4,),
    )
    assert results["average_precision"] == {"Edema": {"0.4": 1.0}, "ILD": {"0.4": 0.0}}
    assert results["map"] == {"0.4": 0.5}
    assert results["froc"]["0.4"]["sensitivity"] == {
        **dict.fromkeys(["0.125", "0.25", "0.5"], 0.0),
        **dict.fromkeys(["1", "2", "4", "8"], 0.5),
    }


def test_images_without_any_box_count_in_froc_alone():
    predictions, references = smooth_images(random.Random(1), 20)
    alone = match(predictions, references, 0.4)
    padded = match([[], *predictions, *[[]] * 19], [[], *references, *[[]] * 19], 0.4)
    assert mean_average_precision(padded) == mean_average_precision(alone)
    at_twice = froc_sensitivities(padded, 40, false_positives=(0.125, 0.25))
    assert at_twice == pytest.approx(froc_sensitivities(alone, 20, false_positives=(0.25, 0.5)))


def test_equal_scores_are_one_point():
    """A true and a false detection of one score: precision 1/2, and a straight line of the FROC."""
    box = (0.1, 0.1, 0.5, 0.5)
    image = [detection(0.9, "Edema", *box), detection(0.9, "Edema", 0.6, 0.6, 1, 1)]
    for order in (image, image[::-1]):
        matches = match([order], [[truth("Edema", *box)]], 0.4)
        assert mean_average_precision(matches) == 0.5
        assert froc_sensitivities(matches, 1).tolist() == [0.125, 0.25, 0.5, 1, 1, 1, 1]
        for points, expected in zip(froc_curve(matches, 1), ([1.0], [1.0], [0.9]), strict=True):
            assert points.tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_no_score_depends_on_the_order_of_images_or_boxes(metric, seed):
    rng = random.Random(seed)
    predictions, references = coarse_images(rng, 30)
    results = metric.compute(predictions=predictions, references=references)
    for _ in range(3):
        order = rng.sample(range(30), 30)
        shuffled = [[rng.sample(side[i], len(side[i])) for i in order] for side in (predictions, references)]
        assert metric.compute(predictions=shuffled[0], references=shuffled[1]) == results


def test_of_two_equally_good_true_boxes_the_order_of_the_input_does_not_choose():
    """The first detection lies between both; the second finds the right one alone, if it is still free."""
    true = [truth("Edema", 0, 0, 0.5, 1), truth("Edema", 0.25, 0, 0.75, 1)]
    detected = [detection(0.9, "Edema", 0.125, 0, 0.625, 1), detection(0.8, "Edema", 0.5, 0, 1, 1)]
    for order in (true, true[::-1]):
        assert match([detected], [order], 0.3).is_true.tolist() == [True, True]


def test_scores_only_rank():
    predictions, references = coarse_images(random.Random(5), 30)
    other = [[{**item, "score": 5 * item["score"] - 100} for item in image] for image in predictions]
    one, two = match(predictions, references, 0.4), match(other, references, 0.4)
    assert average_precision(one) == average_precision(two)
    assert froc_sensitivities(one, 30).tolist() == froc_sensitivities(two, 30).tolist()


@pytest.mark.parametrize("make_images", [coarse_images, smooth_images])
def test_weights_equal_images_that_are_really_repeated(make_images):
    predictions, references = make_images(random.Random(8), 12)
    matches = match(predictions, references, 0.4)
    weights = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=25)
    weights[0] = 1
    means, precisions = mean_average_precision(matches, weights), average_precision(matches, weights)
    sensitivities = froc_sensitivities(matches, 12, weights=weights)
    assert means.shape == (25,) and sensitivities.shape == (25, 7)
    assert means[0] == pytest.approx(mean_average_precision(matches))
    for row, counts in enumerate(weights):
        repeated = match(
            *(
                [image for image, n in zip(side, counts, strict=True) for _ in range(n)]
                for side in (predictions, references)
            ),
            0.4,
        )
        assert means[row] == pytest.approx(mean_average_precision(repeated))
        assert mean_average_precision(matches, counts) == pytest.approx(means[row])
        assert sensitivities[row] == pytest.approx(froc_sensitivities(repeated, 12))
        assert froc_sensitivities(matches, 12, weights=counts) == pytest.approx(sensitivities[row])
        expected = average_precision(repeated)
        for label in LABELS:
            assert precisions[label][row] == pytest.approx(expected.get(label, np.nan), nan_ok=True)


def test_a_label_without_weight_is_left_out_of_that_resamples_mean():
    box = (0, 0, 0.5, 0.5)
    matches = match([[detection(0.9, "Edema", *box)], [], []], [[truth("Edema", *box)], [truth("ILD", *box)], []], 0.4)
    weights = np.array([[1, 1, 1], [3, 0, 0], [0, 3, 0], [0, 0, 3]])
    assert mean_average_precision(matches, weights) == pytest.approx([0.5, 1, 0, np.nan], nan_ok=True)
    assert froc_sensitivities(matches, 3, (1,), weights)[:, 0] == pytest.approx([0.5, 1, 0, np.nan], nan_ok=True)


def test_chunks_of_resamples_change_nothing(monkeypatch):
    matches = match(*smooth_images(random.Random(2), 15), 0.4)
    weights = np.random.default_rng(0).integers(0, 3, (7, 15))
    whole = mean_average_precision(matches, weights), froc_sensitivities(matches, 15, weights=weights)
    monkeypatch.setattr("litegpt.metrics.boxes.CHUNK", 2 * len(matches.image))
    assert mean_average_precision(matches, weights).tolist() == whole[0].tolist()
    assert froc_sensitivities(matches, 15, weights=weights).tolist() == whole[1].tolist()


@pytest.mark.parametrize("images", [[], [[]], [[], []]])
def test_no_true_boxes_give_none_and_not_nan(metric, images):
    results = metric.compute(predictions=images, references=images)
    assert results["map"] == {"0.4": None, "0.5": None} and results["average_precision"] == {}
    assert results["froc"]["0.4"]["mean"] is None and set(results["froc"]["0.4"]["sensitivity"].values()) == {None}
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    matches = match(images, images, 0.4)
    assert np.isnan(mean_average_precision(matches))
    assert np.isnan(mean_average_precision(matches, np.ones((3, 2)))).tolist() == [True] * 3
    assert [len(points) for points in (*precision_recall_curve(matches), *froc_curve(matches, 2))] == [0] * 6


def test_no_detections_give_zero(metric):
    results = metric.compute(predictions=[[], []], references=[[truth("Edema", 0, 0, 1, 1)], []])
    assert results["map"]["0.4"] == 0 and results["froc"]["0.4"]["mean"] == 0


def test_the_curve_of_one_label_and_of_all():
    predictions, references = smooth_images(random.Random(4), 30)
    matches = match(predictions, references, 0.4)
    for label in (None, *LABELS):
        chosen = [i for i in range(len(matches.score)) if label is None or matches.label[i] == label]
        positives = sum(label is None or name == label for name in matches.true_label)
        recall, precision, score = precision_recall_curve(matches, label)
        hits = np.cumsum(matches.is_true[chosen])
        assert recall == pytest.approx(hits / positives)
        assert precision == pytest.approx(hits / np.arange(1, len(chosen) + 1))
        assert score.tolist() == matches.score[chosen].tolist()
    false, sensitivity, score = froc_curve(matches, 30)
    assert false == pytest.approx(np.cumsum(~matches.is_true) / 30)
    assert sensitivity == pytest.approx(np.cumsum(matches.is_true) / len(matches.true_label))
    assert score.tolist() == matches.score.tolist() == sorted(matches.score, reverse=True)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_score_that_is_no_number_is_an_error_that_names_the_image(metric, score):
    predictions = [[], [detection(0.5, "Edema", 0, 0, 1, 1), detection(score, "Edema", 0, 0, 1, 1)]]
    with pytest.raises(ValueError, match=r"predictions\[1\] has the score .*, not a finite number"):
        metric.compute(predictions=predictions, references=[[], []])
    with pytest.raises(ValueError, match=r"predictions\[1\] has the score"):
        match(predictions, [[], []], 0.4)


def test_a_missing_score_is_an_error():
    with pytest.raises(ValueError, match=r"predictions\[0\] has the score"):
        match([[truth("Edema", 0, 0, 1, 1)]], [[]], 0.4)


@pytest.mark.parametrize("xyxy", [(0, 0, 200, 100), (-0.1, 0, 1, 1), (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1)])
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_a_box_outside_the_unit_square_is_an_error_that_names_the_image(metric, side, xyxy):
    inputs = {"predictions": [[], []], "references": [[], []]}
    inputs[side] = [[], [detection(0.5, "Edema", *xyxy) if side == "predictions" else truth("Edema", *xyxy)]]
    with pytest.raises(ValueError, match=rf"{side}\[1\] has the box .*not xyxy in \[0, 1\]"):
        metric.compute(**inputs)


def test_a_true_box_without_area_is_an_error(metric):
    with pytest.raises(ValueError, match="no area"):
        metric.compute(predictions=[[]], references=[[truth("Edema", 0.5, 0.1, 0.5, 0.9)]])


def test_lengths_that_differ_are_errors():
    matches = match([[], []], [[], [truth("Edema", 0, 0, 1, 1)]], 0.4)
    with pytest.raises(ValueError, match="predictions for 1 images and references for 2"):
        match([[]], [[], []], 0.4)
    for too_few in (np.ones(1), np.ones((5, 1))):
        with pytest.raises(ValueError, match="boxes in 2 images and weights for 1"):
            mean_average_precision(matches, too_few)
    with pytest.raises(ValueError, match="boxes in 2 images and weights for 1"):
        froc_sensitivities(matches, 1)
    with pytest.raises(ValueError, match="weights are for 3 images, not for 2"):
        froc_sensitivities(matches, 2, weights=np.ones((5, 3)))


def test_scores_at_no_threshold_are_refused(metric):
    with pytest.raises(ValueError, match="no IoU threshold"):
        metric.compute(predictions=[[]], references=[[]], thresholds=())


def test_the_example_of_the_docstring(monkeypatch):
    monkeypatch.chdir(METRIC.parents[1])
    example = doctest.DocTestParser().get_doctest(
        box_detection._KWARGS_DESCRIPTION, {"evaluate": evaluate}, "box_detection", None, 0
    )
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=3)


def test_three_thousand_answers_and_a_thousand_resamples_take_seconds_and_little_memory():
    """The test set of VinDr-CXR has 3,000 images. All resamples at once would take 80 MB an array."""
    rng = random.Random(3)
    predictions, references = smooth_images(rng, 3000)
    assert sum(map(len, predictions)) > 10_000
    start = time.process_time()
    matches = match(predictions, references, 0.4)
    assert time.process_time() - start < 1
    weights = np.random.default_rng(0).multinomial(3000, np.full(3000, 1 / 3000), size=1000)
    tracemalloc.start()
    start = time.process_time()
    means, sensitivities = mean_average_precision(matches, weights), froc_sensitivities(matches, 3000, weights=weights)
    assert time.process_time() - start < 10
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert means.mean() == pytest.approx(mean_average_precision(matches), abs=0.01) and means.std() > 0
    assert sensitivities.mean(0) == pytest.approx(froc_sensitivities(matches, 3000), abs=0.01)
