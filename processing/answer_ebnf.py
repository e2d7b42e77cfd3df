"""The answers that a checkpoint may give, as EBNF in xgrammar's notation, which vLLM and other servers take.

The language is that of `answer_grammar.py`, in any tokenisation: no label is invented, every box has an area, and
diagnoses stand in the checkpoint's order. A space may stand before the answer, as tokenizers like Llama 2's write one.
"""

import json
from collections.abc import Sequence

from .answers import DIAGNOSES_PREFIX, FINDINGS_PREFIX, NO_FINDING, NO_PLACE, PLACES_PREFIX


def findings_ebnf(labels: Sequence[str], max_findings: int | None = None) -> str:
    """The answers about findings.

    That a box has an area takes 140 kB: x1 and y1 both stand before x2, so a rule for each of their 10,000 pairs is
    needed, in any grammar. xgrammar compiles it in less than a second, for all requests together.
    """
    finding = f'"<p>" ({_any_of(labels)}) "</p> " box'
    return "\n".join([_list(FINDINGS_PREFIX, NO_FINDING, finding, max_findings), *_box_rules()])


def places_ebnf(max_places: int | None = None) -> str:
    """The answers about a phrase: boxes, or `None`."""
    return "\n".join([_list(PLACES_PREFIX, NO_PLACE, "box", max_places), *_box_rules()])


def sentences_ebnf() -> str:
    """Grounded reports: sentences of any words, not of blanks alone, each with boxes or without."""
    rules = [
        'root ::= " "? sentence (" " sentence)*',
        r'sentence ::= "<p>" [ \t\n\r]* [^<>{} \t\n\r] [^<>{}]* "</p>" (" " box ("," box)*)?',
    ]
    return "\n".join([*rules, *_box_rules()])


def text_ebnf() -> str:
    """Text of any words: without the characters that boxes are written with, which would stand for nothing in it."""
    return "root ::= [^<>{}]+"


def _list(opening: str, nothing: str, entry: str, most: int | None) -> str:
    """The rules of an answer that is a list of entries, or says that there is none."""
    repeats = "*" if most is None else f"{{0,{most - 1}}}"
    entries = f'({_quoted(nothing)} | entry ("," entry){repeats}) "."'
    return f'root ::= " "? {_quoted(opening)} {entries}\nentry ::= {entry}'


def _box_rules() -> list[str]:
    # corners: the x1, then y1 after that x1; x2: above the number, with its `><`; y2: above the number.
    rules = ['box ::= "{<" corners ">}"', "corners::=" + "|".join(f'"{x1}><"y1_{x1}' for x1 in range(100))]
    for x1 in range(100):
        rules.append(f"y1_{x1}::=" + "|".join(f'"{y1}><"x{x1} y{y1}' for y1 in range(100)))
    for low in range(100):
        rules += [f'x{low}::=y{low}"><"', f"y{low}::={_above(low)}"]
    return rules


def diagnoses_ebnf(labels: Sequence[str]) -> str:
    """The answers about diagnoses: some of `labels` in their order, or `No finding` alone where it is one of them."""
    names = [label for label in labels if label != NO_FINDING]
    alternatives = ["from0"] * bool(names) + [f'{_quoted(NO_FINDING)} "."'] * (NO_FINDING in labels)
    rules = [f'root ::= " "? {_quoted(DIAGNOSES_PREFIX)} ({" | ".join(alternatives)})']
    for index, label in enumerate(names):
        if index < len(names) - 1:
            later = f"from{index + 1}"
            rules.append(f'from{index} ::= {_quoted(label)} ("." | ", " {later}) | {later}')
        else:
            rules.append(f'from{index} ::= {_quoted(label)} "."')
    return "\n".join(rules)


def _above(low: int) -> str:
    """The integers from low + 1 to 100."""
    tens, ones = divmod(low, 10)
    parts = ['"100"']
    if ones < 9:
        parts.append((f'"{tens}"' if tens else "") + f"[{ones + 1}-9]")
    if tens < 9:
        parts.append(f"[{tens + 1}-9][0-9]")
    return "|".join(parts)


def _any_of(texts: Sequence[str]) -> str:
    return " | ".join(_quoted(text) for text in texts)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
