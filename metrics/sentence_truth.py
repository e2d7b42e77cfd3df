"""Probabilities that sentences are true of an image: how well they tell, and how log-odds become probabilities.

In: of each sentence log-odds or a probability that it is true, and whether it is. Out: figures; the threshold from
which on sentences can be kept; a calibration that makes log-odds mean what they say.

    calibration = fit_sentence_calibration([2.0, 1.0, -0.5, 0.5, -1.0, -2.0], [1, 1, 1, 0, 0, 0])
    p = probabilities([2.0, -2.0], calibration)  # array([0.78, 0.22])
    operating_point([0.99, 0.9, 0.6, 0.2], [1, 1, 0, 0], precision=0.95)  # threshold 0.9: two of two kept are true
    sentence_figures([0.99, 0.9, 0.6, 0.2], [1, 1, 0, 0], images=[0, 0, 1, 1])["auroc",]  # array([1.])

Source: Platt, Probabilistic Outputs for Support Vector Machines (1999), section 2.2, for the fit and its targets;
Lin, Lin and Weng, A Note on Platt's Probabilistic Outputs (2007), for how it is found.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from litegpt.metrics.intervals import Figures
from litegpt.metrics.probabilities import auroc, expected_calibration_error
from litegpt.metrics.ratios import number_or_none, weight_rows

PRECISION = 0.95  # of the sentences that are kept, the share that must be true
NUM_BINS = 10  # of the calibration error
MOST_STEPS = 100  # of Newton's method, which takes about ten


# --- Log-odds to probabilities ---------------------------------------------------------------------------------------


class SentenceCalibration(NamedTuple):
    """The probability of log-odds x is 1 / (1 + exp(-(slope * x + intercept))).

    A slope below 0 says that the log-odds point the wrong way.
    """

    slope: float
    intercept: float


def fit_sentence_calibration(log_odds: ArrayLike, is_true: ArrayLike) -> SentenceCalibration:
    """The most likely slope and intercept (Platt scaling).

    Targets are Platt's, (n + 1) / (n + 2) for the n true sentences and 1 / (m + 2) for the m false ones, in place of 1
    and 0: where log-odds part true from false without an error, the slope would otherwise have no end.

    Args:
        log_odds: (sentences,) of being true, finite.
        is_true: (sentences,) 0 or 1.

    Raises:
        ValueError: the shapes differ, a number is not finite, a truth is neither 0 nor 1, all sentences are true or
            all false.
    """
    x, y = _checked(log_odds, is_true)
    true = int(y.sum())
    false = len(y) - true
    if not true or not false:
        which = "true" if true else "false"
        raise ValueError(
            f"A calibration needs true and false sentences, and all {len(y)} are {which}."
            if len(y)
            else "A calibration needs sentences, and there are none."
        )
    targets = np.where(y == 1, (true + 1) / (true + 2), 1 / (false + 2))
    middle, spread = float(x.mean()), float(x.std())
    if spread == 0:  # the same log-odds for all tell nothing
        share = float(targets.mean())
        return SentenceCalibration(0.0, float(np.log(share / (1 - share))))
    columns = np.stack([(x - middle) / spread, np.ones_like(x)], axis=1)
    slope, intercept = _most_likely(columns, targets)
    return SentenceCalibration(slope / spread, intercept - slope * middle / spread)


def _most_likely(columns: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The two coefficients of a logistic regression on (n, 2) columns, by Newton's method with halved steps."""
    at = np.zeros(2)
    for _ in range(MOST_STEPS):
        p = _logistic(columns @ at)
        gradient = columns.T @ (targets - p)
        hessian = (columns * (p * (1 - p))[:, None]).T @ columns
        step = np.linalg.solve(hessian, gradient)
        before = _likelihood(columns @ at, targets)
        while _likelihood(columns @ (at + step), targets) < before and np.abs(step).max() > 1e-12:
            step = step / 2
        at = at + step
        if np.abs(step).max() < 1e-10:
            break
    return float(at[0]), float(at[1])


def _likelihood(logits: np.ndarray, targets: np.ndarray) -> float:
    """The logarithm of the targets' likelihood."""
    return float((targets * logits - np.logaddexp(0, logits)).sum())


def _logistic(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def probabilities(log_odds: ArrayLike, calibration: SentenceCalibration) -> np.ndarray:
    """The calibrated probability of each of the log-odds, of any shape."""
    return _logistic(calibration.slope * np.asarray(log_odds, dtype=np.float64) + calibration.intercept)


# --- Figures ---------------------------------------------------------------------------------------------------------


class OperatingPoint(NamedTuple):
    """Sentences with at least a threshold's probability are kept, the others are doubtful."""

    threshold: float
    precision: float  # the share of the kept sentences that are true
    recall: float  # the share of the true sentences that are kept
    kept: int  # sentences


def operating_point(p: ArrayLike, is_true: ArrayLike, precision: float = PRECISION) -> OperatingPoint | None:
    """The lowest threshold from which on enough of the kept sentences are true; None where no threshold has that.

    Where few are kept, the share that is true is uncertain: look at `kept`.

    Args:
        p: (sentences,) any numbers that rank.
        is_true: (sentences,) 0 or 1.
        precision: the share of the kept that must be true.

    Raises:
        ValueError: the shapes differ, a number is not finite, a truth is neither 0 nor 1.
    """
    p, y = _checked(p, is_true)
    order = np.argsort(-p, kind="stable")
    lasts = np.flatnonzero(np.diff(p[order], append=np.nan) != 0)  # the last sentence of each distinct probability
    true = np.cumsum(y[order])[lasts]
    shares = true / (lasts + 1)
    enough = np.flatnonzero(shares >= precision - 1e-12)
    if not len(enough):
        return None
    last = enough[-1]
    kept = int(lasts[last]) + 1
    return OperatingPoint(float(p[order][lasts[last]]), float(shares[last]), float(true[last] / y.sum()), kept)


def sentence_figures(
    p: ArrayLike, is_true: ArrayLike, images: ArrayLike | None = None, weights: np.ndarray | None = None
) -> Figures:
    """AUROC and calibration error for each row of weights; NaN where one cannot be computed.

    Args:
        p: (sentences,) probabilities in [0, 1] that they are true.
        is_true: (sentences,) 0 or 1.
        images: (sentences,) index of the image of each, from 0 on. None: each is about an image of its own.
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        (rows,) each: ("auroc",), ("ece",).

    Raises:
        ValueError: as `operating_point`, or a probability is outside [0, 1].
    """
    p, y = _checked(p, is_true)
    image = np.arange(len(p)) if images is None else np.asarray(images, dtype=int)
    rows = weight_rows(weights, image.max(initial=-1) + 1 if weights is None else np.shape(weights)[-1])
    return {
        ("auroc",): auroc(p, y, rows[:, image]),
        ("ece",): expected_calibration_error(p, y, NUM_BINS, rows, image),
    }


def sentence_scores(p: ArrayLike, is_true: ArrayLike, precision: float = PRECISION) -> dict[str, Any]:
    """All figures of probabilities that sentences are true.

    Returns:
        "auroc", "ece", None where they cannot be computed; "operating_point", {"threshold", "precision", "recall",
        "kept"} or None; "num_sentences", "num_true".

    Raises:
        ValueError: as `sentence_figures`.
    """
    p, y = _checked(p, is_true)
    point = operating_point(p, y, precision)
    return {
        **{name: number_or_none(values[0]) for (name,), values in sentence_figures(p, y).items()},
        "operating_point": point and point._asdict(),
        "num_sentences": len(y),
        "num_true": int(y.sum()),
    }


def _checked(numbers: ArrayLike, truths: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as (sentences,) float arrays, without NaN, truths of 0 and 1."""
    x, y = np.asarray(numbers, dtype=np.float64), np.asarray(truths, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"There are numbers of the shape {x.shape} and truths of the shape {y.shape}, not two lists.")
    if not np.isfinite(x).all():
        raise ValueError(f"The number of sentence {np.flatnonzero(~np.isfinite(x))[0]} is not finite.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("A truth is neither 0 nor 1.")
    return x, y
