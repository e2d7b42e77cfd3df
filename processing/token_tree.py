"""Many continuations of a prompt in one pass of the language model: a tree of tokens.

    tree = TokenTree()
    start = tree.add(17, after=ROOT)                # one token behind the prompt,
    ends = [tree.add(t, start) for t in (4, 5, 6)]  # three that may follow it
    logits = TreeReader(model, cache, attention_mask).read([tree])  # (1, 4, vocabulary)

Each token sees the prompt and what stands before it in its own continuation (the mask of SpecInfer, Miao et al., arXiv
2305.09781, section 4.2), so a prompt and what continuations share is read once, whatever their number.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPast

# What the library calls the cache: `past_key_values` before transformers 5.24.
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
ROOT = -1  # the prompt's last token


class TokenTree:
    """Tokens behind one prompt.

    Attributes:
        tokens: ids, those before others first.
        lineages: for each token those before it in its continuation, itself included.
    """

    def __init__(self):
        self.tokens: list[int] = []
        self.lineages: list[tuple[int, ...]] = []
        self._numbers: dict[tuple[int, int], int] = {}

    def add(self, token: int, after: int) -> int:
        """The number of `token` behind the token number `after`; one that stands there already is not added again."""
        number = self._numbers.setdefault((after, token), len(self.tokens))
        if number == len(self.tokens):
            self.tokens.append(token)
            self.lineages.append((*(() if after == ROOT else self.lineages[after]), number))
        return number

    def extend(self, tokens: Sequence[int], after: int) -> int:
        """The number of the last of several tokens, one behind the other."""
        for token in tokens:
            after = self.add(token, after)
        return after


class TreeReader:
    """Reads trees of tokens behind the prompts of a batch, as they grow.

    Args:
        model: whose cache `cache` is; it grows with what is read.
        attention_mask: (rows, prompt tokens), 0 where a prompt is padded.
    """

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, attention_mask: torch.Tensor):
        self.num_passes = self.num_tokens = 0
        self._model, self._cache, self._mask = model, cache, attention_mask
        self._places: list[list[int]] = [[] for _ in attention_mask]  # of each row's tokens, behind the prompt
        self._width = 0

    def read(self, trees: Sequence[TokenTree]) -> torch.Tensor:
        """(rows, most new tokens, vocabulary): the logits after each token that was added since the last call."""
        done = [len(places) for places in self._places]
        new = [tree.tokens[start:] for tree, start in zip(trees, done, strict=True)]
        width = max(map(len, new))
        tokens = torch.zeros(len(trees), width, dtype=torch.long)
        depths = torch.zeros(len(trees), width, dtype=torch.long)
        sees = torch.zeros(len(trees), width, self._width + width, dtype=torch.bool)
        # What fills a row up sees itself, as a softmax over nothing has no value.
        sees[:, range(width), range(self._width, self._width + width)] = True
        for row, tree in enumerate(trees):
            self._places[row] += range(self._width, self._width + len(new[row]))
            for column, lineage in enumerate(tree.lineages[done[row] :]):
                tokens[row, column], depths[row, column] = tree.tokens[lineage[-1]], len(lineage) - 1
                sees[row, column, [self._places[row][number] for number in lineage]] = True
        self._width += width
        self.num_passes += 1
        self.num_tokens += sum(map(len, new))
        return read_tree(self._model, self._cache, self._mask, tokens, depths, sees)

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all prompts but those of `rows`."""
        index = torch.tensor(rows, device=self._mask.device)
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]
        self._places = [self._places[row] for row in rows]


def read_tree(
    model: PreTrainedModel,
    cache: DynamicCache,
    attention_mask: torch.Tensor,
    tokens: torch.Tensor,
    depths: torch.Tensor,
    sees: torch.Tensor,
    logits_to_keep: torch.Tensor | int = 0,
) -> torch.Tensor:
    """(rows, kept tokens, vocabulary): logits after tokens, each of which sees its own ones of those before it.

    A language model that uses flash attention, which takes no mask of this kind, makes this pass with SDPA.

    Args:
        cache: keys and values of the prompts and of tokens that were read before; it grows by these.
        attention_mask: (rows, prompt tokens), 0 where a prompt is padded.
        tokens: (rows, tokens) ids.
        depths: (rows, tokens), how many tokens stand between the prompt and each.
        sees: (rows, tokens, tokens read behind the prompt, these included) bool.
        logits_to_keep: numbers of the tokens whose logits are given; 0: all.
    """
    device = attention_mask.device
    sees_prompt = attention_mask.to(torch.bool)[:, None, None].expand(-1, -1, tokens.shape[1], -1)
    visible = torch.cat([sees_prompt, sees.to(device)[:, None]], dim=-1)
    mask = additive_mask(visible, cache.layers[0].keys.dtype)
    with masked_attention(model.config.get_text_config()):
        output = model(
            input_ids=tokens.to(device),
            attention_mask=mask,
            position_ids=attention_mask.sum(dim=-1, keepdim=True) + depths.to(device),
            logits_to_keep=logits_to_keep,
            use_cache=True,
            **{CACHE: cache},
        )
    return output.logits


def additive_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the scores of attention, so that a token sees what is visible, a tensor of bool."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)


@contextmanager
def masked_attention(text_config: PreTrainedConfig) -> Iterator[None]:
    """In this block a language model that uses flash attention, which takes no mask of any form, uses SDPA."""
    attention = text_config._attn_implementation
    try:
        if "flash" in attention:
            text_config._attn_implementation = "sdpa"
        yield
    finally:
        text_config._attn_implementation = attention
