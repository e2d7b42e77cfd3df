"""Scores of boxes: normals and missed radiographs count, and what places alone reach."""

import numpy as np
import pytest

from litegpt.evaluation_scripts.tower_scores.detection import (
    ANY,
    any_finding,
    box_scores,
    location_prior,
    mean_precisions,
)
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


TRUE = drawn(40, 0)


def answered(truths: list[list[dict]], score: float = 0.9) -> list[list[dict]]:
    return [[{**box, "score": score} for box in [*boxes, *any_finding(boxes)]] for boxes in truths]


def prior() -> list[dict]:
    boxes = [(box["label"], box["box"]) for of_image in drawn(60, 1) for box in of_image]
    return [
        {"label": label, "box": box, "score": score}
        for label in ("a", "b", ANY)
        for score, box in location_prior([place for name, place in boxes if label in (name, ANY)])
    ]


def test_right_boxes_and_controls():
    scores = box_scores(answered(TRUE), TRUE, ["a", "b", "c"], prior(), None, 5)
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


def test_the_location_prior_has_both_lungs_and_no_box_between_them():
    boxes = [box["box"] for of_image in drawn(60, 1) for box in of_image]
    found = location_prior(boxes)
    assert [box[0] < 0.5 for _, box in found[:2]].count(True) == 1
    assert sum(score for score, _ in found) <= 1 + 1e-9 and found[0][0] >= found[1][0] > 0.2
    assert location_prior([]) == []


def test_figures_are_those_of_the_metric():
    rng = np.random.default_rng(3)
    guesses = [
        [{**box, "score": float(rng.random())} for box in boxes if rng.random() < 0.7]
        + [{"label": "a", "box": [0.4, 0.4, 0.6, 0.6], "score": float(rng.random())}]
        for boxes in TRUE
    ]
    scores = box_scores(guesses, TRUE, ["a", "b"], prior(), None, 5)
    expected = average_precision(match(guesses, TRUE, 0.4))
    assert scores["average_precision"]["0.4"] == pytest.approx(expected)
    assert scores["figures"]["map"]["tower"]["0.4"] == pytest.approx(np.mean(list(expected.values())))
