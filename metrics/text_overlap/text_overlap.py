"""ROUGE, BLEU, METEOR and CIDEr of answers against the true ones, with the boxes taken out."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import datasets
import evaluate
import numpy as np
from nltk.corpus import wordnet
from nltk.stem import PorterStemmer
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU

from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import ratio, weight_rows

_DESCRIPTION = """\
How much of the true answer's wording an answer has: ROUGE-1, -2, -L and -Lsum, BLEU-1 to -4, METEOR and CIDEr. Boxes,
written {<x1><y1><x2><y2>}, are taken out of both first.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str): the answers, one an image. A malformed answer is scored as the text that it is.
    references (list of str): the true answers, one an image.
Returns:
    rouge1, rouge2, rougeL, rougeLsum (float): mean F1 over the images, words stemmed (rouge_score).
    bleu1, bleu2, bleu3, bleu4 (float): of the whole corpus, up to n-grams of that length, tokens of 13a, not smoothed
        (sacrebleu; the same numbers as `evaluate`'s bleu with that max_order).
    meteor_without_synonyms (float): mean METEOR (NLTK) with equal words and equal stems alone.
    meteor (float or None): mean METEOR with WordNet's synonyms too; None where NLTK's WordNet is not installed.
    cider (float): CIDEr-D over words in lower case (pycocoevalcap), from 0 to 10; the others go from 0 to 1.
    num_images (int).
Examples:
    >>> metric = evaluate.load("metrics/text_overlap")
    >>> results = metric.compute(
    ...     predictions=["Local diseases are <p>ILD</p> {<10><20><30><40>}."],
    ...     references=["Local diseases are <p>ILD</p> {<50><60><70><80>}."],
    ... )
    >>> results["rougeL"], results["bleu4"]
    (1.0, 1.0)
"""

_CITATION = """\
@article{leduc2024litegpt,
  title={LiteGPT: Large Vision-Language Model for Joint Chest X-ray Localization and Classification Task},
  author={Le-Duc, Khai and Zhang, Ryan and Nguyen, Ngoc Son and Pham, Tan-Hanh and Dao, Anh and Ngo, Ba Hung and
          Nguyen, Anh Totti and Hy, Truong-Son},
  journal={arXiv preprint arXiv:2407.12064},
  year={2024}
}
"""

_BOX = re.compile(r"\{[^{}]*\}")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

Pairs = Counter[tuple[str, str]]  # (prediction, reference) -> number of images that have it


class _NoSynonyms:
    """In WordNet's place: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _Stemmer:
    """Porter's stemmer. Its stems are kept: answers have few different words, and stemming takes longest of all."""

    def __init__(self) -> None:
        self.stem = lru_cache(maxsize=2**16)(PorterStemmer().stem)


class _RougeTokenizer:
    """`rouge_score`'s own tokens, with stems that are kept."""

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text, _STEMMER)


_STEMMER = _Stemmer()


def text_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float | int | None]:
    """All scores of this module, as `compute` returns them.

    Args:
        predictions: (n,) the answers; a malformed one is scored as the text that it is.
        references: (n,) the true answers.

    Raises:
        ValueError: there are none, or the two have different lengths.
    """
    if not references:
        raise ValueError("There are no answers to score.")
    predictions, references = ([_BOX.sub("", text) for text in texts] for texts in (predictions, references))
    pairs = Counter(zip(predictions, references, strict=True))
    return {
        **_rouge(pairs),
        **_bleu(pairs),
        "meteor_without_synonyms": _meteor(pairs, _NoSynonyms()),
        "meteor": _meteor(pairs, wordnet) if _has_wordnet() else None,
        "cider": _cider(pairs),
        "num_images": len(references),
    }


class TextOverlaps(NamedTuple):
    """The overlap of each of n answers with its true one, for samples in which each image has a weight."""

    rouge_l: np.ndarray  # (n,) F1
    meteor_without_synonyms: np.ndarray  # (n,)
    cider: np.ndarray  # (n,) n-grams weigh by how rare they are among all n references
    bleu: np.ndarray  # (n, 10) matched n-grams of 1 to 4 words, all of them, and words of answer and reference


def text_overlaps(predictions: Sequence[str], references: Sequence[str]) -> TextOverlaps:
    """The overlaps of n pairs, boxes taken out; each distinct pair is read once.

    Raises:
        ValueError: there are none, or the two have different lengths.
    """
    if not references:
        raise ValueError("There are no answers to score.")
    predictions, references = ([_BOX.sub("", text) for text in texts] for texts in (predictions, references))
    pairs = list(zip(predictions, references, strict=True))
    scorer, metric = RougeScorer(["rougeL"], tokenizer=_RougeTokenizer()), _bleu_metric()
    of_pair = {
        pair: (
            scorer.score(pair[1], pair[0])["rougeL"].fmeasure,
            _meteor(Counter([pair]), _NoSynonyms()),
            _bleu_counts(metric, *pair),
        )
        for pair in set(pairs)
    }
    rouge, meteor, bleu = (np.array([of_pair[pair][column] for pair in pairs]) for column in range(3))
    return TextOverlaps(rouge, meteor, _ciders(pairs), bleu)


def overlap_figures(overlaps: TextOverlaps, images: np.ndarray, weights: np.ndarray) -> Figures:
    """The figures of texts for each row of weights; the same numbers as `text_scores` where each image counts once.

    Args:
        images: (n,) index of the image of each text.
        weights: (rows, images), how often each image counts.

    Returns:
        (rows,) each: ("rouge_l",), ("bleu4",), ("meteor_without_synonyms",), ("cider",).
    """
    rows = weight_rows(weights, np.shape(weights)[-1])[:, images]
    sums = rows @ overlaps.bleu
    matched, there = sums[:, :4], sums[:, 4:8]
    with np.errstate(divide="ignore"):  # without a match of four words BLEU is 0
        precision = np.exp(np.log(ratio(matched, there, otherwise=0)).mean(axis=-1))
    brevity = np.exp(np.minimum(0, 1 - ratio(sums[:, 9], sums[:, 8], otherwise=np.inf)))
    count = rows.sum(axis=-1)
    return {
        ("rouge_l",): ratio(rows @ overlaps.rouge_l, count),
        ("bleu4",): np.where(count > 0, precision * brevity, np.nan),
        ("meteor_without_synonyms",): ratio(rows @ overlaps.meteor_without_synonyms, count),
        ("cider",): ratio(rows @ overlaps.cider, count),
    }


# Without their boxes most answers repeat (two thirds of VinDr-CXR's are "... No finding."), so each function below
# reads each distinct pair or text once, and weighs it.


def _rouge(pairs: Pairs) -> dict[str, float]:
    """Mean F1 over the images by ROUGE type; a sentence a line, as ROUGE-Lsum wants it."""
    scorer = RougeScorer(_ROUGE_TYPES, tokenizer=_RougeTokenizer())
    scores = [
        scorer.score(_END_OF_SENTENCE.sub("\n", reference), _END_OF_SENTENCE.sub("\n", prediction))
        for prediction, reference in pairs
    ]
    return {name: _mean([by_type[name].fmeasure for by_type in scores], pairs) for name in _ROUGE_TYPES}


def _bleu(pairs: Pairs) -> dict[str, float]:
    """BLEU of the corpus: sums of counts. Those of four orders have in them those of fewer."""
    metric = _bleu_metric()
    counts = sum(images * _bleu_counts(metric, *pair) for pair, images in pairs.items())
    correct, total, lengths = counts[:4], counts[4:8], counts[8:]
    scores = {}
    for order in (1, 2, 3, 4):
        score = BLEU.compute_bleu(
            correct[:order].tolist(), total[:order].tolist(), *lengths.tolist(), max_ngram_order=order
        ).score
        # The library's logarithms leave equal texts 4e-16 above one.
        scores[f"bleu{order}"] = min(1.0, score / 100)
    return scores


def _bleu_metric() -> BLEU:
    # `force`: an answer that ends in " ." is no sign of text that was split into tokens.
    return BLEU(smooth_method="none", force=True)


def _bleu_counts(metric: BLEU, prediction: str, reference: str) -> np.ndarray:
    """(10,) int: as `TextOverlaps.bleu` has them."""
    counted = metric.corpus_score([prediction], [[reference]])
    return np.array([*counted.counts, *counted.totals, counted.sys_len, counted.ref_len])


def _meteor(pairs: Pairs, synonyms: Any) -> float:
    """Mean METEOR; `synonyms` is NLTK's WordNet, or something that has its `synsets`."""
    # `preserve_line`: splitting into sentences first would need a model that NLTK does not come with.
    words = {text: word_tokenize(text, preserve_line=True) for text in {text for pair in pairs for text in pair}}
    return _mean(
        [
            single_meteor_score(words[reference], words[prediction], stemmer=_STEMMER, wordnet=synonyms)
            for prediction, reference in pairs
        ],
        pairs,
    )


def _cider(pairs: Pairs) -> float:
    return float(_ciders(list(pairs.elements())).mean())


def _ciders(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """(n,) CIDEr-D; n-grams weigh by how rare they are among the references.

    COCO leaves punctuation and case out, too.
    """
    predictions, references = zip(*pairs, strict=True)
    words = [
        {i: [" ".join(re.findall(r"\w+", text.lower()))] for i, text in enumerate(texts)}
        for texts in (references, predictions)
    ]
    return np.asarray(Cider().compute_score(*words)[1], dtype=np.float64)


def _mean(scores: Sequence[float], pairs: Pairs) -> float:
    """The mean over the images of `scores`, one a distinct pair."""
    return float(np.average(scores, weights=list(pairs.values())))


def _has_wordnet() -> bool:
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return False
    return True


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TextOverlap(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2407.12064"],
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float | int | None]:
        return text_scores(predictions, references)
