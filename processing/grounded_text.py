"""Grounded reports as they are written: words are free, the boxes in them have their form.

    <p>There is cardiomegaly.</p> {<38><52><81><74>} <p>There is no pleural effusion.</p>

`GroundedText` reads such an answer character by character and says what may follow; `GroundedTextProcessor` leaves the
tokens that may follow in any decoding of `generate`. Between <p> and </p> stands any text without < > { }, elsewhere
nothing but boxes, each with an area. What `answers.text_to_sentences` parses is what this allows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import LogitsProcessor

from .findings_language import GRID

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STRUCTURE = "<>{}"
OPEN, CLOSE = "<p>", "</p>"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how a vocabulary names a byte


class GroundedText(NamedTuple):
    """Where a grounded report stands.

    Attributes:
        within: "start" before the report, "open" before or in `<p>`, "text", "close" in `</p>`, "sentence" and "boxes"
            behind one that is complete, "blank" behind the blank after it, "box".
        written: of what it is within, so far; of a text only whether it has more than blanks.
        corners: of the box that is being written.
        boxed: whether the sentence has boxes.
    """

    within: str = "start"
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
        if self.within == "start":  # behind `[/INST]` stands a blank, which some tokenizers write
            return GroundedText("open") if character == " " else GroundedText("open")._after(character)
        if self.within == "text":
            if character == "<":
                return GroundedText("close", "<") if self.written else None
            more_than_blanks = self.written or ("" if character.isspace() else "...")
            return None if character in STRUCTURE else GroundedText("text", more_than_blanks)
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
        self._eos, self._rows = tokenizer.eos_token_id, list(rows)
        self._texts = _token_texts(tokenizer)
        self._prompt_length: int | None = None
        # New tokens of a row -> where it stands. Beams move rows, but not what they hold.
        self._prefixes: dict[tuple[int, ...], Prefix | None] = {}
        self._allowed: dict[Prefix, torch.Tensor] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self._prompt_length is None:
            self._prompt_length = input_ids.shape[1]
        prefixes: dict[tuple[int, ...], Prefix | None] = {}
        of_a_prompt = len(input_ids) // len(self._rows)  # beams
        masks = torch.zeros_like(scores)
        for number, row in enumerate(input_ids):
            if self._rows[number // of_a_prompt]:
                tokens = tuple(row[self._prompt_length :].tolist())
                if tokens and tokens[:-1] in self._prefixes:
                    prefix = self._after(self._prefixes[tokens[:-1]], tokens[-1])
                else:
                    prefix = reduce(self._after, tokens, Prefix())
                prefixes[tokens] = prefix
                if prefix is not None:
                    if prefix not in self._allowed:
                        self._allowed[prefix] = self._that_may_follow(prefix).to(masks.device)
                    masks[number] = -torch.inf
                    masks[number, self._allowed[prefix]] = 0
        self._prefixes = prefixes
        return scores + masks

    def _after(self, prefix: Prefix | None, token: int) -> Prefix | None:
        """None behind the end of an answer, or where a beam goes on with a token that may not follow."""
        if prefix is None or token == self._eos:
            return None
        state, begun = prefix
        byte = self._texts.bytes_of.get(token)
        if byte is None:
            text = self._texts.of.get(token)
            state = None if begun or text is None else state.after(text)
            return None if state is None else Prefix(state)
        try:
            state = state.after((begun + byte).decode())
        except UnicodeDecodeError as error:
            return Prefix(state, begun + byte) if error.reason == "unexpected end of data" else None
        return None if state is None else Prefix(state)

    def _that_may_follow(self, prefix: Prefix) -> torch.Tensor:
        texts = self._texts
        in_text = prefix.state.within == "text"
        candidates = [*(texts.structural if in_text else texts.short), *(texts.bytes_of if in_text else ())]
        fits = [token for token in candidates if self._after(prefix, token) is not None]
        if in_text and not prefix.begun:
            fits += texts.plain
        return torch.tensor(fits + [self._eos] * prefix.state.may_end)


class Prefix(NamedTuple):
    """Where an answer stands, and the bytes of a character that is not complete.

    A byte that is a token of its own is text only with the others of its character: a tokenizer with such tokens reads
    nothing in a row of bytes, `<` too, where one of its characters is not complete.
    """

    state: GroundedText = GroundedText()
    begun: bytes = b""


class TokenTexts(NamedTuple):
    """What the tokens of a vocabulary write.

    Attributes:
        of: token -> its text; tokens that write nothing, or stand for something else than text, have none.
        bytes_of: token -> the byte that it writes, where that is no character by itself.
        plain: tokens that may stand within a sentence whatever stands before them.
        structural: tokens with a character of `STRUCTURE`.
        short: those, and all others of which boxes and the marks around sentences are made.
    """

    of: dict[int, str]
    bytes_of: dict[int, bytes]
    plain: list[int]
    structural: list[int]
    short: list[int]


@lru_cache(maxsize=4)
def _token_texts(tokenizer: PreTrainedTokenizerBase) -> TokenTexts:
    decode = tokenizer.backend_tokenizer.decode
    anchor = tokenizer.encode(".", add_special_tokens=False)[-1:]  # a text's first token may lose its blank
    before = decode(anchor)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    texts = {token: decode([*anchor, token])[len(before) :] for token in range(len(tokenizer)) if token not in special}
    names = zip(texts, tokenizer.convert_ids_to_tokens(list(texts)), strict=True)
    fallback = {token: _BYTE.fullmatch(name) for token, name in names if texts[token] == "\N{REPLACEMENT CHARACTER}"}
    bytes_of = {token: bytes.fromhex(byte[1]) for token, byte in fallback.items() if byte is not None}
    texts = {token: text for token, text in texts.items() if text and token not in bytes_of}
    structural = [token for token, text in texts.items() if not set(STRUCTURE).isdisjoint(text)]
    plain = [token for token, text in texts.items() if set(STRUCTURE).isdisjoint(text)]
    short = structural + [token for token in plain if set(texts[token]) <= set("0123456789, /p")]
    return TokenTexts(texts, bytes_of, plain, structural, short)
