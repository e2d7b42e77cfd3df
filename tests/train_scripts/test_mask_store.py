"""Masks that lie and move with their radiographs."""

import numpy as np
import pytest
import torch

from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.train_scripts.mask_store import MaskStore, filled_boxes
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement
from tests.small_finetune import SIDE, entry, write_entries

# A part of the picture is shown larger, another is out of sight.
MOVED = Movement(scale=(1.6, 1.3), shift=(0.15, -0.1))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    data = write_entries(folder / "squares", {"train": [entry(number) for number in range(8)]}, ("mask",))
    return load_rows(data, "train", str(folder / "cache"))


@pytest.mark.parametrize("columns", ["mask", "boxes"])
@pytest.mark.parametrize("side", [SIDE, 64])
def test_a_mask_covers_what_is_bright_whether_drawn_or_made_of_boxes(columns, side, rows, tmp_path):
    rows = rows if columns == "mask" else rows.remove_columns("mask")
    masks = MaskStore(rows, side, tmp_path)
    (bright,) = RadiographStore(rows, [image_processor(side)], tmp_path).pictures
    for number, mask in enumerate(masks.true):
        assert mask.any() == (number % 2 == 0) == masks.positive[number]
        if mask.any():
            found = bright[number] > 120
            assert 2 * (found & mask.astype(bool)).sum() / (found.sum() + mask.sum()) > 0.95


@pytest.mark.parametrize("movement", [MOVED, Movement(scale=(0.8, 0.9), shift=(-0.1, 0.05))])
def test_a_mask_moves_with_its_radiograph_and_with_its_box(movement, rows, tmp_path):
    masks = MaskStore(rows, 64, tmp_path)
    store = RadiographStore(rows, [image_processor(64, [0.0] * 3, [1.0] * 3)], tmp_path)
    numbers = [0, 2, 4, 6]
    shown = store.pixel_values(numbers, [movement] * 4)[0][:, 0] * 255 > 120
    moved = masks.targets(numbers, [movement] * 4)["masks"]
    filled_masks = [filled_boxes(movement.findings(rows[number]["findings"]), 64) for number in numbers]
    seen = [mask.sum() > 30 for mask in moved]
    assert any(seen)
    for mask, bright, filled in zip(moved, shown, filled_masks, strict=True):
        if mask.sum() > 30:
            assert 2 * (mask * bright).sum() / (mask.sum() + bright.sum()) > 0.85
            assert 2 * (mask * torch.from_numpy(filled)).sum() / (mask.sum() + filled.sum()) > 0.85


def test_an_unmoved_mask_is_exactly_the_stored_one(rows, tmp_path):
    masks = MaskStore(rows, SIDE, tmp_path)
    unmoved = masks.targets([1, 4], [Movement(), Movement()])["masks"]
    assert np.array_equal(unmoved.numpy(), masks.true[[1, 4]])


def test_a_box_without_a_pixel_centre_has_the_pixel_of_its_own():
    assert np.argwhere(filled_boxes([{"box": [0.26, 0.01, 0.3, 0.05]}], 4)).tolist() == [[0, 1]]


def test_a_broken_mask_is_named(tmp_path):
    entries = [entry(0), entry(2, mask={"bytes": b"no picture", "path": None})]
    data = write_entries(tmp_path / "squares", {"train": entries}, ("mask",))
    with pytest.raises(ValueError, match="image2: the mask can't be decoded"):
        MaskStore(load_rows(data, "train", str(tmp_path / "cache")), SIDE, tmp_path)
    assert not list(tmp_path.glob("masks-*.npy"))
