"""What the answers, the detector and both together find: of each mAP, FROC and the accuracy given the label.

    scores = source_scores(asked, answers, labels, patients)
    scores["figures"]["fused"]["map"]["0.4"], scores["intervals"]["fused_less_answer"]["map"]["0.4"]

In: a question about findings, and lines of the predictions file of a checkpoint with a detector. Out: what
metrics.json has under "box_sources" of the task; None of a checkpoint without one. Beside each source stands
"SOURCE_shuffled", the same boxes given to other images, the mean of three shuffles. The location prior is another
control of metrics.json.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.figures import (
    ACCURACY_THRESHOLDS,
    DETECTION_THRESHOLDS,
    RIGHT,
    label_precisions,
    nested,
)
from litegpt.evaluation_scripts.questions import Question, true_boxes
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.evaluation_scripts.tower_scores.detection import best_scored, pair_overlaps
from litegpt.metrics.boxes import ROUNDING, Images, froc_sensitivities, match
from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import ratio
from litegpt.processing.tasks import FINDINGS

SOURCES = {"answer": "findings", "detector": "detected_findings", "fused": "fused_findings"}
BESIDE = (("answer", "answer_shuffled"), ("detector", "detector_shuffled"), ("fused", "answer"), ("fused", "detector"))
SHUFFLES = 3


def source_scores(
    asked: Question,
    answers: Sequence[dict[str, Any]],
    labels: dict[str, list[str]],
    patients: np.ndarray | None,
) -> dict[str, Any] | None:
    """Figures of all sources with their 95 % intervals, and differences of those that are held against each other.

    Args:
        answers: to the question, for all images, lines of the predictions file.
        patients: (known,) number of each answered image's patient; None: each is another one's.

    Returns:
        "figures" and "intervals": {source: {"map": {IoU: value}, "froc": {"mean"}, "accuracy_given_label": {IoU:
        value}}}, also of "SOURCE_shuffled" and "ONE_less_OTHER". Accuracy given the label: of all pairs of an image
        and a label that it has, the share in which the best-scored box of the label meets one of its own.
    """
    known = [answers[index] for index in asked.images]
    if not all(field in line for line in known for field in SOURCES.values()):
        return None
    true = true_boxes(asked.rows, labels[FINDINGS.name])
    rng = np.random.default_rng(0)
    orders = [random_cycle(len(known), rng) for _ in range(SHUFFLES)]
    found = {name: [_SourceBoxes([line[field] for line in known], true)] for name, field in SOURCES.items()}
    found |= {
        f"{name}_shuffled": [_SourceBoxes([known[other][field] for other in order], true) for order in orders]
        for name, field in SOURCES.items()
    }

    def statistic(weights: np.ndarray) -> Figures:
        values = {name: _mean([one.figures(weights) for one in of_name]) for name, of_name in found.items()}
        figures = {(name, *key): value for name, of_name in values.items() for key, value in of_name.items()}
        for one, other in BESIDE:
            for what, key in values[one]:
                figures[f"{one}_less_{other}", what, key] = values[one][what, key] - values[other][what, key]
        return figures

    points, intervals = figures_and_intervals(statistic, len(known), patients)
    return {"figures": nested(points), "intervals": nested(intervals)}


class _SourceBoxes:
    """Boxes of one source held against the truth, ready for any weights of the images."""

    def __init__(self, boxes: Images, true: Images):
        self.num_images = len(true)
        self.matches = {str(threshold): match(boxes, true, threshold) for threshold in DETECTION_THRESHOLDS}
        self.pair_image, self.pair_iou = pair_overlaps(best_scored(boxes), true)

    def figures(self, weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        """Of each row of weights a number; mAP as (rows, labels), for `litegpt.metrics.intervals`."""
        of_pairs = weights[:, self.pair_image]
        figures = {
            ("froc", "mean"): froc_sensitivities(self.matches[RIGHT], self.num_images, weights=weights).mean(-1)
        }
        for key, matches in self.matches.items():
            figures["map", key] = label_precisions(matches, weights)
        for threshold in ACCURACY_THRESHOLDS:
            met = self.pair_iou > threshold + ROUNDING
            figures["accuracy_given_label", str(threshold)] = ratio(of_pairs @ met, of_pairs.sum(-1))
        return figures


def _mean(figures: Sequence[dict[tuple[str, str], np.ndarray]]) -> dict[tuple[str, str], np.ndarray]:
    return {key: np.mean([one[key] for one in figures], axis=0) for key in figures[0]}
