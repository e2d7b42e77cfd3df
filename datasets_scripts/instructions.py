"""Rows -> what LiteGPT is asked and what it should answer (arXiv 2407.12064, sections 3.3 and 4.4)."""

from collections.abc import Sequence
from typing import Any, Literal

from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS as VINDR_CXR_DIAGNOSES
from litegpt.processing.answers import NO_FINDING, Finding, diagnoses_to_text, findings_to_text
from litegpt.processing.tasks import DIAGNOSES, LABEL_TASKS, TASKS

BoxOrder = Literal["label", "position"]

# How the paper asks for VinDr-CXR's labels: in its own order and capitals.
PAPER_DIAGNOSES = "COPD, Lung Tumor, Pneumonia, Tuberculosis, Other Disease, or No Finding"


def instructions_for(diagnosis_labels: Sequence[str]) -> dict[str, str]:
    """Task (the identifier without its brackets) -> instruction, for a data set's diagnoses.

    VinDr-CXR's diagnoses are asked for in the paper's own words, those of other data sets by their labels.
    """
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
