"""The reward of an answer's boxes: a soft F1, which rises with every bit of overlap.

In: answers as TRL hands them to a reward function, what is true of each radiograph. Out: a number in [0, 1] an answer,

    2 * sum over matched boxes of clip((IoU - 0.1) / 0.7, 0, 1) / (answered boxes + true boxes)

    answered = "Local diseases of this chest radiograph are <p>ILD</p> {<0><0><50><45>}."
    true = [{"label": "ILD", "box": [0.0, 0.0, 0.5, 0.5]}]
    box_f1([[{"role": "assistant", "content": answered}]], [true], [["ILD"]])   # [1.0]: an IoU of 0.9

A box is matched with a true one of its label, each once, the pairs of most overlap first. "No finding" is worth 1
where it is right, a malformed answer 0. Thresholds of an IoU would starve small findings of reward (MedLoc-R1, arXiv
2603.28120).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from litegpt.metrics.boxes import iou_of_pairs, pairs_of_label, read_boxes
from litegpt.processing.answers import AnswerError, text_to_findings

NO_OVERLAP, FULL_OVERLAP = 0.1, 0.8  # the IoU up to which a box is worth nothing, and from which it is worth 1


def box_f1(
    completions: Sequence[Sequence[dict[str, str]]],
    findings: Sequence[Sequence[dict[str, Any]]],
    finding_labels: Sequence[Sequence[str]],
    **kwargs: Any,
) -> list[float]:
    """The soft F1 of each answer.

    Args:
        completions: conversations of one turn, the answer.
        findings: what is true, {"label": name, "box": xyxy in [0, 1]}.
        finding_labels: that an answer may name.
        kwargs: what else TRL hands over.
    """
    rewards = []
    for completion, true, labels in zip(completions, findings, finding_labels, strict=True):
        try:
            answered = text_to_findings(completion[0]["content"].strip(), labels)
        except AnswerError:
            rewards.append(0.0)
            continue
        boxes = [{"label": finding.label, "box": finding.box} for finding in answered]
        rewards.append(soft_f1(boxes, true))
    return rewards


def soft_f1(answered: Sequence[dict[str, Any]], true: Sequence[dict[str, Any]]) -> float:
    """The soft F1 of answered against true boxes, {"label", "box"}; 1 where there are none of either."""
    if not answered and not true:
        return 1.0
    boxes, others = read_boxes([answered], "answered", True), read_boxes([true], "true", True)
    pair, other = pairs_of_label(boxes, others)
    iou = iou_of_pairs(boxes.box[pair], others.box[other])
    taken: tuple[set[int], set[int]] = (set(), set())
    overlap = 0.0
    for place in np.argsort(-iou, kind="stable"):
        if pair[place] not in taken[0] and other[place] not in taken[1]:
            taken[0].add(pair[place])
            taken[1].add(other[place])
            overlap += float(np.clip((iou[place] - NO_OVERLAP) / (FULL_OVERLAP - NO_OVERLAP), 0, 1))
    return 2 * overlap / (len(answered) + len(true))
