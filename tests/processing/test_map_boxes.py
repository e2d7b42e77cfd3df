"""Boxes of drawn maps are the boxes of what was drawn."""

import numpy as np
import pytest

from litegpt.processing.map_boxes import SIDE, enlarged, map_regions

CELL = 1 / 16  # of a grid of 16 x 16


def drawn(*regions: tuple[int, int, int, int, float]) -> np.ndarray:
    """A grid of 16 x 16 with rectangles x1, y1, x2, y2 of a height."""
    grid = np.zeros((16, 16), dtype=np.float32)
    for x1, y1, x2, y2, height in regions:
        grid[y1:y2, x1:x2] = height
    return grid


def test_each_isolated_region_has_its_box():
    found = map_regions(drawn((1, 2, 5, 6, 1.0), (9, 10, 15, 14, 1.0)), thresholds=(127,)).boxes
    boxes = sorted(box.box for box in found)
    assert len(boxes) == 2
    for box, expected in zip(boxes, [(1, 2, 5, 6), (9, 10, 15, 14)], strict=True):
        # Between a cell of 1 and a cell of 0 the enlarged map falls off evenly: at half its height stands the edge.
        assert np.abs(np.array(box) - np.array(expected) * CELL).max() <= 2 / SIDE
    assert all(box.strength > 0.7 for box in found)


def test_a_region_above_the_higher_threshold_lies_in_one_above_the_lower_and_has_its_own_box():
    found = map_regions(drawn((2, 2, 12, 12, 0.5), (5, 5, 8, 8, 1.0))).boxes
    assert len(found) == 2
    (x1, y1, x2, y2), inner = found[0].box, found[1].box
    assert x1 < inner[0] and y1 < inner[1] and x2 > inner[2] and y2 > inner[3]
    assert found[1].strength > found[0].strength


def test_the_highest_region_alone_has_a_box_by_the_other_rule():
    grid = drawn((1, 2, 5, 6, 0.8), (9, 10, 15, 14, 1.0))
    (found,) = map_regions(grid, thresholds=(127,), rule="peak").boxes
    assert found in map_regions(grid, thresholds=(127,)).boxes and found.box[0] > 0.5
    with pytest.raises(ValueError, match="regions or peak, not 'all'"):
        map_regions(grid, rule="all")


def test_regions_that_touch_at_a_corner_are_two_and_at_a_side_one():
    grid = np.zeros((SIDE, SIDE), dtype=np.float32)
    grid[10:20, 10:20] = grid[20:30, 20:30] = 1
    assert len(map_regions(grid, thresholds=(127,)).boxes) == 2
    grid[20:30, 19] = 1
    assert len(map_regions(grid, thresholds=(127,)).boxes) == 1


def test_boxes_do_not_depend_on_the_maps_scale_and_shift():
    grid = np.random.default_rng(0).normal(size=(12, 12)).astype(np.float32)
    expected = [box.box for box in map_regions(grid).boxes]
    for scale, shift in ((100.0, 0.0), (0.01, 5.0)):
        assert [box.box for box in map_regions(scale * grid + shift).boxes] == expected
    assert all(0 <= value <= 1 for box in expected for value in box)


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, np.inf])
def test_a_flat_or_broken_map_has_no_box_and_no_highest_place(value):
    grid = np.full((7, 7), value, dtype=np.float32)
    assert map_regions(grid).boxes == () and map_regions(grid).peak is None


def test_the_highest_place_is_the_centre_of_the_highest_cell():
    assert map_regions(drawn((3, 11, 4, 12, 2.0))).peak == pytest.approx((3.5 * CELL, 11.5 * CELL), abs=1 / SIDE)


def test_cells_keep_their_place_when_a_map_is_enlarged():
    large = enlarged(drawn((0, 0, 1, 16, 1.0)), (160, 320))
    assert large.shape == (320, 160) and large[:, :5].min() == 1 and large[:, 15:].max() == 0
