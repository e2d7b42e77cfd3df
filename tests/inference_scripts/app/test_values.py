"""The values behind the picture, as they travel to the browser."""

import base64
import warnings
import zlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image

from litegpt.inference_scripts.app import values
from litegpt.inference_scripts.app.values import for_screen, packed, values_behind
from litegpt.processing.radiograph import load_radiograph


def picture_of(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_radiograph(data)


def unpacked(text: str, shape: tuple[int, int], bytes_each: int) -> np.ndarray:
    """What `viewer.js` does."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(bytes_each, *shape)
    differences = planes[0] if bytes_each == 1 else planes[0].astype(np.uint16) << 8 | planes[1]
    return np.cumsum(differences, axis=1, dtype=differences.dtype)


def test_every_phantoms_picture_is_its_values_through_a_table_whatever_its_transfer_syntax(phantoms):
    syntaxes = set()
    for path in phantoms:
        data = path.read_bytes()
        found, picture = values_behind(data, picture_of(data)), picture_of(data)
        syntaxes.add(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        assert found is not None, path
        assert np.abs(found.table[found.pixels].astype(int) - np.asarray(picture)).max() <= 2
        assert found.pixels.min() == 0 and len(found.table) == found.pixels.max() + 1 > 256
    assert len(syntaxes) > 1


def test_values_are_in_the_files_own_unit(phantoms):
    for path in phantoms:
        dataset = pydicom.dcmread(path)
        if dataset.get("RescaleSlope", 1) != 1 and not dataset.file_meta.TransferSyntaxUID.is_compressed:
            break
    data = path.read_bytes()
    found = values_behind(data, picture_of(data))
    own = dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    np.testing.assert_allclose(found.pixels * found.slope + found.intercept, own)


def test_a_picture_of_16_bits_has_its_values_and_one_of_8_has_none():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for array, deep in ((ramp, True), ((ramp >> 8).astype(np.uint8), False)):
        file = BytesIO()
        Image.fromarray(array).save(file, "PNG")
        found = values_behind(file.getvalue(), picture_of(file.getvalue()))
        assert (found is not None) is deep


def test_values_that_do_not_make_the_picture_are_not_shown_as_its_values(phantoms):
    data = phantoms[0].read_bytes()
    other = picture_of(data).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert values_behind(data, other) is None
    assert values_behind(data[:500], other) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_arrive_as_they_were_sent(dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (5, 7)).astype(dtype)
    np.testing.assert_array_equal(unpacked(packed(pixels), pixels.shape, pixels.itemsize), pixels)


def test_what_no_browser_can_hold_is_averaged_over_squares(monkeypatch):
    monkeypatch.setattr(values, "MOST_PIXELS", 30)
    sent, side = for_screen(np.arange(100, dtype=np.uint16).reshape(10, 10))
    assert (side, sent.shape) == (2, (5, 5)) and sent[0, 0] == round((0 + 1 + 10 + 11) / 4)
