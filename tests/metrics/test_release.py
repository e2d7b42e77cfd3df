import json
import random
from functools import cache
from pathlib import Path

import evaluate
import numpy as np
import pytest
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from sklearn.metrics import precision_recall_fscore_support

from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.processing.answers import (
    Finding,
    diagnoses_to_text,
    findings_to_text,
    text_to_diagnoses,
    text_to_findings,
)

METRICS = Path(__file__).parents[2] / "metrics"
FINDINGS, DIAGNOSES = list(FINDING_LABELS), list(DIAGNOSIS_LABELS)
LOCAL = "Local diseases of this chest radiograph are "
GLOBAL = "Global diseases of this chest radiograph are "
NO_FINDING = "Global diseases of this chest radiograph are No finding."
DISEASES = ["Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "COPD"]


@cache
def load(name):
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


@pytest.fixture(scope="module")
def metric():
    return load("release")


def random_findings(rng, count):
    """Answers about findings, a third of them No finding, labels repeated within an image."""

    def box():
        x1, y1 = rng.uniform(0, 0.6), rng.uniform(0, 0.6)
        return x1, y1, x1 + rng.uniform(0.02, 0.39), y1 + rng.uniform(0.02, 0.39)

    numbers = [rng.choice([0, 1, 4]) for _ in range(count)]
    return [findings_to_text([Finding(rng.choice(FINDINGS[:4]), box()) for _ in range(n)]) for n in numbers]


def random_diagnoses(rng, count):
    return [diagnoses_to_text(rng.sample(DISEASES, rng.choice([0, 1, 1, 2]))) for _ in range(count)]


def malform(rng, texts):
    """Each third text cut off, without its opening, or with words in it that no answer has."""
    changes = (
        lambda text: text[: rng.randint(0, len(text))],
        lambda text: text.replace(LOCAL, ""),
        lambda text: text.replace("are", "are mild bronchopneumonia,"),
        lambda text: text.upper(),
    )
    return [rng.choice(changes)(text) if rng.random() < 0.33 else text for text in texts]


# What differs from the correct definitions.


def test_a_label_inside_another_word_counts(metric):
    """Bronchopneumonia holds Pneumonia, mild holds ILD. The correct metric refuses names that are no label."""
    results = metric.compute(
        predictions=[GLOBAL + "bronchopneumonia.", "A mild case of copd."],
        references=[GLOBAL + "Pneumonia.", GLOBAL + "COPD."],
        labels=["Pneumonia", "COPD", "ILD"],
    )
    assert results["per_class"]["Pneumonia"] == {"precision": 1, "recall": 1, "f1": 1, "support": 1}
    assert results["per_class"]["COPD"]["f1"] == 1
    assert results["micro"]["precision"] == pytest.approx(2 / 3)  # ILD was never meant
    with pytest.raises(ValueError, match="bronchopneumonia"):
        load("finding_classification").compute(
            predictions=[["bronchopneumonia"]], references=[["Pneumonia"]], labels=["Pneumonia", "COPD"]
        )


def test_what_stands_in_angle_brackets_is_no_label(metric):
    """`<p>` and `</p>` go, the words between them stay; a label inside a tag is not seen, one that a tag splits is."""
    results = metric.compute(
        predictions=["<p>Edema</p>", "<Edema>", "Ed<p>ema"], references=["<p>Edema</p>"] * 3, labels=["Edema", "ILD"]
    )
    assert results["per_class"]["Edema"]["recall"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("answer", ["", "?", "Pneumonia"])
def test_whatever_does_not_say_no_finding_is_a_finding(metric, answer):
    """An empty answer is right about every image with a finding; the correct metric counts it as wrong everywhere."""
    results = metric.compute(
        predictions=[answer] * 2, references=[GLOBAL + "COPD.", NO_FINDING], labels=["COPD", "Pneumonia"]
    )
    assert results["finding"] == {"precision": 0.5, "recall": 1, "f1": pytest.approx(2 / 3), "support": 1}
    assert results["no_finding"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    correct = load("finding_classification").compute(
        predictions=[[], []], references=[["COPD"], ["No finding"]], labels=["COPD", "Pneumonia"]
    )
    assert correct["finding"]["recall"] == correct["finding"]["precision"] == 0


def test_no_finding_beside_a_label_is_no_finding(metric):
    results = metric.compute(
        predictions=[GLOBAL + "Pneumonia, No finding."], references=[GLOBAL + "Pneumonia."], labels=DISEASES
    )
    assert results["finding"]["recall"] == 0 and results["per_class"]["Pneumonia"]["recall"] == 1


def entry(label, *box):
    return f"<p>{label}</p> {{" + "".join(f"<{value}>" for value in box) + "}"


def test_inclusive_pixels_make_the_iou_larger(metric):
    """Boxes of 1 x 1 and 2 x 1 hundredths: 1/2 exactly, (2 x 2) / (3 x 2) with the last pixel inside."""
    prediction, reference = (LOCAL + entry("Nodule/Mass", 50, 50, x2, 51) + "." for x2 in (51, 52))
    thresholds = (0.4, 0.6, 0.7)
    results = metric.compute(predictions=[prediction], references=[reference], labels=FINDINGS, thresholds=thresholds)
    assert results["accuracy_at_iou"] == {"0.4": 1, "0.6": 1, "0.7": 0}
    correct = load("box_localization").compute(
        predictions=[[{"label": "Nodule/Mass", "box": [0.5, 0.5, 0.51, 0.51]}]],
        references=[[{"label": "Nodule/Mass", "box": [0.5, 0.5, 0.52, 0.51]}]],
        thresholds=thresholds,
    )
    assert correct["accuracy_at_iou"] == {"0.4": 1, "0.6": 0, "0.7": 0}


def test_an_iou_at_the_threshold_does_not_count(metric):
    """10 x 10 of 20 x 10 inclusive pixels."""
    answer, truth = LOCAL + entry("Edema", 0, 0, 9, 9) + ".", LOCAL + entry("Edema", 0, 0, 19, 9) + "."
    results = metric.compute(predictions=[answer], references=[truth], labels=FINDINGS, thresholds=(0.5, 0.49))
    assert results["accuracy_at_iou"] == {"0.5": 0, "0.49": 1}


@pytest.mark.parametrize(
    "answer",
    [
        LOCAL + entry("Edema", 0, 0, 50, 50) + "," + "<p>ILD</p> {<10><20>",  # cut off
        LOCAL + entry("Edema", 0, 0, 50, 50) + ",<p>ILD</p> {<1><2><3>}.",
        LOCAL + entry("Edema", 0, 0, 50, 50) + ",<p>ILD</p> {<a><b><c><d>}.",
        LOCAL + entry("Edema", 0, 0, 50, 50) + ",{<1><2><3><4>}.",
        LOCAL + entry("Edema", 0, 0, 50, 50) + "}.",
    ],
)
def test_the_truth_of_an_answer_that_cannot_be_read_stays_in_the_denominator(metric, answer):
    truth = LOCAL + entry("Edema", 0, 0, 50, 50) + "."
    results = metric.compute(
        predictions=[answer, truth, LOCAL + "No finding."],
        references=[truth, truth, LOCAL + "No finding."],
        labels=FINDINGS,
    )
    assert results["accuracy_at_iou"]["0.3"] == 0.5
    assert (results["num_boxes"], results["num_unread"], results["num_images"]) == (2, 1, 3)
    assert results["per_class"]["Edema"]["recall"] == 1  # the label is found all the same


def test_boxes_in_excess_cost_nothing_and_images_without_a_true_box_do_not_enter(metric):
    answer = LOCAL + ",".join([entry("Edema", 0, 0, 50, 50), entry("Edema", 1, 1, 99, 99), entry("ILD", 0, 0, 9, 9)])
    results = metric.compute(
        predictions=[answer + ".", answer + "."],
        references=[LOCAL + ",".join([entry("Edema", 0, 0, 50, 50)] * 2) + ".", LOCAL + "No finding."],
        labels=FINDINGS,
    )
    assert results["accuracy_at_iou"] == {"0.3": 1, "0.4": 1, "0.5": 1} and results["num_boxes"] == 2


@pytest.mark.parametrize("box", [(50, 50, 0, 0), (50, 0, 0, 50), (30, 0, 29, 50)])
def test_a_box_inside_out_overlaps_nothing(metric, box):
    results = metric.compute(
        predictions=[LOCAL + entry("Edema", *box) + "."],
        references=[LOCAL + entry("Edema", 0, 0, 100, 100) + "."],
        labels=FINDINGS,
        thresholds=(0.0,),
    )
    assert results["accuracy_at_iou"] == {"0.0": 0} and results["num_unread"] == 0


def test_ciders_sides_are_swapped(metric):
    """By hand: heart stands in all predictions, so it weighs log(2/2) = 0 here.

    Among the true answers it stands in one of two, so in text_overlap the first image has 10/4 (no word has a 2-gram).
    """
    answers = {"predictions": ["heart", "heart"], "references": ["heart", "lung"]}
    assert metric.compute(**answers, labels=DISEASES)["cider"] == 0
    assert load("text_overlap").compute(**answers)["cider"] == pytest.approx(10 / 4 / 2)


def test_ciders_words_stand_between_spaces(metric):
    """By hand: the second word differs by its case and its full stop, which text_overlap leaves out."""
    answers = {"predictions": ["heart", "lung"], "references": ["heart", "Lung."]}
    assert metric.compute(**answers, labels=DISEASES)["cider"] == pytest.approx(10 / 4 / 2)
    assert load("text_overlap").compute(**answers)["cider"] == pytest.approx(10 / 4)


# Where it must be what an independent implementation, or the correct metric, says.


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("task", ["findings", "diagnoses"])
def test_classes_and_averages_equal_scikit_learn_on_malformed_answers_too(metric, task, seed):
    rng = random.Random(seed)
    labels, draw = (FINDINGS[:6], random_findings) if task == "findings" else (DIAGNOSES, random_diagnoses)
    references, predictions = draw(rng, 50), malform(rng, draw(rng, 50))
    results = metric.compute(predictions=predictions, references=references, labels=labels)

    def without_tags(text):
        kept, depth = "", 0
        for character in text:
            depth += character == "<"
            kept += character if not depth else ""
            depth -= character == ">" and depth > 0
        return kept.lower()

    def matrix(texts):
        return np.array([[label.lower() in without_tags(text) for label in labels] for text in texts])

    for average in ("micro", "macro", "weighted", "samples"):
        expected = precision_recall_fscore_support(
            matrix(references), matrix(predictions), average=average, zero_division=0
        )
        ours = results[average]
        assert (ours["precision"], ours["recall"], ours["f1"]) == pytest.approx(expected[:3])
    precision, recall, f1, support = precision_recall_fscore_support(
        matrix(references), matrix(predictions), zero_division=0
    )
    for i, label in enumerate(labels):
        assert tuple(results["per_class"][label].values()) == pytest.approx(
            (precision[i], recall[i], f1[i], support[i])
        )


@pytest.mark.parametrize("seed", range(2))
def test_answers_of_the_answer_language_score_as_in_finding_classification(metric, seed):
    rng = random.Random(seed)
    for draw, read, labels in (
        (random_findings, text_to_findings, FINDINGS),
        (random_diagnoses, text_to_diagnoses, DIAGNOSES),
    ):
        predictions, references = draw(rng, 60), draw(rng, 60)
        results = metric.compute(predictions=predictions, references=references, labels=labels)
        names = [
            [[item.label for item in read(text, labels)] or ["No finding"] for text in texts]
            for texts in (predictions, references)
        ]
        correct = load("finding_classification").compute(predictions=names[0], references=names[1], labels=labels)
        for name in ("finding", "no_finding", "per_class", "micro", "macro", "weighted", "samples"):
            assert np.allclose(*(numbers(scores[name]) for scores in (results, correct)))


def numbers(scores):
    return [value for item in scores.values() for value in (numbers(item) if isinstance(item, dict) else [item])]


@pytest.mark.parametrize("seed", range(2))
def test_readable_answers_score_as_in_box_localizations_release_definition(metric, seed):
    rng = random.Random(seed)
    predictions, references = random_findings(rng, 80), random_findings(rng, 80)
    boxes = [
        [[{"label": item.label, "box": item.box} for item in text_to_findings(text, FINDINGS)] for text in texts]
        for texts in (predictions, references)
    ]
    thresholds = (0.05, 0.123, 0.3)
    results = metric.compute(predictions=predictions, references=references, labels=FINDINGS, thresholds=thresholds)
    correct = load("box_localization").compute(predictions=boxes[0], references=boxes[1], thresholds=thresholds)
    assert results["accuracy_at_iou"] == pytest.approx(correct["accuracy_at_iou_release"])
    assert results["accuracy_at_iou"] != pytest.approx(correct["accuracy_at_iou"])
    assert results["num_boxes"] == correct["num_boxes"] and results["num_unread"] == 0


@pytest.mark.parametrize("draw", [random_findings, random_diagnoses])
def test_text_scores_equal_the_libraries(metric, draw):
    rng = random.Random(5)
    predictions, references = malform(rng, draw(rng, 60)), draw(rng, 60)
    results = metric.compute(predictions=predictions, references=references, labels=DIAGNOSES)
    # Boxes out, by another way than a pattern of the whole box.
    texts = []
    for side in (predictions, references):
        pieces = [text.split("{") for text in side]
        texts.append(
            [
                head + "".join(rest.split("}", 1)[1] if "}" in rest else "{" + rest for rest in tail)
                for head, *tail in pieces
            ]
        )
    pairs = list(zip(*texts, strict=True))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    pair_scores = [scorer.score(reference, prediction) for prediction, reference in pairs]  # one sentence each
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        assert results[name] == pytest.approx(np.mean([scores[name].fmeasure for scores in pair_scores]))
    for order in (1, 2, 3, 4):
        bleu = BLEU(max_ngram_order=order, smooth_method="none", force=True).corpus_score(texts[0], [texts[1]])
        assert results[f"bleu{order}"] == pytest.approx(bleu.score / 100)

    class NoSynonyms:
        def synsets(self, word):
            return []

    meteor = [
        single_meteor_score(
            *(word_tokenize(text, preserve_line=True) for text in (reference, prediction)), wordnet=NoSynonyms()
        )
        for prediction, reference in pairs
    ]
    assert results["meteor_without_synonyms"] == pytest.approx(np.mean(meteor))
    as_ground_truth, as_results = ({i: [text] for i, text in enumerate(side)} for side in texts)
    assert results["cider"] == pytest.approx(Cider().compute_score(as_ground_truth, as_results)[0])


@pytest.mark.parametrize("draw", [random_findings, random_diagnoses])
def test_only_cider_differs_from_text_overlap(metric, draw):
    rng = random.Random(6)
    predictions, references = draw(rng, 60), draw(rng, 60)
    ours = metric.compute(predictions=predictions, references=references, labels=DIAGNOSES)
    correct = load("text_overlap").compute(predictions=predictions, references=references)
    assert {name for name, value in correct.items() if ours[name] != pytest.approx(value)} == {"cider"}


def test_no_label_of_vindr_cxr_stands_inside_another_or_in_an_opening():
    """Else the true answers themselves would be misread."""
    labels = [label.lower() for label in {*FINDINGS, *DIAGNOSES}]
    for label in labels:
        assert not any(label in other for other in [*labels, LOCAL.lower(), GLOBAL.lower()] if other != label)


# Input.


def test_answers_about_diagnoses_have_no_boxes(metric):
    results = metric.compute(predictions=[NO_FINDING] * 2, references=[NO_FINDING] * 2, labels=DIAGNOSES)
    assert results["accuracy_at_iou"] == {"0.3": None, "0.4": None, "0.5": None} and results["num_boxes"] == 0
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_empty_answers_score_zero(metric):
    results = metric.compute(predictions=["", ""], references=[GLOBAL + "COPD.", GLOBAL + "COPD."], labels=DISEASES)
    for name in ("rouge1", "rougeLsum", "bleu1", "bleu4", "meteor_without_synonyms", "cider"):
        assert results[name] == 0


def test_bad_input_is_refused_by_name(metric):
    with pytest.raises(ValueError, match="no answers to score"):
        metric.compute(predictions=[], references=[], labels=DISEASES)
    for labels in (["COPD"], ["COPD", "COPD"]):
        with pytest.raises(ValueError, match="`labels`"):
            metric.compute(predictions=["a"], references=["a"], labels=labels)
    with pytest.raises(ValueError, match=r"references\[1\] has braces"):
        metric.compute(predictions=["a", "a"], references=["a", "<p>ILD</p> {<1><2>}"], labels=DISEASES)
