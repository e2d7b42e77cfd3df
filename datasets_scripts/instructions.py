"""Rows -> what LiteGPT is asked and what it should answer (arXiv 2407.12064, sections 3.3 and 4.4).

    questions(row, "identify", finding_labels, diagnosis_labels)   # [Asked(None, "Local diseases of ...")]
    questions(row, "refer", finding_labels, diagnosis_labels)      # [Asked("enlarged heart", "Boxes of ..."), ...]
    questions(row, "chat", finding_labels, diagnosis_labels)       # an answer of the assistant each

A row that does not tell the answer to a task is not asked it: the list is empty.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from litegpt.datasets_scripts.report_texts import joined
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS as VINDR_CXR_DIAGNOSES
from litegpt.processing.answers import (
    NO_FINDING,
    Finding,
    box_to_text,
    diagnoses_to_text,
    findings_to_text,
    places_to_text,
    sentences_to_text,
)
from litegpt.processing.tasks import DIAGNOSES, LABEL_TASKS, TASKS

BoxOrder = Literal["label", "position"]

# How the paper asks for VinDr-CXR's labels: in its own order and capitals.
PAPER_DIAGNOSES = "COPD, Lung Tumor, Pneumonia, Tuberculosis, Other Disease, or No Finding"

# In place of the characters that a grounded report writes boxes and sentences with.
IN_WORDS = str.maketrans({"<": " less than ", ">": " more than ", "{": "(", "}": ")"})


@dataclass(frozen=True)
class Asked:
    """One question: what it is about beside the radiograph (None: nothing), and the true answer."""

    about: str | None
    answer: str


def instructions_for(diagnosis_labels: Sequence[str]) -> dict[str, str]:
    """Task (the identifier without its brackets) -> instruction, for a data set's diagnoses.

    VinDr-CXR's diagnoses are asked for in the paper's own words, those of other data sets by their labels; where there
    are none, nobody asks for them.
    """
    if not diagnosis_labels:
        return {task.name: task.instruction for task in TASKS.values() if "{diagnoses}" not in task.instruction}
    if set(diagnosis_labels) == set(VINDR_CXR_DIAGNOSES):
        diagnoses = PAPER_DIAGNOSES
    else:
        diagnoses = ", ".join([*diagnosis_labels[:-1], f"or {diagnosis_labels[-1]}"])
    return {task.name: task.instruction.replace("{diagnoses}", diagnoses) for task in TASKS.values()}


INSTRUCTIONS = instructions_for(VINDR_CXR_DIAGNOSES)  # the paper's


def answer(
    findings: Sequence[dict[str, Any]],
    diagnoses: Sequence[int],
    task: str,
    finding_labels: Sequence[str],
    diagnosis_labels: Sequence[str],
    box_order: BoxOrder = "label",
) -> str | None:
    """The answer to `task` for a row, or None where the row does not tell it.

    Findings stand in label order, from left to right within a label, or by position: from top to bottom by the box's
    upper edge, from left to right where that is the same. A radiograph without boxes is answered
    `No finding` only where it is diagnosed so: if a reader stated a finding but drew no box, nobody knows what the
    boxes should be.

    Args:
        findings: the row's findings, `{"label": index, "box": xyxy in [0, 1]}`.
        diagnoses: the row's diagnoses, indices.
        task: one of `LABEL_TASKS`.

    Raises:
        ValueError: another task.
    """
    if task not in LABEL_TASKS:
        raise ValueError(f"a row's labels tell no answer to [{task}], only to {', '.join(LABEL_TASKS)}")
    names = [diagnosis_labels[index] for index in sorted(diagnoses)]
    if TASKS[task].kind is DIAGNOSES:
        return diagnoses_to_text(names) if names else None
    if not findings and names != [NO_FINDING]:
        return None
    if box_order == "position":
        ordered = sorted(findings, key=lambda finding: (finding["box"][1], finding["box"][0], finding["label"]))
    else:
        ordered = sorted(findings, key=lambda finding: (finding["label"], *finding["box"]))
    return findings_to_text([Finding(finding_labels[finding["label"]], finding["box"]) for finding in ordered])


def questions(
    row: dict[str, Any],
    task: str,
    finding_labels: Sequence[str],
    diagnosis_labels: Sequence[str],
    box_order: BoxOrder = "label",
) -> list[Asked]:
    """All that a row tells of a task, in the row's order; nothing where it does not tell the answer.

    identify, grounding, vqa: from findings and diagnoses, see `answer`.
    refer: from `phrase`; where that is missing or null from the `sentences` that have boxes. Boxes stand from left to
        right, or by position.
    describe: the label of each finding's box; of rows without findings the phrase of each box.
    report, question: from `report_findings` and `qa`.
    grounded_report: from `sentences`; < and > are written in words, { and } as parentheses.
    chat: from `chat`, a question for each turn of the assistant that follows one of the user, about all turns before.

    Args:
        row: columns of the schema; those that are missing or null tell nothing.

    Raises:
        ValueError: there is no such task.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task [{task}], only {', '.join(TASKS)}")
    if task in LABEL_TASKS:
        text = answer(row["findings"], row["diagnoses"], task, finding_labels, diagnosis_labels, box_order)
        return [] if text is None else [Asked(None, text)]
    if task == "describe":
        return _descriptions(row, finding_labels)
    if task == "chat":
        return _conversation(row.get("chat") or ())
    if task == "refer":
        return [
            Asked(phrase, places_to_text(_in_order(boxes, box_order)))
            for phrase, boxes in boxes_of_phrases(row).items()
        ]
    if task == "question":
        return [Asked(pair["question"], pair["answer"]) for pair in told_pairs(row)]
    if task == "grounded_report":
        told = [(one["text"], _in_order(one["boxes"], box_order)) for one in told_sentences(row)]
        return [Asked(None, sentences_to_text(told))] if told else []
    report = joined(row.get("report_findings") or "")
    return [Asked(None, report)] if report else []


def boxes_of_phrases(row: dict[str, Any]) -> dict[str, list[Sequence[float]]]:
    """{phrase: its boxes, none where the row knows that the radiograph does not show it}."""
    if row.get("phrase") is not None:
        phrases = [(phrase["phrase"], phrase["boxes"]) for phrase in row["phrase"]]
    else:
        phrases = [(one["text"], one["boxes"]) for one in row.get("sentences") or () if one["boxes"]]
    boxes: dict[str, list[Sequence[float]]] = {}
    for phrase, of_phrase in phrases:
        if joined(phrase):
            boxes.setdefault(joined(phrase), []).extend(of_phrase)
    return boxes


def told_sentences(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The `sentences` of a row as a grounded report can write them, {"text", "boxes"}; without those of no word."""
    sentences = [{**one, "text": joined(one["text"].translate(IN_WORDS))} for one in row.get("sentences") or ()]
    return [one for one in sentences if one["text"]]


def told_pairs(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The `qa` of a row, each text on one line; without those that lack a question or an answer."""
    pairs = [{**pair, **{name: joined(pair[name]) for name in ("question", "answer")}} for pair in row.get("qa") or ()]
    return [pair for pair in pairs if pair["question"] and pair["answer"]]


def _descriptions(row: dict[str, Any], finding_labels: Sequence[str]) -> list[Asked]:
    if row["findings"]:
        return [
            Asked(box_to_text(finding["box"]), finding_labels[finding["label"]])
            for finding in sorted(row["findings"], key=lambda finding: (finding["label"], *finding["box"]))
        ]
    return [Asked(box_to_text(box), phrase) for phrase, boxes in boxes_of_phrases(row).items() for box in boxes]


def _conversation(turns: Sequence[dict[str, str]]) -> list[Asked]:
    said: list[dict[str, str]] = []
    asked = []
    for turn in turns:
        text = joined(turn["text"])
        if turn["role"] == "assistant" and text and said and said[-1]["role"] == "user":
            asked.append(Asked(json.dumps(said, ensure_ascii=False), text))
        said.append({"role": turn["role"], "content": text})
    return asked


def _in_order(boxes: Sequence[Sequence[float]], box_order: BoxOrder) -> list[Sequence[float]]:
    if box_order == "position":
        return sorted(boxes, key=lambda box: (box[1], box[0]))
    return sorted(boxes, key=lambda box: (*box,))
