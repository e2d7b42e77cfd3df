"""Where the model believes a box, and what its tokens say of each coordinate."""

import numpy as np
import pytest

from litegpt.processing.box_scores import coordinate_values, drawn_boxes, expected_box
from litegpt.processing.findings_language import GRID

BOX = (0.38, 0.52, 0.81, 0.74)


def peaks(*values: dict[int, float]) -> np.ndarray:
    coordinates = np.zeros((4, GRID + 1))
    for corner, of_corner in enumerate(values):
        for value, probability in of_corner.items():
            coordinates[corner, value] = probability
    return coordinates


def test_a_sure_box_stays_where_it_is():
    coordinates = peaks({38: 1.0}, {52: 1.0}, {81: 1.0}, {74: 1.0})
    assert expected_box(BOX, coordinates) == pytest.approx(BOX)
    assert drawn_boxes(coordinates) == pytest.approx(np.tile(BOX, (256, 1)))


def test_the_expected_box_agrees_better_with_what_the_box_may_be():
    coordinates = peaks({38: 0.34, 44: 0.33, 50: 0.33}, {52: 1.0}, {81: 1.0}, {74: 1.0})
    box = expected_box(BOX, coordinates)

    def mean_iou(candidate):
        drawn = drawn_boxes(coordinates)
        width = np.minimum(candidate[2], drawn[:, 2]) - np.maximum(candidate[0], drawn[:, 0])
        union = candidate[2] - candidate[0] + drawn[:, 2] - drawn[:, 0] - width  # of the same height
        return (width / union).mean()

    assert mean_iou(box) > mean_iou(BOX)
    assert box == pytest.approx((0.44, 0.52, 0.81, 0.74), abs=0.02)


def test_what_is_no_number_and_what_has_no_area_is_no_box():
    lost = peaks({38: 0.5}, {52: 0.5}, {81: 0.5}, {74: 0.5})  # the other half is no coordinate at all
    assert expected_box(BOX, lost) == pytest.approx(BOX)
    crossed = peaks({38: 0.5, 90: 0.5}, {52: 1.0}, {81: 1.0}, {74: 1.0})
    box = expected_box(BOX, crossed)
    assert box[2] > box[0] and box[3] > box[1]


def test_a_number_may_end_before_the_next_digit():
    """`38><`: behind the 3 the model gave the end of the number .3, which makes it 3."""
    values = coordinate_values(["3", "8", "><"], [{"3": 0.8, "5": 0.2}, {"8": 0.6, "9": 0.1, "><": 0.3}, {"><": 1.0}])
    assert values[[3, 38, 39]] == pytest.approx([0.8 * 0.3, 0.8 * 0.6, 0.8 * 0.1])
    assert values[5] == values[55] == pytest.approx(0.2 / 11)
    assert values.sum() == pytest.approx(1)


def test_a_token_that_also_ends_the_answer_is_the_same_number():
    values = coordinate_values(["74>},"], [{"74>},": 0.5, "74>}.": 0.2, "7>},": 0.3}])
    assert values[[7, 74]] == pytest.approx([0.3, 0.7])
