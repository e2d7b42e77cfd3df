"""A tokenizer for tiny models, trained on the answers' own language.

In: a data set's labels. Out: a tokenizer of some 550 tokens, to which a label and a coordinate are one token each, and
a word of template reports, phrases and questions too.

    tokenizer = train_tokenizer(["Cardiomegaly", ...], ["COPD", ..., "No finding"])

    words = frequent_words(texts_of(rows))                  # of other reports and questions
    tokenizer = train_tokenizer(findings, diagnoses, words)
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.datasets_scripts.template_words import template_texts
from litegpt.processing.answers import (
    PLACES_PREFIX,
    Finding,
    box_to_text,
    diagnoses_to_text,
    findings_to_text,
    places_to_text,
    sentences_to_text,
)

WORD_COLUMNS = ("report_findings", "sentences", "phrase", "qa", "chat")
MAX_WORDS = 2000  # of other texts than templates
# Below every piece of the answers, so that these stay whole; above the fallback to bytes.
WORD_SCORE, FALLBACK_SCORE = -15.0, -20.0

_PIECES = Regex(
    rf" ?\w+ diseases of this chest radiograph are | ?{PLACES_PREFIX}"
    r"|<\d{1,3}>| ?<p>|</p>(?: \{)?| ?\{|\},?|[.,?:]"
)
_WORD = re.compile(r"▁?\w+|▁?[^\w▁]")
_FIRST_WORD = re.compile(r"(?:^|[.?!] )(\w+)")


def train_tokenizer(
    finding_labels: Sequence[str], diagnosis_labels: Sequence[str], words: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer of some 550 tokens to which a label, a coordinate and a stock phrase are one token each.

    Its vocabulary is the pieces that answers and prompts are made of, so sequences are short and the head is small;
    and the words of template reports, phrases and questions, and others. Any other text falls back to bytes, so
    nothing is unknown to it.

    Args:
        words: others, as `frequent_words` gives them.
    """
    splitter = _splitter()
    counts: Counter[str] = Counter()
    for text in _tokenizer_corpus(finding_labels, diagnosis_labels):
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    fallback = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "[INST]▁"]
    vocabulary = {token: FALLBACK_SCORE for token in fallback}
    vocabulary |= {piece: math.log(count / counts.total()) for piece, count in sorted(counts.items())}
    of_templates = Counter(word for text in template_texts(finding_labels) for word in words_of(text, splitter))
    # A label by itself is the answer to what is in a box.
    whole = [f"▁{label}".replace(" ", "▁") for label in finding_labels]
    for word in (*whole, *sorted(of_templates), *words):
        vocabulary.setdefault(word, WORD_SCORE)
    tokenizer = Tokenizer(models.Unigram(list(vocabulary.items()), unk_id=0, byte_fallback=True))
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


def frequent_words(texts: Iterable[str], most: int = MAX_WORDS) -> list[str]:
    """The most frequent words of texts, as a vocabulary has them: `▁effusion`, and `There` at a sentence's start."""
    splitter = _splitter()
    counts = Counter(word for text in texts for word in words_of(text, splitter))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]]


def texts_of(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """All that rows say in words: reports, sentences, phrases, questions with their answers, chats."""
    for row in rows:
        yield row.get("report_findings") or ""
        yield from (sentence["text"] for sentence in row.get("sentences") or ())
        yield from (phrase["phrase"] for phrase in row.get("phrase") or ())
        yield from (text for pair in row.get("qa") or () for text in (pair["question"], pair["answer"]))
        yield from (turn["text"] for turn in row.get("chat") or ())


def words_of(text: str, splitter: pre_tokenizers.PreTokenizer) -> Iterator[str]:
    """The words of a text as they stand in an answer, and the first of each sentence as it stands behind `<p>`."""
    text = " ".join(text.split())
    for piece, _ in splitter.pre_tokenize_str(text):
        yield from _WORD.findall(piece)
    yield from _FIRST_WORD.findall(text)


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, "isolated"), pre_tokenizers.Metaspace(prepend_scheme="first", split=False)]
    )


def _tokenizer_corpus(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> Iterator[str]:
    """Random answers, in which every label and every coordinate occurs, and the prompts."""
    rng = random.Random(0)
    prompts = [f" {instruction} [/INST]" for instruction in instructions_for(diagnosis_labels).values()]
    for _ in range(4000):
        findings = []
        for label in rng.sample(list(finding_labels), rng.randint(0, min(4, len(finding_labels)))):
            x1, x2 = sorted(rng.sample(range(101), 2))
            y1, y2 = sorted(rng.sample(range(101), 2))
            findings.append(Finding(label, (x1 / 100, y1 / 100, x2 / 100, y2 / 100)))
        yield findings_to_text(findings)
        yield diagnoses_to_text(rng.sample(list(diagnosis_labels), rng.randint(0, min(3, len(diagnosis_labels)))))
        yield places_to_text([finding.box for finding in findings])
        yield sentences_to_text(
            [(finding.label, [finding.box][: number % 2]) for number, finding in enumerate(findings)]
        )
        yield from (f" {box_to_text(finding.box)} [/INST]" for finding in findings)
        # The words around what a question is about; without a blank that would stand by itself.
        yield from (part.rstrip() for prompt in prompts for part in prompt.split("{about}") if part.strip())
