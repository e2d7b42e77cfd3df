from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from litegpt.metrics.intervals import bootstrap_intervals
from litegpt.metrics.ratios import macro_mean
from litegpt.metrics.report_labels import (
    CHEXPERT_LABELS,
    FIVE_LABELS,
    agreement_figures,
    agreement_scores,
    label_agreement,
)

METRIC = Path(__file__).parents[2] / "metrics" / "report_label_agreement"
FIVE = [CHEXPERT_LABELS.index(label) for label in FIVE_LABELS]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def drawn(rng, count):
    """States of reports, and (count, 14) arrays of what is positive and of what is positive or uncertain."""
    codes = rng.choice(4, size=(count, 14), p=(0.5, 0.2, 0.2, 0.1))
    codes[:, 3] = 0  # a label that nobody speaks of
    names = {1: "positive", 2: "negative", 3: "uncertain"}
    states = [{label: names[code] for label, code in zip(CHEXPERT_LABELS, row, strict=True) if code} for row in codes]
    return states, codes == 1, (codes == 1) | (codes == 3)


@pytest.mark.parametrize("uncertain", ["positive", "negative"])
def test_f1_is_scikit_learns(uncertain):
    rng = np.random.default_rng(0)
    (answered, *named), (true, *is_true) = drawn(rng, 200), drawn(rng, 200)
    p, y = (sides[uncertain == "positive"] for sides in (named, is_true))
    scores = agreement_scores(label_agreement(answered, true, uncertain))
    for group, columns in (("14", range(14)), ("5", FIVE)):
        sides = y[:, columns], p[:, columns]
        assert scores["micro_f1"][group] == pytest.approx(f1_score(*sides, average="micro"))
        assert scores["macro_f1"][group] == pytest.approx(f1_score(*sides, average="macro", zero_division=np.nan))
    for column, label in enumerate(CHEXPERT_LABELS):
        found = scores["per_label"][label]
        if label == "Lung Lesion":
            assert (found["f1"], found["named"], found["true"]) == (None, 0, 0)
            continue
        precision, recall, f1, _ = precision_recall_fscore_support(y[:, column], p[:, column], average="binary")
        assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((precision, recall, f1))
        assert found["right"] == (p & y)[:, column].sum()


def test_figures_by_hand():
    answered = [{"Edema": "positive", "Fracture": "negative"}, {"No Finding": "positive"}, {}]
    true = [{"Edema": "uncertain"}, {"No Finding": "positive"}, {"Pneumonia": "positive"}]
    scores = agreement_scores(label_agreement(answered, true))
    assert scores["micro_f1"] == pytest.approx({"14": 4 / 5, "5": 1})
    assert scores["macro_f1"] == pytest.approx({"14": 2 / 3, "5": 1})  # of Edema, No Finding and Pneumonia
    scores = agreement_scores(label_agreement(answered, true, "negative"))
    assert scores["micro_f1"] == pytest.approx({"14": 2 / 4, "5": 0})
    assert scores["num_images"] == 3


def test_without_a_positive_label_there_is_no_f1():
    scores = agreement_scores(label_agreement([{"Edema": "negative"}], [{}]))
    assert scores["micro_f1"] == {"14": None, "5": None} == scores["macro_f1"]


def test_weights_count_images_as_often_as_they_say():
    rng = np.random.default_rng(1)
    (answered, *_), (true, *_) = drawn(rng, 15), drawn(rng, 15)
    agreement = label_agreement(answered, true)
    weights = rng.integers(0, 3, size=(5, 15)).astype(float)
    figures = agreement_figures(agreement, weights)
    assert figures["macro_f1", "14"].shape == (5, 14) and figures["macro_f1", "5"].shape == (5, 5)
    for row, times in enumerate(weights.astype(int)):
        chosen = np.repeat(np.arange(15), times)
        repeated = agreement_figures(label_agreement(*([some[i] for i in chosen] for some in (answered, true))))
        for name, values in repeated.items():
            assert figures[name][row] == pytest.approx(values[0], nan_ok=True), name
    intervals = bootstrap_intervals(lambda rows: agreement_figures(agreement, rows), 15, 200)
    for name, values in agreement_figures(agreement).items():
        low, high = intervals[name]
        assert low <= (macro_mean(values)[0] if values.ndim == 2 else values[0]) <= high


def test_the_module_gives_the_same(metric):
    rng = np.random.default_rng(2)
    (answered, *_), (true, *_) = drawn(rng, 30), drawn(rng, 30)
    listed = [
        [[{"label": label, "state": state} for label, state in states.items()] for states in some]
        for some in (answered, true)
    ]
    for uncertain in ("positive", "negative"):
        results = metric.compute(predictions=listed[0], references=listed[1], uncertain=uncertain)
        assert results == agreement_scores(label_agreement(answered, true, uncertain))
    with pytest.raises(ValueError, match="`uncertain` is 'maybe'"):
        metric.compute(predictions=listed[0], references=listed[1], uncertain="maybe")
    twice = [[{"label": "Edema", "state": "positive"}, {"label": "Edema", "state": "negative"}]]
    with pytest.raises(ValueError, match=r"predictions\[0\] has a label twice"):
        metric.compute(predictions=twice, references=twice)


@pytest.mark.parametrize(
    ("answered", "true", "problem"),
    [
        ([{}], [], "predictions for 1 images and references for 0"),
        ([{"Oedema": "positive"}], [{}], r"predictions\[0\] has the label 'Oedema'"),
        ([{}], [{"Edema": "maybe"}], r"references\[0\] calls 'Edema' 'maybe'"),
    ],
)
def test_bad_input_is_named(answered, true, problem):
    with pytest.raises(ValueError, match=problem):
        label_agreement(answered, true)
