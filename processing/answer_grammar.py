"""The answers that a checkpoint may give, as an automaton over tokens: what may follow what was written so far.

    grammar = AnswerGrammar(tokenizer, ["identify", "vqa"], finding_labels, diagnosis_labels)
    state = grammar.start("vqa")
    while state != grammar.END:
        token = choose(grammar.allowed[state.node])
        state = grammar.advance(state, token, room=512)

The languages are `findings_language.py` and `diagnoses_language.py`; which task has which, `tasks.py` says. Engines
such as xgrammar accept every tokenisation of a text that their grammar allows, and a checkpoint must load with
transformers alone; so its own decoding does not use one. For a server that has such an engine there is `ebnf`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .answer_automaton import Automaton, State
from .tasks import DIAGNOSES, FINDINGS, PLACES, answer_kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class AnswerGrammar:
    """Which tokens may follow, in answers to the tasks of a checkpoint.

    Args:
        tokenizer: a fast one, for where its tokens begin and end.
        tasks: of the checkpoint. Those whose answers are text, for which it has no labels, or which `tasks.py` does
            not know, are left out.
        finding_labels, diagnosis_labels: of the checkpoint, in the answers' order.

    Attributes:
        tokenizer, finding_labels, diagnosis_labels: as given.
        tasks: that have answers.
        languages: of the answers to those, by the kind's name.
        allowed: for each node the tokens that may follow, a list of ids.

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
        self.tokenizer = tokenizer
        self.finding_labels, self.diagnosis_labels = list(finding_labels), list(diagnosis_labels)
        # The boxes of a phrase have no labels: one that is no word.
        labels = {FINDINGS: self.finding_labels, DIAGNOSES: self.diagnosis_labels, PLACES: [""]}
        self.tasks = [task for task in tasks if labels.get(answer_kind(task))]
        asked = {answer_kind(task) for task in self.tasks}
        automaton = Automaton(tokenizer)
        self.languages = {kind.name: kind.language(automaton, labels[kind]) for kind in labels if kind in asked}
        self._following = automaton.following
        self.allowed = [sorted(children) for children in self._following]

    def start(self, task: str) -> State:
        """The state before the first token of an answer to `task`.

        Raises:
            ValueError: not one of `tasks`.
        """
        return State(self._language(task).start)

    def least_room(self, task: str) -> int:
        """The least `max_new_tokens` with which every answer to `task` ends, whatever it says.

        Raises:
            ValueError: not one of `tasks`.
        """
        return self._language(task).least_room

    def advance(self, state: State, token: int, room: int) -> State:
        """The state after `token`, one of `allowed[state.node]`; END after the end-of-sequence token.

        Args:
            room: tokens that may still follow it. Where nothing more fits, the answer has to end: it never takes more
                than `max_new_tokens`, if those are at least `least_room`.
        """
        following = self._following[state.node][token]
        if isinstance(following, int):
            return state._replace(node=following)
        return self.END if following.slot == "end" else following.language.state_after(following, state, room)

    def completes_part(self, state: State, token: int) -> bool:
        """Whether `token`, one of `allowed[state.node]`, ends a label, a coordinate or the answer."""
        return not isinstance(self._following[state.node][token], int)

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
        return self._language(task).ebnf(max_new_tokens)

    def _language(self, task: str) -> Any:
        if task not in self.tasks:
            raise ValueError(
                f"This checkpoint has no labels or no grammar for answers to [{task}]; it has both for: "
                f"{', '.join(self.tasks) or 'none'}."
            )
        return self.languages[answer_kind(task).name]
