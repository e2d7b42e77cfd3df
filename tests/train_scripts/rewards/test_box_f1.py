import pytest

from litegpt.processing.answers import Finding, findings_to_text
from litegpt.train_scripts.rewards.box_f1 import box_f1, soft_f1

LABELS = ["Cardiomegaly", "ILD"]
HEART = {"label": "Cardiomegaly", "box": [0.2, 0.5, 0.8, 0.9]}


def reward(text: str, true: list[dict]) -> float:
    (value,) = box_f1([[{"role": "assistant", "content": text}]], [true], [LABELS], trainer_state=None)
    return value


def text(*boxes: dict) -> str:
    return findings_to_text([Finding(box["label"], tuple(box["box"])) for box in boxes])


def test_no_finding_is_worth_one_where_it_is_right_and_nothing_elsewhere():
    assert reward(text(), []) == 1
    assert reward(text(), [HEART]) == reward(text(HEART), []) == 0


def test_a_malformed_answer_and_another_label_are_worth_nothing():
    assert reward("The heart is large.", []) == reward(text(HEART)[:-1], [HEART]) == 0
    assert reward(text({**HEART, "label": "ILD"}), [HEART]) == 0


def test_overlap_counts_from_a_tenth_to_eight_tenths():
    true = {"label": "ILD", "box": [0.0, 0.0, 1.0, 1.0]}
    for iou, worth in ((0.05, 0.0), (0.1, 0.0), (0.45, 0.5), (0.8, 1.0), (0.9, 1.0)):
        assert reward(text({"label": "ILD", "box": [0.0, 0.0, iou, 1.0]}), [true]) == pytest.approx(worth, abs=1e-9)
    assert reward(" " + text(true), [true]) == 1  # a tokenizer may leave the space after the prompt


def test_wrong_and_missing_boxes_lower_it():
    ild = {"label": "ILD", "box": [0.1, 0.1, 0.3, 0.4]}
    assert reward(text(HEART, ild), [HEART]) == pytest.approx(2 / 3)
    assert reward(text(HEART), [HEART, ild]) == pytest.approx(2 / 3)


def test_a_box_is_matched_once_with_the_one_that_it_overlaps_most():
    assert reward(text(HEART, HEART), [HEART]) == pytest.approx(2 / 3)
    # One above the other: IoU 1 and 0.5 with the first true box, 0.6 with the second.
    true = [{"label": "ILD", "box": [0.0, 0.0, 0.5, 0.5]}, {"label": "ILD", "box": [0.0, 0.0, 0.6, 0.5]}]
    answered = [{"label": "ILD", "box": [0.0, 0.0, 0.5, 0.25]}, {"label": "ILD", "box": [0.0, 0.0, 0.5, 0.5]}]
    # The second takes the first true box whole (1); the first is left with 0.125 / 0.3 = 5 / 12.
    assert soft_f1(answered, true) == pytest.approx(2 * (1 + (5 / 12 - 0.1) / 0.7) / 4)
