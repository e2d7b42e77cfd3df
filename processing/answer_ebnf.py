"""The answers that a checkpoint may give, as EBNF in xgrammar's notation, which vLLM and other servers take.

The language is that of `answer_grammar.py`, in any tokenisation: no label is invented, every box has an area, and
diagnoses stand in the checkpoint's order. A space may stand before the answer, as tokenizers like Llama 2's write one.
"""

import json
from collections.abc import Sequence

from .answers import DIAGNOSES_PREFIX, FINDINGS_PREFIX, NO_FINDING


def findings_ebnf(labels: Sequence[str], max_findings: int | None = None) -> str:
    """The answers about findings.

    That a box has an area takes 140 kB: x1 and y1 both stand before x2, so a rule for each of their 10,000 pairs is
    needed, in any grammar. xgrammar compiles it in less than a second, for all requests together.
    """
    repeats = "*" if max_findings is None else f"{{0,{max_findings - 1}}}"
    finding = f'({_any_of(labels)}) "</p> {{<" box ">}}"'
    rules = [
        f'root ::= " "? {_quoted(FINDINGS_PREFIX)} ({_quoted(NO_FINDING)} | finding ("," finding){repeats}) "."',
        f'finding ::= "<p>" {finding}',
        # box: the x1, then y1 after that x1; x2: above the number, with its `><`; y2: above the number.
        "box::=" + "|".join(f'"{x1}><"y1_{x1}' for x1 in range(100)),
    ]
    for x1 in range(100):
        rules.append(f"y1_{x1}::=" + "|".join(f'"{y1}><"x{x1} y{y1}' for y1 in range(100)))
    for low in range(100):
        rules += [f'x{low}::=y{low}"><"', f"y{low}::={_above(low)}"]
    return "\n".join(rules)


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
