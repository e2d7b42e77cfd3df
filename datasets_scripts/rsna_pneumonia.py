"""RSNA Pneumonia Detection Challenge (2018; 26,684 radiographs of ChestX-ray14), from Kaggle, to this project's rows.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/rsna-pneumonia", split="test", num_proc=8)
    rows[0]["findings"]    # [{"label": 0, "box": [0.24, 0.16, 0.44, 0.5], "readers": 1}]

or, once for all programs, a folder that `datasets.load_dataset` reads:

    litegpt prepare rsna-pneumonia --data_dir path/to/rsna-pneumonia --output_dir prepared/rsna-pneumonia --num_proc 8

The layout (https://www.kaggle.com/c/rsna-pneumonia-detection-challenge; Shih et al., Radiology: Artificial
Intelligence 2019):

    stage_2_train_images/PATIENTID.dcm       1024 x 1024; also PNG or JPEG, and scaled copies of the whole image
    stage_2_train_labels.csv                 patientId, x, y, width, height, Target: a line a box, in 1024ths
    stage_2_detailed_class_info.csv          patientId, class
    pneumonia-challenge-dataset-mappings_2018.json    which image of ChestX-ray14 each one is

What a row says: boxes are "Lung Opacity", and of the whole image

    Target 1, class "Lung Opacity"                       diagnoses ["Pneumonia"]: an opacity that may be one
    Target 0, class "No Lung Opacity / Not Normal"       diagnoses ["Other abnormality"]
    Target 0, class "Normal"                             diagnoses ["No finding"]

Without `stage_2_detailed_class_info.csv` nobody knows which of the others are normal: there "Pneumonia" is the only
diagnosis, and Target 0 has none.

Only the training images have labels. They are split as GLoRIA and CXR-CLIP do, by image: of the sorted names 70 % are
train, 15 % test and 15 % validation (`splits.seventy_fifteen_fifteen`): 18,678, 4,003 and 4,003 of the whole release.
An RSNA "patient" is one image. With the mapping `patient_id` is the NIH's number of the person, as ChestX-ray14 has
it, and it shows that the published split has people on both sides (patients_of_other_splits); without, it is RSNA's
name.
"""

import json
import os
import re

from litegpt.common.addresses import absolute, is_file, is_folder
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import Finding, ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.image_files import file_counts, find_files, match, paths_by_split
from litegpt.datasets_scripts.picture_boxes import boxes_in_pixels
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.preparation.splits import seventy_fifteen_fifteen
from litegpt.datasets_scripts.tables import box_numbers, flag, plain, read_csv, read_text
from litegpt.processing.answers import NO_FINDING

FINDING_LABELS: tuple[str, ...] = ("Lung Opacity",)
DIAGNOSIS_LABELS: tuple[str, ...] = ("Pneumonia", "Other abnormality", NO_FINDING)
DIAGNOSES_OF_CLASSES = {
    "lung opacity": "Pneumonia",
    "no lung opacity / not normal": "Other abnormality",
    "normal": NO_FINDING,
}

LABEL_FILE = "stage_2_train_labels.csv"
CLASS_FILE = "stage_2_detailed_class_info.csv"
MAPPING_FILE = "pneumonia-challenge-dataset-mappings_2018.json"
LAYOUT = f"{LABEL_FILE} (RSNA Pneumonia)"
BOX_COLUMNS = ("x", "y", "width", "height")
BOX_SIDE = 1024  # pixels of the images that the boxes were drawn on
NIH_IMAGE = re.compile(r"(\d{8})_\d{3}(\.\w+)?")
IMAGE_FOLDERS = r"(?!stage_\d_test).*"

CITATION = """\
@article{shih2019augmenting,
  title={Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible
         Pneumonia},
  author={Shih, George and Wu, Carol C. and Halabi, Safwan S. and others},
  journal={Radiology: Artificial Intelligence},
  volume={1},
  number={1},
  pages={e180041},
  year={2019}
}"""
HOMEPAGE = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge"
FACTS = DataSetFacts(
    name="rsna_pneumonia",
    pretty_name="RSNA Pneumonia",
    homepage=HOMEPAGE,
    licence="Kaggle competition rules of the RSNA Pneumonia Detection Challenge",
    licence_link=f"{HOMEPAGE}/rules",
    citation=CITATION,
)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has the table with the boxes."""
    return is_file(os.path.join(data_dir, LABEL_FILE))


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def read_labels(path: str) -> tuple[dict[str, list[Finding]], set[str], dict[str, int]]:
    """{image_id: findings}, boxes xyxy in 1024ths; the images of Target 1; {image_id: boxes without area}.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; a Target is not 0 or 1, an image has both, or one of Target 0 has
            a box.
    """
    findings: dict[str, list[Finding]] = {}
    positive: set[str] = set()
    without_area: dict[str, int] = {}
    for where, row in read_csv(path, ("patientId", *BOX_COLUMNS, "Target")):
        image_id, target = row["patientId"], flag(row["Target"], where)
        if not image_id:
            raise ValueError(f"{where}: the line names no image.")
        box = box_numbers(row, BOX_COLUMNS, where)
        if image_id in findings and target != (image_id in positive):
            raise ValueError(f"{where}: image {image_id} has Target 0 and Target 1.")
        if box is not None and not target:
            raise ValueError(f"{where}: image {image_id} has a box and Target 0.")
        found = findings.setdefault(image_id, [])
        if target:
            positive.add(image_id)
        if box is None:
            continue
        x, y, width, height = box
        if width > 0 and height > 0:
            found.append(Finding(FINDING_LABELS[0], (x, y, x + width, y + height)))
        else:
            without_area[image_id] = without_area.get(image_id, 0) + 1
    return findings, positive, without_area


def read_classes(path: str, positive: set[str]) -> dict[str, str]:
    """{image_id: diagnosis} of the table with the three classes.

    Args:
        positive: the images of Target 1.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; a class is none of the three, or not what the Target says.
    """
    diagnoses: dict[str, str] = {}
    for where, row in read_csv(path, ("patientId", "class")):
        image_id, diagnosis = row["patientId"], DIAGNOSES_OF_CLASSES.get(plain(row["class"]))
        if diagnosis is None:
            raise ValueError(f"{where}: unknown class {row['class']!r}.")
        if (diagnosis == "Pneumonia") != (image_id in positive):
            target = int(image_id in positive)
            raise ValueError(f"{where}: image {image_id} is {row['class']!r}, but {LABEL_FILE} gives Target {target}.")
        diagnoses[image_id] = diagnosis
    return diagnoses


def read_mapping(path: str, image_ids: set[str]) -> dict[str, str]:
    """{image_id: the NIH's number of the patient} of the mapping, as ChestX-ray14's tables write it: 00000001 is 1.

    The two names stand in fields of a list of objects; they are told by their values.

    Args:
        image_ids: of the table with the boxes. Other images, such as those of the challenge's test, are passed over.

    Raises:
        ValueError: the file is no JSON list of objects, or names no image of the table beside one of ChestX-ray14.
    """
    try:
        entries = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is no list of objects.")
    patients = {}
    for entry in entries:
        texts = [value for value in entry.values() if isinstance(value, str)]
        own = next((text for text in texts if text in image_ids), None)
        nih = next(filter(None, map(NIH_IMAGE.fullmatch, texts)), None)
        if own is not None and nih is not None:
            patients[own] = str(int(nih[1]))
    if not patients:
        raise ValueError(f"{path} names no patientId of {LABEL_FILE} beside an image such as 00000001_000.png.")
    return patients


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the tables and the names of the images; of boxed images the header.

    `counts`, for each split: images; images_with_boxes, images_no_finding; boxes; boxes_without_area (skipped);
    boxes_clipped; images_without_class (not in the table of classes, where there is one). With the mapping,
    images_not_in_mapping (their patient_id is RSNA's) and patients_of_other_splits.

    Raises:
        FileNotFoundError: a file or all radiographs are missing.
        ValueError: a table or the mapping cannot be read; it names the file and, for tables, the line.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of an RSNA Pneumonia release.")
    table = os.path.join(data_dir, LABEL_FILE)
    class_path, mapping_path = os.path.join(data_dir, CLASS_FILE), os.path.join(data_dir, MAPPING_FILE)
    findings_of, positive, without_area = read_labels(table)
    has_classes, has_mapping = is_file(class_path), is_file(mapping_path)
    classes = read_classes(class_path, positive) if has_classes else {}
    patients = read_mapping(mapping_path, set(findings_of)) if has_mapping else {}
    files = find_files(data_dir, folders=IMAGE_FOLDERS)

    split_of = seventy_fifteen_fifteen(sorted(findings_of))
    annotations: dict[str, list[ImageAnnotation]] = {split: [] for split in ("train", "validation", "test")}
    for image_id, findings in findings_of.items():
        diagnosis = classes.get(image_id) or ("Pneumonia" if image_id in positive else None)
        annotations[split_of[image_id]].append(
            ImageAnnotation(
                image_id,
                findings=tuple(findings),
                diagnoses=(diagnosis,) if diagnosis else (),
                patient_id=patients.get(image_id, image_id),
            )
        )
    paths = match(list(findings_of), files, table, data_dir)
    annotations, fits = boxes_in_pixels(annotations, paths, dict.fromkeys(findings_of, (BOX_SIDE, BOX_SIDE)), table)

    counts = {}
    patients_of = {split: {image.patient_id for image in images} for split, images in annotations.items()}
    for split, images in annotations.items():
        counts[split] = {
            "images": len(images),
            "images_with_boxes": sum(bool(image.findings) for image in images),
            "images_no_finding": sum(image.diagnoses == (NO_FINDING,) for image in images),
            "boxes": sum(len(image.findings) for image in images),
            "boxes_without_area": sum(without_area.get(image.image_id, 0) for image in images),
            "boxes_clipped": fits[split].get("boxes_clipped", 0),
        }
        if has_classes:
            counts[split]["images_without_class"] = sum(image.image_id not in classes for image in images)
        if has_mapping:
            others = set().union(*(people for other, people in patients_of.items() if other != split))
            counts[split]["images_not_in_mapping"] = sum(image.image_id not in patients for image in images)
            counts[split]["patients_of_other_splits"] = len(patients_of[split] & others)
    counts["none"] = file_counts(files, findings_of)
    return Release(
        facts=FACTS,
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS if has_classes else DIAGNOSIS_LABELS[:1],
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts=counts,
        columns=("patient_id", "sex", "age"),
    )


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "rsna_pneumonia.py", __doc__))
