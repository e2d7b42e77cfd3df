"""Grounded reports as they are written: words are free, the boxes in them have their form.

    <p>There is cardiomegaly.</p> {<38><52><81><74>} <p>There is no pleural effusion.</p>

`GroundedText` reads such an answer character by character and says what may follow; `GroundedTextProcessor` leaves the
tokens that may follow in any decoding of `generate`. Between <p> and </p> stands any text without < > { }, elsewhere
nothing but boxes, each with an area. What `answers.text_to_sentences` parses is what this allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import LogitsProcessor

from .findings_language import GRID

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STRUCTURE = "<>{}"
OPEN, CLOSE = "<p>", "</p>"


class GroundedText(NamedTuple):
    """Where a grounded report stands.

    Attributes:
        within: "open" before or in `<p>`, "text", "close" in `</p>`, "sentence" and "boxes" behind one that is
            complete, "blank" behind the blank after it, "box".
        written: of what it is within, so far; of a text its first character that is no blank.
        corners: of the box that is being written.
        boxed: whether the sentence has boxes.
    """

    within: str = "open"
    written: str = ""
    corners: tuple[int, ...] = ()
    boxed: bool = False

    @property
    def may_end(self) -> bool:
        return self.within in ("sentence", "boxes")

    def after(self, text: str) -> GroundedText | None:
        """Where it stands after some more text; None where that may not follow."""
        state: GroundedText | None = self
        for character in text:
            state = None if state is None else state._after(character)
        return state

    def _after(self, character: str) -> GroundedText | None:
        if self.within == "text":
            if character == "<":
                return GroundedText("close", "<") if self.written else None
            return None if character in STRUCTURE else GroundedText("text", self.written or character.strip())
        if self.within in ("open", "close"):
            literal, written = (OPEN, CLOSE)[self.within == "close"], self.written + character
            if not literal.startswith(written):
                return None
            if written != literal:
                return self._replace(written=written)
            return GroundedText("text") if self.within == "open" else GroundedText("sentence")
        if self.within == "blank":
            if character == "{" and not self.boxed:
                return GroundedText("box", "{")
            return GroundedText("open", "<") if character == "<" else None
        if self.within == "box":
            return self._in_box(character)
        if character == " ":
            return GroundedText("blank", boxed=self.within == "boxes")
        return GroundedText("box") if character == "," and self.within == "boxes" else None

    def _in_box(self, character: str) -> GroundedText | None:
        """`written` ends with what is expected to go on: "", "{", "<", digits or ">"."""
        last, corners = self.written[-1:], self.corners
        if last.isdigit():
            if character == ">":
                return (
                    GroundedText("box", ">", (*corners, int(self.written))) if self._fits(self.written, True) else None
                )
            digits = self.written + character
            return GroundedText("box", digits, corners) if character.isdigit() and self._fits(digits) else None
        if last == "<":
            return GroundedText("box", character, corners) if character.isdigit() and self._fits(character) else None
        if last == "":
            return GroundedText("box", "{") if character == "{" else None
        if len(corners) == 4:
            return GroundedText("boxes", boxed=True) if character == "}" else None
        return GroundedText("box", "<", corners) if character == "<" else None

    def _fits(self, digits: str, complete: bool = False) -> bool:
        """Whether the digits are, or begin, a coordinate with which the box can have an area."""
        low, high = (0, GRID - 1) if len(self.corners) < 2 else (self.corners[-2] + 1, GRID)
        if complete:
            return low <= int(digits) <= high
        return any(str(value).startswith(digits) for value in range(low, high + 1))


class GroundedTextProcessor(LogitsProcessor):
    """Leaves the tokens that may follow in a grounded report, for `generate(logits_processor=[...])`.

    Args:
        tokenizer: a fast one.
        rows: for each prompt of the batch whether its answer is a grounded report; others stay as they are.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[bool]):
        self._tokenizer, self._rows = tokenizer, list(rows)
        self._texts = _token_texts(tokenizer)
        self._prompt_length: int | None = None
        # New tokens of a row -> where it stands. Beams move rows, but not what they hold.
        self._states: dict[tuple[int, ...], GroundedText | None] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self._prompt_length is None:
            self._prompt_length = input_ids.shape[1]
        states: dict[tuple[int, ...], GroundedText | None] = {}
        of_a_prompt = len(input_ids) // len(self._rows)  # beams
        masks = torch.zeros_like(scores)
        for number, row in enumerate(input_ids):
            if self._rows[number // of_a_prompt]:
                tokens = tuple(row[self._prompt_length :].tolist())
                before = self._states.get(tokens[:-1], GroundedText())
                states[tokens] = state = self._after(before, tokens[-1]) if tokens else before
                if state is not None:
                    masks[number] = -torch.inf
                    masks[number, self._allowed(state, not tokens).to(masks.device)] = 0
        self._states = states
        return scores + masks

    def _after(self, state: GroundedText | None, token: int) -> GroundedText | None:
        """None behind the end of an answer, or where a beam goes on with a token that may not follow."""
        if state is None or token == self._tokenizer.eos_token_id:
            return None
        text = self._texts.of.get(token, "")
        return state.after(text.lstrip(" ") if state == GroundedText() else text)

    def _allowed(self, state: GroundedText, is_first: bool) -> torch.Tensor:
        texts = self._texts
        in_text = state.within == "text"
        candidates = texts.structural if in_text else texts.short
        fits = [token for token in candidates if self._after(state, token) is not None]
        if state == GroundedText() and not is_first:  # one blank may stand before an answer, not many
            fits = [token for token in fits if texts.of[token].strip()]
        fits += [self._tokenizer.eos_token_id] * state.may_end
        if not in_text:
            return torch.tensor(fits)
        allowed = texts.is_plain.clone()
        allowed[fits] = True
        return allowed.nonzero()[:, 0]


class TokenTexts(NamedTuple):
    """What the tokens of a vocabulary write.

    Attributes:
        of: token -> its text; tokens that write nothing, or stand for something else than text, have none.
        is_plain: (vocabulary,) bool, whether a token may stand within a sentence whatever stands before it.
        structural: tokens with a character of `STRUCTURE`.
        short: those, and all others of which boxes and the marks around sentences are made.
    """

    of: dict[int, str]
    is_plain: torch.Tensor
    structural: tuple[int, ...]
    short: tuple[int, ...]


@lru_cache(maxsize=4)
def _token_texts(tokenizer: PreTrainedTokenizerBase) -> TokenTexts:
    decode = tokenizer.backend_tokenizer.decode
    anchor = tokenizer.encode(".", add_special_tokens=False)[-1:]  # a text's first token may lose its blank
    before = decode(anchor)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    texts = {token: decode([*anchor, token])[len(before) :] for token in range(len(tokenizer)) if token not in special}
    texts = {token: text for token, text in texts.items() if text}
    structural = tuple(token for token, text in texts.items() if any(c in STRUCTURE for c in text))
    box_characters = set("0123456789<>{}, /p")
    short = tuple(t for t, text in texts.items() if t in structural or set(text) <= box_characters)
    is_plain = torch.zeros(len(tokenizer), dtype=torch.bool)
    is_plain[[token for token in texts if token not in set(structural)]] = True
    return TokenTexts(texts, is_plain, structural, short)
