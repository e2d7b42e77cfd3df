"""A report's sentences, and the contrary of each, by rules.

    sentence_spans("The heart is enlarged. No effusion.")    # [(0, 22), (23, 35)]
    negated("There is a small effusion in the left base.")   # "There is no small effusion."
    negated("No pneumothorax is seen.")                      # "Pneumothorax is seen."
    negated("The heart is enlarged.")                        # "The heart is not enlarged."
    negated("The heart is enlarged, and there is no effusion.")  # None: two statements
    contraries("No mass.")                                   # ["There is mass.", "There is a mass."]

The contrary is what the model's belief in a sentence is held against (`sentence_truth.py`). It need not be how a
person would put it, but it has to be said with the same words, so that what differs is the statement. Where a thing is
denied its place is left out: "no effusion in the left base" would leave the other side open. A sentence that ends
"without ..." is held against "with ...". What makes two statements, advises or asks has no contrary.
"""

import re
from collections.abc import Callable

END_MARKS = ".!?"
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][)\"']))\s+(?=\S)")
_NUMBER = re.compile(r"(?:^|\s)(\d{1,2}\.)$")  # "1." of a list is no sentence of its own
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Z]|Drs?|Mrs?|Ms|St|vs|cf|approx|resp|ca|e\.g|i\.e|a\.m|p\.m)\.$")
_HEAD = re.compile(r"(?:\d{1,2}[.)]\s+)?(?:[A-Z][\w/ ]{0,30}:\s+)?")  # "1. ", "Lungs: "
_PLACE = re.compile(
    r",? (?:in|at|over|within|along|involving) (?:the |both |each )?(?:[\w-]+ )*?"
    r"(?:zones?|lobes?|lungs?|bases?|apex|apices|sides?|hemithora(?:x|ces)|hemidiaphragms?|angles?)\b.*$"
)
_BE = r"(?:is|are|was|were)"
_HELPS = rf"(?:{_BE}|may|might|could|can|will|would|should|do|does|did)"
_TELLS = (
    r"appear|remain|seem|look|show|demonstrate|reveal|suggest|indicate|contain|represent|consist|overlie|extend|"
    r"terminate|project|measure"
)
_VERB = rf"(?:{_HELPS}|has|have|(?:{_TELLS})s?)"
_PREDICATE = (
    r"(?:normal|clear|unremarkable|intact|stable|unchanged|enlarged|midline|patent|symmetric(?:al)?|expanded|elevated"
    r"|inflated|limited|present|tortuous|prominent|within normal limits|in (?:good |normal |unchanged )?position|"
    r"in place)"
)

# Nothing that an image shows, or more than one thing: there is no contrary in the same words.
_ADVICE = re.compile(
    r"(?:recommend|consider|correlat|please|suggest|question|follow|clinical correlation|compar|advise)", re.IGNORECASE
)
_JOINED = r"(?:;|,? (?:and|but|while|whereas|although|though))"
_TWO_STATEMENTS = re.compile(
    rf"(?:.*\b{_VERB} |no ).*{_JOINED} (?:[\w'-]+ ){{0,6}}?{_VERB} .*"
    rf"|.+{_JOINED} (?:no|without) .*|(?:\S+ )+\S+, no .*|(?!.*\b{_VERB}\b).+ {_PREDICATE}, .*",
    re.IGNORECASE,
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a text stands: (first character, end), without the blanks between them."""
    spans: list[tuple[int, int]] = []
    start = len(text) - len(text.lstrip())
    for gap in _END.finditer(text):
        so_far = text[start : gap.start()]
        number = _NUMBER.search(so_far)
        if number is not None and number.start(1) == 0 or _ABBREVIATION.search(so_far):
            continue
        if number is not None and so_far[0].isdigit():  # "1. Cardiomegaly 2. Effusion"
            spans.append((start, start + len(so_far[: number.start(1)].rstrip())))
            start += number.start(1)
            continue
        spans.append((start, gap.start()))
        start = gap.end()
    end = len(text.rstrip())
    return [*spans, (start, end)] if start < end else spans


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    """With a small first letter, unless its first word is an abbreviation such as COPD or T-spine."""
    return text if re.match(r".[A-Z0-9-]", text) else text[:1].lower() + text[1:]


def _thing(text: str) -> str:
    """What "there is no ..." denies: without an article or a number, and without its place."""
    few = r"^(?:an?|any|some|the|two|three|several|multiple|\d+) "
    return _PLACE.sub("", re.sub(few, "", text, flags=re.IGNORECASE))


def _is_or_are(thing: str) -> str:
    first = re.split(r",| (?:or|and|of|in|at|on|with|within|without|from|given|identified|seen|noted)\b", thing)[0]
    return "are" if re.search(r"[^su]s$", first) and not first.endswith("sis") else "is"


def _told_not(match: re.Match[str]) -> str:
    return f"{match[1]} {'does' if match[3] else 'do'} not {match[2]} {match[4]}"


def _denied(match: re.Match[str]) -> str:
    thing = _thing(_small(match[1]))
    return f"There {_is_or_are(thing)} no {thing}"


# A pattern, and the contrary of what it matches; the first that matches counts.
RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), contrary)
    for pattern, contrary in (
        (rf"there ({_BE}) (?:no|not) (?:evidence of |signs? of )?(.+)", lambda m: f"There {m[1]} {m[2]}"),
        (rf"no (?:evidence of )?((?!longer).+ {_VERB} .+)", lambda m: _capital(m[1])),
        (
            r"(?:\w+, )?(?:no|absent) (?:evidence of |signs? of )?(.+)",
            lambda m: f"There {_is_or_are(m[1])} {m[1]}",
        ),
        (rf"there ({_BE}) (.+)", lambda m: f"There {m[1]} no {_thing(m[2])}"),
        (r"(.+?\bcan)not (.+)", lambda m: f"{m[1]} {m[2]}"),
        (rf"(.*?\b(?:{_HELPS}|has|have)) not (.+)", lambda m: f"{m[1]} {m[2]}"),
        (rf"(.*?\b(?:{_VERB}|with)) no (?:longer |evidence of |signs? of )?(.+)", lambda m: f"{m[1]} {m[2]}"),
        (r"(.+(?<! is)(?<! are)(?<! was)(?<! were)) without (.+)", lambda m: f"{m[1]} with {m[2]}"),
        (r"without (.+)", lambda m: f"With {m[1]}"),
        (r"negative (.+)", lambda m: f"Positive {m[1]}"),
        (rf"(.*\b(?:noted|seen|present|identified|demonstrated) {_BE}) (.+)", lambda m: f"{m[1]} no {_thing(m[2])}"),
        (r"((?:(?!\b(?:which|that)\b).)+? (?:has|have)) (been|\w+ed|not) (.*)", lambda m: f"{m[1]} not {m[2]} {m[3]}"),
        (r"((?:(?!\b(?:which|that)\b).)+? (?:has|have)) (\w+ed)", lambda m: f"{m[1]} not {m[2]}"),
        (rf"((?:(?!\b(?:which|that|has|have|{_TELLS})s?\b).)+? {_HELPS}) (.+)", lambda m: f"{m[1]} not {m[2]}"),
        (rf"((?:(?!\b(?:which|that|has|have)\b).)+?) ({_TELLS})(s?) (.+)", _told_not),
        (r"((?:(?!\b(?:which|that)\b).)+? (?:has|have)) (.+)", lambda m: f"{m[1]} no {_thing(m[2])}"),
        (rf"(\w.*?) ({_PREDICATE}(?: (?:in|for|bilaterally|and)\b.*)?)", lambda m: f"{m[1]} not {m[2]}"),
        (rf"({_PREDICATE}(?: bilaterally)?)", lambda m: f"Not {_small(m[1])}"),
        (r"(.+) of normal (.+)", lambda m: f"{m[1]} of abnormal {m[2]}"),
        (r"normal (.+)", lambda m: f"Abnormal {m[1]}"),
        (r"unremarkable (.+)", lambda m: f"Remarkable {m[1]}"),
        (r"(\w.*)", _denied),
    )
)


def negated(sentence: str) -> str | None:
    """The contrary of a sentence; None where it has no word, makes two statements or none about the image."""
    sentence = sentence.strip()
    head = _HEAD.match(sentence)[0]
    body = sentence[len(head) :].rstrip(END_MARKS).rstrip()
    if sentence.endswith("?") or _ADVICE.match(body) or _TWO_STATEMENTS.fullmatch(body):
        return None
    for pattern, contrary in RULES:
        match = pattern.fullmatch(body)
        if match is not None:
            return head + contrary(match) + sentence[len(head) + len(body) :]
    return None


def contraries(sentence: str) -> list[str]:
    """All forms of a sentence's contrary: what "no" denies is also said with an article. None, where it has none."""
    contrary = negated(sentence)
    if contrary is None:
        return []
    if bare := re.fullmatch(r"(.*\bThere (?:is|was) )(?!(?:an?|any|some|the|no) )(.+)", contrary):
        return [contrary, f"{bare[1]}{_article(bare[2])} {bare[2]}"]
    if sentence.lower().startswith("no ") and re.match(r"[\w -]+ (?:is|was|has) ", contrary):
        return [contrary, f"{_capital(_article(contrary))} {_small(contrary)}"]
    return [contrary]


def _article(thing: str) -> str:
    return "an" if thing[:1].lower() in tuple("aeiou") else "a"
