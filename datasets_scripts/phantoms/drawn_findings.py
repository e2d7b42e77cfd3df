"""Findings drawn into a real, normal radiograph, whose boxes are therefore known.

    lungs = find_lungs(picture)                                      # `lungs.py`
    pixels, findings = draw_into(picture, lungs, np.random.default_rng(0))
    findings    # [("Consolidation", (0.58, 0.41, 0.79, 0.66)), ("Lung Opacity", (0.58, 0.41, 0.79, 0.66))]

A finding adds density to what is there, so that ribs and vessels stay seen through it, up to the grey of the
mediastinum. Its outline is soft, irregular and clipped by the lung; its box is drawn tight around what is left after
clipping. A large heart is a smooth horizontal warp. Tubes, electrodes, haze, blur and noise come on ill and well
alike, so that they say nothing.

The measures below are shares of a picture's side; an opacity's are those at which drawn boxes have the median size of
the boxes that the NIH published. Pixels are float32, 0 black to 1 white; coordinates are as in `picture.py`:
fractions, boxes xyxy.

Not drawn: rib and clavicle fractures, emphysema, ILD, cavities, cysts, large vessels, a shifted mediastinum.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from litegpt.datasets_scripts.phantoms.anatomy import Box, Finding
from litegpt.datasets_scripts.vindr_cxr import FINDING_LABELS
from litegpt.processing.box_fusion import pairwise_iou

DRAWING_VERSION = 1  # raise it when a drawing changes: a release is never mixed from two versions

ABNORMAL_SHARE = 0.7
FINDINGS_PER_ABNORMAL = (0.45, 0.35, 0.2)  # probabilities of 1, 2 and 3
SECOND_EFFUSION_SHARE, SECOND_OPACITY_SHARE = 0.3, 0.4  # of the pictures with one; with an airspace finding
ATTEMPTS = 3  # at a place where a finding can be seen and does not cover another
LARGEST_IOU = 0.5  # of two findings' boxes
FAINTEST = 0.3  # a mask that is nowhere above it is not drawn: too little of it lies in the lung
BOX_LEVEL = 0.4  # of a mask's maximum: where a finding's box ends
SMALLEST_DENSITY = 0.15  # of the mediastinum over the lungs, for pictures of low contrast
DENSE = 0.6  # an opacity of more than this share of it is a consolidation
AIRSPACE_SCALE = 1.35
HEART_SHARES = (0.52, 0.66)  # of the chest's inner width: from 0.5 on a heart is called large


@dataclass
class Field:
    """One lung of a radiograph.

    Attributes:
        mask: (height, width) bool.
        box: around the mask.
        soft: float32, the mask with a soft edge, by which findings are clipped.
        hidden: float32, the part of the lung that heart and diaphragm hide: between the lung's outer edge and the
            midline, in its lower part.
    """

    mask: np.ndarray
    box: Box
    soft: np.ndarray
    hidden: np.ndarray


class Film:
    """A radiograph that is being drawn on.

    Attributes:
        pixels: (height, width) float32.
        fields: the lungs on the image's left and right.
        x, y: (1, width), (height, 1) float32: the pixels' centres.
        tissue: the mediastinum's grey between the lower lungs.
        density: by how much it is brighter than the lungs: the unit in which density is added.
    """

    def __init__(self, pixels: np.ndarray, lungs: np.ndarray):
        self.pixels = np.array(pixels, np.float32)
        height, width = self.pixels.shape
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
        sized = [Image.fromarray(lung.astype(np.float32)).resize((width, height)) for lung in lungs]
        self.set_lungs([np.asarray(lung) > 0.5 for lung in sized])

    def set_lungs(self, masks: list[np.ndarray]) -> None:
        """Takes these masks for the lungs, and measures the greys anew."""
        boxes = [box_of(mask) for mask in masks]
        middle = (boxes[0][2] + boxes[1][0]) / 2
        self.fields = [self._field(mask, box, middle) for mask, box in zip(masks, boxes, strict=True)]
        lungs = masks[0] | masks[1]
        lung = np.percentile(self.pixels[lungs], 40)
        left, right = self.fields
        top, bottom = right.box[1], right.box[3]
        between = (self.x > left.box[2] - 0.02) & (self.x < right.box[0] + 0.04)
        mediastinum = between & (self.y > (top + bottom) / 2) & (self.y < bottom) & ~lungs
        found = mediastinum.sum() > 0.0008 * mediastinum.size
        self.tissue = float(np.median(self.pixels[mediastinum]) if found else lung + 0.35)
        self.density = float(max(SMALLEST_DENSITY, self.tissue - lung))

    def _field(self, mask: np.ndarray, box: Box, middle: float) -> Field:
        soft = self.blurred(self.widened(mask, 0.008), 0.01)
        lower = mask & (self.y > box[1] + 0.4 * (box[3] - box[1]))
        towards_middle = np.maximum.accumulate(lower, axis=1) & (self.x < middle)
        if (box[0] + box[2]) / 2 > middle:
            towards_middle = np.flip(np.maximum.accumulate(np.flip(lower, 1), axis=1), 1) & (self.x > middle)
        below = np.zeros_like(mask)
        shift = round(0.03 * len(mask))
        below[shift:] = towards_middle[: len(mask) - shift]
        hidden = self.blurred(towards_middle | (below & (self.y > box[3] - 0.1)), 0.012)
        return Field(mask, box, soft, hidden)

    def widened(self, mask: np.ndarray, by: float) -> np.ndarray:
        """The mask, wider on all sides by a share of the picture's side."""
        return ndimage.binary_dilation(mask, iterations=max(1, round(by * min(mask.shape))))

    def blurred(self, values: np.ndarray, by: float) -> np.ndarray:
        """Blurred by a standard deviation that is a share of the picture's sides."""
        height, width = values.shape
        return ndimage.gaussian_filter(values.astype(np.float32), (by * height, by * width), truncate=3)

    def depth(self, mask: np.ndarray) -> np.ndarray:
        """The distance of each pixel of a mask from its outside."""
        height, width = mask.shape
        return ndimage.distance_transform_edt(mask, sampling=(1 / height, 1 / width)).astype(np.float32)

    def texture(self, rng: np.random.Generator, coarsest: int, finest: int) -> np.ndarray:
        """Noise with structures of `coarsest`, twice as many, ... up to `finest` cells a side; mean 0, deviation 1."""
        height, width = self.pixels.shape
        noise, cells, weight = np.zeros((height, width), np.float32), coarsest, 1.0
        while cells <= finest:
            coarse = Image.fromarray(rng.standard_normal((cells + 2, cells + 2), dtype=np.float32))
            noise += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
            cells, weight = 2 * cells, 0.65 * weight
        return noise / max(float(noise.std()), 1e-6)

    def blob(
        self,
        rng: np.random.Generator,
        place: tuple[float, float],
        half: tuple[float, float],
        irregular: float | None = None,
        edge: float | None = None,
    ) -> np.ndarray:
        """Mask of a roundish patch with a soft, irregular outline.

        Args:
            irregular, edge: how much the outline strays and how wide it is, as shares of the radius.
        """
        irregular = rng.uniform(0.15, 0.4) if irregular is None else irregular
        edge = rng.uniform(0.1, 0.3) if edge is None else edge
        radius = np.hypot((self.x - place[0]) / half[0], (self.y - place[1]) / half[1])
        inside = 1 - radius + 0.5 * irregular * self.texture(rng, 5, 20)
        return sigmoid(2 * inside / edge) * (radius < 1.7)

    def place(self, rng: np.random.Generator, zone: str = "any") -> tuple[Field, tuple[float, float]]:
        """A lung and a point in it, more often further down; in the `upper`, `lower` or `any` zone."""
        field = self.fields[int(rng.integers(2))]
        down = np.clip((self.y - field.box[1]) / (field.box[3] - field.box[1]), 0, 1)
        weights = field.mask * {"lower": down**2, "upper": 1 - down, "any": 0.3 + down}[zone]
        steps = np.cumsum(weights, dtype=np.float64)
        pixel = min(int(np.searchsorted(steps, rng.random() * steps[-1], side="right")), steps.size - 1)
        row, column = divmod(pixel, self.pixels.shape[1])
        return field, (float(self.x[0, column]), float(self.y[row, 0]))

    def add(self, mask: np.ndarray, share: float, texture: np.ndarray | None = None) -> None:
        """Adds a share of the mediastinum's density under the mask, never beyond the mediastinum's grey.

        Far below that grey all of it is added; near it ever less, so that no edge appears.
        """
        added = share * self.density * mask
        if texture is not None:
            added = added * np.clip(1 + texture, 0.25, 1.8)
        room = np.maximum(self.tissue - self.pixels, 0)
        self.pixels += added * room / np.maximum(np.cbrt(added**3 + room**3), 1e-6)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """0 far below 0, 1 far above it."""
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def box_of(mask: np.ndarray, level: float = 0.5) -> Box:
    """The box of the pixels where a mask is above a level."""
    height, width = mask.shape
    columns, rows = np.flatnonzero((mask > level).any(0)), np.flatnonzero((mask > level).any(1))
    return (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)


def tight(mask: np.ndarray) -> Box | None:
    """The box of what is seen of a finding; None where that is too little."""
    strongest = float(mask.max())
    return box_of(mask, BOX_LEVEL * strongest) if strongest >= FAINTEST else None


# ------------------------------------------------------------------------------------------------------------ findings


def draw_airspace(film: Film, rng: np.random.Generator, kind: str) -> list[Finding]:
    """A haze or a dense patch: `Lung Opacity`, and `Consolidation` or `Infiltration` where it is one."""
    field, (x, y) = film.place(rng, "any" if rng.random() < 0.6 else "lower")
    half_x, half_y, share = {
        "Consolidation": (rng.uniform(0.06, 0.15), rng.uniform(0.07, 0.2), rng.uniform(0.55, 1)),
        "Infiltration": (rng.uniform(0.06, 0.13), rng.uniform(0.07, 0.17), rng.uniform(0.2, 0.55)),
        "Lung Opacity": (rng.uniform(0.05, 0.13), rng.uniform(0.05, 0.19), rng.uniform(0.25, 0.8)),
    }[kind]
    half_x, half_y = half_x * AIRSPACE_SCALE, half_y * AIRSPACE_SCALE
    mask = film.blob(rng, (x, y), (half_x, half_y))
    if kind != "Consolidation":
        for _ in range(rng.integers(0, 4)):  # satellites
            place = (x + rng.normal(0, 0.7 * half_x), y + rng.normal(0, 0.7 * half_y))
            half = (half_x * rng.uniform(0.25, 0.5), half_y * rng.uniform(0.25, 0.5))
            mask = np.maximum(mask, rng.uniform(0.5, 1) * film.blob(rng, place, half))
    # Half of them hide the outline of the heart or the diaphragm: they go on behind it.
    mask = mask * (np.maximum(field.soft, field.hidden) if rng.random() < 0.5 else field.soft)
    box = tight(mask)
    if box is None:
        return []
    texture = rng.uniform(0.15, 0.45) * film.texture(rng, 8, 64)
    if rng.random() < (0.6 if kind == "Consolidation" else 0.2):
        texture -= _airways(film, rng, field, (x, y), (half_x, half_y))
    if rng.random() < 0.5:  # denser towards the top or the base
        texture += rng.uniform(-0.25, 0.25) * (film.y - y) / half_y
    film.add(mask, share, texture)
    labels = ["Lung Opacity"]
    if kind == "Consolidation" or share > DENSE:
        labels.append("Consolidation")
    if kind == "Infiltration":
        labels.append("Infiltration")
    return [(label, box) for label in labels]


def _airways(
    film: Film, rng: np.random.Generator, field: Field, place: tuple[float, float], half: tuple[float, float]
) -> np.ndarray:
    """Air bronchograms: dark branches that come from the hilum."""
    on_left = field is film.fields[0]
    hilum_x = field.box[2] - 0.02 if on_left else field.box[0] + 0.02
    hilum_y = field.box[1] + 0.45 * (field.box[3] - field.box[1])
    airways = np.zeros_like(film.pixels)
    for _ in range(rng.integers(2, 5)):
        across = place[0] + rng.normal(0, 0.5 * half[0]) - hilum_x
        down = place[1] + rng.normal(0, 0.5 * half[1]) - hilum_y
        along = np.clip(
            ((film.x - hilum_x) * across + (film.y - hilum_y) * down) / max(across**2 + down**2, 1e-6), 0, 1
        )
        distance = np.hypot(film.x - hilum_x - along * across, film.y - hilum_y - along * down)
        airways += 0.4 * np.exp(-((distance / 0.006) ** 2))
    return airways


def draw_effusion(film: Film, rng: np.random.Generator) -> list[Finding]:
    """Fluid at a lung's base, whose surface rises towards the chest wall; a small one fills the outer angle alone."""
    number = int(rng.integers(2))
    field = film.fields[number]
    left, top, right, bottom = field.box
    height = bottom - top
    from_wall = np.clip(((right - film.x) if number else (film.x - left)) / (right - left), 0, 1)
    level = bottom + 0.03 - rng.uniform(0.1, 0.5) * height
    surface = level - rng.uniform(0.06, 0.16) * (1 - from_wall) ** 2
    reach = rng.uniform(0.6, 1.1)
    fluid = sigmoid((film.y - surface) / rng.uniform(0.01, 0.03)) * sigmoid((reach - from_wall) / 0.05)
    shift = round(0.03 * len(field.mask))
    lower = np.zeros_like(field.mask)
    lower[shift:] = field.mask[: len(field.mask) - shift]
    mask = fluid * np.maximum(field.soft, film.blurred(lower, 0.01))
    box = tight(mask)
    if box is None:
        return []
    deep = np.clip((film.y - level) / max(bottom + 0.03 - level, 0.01), 0, 1)
    film.add(mask * (0.75 + 0.25 * deep), rng.uniform(0.8, 1.3), 0.1 * film.texture(rng, 6, 24))
    return [("Pleural effusion", box)]


def draw_atelectasis(film: Film, rng: np.random.Generator) -> list[Finding]:
    """One plate-like band or two, in the lower lung, with some haze beside it."""
    field, (x, y) = film.place(rng, "lower")
    half, thickness, angle = rng.uniform(0.06, 0.13), rng.uniform(0.008, 0.022), rng.normal(0, 0.25)
    along = (film.x - x) * np.cos(angle) + (film.y - y) * np.sin(angle)
    across = (film.y - y) * np.cos(angle) - (film.x - x) * np.sin(angle)
    mask = np.zeros_like(film.pixels)
    for offset in (0.0,) if rng.random() < 0.5 else (-0.025, 0.02):
        band = np.exp(-(((across - offset - 0.6 * along**2) / thickness) ** 2))
        mask = np.maximum(mask, band * sigmoid((half - np.abs(along)) / 0.012))
    mask = np.maximum(mask, 0.5 * film.blob(rng, (x, y + 0.02), (0.9 * half, 2.2 * thickness))) * field.soft
    box = tight(mask)
    if box is None:
        return []
    film.add(mask, rng.uniform(0.35, 0.85), 0.25 * film.texture(rng, 8, 48))
    return [("Atelectasis", box)]


def draw_nodule(film: Film, rng: np.random.Generator) -> list[Finding]:
    """A round spot, small or large."""
    field, place = film.place(rng)
    radius = rng.uniform(0.014, 0.03) if rng.random() < 0.5 else rng.uniform(0.03, 0.075)
    half = (radius, radius * rng.uniform(0.8, 1.25))
    mask = film.blob(rng, place, half, rng.uniform(0.05, 0.25), rng.uniform(0.1, 0.3)) * field.soft
    box = tight(mask)
    if box is None:
        return []
    film.add(mask, rng.uniform(0.4, 0.95), 0.12 * film.texture(rng, 10, 48))
    return [("Nodule/Mass", box)]


def draw_calcification(film: Film, rng: np.random.Generator) -> list[Finding]:
    """One to four small, white grains: the one finding that may be brighter than the mediastinum."""
    field, (x, y) = film.place(rng)
    mask = np.zeros_like(film.pixels)
    for _ in range(rng.integers(1, 5)):
        place = (x + rng.normal(0, 0.015), y + rng.normal(0, 0.015))
        half = (rng.uniform(0.006, 0.012), rng.uniform(0.006, 0.012))
        mask = np.maximum(mask, film.blob(rng, place, half, 0.1, 0.2))
    mask = mask * field.soft
    box = tight(mask)
    if box is None:
        return []
    film.pixels += mask * rng.uniform(0.5, 1.1) * film.density
    return [("Calcification", box)]


def draw_pneumothorax(film: Film, rng: np.random.Generator) -> list[Finding]:
    """A dark rim without vessels at the apex and the chest wall, and the lung's thin white edge."""
    number = int(rng.integers(2))
    field = film.fields[number]
    left, top, right, bottom = field.box
    height = bottom - top
    widened = film.widened(field.mask, 0.012)
    depth, down = film.depth(widened), np.clip((film.y - top) / height, 0, 1)
    edge = rng.uniform(0.03, 0.09) * (1.2 - 0.7 * down) + 0.02 * (down < 0.12)
    outer = (film.x > (left + right) / 2) if number else (film.x < (left + right) / 2)
    there = widened & (outer | (down < 0.2))
    end = top + rng.uniform(0.35, 0.95) * height
    mask = film.blurred(there * sigmoid((edge - depth) / 0.012) * sigmoid((end - film.y) / 0.02), 0.004)
    box = tight(mask)
    if box is None:
        return []
    dark = film.blurred(film.pixels, 0.02) - film.density * rng.uniform(0.12, 0.35)
    film.pixels += mask * rng.uniform(0.35, 0.75) * (dark - film.pixels)
    line = np.exp(-(((depth - edge) / 0.006) ** 2)) * there * (film.y < end)
    film.pixels += film.blurred(line, 0.002) * film.density * rng.uniform(0.15, 0.4)
    return [("Pneumothorax", box)]


def draw_thickening(film: Film, rng: np.random.Generator) -> list[Finding]:
    """A band of uneven width along the chest wall."""
    number = int(rng.integers(2))
    field = film.fields[number]
    left, top, right, bottom = field.box
    height = bottom - top
    widened = film.widened(field.mask, 0.012)
    outer = (film.x > (left + right) / 2) if number else (film.x < (left + right) / 2)
    there = widened & (outer | (film.y < top + 0.1 * height))
    width = rng.uniform(0.012, 0.035) * (1 + 0.3 * film.texture(rng, 8, 8))
    start = top + rng.uniform(0, 0.6) * height
    end = start + rng.uniform(0.12, 0.4) * height
    along = sigmoid((film.y - start) / 0.015) * sigmoid((end - film.y) / 0.015)
    mask = film.blurred(there * sigmoid((width - film.depth(widened)) / 0.006) * along, 0.005)
    box = tight(mask)
    if box is None:
        return []
    film.add(mask, rng.uniform(0.4, 0.9))
    return [("Pleural thickening", box)]


def draw_fibrosis(film: Film, rng: np.random.Generator) -> list[Finding]:
    """A net of strands in a faint haze."""
    field, place = film.place(rng, "lower" if rng.random() < 0.5 else "upper")
    mask = film.blob(rng, place, (rng.uniform(0.05, 0.11), rng.uniform(0.06, 0.14))) * field.soft
    box = tight(mask)
    if box is None:
        return []
    net = np.exp(-((film.texture(rng, 20, 60) / 0.35) ** 2))
    film.add(mask * (net + 0.2), rng.uniform(0.3, 0.75))
    return [("Pulmonary fibrosis", box)]


def draw_edema(film: Film, rng: np.random.Generator) -> list[Finding]:
    """Clouds around both hila; one box holds both."""
    mask = np.zeros_like(film.pixels)
    for number, field in enumerate(film.fields):
        left, top, right, bottom = field.box
        place = (left + 0.03 if number else right - 0.03, (top + bottom) / 2)
        half = (rng.uniform(0.1, 0.15), rng.uniform(0.14, 0.22))
        mask = np.maximum(mask, film.blob(rng, place, half, 0.3, 0.5) * field.soft)
    box = tight(mask)
    if box is None:
        return []
    film.add(mask, rng.uniform(0.3, 0.6), 0.3 * film.texture(rng, 8, 48))
    return [("Edema", box)]


def draw_heart(film: Film, rng: np.random.Generator) -> list[Finding]:
    """Cardiomegaly: the lower mediastinum stretched sideways, ever less towards the chest wall and the hila."""
    left, right = film.fields
    top, bottom = right.box[1], max(left.box[3], right.box[3])
    height = right.box[3] - top
    rows = (film.y[:, 0] > top + 0.5 * height) & (film.y[:, 0] < top + 0.92 * height)
    rows &= left.mask.any(1) & right.mask.any(1)
    if rows.sum() < 0.05 * len(rows):
        return []
    borders = _heart_borders(film, rows)
    if borders is None:
        return []
    middle, half = (borders[0] + borders[1]) / 2, (borders[1] - borders[0]) / 2
    limit = min(middle - left.box[0], right.box[2] - middle)
    if not 0.09 < half < 0.24:
        return []
    chest = right.box[2] - left.box[0]
    scale = min(rng.uniform(*HEART_SHARES) * chest / (2 * half), 0.88 * limit / half)
    if scale < 1.15 or 2 * half * scale < HEART_SHARES[0] * chest:
        return []
    start, end = top + 0.42 * height, bottom + 0.02
    stretch = 1 + (scale - 1) * sigmoid((film.y - start - 0.04) / 0.03) * sigmoid((end + 0.06 - film.y) / 0.03)
    distance = np.abs(film.x - middle)
    border = half * stretch
    still = np.maximum(1.12 * limit, 1.1 * border)  # from here on nothing moves
    between = half + (distance - border) / (still - border) * (still - half)
    source = np.where(distance < border, distance / stretch, np.where(distance < still, between, distance))
    source = middle + np.sign(film.x - middle) * source
    film.pixels = _moved(film, film.pixels, source)
    film.set_lungs([_moved(film, field.mask.astype(np.float32), source) > 0.5 for field in film.fields])
    box = (middle - half * scale, start + 0.02, middle + half * scale, end)
    return [("Cardiomegaly", tuple(float(min(max(edge, 0), 1)) for edge in box))]


def _heart_borders(film: Film, rows: np.ndarray) -> tuple[float, float] | None:
    """Where the heart's shadow ends on both sides: by its grey, and near the ends of the lungs' masks, or None."""
    left, right = film.fields
    width = film.pixels.shape[1]
    middle = round((left.box[2] + right.box[0]) / 2 * width)
    dark = film.blurred(film.pixels, 0.006)[rows] < film.tissue - 0.45 * film.density
    by_grey = middle - np.argmax(np.flip(dark[:, :middle], 1), axis=1), middle + np.argmax(dark[:, middle:], axis=1)
    by_masks = width - np.argmax(np.flip(left.mask[rows], 1), axis=1), np.argmax(right.mask[rows], axis=1)
    shares = (40, 80)  # the atrium's side is steep, and low rows there may show the liver
    borders = [np.percentile(edges, share) / width for edges, share in zip(by_grey, shares, strict=True)]
    expected = [np.percentile(edges, share) / width for edges, share in zip(by_masks, shares, strict=True)]
    near = all(abs(found - there) < 0.05 for found, there in zip(borders, expected, strict=True))
    return (float(borders[0]), float(borders[1])) if near else None


def _moved(film: Film, values: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The values with each pixel taken from another x of its row."""
    height, width = values.shape
    rows = np.broadcast_to(np.arange(height)[:, None], values.shape)
    return ndimage.map_coordinates(values, [rows, source * width - 0.5], order=1, mode="nearest")


Drawing = Callable[[Film, np.random.Generator], list[Finding]]
# In the order in which they are drawn: the heart moves what is there.
DRAWINGS: dict[str, Drawing] = {
    "Cardiomegaly": draw_heart,
    "Edema": draw_edema,
    "Lung Opacity": lambda film, rng: draw_airspace(film, rng, "Lung Opacity"),
    "Consolidation": lambda film, rng: draw_airspace(film, rng, "Consolidation"),
    "Infiltration": lambda film, rng: draw_airspace(film, rng, "Infiltration"),
    "Pleural effusion": draw_effusion,
    "Atelectasis": draw_atelectasis,
    "Nodule/Mass": draw_nodule,
    "Pneumothorax": draw_pneumothorax,
    "Pleural thickening": draw_thickening,
    "Pulmonary fibrosis": draw_fibrosis,
    "Calcification": draw_calcification,
}
AIRSPACE = ("Lung Opacity", "Consolidation", "Infiltration")
WEIGHTS = {  # how often each is drawn; others 1
    "Lung Opacity": 5.0,
    "Consolidation": 3.0,
    "Infiltration": 2.0,
    "Pleural effusion": 3.0,
    "Nodule/Mass": 2.5,
    "Atelectasis": 1.5,
    "Cardiomegaly": 1.5,
}


def sample_labels(rng: np.random.Generator) -> list[str]:
    """What is drawn into one picture, in the drawings' order; a label stands twice for two of it."""
    if rng.random() >= ABNORMAL_SHARE:
        return []
    number = 1 + rng.choice(len(FINDINGS_PER_ABNORMAL), p=FINDINGS_PER_ABNORMAL)
    weights = np.array([WEIGHTS.get(label, 1.0) for label in DRAWINGS])
    labels = [str(label) for label in rng.choice(list(DRAWINGS), number, p=weights / weights.sum())]
    if "Pleural effusion" in labels and rng.random() < SECOND_EFFUSION_SHARE:
        labels.append("Pleural effusion")
    if set(AIRSPACE) & set(labels) and rng.random() < SECOND_OPACITY_SHARE:
        labels.append("Lung Opacity")
    return sorted(labels, key=list(DRAWINGS).index)


def draw_into(
    picture: np.ndarray, lungs: np.ndarray, rng: np.random.Generator, labels: list[str] | None = None
) -> tuple[np.ndarray, list[Finding]]:
    """A normal radiograph with findings, devices and the marks of its exposure.

    Args:
        picture: (height, width) float in [0, 1]; it stays as it is.
        lungs: (2, h, w) bool of the whole picture, as `find_lungs` gives them.
        rng: the same state gives the same picture.
        labels: keys of DRAWINGS, in their order; None samples them. One that finds no place is left out.

    Returns:
        Pixels (height, width) float32, and (label, box) in the order of FINDING_LABELS.
    """
    label_rng, finding_rng, device_rng = rng.spawn(3)
    film = Film(picture, lungs)
    findings: list[Finding] = []
    for label in sample_labels(label_rng) if labels is None else labels:
        for _ in range(ATTEMPTS):
            before = copy.copy(film)  # a heart changes lungs and greys too, and none of them in place
            before.pixels = film.pixels.copy()
            drawn = DRAWINGS[label](film, finding_rng)
            boxes = [box for _, box in [*drawn[:1], *findings]]
            if drawn and not (pairwise_iou(np.array(boxes))[0, 1:] > LARGEST_IOU).any():
                findings += drawn
                break
            film = before
    draw_devices(film, device_rng)
    expose(film, device_rng)
    return film.pixels, sorted(findings, key=lambda finding: FINDING_LABELS.index(finding[0]))


# ---------------------------------------------------------------------------------------------------- on ill and well


def draw_devices(film: Film, rng: np.random.Generator) -> None:
    """Now and then a tube in the middle, lines across the chest, electrodes."""
    if rng.random() < 0.35:
        points = [(rng.uniform(0.4, 0.6), 0.0), (rng.normal(0.5, 0.05), 0.2)]
        points.append((rng.normal(0.5, 0.05), rng.uniform(0.3, 0.95)))
        _draw_line(film, points, rng.uniform(0.003, 0.007), rng.uniform(0.2, 0.6))
    for _ in range(rng.integers(0, 4) if rng.random() < 0.5 else 0):
        points = [tuple(rng.uniform(0, 1, 2)), tuple(rng.uniform(0.1, 0.9, 2)), tuple(rng.uniform(0, 1, 2))]
        _draw_line(film, points, rng.uniform(0.002, 0.005), rng.uniform(0.2, 0.7))
    for _ in range(rng.integers(1, 4) if rng.random() < 0.3 else 0):
        x, y, radius = *rng.uniform(0.1, 0.9, 2), rng.uniform(0.008, 0.02)
        distance = np.hypot(film.x - x, film.y - y)
        ring = np.exp(-(((distance - radius) / 0.004) ** 2))
        spot = ring if rng.random() < 0.5 else sigmoid((radius - distance) / 0.003)
        film.pixels += rng.uniform(0.3, 0.9) * film.density * spot


def _draw_line(film: Film, points: list[tuple[float, float]], half_width: float, share: float) -> None:
    """A curve from the first point to the last, bent towards the one between."""
    height, width = film.pixels.shape
    t = np.linspace(0, 1, 40)[:, None]
    start, bend, end = (np.array(point) for point in points)
    curve = ((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end) * (3 * width, 3 * height)
    canvas = Image.new("L", (3 * width, 3 * height))
    ImageDraw.Draw(canvas).line(
        [tuple(point) for point in curve.tolist()],
        fill=255,
        width=max(1, round(6 * half_width * min(height, width))),
        joint="curve",
    )
    film.pixels += share * film.density / 255 * np.asarray(canvas.reduce(3), np.float32)


def expose(film: Film, rng: np.random.Generator) -> None:
    """Now and then brighter or darker bases, and blur; noise always."""
    if rng.random() < 0.3:
        film.pixels += film.density * 0.25 * rng.normal() * (film.y - 0.5)
    if rng.random() < 0.5:
        film.pixels = film.blurred(film.pixels, rng.uniform(0.2, 0.9) / 160)
    noise = rng.standard_normal(film.pixels.shape, dtype=np.float32)
    film.pixels = np.clip(film.pixels + rng.uniform(0, 0.012) * noise, 0, 1)
