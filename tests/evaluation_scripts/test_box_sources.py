"""What answers, detector and both find, beside the same boxes given to other images."""

from functools import partial

import numpy as np
import pytest

from litegpt.evaluation_scripts.box_sources import source_scores
from litegpt.evaluation_scripts.figures import headline_figures, task_statistics
from litegpt.evaluation_scripts.questions import question
from litegpt.metrics.intervals import bootstrap_intervals

LABELS = {"finding": ["Edema", "ILD"], "diagnosis": ["COPD", "No finding"]}
LEFT, RIGHT = [0.1, 0.2, 0.4, 0.8], [0.6, 0.2, 0.9, 0.8]


def row(*findings):
    names = LABELS["finding"]
    found = [{"label": names.index(label), "box": box} for label, box in findings]
    return {"findings": found, "diagnoses": [] if found else [1]}


def line(answered=(), detected=(), fused=None):
    def boxes(items):
        return [{"label": label, "box": box, "score": score} for label, box, score in items]

    found = {
        "findings": boxes(answered),
        "detected_findings": boxes(detected),
        "fused_findings": boxes(fused or detected),
    }
    return {"task": "identify", "malformed": None, **found}


ROWS = [row(("Edema", LEFT)), row(("ILD", RIGHT), ("ILD", LEFT)), row(("Edema", RIGHT)), row()]
LINES = [
    line([("Edema", LEFT, 0.9)], [("Edema", LEFT, 0.8)]),
    line([], [("ILD", [0.1, 0.2, 0.4, 0.79], 0.7), ("ILD", RIGHT, 0.2)]),
    line([("Edema", LEFT, 0.5)], [("Edema", RIGHT, 0.6), ("ILD", LEFT, 0.1)]),
    line(),
]


def test_each_source_has_its_figures():
    figures = source_scores(question("identify", ROWS, LABELS), LINES, LABELS, None)["figures"]
    # Of Edema the answers find the first of two and then a wrong one, of ILD nothing.
    assert figures["answer"]["map"]["0.4"] == pytest.approx((0.5 + 0) / 2)
    assert figures["detector"]["map"] == {"0.4": pytest.approx(1.0), "0.5": pytest.approx(1.0)}
    assert figures["answer"]["accuracy_given_label"]["0.3"] == pytest.approx(1 / 3)
    assert figures["detector"]["accuracy_given_label"]["0.5"] == 1
    assert figures["detector_less_detector_shuffled"]["map"]["0.4"] > 0.3
    assert figures["fused_less_answer"]["map"]["0.4"] == pytest.approx(1 - 0.25)
    assert figures["fused_less_detector"]["froc"]["mean"] == 0


def test_intervals_of_map_are_those_of_the_headline_figure():
    """A label that a resample lacks keeps its own figure there."""
    rows, lines = [*ROWS * 5, row(("Edema", LEFT))], [*LINES * 5, LINES[0]]
    asked = question("identify", rows, LABELS)
    statistics = task_statistics(asked, [{**line, "probabilities": None} for line in lines], LABELS)
    headline = bootstrap_intervals(partial(headline_figures, [statistics], by_label=True), len(rows))
    intervals = source_scores(asked, lines, LABELS, None)["intervals"]
    assert intervals["answer"]["map"]["0.4"] == pytest.approx(headline["map", "0.4"])


def test_intervals_are_by_patient():
    asked = question("identify", ROWS * 5, LABELS)
    alone = source_scores(asked, LINES * 5, LABELS, None)["intervals"]
    one_patient = source_scores(asked, LINES * 5, LABELS, np.array([0, 0, 1, 1] * 5))["intervals"]
    for intervals in (alone, one_patient):
        low, high = intervals["answer"]["accuracy_given_label"]["0.3"]
        assert 0 <= low <= 1 / 3 <= high <= 1
    assert one_patient != alone


def test_a_checkpoint_without_a_detector_has_none():
    bare = [{name: value for name, value in one.items() if "ed_findings" not in name} for one in LINES]
    assert source_scores(question("identify", ROWS, LABELS), bare, LABELS, None) is None
