"""A tokenizer for tiny models, trained on the answers' own language.

In: a data set's labels. Out: a tokenizer of some 450 tokens, to which a label and a coordinate are one token each.

    tokenizer = train_tokenizer(["Cardiomegaly", ...], ["COPD", ..., "No finding"])
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.processing.answers import Finding, diagnoses_to_text, findings_to_text


def train_tokenizer(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of some 450 tokens to which a label, a coordinate and a stock phrase are one token each.

    Its vocabulary is the pieces that answers and prompts are made of, so sequences are short and the head is small.
    Any other text falls back to bytes, so nothing is unknown to it.
    """
    pieces = Regex(r" ?\w+ diseases of this chest radiograph are |<\d{1,3}>|<p>|</p> \{|\},?|[.,?:]")
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "isolated"), pre_tokenizers.Metaspace(prepend_scheme="first", split=False)]
    )
    counts: Counter[str] = Counter()
    for text in _tokenizer_corpus(finding_labels, diagnosis_labels):
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    fallback = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "[INST]▁"]
    vocabulary = [(token, -20.0) for token in fallback]
    vocabulary += [(piece, math.log(count / counts.total())) for piece, count in sorted(counts.items())]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def _tokenizer_corpus(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> Iterator[str]:
    """Random answers, in which every label and every coordinate occurs, and the prompts."""
    rng = random.Random(0)
    instructions = instructions_for(diagnosis_labels)
    for _ in range(4000):
        findings = []
        for label in rng.sample(list(finding_labels), rng.randint(0, min(4, len(finding_labels)))):
            x1, x2 = sorted(rng.sample(range(101), 2))
            y1, y2 = sorted(rng.sample(range(101), 2))
            findings.append(Finding(label, (x1 / 100, y1 / 100, x2 / 100, y2 / 100)))
        yield findings_to_text(findings)
        yield diagnoses_to_text(rng.sample(list(diagnosis_labels), rng.randint(0, min(3, len(diagnosis_labels)))))
        yield from (f" {instruction} [/INST]" for instruction in instructions.values())
