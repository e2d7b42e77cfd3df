"""What a data set's tables say about a radiograph, and the schema of the rows that are made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets

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
class Demographics:
    """What a data set publishes about the person of an image, so that an evaluation can compare groups.

    Attributes:
        sex: "F", "M", or "" where unknown.
        age: in whole years; None where unknown.
    """

    sex: str = ""
    age: int | None = None


@dataclass(frozen=True)
class ImageAnnotation:
    """What is known about one image from tables alone.

    Attributes:
        image_id: unique in the data set.
        findings, diagnoses: after the readers are merged; diagnoses in the order of the data set's labels.
        readings: the single readers, where the table tells them apart.
        patient_id: for splits by patient; "" where unknown. Never written anywhere.
        view: such as "PA"; "" where the table does not say (a DICOM file may).
        demographics: of all images or of none of a data set; None where its public tables do not tell. Never taken
            from a DICOM file.
    """

    image_id: str
    findings: tuple[Finding, ...]
    diagnoses: tuple[str, ...]
    readings: tuple[Reading, ...] = ()
    patient_id: str = ""
    view: str = ""
    demographics: Demographics | None = None


def row_features(
    finding_labels: Sequence[str],
    diagnosis_labels: Sequence[str],
    keep_readings: bool = False,
    demographics: bool = False,
) -> datasets.Features:
    """The schema of a row; the label names belong to the data set.

    Boxes are xyxy floats in [0, 1] of the whole image, `width` and `height` the source's pixels. With `keep_readings`
    each row also has `readings`: what the single readers said before they were merged. With `demographics` it has
    `sex` and `age`, see `Demographics`.
    """
    finding_label = datasets.ClassLabel(names=list(finding_labels))
    diagnoses = datasets.List(datasets.ClassLabel(names=list(diagnosis_labels)))
    box = datasets.List(datasets.Value("float32"), length=4)
    features = {
        "image_id": datasets.Value("string"),
        "image": datasets.Image(),
        "width": datasets.Value("int32"),
        "height": datasets.Value("int32"),
        "findings": datasets.List({"label": finding_label, "box": box, "readers": datasets.Value("int8")}),
        "diagnoses": diagnoses,
        "view": datasets.Value("string"),
    }
    if demographics:
        features |= {"sex": datasets.Value("string"), "age": datasets.Value("int32")}
    if keep_readings:
        features["readings"] = datasets.List(
            {
                "rad_id": datasets.Value("string"),
                "findings": datasets.List({"label": finding_label, "box": box}),
                "diagnoses": diagnoses,
            }
        )
    return datasets.Features(features)
