"""Where cells learn boxes, and what the right output costs."""

import pytest
import torch

from litegpt.modeling_litegpt.modeling_detector import cells_of
from litegpt.train_scripts.dense_box_loss import CellTargets, cell_targets, dense_box_loss, generalised_iou

CELLS = cells_of(4)  # 64 + 16 + 4
# The small one's middle reaches into the large one's.
LARGE, SMALL = {"label": 0, "box": [0.0, 0.0, 1.0, 1.0]}, {"label": 1, "box": [0.4, 0.4, 0.9, 0.9]}


def right_output(findings: list[dict], labels: int = 2) -> tuple[torch.Tensor, CellTargets]:
    """The output that says exactly what is there, and the targets."""
    targets = cell_targets([findings], CELLS, labels)
    inside, boxes = targets.inside, targets.boxes
    reach = torch.cat([CELLS.centre - boxes[0, :, :2], boxes[0, :, 2:] - CELLS.centre], dim=-1)
    distances = (reach.clamp(min=1e-6) / CELLS.size[:, None]).log()
    return torch.cat([(inside - 0.5) * 20, distances[None]], dim=-1), targets


def test_a_box_is_learnt_in_its_middle_and_nothing_at_its_margin():
    inside, counted, boxes = cell_targets([[{"label": 1, "box": [0.0, 0.0, 1.0, 1.0]}], []], CELLS, 2)
    middle = ((CELLS.centre - 0.5).abs() <= 0.25).all(dim=-1)
    assert [int(middle[CELLS.level == level].sum()) for level in range(3)] == [16, 4, 4]
    assert (inside[0, :, 1] == middle).all() and (inside[0, :, 2] == middle).all() and inside[0, :, 0].sum() == 0
    assert (counted[0] == middle).all() and (boxes[0, middle] == torch.tensor([0.0, 0.0, 1.0, 1.0])).all()
    assert inside[1].sum() == 0 and boxes[1].sum() == 0 and counted[1].all()


def test_where_boxes_overlap_the_smallest_is_learnt():
    inside, counted, boxes = cell_targets([[SMALL, LARGE]], CELLS, 2)
    both = (inside[0, :, 0] > 0) & (inside[0, :, 1] > 0)
    assert both.any() and (boxes[0, both] == torch.tensor(SMALL["box"])).all()
    assert counted[0, inside[0, :, 2] > 0].all() and not counted[0].all()


def test_a_box_between_centres_still_has_a_cell_of_each_map():
    inside = cell_targets([[{"label": 0, "box": [0.26, 0.01, 0.3, 0.05]}]], CELLS, 1).inside
    assert [int(inside[0, CELLS.level == level, 0].sum()) for level in range(3)] == [1, 1, 1]


def test_the_right_output_costs_nothing_and_others_do():
    output, targets = right_output([SMALL])
    known = torch.ones(1, 3)
    assert dense_box_loss(output, targets, known, CELLS) < 0.01
    silent, elsewhere, at_the_margin = output.clone(), output.clone(), output.clone()
    silent[..., :3] = -10
    elsewhere[..., -4:] += 1
    at_the_margin[targets.counted == 0] = 10.0
    assert dense_box_loss(silent, targets, known, CELLS) > 1
    assert dense_box_loss(elsewhere, targets, known, CELLS) > 0.2
    assert dense_box_loss(at_the_margin, targets, known, CELLS) < 0.01


def test_of_a_label_that_is_not_known_nothing_is_learnt():
    torch.manual_seed(0)
    output = torch.randn(1, len(CELLS.size), 3 + 4, requires_grad=True)
    targets = cell_targets([[SMALL]], CELLS, 2)
    dense_box_loss(output, targets, torch.tensor([[0.0, 1.0, 1.0]]), CELLS).backward()
    assert (output.grad[..., 0] == 0).all() and (output.grad[..., 1:] != 0).any()


def test_an_image_without_boxes_only_silences():
    output = torch.zeros(1, len(CELLS.size), 3 + 4, requires_grad=True)
    dense_box_loss(output, cell_targets([[]], CELLS, 2), torch.ones(1, 3), CELLS).backward()
    assert (output.grad[..., :3] > 0).all() and (output.grad[..., 3:] == 0).all()


def test_generalised_iou_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    others = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 3.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    # 1 of 7, in a hull of 9; nothing of 2, in a hull of 3; all
    assert generalised_iou(boxes, others).tolist() == pytest.approx([1 / 7 - 2 / 9, 0 - 1 / 3, 1.0])
