"""What was asked, what is true, and what was answered, as the metrics take them.

In: rows of a data set without their images, and lines of a predictions file. Out: label names, boxes, and arrays.

    labels = label_names(rows)  # {"finding": [...], "diagnosis": [...]}
    asked = question("identify", list(rows.remove_columns("image")), labels)
    answers = by_task(lines, ["identify", "vqa"])["identify"]  # lines in the order of the rows
    true_boxes(asked.rows, labels["finding"])  # [[{"label": "Cardiomegaly", "box": [...]}, ...], ...]
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.instructions import answer
from litegpt.processing.answers import NO_FINDING
from litegpt.processing.tasks import DIAGNOSES, FINDINGS, AnswerKind

if TYPE_CHECKING:  # it takes a second to import
    from datasets import Dataset


class Question(NamedTuple):
    """A task, and the images that tell its answer: their indices, their rows, and the true answers."""

    task: str
    images: np.ndarray
    rows: list[dict[str, Any]]
    texts: list[str]


def question(task: str, rows: Sequence[dict[str, Any]], labels: dict[str, list[str]]) -> Question:
    """The question that `task` is to the rows.

    Args:
        rows: of all images, without the images.
        labels: as `label_names` gives them.

    Raises:
        Refusal: no row tells the answer; it is a ValueError.
    """
    texts = [true_answer(row, task, labels) for row in rows]
    known = [index for index, text in enumerate(texts) if text is not None]
    if not known:
        raise Refusal(f"{task}: no radiograph of this split tells the answer, so there is nothing to score.")
    return Question(task, np.array(known), [rows[index] for index in known], [texts[index] for index in known])


def by_task(predictions: Iterable[dict[str, Any]], tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The lines of each task, in their order."""
    lines: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
    for prediction in predictions:
        if prediction["task"] in lines:
            lines[prediction["task"]].append(prediction)
    return lines


def label_names(rows: "Dataset") -> dict[str, list[str]]:
    """The names of a data set's labels, by the name of the kind of answer that has them."""
    return {
        FINDINGS.name: rows.features["findings"].feature["label"].names,
        DIAGNOSES.name: rows.features["diagnoses"].feature.names,
    }


def true_answer(row: dict[str, Any], task: str, labels: dict[str, list[str]]) -> str | None:
    """What the answer should be, or None where the row does not tell it."""
    return answer(row["findings"], row["diagnoses"], task, labels["finding"], labels["diagnosis"])


def named_labels(prediction: dict[str, Any], kind: AnswerKind) -> list[str]:
    """The labels that an answer names; none for a malformed one, which the metrics count as wrong."""
    if prediction["malformed"] is not None:
        return []
    return sorted({item["label"] for item in prediction[kind.output]}) or [NO_FINDING]


def true_labels(row: dict[str, Any], kind: AnswerKind, names: Sequence[str]) -> list[str]:
    """The labels that a row has; none where it has no finding."""
    indices = row["diagnoses"] if kind is DIAGNOSES else {item["label"] for item in row["findings"]}
    return [names[index] for index in sorted(indices)]


def true_boxes(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The boxes of each row, {"label", "box"}."""
    return [[{"label": names[item["label"]], "box": item["box"]} for item in row["findings"]] for row in rows]


def true_diagnoses(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> np.ndarray:
    """(rows, labels) bool, whether a row has the diagnosis."""
    truths = np.zeros((len(rows), len(names)), dtype=bool)
    for index, row in enumerate(rows):
        truths[index, row["diagnoses"]] = True
    return truths


def stated_probabilities(predictions: Sequence[dict[str, Any]], names: Sequence[str]) -> np.ndarray | None:
    """(predictions, names) in [0, 1]; None where an answer has none, as without constrained decoding."""
    stated = [prediction.get("probabilities") or {} for prediction in predictions]  # older files lack them
    if not all(name in probabilities for probabilities in stated for name in names):
        return None
    # A mean of float32 may lie 1e-7 above one.
    return np.clip([[probabilities[name] for name in names] for probabilities in stated], 0, 1)
