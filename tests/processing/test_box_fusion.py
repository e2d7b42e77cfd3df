"""What an answer and a detector say together, and what several views of a radiograph do."""

import numpy as np
import pytest

from litegpt.processing.box_fusion import ANSWER_WEIGHT, VIEW_WEIGHT, detected_findings, fused_findings, fused_views

HEART = {"label": "Cardiomegaly", "box": (0.4, 0.5, 0.8, 0.7), "score": 0.6}


def test_candidates_become_findings_of_their_labels_the_surest_first():
    candidates = np.array(
        [
            [0, 0.5, 0.1, 0.1, 0.3, 0.3],
            [1, 0.9, 0.1, 0.1, 0.3, 0.3],
            [0, 0.4, 0.1, 0.1, 0.3, 0.31],  # the first one again
            [0, 0.005, 0.6, 0.6, 0.9, 0.9],  # as good as nothing
            [2, 0.99, 0.1, 0.1, 0.3, 0.3],  # any of them
        ]
    )
    found = detected_findings(candidates, ["Edema", "ILD"])
    assert [(item["label"], item["score"]) for item in found] == [("ILD", 0.9), ("Edema", 0.5)]
    assert found[1]["box"] == pytest.approx((0.1, 0.1, 0.3, 0.3 + 0.01 * 0.4 / 0.9))
    assert detected_findings(np.zeros((0, 6)), ["Edema"]) == []


def test_what_both_name_is_one_and_surer():
    near = {"label": "Cardiomegaly", "box": (0.4, 0.5, 0.84, 0.7), "score": 0.3}
    (fused,) = fused_findings([HEART], [near])
    assert fused["source"] == ["answer", "detector"] and fused["score"] == pytest.approx(
        1 - (1 - ANSWER_WEIGHT * 0.6) * 0.7
    )
    assert fused["box"] == pytest.approx(
        (0.4, 0.5, (0.8 * ANSWER_WEIGHT * 0.6 + 0.84 * 0.3) / (ANSWER_WEIGHT * 0.6 + 0.3), 0.7)
    )


def test_what_one_names_alone_stays_where_it_is():
    far, other = {**HEART, "box": (0.0, 0.0, 0.2, 0.2), "score": 0.9}, {**HEART, "label": "ILD", "score": 0.1}
    fused = fused_findings([HEART], [far, other])
    assert [(item["score"], item["source"]) for item in fused] == [
        (0.9, ["detector"]),
        (0.1, ["detector"]),
        (pytest.approx(ANSWER_WEIGHT * 0.6), ["answer"]),
    ]
    assert [item["box"] for item in fused] == [far["box"], other["box"], HEART["box"]]
    assert fused_findings([], []) == []


def test_a_detection_goes_to_one_answer_alone():
    again = {**HEART, "box": (0.41, 0.5, 0.8, 0.7), "score": 0.5}
    fused = fused_findings([HEART, again], [HEART])
    assert [item["source"] for item in fused] == [["answer", "detector"], ["answer"]]


def test_several_views_count_more_beside_a_detector_than_one_answer():
    near = {"label": "Cardiomegaly", "box": HEART["box"], "score": 0.3}
    (answer,), (views,) = (fused_findings([{**HEART, "views": 3}], [near], who) for who in ("answer", "view"))
    assert views["source"] == ["view", "detector"] and "views" not in views
    assert views["score"] == pytest.approx(1 - (1 - VIEW_WEIGHT * 0.6) * 0.7)
    assert views["score"] > answer["score"]


def test_views_agree_on_a_box_by_their_scores():
    moved = {**HEART, "box": (0.44, 0.5, 0.84, 0.7), "score": 0.2}
    other = {"label": "ILD", "box": HEART["box"], "score": 0.3}
    heart, alone = fused_views([[HEART], [moved], [other], []])
    assert heart["label"] == "Cardiomegaly" and heart["views"] == 2
    assert heart["score"] == pytest.approx((0.6 + 0.2) / 4)
    assert heart["box"] == pytest.approx((0.41, 0.5, 0.81, 0.7))
    assert alone == {"label": "ILD", "box": pytest.approx(HEART["box"]), "score": pytest.approx(0.3 / 4), "views": 1}


def test_one_view_is_as_it_is_and_two_boxes_of_a_view_do_not_count_twice():
    elsewhere = {**HEART, "box": (0.0, 0.0, 0.2, 0.2), "score": 0.1}
    assert fused_views([[elsewhere, HEART]]) == [
        {**item, "box": pytest.approx(item["box"]), "score": pytest.approx(item["score"]), "views": 1}
        for item in (HEART, elsewhere)
    ]
    again = {**HEART, "box": (0.4, 0.5, 0.8, 0.71), "score": 0.5}
    (both,) = fused_views([[HEART, again], []])
    assert both["score"] == pytest.approx(0.6 / 2) and both["views"] == 1
    assert fused_views([[], []]) == []
