"""Cells to boxes: where cells lie, what their numbers mean, which boxes stay."""

import numpy as np
import pytest
import torch

from litegpt.modeling_towers.dense_boxes import CANDIDATES, best_candidates, cells_of, decoded, kept_boxes


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
