"""Scores of the boxes that a fine-tuned tower gives, beside what would be reached without looking.

    box_scores(predictions, references, labels, training, patients, min_boxes=10)

In: per radiograph a list of {"label", "box", "score"} and of the true {"label", "box"}; `ANY` is the label of boxes
that stand for any of the labels. Out: "figures" and "intervals" (95 %, bootstrap by patient where patients are known):
average precision of `ANY` and its mean over the labels, above IoU .3, .4, .5, and, without interval, the mean over
.4, .45, ... .75 (as Kaggle's RSNA challenge has them); FROC; accuracy given the label. Controls: `shuffled`, every
radiograph gets another one's boxes, the mean of three shuffles; `prior`, the same boxes for all, which lie where
training boxes lie most (`metrics/location_prior.py`). Predicting nothing scores 0.

All radiographs count: a box on a normal one is a false alarm, a radiograph in which nothing is found is missed. The
"mAP" of MGCA's published code, which ECAMP (arXiv 2312.13316) compares by, skips radiographs without a confident box
and radiographs without a true box: neither costs anything there, so its figures are not comparable and not repeated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from litegpt.datasets_scripts.preparation.merge_readers import keep_one_of_overlapping
from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.metrics.boxes import ROUNDING, Images, average_precision, best_overlaps, froc_sensitivities, match
from litegpt.metrics.intervals import Figures
from litegpt.metrics.location_prior import best_boxes, scored_boxes
from litegpt.metrics.ratios import number_or_none, ratio

ANY = "any finding"
TOWER, SHUFFLED, PRIOR = "tower", "shuffled", "prior"
SHUFFLES = 3  # of boxes: each is matched anew
THRESHOLDS = ("0.3", "0.4", "0.5")
RANGE, RANGE_NAME = ("0.4", "0.45", "0.5", "0.55", "0.6", "0.65", "0.7", "0.75"), "0.4 to 0.75"
FROC_THRESHOLD = "0.4"


def any_finding(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The boxes of a radiograph, whatever their labels; of those that overlap (IoU > 0.5) the first one."""
    boxes = np.array([finding["box"] for finding in findings], dtype=float).reshape(-1, 4)
    kept = keep_one_of_overlapping(boxes) if len(boxes) else []
    return [{"label": ANY, "box": boxes[place].tolist()} for place in kept]


def box_scores(
    predictions: Images,
    references: Images,
    labels: Sequence[str],
    training: Images,
    patients: np.ndarray | None,
    min_boxes: int,
) -> dict[str, Any]:
    """Average precision and FROC of the tower and of the controls.

    Args:
        predictions: of each radiograph, of the labels and `ANY`.
        references: of each radiograph, of the labels; `ANY` is made of them here.
        training: the true boxes of each training radiograph, from which the prior learns.
        patients: (radiographs,) numbers from 0 on; None: each is another one's.
        min_boxes: true boxes that a label needs to be in the mean.

    Returns:
        "labels" in the mean; "counts" {label: true boxes}, and of radiographs with and without a box; "left_out"
        {label: reason}; "figures" and "intervals": {"map", "any_finding", "accuracy_given_label": {control: {IoU:
        value}}, "froc": {control: {"mean"}}}, and "tower_less_CONTROL" of each. Accuracy given the label: of all
        pairs of a radiograph and a label that it has, the share in which the best-scored box of the label (of the
        prior its best box) meets one of its true boxes.
    """
    counts = {label: sum(box["label"] == label for boxes in references for box in boxes) for label in labels}
    scored = sorted(label for label in labels if counts[label] >= min_boxes)
    left_out = {label: f"{counts[label]:,} true boxes" for label in labels if label not in scored}
    truths = [[*boxes, *any_finding(boxes)] for boxes in references]
    rng = np.random.default_rng(0)
    others = [random_cycle(len(truths), rng) for _ in range(SHUFFLES)]
    answers = {
        TOWER: [predictions],
        SHUFFLED: [[predictions[other] for other in order] for order in others],
        PRIOR: [[scored_boxes([[*boxes, *any_finding(boxes)] for boxes in training])] * len(truths)],
    }
    best_of_labels = [{"label": label, "box": box} for label, box in best_boxes(training).items()]
    overlaps = {
        TOWER: [pair_overlaps(best_scored(predictions), references)],
        SHUFFLED: [pair_overlaps(best_scored(given), references) for given in answers[SHUFFLED]],
        PRIOR: [pair_overlaps([best_of_labels] * len(truths), references)],
    }
    wanted = {*scored, ANY}
    kept = _of_labels(truths, wanted)
    matches = {
        name: [
            {threshold: match(_of_labels(given, wanted), kept, float(threshold)) for threshold in THRESHOLDS}
            for given in of_name
        ]
        for name, of_name in answers.items()
    }

    def figures_of(name: str, weights: np.ndarray) -> Figures:
        figures: Figures = {}
        for threshold in matches[name][0]:
            found = [average_precision(given[threshold], weights) for given in matches[name]]
            nothing = np.full(len(weights), np.nan)
            figures["any_finding", threshold] = np.mean([values.get(ANY, nothing) for values in found], axis=0)
            if scored:
                by_label = [np.stack([values[label] for label in scored], axis=1) for values in found]
                figures["map", threshold] = np.mean(by_label, axis=0)
        froc = [
            froc_sensitivities(_chosen(given[FROC_THRESHOLD]), len(truths), weights=weights).mean(axis=-1)
            for given in matches[name]
        ]
        figures["froc", "mean"] = np.mean(froc, axis=0)
        for threshold in THRESHOLDS:
            shares = [
                ratio(weights[:, image] @ (iou > float(threshold) + ROUNDING), weights[:, image].sum(axis=1))
                for image, iou in overlaps[name]
            ]
            figures["accuracy_given_label", threshold] = np.mean(shares, axis=0)
        return figures

    def statistic(weights: np.ndarray) -> Figures:
        own = figures_of(TOWER, weights)
        figures = {(what, TOWER, key): values for (what, key), values in own.items()}
        for name in (SHUFFLED, PRIOR):
            for (what, key), values in figures_of(name, weights).items():
                figures[what, name, key] = values
                figures[what, f"{TOWER}_less_{name}", key] = own[what, key] - values
        return figures

    points, intervals = figures_and_intervals(statistic, len(truths), patients)
    at = {key: average_precision(match(_of_labels(predictions, wanted), kept, float(key))) for key in RANGE}
    points["any_finding", TOWER, RANGE_NAME] = number_or_none(
        np.mean([found.get(ANY, np.nan) for found in at.values()])
    )
    if scored:
        points["map", TOWER, RANGE_NAME] = float(np.mean([[found[name] for name in scored] for found in at.values()]))
    by_label = {label: at[THRESHOLDS[1]][label] for label in scored}
    return {
        "labels": scored,
        "counts": {
            "boxes": counts,
            "radiographs with a box": sum(bool(boxes) for boxes in references),
            "radiographs without a box": sum(not boxes for boxes in references),
        },
        "left_out": left_out,
        "average_precision": {THRESHOLDS[1]: by_label},
        "figures": nested(points),
        "intervals": nested(intervals),
    }


def best_scored(predictions: Images) -> list[list[Mapping[str, Any]]]:
    """Of each radiograph the box of each label that has the highest score."""
    return [
        list({box["label"]: box for box in sorted(boxes, key=lambda box: box["score"])}.values())
        for boxes in predictions
    ]


def pair_overlaps(predictions: Images, references: Images) -> tuple[np.ndarray, np.ndarray]:
    """(pairs,) radiograph and best IoU of each pair of a radiograph and a label that it has a true box of."""
    found = best_overlaps(predictions, references)
    best: dict[tuple[int, str], float] = {}
    for image, label, iou in zip(found.image.tolist(), found.label, found.iou.tolist(), strict=True):
        best[image, label] = max(iou, best.get((image, label), 0))
    return np.array([image for image, _ in best], dtype=int), np.array(list(best.values()))


def _of_labels(images: Images, labels: set[str]) -> list[list[Mapping[str, Any]]]:
    return [[box for box in boxes if box["label"] in labels] for boxes in images]


def _chosen(matches: Any) -> Any:
    """The matches of `ANY` alone."""
    found, true = matches.label == ANY, matches.true_label == ANY
    return matches._replace(
        image=matches.image[found],
        label=matches.label[found],
        score=matches.score[found],
        is_true=matches.is_true[found],
        true_image=matches.true_image[true],
        true_label=matches.true_label[true],
    )


def mean_precisions(predictions: Images, references: Images, threshold: float = 0.4) -> dict[str, float]:
    """{"map_0.4", "ap_any_0.4"} of a validation: mean over the labels that have a true box, and of `ANY`."""
    truths = [[*boxes, *any_finding(boxes)] for boxes in references]
    values = average_precision(match(predictions, truths, threshold))
    label_precisions = [value for label, value in values.items() if label != ANY]
    return {
        f"map_{threshold:g}": float(np.mean(label_precisions)) if label_precisions else float("nan"),
        f"ap_any_{threshold:g}": float(values.get(ANY, np.nan)),
    }
