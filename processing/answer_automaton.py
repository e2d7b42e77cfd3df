"""An automaton over a tokenizer's tokens, made of the parts that answers consist of.

In: a tokenizer; sample answers, cut into `Piece`s. Out: the tokens that write each piece (`Automaton.units`), and
nodes from which the tokens of alternative pieces lead to their leaves (`Automaton.node`). What the parts are, and
what may follow which, a language says: `findings_language.py`, `diagnoses_language.py`.

    units = automaton.units([[Piece("open", None, "There is "), Piece("label", "ILD", "ILD.")], ...], order=())
    number = automaton.node([(units["open", None] + units["label", "ILD"], Leaf(language, "end", None)), ...])
    automaton.following[number]  # {token: the next node, or a leaf}

Only *canonical* tokens are allowed: those with which the tokenizer writes a training answer. So a stretch of text that
is certain has one tokenisation, and the model meets no sequence of tokens that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER_MARK = "[/INST]"  # after it a chat has a space and the answer
TOKENIZER_UNFIT = "Constrained decoding does not work with this tokenizer"

Units = dict[tuple[str, object], tuple[int, ...]]  # (slot, value) -> the tokens that write it
Order = Sequence[tuple[Sequence[str], Sequence[str]]]  # slots, and those that stand after them


class State(NamedTuple):
    """Where an answer stands: a node of the automaton, and the corner of the box that is being written."""

    node: int
    x1: int = 0
    y1: int = 0


class Leaf(NamedTuple):
    """What an alternative completes: a slot of its language, and the value written there."""

    language: Any
    slot: str
    value: int | None


class Piece(NamedTuple):
    """A part of an answer; of its last `gap` characters some may belong to the next part's tokens."""

    slot: str
    value: object
    text: str
    gap: int = 0

    @property
    def kind(self) -> str:
        return self.slot.replace("first", "next")


class Automaton:
    """Nodes, shared where they are equal, and what may follow each.

    Args:
        tokenizer: a fast one, for where its tokens begin and end.

    Attributes:
        following: for each node {token: the next node, or a `Leaf`}.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.following: list[dict[int, int | Leaf]] = []
        self._numbers: dict[tuple[tuple[tuple[int, ...], Leaf], ...], int] = {}

    def node(self, alternatives: Iterable[tuple[tuple[int, ...], Leaf]]) -> int:
        """The number of the node from which each alternative's tokens lead to its leaf.

        Raises:
            ValueError: the tokens of one alternative begin those of another.
        """
        alternatives = tuple(alternatives)
        if alternatives in self._numbers:
            return self._numbers[alternatives]
        by_token: dict[int, list[tuple[tuple[int, ...], Leaf]]] = {}
        for tokens, leaf in alternatives:
            by_token.setdefault(tokens[0], []).append((tokens[1:], leaf))
        children: dict[int, int | Leaf] = {}
        for token, rests in by_token.items():
            if all(rest for rest, _ in rests):
                children[token] = self.node(rests)
            elif len(rests) == 1:
                children[token] = rests[0][1]
            else:
                raise ValueError(f"{TOKENIZER_UNFIT}: the tokens of one part begin another one.")
        self._numbers[alternatives] = len(self.following)
        self.following.append(children)
        return self._numbers[alternatives]

    def units(self, samples: list[list[Piece]], order: Order) -> Units:
        """The tokens of each part of an answer, as the tokenizer writes them in whole answers.

        Two parts meet at the last place between them where the tokenizer always begins a new token: Llama 2 writes
        `><` as one token, so a coordinate ends after `<` there, and before it where `<38>` is one token. Where all
        parts that may follow begin with the same tokens, those are moved to the part before (`order`).

        Raises:
            ValueError: the tokenizer does not write the parts each by itself.
        """
        encoded = [self._encode(pieces) for pieces in samples]
        # For each kind of piece: how many of its last characters belong to the next one.
        overlaps: dict[str, set[int]] = {}
        for (_, places), pieces in zip(encoded, samples, strict=True):
            end = 0
            for piece in pieces:
                end += len(piece.text)
                possible = {n for n in range(piece.gap + 1) if end - n in places}
                overlaps[piece.kind] = overlaps.get(piece.kind, possible) & possible
        for kind, possible in overlaps.items():
            if not possible:
                raise ValueError(f"{TOKENIZER_UNFIT}: its tokens cross the end of {kind}.")

        units: Units = {}
        for (ids, places), pieces in zip(encoded, samples, strict=True):
            begin = end = 0
            for piece in pieces:
                end += len(piece.text)
                cut = places[end - min(overlaps[piece.kind])]
                unit = tuple(ids[begin:cut])
                if units.setdefault((piece.slot, piece.value), unit) != unit:
                    raise ValueError(f"{TOKENIZER_UNFIT}: it has two ways to write {piece.text!r}.")
                begin = cut
        for slots, following in order:
            _move_common_start(units, slots, following)
        return units

    def _encode(self, pieces: list[Piece]) -> tuple[list[int], dict[int, int]]:
        """The tokens of an answer as a chat has them; character -> the token that starts there."""
        answer = "".join(piece.text for piece in pieces)
        ids, starts = answer_tokens(self.tokenizer, answer)
        places = {len(answer): len(ids)}
        for number, start in enumerate(starts):
            places.setdefault(start, number)  # of the bytes of a character, which all start where it does, the first
        return ids, places


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answer: str) -> tuple[list[int], list[int]]:
    """The tokens of an answer as a chat has them, and the character of the answer at which each starts.

    A chat writes an answer after `[/INST]` and a space, which belongs to the first token: `▁Local` in Llama 2's
    tokens, `ĠLocal` in those of a byte-level tokenizer. So do the chat template, training and the grammar.

    Raises:
        ValueError: the tokenizer writes the end of `[/INST]` and the answer as one token.
    """
    encoding = tokenizer(f"{ANSWER_MARK} {answer}", add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    first = sum(start < len(ANSWER_MARK) for start, _ in offsets)
    if max((end for _, end in offsets[:first]), default=0) > len(ANSWER_MARK):
        raise ValueError(f"{TOKENIZER_UNFIT}: its tokens cross the end of {ANSWER_MARK}.")
    starts = [max(0, start - len(f"{ANSWER_MARK} ")) for start, _ in offsets[first:]]
    return encoding["input_ids"][first:], starts


def _move_common_start(units: Units, slots: Sequence[str], following: Sequence[str]) -> None:
    """Moves the tokens with which all units of the `following` slots begin to the end of those of `slots`.

    Where the tokenizer writes `>},<` as one token, y2 is its digits alone, so the tokens of 7 begin those of 74. With
    this they end where the next part begins to differ, and no unit begins another one.
    """
    after = [unit for (slot, _), unit in units.items() if slot in following]
    common = 0
    # A unit keeps a token of its own.
    for tokens in zip(*(unit[:-1] for unit in after), strict=False):
        if len(set(tokens)) > 1:
            break
        common += 1
    start = after[0][:common]
    for (slot, value), unit in units.items():
        if slot in following:
            unit = unit[common:]
        if slot in slots:
            unit = unit + start
        units[slot, value] = unit
