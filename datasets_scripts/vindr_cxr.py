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

The images may be .dicom, .dcm, .png, .jpg or .jpeg, also in sub-folders, and resized as Kaggle's PNG copies are:
boxes of the original are scaled by the columns `width` and `height` of the table with the boxes, or by train_meta.csv
(image_id, dim0, dim1: rows, columns). How boxes are told to fit is in `picture_boxes.py`.

The layout is also one's own data's. A folder is VinDr-CXR only where all of its image ids look as the release's (MD5
sums: 32 hexadecimal digits) and its readers are called R1 to R17; any other is yours, under the name and the licence
that you give:

    litegpt prepare vindr-cxr --data_dir films --output_dir prepared --name "Our films" --licence "CC BY 4.0"

What a row says about "nothing there":

    findings, diagnoses without "No finding"   boxes were drawn
    no findings, diagnoses ["No finding"]      a negative: the merged readers said so
    no findings, any other diagnoses           unknown to a localiser: a label without a box, or nothing was said

Where the tables state a finding of an image that no box of it shows, rows have the column `image_labels`: what any
reader says of the whole image. In VinDr-CXR itself each finding has one.

Rows have the columns `sex` and `age`: the publisher's de-identification leaves Patient's Sex and Patient's Age in the
DICOM files (github.com/vinbigdata-medical/vindr-cxr, de-identification/tags.csv), where many have no value. Of PNG and
JPEG copies both are unknown.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import datasets

from litegpt.common.addresses import absolute, is_file, is_folder, open_text
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import Box, Finding, ImageAnnotation, Reading
from litegpt.datasets_scripts.arguments import ReadersArguments
from litegpt.datasets_scripts.image_files import Files, ImageIds, file_counts, find_files, image_id_of, match
from litegpt.datasets_scripts.picture_boxes import STRAY_SHARE, boxes_in_pixels
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.merge_readers import check_merge, merge_diagnoses, merge_readers
from litegpt.datasets_scripts.preparation.prepare import load_release
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release, own_facts
from litegpt.datasets_scripts.tables import box_numbers, flag, has_columns, header, plain, read_csv
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
BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
CORNER_SPELLINGS = {
    "xmin": "x_min",
    "ymin": "y_min",
    "xmax": "x_max",
    "ymax": "y_max",
    "x1": "x_min",
    "y1": "y_min",
    "x2": "x_max",
    "y2": "y_max",
}
SIZE_BOX_COLUMNS = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("x_min", "y_min", "width", "height"))
PICTURE_SIZE_COLUMNS = ("width", "height")
META_SPELLINGS = {"dim1": "width", "dim0": "height", "columns": "width", "rows": "height"}
PLACEHOLDER_BOX = (0, 0, 1, 1)  # Kaggle's notebooks give "No finding" this one
LABELS_BY_PLAIN_NAME = {plain(label): label for label in (*FINDING_LABELS, *DIAGNOSIS_LABELS)} | {
    plain(other): label for other, label in SPELLINGS.items()
}

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
SEMI_SYNTHETIC = "semi-synthetic"  # the kind, in phantom.json, of releases whose findings are drawn into radiographs
READERS = frozenset(f"R{number}" for number in range(1, 18))


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release, in PhysioNet's layout or Kaggle's; whose train.csv is told by its header."""
    tables = [path for split in SPLITS for path in _physionet_tables(data_dir, split)]
    return any(map(is_file, tables)) or has_columns(os.path.join(data_dir, KAGGLE_TABLE), ["class_name"])


def facts(data_dir: str, name: str | None = None, licence: str | None = None) -> DataSetFacts:
    """What cards say of a folder in this layout: of VinDr-CXR on proof alone; else it is the user's own data.

    Args:
        data_dir: the folder.
        name: of one's own data; the folder's by default.
        licence: under which one's own data stand; not stated by default.

    Raises:
        ValueError: a name or a licence is given for what is VinDr-CXR or phantoms, or the name VinDr-CXR for other
            data; or a table cannot be read.
    """
    published = None
    if is_file(os.path.join(data_dir, "phantom.json")):
        published = _drawn_facts(data_dir)
    elif is_vindr_cxr(data_dir):
        published = FACTS
    if published is not None:
        if name or licence and published.licence:
            raise ValueError(
                f"{data_dir} holds {published.pretty_name}: its name and licence are known: give no others."
            )
        return replace(published, licence=licence) if licence else published
    if name and _is_the_releases_name(name):
        raise ValueError(
            f"{data_dir} cannot be named {name}: its images do not have VinDr-CXR's ids (32 hexadecimal digits) and "
            "readers (R1 to R17); --name gives it a name of its own."
        )
    if not name:
        name = os.path.basename(absolute(data_dir))
        name += " (own data)" if _is_the_releases_name(name) else ""
    return own_facts(name, licence)


def _drawn_facts(data_dir: str) -> DataSetFacts:
    """Of a release that `phantom_cxr.py` drew; one drawn into real radiographs keeps the licence of these."""
    with open_text(os.path.join(data_dir, "phantom.json")) as file:
        settings = json.load(file)
    if settings.get("kind") != SEMI_SYNTHETIC:
        return PHANTOM_FACTS
    return replace(
        PHANTOM_FACTS,
        name="semi_synthetic",
        pretty_name="Semi-synthetic radiographs in VinDr-CXR's layout",
        homepage="",
        licence=settings["backgrounds_licence"] or "",
        licence_link="",
        personal_information=(
            "The radiographs are of people, health data: a program (`phantom_cxr.py`) drew findings into normal "
            f"radiographs of {', '.join(settings['backgrounds'])}. It took over their pixels and their View Position, "
            "nothing else."
        ),
    )


def _is_the_releases_name(name: str) -> bool:
    return re.sub(r"[^a-z]", "", name.lower()) == "vindrcxr"


def is_vindr_cxr(data_dir: str) -> bool:
    """Whether all images of a folder's tables have ids as VinDr-CXR's (MD5 sums), and all readers names as its."""
    images, readers = set(), set()
    for split in SPLITS:
        for image_id, reader in _images_and_readers(data_dir, split):
            images.add(image_id)
            readers.update([reader] if reader else [])
    # Numbers filled up with zeros have 32 digits too, but few different ones.
    return (
        bool(images)
        and readers <= READERS
        and all(re.fullmatch(r"[0-9a-fA-F]{32}", image_id) and len(set(image_id)) > 5 for image_id in images)
    )


def _images_and_readers(data_dir: str, split: str) -> Iterator[tuple[str, str]]:
    """image_id and rad_id ("" where there is none) of each line of a split's tables."""
    for path in filter(None, annotation_files(data_dir, split)):
        if is_file(path):
            for _, row in read_csv(path, ("image_id",), optional=("rad_id",)):
                yield image_id_of(row["image_id"]), row.get("rad_id", "")


def _physionet_tables(data_dir: str, split: str) -> tuple[str, str]:
    folder = os.path.join(data_dir, "annotations")
    return os.path.join(folder, f"annotations_{split}.csv"), os.path.join(folder, f"image_labels_{split}.csv")


def annotation_files(data_dir: str, split: str) -> tuple[str, str | None]:
    """Paths of the boxes' CSV and the image labels' CSV; the second is None in Kaggle's layout."""
    kaggle = os.path.join(data_dir, KAGGLE_TABLE)
    if split == "train" and is_file(kaggle) and not is_folder(os.path.join(data_dir, "annotations")):
        return kaggle, None
    return _physionet_tables(data_dir, split)


def available_splits(data_dir: str) -> list[str]:
    """The splits that a release folder has annotations for.

    Raises:
        FileNotFoundError: the folder or the annotations are missing.
    """
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a VinDr-CXR release.")
    splits = []
    for split in SPLITS:
        if any(path and is_file(path) for path in annotation_files(data_dir, split)):
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
        the images not dropped), boxes_kept; images_with_unboxed_findings (images not dropped of which a reader states
        a finding that no box shows), where there are any.

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
    boxed: dict[str, set[str]] = {}  # the labels with a box, also with one that is skipped
    image_counts = ("images", "images_in_conflict", "images_dropped")
    image_counts += ("images_with_boxes", "images_no_finding", "images_unknown")
    counts = Counter(dict.fromkeys((*image_counts, "boxes_without_area", "boxes", "boxes_kept"), 0))
    image_id_in = ImageIds()

    if labels_path is not None:
        for where, row in read_csv(labels_path, (*id_columns, *all_labels), SPELLINGS, whole_lines=True):
            image_id = image_id_in(row["image_id"], where)
            stated = labels.setdefault(image_id, {}).setdefault(_reader_of(row, split), set())
            stated.update(label for label in all_labels if flag(row[label], where))

    box_columns = box_columns_of(boxes_path)
    for where, row in read_csv(
        boxes_path, (*id_columns, "class_name", *box_columns), CORNER_SPELLINGS, whole_lines=True
    ):
        label = LABELS_BY_PLAIN_NAME.get(plain(row["class_name"]))
        if label is None:
            raise ValueError(f"{where}: unknown label {row['class_name']!r}.")
        reader, image_id = _reader_of(row, split), image_id_in(row["image_id"], where)
        labels.setdefault(image_id, {}).setdefault(reader, set()).add(label)
        box = _box_of(row, box_columns, where)
        if box is None:
            continue
        if label == NO_FINDING and box == PLACEHOLDER_BOX:
            counts["boxes_of_no_finding"] += 1
            continue
        if label not in FINDING_LABELS:
            raise ValueError(f"{where}: {label!r} is no local label and cannot have a box.")
        boxed.setdefault(image_id, set()).add(label)
        if box[2] > box[0] and box[3] > box[1]:
            boxes.setdefault(image_id, []).append((reader, Finding(label, box)))
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
        if everything & set(FINDING_LABELS) - boxed.get(image_id, set()):
            counts["images_with_unboxed_findings"] += 1
        counts["boxes"] += len(boxes.get(image_id, []))
        counts["boxes_kept"] += len(annotation.findings)
        if annotation.findings:
            counts["images_with_boxes"] += 1
        elif NO_FINDING in annotation.diagnoses:
            counts["images_no_finding"] += 1
        else:
            counts["images_unknown"] += 1
        annotations.append(annotation)
    return annotations, dict(counts)


def box_columns_of(path: str) -> tuple[str, str, str, str]:
    """The columns of a table that hold the boxes: corners, or a corner and the box's own size."""
    names = {plain(CORNER_SPELLINGS.get(plain(name), name)) for name in header(path)}
    if {plain(column) for column in BOX_COLUMNS[2:]} <= names:
        return BOX_COLUMNS
    return next((columns for columns in SIZE_BOX_COLUMNS if has_columns(path, columns)), BOX_COLUMNS)


def _box_of(row: dict[str, str], columns: tuple[str, str, str, str], where: str) -> Box | None:
    """A line's box as xyxy."""
    numbers = box_numbers(row, columns, where)
    if numbers is None or columns == BOX_COLUMNS:
        return numbers
    x, y, width, height = numbers
    return x, y, x + width, y + height


def picture_sizes(data_dir: str, split: str) -> dict[str, tuple[float, float]]:
    """{image_id: (width, height)} of what the boxes were drawn on, where the tables give it.

    It stands in the columns width and height of the table with the boxes, or in train_meta.csv (test_meta.csv) beside
    it, as Kaggle's resized copies have them. Columns that hold the boxes' own width and height are none of a picture.

    Raises:
        ValueError: an image has two sizes, or one is no number above 0.
    """
    boxes_path, _ = annotation_files(data_dir, split)
    box_columns, meta = box_columns_of(boxes_path), os.path.join(data_dir, f"{split}_meta.csv")
    has_sizes = box_columns == BOX_COLUMNS and has_columns(boxes_path, PICTURE_SIZE_COLUMNS)
    path = boxes_path if has_sizes and not _sizes_are_the_boxes(boxes_path) else meta
    if not is_file(path):
        return {}
    sizes: dict[str, tuple[float, float]] = {}
    for where, row in read_csv(path, ("image_id", *PICTURE_SIZE_COLUMNS), META_SPELLINGS):
        cells = [row[column] for column in PICTURE_SIZE_COLUMNS]
        if not any(cells):
            continue
        try:
            width, height = map(float, cells)
        except ValueError:
            raise ValueError(
                f"{where}: the width and height of the picture are no numbers: {', '.join(cells)}."
            ) from None
        if not (0 < width < float("inf") and 0 < height < float("inf")):
            raise ValueError(f"{where}: the picture has {width:g} x {height:g} pixels.")
        image_id = image_id_of(row["image_id"])
        if sizes.setdefault(image_id, (width, height)) != (width, height):
            raise ValueError(f"{where}: image {image_id} has another width and height than in a line before.")
    return sizes


def _sizes_are_the_boxes(path: str) -> bool:
    """Whether the columns width and height of a table are those of its boxes."""
    seen = False
    for where, row in read_csv(path, (*BOX_COLUMNS, *PICTURE_SIZE_COLUMNS), CORNER_SPELLINGS):
        box = box_numbers(row, BOX_COLUMNS, where)
        if box is None:
            continue
        try:
            width, height = (float(row[column]) for column in PICTURE_SIZE_COLUMNS)
        except ValueError:
            return False
        if abs(box[2] - box[0] - width) > 1 or abs(box[3] - box[1] - height) > 1:
            return False
        seen = True
    return seen


def _refuse_boxes_turned_round(path: str, counts: dict[str, int]) -> None:
    """Refuses x, y, width, height in columns of two corners: there some boxes would end before they begin."""
    skipped = counts["boxes_without_area"]
    if skipped <= STRAY_SHARE * (counts["boxes"] + skipped):
        return
    for where, row in read_csv(path, box_columns_of(path), CORNER_SPELLINGS):
        box = _box_of(row, box_columns_of(path), where)
        if box is not None and not (box[2] > box[0] and box[3] > box[1]):
            edges = ", ".join(f"{edge:g}" for edge in box)
            raise ValueError(
                f"{where}: the box {edges} ends where it begins or before (so do {skipped:,} of "
                f"{counts['boxes'] + skipped:,} boxes): if they are x, y, width, height, name the columns x, y, w, h."
            )


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
    everything = set().union(*labels_of_readers.values())
    everything = everything - {NO_FINDING} or everything
    image_labels = [label for label in (*FINDING_LABELS, *DIAGNOSIS_LABELS) if label in everything]
    return ImageAnnotation(image_id, findings, diagnoses, readings, optional={"image_labels": image_labels})


def find_images(data_dir: str, split: str) -> Files:
    """The radiographs of a split's folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = os.path.join(data_dir, split)
    if not is_folder(folder):
        raise FileNotFoundError(f"{folder} is missing: the {split} radiographs belong there.")
    return find_files(folder)


def read_release(
    data_dir: str | os.PathLike, merge: str = "paper", name: str | None = None, licence: str | None = None
) -> Release:
    """Reads the tables of a release and finds its radiographs.

    Args:
        data_dir: folder of a release, in PhysioNet's or Kaggle's layout.
        merge: how train's readers are merged: one of `merge_readers.MERGES`.
        name, licence: of one's own data in this layout; see `facts`.

    Raises:
        FileNotFoundError, ValueError: the folder or its tables cannot be used, or the boxes do not fit the pictures;
            see `read_annotations`, `picture_boxes.boxes_in_pixels` and `facts`.
    """
    data_dir = absolute(data_dir)
    annotations, images, counts = {}, {}, {}
    for split in available_splits(data_dir):
        table, _ = annotation_files(data_dir, split)
        read, counts[split] = read_annotations(data_dir, split, merge)
        _refuse_boxes_turned_round(table, counts[split])
        files = find_images(data_dir, split)
        names = [annotation.image_id for annotation in read]
        images[split] = match(names, files, table, os.path.join(data_dir, split))
        fitted, fits = boxes_in_pixels({split: read}, images[split], picture_sizes(data_dir, split), table)
        annotations |= fitted
        in_tables = {image_id for image_id, _ in _images_and_readers(data_dir, split)}
        counts[split] |= fits[split] | file_counts(files, in_tables)
        if split == "train" and table != os.path.join(data_dir, KAGGLE_TABLE):
            counts[split] |= {"tables_not_read": 1} if is_file(os.path.join(data_dir, KAGGLE_TABLE)) else {}
    columns: tuple[str, ...] = ("sex", "age")
    if any("images_with_unboxed_findings" in rules for rules in counts.values()):
        columns += ("image_labels",)
    else:  # the boxes say it all
        annotations = {split: [replace(image, optional={}) for image in read] for split, read in annotations.items()}
    return Release(
        facts=facts(data_dir, name, licence),
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=images,
        counts=counts,
        columns=columns,
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
def main(arguments: ReadersArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        own = {"merge": arguments.merge, "name": arguments.name, "licence": arguments.licence}
        run_preparation(read_release, arguments, options, **own)


if __name__ == "__main__":
    main(*parse([ReadersArguments, PreparationOptions], None, "vindr_cxr.py", __doc__))
