"""Boxes around what a map shows: ChestX-ray8's way from a heatmap to boxes (arXiv 1705.02315, section 4.2).

    map_regions(grid, (60, 180)).boxes           # (MapBox(box=(.2, .4, .5, .7), strength=.8), ...)
    map_regions(grid, (110,), "peak").boxes      # one box
    enlarged(grid, (1024, 1024))                 # the grid over a picture

In: a grid, (rows, columns), over the whole radiograph, the higher the more. Out: boxes, xyxy in [0, 1]. It travels
with checkpoints.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

try:
    from scipy import ndimage
except ImportError:  # of a stranger who wants no boxes
    ndimage = None

RULES = ("regions", "peak")
SIDE = 256  # of the enlarged map in which regions are searched


class MapBox(NamedTuple):
    """A box, xyxy in [0, 1], and the mean of the map in it, which is 0 at its lowest and 1 at its highest place."""

    box: tuple[float, float, float, float]
    strength: float


class Regions(NamedTuple):
    """What a map shows: its highest place, x and y in [0, 1], None of a flat map; and its boxes."""

    peak: tuple[float, float] | None
    boxes: tuple[MapBox, ...]


def enlarged(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) float32: a grid over a picture of (width, height), bilinear, its cells' centres in place."""
    image = Image.fromarray(np.ascontiguousarray(grid, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def map_regions(grid: np.ndarray, thresholds: Sequence[float] = (60, 180), rule: str = "regions") -> Regions:
    """The highest place, and boxes around isolated regions above each threshold of the map brought to 0..255.

    The map is enlarged first. Regions are isolated where no side of their pixels touches (not corners), and a box
    reaches to the outer edge of its region's pixels. A region above a higher threshold lies in one above a lower
    one, and has a box of its own. A flat map has neither.

    Args:
        rule: of `RULES`: "regions", a box around each, as the paper has it; or "peak", around that one of each
            threshold that holds the highest place.

    Raises:
        ImportError: SciPy is not installed.
        ValueError: there is no such rule.
    """
    if ndimage is None:
        raise ImportError("Boxes of maps need SciPy: pip install scipy.")
    if rule not in RULES:
        raise ValueError(f"The rule of boxes is {' or '.join(RULES)}, not {rule!r}.")
    heights = _spread(grid)
    if heights is None:
        return Regions(None, ())
    highest = int(heights.argmax())
    row, column = np.unravel_index(highest, heights.shape)
    found = []
    for threshold in thresholds:
        regions, _ = ndimage.label(heights > threshold / 255)
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
            if rule == "regions" or number == regions.flat[highest]:
                box = (columns.start / SIDE, rows.start / SIDE, columns.stop / SIDE, rows.stop / SIDE)
                found.append(MapBox(box, float(heights[rows, columns].mean())))
    return Regions(((float(column) + 0.5) / SIDE, (float(row) + 0.5) / SIDE), tuple(found))


def _spread(grid: np.ndarray) -> np.ndarray | None:
    """(SIDE, SIDE): the enlarged map, 0 at its lowest and 1 at its highest place; None of a flat one."""
    heights = enlarged(grid, (SIDE, SIDE))
    low, high = float(heights.min()), float(heights.max())
    if not np.isfinite(high - low) or high - low <= 1e-6 * max(abs(low), abs(high)):
        return None
    return (heights - low) / (high - low)
