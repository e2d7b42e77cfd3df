"""Other views of one radiograph: slightly scaled and shifted, with another contrast, and boxes brought back.

    views = moved_views(4)                       # [MovedView(scale=(1.04, .97), shift=(.01, -.02), ...), ...]
    pictures = views[0].radiograph(squashed)     # what the towers see
    views[0].box_back((.2, .3, .4, .5))          # a box of that view, in the radiograph as it was

The same views for every radiograph, in every run. None is mirrored or turned: left and right carry meaning. A view
that is moved by nothing shows the radiograph itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from .radiograph import SquashedRadiograph

# 0.6 of what training moves radiographs by (`train_scripts/views.py`).
MAX_SCALE, MAX_SHIFT, MAX_CONTRAST, MAX_BRIGHTNESS = 0.06, 0.03, 0.09, 0.03


class MovedView(NamedTuple):
    """In [0, 1], `u -> (u - 0.5) * scale + 0.5 + shift`; grey values become `grey * contrast + brightness`."""

    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    contrast: float = 1.0
    brightness: float = 0.0

    def radiograph(self, squashed: SquashedRadiograph) -> SquashedRadiograph:
        """The radiograph in this view; what is moved in from outside repeats its edge."""
        if self == MovedView():
            return squashed
        pictures = {size: self.picture(picture) for size, picture in squashed.pictures.items()}
        return replace(squashed, pictures=pictures)

    def picture(self, picture: Image.Image) -> Image.Image:
        """An 8-bit grey picture in this view, of the same size."""
        if self == MovedView():
            return picture
        size = np.array(picture.size)
        step = 1 / np.array(self.scale)
        start = (0.5 - (0.5 + np.array(self.shift)) * step) * size  # what lies at the corner of the moved picture
        edge = int(np.ceil(np.abs(size * (step - 1)).max() + np.abs(start).max())) + 2
        wide = Image.fromarray(np.pad(np.asarray(picture), edge, mode="edge"))
        affine = (step[0], 0, start[0] + edge, 0, step[1], start[1] + edge)
        moved = wide.transform(picture.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        grey = np.asarray(moved, dtype=np.float32) * self.contrast + 255 * self.brightness
        return Image.fromarray(np.clip(np.round(grey), 0, 255).astype(np.uint8))

    def box_back(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """A box of this view, xyxy in [0, 1], in the radiograph as it was, cut at its edge."""
        if self == MovedView():
            return tuple(box)
        corners = (np.asarray(box, dtype=float).reshape(2, 2) - 0.5 - self.shift) / self.scale + 0.5
        return tuple(corners.clip(0, 1).ravel().tolist())


def moved_views(number: int) -> list[MovedView]:
    """The first `number` of the views in which every radiograph is shown beside itself."""
    rng = np.random.default_rng(5)
    views = []
    for _ in range(number):
        scale = 1 + rng.uniform(-MAX_SCALE, MAX_SCALE, 2)
        shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)
        contrast, brightness = rng.uniform(-MAX_CONTRAST, MAX_CONTRAST), rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS)
        views.append(MovedView(tuple(scale.tolist()), tuple(shift.tolist()), 1 + contrast, brightness))
    return views
