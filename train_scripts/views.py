"""How a radiograph is shown in training: as it is, or moved at random, with its boxes moved along.

In: rows with findings. Out: a list of views, (number of the row, `Movement`), of which an epoch shows all.

    views = views_of(rows, augmented_views=3, seed=0)
    row, movement = views[1]
    movement.findings(rows[row]["findings"])   # boxes in the moved picture
    movement.row(rows[row])                    # those of phrases and sentences too
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset

MAX_SCALE, MAX_SHIFT, MAX_CONTRAST, MAX_BRIGHTNESS = 0.1, 0.05, 0.15, 0.05
# RandomResizedCrop's and ColorJitter's ranges in CXR-CLIP (arXiv 2310.13292, section 4.2): share of the area, aspect,
# brightness, contrast; and how often contrast is equalised (CLAHE).
CROP_AREA, CROP_ASPECT, CROP_BRIGHTNESS, CROP_CONTRAST, EQUALISED = (0.8, 1.1), (3 / 4, 4 / 3), 0.1, 0.2, 0.5
CROP_TRIES = 10  # torchvision's; then the whole picture
MIN_VISIBLE = 0.3  # of a box's area; a finding of which less is seen is left out


@dataclass
class Movement:
    """A random view of a radiograph: scaled and shifted, with other grey values; never mirrored or turned.

    Left and right carry meaning in a chest radiograph. In [0, 1], `u -> (u - 0.5) * scale + 0.5 + shift`; grey values
    become `grey ** gamma * contrast + brightness`, after the contrast was equalised where `equalised`.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    contrast: float = 1.0
    brightness: float = 0.0
    gamma: float = 1.0
    equalised: bool = False

    @classmethod
    def random(cls, rng: np.random.Generator, strength: float = 1.0, max_gamma: float = 0.0) -> "Movement":
        """A moved view.

        Args:
            strength: how many times as far as usual it is moved, and its grey values changed.
            max_gamma: grey values to a power between exp(-max_gamma) and exp(max_gamma).
        """
        moved = cls(
            scale=tuple(1 + strength * rng.uniform(-MAX_SCALE, MAX_SCALE, 2)),
            shift=tuple(strength * rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)),
            contrast=1 + strength * rng.uniform(-MAX_CONTRAST, MAX_CONTRAST),
            brightness=strength * rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS),
        )
        return replace(moved, gamma=float(np.exp(rng.uniform(-max_gamma, max_gamma)))) if max_gamma else moved

    @classmethod
    def random_crop(
        cls,
        rng: np.random.Generator,
        min_area: float = CROP_AREA[0],
        max_gamma: float = 0.0,
        equalised: float = EQUALISED,
    ) -> "Movement":
        """CXR-CLIP's view: a crop of 0.8 to 1.1 of the area, brightness and contrast; no flip.

        Args:
            min_area: of the crop, where it is not the paper's.
            max_gamma: grey values to a power between exp(-max_gamma) and exp(max_gamma); not the paper's.
            equalised: how often the contrast is equalised.

        Source: section 4.2 of arXiv 2310.13292; the ranges of the aspect are torchvision's defaults.
        """
        crop = cls.resized_crop(rng, min_area, CROP_AREA[1])
        brightness = 1 + rng.uniform(-CROP_BRIGHTNESS, CROP_BRIGHTNESS)
        contrast = 1 + rng.uniform(-CROP_CONTRAST, CROP_CONTRAST)
        return replace(
            crop,
            contrast=brightness * contrast,
            # torchvision turns the contrast about the picture's mean grey; here that is taken to be the middle.
            brightness=(1 - contrast) * brightness / 2,
            gamma=float(np.exp(rng.uniform(-max_gamma, max_gamma))),
            equalised=bool(rng.random() < equalised),
        )

    @classmethod
    def resized_crop(cls, rng: np.random.Generator, min_area: float, max_area: float = 1.0) -> "Movement":
        """A crop of a part of the area, of an aspect from 3/4 to 4/3, grey values as they are; no flip.

        Source: torchvision's RandomResizedCrop.
        """
        for _ in range(CROP_TRIES):
            area, aspect = rng.uniform(min_area, max_area), np.exp(rng.uniform(*np.log(CROP_ASPECT)))
            size = np.sqrt([area * aspect, area / aspect])
            if (size <= 1).all():
                break
        else:
            size = np.ones(2)
        start = rng.uniform(0, 1 - size)
        return cls(scale=tuple(1 / size), shift=tuple((0.5 - start) / size - 0.5))

    def box(self, box: Sequence[float]) -> np.ndarray:
        """(4,) xyxy in the moved picture, cut at its edge; without area where nothing of it is left."""
        return self._moved(box).clip(0, 1).reshape(4)

    def _moved(self, box: Sequence[float]) -> np.ndarray:
        return (np.asarray(box, dtype=float).reshape(2, 2) - 0.5) * self.scale + 0.5 + self.shift

    def findings(self, findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The findings with their boxes moved along and cut at the edge; one mostly moved out of sight is left out."""
        moved = [(finding, self.in_sight(finding["box"])) for finding in findings]
        return [{**finding, "box": box} for finding, box in moved if box is not None]

    def in_sight(self, box: Sequence[float], least: float = MIN_VISIBLE) -> list[float] | None:
        """The box moved along and cut at the edge; None where less than `least` of its area is seen."""
        full = self._moved(box)
        visible = full.clip(0, 1)
        area = np.prod(visible[1] - visible[0])
        return visible.reshape(4).tolist() if area > 0 and area >= least * np.prod(full[1] - full[0]) else None

    def texts(self, texts: Sequence[dict[str, Any]], whole: bool) -> list[dict[str, Any]] | None:
        """Phrases or sentences with their boxes moved along, as findings are; words stay as they are.

        Args:
            whole: keep every text, as a report does: of one whose boxes are all mostly out of sight what is seen of
                them stays. Otherwise such a text is left out.

        Returns:
            The texts; None where `whole`, and of all boxes of one nothing is seen.
        """
        moved = []
        for text in texts:
            boxes = _known(self.in_sight(box) for box in text["boxes"])
            if text["boxes"] and not boxes and whole:
                boxes = _known(self.in_sight(box, least=0) for box in text["boxes"])
                if not boxes:
                    return None
            if boxes or not text["boxes"]:
                moved.append({**text, "boxes": boxes})
        return moved

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row's findings, phrases and sentences in the moved picture; what is no longer told of it is empty."""
        moved = {**row, "findings": self.findings(row["findings"])}
        if row.get("phrase"):
            moved["phrase"] = self.texts(row["phrase"], whole=False)
        if row.get("sentences"):
            moved["sentences"] = self.texts(row["sentences"], whole=True) or []
        return moved


def _known(boxes: Iterable[list[float] | None]) -> list[list[float]]:
    return [box for box in boxes if box is not None]


def views_of(
    rows: Dataset, augmented_views: int, seed: int, strength: float = 1.0, max_gamma: float = 0.0
) -> list[tuple[int, Movement]]:
    """Which radiographs an epoch shows and how they are moved: view 0 is the plain radiograph.

    A radiograph without findings is shown in one view, plain as often as the others are, so that being moved tells
    nothing.
    """
    views = []
    for row, findings in enumerate(rows["findings"]):
        numbers = range(augmented_views + 1) if findings else [row % (augmented_views + 1)]
        for view in numbers:
            rng = np.random.default_rng([seed, row, view])
            views.append((row, Movement.random(rng, strength, max_gamma) if view else Movement()))
    return views
