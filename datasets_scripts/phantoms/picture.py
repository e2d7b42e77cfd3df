"""Phantoms: drawn frontal chest radiographs with findings whose place is known. Programs import this file.

    phantom = draw_phantom(np.random.default_rng(0), 256)    # or with labels=("ILD", "Cardiomegaly")
    phantom.pixels        # (256, 256) float32 in [0, 1]
    phantom.findings      # [("Cardiomegaly", (0.38, 0.52, 0.81, 0.74))]: label and box in [0, 1] of the picture
    phantom.diagnoses     # ["Other diseases"]

A phantom is drawn in three steps: a chest of random build (`anatomy.py`), the findings over it (`findings.py`),
exposure and grain. Findings come in two kinds. A change of anatomy (`ANATOMY_CHANGES`: a large heart, a shifted
trachea) alters the chest before it is drawn; an overlay (`OVERLAYS`: a nodule, an effusion) is painted on it.

Coordinates are fractions of the picture's width and height, y downwards, boxes xyxy. The picture is seen as
radiologists see it: the patient's right side is on the image's left, so the aortic arch and the heart's apex are on
the image's right. Pixels are float32, 0 black (air) to 1 white.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from litegpt.datasets_scripts.phantoms.anatomy import Box, Finding, Scene, draw_chest, sample_chest, smooth_noise
from litegpt.datasets_scripts.phantoms.findings import ANATOMY_CHANGES, OVERLAYS, diagnoses_of
from litegpt.datasets_scripts.vindr_cxr import FINDING_LABELS

PICTURE_VERSION = 3  # raise it when a drawing changes: a release is never mixed from two versions
SMALLEST_SIDE = 64
LARGEST_DRAWING = 512  # larger pictures are drawn at this size, then enlarged; the grain is always of full size
BAND = 32  # rows of a large picture that are worked on at a time, so that they stay in the processor's cache

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
    """Refuses, with a ValueError, a size at which the findings would be too small to see."""
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
