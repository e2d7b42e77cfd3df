"""An answer as a person reads it, line by line: words, findings and diagnoses, and what speaks against them.

    for said in in_words(line):
        print(said.text)
    # "enlarged heart": seen, probability 0.97; at 389 532 829 758 (0.87)
    # "pneumothorax": not seen, probability of it 0.03
    # Is there a fracture? -> No. (unverified)
    # Report, free text that nobody has verified:
    #   0.91  There is cardiomegaly.
    #   0.31  There is a left pleural effusion. [doubtful]

In: what the `chest-xray-findings` pipeline returns, or a line of a predictions file; boxes in pixels. Out: lines, each
with what it is, for terminals and for the words below a picture (`overlay.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

UNVERIFIED = "free text that nobody has verified"
REPORTS = {"report": "Report", "grounded_report": "Report with boxes"}  # an output's key -> what it is called


class Said(NamedTuple):
    """A line.

    Attributes:
        text: in plain words.
        is_caution: whether it speaks against the answer, or is doubtful itself.
        of: the phrase or sentence whose boxes it tells of; None: it tells of none.
    """

    text: str
    is_caution: bool = False
    of: str | None = None


def in_words(output: Mapping[str, Any]) -> Iterator[Said]:
    """All that an answer says."""
    yield from malformed_in_words(output)
    yield from words_in_words(output)
    if output["findings"]:
        yield Said("Findings: " + "; ".join(_box_in_words(item, item["label"]) for item in output["findings"]))
    elif "identify" in output["answers"] and not output["malformed"]["identify"]:
        yield Said("No finding is named.")
    if output["diagnoses"]:
        named = (f"{item['label']}{_number(item['score'], ' {:.2f}')}" for item in output["diagnoses"])
        yield Said("Diagnoses: " + ", ".join(named))
    for warning in output.get("warnings", ()):
        yield Said(f"Warning: {warning}", is_caution=True)
    if output.get("caution"):
        yield Said(f"Caution: {output['caution']}", is_caution=True)


def malformed_in_words(output: Mapping[str, Any]) -> Iterator[Said]:
    """The answers that were not understood."""
    for question, reason in output["malformed"].items():
        if reason:
            yield Said(f"Answer not understood: {question}: {reason}", is_caution=True)


def words_in_words(output: Mapping[str, Any], with_boxes: bool = True) -> Iterator[Said]:
    """What was asked in words: phrases, boxes, questions, reports.

    Args:
        with_boxes: say where boxes lie; otherwise they are drawn.
    """
    for item in output.get("phrases", ()):
        yield Said(_phrase_in_words(item, with_boxes), of=item["phrase"])
    for item in output.get("descriptions", ()):
        yield Said(f"In the box {_sides(item['box'])}: {item['text']}{_unless_verified(item)}")
    for item in output.get("replies", ()):
        yield Said(f"{item['question']} -> {item['text']}{_unless_verified(item)}")
    for key, name in REPORTS.items():
        if output.get(key):
            yield Said(f"{name}, {UNVERIFIED}:", is_caution=True)
        for item in output.get(key, ()):
            probability = _number(item["probability"], "{:.2f}  ")
            boxes = _boxes_in_words(item.get("boxes", ())) if with_boxes else ""
            doubt = " [doubtful]" if item["doubtful"] else ""
            yield Said(f"  {probability}{item['text']}{boxes}{doubt}", bool(item["doubtful"]), item["text"])


def _phrase_in_words(item: Mapping[str, Any], with_boxes: bool) -> str:
    present = item["present"]
    if not item["boxes"]:
        return f'"{item["phrase"]}": not seen{_number(present, ", probability of it {:.2f}")}'
    boxes = _boxes_in_words(item["boxes"]) if with_boxes else ""
    return f'"{item["phrase"]}": seen{_number(present, ", probability {:.2f}")}{boxes}'


def _boxes_in_words(boxes: Any) -> str:
    return "; at " + ", ".join(_box_in_words(box) for box in boxes) if boxes else ""


def _box_in_words(item: Mapping[str, Any], name: str = "") -> str:
    """`Cardiomegaly at 389 532 829 758 (0.87)`"""
    return (f"{name} at " if name else "") + _sides(item["box"]) + _number(item["score"], " ({:.2f})")


def _sides(box: Mapping[str, float]) -> str:
    return " ".join(f"{box[side]:g}" for side in ("xmin", "ymin", "xmax", "ymax"))


def _number(value: float | None, words: str) -> str:
    return "" if value is None else words.format(value)


def _unless_verified(item: Mapping[str, Any]) -> str:
    return "" if item["verified"] else " (unverified)"
