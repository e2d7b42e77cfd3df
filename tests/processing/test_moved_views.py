"""Other views of a radiograph: moved as training moves them, with boxes that come back to where they were."""

from dataclasses import astuple

import numpy as np
import pytest
import torch
from PIL import Image

from litegpt.processing.moved_views import MovedView, moved_views
from litegpt.processing.radiograph import SquashedRadiograph
from litegpt.train_scripts.radiograph_store import moved
from litegpt.train_scripts.views import Movement

BOX = (0.2, 0.3, 0.55, 0.7)


def picture(side: int) -> Image.Image:
    y, x = np.mgrid[:side, :side] / side
    return Image.fromarray((60 + 80 * x + 60 * y + 20 * np.sin(9 * x * y)).astype(np.uint8))


@pytest.fixture(scope="module")
def radiograph() -> SquashedRadiograph:
    return SquashedRadiograph((300, 200), {(side, side): picture(side) for side in (48, 64)}, None, ("doubtful",))


def test_a_view_moved_by_nothing_is_the_radiograph(radiograph):
    assert MovedView().radiograph(radiograph) is radiograph
    assert MovedView().box_back(BOX) == BOX


@pytest.mark.parametrize("view", moved_views(4))
def test_a_view_is_what_training_shows_and_its_boxes_come_back(radiograph, view):
    shown = view.radiograph(radiograph)
    assert shown.size == radiograph.size and shown.warnings == radiograph.warnings
    movement = Movement(view.scale, view.shift, view.contrast, view.brightness)
    for size, before in radiograph.pictures.items():
        grey = torch.tensor(np.asarray(before), dtype=torch.float32)[None]
        expected = moved(grey, [movement])[0]
        expected = (expected * view.contrast + 255 * view.brightness).clamp(0, 255).numpy()
        difference = np.abs(np.asarray(shown.pictures[size], dtype=float) - expected)
        assert difference.max() <= 2.5 and difference.mean() < 0.7  # bilinear here and there, rounded here
    assert view.box_back(movement.box(BOX)) == pytest.approx(BOX)
    assert np.clip(view.box_back((0.0, 0.0, 1.0, 1.0)), 0, 1).tolist() == list(view.box_back((0.0, 0.0, 1.0, 1.0)))


def test_the_views_are_always_the_same_differ_and_none_is_mirrored():
    views = moved_views(4)
    assert views == moved_views(4) == moved_views(6)[:4]
    assert len(set(views)) == 4 and MovedView() not in views
    assert all(0.9 < scale < 1.1 for view in views for scale in view.scale)
    assert moved_views(0) == []


def test_a_movement_of_training_has_the_same_first_fields():
    """`MovedView` and `Movement` are of the same convention: scale, shift, contrast, brightness."""
    assert astuple(Movement())[:4] == tuple(MovedView())
