"""Answers and rows -> the radiographs that a report shows, with the true and the answered boxes, as data.

    for group in gallery(predictions, rows, labels):           # right, missed and invented boxes
        print(group.title, group.count, len(group.pictures))   # "Missed boxes" 37 8
        group.pictures[0].rectangles                           # [Rectangle("Edema", "true", True, 240.0, ...), ...]

In: the lines of a predictions file about one task whose answers have boxes, and the rows they answer. Out: for each
kind of case a few pictures, made small, with rectangles in the picture's own pixels. Pictures are read for those shown
alone. `gallery.html.jinja` lays them out.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image

from litegpt.evaluation_scripts.figures import RIGHT
from litegpt.evaluation_scripts.questions import true_answer, true_boxes
from litegpt.metrics.boxes import ROUNDING, iou_of_pairs

IOU = float(RIGHT)  # above it a box is right

SHOWN, SHOWN_PER_LABEL = 8, 2  # of each kind of case

SIDE = 480  # pixels of a picture's longer side

KINDS = {  # title, and which are shown
    "right": ("Right boxes", "those of the highest score, at most two of a label where there are others"),
    "missed": ("Missed boxes", "the labels in turn, the one that is missed most often first"),
    "invented": ("Invented boxes", "those of the highest score, at most two of a label where there are others"),
}


class Case(NamedTuple):
    """A box of the gallery; `kind` is a key of `KINDS`.

    Of a missed or invented box `iou` and the other side's box are those of the nearest one of its label, if any
    overlaps it.
    """

    kind: str
    row: int
    label: str
    score: float | None
    iou: float
    true_box: Sequence[float] | None
    answered_box: Sequence[float] | None


class Rectangle(NamedTuple):
    """A box on a picture, in its pixels; `is_in_case` tells the case's own boxes from the others around them."""

    label: str
    origin: Literal["true", "answered"]
    is_in_case: bool
    x: float
    y: float
    width: float
    height: float


class Picture(NamedTuple):
    """A whole radiograph, made small; `data_url` is a JPEG of `width` x `height` pixels."""

    case: Case
    image_id: str
    width: int
    height: int
    data_url: str
    rectangles: list[Rectangle]


class Group(NamedTuple):
    """Cases of one kind: how many there are, and pictures of those that are shown; `which` says which these are."""

    title: str
    which: str
    count: int
    pictures: list[Picture]


def gallery(predictions: Sequence[dict[str, Any]], rows: Dataset, labels: dict[str, list[str]]) -> Iterator[Group]:
    """A group for each of `KINDS`.

    Args:
        predictions: lines about one task whose answers have boxes, one a row, in the rows' order.
        rows: of the contract's schema.
        labels: of findings and diagnoses, as `label_names` gives them.
    """
    # Without the pictures: those of all rows would not fit into memory.
    annotations = [
        {"findings": findings, "diagnoses": diagnoses}
        for findings, diagnoses in zip(rows["findings"], rows["diagnoses"], strict=True)
    ]
    truths, answers = true_boxes(annotations, labels["finding"]), [line["findings"] for line in predictions]
    cases: list[Case] = []
    for row, (line, annotation) in enumerate(zip(predictions, annotations, strict=True)):
        # As in the scores: where the data does not tell the boxes, none is right or invented.
        if true_answer(annotation, line["task"], labels) is not None:
            cases += row_cases(row, truths[row], answers[row])
    for kind, (title, which) in KINDS.items():
        members = [case for case in cases if case.kind == kind]
        pictures = [picture(case, rows[case.row], truths[case.row], answers[case.row]) for case in chosen(members)]
        yield Group(title, which, len(members), pictures)


def row_cases(row: int, truths: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> Iterator[Case]:
    """A case for each answered box, right or invented, and for each true box that is missed.

    As in `metrics/boxes.py`: by falling score a box takes the best free true box of its label with an IoU above
    `IOU`.
    """
    free = list(range(len(truths)))
    for answered in sorted(answers, key=lambda answered: (-answered["score"], answered["box"])):
        overlaps = [
            iou(answered["box"], truth["box"]) if truth["label"] == answered["label"] else 0.0 for truth in truths
        ]
        best = max(free, key=overlaps.__getitem__, default=None)
        is_right = best is not None and overlaps[best] > IOU + ROUNDING
        if is_right:
            free.remove(best)
        else:
            best = _nearest(overlaps)
        yield Case(
            "right" if is_right else "invented",
            row,
            answered["label"],
            answered["score"],
            0.0 if best is None else overlaps[best],
            None if best is None else truths[best]["box"],
            answered["box"],
        )
    for truth in (truths[index] for index in free):
        overlaps = [
            iou(answered["box"], truth["box"]) if answered["label"] == truth["label"] else 0.0 for answered in answers
        ]
        best = _nearest(overlaps)
        nearest = (0.0, None) if best is None else (overlaps[best], answers[best]["box"])
        yield Case("missed", row, truth["label"], None, nearest[0], truth["box"], nearest[1])


def _nearest(overlaps: Sequence[float]) -> int | None:
    """Index of the largest one; None where none is above 0."""
    best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
    return best if best is not None and overlaps[best] > 0 else None


def chosen(cases: Sequence[Case]) -> list[Case]:
    """Up to `SHOWN` cases of one kind, the same for the same cases.

    Those of the highest score, missed ones in turn from each label, the most often missed one first. A label has more
    than `SHOWN_PER_LABEL` only where there are too few others.
    """
    by_label: dict[str, list[Case]] = {}
    for case in sorted(cases, key=_by_score):
        by_label.setdefault(case.label, []).append(case)
    if cases and cases[0].kind == "missed":
        most_missed = sorted(by_label.values(), key=len, reverse=True)
        turns = [case for turn in zip_longest(*most_missed) for case in turn if case is not None]
        return turns[:SHOWN]
    first = [case for same in by_label.values() for case in same[:SHOWN_PER_LABEL]]
    rest = [case for same in by_label.values() for case in same[SHOWN_PER_LABEL:]]
    return sorted((sorted(first, key=_by_score) + sorted(rest, key=_by_score))[:SHOWN], key=_by_score)


def _by_score(case: Case) -> tuple[float, int]:
    return -(case.score or 0), case.row


def iou(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two xyxy boxes; 0 for boxes without area or inside out."""
    return float(iou_of_pairs(np.array([box], float), np.array([other], float))[0])


def picture(
    case: Case, row: dict[str, Any], truths: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]
) -> Picture:
    """The whole radiograph of a case, at most `SIDE` pixels wide and high, with all boxes of the row.

    Args:
        row: with `image` and `image_id`.
        truths, answers: the row's boxes, `{"label": name, "box": xyxy in [0, 1]}`.
    """
    image = row["image"].convert("L")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=80)
    data_url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    boxes = [*(("true", box) for box in truths), *(("answered", box) for box in answers)]
    rectangles = [_rectangle(case, origin, item, image.size) for origin, item in boxes]
    return Picture(case, row["image_id"], *image.size, data_url, rectangles)


def _rectangle(
    case: Case, origin: Literal["true", "answered"], item: dict[str, Any], size: tuple[int, int]
) -> Rectangle:
    x1, y1, x2, y2 = (value * pixels for value, pixels in zip(item["box"], 2 * size, strict=True))
    is_in_case = item["label"] == case.label and item["box"] in (case.true_box, case.answered_box)
    return Rectangle(item["label"], origin, is_in_case, x1, y1, max(0.0, x2 - x1), max(0.0, y2 - y1))
