"""What an answer leaves out is reported once, and not where the answer already has a box of that label."""

from dataclasses import replace

import numpy as np
import pytest

from litegpt.processing.box_scores import BoxProbabilities, InsertedFinding, box_score
from litegpt.processing.candidates import candidate_findings
from litegpt.processing.findings_language import GRID

LEFT, NEAR_LEFT, RIGHT = (0.1, 0.2, 0.4, 0.8), (0.1, 0.2, 0.42, 0.8), (0.6, 0.2, 0.9, 0.8)


def inserted(label, box, entry, place=0) -> InsertedFinding:
    coordinates = np.zeros((4, GRID + 1))
    coordinates[range(4), np.round(GRID * np.array(box)).astype(int)] = 1
    return InsertedFinding(label, place, box, BoxProbabilities(entry, 1.0, coordinates))


def test_candidates_stand_by_falling_score_and_each_box_once():
    found = [inserted("ILD", LEFT, 0.1), inserted("ILD", NEAR_LEFT, 0.3, 1), inserted("Edema", LEFT, 0.2)]
    candidates = candidate_findings(found, [])
    assert [(item["label"], item["box"], item["score"]) for item in candidates] == [
        ("ILD", pytest.approx(NEAR_LEFT), 0.3),
        ("Edema", pytest.approx(LEFT), 0.2),
    ]


def test_what_the_answer_names_there_is_no_candidate_but_elsewhere_it_is():
    named = [{"label": "ILD", "box": LEFT, "score": 0.9}]
    found = [inserted("ILD", NEAR_LEFT, 0.3), inserted("ILD", RIGHT, 0.2), inserted("Edema", LEFT, 0.1)]
    candidates = candidate_findings(found, named)
    assert [(item["label"], item["box"]) for item in candidates] == [
        ("ILD", pytest.approx(RIGHT)),
        ("Edema", pytest.approx(LEFT)),
    ]
    assert candidate_findings([], named) == []


def test_boxes_are_of_most_expected_iou_unless_they_are_wanted_as_written():
    sure = inserted("ILD", LEFT, 1.0)
    coordinates = sure.probabilities.coordinates.copy()
    coordinates[2] = 0
    coordinates[2, [40, 46, 52]] = 0.34, 0.33, 0.33  # where the right edge is
    doubtful = replace(sure, probabilities=sure.probabilities._replace(coordinates=coordinates))
    (written,), (expected,) = (candidate_findings([doubtful], [], w) for w in (True, False))
    assert written["box"] == LEFT
    assert 0.4 < expected["box"][2] < 0.5 and expected["box"][:2] == pytest.approx(LEFT[:2])
    assert written["score"] == box_score(LEFT, doubtful.probabilities) == 1.0
