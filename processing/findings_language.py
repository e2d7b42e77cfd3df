"""The answers with boxes as languages over tokens: entries of a label and a box, or `No finding`; boxes, or `None`.

    first -> x1 -> y1 -> x2 -> y2 -> next -> x1 ... until a y2 that ends with a full stop; or No finding.

x2 exceeds x1 and y2 exceeds y1, so every box has an area. What `answers.text_to_findings` parses is what this allows.
"""

from collections.abc import Sequence

from .answer_automaton import Automaton, Leaf, Piece, State
from .answer_ebnf import findings_ebnf, places_ebnf
from .answers import (
    FINDINGS_PREFIX,
    NO_FINDING,
    NO_PLACE,
    PLACES_PREFIX,
    Finding,
    check_labels,
    findings_to_text,
    text_to_findings,
)

GRID = 100  # coordinates are integers from 0 to GRID

ORDER = (  # slots, and those that stand after them
    (("open",), ("first", "first ends")),
    (("first", "next"), ("x1",)),
    (("x1",), ("y1",)),
    (("y1",), ("x2",)),
    (("x2",), ("y2", "last y2")),
    (("y2",), ("next",)),
)


class FindingsLanguage:
    """Adds the nodes of answers about findings to an automaton.

    Args:
        automaton: of the checkpoint's tokenizer.
        labels: of the checkpoint, in the answers' order.

    Attributes:
        opening, nothing: the words that an answer begins with, and those in place of entries.
        start: the node before the first token.
        after_label, done: the nodes behind a label, and behind a box where the answer goes on.
        least_room: the least `max_new_tokens` with which every answer ends, whatever it says.
        longest_finding: tokens that a further finding may take, the end of the answer included.

    Raises:
        ValueError: the tokenizer does not write the parts of an answer each by itself, or a label cannot be told from
            the text around it.
    """

    opening, nothing = FINDINGS_PREFIX, NO_FINDING

    def __init__(self, automaton: Automaton, labels: Sequence[str]):
        self.check(labels)
        self.labels = list(labels)
        units = automaton.units(self._samples(), ORDER)
        eos = (automaton.tokenizer.eos_token_id,)
        start, end = units["open", None], Leaf(self, "end", None)
        first = [(units["first", label], Leaf(self, "label", None)) for label in self.labels]
        nothing = (units["first ends", self.nothing] + eos, end)
        nodes: dict[object, int] = {"first": automaton.node([(start + u, leaf) for u, leaf in [*first, nothing]])}
        nodes["next"] = automaton.node((units["next", label], Leaf(self, "label", None)) for label in self.labels)
        for slot in ("x1", "y1"):
            nodes[slot] = automaton.node((units[slot, v], Leaf(self, slot, v)) for v in range(GRID))
        for low in range(GRID):
            above = range(low + 1, GRID + 1)
            nodes["x2", low] = automaton.node((units["x2", v], Leaf(self, "x2", None)) for v in above)
            last = [(units["last y2", v] + eos, end) for v in above]
            nodes["last y2", low] = automaton.node(last)
            nodes["y2", low] = automaton.node([(units["y2", v], Leaf(self, "y2", None)) for v in above] + last)
        self._nodes, self.start = nodes, nodes["first"]
        self._units, self._eos = units, eos
        self.after_label, self.done = nodes["x1"], nodes["next"]

        longest: dict[str, int] = {}
        for (slot, value), unit in units.items():
            if slot not in ("x1", "y1") or value < GRID:
                longest[slot] = max(longest.get(slot, 0), len(unit))
        box = sum(longest[slot] for slot in ("x1", "y1", "x2", "last y2")) + len(eos)
        self.longest_finding = longest["next"] + box
        self._room_for_more = longest["y2"] + self.longest_finding
        self.least_room = len(start) + max(len(nothing[0]), longest["first"] + box)

    def check(self, labels: Sequence[str]) -> None:
        """Refuses a label that cannot stand in an answer."""
        check_labels(labels, lambda label: findings_to_text([Finding(label, (0, 0, 1, 1))]), text_to_findings)

    def entry(self, label: str) -> tuple[str, str]:
        """The words before the box of an entry, and behind its label."""
        return f"<p>{label}", "</p> {<"

    def box_start(self, box: Sequence[float]) -> tuple[int, ...]:
        """The tokens of a box up to its last coordinate."""
        values = zip(("x1", "y1", "x2"), on_grid(box), strict=False)
        return sum((self._units[slot, value] for slot, value in values), ())

    def continuations(self, y2: int | None) -> dict[str | None, tuple[int, ...]]:
        """By the label that comes next the tokens up to its box; None: those with which the answer ends.

        Args:
            y2: the last coordinate of the finding before, with which the tokens begin; None: there is none before.
        """
        if y2 is None:
            start = self._units["open", None]
            following = {label: start + self._units["first", label] for label in self.labels}
            return {**following, None: start + self._units["first ends", self.nothing] + self._eos}
        following = {label: self._units["y2", y2] + self._units["next", label] for label in self.labels}
        return {**following, None: self._units["last y2", y2] + self._eos}

    def state_after(self, leaf: Leaf, state: State, room: int) -> State:
        """The state after the last token of a part; `room`: tokens that may still follow it."""
        if leaf.slot == "label":
            return State(self._nodes["x1"])
        if leaf.slot == "x1":
            return State(self._nodes["y1"], x1=leaf.value)
        if leaf.slot == "y1":
            return State(self._nodes["x2", state.x1], state.x1, leaf.value)
        if leaf.slot == "x2":
            return State(self._nodes["y2" if room >= self._room_for_more else "last y2", state.y1])
        return State(self._nodes["next"])

    def ebnf(self, max_new_tokens: int | None) -> str:
        """The language for an engine, with no more entries than fit into `max_new_tokens` canonical tokens."""
        return findings_ebnf(self.labels, self.most_entries(max_new_tokens))

    def most_entries(self, max_new_tokens: int | None) -> int | None:
        """How many entries fit into so many canonical tokens; None: any number."""
        return None if max_new_tokens is None else 1 + (max_new_tokens - self.least_room) // self.longest_finding

    def _samples(self) -> list[list[Piece]]:
        """Answers with every label and coordinate in every place, each beside two different neighbours."""
        labels, opening = self.labels, Piece("open", None, self.opening, len(self.opening))
        samples = [[opening, Piece("first ends", self.nothing, f"{self.nothing}.")]]
        for index in range(max(GRID + 1, len(labels))):
            pieces = [opening]
            for slot, factors in (("first", (1, 37, 53, 71)), ("next", (3, 5, 7, 11)), ("next", (13, 17, 19, 23))):
                label = labels[(index + len(pieces)) % len(labels)]
                before, behind = self.entry(label)
                pieces.append(Piece(slot, label, before + behind, len(behind)))
                # GRID + 1 is a prime: every factor takes a coordinate through all values.
                x1, y1, x2, y2 = (factor * index % (GRID + 1) for factor in factors)
                for name, value in (("x1", x1), ("y1", y1), ("x2", x2)):
                    pieces.append(Piece(name, value, f"{value}><", 2))
                pieces.append(Piece("y2", y2, f"{y2}>}},", 3))
            pieces[-1] = Piece("last y2", y2, f"{y2}>}}.")
            samples.append(pieces)
        return samples


class PlacesLanguage(FindingsLanguage):
    """The answers about a phrase: boxes, which have no labels, or `None`."""

    opening, nothing = PLACES_PREFIX, NO_PLACE

    def check(self, labels: Sequence[str]) -> None:
        """There is nothing to refuse: its one label is no word."""

    def entry(self, label: str) -> tuple[str, str]:
        return "", "{<"

    def ebnf(self, max_new_tokens: int | None) -> str:
        return places_ebnf(self.most_entries(max_new_tokens))


def on_grid(box: Sequence[float]) -> tuple[int, ...]:
    """The integers that an answer writes for a box that was read from one."""
    return tuple(round(GRID * value) for value in box)
