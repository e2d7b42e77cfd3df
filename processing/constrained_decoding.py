"""Greedy answers in the answer language, in fewer passes of the language model than they have tokens.

The automaton of `answer_grammar.py` says which tokens may follow; the most probable of them is the answer's next token
(constrained greedy decoding). `AnswerLogitsProcessor` does that in plain `generate`, one token a pass, and serves
sampling and beams too. `ConstrainedGreedy` gives the same greedy answers and *jumps ahead*: one pass reads several
tokens,

- those that are certain, because the automaton leaves one only (most of the text around labels and coordinates),
- and after them guesses, which the logits of the same pass verify: a right one saves a pass, at the first wrong one
  the answer continues with the model's own choice.

Guesses are what the model itself chose at the same place in the last pass, after guesses that were partly wrong
(Jacobi decoding, Santilli et al., arXiv 2305.10427): where a box lies depends on the image more than on the numbers
that were written before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DynamicCache,
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation import BaseStreamer
from transformers.utils import ModelOutput

from .answer_automaton import State
from .answer_grammar import AnswerGrammar
from .answers import NO_FINDING, NO_PLACE, Finding, text_to_findings
from .block_reader import Allowed, BlockReader, Choices, CompiledReader
from .box_scores import InsertedFinding
from .diagnosis_probabilities import diagnosis_probabilities
from .insertion import Insertion, inserted_findings
from .tasks import DIAGNOSES, FINDINGS, PLACES, answer_kind
from .token_tree import CACHE

# Guessed tokens that a pass reads at most: about two findings. On phantoms more would save 1% of the passes.
LOOKAHEAD = 16
END = AnswerGrammar.END
ANY_ROOM = 1 << 30  # more new tokens than any answer takes


@dataclass
class ConstrainedGreedyOutput(ModelOutput):
    """What `ConstrainedGreedy` returns with `return_dict_in_generate=True`.

    Attributes:
        sequences: (batch, prompt + new tokens) int64, as `generate` returns it: padding after the end of an answer.
        token_probabilities: (batch, new tokens) float32, of each new token among those that the grammar allows in its
            place: 1 where it is certain, and for padding.
        candidates, candidate_probabilities: (batch, new tokens, most that may follow), what the grammar allows in the
            place of each new token, filled up with probabilities of 0; only these where a jump ahead passed over it.
        label_probabilities: a dictionary a row. For findings {"No finding": p}, for a phrase {"None": p}, the
            probability that the answer says so; for diagnoses the marginal probability of every label, see
            `diagnosis_probabilities`.
        inserted_findings: a list a row, see `insertion.py`; None where they are not asked for.
        num_forward_passes: of the language model, one after the other; the one over the prompt is among them, those
            for the marginals and the inserted findings are not.
    """

    sequences: torch.LongTensor | None = None
    token_probabilities: torch.FloatTensor | None = None
    candidates: torch.LongTensor | None = None
    candidate_probabilities: torch.FloatTensor | None = None
    label_probabilities: list[dict[str, float]] | None = None
    inserted_findings: list[list[InsertedFinding]] | None = None
    num_forward_passes: int | None = None


class ConstrainedGreedy:
    """A decoding loop for `generate(custom_generate=...)`: constrained greedy answers, with jumps ahead.

    Example:
        >>> model.generate(**inputs, max_new_tokens=512, custom_generate=processor.constrained_greedy())

    Each row is answered according to the identifier of its last turn; rows of several tasks may stand in one batch. An
    answer always fits into `max_new_tokens` and is never cut off: where no further finding fits, it ends. A `streamer`
    gets the tokens of each pass. In float32 the answers are those of plain constrained greedy decoding, token for
    token; in bfloat16 a pass over several tokens rounds otherwise than a pass over one, as a batch does than a row
    alone.

    Args:
        grammar: of the checkpoint.
        identifiers: the token of an identifier -> its task.
        jump_ahead: without it each pass reads one token.
        insertion: looks for findings that the answers do not name; None: it does not. Only what is returned with
            `return_dict_in_generate=True` has them.
        compiled: compiles the passes behind the first one with torch's Inductor, once for a model: half a minute that
            pays from some thousand radiographs on. On a GPU they become CUDA graphs.

    Raises:
        ValueError: on a call for anything but one greedy answer a row with a cache that grows, or with a way of
            stopping that would cut it off; a prompt without a radiograph, without an identifier or with several in
            its last turn; too few new tokens for an answer; a model with prompt or prefix tuning; a compiled one that
            is on several devices.
    """

    def __init__(
        self,
        grammar: AnswerGrammar,
        identifiers: Mapping[int, str],
        jump_ahead: bool = True,
        insertion: Insertion | None = None,
        compiled: bool = False,
    ):
        self.grammar = grammar
        self.identifiers = dict(identifiers)
        self.jump_ahead = jump_ahead
        self.insertion = insertion
        self.compiled = compiled

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.LongTensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        answer_streamer: BaseStreamer | None = None,  # under the name `streamer` the library would not hand it on
        **model_kwargs,
    ) -> torch.LongTensor | ConstrainedGreedyOutput:
        _refuse_other_decoding(generation_config, logits_processor, stopping_criteria, model_kwargs.get(CACHE))
        _refuse_virtual_tokens(model)
        if self.compiled:
            _refuse_several_devices(model)
        _refuse_missing_radiographs(input_ids, model.config.image_token_id)
        max_new_tokens = generation_config.max_length - input_ids.shape[1]
        with_probabilities = generation_config.return_dict_in_generate
        tasks = _tasks(input_ids, self.grammar, self.identifiers, max_new_tokens)
        answers = [
            _Answer(self.grammar, task, token, max_new_tokens, self.jump_ahead)
            for task, token in zip(tasks, input_ids[:, -1].tolist(), strict=True)
        ]
        device = input_ids.device
        read_by = CompiledReader if self.compiled else BlockReader
        reader, running = read_by(model, input_ids, _tables(self.grammar, device), **model_kwargs), answers
        about_findings = [row for row, task in enumerate(tasks) if answer_kind(task) is FINDINGS]
        prompts = None
        num_streamed = 1  # of `_Answer.tokens`: the prompt's last one
        if answer_streamer is not None:
            answer_streamer.put(input_ids.cpu())
        while running:
            certain = max(answer.num_certain for answer in running)
            num_guesses = reader.most_guesses(certain, LOOKAHEAD) if self.jump_ahead else 0
            blocks, nodes = zip(*(answer.block(num_guesses) for answer in running), strict=True)
            choices = reader.read(blocks, nodes, [answer.num_read for answer in running])
            if with_probabilities:
                self._add_label_probabilities(running, choices, reader)
                if self.insertion is not None and about_findings and prompts is None:
                    prompts = reader.prompts(about_findings)
            considered = zip(choices.candidates, choices.probabilities, strict=True)
            choice = zip(running, blocks, choices.chosen, considered, strict=True)
            num_right = [answer.take(*row) for answer, *row in choice]
            if answer_streamer is not None:
                for token in answers[0].tokens[num_streamed:]:
                    answer_streamer.put(torch.tensor([token]))
                num_streamed = len(answers[0].tokens)
            is_running = [answer.state != END for answer in running]
            reader.keep(num_right, is_running)
            running = [answer for answer in running if answer.state != END]

        if answer_streamer is not None:
            answer_streamer.end()
        pad = generation_config.pad_token_id
        new_tokens = [torch.tensor(answer.tokens[1:], device=device) for answer in answers]
        sequences = torch.cat([input_ids, pad_sequence(new_tokens, batch_first=True, padding_value=pad)], dim=1)
        if not with_probabilities:
            return sequences
        inserted: list[list[InsertedFinding]] = [[] for _ in answers]
        if prompts is not None:
            named = [self._findings(answers[row].tokens[1:]) for row in about_findings]
            found = inserted_findings(reader.model, self.grammar, prompts, named, self.insertion)
            for row, of_row in zip(about_findings, found, strict=True):
                inserted[row] = of_row
        token_probabilities = [torch.tensor(answer.probabilities, device=device) for answer in answers]
        return ConstrainedGreedyOutput(
            sequences=sequences,
            token_probabilities=pad_sequence(token_probabilities, batch_first=True, padding_value=1.0),
            candidates=_stacked(answers, 0, torch.zeros_like(choices.candidates[0, 0])),
            candidate_probabilities=_stacked(answers, 1, torch.zeros_like(choices.probabilities[0, 0])),
            label_probabilities=[answer.label_probabilities for answer in answers],
            inserted_findings=None if self.insertion is None else inserted,
            num_forward_passes=reader.num_passes,
        )

    def _findings(self, tokens: list[int]) -> list[Finding]:
        text = self.grammar.tokenizer.decode(tokens, skip_special_tokens=True)
        return text_to_findings(text.removeprefix(" "), self.grammar.finding_labels)

    def _add_label_probabilities(self, answers: list["_Answer"], choices: Choices, reader: BlockReader) -> None:
        """Adds them where a pass has just read what they need: up to the first decision, or the prompt."""
        deciding, places = [], []
        for row, answer in enumerate(answers):
            if answer_kind(answer.task) in (FINDINGS, PLACES) and not answer.label_probabilities:
                decision, choice = _first_decision(self.grammar, answer.task)
                if answer.state == decision:
                    deciding.append(answer)
                    places.append((row, answer.num_certain - 1, choice))
        if deciding:
            rows, tokens, chosen = torch.tensor(places, device=choices.probabilities.device).T
            for answer, probability in zip(
                deciding, choices.probabilities[rows, tokens, chosen].tolist(), strict=True
            ):
                nothing = NO_FINDING if answer_kind(answer.task) is FINDINGS else NO_PLACE
                answer.label_probabilities = {nothing: probability}
        rows = [row for row, answer in enumerate(answers) if answer_kind(answer.task) is DIAGNOSES]
        if rows and reader.num_passes == 1:
            first = reader.first_logits[rows]
            marginals = diagnosis_probabilities(reader.model, self.grammar, *reader.prompts(rows), first)
            for row, values in zip(rows, marginals.tolist(), strict=True):
                answers[row].label_probabilities = dict(zip(self.grammar.diagnosis_labels, values, strict=True))


class _Answer:
    """One row's answer so far, and guesses how it continues.

    Attributes:
        tokens: the prompt's last token, then those of the answer that are sure.
        num_read: how many of `tokens` are in the model's cache.
        state: after the last of `tokens`.
        probabilities: of the answer's tokens.
        considered: for each of them what could have stood there, (tokens, probabilities); None where it is certain.
    """

    def __init__(self, grammar: AnswerGrammar, task: str, prompt_token: int, max_new_tokens: int, jump_ahead: bool):
        self.task = task
        self.tokens = [prompt_token]
        self.num_read = 0
        self.state = grammar.start(task)
        self.probabilities: list[float] = []
        self.considered: list[tuple[torch.Tensor, torch.Tensor] | None] = []
        self.label_probabilities: dict[str, float] = {}
        self._grammar = grammar
        self._room = max_new_tokens
        self._jump_ahead = jump_ahead
        self._guesses: list[int] = []  # what the model chose after `tokens` when it last read guesses there
        self._add_certain()

    @property
    def num_certain(self) -> int:
        """How many of `tokens` are still to be read."""
        return len(self.tokens) - self.num_read

    def block(self, num_guesses: int) -> tuple[list[int], list[int]]:
        """The tokens to read next, and for each the node that says what may follow it (0: that is known already)."""
        tokens = self.tokens[self.num_read :]
        nodes = [0] * (len(tokens) - 1) + [self.state.node]
        state, room = self.state, self._room
        for index in range(num_guesses):
            token = self._guesses[index] if index < len(self._guesses) else None
            if token not in self._grammar.allowed[state.node]:
                token = _first_guess(self._grammar, state.node)
            room -= 1
            state = self._grammar.advance(state, token, room)
            if state == END:
                break
            tokens.append(token)
            nodes.append(state.node)
        return tokens, nodes

    def take(
        self,
        block: list[int],
        chosen: list[tuple[int, float]],
        considered: tuple[torch.Tensor, torch.Tensor],
    ) -> int:
        """Adds the model's choices, as far as it has read right tokens; returns how many of `block` were right.

        Args:
            block: what was read, as the last call of `block` returned it.
            chosen: what the model chooses after each of its tokens, and how probable that is.
            considered: (tokens, widest) ids and their probabilities, after each of its tokens.
        """
        num_right = self.num_certain
        while True:
            token, probability = chosen[num_right - 1]
            candidates, candidate_probabilities = considered
            place = candidates[num_right - 1], candidate_probabilities[num_right - 1]
            self._add(token, probability, place)
            if self.state == END or num_right == len(block) or block[num_right] != token:
                break
            num_right += 1
        self.num_read += num_right
        self._guesses = [guess for guess, _ in chosen[num_right : len(block)]]
        self._add_certain()
        return num_right

    def _add_certain(self) -> None:
        while self._jump_ahead and self.state != END and len(self._grammar.allowed[self.state.node]) == 1:
            self._add(self._grammar.allowed[self.state.node][0], 1.0, None)
            self._guesses = self._guesses[1:]

    def _add(self, token: int, probability: float, considered: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        self.considered.append(considered)
        self._room -= 1
        self.state = self._grammar.advance(self.state, token, self._room)
        self.tokens.append(token)
        self.probabilities.append(probability)


def _stacked(answers: list[_Answer], which: int, nothing: torch.Tensor) -> torch.Tensor:
    """(answers, longest, widest): what was considered (0) or its probabilities (1); `nothing` where it is certain."""
    rows = [
        torch.stack([nothing if place is None else place[which] for place in answer.considered]) for answer in answers
    ]
    return pad_sequence(rows, batch_first=True)


class AnswerLogitsProcessor(LogitsProcessor):
    """Leaves the tokens that the grammar allows: constrained decoding in plain `generate`, one token a pass.

    Args:
        grammar, identifiers: as for `ConstrainedGreedy`.
        max_new_tokens: what `generate` is called with.

    Raises:
        ValueError: at the first token, for a prompt without an identifier or with several in its last turn, or too
            few new tokens.
    """

    def __init__(self, grammar: AnswerGrammar, identifiers: Mapping[int, str], max_new_tokens: int):
        self._grammar = grammar
        self._identifiers = dict(identifiers)
        self._max_new_tokens = max_new_tokens
        # Of the last call: tokens of a row -> its state and the room left. Beams move rows, but not what they hold.
        self._states: dict[tuple[int, ...], tuple[State, int]] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        states = {}
        mask = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(map(tuple, input_ids.tolist())):
            if tokens[:-1] in self._states:
                state, room = self._states[tokens[:-1]]
                room -= 1
                # Beams continue, with a score of -inf, where fewer tokens are allowed than there are beams.
                is_allowed = state != END and tokens[-1] in self._grammar.allowed[state.node]
                state = self._grammar.advance(state, tokens[-1], room) if is_allowed else END
            else:
                prompt = input_ids[row : row + 1]
                (task,) = _tasks(prompt, self._grammar, self._identifiers, self._max_new_tokens)
                state, room = self._grammar.start(task), self._max_new_tokens
            mask[row, slice(None) if state == END else self._grammar.allowed[state.node]] = 0
            states[tokens] = state, room
        self._states = states
        return scores + mask


def _tasks(
    input_ids: torch.LongTensor, grammar: AnswerGrammar, identifiers: Mapping[int, str], max_new_tokens: int
) -> list[str]:
    """The task of each prompt: that of the identifier in its last turn. Earlier turns of a chat end with an answer."""
    found = []
    for row, prompt in enumerate(input_ids.tolist()):
        turn = prompt[_last(grammar.tokenizer.eos_token_id, prompt) + 1 :]
        tasks = [identifiers[token] for token in turn if token in identifiers]
        if len(tasks) != 1:
            names = ", ".join(f"[{task}]" for task in identifiers.values())
            raise ValueError(f"A prompt needs exactly one of {names}; number {row} of the batch has {len(tasks)}.")
        if max_new_tokens < (least := grammar.least_room(tasks[0])):
            raise ValueError(f"An answer to [{tasks[0]}] may take {least} tokens; max_new_tokens is {max_new_tokens}.")
        found += tasks
    return found


def _last(token: int, tokens: list[int]) -> int:
    """Where `token` stands last, -1 where it does not."""
    return max((place for place, other in enumerate(tokens) if other == token), default=-1)


# Plain `generate` can do what constrained greedy decoding refuses.
_INSTEAD = "generate(..., logits_processor=[processor.answer_logits_processor(max_new_tokens)]) does."


def _refuse_other_decoding(
    config: GenerationConfig, processors: LogitsProcessorList, criteria: StoppingCriteriaList, cache: object
) -> None:
    if config.do_sample or config.num_beams > 1 or config.num_return_sequences > 1:
        raise ValueError(f"Constrained greedy decoding gives one answer a row, without sampling or beams; {_INSTEAD}")
    if not isinstance(cache, DynamicCache) or cache.get_seq_length() > 0:
        raise ValueError("Constrained greedy decoding needs a dynamic cache with nothing in it.")
    if processors:
        raise ValueError(f"Constrained greedy decoding does not apply {type(processors[0]).__name__}; {_INSTEAD}")
    for criterion in criteria:
        if not isinstance(criterion, (MaxLengthCriteria, EosTokenCriteria)):
            name = type(criterion).__name__
            raise ValueError(f"Constrained greedy decoding does not cut answers off, as {name} would; {_INSTEAD}")


def _refuse_virtual_tokens(model: PreTrainedModel) -> None:
    """PEFT's prompt and prefix tuning add tokens where plain `generate` prepares inputs, which is not done here."""
    owner = getattr(model.prepare_inputs_for_generation, "__self__", model)
    if getattr(getattr(owner, "active_peft_config", None), "is_prompt_learning", False):
        raise ValueError(f"Constrained greedy decoding does not add the adapter's virtual tokens; {_INSTEAD}")


def _refuse_several_devices(model: PreTrainedModel) -> None:
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        raise ValueError("Compiled passes need a model on one device; leave compiled out.")


def _refuse_missing_radiographs(input_ids: torch.LongTensor, image_token_id: int) -> None:
    without = (input_ids != image_token_id).all(dim=1)
    if without.any():
        row = without.nonzero()[0].item()
        raise ValueError(f"A prompt needs a radiograph; number {row} of the batch has none.")


@lru_cache(maxsize=4)
def _tables(grammar: AnswerGrammar, device: torch.device) -> Allowed:
    """The tokens that may follow, by node."""
    allowed = [torch.tensor(tokens) for tokens in grammar.allowed]
    tokens, sizes = pad_sequence(allowed, batch_first=True), torch.tensor([[len(row)] for row in allowed])
    return Allowed(tokens.to(device), (torch.arange(tokens.shape[1]) < sizes).to(device))


@lru_cache(maxsize=16)
def _first_decision(grammar: AnswerGrammar, task: str) -> tuple[State, int]:
    """About boxes: the first state with several tokens, and which of them leads to "No finding", or "None"."""
    state = grammar.start(task)
    while len(grammar.allowed[state.node]) == 1:
        state = grammar.advance(state, grammar.allowed[state.node][0], ANY_ROOM)
    (choice,) = (i for i, token in enumerate(grammar.allowed[state.node]) if _ends(grammar, state, token))
    return state, choice


@lru_cache(maxsize=1 << 16)
def _first_guess(grammar: AnswerGrammar, node: int) -> int:
    """Where the model has not chosen yet: the answer continues; of the coordinates one in the middle."""
    tokens = grammar.allowed[node]
    middle = len(tokens) // 2
    from_middle = [*tokens[middle:], *tokens[:middle]]
    return next((token for token in from_middle if not _ends(grammar, State(node), token)), from_middle[0])


def _ends(grammar: AnswerGrammar, state: State, token: int) -> bool:
    """Whether the answer certainly ends after `token`."""
    state = grammar.advance(state, token, ANY_ROOM)
    while state != END and len(grammar.allowed[state.node]) == 1:
        state = grammar.advance(state, grammar.allowed[state.node][0], ANY_ROOM)
    return state == END
