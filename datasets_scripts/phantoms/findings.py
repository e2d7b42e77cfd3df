"""The findings of phantoms: a function each, which draws one and returns its box; and the diagnosis each stands for.

    box = ANATOMY_CHANGES["Cardiomegaly"](chest, rng)    # alters the chest before it is drawn
    box = OVERLAYS["Nodule/Mass"](scene, rng)            # paints on the drawn chest, clear of `scene.boxes`
    diagnosis_of("Nodule/Mass", box)                     # "Lung tumor" or "Other diseases": by its width

To change how a finding looks, change its function and raise `picture.PICTURE_VERSION`. Boxes are xyxy in fractions of
the picture. The findings are caricatures, made to be told apart at 224 x 224 pixels.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from litegpt.datasets_scripts.phantoms.anatomy import (
    Box,
    Chest,
    Finding,
    Scene,
    aorta_box,
    brighten,
    ellipse,
    lung_border,
    lung_box,
    lung_mask,
    overlap,
    pulmonary_artery_box,
    ramp,
    smooth_noise,
    square,
    stroke,
    tight_box,
)
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS

UPPER_ZONE_END = 0.45  # a box whose centre is above this height lies in the upper zone
MASS_WIDTH = 0.105  # a Nodule/Mass at least this wide is a mass


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


def enlarge_aorta(chest: Chest, rng: np.random.Generator) -> Box:
    """A wide aortic arch."""
    chest.aorta_radius = rng.uniform(0.058, 0.078)
    return aorta_box(chest)


def enlarge_heart(chest: Chest, rng: np.random.Generator) -> Box:
    """Cardiomegaly: a heart wider than half the chest."""
    half_width, x = rng.uniform(0.18, 0.225), rng.uniform(0.54, 0.56)
    chest.heart = chest.place((x - half_width, 0.46, x + half_width, 0.77))
    return chest.heart


def enlarge_pulmonary_artery(chest: Chest, rng: np.random.Generator) -> Box:
    """A wide pulmonary trunk."""
    chest.pulmonary_artery_radius = rng.uniform(0.048, 0.06)
    return pulmonary_artery_box(chest)


def shift_mediastinum(chest: Chest, rng: np.random.Generator) -> Box:
    """A trachea that leaves the midline."""
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
    brighten(pixels, _dots(x, y, _places_in(box, rng, radius=0.019, number=11), edge=0.018), 0.52)
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
    mask = _dots(x, y, _places_in(box, rng, radius=0.011, number=9), edge=0.006)
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
    box = min(places, key=lambda place: sum(overlap(place, taken) for taken in scene.boxes))
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


def _places_in(box: Box, rng: np.random.Generator, radius: float, number: int) -> list[Box]:
    """Boxes of dots in the ellipse of a box; four of them touch the box's sides, so that the box is what is seen."""
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    reach_x, reach_y = (box[2] - box[0]) / 2 - radius, (box[3] - box[1]) / 2 - radius
    spots = [(1.0, angle * math.pi / 2) for angle in range(4)]
    spots += [(math.sqrt(rng.random()) * 0.8, rng.uniform(0, 2 * math.pi)) for _ in range(number - 4)]
    return [
        square(
            centre_x + reach_x * distance * math.cos(angle), centre_y + reach_y * distance * math.sin(angle), radius
        )
        for distance, angle in spots
    ]


def _dots(x: np.ndarray, y: np.ndarray, places: list[Box], edge: float) -> np.ndarray:
    """Mask of a round dot in each place."""
    mask = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for place in places:
        mask = np.maximum(mask, ellipse(x, y, place, edge))
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
