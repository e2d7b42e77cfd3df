import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from litegpt.metrics.intervals import bootstrap_intervals
from litegpt.metrics.sentence_truth import (
    SentenceCalibration,
    fit_sentence_calibration,
    operating_point,
    probabilities,
    sentence_figures,
    sentence_scores,
)


def drawn(count: int, slope: float, intercept: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds, and truths with the probability that a calibration gives them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(1, 3, count)
    return x, (rng.random(count) < 1 / (1 + np.exp(-(slope * x + intercept)))).astype(int)


def test_the_fit_is_scikit_learns_on_platts_targets():
    """A target of 0.9 is nine tenths of a true sentence and one of a false one."""
    x, y = drawn(400, 0.7, -0.5, 0)
    targets = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    regression = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    twice = np.concatenate([x, x])[:, None]
    regression.fit(twice, np.repeat([1, 0], 400), sample_weight=np.concatenate([targets, 1 - targets]))
    fitted = fit_sentence_calibration(x, y)
    assert fitted == pytest.approx((regression.coef_[0, 0], regression.intercept_[0]), rel=1e-4)


def test_the_fit_finds_what_was_drawn():
    fitted = fit_sentence_calibration(*drawn(100_000, 0.7, -0.5, 1))
    assert fitted == pytest.approx((0.7, -0.5), abs=0.03)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_log_odds_that_part_the_truths_have_a_fit(scale):
    x = scale * np.array([-3.0, -2, -1, 1, 2, 3])
    y = np.array([0, 0, 0, 1, 1, 1])
    fitted = fit_sentence_calibration(x, y)

    def loss(at):
        logits, targets = at[0] * x / scale + at[1], np.where(y, 0.8, 0.2)
        return (np.logaddexp(0, logits) - targets * logits).sum()

    assert (fitted.slope * scale, fitted.intercept) == pytest.approx(minimize(loss, [0, 0]).x, abs=1e-4)


def test_log_odds_that_are_all_the_same_give_the_share_that_is_true():
    fitted = fit_sentence_calibration([2.0] * 4, [1, 1, 1, 0])
    assert fitted.slope == 0
    assert probabilities([2.0], fitted) == pytest.approx([(3 * 4 / 5 + 1 / 3) / 4])


def test_log_odds_that_point_the_wrong_way_get_a_slope_below_zero():
    assert fit_sentence_calibration([-1.0, -0.5, 0.5, 1.0], [1, 1, 0, 0]).slope < 0


@pytest.mark.parametrize(
    ("x", "y", "problem"),
    [
        ([1.0, 2.0], [1, 1], "all 2 are true"),
        ([1.0, 2.0], [0, 0], "all 2 are false"),
        ([], [], "there are none"),
        ([1.0, np.inf], [0, 1], "sentence 1 is not finite"),
        ([1.0, 2.0], [0, 0.5], "neither 0 nor 1"),
        ([1.0, 2.0], [0], "shape"),
    ],
)
def test_what_cannot_be_fitted_is_named(x, y, problem):
    with pytest.raises(ValueError, match=problem):
        fit_sentence_calibration(x, y)


def test_large_log_odds_have_probabilities():
    p = probabilities([-1e4, 0, 1e4], SentenceCalibration(1.0, 0.0))
    assert p == pytest.approx([0, 0.5, 1]) and np.isfinite(p).all()


def test_the_operating_point_is_the_lowest_threshold_by_trying_all():
    rng = np.random.default_rng(2)
    for precision in (0.5, 0.7, 0.8, 0.95):
        p = np.round(rng.random(60), 1)
        y = (rng.random(60) < p).astype(int)
        good = [t for t in sorted(set(p)) if y[p >= t].mean() >= precision]
        point = operating_point(p, y, precision)
        assert (point.threshold if point else None) == (good[0] if good else None)
        if point:
            kept = p >= point.threshold
            assert point == pytest.approx((good[0], y[kept].mean(), y[kept].sum() / y.sum(), kept.sum()))


def test_without_a_good_threshold_there_is_no_operating_point():
    assert operating_point([0.9, 0.8], [0, 1]) is None
    assert operating_point([], []) is None
    assert operating_point([0.9, 0.9, 0.1], [1, 0, 1]) is None  # equal ones are kept together


def test_figures_are_scikit_learns_and_those_of_bins_by_hand():
    scores = sentence_scores([0.95, 0.85, 0.85, 0.15], [1, 1, 0, 0])
    assert scores["auroc"] == pytest.approx(roc_auc_score([1, 1, 0, 0], [0.95, 0.85, 0.85, 0.15]))
    assert scores["ece"] == pytest.approx((0.05 + 2 * 0.35 + 0.15) / 4)
    assert scores["operating_point"] == {"threshold": 0.95, "precision": 1.0, "recall": 0.5, "kept": 1}
    assert (scores["num_sentences"], scores["num_true"]) == (4, 2)
    assert sentence_scores([0.5], [1])["auroc"] is None


def test_weights_count_images_with_all_their_sentences():
    rng = np.random.default_rng(3)
    p, y, image = rng.random(60), rng.integers(0, 2, 60), np.repeat(np.arange(20), 3)
    weights = rng.integers(0, 3, size=(4, 20)).astype(float)
    figures = sentence_figures(p, y, image, weights)
    for row, counts in enumerate(weights.astype(int)):
        chosen = np.repeat(np.arange(60), counts[image])
        for name, values in sentence_figures(p[chosen], y[chosen]).items():
            assert figures[name][row] == pytest.approx(values[0]), name
    low, high = bootstrap_intervals(lambda rows: sentence_figures(p, y, image, rows), 20, 200)["auroc",]
    assert low < roc_auc_score(y, p) < high
