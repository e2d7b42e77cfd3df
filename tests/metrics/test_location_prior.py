"""Boxes and places of a model that never looks, held against values computed by hand."""

import numpy as np
import pytest

from litegpt.metrics.location_prior import COVERED, best_boxes, hottest_places, location_prior, scored_boxes

LEFT, RIGHT = [0.1, 0.2, 0.3, 0.6], [0.6, 0.2, 0.8, 0.6]
LEFT_TOO = [0.1, 0.2, 0.3, 0.5]  # IoU with LEFT 0.75
HALF_LEFT = [0.1, 0.2, 0.3, 0.32]  # 0.3 of LEFT: not above 0.3; 0.4 of LEFT_TOO


def images(*boxes: list[list[float]], label: str = "a") -> list[list[dict]]:
    return [[{"label": label, "box": box} for box in of_image] for of_image in boxes]


def test_boxes_of_the_prior_cover_what_is_left_the_best_first():
    found = location_prior([LEFT, RIGHT, LEFT_TOO, RIGHT, RIGHT])
    assert found == [(0.6, pytest.approx(RIGHT)), (0.4, pytest.approx([0.1, 0.2, 0.3, 0.55]))]  # at their means
    assert location_prior([]) == []


def test_a_box_at_the_threshold_is_not_covered():
    assert sorted(score for score, _ in location_prior([LEFT, HALF_LEFT])) == [0.5, 0.5]
    mean = [0.1, 0.2, 0.3, (0.6 + 0.32 + 0.5) / 3]
    assert location_prior([LEFT, HALF_LEFT, LEFT_TOO]) == [(1.0, pytest.approx(mean))]


def test_the_prior_has_both_lungs_and_no_box_between_them():
    rng = np.random.default_rng(1)
    boxes = [np.array(rng.choice([LEFT, RIGHT])) + rng.uniform(0, 0.08, 4) for _ in range(60)]
    found = location_prior(boxes)
    assert [box[0] < 0.5 for _, box in found[:2]].count(True) == 1
    assert sum(score for score, _ in found) <= 1 + 1e-9 and found[0][0] >= found[1][0] > 0.2


def test_scores_are_the_boxes_that_are_covered_an_image():
    training = [*images([RIGHT], [RIGHT], [LEFT], []), *images([LEFT], label="b"), [], [], []]
    assert [(box["label"], box["box"], box["score"]) for box in scored_boxes(training)] == [
        ("a", RIGHT, pytest.approx(2 / 8)),
        ("a", LEFT, pytest.approx(1 / 8)),
        ("b", LEFT, pytest.approx(1 / 8)),
    ]
    assert scored_boxes([]) == scored_boxes([[], []]) == []


def test_the_best_box_hits_most_images_not_most_boxes():
    """Three boxes of one image lie left; two images have one on the right."""
    training = images([LEFT, LEFT_TOO, LEFT], [RIGHT], [], [RIGHT])
    assert location_prior([box["box"] for of_image in training for box in of_image])[0][0] == 0.6
    assert best_boxes([*training, *images([LEFT], label="b")]) == {"a": RIGHT, "b": LEFT}
    assert best_boxes([[]]) == {}


def test_the_best_box_is_no_mean():
    assert best_boxes(images([LEFT], [RIGHT], [RIGHT], [LEFT_TOO], [LEFT]))["a"] in (LEFT, LEFT_TOO)


def test_the_hottest_place_lies_in_a_box_of_most_images():
    """Two boxes of one image count once; the others overlap in x from 0.25 to 0.5 and y from 0.5 to 0.75."""
    training = images([[0, 0, 0.25, 0.25]] * 3, [[0, 0.5, 0.5, 1]], [[0.25, 0.25, 0.75, 0.75]])
    places = hottest_places([*training, *images([[0.5, 0, 1, 0.5]], label="b")])
    assert places == {"a": pytest.approx((0.375, 0.625), abs=1 / 64), "b": pytest.approx((0.75, 0.25), abs=1 / 64)}


def test_of_two_hottest_places_it_is_one_and_none_between_them():
    x, y = hottest_places(images([LEFT, RIGHT], [LEFT, RIGHT]))["a"]
    assert y == pytest.approx(0.4, abs=1 / 32) and (0.1 < x < 0.3 or 0.6 < x < 0.8)


def test_many_boxes_are_sampled_and_the_same_in_every_run():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.2, (COVERED + 500, 2))
    training = [[{"label": "a", "box": [*corner, *(corner + 0.5)]}] for corner in corners]
    assert best_boxes(training) == best_boxes(training) and hottest_places(training) == hottest_places(training)
    assert sum(box["score"] for box in scored_boxes(training)) == pytest.approx(1)
    assert hottest_places(training)["a"] == pytest.approx((0.35, 0.35), abs=0.1)
