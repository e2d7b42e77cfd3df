"""The findings that an answer does not name, as boxes with scores.

    candidate_findings(answer.inserted, [{"label": "ILD", "box": (.1, .3, .4, .8), "score": .9}])
    # [{"label": "Lung Opacity", "box": (.12, .35, .41, .7), "score": .12}, ...], by falling score

In: what could be inserted into an answer (`insertion.py`), and what it names. Out: what of that lies elsewhere, or has
another label. A score is the probability that the label stands there at all, times the one that a box drawn from its
coordinates meets the box: `box_score`, as of findings that an answer names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .box_fusion import IOU_THRESHOLD, pairwise_iou
from .box_scores import InsertedFinding, box_score, expected_box


def candidate_findings(
    inserted: Sequence[InsertedFinding], named: Sequence[Mapping[str, Any]], written_boxes: bool = False
) -> list[dict[str, Any]]:
    """Findings by falling score; one that overlaps a named or a better one of its label is left out.

    Args:
        inserted: at one or several places of the answer.
        named: what the answer names, with "label" and "box".
        written_boxes: as they would be written, in place of those of most expected IoU.
    """
    candidates = []
    for finding in inserted:
        box = finding.box if written_boxes else expected_box(finding.box, finding.probabilities.coordinates)
        candidates.append({"label": finding.label, "box": box, "score": box_score(box, finding.probabilities)})
    kept: list[dict[str, Any]] = []
    for candidate in sorted(candidates, key=lambda finding: -finding["score"]):
        of_label = [other["box"] for other in (*named, *kept) if other["label"] == candidate["label"]]
        if not of_label or pairwise_iou(np.array([candidate["box"], *of_label]))[0, 1:].max() <= IOU_THRESHOLD:
            kept.append(candidate)
    return kept
