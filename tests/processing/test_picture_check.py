"""One look at each picture: what shows nothing, looks inverted or is no chest is said, and an ordinary one is not."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from litegpt.processing.picture_check import has_contrast, looks_inverted, picture_doubts
from litegpt.processing.radiograph import load_radiograph, squash_radiograph
from tests.processing.chest_picture import chest


def doubts(greys: np.ndarray) -> list[str]:
    return picture_doubts(Image.fromarray(np.asarray(greys, np.uint8)))


def test_a_chest_has_no_doubts():
    assert doubts(chest()) == [] and has_contrast(chest()) and not looks_inverted(chest())


@pytest.mark.parametrize(
    ("greys", "said"),
    [
        (np.zeros((300, 240)), "shows next to nothing: 100 %"),
        (np.full((300, 240), 255), "shows next to nothing: 100 %"),
        (np.full((300, 240), 117), "almost no contrast: most of it lies within 0 "),
        (chest() // 16, "almost no contrast: most of it lies within"),
        (np.where(chest() < 100, 0, 255), "shows next to nothing"),
        (np.where(np.arange(300)[:, None] < 75, chest(), 255), "of it is black or white without any detail"),
        (255 - chest(), "looks inverted"),
        (np.random.default_rng(0).integers(0, 256, (300, 240)), "does not look like a frontal chest"),
        (np.tile(chest(), (1, 4)), "sides of 960 x 300"),
    ],
    ids=["black", "white", "grey", "dark", "two levels", "burnt out", "inverted", "noise", "wide"],
)
def test_what_is_no_chest_to_be_read_is_said(greys, said):
    assert any(re.search(said, doubt) for doubt in doubts(greys)), doubts(greys)


def test_nothing_is_said_of_what_is_too_small_to_be_judged():
    assert doubts(np.zeros((40, 60))) == [] and has_contrast(np.zeros((40, 60), np.uint8))


def test_large_pictures_are_judged_like_small_ones():
    large = np.kron(chest(), np.ones((5, 5), np.uint8))
    assert doubts(large) == [] and "looks inverted" in doubts(255 - large)[0]


def test_doubts_travel_with_the_picture_and_with_what_the_towers_get():
    black = np.zeros((300, 240), np.uint8)
    with pytest.warns(UserWarning, match="the given array: it shows next to nothing") as caught:
        picture = load_radiograph(black)
    said = ["it shows next to nothing: 100 % of it is black or white"]
    assert len(caught) == 1 and picture.info["warnings"] == said
    with pytest.warns(UserWarning):
        assert squash_radiograph(black, [(32, 32)]).warnings == tuple(said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was said when the picture was read
        assert squash_radiograph(picture, [(32, 32)]).warnings == tuple(said)
    assert "warnings" not in load_radiograph(chest()).info
    assert squash_radiograph(chest(), [(32, 32)]).warnings == ()


def test_false_alarms_are_rare_on_real_radiographs(real_cxr):
    """Measured: 2 of 835 here, 1 of 1,400 frontal ones of Open-i."""
    files = sorted((real_cxr / "nih_320" / "test").iterdir()) + sorted((real_cxr / "real_cxr" / "nih").iterdir())
    told = [file.name for file in files if picture_doubts(Image.open(file).convert("L"))]
    assert len(told) <= 1, told
    inverted = sum(looks_inverted(255 - np.asarray(Image.open(file).convert("L"))) for file in files[::4])
    assert inverted >= 0.95 * len(files[::4])
