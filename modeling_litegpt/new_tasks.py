"""Tasks that a checkpoint does not know yet: their identifiers become tokens, which start as what their text means.

    added = add_tasks(model, processor, ["refer", "describe"])     # "[refer], [describe] and 2 new tokens"
    grow_to(base_model, base_processor.tokenizer, adapter_processor.tokenizer)

A new token's rows in embeddings and head are the mean of its text's pieces' rows, so the same checkpoint grows to the
same weights every time: an adapter that was trained on grown embeddings need not hold the rest of them.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import AddedToken

from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.modeling_litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.processing.processing_litegpt import LITEGPT_TOKENS, LiteGPTProcessor, add_litegpt_tokens
from litegpt.processing.tasks import TASKS

# What MiniGPT-v2 and LiteGPT's release wrote where ours has a token of its own.
PUBLISHED_TEXTS = {"<image>": "<Img>", "</image>": "</Img>"}


def add_tasks(model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, tasks: Iterable[str]) -> str | None:
    """Teaches a checkpoint to be asked tasks: adds identifiers and instructions; what they are is yet to be trained.

    Args:
        tasks: names; those that it knows, and those that nobody knows, are left alone.

    Returns:
        What was added, in words; None where it knows them all.
    """
    new = [task for task in dict.fromkeys(tasks) if task in TASKS and task not in processor.instructions]
    if not new:
        return None
    tokenizer = processor.tokenizer
    known = tokenizer.get_vocab()
    identifiers = dict.fromkeys(TASKS[task].identifier for task in new)
    missing = [identifier for identifier in identifiers if identifier and identifier not in known]
    pieces = _pieces(tokenizer, missing)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in missing])
    grow(model, {tokenizer.convert_tokens_to_ids(token): ids for token, ids in pieces.items()})
    instructions = instructions_for(processor.diagnosis_labels)
    processor.instructions |= {task: instructions[task] for task in new}
    processor.__dict__.pop("answer_grammar", None)  # it was made for the tasks before
    return f"{', '.join(f'[{task}]' for task in new)}, and {len(missing)} new tokens that start as their texts' means"


def grow_to(
    model: LiteGPTForConditionalGeneration, known: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Gives a model rows for the tokens that `tokenizer` has beyond `known`, that of the model's checkpoint."""
    before = known.get_vocab()
    new = {token: number for token, number in tokenizer.get_vocab().items() if token not in before}
    grow(model, {new[token]: ids for token, ids in _pieces(known, new).items()})


def grow(model: LiteGPTForConditionalGeneration, pieces: Mapping[int, Sequence[int]]) -> None:
    """Sets the rows of new tokens, in embeddings and head, to the means of their pieces' rows.

    Args:
        pieces: id of each new token -> ids of its pieces. There are rows for all of them afterwards.
    """
    if not pieces:
        return
    embeddings = model.get_input_embeddings()
    if max(pieces) >= embeddings.num_embeddings:
        # Beyond what the tokenizer knows Llama 2's embeddings may have rows to spare.
        model.resize_token_embeddings(max(pieces) + 1, mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    ids = list(pieces.values())
    with torch.no_grad():
        for weight in {id(layer.weight): layer.weight for layer in layers}.values():
            weight[list(pieces)] = with_new_rows(weight, ids)[len(weight) :]


def pieces_of_new_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, list[int]]:
    """Adds LiteGPT's tokens; id of each new one -> ids of the pieces that the tokenizer made of its text before."""
    if tokenizer.unk_token_id is None:
        raise ValueError("--llama: the tokenizer has no unknown token, whose row the unused rows would have")
    known = set(tokenizer.get_vocab())
    pieces = _pieces(tokenizer, [token for token in ("<pad>", *LITEGPT_TOKENS) if token not in known])
    add_litegpt_tokens(tokenizer)
    known = tokenizer.get_vocab()
    return {known[token]: ids for token, ids in pieces.items() if token in known}


def _pieces(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> dict[str, list[int]]:
    return {
        token: tokenizer(PUBLISHED_TEXTS.get(token, token), add_special_tokens=False)["input_ids"] for token in tokens
    }


def with_new_rows(weight: torch.Tensor, new_rows: list[list[int]]) -> torch.Tensor:
    """Embeddings or head with one row more for each list of ids: the mean of those ids' rows.

    So `[identify]` starts as what the language model knows it by, and no new token is ever more likely than the
    likeliest of its pieces.

    Args:
        weight: (vocabulary, width).
        new_rows: ids of each new row's pieces.

    Returns:
        (vocabulary + new rows, width) of the same dtype; means are taken in float32.
    """
    if not new_rows:
        return weight
    means = torch.stack([weight[ids].float().mean(dim=0) for ids in new_rows])
    return torch.cat([weight, means.to(weight.dtype)])
