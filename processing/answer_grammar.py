"""The answers that a checkpoint may give, as an automaton over tokens: what may follow what was written so far.

Only *canonical* tokens are allowed: those with which the tokenizer writes a training answer. So a stretch of text that
is certain has one tokenisation, and the model meets no sequence of tokens that it was not trained on. (Engines such as
xgrammar accept every tokenisation of a text that their grammar allows.)

    findings:   first -> x1 -> y1 -> x2 -> y2 -> next -> x1 ... until a y2 that ends with a full stop; or No finding.
    diagnoses:  first -> next -> ... in the checkpoint's order of labels; or No finding.

x2 exceeds x1 and y2 exceeds y1, so every box has an area. What `answers.py` parses is what this allows, with one
exception: diagnoses in another order than the checkpoint's, which no training answer has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from .answers import DIAGNOSES_PREFIX, FINDINGS_PREFIX, NO_FINDING

FINDING_TASKS = ("identify", "grounding")
GRID = 100  # coordinates are integers from 0 to GRID

Leaf = tuple[str, int | None]  # (slot, value) that an alternative completes
Units = dict[tuple[str, object], tuple[int, ...]]  # (slot, value) -> the tokens that write it


class State(NamedTuple):
    """Where an answer stands: a node of the automaton, and the corner of the box that is being written."""

    node: int
    x1: int = 0
    y1: int = 0


class AnswerGrammar:
    """Which tokens may follow, in answers to the tasks of a checkpoint.

    Example:
        >>> state = grammar.start("vqa")
        >>> while state != grammar.END:
        ...     token = choose(grammar.allowed[state.node])
        ...     state = grammar.advance(state, token, room=512)

    Args:
        tokenizer: a fast one, for where its tokens begin and end.
        prompts: task -> the prompt after which the answer is written.
        between: what stands between a prompt and its answer.
        finding_labels, diagnosis_labels: of the checkpoint, in the answers' order.

    Attributes:
        allowed: for each node the tokens that may follow, a list of ids.
        longest_finding: tokens that a further finding may take, the end of the answer included.

    Raises:
        ValueError: the tokenizer does not write the parts of an answer each by itself.
    """

    END = State(-1)

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Mapping[str, str],
        between: str,
        finding_labels: Sequence[str],
        diagnosis_labels: Sequence[str],
    ):
        self.finding_labels, self.diagnosis_labels = list(finding_labels), list(diagnosis_labels)
        self.tasks = list(prompts)
        self._tokenizer = tokenizer
        self._next: list[dict[int, int | Leaf]] = []
        self._numbers: dict[frozenset, int] = {}
        context = next(iter(prompts.values())) + between
        if any(task in FINDING_TASKS for task in prompts):
            self._add_findings(self._units(context, len(between), _finding_samples(self.finding_labels)))
        if "vqa" in prompts:
            self._add_diagnoses(self._units(context, len(between), _diagnosis_samples(self.diagnosis_labels)))
        self.allowed = [sorted(children) for children in self._next]

    def start(self, task: str) -> State:
        """The state before the first token of an answer to `task`."""
        return State(self._findings["first"] if task in FINDING_TASKS else self._diagnoses[-1])

    def advance(self, state: State, token: int, room: int) -> State:
        """The state after `token`, one of `allowed[state.node]`; END after the end-of-sequence token.

        Args:
            room: tokens that may still follow it. Where no further finding fits, the answer has to end.
        """
        following = self._next[state.node][token]
        if isinstance(following, int):
            return state._replace(node=following)
        slot, value = following
        if slot == "label":
            return State(self._findings["x1"])
        if slot == "x1":
            return State(self._findings["y1"], x1=value)
        if slot == "y1":
            return State(self._findings["x2", state.x1], state.x1, value)
        if slot == "x2":
            # The tokens of this y2 and of a further finding must fit.
            ends = room < 2 * self.longest_finding
            return State(self._findings["last y2" if ends else "y2", state.y1])
        if slot == "y2":
            return State(self._findings["next"])
        if slot == "diagnosis":
            return State(self._diagnoses[value])
        return self.END

    # --- The automaton -----------------------------------------------------------------------------------------------

    def _add_findings(self, units: Units) -> None:
        eos = (self._tokenizer.eos_token_id,)
        start = units["open", None]
        labels = [(units["first", label], ("label", None)) for label in self.finding_labels]
        nothing = (units["first ends", NO_FINDING] + eos, ("end", None))
        nodes: dict[object, int] = {"first": self._node([(start + u, leaf) for u, leaf in [*labels, nothing]])}
        nodes["next"] = self._node((units["next", label], ("label", None)) for label in self.finding_labels)
        for slot in ("x1", "y1"):
            nodes[slot] = self._node((units[slot, v], (slot, v)) for v in range(GRID))
        for low in range(GRID):
            above = range(low + 1, GRID + 1)
            nodes["x2", low] = self._node((units["x2", v], ("x2", None)) for v in above)
            last = [(units["last y2", v] + eos, ("end", None)) for v in above]
            nodes["last y2", low] = self._node(last)
            nodes["y2", low] = self._node([(units["y2", v], ("y2", None)) for v in above] + last)
        longest = {slot: max(len(unit) for (name, _), unit in units.items() if name == slot) for slot, _ in units}
        self.longest_finding = sum(longest[slot] for slot in ("next", "x1", "y1", "x2", "last y2")) + 1
        self._findings = nodes

    def _add_diagnoses(self, units: Units) -> None:
        """`_diagnoses[i]`: the node after the label number i and its comma; -1: at the beginning."""
        eos = (self._tokenizer.eos_token_id,)
        names = [label for label in self.diagnosis_labels if label != NO_FINDING]
        self._diagnoses = {}
        for last in range(-1, len(names) - 1):
            slot, start = ("next", ()) if last >= 0 else ("first", units["open", None])
            later = names[last + 1 :]
            alternatives = [(units[f"{slot} ends", label] + eos, ("end", None)) for label in later]
            alternatives += [
                (units[slot, label], ("diagnosis", last + 1 + index)) for index, label in enumerate(later[:-1])
            ]
            if last < 0:
                alternatives.append((units["first ends", NO_FINDING] + eos, ("end", None)))
            self._diagnoses[last] = self._node((start + unit, leaf) for unit, leaf in alternatives)

    def _node(self, alternatives: Iterable[tuple[tuple[int, ...], Leaf]]) -> int:
        """The node from which each alternative's tokens lead to its leaf; equal nodes are one."""
        by_token: dict[int, list[tuple[tuple[int, ...], Leaf]]] = {}
        for (token, *rest), leaf in alternatives:
            by_token.setdefault(token, []).append((tuple(rest), leaf))
        children: dict[int, int | Leaf] = {}
        for token, rests in by_token.items():
            if all(rest for rest, _ in rests):
                children[token] = self._node(rests)
            elif len(rests) == 1:
                children[token] = rests[0][1]
            else:
                raise ValueError(f"{_TOKENIZER_UNFIT}: the tokens of one part begin another one.")
        key = frozenset(children.items())
        if key not in self._numbers:
            self._numbers[key] = len(self._next)
            self._next.append(children)
        return self._numbers[key]

    def _units(self, context: str, between: int, samples: list[list["_Piece"]]) -> Units:
        """The tokens of each part of an answer, as the tokenizer writes them in whole answers.

        Two parts meet at the last place between them where the tokenizer always begins a new token: Llama 2 writes
        `><` as one token, so a coordinate ends behind `<` there, and before it where `<38>` is one token.
        """
        encoded = [self._encode(context, between, pieces) for pieces in samples]
        # For each kind of piece: how many of its last characters belong to the next one.
        overlaps: dict[str, set[int]] = {}
        for (_, starts), pieces in zip(encoded, samples, strict=True):
            boundaries, end = set(starts), 0
            for piece in pieces:
                end += len(piece.text)
                possible = {n for n in range(piece.gap + 1) if end - n in boundaries}
                overlaps[piece.kind] = overlaps.get(piece.kind, possible) & possible
        for kind, possible in overlaps.items():
            if not possible:
                raise ValueError(f"{_TOKENIZER_UNFIT}: its tokens cross the end of {kind}.")

        units: Units = {}
        for (ids, starts), pieces in zip(encoded, samples, strict=True):
            begin = end = 0
            for piece in pieces:
                end += len(piece.text)
                cut = starts.index(end - min(overlaps[piece.kind]))
                unit = tuple(ids[begin:cut])
                if units.setdefault((piece.slot, piece.value), unit) != unit:
                    raise ValueError(f"{_TOKENIZER_UNFIT}: it has two ways to write {piece.text!r}.")
                begin = cut
        return units

    def _encode(self, context: str, between: int, pieces: list["_Piece"]) -> tuple[list[int], list[int]]:
        """The tokens of an answer, and at which of its characters each starts; at last, its length."""
        answer = "".join(piece.text for piece in pieces)
        encoding = self._tokenizer(context + answer, add_special_tokens=False, return_offsets_mapping=True)
        starts = [start - len(context) for start, _ in encoding["offset_mapping"]]
        if -between not in starts:
            raise ValueError(f"{_TOKENIZER_UNFIT}: the answer's first token reaches into the prompt.")
        first = starts.index(-between)
        return encoding["input_ids"][first:], [max(0, start) for start in starts[first:]] + [len(answer)]


_TOKENIZER_UNFIT = "Constrained decoding does not work with this tokenizer"


class _Piece(NamedTuple):
    """A part of an answer; of its last `gap` characters some may belong to the next part's tokens."""

    slot: str
    value: object
    text: str
    gap: int

    @property
    def kind(self) -> str:
        return self.slot.replace("first", "next")


def _finding_samples(labels: Sequence[str]) -> list[list[_Piece]]:
    """Answers with every label and coordinate in every place, each beside two different neighbours."""
    opening = _Piece("open", None, FINDINGS_PREFIX, len(FINDINGS_PREFIX))
    samples = [[opening, _Piece("first ends", NO_FINDING, f"{NO_FINDING}.", 0)]]
    for index in range(max(GRID + 1, len(labels))):
        pieces = [opening]
        for slot, factors in (("first", (1, 37, 53, 71)), ("next", (3, 5, 7, 11)), ("next", (13, 17, 19, 23))):
            label = labels[(index + len(pieces)) % len(labels)]
            pieces.append(_Piece(slot, label, f"<p>{label}</p> {{<", len("</p> {<")))
            # GRID + 1 is a prime: every factor takes a coordinate through all values.
            x1, y1, x2, y2 = (factor * index % (GRID + 1) for factor in factors)
            for name, value in (("x1", x1), ("y1", y1), ("x2", x2)):
                pieces.append(_Piece(name, value, f"{value}><", 2))
            pieces.append(_Piece("y2", y2, f"{y2}>}},", 3))
        pieces[-1] = _Piece("last y2", y2, f"{y2}>}}.", 0)
        samples.append(pieces)
    return samples


def _diagnosis_samples(labels: Sequence[str]) -> list[list[_Piece]]:
    """Answers with every diagnosis first, later and last."""
    opening = _Piece("open", None, DIAGNOSES_PREFIX, len(DIAGNOSES_PREFIX))
    samples = [[opening, _Piece("first ends", label, f"{label}.", 0)] for label in {*labels, NO_FINDING}]
    for label in labels:
        for other in labels:
            samples.append(
                [
                    opening,
                    _Piece("first", label, f"{label}, ", 2),
                    _Piece("next", other, f"{other}, ", 2),
                    _Piece("next ends", label, f"{label}.", 0),
                ]
            )
    return samples
