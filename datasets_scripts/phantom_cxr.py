"""A synthetic release in VinDr-CXR's layout: phantom radiographs as DICOM, annotated by readers who disagree.

    litegpt prepare phantom --output_dir phantoms --num_train 2400 --num_test 300 --num_proc 2
    litegpt prepare phantom --output_dir full_size --num_train 15000 --num_test 3000 --size 2500x3000

It writes what PhysioNet's release has:

    train/IMAGE_ID.dicom, test/IMAGE_ID.dicom
    annotations/annotations_train.csv    image_id, rad_id, class_name, x_min, y_min, x_max, y_max (pixels)
    annotations/annotations_test.csv     the same without rad_id
    annotations/image_labels_train.csv   image_id, rad_id, 22 findings and 6 diagnoses as 0 or 1
    annotations/image_labels_test.csv    the same without rad_id
    phantom.json                         the settings it was drawn with

Three readers annotate each training image: their boxes differ, and now and then one misses a finding, names it
otherwise or sees one too many. The test set has the truth. The same seed gives the same bytes, whatever the number of
processes. An interrupted run continues where it stopped when it is started again; the tables are written last.
The 18,000 images of the second command take about 225 GB.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from tqdm import tqdm

from litegpt.common.arguments import parse
from litegpt.common.files import replacing
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.arguments import PhantomArguments
from litegpt.datasets_scripts.phantoms.anatomy import Box, Finding
from litegpt.datasets_scripts.phantoms.findings import diagnosis_of
from litegpt.datasets_scripts.phantoms.picture import BAND, PICTURE_VERSION, check_size, draw_findings, draw_phantom
from litegpt.datasets_scripts.vindr_cxr import LABEL_COLUMNS, SPELLINGS

READERS = tuple(f"R{number}" for number in range(1, 18))
READERS_PER_IMAGE = 3
JITTER = 0.04  # standard deviation of a box's edge between readers, as a share of the box's width or height
MISSED_SHARE = 0.02  # of the findings, by each reader
RENAMED_SHARE = 0.01  # of the findings, by each reader
EXTRA_SHARE = 0.01  # of the abnormal images, by each reader: a normal image stays one for all readers

# What a finding is mistaken for: each is taken for the next of its group, the last for the first.
LOOK_ALIKES = (
    ("Consolidation", "Infiltration", "Lung Opacity"),
    ("ILD", "Pulmonary fibrosis"),
    ("Nodule/Mass", "Other lesion"),
    ("Lung cavity", "Lung cyst"),
    ("Pleural effusion", "Pleural thickening"),
    ("Aortic enlargement", "Enlarged PA"),
)
MISTAKEN_FOR = {group[i]: group[(i + 1) % len(group)] for group in LOOK_ALIKES for i in range(len(group))}

TRANSFER_SYNTAXES = {  # with their shares; encoding JPEG 2000 takes more than ten times as long as drawing
    ExplicitVRLittleEndian: 0.2,
    ImplicitVRLittleEndian: 0.15,
    DeflatedExplicitVRLittleEndian: 0.05,
    RLELossless: 0.15,
    JPEGLosslessSV1: 0.15,
    JPEGLSLossless: 0.2,
    JPEG2000Lossless: 0.1,
}
NO_WINDOW_SHARE = 0.15
AP_SHARE = 0.2  # of the images; VinDr-CXR's are PA, but an evaluation by view needs two of them

BOX_COLUMNS = ("class_name", "x_min", "y_min", "x_max", "y_max")

Reading = tuple[str, Box, str]  # a finding, its box, and the diagnosis it stands for


def write_release(
    output_dir: str | Path,
    num_train: int,
    num_test: int,
    size: int | tuple[int, int],
    seed: int = 0,
    num_proc: int = 1,
) -> None:
    """Writes a release, or what is missing of it.

    Args:
        output_dir: a new or empty folder, or one that this function filled before with the same settings.
        num_train: training images, each with three readers.
        num_test: test images, each with the true findings.
        size: pixels of a side, or (width, height).
        seed: the same seed gives the same files; different seeds give different image_ids.
        num_proc: processes; 1 draws in this one.

    Raises:
        ValueError: the folder holds other things or phantoms of other settings, or a number is out of range.
    """
    output_dir = Path(output_dir)
    width, height = (size, size) if isinstance(size, int) else size
    check_size(width, height)
    if min(num_train, num_test, seed) < 0 or num_proc < 1:
        raise ValueError("num_train, num_test and seed cannot be negative, and num_proc is at least 1.")
    settings = {
        "num_train": num_train,
        "num_test": num_test,
        "width": width,
        "height": height,
        "seed": seed,
        "picture_version": PICTURE_VERSION,
    }
    _claim(output_dir, settings)
    tasks = [("train", index) for index in range(num_train)] + [("test", index) for index in range(num_test)]
    write = partial(_write_image, output_dir=output_dir, size=(width, height), seed=seed)
    results = {"train": [], "test": []}
    with tqdm(total=len(tasks), unit="image", disable=None) as progress:
        for split, image_id, readings in _map(write, tasks, num_proc):
            results[split].append((image_id, readings))
            progress.update()
    for split, readings_of_images in results.items():
        _write_tables(output_dir / "annotations", split, readings_of_images, (width, height))


def image_id_of(seed: int, split: str, index: int) -> str:
    """32 hexadecimal digits, as in VinDr-CXR."""
    return hashlib.md5(f"{seed}/{split}/{index}".encode()).hexdigest()


def _claim(output_dir: Path, settings: dict[str, int]) -> None:
    """Makes the folder ours by writing the settings; refuses a folder that is not."""
    settings_file = output_dir / "phantom.json"
    if settings_file.exists():
        found = json.loads(settings_file.read_text(encoding="utf-8"))
        # A run that failed before its first picture does not stand in the way of the corrected one.
        if found != settings and any(output_dir.glob("*/*.dicom")):
            other = ", ".join(
                f"{name} {found.get(name)}, not {value}"
                for name, value in settings.items()
                if found.get(name) != value
            )
            raise ValueError(
                f"{output_dir} holds phantoms of other settings ({other}): choose another folder, or remove it."
            )
    elif output_dir.exists() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} is not empty and has no phantom.json: choose another folder.")
    for folder in ("train", "test", "annotations"):
        (output_dir / folder).mkdir(parents=True, exist_ok=True)
    with replacing(settings_file) as temporary:
        temporary.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _map(function: Callable, tasks: list, num_proc: int) -> Iterator:
    """The results in the tasks' order."""
    if num_proc == 1:
        yield from map(function, tasks)
        return
    with Pool(num_proc) as pool:
        yield from pool.imap(function, tasks, chunksize=8)


# -------------------------------------------------------------------------------------------------------------- images


def _write_image(
    task: tuple[str, int], output_dir: Path, size: tuple[int, int], seed: int
) -> tuple[str, str, dict[str, list[Reading]]]:
    """Draws one image, writes it unless it is there, and returns its split, its id and what each reader saw."""
    split, index = task
    image_id = image_id_of(seed, split, index)
    image_rng = np.random.default_rng([seed, ("train", "test").index(split), index])
    phantom_rng, encoding_rng, reader_rng = image_rng.spawn(3)
    path = output_dir / split / f"{image_id}.dicom"
    if path.exists():
        findings = draw_findings(phantom_rng, size)
    else:
        phantom = draw_phantom(phantom_rng, size)
        findings = phantom.findings
        with replacing(path) as temporary:
            encode_dicom(phantom.pixels, image_id, encoding_rng).save_as(temporary, enforce_file_format=True)
    if split == "test":
        return split, image_id, {"": [(label, box, diagnosis_of(label, box)) for label, box in findings]}
    names = reader_rng.choice(READERS, READERS_PER_IMAGE, replace=False)
    return split, image_id, {str(name): read_phantom(findings, reader_rng) for name in names}


def encode_dicom(pixels: np.ndarray, image_id: str, rng: np.random.Generator) -> Dataset:
    """A DICOM data set of a radiograph, in an encoding drawn at random.

    Drawn are the transfer syntax, 12, 14 or 16 stored bits, MONOCHROME1 or 2, the rescale slope and intercept,
    whether a window is stored, and the View Position, PA or AP. Modality LUT, window (or, without one, minimum to
    maximum) and MONOCHROME1's inversion give back the same picture from all of them, but for rounding.

    Args:
        pixels: (height, width) float in [0, 1], in which 0 and 1 occur.
        image_id: 32 hexadecimal digits; the UIDs are derived from them.
        rng: the same state gives the same bytes.
    """
    bits = int(rng.choice([12, 14, 16]))
    inverted = bool(rng.random() < 0.3)
    slope, intercept = [(1, 0), (1, -1024), (0.5, 100)][rng.choice(3, p=[0.6, 0.2, 0.2])]
    low, high = round(0.03 * 2**bits), round(0.96 * 2**bits)
    stored = np.empty(pixels.shape, "<u2")
    for top in range(0, len(pixels), BAND):
        band = pixels[top : top + BAND]
        stored[top : top + BAND] = np.rint(low + (1 - band if inverted else band) * (high - low))

    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    for level in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(dataset, level, generate_uid(entropy_srcs=[image_id, level]))
    dataset.Modality = "DX"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientOrientation = ["L", "F"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.PatientName = "PHANTOM"
    dataset.PatientID = image_id[:8]
    dataset.PatientSex = str(rng.choice(["F", "M", "O"], p=[0.45, 0.45, 0.1]))
    dataset.PatientAge = f"{rng.integers(18, 90):03d}Y"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "synthetic image"
    for empty in (
        "PatientBirthDate",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    ):
        setattr(dataset, empty, "")
    dataset.Manufacturer, dataset.InstanceNumber, dataset.SeriesNumber = "", 1, 1

    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, intercept, "US"
    if rng.random() >= NO_WINDOW_SHARE:
        # PS3.3 C.11.2.1.2.1: black is at centre - 0.5 - (width - 1) / 2, white at centre - 0.5 + (width - 1) / 2.
        black, white = low * slope + intercept, high * slope + intercept
        dataset.WindowCenter, dataset.WindowWidth = (black + white + 1) / 2, white - black + 1

    syntax = list(TRANSFER_SYNTAXES)[rng.choice(len(TRANSFER_SYNTAXES), p=list(TRANSFER_SYNTAXES.values()))]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == JPEGLosslessSV1:  # pydicom has no encoder for it
        frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=bits)
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
    elif syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        dataset.compress(syntax, stored, generate_instance_uid=False)
    else:
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
    # Drawn last, so that all else is as it was when every image was PA.
    dataset.ViewPosition = "AP" if rng.random() < AP_SHARE else "PA"
    return dataset


# ------------------------------------------------------------------------------------------------------------- readers


def read_phantom(truth: list[Finding], rng: np.random.Generator) -> list[Reading]:
    """What one reader sees of the true findings, each with the diagnosis that its label and its true box mean."""
    seen = []
    for label, box in truth:
        if rng.random() < MISSED_SHARE:
            continue
        if label in MISTAKEN_FOR and rng.random() < RENAMED_SHARE:
            label = MISTAKEN_FOR[label]
        seen.append((label, _jittered(box, rng), diagnosis_of(label, box)))
    if truth and rng.random() < EXTRA_SHARE:
        label = str(rng.choice(sorted(MISTAKEN_FOR)))
        x, y, half = rng.choice([0.3, 0.7]), rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.1)
        box = (x - half, y - half, x + half, y + half)
        seen.append((label, box, diagnosis_of(label, box)))
    return seen


def _jittered(box: Box, rng: np.random.Generator) -> Box:
    width, height = box[2] - box[0], box[3] - box[1]
    edges = np.array(box) + rng.normal(0, JITTER, 4) * (width, height, width, height)
    return tuple(np.clip(edges, 0, 1).tolist())


# -------------------------------------------------------------------------------------------------------------- tables


def _write_tables(
    folder: Path, split: str, readings: list[tuple[str, dict[str, list[Reading]]]], size: tuple[int, int]
) -> None:
    """Writes annotations_SPLIT.csv and image_labels_SPLIT.csv; the test set's tables have no rad_id."""
    keys = ("image_id", "rad_id") if split == "train" else ("image_id",)
    with (
        replacing(folder / f"annotations_{split}.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(keys + BOX_COLUMNS)
        for key, seen in _rows(readings, keys):
            for label, box, _ in seen:
                table.writerow(
                    (*key, label, *(f"{edge * side:.2f}" for edge, side in zip(box, size * 2, strict=True)))
                )
            if not seen:
                table.writerow((*key, "No finding", "", "", "", ""))
    with (
        replacing(folder / f"image_labels_{split}.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(keys + LABEL_COLUMNS)
        for key, seen in _rows(readings, keys):
            present = {label for label, _, _ in seen} | {diagnosis for _, _, diagnosis in seen} or {"No finding"}
            table.writerow((*key, *(int(SPELLINGS.get(label, label) in present) for label in LABEL_COLUMNS)))


def _rows(
    readings: list[tuple[str, dict[str, list[Reading]]]], keys: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[Reading]]]:
    """The keys and what was seen, for each reader of each image; the truth's nameless reader leaves rad_id away."""
    for image_id, readers in readings:
        for name, seen in readers.items():
            yield (image_id, name)[: len(keys)], seen


# ------------------------------------------------------------------------------------------------------------- program


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise ValueError(f"--size is a number of pixels or WIDTHxHEIGHT, not {text!r}.")
    return int(match[1]), int(match[2] or match[1])


@program
def main(arguments: PhantomArguments) -> None:
    """Draws a release."""
    with refuse_bad_input():
        write_release(**{**asdict(arguments), "size": _size(arguments.size)})


if __name__ == "__main__":
    main(*parse([PhantomArguments], None, "phantom_cxr.py", __doc__))
