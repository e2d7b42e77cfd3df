"""Cells to boxes: where cells lie, what their numbers mean, which boxes stay."""

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from litegpt.modeling_litegpt import LiteGPTConfig
from litegpt.modeling_litegpt.added_detector import add_detector
from litegpt.modeling_litegpt.arguments import DetectorArguments
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.modeling_litegpt.modeling_detector import (
    CANDIDATES,
    CandidateTokens,
    DetectionHead,
    LiteGPTDetector,
    best_candidates,
    candidates_apart,
    cells_of,
    decoded,
    places,
)
from litegpt.processing.box_fusion import kept_boxes


def test_cells_cover_the_image_once_for_each_map():
    cells = cells_of(3)
    assert [int((cells.level == level).sum()) for level in range(3)] == [36, 9, 4]
    for level in range(3):
        assert (cells.size[cells.level == level] ** 2).sum() == pytest.approx(1)
        assert cells.centre[cells.level == level].mean(dim=0).tolist() == pytest.approx([0.5, 0.5])
    assert cells.centre[36 + 1].tolist() == pytest.approx([0.5, 1 / 6])  # the second cell of a row lies to the right


def test_an_edge_lies_exp_of_its_number_of_cells_away():
    cells = cells_of(2)
    middle = 16 + 3  # the lower right of the 2 x 2 map: centre .75, .75, side .5
    distances = torch.zeros(len(cells.size), 4)
    distances[middle] = torch.tensor([0.0, np.log(0.5), np.log(0.25), -20.0])
    box = decoded(distances, cells)[middle]
    assert box.tolist() == pytest.approx([0.25, 0.5, 0.875, 0.75 + 0.5 * np.exp(-4)])


def test_the_best_candidates_are_those_of_the_highest_logits():
    torch.manual_seed(0)
    outputs = torch.randn(2, len(cells_of(2).size), 2 + 1 + 4)
    outputs[1, 7, 1], outputs[1, 3, 2] = 9.0, 8.0
    found = best_candidates(outputs, cells_of(2))
    boxes = decoded(outputs[..., -4:], cells_of(2)).clamp(0, 1)
    assert found.shape == (2, 2 * 21 + 21, 6) and 2 * 21 < CANDIDATES
    assert found[1, 0].tolist() == pytest.approx([1, 1 / (1 + np.exp(-9)), *boxes[1, 7].tolist()])
    assert found[1, 42].tolist() == pytest.approx([2, 1 / (1 + np.exp(-8)), *boxes[1, 3].tolist()])


def test_of_boxes_that_overlap_the_best_stays_where_all_of_them_say():
    candidates = np.array(
        [
            [0, 0.6, 0.1, 0.1, 0.5, 0.5],
            [0, 0.2, 0.1, 0.1, 0.5, 0.54],  # IoU .91: one with the first, and has a say
            [0, 0.5, 0.6, 0.6, 0.9, 0.9],  # elsewhere
            [1, 0.9, 0.1, 0.1, 0.5, 0.5],  # another label
            [0, 0.3, 0.2, 0.2, 0.2, 0.9],  # no area
            [0, 0.001, 0.0, 0.9, 0.1, 1.0],  # nothing
        ]
    )
    kept = kept_boxes(candidates, 0)
    assert kept == pytest.approx(np.array([[0.6, 0.1, 0.1, 0.5, 0.51], [0.5, 0.6, 0.6, 0.9, 0.9]]))
    assert kept_boxes(candidates, 2).shape == (0, 5)


@pytest.mark.parametrize("grid", [14, 5, 1])
def test_a_detector_has_an_output_for_each_cell_of_three_maps(grid):
    output = DetectionHead(40, 3)(torch.randn(2, 40, grid, grid))
    cells = (2 * grid) ** 2 + grid**2 + (-(-grid // 2)) ** 2
    assert output.shape == (2, cells, 3 + 1 + 4)
    assert output[..., :4].sigmoid().mean() < 0.02  # nothing is there before anything is learnt


def test_places_are_the_centres_of_cells():
    x, y = places(torch.zeros(1, 5, 2, 2))[0]
    assert x.tolist() == [[-0.5, 0.5], [-0.5, 0.5]] and y.tolist() == [[-0.5, -0.5], [0.5, 0.5]]


# --- In a LiteGPT ----------------------------------------------------------------------------------------------------


def test_a_fresh_checkpoints_cells_say_that_a_finding_is_rare(detector_checkpoint):
    model = load_checkpoint(detector_checkpoint)[0].model.eval()
    outputs = model.detector(torch.randn(2, 80, 32))
    assert outputs.shape == (2, 64 + 16, 22 + 1 + 4) and len(model.detector.cells_on("cpu").size) == 80
    assert outputs[..., :23].sigmoid().mean() < 0.02
    assert model.detect(torch.randn(2, 80, 32)).shape == (2, 100 + 80, 6)


def test_the_towers_lie_side_by_side_in_the_detector(detector_checkpoint):
    config = load_checkpoint(detector_checkpoint)[0].config
    detector = LiteGPTDetector(config)
    seen = []
    detector.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = torch.zeros(1, 80, 32)
    features[0, 8 + 3] = 1.0  # second row, fourth column of the first tower's 8 x 8
    features[0, 64 + 4 * 3 + 3] = 1.0  # the last of the second tower's 4 x 4
    detector(features)
    (maps,) = seen
    assert maps.shape == (1, 64, 8, 8)
    assert maps[0, :32].sum(0).nonzero().tolist() == [[1, 3]]
    assert maps[0, 32:].sum(0).argmax() == 63 and maps[0, 32:, :4].abs().max() == 0


def test_candidates_that_stand_apart_come_by_label_then_by_score():
    box, near, far = [0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.4, 0.42], [0.6, 0.6, 0.9, 0.9]
    candidates = torch.tensor([[[1, 0.9, *box], [1, 0.8, *near], [0, 0.7, *box], [1, 0.95, *far], [2, 0.1, *box]]])
    chosen = candidates_apart(candidates, 3)[0]
    assert chosen[:, :2].tolist() == [[0, pytest.approx(0.7)], [1, pytest.approx(0.95)], [1, pytest.approx(0.9)]]
    assert torch.equal(candidates_apart(candidates, 6)[0, :, 0], torch.tensor([0.0, 1, 1, 1, 1, 2]))


def test_candidate_tokens_tell_which_label_and_where(detector_checkpoint):
    config = load_checkpoint(detector_checkpoint)[0].config
    torch.manual_seed(0)
    tokens, cells = CandidateTokens(config), cells_of(8, (1, 0.5))
    outputs = torch.full((3, 80, 27), -6.0)
    outputs[..., 23:] = 0.0
    outputs[:, 10, 5] = 3.0
    outputs[1, 10, 5], outputs[1, 10, 6] = -6.0, 3.0  # another label
    outputs[2, 10, 23] = 1.0  # another box
    found = tokens(outputs, cells)
    assert found.shape == (3, 4, 32)
    here = found[:, 0]
    assert (here[0] - here[1]).abs().max() > 1e-3 and (here[0] - here[2]).abs().max() > 1e-3


def test_the_language_model_hears_of_the_boxes(detector_checkpoint):
    model, processor = load_checkpoint(detector_checkpoint)
    assert model.config.num_visual_tokens == 16 + 4 == processor.image_seq_length
    features = torch.randn(1, 80, 32)
    ids = torch.tensor([[5, *[model.config.image_token_id] * 20, 6]])
    before = model(input_ids=ids, patch_features=features).logits[0, -1]
    with torch.no_grad():
        model.model.detector.head.logits.bias[7] += 8.0
    after = model(input_ids=ids, patch_features=features).logits[0, -1]
    assert (before - after).abs().max() > 1e-4


def test_a_gradient_reaches_the_towers_through_the_boxes(detector_checkpoint):
    model = load_checkpoint(detector_checkpoint)[0]
    features = torch.randn(1, 80, 32, requires_grad=True)
    candidates = model.model.candidate_tokens(model.model.detector(features), cells_of(8, (1, 0.5)))
    candidates.sum().backward()
    assert features.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_candidate_tokens": 3}, "none"),
        ({"num_detector_labels": 2, "detector_scales": [3]}, "detector_scales"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        LiteGPTConfig(**values)


def test_a_detector_is_added_to_a_checkpoint_that_has_none(tiny_checkpoint, tmp_path):
    model, processor = load_checkpoint(tiny_checkpoint)
    with pytest.raises(ValueError, match="detector"):
        add_detector(model, processor, DetectorArguments(num_candidate_tokens=3))
    add_detector(model, processor, DetectorArguments(detector=True, num_candidate_tokens=3))
    save_checkpoint(model, processor, tmp_path / "with")
    again, its_processor = load_checkpoint(tmp_path / "with")
    assert its_processor.image_seq_length == 19 and again.config.num_detector_labels == 22
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    add_detector(again, its_processor, DetectorArguments(detector=True))  # it has one: nothing changes
    assert torch.equal(again.model.detector.head.logits.weight, model.model.detector.head.logits.weight)
    with pytest.raises(ValueError, match="has 3, not 5"):
        add_detector(again, its_processor, DetectorArguments(num_candidate_tokens=5))


def test_a_model_without_a_detector_says_so(tiny_checkpoint):
    with pytest.raises(ValueError, match="no detector"):
        load_checkpoint(tiny_checkpoint)[0].detect(torch.zeros(1, 80, 32))


def test_weights_may_lie_elsewhere_until_they_are_needed(detector_checkpoint):
    model = load_checkpoint(detector_checkpoint)[0].eval()
    features = torch.randn(1, 80, 32)
    ids = torch.tensor([[5, *[model.config.image_token_id] * 20, 6]])
    with torch.no_grad():
        found, logits = model.detect(features), model(input_ids=ids, patch_features=features).logits
        cpu_offload(model, "cpu")
        torch.testing.assert_close(model.detect(features), found)
        torch.testing.assert_close(model(input_ids=ids, patch_features=features).logits, logits)
