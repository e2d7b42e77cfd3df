"""A stand-in for Llama 2's tokenizer: its class and its rules, with merges that are learned from answers."""

import json
import random
from collections.abc import Sequence
from functools import cache

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer

from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.processing.answers import NO_FINDING, Finding, diagnoses_to_text, findings_to_text
from litegpt.processing.processing_litegpt import add_litegpt_tokens

# How SentencePiece parts a text before it merges, with Llama 2's options: at spaces, a digit alone, and letters apart
# from signs. So `><`, `},` and `▁{` can be one token, as in Llama 2, and a coordinate is a token a digit.
PIECES = Regex(r"▁?\p{L}+|\p{N}|▁?[^\p{L}\p{N}▁]+|▁")


def llama_like_tokenizer(
    finding_labels: Sequence[str], diagnosis_labels: Sequence[str], num_tokens: int = 700, **options: bool
) -> LlamaTokenizer:
    """transformers' own `LlamaTokenizer` (BPE with byte fallback), with LiteGPT's tokens added.

    Args:
        finding_labels, diagnosis_labels: that the answers name, from which the merges are learned.
        num_tokens: at most, before LiteGPT's tokens are added; the 256 bytes are among them.
        options: of `LlamaTokenizer`.
    """
    vocabulary, merges = _trained(tuple(finding_labels), tuple(diagnosis_labels), num_tokens)
    tokenizer = LlamaTokenizer(vocab=dict(vocabulary), merges=list(merges), **options)
    add_litegpt_tokens(tokenizer)
    return tokenizer


@cache
def _trained(
    finding_labels: tuple[str, ...], diagnosis_labels: tuple[str, ...], num_tokens: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    rng = random.Random(0)
    texts = [f"[INST] {instruction} [/INST]" for instruction in instructions_for(diagnosis_labels).values()] * 20
    for _ in range(500):
        labels = rng.choices(finding_labels, k=rng.randint(1, 4))
        texts.append(findings_to_text([Finding(label, random_box(rng)) for label in labels]))
        names = [label for label in diagnosis_labels if label != NO_FINDING and rng.random() < 0.3]
        texts.append(diagnoses_to_text(names))
    texts.append(findings_to_text([]))

    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.pre_tokenizer = pre_tokenizers.Split(PIECES, "isolated")
    # Signs of other alphabets are no tokens of their own, so the bytes have to write them.
    alphabet = [chr(code) for code in range(33, 127)] + ["▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        min_frequency=2,
        show_progress=False,
    )
    bpe.train_from_iterator(("▁" + text.replace(" ", "▁") for text in texts), trainer)
    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def random_box(rng: random.Random) -> tuple[float, float, float, float]:
    x1, x2 = sorted(rng.sample(range(101), 2))
    y1, y2 = sorted(rng.sample(range(101), 2))
    return x1 / 100, y1 / 100, x2 / 100, y2 / 100
