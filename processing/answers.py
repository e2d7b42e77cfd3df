"""The answer language, both ways: findings, diagnoses, boxes <-> the text that LiteGPT is trained to write.

    Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<38><52><81><74>},<p>ILD</p> {<11><30><45><80>}.
    Local diseases of this chest radiograph are No finding.
    Global diseases of this chest radiograph are Pneumonia, Other diseases.
    Boxes of this phrase are {<38><52><81><74>},{<11><30><45><80>}.
    Boxes of this phrase are None.
    <p>There is cardiomegaly.</p> {<38><52><81><74>} <p>There is no pleural effusion.</p>

Outside the text a box is xyxy in [0, 1] of the whole image; in the text it is four integers, round(100 * coordinate),
the rounding of the paper's release (arXiv 2407.12064, section 4.2 and appendix B).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NO_FINDING = "No finding"
FINDINGS_PREFIX = "Local diseases of this chest radiograph are "
DIAGNOSES_PREFIX = "Global diseases of this chest radiograph are "
PLACES_PREFIX, NO_PLACE = "Boxes of this phrase are ", "None"

_BOX = "".join(rf"<(?P<{side}>0|[1-9][0-9]{{0,2}})>" for side in ("x1", "y1", "x2", "y2"))
_BOX = rf"(?P<box>\{{{_BOX}\}})"
_PLACE = re.compile(_BOX)
_FINDING = re.compile(r"<p>(?P<label>[^<>]+)</p> " + _BOX)
_SENTENCE = re.compile(r"<p>(?=\s*[^\s<>{}])(?P<text>[^<>{}]+)</p>")


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
class Place:
    """A box of what a phrase or a sentence says, xyxy in [0, 1]; `span` is where an answer wrote it (first, end)."""

    box: tuple[float, float, float, float]
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Sentence:
    """A sentence of a report, with its boxes; `span` is where an answer wrote its words (first character, end)."""

    text: str
    places: tuple[Place, ...] = ()
    span: tuple[int, int] | None = None


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


def text_to_box(text: str) -> tuple[float, float, float, float]:
    """The box, xyxy in [0, 1], that a text is: `{<38><52><81><74>}`.

    Raises:
        AnswerError: it is not exactly a box, a coordinate exceeds 100, or the box has no area.
    """
    entry = _PLACE.fullmatch(text)
    if entry is None:
        raise AnswerError(f"no box of the form {{<x1><y1><x2><y2>}}: {text!r}")
    return _box(entry)


def findings_to_text(findings: Sequence[Finding]) -> str:
    """The answer for `findings`, in their order; every box has its own entry, also where a label repeats."""
    entries = [f"<p>{finding.label}</p> {box_to_text(finding.box)}" for finding in findings]
    return FINDINGS_PREFIX + (",".join(entries) or NO_FINDING) + "."


def diagnoses_to_text(labels: Sequence[str]) -> str:
    """The answer for the diagnoses `labels`, in their order; none reads `No finding`."""
    return DIAGNOSES_PREFIX + (", ".join(labels) or NO_FINDING) + "."


def places_to_text(boxes: Sequence[Sequence[float]]) -> str:
    """The answer for the boxes of a phrase, in their order; none reads `None`."""
    return PLACES_PREFIX + (",".join(map(box_to_text, boxes)) or NO_PLACE) + "."


def sentences_to_text(sentences: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> str:
    """The answer for a report's sentences, each with its boxes, in their order.

    Raises:
        ValueError: a sentence is empty, or has one of the characters that boxes are written with.
    """
    written = []
    for text, boxes in sentences:
        if _SENTENCE.fullmatch(f"<p>{text}</p>") is None:
            raise ValueError(f"The sentence {text!r} cannot stand in an answer: it is empty or has one of < > {{ }}.")
        written.append(f"<p>{text}</p>" + (" " + ",".join(map(box_to_text, boxes)) if boxes else ""))
    return " ".join(written)


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
        findings.append(Finding(entry["label"], _box(entry), entry.span("box")))
        if entry.end() == end:
            return findings
        if text[entry.end()] != ",":
            raise AnswerError(f"neither a comma nor the end after the finding at character {entry.end()}")
        start = entry.end() + 1


def text_to_places(text: str) -> list[Place]:
    """Boxes of an answer about a phrase, empty for `None`.

    Raises:
        AnswerError: the text is not exactly such an answer, a coordinate exceeds 100, or a box has no area.
    """
    start, end = _body(text, PLACES_PREFIX)
    return [] if text[start:end] == NO_PLACE else _places(text, start, end)


def text_to_sentences(text: str) -> list[Sentence]:
    """Sentences of a grounded report, each with its boxes.

    Raises:
        AnswerError: the text is not exactly `<p>sentence</p> {box},{box} <p>sentence</p> ...`.
    """
    sentences, start = [], 0
    while True:
        entry = _SENTENCE.match(text, start)
        if entry is None:
            raise AnswerError(f"no sentence of the form <p>sentence</p> at character {start}")
        places, end = (), entry.end()
        if text.startswith(" {", end):
            last = end + 1
            while last < len(text) and not text.startswith(" <p>", last):
                last += 1
            places, end = tuple(_places(text, end + 1, last)), last
        sentences.append(Sentence(entry["text"], places, entry.span("text")))
        if end == len(text):
            return sentences
        if text[end] != " ":
            raise AnswerError(f"neither a blank nor the end after the sentence at character {end}")
        start = end + 1


def _places(text: str, start: int, end: int) -> list[Place]:
    """The boxes, with commas between them, that the characters from `start` to `end` are."""
    places = []
    while True:
        entry = _PLACE.match(text, start, end)
        if entry is None:
            raise AnswerError(f"no box of the form {{<x1><y1><x2><y2>}} at character {start}")
        places.append(Place(_box(entry), entry.span("box")))
        if entry.end() == end:
            return places
        if text[entry.end()] != ",":
            raise AnswerError(f"neither a comma nor the end after the box at character {entry.end()}")
        start = entry.end() + 1


def _box(entry: re.Match[str]) -> tuple[float, float, float, float]:
    """A box as it is written, xyxy in [0, 1]."""
    x1, y1, x2, y2 = (int(value) for value in entry.group("x1", "y1", "x2", "y2"))
    if max(x1, y1, x2, y2) > 100:
        raise AnswerError(f"a coordinate above 100 in {entry['box']}")
    if x1 >= x2 or y1 >= y2:
        raise AnswerError(f"a box without area: {entry['box']}")
    return x1 / 100, y1 / 100, x2 / 100, y2 / 100


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
