"""ROUGE, BLEU, METEOR and CIDEr of answers against the true ones, with the boxes taken out."""

import re
from collections import Counter

import datasets
import evaluate
import numpy as np
from nltk.corpus import wordnet
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
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


class _NoSynonyms:
    """In WordNet's place: no word has a synonym."""

    def synsets(self, word):
        return []


def _rouge(pairs):
    """Mean F1 over the images by ROUGE type; a sentence a line, as ROUGE-Lsum wants it."""
    scorer = RougeScorer(_ROUGE_TYPES, use_stemmer=True)
    of_pair = [
        scorer.score(_END_OF_SENTENCE.sub("\n", reference), _END_OF_SENTENCE.sub("\n", prediction))
        for prediction, reference in pairs
    ]
    return {name: _mean([scores[name].fmeasure for scores in of_pair], pairs) for name in _ROUGE_TYPES}


def _bleu(predictions, references):
    scores = {}
    for order in (1, 2, 3, 4):
        # `force`: an answer that ends in " ." is no sign of text that was split into tokens.
        metric = BLEU(max_ngram_order=order, smooth_method="none", force=True)
        # The library's logarithms leave equal texts 4e-16 above one.
        scores[f"bleu{order}"] = min(1.0, metric.corpus_score(predictions, [references]).score / 100)
    return scores


def _meteor(pairs, synonyms):
    # `preserve_line`: splitting into sentences first would need a model that NLTK does not come with.
    return _mean(
        [
            single_meteor_score(
                *(word_tokenize(text, preserve_line=True) for text in (reference, prediction)), wordnet=synonyms
            )
            for prediction, reference in pairs
        ],
        pairs,
    )


def _cider(predictions, references):
    """CIDEr-D; n-grams weigh by how rare they are among the references. COCO leaves punctuation and case out too."""
    words = [
        {i: [" ".join(re.findall(r"\w+", text.lower()))] for i, text in enumerate(texts)}
        for texts in (references, predictions)
    ]
    return float(Cider().compute_score(*words)[0])


def _mean(scores, pairs):
    """The mean over images: `scores` of the distinct pairs, `pairs` counts how many images have each."""
    return float(np.average(scores, weights=list(pairs.values())))


def _has_wordnet():
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return False
    return True


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TextOverlap(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2407.12064"],
        )

    def _compute(self, predictions, references):
        if not references:
            raise ValueError("There are no answers to score.")
        predictions, references = ([_BOX.sub("", text) for text in texts] for texts in (predictions, references))
        pairs = Counter(zip(predictions, references, strict=True))  # many images share an answer
        return {
            **_rouge(pairs),
            **_bleu(predictions, references),
            "meteor_without_synonyms": _meteor(pairs, _NoSynonyms()),
            "meteor": _meteor(pairs, wordnet) if _has_wordnet() else None,
            "cider": _cider(predictions, references),
            "num_images": len(references),
        }
