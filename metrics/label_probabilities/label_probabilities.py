"""AUROC, average precision and calibration of label probabilities.

Programs import the functions too, for bootstrap intervals, calibration and plots.
"""

import datasets
import evaluate
import numpy as np

CHUNK = 2**18  # resamples times images in memory at once

_DESCRIPTION = """\
How well the probabilities of labels rank the images (AUROC and average precision, per label and their means) and how
far they can be taken at their word (Brier score, expected calibration error and the bins of a reliability diagram,
over all pairs of an image and a label).
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of float): per image the probability of each label, in [0, 1].
    references (list of list of int): per image 1 for each label that is present, else 0.
    labels (sequence of str): names of the labels, in the order of both.
    num_bins (int): bins of equal width for the calibration. Default 10.
Returns:
    auroc (dict): {label: ...}; None where the label is present in all images or in none.
    macro_auroc (float): mean over the labels that have one, or None.
    average_precision (dict): {label: ...}; None where the label is present in no image.
    macro_average_precision (float): mean over the labels that have one, or None.
    brier (float): mean squared difference of probability and truth.
    ece (float): mean difference between probability and frequency in a bin, weighted by the pairs in it.
    reliability (list of dict): per bin {"low", "high", "confidence", "frequency", "count"}: the mean probability and
        the share of present labels among the pairs in it; None for both where count is 0.
Examples:
    >>> metric = evaluate.load("metrics/label_probabilities")
    >>> results = metric.compute(
    ...     predictions=[[0.9, 0.2], [0.6, 0.4], [0.6, 0.1], [0.1, 0.1]],
    ...     references=[[1, 0], [1, 0], [0, 0], [0, 0]],
    ...     labels=["Pneumonia", "Tuberculosis"],
    ... )
    >>> results["auroc"], results["macro_auroc"]
    ({'Pneumonia': 0.875, 'Tuberculosis': None}, 0.875)
"""

_CITATION = """\
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={International Conference on Machine Learning (ICML)},
  year={2017}
}
"""


def auroc(probabilities: np.ndarray, truths: np.ndarray, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Area under the ROC curve: how often a positive image has more than a negative one, equal ones counting half.

    Args:
        probabilities: (images,) or (images, labels), any numbers that rank.
        truths: 0 or 1, of the same shape.
        weights: (images,) or (resamples, images), how often each image counts. None: once.

    Returns:
        A float for (images,), (labels,) for (images, labels); (resamples,) and (resamples, labels) for weights of that
        shape. NaN where the images of a resample are all positive or all negative.

    Source: Hanley and McNeil (1982), the Mann-Whitney statistic.
    """
    probabilities, truths = _checked(probabilities, truths)
    rows = np.ones((1, len(probabilities))) if weights is None else np.atleast_2d(weights)
    if rows.shape[1] != len(probabilities):
        raise ValueError(f"The weights are for {rows.shape[1]} images, not for {len(probabilities)}.")
    if probabilities.ndim == 1:
        areas = _area(probabilities, truths, rows)
    else:
        areas = np.stack([_area(p, y, rows) for p, y in zip(probabilities.T, truths.T, strict=True)], axis=-1)
    return areas if np.ndim(weights) == 2 else areas[0]


def _area(p, y, rows):
    """(resamples,) AUROC of (images,) probabilities and truths under (resamples, images) weights."""
    positives, negatives = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    negatives = negatives[np.argsort(p[negatives])]
    below = np.searchsorted(p[negatives], p[positives], side="left")  # of each positive: negatives that it beats
    not_above = np.searchsorted(p[negatives], p[positives], side="right")  # and those that it ties with
    area = np.full(len(rows), np.nan)
    step = max(1, CHUNK // max(1, len(p)))
    for chunk in (slice(start, start + step) for start in range(0, len(rows), step)):
        positive_weights = rows[chunk][:, positives]
        negatives_before = np.pad(np.cumsum(rows[chunk][:, negatives], axis=-1), ((0, 0), (1, 0)))
        wins = (positive_weights * (negatives_before[:, below] + negatives_before[:, not_above])).sum(-1) / 2
        pairs = positive_weights.sum(-1) * negatives_before[:, -1]
        area[chunk] = np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)
    return area


def average_precision(probabilities: np.ndarray, truths: np.ndarray) -> float:
    """Sum of precision times the gain of recall over the distinct probabilities, from the highest down.

    Args:
        probabilities: (images,), any numbers that rank.
        truths: (images,) 0 or 1.

    Returns:
        From 0 to 1; NaN without a positive image.

    Source: scikit-learn's average_precision_score. Unlike box_detection's it has no envelope.
    """
    probabilities, truths = _checked(probabilities, truths)
    if not truths.any():
        return float("nan")
    order = np.argsort(-probabilities)
    ends = np.flatnonzero(np.diff(probabilities[order], append=np.nan) != 0)
    true = np.cumsum(truths[order])[ends]
    return float((np.diff(true, prepend=0) * true / (ends + 1)).sum() / true[-1])


def reliability(p: np.ndarray, y: np.ndarray, num_bins: int = 10) -> list[dict[str, float | int | None]]:
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
    p, y = _checked(p, y)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("A probability is outside [0, 1].")
    edges = np.arange(num_bins + 1) / num_bins
    bin_of = np.searchsorted(edges[1:-1], p.ravel(), side="left")
    counts = np.bincount(bin_of, minlength=num_bins)
    sums = [np.bincount(bin_of, weights=values.ravel(), minlength=num_bins) for values in (p, y)]
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "confidence": float(sums[0][b] / counts[b]) if counts[b] else None,
            "frequency": float(sums[1][b] / counts[b]) if counts[b] else None,
            "count": int(counts[b]),
        }
        for b in range(num_bins)
    ]


def expected_calibration_error(p: np.ndarray, y: np.ndarray, num_bins: int = 10) -> float:
    """Mean of |confidence - frequency| over the bins of `reliability`, weighted by their counts; NaN without values.

    Source: Guo et al. (2017), section 2, equation 3.
    """
    bins = [b for b in reliability(p, y, num_bins) if b["count"]]
    if not bins:
        return float("nan")
    return sum(b["count"] * abs(b["confidence"] - b["frequency"]) for b in bins) / sum(b["count"] for b in bins)


def _checked(p, y):
    """Both as float arrays of one shape, without NaN, y of 0 and 1."""
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if p.shape != y.shape:
        raise ValueError(f"The probabilities have the shape {p.shape}, the truths {y.shape}.")
    if not np.isfinite(p).all():
        raise ValueError("A probability is not a finite number.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("A truth is neither 0 nor 1.")
    return p, y


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class LabelProbabilities(evaluate.Metric):
    def _info(self):
        # Truths are read as floats: as integers, 0.5 would become 0 without a word.
        values = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": values, "references": values}),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(self, predictions, references, labels, num_bins=10):
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("`labels` must name at least one label and none twice.")
        p = _read_rows(predictions, "predictions", labels)
        y = _read_rows(references, "references", labels)
        bad = ~((p >= 0) & (p <= 1))  # also true for NaN
        if bad.any():
            image, label = np.argwhere(bad)[0]
            raise ValueError(f"predictions[{image}] has {p[image, label]} for {labels[label]!r}, not a probability.")
        bad = ~np.isin(y, (0, 1))
        if bad.any():
            image, label = np.argwhere(bad)[0]
            raise ValueError(f"references[{image}] has {y[image, label]} for {labels[label]!r}, neither 0 nor 1.")
        areas = auroc(p, y)
        precisions = np.array([average_precision(p[:, label], y[:, label]) for label in range(len(labels))])
        return {
            "auroc": {name: _or_none(value) for name, value in zip(labels, areas, strict=True)},
            "macro_auroc": _mean(areas),
            "average_precision": {name: _or_none(value) for name, value in zip(labels, precisions, strict=True)},
            "macro_average_precision": _mean(precisions),
            "brier": float(((p - y) ** 2).mean()) if p.size else None,
            "ece": _or_none(expected_calibration_error(p, y, num_bins)),
            "reliability": reliability(p, y, num_bins),
        }


def _read_rows(rows, what, labels):
    """(images, labels) float."""
    for image, row in enumerate(rows):
        if len(row) != len(labels):
            raise ValueError(f"{what}[{image}] has {len(row)} values for {len(labels)} labels.")
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(labels))


def _mean(values):
    """Mean of the values that are not NaN, or None."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _or_none(value):
    return None if np.isnan(value) else float(value)
