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

With `--backgrounds` findings are drawn into real, normal radiographs of your own (`phantoms/backgrounds.py`):

    litegpt prepare phantom --output_dir semi --backgrounds path/to/chestx-ray14 path/to/films --num_proc 2

and there are besides

    annotations/backgrounds.csv          image_id, background (image_id or file), folder (from 0), split
    lungs.jsonl                          which backgrounds were looked at, and whether their lungs were found
    README.md                            what the pictures are and whose licence they keep

Each folder gives the same share of the pictures. They are squashed to the size asked for. No patient's radiographs are
in both splits, and nothing of the original but its pixels, its View Position and its id or path is written.

Three readers annotate each training image: their boxes differ, and now and then one misses a finding, names it
otherwise or sees one too many. The test set has the truth. The same seed gives the same bytes, whatever the number of
processes. An interrupted run continues where it stopped when it is started again; the tables are written last.
The 18,000 images of the second command take about 225 GB.
"""

import csv
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
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
from litegpt.common.files import replacing, write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.arguments import PhantomArguments
from litegpt.datasets_scripts.phantoms.anatomy import Box, Finding
from litegpt.datasets_scripts.phantoms.backgrounds import (
    FOUND,
    REFUSED,
    UNREADABLE,
    Background,
    LungResults,
    in_drawing_order,
    list_normals,
    load_background,
    split_patients,
    state_of,
)
from litegpt.datasets_scripts.phantoms.drawn_findings import DRAWING_VERSION, draw_into
from litegpt.datasets_scripts.phantoms.findings import diagnosis_of
from litegpt.datasets_scripts.phantoms.picture import (
    BAND,
    LARGEST_DRAWING,
    PICTURE_VERSION,
    check_size,
    draw_findings,
    draw_phantom,
)
from litegpt.datasets_scripts.vindr_cxr import LABEL_COLUMNS, SEMI_SYNTHETIC, SPELLINGS

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

LUNGS_FILE = "lungs.jsonl"
BOX_COLUMNS = ("class_name", "x_min", "y_min", "x_max", "y_max")

Reading = tuple[str, Box, str]  # a finding, its box, and the diagnosis it stands for


@dataclass(frozen=True)
class Task:
    """One image to be written: the `index`-th of its split; a phantom, or one drawn on a background.

    Attributes:
        patient: digits that stand for the background's patient.
    """

    split: str
    index: int
    background: Background | None = None
    patient: str = ""


def write_release(
    output_dir: str | Path,
    num_train: int,
    num_test: int,
    size: int | tuple[int, int],
    seed: int = 0,
    num_proc: int = 1,
    backgrounds: Sequence[str] | None = None,
    backgrounds_licence: str | None = None,
) -> None:
    """Writes a release, or what is missing of it.

    Args:
        output_dir: a new or empty folder, or one that this function filled before with the same settings.
        num_train: training images, each with three readers.
        num_test: test images, each with the true findings.
        size: pixels of a side, or (width, height).
        seed: the same seed gives the same files; different seeds give different image_ids.
        num_proc: processes; 1 draws in this one.
        backgrounds: folders of radiographs into whose normal ones findings are drawn; None draws phantoms.
        backgrounds_licence: of these radiographs; None where it is unknown.

    Raises:
        FileNotFoundError: there is no such folder of backgrounds.
        ValueError: the folder holds other things or phantoms of other settings, a number is out of range, or
            no background can be used.
    """
    output_dir = Path(output_dir)
    width, height = (size, size) if isinstance(size, int) else size
    check_size(width, height)
    if min(num_train, num_test, seed) < 0 or num_proc < 1:
        raise ValueError("num_train, num_test and seed cannot be negative, and num_proc is at least 1.")
    if backgrounds_licence and not backgrounds:
        raise ValueError("--backgrounds_licence is the licence of --backgrounds: name these too.")
    settings = {
        "num_train": num_train,
        "num_test": num_test,
        "width": width,
        "height": height,
        "seed": seed,
        "picture_version": PICTURE_VERSION,
    }
    if backgrounds:
        tasks = _tasks_on_backgrounds(output_dir, settings, list(backgrounds), backgrounds_licence, num_proc)
    else:
        _claim(output_dir, settings)
        tasks = [Task("train", index) for index in range(num_train)]
        tasks += [Task("test", index) for index in range(num_test)]
    write = partial(_write_image, output_dir=output_dir, size=(width, height), seed=seed)
    results = {"train": [], "test": []}
    with tqdm(total=len(tasks), unit="image", disable=None) as progress:
        for split, image_id, readings in _map(write, tasks, num_proc):
            results[split].append((image_id, readings))
            progress.update()
    if backgrounds:
        _write_backgrounds_table(output_dir / "annotations", tasks, seed)
    for split, readings_of_images in results.items():
        _write_tables(output_dir / "annotations", split, readings_of_images, (width, height))


def image_id_of(seed: int, split: str, index: int, kind: str = "") -> str:
    """32 hexadecimal digits, as in VinDr-CXR; of pictures drawn on backgrounds other ones than of phantoms."""
    return hashlib.md5(f"{kind}{seed}/{split}/{index}".encode()).hexdigest()


# --------------------------------------------------------------------------------------------------------- backgrounds


def _tasks_on_backgrounds(
    output_dir: Path, settings: dict, folders: list[str], licence: str | None, num_proc: int
) -> list[Task]:
    """Which background each picture is drawn on; prints what was left out, and writes it into phantom.json."""
    seed, numbers = settings["seed"], {"train": settings["num_train"], "test": settings["num_test"]}
    normals = []
    for number, folder in enumerate(folders):
        found, said = list_normals(folder, number)
        normals.append(found)
        print(*said, sep="\n")
    split_of = split_patients(normals, *numbers.values(), seed)
    listed = hashlib.sha256()
    for background in (background for found in normals for background in found):
        line = f"{background.folder}\t{background.name}\t{split_of[background.patient]}\n"
        listed.update(line.encode(errors="backslashreplace"))
    settings = settings | {
        "picture_version": DRAWING_VERSION,
        "kind": SEMI_SYNTHETIC,
        "backgrounds": [Path(folder).resolve().name for folder in folders],
        "backgrounds_licence": licence,
        "normals": listed.hexdigest()[:16],  # the same files, patients and splits
    }
    _claim(output_dir, settings)
    write_text(output_dir / "README.md", _readme(settings))
    usable, counts = _usable_backgrounds(output_dir, settings, folders, normals, split_of, num_proc)
    write_text(output_dir / "phantom.json", json.dumps(settings | {"counts": counts}, indent=2))
    patients = _patient_ids(split_of, seed)
    tasks = []
    for split, number in numbers.items():
        for index in range(number):
            of_folder = usable[index % len(folders), split]
            background = of_folder[index // len(folders) % len(of_folder)]
            tasks.append(Task(split, index, background, patients[background.patient]))
    return tasks


def _usable_backgrounds(
    output_dir: Path,
    settings: dict,
    folders: list[str],
    normals: list[list[Background]],
    split_of: dict[str, str],
    num_proc: int,
) -> tuple[dict[tuple[int, str], list[Background]], list[dict[str, int | str]]]:
    """The backgrounds with lungs of each folder and split, no more than are needed; and each folder's counts."""
    look_at = partial(state_of, size=_drawing_size(settings["width"], settings["height"]))
    results = LungResults(output_dir / LUNGS_FILE)
    usable: dict[tuple[int, str], list[Background]] = {}
    counts: list[dict[str, int | str]] = []
    with tqdm(unit="background", disable=None) as progress:

        def look(backgrounds: list[Background]) -> Iterator[tuple[str, str]]:
            for state in _map(look_at, backgrounds, num_proc):
                progress.update()
                yield state

        for number, (folder, found) in enumerate(zip(folders, normals, strict=True)):
            states: Counter[str] = Counter()
            for split in ("train", "test"):
                wanted = len(range(number, settings[f"num_{split}"], len(folders)))
                ordered = in_drawing_order(
                    [each for each in found if split_of[each.patient] == split], settings["seed"]
                )
                usable[number, split], met = results.usable(
                    ordered, wanted, look, lambda reason: tqdm.write(f"Left out: {reason}")
                )
                states += met
                if wanted and not usable[number, split]:
                    raise ValueError(
                        f"{folder}: none of its {len(ordered):,} normal radiographs for {split} can be drawn on "
                        f"({met[REFUSED]:,} where no two lungs are found, {met[UNREADABLE]:,} unreadable)."
                    )
            counts.append(
                {
                    "folder": settings["backgrounds"][number],
                    "normal": len(found),
                    "looked_at": states.total(),
                    "accepted": states[FOUND],
                    "refused": states[REFUSED],
                    "unreadable": states[UNREADABLE],
                }
            )
            print(
                f"{folder}: lungs were found in {states[FOUND]:,} of {states.total():,} radiographs that were looked "
                f"at; {states[REFUSED]:,} were refused, {states[UNREADABLE]:,} are unreadable."
            )
    return usable, counts


def _patient_ids(split_of: dict[str, str], seed: int) -> dict[str, str]:
    """{patient: what DICOM files call them}: a place in a shuffled list, hashed.

    A digest of the patient's own number would give it away: there are not many.
    """
    patients = sorted(split_of)
    random.Random(f"{seed}/numbers").shuffle(patients)
    return {
        patient: hashlib.md5(f"{SEMI_SYNTHETIC}{seed}/patient/{place}".encode()).hexdigest()[:16]
        for place, patient in enumerate(patients)
    }


def _readme(settings: dict) -> str:
    licence = settings["backgrounds_licence"]
    stated = f"It is: {licence}." if licence else "It is unknown: whoever drew them named none."
    return (
        "# Semi-synthetic radiographs\n\n"
        "Findings drawn by a program (`litegpt prepare phantom --backgrounds`) into normal radiographs of "
        f"{', '.join(settings['backgrounds'])}. Every box is known, because it was drawn; no radiologist saw them.\n\n"
        "## Licence\n\n"
        f"The pictures keep the licence of the radiographs that they are drawn on. {stated} They are changed copies "
        "of these, and may be shared only where that licence allows it.\n"
    )


def _drawing_size(width: int, height: int) -> tuple[int, int]:
    reduction = min(1.0, LARGEST_DRAWING / max(width, height))
    return round(width * reduction), round(height * reduction)


def _draw_on_background(
    background: Background, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, list[Finding]]:
    """Pixels of (width, height) in which 0 and 1 occur, and the findings."""
    drawing_rng, grain_rng = rng.spawn(2)
    drawing_size = _drawing_size(*size)
    picture, lungs = load_background(background, drawing_size)
    if lungs is None:
        raise ValueError(f"{background.name} changed while this ran: its lungs are no longer found.")
    pixels, findings = draw_into(picture, lungs, drawing_rng)
    if drawing_size != size:
        pixels = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        pixels += 0.01 * grain_rng.standard_normal(pixels.shape, dtype=np.float32)
    low, high = pixels.min(), pixels.max()
    return np.clip((pixels - low) / max(high - low, 1e-6), 0, 1), findings


def _write_backgrounds_table(folder: Path, tasks: Sequence[Task], seed: int) -> None:
    """Writes backgrounds.csv: what each picture was drawn on."""
    with (
        replacing(folder / "backgrounds.csv") as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image_id", "background", "folder", "split"))
        for task in tasks:
            image_id = image_id_of(seed, task.split, task.index, SEMI_SYNTHETIC)
            table.writerow((image_id, task.background.name, task.background.folder, task.split))


def _claim(output_dir: Path, settings: dict) -> None:
    """Makes the folder ours by writing the settings; refuses a folder that is not."""
    settings_file = output_dir / "phantom.json"
    if settings_file.exists():
        found = json.loads(settings_file.read_text(encoding="utf-8"))
        found.pop("counts", None)
        if "backgrounds_licence" in settings:  # it can be named later
            found["backgrounds_licence"] = settings["backgrounds_licence"]
        # A run that failed before its first picture does not stand in the way of the corrected one.
        if found != settings and any(output_dir.glob("*/*.dicom")):
            other = ", ".join(
                f"{name} {found.get(name)}, not {settings.get(name)}"
                for name in settings | found
                if found.get(name) != settings.get(name)
            )
            raise ValueError(
                f"{output_dir} holds phantoms of other settings ({other}): choose another folder, or remove it."
            )
        if found != settings:
            (output_dir / LUNGS_FILE).unlink(missing_ok=True)
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
    task: Task, output_dir: Path, size: tuple[int, int], seed: int
) -> tuple[str, str, dict[str, list[Reading]]]:
    """Draws one image, writes it unless it is there, and returns its split, its id and what each reader saw."""
    split, background = task.split, task.background
    image_id = image_id_of(seed, split, task.index, SEMI_SYNTHETIC if background else "")
    image_rng = np.random.default_rng([seed, ("train", "test").index(split), task.index])
    phantom_rng, encoding_rng, reader_rng = image_rng.spawn(3)
    path = output_dir / split / f"{image_id}.dicom"
    pixels = None
    if background is not None:  # the drawing itself tells where its findings are
        pixels, findings = _draw_on_background(background, size, phantom_rng)
    elif path.exists():
        findings = draw_findings(phantom_rng, size)
    else:
        phantom = draw_phantom(phantom_rng, size)
        pixels, findings = phantom.pixels, phantom.findings
    if not path.exists():
        dataset = encode_dicom(pixels, image_id, encoding_rng)
        if background is not None:
            _say_semi_synthetic(dataset, task, seed)
        with replacing(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
    if split == "test":
        return split, image_id, {"": [(label, box, diagnosis_of(label, box)) for label, box in findings]}
    names = reader_rng.choice(READERS, READERS_PER_IMAGE, replace=False)
    return split, image_id, {str(name): read_phantom(findings, reader_rng) for name in names}


def _say_semi_synthetic(dataset: Dataset, task: Task, seed: int) -> None:
    """What a DICOM file says of a picture with a person's radiograph in it; nothing about the person is made up."""
    dataset.DerivationDescription = f"{SEMI_SYNTHETIC}: findings drawn into a radiograph (seed {seed})"
    dataset.PatientName, dataset.PatientID = "SEMI-SYNTHETIC", task.patient
    dataset.PatientSex = dataset.PatientAge = ""
    dataset.DeidentificationMethod = "pixels alone were taken from the radiograph"
    dataset.ViewPosition = task.background.view


def encode_dicom(
    pixels: np.ndarray, image_id: str, rng: np.random.Generator, transfer_syntax: UID | None = None
) -> Dataset:
    """A DICOM data set of a radiograph, in an encoding drawn at random.

    Drawn are the transfer syntax, 12, 14 or 16 stored bits, MONOCHROME1 or 2, the rescale slope and intercept,
    whether a window is stored, and the View Position, PA or AP. Modality LUT, window (or, without one, minimum to
    maximum) and MONOCHROME1's inversion give back the same picture from all of them, but for rounding.

    Args:
        pixels: (height, width) float in [0, 1], in which 0 and 1 occur.
        image_id: 32 hexadecimal digits; the UIDs are derived from them.
        rng: the same state gives the same bytes.
        transfer_syntax: one of `TRANSFER_SYNTAXES`; None: it is drawn.
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
    if transfer_syntax is not None:
        syntax = transfer_syntax
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == JPEGLosslessSV1:  # pydicom has no encoder for it
        import imagecodecs  # large, and nothing else here needs it

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
