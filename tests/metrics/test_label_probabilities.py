import doctest
import json
import time
import tracemalloc
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from litegpt.metrics.label_probabilities import label_probabilities
from litegpt.metrics.probabilities import auroc, average_precision, expected_calibration_error, reliability

METRIC = Path(__file__).parents[2] / "metrics" / "label_probabilities"
LABELS = ["Lung tumor", "Pneumonia", "Tuberculosis"]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def random_probabilities(seed, images=80, decimals=None):
    """(images, 3) probabilities and truths that follow them; rounded ones have many ties."""
    rng = np.random.default_rng(seed)
    p = rng.random((images, 3)) ** 2
    y = rng.random((images, 3)) < (p + rng.random((images, 3))) / 2
    return p if decimals is None else p.round(decimals), y.astype(int)


def slow_expected_calibration_error(p, y, num_bins):
    error = 0.0
    for b in range(num_bins):
        inside = [(q, t) for q, t in zip(p, y, strict=True) if b / num_bins < q <= (b + 1) / num_bins or b == q == 0]
        if inside:
            error += len(inside) / len(p) * abs(sum(q for q, _ in inside) - sum(t for _, t in inside)) / len(inside)
    return error


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_all_scores_equal_scikit_learn(metric, seed, decimals):
    p, y = random_probabilities(seed, decimals=decimals)
    results = metric.compute(predictions=p.tolist(), references=y.tolist(), labels=LABELS)
    areas = [roc_auc_score(y[:, i], p[:, i]) for i in range(3)]
    precisions = [average_precision_score(y[:, i], p[:, i]) for i in range(3)]
    assert list(results["auroc"]) == list(results["average_precision"]) == LABELS
    assert list(results["auroc"].values()) == pytest.approx(areas)
    assert list(results["average_precision"].values()) == pytest.approx(precisions)
    assert results["macro_auroc"] == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert results["macro_average_precision"] == pytest.approx(average_precision_score(y, p, average="macro"))
    assert results["brier"] == pytest.approx(brier_score_loss(y.ravel(), p.ravel()))
    assert results["ece"] == pytest.approx(slow_expected_calibration_error(p.ravel(), y.ravel(), 10))


@pytest.mark.parametrize("num_bins", [1, 7, 10, 25])
@pytest.mark.parametrize("seed", range(3))
def test_the_bins_equal_scikit_learns_calibration_curve(seed, num_bins):
    p, y = random_probabilities(seed)
    bins = reliability(p, y, num_bins)
    frequencies, confidences = calibration_curve(y.ravel(), p.ravel(), n_bins=num_bins, strategy="uniform")
    assert [b["frequency"] for b in bins if b["count"]] == pytest.approx(frequencies)
    assert [b["confidence"] for b in bins if b["count"]] == pytest.approx(confidences)
    assert len(bins) == num_bins and sum(b["count"] for b in bins) == p.size
    assert bins[0]["low"] == 0 and bins[-1]["high"] == 1
    assert [b["high"] for b in bins[:-1]] == [b["low"] for b in bins[1:]]
    expected = slow_expected_calibration_error(p.ravel(), y.ravel(), num_bins)
    assert expected_calibration_error(p, y, num_bins) == pytest.approx(expected)


def test_calibration_by_hand():
    """0 and the edges 0.1 and 0.3 belong to the bin below; (0.2, 0.3] is half right at 0.275."""
    p, y = [0.0, 0.1, 0.25, 0.3, 1.0], [0, 0, 1, 0, 1]
    bins = reliability(p, y, 10)
    assert [b["count"] for b in bins] == [2, 0, 2, 0, 0, 0, 0, 0, 0, 1]
    assert bins[1] == {"low": 0.1, "high": 0.2, "confidence": None, "frequency": None, "count": 0}
    third = {"low": 0.2, "high": 0.3, "confidence": pytest.approx(0.275), "frequency": 0.5, "count": 2}
    assert bins[2] == third
    assert expected_calibration_error(p, y, 10) == pytest.approx((2 * 0.05 + 2 * 0.225 + 0) / 5)


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_calibration_error_of_weights_is_that_of_images_that_are_really_repeated(decimals):
    """An image has any number of values, such as its boxes; their order does not matter."""
    rng = np.random.default_rng(0)
    p, _ = random_probabilities(7, decimals=decimals)
    p, y, images = p.ravel(), rng.integers(2, size=p.size), rng.integers(15, size=p.size)
    weights = rng.multinomial(15, np.full(15, 1 / 15), size=20)
    weights[0], weights[1] = 1, 0
    errors = expected_calibration_error(p, y, 10, weights, images)
    assert errors.shape == (20,) and np.isnan(errors[1])
    assert errors[0] == pytest.approx(expected_calibration_error(p, y, 10))
    for row, counts in enumerate(weights):
        repeated = np.repeat(np.arange(p.size), counts[images])
        expected = slow_expected_calibration_error(p[repeated], y[repeated], 10)
        assert np.isnan(errors[row]) if row == 1 else errors[row] == pytest.approx(expected)
        alone = expected_calibration_error(p, y, 10, counts, images)
        assert isinstance(alone, float) and alone == pytest.approx(errors[row], nan_ok=True)
    with pytest.raises(ValueError, match="values of 15 images and weights for 14"):
        expected_calibration_error(p, y, 10, weights[:, :14], images)


def test_values_are_of_the_images_along_the_first_axis_where_nothing_else_is_said():
    p, y = random_probabilities(8, images=6)
    weights = np.array([[1, 0, 2, 0, 0, 1]])
    images = np.repeat(np.arange(6), 3)
    expected = expected_calibration_error(p.ravel(), y.ravel(), 10, weights, images)
    assert expected_calibration_error(p, y, 10, weights) == pytest.approx(expected)


def test_auroc_by_hand():
    """Two positives and two negatives: of four pairs two are right, one is even, one is wrong."""
    assert auroc([0.9, 0.5, 0.5, 0.7], [1, 1, 0, 0]) == pytest.approx(2.5 / 4)


def test_average_precision_has_no_envelope():
    """By falling probability: negative, positive, positive: (1/2 + 2/3) / 2."""
    assert average_precision([0.9, 0.8, 0.7], [0, 1, 1]) == pytest.approx(7 / 12)


def test_probabilities_that_are_all_equal_rank_nothing():
    assert auroc([0.3] * 6, [1, 0, 0, 0, 0, 1]) == 0.5
    assert average_precision([0.3] * 6, [1, 0, 0, 0, 0, 1]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("decimals", [None, 1])
def test_weights_equal_images_that_are_really_repeated(decimals):
    p, y = random_probabilities(3, images=15, decimals=decimals)
    weights = np.random.default_rng(0).multinomial(15, np.full(15, 1 / 15), size=40)
    weights[0] = 1
    weights[1] = np.where(y[:, 0] == 1, 2, 0)  # no negative image of the first label
    areas = auroc(p, y, weights)
    assert areas.shape == (40, 3) and areas[0] == pytest.approx(auroc(p, y))
    assert np.isnan(areas[1, 0])
    for row, counts in enumerate(weights):
        repeated = np.repeat(np.arange(15), counts)
        assert areas[row] == pytest.approx(auroc(p[repeated], y[repeated]), nan_ok=True)
        assert auroc(p, y, counts) == pytest.approx(areas[row], nan_ok=True)
        for label in range(3):
            if np.isfinite(areas[row, label]):
                expected = roc_auc_score(y[:, label], p[:, label], sample_weight=counts)
                assert areas[row, label] == pytest.approx(expected)
    assert auroc(p[:, 0], y[:, 0], weights).tolist() == pytest.approx(areas[:, 0].tolist(), nan_ok=True)
    assert auroc(p[:, 0], y[:, 0], weights[0]) == pytest.approx(areas[0, 0])


def test_chunks_of_resamples_change_nothing(monkeypatch):
    p, y = random_probabilities(4, images=20)
    weights = np.random.default_rng(0).integers(0, 3, (7, 20))
    whole = auroc(p, y, weights)
    monkeypatch.setattr("litegpt.metrics.probabilities.CHUNK", 40)
    assert auroc(p, y, weights).tolist() == whole.tolist()


def test_no_score_depends_on_the_order_of_the_images(metric):
    p, y = random_probabilities(5, decimals=1)
    results = metric.compute(predictions=p.tolist(), references=y.tolist(), labels=LABELS)
    order = np.random.default_rng(0).permutation(len(p))
    shuffled = metric.compute(predictions=p[order].tolist(), references=y[order].tolist(), labels=LABELS)
    for name in ("auroc", "average_precision"):
        assert shuffled[name] == results[name]
    assert shuffled["ece"] == pytest.approx(results["ece"]) and shuffled["brier"] == pytest.approx(results["brier"])


def test_a_label_in_no_image_or_in_all_has_no_auroc_and_is_left_out_of_the_mean(metric):
    results = metric.compute(
        predictions=[[0.9, 0.2, 0.3], [0.1, 0.4, 0.6]], references=[[1, 0, 1], [0, 0, 1]], labels=LABELS
    )
    assert results["auroc"] == {"Lung tumor": 1.0, "Pneumonia": None, "Tuberculosis": None}
    assert results["average_precision"] == {"Lung tumor": 1.0, "Pneumonia": None, "Tuberculosis": 1.0}
    assert results["macro_auroc"] == results["macro_average_precision"] == 1.0
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_no_images_give_none_and_not_nan(metric):
    results = metric.compute(predictions=[], references=[], labels=LABELS, num_bins=2)
    nothing = dict.fromkeys(LABELS)
    assert results["auroc"] == results["average_precision"] == nothing
    assert [results[name] for name in ("macro_auroc", "macro_average_precision", "brier", "ece")] == [None] * 4
    assert [b["count"] for b in results["reliability"]] == [0, 0]
    assert json.loads(json.dumps(results, allow_nan=False)) == results


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01, None])
def test_what_is_no_probability_is_an_error_that_names_image_and_label(metric, value):
    with pytest.raises(ValueError, match=r"predictions\[1\] has .* for 'Pneumonia', not a probability"):
        metric.compute(predictions=[[0, 0], [0, value]], references=[[0, 0], [0, 0]], labels=["ILD", "Pneumonia"])
    with pytest.raises(ValueError, match="probability"):
        expected_calibration_error([0.5, value], [0, 1])


@pytest.mark.parametrize("value", [0.5, 2, -1, float("nan")])
def test_a_truth_that_is_neither_0_nor_1_is_an_error_that_names_image_and_label(metric, value):
    with pytest.raises(ValueError, match=r"references\[1\] has .* for 'ILD', neither 0 nor 1"):
        metric.compute(predictions=[[0, 0], [0, 0]], references=[[0, 0], [value, 0]], labels=["ILD", "Pneumonia"])
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        auroc([0.5, 0.5], [0, value])


def test_lengths_and_labels_that_do_not_fit_are_errors(metric):
    with pytest.raises(ValueError, match=r"predictions\[1\] has 1 values for 2 labels"):
        metric.compute(predictions=[[0, 0], [0]], references=[[0, 0], [0, 0]], labels=["ILD", "Pneumonia"])
    with pytest.raises(ValueError, match=r"references\[0\] has 3 values for 2 labels"):
        metric.compute(predictions=[[0, 0]], references=[[0, 0, 0]], labels=["ILD", "Pneumonia"])
    for labels in ([], ["ILD", "ILD"]):
        with pytest.raises(ValueError, match="at least one label and none twice"):
            metric.compute(predictions=[[0, 0]], references=[[0, 0]], labels=labels)
    with pytest.raises(ValueError, match=r"shape \(2,\), the truths \(3,\)"):
        auroc([0.1, 0.2], [0, 1, 1])
    with pytest.raises(ValueError, match="weights are for 3 images, not for 2"):
        auroc([0.1, 0.2], [0, 1], np.ones((4, 3)))


def test_the_example_of_the_docstring(monkeypatch):
    monkeypatch.chdir(METRIC.parents[1])
    example = doctest.DocTestParser().get_doctest(
        label_probabilities._KWARGS_DESCRIPTION, {"evaluate": evaluate}, "label_probabilities", None, 0
    )
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=3)


def test_a_thousand_resamples_of_three_thousand_images_take_seconds_and_little_memory():
    p, y = random_probabilities(6, images=3000)
    weights = np.random.default_rng(0).multinomial(3000, np.full(3000, 1 / 3000), size=1000)
    tracemalloc.start()
    start = time.process_time()
    areas = auroc(p, y, weights)
    assert time.process_time() - start < 10
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert areas.mean(0) == pytest.approx(auroc(p, y), abs=0.005) and (areas.std(0) > 0).all()
