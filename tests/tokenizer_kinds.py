"""A tokenizer of each kind that a language model may bring, made in the test."""

import random
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from litegpt.modeling_litegpt.answer_tokenizer import train_tokenizer
from litegpt.processing.answers import Finding, diagnoses_to_text, findings_to_text
from tests.llama_like_tokenizer import llama_like_tokenizer, random_box


def llama_file_tokenizer(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> PreTrainedTokenizerFast:
    """Llama 2's rules as its published `tokenizer.json` has them: a normalizer in the pre-tokenizer's place."""
    tokenizer = llama_like_tokenizer(finding_labels, diagnosis_labels).backend_tokenizer
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _with_bos(tokenizer, unk_token="<unk>")


def byte_level_tokenizer(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> PreTrainedTokenizerFast:
    """As GPT-2's: letters, numbers and signs are parted before they are merged, a number may be one token."""
    rng = random.Random(0)
    texts = [findings_to_text([Finding(label, random_box(rng)) for _ in range(20)]) for label in finding_labels]
    texts += [diagnoses_to_text(diagnosis_labels)] * 5
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_bos(tokenizer)


def _with_bos(tokenizer: Tokenizer, **special_tokens: str) -> PreTrainedTokenizerFast:
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        **special_tokens,
    )


TOKENIZERS: dict[str, Callable[..., PreTrainedTokenizerBase]] = {
    "tiny": train_tokenizer,
    "Llama": llama_like_tokenizer,
    "Llama's file": llama_file_tokenizer,
    "byte level": byte_level_tokenizer,
}
