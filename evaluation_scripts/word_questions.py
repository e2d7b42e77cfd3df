"""Rows -> the questions in words that they tell the answers to, as word answers are asked and scored.

    asked = word_questions(rows, "refer")
    asked[0]         # WordQuestion(0, "refer", "enlarged heart", "Boxes of this phrase are ...", [[0.38, 0.5, ...]])

In: rows with the columns that `instructions.questions` reads. Out: a question each, with its image's number.
"""

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from litegpt.datasets_scripts.instructions import boxes_of_phrases, questions, told_pairs, told_sentences
from litegpt.evaluation_scripts.questions import label_names
from litegpt.metrics.short_answers import words_of

if TYPE_CHECKING:  # it takes a second to import
    from datasets import Dataset

COLUMNS = ("image_id", "findings", "diagnoses", "phrase", "sentences", "report_findings", "qa")


class WordQuestion(NamedTuple):
    """A question about a row's radiograph, with its true answer.

    Attributes:
        image: number of the row.
        about: what it is about beside the radiograph; None: nothing.
        answer: the true answer.
        truth: of refer the phrase's boxes, xyxy in [0, 1], of grounded_report its sentences, {"text", "boxes"}, of
            question whether it is closed; None of the others.
    """

    image: int
    task: str
    about: str | None
    answer: str
    truth: Any = None


def word_questions(rows: "Dataset", task: str, most: int | None = None) -> list[WordQuestion]:
    """The questions of one of `arguments.WORD_QUESTIONS` that the rows tell the answers to, row by row.

    A true answer without a word (punctuation alone) cannot be scored and is left out.

    Args:
        rows: pictures are not read.
        most: of each row at most so many, drawn at random, the same in every run; those of fewer are among those of
            more.
    """
    labels = label_names(rows)
    told = rows.select_columns([column for column in COLUMNS if column in rows.column_names])
    asked = []
    for image, row in enumerate(told):
        of_row = [one for one in _of_row(image, row, task, labels) if task == "refer" or words_of(one.answer)]
        if most is not None and len(of_row) > most:
            drawn = list(range(len(of_row)))
            random.Random(f"{row['image_id']} {task}").shuffle(drawn)
            of_row = [of_row[number] for number in sorted(drawn[:most])]
        asked += of_row
    return asked


def _of_row(image: int, row: dict[str, Any], task: str, labels: dict[str, list[str]]) -> Iterator[WordQuestion]:
    asked = questions(row, task, labels["finding"], labels["diagnosis"])
    truths: Sequence[Any] = [None] * len(asked)
    if task == "refer":
        boxes = boxes_of_phrases(row)
        truths = [boxes[one.about] for one in asked]
    elif task == "grounded_report" and asked:
        truths = [told_sentences(row)]
    elif task == "question":
        truths = [pair["closed"] for pair in told_pairs(row)]
    for one, truth in zip(asked, truths, strict=True):
        yield WordQuestion(image, task, one.about, one.answer, truth)
