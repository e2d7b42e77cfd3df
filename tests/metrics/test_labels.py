import random

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from litegpt.metrics.labels import classification_scores, decisions, finding_f1, micro_f1, read_labels

LABELS = ["COPD", "Lung tumor", "Pneumonia"]
NOTHING = ["No finding"]


def drawn_sets(seed, count):
    """Names of labels an image, predicted and true; some predictions are malformed."""
    rng = random.Random(seed)
    true = [rng.choice([NOTHING, rng.sample(LABELS, rng.randint(1, 3))]) for _ in range(count)]
    named = [rng.choice([names, NOTHING, [], rng.sample(LABELS, 2)]) for names in true]
    return named, true


@pytest.mark.parametrize("labels", [LABELS, [*LABELS, *NOTHING]], ids=["without negative", "with negative"])
@pytest.mark.parametrize("figure", [micro_f1, finding_f1])
def test_weights_equal_images_that_are_really_repeated(figure, labels):
    named, true = drawn_sets(0, 20)
    weights = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=30)
    sets = read_labels(named, true, labels)
    values = figure(sets, weights)
    assert values.shape == (30,) and len(set(values.round(6))) > 10
    for row, counts in enumerate(weights):
        repeated = np.repeat(np.arange(20), counts)
        alone = figure(read_labels([named[i] for i in repeated], [true[i] for i in repeated], labels))
        assert isinstance(alone, float) and values[row] == pytest.approx(alone)
        assert figure(sets, counts) == pytest.approx(alone)


@pytest.mark.parametrize("seed", range(3))
def test_the_weighted_micro_f1_is_scikit_learns(seed):
    named, true = drawn_sets(seed, 30)
    weights = np.random.default_rng(seed).integers(0, 4, 30)
    sets = read_labels(named, true, LABELS)
    expected = f1_score(sets.true, sets.named, average="micro", sample_weight=weights, zero_division=0)
    assert micro_f1(sets, weights) == pytest.approx(expected)


def test_finding_f1_by_hand():
    """In turn: hit, miss, false alarm, malformed answers to an image with a finding and to one without."""
    sets = read_labels([["COPD"], NOTHING, ["Pneumonia"], [], []], [["COPD"], ["COPD"], NOTHING, ["COPD"], []], LABELS)
    assert sets.says_finding.tolist() == [True, False, True, False, True]
    assert finding_f1(sets) == pytest.approx(2 / 6)
    assert finding_f1(sets, np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1, 2, 0, 0]])).tolist() == [1, 0, 0]


def test_the_figures_are_those_of_all_scores():
    sets = read_labels(*drawn_sets(4, 40), LABELS)
    scores = classification_scores(sets)
    assert micro_f1(sets) == scores["micro"]["f1"] and finding_f1(sets) == scores["finding"]["f1"]
    assert scores["num_empty_predictions"] == sets.is_malformed.sum() > 0


def test_without_any_label_the_figures_are_0():
    sets = read_labels([NOTHING], [[]], LABELS)
    assert micro_f1(sets) == finding_f1(sets) == 0 and micro_f1(sets, np.zeros((2, 1))).tolist() == [0, 0]


def test_lengths_that_differ_are_errors():
    with pytest.raises(ValueError, match="predictions for 1 images and references for 2"):
        read_labels([[]], [[], []], LABELS)
    with pytest.raises(ValueError, match="weights are for 3 images, not for 1"):
        micro_f1(read_labels([[]], [[]], LABELS), np.ones((2, 3)))


def test_decisions_are_scikit_learns():
    rng = np.random.default_rng(0)
    says, has = rng.random(200) < 0.4, rng.random(200) < 0.3
    scores = decisions(says, has)
    (tn, fp), (fn, tp) = confusion_matrix(has, says)
    counts = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    assert [scores[key] for key in counts] == [tp, fp, tn, fn]
    assert scores["sensitivity"] == pytest.approx(recall_score(has, says))
    assert scores["specificity"] == pytest.approx(recall_score(~has, ~says))
    assert (scores["ppv"], scores["npv"]) == (pytest.approx(tp / (tp + fp)), pytest.approx(tn / (tn + fn)))


def test_decisions_that_have_nothing_to_divide_by_are_none():
    nobody, everybody = np.zeros(3, bool), np.ones(3, bool)
    scores = decisions(nobody, nobody)
    assert scores["sensitivity"] is scores["ppv"] is None and scores["specificity"] == scores["npv"] == 1
    scores = decisions(everybody, everybody)
    assert scores["specificity"] is scores["npv"] is None and scores["sensitivity"] == scores["ppv"] == 1


def test_labels_that_no_image_has_stand_in_no_mean_of_those_present():
    scores = classification_scores(read_labels([["COPD"], ["Pneumonia"]], [["COPD"], ["COPD"]], LABELS))
    assert scores["macro"]["recall"] == pytest.approx(0.5 / 3)  # as scikit-learn, and the paper's tables
    assert scores["macro_present"] == {
        "precision": 1,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
        "labels": 1,
    }
    nothing = classification_scores(read_labels([NOTHING], [NOTHING], LABELS))["macro_present"]
    assert nothing == {"precision": None, "recall": None, "f1": None, "support": 0, "labels": 0}
