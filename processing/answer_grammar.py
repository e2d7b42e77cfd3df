"""The answers that a checkpoint may give, as an automaton over tokens: what may follow what was written so far.

Only *canonical* tokens are allowed: those with which the tokenizer writes a training answer. So a stretch of text that
is certain has one tokenisation, and the model meets no sequence of tokens that it was not trained on. Engines such as
xgrammar accept every tokenisation of a text that their grammar allows, and a checkpoint must load with transformers
alone; so its own decoding does not use one. For a server that has such an engine there is `ebnf`.

    findings:   first -> x1 -> y1 -> x2 -> y2 -> next -> x1 ... until a y2 that ends with a full stop; or No finding.
    diagnoses:  first -> next -> ... in the checkpoint's order of labels; or No finding.

x2 exceeds x1 and y2 exceeds y1, so every box has an area. What `answers.py` parses is what this allows, with one
exception: diagnoses in another order than the checkpoint's, which no training answer has.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from .answer_ebnf import diagnoses_ebnf, findings_ebnf
from .answers import (
    DIAGNOSES_PREFIX,
    FINDINGS_PREFIX,
    NO_FINDING,
    AnswerError,
    Finding,
    diagnoses_to_text,
    findings_to_text,
    text_to_diagnoses,
    text_to_findings,
)

FINDING_TASKS = ("identify", "grounding")
DIAGNOSIS_TASKS = ("vqa",)
ANSWER_MARK = "[/INST]"  # behind it a chat has a space and the answer
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
        tasks: of the checkpoint. Those for which it has no labels, or which this module does not know, are left out.
        finding_labels, diagnosis_labels: of the checkpoint, in the answers' order.

    Attributes:
        tokenizer: as given.
        tasks: that have answers.
        allowed: for each node the tokens that may follow, a list of ids.
        longest_finding: tokens that a further finding may take, the end of the answer included.

    Raises:
        ValueError: the tokenizer does not write the parts of an answer each by itself, or a label cannot be told from
            the text around it.
    """

    END = State(-1)

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tasks: Iterable[str],
        finding_labels: Sequence[str],
        diagnosis_labels: Sequence[str],
    ):
        self.finding_labels, self.diagnosis_labels = list(finding_labels), list(diagnosis_labels)
        self.tasks = [task for task in tasks if self._labels(task)]
        self.tokenizer = tokenizer
        self._next: list[dict[int, int | Leaf]] = []
        self._numbers: dict[tuple[tuple[tuple[int, ...], Leaf], ...], int] = {}
        _check_labels(self.finding_labels, self.diagnosis_labels)
        if any(task in FINDING_TASKS for task in self.tasks):
            units = self._units(_finding_samples(self.finding_labels))
            for slots, following in _FINDING_ORDER:
                _move_common_start(units, slots, following)
            self._add_findings(units)
        if any(task in DIAGNOSIS_TASKS for task in self.tasks):
            units = self._units(_diagnosis_samples(self.diagnosis_labels))
            for slots, following in _DIAGNOSIS_ORDER:
                _move_common_start(units, slots, following)
            self._add_diagnoses(units)
        self.allowed = [sorted(children) for children in self._next]
        del self._numbers  # only for the making

    def start(self, task: str) -> State:
        """The state before the first token of an answer to `task`.

        Raises:
            ValueError: not one of `tasks`.
        """
        self._check_task(task)
        return State(self._findings["first"] if task in FINDING_TASKS else self._diagnoses[-1])

    def least_room(self, task: str) -> int:
        """The least `max_new_tokens` with which every answer to `task` ends, whatever it says.

        Raises:
            ValueError: not one of `tasks`.
        """
        self._check_task(task)
        return self._least_room_for_findings if task in FINDING_TASKS else self._least_room_for_diagnoses

    def advance(self, state: State, token: int, room: int) -> State:
        """The state after `token`, one of `allowed[state.node]`; END after the end-of-sequence token.

        Args:
            room: tokens that may still follow it. Where nothing more fits, the answer has to end: it never takes more
                than `max_new_tokens`, if those are at least `least_room`.
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
            return State(self._findings["y2" if room >= self._room_for_more else "last y2", state.y1])
        if slot == "y2":
            return State(self._findings["next"])
        if slot == "diagnosis":
            more = room >= self._room_for_more_after[value]
            return State(self._diagnoses[value] if more else self._last_diagnoses[value])
        return self.END

    def ebnf(self, task: str, max_new_tokens: int | None = None) -> str:
        """The answers to `task` as a grammar for an engine, see `answer_ebnf.py`.

        Args:
            max_new_tokens: no more findings than fit into them in canonical tokens. An engine may write a finding in
                more tokens than those, so an answer may still be cut off; a model that was trained hardly does that.

        Raises:
            ValueError: not one of `tasks`, or `max_new_tokens` are fewer than `least_room`.
        """
        least = self.least_room(task)
        if max_new_tokens is not None and max_new_tokens < least:
            raise ValueError(f"An answer to [{task}] may take {least} tokens; max_new_tokens is {max_new_tokens}.")
        if task not in FINDING_TASKS:
            return diagnoses_ebnf(self.diagnosis_labels)
        if max_new_tokens is None:
            return findings_ebnf(self.finding_labels)
        return findings_ebnf(self.finding_labels, 1 + (max_new_tokens - least) // self.longest_finding)

    def _labels(self, task: str) -> list[str]:
        if task in FINDING_TASKS:
            return self.finding_labels
        return self.diagnosis_labels if task in DIAGNOSIS_TASKS else []

    def _check_task(self, task: str) -> None:
        if task not in self.tasks:
            raise ValueError(
                f"This checkpoint has no labels or no grammar for answers to [{task}]; it has both for: "
                f"{', '.join(self.tasks) or 'none'}."
            )

    # --- The automaton -----------------------------------------------------------------------------------------------

    def _add_findings(self, units: Units) -> None:
        eos = (self.tokenizer.eos_token_id,)
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
        self._findings = nodes

        longest: dict[str, int] = {}
        for (slot, value), unit in units.items():
            if slot not in ("x1", "y1") or value < GRID:
                longest[slot] = max(longest.get(slot, 0), len(unit))
        box = sum(longest[slot] for slot in ("x1", "y1", "x2", "last y2")) + len(eos)
        self.longest_finding = longest["next"] + box
        self._room_for_more = longest["y2"] + self.longest_finding
        self._least_room_for_findings = len(start) + max(len(nothing[0]), longest["first"] + box)

    def _add_diagnoses(self, units: Units) -> None:
        """`_diagnoses[i]`: the node after the label number i and its comma; -1: at the beginning.

        `_last_diagnoses[i]` is the same where one more label has to end the answer.
        """
        eos = (self.tokenizer.eos_token_id,)
        start = units["open", None]
        names = [label for label in self.diagnosis_labels if label != NO_FINDING]
        ends = [units["next ends", label] + eos for label in names]
        # Tokens that the last label may take, behind each label.
        to_end = [max(map(len, ends[index + 1 :])) for index in range(len(names) - 1)]
        self._diagnoses, self._last_diagnoses = {}, {}
        self._room_for_more_after: dict[int, int] = {}

        # What may follow, without the opening: these take `least_room`.
        first = [(units["first ends", label] + eos, ("end", None)) for label in self.diagnosis_labels]
        first += [(units["first", label], ("diagnosis", index)) for index, label in enumerate(names[:-1])]
        self._diagnoses[-1] = self._node((start + unit, leaf) for unit, leaf in first)
        self._least_room_for_diagnoses = len(start) + max(
            len(unit) + (to_end[value] if slot == "diagnosis" else 0) for unit, (slot, value) in first
        )
        for index in range(len(names) - 1):
            last = [(unit, ("end", None)) for unit in ends[index + 1 :]]
            more = [(units["next", names[later]], ("diagnosis", later)) for later in range(index + 1, len(names) - 1)]
            self._diagnoses[index] = self._node(last + more)
            self._last_diagnoses[index] = self._node(last)
            self._room_for_more_after[index] = max(
                [to_end[index]] + [len(unit) + to_end[later] for unit, (_, later) in more]
            )

    def _node(self, alternatives: Iterable[tuple[tuple[int, ...], Leaf]]) -> int:
        """The node from which each alternative's tokens lead to its leaf; equal nodes are one."""
        alternatives = tuple(alternatives)
        if alternatives in self._numbers:
            return self._numbers[alternatives]
        by_token: dict[int, list[tuple[tuple[int, ...], Leaf]]] = {}
        for tokens, leaf in alternatives:
            by_token.setdefault(tokens[0], []).append((tokens[1:], leaf))
        children: dict[int, int | Leaf] = {}
        for token, rests in by_token.items():
            if all(rest for rest, _ in rests):
                children[token] = self._node(rests)
            elif len(rests) == 1:
                children[token] = rests[0][1]
            else:
                raise ValueError(f"{_TOKENIZER_UNFIT}: the tokens of one part begin another one.")
        self._numbers[alternatives] = len(self._next)
        self._next.append(children)
        return self._numbers[alternatives]

    def _units(self, samples: list[list["_Piece"]]) -> Units:
        """The tokens of each part of an answer, as the tokenizer writes them in whole answers.

        Two parts meet at the last place between them where the tokenizer always begins a new token: Llama 2 writes
        `><` as one token, so a coordinate ends behind `<` there, and before it where `<38>` is one token.
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
                raise ValueError(f"{_TOKENIZER_UNFIT}: its tokens cross the end of {kind}.")

        units: Units = {}
        for (ids, places), pieces in zip(encoded, samples, strict=True):
            begin = end = 0
            for piece in pieces:
                end += len(piece.text)
                cut = places[end - min(overlaps[piece.kind])]
                unit = tuple(ids[begin:cut])
                if units.setdefault((piece.slot, piece.value), unit) != unit:
                    raise ValueError(f"{_TOKENIZER_UNFIT}: it has two ways to write {piece.text!r}.")
                begin = cut
        return units

    def _encode(self, pieces: list["_Piece"]) -> tuple[list[int], dict[int, int]]:
        """The tokens of an answer as a chat has them; character -> the token that starts there."""
        answer = "".join(piece.text for piece in pieces)
        ids, starts = answer_tokens(self.tokenizer, answer)
        places = {len(answer): len(ids)}
        for number, start in enumerate(starts):
            places.setdefault(start, number)  # of the bytes of a character, which all start where it does, the first
        return ids, places


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answer: str) -> tuple[list[int], list[int]]:
    """The tokens of an answer as a chat has them, and the character of the answer at which each starts.

    A chat writes an answer behind `[/INST]` and a space, which belongs to the first token: `▁Local` in Llama 2's
    tokens, `ĠLocal` in those of a byte-level tokenizer. So do the chat template, training and the grammar.

    Raises:
        ValueError: the tokenizer writes the end of `[/INST]` and the answer as one token.
    """
    encoding = tokenizer(f"{ANSWER_MARK} {answer}", add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    first = sum(start < len(ANSWER_MARK) for start, _ in offsets)
    if max((end for _, end in offsets[:first]), default=0) > len(ANSWER_MARK):
        raise ValueError(f"{_TOKENIZER_UNFIT}: its tokens cross the end of {ANSWER_MARK}.")
    starts = [max(0, start - len(f"{ANSWER_MARK} ")) for start, _ in offsets[first:]]
    return encoding["input_ids"][first:], starts


_TOKENIZER_UNFIT = "Constrained decoding does not work with this tokenizer"

# Which slots stand behind which.
_FINDING_ORDER = (
    (("open",), ("first", "first ends")),
    (("first", "next"), ("x1",)),
    (("x1",), ("y1",)),
    (("y1",), ("x2",)),
    (("x2",), ("y2", "last y2")),
    (("y2",), ("next",)),
)
_DIAGNOSIS_ORDER = (
    (("open",), ("first", "first ends")),
    (("first", "next"), ("next", "next ends")),
)


class _Piece(NamedTuple):
    """A part of an answer; of its last `gap` characters some may belong to the next part's tokens."""

    slot: str
    value: object
    text: str
    gap: int

    @property
    def kind(self) -> str:
        return self.slot.replace("first", "next")


def _move_common_start(units: Units, slots: Sequence[str], following: Sequence[str]) -> None:
    """Moves the tokens with which all units of the `following` slots begin to the end of those of `slots`.

    Where the tokenizer writes `>},<` as one token, y2 is its digits alone, so the tokens of 7 begin those of 74. With
    this they end where the next part begins to differ, and no unit begins another one.
    """
    behind = [unit for (slot, _), unit in units.items() if slot in following]
    common = 0
    # A unit keeps a token of its own.
    for tokens in zip(*(unit[:-1] for unit in behind), strict=False):
        if len(set(tokens)) > 1:
            break
        common += 1
    start = behind[0][:common]
    for (slot, value), unit in units.items():
        if slot in following:
            unit = unit[common:]
        if slot in slots:
            unit = unit + start
        units[slot, value] = unit


def _check_labels(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> None:
    """Raises ValueError for a label that `answers.py` does not read back."""
    for label in [*finding_labels, *diagnosis_labels]:
        try:
            if label in finding_labels:
                text_to_findings(findings_to_text([Finding(label, (0, 0, 1, 1))]), [label])
            if label in diagnosis_labels:
                text_to_diagnoses(diagnoses_to_text([label]), [label])
        except AnswerError as error:
            raise ValueError(f"The label {label!r} cannot stand in an answer: {error}.") from None


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
    """Answers with every diagnosis first, behind every other one, before every other one, and last."""
    opening = _Piece("open", None, DIAGNOSES_PREFIX, len(DIAGNOSES_PREFIX))
    samples = [[opening, _Piece("first ends", label, f"{label}.", 0)] for label in labels]
    for index, label in enumerate(labels):
        pieces = [opening, *(_Piece(slot, label, f"{label}, ", 2) for slot in ("first", "next"))]
        for other in labels[index + 1 :]:
            pieces += [_Piece("next", name, f"{name}, ", 2) for name in (other, label)]
        samples.append([*pieces, _Piece("next ends", label, f"{label}.", 0)])
    return samples
