"""Scores of boxes: normals and missed radiographs count, and what places alone reach."""

import numpy as np
import pytest

from litegpt.evaluation_scripts.tower_scores.detection import (
    ANY,
    any_finding,
    box_scores,
    mean_precisions,
    pair_overlaps,
)
from litegpt.evaluation_scripts.tower_scores.table import score_table
from litegpt.metrics.boxes import average_precision, match

PLACES = np.array([[0.1, 0.1, 0.3, 0.4], [0.6, 0.2, 0.9, 0.5]])


def drawn(count: int, seed: int) -> list[list[dict]]:
    """Every second radiograph has a box near one of two places."""
    rng = np.random.default_rng(seed)
    return [
        [{"label": "ab"[number // 2 % 2], "box": (PLACES[rng.integers(2)] + rng.uniform(0, 0.08, 4)).tolist()}]
        if number % 2
        else []
        for number in range(count)
    ]


TRUE, TRAINING = drawn(40, 0), drawn(60, 1)


def answered(truths: list[list[dict]], score: float = 0.9) -> list[list[dict]]:
    return [[{**box, "score": score} for box in [*boxes, *any_finding(boxes)]] for boxes in truths]


def test_right_boxes_and_controls():
    scores = box_scores(answered(TRUE), TRUE, ["a", "b", "c"], TRAINING, None, 5)
    figures = scores["figures"]
    assert scores["labels"] == ["a", "b"] and scores["left_out"] == {"c": "0 true boxes"}
    assert all(value == 1 for what in ("map", "any_finding") for value in figures[what]["tower"].values())
    assert set(figures["map"]["tower"]) == {"0.3", "0.4", "0.5", "0.4 to 0.75"}
    assert figures["froc"]["tower"]["mean"] == 1
    assert 0 < figures["any_finding"]["shuffled"]["0.3"] < 0.5
    assert 0.1 < figures["any_finding"]["prior"]["0.3"] < 0.7
    assert scores["counts"]["radiographs without a box"] == 20
    assert scores["intervals"]["any_finding"]["tower_less_prior"]["0.3"][0] > 0.3


def test_missed_radiographs_and_boxes_on_normal_ones_cost():
    # MGCA's code skips both kinds of radiographs: there each of these has an mAP of 1.
    whole = mean_precisions(answered(TRUE), TRUE)["ap_any_0.4"]
    half = answered(TRUE)
    half[1::4] = [[] for _ in half[1::4]]
    alarms = answered(TRUE)
    alarms[::2] = [[{"label": ANY, "box": PLACES[0].tolist(), "score": 0.95}] for _ in alarms[::2]]
    assert whole == 1
    assert mean_precisions(half, TRUE)["ap_any_0.4"] == pytest.approx(0.5)
    assert mean_precisions(alarms, TRUE)["ap_any_0.4"] < 0.6


def test_any_finding_counts_boxes_on_one_another_once():
    boxes = [{"label": "a", "box": [0.1, 0.1, 0.5, 0.5]}, {"label": "b", "box": [0.1, 0.1, 0.5, 0.55]}]
    assert any_finding(boxes) == [{"label": ANY, "box": [0.1, 0.1, 0.5, 0.5]}] and any_finding([]) == []


def test_where_the_label_is_told_its_best_scored_box_counts():
    """One of two places holds half of the boxes: the prior's best box finds about half of them."""
    doubtful = [[*boxes, {"label": "a", "box": [0.4, 0.4, 0.6, 0.6], "score": 0.95}] for boxes in answered(TRUE)]
    for predictions, right in ((answered(TRUE), 1), (doubtful, 0.5)):
        scores = box_scores(predictions, TRUE, ["a", "b"], TRAINING, None, 5)
        found = scores["figures"]["accuracy_given_label"]
        assert found["tower"] == {"0.3": right, "0.4": right, "0.5": right}
        assert 0.3 < found["prior"]["0.3"] < 0.7 and found["shuffled"]["0.3"] < 0.4
        low, high = scores["intervals"]["accuracy_given_label"]["tower_less_prior"]["0.3"]
        assert low <= right - found["prior"]["0.3"] <= high


def test_of_two_true_boxes_of_a_label_one_is_enough():
    boxes = [{"label": "a", "box": place.tolist()} for place in PLACES]
    image, iou = pair_overlaps([[boxes[1]], []], [boxes, [{**boxes[0], "label": "b"}]])
    assert image.tolist() == [0, 1] and iou.tolist() == pytest.approx([1, 0])


def test_figures_are_those_of_the_metric():
    rng = np.random.default_rng(3)
    guesses = [
        [{**box, "score": float(rng.random())} for box in boxes if rng.random() < 0.7]
        + [{"label": "a", "box": [0.4, 0.4, 0.6, 0.6], "score": float(rng.random())}]
        for boxes in TRUE
    ]
    scores = box_scores(guesses, TRUE, ["a", "b"], TRAINING, None, 5)
    expected = average_precision(match(guesses, TRUE, 0.4))
    assert scores["average_precision"]["0.4"] == pytest.approx(expected)
    assert scores["figures"]["map"]["tower"]["0.4"] == pytest.approx(np.mean(list(expected.values())))


def test_the_table_has_each_figure_beside_its_controls():
    scores = box_scores(answered(TRUE), TRUE, ["a", "b"], TRAINING, None, 5)
    facts = {"task": "detection", "tower": "a tower", "warnings": [], "training": {"chosen_by": "ap_any_0.4"}}
    facts["data_set"] = {"radiographs": {"train": 60, "test": 40}}
    lines = score_table(scores | facts).splitlines()
    (line,) = [line for line in lines if line.startswith("Accuracy given the label, IoU 0.3")]
    controls = [scores["figures"]["accuracy_given_label"][name]["0.3"] for name in ("shuffled", "prior")]
    assert line.split()[-5:] == ["1.000", "[1.000,", "1.000]", *(f"{value:.3f}" for value in controls)]
    assert len([line for line in lines if line.startswith("Accuracy")]) == 3
