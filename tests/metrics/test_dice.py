import numpy as np
import pytest

from litegpt.metrics.dice import dice, mean_dice, nothing_predicted, pixel_counts


def masks(*rows: str) -> np.ndarray:
    """(images, 1, pixels) bool, of "##.." for each image."""
    return np.array([[[pixel == "#" for pixel in row]] for row in rows])


PREDICTED = masks("##..", "....", "#...", "....", "..##")
TRUE = masks(".##.", "....", "....", "#...", "..##")


def test_dice_by_hand():
    counts = pixel_counts(PREDICTED, TRUE)
    assert counts.tolist() == [[2, 2, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 2, 2]]
    assert dice(counts).tolist() == [0.5, 1.0, 0.0, 0.0, 1.0]


def test_means_of_the_groups_by_hand():
    counts = pixel_counts(PREDICTED, TRUE)
    assert mean_dice(counts) == pytest.approx(2.5 / 5)
    assert mean_dice(counts, "with mask") == pytest.approx((0.5 + 0 + 1) / 3)
    assert mean_dice(counts, "without mask") == pytest.approx(1 / 2)
    assert mean_dice(counts, "balanced") == pytest.approx(1 / 2)


def test_predicting_nothing_scores_the_share_of_images_without_a_mask():
    # SIIM's published test list: 64.7 % have none. ECAMP's Dice with 1 % of the labels is .667.
    true = np.zeros((1000, 2, 2), dtype=bool)
    true[:353, 0, 0] = True
    counts = nothing_predicted(pixel_counts(np.ones_like(true), true))
    assert mean_dice(counts) == pytest.approx(0.647)
    assert mean_dice(counts, "with mask") == 0 and mean_dice(counts, "without mask") == 1
    assert mean_dice(counts, "balanced") == 0.5


@pytest.mark.parametrize("among", ["all", "with mask", "without mask", "balanced"])
def test_weights_count_an_image_as_often_as_it_were_repeated(among):
    counts = pixel_counts(PREDICTED, TRUE)
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 3, 1, 0]])
    expected = [mean_dice(counts, among), mean_dice(np.repeat(counts, weights[1], axis=0), among)]
    assert mean_dice(counts, among, weights) == pytest.approx(expected)


def test_a_group_that_no_image_is_of_has_no_mean():
    counts = pixel_counts(PREDICTED[:1], TRUE[:1])
    assert np.isnan(mean_dice(counts, "without mask")) and np.isnan(mean_dice(counts, "balanced"))


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        pixel_counts(PREDICTED, TRUE[:, :, :3])
