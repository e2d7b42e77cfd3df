"""ECAMP's windows: around boxes, around what a dual encoder sees, and never outside the image."""

import numpy as np
import pytest

from litegpt.modeling_towers.checkpoints import load_cxr_clip
from litegpt.train_scripts.arguments import ReportArguments
from litegpt.train_scripts.context_windows import (
    SIDE,
    window_around,
    window_of_map,
    windows_of_boxes,
    windows_of_similarity,
)
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.reports import Reports
from litegpt.train_scripts.views import Movement
from tests.small_cxr_clip import pretrain, row, rows_of, write_prepared


def test_a_window_is_6_7_of_a_side_within_the_image_and_as_near_as_it_can_be():
    assert window_around(0.5, 0.5) == pytest.approx((1 / 14, 1 / 14, 13 / 14, 13 / 14))
    assert window_around(0.0, 1.0) == pytest.approx((0, 1 - SIDE, SIDE, 1))
    windows = windows_of_boxes([[], [[0.0, 0.0, 0.1, 0.1], [0.0, 0.8, 0.1, 1.0]]])
    assert windows[0].tolist() == [0, 0, 1, 1]
    assert windows[1] == pytest.approx([0, 0.475 - SIDE / 2, SIDE, 0.475 + SIDE / 2])
    assert windows_of_boxes([]).shape == (0, 4)


def test_the_window_of_a_map_lies_about_its_most_similar_places():
    similarity = np.zeros((10, 10))
    similarity[8:, 5:] = 1
    assert window_of_map(similarity) == pytest.approx((1 - SIDE, 1 - SIDE, 1, 1))
    similarity = np.zeros((4, 4))
    similarity[0, 3] = 2  # one of 16 places is more than a tenth
    similarity[0, 2] = 1
    assert window_of_map(similarity)[:2] == pytest.approx((1 - SIDE, 0))


def test_windows_of_a_dual_encoder_are_kept_and_hang_on_its_weights(tmp_path):
    entries = [row(number) for number in range(8)]
    data = write_prepared(tmp_path / "reports", {"train": entries})
    pretrain(tmp_path / "clip", [data], max_steps=1)
    model, processor = load_cxr_clip(tmp_path / "clip" / "checkpoint")
    rows = rows_of(entries)
    store, reports = RadiographStore(rows, [processor.image_processor], tmp_path), Reports(rows, ReportArguments())
    found = windows_of_similarity(model, processor, store, reports, tmp_path)
    assert found.shape == (8, 4) and (found >= 0).all() and (found <= 1).all()
    (kept,) = tmp_path.glob("windows-*.npy")
    np.save(kept, found + 0.5)
    assert (windows_of_similarity(model, processor, store, reports, tmp_path) == found + 0.5).all()
    model.logit_scale.data += 1
    assert (windows_of_similarity(model, processor, store, reports, tmp_path) == found).all()


def test_a_window_moves_along_with_the_picture():
    half = Movement(scale=(2.0, 2.0), shift=(0.5, 0.5))  # shows the upper left quarter
    assert half.box((0.0, 0.0, 0.25, 0.5)) == pytest.approx([0, 0, 0.5, 1])
    assert half.box((0.5, 0.5, 1, 1)) == pytest.approx([1, 1, 1, 1])  # nothing of it is left
