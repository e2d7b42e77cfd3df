"""VinDr-CXR, as PhysioNet or Kaggle release it, to rows of this project's schema.

    from datasets_scripts.vindr_cxr import load_vindr_cxr

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
    no findings, diagnoses ["No finding"]      a negative: every reader said so
    no findings, any other diagnoses           unknown to a localiser: a label without a box, or nothing was said
"""

import csv
import hashlib
import io
import logging
import math
import os
import re
from dataclasses import dataclass

import datasets
import numpy as np
import PIL.Image

from processing import dicom
from processing.answers import NO_FINDING

logger = logging.getLogger(__name__)

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

IMAGE_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")

FEATURES = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "image": datasets.Image(),
        "width": datasets.Value("int32"),
        "height": datasets.Value("int32"),
        "findings": datasets.List(
            {
                "label": datasets.ClassLabel(names=list(FINDING_LABELS)),
                "box": datasets.List(datasets.Value("float32"), length=4),
                "readers": datasets.Value("int8"),
            }
        ),
        "diagnoses": datasets.List(datasets.ClassLabel(names=list(DIAGNOSIS_LABELS))),
        "view": datasets.Value("string"),
    }
)


@dataclass(frozen=True)
class Finding:
    """One finding of an image after the readers are merged.

    Attributes:
        label: one of `FINDING_LABELS`.
        box: xyxy in pixels of the source image, as the CSV gives it (not yet clipped to the image).
        readers: how many readers marked it, that is drew a box of this label that is this one or overlaps it by more
            than the merge's IoU. 1 where the release is a consensus without `rad_id` (the test split).
    """

    label: str
    box: tuple[float, float, float, float]
    readers: int


@dataclass(frozen=True)
class ImageAnnotation:
    """What the readers together say about one image: findings in the CSV's order, diagnoses in `DIAGNOSIS_LABELS`'."""

    image_id: str
    findings: tuple[Finding, ...]
    diagnoses: tuple[str, ...]


def pairwise_iou(boxes: np.ndarray) -> np.ndarray:
    """(n, n) intersection over union of (n, 4) xyxy boxes that have an area."""
    top_left = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=-1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    return intersection / (areas[:, None] + areas[None, :] - intersection)


def keep_one_of_overlapping(boxes: np.ndarray, iou_threshold: float = 0.5) -> np.ndarray:
    """Indices of one representative per group of boxes that overlap, in input order.

    The first box opens a group. Each next box joins a group if it overlaps that group's first box, and opens a group
    of its own if it overlaps none. The first of each group is kept: no two kept boxes overlap above the threshold,
    and each dropped box overlaps a kept one.

    Args:
        boxes: (n, 4) float, xyxy in any unit, all of one label.
        iou_threshold: two boxes belong together above this IoU (not at it).

    Returns:
        (m,) int64, m <= n, ascending.

    Raises:
        ValueError: a box has no area.

    Source: LiteGPT (arXiv 2407.12064), section 4.2.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError("A box has no area: boxes must be xyxy with x2 > x1 and y2 > y1.")
    overlaps = pairwise_iou(boxes) > iou_threshold
    kept: list[int] = []
    for index in range(len(boxes)):
        if not overlaps[index, kept].any():
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def merge_readers(boxes: list[tuple[str, tuple[float, float, float, float], str]]) -> tuple[Finding, ...]:
    """The findings of one image from all its readers' boxes, pooled.

    Args:
        boxes: (label, xyxy, reader) in the CSV's order, each box with an area.

    Returns:
        The first box of each group of `keep_one_of_overlapping`, label by label, in the CSV's order.
    """
    findings = []
    for label in dict.fromkeys(label for label, _, _ in boxes):
        positions = [position for position, box in enumerate(boxes) if box[0] == label]
        xyxy = np.array([boxes[position][1] for position in positions], dtype=np.float64)
        readers = np.array([boxes[position][2] for position in positions])
        overlaps = pairwise_iou(xyxy) > 0.5
        for index in keep_one_of_overlapping(xyxy, iou_threshold=0.5):
            count = len(set(readers[overlaps[index]]))
            findings.append((positions[index], Finding(label, boxes[positions[index]][1], count)))
    return tuple(finding for _, finding in sorted(findings, key=lambda item: item[0]))


def read_csv(path: str, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV that must have `columns`, with "Other disease" renamed to "Other diseases".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or the file is not CSV text.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is missing.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [SPELLINGS.get(name, name) for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in reader.fieldnames]
            if missing:
                raise ValueError(f"{path} has no column {', '.join(missing)}.")
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    for line, row in rows:
        if None in row or None in row.values():  # DictReader's mark for surplus and for missing cells
            raise ValueError(f"{path}, line {line}: the number of cells is not that of the header.")
    return rows


def parse_box(row: dict[str, str], where: str) -> tuple[float, float, float, float] | None:
    """The row's box in pixels, or None where its four cells are empty (or NaN, as pandas writes)."""
    try:
        x_min, y_min, x_max, y_max = (float(row[column] or "nan") for column in BOX_COLUMNS)
    except ValueError as error:
        raise ValueError(f"{where}: a box coordinate is no number ({error}).") from error
    box = (x_min, y_min, x_max, y_max)
    if all(math.isnan(value) for value in box):
        return None
    if not all(math.isfinite(value) for value in box):
        raise ValueError(f"{where}: a box has only some of its coordinates.")
    return box


def parse_flag(cell: str, where: str) -> bool:
    """Whether an image-label cell marks its label. An empty cell does not."""
    if cell not in ("", "0", "1", "0.0", "1.0"):
        raise ValueError(f"{where}: an image label is {cell!r}, not 0 or 1.")
    return cell.startswith("1")


def annotation_files(data_dir: str, split: str) -> tuple[str, str | None]:
    """Paths of the boxes' CSV and the image labels' CSV; the second is None in Kaggle's layout."""
    kaggle = os.path.join(data_dir, "train.csv")
    annotations = os.path.join(data_dir, "annotations")
    if split == "train" and os.path.isfile(kaggle) and not os.path.isdir(annotations):
        return kaggle, None
    return (
        os.path.join(annotations, f"annotations_{split}.csv"),
        os.path.join(annotations, f"image_labels_{split}.csv"),
    )


def available_splits(data_dir: str) -> list[str]:
    """The splits that a release folder has annotations for.

    Raises:
        FileNotFoundError: the folder or the annotations are missing.
    """
    if not os.path.isdir(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a VinDr-CXR release.")
    splits = []
    for split in ("train", "test"):
        if any(path and os.path.isfile(path) for path in annotation_files(data_dir, split)):
            splits.append(split)
    if not splits:
        raise FileNotFoundError(
            f"{data_dir} has neither annotations/annotations_train.csv (PhysioNet's layout) nor train.csv (Kaggle's)."
        )
    return splits


def read_annotations(data_dir: str, split: str) -> tuple[list[ImageAnnotation], dict[str, int]]:
    """Reads a split's CSV files and merges its readers as the paper does. Reads no image.

    All readers' boxes are pooled and those of one label that overlap become one (`merge_readers`). Diagnoses are the
    union over the readers. A training image that has "No finding" beside any other label, from whichever reader, is
    dropped; a test image (a consensus) keeps the other labels and loses "No finding". A label counts whether it stands
    in the image labels or beside a box, so an image whose readers name a finding without drawing it is never "No
    finding".

    Args:
        data_dir: folder of a release, in PhysioNet's or Kaggle's layout.
        split: "train" or "test".

    Returns:
        The annotations, in the order in which images first appear in the CSV files, and the counts behind them:
        images, images_in_conflict (dropped in train), images_with_boxes, images_no_finding, images_unknown (neither),
        boxes_without_area (skipped), boxes (pooled, of the images not dropped), boxes_kept.

    Raises:
        FileNotFoundError: a CSV is missing.
        ValueError: a column is missing, a label is unknown, or a cell cannot be read; it names the file and the line.

    Source: LiteGPT (arXiv 2407.12064), section 4.2.
    """
    boxes_path, labels_path = annotation_files(data_dir, split)
    id_columns = ("image_id", "rad_id") if split == "train" else ("image_id",)
    known_labels = {*FINDING_LABELS, *DIAGNOSIS_LABELS}
    labels: dict[str, set[str]] = {}
    boxes: dict[str, list[tuple[str, tuple[float, float, float, float], str]]] = {}
    image_counts = ("images", "images_in_conflict", "images_with_boxes", "images_no_finding", "images_unknown")
    counts = dict.fromkeys((*image_counts, "boxes_without_area", "boxes", "boxes_kept"), 0)

    if labels_path is not None:
        label_columns = (*FINDING_LABELS, *DIAGNOSIS_LABELS)
        for line, row in read_csv(labels_path, (*id_columns, *label_columns)):
            where = f"{labels_path}, line {line}"
            marked = {label for label in label_columns if parse_flag(row[label], where)}
            labels.setdefault(row["image_id"], set()).update(marked)

    for line, row in read_csv(boxes_path, (*id_columns, "class_name", *BOX_COLUMNS)):
        where = f"{boxes_path}, line {line}"
        label = SPELLINGS.get(row["class_name"], row["class_name"])
        if label not in known_labels:
            raise ValueError(f"{where}: unknown label {label!r}.")
        labels.setdefault(row["image_id"], set()).add(label)
        box = parse_box(row, where)
        if box is None:
            continue
        if label not in FINDING_LABELS:
            raise ValueError(f"{where}: {label!r} is no local label and cannot have a box.")
        if box[2] > box[0] and box[3] > box[1]:
            boxes.setdefault(row["image_id"], []).append((label, box, row.get("rad_id", "")))
        else:
            counts["boxes_without_area"] += 1

    annotations = []
    for image_id, image_labels in labels.items():
        counts["images"] += 1
        if NO_FINDING in image_labels and len(image_labels) > 1:
            counts["images_in_conflict"] += 1
            if split == "train":
                continue
            image_labels = image_labels - {NO_FINDING}
        findings = merge_readers(boxes.get(image_id, []))
        counts["boxes"] += len(boxes.get(image_id, []))
        counts["boxes_kept"] += len(findings)
        if findings:
            counts["images_with_boxes"] += 1
        elif NO_FINDING in image_labels:
            counts["images_no_finding"] += 1
        else:
            counts["images_unknown"] += 1
        diagnoses = tuple(label for label in DIAGNOSIS_LABELS if label in image_labels)
        annotations.append(ImageAnnotation(image_id, findings, diagnoses))
    return annotations, counts


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


def read_view(path: str) -> str:
    """A DICOM's View Position (0018,5101), such as "PA" or "AP"; "" where it has no valid one or is no DICOM."""
    if not path.lower().endswith((".dicom", ".dcm")):
        return ""
    import pydicom

    header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["ViewPosition"])
    view = str(header.get("ViewPosition") or "")
    return view if re.fullmatch(r"[A-Z0-9_ ]{1,16}", view) else ""  # what PS3.5 allows in a code string


def normalise_box(box: tuple[float, float, float, float], width: int, height: int) -> list[float] | None:
    """Pixels to [0, 1] of the whole image, clipped to it; None where nothing of the box is inside."""
    x_min, x_max = (min(max(value / width, 0.0), 1.0) for value in box[0::2])
    y_min, y_max = (min(max(value / height, 0.0), 1.0) for value in box[1::2])
    return [x_min, y_min, x_max, y_max] if x_max > x_min and y_max > y_min else None


@dataclass
class VinDrCXRConfig(datasets.BuilderConfig):
    """Options of the builder.

    Attributes:
        max_side: stored images are scaled down, keeping their aspect, until the longer side has at most this many
            pixels (the towers see far less). None stores them in full. `width` and `height` are always the source's.
        windowing: how a DICOM's grey values become 8 bit; see `processing.dicom.load_radiograph`.
        on_error: "skip" leaves out a radiograph that is missing or unreadable, with a warning; "raise" stops there.
    """

    version: datasets.Version = datasets.Version("1.0.0")
    max_side: int | None = 512
    windowing: str = "dicom"
    on_error: str = "skip"

    def __post_init__(self):
        super().__post_init__()
        if self.max_side is not None and self.max_side < 1:
            raise ValueError(f"max_side must be at least 1 or None, not {self.max_side}.")
        if self.on_error not in ("skip", "raise"):
            raise ValueError(f'on_error must be "skip" or "raise", not {self.on_error!r}.')


class VinDrCXR(datasets.GeneratorBasedBuilder):
    """Builds the rows. `load_vindr_cxr` is the usual way in: it makes the cache notice a changed release."""

    BUILDER_CONFIG_CLASS = VinDrCXRConfig
    DEFAULT_WRITER_BATCH_SIZE = 64  # rows held in memory before they are written; a full-size image has megabytes

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Chest radiographs with boxed findings and diagnoses, readers merged.",
            homepage="https://physionet.org/content/vindr-cxr/1.0.0/",
            license="PhysioNet Credentialed Health Data License 1.5.0",
            features=FEATURES,
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        if self.config.data_dir is None:
            raise ValueError("data_dir must be the folder of a VinDr-CXR release.")
        generators = []
        for split in available_splits(self.config.data_dir):
            annotations, counts = read_annotations(self.config.data_dir, split)
            logger.info("%s: %s.", split, ", ".join(f"{name} {count}" for name, count in counts.items()))
            images = find_images(self.config.data_dir, split)
            if not any(annotation.image_id in images for annotation in annotations):
                folder = os.path.join(self.config.data_dir, split)
                raise FileNotFoundError(f"{folder} holds none of the radiographs that the annotations name.")
            # `datasets` shards the two lists over num_proc processes.
            paths = [images.get(annotation.image_id) for annotation in annotations]
            generators.append(
                datasets.SplitGenerator(name=split, gen_kwargs={"annotations": annotations, "paths": paths})
            )
        return generators

    def _generate_examples(self, annotations: list[ImageAnnotation], paths: list[str | None]):
        for annotation, path in zip(annotations, paths, strict=True):
            try:
                if path is None:
                    raise FileNotFoundError(f"No radiograph for image_id {annotation.image_id}.")
                image = dicom.load_radiograph(path, windowing=self.config.windowing)
                view = read_view(path)
            except (dicom.RadiographError, OSError) as error:
                if self.config.on_error == "raise":
                    raise
                logger.warning("Skipped image %s: %s", annotation.image_id, error)
                continue
            yield annotation.image_id, self._row(annotation, image, view)

    def _row(self, annotation: ImageAnnotation, image: PIL.Image.Image, view: str) -> dict:
        width, height = image.size
        findings = []
        for finding in annotation.findings:
            box = normalise_box(finding.box, width, height)
            if box is None:
                logger.warning("Skipped a box of image %s: it lies outside the image.", annotation.image_id)
                continue
            findings.append({"label": finding.label, "box": box, "readers": finding.readers})
        if self.config.max_side is not None:
            image.thumbnail((self.config.max_side, self.config.max_side))
        # Encoded here because `datasets` would store a mere path for an image that PIL opened from a file.
        png = io.BytesIO()
        image.save(png, format="PNG", compress_level=1)  # a quarter of the default's time, a sixth more bytes
        return {
            "image_id": annotation.image_id,
            "image": {"bytes": png.getvalue(), "path": None},
            "width": width,
            "height": height,
            "findings": findings,
            "diagnoses": list(annotation.diagnoses),
            "view": view,
        }


def digest_of_release(data_dir: str) -> str:
    """Changes when the annotations, the list of images (name, size, mtime) or the code that reads them change."""
    digest = hashlib.sha256()
    for module_file in (__file__, dicom.__file__):
        with open(module_file, "rb") as file:
            digest.update(file.read())
    for split in available_splits(data_dir):
        for path in annotation_files(data_dir, split):
            if path is not None and os.path.isfile(path):
                with open(path, "rb") as file:
                    digest.update(file.read())
        for path in sorted(find_images(data_dir, split).values()):
            status = os.stat(path)
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def load_vindr_cxr(
    data_dir: str | os.PathLike,
    split: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
    **config,
) -> datasets.Dataset | datasets.DatasetDict:
    """Builds the data set, or takes it from the cache where neither the release nor the options changed.

    Args:
        data_dir: folder of a release, in PhysioNet's or Kaggle's layout.
        split: "train", "test", a slice such as "train[:100]", or None for all.
        cache_dir: where `datasets` keeps what it built; its default if None. Builds of an earlier state stay there.
        num_proc: processes that read radiographs.
        **config: fields of `VinDrCXRConfig`.

    Returns:
        Rows of `FEATURES`; a DatasetDict where `split` is None. Radiographs left out are counted in one warning.

    Raises:
        FileNotFoundError, ValueError: the folder or its annotations cannot be used; see `read_annotations`.
        datasets.exceptions.DatasetGenerationError: a radiograph failed and `on_error` is "raise"; see `__cause__`.
    """
    data_dir = os.path.abspath(data_dir)
    builder = VinDrCXR(cache_dir=cache_dir, data_dir=data_dir, hash=digest_of_release(data_dir), **config)
    builder.download_and_prepare(num_proc=num_proc)
    for name, split_info in builder.info.splits.items():
        if split_info.num_examples == 0:
            raise ValueError(f"None of the {name} radiographs in {data_dir} could be read.")
        wanted = {annotation.image_id for annotation in read_annotations(data_dir, name)[0]}
        skipped = sorted(wanted.difference(builder.as_dataset(split=name)["image_id"]))
        if skipped:
            shown = ", ".join(skipped[:20]) + (", ..." if len(skipped) > 20 else "")
            logger.warning("%s: %d of %d radiographs were left out: %s", name, len(skipped), len(wanted), shown)
    return builder.as_dataset(split=split)
