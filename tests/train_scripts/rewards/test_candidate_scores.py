import pytest

from litegpt.processing.answers import Finding, findings_to_text
from litegpt.train_scripts.rewards.candidate_scores import candidate_scores

HEART = {"label": "Cardiomegaly", "box": [0.2, 0.5, 0.8, 0.9]}
ILD = {"label": "ILD", "box": [0.1, 0.1, 0.3, 0.4]}


def reward(answered: list[tuple[dict, float]], true: list[dict]) -> float:
    text = findings_to_text([Finding(box["label"], tuple(box["box"])) for box, _ in answered])
    completion = [{"role": "assistant", "content": text}]
    scores = [score for _, score in answered]
    (value,) = candidate_scores([completion], [true], [["Cardiomegaly", "ILD"]], [scores], trainer_state=None)
    return value


def test_right_boxes_want_high_scores_and_wrong_ones_low():
    assert reward([(HEART, 0.8)], [HEART]) == pytest.approx(1 - 0.2**2)
    assert reward([(HEART, 0.8)], []) == pytest.approx(1 - 0.8**2)
    assert reward([(HEART, 0.9), (ILD, 0.3)], [HEART]) == pytest.approx(1 - 0.1**2 - 0.3**2)
    assert reward([], []) == 1


def test_what_is_not_said_counts_as_a_score_of_nothing():
    assert reward([], [HEART, ILD]) == 0
    assert reward([(HEART, 0.5)], [HEART, ILD]) == pytest.approx(1 - (0.5**2 + 1) / 2)


def test_an_honest_doubt_gains_the_square_of_its_probability():
    p = 0.3
    said = p * reward([(ILD, p)], [ILD]) + (1 - p) * reward([(ILD, p)], [])
    silent = p * reward([], [ILD]) + (1 - p) * reward([], [])
    assert said - silent == pytest.approx(p**2)


def test_a_second_box_of_the_same_finding_is_wrong():
    near = {**HEART, "box": [0.2, 0.5, 0.8, 0.88]}
    assert reward([(near, 0.6), (HEART, 0.9)], [HEART]) == pytest.approx(1 - 0.1**2 - 0.6**2)


def test_a_malformed_answer_has_no_boxes():
    completion = [{"role": "assistant", "content": "The heart is large."}]
    assert candidate_scores([completion], [[HEART]], [["Cardiomegaly"]], [[]]) == [0]
