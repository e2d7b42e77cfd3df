"""ChestX-ray14 (NIH; 112,120 radiographs of 30,805 patients), as it is published, to rows of this project's schema.

    from litegpt.datasets_scripts.chestx_ray14 import load_chestx_ray14

    dataset = load_chestx_ray14("path/to/chestx-ray14", split="test", num_proc=8)

or, once for all programs, a folder that `datasets.load_dataset` reads:

    litegpt prepare chestx-ray14 --data_dir path/to/chestx-ray14 --output_dir path/to/prepared --num_proc 8

The layout (https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang et al., CVPR 2017, arXiv 1705.02315):

    images/00000001_000.png              1024 x 1024; or images_001/images/*.png ... images_012/images/*.png
    Data_Entry_2017_v2020.csv            Image Index, Finding Labels (A|B), ..., Patient ID, Patient Age,
        or Data_Entry_2017.csv           Patient Sex (2017: Gender), View Position, ...
    BBox_List_2017.csv                   Image Index, Finding Label, Bbox [x, y, w, h] in pixels of 1024 x 1024
    train_val_list.txt, test_list.txt    the official split, by patient: -> train, test

    exclude_patients.txt                 a file of your own: patients, a Patient ID a line, whose images leave train

RSNA Pneumonia and SIIM-ACR Pneumothorax are of images of ChestX-ray14: who trains on this and tests on those leaves
their patients out by `exclude_patients.txt` (images_excluded; docs/prepare_data.md says how to make it).

Images may be resized copies, also as JPEG, as long as the whole image was scaled: boxes are scaled with them.

The labels were mined from the reports by a program; 984 boxes in 880 images were drawn by a radiologist, for eight of
the fourteen labels. All boxes lie in test images, so train has labels alone. What a row says about "nothing there":

    findings, diagnoses without "No finding"   boxes were drawn
    no findings, diagnoses ["No finding"]      a negative: none of the fourteen was found in the report
    no findings, any other diagnoses           unknown to a localiser: labels without a box

Even where boxes were drawn, another of the image's labels may have none: compare `findings` with `diagnoses`.

Rows have the columns `sex` and `age` where the table has them.
"""

import os
import re
from typing import Any

import datasets

from litegpt.common.addresses import absolute, is_file, is_folder
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import Finding, ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.image_files import Files, file_counts, find_files, image_id_of, match, paths_by_split
from litegpt.datasets_scripts.picture_boxes import boxes_in_pixels
from litegpt.datasets_scripts.preparation.demographics import age_in_years, known_sex
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.prepare import load_release
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.tables import box_numbers, has_columns, plain, read_csv, read_text
from litegpt.processing.answers import NO_FINDING

FINDING_LABELS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
DIAGNOSIS_LABELS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural thickening",
    "Pneumonia",
    "Pneumothorax",
    NO_FINDING,
)
# As the files spell them; the box file alone says Infiltrate.
LABELS_BY_PLAIN_NAME = {plain(label): label for label in DIAGNOSIS_LABELS} | {"infiltrate": "Infiltration"}

ENTRY_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LAYOUT = f"{' or '.join(ENTRY_FILES)} (ChestX-ray14)"
ENTRY_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
SEX_COLUMNS = ("Patient Sex", "Patient Gender")  # of 2020, of 2017
AGE_COLUMN = "Patient Age"
BOX_FILE = "BBox_List_2017.csv"
BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")  # the header's "Bbox [x,y,w,h]" is four cells
BOX_SIDE = 1024  # pixels of the images that the boxes were drawn on
SPLIT_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
EXCLUSION_FILE = "exclude_patients.txt"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_FOLDERS = r"images(_\d+)?"
PLAIN_BOX_COLUMNS = ("x", "y", "w", "h")

CITATION = """\
@inproceedings{wang2017chestxray8,
  title={ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and
         Localization of Common Thorax Diseases},
  author={Wang, Xiaosong and Peng, Yifan and Lu, Le and Lu, Zhiyong and Bagheri, Mohammadhadi and Summers, Ronald M.},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages={3462--3471},
  year={2017}
}"""
HOMEPAGE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
FACTS = DataSetFacts(
    name="chestx_ray14",
    pretty_name="ChestX-ray14",
    homepage=HOMEPAGE,
    licence="NIH Clinical Center, unrestricted use with attribution",
    licence_link=HOMEPAGE,
    citation=CITATION,
)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has the table of 2017 or of 2020."""
    return any(is_file(os.path.join(data_dir, name)) for name in ENTRY_FILES)


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def read_split_lists(data_dir: str) -> dict[str, str]:
    """{image_id: split} of the official lists; a release with one list has one split.

    Lines may name a folder before the image, and commas, semicolons or tabs may stand for new lines.

    Raises:
        FileNotFoundError: there is neither list.
        ValueError: an image is in both, or a list is no text.
    """
    split_of: dict[str, str] = {}
    for split, names in names_in_lists(data_dir).items():
        for image_id in map(image_id_of, names):
            if split_of.setdefault(image_id, split) != split:
                path = os.path.join(data_dir, SPLIT_LISTS[split])
                raise ValueError(f"{path}: image {image_id} is in {SPLIT_LISTS[split_of[image_id]]} too.")
    if not split_of:
        raise FileNotFoundError(f"{data_dir} has neither of the split lists, {' and '.join(SPLIT_LISTS.values())}.")
    return split_of


def names_in_lists(data_dir: str) -> dict[str, list[str]]:
    """{split: the images as its list names them} of the lists that are there.

    Raises:
        ValueError: a list is no text.
    """
    names = {}
    for split, list_name in SPLIT_LISTS.items():
        path = os.path.join(data_dir, list_name)
        if is_file(path):
            try:
                cells = re.split(r"[\n\r,;\t]", read_text(path))
            except UnicodeError as error:
                raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from error
            names[split] = [name for name in (cell.strip().strip('"') for cell in cells) if name]
    return names


def _refuse_lists_of_other_images(data_dir: str, seen: dict[str, str], table: str) -> None:
    """Refuses a list of which the table has no image: the names would differ, and a split be gone."""
    for split, names in names_in_lists(data_dir).items():
        if names and seen and not any(image_id_of(name) in seen for name in names):
            raise ValueError(
                f"{os.path.join(data_dir, SPLIT_LISTS[split])} names no image of {os.path.basename(table)}: "
                f'the list has "{names[0]}", the table "{next(iter(seen.values()))}".'
            )


def read_exclusions(data_dir: str) -> set[str] | None:
    """Patients whose images leave train, without zeros at the front; None where there is no such file.

    Raises:
        ValueError: a line is no Patient ID, or the file is no text.
    """
    path = os.path.join(data_dir, EXCLUSION_FILE)
    if not is_file(path):
        return None
    try:
        lines = read_text(path).splitlines()
    except UnicodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from error
    patients = set()
    for number, line in enumerate(lines, start=1):
        if line.strip() and not re.fullmatch(r"[0-9]+", line.strip()):
            raise ValueError(f"{path}, line {number}: {line.strip()!r} is no Patient ID of ChestX-ray14.")
        patients.update([line.strip().lstrip("0")] if line.strip() else [])
    return patients


def read_boxes(path: str) -> tuple[dict[str, list[Finding]], dict[str, int]]:
    """{image_id: findings} of the box file, boxes xyxy in 1024ths of the image, and {image_id: boxes without area}.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; a label is not one of `FINDING_LABELS`, or a cell is no number.
    """
    findings: dict[str, list[Finding]] = {}
    without_area: dict[str, int] = {}
    columns = PLAIN_BOX_COLUMNS if has_columns(path, PLAIN_BOX_COLUMNS) else BOX_COLUMNS
    for where, row in read_csv(path, ("Image Index", "Finding Label", *columns)):
        image_id, label = image_id_of(row["Image Index"]), LABELS_BY_PLAIN_NAME.get(plain(row["Finding Label"]))
        if label not in FINDING_LABELS:
            raise ValueError(f"{where}: unknown label {row['Finding Label']!r}.")
        numbers = box_numbers(row, columns, where)
        if numbers is None:
            raise ValueError(f"{where}: the box has no coordinates.")
        x, y, width, height = numbers
        if width > 0 and height > 0:
            findings.setdefault(image_id, []).append(Finding(label, (x, y, x + width, y + height)))
        else:
            without_area[image_id] = without_area.get(image_id, 0) + 1
    return findings, without_area


def sex_and_age(row: dict[str, str]) -> dict[str, Any]:
    """The columns `sex` and `age`, as a line of the table has them."""
    sex = next((row[column] for column in SEX_COLUMNS if column in row), "")
    return {"sex": known_sex(sex or ""), "age": age_in_years(row.get(AGE_COLUMN) or "")}


def find_radiographs(data_dir: str) -> Files:
    """The radiographs in folders called images, images_001 and so on, one in another too; or else beside the tables.

    Raises:
        FileNotFoundError: there are none.
    """
    files = find_files(data_dir, IMAGE_SUFFIXES, folders=IMAGE_FOLDERS)
    if not files.paths:
        raise FileNotFoundError(f"{data_dir} has no radiographs in images/ or images_001/images/ and so on.")
    return files


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the tables, the lists and the names of the images; of boxed images the header.

    An image belongs to a split where the lists name it. Its labels are those of the table and of its boxes; beside any
    other label "No finding" is lost. `counts`, for each split: images; images_in_conflict ("No finding" beside another
    label); images_with_boxes, images_no_finding, images_unknown (neither); images_not_in_table (listed, so left out);
    boxes; boxes_without_area (skipped); boxes_not_in_table (of a listed image that is not in the table). For the split
    "none": images and boxes that no list names, which are left out. For train, where there is `exclude_patients.txt`:
    images_excluded, and patients_not_in_table, where there are any of that file.

    Raises:
        FileNotFoundError: a file or all radiographs are missing.
        ValueError: a table cannot be read, a label is unknown, or an image is in the table twice or in both lists; it
            names the file and, for tables, the line.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a ChestX-ray14 release.")
    entries = [path for path in (os.path.join(data_dir, name) for name in ENTRY_FILES) if is_file(path)]
    if not entries:
        raise FileNotFoundError(f"{data_dir} has neither {' nor '.join(ENTRY_FILES)}.")
    split_of = read_split_lists(data_dir)
    findings_of, without_area = read_boxes(os.path.join(data_dir, BOX_FILE))
    excluded = read_exclusions(data_dir)
    files = find_radiographs(data_dir)

    splits = [split for split in SPLIT_LISTS if split in split_of.values()]
    rules = ("images", "images_in_conflict", "images_with_boxes", "images_no_finding", "images_unknown")
    rules += ("images_not_in_table", "boxes", "boxes_without_area", "boxes_not_in_table")
    counts = {split: dict.fromkeys(rules, 0) for split in splits}
    counts["none"] = {"images": 0, "boxes": 0}
    annotations: dict[str, list[ImageAnnotation]] = {split: [] for split in splits}
    seen: dict[str, str] = {}  # as the table names them
    patients: set[str] = set()
    if excluded is not None and "train" in splits:
        counts["train"]["images_excluded"] = 0
    has_people = any(has_columns(entries[0], [name]) for name in (*SEX_COLUMNS, AGE_COLUMN))
    # Public numbers, by which an evaluation resamples patients rather than their radiographs.
    columns = ("patient_id", "sex", "age") if has_people else ("patient_id",)

    for where, row in read_csv(entries[0], ENTRY_COLUMNS, optional=(*SEX_COLUMNS, AGE_COLUMN)):
        image_id = image_id_of(row["Image Index"])
        if image_id in seen:
            raise ValueError(f"{where}: image {image_id} is in the table twice.")
        seen[image_id] = row["Image Index"]
        names = row["Finding Labels"].split("|")
        unknown = [name for name in names if plain(name) not in LABELS_BY_PLAIN_NAME]
        if unknown:
            raise ValueError(f"{where}: unknown label {min(unknown)!r}.")
        labels = {LABELS_BY_PLAIN_NAME[plain(name)] for name in names}
        findings = findings_of.get(image_id, [])
        split = split_of.get(image_id, "none")
        counts[split]["images"] += 1
        counts[split]["boxes"] += len(findings)
        patient = row["Patient ID"].strip()
        patients.add(patient.lstrip("0"))
        if split == "none":
            continue
        if split == "train" and excluded is not None and patient.lstrip("0") in excluded:
            counts["train"]["images_excluded"] += 1
            continue

        labels.update(finding.label for finding in findings)
        if NO_FINDING in labels and len(labels) > 1:
            counts[split]["images_in_conflict"] += 1
            labels.remove(NO_FINDING)
        kind = "with_boxes" if findings else "no_finding" if NO_FINDING in labels else "unknown"
        counts[split][f"images_{kind}"] += 1
        counts[split]["boxes_without_area"] += without_area.get(image_id, 0)
        annotations[split].append(
            ImageAnnotation(
                image_id,
                findings=tuple(findings),
                diagnoses=tuple(label for label in DIAGNOSIS_LABELS if label in labels),
                patient_id=patient,
                view=row["View Position"].strip(),
                optional=sex_and_age(row) if has_people else {},
            )
        )

    _refuse_lists_of_other_images(data_dir, seen, entries[0])
    if excluded is not None and "train" in splits:
        if seen and not annotations["train"]:
            raise ValueError(f"{os.path.join(data_dir, EXCLUSION_FILE)} leaves no image of train.")
        if unknown_patients := len(excluded - patients):
            counts["train"]["patients_not_in_table"] = unknown_patients
    for image_id in split_of.keys() - seen.keys():
        counts[split_of[image_id]]["images_not_in_table"] += 1
    for image_id in findings_of.keys() - seen.keys():
        if image_id in split_of:
            counts[split_of[image_id]]["boxes_not_in_table"] += len(findings_of[image_id])
        else:
            counts["none"]["boxes"] += len(findings_of[image_id])
    listed = [annotation.image_id for split in splits for annotation in annotations[split]]
    paths = match(listed, files, entries[0], data_dir)
    drawn_on = dict.fromkeys(findings_of, (BOX_SIDE, BOX_SIDE))
    annotations, fits = boxes_in_pixels(annotations, paths, drawn_on, os.path.join(data_dir, BOX_FILE))
    for split in splits:  # that boxes were scaled is the rule here
        counts[split] |= {rule: count for rule, count in fits[split].items() if rule == "boxes_clipped"}
    counts["none"] |= file_counts(files, seen)
    return Release(
        facts=FACTS,
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts=counts,
        columns=columns,
    )


def load_chestx_ray14(
    data_dir: str | os.PathLike,
    split: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
    streaming: bool = False,
    **options: Any,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """The release's rows, prepared in the cache unless neither it nor the options changed.

    Args:
        data_dir: folder of the release.
        split, cache_dir, num_proc, streaming: see `preparation.prepare.load_release`.
        **options: fields of `PreparationOptions`.

    Returns:
        Rows of `annotations.row_features`; a dictionary of splits where `split` is None.

    Raises:
        FileNotFoundError, ValueError: the folder or its tables cannot be used, or an option has no such value.
        RadiographError: a radiograph failed and `on_error` is "raise".
    """
    return load_release(read_release(data_dir), split, cache_dir, num_proc, streaming, PreparationOptions(**options))


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "chestx_ray14.py", __doc__))
