"""Arms of the answers: wider towers, steps of equal time, the grid, and a table of differences."""

import numpy as np
import pytest
import torch

from litegpt.benchmarks import answer_arms as arms
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answers import Finding, findings_to_text, text_to_findings

BOX, FAR = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]


@pytest.mark.parametrize("name", ["tiny_checkpoint", "detector_checkpoint"])
def test_an_arm_has_the_trained_towers_for_a_wider_input_and_fresh_weights_after_them(name, request, tmp_path):
    source = request.getfixturevalue(name)
    trained = load_checkpoint(source)[0].model.eval()
    model, processor = load_checkpoint(arms.arm_checkpoint(source, tmp_path / "wide", 20, 2, seed=1))
    assert model.config.num_visual_tokens == processor.image_seq_length == 320 // 20
    assert model.model.detector is None
    pixels = torch.rand(1, 3, 128, 128)
    for tower, own in zip(trained.towers, model.model.eval().towers, strict=True):
        expected = tower(pixels, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(own(pixels).last_hidden_state, expected)
    other = load_checkpoint(arms.arm_checkpoint(source, tmp_path / "other", 20, 2, seed=2))[0]
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight)
    same = load_checkpoint(arms.arm_checkpoint(source, tmp_path / "same", 1, 1, seed=1))[0].model.eval()
    for tower, own in zip(trained.towers, same.towers, strict=True):
        assert all(torch.equal(weights, own.state_dict()[key]) for key, weights in tower.state_dict().items())


def test_every_arm_has_groups_of_the_papers_patch_tokens():
    for group_size, wider in arms.ARMS.values():
        assert 245 * wider**2 % group_size == 0


def test_steps_fill_the_seconds_after_the_start():
    assert arms.steps_for(130, start=10, pilot=10 + 0.05 * (arms.PILOT_STEPS - 1)) == pytest.approx(2401, abs=1)
    assert arms.steps_for(5, start=10, pilot=15) == 1


def test_the_grid_of_100_is_that_of_the_answers():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((50, 2, 2)), axis=1).reshape(-1, 4)
    thin = np.array([[0.5, 0.2, 0.503, 0.4], [0.998, 0.1, 1.0, 0.1], [0.0, 0.0, 0.001, 1.0]])
    boxes = np.concatenate([corners, thin])
    text = findings_to_text([Finding("ILD", tuple(box)) for box in boxes.tolist()])
    written = [finding.box for finding in text_to_findings(text, ["ILD"])]
    np.testing.assert_allclose(arms.on_grid(boxes, arms.GRID), written, atol=1e-12)
    assert arms.rounded_to([[{"label": "ILD", "box": [0.104, 0.1, 0.5, 0.5]}], []], 100) == [
        [{"label": "ILD", "box": BOX}],
        [],
    ]


def test_rounding_to_a_finer_grid_costs_less():
    true = [[{"label": "ILD", "box": [0.113, 0.117, 0.146, 0.135]}], [{"label": "Edema", "box": BOX}]]
    lines = arms.grid_table("two", true)
    assert "2 boxes" in lines[0] and len(lines) == 2 + len(arms.GRIDS)
    means = [float(line.split(" | ")[1]) for line in lines[2:]]
    assert means == sorted(means) and "ILD (1)" in lines[2]


def test_a_table_holds_each_arm_against_the_same_answers_of_the_first():
    true = [[{"label": "ILD", "box": BOX}] * (n % 2) for n in range(40)]
    right = [[{"label": "ILD", "box": BOX, "score": 0.9}] * (n % 2) for n in range(40)]
    wrong = [[{"label": "ILD", "box": FAR, "score": 0.9}] * (n % 2) for n in range(40)]
    found = {
        "one; greedy": (wrong, {}),
        "one; insertion": (right, {}),
        "two; greedy": (right, {}),
        "two; insertion": (right, {}),
    }
    lines = arms.table([found], true, None)
    assert lines[2].startswith("| one; greedy | 0.000") and lines[4].startswith("| two; greedy | 1.000")
    assert lines[6].startswith("| two; greedy, less one | +1.000") and lines[7].startswith(
        "| two; insertion, less one | +0.000"
    )
    assert len(lines) == 8
    mean = arms.table([found, found | {"two; greedy": (wrong, {})}], true, None)
    assert mean[4].startswith("| two; greedy | 0.500") and mean[6].startswith("| two; greedy, less one | +0.500")
    assert arms.crowded([[], true[1] * 4, true[1]]).tolist() == [1]


def test_operating_points_and_temperatures_come_from_other_answers():
    def line(score: float, left_out: float) -> dict:
        candidates = [{"label": "ILD", "box": FAR, "score": left_out}]
        return {"findings": [{"label": "ILD", "box": BOX, "score": score}], "candidates": candidates}

    true = [[{"label": "ILD", "box": BOX}] if n % 2 else [] for n in range(80)]
    chosen_on = [line(0.9 if n % 2 else 0.3, 0.1) for n in range(80)]
    found = arms.sources([line(0.8, 0.2)], chosen_on, true, ["ILD"])
    assert list(found) == ["greedy", "insertion"]
    for boxes, points in found.values():
        named = [box["score"] >= points["ILD"] for box in boxes[0]]
        assert named == [True, False][: len(named)] and len(named) == len(boxes[0])
