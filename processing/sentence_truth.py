"""Whether a report's sentences are true of the image: the model's own belief in each, against its contrary.

    sentence_log_odds(model, processor, inputs, ["The heart is enlarged. No effusion."], [[(0, 22), (23, 35)]])
    # [[2.1, 0.4]]: log P(sentence | image, what stands before it) - log P(its contrary | the same)
    probability_of(2.1, processor.sentence_calibration)      # 0.91, calibrated

A report is written word by word, and each word is likely given those before it: that a sentence is there says little
of whether it is true. Its contrary (`report_sentences.negated`) in the same place, behind the same image and the same
sentences, would be written with almost the same words, so what remains of the two probabilities is the statement.
Both are read in one pass over a tree of tokens. The belief is as good as the model: only where it was calibrated on
radiographs whose truth is known is it a probability.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from .report_sentences import negated
from .token_tree import CACHE, ROOT, TokenTree, TreeReader

CALIBRATION = {"slope": 1.0, "intercept": 0.0, "threshold": 0.5}  # of a checkpoint whose belief nobody measured


@torch.no_grad()
def sentence_log_odds(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    inputs: Mapping[str, Any],
    answers: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
) -> list[list[float | None]]:
    """For each answer the log-odds of its sentences against their contraries; None where one has none.

    Args:
        inputs: `input_ids`, `attention_mask` and `mm_encoder_outputs` of the prompts, padded on the left.
        answers: the texts behind them.
        spans: for each where its sentences stand, (first character, end).
    """
    mask = inputs["attention_mask"]
    cache = DynamicCache()
    output = model(
        **{name: inputs[name] for name in ("input_ids", "attention_mask", "mm_encoder_outputs")},
        position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
        **{CACHE: cache},
        use_cache=True,
        logits_to_keep=1,
    )
    trees, pairs = zip(*(_contrasts(processor, *row) for row in zip(answers, spans, strict=True)), strict=True)
    if not any(tree.tokens for tree in trees):
        return [[None] * len(row) for row in spans]
    logits = TreeReader(model, cache, mask).read(trees)
    # The number -1 (ROOT) is the prompt's last token, whose logits stand before those of the tree.
    log_probabilities = torch.cat([output.logits.to(logits.device), logits], dim=1).float().log_softmax(dim=-1)

    def log_probability(row: int, path: Sequence[int]) -> float:
        places = torch.tensor([number + 1 for number in path[:-1]])
        tokens = torch.tensor([trees[row].tokens[number] for number in path[1:]])
        return log_probabilities[row, places, tokens].sum().item()

    return [
        [None if pair is None else log_probability(row, pair[0]) - log_probability(row, pair[1]) for pair in of_row]
        for row, of_row in enumerate(pairs)
    ]


Path = list[int]  # numbers of a tree's tokens, one behind the other, from the last one that two have in common


def _contrasts(
    processor: ProcessorMixin, answer: str, spans: Sequence[tuple[int, int]]
) -> tuple[TokenTree, list[tuple[Path, Path] | None]]:
    """A tree of an answer and its sentences' contraries, and for each sentence where the two part."""
    tree, pairs = TokenTree(), []
    for start, end in spans:
        contrary = negated(answer[start:end])
        if contrary is None or contrary == answer[start:end]:
            pairs.append(None)
            continue
        said, denied = (
            _path(tree, processor.answer_ids(answer[:start] + text)) for text in (answer[start:end], contrary)
        )
        common = next(n for n, (a, b) in enumerate(zip([*said, None], [*denied, None], strict=False)) if a != b)
        pairs.append((said[common - 1 :], denied[common - 1 :]))
    return tree, pairs


def _path(tree: TokenTree, tokens: Sequence[int]) -> Path:
    path = [ROOT]
    for token in tokens:
        path.append(tree.add(token, path[-1]))
    return path


def probability_of(log_odds: float, calibration: Mapping[str, float]) -> float:
    """The probability that a sentence is true: sigmoid(slope * log-odds + intercept).

    Source: Platt scaling (Platt, Probabilistic outputs for support vector machines, 1999).
    """
    logit = calibration["slope"] * log_odds + calibration["intercept"]
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
