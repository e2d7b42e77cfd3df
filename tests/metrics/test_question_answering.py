import random
import re
from pathlib import Path

import evaluate
import numpy as np
import pytest

from litegpt.metrics.intervals import bootstrap_intervals
from litegpt.metrics.short_answers import answer_figures, answer_scores, question_answering_scores, words_of

METRIC = Path(__file__).parents[2] / "metrics" / "question_answering"
WORDS = "the left right lung lobe, a heart. pleura effusion".split()


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def random_texts(rng, count):
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(count)]


def struck_out(prediction: str, reference: str) -> tuple[float, float]:
    """Recall and F1 by striking each word of the answer out of the true answer's words."""
    left, answered = (
        [word for word in re.findall(r"[a-z]+", text.lower()) if word not in ("a", "an", "the")]
        for text in (reference, prediction)
    )
    total, hits = len(left), 0
    for word in answered:
        if word in left:
            left.remove(word)
            hits += 1
    recall, precision = hits / total, hits / len(answered) if answered else 0
    return recall, 2 * precision * recall / (precision + recall) if hits else 0


def test_recall_and_f1_are_those_of_words_struck_out():
    rng = random.Random(0)
    predictions = random_texts(rng, 300)
    references = [f"{text} heart" for text in random_texts(rng, 300)]
    scores = answer_scores(predictions, references, [False] * 300)
    expected = np.array([struck_out(*pair) for pair in zip(predictions, references, strict=True)])
    assert scores.recall == pytest.approx(expected[:, 0])
    assert scores.f1 == pytest.approx(expected[:, 1])


@pytest.mark.parametrize(
    ("answer", "truth", "is_exact"),
    [
        ("Yes", "yes", True),
        ("Yes, there is.", "yes", True),
        ("There is, yes", "yes", False),
        ("no, nothing", "No.", True),
        ("normal", "no", False),
        ("", "no", False),
        ("The PA.", "pa", True),
        ("pa view", "pa", False),
        ("yes and no", "yes and no", True),
    ],
)
def test_closed_questions_are_answered_exactly(answer, truth, is_exact):
    assert answer_scores([answer], [truth], [True]).exact[0] == is_exact


def test_an_open_answer_that_begins_with_yes_is_no_yes():
    scores = answer_scores(["yes, on the left"], ["yes"], [False])
    assert not scores.exact[0] and scores.recall[0] == 1 and scores.f1[0] == 0.5


def test_words_are_compared_as_squad_does():
    assert words_of("The X-ray: an  Apex, a lobe's") == ["xray", "apex", "lobes"]


def test_figures_by_hand():
    scores = answer_scores(
        ["yes", "no", "left lung", "lung lung lung", ""],
        ["yes", "yes", "the left lung", "right lung", "heart"],
        [True, True, False, False, False],
    )
    results = question_answering_scores(scores)
    assert results["closed_accuracy"] == 0.5
    assert results["open_exact"] == pytest.approx(1 / 3)
    assert results["open_recall"] == pytest.approx((1 + 0.5 + 0) / 3)  # a word said three times counts once
    assert results["open_f1"] == pytest.approx((1 + 2 / 5 + 0) / 3)
    assert (results["num_closed"], results["num_open"]) == (2, 3)


def test_without_a_kind_of_question_its_figures_are_none():
    results = question_answering_scores(answer_scores(["a lung"], ["lung"], [False]))
    assert results["closed_accuracy"] is None and results["open_exact"] == 1.0


def test_weights_count_images_with_all_their_questions():
    rng = random.Random(2)
    predictions, references = random_texts(rng, 30), [f"{text} lung" for text in random_texts(rng, 30)]
    closed, images = [rng.random() < 0.4 for _ in range(30)], [question // 3 for question in range(30)]
    scores = answer_scores(predictions, references, closed, images)
    weights = np.random.default_rng(0).integers(0, 3, size=(4, 10)).astype(float)
    figures = answer_figures(scores, weights)
    for row, counts in enumerate(weights.astype(int)):
        chosen = [question for question in range(30) for _ in range(counts[images[question]])]
        parts = ([values[question] for question in chosen] for values in (predictions, references, closed))
        for name, values in answer_figures(answer_scores(*parts)).items():
            assert figures[name][row] == pytest.approx(values[0], nan_ok=True), name
    low, high = bootstrap_intervals(lambda rows: answer_figures(scores, rows), 10, 100)["open_f1",]
    assert low <= answer_figures(scores)["open_f1",][0] <= high


def test_the_module_gives_the_same(metric):
    parts = (["Yes.", "a lobe"], ["yes", "left lobe"], [True, False])
    results = metric.compute(predictions=parts[0], references=parts[1], is_closed=parts[2])
    assert results == question_answering_scores(answer_scores(*parts))


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ((["a"], ["The."], [True]), r"references\[0\] is 'The.', which has no word"),
        ((["b"], [], []), "0 true answers, but 1 of answers"),
        ((["b"], ["b"], []), "1 true answers, but 0 of `is_closed`"),
    ],
)
def test_bad_input_is_named(parts, problem):
    with pytest.raises(ValueError, match=problem):
        answer_scores(*parts)
