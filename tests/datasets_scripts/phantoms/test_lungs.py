import csv

import numpy as np
import pytest
from PIL import Image

from litegpt.datasets_scripts.phantoms.anatomy import lung_mask, sample_chest
from litegpt.datasets_scripts.phantoms.lungs import SIDE, between_ends, find_lungs, otsu
from litegpt.datasets_scripts.phantoms.picture import draw_phantom


def chest(seed, size=128):
    return draw_phantom(np.random.default_rng(seed), size, labels=()).pixels


@pytest.mark.parametrize("seed", range(6))
def test_the_lungs_that_were_drawn_are_found_each_on_its_side(seed):
    found = find_lungs(chest(seed))
    drawn = sample_chest(np.random.default_rng(seed).spawn(4)[1])
    x, y = (np.arange(SIDE)[None, :] + 0.5) / SIDE, (np.arange(SIDE)[:, None] + 0.5) / SIDE
    assert found.shape == (2, SIDE, SIDE) and found.dtype == bool
    for mask, lung in zip(found, drawn.lungs, strict=True):
        truth = lung_mask(drawn, lung, x, y) > 0.5
        assert (mask & truth).sum() > 0.9 * mask.sum()  # the heart covers some of the drawn lung
        assert (mask & truth).sum() > 0.7 * truth.sum()


def test_size_and_scale_of_the_grey_do_not_matter():
    picture = chest(1, 320)
    floats, bytes_ = find_lungs(picture), find_lungs(np.rint(picture * 255).astype(np.uint8))
    assert (floats == bytes_).mean() > 0.999
    larger = np.asarray(Image.fromarray(picture).resize((700, 500)))
    assert (floats == find_lungs(larger)).mean() > 0.98


def test_what_shows_no_two_lungs_is_refused():
    picture = chest(2)
    rng = np.random.default_rng(0)
    one_lung = picture.copy()
    one_lung[:, :64] = picture[:, :64].max()
    for wrong in (1 - picture, np.rot90(picture), one_lung, rng.random((128, 128)), np.full((90, 80), 0.5)):
        assert find_lungs(wrong) is None


def test_otsu_parts_two_groups():
    values = np.concatenate([np.linspace(0.1, 0.3, 500), np.linspace(0.7, 0.9, 300)])
    assert 0.28 < otsu(values) < 0.72


def test_gaps_are_filled_along_one_axis():
    mask = np.array([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    assert between_ends(mask, axis=1).tolist()[0] == [False, True, True, True, False]
    assert between_ends(mask, axis=1)[1:].tolist() == mask[1:].tolist()
    assert (between_ends(mask, axis=0) == mask).all()


def test_about_half_of_real_normal_radiographs_are_accepted(real_cxr):
    folder = real_cxr / "nih_320"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    with open(folder / "annotations" / "image_labels_train.csv", newline="") as file:
        normal = [row["image_id"] for row in csv.DictReader(file) if row["No finding"] == "1"][:60]
    found = [find_lungs(np.asarray(Image.open(folder / "train" / f"{name}.jpg").convert("L"))) for name in normal]
    assert 0.3 < np.mean([lungs is not None for lungs in found]) < 0.75
