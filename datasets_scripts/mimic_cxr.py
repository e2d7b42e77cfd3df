"""MIMIC-CXR-JPG (377,110 radiographs of 227,835 studies), as PhysioNet releases it, to rows of this project's schema.

    from litegpt.datasets_scripts.rows import load_rows

    dataset = load_rows("path/to/mimic-cxr-jpg", split="test", num_proc=8)
    dataset[0]["report_findings"]        # "The lungs are clear. ..."

or, once for all programs: `litegpt prepare mimic-cxr --data_dir path/to/mimic-cxr-jpg --output_dir prepared/mimic`.

The layout, of 2.0.0 and 2.1.0 (https://physionet.org/content/mimic-cxr-jpg/; Johnson et al., arXiv 1901.07042); tables
may be unpacked (.csv):

    mimic-cxr-2.0.0-metadata.csv.gz     dicom_id, subject_id, study_id, ViewPosition, ...
    mimic-cxr-2.0.0-split.csv.gz        dicom_id, study_id, subject_id, split: train, validate, test
    mimic-cxr-2.0.0-chexpert.csv.gz     subject_id, study_id, a column a label: 1.0, 0.0, -1.0 (uncertain), empty
    files/p10/p10000001/s50000001/DICOM_ID.jpg       or resized copies of them, also .png
    files/p10/p10000001/s50000001.txt   the study's report, of MIMIC-CXR's mimic-cxr-reports.zip, unpacked here or in
                                        mimic-cxr-reports/

A row is an image, with its study's report and labels. Nobody drew boxes: `findings` is empty. `mentioned` is what the
program CheXpert read in the report, with its state; `diagnoses` are those of it that are positive, of which "No
finding" stands alone (a report of a pacemaker in a normal chest mentions both). The split validate is "validation".
Reports are split into sections as `report_texts.sections_of` says; what de-identification masked stays `___`.

Reports are of people and under PhysioNet's credentialed licence: they never leave the computer. `litegpt push` refuses
prepared rows that hold them, for private repositories too.
"""

import os
import re
from collections.abc import Iterable

from tqdm.auto import tqdm

from litegpt.common.addresses import absolute, entries_of, is_file, is_folder, open_text
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import STATES, ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.report_texts import sections_of
from litegpt.datasets_scripts.tables import EMPTY_CELLS, read_csv
from litegpt.processing.answers import NO_FINDING

FINDING_LABELS: tuple[str, ...] = ()
# {column of the table: label}; the labels are spelled as the columns, but for No Finding.
LABELS_OF_COLUMNS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Enlarged Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Fracture": "Fracture",
    "Lung Lesion": "Lung Lesion",
    "Lung Opacity": "Lung Opacity",
    "Pleural Effusion": "Pleural Effusion",
    "Pleural Other": "Pleural Other",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Support Devices": "Support Devices",
    "No Finding": NO_FINDING,
}
DIAGNOSIS_LABELS: tuple[str, ...] = tuple(LABELS_OF_COLUMNS.values())
STATES_OF_CELLS = {"1.0": "positive", "1": "positive", "0.0": "negative", "0": "negative"}
STATES_OF_CELLS |= {"-1.0": "uncertain", "-1": "uncertain"}

TABLES = ("metadata", "split", "chexpert")
TABLE = r"mimic-cxr-\d+\.\d+\.\d+-{}\.csv(\.gz)?"
LAYOUT = "mimic-cxr-2.0.0-metadata.csv.gz (MIMIC-CXR-JPG)"
METADATA_COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition")
SPLITS = {"train": "train", "validate": "validation", "test": "test"}
REPORT_FOLDERS = ("", "mimic-cxr-reports")
IMAGE_SUFFIXES = (".jpg", ".png")
REPORT_COLUMNS = ("report_findings", "report_impression")

CITATION = """\
@article{johnson2019mimiccxrjpg,
  title={MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs},
  author={Johnson, Alistair E. W. and Pollard, Tom J. and Greenbaum, Nathaniel R. and Lungren, Matthew P. and Deng,
          Chih-ying and Peng, Yifan and Lu, Zhiyong and Mark, Roger G. and Berkowitz, Seth J. and Horng, Steven},
  journal={arXiv preprint arXiv:1901.07042},
  year={2019}
}"""
FACTS = DataSetFacts(
    name="mimic_cxr",
    pretty_name="MIMIC-CXR-JPG",
    homepage="https://physionet.org/content/mimic-cxr-jpg/",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    licence_link="https://physionet.org/content/mimic-cxr-jpg/view-license/2.1.0/",
    personal_information=(
        "The radiographs and reports are of patients of one hospital. Their publisher removed what identifies them "
        "(`___` in texts) and moved the dates; health data they remain, for people who are credentialed at PhysioNet."
    ),
    citation=CITATION,
)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has the table of metadata."""
    return table_path(data_dir, "metadata") is not None


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def table_path(data_dir: str, table: str) -> str | None:
    """Path of the table metadata, split or chexpert; of several versions the newest, unpacked before packed.

    None where there is none.
    """
    names = [name for name in entries_of(data_dir)[1] if re.fullmatch(TABLE.format(table), name)]
    return os.path.join(data_dir, max(names, key=lambda name: name.removesuffix(".gz"))) if names else None


def read_splits(path: str) -> dict[str, str]:
    """{dicom_id: split}.

    Raises:
        ValueError: as `read_csv`, or a split is not one of the release's.
    """
    split_of = {}
    for where, row in read_csv(path, ("dicom_id", "split")):
        if row["split"] not in SPLITS:
            raise ValueError(f"{where}: the split is {row['split']!r}, not one of {', '.join(SPLITS)}.")
        split_of[row["dicom_id"]] = SPLITS[row["split"]]
    return split_of


def read_labels(path: str) -> dict[str, dict[str, str]]:
    """{study_id: {label: state}} of what the studies' reports mention.

    Raises:
        ValueError: as `read_csv`; a cell is not 1.0, 0.0, -1.0 or empty, or a study stands twice.
    """
    labels_of: dict[str, dict[str, str]] = {}
    for where, row in read_csv(path, ("study_id", *LABELS_OF_COLUMNS)):
        states = {}
        for column, label in LABELS_OF_COLUMNS.items():
            cell = row[column]
            if cell in STATES_OF_CELLS:
                states[label] = STATES_OF_CELLS[cell]
            elif _known(cell):
                raise ValueError(f"{where}: {column} is {cell!r}, not 1.0, 0.0, -1.0 or empty.")
        if row["study_id"] in labels_of:
            raise ValueError(f"{where}: study {row['study_id']} is in the table twice.")
        labels_of[row["study_id"]] = states
    return labels_of


def _known(cell: str) -> str:
    """A cell's text; "" where a program wrote that there is none, such as NaN."""
    return "" if cell.casefold() in (*EMPTY_CELLS, "nan") else cell


def read_reports(data_dir: str, studies: Iterable[tuple[str, str]]) -> tuple[dict[str, dict[str, str]], set[str]]:
    """{study_id: the report's columns} of studies whose report has text, and those that have no report at all.

    Each report is read once, one at a time.

    Args:
        studies: (study_id, its folder, such as files/p10/p10000001/s50000001).

    Raises:
        ValueError: a report is no text; it names the file.
    """
    texts: dict[str, dict[str, str]] = {}
    missing: set[str] = set()
    for study_id, folder in tqdm(studies, unit="report", desc="Reports", disable=None):
        paths = [os.path.join(data_dir, above, f"{folder}.txt") for above in REPORT_FOLDERS]
        path = next(filter(is_file, paths), None)
        if path is None:
            missing.add(study_id)
            continue
        try:
            with open_text(path) as file:
                sections = sections_of(file.read())
        except UnicodeError as error:
            raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from None
        if any(sections):
            texts[study_id] = dict(zip(REPORT_COLUMNS, sections, strict=True))
    return texts, missing


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the tables and the reports, and looks whether the radiographs are there.

    `counts`, for each split: images; images_no_finding, images_unknown (no label is positive); images_not_in_table (of
    the split's list, left out); images_without_labels (their study is not in the table of labels); reports (studies);
    reports_missing; reports_without_text (neither findings nor impression). For the split "none": images that the list
    of splits does not name, which are left out. Rows have no report columns where no study of the release has text.

    Raises:
        FileNotFoundError: a table or all radiographs are missing.
        ValueError: a table or a report cannot be read, or an image or study stands twice; it names file and line.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a MIMIC-CXR-JPG release.")
    tables = {table: table_path(data_dir, table) for table in TABLES}
    for table, path in tables.items():
        if path is None:
            raise FileNotFoundError(f"{data_dir} has no mimic-cxr-2.0.0-{table}.csv.gz (or .csv).")
    split_of = read_splits(tables["split"])
    labels_of = read_labels(tables["chexpert"])

    splits = [split for split in SPLITS.values() if split in split_of.values()]
    rules = ("images", "images_no_finding", "images_unknown", "images_not_in_table", "images_without_labels")
    rules += ("reports", "reports_missing", "reports_without_text")
    counts = {split: dict.fromkeys(rules, 0) for split in splits}
    counts["none"] = {"images": 0}
    lines: dict[str, tuple[str, str, str, str]] = {}  # dicom_id: subject_id, study_id, view, split
    study_folders: dict[str, str] = {}
    split_of_study: dict[str, str] = {}
    for where, row in read_csv(tables["metadata"], METADATA_COLUMNS):
        image_id, subject, study = row["dicom_id"], row["subject_id"], row["study_id"]
        if image_id in lines:
            raise ValueError(f"{where}: image {image_id} is in the table twice.")
        split = split_of.get(image_id, "none")
        lines[image_id] = (subject, study, _known(row["ViewPosition"]), split)
        counts[split]["images"] += 1
        if split != "none":
            study_folders[study] = f"files/p{subject[:2]}/p{subject}/s{study}"
            split_of_study[study] = split
    for image_id in split_of.keys() - lines.keys():
        counts[split_of[image_id]]["images_not_in_table"] += 1

    texts, missing = read_reports(data_dir, study_folders.items())
    for study, split in split_of_study.items():
        counts[split]["reports"] += 1
        counts[split]["reports_missing"] += study in missing
        counts[split]["reports_without_text"] += study not in missing and study not in texts

    annotations: dict[str, list[ImageAnnotation]] = {split: [] for split in splits}
    images: dict[str, dict[str, str]] = {split: {} for split in splits}
    without_text = dict.fromkeys(REPORT_COLUMNS)
    # The few pairs that there are, made once: a million equal dictionaries would fill the memory.
    pairs = {(label, state): {"label": label, "state": state} for label in DIAGNOSIS_LABELS for state in STATES}
    for image_id, (subject, study, view, split) in lines.items():
        if split == "none":
            continue
        states = labels_of.get(study, {})
        diagnoses = [label for label, state in states.items() if state == "positive"]
        if len(diagnoses) > 1:
            diagnoses = [label for label in diagnoses if label != NO_FINDING]
        counts[split]["images_no_finding"] += NO_FINDING in diagnoses
        counts[split]["images_unknown"] += not diagnoses
        counts[split]["images_without_labels"] += study not in labels_of
        mentioned = [pairs[pair] for pair in states.items()]
        annotations[split].append(
            ImageAnnotation(
                image_id,
                findings=(),
                diagnoses=tuple(diagnoses),
                patient_id=subject,
                view=view,
                optional={"study_id": study, "mentioned": mentioned, **texts.get(study, without_text)},
            )
        )
        stem = os.path.join(data_dir, study_folders[study], image_id)
        path = next(filter(is_file, (stem + suffix for suffix in IMAGE_SUFFIXES)), None)
        if path is not None:
            images[split][image_id] = path
    if not any(images.values()):
        raise FileNotFoundError(
            f"{data_dir} has none of the radiographs that its tables name, "
            "such as files/p10/p10000001/s50000001/DICOM_ID.jpg."
        )
    return Release(
        facts=FACTS,
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=images,
        counts=counts,
        columns=("study_id", "patient_id", *(REPORT_COLUMNS if texts else ()), "mentioned"),
    )


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "mimic_cxr.py", __doc__))
