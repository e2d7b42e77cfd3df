"""A report's sentences, and the contrary of each, by rules.

    sentence_spans("The heart is enlarged. No effusion.")    # [(0, 22), (23, 35)]
    negated("There is a small effusion in the left base.")   # "There is no small effusion."
    negated("No pneumothorax is seen.")                      # "Pneumothorax is seen."
    negated("The heart is enlarged.")                        # "The heart is not enlarged."

The contrary is what the model's belief in a sentence is held against (`sentence_truth.py`). It need not be how a
person would put it, but it has to be said with the same words, so that what differs is the statement. Where a thing is
denied its place is left out: "no effusion in the left base" would leave the other side open.
"""

import re
from collections.abc import Callable

_END = re.compile(r"(?<=[.!?])\s+(?=\S)")
_NUMBERED = re.compile(r"(?:^|\s)\d{1,2}\.$")  # "1." of a list is no sentence of its own
_PLACE = re.compile(
    r",? (?:in|at|of|on|over|within|along|involving) (?:the |both |each )?(?:\w+ )*?"
    r"(?:zones?|lobes?|lungs?|bases?|apex|apices|sides?|hemithora(?:x|ces)|hemidiaphragms?|angles?)\b.*$"
)
_BE = r"(?:is|are|was|were)"


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a text stands: (first character, end), without the blanks between them."""
    spans: list[tuple[int, int]] = []
    start = len(text) - len(text.lstrip())
    for gap in _END.finditer(text):
        if not _NUMBERED.search(text[start : gap.start()]):
            spans.append((start, gap.start()))
            start = gap.end()
    end = len(text.rstrip())
    return [*spans, (start, end)] if start < end else spans


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    """With a small first letter, unless its first word is an abbreviation such as COPD."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _thing(text: str) -> str:
    """What "there is no ..." denies: without an article, and without its place."""
    return _PLACE.sub("", re.sub(r"^(?:an?|any|some|the) ", "", text, flags=re.IGNORECASE))


# A pattern, and the contrary of what it matches; the first that matches counts.
RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), contrary)
    for pattern, contrary in (
        (rf"there ({_BE}) no (?:evidence of |sign of )?(.+)", lambda m: f"There {m[1]} {m[2]}"),
        (rf"no (?:evidence of )?(.+ {_BE} .+)", lambda m: _capital(m[1])),
        (r"no (?:evidence of )?(.+)", lambda m: f"There is {m[1]}"),
        (rf"there ({_BE}) (.+)", lambda m: f"There {m[1]} no {_thing(m[2])}"),
        (rf"(.*?\b(?:{_BE}|has|have|do|does|did|can)) not (.+)", lambda m: f"{m[1]} {m[2]}"),
        (r"(.+) without (.+)", lambda m: f"{m[1]} with {m[2]}"),
        (rf"(.*?\b(?:{_BE}|has been|have been|has|have)) (.+)", lambda m: f"{m[1]} not {m[2]}"),
        (r"(\w.*)", lambda m: f"There is no {_thing(_small(m[1]))}"),
    )
)


def negated(sentence: str) -> str | None:
    """The contrary of a sentence; None where it has no word."""
    body = sentence.strip().rstrip(".!?")
    end = sentence.strip()[len(body) :]
    for pattern, contrary in RULES:
        match = pattern.fullmatch(body)
        if match is not None:
            return contrary(match) + end
    return None
