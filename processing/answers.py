"""The answer language, both ways: findings and diagnoses <-> the text that LiteGPT is trained to write.

    Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<38><52><81><74>},<p>ILD</p> {<11><30><45><80>}.
    Local diseases of this chest radiograph are No finding.
    Global diseases of this chest radiograph are Pneumonia, Other diseases.

Outside the text a box is xyxy in [0, 1] of the whole image; in the text it is four integers, round(100 * coordinate),
the rounding of the paper's release (arXiv 2407.12064, section 4.2 and appendix B).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NO_FINDING = "No finding"
FINDINGS_PREFIX = "Local diseases of this chest radiograph are "
DIAGNOSES_PREFIX = "Global diseases of this chest radiograph are "

_FINDING = re.compile(r"<p>(?P<label>[^<>]+)</p> (?P<box>\{<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\})")


class AnswerError(ValueError):
    """An answer that is not in the answer language; the message says what is wrong with it."""


@dataclass(frozen=True)
class Finding:
    """A local label with its box, xyxy in [0, 1]; `span` is where an answer wrote the box (first character, end)."""

    label: str
    box: tuple[float, float, float, float]
    span: tuple[int, int] | None = None

    @property
    def label_span(self) -> tuple[int, int]:
        """Where an answer wrote the label (first character, end)."""
        end = self.span[0] - len("</p> ")
        return end - len(self.label), end


@dataclass(frozen=True)
class Diagnosis:
    """A global label; `span` is where an answer wrote it (first character, end)."""

    label: str
    span: tuple[int, int] | None = None


def box_to_text(box: Sequence[float]) -> str:
    """`{<x1><y1><x2><y2>}`, integers in 0..100; a box thinner than the grid is widened to one unit, for an area."""
    x1, y1, x2, y2 = (min(100, max(0, round(100 * value))) for value in box)
    if x1 == x2:
        x1, x2 = (x1, x2 + 1) if x2 < 100 else (x1 - 1, x2)
    if y1 == y2:
        y1, y2 = (y1, y2 + 1) if y2 < 100 else (y1 - 1, y2)
    return f"{{<{x1}><{y1}><{x2}><{y2}>}}"


def findings_to_text(findings: Sequence[Finding]) -> str:
    """The answer for `findings`, in their order; every box has its own entry, also where a label repeats."""
    entries = [f"<p>{finding.label}</p> {box_to_text(finding.box)}" for finding in findings]
    return FINDINGS_PREFIX + (",".join(entries) or NO_FINDING) + "."


def diagnoses_to_text(labels: Sequence[str]) -> str:
    """The answer for the diagnoses `labels`, in their order; none reads `No finding`."""
    return DIAGNOSES_PREFIX + (", ".join(labels) or NO_FINDING) + "."


def text_to_findings(text: str, labels: Sequence[str]) -> list[Finding]:
    """Findings of an answer, empty for `No finding`.

    Raises:
        AnswerError: the text is not exactly an answer about findings, a label is not one of `labels`, a coordinate
            exceeds 100, or a box has no area.
    """
    start, end = _body(text, FINDINGS_PREFIX)
    if text[start:end] == NO_FINDING:
        return []
    findings = []
    while True:
        entry = _FINDING.match(text, start, end)
        if entry is None:
            raise AnswerError(f"no finding of the form <p>label</p> {{<x1><y1><x2><y2>}} at character {start}")
        _known(entry["label"], labels)
        x1, y1, x2, y2 = (int(value) for value in entry.group(3, 4, 5, 6))
        if max(x1, y1, x2, y2) > 100:
            raise AnswerError(f"a coordinate above 100 in {entry['box']}")
        if x1 >= x2 or y1 >= y2:
            raise AnswerError(f"a box without area: {entry['box']}")
        box = (x1 / 100, y1 / 100, x2 / 100, y2 / 100)
        findings.append(Finding(entry["label"], box, entry.span("box")))
        if entry.end() == end:
            return findings
        if text[entry.end()] != ",":
            raise AnswerError(f"neither a comma nor the end after the finding at character {entry.end()}")
        start = entry.end() + 1


def text_to_diagnoses(text: str, labels: Sequence[str]) -> list[Diagnosis]:
    """Diagnoses of an answer; `No finding` is one of them where the answer says so.

    Raises:
        AnswerError: the text is not exactly an answer about diagnoses, a label is not one of `labels` or stands
            twice, or `No finding` stands beside another one.
    """
    start, end = _body(text, DIAGNOSES_PREFIX)
    diagnoses = []
    for label in text[start:end].split(", "):
        _known(label, labels)
        diagnoses.append(Diagnosis(label, (start, start + len(label))))
        start += len(label) + 2
    names = [diagnosis.label for diagnosis in diagnoses]
    if len(set(names)) < len(names):
        raise AnswerError("a diagnosis stands twice")
    if NO_FINDING in names and len(names) > 1:
        raise AnswerError(f"{NO_FINDING} stands beside another diagnosis")
    return diagnoses


def check_labels(
    labels: Sequence[str],
    write: Callable[[str], str],
    read: Callable[[str, Sequence[str]], Sequence[Finding | Diagnosis]],
) -> None:
    """Refuses a label that an answer with it alone, written and read again, does not give back.

    Raises:
        ValueError: it names the label, and why.
    """
    for label in labels:
        try:
            read(write(label), [label])
        except AnswerError as error:
            raise ValueError(f"The label {label!r} cannot stand in an answer: {error}.") from None


def _body(text: str, prefix: str) -> tuple[int, int]:
    """Where the part between the opening words and the final full stop begins and ends."""
    if not text.startswith(prefix):
        raise AnswerError(f"it does not begin with '{prefix.strip()}'")
    if not text.endswith("."):
        raise AnswerError("it does not end with a full stop")
    return len(prefix), len(text) - 1


def _known(label: str, labels: Sequence[str]) -> None:
    if label not in labels:
        raise AnswerError(f"an unknown label: '{label}'")
