"""What is found beside the answers: of each source mAP, FROC, sensitivities, F1 and the accuracy given the label.

    scores = source_scores(asked, answers, labels, patients, {"views": processor.view_thresholds})
    scores["figures"]["views"]["map"]["0.4"], scores["intervals"]["views_less_answer"]["map"]["0.4"]

In: a question about findings, and lines of the predictions file. Out: what metrics.json has under "box_sources" of
the task; None where the lines have nothing beside the answers. The sources are what the lines have: the answers alone,
with the candidates that they leave out, several views together, the detector, and the answers and the detector
together. Beside each stands "SOURCE_shuffled", the same boxes given to other images, the mean of three shuffles. The
location prior is another control of metrics.json.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.figures import (
    ACCURACY_THRESHOLDS,
    DETECTION_THRESHOLDS,
    NUM_BINS,
    RIGHT,
    label_precisions,
    nested,
)
from litegpt.evaluation_scripts.questions import Question, true_boxes
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.evaluation_scripts.tower_scores.detection import best_scored, pair_overlaps
from litegpt.metrics.boxes import (
    FALSE_POSITIVES,
    ROUNDING,
    Images,
    accuracy_at_iou,
    best_overlaps,
    froc_sensitivities,
    match,
)
from litegpt.metrics.intervals import Figures
from litegpt.metrics.probabilities import expected_calibration_error
from litegpt.metrics.ratios import ratio
from litegpt.processing.tasks import FINDINGS

# The fields of a line whose boxes each has.
SOURCES = {
    "answer": ("findings",),
    "candidates": ("findings", "candidates"),
    "views": ("view_findings",),
    "detector": ("detected_findings",),
    "fused": ("fused_findings",),
}
BESIDE = (
    *((name, f"{name}_shuffled") for name in SOURCES),
    ("candidates", "answer"),
    ("views", "answer"),
    ("views", "candidates"),
    ("fused", "answer"),
    ("fused", "detector"),
)
SHUFFLES = 3


def source_scores(
    asked: Question,
    answers: Sequence[dict[str, Any]],
    labels: dict[str, list[str]],
    patients: np.ndarray | None,
    thresholds: dict[str, dict[str, float]] | None = None,
) -> dict[str, Any] | None:
    """Figures of all sources with their 95 % intervals, and differences of those that are held against each other.

    Args:
        answers: to the question, for all images, lines of the predictions file.
        patients: (known,) number of each answered image's patient; None: each is another one's.
        thresholds: by source, see `SourceBoxes`; without them all boxes count.

    Returns:
        "figures" and "intervals": {source: {"map": {IoU: value}, "froc": {"mean", "sensitivity": {false positives an
        image: value}}, "sensitivity": of all boxes, "box_f1" and "accuracy_at_iou": {IoU: value}, "ece", "boxes": an
        image, "accuracy_given_label": {IoU: value}}}, also of "SOURCE_shuffled" and "ONE_less_OTHER". Given the
        label: of all pairs of an image and a label that it has, the share in which the best-scored box of the label
        meets one of its own.
    """
    known = [answers[index] for index in asked.images]
    fields = {name: of_name for name, of_name in SOURCES.items() if all(f in line for line in known for f in of_name)}
    if len(fields) < 2:
        return None
    boxes = {name: [[box for f in of_name for box in line[f]] for line in known] for name, of_name in fields.items()}
    true = true_boxes(asked.rows, labels[FINDINGS.name])
    rng = np.random.default_rng(0)
    orders = [random_cycle(len(known), rng) for _ in range(SHUFFLES)]
    found = {}
    for name, of_name in boxes.items():
        own = (thresholds or {}).get(name, {})
        found[name] = [SourceBoxes(of_name, true, own)]
        found[f"{name}_shuffled"] = [SourceBoxes([of_name[o] for o in order], true, own) for order in orders]

    def statistic(weights: np.ndarray) -> Figures:
        values = {name: _mean([one.figures(weights) for one in of_name]) for name, of_name in found.items()}
        figures = {(name, *key): value for name, of_name in values.items() for key, value in of_name.items()}
        for one, other in BESIDE:
            if one in values and other in values:
                for key in values[one]:
                    figures[(f"{one}_less_{other}", *key)] = values[one][key] - values[other][key]
        return figures

    points, intervals = figures_and_intervals(statistic, len(known), patients)
    return {"figures": nested(points), "intervals": nested(intervals)}


class SourceBoxes:
    """Boxes of one source held against the truth, ready for any weights of the images.

    Args:
        boxes, true: of each image, as `litegpt.metrics.boxes.match` takes them.
        thresholds: of each label the score from which on a box counts for F1 and accuracy.
    """

    def __init__(self, boxes: Images, true: Images, thresholds: dict[str, float]):
        self.num_images = len(true)
        self.matches = {str(threshold): match(boxes, true, threshold) for threshold in DETECTION_THRESHOLDS}
        self.pair_image, self.pair_iou = pair_overlaps(best_scored(boxes), true)
        kept = [[box for box in of_image if box["score"] >= thresholds.get(box["label"], 0.0)] for of_image in boxes]
        self.overlaps = best_overlaps(kept, true)
        # By falling score the matches above a label's threshold are those that they would be without the rest.
        self.is_kept = {
            key: matches.score >= np.array([thresholds.get(label, 0.0) for label in matches.label])
            for key, matches in self.matches.items()
        }

    def figures(self, weights: np.ndarray) -> Figures:
        """Of each row of weights a number; mAP as (rows, labels), for `litegpt.metrics.intervals`."""
        right, num_images = self.matches[RIGHT], weights.sum(-1)
        true = weights[:, right.true_image].sum(-1)
        froc = froc_sensitivities(right, self.num_images, weights=weights)
        figures: Figures = {
            ("froc", "mean"): froc.mean(-1),
            **{("froc", "sensitivity", f"{n:g}"): froc[:, i] for i, n in enumerate(FALSE_POSITIVES)},
            ("sensitivity",): ratio(weights[:, right.image] @ right.is_true, true),
            ("boxes",): ratio(weights[:, right.image].sum(-1), num_images),
            ("ece",): expected_calibration_error(right.score, right.is_true, NUM_BINS, weights, right.image),
        }
        for key, matches in self.matches.items():
            is_kept = self.is_kept[key]
            kept_weights = weights[:, matches.image[is_kept]]
            figures["map", key] = label_precisions(matches, weights)
            figures["box_f1", key] = ratio(2 * (kept_weights @ matches.is_true[is_kept]), kept_weights.sum(-1) + true)
        of_pairs = weights[:, self.pair_image]
        for threshold in ACCURACY_THRESHOLDS:
            figures["accuracy_at_iou", str(threshold)] = accuracy_at_iou(self.overlaps, threshold, weights)
            met = self.pair_iou > threshold + ROUNDING
            figures["accuracy_given_label", str(threshold)] = ratio(of_pairs @ met, of_pairs.sum(-1))
        return figures


def _mean(figures: Sequence[Figures]) -> Figures:
    return {key: np.mean([one[key] for one in figures], axis=0) for key in figures[0]}
