"""What LiteGPT is asked: every task, and every kind of answer, each one entry.

    TASKS["vqa"].identifier               # "[vqa]", the token that a prompt begins with
    TASKS["vqa"].kind is DIAGNOSES        # what its answer is about
    TASKS["vqa"].kind.output              # "diagnoses", where the pipeline and a predictions file have it

A new task is an entry of `TASKS`. A new kind of answer is an `AnswerKind` with its language: how its answers are
written in tokens, and how they are read with their scores.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .box_scores import scored_findings
from .diagnoses_language import DiagnosesLanguage
from .diagnosis_scores import scored_diagnoses
from .findings_language import FindingsLanguage


@dataclass(frozen=True)
class AnswerKind:
    """What an answer is about.

    Attributes:
        name: "finding": of its labels (`finding_labels`), and of its temperature among `score_temperatures`.
        output: "findings": where the pipeline's output and a line of a predictions file have what an answer names.
        has_boxes: whether what an answer names has a box.
        language: the grammar of its answers, see `findings_language.py`.
        scored: (`Answer`, labels, temperature) -> each thing that the answer names, with its score or None.
    """

    name: str
    output: str
    has_boxes: bool
    language: type
    scored: Callable[..., Iterable[tuple[Any, float | None]]]


FINDINGS = AnswerKind("finding", "findings", True, FindingsLanguage, scored_findings)
DIAGNOSES = AnswerKind("diagnosis", "diagnoses", False, DiagnosesLanguage, scored_diagnoses)
ANSWER_KINDS = (FINDINGS, DIAGNOSES)


@dataclass(frozen=True)
class Task:
    """A question about a radiograph.

    Attributes:
        name: such as "identify".
        kind: of its answer.
        instruction: its words (arXiv 2407.12064, sections 3.3 and 4.4); {diagnoses} becomes the checkpoint's labels.
    """

    name: str
    kind: AnswerKind
    instruction: str

    @property
    def identifier(self) -> str:
        return f"[{self.name}]"


DESCRIBE_FINDINGS = (
    "Please describe the critical findings along with their localized bounding boxes in the radiological image of a "
    "chest as much detail as possible. If there are no findings, state that the chest radiograph shows no findings."
)
SELECT_DIAGNOSES = (
    "Given the provided chest X-ray image, which of the following diagnoses are present (select all that apply): "
    "{diagnoses}?"
)

TASKS = {
    task.name: task
    for task in (
        Task("identify", FINDINGS, DESCRIBE_FINDINGS),
        Task("vqa", DIAGNOSES, SELECT_DIAGNOSES),
        Task("grounding", FINDINGS, DESCRIBE_FINDINGS),  # `identify` by another name (section 4.6)
    )
}
DEFAULT_TASKS = ("identify", "vqa")  # what a radiograph is asked


def answer_kind(task: str) -> AnswerKind | None:
    """The kind of the answer to a task; None for a task that a checkpoint has and this module does not know."""
    return TASKS[task].kind if task in TASKS else None
