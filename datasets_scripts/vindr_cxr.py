"""VinDr-CXR, as PhysioNet or Kaggle release it, to rows of this project's schema.

    litegpt prepare vindr-cxr --data_dir path/to/vindr-cxr --output_dir prepared --num_proc 8

writes a folder that `datasets.load_dataset("prepared")` reads; the same command continues where it was interrupted. Or

    from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr

    dataset = load_vindr_cxr("path/to/vindr-cxr", split="train", num_proc=8)
    dataset[0]["findings"]  # [{"label": 3, "box": [0.38, 0.52, 0.81, 0.74], "readers": 2}, ...]

PhysioNet's layout (https://physionet.org/content/vindr-cxr/1.0.0/):

    train/IMAGE_ID.dicom  test/IMAGE_ID.dicom
    annotations/annotations_{train,test}.csv    image_id, rad_id (train), class_name, x_min, y_min, x_max, y_max
    annotations/image_labels_{train,test}.csv   image_id, rad_id (train), then one column of 0/1 a label

Kaggle's layout: `train/IMAGE_ID.dicom` and one `train.csv` (image_id, class_name, class_id, rad_id, x_min, ...). It
names no diagnoses, so there a row's `diagnoses` is `["No finding"]` or empty.

The images may be .dicom, .dcm, .png, .jpg or .jpeg. What a row says about "nothing there":

    findings, diagnoses without "No finding"   boxes were drawn
    no findings, diagnoses ["No finding"]      a negative: the merged readers said so
    no findings, any other diagnoses           unknown to a localiser: a label without a box, or nothing was said

Rows have the columns `sex` and `age`: the publisher's de-identification leaves Patient's Sex and Patient's Age in the
DICOM files (github.com/vinbigdata-medical/vindr-cxr, de-identification/tags.csv), where many have no value. Of PNG and
JPEG copies both are unknown.
"""

import os
from dataclasses import replace
from typing import Any

import datasets

from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import Finding, ImageAnnotation, Reading
from litegpt.datasets_scripts.arguments import VinDrCXRArguments
from litegpt.datasets_scripts.preparation.merge_readers import check_merge, merge_diagnoses, merge_readers
from litegpt.datasets_scripts.preparation.prepare import load_release, prepare
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.tables import box_numbers, flag, header, read_csv
from litegpt.processing.answers import NO_FINDING

FINDING_LABELS: tuple[str, ...] = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
)
# In the order in which the paper's release lists them in an answer; the CSVs' columns stand in another one.
DIAGNOSIS_LABELS: tuple[str, ...] = ("Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "COPD", NO_FINDING)
LABEL_COLUMNS = (*FINDING_LABELS, "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease", NO_FINDING)
SPELLINGS = {"Other disease": "Other diseases"}  # PhysioNet's test file writes the singular

LAYOUT = "annotations/annotations_train.csv, or train.csv with a column class_name (VinDr-CXR)"
SPLITS = ("train", "test")
KAGGLE_TABLE = "train.csv"
IMAGE_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")

CITATION = """@article{nguyen2022vindr,
  title = {{VinDr-CXR}: An open dataset of chest {X}-rays with radiologist's annotations},
  author = {Nguyen, Ha Q. and Lam, Khanh and Le, Linh T. and others},
  journal = {Scientific Data},
  volume = {9},
  pages = {429},
  year = {2022},
  doi = {10.1038/s41597-022-01498-w}
}"""
FACTS = DataSetFacts(
    name="vindr_cxr",
    pretty_name="VinDr-CXR",
    homepage="https://physionet.org/content/vindr-cxr/1.0.0/",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    licence_link="https://physionet.org/content/vindr-cxr/view-license/1.0.0/",
    personal_information=(
        "The radiographs are of patients of two hospitals in Hanoi; their publisher removed what identifies them, and "
        "left their sex and age. Whoever got them from PhysioNet has signed not to pass them on and not to look for "
        "the people."
    ),
    citation=CITATION,
)
PHANTOM_FACTS = replace(
    FACTS,
    pretty_name="Phantoms in VinDr-CXR's layout",
    licence="Apache License 2.0",
    licence_link="https://www.apache.org/licenses/LICENSE-2.0",
    personal_information=(
        "The radiographs are drawn by a program (`phantom_cxr.py`): they are of nobody, and sex and age are drawn too."
    ),
    citation="",
)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release, in PhysioNet's layout or Kaggle's; whose train.csv is told by its header."""
    tables = [path for split in SPLITS for path in _physionet_tables(data_dir, split)]
    return any(map(os.path.isfile, tables)) or "class_name" in header(os.path.join(data_dir, KAGGLE_TABLE))


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release; of one that `phantom_cxr.py` drew, that it shows nobody."""
    return PHANTOM_FACTS if os.path.isfile(os.path.join(data_dir, "phantom.json")) else FACTS


def _physionet_tables(data_dir: str, split: str) -> tuple[str, str]:
    folder = os.path.join(data_dir, "annotations")
    return os.path.join(folder, f"annotations_{split}.csv"), os.path.join(folder, f"image_labels_{split}.csv")


def annotation_files(data_dir: str, split: str) -> tuple[str, str | None]:
    """Paths of the boxes' CSV and the image labels' CSV; the second is None in Kaggle's layout."""
    kaggle = os.path.join(data_dir, KAGGLE_TABLE)
    if split == "train" and os.path.isfile(kaggle) and not os.path.isdir(os.path.join(data_dir, "annotations")):
        return kaggle, None
    return _physionet_tables(data_dir, split)


def available_splits(data_dir: str) -> list[str]:
    """The splits that a release folder has annotations for.

    Raises:
        FileNotFoundError: the folder or the annotations are missing.
    """
    if not os.path.isdir(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a VinDr-CXR release.")
    splits = []
    for split in SPLITS:
        if any(path and os.path.isfile(path) for path in annotation_files(data_dir, split)):
            splits.append(split)
    if not splits:
        raise FileNotFoundError(
            f"{data_dir} has neither annotations/annotations_train.csv (PhysioNet's layout) nor train.csv (Kaggle's)."
        )
    return splits


def read_annotations(data_dir: str, split: str, merge: str = "paper") -> tuple[list[ImageAnnotation], dict[str, int]]:
    """Reads a split's CSV files and merges its readers. Reads no image.

    A label counts whether it stands in the image labels or beside a box, so an image whose readers name a finding
    without drawing it is never "No finding". The test split is a consensus: there `merge` is always "paper", so that
    the truth does not depend on how one trains, and an image with "No finding" beside other labels loses the former
    instead of being dropped.

    Args:
        data_dir: folder of a release, in PhysioNet's or Kaggle's layout.
        split: "train" or "test".
        merge: one of `merge_readers.MERGES`.

    Returns:
        The annotations, in the order in which images first appear in the CSV files, and their counts:
        images, images_in_conflict (said by some reader to have no finding and to have one), images_dropped (for that),
        images_with_boxes, images_no_finding, images_unknown (neither), boxes_without_area (skipped), boxes (pooled, of
        the images not dropped), boxes_kept.

    Raises:
        FileNotFoundError: a CSV is missing.
        ValueError: a column is missing, a label or `merge` is unknown, or a cell cannot be read; it names the file
            and the line.
    """
    check_merge(merge)
    boxes_path, labels_path = annotation_files(data_dir, split)
    id_columns = ("image_id", "rad_id") if split == "train" else ("image_id",)
    all_labels = (*FINDING_LABELS, *DIAGNOSIS_LABELS)
    # Labels by image and reader, and the boxes of each image as (reader, finding) in the CSV's order.
    labels: dict[str, dict[str, set[str]]] = {}
    boxes: dict[str, list[tuple[str, Finding]]] = {}
    image_counts = ("images", "images_in_conflict", "images_dropped")
    image_counts += ("images_with_boxes", "images_no_finding", "images_unknown")
    counts = dict.fromkeys((*image_counts, "boxes_without_area", "boxes", "boxes_kept"), 0)

    if labels_path is not None:
        for where, row in read_csv(labels_path, (*id_columns, *all_labels), SPELLINGS, whole_lines=True):
            stated = labels.setdefault(row["image_id"], {}).setdefault(_reader_of(row, split), set())
            stated.update(label for label in all_labels if flag(row[label], where))

    for where, row in read_csv(boxes_path, (*id_columns, "class_name", *BOX_COLUMNS), whole_lines=True):
        label = SPELLINGS.get(row["class_name"], row["class_name"])
        if label not in all_labels:
            raise ValueError(f"{where}: unknown label {label!r}.")
        reader = _reader_of(row, split)
        labels.setdefault(row["image_id"], {}).setdefault(reader, set()).add(label)
        box = box_numbers(row, BOX_COLUMNS, where)
        if box is None:
            continue
        if label not in FINDING_LABELS:
            raise ValueError(f"{where}: {label!r} is no local label and cannot have a box.")
        if box[2] > box[0] and box[3] > box[1]:
            boxes.setdefault(row["image_id"], []).append((reader, Finding(label, box)))
        else:
            counts["boxes_without_area"] += 1

    annotations = []
    for image_id, labels_of_readers in labels.items():
        annotation = _merge_image(image_id, labels_of_readers, boxes.get(image_id, []), split, merge)
        counts["images"] += 1
        everything = set().union(*labels_of_readers.values())
        counts["images_in_conflict"] += NO_FINDING in everything and len(everything) > 1
        if annotation is None:
            counts["images_dropped"] += 1
            continue
        counts["boxes"] += len(boxes.get(image_id, []))
        counts["boxes_kept"] += len(annotation.findings)
        if annotation.findings:
            counts["images_with_boxes"] += 1
        elif NO_FINDING in annotation.diagnoses:
            counts["images_no_finding"] += 1
        else:
            counts["images_unknown"] += 1
        annotations.append(annotation)
    return annotations, counts


def _reader_of(row: dict[str, str], split: str) -> str:
    return row["rad_id"] if split == "train" else ""


def _merge_image(
    image_id: str,
    labels_of_readers: dict[str, set[str]],
    boxes: list[tuple[str, Finding]],
    split: str,
    merge: str,
) -> ImageAnnotation | None:
    """One image's annotation; None where it is dropped."""
    merge = merge if split == "train" else "paper"
    labels = merge_diagnoses(list(labels_of_readers.values()), merge, NO_FINDING)
    if labels is None:
        if split == "train":
            return None
        labels = set().union(*labels_of_readers.values()) - {NO_FINDING}
    readings = tuple(
        Reading(
            rad_id,
            tuple(finding for reader, finding in boxes if reader == rad_id),
            tuple(label for label in DIAGNOSIS_LABELS if label in stated),
        )
        for rad_id, stated in labels_of_readers.items()
    )
    # The readers' rows may alternate: a reading for each box keeps the CSV's order, the others only count as readers.
    in_csv_order = [Reading(reader, (finding,), ()) for reader, finding in boxes]
    findings = merge_readers([*in_csv_order, *(Reading(rad_id, (), ()) for rad_id in labels_of_readers)], merge)
    diagnoses = tuple(label for label in DIAGNOSIS_LABELS if label in labels)
    return ImageAnnotation(image_id, findings, diagnoses, readings)


def find_images(data_dir: str, split: str) -> dict[str, str]:
    """{image_id: path} of a split's folder; of several files of one image, the first in `IMAGE_SUFFIXES`' order."""
    folder = os.path.join(data_dir, split)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} is missing: the {split} radiographs belong there.")
    paths: dict[tuple[str, str], str] = {}
    for name in os.listdir(folder):
        stem, suffix = os.path.splitext(name)
        paths[stem, suffix.lower()] = os.path.join(folder, name)
    images: dict[str, str] = {}
    for wanted in IMAGE_SUFFIXES:
        for (stem, suffix), path in paths.items():
            if suffix == wanted:
                images.setdefault(stem, path)
    return images


def read_release(data_dir: str | os.PathLike, merge: str = "paper") -> Release:
    """Reads the tables of a release and finds its radiographs.

    Args:
        data_dir: folder of a release, in PhysioNet's or Kaggle's layout.
        merge: how train's readers are merged: one of `merge_readers.MERGES`.

    Raises:
        FileNotFoundError, ValueError: the folder or its tables cannot be used; see `read_annotations`.
    """
    data_dir = os.path.abspath(data_dir)
    annotations, images, counts = {}, {}, {}
    for split in available_splits(data_dir):
        annotations[split], counts[split] = read_annotations(data_dir, split, merge)
        images[split] = find_images(data_dir, split)
        if not any(annotation.image_id in images[split] for annotation in annotations[split]):
            folder = os.path.join(data_dir, split)
            raise FileNotFoundError(f"{folder} holds none of the radiographs that the annotations name.")
    return Release(
        facts=facts(data_dir),
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=images,
        counts=counts,
        columns=("sex", "age"),
        merge=merge,
    )


def load_vindr_cxr(
    data_dir: str | os.PathLike,
    split: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
    streaming: bool = False,
    merge: str = "paper",
    **options: Any,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """A release's rows, prepared in the cache unless neither the release nor the options changed.

    Args:
        data_dir, merge: see `read_release`.
        split, cache_dir, num_proc, streaming: see `preparation.prepare.load_release`.
        **options: fields of `PreparationOptions`.

    Returns:
        Rows of `annotations.row_features`; a dictionary of splits where `split` is None.

    Raises:
        FileNotFoundError, ValueError: the folder or its tables cannot be used, or an option has no such value.
        RadiographError: a radiograph failed and `on_error` is "raise".
    """
    release = read_release(data_dir, merge)
    return load_release(release, split, cache_dir, num_proc, streaming, PreparationOptions(**options))


@program
def main(arguments: VinDrCXRArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        prepare(read_release(arguments.data_dir, arguments.merge), arguments.output_dir, options, arguments.num_proc)


if __name__ == "__main__":
    main(*parse([VinDrCXRArguments, PreparationOptions], None, "vindr_cxr.py", __doc__))
