"""The lung fields of a normal frontal radiograph, found without a trained model: the two dark regions of the chest.

    masks = find_lungs(picture)    # picture: (height, width), any grey scale, air is dark
    masks[0], masks[1]             # (160, 160) bool of the whole picture: the lung on the image's left, on its right
    find_lungs(lateral)            # None: no two such regions, the picture is refused

The outlines are rough: what lies behind the heart and below the domes of the diaphragm is left out. About half of all
normal radiographs are refused, above all those with collimated borders, low contrast or lungs that touch the frame.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 160  # pixels of a side of the picture in which lungs are sought, and of their masks
STEPS = (0.04, 0.0, -0.05, -0.1)  # from Otsu's threshold, in this order

FRAME = (
    0.04,
    0.05,
    0.93,
    0.95,
)  # top, left, bottom, right: what touches it, but for the bottom, is air around the body
MIDDLE = (slice(round(0.18 * SIDE), round(0.72 * SIDE)), slice(round(0.15 * SIDE), round(0.85 * SIDE)))
CENTRES_X = ((0.14, 0.47), (0.53, 0.86))  # of a lung on the image's left, on its right
CENTRES_Y = (0.25, 0.65)
AREAS = (0.05, 0.2)  # of a lung, as a share of the picture
LARGEST_RATIO = 2.2  # of the two lungs' areas
SMALLEST_HEIGHT, LOWEST_TOP = 0.3, 0.35


def find_lungs(picture: np.ndarray) -> np.ndarray | None:
    """Masks of both lungs; None where the picture does not show two regions of a lung's size, place and shape.

    Args:
        picture: (height, width), uint8 or float; squashed to SIDE x SIDE.

    Returns:
        (2, SIDE, SIDE) bool, each row and column of a lung without gaps but for rounding.
    """
    small = Image.fromarray(np.asarray(picture, np.float32)).resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = _evened(np.asarray(small))
    values = np.clip(grey[MIDDLE], 0, 1)
    if values.std() < 0.01:
        return None
    threshold = otsu(values)
    for step in STEPS:
        regions = _dark_regions(grey < threshold + step)
        if regions is None:
            continue
        lungs = np.stack([_filled(region) for region in regions])
        if _are_lungs(lungs):
            return lungs
    return None


def otsu(values: np.ndarray) -> float:
    """Otsu's threshold of values in [0, 1], which parts them into the two groups that lie furthest apart."""
    counts, edges = np.histogram(values, 64, (0, 1))
    shares, centres = counts / counts.sum(), (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(shares), np.cumsum(shares * centres)
    between = (sums[-1] * below - sums) ** 2 / (below * (1 - below) + 1e-9)
    return float(centres[np.argmax(between)])


def _evened(picture: np.ndarray) -> np.ndarray:
    """The picture without grain and without a part of its slow gradations, the chest's greys from 0 to 1."""
    coarse = Image.fromarray(picture).resize((SIDE // 8, SIDE // 8), Image.Resampling.BOX)
    slow = Image.fromarray(ndimage.gaussian_filter(np.asarray(coarse), 0.6 * SIDE / 8))
    slow = np.asarray(slow.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    grey = ndimage.gaussian_filter(picture, 0.012 * SIDE) - 0.35 * slow
    low, high = np.percentile(grey[MIDDLE], [1, 99])
    return (grey - low) / max(high - low, 1e-6)


def _dark_regions(dark: np.ndarray) -> list[np.ndarray] | None:
    """The largest dark region on each side that lies where a lung lies."""
    top, left, bottom, right = (round(edge * SIDE) for edge in FRAME)
    inside = np.zeros_like(dark)
    inside[top + 1 : bottom, left + 1 : right] = dark[top + 1 : bottom, left + 1 : right]
    labels, number = ndimage.label(ndimage.binary_opening(inside, iterations=max(1, SIDE // 80)))
    if number < 2:
        return None
    areas = np.bincount(labels.ravel(), minlength=number + 1)
    at_frame = np.concatenate([labels[:, left + 1], labels[:, right - 1], labels[top + 1]])
    areas[np.append(at_frame, 0)] = 0
    large = np.flatnonzero(areas > 0.035 * SIDE * SIDE)
    centres = ndimage.center_of_mass(labels > 0, labels, large)
    regions = []
    for low, high in CENTRES_X:
        fitting = [
            (areas[label], label)
            for label, (y, x) in zip(large, centres, strict=True)
            if low < x / SIDE < high and CENTRES_Y[0] < y / SIDE < CENTRES_Y[1]
        ]
        if not fitting:
            return None
        regions.append(labels == max(fitting)[1])
    return regions


def _filled(region: np.ndarray) -> np.ndarray:
    """The region without the notches of vessels and ribs: closed, then filled between its rows' and columns' ends."""
    margin = 12  # closing must not stick to the picture's edge
    closed = ndimage.binary_closing(np.pad(region, margin), iterations=SIDE // 30)[margin:-margin, margin:-margin]
    return between_ends(closed, axis=1) & between_ends(closed, axis=0)


def between_ends(mask: np.ndarray, axis: int) -> np.ndarray:
    """The mask and all that lies between its ends along an axis."""
    forwards = np.logical_or.accumulate(mask, axis)
    backwards = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)
    return forwards & backwards


def _are_lungs(lungs: np.ndarray) -> bool:
    areas = lungs.mean((1, 2))
    if not (AREAS[0] < areas.min() and areas.max() < AREAS[1] and areas.max() < LARGEST_RATIO * areas.min()):
        return False
    rows = [np.flatnonzero(lung.any(1)) for lung in lungs]
    heights = [(row[-1] - row[0]) / SIDE for row in rows]
    tops = [row[0] / SIDE for row in rows]
    return min(heights) > SMALLEST_HEIGHT and max(tops) < LOWEST_TOP and not (lungs[0] & lungs[1]).any()
