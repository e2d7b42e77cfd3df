"""The rows that a program trains on or is tested on."""

import os

import datasets
import numpy as np

from datasets_scripts.radiograph_dataset import load
from datasets_scripts.vindr_cxr import load_vindr_cxr
from processing.processing_litegpt import LiteGPTProcessor


def load_rows(data_dir: str, split: str, cache_dir: str | None, num_proc: int) -> datasets.Dataset:
    """Rows of `annotations.row_features`.

    Args:
        data_dir: a release in VinDr-CXR's layout, which is prepared into `cache_dir`, or the prepared folder of any
            data set: Parquet files in data/, and README.md.
        split: "train", or a slice such as "train[:100]".
        num_proc: processes that read radiographs.

    Raises:
        OSError, ValueError: neither a release nor a prepared folder, or one that cannot be used.
    """
    if os.path.isdir(os.path.join(data_dir, "data")):
        rows = load(data_dir, split, cache_dir)
    else:
        rows = load_vindr_cxr(data_dir, split, cache_dir, num_proc)
    check_annotations(rows)
    return rows


def check_annotations(rows: datasets.Dataset) -> None:
    """Refuses what a broken Parquet file may hold: it would train the model on nonsense, or end a run in the middle.

    Raises:
        ValueError: a class number without a label, or a box that is not xyxy in [0, 1] or has no area.
    """
    num_findings = rows.features["findings"].feature["label"].num_classes
    num_diagnoses = rows.features["diagnoses"].feature.num_classes
    columns = (rows["image_id"][:], rows["findings"][:], rows["diagnoses"][:])
    for image_id, findings, diagnoses in zip(*columns, strict=True):
        for finding in findings:
            _check_number(image_id, "finding", finding["label"], num_findings)
            x1, y1, x2, y2 = np.asarray(finding["box"], dtype=float)  # NaN for a null
            # False for NaN too. 1e-6 leaves room for float32.
            if not (-1e-6 <= x1 < x2 <= 1 + 1e-6 and -1e-6 <= y1 < y2 <= 1 + 1e-6):
                raise ValueError(f"{image_id}: the box {finding['box']} is not xyxy in [0, 1] or has no area.")
        for diagnosis in diagnoses:
            _check_number(image_id, "diagnosis", diagnosis, num_diagnoses)


def _check_number(image_id: str, what: str, number: int | None, count: int) -> None:
    if number is None or not 0 <= number < count:
        raise ValueError(f"{image_id}: the {what} number {number} is not one of 0 to {count - 1}.")


def check_labels(rows: datasets.Dataset, processor: LiteGPTProcessor) -> None:
    """Refuses rows whose class numbers mean other labels than the checkpoint's.

    Raises:
        ValueError: the labels differ.
    """
    of_rows = (rows.features["findings"].feature["label"].names, rows.features["diagnoses"].feature.names)
    if of_rows != (list(processor.finding_labels), list(processor.diagnosis_labels)):
        raise ValueError("The data set's labels are not those that the checkpoint was made for.")
