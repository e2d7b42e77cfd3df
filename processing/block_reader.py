"""A language model that reads a block of tokens a pass, for rows whose answers grow by different numbers of tokens.

    reader = BlockReader(model, input_ids, allowed, position_ids=..., attention_mask=..., **inputs)
    choices = reader.read(blocks, nodes, num_read)    # reads each row's block; the first pass reads the prompts, too
    reader.keep(num_right, is_running)                # forgets what was guessed wrongly, and rows that have ended

In: the prompts of a batch, then for each row tokens to read and for each of them the number of the set of tokens that
may follow it. Out: `Choices`, the most probable of these, and the probabilities of all.

`BlockReader` has the library's growing cache. `CompiledReader` reads blocks of a few fixed widths into a cache of
fixed size, so that a pass can be compiled once and, on a GPU, replayed as a CUDA graph: of a small model, or of a
large one at a small batch, most of a pass is else the time in which Python launches what is computed.
"""

import copy
import os
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from .token_tree import CACHE, additive_mask, masked_attention

STEP = 16  # a compiled block is as wide as a multiple of it
CAPACITY_STEP = 128  # and its cache as long as one of this
_compiled: "WeakKeyDictionary[PreTrainedModel, CompiledPass]" = WeakKeyDictionary()


class Allowed(NamedTuple):
    """Sets of tokens, by number.

    Attributes:
        tokens: (sets, largest set) ids.
        is_one: the same shape, bool: whether there is one in this place.
    """

    tokens: torch.Tensor
    is_one: torch.Tensor


class Choices(NamedTuple):
    """What may follow each token of each row's block.

    Attributes:
        candidates, probabilities: (rows, width, largest set) ids and float32; 0 where there is no candidate.
        chosen: a list a row, a token each: the most probable candidate, and its probability.
    """

    candidates: torch.Tensor
    probabilities: torch.Tensor
    chosen: list[list[tuple[int, float]]]


class BlockReader:
    """Reads blocks into the library's growing cache.

    A pass puts the tokens of all rows after the longest row. What then lies between a row's own tokens is masked, and
    their positions are given. Rows about the same radiograph (the same tensor of visual tokens) whose prompts begin
    alike have that beginning, with the radiograph, read once for all of them.

    Attributes:
        num_passes: over blocks so far; what of the prompts is read before belongs to the first.
        first_logits: (rows, vocabulary), after each prompt.

    Args:
        allowed: what `nodes` of `read` count, on the model's device.
        inputs: as `generate` has prepared them for the model's first pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        input_ids: torch.LongTensor,
        allowed: Allowed,
        position_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None,
        **inputs: Any,
    ):
        self.model, self.num_passes = model, 0
        self.device = input_ids.device
        self.first_logits: torch.Tensor | None = None
        self._allowed = allowed
        self._cache: DynamicCache = inputs.pop(CACHE)
        self._last_position = position_ids[:, -1:]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        shared = _shared_beginning(model, input_ids, mask, inputs)
        if shared is not None:
            rows, length = shared
            self._read_beginning(input_ids, position_ids, mask, inputs, rows, length)
            inputs = {}
            rest = (mask.sum(dim=1) - length).tolist()
            input_ids, position_ids = input_ids[:, -max(rest) :], position_ids[:, -max(rest) :]
            columns = torch.arange(max(rest), device=self.device)
            is_rest = columns >= max(rest) - torch.tensor(rest, device=self.device)[:, None]
            # No placeholders, whose radiograph is read already.
            input_ids = input_ids.where(is_rest, input_ids[:, -1:])
            mask = torch.cat([mask.new_ones(len(mask), length), is_rest.to(mask.dtype)], dim=1)
        # The first pass reads the prompt (and image) too, but for its last token, which the first blocks begin with.
        self._prompt = {"input_ids": input_ids[:, :-1], "position_ids": position_ids[:, :-1]}
        self._inputs, self._prompt_mask, self._mask = inputs, mask, mask[:, :-1]

    def most_guesses(self, certain: int, wanted: int) -> int:
        """How many guesses may follow the certain tokens of a block, of which the longest has `certain`."""
        return wanted

    def read(self, blocks: Sequence[list[int]], nodes: Sequence[list[int]], num_read: list[int]) -> Choices:
        """What the model chooses after each token of each row's block.

        Args:
            nodes: for each token the number of the set of those that may follow.
            num_read: how many tokens each row has read, from the prompt's last one on.
        """
        tokens, after, places, lengths = self._on_device(blocks, nodes, num_read)
        positions = self._last_position + places
        is_read = torch.arange(tokens.shape[1], device=self.device) < lengths
        width, is_first = tokens.shape[1], self.num_passes == 0
        if is_first:
            tokens = torch.cat([self._prompt["input_ids"], tokens], dim=1)
            positions = torch.cat([self._prompt["position_ids"], positions], dim=1)
        inputs = {
            **self._inputs,
            "input_ids": tokens,
            "position_ids": positions,
            "attention_mask": torch.cat([self._mask, is_read.to(self._mask.dtype)], dim=1),
            CACHE: self._cache,
            "use_cache": True,
            "logits_to_keep": width,
        }
        self.num_passes += 1
        self._inputs, self._width = {}, width
        logits = self.model(**inputs).logits.to(self.device)
        if is_first:
            self.first_logits = logits[:, 0]
        return _as_choices(*choose(logits, after, self._allowed))

    def keep(self, num_right: list[int], is_running: list[bool]) -> None:
        """Forgets what of the last blocks lies after the right tokens, and rows whose answers have ended."""
        rows = [row for row, goes_on in enumerate(is_running) if goes_on]
        if not rows:
            return
        right = torch.tensor([[num_right[row]] for row in rows], device=self.device)
        longest = max(num_right[row] for row in rows)
        self._cache.crop(longest - self._width)
        if len(rows) < len(is_running):
            index = torch.tensor(rows, device=self.device)
            self._cache.batch_select_indices(index)
            self._mask, self._last_position = self._mask[index], self._last_position[index]
        is_right = torch.arange(longest, device=self.device) < right
        self._mask = torch.cat([self._mask, is_right.to(self._mask.dtype)], dim=1)

    def prompts(self, rows: list[int]) -> tuple[DynamicCache, torch.Tensor]:
        """Cache and attention mask of some rows' prompts alone, after the first pass."""
        cache, length = DynamicCache(), self._prompt_mask.shape[1]
        for number, layer in enumerate(self._cache.layers):
            cache.update(layer.keys[rows, :, :length], layer.values[rows, :, :length], number)
        return cache, self._prompt_mask[rows]

    def _read_beginning(
        self,
        input_ids: torch.LongTensor,
        position_ids: torch.LongTensor,
        mask: torch.LongTensor,
        inputs: dict[str, Any],
        rows: list[int],
        length: int,
    ) -> None:
        """Reads the first `length` tokens of each radiograph's prompts once; `rows` tells each row's radiograph."""
        first_rows = [rows.index(image) for image in range(max(rows) + 1)]  # about each radiograph
        starts = input_ids.shape[1] - mask.sum(dim=1)[first_rows]
        columns = starts[:, None] + torch.arange(length, device=self.device)
        visual = inputs["mm_encoder_outputs"]["image"]
        once = type(visual)(pooler_output=[visual.pooler_output[row] for row in first_rows])
        self.model(
            input_ids=input_ids[first_rows].gather(1, columns),
            position_ids=position_ids[first_rows].gather(1, columns),
            mm_encoder_outputs={"image": once},
            **{CACHE: self._cache},
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache.batch_select_indices(torch.tensor(rows, device=self.device))

    def _on_device(
        self, blocks: Sequence[list[int]], nodes: Sequence[list[int]], num_read: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(rows, width) tokens, nodes, and places behind the prompt; (rows, 1) lengths: in one transfer."""
        width = max(map(len, blocks))
        lines = [
            [*_padded(tokens, width), *_padded(after, width), read, len(tokens)]
            for tokens, after, read in zip(blocks, nodes, num_read, strict=True)
        ]
        packed = torch.tensor(lines).to(self.device, non_blocking=True)
        places = packed[:, -2:-1] + torch.arange(width, device=self.device)
        return packed[:, :width], packed[:, width : 2 * width], places, packed[:, -1:]


class CompiledReader(BlockReader):
    """Reads blocks into a cache of fixed size by a compiled pass; the first one, with the prompts, is `BlockReader`'s.

    A row's tokens lie one after the other, so what was guessed wrongly is overwritten. Rows whose answers have ended
    are read along, until half of all have.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.model not in _compiled:
            _compiled[self.model] = CompiledPass(self.model)
        self._pass = _compiled[self.model]
        self._rows: list[int] = []  # of the compiled pass, for each row whose answer goes on

    def most_guesses(self, certain: int, wanted: int) -> int:
        return wanted if self.num_passes == 0 else _round_up(certain, STEP) - certain

    def read(self, blocks: Sequence[list[int]], nodes: Sequence[list[int]], num_read: list[int]) -> Choices:
        if self.num_passes == 0:
            return super().read(blocks, nodes, num_read)
        width = _round_up(max(map(len, blocks)), STEP)
        lines = [[0] * (2 * width + 1) for _ in range(self._pass.rows)]
        for row, tokens, after, read in zip(self._rows, blocks, nodes, num_read, strict=True):
            lines[row] = [*_padded(tokens, width), *_padded(after, width), read]
        self.num_passes += 1
        chosen = self._pass.read(torch.tensor(lines), max(num_read) + width)
        return _as_choices(*(of_all_rows[self._rows] for of_all_rows in chosen))

    def keep(self, num_right: list[int], is_running: list[bool]) -> None:
        if not self._rows:
            super().keep(num_right, is_running)
            right = [num for num, goes_on in zip(num_right, is_running, strict=True) if goes_on]
            if right:
                self._pass.begin(self._cache, self._mask, self._last_position, right, self._allowed)
                self._rows = list(range(len(right)))
            return
        self._rows = [row for row, goes_on in zip(self._rows, is_running, strict=True) if goes_on]
        if self._rows and _power_of_two(len(self._rows)) < self._pass.rows:
            self._pass.select(self._rows)
            self._rows = list(range(len(self._rows)))


class CompiledPass:
    """One pass over a block of tokens for each row, compiled; on a GPU it is a CUDA graph for each number of rows.

    It is kept as long as its model, with a cache for the most rows and tokens that were asked for.

    Attributes:
        rows: a power of two.
    """

    def __init__(self, model: PreTrainedModel):
        # Not the model, which would keep it in `_compiled` for ever.
        self._embed, self._head = model.get_input_embeddings(), model.get_output_embeddings()
        self._language_model, self._config = model.model.language_model, model.config.get_text_config()
        self.rows = 0
        self._slots: _Slots | None = None  # for the most rows and tokens so far
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, torch.Tensor, tuple[torch.Tensor, ...]]] = {}
        self._allowed: Allowed | None = None
        self._length = 0  # tokens in the cache before the first compiled pass
        self._function = torch.compile(self._read, dynamic=True)

    def begin(
        self,
        cache: DynamicCache,
        mask: torch.Tensor,
        last_position: torch.Tensor,
        num_right: list[int],
        allowed: Allowed,
    ) -> None:
        """Takes over what has been read: prompts, and `num_right` tokens of each row's first block.

        Args:
            mask: (rows, tokens read), 0 where a row has none.
            last_position: (rows, 1), of each prompt's last token.
        """
        rows, self._length = mask.shape
        self.rows = _power_of_two(rows)
        self._make_room(cache, self._length + 4 * STEP, allowed)
        self._slots.take(cache, mask, last_position, torch.tensor(num_right, device=mask.device))
        self._of_rows = self._slots.of_rows(self.rows)

    def read(self, lines: torch.Tensor, most_read: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `choose` returns, of all rows.

        Args:
            lines: (rows, 2 width + 1), on the CPU: the tokens of a block, their nodes, how many were read before.
            most_read: tokens behind a prompt, after this pass.
        """
        if self._length + most_read > self._slots.capacity:
            self._slots = self._slots.longer(_round_up(self._length + most_read, CAPACITY_STEP))
            self._graphs.clear()
            self._of_rows = self._slots.of_rows(self.rows)
        device = self._slots.visible.device
        if device.type != "cuda":
            with masked_attention(self._config):
                return self._function(lines, *self._of_rows)
        key = len(lines), lines.shape[1]
        if key not in self._graphs:
            with masked_attention(self._config):
                self._graphs[key] = self._captured(lines.to(device))
        graph, inputs, outputs = self._graphs[key]
        inputs.copy_(lines, non_blocking=True)
        graph.replay()
        return outputs

    def select(self, rows: list[int]) -> None:
        """Forgets all rows but these."""
        self.rows = _power_of_two(len(rows))
        self._slots.select(rows)
        self._of_rows = self._slots.of_rows(self.rows)

    def _read(
        self,
        lines: torch.Tensor,
        visible: torch.Tensor,
        first_slot: torch.Tensor,
        first_position: torch.Tensor,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        width = lines.shape[1] // 2
        places = lines[:, -1:] + torch.arange(width, device=lines.device)
        slots = first_slot + places
        sees = visible[:, None] & (torch.arange(visible.shape[1], device=lines.device) <= slots[..., None])
        output = self._language_model(
            inputs_embeds=self._embed(lines[:, :width]),
            position_ids=first_position + places,
            attention_mask=additive_mask(sees[:, None], self._embed.weight.dtype),
            use_cache=True,
            **{CACHE: Cache(layers=[_SlotLayer(*of_layer, slots) for of_layer in zip(keys, values, strict=True)])},
        )
        return choose(self._head(output.last_hidden_state), lines[:, width:-1], self._allowed)

    @torch.no_grad()
    def _captured(self, lines: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, tuple[torch.Tensor, ...]]:
        """A CUDA graph of the pass with where its input lies, and its outputs."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiled, and warmed up, beside the graph
            for _ in range(2):
                self._function(lines, *self._of_rows)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._function(lines, *self._of_rows)
        return graph, lines, outputs

    def _make_room(self, cache: DynamicCache, length: int, allowed: Allowed) -> None:
        """Room for `rows` and so many tokens; graphs go where what they were captured with does."""
        slots, like = self._slots, cache.layers[0].keys
        fits = slots is not None and len(slots.visible) >= self.rows and slots.capacity >= length
        if not fits or slots.keys[0].device != like.device or slots.keys[0].dtype != like.dtype:
            most_rows = self.rows if slots is None else max(self.rows, len(slots.visible))
            self._slots = _Slots(cache, most_rows, _round_up(length, CAPACITY_STEP))
            self._graphs.clear()
        if self._allowed is not allowed:
            self._allowed = allowed
            self._graphs.clear()


class _Slots:
    """A cache of fixed size.

    Attributes:
        keys, values: a tensor a layer, (rows, capacity, heads, width of a head).
        visible: (rows, capacity) bool: False where padding lies, or a wrong guess of the first block.
        first_slot, first_position: (rows, 1), of the prompt's last token as if all behind it lay beside it.
    """

    def __init__(self, like: DynamicCache, rows: int, capacity: int):
        self.capacity = capacity
        self.keys, self.values = (
            [
                of.new_zeros(rows, capacity, of.shape[1], of.shape[3])
                for of in (getattr(layer, name) for layer in like.layers)
            ]
            for name in ("keys", "values")
        )
        device = self.keys[0].device
        self.visible = torch.ones(rows, capacity, dtype=torch.bool, device=device)
        self.first_slot, self.first_position = torch.zeros(2, rows, 1, dtype=torch.long, device=device)

    def take(
        self, cache: DynamicCache, mask: torch.Tensor, last_position: torch.Tensor, num_right: torch.Tensor
    ) -> None:
        """Copies what `CompiledPass.begin` is given."""
        rows, length = mask.shape
        for keys, values, read in zip(self.keys, self.values, cache.layers, strict=True):
            keys[:rows, :length] = read.keys.transpose(1, 2)
            values[:rows, :length] = read.values.transpose(1, 2)
        self.visible.fill_(True)
        self.visible[:rows, :length] = mask.bool()
        self.first_slot.fill_(length)
        self.first_slot[:rows, 0] -= num_right
        self.first_position[:rows] = last_position

    def of_rows(self, rows: int) -> tuple[Any, ...]:
        """What a pass over the first rows takes."""
        of_layers = [[of[:rows] for of in tensors] for tensors in (self.keys, self.values)]
        return self.visible[:rows], self.first_slot[:rows], self.first_position[:rows], *of_layers

    def select(self, rows: list[int]) -> None:
        for of in (self.visible, self.first_slot, self.first_position, *self.keys, *self.values):
            of[: len(rows)] = of[rows]

    def longer(self, capacity: int) -> "_Slots":
        """The same with room for more tokens."""
        slots = copy.copy(self)
        slots.capacity, more = capacity, capacity - self.capacity
        slots.visible = nn.functional.pad(self.visible, (0, more), value=True)
        slots.keys, slots.values = (
            [nn.functional.pad(of, (0, 0, 0, 0, 0, more)) for of in tensors] for tensors in (self.keys, self.values)
        )
        return slots


class _SlotLayer(CacheLayerMixin):
    """A layer of a cache that writes new tokens where it is told to.

    Args:
        stored_keys, stored_values: (rows, capacity, heads, width of a head).
        slots: (rows, new tokens).
    """

    is_compileable, is_sliding = True, False

    def __init__(self, stored_keys: torch.Tensor, stored_values: torch.Tensor, slots: torch.Tensor):
        super().__init__()
        self.stored_keys, self.stored_values = stored_keys, stored_values
        self.places = torch.arange(len(slots), device=slots.device)[:, None], slots

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.stored_keys.index_put_(self.places, key_states.transpose(1, 2))
        self.stored_values.index_put_(self.places, value_states.transpose(1, 2))
        return self.stored_keys.transpose(1, 2), self.stored_values.transpose(1, 2)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is left to do."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.stored_keys.shape[1], 0

    def get_seq_length(self) -> int:
        return self.stored_keys.shape[1]  # positions are given

    def get_max_length(self) -> int:
        return self.stored_keys.shape[1]


def choose(
    logits: torch.Tensor, nodes: torch.Tensor, allowed: Allowed
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rows, width, largest set) candidates and probabilities; (rows, width, 2) the most probable, and how probable.

    Args:
        logits: (rows, width, vocabulary).
        nodes: (rows, width), the number of the set of tokens that may follow.
    """
    candidates = allowed.tokens[nodes]
    scores = logits.gather(-1, candidates).float().masked_fill(~allowed.is_one[nodes], -torch.inf)
    probabilities = scores.softmax(dim=-1)
    chosen = candidates.gather(-1, scores.argmax(dim=-1, keepdim=True))
    best = torch.cat([chosen.double(), probabilities.amax(dim=-1, keepdim=True).double()], dim=-1)
    return candidates, probabilities, best


def _as_choices(candidates: torch.Tensor, probabilities: torch.Tensor, best: torch.Tensor) -> Choices:
    chosen = [[(int(token), probability) for token, probability in row] for row in best.tolist()]
    return Choices(candidates, probabilities, chosen)


def _shared_beginning(
    model: PreTrainedModel, input_ids: torch.LongTensor, mask: torch.Tensor, inputs: dict[str, Any]
) -> tuple[list[int], int] | None:
    """The number of each row's radiograph, and how many tokens all prompts have in common, up to one radiograph each.

    None where no two rows are about the same radiograph, or prompts do not begin alike.
    """
    image = (inputs.get("mm_encoder_outputs") or {}).get("image")
    visual = [] if image is None else list(image.pooler_output)
    numbers = {id(of): number for number, of in enumerate({id(of): of for of in visual}.values())}
    if len(visual) != len(input_ids) or len(numbers) == len(visual):
        return None
    placeholder = model.config.image_token_id
    starts = (mask.shape[1] - mask.sum(dim=1)).tolist()
    prompts = [row[start:] for row, start in zip(input_ids.tolist(), starts, strict=True)]
    length = min(len(os.path.commonprefix(prompts)), *(len(prompt) - 1 for prompt in prompts))
    if any(placeholder in prompt[length:] for prompt in prompts):
        return None
    return [numbers[id(of)] for of in visual], length


def _padded(tokens: list[int], width: int) -> list[int]:
    return tokens + [0] * (width - len(tokens))


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step
