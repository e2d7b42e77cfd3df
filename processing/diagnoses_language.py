"""The answers about diagnoses as a language over tokens: labels in the checkpoint's order, or `No finding`.

    first -> next -> ... in the order of the labels; or No finding.

What `answers.text_to_diagnoses` parses is what this allows, with one exception: diagnoses in another order than the
checkpoint's, which no training answer has.
"""

from collections.abc import Sequence

from .answer_automaton import Automaton, Leaf, Piece, State
from .answer_ebnf import diagnoses_ebnf
from .answers import DIAGNOSES_PREFIX, NO_FINDING, check_labels, diagnoses_to_text, text_to_diagnoses

ORDER = (  # slots, and those that stand after them
    (("open",), ("first", "first ends")),
    (("first", "next"), ("next", "next ends")),
)


class DiagnosesLanguage:
    """Adds the nodes of answers about diagnoses to an automaton.

    Args:
        automaton: of the checkpoint's tokenizer.
        labels: of the checkpoint, in the answers' order.

    Attributes:
        start: the node before the first token.
        least_room: the least `max_new_tokens` with which every answer ends, whatever it says.

    Raises:
        ValueError: the tokenizer does not write the parts of an answer each by itself, or a label cannot be told from
            the text around it.
    """

    def __init__(self, automaton: Automaton, labels: Sequence[str]):
        check_labels(labels, lambda label: diagnoses_to_text([label]), text_to_diagnoses)
        self.labels = list(labels)
        units = automaton.units(_samples(self.labels), ORDER)
        eos = (automaton.tokenizer.eos_token_id,)
        start, end = units["open", None], Leaf(self, "end", None)
        names = [label for label in self.labels if label != NO_FINDING]
        ends = [units["next ends", label] + eos for label in names]
        # Tokens that the last label may take, after each label.
        to_end = [max(map(len, ends[index + 1 :])) for index in range(len(names) - 1)]

        # What may follow, without the opening: these take `least_room`.
        first = [(units["first ends", label] + eos, end) for label in self.labels]
        first += [(units["first", label], Leaf(self, "diagnosis", index)) for index, label in enumerate(names[:-1])]
        self.start = automaton.node((start + unit, leaf) for unit, leaf in first)
        self.least_room = len(start) + max(
            len(unit) + (to_end[leaf.value] if leaf.slot == "diagnosis" else 0) for unit, leaf in first
        )
        # The node after the label number i and its comma, and the same where one more label has to end the answer.
        self._nodes: dict[int, int] = {}
        self._last_nodes: dict[int, int] = {}
        self._room_for_more: dict[int, int] = {}
        for index in range(len(names) - 1):
            last = [(unit, end) for unit in ends[index + 1 :]]
            later = range(index + 1, len(names) - 1)
            more = [(units["next", names[other]], Leaf(self, "diagnosis", other)) for other in later]
            self._nodes[index] = automaton.node(last + more)
            self._last_nodes[index] = automaton.node(last)
            self._room_for_more[index] = max([to_end[index]] + [len(unit) + to_end[leaf.value] for unit, leaf in more])

    def state_after(self, leaf: Leaf, state: State, room: int) -> State:
        """The state after the last token of a part; `room`: tokens that may still follow it."""
        more = room >= self._room_for_more[leaf.value]
        return State(self._nodes[leaf.value] if more else self._last_nodes[leaf.value])

    def ebnf(self, max_new_tokens: int | None) -> str:
        """The language for an engine; every answer fits into `least_room` tokens or more."""
        return diagnoses_ebnf(self.labels)


def _samples(labels: Sequence[str]) -> list[list[Piece]]:
    """Answers with every diagnosis first, after every other one, before every other one, and last."""
    opening = Piece("open", None, DIAGNOSES_PREFIX, len(DIAGNOSES_PREFIX))
    samples = [[opening, Piece("first ends", label, f"{label}.")] for label in labels]
    for index, label in enumerate(labels):
        pieces = [opening, *(Piece(slot, label, f"{label}, ", 2) for slot in ("first", "next"))]
        for other in labels[index + 1 :]:
            pieces += [Piece("next", name, f"{name}, ", 2) for name in (other, label)]
        samples.append([*pieces, Piece("next ends", label, f"{label}.")])
    return samples
