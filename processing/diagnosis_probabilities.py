"""Probability of each diagnosis over all answers that a checkpoint may give, not only the one that it gives.

    P(label) = sum of P(answer) over the answers that name the label
    P(answer) = product over its tokens of the softmax over the tokens that the grammar allows there

The answers share their beginnings: they form a trie of tokens. Its tokens are fed in one forward pass after the
prompt, each of them seeing the prompt and what stands before it in its own answers (`token_tree.py`).
"""

import copy
import functools
from typing import NamedTuple

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from .answer_automaton import State
from .answer_grammar import AnswerGrammar
from .answers import text_to_diagnoses
from .tasks import DIAGNOSES
from .token_tree import read_tree

MAX_TOKENS = 1024  # fed for one prompt


@torch.no_grad()
def diagnosis_probabilities(
    model: PreTrainedModel,
    grammar: AnswerGrammar,
    cache: DynamicCache,
    attention_mask: torch.Tensor,
    next_logits: torch.Tensor,
) -> torch.Tensor:
    """The marginal probabilities of the diagnoses, right after [vqa] prompts.

    They are exact where the trie of all answers has at most `MAX_TOKENS` tokens, as with VinDr-CXR's 32 answers. With
    more labels it is cut: answers are followed up to the largest number of labels at which it fits (for ChestX-ray14's
    16,385 answers: three). A label that comes later in an answer is then not counted, so a probability is too small by
    at most the probability that an answer names more labels than that. No finding is always exact.

    Args:
        cache: keys and values of the prompts. It is not changed.
        attention_mask: (rows, prompt tokens), 0 where a prompt is padded.
        next_logits: (rows, vocabulary), of each answer's first token.

    Returns:
        (rows, labels) float32, the labels in the order of `grammar.diagnosis_labels`.
    """
    trie, device = _trie(grammar), next_logits.device
    rows = len(attention_mask)
    continued = copy.copy(cache)  # a dynamic layer replaces its tensors when it grows, those of `cache` stay
    continued.layers = [copy.copy(layer) for layer in cache.layers]
    read = read_tree(
        model,
        continued,
        attention_mask.to(device),
        trie.tokens.expand(rows, -1),
        trie.depths.expand(rows, -1),
        trie.sees.expand(rows, -1, -1),
        trie.branching.to(device),
    )
    logits = torch.cat([next_logits[:, None].float(), read.to(device).float()], dim=1)
    choices = trie.choices.to(device).expand(rows, -1, -1)
    logits = logits.gather(2, choices.clamp(min=0)).masked_fill(choices < 0, -torch.inf)
    # After the choices of all branchings, one that is certain fills up the paths of shorter answers.
    log_probabilities = torch.nn.functional.pad(logits.log_softmax(dim=-1).flatten(1), (0, 1))
    answers = log_probabilities[:, trie.paths.to(device)].sum(dim=-1).exp()
    return (answers[:, :, None] * trie.names.to(device)).sum(dim=1)


class _Trie(NamedTuple):
    """The tokens to feed, parents first, and the choices that make an answer.

    A branching is a place where several tokens may follow which lead to different labels: number 0 is the end of the
    prompt, number i + 1 the token `branching[i]`.
    """

    tokens: torch.Tensor  # (tokens,) ids
    depths: torch.Tensor  # (tokens,) how many tokens of the answer stand before each
    sees: torch.Tensor  # (tokens, tokens) bool: of which a token sees which: itself and those before it
    branching: torch.Tensor  # (branchings - 1,) indices of tokens
    choices: torch.Tensor  # (branchings, most choices) ids that may follow, filled up with -1
    paths: torch.Tensor  # (answers, longest path) choices that make an answer, as flat indices of `choices`
    names: torch.Tensor  # (answers, labels) 1.0 where an answer names a label


_Branches = dict[int, "_Branches | frozenset[str]"]  # token -> what follows, or the labels where they are certain


@functools.lru_cache(maxsize=4)
def _trie(grammar: AnswerGrammar) -> _Trie:
    trie, start = None, State(grammar.languages[DIAGNOSES.name].start)
    for size in range(1, len(grammar.diagnosis_labels) + 1):
        larger = _flat(_branches(grammar, start, (), size), grammar.diagnosis_labels)
        if trie is not None and (len(larger.tokens) > MAX_TOKENS or len(larger.names) == len(trie.names)):
            break
        trie = larger
    return trie


def _branches(
    grammar: AnswerGrammar, state: State, tokens: tuple[int, ...], size: int
) -> "_Branches | frozenset[str]":
    """What may follow `tokens`, told apart by at most `size` labels; or the labels, if all answers name the same."""
    text = grammar.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    cut = text.endswith(",") and text.count(",") == size
    if cut or state == grammar.END:
        labels = text_to_diagnoses(text.removesuffix(",") + "." if cut else text, grammar.diagnosis_labels)
        return frozenset(diagnosis.label for diagnosis in labels)
    following = {
        token: _branches(grammar, grammar.advance(state, token, room=MAX_TOKENS), (*tokens, token), size)
        for token in grammar.allowed[state.node]
    }
    first, *others = following.values()
    return first if isinstance(first, frozenset) and all(other == first for other in others) else following


def _flat(branches: _Branches, labels: list[str]) -> _Trie:
    tokens, ancestors, branching, choices, answers = [], [], [], [], []

    def add(branches: _Branches, lineage: tuple[int, ...], path: tuple[tuple[int, int], ...]) -> None:
        if len(branches) > 1 or not lineage:
            branching.extend(lineage[-1:])
            choices.append(list(branches))
        number = len(choices) - 1
        for choice, (token, following) in enumerate(branches.items()):
            longer = (*path, (number, choice)) if len(branches) > 1 else path
            if isinstance(following, frozenset):
                answers.append((longer, following))
            else:
                tokens.append(token)
                ancestors.append(lineage)
                add(following, (*lineage, len(tokens) - 1), longer)

    add(branches, (), ())
    sees = torch.eye(len(tokens), dtype=torch.bool)
    for token, lineage in enumerate(ancestors):
        sees[token, list(lineage)] = True
    most, longest = max(map(len, choices)), max(len(path) for path, _ in answers)
    certain = len(choices) * most
    paths = [[number * most + choice for number, choice in path] for path, _ in answers]
    return _Trie(
        tokens=torch.tensor(tokens),
        depths=torch.tensor([len(lineage) for lineage in ancestors]),
        sees=sees,
        branching=torch.tensor(branching),
        choices=torch.tensor([ids + [-1] * (most - len(ids)) for ids in choices]),
        paths=torch.tensor([path + [certain] * (longest - len(path)) for path in paths]),
        names=torch.tensor([[float(label in named) for label in labels] for _, named in answers]),
    )
