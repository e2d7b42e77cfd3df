import json
import math
import random
from collections import Counter
from pathlib import Path

import evaluate
import numpy as np
import pytest
from nltk.corpus import wordnet
from nltk.stem import PorterStemmer
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from litegpt.metrics.text_overlap.text_overlap import overlap_figures, text_overlaps

METRIC = Path(__file__).parents[2] / "metrics" / "text_overlap"
WORDS = "global diseases of this chest radiograph are pneumonia tuberculosis tumor copd finding".split()


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


@pytest.fixture(scope="module")
def texts():
    """Predictions and references of words and single spaces, so that every tokenizer finds the same words."""
    rng = random.Random(0)

    def text():
        return " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))

    return [text() for _ in range(40)], [text() for _ in range(40)]


def has_wordnet() -> bool:
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return False
    return True


def ngrams(words: list[str], order: int) -> Counter:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def f1(hits: int, predicted: int, actual: int) -> float:
    return 2 * hits / (predicted + actual) if hits else 0.0


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    lengths = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            lengths[i + 1, j + 1] = lengths[i, j] + 1 if left == right else max(lengths[i, j + 1], lengths[i + 1, j])
    return int(lengths[-1, -1])


def test_rouge_equals_counting_stemmed_ngrams_and_common_subsequences(metric, texts):
    results = metric.compute(predictions=texts[0], references=texts[1])
    stem = PorterStemmer().stem
    pairs = [
        [[stem(word) if len(word) > 3 else word for word in text.split()] for text in pair]
        for pair in zip(*texts, strict=True)
    ]
    for order in (1, 2):
        counts = [[ngrams(words, order) for words in pair] for pair in pairs]
        expected = np.mean([f1((p & r).total(), p.total(), r.total()) for p, r in counts])
        assert results[f"rouge{order}"] == pytest.approx(expected)
    expected = np.mean([f1(longest_common_subsequence(p, r), len(p), len(r)) for p, r in pairs])
    assert results["rougeL"] == pytest.approx(expected)


def test_rouge_l_of_the_summary_matches_sentence_by_sentence(metric):
    """As one line, only one of the two sentences would be a common subsequence."""
    results = metric.compute(predictions=["a heart. two lungs."], references=["two lungs. a heart."])
    assert results["rougeL"] == 0.5
    assert results["rougeLsum"] == 1.0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_the_brevity_penalty_times_the_geometric_mean_of_the_precisions(metric, texts, order):
    references = texts[1]
    predictions = [" ".join(text.split()[:-1]) + " " + WORDS[0] for text in references]
    predictions[0] = predictions[0].split()[0]  # shorter in all, so that the penalty counts
    hits, totals = np.zeros(order), np.zeros(order)
    for prediction, reference in zip(predictions, references, strict=True):
        for n in range(1, order + 1):
            predicted = ngrams(prediction.split(), n)
            hits[n - 1] += (predicted & ngrams(reference.split(), n)).total()
            totals[n - 1] += predicted.total()
    lengths = [sum(len(text.split()) for text in side) for side in (predictions, references)]
    expected = math.exp(1 - lengths[1] / lengths[0]) * np.exp(np.log(hits / totals).mean())
    assert metric.compute(predictions=predictions, references=references)[f"bleu{order}"] == pytest.approx(expected)


def test_meteor_by_hand(metric):
    """Three of four words match in one chunk: P = 1, R = 3/4; Fmean = 10PR / (R + 9P); penalty = (1/3)^3 / 2."""
    results = metric.compute(predictions=["the heart is"], references=["the heart is large"])
    assert results["meteor_without_synonyms"] == pytest.approx(7.5 / 9.75 * (1 - 1 / 54))
    stems = metric.compute(predictions=["fractures"], references=["fractured"])
    assert stems["meteor_without_synonyms"] == 0.5


def test_meteor_with_synonyms_is_named_only_where_wordnet_is_installed(metric):
    """NLTK looks for synonyms of stems, so those of "large" (stem "larg") would not be found."""
    results = metric.compute(predictions=["it is a tumor"], references=["it is a neoplasm"])
    if has_wordnet():
        assert results["meteor"] > results["meteor_without_synonyms"]
    else:
        assert results["meteor"] is None


def cider_d(predictions: list[str], references: list[str]) -> float:
    """CIDEr-D of one reference an image (arXiv 1411.5726, section 4.2 and its appendix), sigma 6, times 10."""
    scores = []
    for prediction, reference in zip(predictions, references, strict=True):
        cosines = []
        for order in (1, 2, 3, 4):
            found = Counter(ngram for text in references for ngram in set(ngrams(text.split(), order)))
            counts = [ngrams(text.split(), order) for text in (prediction, reference)]
            names = sorted(set(counts[0]) | set(counts[1]))
            idf = np.array([math.log(len(references) / max(1, found[name])) for name in names])
            hypothesis, truth = (np.array([count[name] for name in names]) * idf for count in counts)
            norms = np.linalg.norm(hypothesis) * np.linalg.norm(truth)
            cosines.append(np.minimum(hypothesis, truth) @ truth / norms if norms else 0.0)
        difference = len(prediction.split()) - len(reference.split())
        scores.append(10 * np.mean(cosines) * math.exp(-(difference**2) / 72))
    return float(np.mean(scores))


def test_cider_equals_its_definition_with_frequencies_of_the_references(metric, texts):
    references = texts[1]
    predictions = references[:20] + texts[0][20:]
    expected = cider_d(predictions, references)
    assert metric.compute(predictions=predictions, references=references)["cider"] == pytest.approx(expected)
    assert cider_d(references, predictions) != pytest.approx(expected, rel=1e-3)


class NoSynonyms:
    def synsets(self, word: str) -> list:
        return []


def scores_of_the_libraries(predictions: list[str], references: list[str]) -> dict[str, float]:
    """Each library called directly, image by image or on the whole corpus; nothing is counted once and weighed."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    rouge = [
        scorer.score(reference.replace(". ", ".\n"), prediction.replace(". ", ".\n"))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    meteor = {
        name: [
            single_meteor_score(
                *(word_tokenize(text, preserve_line=True) for text in (reference, prediction)), wordnet=synonyms
            )
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        for name, synonyms in (
            ("meteor_without_synonyms", NoSynonyms()),
            *([("meteor", wordnet)] if has_wordnet() else []),
        )
    }
    bleu = {
        f"bleu{order}": BLEU(max_ngram_order=order, smooth_method="none", force=True).corpus_score(
            predictions, [references]
        )
        for order in (1, 2, 3, 4)
    }
    words = [
        {i: ["".join(c if c.isalnum() or c == "_" else " " for c in text.lower())] for i, text in enumerate(texts)}
        for texts in (references, predictions)
    ]
    return {
        **{name: np.mean([scores[name].fmeasure for scores in rouge]) for name in scorer.rouge_types},
        **{name: score.score / 100 for name, score in bleu.items()},
        **{name: np.mean(scores) for name, scores in meteor.items()},
        "cider": Cider().compute_score(*words)[0],
    }


LABELS = ["Aortic enlargement", "ILD", "Nodule/Mass", "Pleural effusion", "Rib fracture", "Other lesion"]


def answers(rng: random.Random, count: int) -> list[str]:
    """Answers without their boxes; two thirds are alike, as in VinDr-CXR."""
    entries = [[f"<p>{label}</p> " for label in rng.choices(LABELS, k=rng.randint(1, 5))] for _ in range(count)]
    return [
        "Local diseases of this chest radiograph are "
        + ("No finding" if rng.random() < 2 / 3 else ",".join(labels))
        + "."
        for labels in entries
    ]


ODD_TEXTS = [
    "",
    " ",
    ".",
    "No finding",
    "No finding.",
    "no FINDING .",
    "finding " * 60,
    "Local diseases of this chest radiograph are ",
    "<p>ILD</p> <p>ILD</p>,<p>ILD</p>",
    "Herz groß: naïve Ödeme, 肺炎; don't &amp; won't 1,234.5",
    "One sentence. Another one. no finding.",
    "\ttabs\nand lines\n\n",
    "</p><p></s>[INST] <skipped>",
]


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_repeat_score_as_the_libraries_say_image_by_image(metric, seed):
    rng = random.Random(seed)
    predictions, references = answers(rng, 150), answers(rng, 150)
    assert len(set(predictions)) < 75
    results = metric.compute(predictions=predictions, references=references)
    for name, expected in scores_of_the_libraries(predictions, references).items():
        assert results[name] == pytest.approx(expected, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("seed", range(3))
def test_odd_texts_score_as_the_libraries_say(metric, seed):
    """Empty, of one word, of one word sixty times, with entities, other scripts, lines and special tokens."""
    rng = random.Random(seed)
    predictions = rng.choices(ODD_TEXTS, k=60)
    references = [rng.choice([text, rng.choice(ODD_TEXTS)]) for text in predictions]
    results = metric.compute(predictions=predictions, references=references)
    for name, expected in scores_of_the_libraries(predictions, references).items():
        assert results[name] == pytest.approx(expected, rel=1e-12, abs=1e-12), name


def test_the_order_of_the_images_is_of_no_account(metric):
    rng = random.Random(9)
    predictions, references = answers(rng, 80), answers(rng, 80)
    order = rng.sample(range(80), 80)
    shuffled = metric.compute(predictions=[predictions[i] for i in order], references=[references[i] for i in order])
    assert shuffled == pytest.approx(metric.compute(predictions=predictions, references=references))


def test_boxes_do_not_count_and_labels_do(metric):
    references = ["Local diseases are <p>ILD</p> {<1><2><3><4>},<p>Edema</p> {<5><6><7><8>}."]
    moved = [references[0].replace("1", "91")]
    other = [references[0].replace("ILD", "Rib fracture")]
    results = metric.compute(predictions=moved, references=references)
    assert (results["rouge1"], results["rougeLsum"], results["bleu4"]) == (1.0, 1.0, 1.0)
    assert metric.compute(predictions=other, references=references)["bleu1"] < 0.95


def test_an_empty_answer_scores_zero(metric, texts):
    results = metric.compute(predictions=[""] * 3, references=texts[1][:3])
    assert results.pop("num_images") == 3
    assert all(value == 0 for value in results.values() if value is not None)


def test_answers_that_many_images_share_count_as_often(metric):
    predictions, references = ["a heart", "a heart", "two lungs"], ["a heart", "a heart", "one rib"]
    assert metric.compute(predictions=predictions, references=references)["rouge1"] == pytest.approx(2 / 3)


def test_the_result_is_json_and_nothing_to_score_is_refused(metric, texts):
    json.dumps(metric.compute(predictions=texts[0], references=texts[1]))
    with pytest.raises(ValueError, match="no answers to score"):
        metric.compute(predictions=[], references=[])


@pytest.mark.parametrize("seed", range(2))
def test_figures_of_weighted_images_are_those_of_the_images_as_often_as_they_count(metric, seed):
    """Also of odd texts, and where nothing counts; CIDEr's rarity of n-grams is that of all images."""
    rng = random.Random(seed)
    predictions = [*answers(rng, 40), *rng.choices(ODD_TEXTS, k=10)]
    references = [*answers(rng, 40), *rng.choices(ODD_TEXTS, k=10)]
    overlaps, images = text_overlaps(predictions, references), np.arange(50)
    weights = np.random.default_rng(seed).integers(0, 3, (2, 50)).astype(float)
    figures = overlap_figures(overlaps, images, np.stack([np.ones(50), *weights, np.zeros(50)]))
    for row, weight in enumerate((np.ones(50, int), *weights.astype(int))):
        some = [
            [text for text, count in zip(of, weight, strict=True) for _ in range(count)]
            for of in (predictions, references)
        ]
        expected = metric.compute(predictions=some[0], references=some[1])
        names = {"rouge_l": "rougeL", "bleu4": "bleu4", "meteor_without_synonyms": "meteor_without_synonyms"}
        for name, of_metric in (names | ({"cider": "cider"} if row == 0 else {})).items():
            assert figures[(name,)][row] == pytest.approx(expected[of_metric], rel=1e-12, abs=1e-12), name
    assert all(np.isnan(values[3]) for values in figures.values())
    two_each = overlap_figures(overlaps, np.arange(50) // 2, np.ones((1, 25)))  # two reports about an image
    assert two_each["rouge_l",] == pytest.approx(figures["rouge_l",][:1])
