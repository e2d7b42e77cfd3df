"""Which words of a report are masked, and what each counts: ECAMP's entity-centred masking and re-balancing.

    masking = ReportMasking(tokenizer, MaskingArguments())
    masked = masking("there is no effusion. mild edema.", np.random.default_rng(0))
    tokenizer.decode(masked.input_ids)     # "[CLS] [MASK] [MASK] [MASK] effusion [MASK] [MASK] [MASK] . [SEP]"
    masked.weights[masked.descriptors]     # what "is", "no" and "mild" count

In: a report. Out: its tokens with some masked, the tokens to say, their weights. The two words before an entity
(`report_entities.py`), in its sentence, are its descriptors: they say whether it is there, and are always masked.
Of the entities and of all other words some are. A word's pieces are masked together, [CLS] and [SEP] never.

Re-balancing: the words of "there is no (evidence of)" stand in nearly every report and count `alpha`, and descriptors
so much more that the sum of all weights stays the number of tokens.

Source: arXiv 2312.13316, section 3.2; its equation 3 as its published code has it.
"""

import re
from typing import NamedTuple

import numpy as np
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from litegpt.datasets_scripts.report_entities import Mention, mentions, release_mentions
from litegpt.train_scripts.arguments import MaskingArguments

DESCRIPTORS = 2  # words before an entity
SHARE_WITHOUT_ENTITIES = 0.75  # of the words of a report that names none
NEGATIVE = re.compile(r"\bthere is no( evidence of)?\b", re.IGNORECASE)
SENTENCE_ENDS = frozenset(".;:?!")
NOT_ASKED = -100


class MaskedReport(NamedTuple):
    """A report of n tokens.

    Attributes:
        input_ids: (n,) with the mask's number where a token is masked.
        labels: (n,) the tokens to say, `NOT_ASKED` elsewhere.
        weights: (n,) float32, of the losses.
        descriptors: (n,) bool, whether a token is of a descriptor.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    descriptors: np.ndarray


class ReportMasking:
    """Masks reports.

    Args:
        arguments: which words, and what they count.
        release: as the published code does: entities are single words in lower case, in the singular; descriptors
    are masked like all other words; every token is to be said, and text is filled up to `max_length`; no [SEP].
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, arguments: MaskingArguments, release: bool = False):
        self.tokenizer, self.arguments, self.release = tokenizer, arguments, release

    def __call__(self, report: str, rng: np.random.Generator) -> MaskedReport:
        arguments, release = self.arguments, self.release
        encoded = self.tokenizer(
            report,
            truncation=True,
            max_length=arguments.max_length,
            padding="max_length" if release else False,
            return_offsets_mapping=True,
        )
        ids = np.array(encoded["input_ids"])
        if release:
            ids[ids == self.tokenizer.sep_token_id] = self.tokenizer.pad_token_id
        words = np.array([-1 if word is None else word for word in encoded.word_ids()])
        offsets = np.array(encoded["offset_mapping"]).reshape(-1, 2)
        found: list[Mention] = release_mentions(report) if release else mentions(report)
        entities = _tokens_within([(mention.start, mention.end) for mention in found], offsets, words)
        descriptors = descriptor_tokens(report, entities, offsets, words)
        shares = np.full(len(ids), arguments.other_share if entities.any() else SHARE_WITHOUT_ENTITIES)
        shares[entities] = arguments.entity_share
        if arguments.mask_descriptors and not release:
            shares[descriptors] = 1.0
        masked = (words >= 0) & (rng.random(len(ids))[words] < shares)
        labels = ids if release else np.where(masked, ids, NOT_ASKED)
        negatives = _tokens_within([found.span() for found in NEGATIVE.finditer(report)], offsets, words)
        weights = balanced_weights(negatives, descriptors, arguments.alpha)
        return MaskedReport(np.where(masked, self.tokenizer.mask_token_id, ids), labels, weights, descriptors)


def balanced_weights(negatives: np.ndarray, descriptors: np.ndarray, alpha: float) -> np.ndarray:
    """(n,) float32 weights whose sum is n: `alpha` for negatives, descriptors e times what they else would count.

    e = ((1 - alpha) (d - k) + m) / (m - (1 - alpha) k) of d negatives, m descriptors, k that are both. Without any
    descriptor all weights are scaled instead.

    Args:
        negatives, descriptors: (n,) bool.
        alpha: above 0, at most 1; with 1 all weights are 1.
    """
    weights = np.where(negatives, alpha, 1.0)
    d, m, k = negatives.sum(), descriptors.sum(), (negatives & descriptors).sum()
    if m:
        weights[descriptors] *= ((1 - alpha) * (d - k) + m) / (m - (1 - alpha) * k)
    elif d:
        weights *= len(weights) / weights.sum()
    return weights.astype(np.float32)


def descriptor_tokens(report: str, entities: np.ndarray, offsets: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(n,) bool: tokens of the two words before an entity, in its sentence, that are of no entity themselves.

    Args:
        entities: (n,) bool, tokens of entities.
        offsets: (n, 2) a token's characters.
        words: (n,) number of a token's word, -1 of what is none; punctuation is a word too.
    """
    result = np.zeros(len(words), dtype=bool)
    for token in np.flatnonzero(entities):
        if words[token] < 0 or token and entities[token - 1]:  # within an entity
            continue
        counted, before = 0, token - 1
        last = words[token]
        while before >= 0 and words[before] >= 0 and counted <= DESCRIPTORS:
            text = report[offsets[before, 0] : offsets[before, 1]]
            if text in SENTENCE_ENDS:
                break
            if any(map(str.isalnum, text)):
                counted += words[before] != last
                last = words[before]
                result[before] |= counted <= DESCRIPTORS
            before -= 1
    return result & ~entities


def _tokens_within(spans: list[tuple[int, int]], offsets: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(n,) bool: tokens that share a character with a span."""
    result = np.zeros(len(words), dtype=bool)
    for start, end in spans:
        result |= (words >= 0) & (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return result
