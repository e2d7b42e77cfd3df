"""The reward of an answer's scores: how near the probability of each box is to whether it is right (Brier).

In: answers as TRL hands them to a reward function, the scores of their boxes, what is true. Out: a number an answer,

    1 - (sum over answered boxes of (score - right)^2 + true boxes that no answered one finds) / max(1, true boxes)

    answered = "Local diseases of this chest radiograph are <p>ILD</p> {<0><0><50><45>}."
    true = [{"label": "ILD", "box": [0.0, 0.0, 0.5, 0.5]}]
    candidate_scores([[{"role": "assistant", "content": answered}]], [true], [["ILD"]], [[0.8]])   # [0.96]

A box is right as mAP counts it: by falling score, a free true box of its label with an IoU above 0.4. A true box that
is not answered has a score of 0, so an honest doubt costs less than silence: by saying a box that is right with
probability p, at the score p, an answer gains p^2. So this reward asks for more boxes, `box_f1` for sure ones.

TRL hands no probabilities to reward functions. The scores come from the rollouts themselves (`rollouts.py`): they are
the pipeline's, P(a finding follows) * P(label) * P(a box drawn from the coordinates' probabilities is near), of the
sampled tokens, calibrated by the checkpoint's temperature: no estimate by votes. What is not exact is the gradient: a
policy gradient makes answers of well-scored boxes likelier, and does not see that the scores depend on the weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from litegpt.metrics.boxes import match
from litegpt.processing.answers import AnswerError, text_to_findings
from litegpt.processing.box_scores import RIGHT_IOU


def candidate_scores(
    completions: Sequence[Sequence[dict[str, str]]],
    findings: Sequence[Sequence[dict[str, Any]]],
    finding_labels: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]],
    **kwargs: Any,
) -> list[float]:
    """1 less the Brier score of each answer's boxes; at most 1, and below 0 for many sure boxes that are wrong.

    A malformed answer has no boxes.

    Args:
        completions: conversations of one turn, the answer.
        findings: what is true, {"label": name, "box": xyxy in [0, 1]}.
        finding_labels: that an answer may name.
        scores: of each answer's boxes, in their order.
        kwargs: what else TRL hands over.
    """
    rewards = []
    for completion, true, labels, values in zip(completions, findings, finding_labels, scores, strict=True):
        try:
            answered = text_to_findings(completion[0]["content"].strip(), labels)
        except AnswerError:
            answered, values = [], []
        boxes = [
            {"label": finding.label, "box": finding.box, "score": value}
            for finding, value in zip(answered, values, strict=True)
        ]
        matches = match([boxes], [true], RIGHT_IOU)
        missed = len(true) - matches.is_true.sum()
        penalty = np.square(matches.score - matches.is_true).sum() + missed
        rewards.append(float(1 - penalty / max(1, len(true))))
    return rewards
