"""The reward of an answer's form: 1 where it is in the answer language, 0 where it cannot be parsed.

In: answers as TRL hands them to a reward function. Out: 0 or 1 an answer.

    answer_format([[{"role": "assistant", "content": "The lungs are clear."}]], [["ILD"]])   # [0.0]

Sampled answers of `grpo.py` are constrained to the language, so that they all earn 1: a reward below it says that
something is broken.
"""

from collections.abc import Sequence
from typing import Any

from litegpt.processing.answers import AnswerError, text_to_findings


def answer_format(
    completions: Sequence[Sequence[dict[str, str]]], finding_labels: Sequence[Sequence[str]], **kwargs: Any
) -> list[float]:
    """Whether each answer parses, 1 or 0.

    Args:
        completions: conversations of one turn, the answer.
        finding_labels: that an answer may name.
        kwargs: what else TRL hands over.
    """
    rewards = []
    for completion, labels in zip(completions, finding_labels, strict=True):
        try:
            text_to_findings(completion[0]["content"].strip(), labels)
        except AnswerError:
            rewards.append(0.0)
        else:
            rewards.append(1.0)
    return rewards
