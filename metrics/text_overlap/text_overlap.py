"""ROUGE, BLEU, METEOR and CIDEr of answers against the true ones, with the boxes taken out."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

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
    # `force`: an answer that ends in " ." is no sign of text that was split into tokens.
    metric = BLEU(smooth_method="none", force=True)
    correct, total, lengths = np.zeros(4, int), np.zeros(4, int), np.zeros(2, int)
    for (prediction, reference), images in pairs.items():
        counted = metric.corpus_score([prediction], [[reference]])
        correct += images * np.array(counted.counts)
        total += images * np.array(counted.totals)
        lengths += images * np.array([counted.sys_len, counted.ref_len])
    scores = {}
    for order in (1, 2, 3, 4):
        score = BLEU.compute_bleu(
            correct[:order].tolist(), total[:order].tolist(), *lengths.tolist(), max_ngram_order=order
        ).score
        # The library's logarithms leave equal texts 4e-16 above one.
        scores[f"bleu{order}"] = min(1.0, score / 100)
    return scores


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
    """CIDEr-D; n-grams weigh by how rare they are among the references. COCO leaves punctuation and case out too."""
    predictions, references = zip(*pairs.elements(), strict=True)
    words = [
        {i: [" ".join(re.findall(r"\w+", text.lower()))] for i, text in enumerate(texts)}
        for texts in (references, predictions)
    ]
    return float(Cider().compute_score(*words)[0])


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
