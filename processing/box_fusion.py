"""Boxes that overlap: which of them stay, which are one, and what an answer and a detector say together.

    keep_one_of_overlapping(boxes)                  # of (n, 4) boxes those that stand for the others
    kept_boxes(candidates, channel=2)               # (n, 5): score and box of a detector's candidates of a label
    detected_findings(candidates, ["ILD", ...])     # [{"label": "ILD", "box": (.1, .3, .5, .8), "score": .7}, ...]
    fused_findings(of_answer, of_detector)          # the same, each with who says it: "answer", "detector" or both
    fused_views([of_plain_view, of_moved_view])     # the same, each with how many views it was seen in

In and out: boxes xyxy, in [0, 1] of the whole image but for the first. It travels with checkpoints.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IOU_THRESHOLD = 0.5  # the paper's; two boxes belong together above it
MAX_BOXES = 20  # of a label in an image
MIN_SCORE = 0.01  # what a cell says before anything is learnt
OVERLAP = 0.35  # a detector's boxes of a label that overlap more are one
VOTING = 0.5  # boxes that overlap the kept one more have a say in where it is
SMALLEST = 1e-3  # of the image's side
# What an answer counts beside a detector: it names few boxes, and is sure of them. Of .1, .15, .3, .5, .7 and 1 on 300
# phantoms (mAP .697; detector .663, answers .529, both alike .675) and on the folds of benchmarks/box_folds.py.
ANSWER_WEIGHT = 0.15
VIEW_OVERLAP = 0.4  # boxes of a label in several views that overlap more are one
# Who says it: the answer, a finding that it leaves out, the detector, these together, several views.
ANSWER, CANDIDATE, DETECTOR, FUSED, VIEW = "answer", "candidate", "detector", "fused", "view"
# Several views name many boxes, and are less sure of each. Of .15, .3, .5, .7 and 1 for two checkpoints on 1,000
# phantoms (mAP .641, .649; detector .523, .546, views .595, .597, with .15 .587, .598).
VIEW_WEIGHT = 0.7


def pairwise_iou(boxes: np.ndarray) -> np.ndarray:
    """(n, n) intersection over union of (n, 4) xyxy boxes that have an area."""
    top_left = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=-1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    return intersection / (areas[:, None] + areas[None, :] - intersection)


def keep_one_of_overlapping(boxes: np.ndarray, iou_threshold: float = IOU_THRESHOLD) -> np.ndarray:
    """Indices of one representative per group of boxes that overlap, in input order.

    The first box opens a group. Each next box joins a group if it overlaps that group's first box, and opens a group
    of its own if it overlaps none. The first of each group is kept: no two kept boxes overlap above the threshold,
    and each dropped box overlaps a kept one.

    Args:
        boxes: (n, 4) float, xyxy in any unit, all of one label.
        iou_threshold: two boxes belong together above this IoU (not at it).

    Returns:
        (m,) int64, m <= n, ascending.

    Raises:
        ValueError: a box has no area.

    Source: LiteGPT (arXiv 2407.12064), section 4.2.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError("A box has no area: boxes must be xyxy with x2 > x1 and y2 > y1.")
    return _first_of_overlapping(pairwise_iou(boxes) > iou_threshold)


def _first_of_overlapping(overlaps: np.ndarray) -> np.ndarray:
    """The kept ones of (n, n) bool, which boxes overlap which."""
    kept, is_dropped = [], np.zeros(len(overlaps), dtype=bool)
    for index in range(len(overlaps)):
        if not is_dropped[index]:
            kept.append(index)
            is_dropped |= overlaps[index]
    return np.array(kept, dtype=np.int64)


def kept_boxes(candidates: np.ndarray, channel: int) -> np.ndarray:
    """(n, 5) score and box of one image's channel by falling score; of boxes that overlap the best one stays.

    Boxes of less than `MIN_SCORE` are none. Its place is the mean of all that overlap it by more than `VOTING`, each
    counting by its score.

    Args:
        candidates: (candidates, 6) of one image: channel, score, box, as `best_candidates` gives them.

    Source: Felzenszwalb et al. (2010), section 6.2 (non-maximum suppression); Gidaris and Komodakis (2015),
        arXiv 1505.01749, section 4 (box voting).
    """
    own = candidates[candidates[:, 0] == channel, 1:].astype(float)
    own = own[(own[:, 0] >= MIN_SCORE) & (own[:, 3:] - own[:, 1:3] >= SMALLEST).all(axis=1)]
    own = own[np.argsort(-own[:, 0], kind="stable")]
    if not len(own):
        return own
    iou = pairwise_iou(own[:, 1:])
    kept = _first_of_overlapping(iou > OVERLAP)[:MAX_BOXES]
    votes = (iou[kept] > VOTING) * own[:, 0]
    return np.hstack([own[kept, :1], votes @ own[:, 1:] / votes.sum(axis=1, keepdims=True)])


def detected_findings(candidates: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """What a detector finds in one image, by falling score: {"label", "box", "score"}.

    Args:
        candidates: (candidates, 6), see `kept_boxes`; the channel "any of them" is left out.
    """
    found = [
        {"label": labels[channel], "box": tuple(box), "score": score}
        for channel in sorted({int(channel) for channel in candidates[:, 0] if channel < len(labels)})
        for score, *box in kept_boxes(candidates, channel).tolist()
    ]
    return sorted(found, key=lambda finding: -finding["score"])


def fused_findings(
    answered: Sequence[Mapping[str, Any]], detected: Sequence[Mapping[str, Any]], who: str = ANSWER
) -> list[dict[str, Any]]:
    """What an answer, or several views, and a detector say together, by falling score, each with its "source".

    A box that both name (the same label, IoU above `IOU_THRESHOLD`) is one: its score is 1 - (1 - w a) (1 - d), with
    w = `ANSWER_WEIGHT` or `VIEW_WEIGHT`, as if they judged by themselves, and it lies at their mean, weighed by w a
    and d. One that the answer alone names has w a, one that the detector alone sees d.

    Args:
        answered, detected: {"label", "box", "score"}, scores in [0, 1]; of the former nothing else is kept.
        who: answered, `ANSWER` or `VIEW`.

    Returns:
        {"label", "box", "score", "source"}; "source" is a list of `who`, `DETECTOR` or both.
    """
    weight = VIEW_WEIGHT if who == VIEW else ANSWER_WEIGHT
    left, fused = list(detected), []
    for finding in sorted(answered, key=lambda finding: -finding["score"]):
        own = {name: finding[name] for name in ("label", "box", "score")}
        overlaps = [
            pairwise_iou(np.array([own["box"], other["box"]]))[0, 1] if other["label"] == own["label"] else 0.0
            for other in left
        ]
        word = weight * own["score"]
        if not overlaps or max(overlaps) <= IOU_THRESHOLD:
            fused.append({**own, "score": word, "source": [who]})
            continue
        other = left.pop(int(np.argmax(overlaps)))
        weights = np.array([word, other["score"]]) + 1e-9
        box = tuple((weights @ np.array([own["box"], other["box"]]) / weights.sum()).tolist())
        score = 1 - (1 - word) * (1 - other["score"])
        fused.append({**own, "box": box, "score": score, "source": [who, DETECTOR]})
    fused += [{**other, "source": [DETECTOR]} for other in left]
    return sorted(fused, key=lambda finding: -finding["score"])


def fused_views(views: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What several views of a radiograph say together, by falling score: weighted box fusion.

    By falling score each box joins the group of its label whose box it overlaps most, if by more than `VIEW_OVERLAP`,
    or opens one. A group's box is the mean of its boxes, each counting by its score. Its score is the sum of theirs,
    of each view the best one, divided by the number of views: what a view does not see counts as 0.

    Args:
        views: of each the findings {"label", "box", "score"}, boxes in one picture, scores in [0, 1].

    Returns:
        {"label", "box", "score", "views"}; "views" is how many views saw it.

    Source: Solovyev, Wang and Gabruseva (2021), arXiv 1910.13302.
    """
    seen = [(number, finding) for number, view in enumerate(views) for finding in view]
    groups: list[dict[str, Any]] = []
    for number, finding in sorted(seen, key=lambda one: -one[1]["score"]):
        own = [group for group in groups if group["label"] == finding["label"]]
        overlaps = pairwise_iou(np.array([finding["box"], *(group["box"] for group in own)]))[0, 1:]
        if not own or overlaps.max() <= VIEW_OVERLAP:
            groups.append({"label": finding["label"], "members": []})
            own, overlaps = groups[-1:], np.zeros(1)
        group = own[int(np.argmax(overlaps))]
        group["members"].append((number, finding))
        weights = np.array([member["score"] for _, member in group["members"]]) + 1e-9
        boxes = np.array([member["box"] for _, member in group["members"]], dtype=float)
        group["box"] = tuple((weights @ boxes / weights.sum()).tolist())
    fused = []
    for group in groups:
        best: dict[int, float] = {}
        for number, member in group["members"]:
            best[number] = max(best.get(number, 0.0), member["score"])
        score = sum(best.values()) / len(views)
        fused.append({"label": group["label"], "box": group["box"], "score": score, "views": len(best)})
    return sorted(fused, key=lambda finding: -finding["score"])
