"""Scores of labels against values by hand, and what their controls reach."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from litegpt.evaluation_scripts.tower_scores.classification import class_scores, label_scores, macro_auroc

RNG = np.random.default_rng(0)
TRUTHS = (RNG.random((120, 3)) < [0.5, 0.3, 0.02]).astype(float)
PROBABILITIES = np.clip(0.3 * TRUTHS + 0.7 * RNG.random((120, 3)), 0, 1)
ABNORMAL = (TRUTHS == 1).any(axis=1)
LABELS = ["Edema", "Mass", "Hernia"]


def test_label_scores_are_those_of_scikit_learn_and_leave_out_what_is_rare():
    truths = TRUTHS.copy()
    truths[:10, 1] = np.nan
    scores = label_scores(PROBABILITIES, truths, ABNORMAL, LABELS, None, 10)
    assert scores["labels"] == ["Edema", "Mass"] and list(scores["left_out"]) == ["Hernia"]
    expected = [
        roc_auc_score(TRUTHS[start:, place], PROBABILITIES[start:, place]) for place, start in ((0, 0), (1, 10))
    ]
    figures, intervals = scores["figures"], scores["intervals"]
    assert figures["tower"]["all"]["per_label"] == pytest.approx(dict(zip(LABELS, expected, strict=False)))
    assert figures["tower"]["all"]["macro"] == pytest.approx(np.mean(expected))
    low, high = intervals["tower"]["all"]["macro"]
    assert low < np.mean(expected) < high
    assert figures["shuffled"]["all"]["macro"] == pytest.approx(0.5, abs=0.05)
    assert figures["anything_there"]["all"]["macro"] > 0.5 == figures["anything_there"]["abnormal"]["macro"]
    assert scores["counts"]["Mass"]["positive"] == int(TRUTHS[10:, 1].sum())


def test_a_label_scores_are_refused_where_nothing_can_be_told():
    with pytest.raises(ValueError, match="No label has 200"):
        label_scores(PROBABILITIES, TRUTHS, ABNORMAL, LABELS, None, 200)


def test_class_scores_by_hand():
    classes = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    named = np.array([0, 0, 1, 1, 1, 2, 2, 2, 0, 0])
    scores = class_scores(np.eye(3)[named], classes, 2, ["a", "b", "c"], None)
    figures = scores["figures"]
    assert figures["accuracy"]["tower"] == pytest.approx(0.7) and figures["accuracy"]["constant"] == 0.5
    assert figures["recall"] == pytest.approx({"a": 2 / 3, "b": 1.0, "c": 3 / 5})
    assert figures["mean_recall"] == pytest.approx((2 / 3 + 1 + 3 / 5) / 3)
    assert figures["accuracy"]["shuffled"] < 0.7
    assert scores["counts"] == {"a": 3, "b": 2, "c": 5}


def test_the_mean_of_a_validation_leaves_out_labels_without_both_sides():
    expected = np.mean([roc_auc_score(TRUTHS[:, place], PROBABILITIES[:, place]) for place in (0, 1)])
    truths = TRUTHS.copy()
    truths[:, 2] = 0
    assert macro_auroc(PROBABILITIES, truths) == pytest.approx(expected)
    assert np.isnan(macro_auroc(PROBABILITIES, 0 * TRUTHS))
