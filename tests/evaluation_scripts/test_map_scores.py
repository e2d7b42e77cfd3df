"""Scores of maps whose label is told: right maps, wrong ones, and what a control gets."""

import numpy as np
import pytest

from litegpt.evaluation_scripts.map_scores import MAP, BoxRule, centre_prior, given_class_scores, prior_regions
from litegpt.evaluation_scripts.row_priors import Prior
from litegpt.processing.map_boxes import MapBox, Regions, map_regions

TRUTHS = [
    [{"label": "Mass", "box": [0.1, 0.1, 0.3, 0.3]}],
    [{"label": "Mass", "box": [0.6, 0.6, 0.8, 0.8]}, {"label": "Edema", "box": [0.0, 0.0, 0.5, 1.0]}],
    [{"label": "Edema", "box": [0.0, 0.5, 0.4, 0.9]}, {"label": "Edema", "box": [0.5, 0.5, 0.9, 0.9]}],
]


def around(*boxes: list[float]) -> Regions:
    """Regions whose first box is the strongest, and holds the highest place in its centre."""
    x1, y1, x2, y2 = boxes[0]
    return Regions(
        ((x1 + x2) / 2, (y1 + y2) / 2),
        tuple(MapBox(tuple(box), 1.0 - 0.1 * number) for number, box in enumerate(boxes)),
    )


def right() -> list[dict[str, Regions]]:
    return [
        {
            label: around(*[box["box"] for box in boxes if box["label"] == label])
            for label in {b["label"] for b in boxes}
        }
        for boxes in TRUTHS
    ]


def nothing() -> list[dict[str, Regions]]:
    return [{box["label"]: Regions(None, ()) for box in boxes} for boxes in TRUTHS]


def test_right_boxes_are_all_found_and_one_box_a_map_finds_one_of_two():
    scores = given_class_scores(TRUTHS, {MAP: [right()], "nothing": [nothing()]}, None)
    figures, pooled = scores["figures"], scores["pooled"]
    assert set(figures[MAP]["accuracy_at_iou"].values()) == {1.0} == set(figures[MAP]["accuracy_at_iobb"].values())
    assert figures[MAP]["pointing_game"] == 1.0 == pooled[MAP]["pointing_game"]
    # Two of Edema's three boxes, both of Mass': 5/6 as the mean over the labels, 4/5 over the boxes.
    assert figures[MAP]["one_box_accuracy_at_iou"]["0.5"] == pytest.approx((1 + 2 / 3) / 2)
    assert pooled[MAP]["one_box_accuracy_at_iou"]["0.5"] == pytest.approx(4 / 5)
    assert figures["nothing"]["accuracy_at_iou"]["0.1"] == 0 == figures["nothing"]["pointing_game"]
    assert figures["map_less_nothing"]["accuracy_at_iou"]["0.1"] == 1
    assert scores["per_class"]["Edema"]["num_boxes"] == 3 and scores["per_class"]["Mass"]["pointing_game"] == 1
    assert scores["boxes_a_map"] == pytest.approx(5 / 4)


def test_iobb_forgives_a_small_box_that_iou_does_not():
    regions = right()
    regions[0] = {"Mass": around([0.1, 0.1, 0.2, 0.2])}  # a quarter of the true box, all within it
    figures = given_class_scores(TRUTHS, {MAP: [regions]}, None)["per_class"]["Mass"]
    assert figures["accuracy_at_iobb"]["0.9"] == 1 and figures["accuracy_at_iou"]["0.2"] == 1
    assert figures["accuracy_at_iou"]["0.3"] == 0.5


def test_a_threshold_is_to_be_passed_not_reached():
    regions = right()
    regions[0] = {"Mass": around([0.1, 0.1, 0.3, 0.2])}  # exactly half
    figures = given_class_scores(TRUTHS, {MAP: [regions]}, None)["per_class"]["Mass"]["accuracy_at_iou"]
    assert figures["0.4"] == 1 and figures["0.5"] == 0.5


def test_several_runs_of_a_control_are_averaged():
    scores = given_class_scores(TRUTHS, {MAP: [right()], "other": [right(), nothing()]}, None)
    assert scores["figures"]["other"]["accuracy_at_iou"]["0.5"] == 0.5 == scores["pooled"]["other"]["pointing_game"]


def test_intervals_are_wider_where_radiographs_are_of_one_patient():
    truths, regions = TRUTHS * 20, right() * 10 + nothing() * 10
    alone = given_class_scores(truths, {MAP: [regions]}, None)["intervals"][MAP]["pointing_game"]
    patients = np.arange(60) // 15
    together = given_class_scores(truths, {MAP: [regions]}, patients)["intervals"][MAP]["pointing_game"]
    assert alone[0] < 0.5 < alone[1] and together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_the_location_prior_is_one_box_and_one_place_of_each_label():
    prior = Prior([], {"Mass": [0.1, 0.1, 0.3, 0.3]}, {"Mass": (0.7, 0.2)})
    found = prior_regions(prior, ["Mass", "Edema"])
    assert found["Mass"].peak == (0.7, 0.2) and [box.box for box in found["Mass"].boxes] == [(0.1, 0.1, 0.3, 0.3)]
    assert found["Edema"] == Regions(None, ())


def test_the_centre_prior_is_highest_in_the_middle():
    prior = centre_prior(BoxRule())
    assert prior.peak == pytest.approx((0.5, 0.5), abs=0.05)
    x1, y1, x2, y2 = prior.boxes[0].box
    assert x1 == pytest.approx(1 - x2, abs=0.01) and y1 == pytest.approx(1 - y2, abs=0.01) and 0.3 < x2 - x1 < 0.9
    assert map_regions(np.zeros((4, 4), np.float32), *BoxRule()) == Regions(None, ())
