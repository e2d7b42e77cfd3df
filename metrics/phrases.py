"""Boxes of phrases that were found against those that are there: IoU of unions, and whether "none" is right.

In: per phrase the list of its boxes, [x1, y1, x2, y2], xyxy in [0, 1] of the whole image, as answered and as true. No
true boxes: it is known that the image does not show it. No answered boxes: the answer says so; None: the answer cannot
be read. Out: figures, each image counted as often as `weights` say, so that many resamples are scored at once.

    overlaps = phrase_overlaps(
        [[[0.0, 0.0, 0.5, 0.5]], [], []],  # of three phrases
        [[[0.0, 0.0, 0.5, 0.25], [0.0, 0.25, 0.5, 0.5]], [[0.2, 0.2, 0.4, 0.4]], []],
    )
    overlaps.iou  # array([1., 0., 0.]), a box that covers two is as good as the two
    phrase_figures(overlaps)["mean_iou",]  # array([0.5]), over the two phrases that are present
    phrase_figures(overlaps, np.array([[1, 1, 1], [2, 0, 1]]))["accuracy_at_iou", "0.5"]  # array([0.5, 1. ])
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from litegpt.metrics.boxes import ROUNDING, read_boxes
from litegpt.metrics.intervals import Figures
from litegpt.metrics.probabilities import auroc
from litegpt.metrics.ratios import number_or_none, ratio, weight_rows

THRESHOLDS = (0.3, 0.5)

PhraseBoxes = Sequence[Sequence[float]]  # [x1, y1, x2, y2] each


class PhraseOverlaps(NamedTuple):
    """What n phrases are answered with, and how that fits what is true."""

    image: np.ndarray  # (n,) int, index of the image that each is about
    iou: np.ndarray  # (n,) float, of the unions of boxes; 0 where either has none
    is_present: np.ndarray  # (n,) bool, has true boxes
    says_none: np.ndarray  # (n,) bool, answered, with no box
    is_malformed: np.ndarray  # (n,) bool, the answer cannot be read
    probability: np.ndarray  # (n,) float, that the phrase is present; NaN where the answer has none


def phrase_overlaps(
    predictions: Sequence[PhraseBoxes | None],
    references: Sequence[PhraseBoxes],
    images: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
) -> PhraseOverlaps:
    """Reads the boxes of n phrases.

    Args:
        predictions: (n,) the answered boxes of each; [] says that there is none, None is an answer that
            cannot be read.
        references: (n,) the true boxes of each; [] where the image is known not to show it.
        images: (n,) index of the image of each, from 0 on, for weights. None: each is about an image of its own.
        probabilities: (n,) in [0, 1], that each is present; NaN or None where the answer has none.

    Raises:
        ValueError: the lengths differ, a box lies outside [0, 1], a true box has no area, a probability is none. The
            text names the phrase by its index.
    """
    if len(predictions) != len(references):
        raise ValueError(f"There are predictions for {len(predictions)} phrases and references for {len(references)}.")
    count = len(references)
    image = np.arange(count) if images is None else np.asarray(images, dtype=int)
    stated = np.full(count, np.nan) if probabilities is None else np.array(probabilities, dtype=np.float64)
    for values, what in ((image, "images"), (stated, "probabilities")):
        if values.shape != (count,):
            raise ValueError(f"`{what}` has the shape {values.shape}, for {count} phrases.")
    bad = (stated < 0) | (stated > 1)
    if bad.any():
        raise ValueError(f"probabilities[{np.flatnonzero(bad)[0]}] is {stated[bad][0]}, not in [0, 1].")
    answered = [boxes if boxes is not None else [] for boxes in predictions]
    for phrases, what in ((answered, "predictions"), (references, "references")):
        labelled = [[{"label": "", "box": box} for box in boxes] for boxes in phrases]
        read_boxes(labelled, what, need_area=what == "references")
    is_malformed = np.array([boxes is None for boxes in predictions], dtype=bool)
    return PhraseOverlaps(
        image=image,
        iou=np.array([iou_of_unions(*pair) for pair in zip(answered, references, strict=True)], dtype=np.float64),
        is_present=np.array([len(boxes) > 0 for boxes in references], dtype=bool),
        says_none=np.array([len(boxes) == 0 for boxes in answered], dtype=bool) & ~is_malformed,
        is_malformed=is_malformed,
        probability=stated,
    )


def iou_of_unions(boxes: PhraseBoxes, others: PhraseBoxes) -> float:
    """IoU of what the boxes cover together and what the others cover together; 0 where either covers nothing.

    Exact: the edges of all boxes part the image into cells that each box covers or does not.

    Args:
        boxes, others: xyxy, any number of them; one that is flat or turned inside out covers nothing.
    """
    mine, theirs = (np.asarray(some, dtype=np.float64).reshape(-1, 4) for some in (boxes, others))
    both = np.concatenate([mine, theirs])
    x, y = np.unique(both[:, [0, 2]]), np.unique(both[:, [1, 3]])
    area = np.outer(np.diff(y), np.diff(x))
    covered, also_covered = (_covered(some, x[:-1], y[:-1]) for some in (mine, theirs))
    return float(ratio(area[covered & also_covered].sum(), area[covered | also_covered].sum(), otherwise=0))


def _covered(boxes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: which of the cells that begin at x and y lie in any of the (n, 4) boxes."""
    in_columns = (boxes[:, :1] <= x) & (x < boxes[:, 2:3])
    in_rows = (boxes[:, 1:2] <= y) & (y < boxes[:, 3:])
    return (in_rows[:, :, None] & in_columns[:, None, :]).any(0)


def phrase_figures(overlaps: PhraseOverlaps, weights: np.ndarray | None = None) -> Figures:
    """The figures of phrases, for each row of weights; NaN where nothing of the kind has a weight.

    Args:
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        (rows,) each: ("mean_iou",), ("accuracy_at_iou", "0.3" and "0.5"), the share with an IoU of at least that, and
        ("answered_none",), over the phrases that are present; ("no_box_correct",), the share answered with no box of
        those that are absent; ("auroc",) of the stated probabilities, over the phrases that have one.
    """
    rows = weight_rows(weights, overlaps.image.max(initial=-1) + 1 if weights is None else np.shape(weights)[-1])
    present, absent = overlaps.is_present, ~overlaps.is_present

    def mean(values: np.ndarray, among: np.ndarray) -> np.ndarray:
        """(rows,) the mean over some of the phrases."""
        sums = (
            rows @ np.bincount(overlaps.image, weights=some, minlength=rows.shape[1])
            for some in (values * among, among)
        )
        return ratio(*sums)

    is_stated = np.isfinite(overlaps.probability)
    stated_weights = rows[:, overlaps.image[is_stated]]
    return {
        ("mean_iou",): mean(overlaps.iou, present),
        **{("accuracy_at_iou", str(t)): mean(overlaps.iou >= t - ROUNDING, present) for t in THRESHOLDS},
        ("answered_none",): mean(overlaps.says_none, present),
        ("no_box_correct",): mean(overlaps.says_none, absent),
        ("auroc",): auroc(overlaps.probability[is_stated], present[is_stated], stated_weights),
    }


def phrase_scores(overlaps: PhraseOverlaps) -> dict[str, Any]:
    """All scores of `metrics/phrase_grounding`: those of `phrase_figures`, None where one cannot be computed.

    Returns:
        "mean_iou", "accuracy_at_iou" by threshold, "answered_none", "no_box_correct", "auroc"; "num_present",
        "num_absent", "num_malformed": phrases.
    """
    figures = {name: number_or_none(values[0]) for name, values in phrase_figures(overlaps).items()}
    accuracies = {str(t): figures.pop(("accuracy_at_iou", str(t))) for t in THRESHOLDS}
    return {
        **{name: value for (name,), value in figures.items()},
        "accuracy_at_iou": accuracies,
        "num_present": int(overlaps.is_present.sum()),
        "num_absent": int((~overlaps.is_present).sum()),
        "num_malformed": int(overlaps.is_malformed.sum()),
    }
