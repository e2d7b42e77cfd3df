"""The rows that a program trains on or is tested on."""

import os

import datasets

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
        return load(data_dir, split, cache_dir)
    return load_vindr_cxr(data_dir, split, cache_dir, num_proc)


def check_labels(rows: datasets.Dataset, processor: LiteGPTProcessor) -> None:
    """Refuses rows whose class numbers mean other labels than the checkpoint's.

    Raises:
        ValueError: the labels differ.
    """
    of_rows = (rows.features["findings"].feature["label"].names, rows.features["diagnoses"].feature.names)
    if of_rows != (list(processor.finding_labels), list(processor.diagnosis_labels)):
        raise ValueError("The data set's labels are not those that the checkpoint was made for.")
