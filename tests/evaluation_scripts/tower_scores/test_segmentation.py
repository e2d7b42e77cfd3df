"""Dice of answers beside the controls that look at nothing."""

import numpy as np
import pytest

from litegpt.evaluation_scripts.tower_scores.segmentation import best_region, dices, mask_scores, mean_dices

SIDE = 8


def drawn(count: int, seed: int) -> np.ndarray:
    """(count, side, side) 0 or 1: every second has a square of 4 x 4 in the upper left quarter or next to it."""
    masks = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
    for number, (x, y) in enumerate(np.random.default_rng(seed).integers(0, 3, (count, 2))):
        if number % 2:
            masks[number, y : y + 4, x : x + 4] = 1
    return masks


TRUE = drawn(40, 0)


def packed(masks: np.ndarray) -> np.ndarray:
    return np.packbits(masks.reshape(len(masks), -1).astype(bool), axis=1)


def test_right_answers_and_controls():
    region = best_region(drawn(60, 1), np.arange(60) % 2 == 1)
    scores = mask_scores(packed(TRUE), TRUE, region, None)
    figures = scores["figures"]
    assert set(figures["tower"].values()) == {1.0}
    assert figures["predict_nothing"] == {"all": 0.5, "with mask": 0.0, "without mask": 1.0, "balanced": 0.5}
    assert figures["prior"]["with mask"] > 0.6 > figures["shuffled"]["with mask"] > 0
    assert figures["prior"]["without mask"] == 0
    assert figures["tower_less_prior"]["all"] == pytest.approx(1 - figures["prior"]["all"])
    assert scores["counts"] == {"with mask": 20, "without mask": 20}
    low, high = scores["intervals"]["predict_nothing"]["all"]
    assert 0.3 < low < 0.5 < high < 0.7


def test_the_best_region_is_the_share_with_the_highest_dice():
    masks = np.zeros((4, 1, 4), dtype=np.uint8)
    masks[0, 0, :2] = masks[1, 0, :2] = masks[2, 0, 1:3] = 1  # the second pixel in all, the first in two of three
    region = best_region(masks, np.array([True, True, True, False]))
    assert region.tolist() == [[True, True, False, False]]  # (1 + 1 + 1/2) / 3; the second alone 2/3, three .8 - ...


def test_figures_of_a_validation_without_empty_masks_are_still_numbers():
    with_mask = TRUE[1::2]
    figures = mean_dices(packed(with_mask), with_mask)
    assert figures == {"dice": 1.0, "dice_with_mask": 1.0, "dice_balanced": 1.0}
    assert dices(packed(0 * TRUE), TRUE).tolist() == [1.0, 0.0] * 20
