"""The values behind an 8-bit picture, for windowing on the screen, and how pixels travel to it.

    values = values_behind(data, picture)        # None where a file has no more than the picture's 256 greys
    values.table[values.pixels]                  # the picture, as the model saw it
    packed(values.pixels)                        # base64 of what `viewer.js` unpacks

What the file holds is decoded here by pydicom, imagecodecs or Pillow. `processing/dicom.py`, which makes the picture,
mends some files where header and pixels disagree. So the two are held against each other: only where the picture is a
function of the values, pixel by pixel, are they the picture's values.
"""

import base64
import math
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from litegpt.inference_scripts.dicom_identity import quietly

MOST_PIXELS = 16_000_000  # that are sent: a browser's canvas on a phone has no more
SAME_SHARE = 0.999  # of pixels whose grey the value alone must tell; an outline or a shutter's edge may differ
SAME_GREY = 2  # grey levels


@dataclass(frozen=True)
class Values:
    """What a file holds for each pixel.

    Attributes:
        pixels: (height, width) uint16, counted from the lowest value.
        table: (highest + 1,) uint8, the grey of each in the picture as the model saw it.
        slope, intercept: value in the file's own unit = pixel * slope + intercept.
    """

    pixels: np.ndarray
    table: np.ndarray
    slope: float
    intercept: float


def values_behind(data: bytes, picture: Image.Image) -> Values | None:
    """The values of a file whose bytes have been read as `picture` before; None where they are not to be had."""
    try:
        stored, slope, intercept = _stored(data)
    except Exception:  # what is damaged raises anything, and was mended for the picture
        return None
    if stored.ndim != 2 or stored.dtype.kind not in "iu" or stored.shape != (picture.height, picture.width):
        return None
    lowest = int(stored.min())
    if not 256 <= int(stored.max()) - lowest < 2**16:
        return None
    pixels = (stored.astype(np.int64) - lowest).astype(np.uint16)
    table = _table(pixels, np.asarray(picture))
    return None if table is None else Values(pixels, table, slope, intercept + slope * lowest)


@quietly
def _stored(data: bytes) -> tuple[np.ndarray, float, float]:
    if data[128:132] != b"DICM":
        image = Image.open(BytesIO(data), formats=("PNG", "TIFF"))
        return np.asarray(image) if image.mode.startswith("I") else np.zeros(()), 1.0, 0.0
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    has_table = "ModalityLUTSequence" in dataset
    slope = 1.0 if has_table else float(dataset.get("RescaleSlope", 1) or 1)
    intercept = 0.0 if has_table else float(dataset.get("RescaleIntercept", 0) or 0)
    if dataset.file_meta.TransferSyntaxUID in (JPEGLossless, JPEGLosslessSV1):  # pydicom has no free decoder for it
        pixels = imagecodecs.jpeg8_decode(get_frame(dataset.PixelData, 0, number_of_frames=1))
    else:
        pixels = pixel_array(dataset, index=0)
    bits = int(dataset.BitsStored)
    if dataset.PixelRepresentation == 0:  # bits above those stored may hold anything
        pixels = pixels & (2**bits - 1)
    return pixels, slope, intercept


def _table(pixels: np.ndarray, greys: np.ndarray) -> np.ndarray | None:
    """The grey of each value in the picture; None where equal values have other greys."""
    counts = np.bincount(pixels.ravel())
    sums = np.bincount(pixels.ravel(), weights=greys.ravel())
    used = np.flatnonzero(counts)
    table = np.rint(np.interp(np.arange(len(counts)), used, sums[used] / counts[used])).astype(np.uint8)
    same = np.abs(table[pixels].astype(np.int16) - greys) <= SAME_GREY
    return table if same.mean() >= SAME_SHARE else None


def for_screen(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """At most `MOST_PIXELS` of them, averaged over squares, and the side of these squares: 1 where all are sent."""
    side = math.ceil(math.sqrt(pixels.size / MOST_PIXELS))
    if side == 1:
        return pixels, 1
    height, width = (length // side for length in pixels.shape)
    blocks = pixels[: height * side, : width * side].reshape(height, side, width, side)
    return np.rint(blocks.mean((1, 3))).astype(pixels.dtype), side


def packed(pixels: np.ndarray) -> str:
    """(height, width) uint8 or uint16: differences along rows, upper bytes before lower ones, deflated, in base64.

    Three times smaller than as they are; browsers' own reader of 16-bit PNG would keep 8 bits.
    """
    differences = np.diff(pixels, axis=1, prepend=np.zeros((len(pixels), 1), pixels.dtype))
    planes = [differences] if pixels.dtype == np.uint8 else [differences >> 8, differences & 255]
    return base64.b64encode(zlib.compress(b"".join(plane.astype(np.uint8).tobytes() for plane in planes), 1)).decode()


def pixels_message(pixels: np.ndarray, **facts: Any) -> dict[str, Any]:
    """What the page gets: pixels with their size, how many bytes each has, and how much they were reduced."""
    sent, side = for_screen(pixels)
    return {
        "width": sent.shape[1],
        "height": sent.shape[0],
        "bytes": sent.dtype.itemsize,
        "reduced": side,
        "packed": packed(sent),
        **facts,
    }
