import itertools
import random
from pathlib import Path

import evaluate
import numpy as np
import pytest

from litegpt.metrics.grounded_reports import grounded_report_scores, report_counts, report_figures
from litegpt.metrics.intervals import bootstrap_intervals

METRIC = Path(__file__).parents[2] / "metrics" / "grounded_report"
LEFT, RIGHT = [0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 1.0]
NEARLY_LEFT = [0.0, 0.0, 0.4, 0.5]  # an IoU of 0.5 with LEFT
FAR = [0.45, 0.0, 0.55, 0.1]
TEXTS = ("No mass.", "There is an effusion.", "There is edema.")


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def sentence(text, *boxes):
    return {"text": text, "boxes": list(boxes)}


def random_report(rng):
    choices = [LEFT, RIGHT, NEARLY_LEFT, FAR]
    return [
        sentence(rng.choice(TEXTS), *rng.sample(choices, rng.choice([0, 0, 1, 2]))) for _ in range(rng.randint(0, 4))
    ]


def painted(box):
    cells = np.zeros((100, 100), dtype=bool)
    x1, y1, x2, y2 = (round(100 * value) for value in box)
    cells[y1:y2, x1:x2] = True
    return cells


def same(a, b):
    a, b = painted(a), painted(b)
    return 2 * (a & b).sum() >= (a | b).sum()


def boxes_match(some, others):
    return all(any(same(a, b) for b in others) for a in some) and all(any(same(a, b) for a in some) for b in others)


def best_by_trying_all(answered, true):
    """Most pairs of equal text, and of these most whose boxes match, over all one-to-one pairings."""
    short, long = sorted((answered, true), key=len)
    best = (0, 0)
    for order in itertools.permutations(long, len(short)):
        pairs = [(a, b) for a, b in zip(short, order, strict=True) if a["text"] == b["text"]]
        best = max(best, (len(pairs), sum(boxes_match(a["boxes"], b["boxes"]) for a, b in pairs)))
    return best


def test_sentences_are_paired_as_trying_all_pairings_does():
    rng = random.Random(0)
    reports = [(random_report(rng), random_report(rng)) for _ in range(300)]
    counts = report_counts(*zip(*reports, strict=True))
    expected = [best_by_trying_all(*pair) for pair in reports]
    assert counts.matched.tolist() == [pairs for pairs, _ in expected]
    assert counts.matched_with_boxes.tolist() == [right for _, right in expected]
    assert counts.answered.tolist() == [len(answered) for answered, _ in reports]


def test_figures_by_hand():
    answered = [
        [sentence("There is an EFFUSION", NEARLY_LEFT), sentence("No  mass ."), sentence("There is edema.", FAR)],
        [sentence("No mass.", LEFT)],
        [],
    ]
    true = [
        [sentence("There is an effusion.", LEFT), sentence("No mass."), sentence("There is edema.", LEFT, RIGHT)],
        [sentence("There is an effusion.", LEFT)],
        [sentence("No mass.")],
    ]
    scores = grounded_report_scores(report_counts(answered, true))
    assert scores["sentences"] == pytest.approx({"precision": 3 / 4, "recall": 3 / 5, "f1": 6 / 9})
    assert scores["sentences_with_boxes"] == pytest.approx({"precision": 2 / 4, "recall": 2 / 5, "f1": 4 / 9})
    assert scores["boxes"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 3, "f1": 0.4})
    assert scores["num_matched_with_boxes"] == 2 and scores["num_true_boxes"] == 3


def test_a_sentence_said_twice_is_right_once():
    counts = report_counts([[sentence("No mass."), sentence("no mass")]], [[sentence("No mass.")]])
    assert (counts.answered[0], counts.matched[0]) == (2, 1)


def test_boxes_on_one_side_alone_do_not_match():
    for answered, true in (
        (sentence("Edema."), sentence("Edema.", LEFT)),
        (sentence("Edema.", LEFT), sentence("Edema.")),
    ):
        counts = report_counts([[answered]], [[true]])
        assert (counts.matched[0], counts.matched_with_boxes[0]) == (1, 0)
        assert grounded_report_scores(counts)["boxes"]["f1"] == 0


def test_a_key_of_the_callers_matches_sentences_that_mean_the_same():
    def meaning(text):
        return "effusion" in text.lower()

    answered, true = [[sentence("Pleural effusion on the left.", LEFT)]], [[sentence("Left effusion.", LEFT)]]
    assert report_counts(answered, true).matched[0] == 0
    assert report_counts(answered, true, meaning).matched_with_boxes[0] == 1


def test_what_cannot_be_computed_is_none():
    scores = grounded_report_scores(report_counts([[]], [[]]))
    assert scores["sentences"] == {"precision": None, "recall": None, "f1": None}
    scores = grounded_report_scores(report_counts([[]], [[sentence("No mass.")]]))
    assert scores["sentences"] == {"precision": None, "recall": 0.0, "f1": 0.0}


def test_weights_count_images_as_often_as_they_say():
    rng = random.Random(1)
    answered, true = ([random_report(rng) for _ in range(12)] for _ in range(2))
    counts = report_counts(answered, true)
    weights = np.random.default_rng(0).integers(0, 3, size=(5, 12)).astype(float)
    figures = report_figures(counts, weights)
    for row, times in enumerate(weights.astype(int)):
        repeated = report_counts(
            *([report for report, n in zip(some, times, strict=True) for _ in range(n)] for some in (answered, true))
        )
        for name, values in report_figures(repeated).items():
            assert figures[name][row] == pytest.approx(values[0], nan_ok=True), name
    low, high = bootstrap_intervals(lambda rows: report_figures(counts, rows), 12, 200)["sentences", "f1"]
    assert low <= report_figures(counts)["sentences", "f1"][0] <= high


def test_the_module_gives_the_same(metric):
    rng = random.Random(2)
    answered, true = ([random_report(rng) for _ in range(20)] for _ in range(2))
    assert metric.compute(predictions=answered, references=true) == grounded_report_scores(
        report_counts(answered, true)
    )


@pytest.mark.parametrize(
    ("answered", "true", "problem"),
    [
        ([[]], [], "predictions for 1 images and references for 0"),
        ([[], [sentence("a", [0, 0, 2, 1])]], [[], []], r"predictions\[1\] has the box"),
        ([[]], [[sentence("a", [0.5, 0, 0.5, 1])]], r"references\[0\] has the box .* no area"),
    ],
)
def test_bad_input_is_named(answered, true, problem):
    with pytest.raises(ValueError, match=problem):
        report_counts(answered, true)
