"""Rows -> what they say of a whole radiograph: which labels it has, has not, or may have.

    names = label_names(rows.features)     # ["Aortic enlargement", ..., "COPD", "No finding"]
    states_of(row, rows.features)          # {"Cardiomegaly": "positive", "COPD": "negative", ...}
    label_matrix(rows, names)              # (images, labels): 1 positive, 0 negative, NaN unknown or uncertain
    abnormal(rows)                         # (images,): whether there is anything

Two kinds of data sets. Where labels were read out of reports (rows with the column `mentioned`: CheXpert), a report
may say yes, no or perhaps of a label, or nothing at all. Where people or a program went through a list of labels
(VinDr-CXR, ChestX-ray14), a label that is not there is a negative.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from litegpt.datasets_scripts.annotations import STATES, labels_of_images
from litegpt.datasets_scripts.tables import plain
from litegpt.processing.answers import NO_FINDING

COLUMNS = ("findings", "diagnoses", "mentioned", "image_labels")  # what the labels are read from
VALUES = {"positive": 1.0, "negative": 0.0, "uncertain": np.nan}
# An image with nothing else than these is a normal one: so CheXpert's labeller, too, takes tubes and pacemakers.
NOTHING_ABNORMAL = frozenset({plain(NO_FINDING), "support devices"})
BATCH = 1000


def label_names(features: datasets.Features) -> list[str]:
    """The labels that rows speak of: the findings', then the diagnoses', each name once."""
    return labels_of_images(features["findings"].feature["label"].names, features["diagnoses"].feature.names)


def states_of(row: Mapping[str, Any], features: datasets.Features) -> dict[str, str]:
    """{label: "positive" | "negative" | "uncertain"} of one row; of a label that is missing nothing was said.

    Rows with the column `mentioned`: what it lists, "No finding" too, and nothing else. All others: positive is a
    label among `findings`, `diagnoses` or, where there is that column, `image_labels`; the rest is negative.

    Args:
        row: with class numbers, as rows have them; the picture is not looked at and may be missing.
        features: the schema of the rows.
    """
    if "mentioned" in features:
        mentioned = features["mentioned"].feature
        return {
            mentioned["label"].names[item["label"]]: mentioned["state"].names[item["state"]]
            for item in row["mentioned"] or ()
        }
    findings, diagnoses = features["findings"].feature["label"].names, features["diagnoses"].feature.names
    positive = {findings[finding["label"]] for finding in row["findings"]}
    positive.update(diagnoses[number] for number in row["diagnoses"])
    if "image_labels" in features:
        names = features["image_labels"].feature.names
        positive.update(names[number] for number in row["image_labels"] or ())
    return {label: STATES[0] if label in positive else STATES[1] for label in label_names(features)}


def label_matrix(rows: datasets.Dataset, names: Sequence[str]) -> np.ndarray:
    """What all rows say of some labels; the pictures are not read.

    Returns:
        (images, labels) float32: 1 positive, 0 negative, NaN unknown or uncertain.

    Raises:
        ValueError: the rows do not speak of a label.
    """
    unknown = [name for name in names if name not in label_names(rows.features)]
    if unknown:
        raise ValueError(f"The rows have no label {unknown[0]!r}, only {', '.join(label_names(rows.features))}.")
    place = {name: index for index, name in enumerate(names)}
    matrix = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    columns = [column for column in COLUMNS if column in rows.features]
    for index, row in enumerate(each_row(rows.select_columns(columns))):
        for label, state in states_of(row, rows.features).items():
            if label in place:
                matrix[index, place[label]] = VALUES[state]
    return matrix


def each_row(rows: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """The rows one by one, read some at a time; of a data set without its pictures, which would be decoded."""
    for batch in rows.iter(BATCH):
        yield from rows_of_batch(batch)


def rows_of_batch(batch: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a batch, which has a list for each column."""
    for values in zip(*batch.values(), strict=True):
        yield dict(zip(batch, values, strict=True))


def abnormal(rows: datasets.Dataset) -> np.ndarray:
    """(images,) bool: whether any label is positive besides "No finding".

    "Support Devices" do not count either: CheXpert's "No Finding" stands beside them, since a tube or a pacemaker is
    no disease. What is uncertain does not count.
    """
    names = [name for name in label_names(rows.features) if plain(name) not in NOTHING_ABNORMAL]
    return (label_matrix(rows, names) == 1).any(axis=1)
