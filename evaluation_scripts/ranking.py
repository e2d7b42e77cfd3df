"""How well scores rank radiographs by label: AUROC among all and among abnormal ones, for any weights of the images.

    statistic = ranking_figures({"report": scores}, truths, abnormal, labels)
    points, intervals = figures_and_intervals(statistic, num_images, patients)
    points["report", "abnormal", "macro"]               # 0.64, the mean over the labels
    points["anything_there", "all", "macro"]            # 0.86, what knowing "abnormal or not" alone gives
    intervals["report_less_anything_there", "all", "macro"]   # [-0.21, -0.15], of the difference, on the same draws

In: scores and truths, (images, labels), NaN where nothing is known of a label. Out: figures by name, which are
(score, "all" or "abnormal", "macro") and (score, "all" or "abnormal", "per_label", label).

Most negatives of a label are normal radiographs, so a score that only says "is there anything?" has a high AUROC for
every label. Among abnormal radiographs it has .5: that column says whether a score tells *which* finding.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from litegpt.metrics.intervals import Figures, Name, Statistic, bootstrap_intervals
from litegpt.metrics.probabilities import auroc
from litegpt.metrics.ratios import macro_mean, number_or_none

AMONG = ("all", "abnormal")
ANYTHING_THERE = "anything_there"


def usable_labels(names: Sequence[str], truths: np.ndarray, min_positives: int) -> tuple[np.ndarray, dict[str, str]]:
    """Which labels have enough radiographs, and of each of the others why not.

    Args:
        truths: (images, labels) 1, 0 or NaN.
        min_positives: how many positive and how many negative radiographs a label needs.

    Returns:
        (usable,) indices, and {label: reason}.
    """
    positives, negatives = (truths == 1).sum(0), (truths == 0).sum(0)
    enough = (positives >= min_positives) & (negatives >= min_positives)
    reasons = {
        names[place]: f"{positives[place]:,} positive and {negatives[place]:,} negative radiographs"
        for place in np.flatnonzero(~enough)
    }
    return np.flatnonzero(enough), reasons


def label_aurocs(scores: np.ndarray, truths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(rows, labels) AUROC under (rows, images) weights; NaN where a label has no scores or a row lacks a side.

    Args:
        scores, truths: (images, labels); what is NaN in `truths` is left out of its label.
    """
    result = np.full((len(weights), truths.shape[1]), np.nan)
    for place in range(truths.shape[1]):
        known = np.isfinite(truths[:, place])
        if known.any() and np.isfinite(scores[known, place]).all():
            result[:, place] = auroc(scores[known, place], truths[known, place], weights[:, known])
    return result


def ranking_figures(
    scores: Mapping[str, Sequence[np.ndarray] | np.ndarray],
    truths: np.ndarray,
    abnormal: np.ndarray,
    labels: Sequence[str],
    differences: Sequence[tuple[str, str]] = (),
) -> Statistic:
    """The function that gives all figures of rows of weights, `ANYTHING_THERE` among them.

    Args:
        scores: by name (images, labels), or several of these, whose AUROCs are averaged (seeds of a probe).
        truths: (images, labels) 1, 0 or NaN.
        abnormal: (images,) bool.
        labels: names of the columns.
        differences: pairs of names; (a, b) gives the figures "a_less_b".
    """
    by_name = {name: [given] if isinstance(given, np.ndarray) else list(given) for name, given in scores.items()}
    by_name[ANYTHING_THERE] = [np.repeat(abnormal[:, None].astype(float), truths.shape[1], axis=1)]

    def statistic(weights: np.ndarray) -> Figures:
        figures: Figures = {}
        for among, chosen in zip(AMONG, (np.ones(len(abnormal), dtype=bool), abnormal), strict=True):
            areas = {
                name: np.mean([label_aurocs(s[chosen], truths[chosen], weights[:, chosen]) for s in given], axis=0)
                for name, given in by_name.items()
            }
            areas |= {f"{a}_less_{b}": areas[a] - areas[b] for a, b in differences}
            for name, values in areas.items():
                figures[name, among, "macro"] = values
                figures |= {(name, among, "per_label", label): values[:, i] for i, label in enumerate(labels)}
        return figures

    return statistic


def figures_and_intervals(
    statistic: Statistic, num_images: int, patients: np.ndarray | None
) -> tuple[dict[Name, float | None], dict[Name, list[float] | None]]:
    """Figures of the images, each once, and their 95 % intervals; None for what cannot be computed."""
    observed = {name: values[0] for name, values in statistic(np.ones((1, num_images))).items()}
    points = {name: number_or_none(macro_mean(value) if np.ndim(value) else value) for name, value in observed.items()}
    return points, bootstrap_intervals(statistic, num_images, patients=patients)
