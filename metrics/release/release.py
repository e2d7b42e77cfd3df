"""What the LiteGPT paper's released code computes, to set numbers beside the published ones."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from nltk.corpus import wordnet
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from sklearn.metrics import classification_report

_DESCRIPTION = """\
The scores of the LiteGPT paper's released code, from answer texts: labels found as substrings, Acc@t over all true
boxes with inclusive pixels, text scores with CIDEr's two sides swapped. For comparison with the published numbers
alone; finding_classification, box_localization and text_overlap have the correct definitions.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str): the answers to one task, one an image ("answer" in predictions.jsonl).
    references (list of str): the true answers, in the answer language:
        "Local diseases of this chest radiograph are <p>LABEL</p> {<x1><y1><x2><y2>},<p>LABEL</p> {...}." with integers
        round(100 * coordinate), "Global diseases of this chest radiograph are LABEL, LABEL.", or "... are No finding."
    labels (list of str): the classes, at least two. `negative_label` may be one of them (as in the paper's tables of
        diagnoses) or not (as in its tables of findings).
    negative_label (str): the label that means that nothing is there. Default "No finding".
    thresholds (sequence of float): IoU thresholds; a box counts above them, not at them. Default (0.3, 0.4, 0.5).
Returns:
    finding, no_finding (dict): precision, recall, f1, support of the binary question. An answer is "no finding" where
        `negative_label` stands in it, else "finding", whatever it says.
    per_class (dict): {label: {precision, recall, f1, support}}.
    micro, macro, weighted, samples (dict): scikit-learn's averages of them.
    accuracy_at_iou (dict): {"0.3": ..., ...} over all true boxes; None for each where there is no true box.
    num_boxes (int): true boxes.
    num_unread (int): answers with braces that are no box; they have no predicted box.
    rouge1, rouge2, rougeL, rougeLsum, bleu1, bleu2, bleu3, bleu4, meteor_without_synonyms, meteor (float): as in
        text_overlap. `meteor` is None where NLTK's WordNet is not installed.
    cider (float): CIDEr-D over what stands between spaces, document frequencies of the predictions.
    num_images (int).
Raises:
    ValueError: nothing to score, fewer than two labels or one twice, a true answer with braces that are no box.
Examples:
    >>> metric = evaluate.load("metrics/release")
    >>> results = metric.compute(
    ...     predictions=["Local diseases of this chest radiograph are <p>Edema</p> {<0><0><50><90>}.", "Mild edema"],
    ...     references=[
    ...         "Local diseases of this chest radiograph are <p>Edema</p> {<0><0><50><50>}.",
    ...         "Local diseases of this chest radiograph are <p>ILD</p> {<20><20><40><40>}.",
    ...     ],
    ...     labels=["Edema", "ILD"],
    ... )
    >>> results["accuracy_at_iou"]
    {'0.3': 0.5, '0.4': 0.5, '0.5': 0.5}
    >>> results["per_class"]["ILD"]["recall"], results["per_class"]["Edema"]["precision"]
    (1.0, 0.5)
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

_TAG = re.compile(r"<[^<>]*>")
_BOX = re.compile(r"\{[^{}]*\}")
_ENTRY = re.compile(r"<p>([^<>]+)</p> \{<(\d+)><(\d+)><(\d+)><(\d+)>\}")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])(\s+|$)")
_ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

Box = tuple[int, int, int, int]  # xyxy in hundredths
Pairs = Counter[tuple[str, str]]  # (prediction, reference) -> number of images that have it


class _NoSynonyms:
    """In WordNet's place: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _names(answer: str, label: str) -> bool:
    """Whether `label` stands anywhere in the answer, inside another word too."""
    return label.lower() in _TAG.sub("", answer).lower()


def _report(truths: Any, answers: Any, **options: Any) -> dict[str, dict[str, float | int]]:
    """scikit-learn's report with the names of `finding_classification`."""
    report = classification_report(truths, answers, output_dict=True, zero_division=0, **options)
    return {
        name: {
            "precision": float(scores["precision"]),
            "recall": float(scores["recall"]),
            "f1": float(scores["f1-score"]),
            "support": int(scores["support"]),
        }
        for name, scores in report.items()
        if name != "accuracy"
    }


def _classification(
    predictions: Sequence[str], references: Sequence[str], labels: Sequence[str], negative_label: str
) -> dict[str, Any]:
    is_named = [
        np.array([[_names(answer, label) for label in labels] for answer in answers], dtype=int)
        for answers in (references, predictions)
    ]
    is_finding = [[not _names(answer, negative_label) for answer in answers] for answers in (references, predictions)]
    by_class = _report(*is_named, target_names=labels)
    binary = _report(*is_finding, labels=[True, False], target_names=["finding", "no_finding"])
    return {
        "finding": binary["finding"],
        "no_finding": binary["no_finding"],
        "per_class": {label: by_class[label] for label in labels},
        **{name: by_class[f"{name} avg"] for name in ("micro", "macro", "weighted", "samples")},
    }


def _boxes(answer: str) -> list[tuple[str, Box]] | None:
    """[(label, (x1, y1, x2, y2))] in hundredths; None where braces remain that are no box."""
    if re.search(r"[{}]", _ENTRY.sub("", answer)):
        return None
    return [(label, tuple(map(int, box))) for label, *box in _ENTRY.findall(answer)]


def _inclusive_iou(a: Box, b: Box) -> float:
    """IoU of boxes whose x2 and y2 are the last pixel inside: each extent is one longer. 0 for boxes inside out."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (a, b)]
    return width * height / (sum(areas) - width * height)


def _localization(
    predictions: Sequence[str], references: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    best_ious, num_unread = [], 0  # one a true box
    for image, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        answered, true = _boxes(prediction), _boxes(reference)
        if true is None:
            raise ValueError(f"references[{image}] has braces that are not a box behind its label: {reference!r}.")
        num_unread += answered is None
        for label, box in true:
            rivals = [_inclusive_iou(box, other) for name, other in answered or [] if name == label]
            best_ious.append(max(rivals, default=0.0))
    accuracies = {str(t): float(np.mean(np.array(best_ious) > t)) if best_ious else None for t in thresholds}
    return {"accuracy_at_iou": accuracies, "num_boxes": len(best_ious), "num_unread": num_unread}


def _text_overlap(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float | None]:
    predictions, references = ([_BOX.sub("", text) for text in texts] for texts in (predictions, references))
    pairs = Counter(zip(predictions, references, strict=True))  # many images share an answer
    return {
        **_rouge(pairs),
        **_bleu(predictions, references),
        "meteor_without_synonyms": _meteor(pairs, _NoSynonyms()),
        "meteor": _meteor(pairs, wordnet) if _has_wordnet() else None,
        "cider": _swapped_cider(predictions, references),
    }


def _rouge(pairs: Pairs) -> dict[str, float]:
    scorer = RougeScorer(_ROUGE_TYPES, use_stemmer=True)
    scores = [
        scorer.score(_END_OF_SENTENCE.sub("\n", reference), _END_OF_SENTENCE.sub("\n", prediction))
        for prediction, reference in pairs
    ]
    return {name: _mean([by_type[name].fmeasure for by_type in scores], pairs) for name in _ROUGE_TYPES}


def _bleu(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    # `force`: an answer that ends in " ." is no sign of text that was split into tokens.
    corpus = BLEU(smooth_method="none", force=True).corpus_score(predictions, [references])
    scores = {}
    for order in (1, 2, 3, 4):
        score = BLEU.compute_bleu(
            corpus.counts[:order], corpus.totals[:order], corpus.sys_len, corpus.ref_len, max_ngram_order=order
        ).score
        scores[f"bleu{order}"] = min(1.0, score / 100)  # the library's logarithms leave equal texts 4e-16 above one
    return scores


def _meteor(pairs: Pairs, synonyms: Any) -> float:
    """Mean METEOR; `synonyms` is NLTK's WordNet, or something that has its `synsets`."""
    words = {text: word_tokenize(text, preserve_line=True) for pair in pairs for text in pair}
    return _mean(
        [
            single_meteor_score(words[reference], words[prediction], wordnet=synonyms)
            for prediction, reference in pairs
        ],
        pairs,
    )


def _swapped_cider(predictions: Sequence[str], references: Sequence[str]) -> float:
    """CIDEr-D with the predictions in the references' place, and the other way round."""
    if not any(text.split() for text in predictions):
        return 0.0  # the library cannot count n-grams of nothing
    in_references_place, in_predictions_place = (
        {image: [text] for image, text in enumerate(texts)} for texts in (predictions, references)
    )
    return float(Cider().compute_score(in_references_place, in_predictions_place)[0])


def _mean(scores: Sequence[float], pairs: Pairs) -> float:
    """The mean over the images of `scores`, one a distinct pair; `pairs` counts the images of each."""
    return float(np.average(scores, weights=list(pairs.values())))


def _has_wordnet() -> bool:
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return False
    return True


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Release(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2407.12064", "https://github.com/leduckhai/LiteGPT"],
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        labels: Sequence[str],
        negative_label: str = "No finding",
        thresholds: Sequence[float] = (0.3, 0.4, 0.5),
    ) -> dict[str, Any]:
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise ValueError("`labels` must name at least two classes and none twice.")
        if not references:
            raise ValueError("There are no answers to score.")
        return {
            **_classification(predictions, references, labels, negative_label),
            **_localization(predictions, references, thresholds),
            **_text_overlap(predictions, references),
            "num_images": len(references),
        }
