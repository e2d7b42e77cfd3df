"""Rows -> what LiteGPT is asked and what it should answer (arXiv 2407.12064, sections 3.3 and 4.4)."""

from collections.abc import Sequence
from typing import Any

from processing.answers import NO_FINDING, Finding, diagnoses_to_text, findings_to_text

FINDINGS_INSTRUCTION = (
    "Please describe the critical findings along with their localized bounding boxes in the radiological image of a "
    "chest as much detail as possible. If there are no findings, state that the chest radiograph shows no findings."
)
DIAGNOSES_INSTRUCTION = (
    "Given the provided chest X-ray image, which of the following diagnoses are present (select all that apply): "
    "COPD, Lung Tumor, Pneumonia, Tuberculosis, Other Disease, or No Finding?"
)
# Task (the identifier without its brackets) -> instruction. `grounding` is `identify` by another name (section 4.6).
INSTRUCTIONS = {
    "identify": FINDINGS_INSTRUCTION,
    "vqa": DIAGNOSES_INSTRUCTION,
    "grounding": FINDINGS_INSTRUCTION,
}


def answer(
    findings: Sequence[dict[str, Any]],
    diagnoses: Sequence[int],
    task: str,
    finding_labels: Sequence[str],
    diagnosis_labels: Sequence[str],
) -> str | None:
    """The answer to `task` for a row, or None where the row does not tell it.

    Findings stand in label order, from left to right within a label. A radiograph without boxes is answered
    `No finding` only where it is diagnosed so: if a reader stated a finding but drew no box, nobody knows what the
    boxes should be.

    Args:
        findings: the row's findings, `{"label": index, "box": xyxy in [0, 1]}`.
        diagnoses: the row's diagnoses, indices.
        task: a key of `INSTRUCTIONS`.
    """
    names = [diagnosis_labels[index] for index in sorted(diagnoses)]
    if task == "vqa":
        return diagnoses_to_text(names) if names else None
    if not findings and names != [NO_FINDING]:
        return None
    ordered = sorted(findings, key=lambda finding: (finding["label"], *finding["box"]))
    return findings_to_text([Finding(finding_labels[finding["label"]], finding["box"]) for finding in ordered])
