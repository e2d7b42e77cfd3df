"""Answers and rows -> the radiographs that a report shows, with their answers and what is true, as data.

    for group in gallery(predictions, rows, labels):           # right, missed and invented boxes
        print(group.title, group.count, len(group.pictures))   # "Missed boxes" 37 8
        group.pictures[0].rectangles                           # [Rectangle("Edema", "true", True, 240.0, ...), ...]
        group.pictures[0].answer                               # "Local diseases of this chest radiograph are ..."
    list(diagnosis_gallery(predictions, rows, labels))         # right, missed and wrong diagnoses, without boxes
    list(gallery(predictions, rows, labels, maps))             # with maps of what the shown answers name

In: the lines of a predictions file about one task, and the rows they answer. Out: for each kind of case a few
pictures, made small, with rectangles and their labels in the picture's own pixels. Pictures are read for those shown
alone. `gallery.html.jinja` lays them out.
"""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image

from litegpt.common.overlay import coloured
from litegpt.evaluation_scripts.figures import RIGHT
from litegpt.evaluation_scripts.questions import named_labels, true_answer, true_boxes, true_labels
from litegpt.metrics.boxes import ROUNDING, iou_of_pairs
from litegpt.processing.answers import NO_FINDING
from litegpt.processing.map_boxes import enlarged
from litegpt.processing.tasks import DIAGNOSES, TASKS

IOU = float(RIGHT)  # above it a box is right

SHOWN, SHOWN_PER_LABEL = 8, 2  # of each kind of case

SIDE = 480  # pixels of a picture's longer side
MAP_SIDE = 240  # of one with a map
MAPS_SHOWN = 4  # of a radiograph

KINDS = {  # title, and which are shown
    "right": ("Right boxes", "those of the highest score, at most two of a label where there are others"),
    "missed": ("Missed boxes", "the labels in turn, the one that is missed most often first"),
    "invented": ("Invented boxes", "those of the highest score, at most two of a label where there are others"),
}
DIAGNOSIS_KINDS = {
    "right": ("Right diagnoses", "those of the highest probability, at most two of a label where there are others"),
    "missed": ("Missed diagnoses", "the labels in turn, the one that is missed most often first"),
    "wrong": ("Wrong diagnoses", "those of the highest probability, at most two of a label where there are others"),
}

# Heights of a label on a picture, of its longer side: of the case's own boxes, and of the others.
TEXT, SMALL_TEXT = 0.05, 0.037
LETTER = 0.7  # width of a letter, of its height, in a wide font


class Case(NamedTuple):
    """A box of the gallery, or a diagnosis; `kind` is a key of `KINDS` or of `DIAGNOSIS_KINDS`.

    Of a missed or invented box `iou` and the other side's box are those of the nearest one of its label, if any
    overlaps it. A diagnosis has no box and no IoU.
    """

    kind: str
    row: int
    label: str
    score: float | None
    iou: float | None
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


class Words(NamedTuple):
    """A box's label on a picture: where its first letter stands on the line, in pixels, and its height."""

    rectangle: Rectangle
    x: float
    y: float
    height: float


class AnswerMaps(NamedTuple):
    """Where maps of findings that answers name are from.

    Attributes:
        meaning: what the values of a map are.
        grids: (radiograph, line of the predictions file, numbers of findings that its answer names) to their maps,
            (numbers, g, g), over the whole radiograph.
    """

    meaning: str
    grids: Callable[[Image.Image, dict[str, Any], Sequence[int]], np.ndarray]


class MapPicture(NamedTuple):
    """A whole radiograph with the map of a finding over it, smaller than in `Picture`.

    `rectangles` are the finding's answered box and the true boxes of its label, `meaning` is that of `AnswerMaps`.
    """

    label: str
    score: float
    width: int
    height: int
    data_url: str
    rectangles: list[Rectangle]
    meaning: str


class Picture(NamedTuple):
    """A whole radiograph, made small; `data_url` is a JPEG of `width` x `height` pixels.

    `answer` is the whole answer, `truth` what is true, in the same words. `maps` are of those findings of the answer
    that have the highest scores; there are none where none were asked for.
    """

    case: Case
    image_id: str
    width: int
    height: int
    data_url: str
    rectangles: list[Rectangle]
    words: list[Words]
    answer: str
    truth: str
    maps: Sequence[MapPicture] = ()


class Group(NamedTuple):
    """Cases of one kind: how many there are, and pictures of those that are shown; `which` says which these are."""

    title: str
    which: str
    count: int
    pictures: list[Picture]


def gallery(
    predictions: Sequence[dict[str, Any]],
    rows: Dataset,
    labels: dict[str, list[str]],
    maps: AnswerMaps | None = None,
) -> Iterator[Group]:
    """A group for each of `KINDS`.

    Args:
        predictions: lines about one task whose answers have boxes, one a row, in the rows' order.
        rows: of the contract's schema.
        labels: of findings and diagnoses, as `label_names` gives them.
        maps: of the findings that are named on the radiographs shown; None: there are none.
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
    made: dict[int, list[MapPicture]] = {}  # a radiograph may be shown in several groups
    for kind, (title, which) in KINDS.items():
        members = [case for case in cases if case.kind == kind]
        pictures = []
        for case in chosen(members):
            row, line, truth = rows[case.row], predictions[case.row], truths[case.row]
            texts = line["answer"], true_answer(annotations[case.row], line["task"], labels)
            shown = picture(case, row, truth, answers[case.row], texts)
            if maps is not None and case.row not in made:
                made[case.row] = map_pictures(maps, row["image"], line, truth)
            pictures.append(shown._replace(maps=made.get(case.row, ())))
        yield Group(title, which, len(members), pictures)


def diagnosis_gallery(
    predictions: Sequence[dict[str, Any]], rows: Dataset, labels: dict[str, list[str]]
) -> Iterator[Group]:
    """A group for each of `DIAGNOSIS_KINDS`.

    No finding is no diagnosis here: wrongly said, it shows as the ones that are missed.

    Args:
        predictions: lines about one task whose answers have diagnoses, one a row, in the rows' order.
        rows, labels: as for `gallery`.
    """
    task, names = TASKS[predictions[0]["task"]], labels[DIAGNOSES.name]
    cases: list[Case] = []
    truths = []
    for row, (line, findings, diagnoses) in enumerate(
        zip(predictions, rows["findings"], rows["diagnoses"], strict=True)
    ):
        annotation = {"findings": findings, "diagnoses": diagnoses}
        truths.append(true_answer(annotation, task.name, labels))
        if truths[-1] is None:
            continue
        true, named = set(true_labels(annotation, task.kind, names)), set(named_labels(line, task.kind))
        scores = {item["label"]: item["score"] for item in line[task.kind.output]} | (line.get("probabilities") or {})
        for kind, members in (("right", named & true), ("missed", true - named), ("wrong", named - true)):
            cases += [
                Case(kind, row, label, scores.get(label), None, None, None) for label in sorted(members - {NO_FINDING})
            ]
    for kind, (title, which) in DIAGNOSIS_KINDS.items():
        members = [case for case in cases if case.kind == kind]
        pictures = [
            picture(case, rows[case.row], [], [], (predictions[case.row]["answer"], truths[case.row]))
            for case in chosen(members)
        ]
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
    case: Case,
    row: dict[str, Any],
    truths: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    texts: tuple[str, str] = ("", ""),
) -> Picture:
    """The whole radiograph of a case, at most `SIDE` pixels wide and high, with all boxes of the row.

    Args:
        row: with `image` and `image_id`.
        truths, answers: the row's boxes, `{"label": name, "box": xyxy in [0, 1]}`.
        texts: the whole answer, and the true one.
    """
    image = small_picture(row["image"], SIDE)
    boxes = [*(("true", box) for box in truths), *(("answered", box) for box in answers)]
    rectangles = [rectangle_of(origin, item, image.size, _is_in_case(item, case)) for origin, item in boxes]
    words = placed_words(rectangles, image.size)
    return Picture(case, row["image_id"], *image.size, data_url(image), rectangles, words, *texts)


def map_pictures(
    maps: AnswerMaps, image: Image.Image, line: dict[str, Any], truths: Sequence[dict[str, Any]]
) -> list[MapPicture]:
    """Those findings of an answer that have the highest scores, at most `MAPS_SHOWN`, each with its map.

    Args:
        image: the radiograph.
        line: of the predictions file.
        truths: the row's boxes, `{"label": name, "box": xyxy in [0, 1]}`.
    """
    findings = line["findings"]
    numbers = sorted(range(len(findings)), key=lambda number: -findings[number]["score"])[:MAPS_SHOWN]
    if not numbers:
        return []
    small = small_picture(image, MAP_SIDE)
    pictures = []
    for number, grid in zip(numbers, maps.grids(image, line, numbers), strict=True):
        finding = findings[number]
        picture_of_map = coloured(small, enlarged(grid, small.size), float(grid.min()), float(grid.max()))
        boxes = [("true", truth) for truth in truths if truth["label"] == finding["label"]] + [("answered", finding)]
        rectangles = [rectangle_of(origin, item, small.size, True) for origin, item in boxes]
        pictures.append(
            MapPicture(
                finding["label"], finding["score"], *small.size, data_url(picture_of_map), rectangles, maps.meaning
            )
        )
    return pictures


def small_picture(image: Image.Image, side: int) -> Image.Image:
    """A radiograph in grey, at most `side` pixels wide and high."""
    image = image.convert("L")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def data_url(image: Image.Image) -> str:
    """The picture as a JPEG that stands in a page."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def placed_words(rectangles: Sequence[Rectangle], size: tuple[int, int]) -> list[Words]:
    """The rectangles' labels, the case's own first: each where it fits into the picture and covers no other.

    A true label stands above its box if it can, an answered one below, so that both of a right box can be read.
    """
    placed: list[Words] = []
    taken: list[tuple[float, float, float, float]] = []
    for rectangle in sorted(rectangles, key=lambda rectangle: not rectangle.is_in_case):
        height = max(size) * (TEXT if rectangle.is_in_case else SMALL_TEXT)
        width = LETTER * height * len(rectangle.label)
        x = max(0.0, min(rectangle.x, size[0] - width))
        above, below = rectangle.y - 0.3 * height, rectangle.y + rectangle.height + 0.95 * height
        inside = [rectangle.y + 0.95 * height, rectangle.y + rectangle.height - 0.3 * height]
        lines = [above, below, *inside] if rectangle.origin == "true" else [below, above, *inside[::-1]]
        # As a last resort further down or up, line by line.
        lines += [line + sign * step * height for step in (1, 2, 3) for line in (above, below) for sign in (1, -1)]
        spots = [(x, y - 0.8 * height, x + width, y + 0.25 * height) for y in lines]
        free = [
            (spot, y)
            for spot, y in zip(spots, lines, strict=True)
            if spot[1] >= 0 and spot[3] <= size[1] and not any(_meet(spot, other) for other in taken)
        ]
        spot, y = free[0] if free else (spots[0], min(max(lines[0], 0.8 * height), size[1] - 0.25 * height))
        taken.append(spot)
        placed.append(Words(rectangle, x, y, height))
    return placed


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two xyxy rectangles have any part in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _is_in_case(item: dict[str, Any], case: Case) -> bool:
    return item["label"] == case.label and item["box"] in (case.true_box, case.answered_box)


def rectangle_of(
    origin: Literal["true", "answered"], item: dict[str, Any], size: tuple[int, int], is_in_case: bool
) -> Rectangle:
    """{"label", "box"}, xyxy in [0, 1], in pixels of a picture of that width and height."""
    x1, y1, x2, y2 = (value * pixels for value, pixels in zip(item["box"], 2 * size, strict=True))
    return Rectangle(item["label"], origin, is_in_case, x1, y1, max(0.0, x2 - x1), max(0.0, y2 - y1))
