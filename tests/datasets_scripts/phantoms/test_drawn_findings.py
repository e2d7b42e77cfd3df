from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from litegpt.datasets_scripts.phantoms import drawn_findings
from litegpt.datasets_scripts.phantoms.drawn_findings import (
    AIRSPACE,
    DRAWINGS,
    HEART_SHARES,
    LARGEST_IOU,
    Film,
    box_of,
    draw_into,
    sample_labels,
)
from litegpt.datasets_scripts.phantoms.lungs import between_ends, find_lungs
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.datasets_scripts.vindr_cxr import FINDING_LABELS
from litegpt.processing.box_fusion import pairwise_iou

SIDE = 160


@pytest.fixture(scope="module")
def chests():
    """Normal chests with their lungs."""
    pictures = [draw_phantom(np.random.default_rng(seed), SIDE, labels=()).pixels for seed in range(5)]
    return [(picture, find_lungs(picture)) for picture in pictures]


def change_of(chest, labels, seed):
    """How the findings changed the pixels, and what they are; devices and exposure are the same with and without."""
    drawn, findings = draw_into(*chest, np.random.default_rng(seed), labels)
    normal, nothing = draw_into(*chest, np.random.default_rng(seed), [])
    assert nothing == []
    return drawn - normal, findings


def inside(box, margin=0.0):
    x = (np.arange(SIDE)[None, :] + 0.5) / SIDE
    y = (np.arange(SIDE)[:, None] + 0.5) / SIDE
    return (x > box[0] - margin) & (x < box[2] + margin) & (y > box[1] - margin) & (y < box[3] + margin)


@pytest.mark.parametrize("label", [label for label in DRAWINGS if label != "Cardiomegaly"])
def test_boxes_lie_where_pixels_changed(chests, label):
    seen = 0
    for seed in range(10):
        change, findings = change_of(chests[seed % 5], [label], seed)
        if not findings:  # no place was found, or a device hides it
            continue
        seen += 1
        assert label in [name for name, _ in findings]
        box = findings[0][1]
        change = np.abs(change)
        assert change[inside(box)].mean() > 5 * change[~inside(box, 0.04)].mean()
        strong = change > 0.5 * change.max()
        assert (strong & inside(box, 0.015)).sum() > 0.9 * strong.sum()
        # Tight: something changed at each of its sides.
        faint = box_of(change * inside(box, 0.01), 0.1 * change.max())
        assert all(abs(a - b) < 0.04 for a, b in zip(box, faint, strict=True)), (label, seed, box, faint)
    assert seen >= 8


@pytest.mark.parametrize("label", AIRSPACE)
def test_an_opacity_never_spills_over_the_chest_wall(chests, label):
    for seed in range(20):
        picture, lungs = chests[seed % 5]
        change, findings = change_of((picture, lungs), [label], seed)
        chest = between_ends(lungs[0] | lungs[1], axis=1)  # the lungs and what lies between them
        chest[5:] |= chest[:-5]  # what hides the diaphragm goes on below it
        outside = ~ndimage.binary_dilation(chest, iterations=round(0.045 * SIDE))
        assert np.abs(change[outside]).max() < 0.1 * np.abs(change).max(), (label, seed)


def test_added_density_ends_at_the_mediastinums_grey(chests):
    """Also on a steep gradation, where the lung is nearly as bright already."""
    picture, lungs = chests[0]
    picture = np.clip(picture + np.linspace(-0.2, 0.3, SIDE)[:, None], 0, 1)
    film = Film(picture, lungs)
    before = film.pixels.copy()
    film.add(np.ones_like(before), 3.0)
    assert (film.pixels <= np.maximum(before, film.tissue) + 1e-5).all()
    assert (film.pixels >= before - 1e-6).all()
    dark = before < film.tissue - 0.05
    assert np.abs(film.pixels[dark] - film.tissue).max() < 0.05
    film = Film(picture, lungs)
    film.add(np.ones_like(before), 0.2)
    far = before < film.tissue - film.density
    assert np.allclose((film.pixels - before)[far], 0.2 * film.density, atol=0.02 * film.density)


def test_a_large_heart_fills_its_box_and_leaves_the_chest_wall(chests):
    found = 0
    for seed in range(10):
        picture, lungs = chests[seed % 5]
        film = Film(picture, lungs)
        findings = drawn_findings.draw_heart(film, np.random.default_rng(seed))
        if not findings:
            continue
        found += 1
        ((label, (left, top, right, bottom)),) = findings
        assert label == "Cardiomegaly"
        columns = np.flatnonzero((lungs[0] | lungs[1]).any(0)) / SIDE
        share = (right - left) / (columns[-1] - columns[0])
        assert HEART_SHARES[0] - 0.03 < share < HEART_SHARES[1] + 0.03
        # The shadow reaches the box's sides at some height, and not far beyond.
        rows = slice(round((top + 0.1) * SIDE), round((bottom - 0.08) * SIDE))
        dark = film.pixels[rows] < film.tissue - 0.5 * film.density
        middle = round((left + right) / 2 * SIDE)
        reach_left = middle - np.argmax(dark[:, :middle][:, ::-1], axis=1)
        reach_right = middle + np.argmax(dark[:, middle:], axis=1)
        assert abs(np.median(reach_left) / SIDE - left) < 0.07
        assert abs(np.median(reach_right) / SIDE - right) < 0.07
        outer = np.abs(film.pixels - picture)[:, [*range(4), *range(SIDE - 4, SIDE)]]
        assert outer.max() < 0.02
        assert film.fields[0].mask.sum() < lungs[0].sum()
    assert found >= 4


def test_one_place_has_opacity_and_consolidation(chests):
    change, findings = change_of(chests[0], ["Consolidation"], 1)
    assert [label for label, _ in findings] == ["Consolidation", "Lung Opacity"]  # FINDING_LABELS' order
    assert findings[0][1] == findings[1][1] and change.max() > 0.1


def test_findings_do_not_cover_each_other(chests):
    for seed in range(8):
        _, findings = draw_into(*chests[seed % 5], np.random.default_rng(seed), ["Lung Opacity"] * 4)
        boxes = sorted({box for _, box in findings})
        overlaps = pairwise_iou(np.array(boxes))
        assert boxes and (overlaps[~np.eye(len(boxes), dtype=bool)] <= LARGEST_IOU).all()


def test_the_same_state_draws_the_same_and_the_picture_stays_as_it_was(chests):
    picture, lungs = chests[0]
    before = picture.copy()
    first, findings = draw_into(picture, lungs, np.random.default_rng(3))
    again, same = draw_into(picture, lungs, np.random.default_rng(3))
    assert (first == again).all() and findings == same
    assert (picture == before).all() and first.dtype == np.float32 and 0 <= first.min() and first.max() <= 1


def test_devices_come_on_well_and_ill(chests):
    """The stream of devices does not depend on the findings, so they say nothing about them."""
    plain = [draw_into(*chests[0], np.random.default_rng(seed), [])[0] - chests[0][0] for seed in range(30)]
    bright = [np.percentile(change, 99.9) for change in plain]
    assert 5 < sum(value > 0.15 for value in bright) < 30


def test_boxes_mean_the_same_at_other_sizes_and_shapes(chests):
    picture = draw_phantom(np.random.default_rng(7), (240, 320), labels=()).pixels
    pixels, findings = draw_into(picture, find_lungs(picture), np.random.default_rng(0), ["Pleural effusion"])
    assert pixels.shape == (320, 240)
    ((_, box),) = findings
    assert 0 <= box[0] < box[2] <= 1 and 0.4 < box[1] < box[3] <= 1


def test_sampled_labels():
    rng = np.random.default_rng(0)
    sampled = [sample_labels(rng) for _ in range(4000)]
    assert 0.27 < np.mean([not labels for labels in sampled]) < 0.33
    counts = Counter(label for labels in sampled for label in labels)
    assert set(counts) == set(DRAWINGS) <= set(FINDING_LABELS)
    assert counts.most_common(1)[0][0] == "Lung Opacity"
    order = list(DRAWINGS)
    assert all(labels == sorted(labels, key=order.index) for labels in sampled)
