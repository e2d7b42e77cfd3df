"""CheXpert (Stanford; 224,316 radiographs of 65,240 patients) and CheXpert Plus, as published, to this project's rows.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/CheXpert-v1.0-small", split="train", num_proc=8)
    rows[0]["mentioned"]    # [{"label": 3, "state": 0}, {"label": 10, "state": 2}]: opacity; an effusion, perhaps

or, once for all programs, a folder that `datasets.load_dataset` reads:

    litegpt prepare chexpert --data_dir path/to/CheXpert-v1.0-small --output_dir prepared/chexpert --num_proc 8

The layout (https://stanfordmlgroup.github.io/competitions/chexpert/; Irvin et al., AAAI 2019, arXiv 1901.07031), full
size or small, and of CheXpert Plus (https://aimi.stanford.edu/datasets/chexpert-plus; arXiv 2405.19538):

    train/patient00001/study1/view1_frontal.jpg    in any folder: the part from patientNNNNN on is an image's name
    train.csv, valid.csv                           Path, Sex, Age, Frontal/Lateral, AP/PA, then 14 labels
    PNG/train/patient00001/study1/view1_frontal.png
    df_chexpert_plus_240401.csv                    path_to_image (.jpg), section_findings, section_impression, ...
    chexbert_labels/impression_fixed.json          a JSON object a line: path_to_image and the 14 labels
    chexpert_5x200.csv                             Path: CheXpert5x200, a file of your own (GLoRIA's)

`train.csv` is the split train, `valid.csv` validation. The reports of CheXpert Plus' table are joined to the images of
the two CSVs by name; where there are no CSVs, its table takes their place, with the labels of `impression_fixed.json`
or, without that, `report_fixed.json`. The images of `chexpert_5x200.csv` become the split `test5x200`; all others of
their patients are left out and counted (images_excluded). Without the file there is no such split;
`five_by_two_hundred` draws one by the published rule.

The labels were mined from the reports by a program. `mentioned` has all that it says: 1.0 positive, 0.0 negative, -1.0
uncertain; of an empty cell nothing is known. `diagnoses` are the positive ones; "No finding" is among them where it
stands alone, and not beside a tube or a pacemaker ("Support Devices"). There are no boxes.
"""

import csv
import json
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from litegpt.common.addresses import absolute, is_file, is_folder, open_text
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.image_files import file_counts, find_files, image_id_of, match, paths_by_split
from litegpt.datasets_scripts.preparation.demographics import age_in_years, known_sex
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.tables import EMPTY_CELLS, has_columns, read_csv
from litegpt.metrics.report_labels import CHEXPERT_LABELS, FIVE_LABELS
from litegpt.processing.answers import NO_FINDING

LABEL_COLUMNS = CHEXPERT_LABELS
DIAGNOSIS_LABELS: tuple[str, ...] = (*LABEL_COLUMNS[:-1], NO_FINDING)  # the last is "No Finding" in the tables
SEXES = {"Female": "F", "Male": "M"}
STATES_OF_CELLS = {"1.0": "positive", "0.0": "negative", "-1.0": "uncertain", "": "", "nan": ""}
STATES_OF_CELLS |= {cell.removesuffix(".0"): state for cell, state in STATES_OF_CELLS.items()}

TABLES = {"train": "train.csv", "validation": "valid.csv"}
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
PLUS_TABLE = "df_chexpert_plus_240401.csv"
PLUS_COLUMNS = ("path_to_image", "section_findings", "section_impression")
PLUS_FACTS = ("sex", "age", "frontal_lateral", "ap_pa", "split")  # needed where the table stands alone
PLUS_LABELS = ("chexbert_labels/impression_fixed.json", "chexbert_labels/report_fixed.json")
PLUS_SPLITS = {"train": "train", "valid": "validation"}
TEST_TABLE, TEST_SPLIT = "chexpert_5x200.csv", "test5x200"
LAYOUT = f"train.csv or valid.csv with a column Frontal/Lateral, or {PLUS_TABLE} (CheXpert)"
IMAGE_NAME = re.compile(r"(patient\d+)[/\\_](study\d+)[/\\_]([^/\\]+)")

CITATION = """\
@inproceedings{irvin2019chexpert,
  title={CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison},
  author={Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and Yu, Yifan and others},
  booktitle={AAAI Conference on Artificial Intelligence},
  volume={33},
  pages={590--597},
  year={2019}
}"""
PLUS_CITATION = """\
@article{chambon2024chexpertplus,
  title={CheXpert Plus: Augmenting a Large Chest X-ray Dataset with Text Radiology Reports, Patient Demographics and
         Additional Image Formats},
  author={Chambon, Pierre and Delbrouck, Jean-Benoit and Sounack, Thomas and others},
  journal={arXiv preprint arXiv:2405.19538},
  year={2024}
}"""
LICENCE = "Stanford University Dataset Research Use Agreement"
PERSONAL_INFORMATION = (
    "The radiographs are of patients of Stanford Hospital; their publisher removed what identifies them, and left "
    "their sex and age. Whoever got them has agreed not to pass them on and not to look for the people."
)
FACTS = DataSetFacts(
    name="chexpert",
    pretty_name="CheXpert",
    homepage="https://stanfordmlgroup.github.io/competitions/chexpert/",
    licence=LICENCE,
    licence_link="https://stanfordmlgroup.github.io/competitions/chexpert/",
    personal_information=PERSONAL_INFORMATION,
    citation=CITATION,
)
FACTS_WITH_REPORTS = DataSetFacts(
    name="chexpert_plus",
    pretty_name="CheXpert Plus",
    homepage="https://aimi.stanford.edu/datasets/chexpert-plus",
    licence=LICENCE,
    licence_link="https://aimi.stanford.edu/datasets/chexpert-plus",
    personal_information=PERSONAL_INFORMATION,
    citation=f"{CITATION}\n{PLUS_CITATION}",
)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release; train.csv, which other data sets have too, is told by its header."""
    tables = (os.path.join(data_dir, name) for name in TABLES.values())
    return _has_reports(data_dir) or any(has_columns(path, ["Path", "Frontal/Lateral"]) for path in tables)


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: CheXpert Plus where its table with the reports is there."""
    return FACTS_WITH_REPORTS if _has_reports(data_dir) else FACTS


def _has_reports(data_dir: str) -> bool:
    return is_file(os.path.join(data_dir, PLUS_TABLE))


def image_id_of_path(path: str) -> str:
    """CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg -> patient00001_study1_view1_frontal.

    The part before the patient and the suffix differ between copies; a name without a patient stays as it is.
    """
    found = IMAGE_NAME.search(path)
    return "_".join((*found.groups()[:2], image_id_of(found[3]))) if found else image_id_of(path)


def _named_image(cell: str, where: str) -> str:
    if IMAGE_NAME.search(cell) is None:
        raise ValueError(f"{where}: {cell!r} names no image: it has no patientNNNNN/studyN/ in it.")
    return image_id_of_path(cell)


@cache
def _labels_of(cells: tuple[str, ...]) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """`mentioned` and `diagnoses` of a line's 14 cells; images of the same cells share them, to spare memory.

    Raises:
        KeyError: a cell is none of `STATES_OF_CELLS`.
    """
    states = [STATES_OF_CELLS[cell.casefold()] for cell in cells]
    mentioned = [
        {"label": label, "state": state} for label, state in zip(DIAGNOSIS_LABELS, states, strict=True) if state
    ]
    positive = tuple(item["label"] for item in mentioned if item["state"] == "positive")
    return mentioned, positive[:-1] if positive[-1:] == (NO_FINDING,) and len(positive) > 1 else positive


def _labels_in(row: Mapping[str, Any], where: str) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    # JSON has numbers and null where the tables have text.
    cells = tuple("" if row.get(column) is None else str(row[column]) for column in LABEL_COLUMNS)
    try:
        return _labels_of(cells)
    except KeyError as error:
        raise ValueError(f"{where}: a label is {error.args[0]!r}, not 1.0, 0.0, -1.0 or empty.") from None


def _annotation(
    image_id: str, frontal: str, ap_pa: str, sex: str, age: str, labels: tuple[list[dict[str, str]], tuple[str, ...]]
) -> ImageAnnotation:
    patient, study, _ = image_id.split("_", 2)
    mentioned, diagnoses = labels
    view = "Lateral" if frontal == "Lateral" else ap_pa
    person = {"sex": known_sex(SEXES.get(sex, sex)), "age": age_in_years(age.removesuffix(".0"))}
    optional = {"study_id": f"{patient}/{study}", **person, "mentioned": mentioned}
    return ImageAnnotation(
        image_id, (), diagnoses, (), patient, view if view in ("AP", "PA", "Lateral") else "", optional
    )


def read_table(path: str) -> Iterator[tuple[str, ImageAnnotation]]:
    """("PATH, line N", annotation) of train.csv or valid.csv.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; a path names no image, or a label has another value.
    """
    for where, row in read_csv(path, (*COLUMNS, *LABEL_COLUMNS)):
        image_id, labels = _named_image(row["Path"], where), _labels_in(row, where)
        yield where, _annotation(image_id, row["Frontal/Lateral"], row["AP/PA"], row["Sex"], row["Age"], labels)


def read_plus_table(path: str, columns: Sequence[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """("PATH, line N", image_id, row) of CheXpert Plus' table, line by line: it has hundreds of megabytes.

    Raises:
        ValueError: a column is missing, a line ends early or names no image, or the file is no CSV text in UTF-8.
    """
    with open_text(path, "utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} has no column {', '.join(missing)}.")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                short = [column for column in columns if row[column] is None]
                if short:
                    raise ValueError(f"{where}: the line ends before {short[0]}.")
                yield where, _named_image(row["path_to_image"], where), {key: row[key].strip() for key in columns}
        except (UnicodeError, csv.Error) as error:
            raise ValueError(f"{path} is not a CSV file in UTF-8: {error}.") from error


def read_reports(path: str) -> dict[str, dict[str, str | None]]:
    """{image_id: {"report_findings", "report_impression"}} of CheXpert Plus' table; None for a section that is empty.

    Raises:
        ValueError: as `read_plus_table`, or an image stands twice.
    """
    reports: dict[str, dict[str, str | None]] = {}
    for where, image_id, row in read_plus_table(path, PLUS_COLUMNS):
        if image_id in reports:
            raise ValueError(f"{where}: image {image_id} is in the table twice.")
        reports[image_id] = {
            f"report_{section}": _section(row[f"section_{section}"]) for section in ("findings", "impression")
        }
    return reports


def _section(cell: str) -> str | None:
    return None if cell.casefold() in (*EMPTY_CELLS, "nan") else " ".join(cell.split())


def read_plus_labels(path: str) -> dict[str, tuple[list[dict[str, str]], tuple[str, ...]]]:
    """{image_id: (mentioned, diagnoses)} of a file of `chexbert_labels/`.

    Raises:
        ValueError: a line is no JSON object with a path, or a label has another value.
    """
    labels = {}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                cell = row["path_to_image"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{where}: it is no JSON object with a path_to_image.") from None
            labels[_named_image(str(cell), where)] = _labels_in(row, where)
    return labels


def _images_of_plus(data_dir: str) -> Iterator[tuple[str, str, ImageAnnotation]]:
    """(split, "PATH, line N", annotation) of CheXpert Plus' table where it stands alone."""
    paths = (os.path.join(data_dir, name) for name in PLUS_LABELS)
    path = next(filter(is_file, paths), None)
    labels = read_plus_labels(path) if path else {}
    for where, image_id, row in read_plus_table(os.path.join(data_dir, PLUS_TABLE), (*PLUS_COLUMNS, *PLUS_FACTS)):
        if row["split"] not in PLUS_SPLITS:
            raise ValueError(f"{where}: the split is {row['split']!r}, not train or valid.")
        told = labels.get(image_id, ([], ()))
        annotation = _annotation(image_id, row["frontal_lateral"], row["ap_pa"], row["sex"], row["age"], told)
        yield PLUS_SPLITS[row["split"]], where, annotation


def _images_of(data_dir: str) -> Iterator[tuple[str, str, ImageAnnotation]]:
    paths = {split: os.path.join(data_dir, name) for split, name in TABLES.items()}
    paths = {split: path for split, path in paths.items() if is_file(path)}
    if not paths:
        yield from _images_of_plus(data_dir)
    for split, path in paths.items():
        for where, annotation in read_table(path):
            yield split, where, annotation


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the tables and the names of the images.

    `counts`, for each split: images; images_no_finding ("No Finding" is positive); images_without_mentions (of which
    nothing is said); images_without_report, where there are reports; and of train and validation images_excluded: left
    out, since CheXpert5x200 has images of the patient. For CheXpert5x200 images_not_in_table. For the split "none":
    reports_not_in_table, of images that the CSVs do not have.

    Raises:
        FileNotFoundError: there is no table, or none of the radiographs.
        ValueError: a table cannot be read or an image stands twice; it names the file and the line.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a CheXpert release.")
    if not recognise(data_dir):
        raise FileNotFoundError(f"{data_dir} has neither {' nor '.join((*TABLES.values(), PLUS_TABLE))} of CheXpert.")
    reports = read_reports(os.path.join(data_dir, PLUS_TABLE)) if _has_reports(data_dir) else None
    test_images = read_test(data_dir)
    test_patients = {image_id.partition("_")[0] for image_id in test_images}

    annotations: dict[str, list[ImageAnnotation]] = {}
    counts: dict[str, dict[str, int]] = {}
    seen: set[str] = set()
    for split, where, image in _images_of(data_dir):
        if image.image_id in seen:
            raise ValueError(f"{where}: image {image.image_id} is in the tables twice.")
        seen.add(image.image_id)
        split = TEST_SPLIT if image.image_id in test_images else split
        rules = counts.setdefault(split, {"images": 0, "images_no_finding": 0, "images_without_mentions": 0})
        rules["images"] += 1
        if split != TEST_SPLIT and image.patient_id in test_patients:
            rules["images_excluded"] = rules.get("images_excluded", 0) + 1
            continue
        mentioned = image.optional["mentioned"]
        rules["images_no_finding"] += {"label": NO_FINDING, "state": "positive"} in mentioned
        rules["images_without_mentions"] += not mentioned
        if reports is not None:
            report = reports.get(image.image_id, {})
            rules["images_without_report"] = rules.get("images_without_report", 0) + (not any(report.values()))
            image = replace(image, optional={**image.optional, **report})
        annotations.setdefault(split, []).append(image)

    if test_images and TEST_SPLIT not in annotations:
        raise ValueError(
            f"{os.path.join(data_dir, TEST_TABLE)} names no image of the tables: {min(test_images)} is not in them."
        )
    if test_images - seen:
        counts[TEST_SPLIT]["images_not_in_table"] = len(test_images - seen)
    files = find_files(data_dir, id_of=image_id_of_path)
    listed = [image.image_id for images in annotations.values() for image in images]
    table = next(name for name in (*TABLES.values(), PLUS_TABLE) if is_file(os.path.join(data_dir, name)))
    paths = match(listed, files, os.path.join(data_dir, table), data_dir)
    counts["none"] = file_counts(files, seen)
    if unused := len(reports.keys() - seen) if reports else 0:
        counts["none"]["reports_not_in_table"] = unused
    annotations = {split: annotations[split] for split in (*TABLES, TEST_SPLIT) if split in annotations}
    return Release(
        facts=facts(data_dir),
        finding_labels=(),
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts=counts,
        columns=(
            *("study_id", "patient_id", "sex", "age"),
            *(("report_findings", "report_impression") if reports is not None else ()),
            "mentioned",
        ),
    )


def read_test(data_dir: str) -> set[str]:
    """image_ids of CheXpert5x200; none where its file is not there.

    Raises:
        ValueError: a line names no image.
    """
    path = os.path.join(data_dir, TEST_TABLE)
    if not is_file(path):
        return set()
    return {_named_image(row["Path"], where) for where, row in read_csv(path, ("Path",))}


def five_by_two_hundred(images: Sequence[ImageAnnotation], number: int = 200, seed: int = 0) -> list[str]:
    """image_ids of frontal images of which one of the five competition labels is positive and nothing else is said.

    So GLoRIA (Huang et al., ICCV 2021) drew CheXpert5x200, without a seed: its file alone gives the published test.

    Args:
        number: of images of each label.

    Raises:
        ValueError: a label has fewer such images.
    """
    chosen = []
    for label in FIVE_LABELS:
        fitting = sorted(
            image.image_id
            for image in images
            if image.view != "Lateral"
            and [item for item in image.optional["mentioned"] if item["state"] != "negative"]
            == [{"label": label, "state": "positive"}]
        )
        if len(fitting) < number:
            raise ValueError(f"{label} stands alone in {len(fitting):,} frontal images, not in {number:,}.")
        chosen += random.Random(seed).sample(fitting, number)
    return chosen


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "chexpert.py", __doc__))
