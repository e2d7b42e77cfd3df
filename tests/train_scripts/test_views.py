"""Random views of radiographs: CXR-CLIP's crops, in the ranges of the paper."""

import numpy as np
import pytest

from litegpt.train_scripts.views import CROP_AREA, CROP_ASPECT, Movement

CROPS = [Movement.random_crop(np.random.default_rng(seed)) for seed in range(400)]


def test_a_crop_lies_within_the_picture_and_is_never_mirrored():
    for crop in CROPS:
        size, shift = 1 / np.array(crop.scale), np.array(crop.shift)
        start = 0.5 - (shift + 0.5) * size  # where the view's left and upper edge lie in the picture
        assert (size > 0).all() and (size <= 1 + 1e-9).all()
        assert (start >= -1e-9).all() and (start + size <= 1 + 1e-9).all()


def test_a_crop_has_the_papers_area_and_aspect():
    areas = np.array([1 / np.prod(crop.scale) for crop in CROPS])
    aspects = np.array([crop.scale[1] / crop.scale[0] for crop in CROPS])
    assert areas.min() >= CROP_AREA[0] - 1e-9 and areas.max() <= 1 + 1e-9 and np.ptp(areas) > 0.15
    assert aspects.min() >= CROP_ASPECT[0] - 1e-9 and aspects.max() <= CROP_ASPECT[1] + 1e-9
    assert aspects.min() < 0.85 and aspects.max() > 1.15  # either side may be cut


def test_the_corners_of_a_crop_are_seen_at_the_corners_of_the_view():
    crop = Movement.random_crop(np.random.default_rng(5))
    size, shift = 1 / np.array(crop.scale), np.array(crop.shift)
    start = 0.5 - (shift + 0.5) * size
    (moved,) = crop.findings([{"label": 0, "box": [*start, *(start + size)]}])
    assert moved["box"] == pytest.approx([0, 0, 1, 1])


def test_grey_values_change_within_the_papers_ranges():
    # brightness b and contrast c: grey -> b * (c * (grey - 1/2) + 1/2)
    for grey, least, most in ((0.5, 0.45, 0.55), (0.0, 0.0 - 0.11, 0.11), (1.0, 0.81, 1.21)):
        values = [grey * crop.contrast + crop.brightness for crop in CROPS]
        assert min(values) >= least - 1e-9 and max(values) <= most + 1e-9 and np.ptp(values) > 0.05
    assert all(crop.gamma == 1 for crop in CROPS)


def test_gamma_is_drawn_on_both_sides_as_far_as_asked():
    gammas = np.array([Movement.random_crop(np.random.default_rng(seed), max_gamma=0.4).gamma for seed in range(200)])
    assert np.exp(-0.4) <= gammas.min() < 0.75 and 1.3 < gammas.max() <= np.exp(0.4)
    assert abs(np.log(gammas).mean()) < 0.05


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 80, 120), (1.0, 200, 200)])
def test_contrast_is_equalised_as_often_as_asked(share, least, most):
    crops = [Movement.random_crop(np.random.default_rng(seed), equalised=share) for seed in range(200)]
    assert least <= sum(crop.equalised for crop in crops) <= most


def test_the_same_random_numbers_give_the_same_view():
    one, other = (Movement.random_crop(np.random.default_rng(3), 0.4) for _ in range(2))
    assert one == other != Movement.random_crop(np.random.default_rng(4), 0.4)


def test_boxes_of_phrases_and_sentences_move_as_findings_do():
    left, right = Movement(shift=(-0.3, 0.0)), (0.6, 0.4, 0.8, 0.6)
    out_of_sight, partly = (0.0, 0.4, 0.2, 0.6), (0.0, 0.4, 0.35, 0.6)
    row = {
        "findings": [{"label": 1, "box": box} for box in (right, out_of_sight)],
        "diagnoses": [0],
        "phrase": [
            {"phrase": "both", "boxes": [right, out_of_sight]},
            {"phrase": "gone", "boxes": [out_of_sight]},
            {"phrase": "never there", "boxes": []},
        ],
        "sentences": [
            {"text": "Both.", "boxes": [right, partly]},
            {"text": "Hardly seen.", "boxes": [partly]},
            {"text": "Nothing.", "boxes": []},
        ],
        "report_findings": "Both. Hardly seen. Nothing.",
    }
    moved = left.row(row)
    assert [finding["box"] for finding in moved["findings"]] == [pytest.approx([0.3, 0.4, 0.5, 0.6])]
    assert [(one["phrase"], len(one["boxes"])) for one in moved["phrase"]] == [("both", 1), ("never there", 0)]
    assert moved["phrase"][0]["boxes"][0] == moved["findings"][0]["box"]
    # A report keeps its sentences; of one that would lose its last box what is seen of it stays.
    assert [(one["text"], len(one["boxes"])) for one in moved["sentences"]] == [
        ("Both.", 1),
        ("Hardly seen.", 1),
        ("Nothing.", 0),
    ]
    assert moved["sentences"][1]["boxes"][0] == pytest.approx([0.0, 0.4, 0.05, 0.6])
    assert moved["report_findings"] == row["report_findings"] and moved["diagnoses"] == [0]
    row["sentences"].append({"text": "Gone.", "boxes": [out_of_sight]})
    assert left.row(row)["sentences"] == []
