"""A map over a radiograph: its grid, where its cells lie in pixels, and a picture of it.

    found.grid, found.box(*found.largest)      # values for each cell, and the cell of the largest in pixels
    found.over()                               # (height, width): the grid over each pixel
    picture_of(radiograph, found, line)        # a PIL image: the map in colours, a bar, and what it is in words

What a map is of, its kind says: `similarity_maps.py` (CXR-CLIP), `finding_maps.py` (LiteGPT).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from litegpt.common.overlay import FAINT, MIN_OVERLAY, TEXT, Sizes, coloured, overlay
from litegpt.modeling_litegpt.provenance import Provenance

MID_GREY = 128  # what the bar's colours lie over

Box = tuple[float, float, float, float]  # xyxy


@dataclass(frozen=True, kw_only=True)
class RadiographMap:
    """A map over one radiograph.

    Attributes:
        grid: (g, g) float32, a value for each cell, in the radiograph's own orientation.
        size: (width, height) of the radiograph as given, in pixels.
        seen: the part of it that the model sees and the grid covers, xyxy in its pixels; all of it without a crop.
        warnings: what is doubtful about the radiograph.
    """

    what_it_is: ClassVar[str]  # below each picture

    grid: np.ndarray
    size: tuple[int, int]
    seen: Box
    warnings: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What a line of `maps.jsonl` says of a map of this kind alone."""
        raise NotImplementedError

    def words(self, line: Mapping[str, Any]) -> list[str]:
        """What the picture says of the map, in paragraphs."""
        raise NotImplementedError

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Whose boxes are drawn over the map, as the pipeline gives them."""
        return []

    @property
    def largest(self) -> tuple[int, int]:
        """Row and column of the largest cosine, the first of equal ones."""
        row, column = np.unravel_index(np.argmax(self.grid), self.grid.shape)
        return int(row), int(column)

    def box(self, row: int, column: int) -> Box:
        """A patch in pixels of the radiograph as given, xyxy."""
        (x1, y1, x2, y2), side = self.seen, len(self.grid)
        width, height = (x2 - x1) / side, (y2 - y1) / side
        return x1 + column * width, y1 + row * height, x1 + (column + 1) * width, y1 + (row + 1) * height

    def over(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """(height, width) float32: the grid over the radiograph, bilinear; NaN where the model does not see it.

        Args:
            size: (width, height) of a picture of the radiograph; None for the radiograph's own.
        """
        size = self.size if size is None else size
        scale = [picture / own for picture, own in zip(size, self.size, strict=True)]
        x1, y1, x2, y2 = (round(value * scale[number % 2]) for number, value in enumerate(self.seen))
        values = Image.new("F", size, float("nan"))
        values.paste(Image.fromarray(self.grid).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR), (x1, y1))
        return np.asarray(values)


class MapMaker:
    """What the program asks a checkpoint of one kind.

    Attributes:
        questions: what is asked about each radiograph, as a line of `maps.jsonl` says it.
        windowing: of DICOM files.
        source: where the maps are from.
    """

    questions: list[dict[str, Any]]
    windowing: str
    source: Provenance

    def maps(self, radiograph: Image.Image, numbers: Sequence[int]) -> list[list[RadiographMap]]:
        """The maps that answer each of some questions about a radiograph that `load_radiograph` gave."""
        raise NotImplementedError


def line_of(found: RadiographMap, name: str) -> dict[str, Any]:
    """What a line of `maps.jsonl` says of a map; boxes are in pixels of the radiograph as given."""
    width, height = found.size
    return {
        "grid": f"{name}.npy",
        "overlay": f"{name}.png",
        **found.facts,
        "largest": float(f"{found.grid.max():.6g}"),
        "box": _pixels(found.box(*found.largest)),
        "seen": _pixels(found.seen),
        "width": width,
        "height": height,
        "warnings": list(found.warnings),
    }


def picture_of(radiograph: Image.Image, found: RadiographMap, line: Mapping[str, Any]) -> Image.Image:
    """The map over its radiograph; below it a bar of colours with numbers, and all that is to be said in words.

    Args:
        radiograph: as given; small ones are enlarged for legible text.
        line: of `maps.jsonl`.
    """
    scale = max(1.0, MIN_OVERLAY / min(radiograph.size))
    width, height = (round(scale * side) for side in radiograph.size)
    low, high = float(found.grid.min()), float(found.grid.max())
    greys = radiograph.resize((width, height), Image.Resampling.BICUBIC)

    sizes = Sizes.for_picture(width, height)
    font, margin = ImageFont.load_default(size=sizes.font), sizes.line // 2
    words = [(TEXT, part) for text in found.words(line) for part in wrapped(text, width - sizes.line, font)]
    words += [(FAINT, part) for part in wrapped(found.what_it_is, width - sizes.line, font)]
    canvas = Image.new("RGB", (width, height + (len(words) + 3) * sizes.line))
    canvas.paste(coloured(greys, found.over((width, height)), low, high))
    draw, y = ImageDraw.Draw(canvas), height + margin
    bar = coloured(Image.new("L", (256, 1), MID_GREY), np.arange(256.0)[None], 0, 255)
    canvas.paste(bar.resize((width - 2 * margin, sizes.line), Image.Resampling.BILINEAR), (margin, y))
    for x, value, anchor in (
        (margin, low, "la"),
        (width // 2, (low + high) / 2, "ma"),
        (width - margin, high, "ra"),
    ):
        draw.text((x, y + sizes.line + sizes.line // 4), in_digits(value, low, high), TEXT, font, anchor)
    for number, (colour, text) in enumerate(words):
        draw.text((margin, y + (number + 2) * sizes.line + margin), text, colour, font)
    # Boxes, warnings, caution, checkpoint and what it may not be used for are drawn as on other pictures.
    findings = [
        finding | {"box": {side: scale * value for side, value in finding["box"].items()}}
        for finding in found.findings
    ]
    return overlay(canvas, {**line, "findings": findings, "diagnoses": [], "malformed": {}})


def in_digits(value: float, low: float, high: float) -> str:
    """A value of a map from `low` to `high`, with three decimals, or as many as show three digits of its range."""
    largest = max(abs(low), abs(high))
    decimals = max(3, 2 - math.floor(math.log10(largest))) if largest > 0 else 3
    return f"{value:.{decimals}f}"


def wrapped(text: str, width: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """The words of a text in lines of at most `width` pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _pixels(box: Box) -> dict[str, int]:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), map(round, box), strict=True))
