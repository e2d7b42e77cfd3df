"""What LiteGPT is asked: every task, and every kind of answer, each one entry.

    TASKS["vqa"].identifier               # "[vqa]", the token that a prompt begins with
    TASKS["vqa"].kind is DIAGNOSES        # what its answer is about
    TASKS["vqa"].kind.output              # "diagnoses", where the pipeline and a predictions file have it
    TASKS["refer"].about                  # "phrase": what a question is about, beside the radiograph
    split_question("refer: enlarged heart")       # ("refer", "enlarged heart")

A new task is an entry of `TASKS`. A new kind of answer is an `AnswerKind`. Where its answers have a form it has a
language: how they are written in tokens, and how they are read with their scores. Answers without one are free text.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .box_scores import scored_findings
from .diagnoses_language import DiagnosesLanguage
from .diagnosis_scores import scored_diagnoses
from .findings_language import FindingsLanguage, PlacesLanguage


@dataclass(frozen=True)
class AnswerKind:
    """What an answer is about.

    Attributes:
        name: "finding": of its labels (`finding_labels`), and of its temperature among `score_temperatures`.
        output: "findings": where the pipeline's output and a line of a predictions file have what an answer names.
        has_boxes: whether what an answer names has a label and a box.
        language: the grammar of its answers, see `findings_language.py`; None: they are text.
        scored: (`Answer`, labels, temperature) -> each thing that the answer names, with its score or None; None where
            an answer names nothing by the checkpoint's labels.
    """

    name: str
    output: str
    has_boxes: bool = False
    language: type | None = None
    scored: Callable[..., Iterable[tuple[Any, float | None]]] | None = None


FINDINGS = AnswerKind("finding", "findings", True, FindingsLanguage, scored_findings)
DIAGNOSES = AnswerKind("diagnosis", "diagnoses", False, DiagnosesLanguage, scored_diagnoses)
ANSWER_KINDS = (FINDINGS, DIAGNOSES)  # of what the checkpoint has labels for
PLACES = AnswerKind("place", "phrases", language=PlacesLanguage)
REPORT = AnswerKind("report", "report")
GROUNDED_REPORT = AnswerKind("grounded_report", "grounded_report")
DESCRIPTION = AnswerKind("description", "descriptions")
REPLY = AnswerKind("reply", "replies")


@dataclass(frozen=True)
class Task:
    """A question about a radiograph.

    Attributes:
        name: such as "identify".
        kind: of its answer.
        instruction: its words (arXiv 2407.12064, sections 3.3 and 4.4); {diagnoses} becomes the checkpoint's labels,
            {about} what a question is about.
        about: what that is: "phrase", "box", "question" or "chat"; None: a question is about the radiograph alone.
        begins_as: the task whose identifier a prompt begins with; by default its own, "": none.
    """

    name: str
    kind: AnswerKind
    instruction: str
    about: str | None = None
    begins_as: str | None = None

    @property
    def identifier(self) -> str:
        name = self.name if self.begins_as is None else self.begins_as
        return f"[{name}]" if name else ""


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
        Task("refer", PLACES, "Give the bounding boxes of: {about}", "phrase"),
        Task("describe", DESCRIPTION, "What is in this box: {about}", "box"),
        Task("report", REPORT, "Write the findings section of the report."),
        Task(
            "grounded_report",
            GROUNDED_REPORT,
            "Write the findings section of the report, each sentence with its boxes.",
        ),
        Task("question", REPLY, "{about}", "question", begins_as="vqa"),
        Task("chat", REPLY, "{about}", "chat", begins_as=""),
    )
}
LABEL_TASKS = {name: task for name, task in TASKS.items() if task.kind in ANSWER_KINDS}
WORD_TASKS = {name: task for name, task in TASKS.items() if task.kind not in ANSWER_KINDS}
DEFAULT_TASKS = ("identify", "vqa")  # what a radiograph is asked


def answer_kind(task: str) -> AnswerKind | None:
    """The kind of the answer to a task; None for a task that a checkpoint has and this module does not know."""
    return TASKS[task].kind if task in TASKS else None


def is_free_text(task: str) -> bool:
    """Whether answers to a task have no form, or one of which words are a part; False for a task that is not known."""
    kind = answer_kind(task)
    return kind is not None and kind.language is None


def shows_study(task: str) -> bool:
    """Whether further views of the study are shown beside the radiograph: for reports."""
    return answer_kind(task) in (REPORT, GROUNDED_REPORT)


def join_question(task: str, about: str | None = None) -> str:
    """A task and what it is about, in one string: "refer: enlarged heart"."""
    return task if about is None else f"{task}: {about}"


def split_question(question: str) -> tuple[str, str | None]:
    """The task of a question string, and what it is about.

    Raises:
        ValueError: the task needs to be told what it is about, or is about the radiograph alone.
    """
    name, colon, about = question.partition(":")
    task, about = TASKS.get(name.strip()), about.strip()
    if task is None:
        return name.strip(), about or None
    if task.about is not None and not about:
        raise ValueError(f'[{task.name}] needs its {task.about}: "{task.name}: {task.about}".')
    if task.about is None and colon:
        raise ValueError(f"[{task.name}] is about the radiograph alone, not about {about!r}.")
    return task.name, about or None
