"""Drawings of frontal chest radiographs with findings whose place is known.

A phantom is drawn in three steps: a chest of random build (`draw_chest`), the findings over it, exposure and grain.
Findings come in two kinds. A change of anatomy (`ANATOMY_CHANGES`: a large heart, a shifted trachea) alters the chest
before it is drawn; an overlay (`OVERLAYS`: a nodule, an effusion) is painted on the drawn chest. Each finding is one
function that returns the box of what it drew; to change how a finding looks, change its function.

Coordinates are fractions of the picture's width and height, y downwards, boxes xyxy. The picture is seen as
radiologists see it: the patient's right side is on the image's left, so the aortic arch and the heart's apex are on
the image's right. Pixels are float32, 0 black (air) to 1 white. The findings are caricatures, made to be told apart at
224 x 224 pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS

Box = tuple[float, float, float, float]
Finding = tuple[str, Box]

PICTURE_VERSION = 3  # raise it when a drawing changes: a release is never mixed from two versions
SMALLEST_SIDE = 64
LARGEST_DRAWING = 512  # larger pictures are drawn at this size, then enlarged; the grain is always of full size
BAND = 32  # rows of a large picture that are worked on at a time, so that they stay in the processor's cache
SOFT_TISSUE = 0.6  # its brightness
EDGE = 0.008  # width of a sharp outline: two pixels of 256

ABNORMAL_SHARE = 0.33
FINDINGS_PER_ABNORMAL = (0.4, 0.3, 0.2, 0.1)  # probabilities of 1, 2, 3 and 4 labels
SECOND_BOX_SHARE = 0.15  # of the labels in `OFTEN_TWICE`
MINIMUM_SUPPORT = 20  # rarer findings are drawn this often for 3,000 images, so that all occur in 2,000

# Supports in the test set of 3,000 radiographs (LiteGPT, arXiv 2407.12064, appendix C), in FINDING_LABELS' order.
TEST_SUPPORTS = (
    (220, 86, 194, 309, 2, 96, 0, 3, 8, 221, 58)  # Aortic enlargement to Infiltration
    + (84, 9, 2, 20, 176, 111, 169, 18, 217, 11, 94)  # Lung Opacity to Other lesion
)  # fmt: skip
OFTEN_TWICE = ("Calcification", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pulmonary fibrosis")
NEVER_TOGETHER = ({"Edema", "ILD"}, {"Edema", "Emphysema"}, {"Emphysema", "ILD"}, {"Emphysema", "Pneumothorax"})

UPPER_ZONE_END = 0.45  # a box whose centre is above this height lies in the upper zone
MASS_WIDTH = 0.105  # a Nodule/Mass at least this wide is a mass


@dataclass
class Phantom:
    """A drawn radiograph.

    Attributes:
        pixels: (height, width) float32 in [0, 1]; 0 and 1 both occur.
        findings: (label, box) in the order of FINDING_LABELS; boxes xyxy in [0, 1] of the whole picture.
        diagnoses: labels in the order of DIAGNOSIS_LABELS, `No finding` alone where there is none.
    """

    pixels: np.ndarray
    findings: list[Finding]
    diagnoses: list[str]


def diagnosis_of(label: str, box: Box) -> str:
    """The one diagnosis that a finding stands for. This is the whole rule from what is drawn to what is diagnosed."""
    in_upper_zone = (box[1] + box[3]) / 2 < UPPER_ZONE_END
    if label == "Emphysema":
        return "COPD"
    if label == "Nodule/Mass" and box[2] - box[0] >= MASS_WIDTH:
        return "Lung tumor"
    if label == "Lung cavity" or (label in ("Infiltration", "Pulmonary fibrosis") and in_upper_zone):
        return "Tuberculosis"
    if label in ("Consolidation", "Infiltration"):
        return "Pneumonia"
    return "Other diseases"


def diagnoses_of(findings: Sequence[Finding]) -> list[str]:
    """The diagnoses of all findings, each once, in the order of DIAGNOSIS_LABELS; `["No finding"]` for no findings."""
    present = {diagnosis_of(label, box) for label, box in findings} or {"No finding"}
    return [label for label in DIAGNOSIS_LABELS if label in present]


# ---------------------------------------------------------------------------------------------------------- the chest


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
        return self.centre[0] + (u - 0.5) * self.scale[0]

    def y(self, v: float) -> float:
        return self.centre[1] + (v - 0.5) * self.scale[1]

    def place(self, box: Box) -> Box:
        return (self.x(box[0]), self.y(box[1]), self.x(box[2]), self.y(box[3]))

    def rib_fall(self, distance: np.ndarray | float) -> np.ndarray | float:
        """How far below its head at the spine a rib lies, `distance` from the midline."""
        return 0.9 * (distance - 0.14) ** 2 * self.scale[1]

    def clavicle_y(self, distance: np.ndarray | float) -> np.ndarray | float:
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
            if all(_overlap(places[-1], taken) == 0 for taken in self.boxes):
                return places[-1]
        return min(places, key=lambda place: sum(_overlap(place, taken) for taken in self.boxes))

    def free_lung(self, rng: np.random.Generator) -> Lung:
        """The lung with less of its middle under taken boxes."""
        lungs = [self.chest.lungs[i] for i in rng.permutation(2)]
        return min(lungs, key=lambda lung: sum(_overlap(lung_box(self.chest, lung), taken) for taken in self.boxes))


def _overlap(a: Box, b: Box) -> float:
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
    edges = sorted((chest.x(0.5) + lung.side * lung.inner, chest.x(0.5) + lung.side * lung.outer))
    return (edges[0], lung.apex, edges[1], lung.base + lung.dome)


def square(x: float, y: float, half: float) -> Box:
    return (x - half, y - half, x + half, y + half)


def aorta_box(chest: Chest) -> Box:
    return square(chest.x(0.5) + 0.035 + 0.4 * chest.aorta_radius, chest.y(0.315), chest.aorta_radius)


def pulmonary_artery_box(chest: Chest) -> Box:
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


# ------------------------------------------------------------------------------------------------- changes of anatomy


def enlarge_aorta(chest: Chest, rng: np.random.Generator) -> Box:
    chest.aorta_radius = rng.uniform(0.058, 0.078)
    return aorta_box(chest)


def enlarge_heart(chest: Chest, rng: np.random.Generator) -> Box:
    half_width, x = rng.uniform(0.18, 0.225), rng.uniform(0.54, 0.56)
    chest.heart = chest.place((x - half_width, 0.46, x + half_width, 0.77))
    return chest.heart


def enlarge_pulmonary_artery(chest: Chest, rng: np.random.Generator) -> Box:
    chest.pulmonary_artery_radius = rng.uniform(0.048, 0.06)
    return pulmonary_artery_box(chest)


def shift_mediastinum(chest: Chest, rng: np.random.Generator) -> Box:
    chest.trachea_shift = float(rng.choice([-1, 1]) * rng.uniform(0.07, 0.1))
    x = chest.x(0.5) + chest.trachea_shift
    return (x - 0.07, chest.y(0.1), x + 0.07, chest.y(0.4))


def inflate_lung(chest: Chest, rng: np.random.Generator) -> Box:
    """Emphysema: one lung dark, without vessels, on a low and flat diaphragm."""
    lung = chest.lungs[int(rng.integers(2))]
    lung.density, lung.vessels = 0.03, 0.0
    lung.base, lung.dome = lung.base + 0.06, 0.005
    return lung_box(chest, lung)


ANATOMY_CHANGES: dict[str, Callable[[Chest, np.random.Generator], Box]] = {
    "Aortic enlargement": enlarge_aorta,
    "Cardiomegaly": enlarge_heart,
    "Enlarged PA": enlarge_pulmonary_artery,
    "Mediastinal shift": shift_mediastinum,
    "Emphysema": inflate_lung,
}

# ----------------------------------------------------------------------------------------------------------- overlays


def draw_ild(scene: Scene, rng: np.random.Generator) -> Box:
    """A fine net over both lung bases."""
    chest = scene.chest
    lowest = max(lung.base + lung.dome for lung in chest.lungs)
    reach = max(lung.outer for lung in chest.lungs)
    region = (chest.x(0.5) - reach, chest.y(rng.uniform(0.44, 0.54)), chest.x(0.5) + reach, lowest)
    pixels, x, y = scene.window(region)
    mask = sum(lung_mask(chest, lung, x, y) for lung in chest.lungs) * ramp(y - region[1], 0.02)
    net = np.maximum(np.abs(np.sin((x + y) * 95)), np.abs(np.sin((x - y) * 95))) ** 6
    brighten(pixels, mask * net, 0.42)
    return tight_box(mask, x, y)


def draw_edema(scene: Scene, rng: np.random.Generator) -> Box:
    """Clouds around both hila, like a bat's wings."""
    chest, middle = scene.chest, scene.chest.x(0.5)
    half_height, reach = rng.uniform(0.13, 0.17), rng.uniform(0.22, 0.26)
    y_hilum = chest.y(0.45)
    region = (middle - reach, y_hilum - half_height, middle + reach, y_hilum + half_height)
    pixels, x, y = scene.window(region)
    clouds = 1 + 0.3 * smooth_noise(rng, pixels.shape, 12)
    for wing in ((region[0], region[1], middle - 0.03, region[3]), (middle + 0.03, region[1], region[2], region[3])):
        brighten(pixels, ellipse(x, y, wing, 0.05) * clouds, 0.42)
    return region


def draw_effusion(scene: Scene, rng: np.random.Generator) -> Box:
    """A white lung base whose surface rises towards the chest wall."""
    lung = scene.free_lung(rng)
    region = lung_box(scene.chest, lung)
    pixels, x, y = scene.window(region)
    distance = (x - scene.chest.x(0.5)) * lung.side
    rise = 0.12 * np.clip((distance - 0.08) / (lung.outer - 0.08), 0, 1) ** 2
    mask = lung_mask(scene.chest, lung, x, y) * ramp(y - (lung.base - rng.uniform(0.03, 0.12) - rise))
    pixels += mask * (0.8 - pixels)
    return tight_box(mask, x, y)


def draw_pleural_thickening(scene: Scene, rng: np.random.Generator) -> Box:
    """A bright band along the chest wall."""
    lung = scene.free_lung(rng)
    region = lung_box(scene.chest, lung)
    pixels, x, y = scene.window(region)
    distance = (x - scene.chest.x(0.5)) * lung.side
    top = scene.chest.y(rng.uniform(0.2, 0.4))
    bottom = top + rng.uniform(0.15, 0.24)
    band = ramp(distance - lung_border(lung, y) + rng.uniform(0.034, 0.046)) * ramp(y - top) * ramp(bottom - y)
    mask = band * lung_mask(scene.chest, lung, x, y)
    pixels += mask * (0.7 - pixels)
    return tight_box(mask, x, y)


def draw_pneumothorax(scene: Scene, rng: np.random.Generator) -> Box:
    """Black, empty space at the apex and the chest wall, and the lung's thin white edge."""
    lung = scene.free_lung(rng)
    region = lung_box(scene.chest, lung)
    pixels, x, y = scene.window(region)
    distance = (x - scene.chest.x(0.5)) * lung.side
    end = lung.apex + rng.uniform(0.32, 0.45)
    inside = lung_mask(scene.chest, lung, x, y) * ramp(end - y)
    depth = distance - lung_border(lung, y) + rng.uniform(0.075, 0.105)
    mask = inside * ramp(depth)
    pixels += mask * (0.02 - pixels)
    brighten(pixels, inside * ramp(0.008 - np.abs(depth)), 0.6)
    return tight_box(mask, x, y)


def draw_consolidation(scene: Scene, rng: np.random.Generator) -> Box:
    """A dense block with dark, branching airways."""
    box = scene.free_place(rng, rng.uniform(0.08, 0.105), rng.uniform(0.08, 0.115), "lower")
    pixels, x, y = scene.window(box)
    brighten(pixels, ellipse(x, y, box, 0.015, power=4), 0.62)
    left, top, right, bottom = box
    for rise in (0.25, 0.5, 0.75):
        end = (right - 0.03, top + rise * (bottom - top))
        pixels -= 0.34 * stroke(x, y, (left + 0.025, (top + bottom) / 2), end, 0.016)
    return box


def draw_lung_opacity(scene: Scene, rng: np.random.Generator) -> Box:
    """An even, grey haze with a soft outline."""
    box = scene.free_place(rng, rng.uniform(0.06, 0.085), rng.uniform(0.075, 0.105), "any")
    pixels, x, y = scene.window(box)
    brighten(pixels, ellipse(x, y, box, 0.04), 0.48)
    return box


def draw_infiltration(scene: Scene, rng: np.random.Generator) -> Box:
    """A group of soft patches."""
    zone = "upper" if rng.random() < 0.4 else "lower"
    box = scene.free_place(rng, rng.uniform(0.075, 0.1), rng.uniform(0.075, 0.1), zone)
    pixels, x, y = scene.window(box)
    brighten(pixels, _dots(x, y, box, rng, radius=0.019, edge=0.018, number=11), 0.52)
    return box


def draw_fibrosis(scene: Scene, rng: np.random.Generator) -> Box:
    """Coarse strands that cross in one point."""
    zone = "upper" if rng.random() < 0.6 else "lower"
    half = rng.uniform(0.07, 0.1)
    box = scene.free_place(rng, half, half, zone)
    pixels, x, y = scene.window(box)
    centre, mask = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), np.zeros_like(pixels)
    first = rng.uniform(0, math.pi / 5)
    for angle in first + np.arange(5) * math.pi / 5:
        dx, dy = (half - 0.006) * math.cos(angle), (half - 0.006) * math.sin(angle)
        start, end = (centre[0] - dx, centre[1] - dy), (centre[0] + dx, centre[1] + dy)
        mask = np.maximum(mask, stroke(x, y, start, end, 0.012))
    brighten(pixels, mask, 0.5)
    return tight_box(mask, x, y)


def draw_atelectasis(scene: Scene, rng: np.random.Generator) -> Box:
    """Three level, plate-like bands."""
    box = scene.free_place(rng, rng.uniform(0.075, 0.1), rng.uniform(0.036, 0.046), "lower")
    pixels, x, y = scene.window(box)
    left, top, right, bottom = box
    mask = np.zeros_like(pixels)
    for height, shorter in ((top + 0.008, 0.03), ((top + bottom) / 2, 0.008), (bottom - 0.008, 0.02)):
        mask = np.maximum(mask, stroke(x, y, (left + shorter, height), (right - shorter, height), 0.016))
    brighten(pixels, mask, 0.58)
    return box


def draw_cavity(scene: Scene, rng: np.random.Generator) -> Box:
    """A thick-walled ring, black inside, with a fluid level."""
    half = rng.uniform(0.058, 0.076)
    box = scene.free_place(rng, half, half, "upper")
    pixels, x, y = scene.window(box)
    level = (box[1] + box[3]) / 2 + 0.25 * half
    hole = ellipse(x, y, _shrunk(box, 0.4 * half)) * ramp(level - y)
    brighten(pixels, ellipse(x, y, box) - hole, 0.6)
    pixels += hole * (0.03 - pixels)
    return box


def draw_cyst(scene: Scene, rng: np.random.Generator) -> Box:
    """A thin-walled ring, black inside."""
    half = rng.uniform(0.048, 0.066)
    box = scene.free_place(rng, half, half, "lower")
    pixels, x, y = scene.window(box)
    hole = ellipse(x, y, _shrunk(box, 0.013))
    pixels += hole * (0.05 - pixels)
    brighten(pixels, ellipse(x, y, box) - hole, 0.58)
    return box


def draw_nodule(scene: Scene, rng: np.random.Generator) -> Box:
    """An even, round spot: a small nodule or a mass of more than MASS_WIDTH."""
    half = rng.uniform(0.036, 0.046) if rng.random() < 0.6 else rng.uniform(0.06, 0.078)
    box = scene.free_place(rng, half, half, "any")
    pixels, x, y = scene.window(box)
    brighten(pixels, ellipse(x, y, box, 0.012), 0.6)
    return box


def draw_calcification(scene: Scene, rng: np.random.Generator) -> Box:
    """A group of small, sharp, white grains."""
    half = rng.uniform(0.038, 0.052)
    box = scene.free_place(rng, half, half, "any")
    pixels, x, y = scene.window(box)
    mask = _dots(x, y, box, rng, radius=0.011, edge=0.006, number=9)
    pixels += mask * (1.05 - pixels)
    return box


def draw_rib_fracture(scene: Scene, rng: np.random.Generator) -> Box:
    """A gap in a rib near the chest wall, the outer part one step lower."""
    chest = scene.chest
    places = []
    for _ in range(20):
        lung = chest.lungs[int(rng.integers(2))]
        distance = rng.uniform(0.68, 0.85) * lung.outer
        rib = round((chest.y(rng.uniform(0.28, 0.58)) - chest.rib_fall(distance)) / chest.rib_spacing)
        y = (rib + 0.5 - chest.first_rib) * chest.rib_spacing + chest.rib_fall(distance)
        places.append(square(chest.x(0.5) + lung.side * distance, float(y), 0.042))
    box = min(places, key=lambda place: sum(_overlap(place, taken) for taken in scene.boxes))
    pixels, x, y = scene.window(box)
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    outwards = 1 if centre_x > chest.x(0.5) else -1
    gap = ellipse(x, y, box)
    pixels += gap * (0.12 - pixels)
    for end, step in ((-outwards, -0.02), (outwards, 0.02)):
        start = (centre_x + end * 0.012, centre_y + step)
        pixels += 0.5 * stroke(x, y, start, (centre_x + end * 0.032, centre_y + step * 1.1), 0.018)
    return box


def draw_clavicle_fracture(scene: Scene, rng: np.random.Generator) -> Box:
    """A clavicle broken like a roof, with a dark gap at its ridge."""
    chest, side = scene.chest, int(rng.choice([-1, 1]))
    distance = rng.uniform(0.13, 0.19)
    x_break, y_break = chest.x(0.5) + side * distance, float(chest.clavicle_y(distance))
    box = (x_break - 0.055, y_break - 0.045, x_break + 0.055, y_break + 0.035)
    pixels, x, y = scene.window(box)
    inside = ramp(0.055 - np.abs(x - x_break)) * ramp(0.035 - np.abs(y - y_break))
    pixels += inside * (0.3 - pixels)
    for end in (-1, 1):
        ridge, foot = (x_break + end * 0.012, box[1] + 0.011), (x_break + end * 0.044, box[3] - 0.011)
        pixels += 0.55 * stroke(x, y, ridge, foot, 0.022)
    return box


def draw_hiatal_hernia(scene: Scene, rng: np.random.Generator) -> Box:
    """Other lesion: a stomach bubble with a fluid level behind the heart."""
    chest = scene.chest
    x_centre, y_centre = chest.x(rng.uniform(0.5, 0.55)), chest.y(rng.uniform(0.655, 0.675))
    half_width, half_height = rng.uniform(0.06, 0.075), rng.uniform(0.052, 0.066)
    box = (x_centre - half_width, y_centre - half_height, x_centre + half_width, y_centre + half_height)
    pixels, x, y = scene.window(box)
    bubble = ellipse(x, y, _shrunk(box, 0.012))
    pixels += (ellipse(x, y, box) - bubble) * (0.95 - pixels)
    pixels += bubble * (np.where(y < y_centre + 0.012, 0.3, 0.85) - pixels)
    return box


def _shrunk(box: Box, by: float) -> Box:
    return (box[0] + by, box[1] + by, box[2] - by, box[3] - by)


def _dots(
    x: np.ndarray, y: np.ndarray, box: Box, rng: np.random.Generator, radius: float, edge: float, number: int
) -> np.ndarray:
    """Mask of dots in the ellipse of a box; four of them touch the box's sides, so that the box is what is seen."""
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    reach_x, reach_y = (box[2] - box[0]) / 2 - radius, (box[3] - box[1]) / 2 - radius
    spots = [(1.0, angle * math.pi / 2) for angle in range(4)]
    spots += [(math.sqrt(rng.random()) * 0.8, rng.uniform(0, 2 * math.pi)) for _ in range(number - 4)]
    mask = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for distance, angle in spots:
        spot = (centre_x + reach_x * distance * math.cos(angle), centre_y + reach_y * distance * math.sin(angle))
        mask = np.maximum(mask, ellipse(x, y, square(*spot, radius), edge))
    return mask


# Drawn in this order: what covers much of the lungs first, small things last.
OVERLAYS: dict[str, Callable[[Scene, np.random.Generator], Box]] = {
    "ILD": draw_ild,
    "Edema": draw_edema,
    "Pneumothorax": draw_pneumothorax,
    "Pleural effusion": draw_effusion,
    "Pleural thickening": draw_pleural_thickening,
    "Consolidation": draw_consolidation,
    "Lung Opacity": draw_lung_opacity,
    "Infiltration": draw_infiltration,
    "Pulmonary fibrosis": draw_fibrosis,
    "Atelectasis": draw_atelectasis,
    "Lung cavity": draw_cavity,
    "Lung cyst": draw_cyst,
    "Nodule/Mass": draw_nodule,
    "Other lesion": draw_hiatal_hernia,
    "Rib fracture": draw_rib_fracture,
    "Calcification": draw_calcification,
    "Clavicle fracture": draw_clavicle_fracture,
}

# --------------------------------------------------------------------------------------------------- the whole picture


def sample_labels(rng: np.random.Generator) -> list[str]:
    """Labels of one phantom's findings; a label stands twice where it gets two boxes, most phantoms have none."""
    if rng.random() >= ABNORMAL_SHARE:
        return []
    supports = np.maximum(TEST_SUPPORTS, MINIMUM_SUPPORT)
    number = 1 + rng.choice(len(FINDINGS_PER_ABNORMAL), p=FINDINGS_PER_ABNORMAL)
    labels: list[str] = []
    for index in rng.choice(len(FINDING_LABELS), number, replace=False, p=supports / supports.sum()):
        label = FINDING_LABELS[index]
        if any({label, other} in NEVER_TOGETHER for other in labels):
            continue
        labels += [label] * (2 if label in OFTEN_TWICE and rng.random() < SECOND_BOX_SHARE else 1)
    return labels


def check_size(width: int, height: int) -> None:
    """Raises a ValueError where the findings would be too small to see."""
    if min(width, height) < SMALLEST_SIDE:
        raise ValueError(f"A phantom needs at least {SMALLEST_SIDE} pixels a side, but its size is {width}x{height}.")


def draw_phantom(
    rng: np.random.Generator, size: int | tuple[int, int], labels: Sequence[str] | None = None
) -> Phantom:
    """A radiograph with findings.

    Args:
        rng: the same state gives the same phantom. Chest, findings and grain are drawn from streams of their own, so
            that one state drawn with other labels shows the same chest with other findings.
        size: pixels of a side, or (width, height).
        labels: the findings to draw, a label twice for two boxes; None samples them (`sample_labels`).

    Raises:
        ValueError: a side is below SMALLEST_SIDE.
    """
    width, height = (size, size) if isinstance(size, int) else size
    pixels, findings, grain_rng = _draw(rng, width, height, labels)
    return Phantom(_expose(pixels, grain_rng, width, height), findings, diagnoses_of(findings))


def draw_findings(rng: np.random.Generator, size: int | tuple[int, int]) -> list[Finding]:
    """The findings of the phantom that `draw_phantom` draws from the same state, without its picture in full size."""
    width, height = (size, size) if isinstance(size, int) else size
    return _draw(rng, width, height, None)[1]


def _draw(
    rng: np.random.Generator, width: int, height: int, labels: Sequence[str] | None
) -> tuple[np.ndarray, list[Finding], np.random.Generator]:
    """Chest and findings at the drawing's size, the findings, and the stream of what is still to be drawn."""
    check_size(width, height)
    label_rng, chest_rng, finding_rng, grain_rng = rng.spawn(4)
    if labels is None:
        labels = sample_labels(label_rng)

    chest = sample_chest(chest_rng)
    findings = [(label, ANATOMY_CHANGES[label](chest, finding_rng)) for label in ANATOMY_CHANGES if label in labels]
    reduction = min(1.0, LARGEST_DRAWING / max(width, height))
    scene = Scene(draw_chest(chest, round(width * reduction), round(height * reduction)), chest)
    scene.boxes = [box for label, box in findings if label != "Emphysema"]
    for label, draw in OVERLAYS.items():
        for _ in range(labels.count(label)):
            findings.append((label, draw(scene, finding_rng)))
            scene.boxes.append(findings[-1][1])
    findings = [(label, _clipped(box)) for label, box in findings]
    findings.sort(key=lambda finding: FINDING_LABELS.index(finding[0]))
    return scene.pixels, findings, grain_rng


def _expose(pixels: np.ndarray, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Mottle, exposure, full size, grain, and the lead marker L of the patient's left side, which is pure white."""
    pixels = pixels + 0.02 * smooth_noise(rng, pixels.shape, 14)
    pixels = np.clip(pixels * rng.uniform(0.9, 1.1) + rng.uniform(-0.03, 0), 0, 1) ** rng.uniform(0.85, 1.15)
    picture = Image.fromarray(pixels)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    grain = rng.uniform(0.012, 0.03)
    pixels = np.empty((height, width), np.float32)
    for top in range(0, height, BAND):
        band = pixels[top : top + BAND]
        rng.standard_normal(dtype=np.float32, out=band)
        band *= grain
        band += np.asarray(picture.crop((0, top, width, top + len(band))))
        np.clip(band, 0, 1, out=band)
    top, bottom, left, right = round(0.03 * height), round(0.08 * height), round(0.915 * width), round(0.945 * width)
    bar = max(1, width // 90)
    pixels[top:bottom, left : left + bar] = 1
    pixels[bottom - bar : bottom, left:right] = 1
    return pixels


def _clipped(box: Box) -> Box:
    return tuple(min(max(float(value), 0.0), 1.0) for value in box)
