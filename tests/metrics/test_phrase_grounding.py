import random
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from litegpt.metrics.intervals import bootstrap_intervals
from litegpt.metrics.phrases import iou_of_unions, phrase_figures, phrase_overlaps, phrase_scores

METRIC = Path(__file__).parents[2] / "metrics" / "phrase_grounding"
BOX = [0.2, 0.2, 0.4, 0.4]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def random_boxes(rng, most=4):
    """On a grid of hundredths, which may overlap, some of them turned inside out."""
    return [[rng.randint(0, 100) / 100 for _ in range(4)] for _ in range(rng.randint(0, most))]


def painted(boxes):
    """The cells of a raster of hundredths that any of the boxes covers."""
    cells = np.zeros((100, 100), dtype=bool)
    for x1, y1, x2, y2 in (np.rint(np.multiply(box, 100)).astype(int) for box in boxes):
        cells[y1:y2, x1:x2] = True
    return cells


def test_the_iou_of_unions_is_that_of_painted_cells():
    rng = random.Random(0)
    for _ in range(500):
        boxes, others = random_boxes(rng), random_boxes(rng)
        both, either = painted(boxes) & painted(others), painted(boxes) | painted(others)
        expected = both.sum() / either.sum() if either.any() else 0
        assert iou_of_unions(boxes, others) == pytest.approx(expected, abs=1e-12)


def test_boxes_that_overlap_are_not_counted_twice():
    """One true box, two answered ones that share a half: they cover 0.75 of twice its area."""
    assert iou_of_unions([[0, 0, 0.5, 1], [0.25, 0, 0.75, 1]], [[0, 0, 0.5, 1]]) == pytest.approx(0.5 / 0.75)
    assert iou_of_unions([[0, 0, 1, 1]] * 3, [[0, 0, 1, 0.5]]) == pytest.approx(0.5)


def test_figures_by_hand():
    overlaps = phrase_overlaps(
        [[[0, 0, 0.4, 1]], [[0, 0, 0.3, 1]], [], None, [], [BOX], None],
        [[[0, 0, 0.8, 1]], [[0, 0, 1, 1]], [BOX], [BOX], [], [], []],
    )
    scores = phrase_scores(overlaps)
    assert scores["mean_iou"] == pytest.approx((0.5 + 0.3) / 4)
    assert scores["accuracy_at_iou"] == {"0.3": 0.5, "0.5": 0.25}  # at the threshold counts
    assert scores["answered_none"] == 0.25  # an answer that cannot be read says nothing
    assert scores["no_box_correct"] == pytest.approx(1 / 3)
    assert scores["auroc"] is None
    assert (scores["num_present"], scores["num_absent"], scores["num_malformed"]) == (4, 3, 2)


def test_what_cannot_be_computed_is_none():
    scores = phrase_scores(phrase_overlaps([[]], [[BOX]]))
    assert scores["no_box_correct"] is None and scores["mean_iou"] == 0.0
    empty = phrase_scores(phrase_overlaps([], []))
    assert empty["mean_iou"] is None and empty["num_present"] == 0


def test_auroc_is_scikit_learns_over_the_phrases_with_a_probability():
    rng = np.random.default_rng(1)
    present = rng.random(60) < 0.5
    p = np.round(rng.random(60), 1)
    p[::7] = np.nan
    overlaps = phrase_overlaps([[]] * 60, [[BOX] if is_present else [] for is_present in present], probabilities=p)
    known = np.isfinite(p)
    assert phrase_scores(overlaps)["auroc"] == pytest.approx(roc_auc_score(present[known], p[known]))


def test_weights_count_images_with_all_their_phrases():
    """A row of weights gives what the repeated phrases give."""
    rng = random.Random(3)
    count, images = 40, [phrase // 4 for phrase in range(40)]  # ten images
    predictions = [random_boxes(rng, 2) for _ in range(count)]
    references = [[BOX] if rng.random() < 0.6 else [] for _ in range(count)]
    p = [rng.random() for _ in range(count)]
    overlaps = phrase_overlaps(predictions, references, images, p)
    weights = np.random.default_rng(0).integers(0, 3, size=(5, 10)).astype(float)
    figures = phrase_figures(overlaps, weights)
    for row, counts in enumerate(weights.astype(int)):
        chosen = [phrase for phrase in range(count) for _ in range(counts[images[phrase]])]
        parts = ([values[phrase] for phrase in chosen] for values in (predictions, references))
        repeated = phrase_figures(phrase_overlaps(*parts, probabilities=[p[phrase] for phrase in chosen]))
        for name, values in repeated.items():
            assert figures[name][row] == pytest.approx(values[0], nan_ok=True), name


def test_an_image_without_phrases_may_stand_last():
    overlaps = phrase_overlaps([[BOX]], [[BOX]], images=[0])
    assert phrase_figures(overlaps, np.ones((1, 3)))["mean_iou",] == pytest.approx([1.0])


def test_intervals_hold_the_figures():
    rng = random.Random(5)
    overlaps = phrase_overlaps([random_boxes(rng, 2) for _ in range(50)], [[BOX]] * 40 + [[]] * 10)
    intervals = bootstrap_intervals(lambda weights: phrase_figures(overlaps, weights), 50, 200)
    for name, value in phrase_figures(overlaps).items():
        if np.isfinite(value[0]):
            low, high = intervals[name]
            assert low <= value[0] <= high


def test_the_module_gives_the_same(metric):
    results = metric.compute(predictions=[[BOX], [], None], references=[[BOX], [], []], probabilities=[0.9, 0.1, None])
    expected = phrase_scores(phrase_overlaps([[BOX], [], None], [[BOX], [], []], probabilities=[0.9, 0.1, np.nan]))
    assert results == expected
    assert results["auroc"] == 1.0 and results["num_malformed"] == 1


@pytest.mark.parametrize(
    ("predictions", "references", "options", "problem"),
    [
        ([[BOX]], [], {}, "predictions for 1 phrases and references for 0"),
        ([[], [[0, 0, 1.2, 1]]], [[], []], {}, r"predictions\[1\] has the box \[0.0, 0.0, 1.2, 1.0\]"),
        ([[]], [[[0.5, 0, 0.5, 1]]], {}, r"references\[0\] has the box .* no area"),
        ([[]], [[]], {"probabilities": [1.5]}, r"probabilities\[0\] is 1.5"),
        ([[]], [[]], {"images": [0, 1]}, "`images` has the shape"),
    ],
)
def test_bad_input_is_named(predictions, references, options, problem):
    with pytest.raises(ValueError, match=problem):
        phrase_overlaps(predictions, references, **options)
