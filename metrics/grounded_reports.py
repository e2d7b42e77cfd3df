"""Reports sentence by sentence, with boxes: which sentences are there, and whether their boxes are.

In: per image the sentences of its report, {"text": str, "boxes": [[x1, y1, x2, y2], ...]}, xyxy in [0, 1] of the whole
image, as answered and as true. A malformed answer is an empty list. Out: counts of each image, and from them
precision, recall and F1, each image counted as often as `weights` say.

    answered = [[{"text": "There is an effusion", "boxes": [[0.0, 0.5, 0.4, 0.9]]}, {"text": "No mass.", "boxes": []}]]
    true = [[{"text": "There is an effusion.", "boxes": [[0.0, 0.5, 0.4, 1.0]]}, {"text": "No edema.", "boxes": []}]]
    counts = report_counts(answered, true)
    report_figures(counts)["sentences", "f1"]  # array([0.5]), one of two sentences
    report_figures(counts)["sentences_with_boxes", "f1"]  # array([0.5]), and its box is right
    report_counts(answered, true, key=meaning)  # sentences that mean the same are equal: `meaning` of the caller

Sentences are matched one to one within an image. They are equal in lower case, with single blanks and without a final
stop, or where a function of the caller gives them the same key, such as the labels and states that they state. Of
equal sentences those are paired first whose boxes match.

Boxes match where every true box has an answered one with an IoU of at least 0.5, and every answered box a true one; no
boxes on either side match, too.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from litegpt.metrics.boxes import ROUNDING, iou_of_pairs, read_boxes
from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import number_or_none, ratio, weight_rows

IOU = 0.5  # at which boxes are the same

Report = Sequence[Mapping[str, Any]]  # a sentence is {"text", "boxes"}


class ReportCounts(NamedTuple):
    """Of each of n images; boxes are those of the matched sentences."""

    answered: np.ndarray  # (n,) int, sentences
    true: np.ndarray  # (n,) int, sentences
    matched: np.ndarray  # (n,) int, pairs of sentences
    matched_with_boxes: np.ndarray  # (n,) int, of them those whose boxes match
    answered_boxes: np.ndarray  # (n,) int
    right_boxes: np.ndarray  # (n,) int, answered boxes that have a true one
    true_boxes: np.ndarray  # (n,) int
    found_boxes: np.ndarray  # (n,) int, true boxes that have an answered one


def plain_text(text: str) -> str:
    """A sentence as it is compared: lower case, single blanks, no final stop."""
    return " ".join(text.lower().split()).rstrip(" .")


def report_counts(
    predictions: Sequence[Report], references: Sequence[Report], key: Callable[[str], Hashable] = plain_text
) -> ReportCounts:
    """Matches the sentences of n images.

    Args:
        predictions, references: (n,) the sentences of each image, {"text", "boxes"}.
        key: of a sentence's text; sentences with the same key are equal.

    Raises:
        ValueError: the lengths differ, a box lies outside [0, 1], a true box has no area. The text names the image.
    """
    if len(predictions) != len(references):
        raise ValueError(f"There are predictions for {len(predictions)} images and references for {len(references)}.")
    for reports, what in ((predictions, "predictions"), (references, "references")):
        boxes = [[{"label": "", "box": box} for item in report for box in item["boxes"]] for report in reports]
        read_boxes(boxes, what, need_area=what == "references")
    counts = np.zeros((len(ReportCounts._fields), len(references)), dtype=int)
    for image, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        pairs = _pairs(prediction, reference, key)
        sums = np.sum([[is_right, *boxes] for is_right, boxes in pairs], axis=0) if pairs else np.zeros(5, dtype=int)
        counts[:, image] = (len(prediction), len(reference), len(pairs), *sums)
    return ReportCounts(*counts)


def _pairs(
    prediction: Report, reference: Report, key: Callable[[str], Hashable]
) -> list[tuple[bool, tuple[int, int, int, int]]]:
    """Of each pair of equal sentences whether their boxes match, and its four counts of boxes."""
    waiting: dict[Hashable, list[Any]] = defaultdict(list)
    for item in reference:
        waiting[key(item["text"])].append(item["boxes"])
    answered = [(key(item["text"]), item["boxes"]) for item in prediction]
    pairs = []
    for only_right in (True, False):
        left = []
        for name, boxes in answered:
            places = enumerate(_box_counts(boxes, true) for true in waiting[name])
            place, counts = next(
                ((place, counts) for place, counts in places if not only_right or _match(counts)), (None, None)
            )
            if place is None:
                left.append((name, boxes))
            else:
                del waiting[name][place]
                pairs.append((_match(counts), counts))
        answered = left
    return pairs


def _box_counts(boxes: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> tuple[int, int, int, int]:
    """Answered boxes, those that have a true one, true boxes, those that have an answered one."""
    if not boxes or not true:
        return len(boxes), 0, len(true), 0
    mine, theirs = np.asarray(boxes, dtype=np.float64), np.asarray(true, dtype=np.float64)
    overlaps = iou_of_pairs(np.repeat(mine, len(theirs), axis=0), np.tile(theirs, (len(mine), 1)))
    is_same = overlaps.reshape(len(mine), len(theirs)) >= IOU - ROUNDING
    return len(mine), int(is_same.any(1).sum()), len(theirs), int(is_same.any(0).sum())


def _match(counts: tuple[int, int, int, int]) -> bool:
    answered, right, true, found = counts
    return answered == right and true == found


def report_figures(counts: ReportCounts, weights: np.ndarray | None = None) -> Figures:
    """Precision, recall and F1 for each row of weights; NaN where there is nothing to divide by.

    Args:
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        (rows,) each: ("sentences", ...), ("sentences_with_boxes", ...), of a sentence and its boxes, and ("boxes",
        ...), of the boxes of matched sentences, with "precision", "recall" and "f1".
    """
    rows = weight_rows(weights, len(counts.true))
    sums = ReportCounts(*(rows @ values for values in counts))
    return {
        **_of("sentences", sums.matched, sums.answered, sums.matched, sums.true),
        **_of("sentences_with_boxes", sums.matched_with_boxes, sums.answered, sums.matched_with_boxes, sums.true),
        **_of("boxes", sums.right_boxes, sums.answered_boxes, sums.found_boxes, sums.true_boxes),
    }


def _of(what: str, right: np.ndarray, answered: np.ndarray, found: np.ndarray, true: np.ndarray) -> Figures:
    precision, recall = ratio(right, answered), ratio(found, true)
    # F1 is 0, not unknown, where one side is empty and the other is not.
    p, r = np.nan_to_num(precision), np.nan_to_num(recall)
    f1 = np.where(answered + true > 0, ratio(2 * p * r, p + r, otherwise=0), np.nan)
    return {(what, "precision"): precision, (what, "recall"): recall, (what, "f1"): f1}


def grounded_report_scores(counts: ReportCounts) -> dict[str, Any]:
    """All scores of `metrics/grounded_report`.

    Returns:
        "sentences", "sentences_with_boxes" and "boxes", each {"precision", "recall", "f1"}, None where there is
        nothing to divide by; the sums of the counts as "num_answered", "num_true", "num_matched",
        "num_matched_with_boxes", "num_answered_boxes", "num_right_boxes", "num_true_boxes", "num_found_boxes".
    """
    scores: dict[str, Any] = {}
    for (what, name), values in report_figures(counts).items():
        scores.setdefault(what, {})[name] = number_or_none(values[0])
    return scores | {f"num_{name}": int(values.sum()) for name, values in counts._asdict().items()}
