"""A user's own radiographs -> the normal ones into which findings are drawn: whose they are, their split, their lungs.

    normals, said = list_normals("path/to/chestx-ray14", folder=0)    # tables alone; no picture is decoded
    split_of = split_patients([normals], num_train=2400, num_test=300, seed=0)
    picture, lungs = load_background(normals[0], size=(256, 256))     # lungs None: refused

A folder is a release or a prepared data set that `rows.py` knows; or any other folder of DICOM, PNG and JPEG files, of
which the user says that all are normal. Of a data set, normal is a radiograph with the label "No finding" and no
other, of a patient none of whose radiographs has a box; laterals are left out. Where a data set has a split train,
that alone is used.

The patient is what a table patients.csv in the folder (file, patient_id) says, or else the data set, or else the DICOM
file's Patient ID. It is never written.
"""

import json
import os
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from litegpt.common.files import complete_lines
from litegpt.datasets_scripts import vindr_cxr
from litegpt.datasets_scripts.annotations import is_lateral
from litegpt.datasets_scripts.image_files import SUFFIXES, find_files, image_id_of
from litegpt.datasets_scripts.image_labels import NOTHING_ABNORMAL, each_row
from litegpt.datasets_scripts.phantoms.lungs import SIDE, find_lungs
from litegpt.datasets_scripts.preparation.decoding_process import read_patient_id
from litegpt.datasets_scripts.rows import is_prepared, load_rows, recognised, row_picture
from litegpt.datasets_scripts.tables import plain, read_csv
from litegpt.processing.answers import NO_FINDING
from litegpt.processing.radiograph import squash_radiograph

PATIENTS_FILE = "patients.csv"
FOUND, REFUSED, UNREADABLE = "found", "refused", "unreadable"  # what became of a background's lungs
SMALLEST_BATCH = 16  # backgrounds that are looked at together


@dataclass(frozen=True)
class Background:
    """A normal radiograph.

    Attributes:
        folder: which of the folders it lies in, from 0.
        name: the row's image_id, or the path within a folder that is no data set.
        patient: never written; one string a person.
        source: the path, or (prepared folder, split, row).
        view: PA, AP or "" where unknown.
    """

    folder: int
    name: str
    patient: str
    source: str | tuple[str, str, int]
    view: str = ""


@dataclass(frozen=True)
class _Image:
    """What a data set says of an image; `labels` are of the whole image, `source` is None where it has no file."""

    name: str
    split: str
    patient: str
    source: str | tuple[str, str, int] | None
    labels: frozenset[str]
    has_box: bool
    view: str


# ------------------------------------------------------------------------------------------------------ which ones


def list_normals(data_dir: str, folder: int) -> tuple[list[Background], list[str]]:
    """The normal radiographs of a folder, by name, and what a person should know of how they were found.

    Args:
        folder: the folder's number.

    Raises:
        OSError, ValueError: there is no such folder, a table cannot be read, or nothing normal is in it.
    """
    if not os.path.isdir(data_dir):
        raise FileNotFoundError(f"--backgrounds {data_dir} is no folder.")
    told = _patients_of_table(os.path.join(data_dir, PATIENTS_FILE))
    data_set = _images_of_data_set(data_dir)
    if data_set is None:
        paths = find_files(data_dir, suffixes=(*SUFFIXES, ""), id_of=lambda path: os.path.normpath(path)).paths
        images: Iterable[_Image] = (
            _Image(name, "", read_patient_id(path), path, frozenset([NO_FINDING]), False, "")
            for name, path in paths.items()
        )
    else:
        images = data_set
    normals, boxed, number, laterals = [], set(), 0, 0
    for image in images:
        number += 1
        name = image.name if data_set is None else image_id_of(image.name)
        patient = told.get(name) or image.patient
        if image.has_box:
            boxed.add(patient or f"{folder}/{image.name}")
        elif image.source and is_normal(image.labels):
            laterals += is_lateral(image.view)
            normals.append((image, patient))
    if not number:
        raise ValueError(f"--backgrounds {data_dir} holds no radiographs.")
    # No patient number looks like this one of a patient of whom one radiograph alone is known.
    kept = [(image, patient or f"{folder}/{image.name}") for image, patient in normals]
    kept = [(image, patient) for image, patient in kept if patient not in boxed]
    of_boxed = len(normals) - len(kept)
    kept = [(image, patient) for image, patient in kept if not is_lateral(image.view)]
    if any(image.split == "train" for image, _ in kept):
        kept = [(image, patient) for image, patient in kept if image.split == "train"]
    if not kept:
        raise ValueError(f'--backgrounds {data_dir} has no normal frontal radiograph ("{NO_FINDING}" and no box).')
    backgrounds = [
        Background(folder, image.name, patient, image.source, image.view if image.view in ("PA", "AP") else "")
        for image, patient in kept
    ]
    unknown = sum(background.patient == f"{folder}/{background.name}" for background in backgrounds)
    return sorted(backgrounds, key=lambda background: background.name), _sentences(
        data_dir, data_set is None, number, len(backgrounds), of_boxed, laterals, unknown
    )


def is_normal(labels: Iterable[str]) -> bool:
    """Whether labels of a whole image say "No finding" and nothing else that is abnormal."""
    names = {plain(label) for label in labels}
    return plain(NO_FINDING) in names and names <= NOTHING_ABNORMAL


def _sentences(
    data_dir: str, is_plain: bool, number: int, normal: int, of_boxed: int, laterals: int, unknown: int
) -> list[str]:
    said = []
    if is_plain:
        said.append(f"{data_dir} is no data set that is known: all of its {number:,} files are taken for normal.")
    else:
        left_out = f" Left out: {of_boxed:,} of patients with a box, {laterals:,} laterals." * bool(
            of_boxed + laterals
        )
        said.append(f"{data_dir}: {normal:,} of {number:,} radiographs are normal ones to draw on.{left_out}")
    if unknown:
        said.append(
            f"{data_dir}: the patient of {unknown:,} normal radiographs is unknown, each counts as one of its own; "
            f"{PATIENTS_FILE} (file, patient_id) in that folder names them."
        )
    return said


def _patients_of_table(path: str) -> dict[str, str]:
    """{file or image_id: patient} of one's own table; nothing where there is none."""
    if not os.path.isfile(path):
        return {}
    patients = {}
    for _, row in read_csv(path, ("file", "patient_id")):
        patients[os.path.normpath(row["file"])] = patients[image_id_of(row["file"])] = row["patient_id"]
    return patients


def _images_of_data_set(data_dir: str) -> list[_Image] | None:
    """What a release or a prepared data set says of its images; None where the folder is neither."""
    if is_prepared(data_dir):
        return list(_images_of_rows(data_dir))
    try:
        data_set = recognised(data_dir)
    except FileNotFoundError:
        return None
    # Of readers who disagree, one who finds something is enough; the default would drop such an image and its boxes.
    union = ("union",) if data_set is vindr_cxr else ()
    release = data_set.read_release(data_dir, *union)
    return [
        _Image(
            name=image.image_id,
            split=split,
            patient=image.patient_id or (read_patient_id(path) if path else ""),
            source=path,
            labels=frozenset(
                [finding.label for finding in image.findings]
                + list(image.diagnoses)
                + list(image.optional.get("image_labels") or ())
                + [item["label"] for item in image.optional.get("mentioned") or () if item["state"] != "negative"]
            ),
            has_box=bool(image.findings),
            view=image.view,
        )
        for split, images in release.annotations.items()
        for image in images
        for path in [release.images[split].get(image.image_id)]
    ]


def _images_of_rows(data_dir: str) -> Iterator[_Image]:
    splits = sorted(
        {path.name.rpartition("-of-")[0].rpartition("-")[0] for path in Path(data_dir).glob("data/*.parquet")}
    )
    for split in splits:
        rows = _rows(data_dir, split)
        findings, diagnoses = (
            rows.features["findings"].feature["label"].names,
            rows.features["diagnoses"].feature.names,
        )
        of_images = rows.features["image_labels"].feature.names if "image_labels" in rows.features else []
        columns = [column for column in rows.column_names if column not in ("image", "mask")]
        for number, row in enumerate(each_row(rows.select_columns(columns))):
            labels = [findings[finding["label"]] for finding in row["findings"]]
            labels += [diagnoses[label] for label in row["diagnoses"]]
            labels += [of_images[label] for label in row.get("image_labels") or ()]
            if row.get("mentioned"):
                states = rows.features["mentioned"].feature["state"].names
                labels += [
                    diagnoses[item["label"]] for item in row["mentioned"] if states[item["state"]] != "negative"
                ]
            yield _Image(
                name=row["image_id"],
                split=split,
                patient=row.get("patient_id") or "",
                source=(data_dir, split, number),
                labels=frozenset(labels),
                has_box=bool(row["findings"]),
                view=row["view"] or "",
            )


@lru_cache(maxsize=8)
def _rows(data_dir: str, split: str) -> datasets.Dataset:
    return load_rows(data_dir, split)


# ---------------------------------------------------------------------------------------------------------- splits


def split_patients(
    folders: Sequence[Sequence[Background]], num_train: int, num_test: int, seed: int
) -> dict[str, str]:
    """{patient: "train" or "test"}, in the pictures' shares in each folder, and at least one patient of it in each.

    A patient of several folders is in one split. The same seed gives the same splits.

    Raises:
        ValueError: a folder has one patient alone, and both splits are asked for.
    """
    split_of: dict[str, str] = {}
    both = num_train > 0 and num_test > 0
    for number, backgrounds in enumerate(folders):
        patients = sorted({background.patient for background in backgrounds})
        if both and len(patients) < 2:
            raise ValueError(
                f"The normal radiographs of folder {number + 1} of --backgrounds are of one patient, two splits need "
                f"two: where that is not so, {PATIENTS_FILE} (file, patient_id) in it says whose they are."
            )
        wanted = round(len(patients) * num_test / max(num_train + num_test, 1))
        if both:
            wanted = min(max(wanted, 1), len(patients) - 1)
        wanted -= sum(split_of.get(patient) == "test" for patient in patients)
        new = [patient for patient in patients if patient not in split_of]
        random.Random(f"{seed}/patients/{number}").shuffle(new)
        split_of |= {patient: "test" if place < wanted else "train" for place, patient in enumerate(new)}
    return split_of


def in_drawing_order(backgrounds: Sequence[Background], seed: int) -> list[Background]:
    """A folder's backgrounds as they are taken, one after the other: shuffled, the same for a seed."""
    order = sorted(backgrounds, key=lambda background: background.name)
    random.Random(f"{seed}/order").shuffle(order)
    return order


# ---------------------------------------------------------------------------------------------------------- pictures


def load_background(background: Background, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """A background as it is drawn on, squashed to (width, height), float32 in [0, 1]; and its lungs, None if refused.

    Raises:
        ValueError: its radiograph cannot be used; the sentence names it.
    """
    if isinstance(background.source, str):
        source = background.source
    else:
        data_dir, split, number = background.source
        try:
            source = row_picture(_rows(data_dir, split), number)
        except ValueError as error:
            raise ValueError(f"{background.name} of {data_dir}: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is doubtful about a picture is for the lungs to tell
        pictures = squash_radiograph(source, [(SIDE, SIDE), size], Image.Resampling.BICUBIC, fast=True).pictures
    return np.asarray(pictures[size], np.float32) / 255, find_lungs(np.asarray(pictures[SIDE, SIDE]))


def state_of(background: Background, size: tuple[int, int]) -> tuple[str, str]:
    """FOUND, REFUSED or UNREADABLE, and why it is unreadable."""
    try:
        _, lungs = load_background(background, size)
    except (OSError, ValueError) as error:
        return UNREADABLE, str(error).splitlines()[0]
    return (REFUSED if lungs is None else FOUND), ""


class LungResults:
    """What became of backgrounds' lungs, kept in a file, so that an interrupted run does not look at them again.

    Attributes:
        path: a line of JSON a background, in the order in which they were looked at:
            {"folder": 0, "background": "a1", "lungs": "found"}.
    """

    def __init__(self, path: Path):
        self.path = path
        self._known = {(line["folder"], line["background"]): line["lungs"] for line in complete_lines(path)}

    def usable(
        self,
        backgrounds: Sequence[Background],
        needed: int,
        look: Callable[[list[Background]], Iterable],
        say: Callable,
    ) -> tuple[list[Background], Counter[str]]:
        """The first backgrounds, as many as are needed or there are, whose lungs are found; and what the others are.

        Args:
            look: backgrounds -> `state_of` each, in their order.
            say: is called with a sentence on each that is unreadable.
        """
        usable: list[Background] = []
        states: Counter[str] = Counter()
        place = 0
        while place < len(backgrounds) and len(usable) < needed:
            batch = list(backgrounds[place : place + max(needed - len(usable), SMALLEST_BATCH)])
            place += len(batch)
            unknown = [background for background in batch if (background.folder, background.name) not in self._known]
            with self.path.open("a", encoding="utf-8") as file:
                for background, (state, reason) in zip(unknown, look(unknown), strict=True):
                    self._known[background.folder, background.name] = state
                    line = {"folder": background.folder, "background": background.name, "lungs": state}
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                    if state == UNREADABLE:
                        say(reason)
            for background in batch:
                state = self._known[background.folder, background.name]
                states[state] += 1
                if state == FOUND:
                    usable.append(background)
        return usable[:needed], states
