"""One look at a picture before it is answered: grey levels to read in it, and a chest the right way round?

    picture_doubts(Image.new("L", (500, 500)))
    # ["it shows next to nothing: only 0 % of it is neither black nor white"]

In: an 8-bit grey picture. Out: the doubts, each a short text; a good radiograph has none. A doubt is not a refusal:
the picture is answered, and what is doubted goes with the answer.

The thresholds were measured on 5,453 real chest radiographs (835 of ChestX-ray14 at 320 pixels, 120 at full size, 33
of the COVID collection, 4,465 of Open-i, a good third of these lateral):
- Between black and white lie 49 to 100 % of a picture, and nine tenths of that take 53 levels or more, mostly over
  120. No picture is below `LEAST_BETWEEN` or `LEAST_LEVELS`.
- The correlation with the mean chest is 0.77 for half of the frontal ones. False alarms: 2 of 835 (nih_320, of whose
  training part it is the mean), 1 of 1,400 (Open-i), none of 120 (NIH at full size), none of 33 (COVID). Lateral views
  have about 0.4, 11 of 1,261 are told. Of the inverted frontal ones 98 in 100 are told, and no right one is.
- Left and right cannot be told: one in four ordinary films looks more like the mirrored mean chest (rotation and
  effusions say more than the tip of the heart), so nothing here speaks of mirrored pictures.
"""

import numpy as np
from PIL import Image

SMALLEST_SIDE = 64  # pixels; a smaller picture has too little to be judged by
LARGEST_ASPECT = 2.5  # longer side over shorter; films have 1 to 1.3, spines and legs 2 and more
LEAST_BETWEEN = 0.3  # share of pixels that are neither black (below 3) nor white (above 252)
MOST_OF_ONE = 0.6  # share of pixels that are black, or that are white, where a window fits its pixels
LEAST_LEVELS = 48  # between the 5th and 95th percentile of those pixels
INVERTED = -0.35  # correlation with the mean chest
NO_CHEST = 0.02

_BLACK, _WHITE = 3, 253
_SAMPLED_SIDE = 128  # pixels of the shorter side that are looked at: 20,000 tell the same as 7 million
# The left half of the mean of 670 frontal radiographs of ChestX-ray14 (NIH Clinical Center, free to use) at 16 x 16
# pixels, each with mean 0 and norm 1, made symmetric; in 1/1700.
_HALF_CHEST = """
-102 -98 -94 -89 -76 -47 -13 6
-80 -64 -57 -52 -44 -26 -4 11
-46 -26 -18 -17 -18 -18 -8 7
-19 0 4 -2 -16 -25 -16 4
-4 11 12 -2 -25 -36 -22 5
2 14 13 -4 -30 -40 -21 10
0 12 13 -7 -31 -36 -13 17
-7 8 11 -7 -28 -26 -1 26
-14 3 9 -5 -20 -14 11 34
-21 0 9 0 -7 2 22 42
-27 -4 11 9 8 18 34 48
-34 -7 13 20 24 33 44 55
-41 -10 17 30 39 46 54 61
-46 -13 20 38 49 56 61 66
-51 -15 22 43 55 62 66 70
-52 -14 23 44 56 62 66 68
"""


def picture_doubts(image: Image.Image, turn: Image.Transpose | None = None) -> list[str]:
    """What is doubtful about a picture of mode "L", in words; nothing about one smaller than `SMALLEST_SIDE`.

    Args:
        image: the radiograph.
        turn: brings it to the standard view, see `dicom.GreyPicture`.
    """
    if min(image.size) < SMALLEST_SIDE:
        return []
    # By Pillow, which touches these pixels alone: an array of all would take as long as a tenth of the reading.
    step = _step(image.height, image.width)
    size, every_step = (image.width // step, image.height // step), (step, 0, 0, 0, step, 0)
    sample = np.asarray(image.transform(size, Image.Transform.AFFINE, every_step, Image.Resampling.NEAREST))
    between, levels = _spread(sample)
    if _is_blank(between, levels):
        if between < LEAST_BETWEEN:
            return [f"it shows next to nothing: {_percent(1 - between)} of it is black or white"]
        return [f"it has almost no contrast: most of it lies within {levels} of 256 grey levels"]
    doubts = []
    if between < LEAST_BETWEEN:
        doubts.append(f"{_percent(1 - between)} of it is black or white without any detail")
    if max(image.size) > LARGEST_ASPECT * min(image.size):
        doubts.append(f"its sides of {image.width} x {image.height} pixels are not a chest radiograph's")
    if turn is not None:
        sample = np.asarray(Image.fromarray(sample).transpose(turn))
    likeness = chest_likeness(sample)
    if likeness < INVERTED:
        doubts.append("it looks inverted (air white, bone black), or is no chest radiograph")
    elif likeness < NO_CHEST:
        doubts.append("it does not look like a frontal chest radiograph")
    return doubts


def has_contrast(greys: np.ndarray) -> bool:
    """Whether 8-bit greys (rows, columns) show anything, and not mostly black or mostly white; always where they are
    too few to be judged."""
    if min(greys.shape) < SMALLEST_SIDE:
        return True
    sample = _sample(greys)
    one_sided = max((sample < _BLACK).mean(), (sample >= _WHITE).mean()) > MOST_OF_ONE
    return not (one_sided or _is_blank(*_spread(sample)))


def looks_inverted(greys: np.ndarray) -> bool:
    """Whether 8-bit greys (rows, columns) look like the negative of a chest radiograph."""
    return min(greys.shape) >= SMALLEST_SIDE and chest_likeness(_sample(greys)) < INVERTED


def chest_likeness(greys: np.ndarray) -> float:
    """The correlation, -1 to 1, of greys (rows, columns) with the mean frontal chest radiograph."""
    small = np.asarray(Image.fromarray(greys).resize((16, 16), Image.Resampling.BOX), dtype=float)
    return float((_unit(small) * _MEAN_CHEST).sum())


def _sample(greys: np.ndarray) -> np.ndarray:
    step = _step(*greys.shape)
    return np.ascontiguousarray(greys[::step, ::step])


def _step(rows: int, columns: int) -> int:
    return max(1, min(rows, columns) // _SAMPLED_SIDE)


def _spread(sample: np.ndarray) -> tuple[float, int]:
    """The share of pixels between black and white, and the grey levels between which nine tenths of these lie."""
    counts = np.bincount(sample.ravel(), minlength=256)[_BLACK:_WHITE]
    if not counts.any():
        return 0.0, 0
    shares = np.cumsum(counts) / counts.sum()
    low, high = np.searchsorted(shares, (0.05, 0.95))
    return float(counts.sum() / sample.size), int(high - low)


def _is_blank(between: float, levels: int) -> bool:
    return between < LEAST_BETWEEN / 3 or levels < LEAST_LEVELS


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def _unit(picture: np.ndarray) -> np.ndarray:
    centred = picture - picture.mean()
    return centred / (np.linalg.norm(centred) or 1.0)


_half = np.array(_HALF_CHEST.split(), dtype=float).reshape(16, 8)
_MEAN_CHEST = _unit(np.concatenate([_half, _half[:, ::-1]], axis=1))
