"""A normal chest: its build, drawn from random numbers, and its picture; and the brushes that all drawings share.

    chest = sample_chest(np.random.default_rng(0))    # a `Chest`: where its lungs, heart and vessels are
    pixels = draw_chest(chest, 512, 512)              # (512, 512) float32, 0 black (air) to 1 white

`findings.py` changes the chest before it is drawn, or paints on the drawn one through a `Scene`. Coordinates are
fractions of the picture's width and height, y downwards, boxes xyxy. The patient's right side is on the image's left.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]
Finding = tuple[str, Box]

SOFT_TISSUE = 0.6  # its brightness
EDGE = 0.008  # width of a sharp outline: two pixels of 256


@dataclass
class Lung:
    """One lung; `inner` and `outer` are distances from the midline.

    `side` is -1 on the image's left, +1 on its right.
    """

    side: int
    apex: float  # y of the top
    base: float  # y of the diaphragm's dome
    inner: float
    outer: float
    dome: float  # how far the diaphragm falls from its dome to the costophrenic angle
    density: float = 0.2
    vessels: float = 0.13


@dataclass
class Chest:
    """Build of one chest, in fractions of the picture. `x`, `y` and `place` map from the standard chest."""

    centre: tuple[float, float]
    scale: tuple[float, float]
    lungs: tuple[Lung, Lung]
    heart: Box  # the box of the heart's ellipse
    aorta_radius: float
    pulmonary_artery_radius: float
    trachea_shift: float
    rib_spacing: float
    first_rib: float
    vessel_phase: float

    def x(self, u: float) -> float:
        """Where the standard chest's x lies in this one."""
        return self.centre[0] + (u - 0.5) * self.scale[0]

    def y(self, v: float) -> float:
        """Where the standard chest's y lies in this one."""
        return self.centre[1] + (v - 0.5) * self.scale[1]

    def place(self, box: Box) -> Box:
        """Where the standard chest's box lies in this one."""
        return (self.x(box[0]), self.y(box[1]), self.x(box[2]), self.y(box[3]))

    def rib_fall(self, distance: np.ndarray | float) -> np.ndarray | float:
        """How far below its head at the spine a rib lies, `distance` from the midline."""
        return 0.9 * (distance - 0.14) ** 2 * self.scale[1]

    def clavicle_y(self, distance: np.ndarray | float) -> np.ndarray | float:
        """Height of the clavicles' axis, `distance` from the midline."""
        return self.y(0.185) - 0.28 * (distance - 0.05)


@dataclass
class Scene:
    """A radiograph being drawn: pixels, the chest in them, and the boxes that are taken."""

    pixels: np.ndarray
    chest: Chest
    boxes: list[Box] = field(default_factory=list)

    def window(self, box: Box, margin: float = 0.02) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pixels around a box, to be changed in place, with their x (1, w) and y (h, 1)."""
        height, width = self.pixels.shape
        left, right = (min(max(int(v * width), 0), width) for v in (box[0] - margin, box[2] + margin + 1 / width))
        top, bottom = (min(max(int(v * height), 0), height) for v in (box[1] - margin, box[3] + margin + 1 / height))
        x = (np.arange(left, right, dtype=np.float32) + 0.5) / width
        y = (np.arange(top, bottom, dtype=np.float32) + 0.5) / height
        return self.pixels[top:bottom, left:right], x[None, :], y[:, None]

    def free_place(self, rng: np.random.Generator, half_width: float, half_height: float, zone: str) -> Box:
        """A box of this size in a lung's `upper`, `lower` or `any` zone, clear of the taken boxes if it can be."""
        top, bottom = {"upper": (0.27, 0.40), "lower": (0.50, 0.63), "any": (0.27, 0.63)}[zone]
        places = []
        for _ in range(30):
            lung = self.chest.lungs[int(rng.integers(2))]
            nearest = max(0.45 * lung.outer, lung.inner + 0.8 * half_width)
            distance = rng.uniform(nearest, max(nearest + 0.01, lung.outer - 0.9 * half_width))
            x = self.chest.x(0.5) + lung.side * distance
            y = self.chest.y(rng.uniform(top, bottom))
            places.append((x - half_width, y - half_height, x + half_width, y + half_height))
            if all(overlap(places[-1], taken) == 0 for taken in self.boxes):
                return places[-1]
        return min(places, key=lambda place: sum(overlap(place, taken) for taken in self.boxes))

    def free_lung(self, rng: np.random.Generator) -> Lung:
        """The lung with less of its middle under taken boxes."""
        lungs = [self.chest.lungs[i] for i in rng.permutation(2)]
        return min(lungs, key=lambda lung: sum(overlap(lung_box(self.chest, lung), taken) for taken in self.boxes))


def overlap(a: Box, b: Box) -> float:
    """Area that two boxes have in common."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def ramp(depth: np.ndarray, edge: float = EDGE) -> np.ndarray:
    """0 outside, 1 inside, linear over `edge` around depth 0, where depth is the distance inside an outline."""
    return np.clip(depth / np.float32(edge) + np.float32(0.5), 0, 1)


def ellipse(x: np.ndarray, y: np.ndarray, box: Box, edge: float = EDGE, power: int = 2) -> np.ndarray:
    """Mask of the ellipse in a box; a higher power makes it a rounded rectangle."""
    half_width, half_height = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    across = np.abs((x - (box[0] + box[2]) / 2) / half_width) ** power
    down = np.abs((y - (box[1] + box[3]) / 2) / half_height) ** power
    return ramp((1 - (across + down) ** (1 / power)) * min(half_width, half_height), edge)


def stroke(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float], width: float
) -> np.ndarray:
    """Mask of a straight line of the given width, with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return ramp(width / 2 - np.hypot(x - start[0] - along * dx, y - start[1] - along * dy))


def brighten(pixels: np.ndarray, mask: np.ndarray, share: float) -> None:
    """Moves the pixels under the mask towards white by a share of what is missing, so that nothing saturates."""
    pixels += share * mask * (1 - pixels)


def tight_box(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> Box:
    """The box of the pixels where the mask is above a half."""
    columns, rows = np.flatnonzero((mask > 0.5).any(0)), np.flatnonzero((mask > 0.5).any(1))
    half_x, half_y = (x[0, 1] - x[0, 0]) / 2, (y[1, 0] - y[0, 0]) / 2
    left, right = x[0, columns[0]] - half_x, x[0, columns[-1]] + half_x
    return (float(left), float(y[rows[0], 0] - half_y), float(right), float(y[rows[-1], 0] + half_y))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Noise of `cells` x `cells` random values, interpolated to the shape; standard deviation about 0.6."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BILINEAR))


def sample_chest(rng: np.random.Generator) -> Chest:
    """A normal chest of random build and position."""
    scale_x, scale_y = rng.uniform(0.9, 1.06), rng.uniform(0.92, 1.06)
    centre = (0.5 + rng.normal(0, 0.012), 0.5 + rng.normal(0, 0.012))
    lungs = [
        Lung(
            side=side,
            apex=centre[1] + (0.13 - 0.5 + rng.normal(0, 0.008)) * scale_y,
            base=centre[1] + ((0.715 if side < 0 else 0.735) - 0.5 + rng.normal(0, 0.01)) * scale_y,
            inner=0.05 * scale_x,
            outer=rng.uniform(0.285, 0.305) * scale_x,
            dome=rng.uniform(0.05, 0.075),
        )
        for side in (-1, 1)
    ]
    heart_half, heart_x = rng.uniform(0.118, 0.135), rng.uniform(0.535, 0.55)
    chest = Chest(
        centre=centre,
        scale=(scale_x, scale_y),
        lungs=(lungs[0], lungs[1]),
        heart=(heart_x - heart_half, 0.49, heart_x + heart_half, 0.755),
        aorta_radius=rng.uniform(0.026, 0.033),
        pulmonary_artery_radius=0.02,
        trachea_shift=0.0,
        rib_spacing=rng.uniform(0.072, 0.084) * scale_y,
        first_rib=rng.uniform(0, 1),
        vessel_phase=rng.uniform(0, 2 * math.pi),
    )
    chest.heart = chest.place(chest.heart)
    return chest


def lung_border(lung: Lung, y: np.ndarray) -> np.ndarray:
    """Distance of the lung's outer border from the midline at each height."""
    apex_at = 0.45 * (lung.inner + lung.outer)
    depth = np.clip((y - lung.apex) / (0.65 * (lung.base - lung.apex)), 0, 1)
    return apex_at + (lung.outer - apex_at) * np.sqrt(1 - (1 - depth) ** 2)


def lung_mask(chest: Chest, lung: Lung, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mask of the lung between chest wall, mediastinum, apex and the curved diaphragm."""
    apex_at = 0.45 * (lung.inner + lung.outer)
    distance = (x - chest.x(0.5)) * lung.side
    near_apex = 1 - np.clip((y - lung.apex) / (0.2 * (lung.base - lung.apex)), 0, 1)
    inner = lung.inner + (apex_at - lung.inner) * near_apex**2
    floor = lung.base + lung.dome * (np.abs(distance - 0.13) / (lung.outer - 0.13)) ** 2
    across = np.minimum(lung_border(lung, y) - distance, distance - inner)
    return ramp(np.minimum(across, np.minimum(y - lung.apex, floor - y)), 0.014)


def lung_box(chest: Chest, lung: Lung) -> Box:
    """The box of a lung, down to its costophrenic angle."""
    edges = sorted((chest.x(0.5) + lung.side * lung.inner, chest.x(0.5) + lung.side * lung.outer))
    return (edges[0], lung.apex, edges[1], lung.base + lung.dome)


def square(x: float, y: float, half: float) -> Box:
    """The box around a point, `half` to each side."""
    return (x - half, y - half, x + half, y + half)


def aorta_box(chest: Chest) -> Box:
    """The box of the aortic arch."""
    return square(chest.x(0.5) + 0.035 + 0.4 * chest.aorta_radius, chest.y(0.315), chest.aorta_radius)


def pulmonary_artery_box(chest: Chest) -> Box:
    """The box of the pulmonary trunk."""
    radius = chest.pulmonary_artery_radius
    return square(chest.x(0.5) + 0.05 + 0.6 * radius, chest.y(0.435), radius)


def draw_chest(chest: Chest, width: int, height: int) -> np.ndarray:
    """The chest's picture, (height, width) float32, before exposure and grain."""
    scene = Scene(np.zeros((height, width), np.float32), chest)
    draw_trunk(scene)
    for lung in chest.lungs:
        draw_lung(scene, lung)
    draw_heart_and_great_vessels(scene)
    draw_airway_and_clavicles(scene)
    return scene.pixels


def draw_trunk(scene: Scene) -> None:
    """Shoulders and trunk, spine, ribs."""
    chest, (pixels, x, y) = scene.chest, scene.window((0, 0, 1, 1))
    distance = np.abs(x - chest.x(0.5))
    shoulders = np.clip((y - chest.y(0.03)) / 0.13, 0, 1)
    pixels += SOFT_TISSUE * ramp((0.16 + 0.32 * np.sqrt(shoulders)) * chest.scale[0] - distance, 0.03)
    spine = 0.12 * ramp(0.05 - distance, 0.03)
    discs = 0.05 * ramp(0.12 - np.abs((y / 0.047) % 1 - 0.5), 0.1)
    pixels += spine - discs * ramp(0.034 - distance, 0.01)

    pixels, x, y = scene.window((chest.x(0.12), chest.y(0.08), chest.x(0.88), 1))
    distance = np.abs(x - chest.x(0.5))
    rib = ((y - chest.rib_fall(distance)) / chest.rib_spacing + chest.first_rib) % 1
    pixels += 0.035 * ramp(0.17 - np.abs(rib - 0.5), 0.12) * ramp(0.36 * chest.scale[0] - distance, 0.02)


def draw_lung(scene: Scene, lung: Lung) -> None:
    """A lung's air, in which the ribs stand out, and its vessels, which leave the hilum like rays."""
    chest, (pixels, x, y) = scene.chest, scene.window(lung_box(scene.chest, lung))
    mask = lung_mask(chest, lung, x, y)
    pixels += mask * (lung.density + 2 * (pixels - SOFT_TISSUE) - pixels)
    across, down = (x - chest.x(0.5)) * lung.side - 0.09, y - chest.y(0.45)
    reach = np.hypot(across, down)
    rays = np.clip(np.cos(9 * np.arctan2(down, across) + 14 * reach + chest.vessel_phase), 0, 1) ** 4
    pixels += lung.vessels * mask * rays * np.clip(1.3 - 5.5 * reach, 0, 1)


def draw_heart_and_great_vessels(scene: Scene) -> None:
    """The mediastinum's outline: each part is seen where it is denser than what lies there."""
    chest = scene.chest
    left, top, right, bottom = chest.heart
    for box, shape, brightness in (
        ((left, top, right, bottom), heart_mask, 0.72),
        ((left + 0.02, top + 0.03, chest.x(0.5) + 0.08, bottom), _round, 0.68),  # right atrium
        (aorta_box(chest), _round, 0.74),
        (pulmonary_artery_box(chest), _round, 0.7),
    ):
        pixels, x, y = scene.window(box)
        np.maximum(pixels, brightness * shape(x, y, box), out=pixels)


def _round(x: np.ndarray, y: np.ndarray, box: Box) -> np.ndarray:
    return ellipse(x, y, box, 0.012)


def heart_mask(x: np.ndarray, y: np.ndarray, box: Box) -> np.ndarray:
    """An ellipse sheared so that its apex points down and to the image's right; it fills the box."""
    left, top, right, bottom = box
    shear = 0.3
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    upright = math.sqrt(half_width**2 - (shear * half_height) ** 2)
    middle = (left + right) / 2
    return ellipse(x - shear * (y - (top + bottom) / 2), y, (middle - upright, top, middle + upright, bottom), 0.016)


def draw_airway_and_clavicles(scene: Scene) -> None:
    """The upper mediastinum with the trachea, which may be shifted, and the clavicles."""
    chest, carina = scene.chest, scene.chest.y(0.38)
    pixels, x, y = scene.window((chest.x(0.3), 0, chest.x(0.7), chest.y(0.68)))
    shift = chest.trachea_shift * ramp(y - chest.y(0.11), 0.05) * ramp(carina + 0.02 - y, 0.06)
    from_axis = np.abs(x - chest.x(0.5) - shift)
    mediastinum = 0.66 * ramp(0.065 - from_axis, 0.02) * ramp(y - chest.y(0.1), 0.05) * ramp(chest.y(0.62) - y, 0.1)
    np.maximum(pixels, mediastinum, out=pixels)
    pixels -= 0.26 * ramp(0.019 - from_axis, 0.01) * ramp(carina - y, 0.02)

    pixels, x, y = scene.window((chest.x(0.5) - 0.28, chest.y(0.08), chest.x(0.5) + 0.28, chest.y(0.21)))
    distance = np.abs(x - chest.x(0.5))
    from_axis = np.abs(y - chest.clavicle_y(distance))
    pixels += 0.2 * ramp(0.012 - from_axis) * ramp(distance - 0.04) * ramp(0.27 - distance, 0.02)
