import numpy as np
import pytest

from litegpt.benchmarks.grpo_vs_sft import ARMS, Tested, box_f1, compared, image_counts
from litegpt.metrics.boxes import match
from litegpt.train_scripts.grpo import REWARDS

LABELS = {"finding": ["ILD"], "diagnosis": ["No finding"]}
LEFT, RIGHT = [0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 1.0, 1.0]
TRUE = [[{"label": "ILD", "box": LEFT}], [], [{"label": "ILD", "box": RIGHT}]]


def line(*boxes: tuple[list[float], float]) -> dict:
    findings = [{"label": "ILD", "box": box, "score": score} for box, score in boxes]
    return {"findings": findings, "probabilities": None, "malformed": None}


def test_boxes_are_counted_by_image_from_a_score_on():
    boxes = [line((LEFT, 0.9), (RIGHT, 0.3)), line((LEFT, 0.2)), line((RIGHT, 0.6))]
    matches = match([one["findings"] for one in boxes], TRUE, 0.5)
    assert image_counts(matches, 0.0, 3).tolist() == [[1, 0, 1], [2, 1, 1], [1, 0, 1]]
    counts = image_counts(matches, 0.5, 3)
    assert counts.tolist() == [[1, 0, 1], [1, 0, 1], [1, 0, 1]]
    figures = box_f1({"all": image_counts(matches, 0.0, 3)}, np.array([[1, 1, 1], [0, 2, 1]]))
    assert figures["box_f1", "all"] == pytest.approx([2 * 2 / (4 + 2), 2 * 1 / (3 + 1)])


def test_a_threshold_comes_from_other_images_and_the_better_arm_is_better():
    calibrating = match([line((LEFT, 0.8), (RIGHT, 0.4))["findings"]], TRUE[:1], 0.5)
    rows = [{"findings": [{**box, "label": 0} for box in boxes], "diagnoses": [0] * (not boxes)} for boxes in TRUE]
    sure = Tested([line((LEFT, 0.9)), line(), line((RIGHT, 0.9))], calibrating, TRUE)
    hasty = Tested([line((LEFT, 0.9)), line((LEFT, 0.7)), line((LEFT, 0.3))], calibrating, TRUE)
    assert sure.thresholds["calibrated"] == pytest.approx(0.6) and sure.held_out == 1
    assert hasty.false_positives == pytest.approx(1 / 3)
    found = compared(hasty, sure, rows, LABELS)
    assert found["box_f1", "calibrated"].a == pytest.approx(2 * 1 / (2 + 2))
    assert found["box_f1", "calibrated"].b == 1 and found["accuracy_at_iou", "0.5"].difference == pytest.approx(0.5)


def test_arms_name_rewards_and_programs_that_there_are():
    for stages in ARMS.values():
        assert sum(share for _, share, _ in stages) <= 1
        for program, _, words in stages:
            assert program in ("train", "grpo")
            if "--reward_functions" in words:
                assert set(words[1:]) <= REWARDS.keys()
