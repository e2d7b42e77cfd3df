"""The loss of masks by hand, and masks packed as NumPy packs them."""

import math

import numpy as np
import pytest
import torch

from litegpt.evaluation_scripts.tower_scores.segmentation import unpacked
from litegpt.train_scripts.tower_tasks.segmentation import mixed_loss, packed


def test_the_loss_by_hand():
    p = torch.tensor([[[0.9, 0.2], [0.5, 0.1]]])
    mask = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    focal = (0.1**2 * -math.log(0.9) + 0.2**2 * -math.log(0.8) + 0.5**2 * -math.log(0.5) + 0.1**2 * -math.log(0.9)) / 4
    dice = (2 * 1.4 + 1) / (1.7 + 2 + 1)
    assert mixed_loss(torch.logit(p), mask).item() == pytest.approx(10 * focal - math.log(dice), rel=1e-5)


def test_the_right_masks_cost_next_to_nothing_and_empty_ones_are_no_error():
    masks = (torch.rand(2, 8, 8) > 0.7).float()
    assert mixed_loss(40 * (masks - 0.5), masks) < 0.01
    empty = torch.zeros(2, 8, 8)
    assert torch.isfinite(mixed_loss(empty, empty)) and mixed_loss(empty - 20, empty) < 0.01


@pytest.mark.parametrize("side", [3, 8])
def test_masks_are_packed_as_numpy_packs_them(side):
    masks = torch.rand(3, side, side) > 0.5
    assert np.array_equal(packed(masks).numpy(), np.packbits(masks.flatten(1).numpy(), axis=1))
    assert np.array_equal(unpacked(packed(masks).numpy(), side), masks.numpy())
