"""What a data set says about a radiograph, and the row that is made of it.

In: an `ImageAnnotation`, which a data set's file reads from tables, and the radiograph as it was decoded. Out: a row.

    ImageAnnotation("a1", findings=(Finding("Cardiomegaly", (950, 1560, 2025, 2220), readers=2),), diagnoses=("COPD",))
    -> {"image_id": "a1", "image": {"bytes": b"...", "path": None}, "width": 2500, "height": 3000,
        "findings": [{"label": "Cardiomegaly", "box": [0.38, 0.52, 0.81, 0.74], "readers": 2}],
        "diagnoses": ["COPD"], "view": "PA", "sex": "F", "age": 58}

`row_features` is the schema; by it the labels become class numbers. The columns after `view` are optional: a data set
declares those that it has. A new one is a line in `optional_columns` and one in `dataset_card.md.jinja`; one with
boxes, or with values that do not stand in the tables, has its lines in `row_of` too.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np

if TYPE_CHECKING:
    from litegpt.datasets_scripts.preparation.decoding_process import DecodedRadiograph

# Raise it when a change of the code changes what rows hold: a value, a pixel, a box, a column's meaning. Folders and
# caches that an earlier version prepared are then prepared anew. A test holds the rows of a small release against it.
ROWS_VERSION = 1

BOXED_TEXTS = ("phrase", "sentences")  # columns that list texts, each with its "boxes"
REPORT_TEXTS = ("report_findings", "report_impression", "report_distilled", *BOXED_TEXTS)  # words of reports
STATES = ("positive", "negative", "uncertain")  # what a report says of a label that it mentions

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Finding:
    """One finding of an image.

    Attributes:
        label: one of the data set's finding labels.
        box: xyxy in pixels of the source image, as the table gives it (not yet clipped to the image).
        readers: how many readers marked it; 1 where the table is a consensus.
    """

    label: str
    box: Box
    readers: int = 1


@dataclass(frozen=True)
class Reading:
    """What one reader (`rad_id`) says about an image: the boxes they drew and the diagnoses they stated."""

    rad_id: str
    findings: tuple[Finding, ...]
    diagnoses: tuple[str, ...]


@dataclass(frozen=True)
class ImageAnnotation:
    """What is known about one image from tables alone.

    Attributes:
        image_id: unique in the data set.
        findings, diagnoses: after the readers are merged; diagnoses in the order of the data set's labels.
        readings: the single readers, where the table tells them apart.
        patient_id: for splits by patient; "" where unknown. Never written anywhere, unless the data set declares the
            column.
        view: such as "PA"; "" where the table does not say (a DICOM file may).
        optional: {column: value} of the columns that the data set declares, see `optional_columns`. A column that is
            missing here is unknown: sex and age are then the DICOM file's, the others null.
    """

    image_id: str
    findings: tuple[Finding, ...]
    diagnoses: tuple[str, ...]
    readings: tuple[Reading, ...] = ()
    patient_id: str = ""
    view: str = ""
    optional: Mapping[str, Any] = field(default_factory=dict)


def optional_columns(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> dict[str, Any]:
    """{column: its feature} of the columns that a data set may declare (`Release.columns`), in the rows' order.

    study_id, patient_id: as the release names them.
    sex, age: "F", "M", or "" where unknown; whole years, null where unknown.
    report_findings, report_impression: the report's two sections, as they were written.
    report_distilled: the report as short sentences on what it says of ECAMP's entities, see `distil_reports`.
    mentioned: what the report says of diagnoses; those that it does not mention are not listed.
    image_labels: what the tables say of the whole image, finding labels too, also those that have no box; as
        `labels_of_images` numbers them.
    phrase: a report's phrases, each with all its boxes; none where it is known that the radiograph does not show it.
    sentences: the report sentence by sentence, in order, each with its boxes; none where it has none.
    qa: questions about the radiograph with their answers; closed where the answer is one of a few, such as yes and no.
    chat: a conversation about this radiograph in turns, a user's first; the picture has no mark in the text.
    mask: a grey picture of the source's size, 0 outside and 255 inside; of an annotation the bytes of a PNG.
    readings: what the single readers said before they were merged; taken from `ImageAnnotation.readings`.

    The boxes of phrase and sentences are of an annotation in pixels, as a finding's.
    """
    text = datasets.Value("string")
    box = datasets.List(datasets.Value("float32"), length=4)
    finding = datasets.ClassLabel(names=list(finding_labels))
    diagnosis = datasets.ClassLabel(names=list(diagnosis_labels))
    return {
        "study_id": text,
        "patient_id": text,
        "sex": text,
        "age": datasets.Value("int32"),
        "report_findings": text,
        "report_impression": text,
        "report_distilled": text,
        "mentioned": datasets.List({"label": diagnosis, "state": datasets.ClassLabel(names=list(STATES))}),
        "image_labels": datasets.List(datasets.ClassLabel(names=labels_of_images(finding_labels, diagnosis_labels))),
        "phrase": datasets.List({"phrase": text, "boxes": datasets.List(box)}),
        "sentences": datasets.List({"text": text, "boxes": datasets.List(box)}),
        "qa": datasets.List({"question": text, "answer": text, "closed": datasets.Value("bool")}),
        "chat": datasets.List({"role": text, "text": text}),
        "mask": datasets.Image(),
        "readings": datasets.List(
            {
                "rad_id": text,
                "findings": datasets.List({"label": finding, "box": box}),
                "diagnoses": datasets.List(diagnosis),
            }
        ),
    }


def labels_of_images(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> list[str]:
    """All labels that an image may have: the findings', then the diagnoses', each once."""
    return list(dict.fromkeys((*finding_labels, *diagnosis_labels)))


def row_features(
    finding_labels: Sequence[str], diagnosis_labels: Sequence[str], columns: Collection[str] = ()
) -> datasets.Features:
    """The schema of a row; the label names belong to the data set.

    Boxes are xyxy floats in [0, 1] of the whole image, `width` and `height` the source's pixels.

    Args:
        columns: the optional ones, names of `optional_columns`.

    Raises:
        ValueError: there is no such column.
    """
    optional = optional_columns(finding_labels, diagnosis_labels)
    unknown = [column for column in columns if column not in optional]
    if unknown:
        raise ValueError(f"There is no column {unknown[0]!r}; rows may have {', '.join(optional)}.")
    finding = {
        "label": datasets.ClassLabel(names=list(finding_labels)),
        "box": datasets.List(datasets.Value("float32"), length=4),
        "readers": datasets.Value("int8"),
    }
    return datasets.Features(
        {
            "image_id": datasets.Value("string"),
            "image": datasets.Image(),
            "width": datasets.Value("int32"),
            "height": datasets.Value("int32"),
            "findings": datasets.List(finding),
            "diagnoses": datasets.List(datasets.ClassLabel(names=list(diagnosis_labels))),
            "view": datasets.Value("string"),
            **{column: feature for column, feature in optional.items() if column in columns},
        }
    )


def row_of(
    annotation: ImageAnnotation, decoded: "DecodedRadiograph", columns: Collection[str] = ()
) -> tuple[dict[str, Any], int]:
    """An image's row, with names in place of class numbers, and how many boxes lie outside the image and are left out.

    Args:
        columns: the optional ones that the row has. `patient_id` is the tables', never the DICOM file's.
    """
    size = (decoded.width, decoded.height)
    boxes = [normalise_box(finding.box, *size) for finding in annotation.findings]
    row = {
        "image_id": annotation.image_id,
        "image": {"bytes": decoded.png, "path": None},
        "width": decoded.width,
        "height": decoded.height,
        "findings": [
            {"label": finding.label, "box": box, "readers": finding.readers}
            for finding, box in zip(annotation.findings, boxes, strict=True)
            if box is not None
        ],
        "diagnoses": list(annotation.diagnoses),
        "view": annotation.view or decoded.view,
    }
    outside = boxes.count(None)
    for column in columns:
        value = annotation.optional.get(column)
        if column == "patient_id":
            value = annotation.patient_id
        elif column == "sex":
            value = value or decoded.sex
        elif column == "age":
            value = decoded.age if value is None else value
        elif column == "readings":
            value = [_reading_in_row(reading, *size) for reading in annotation.readings]
        elif column in BOXED_TEXTS and value is not None:
            inside = [_boxes_inside(text["boxes"], *size) for text in value]
            outside += sum(len(text["boxes"]) - len(boxes) for text, boxes in zip(value, inside, strict=True))
            value = [
                {**text, "boxes": boxes}
                for text, boxes in zip(value, inside, strict=True)
                # A phrase without boxes would pass for one that the radiograph does not show.
                if column != "phrase" or bool(boxes) == bool(text["boxes"])
            ]
        elif column == "mask" and value is not None:
            value = {"bytes": value, "path": None}
        row[column] = value
    return row, outside


def _reading_in_row(reading: Reading, width: int, height: int) -> dict[str, Any]:
    # Its boxes outside the image are not counted: they were, as findings.
    findings = [(finding.label, normalise_box(finding.box, width, height)) for finding in reading.findings]
    return {
        "rad_id": reading.rad_id,
        "findings": [{"label": label, "box": box} for label, box in findings if box is not None],
        "diagnoses": list(reading.diagnoses),
    }


def _boxes_inside(boxes: Iterable[Box], width: int, height: int) -> list[list[float]]:
    normalised = (normalise_box(box, width, height) for box in boxes)
    return [box for box in normalised if box is not None]


def is_lateral(view: str) -> bool:
    """Whether a row's `view` is one from the side: "LATERAL", "LL", "Lateral"; not where it is unknown."""
    return "LAT" in view.upper() or view.upper() in ("LL", "RL")


def normalise_box(box: Box, width: int, height: int) -> list[float] | None:
    """Pixels to [0, 1] of the whole image, clipped to it; None where nothing of the box is inside."""
    x_min, x_max = (min(max(value / width, 0.0), 1.0) for value in box[0::2])
    y_min, y_max = (min(max(value / height, 0.0), 1.0) for value in box[1::2])
    # The precision in which rows are stored, so that rows read on the fly are the same.
    return np.float32([x_min, y_min, x_max, y_max]).tolist() if x_max > x_min and y_max > y_min else None
