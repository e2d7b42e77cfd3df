"""Findings that an answer leaves out: each with the exact probability of standing there, and the box it would have.

    inserted_findings(model, grammar, (cache, attention_mask), [findings], Insertion(0.02))
    # [[InsertedFinding("ILD", place=1, box=(.1, .3, .4, .8), probabilities=...)], ...], a list a prompt

A greedy answer names what is likelier than not. At each of its places, before, between and behind its findings, the
model also says how likely any other label is to come next; that is read from one pass over the answers (a tree, as
labels take several tokens), and the boxes of those that are likely enough are then decoded together, all behind the
prompt and the answer that were read once. With box order "label" a label has its place between those before and
behind it, and an answer that passes it over there will not name it any more; so the probability that L stands there is

    P(L next) / (P(L next) + P(a later label next) + P(the answer ends))

given the findings before it, whatever the order in which one asks; by position any label may still follow, and it is
P(L next). P are products over tokens, each among those that the grammar allows there, with the findings before as they
are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from .answer_automaton import State
from .answer_grammar import AnswerGrammar
from .answers import Finding
from .box_scores import BoxProbabilities, InsertedFinding, coordinate_values
from .findings_language import GRID, FindingsLanguage, on_grid
from .tasks import FINDINGS
from .token_tree import ROOT, TokenTree, TreeReader

ANY_ROOM = 1 << 30  # a box is written wherever it stands


class Insertion(NamedTuple):
    """Which findings are looked for beside an answer's.

    Attributes:
        least: probability from which on a box is decoded.
        box_order: in which answers name findings, as the model was trained: "label" or "position".
    """

    least: float
    box_order: str = "label"


@torch.no_grad()
def inserted_findings(
    model: PreTrainedModel,
    grammar: AnswerGrammar,
    prompts: tuple[DynamicCache, torch.Tensor],
    answers: Sequence[Sequence[Finding]],
    insertion: Insertion,
) -> list[list[InsertedFinding]]:
    """For each prompt the findings that could stand in its answer beside those that it names.

    Args:
        prompts: their cache, which grows, and their attention mask (rows, prompt tokens), 0 where a prompt is padded.
        answers: for each prompt what its answer names, in the answer's order.
        insertion: which ones.

    Returns:
        The same label may stand at several places; boxes may overlap those of the answer, or one another.
    """
    language = grammar.languages[FINDINGS.name]
    trees = [TokenTree() for _ in answers]
    reader = TreeReader(model, *prompts)
    places = [_places(language, tree, findings) for tree, findings in zip(trees, answers, strict=True)]
    logits = reader.read(trees)
    openings: list[list[_Opening]] = []
    for row, (findings, of_row) in enumerate(zip(answers, places, strict=True)):
        openings.append([])
        for place, (continuations, after, nodes) in enumerate(of_row):
            following = continuations.probabilities(logits[row, nodes].float())
            probabilities = standing(following, insertion.box_order)
            may_stand = labels_between(language.labels, findings, place, insertion.box_order)
            for label, probability in zip(language.labels, probabilities, strict=True):
                if probability >= insertion.least and label in may_stand:
                    tokens = continuations.tokens[label]
                    openings[-1].append(_Opening(label, place, probability, grammar, after, tokens))
    rows = [row for row, of_row in enumerate(openings) if of_row]
    if rows:
        if len(rows) < len(answers):
            reader.keep(rows)
        _decode(reader, [trees[row] for row in rows], [openings[row] for row in rows])
    return [[opening.inserted() for opening in of_row] for of_row in openings]


def labels_between(labels: Sequence[str], findings: Sequence[Finding], place: int, box_order: str) -> set[str]:
    """The labels that may be inserted at a place; a label twice is two boxes of it.

    By label those from the finding before to the one behind, without that one's: a label that comes next anyway is
    inserted behind it. By position all but the one that comes next.
    """
    behind = findings[place].label if place < len(findings) else None
    if box_order == "position":
        return set(labels) - {behind}
    first = labels.index(findings[place - 1].label) if place else 0
    return set(labels[first : labels.index(behind) if behind is not None else None])


def standing(following: np.ndarray, box_order: str) -> np.ndarray:
    """(labels,): the probability that each label stands at a place.

    Args:
        following: (labels + 1,) the probability that each label, in the answers' order, comes next, or the end.
    """
    if box_order == "position":
        return following[:-1]
    return following[:-1] / np.maximum(following[::-1].cumsum()[::-1][:-1], 1e-12)


# --- What may come next ----------------------------------------------------------------------------------------------


class _Continuations(NamedTuple):
    """The ways to go on at a place, as a trie: what to read of it, and the choices that make each.

    tokens: by label, those up to its box; None: those of the answer's end.
    read: beginnings that have several continuations, the first is the place itself where that has.
    choices: (beginnings, most choices) ids, filled up with -1.
    paths: (labels + 1, longest path) choices that make each, as flat indices; one past all choices is certain.
    """

    tokens: dict[str | None, tuple[int, ...]]
    read: list[tuple[int, ...]]
    choices: torch.Tensor
    paths: torch.Tensor

    def probabilities(self, logits: torch.Tensor) -> np.ndarray:
        """(labels + 1,) of (beginnings, vocabulary) logits."""
        choices = self.choices.to(logits.device)
        chosen = logits.gather(1, choices.clamp(min=0)).masked_fill(choices < 0, -torch.inf).log_softmax(dim=-1)
        flat = torch.nn.functional.pad(chosen.flatten(), (0, 1))
        return flat[self.paths.to(logits.device)].sum(dim=-1).exp().cpu().numpy()


@lru_cache(maxsize=512)
def _continuations(language: FindingsLanguage, y2: int | None) -> _Continuations:
    tokens = language.continuations(y2)
    following: dict[tuple[int, ...], list[int]] = {}
    for path in tokens.values():
        for length, token in enumerate(path):
            choices = following.setdefault(path[:length], [])
            if token not in choices:
                choices.append(token)
    read = [beginning for beginning, choices in following.items() if len(choices) > 1]
    most = max(len(following[beginning]) for beginning in read)
    certain = len(read) * most
    paths = [
        [
            number * most + following[beginning].index(path[len(beginning)])
            for number, beginning in enumerate(read)
            if len(beginning) < len(path) and path[: len(beginning)] == beginning
        ]
        for path in tokens.values()
    ]
    longest = max(map(len, paths))
    return _Continuations(
        tokens,
        read,
        torch.tensor([following[beginning] + [-1] * (most - len(following[beginning])) for beginning in read]),
        torch.tensor([path + [certain] * (longest - len(path)) for path in paths]),
    )


def _places(
    language: FindingsLanguage, tree: TokenTree, findings: Sequence[Finding]
) -> list[tuple[_Continuations, int, list[int]]]:
    """Adds an answer to a tree; of each of its places what may come next, the token before it, and where to read."""
    places, after = [], ROOT
    for place in range(len(findings) + 1):
        continuations = _continuations(language, on_grid(findings[place - 1].box)[3] if place else None)
        places.append((continuations, after, [tree.extend(beginning, after) for beginning in continuations.read]))
        if place < len(findings):
            after = tree.extend(continuations.tokens[findings[place].label], after)
            after = tree.extend(language.box_start(findings[place].box), after)
    return places


# --- Boxes -----------------------------------------------------------------------------------------------------------


@dataclass
class _Opening:
    """A label that is likely enough at a place, and its box as far as it is written.

    Attributes:
        after: the number of the last of its tokens in its row's tree.
        pending: tokens behind it that are yet to be read.
        coordinates: of each one the tokens that write it: (allowed ids, their probabilities, the one that is written).
    """

    label: str
    place: int
    probability: float
    grammar: AnswerGrammar
    after: int
    pending: tuple[int, ...]
    state: State = field(init=False)
    coordinates: list[list[tuple[list[int], list[float], int]]] = field(default_factory=lambda: [[]])

    def __post_init__(self):
        self.state = State(self.grammar.languages[FINDINGS.name].after_label)

    @property
    def is_written(self) -> bool:
        return len(self.coordinates) > 4

    def take(self, logits: torch.Tensor) -> None:
        """Writes the model's choice and what is certain behind it; `logits`: (vocabulary,) after the last token."""
        allowed = self.grammar.allowed[self.state.node]
        probabilities = logits[allowed].float().softmax(dim=-1)
        self._write(allowed, probabilities.tolist(), allowed[int(probabilities.argmax())])
        while not self.is_written and len(self.grammar.allowed[self.state.node]) == 1:
            self._write(self.grammar.allowed[self.state.node], [1.0], self.grammar.allowed[self.state.node][0])

    def _write(self, allowed: list[int], probabilities: list[float], token: int) -> None:
        self.coordinates[-1].append((allowed, probabilities, token))
        if self.grammar.completes_part(self.state, token):
            self.coordinates.append([])
        self.state = self.grammar.advance(self.state, token, ANY_ROOM)
        self.pending = (*self.pending, token)

    def inserted(self) -> InsertedFinding:
        """The finding, once its box is written."""
        box, coordinates = [], []
        for written in self.coordinates[:4]:
            texts, considered = [], []
            for allowed, probabilities, token in written:
                texts.append(_text(self.grammar, token))
                others: dict[str, float] = {}
                for other, probability in zip(allowed, probabilities, strict=True):
                    text = _text(self.grammar, other)
                    others[text] = others.get(text, 0.0) + probability
                considered.append(others)
            box.append(int("".join(character for character in "".join(texts) if character.isdigit())) / GRID)
            coordinates.append(coordinate_values(texts, considered))
        probabilities = BoxProbabilities(float(self.probability), 1.0, np.stack(coordinates))
        return InsertedFinding(self.label, self.place, tuple(box), probabilities)


def _decode(reader: TreeReader, trees: Sequence[TokenTree], openings: Sequence[Sequence[_Opening]]) -> None:
    """Writes the greedy boxes behind all openings, a token of each a pass."""
    while any(not opening.is_written for of_row in openings for opening in of_row):
        starts = [len(tree.tokens) for tree in trees]
        for tree, of_row in zip(trees, openings, strict=True):
            for opening in of_row:
                if not opening.is_written:
                    opening.after, opening.pending = tree.extend(opening.pending, opening.after), ()
        logits = reader.read(trees)
        for row, of_row in enumerate(openings):
            for opening in of_row:
                if not opening.is_written:
                    opening.take(logits[row, opening.after - starts[row]])


@lru_cache(maxsize=1 << 16)
def _text(grammar: AnswerGrammar, token: int) -> str:
    return grammar.tokenizer.backend_tokenizer.decode([token])
