"""Scores of labels that a fine-tuned tower gives, beside what would be reached without looking.

    label_scores(probabilities, truths, abnormal, labels, patients, min_positives=10)
    class_scores(probabilities, classes, constant=0, labels=labels, patients=patients)

In: probabilities, (radiographs, labels), and what is true. Out: "figures" and "intervals" (95 %, bootstrap by patient
where patients are known) as metrics.json has them. Each score stands beside `shuffled`, the mean of ten shuffles in
which every radiograph gets another one's answer. Several labels are ranked (AUROC), among all radiographs and among
abnormal ones (`litegpt.evaluation_scripts.ranking`); of exactly one label the likeliest is right or wrong (accuracy),
and `constant` always names what is commonest in training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.controls import SHUFFLES, random_cycle
from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import figures_and_intervals, label_aurocs, ranking_figures, usable_labels
from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import macro_mean, ratio

TOWER, SHUFFLED = "tower", "shuffled"


def label_scores(
    probabilities: np.ndarray,
    truths: np.ndarray,
    abnormal: np.ndarray,
    labels: Sequence[str],
    patients: np.ndarray | None,
    min_positives: int,
) -> dict[str, Any]:
    """AUROC of each label and their mean.

    Args:
        truths: (radiographs, labels) 1, 0 or NaN, which is left out of its label.
        abnormal: (radiographs,) bool.
        patients: (radiographs,) numbers from 0 on; None: each is another one's.
        min_positives: how many positive and how many negative radiographs a label needs to be scored.

    Returns:
        "labels" that are scored; "counts" {label: {"positive", "negative"}}; "left_out" {label: reason}; "figures" and
        "intervals" of `TOWER`, `SHUFFLED`, "tower_less_shuffled" and "anything_there".

    Raises:
        ValueError: no label has enough radiographs.
    """
    usable, left_out = usable_labels(labels, truths, min_positives)
    if not len(usable):
        raise ValueError(f"No label has {min_positives} positive and {min_positives} negative test radiographs.")
    probabilities, truths = probabilities[:, usable], truths[:, usable]
    names = [labels[place] for place in usable]
    rng = np.random.default_rng(0)
    scores = {
        TOWER: probabilities,
        SHUFFLED: [probabilities[random_cycle(len(truths), rng)] for _ in range(SHUFFLES)],
    }
    statistic = ranking_figures(scores, truths, abnormal, names, [(TOWER, SHUFFLED)])
    points, intervals = figures_and_intervals(statistic, len(truths), patients)
    return {
        "labels": names,
        "counts": {
            name: {"positive": int((column == 1).sum()), "negative": int((column == 0).sum())}
            for name, column in zip(names, truths.T, strict=True)
        },
        "left_out": left_out,
        "figures": nested(points),
        "intervals": nested(intervals),
    }


def class_scores(
    probabilities: np.ndarray,
    classes: np.ndarray,
    constant: int,
    labels: Sequence[str],
    patients: np.ndarray | None,
) -> dict[str, Any]:
    """Accuracy of the likeliest label, and of each label the share of its radiographs that is found (recall).

    Args:
        classes: (radiographs,) number of the one label that each has.
        constant: the commonest label of the training radiographs.
        patients: (radiographs,) numbers from 0 on; None: each is another one's.

    Returns:
        "labels"; "counts" {label: radiographs}; "figures" and "intervals": "accuracy" of `TOWER`, `SHUFFLED`,
        "constant" and "tower_less_shuffled"; "recall" by label, and "mean_recall" over the labels.
    """
    named = probabilities.argmax(axis=1)
    right = (named == classes).astype(float)
    rng = np.random.default_rng(0)
    shuffled = np.mean([named[random_cycle(len(classes), rng)] == classes for _ in range(SHUFFLES)], axis=0)
    always = (classes == constant).astype(float)

    def statistic(weights: np.ndarray) -> Figures:
        total = weights.sum(axis=1)
        recalls = np.stack(
            [
                ratio(weights @ (right * (classes == place)), weights @ (classes == place))
                for place in range(len(labels))
            ],
            axis=1,
        )
        return {
            ("accuracy", TOWER): weights @ right / total,
            ("accuracy", SHUFFLED): weights @ shuffled / total,
            ("accuracy", "constant"): weights @ always / total,
            ("accuracy", "tower_less_shuffled"): weights @ (right - shuffled) / total,
            ("mean_recall",): recalls,
            **{("recall", label): recalls[:, place] for place, label in enumerate(labels)},
        }

    points, intervals = figures_and_intervals(statistic, len(classes), patients)
    counts = np.bincount(classes, minlength=len(labels))
    return {
        "labels": list(labels),
        "counts": {label: int(count) for label, count in zip(labels, counts, strict=True)},
        "left_out": {},
        "figures": nested(points),
        "intervals": nested(intervals),
    }


def macro_auroc(probabilities: np.ndarray, truths: np.ndarray) -> float:
    """Mean AUROC over the labels that have positive and negative radiographs; NaN where none has."""
    return float(macro_mean(label_aurocs(probabilities, truths, np.ones((1, len(truths))))[0]))
