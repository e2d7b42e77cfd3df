"""Probabilities against what is true: how well they rank (AUROC, average precision), and whether they can be believed.

In: probabilities and truths, 0 or 1, of the same shape: one an image, (images,), one an image and label, (images,
labels), or one of anything else that is right or wrong, such as boxes. Out: figures, and the bins of a reliability
diagram.

    auroc([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0])  # 0.875, of four pairs three are right and one is even
    auroc([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0], weights=np.array([[1, 1, 1, 1], [2, 0, 1, 1]]))  # array([0.875, 1.   ])
    expected_calibration_error([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0])  # 0.1
    reliability([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0])[5]["frequency"]  # 0.5, of the two in (0.5, 0.6]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from litegpt.metrics.ratios import macro_mean, number_or_none, number_or_rows, ratio, weight_rows

CHUNK = 2**18  # resamples times images in memory at once


# --- Ranking ---------------------------------------------------------------------------------------------------------


def auroc(probabilities: ArrayLike, truths: ArrayLike, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Area under the ROC curve: how often a positive image has more than a negative one, equal ones counting half.

    Args:
        probabilities: (images,) or (images, labels), any numbers that rank.
        truths: 0 or 1, of the same shape.
        weights: (images,) or (resamples, images), how often each image counts. None: once.

    Returns:
        A float for (images,), (labels,) for (images, labels); (resamples,) and (resamples, labels) for weights of that
        shape. NaN where the images of a resample are all positive or all negative.

    Raises:
        ValueError: the shapes differ, a probability is not finite, a truth is neither 0 nor 1.

    Source: Hanley and McNeil (1982), the Mann-Whitney statistic.
    """
    probabilities, truths = _checked(probabilities, truths)
    rows = weight_rows(weights, len(probabilities))
    if probabilities.ndim == 1:
        areas = _areas(probabilities, truths, rows)
    else:
        areas = np.stack([_areas(p, y, rows) for p, y in zip(probabilities.T, truths.T, strict=True)], axis=-1)
    return areas if np.ndim(weights) == 2 else areas[0]


def _areas(p: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(resamples,) AUROC of (images,) probabilities and truths under (resamples, images) weights."""
    positives, negatives = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    negatives = negatives[np.argsort(p[negatives])]
    below = np.searchsorted(p[negatives], p[positives], side="left")  # of each positive: negatives that it beats
    not_above = np.searchsorted(p[negatives], p[positives], side="right")  # and those that it ties with
    areas = np.full(len(rows), np.nan)
    step = max(1, CHUNK // max(1, len(p)))
    for chunk in (slice(start, start + step) for start in range(0, len(rows), step)):
        positive_weights = rows[chunk][:, positives]
        negatives_before = np.pad(np.cumsum(rows[chunk][:, negatives], axis=-1), ((0, 0), (1, 0)))
        wins = (positive_weights * (negatives_before[:, below] + negatives_before[:, not_above])).sum(-1) / 2
        areas[chunk] = ratio(wins, positive_weights.sum(-1) * negatives_before[:, -1])
    return areas


def average_precision(probabilities: ArrayLike, truths: ArrayLike) -> float:
    """Sum of precision times the gain of recall over the distinct probabilities, from the highest down.

    Args:
        probabilities: (images,), any numbers that rank.
        truths: (images,) 0 or 1.

    Returns:
        From 0 to 1; NaN without a positive image.

    Raises:
        ValueError: the shapes differ, a probability is not finite, a truth is neither 0 nor 1.

    Source: scikit-learn's average_precision_score. Unlike that of `boxes.py` it has no envelope.
    """
    probabilities, truths = _checked(probabilities, truths)
    if not truths.any():
        return float("nan")
    order = np.argsort(-probabilities)
    ends = np.flatnonzero(np.diff(probabilities[order], append=np.nan) != 0)
    true = np.cumsum(truths[order])[ends]
    return float((np.diff(true, prepend=0) * true / (ends + 1)).sum() / true[-1])


# --- Calibration -----------------------------------------------------------------------------------------------------


def reliability(p: ArrayLike, y: ArrayLike, num_bins: int = 10) -> list[dict[str, float | int | None]]:
    """Bins of a reliability diagram: {"low", "high", "confidence", "frequency", "count"}, from 0 to 1.

    Args:
        p: probabilities in [0, 1], of any shape.
        y: 0 or 1, of the same shape.
        num_bins: of equal width. A value on an edge belongs to the bin below it, 0 to the first.

    Returns:
        All bins; confidence (mean of p) and frequency (mean of y) are None where count is 0.

    Raises:
        ValueError: the shapes differ, a probability is outside [0, 1], a truth is neither 0 nor 1.

    Source: Guo et al. (2017), section 2, equation 1.
    """
    sums = np.array([values[0] for values in _bins(p, y, num_bins)])
    confidences, frequencies = (ratio(values, sums[0]) for values in sums[1:])
    edges = np.arange(num_bins + 1) / num_bins
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "confidence": number_or_none(confidences[b]),
            "frequency": number_or_none(frequencies[b]),
            "count": int(sums[0][b]),
        }
        for b in range(num_bins)
    ]


def expected_calibration_error(
    p: ArrayLike,
    y: ArrayLike,
    num_bins: int = 10,
    weights: np.ndarray | None = None,
    images: np.ndarray | None = None,
) -> float | np.ndarray:
    """Mean of |confidence - frequency| over the bins of `reliability`, weighted by their counts.

    Args:
        p: probabilities in [0, 1], of any shape.
        y: 0 or 1, of the same shape.
        num_bins: of equal width, as in `reliability`.
        weights: (images,) or (rows, images), how often each image counts. None: once.
        images: index of the image of each value, of the shape of `p`. None: its index along the first axis.

    Returns:
        A float, (rows,) for weights of that shape; NaN without values.

    Raises:
        ValueError: as `reliability`, or an image has no weight.

    Source: Guo et al. (2017), section 2, equation 3.
    """
    counts, confidences, frequencies = _bins(p, y, num_bins, weights, images)
    gaps = counts * np.abs(ratio(confidences, counts, otherwise=0) - ratio(frequencies, counts, otherwise=0))
    return number_or_rows(ratio(sum(gaps.T), counts.sum(-1)), weights)


def _bins(
    p: ArrayLike,
    y: ArrayLike,
    num_bins: int,
    weights: np.ndarray | None = None,
    images: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, bins) of each bin the number of its values, their sum, and the sum of their truths; one row for None."""
    p, y = _checked(p, y)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("A probability is outside [0, 1].")
    place = np.searchsorted(np.arange(1, num_bins) / num_bins, p, side="left").ravel()
    rows = np.ones((1, 1))  # without weights all values may be of one image
    if weights is not None:
        rows = np.atleast_2d(weights)
        image = np.ravel(np.indices(p.shape)[0] if images is None else images)
        if image.max(initial=-1) >= rows.shape[1]:
            raise ValueError(f"There are values of {image.max() + 1} images and weights for {rows.shape[1]}.")
        place = place + num_bins * image
    # Sums of each image and bin first: rows times these are far less than rows times values.
    shape = (rows.shape[1], num_bins)
    summed = [
        np.bincount(place, weights=values.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        for values in (np.ones_like(p), p, y)
    ]
    return rows @ summed[0], rows @ summed[1], rows @ summed[2]


# --- Both ------------------------------------------------------------------------------------------------------------


def probability_scores(
    probabilities: ArrayLike, truths: ArrayLike, labels: Sequence[str], num_bins: int = 10
) -> dict[str, Any]:
    """All scores of `metrics/label_probabilities`.

    Args:
        probabilities: (images, labels) in [0, 1].
        truths: (images, labels) 0 or 1.
        labels: their names.
        num_bins: of `reliability`.

    Returns:
        "auroc", {label: value}; "macro_auroc"; "average_precision", {label: value}; "macro_average_precision";
        "brier", the mean squared difference of probability and truth; "ece"; "reliability". None stands for what
        cannot be computed.

    Raises:
        ValueError: as `reliability`.
    """
    p, y = _checked(probabilities, truths)
    areas = auroc(p, y)
    precisions = np.array([average_precision(*columns) for columns in zip(p.T, y.T, strict=True)])
    return {
        "auroc": {name: number_or_none(value) for name, value in zip(labels, areas, strict=True)},
        "macro_auroc": number_or_none(macro_mean(areas)),
        "average_precision": {name: number_or_none(value) for name, value in zip(labels, precisions, strict=True)},
        "macro_average_precision": number_or_none(macro_mean(precisions)),
        "brier": float(((p - y) ** 2).mean()) if p.size else None,
        "ece": number_or_none(expected_calibration_error(p, y, num_bins)),
        "reliability": reliability(p, y, num_bins),
    }


def _checked(p: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float arrays of one shape, without NaN, y of 0 and 1."""
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if p.shape != y.shape:
        raise ValueError(f"The probabilities have the shape {p.shape}, the truths {y.shape}.")
    if not np.isfinite(p).all():
        raise ValueError("A probability is not a finite number.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("A truth is neither 0 nor 1.")
    return p, y
