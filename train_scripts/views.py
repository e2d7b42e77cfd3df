"""How a radiograph is shown in training: as it is, or moved at random, with its boxes moved along.

In: rows with findings. Out: a list of views, (number of the row, `Movement`), of which an epoch shows all.

    views = views_of(rows, augmented_views=3, seed=0)
    row, movement = views[1]
    movement.findings(rows[row]["findings"])   # boxes in the moved picture
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

MAX_SCALE, MAX_SHIFT, MAX_CONTRAST, MAX_BRIGHTNESS = 0.1, 0.05, 0.15, 0.05
MIN_VISIBLE = 0.3  # of a box's area; a finding of which less is seen is left out


@dataclass
class Movement:
    """A random view of a radiograph: scaled and shifted, with other contrast and brightness; never mirrored or turned.

    Left and right carry meaning in a chest radiograph. In [0, 1], `u -> (u - 0.5) * scale + 0.5 + shift`.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    contrast: float = 1.0
    brightness: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Movement":
        return cls(
            scale=tuple(1 + rng.uniform(-MAX_SCALE, MAX_SCALE, 2)),
            shift=tuple(rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)),
            contrast=1 + rng.uniform(-MAX_CONTRAST, MAX_CONTRAST),
            brightness=rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS),
        )

    def findings(self, findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The findings with their boxes moved along and cut at the edge; one mostly moved out of sight is left out."""
        moved = []
        for finding in findings:
            corners = np.asarray(finding["box"], dtype=float).reshape(2, 2)
            full = (corners - 0.5) * self.scale + 0.5 + self.shift
            visible = full.clip(0, 1)
            if np.prod(visible[1] - visible[0]) >= MIN_VISIBLE * np.prod(full[1] - full[0]):
                moved.append({**finding, "box": visible.reshape(4).tolist()})
        return moved


def views_of(rows: Dataset, augmented_views: int, seed: int) -> list[tuple[int, Movement]]:
    """Which radiographs an epoch shows and how they are moved: view 0 is the plain radiograph.

    A radiograph without findings is shown in one view, plain as often as the others are, so that being moved tells
    nothing.
    """
    views = []
    for row, findings in enumerate(rows["findings"]):
        numbers = range(augmented_views + 1) if findings else [row % (augmented_views + 1)]
        for view in numbers:
            rng = np.random.default_rng([seed, row, view])
            views.append((row, Movement.random(rng) if view else Movement()))
    return views
