"""Answers in words about some radiographs, as a page shows them: each sentence with its probability and its boxes.

    cases = drawn_cases(asked, lines, rows, 8)
    cases[0].blocks[0].items[0]   # Item("1", "There is cardiomegaly.", "91 %", ["unverified"], "true")
    cases_html(cases)             # a part of a page, which `word_cases.html.jinja` lays out

In: questions, answers and rows. Out: radiographs, made small, with the boxes of what is answered (dashed) and of what
is true. What no grammar holds is marked as unverified, a sentence below the checkpoint's operating point as doubtful.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from litegpt.common.templates import template
from litegpt.evaluation_scripts.reports.gallery import (
    SIDE,
    Rectangle,
    Words,
    data_url,
    placed_words,
    rectangle_of,
    small_picture,
)
from litegpt.evaluation_scripts.word_questions import WordQuestion
from litegpt.metrics.phrases import iou_of_unions

if TYPE_CHECKING:  # it takes a second to import
    from datasets import Dataset

Lines = Mapping[tuple[int, str, str | None], Mapping[str, Any]]
UNVERIFIED, DOUBTFUL, MALFORMED = "unverified", "doubtful", "cannot be read"


class Drawn(NamedTuple):
    """A radiograph, made small, with boxes; as the macro `drawing` of gallery.html.jinja takes it."""

    width: int
    height: int
    data_url: str
    rectangles: list[Rectangle]
    words: list[Words]


class Item(NamedTuple):
    """Something that is answered.

    Attributes:
        mark: what its boxes are marked with in the picture; "": it has none.
        text: its words.
        stated: a probability, as it is shown; "": none is stated.
        marks: what is to be said of it, such as "unverified".
        truth: what is true; "": it is not told.
    """

    mark: str
    text: str
    stated: str
    marks: list[str]
    truth: str


class Block(NamedTuple):
    """What is answered to one task; `truth` is the whole true answer, "" where each item has its own."""

    title: str
    items: list[Item]
    truth: str = ""
    picture: Drawn | None = None


class WordCase(NamedTuple):
    """A radiograph and what was answered about it; `picture` is it without boxes, where no block shows it."""

    image_id: str
    blocks: list[Block]
    picture: Drawn | None
    warnings: list[str]


def drawn_cases(
    asked: Mapping[str, Sequence[WordQuestion]],
    lines: Lines,
    rows: "Dataset",
    count: int,
    said: Collection[str] = (),
) -> list[WordCase]:
    """Up to `count` radiographs, drawn at random from those that were asked about, the same in every run.

    At least half of them have boxes, where so many do: most radiographs are normal, and look alike.

    Args:
        said: warnings that stand elsewhere on the page.
    """
    of_image: dict[int, dict[str, list[WordQuestion]]] = {}
    for task, questions in asked.items():
        for one in questions:
            of_image.setdefault(one.image, {}).setdefault(task, []).append(one)
    shuffled = random.Random(0).sample(sorted(of_image), len(of_image))
    with_boxes = [image for image in shuffled if any(map(_has_boxes, sum(of_image[image].values(), [])))]
    first = with_boxes[: (count + 1) // 2]
    drawn = [*first, *(image for image in shuffled if image not in first)][:count]
    return [word_case(rows[image], of_image[image], lines, said) for image in sorted(drawn)]


def _has_boxes(one: WordQuestion) -> bool:
    """Whether the true answer to a question tells of a box."""
    if one.task == "grounded_report":
        return any(sentence["boxes"] for sentence in one.truth)
    return one.task == "describe" or one.task == "refer" and bool(one.truth)


def word_case(
    row: Mapping[str, Any],
    asked: Mapping[str, Sequence[WordQuestion]],
    lines: Lines,
    said: Collection[str] = (),
) -> WordCase:
    """A radiograph with all that was asked about it.

    Args:
        row: with `image` and `image_id`.
        asked: by task the questions about it.
    """
    small = small_picture(row["image"], SIDE)
    blocks = list(_blocks(small, asked, lines))
    answered = [lines[one.image, one.task, one.about] for of_task in asked.values() for one in of_task]
    doubts = dict.fromkeys(doubt for line in answered for doubt in line.get("warnings", ()))
    warnings = [doubt for doubt in doubts if doubt not in said]
    plain = None if any(block.picture for block in blocks) else _drawn(small, [], [])
    return WordCase(row["image_id"], blocks, plain, warnings)


def cases_html(cases: Sequence[WordCase]) -> Markup:
    """The part of a page that shows them."""
    return Markup(template(__file__, "word_cases.html.jinja").render(cases=cases))


def styles() -> Markup:
    """What the page's style sheet needs for it."""
    return Markup(Path(__file__).with_name("word_cases.css").read_text(encoding="utf-8"))


def _blocks(small: Image.Image, asked: Mapping[str, Sequence[WordQuestion]], lines: Lines) -> Iterator[Block]:
    for task in ("grounded_report", "report", "refer", "describe", "question"):
        pairs = [(one, lines[one.image, one.task, one.about]) for one in asked.get(task, ())]
        if not pairs:
            continue
        if task == "report":
            yield Block("Report", _report_items(pairs[0][1], "report"), pairs[0][0].answer)
        elif task == "grounded_report":
            (question, line), *_ = pairs
            answered = [
                (str(number), box["box"]) for number, entry in enumerate(line[task], start=1) for box in entry["boxes"]
            ]
            true = [(sentence["text"], box) for sentence in question.truth for box in sentence["boxes"]]
            truth = " ".join(sentence["text"] for sentence in question.truth)
            yield Block("Report with boxes", _report_items(line, task), truth, _drawn(small, answered, true))
        elif task == "refer":
            answered = [
                (chr(ord("a") + place % 26), box["box"])
                for place, (_, line) in enumerate(pairs)
                for entry in line["phrases"]
                for box in entry["boxes"]
            ]
            true = [(one.about, box) for one, _ in pairs for box in one.truth]
            items = [_phrase_item(chr(ord("a") + place % 26), *pair) for place, pair in enumerate(pairs)]
            yield Block("Phrases", items, picture=_drawn(small, answered, true))
        else:
            title = {"describe": "What is in a box", "question": "Questions"}[task]
            yield Block(title, [_reply_item(*pair) for pair in pairs])


def _report_items(line: Mapping[str, Any], task: str) -> list[Item]:
    if line["malformed"] is not None:
        return [Item("", line["answer"], "", [UNVERIFIED, f"{MALFORMED}: {line['malformed']}"], "")]
    return [
        Item(
            str(number) if entry.get("boxes") else "",
            entry["text"],
            _percent(entry["probability"]),
            [UNVERIFIED, *([DOUBTFUL] if entry["doubtful"] else [])],
            "",
        )
        for number, entry in enumerate(line[task], start=1)
    ]


def _phrase_item(mark: str, one: WordQuestion, line: Mapping[str, Any]) -> Item:
    there = f"{len(one.truth)} box{'es' if len(one.truth) > 1 else ''}" if one.truth else "not there"
    if line["malformed"] is not None:
        return Item("", one.about, "", [f"{MALFORMED}: {line['malformed']}"], there)
    (entry,) = line["phrases"]
    boxes = [box["box"] for box in entry["boxes"]]
    if boxes and one.truth:
        there += f", IoU {iou_of_unions(boxes, one.truth):.2f}"
    return Item(mark if boxes else "", one.about, _percent(entry["present"]), [] if boxes else ["no box"], there)


def _reply_item(one: WordQuestion, line: Mapping[str, Any]) -> Item:
    marks = [] if line["malformed"] is None else [f"{MALFORMED}: {line['malformed']}"]
    entries = line["descriptions" if one.task == "describe" else "replies"]
    if not any(entry["verified"] for entry in entries):
        marks = [UNVERIFIED, *marks]
    score = entries[0]["score"] if entries else None
    return Item("", f"{one.about} {line['answer']}", _percent(score), marks, one.answer)


def _percent(probability: float | None) -> str:
    return "" if probability is None else f"{100 * probability:.0f} %"


def _drawn(
    small: Image.Image, answered: Sequence[tuple[str, Sequence[float]]], true: Sequence[tuple[str, Sequence[float]]]
) -> Drawn:
    """A small radiograph with boxes; the answered ones are marked, the true ones have their words as a title."""
    sides = [
        [rectangle_of(origin, {"label": label, "box": box}, small.size, True) for label, box in boxes]
        for origin, boxes in (("true", true), ("answered", answered))
    ]
    return Drawn(*small.size, data_url(small), sides[0] + sides[1], placed_words(sides[1], small.size))
