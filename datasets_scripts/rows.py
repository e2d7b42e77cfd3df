"""All data sets that are known, and the rows that a program trains on or is tested on.

    rows = load_rows("path/to/vindr-cxr", "train[:100]", cache_dir=None, num_proc=8)   # a release: prepared first
    rows = load_rows("prepared/chestx-ray14", "test", cache_dir=None, num_proc=1)      # a prepared folder
    data_set_facts("prepared/chestx-ray14")   # {"name": "ChestX-ray14", "license_name": ..., "license_link": ...}

A new data set is a file beside this one, which offers what `DataSet` lists, and a line in `DATA_SETS`. A checkpoint's
labels are held against the rows' by `check_labels`.
"""

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

import datasets
import numpy as np
from huggingface_hub import DatasetCard
from PIL import Image

from litegpt.common.addresses import absolute, is_folder, open_text
from litegpt.datasets_scripts import (
    chestx_ray14,
    chexpert,
    coco_boxes,
    covidx,
    label_studio,
    llava_chats,
    mimic_cxr,
    ms_cxr,
    open_i,
    padchest_gr,
    rsna_pneumonia,
    siim_pneumothorax,
    vindr_cxr,
    vqa_rad,
)
from litegpt.datasets_scripts.annotations import BOXED_TEXTS
from litegpt.datasets_scripts.preparation.dataset_card import license_name
from litegpt.datasets_scripts.preparation.prepare import load, load_release
from litegpt.datasets_scripts.preparation.release import DataSetFacts, Release
from litegpt.processing.tasks import LABEL_TASKS

if TYPE_CHECKING:  # it imports torch, which takes seconds that a preparation need not wait
    from litegpt.processing.processing_litegpt import LiteGPTProcessor


class DataSet(Protocol):
    """What the file of a data set offers.

    Attributes:
        LAYOUT: the files by which a release is recognised, for the sentence about a folder that is none.
    """

    LAYOUT: str

    def recognise(self, data_dir: str) -> bool:
        """Whether a folder is a release of this data set; looks at names, and at most at a table's header."""

    def facts(self, data_dir: str) -> DataSetFacts:
        """What cards say of a release; looks at its tables at most, not at its radiographs."""

    def read_release(self, data_dir: str) -> Release:
        """Reads a release's tables and finds its radiographs."""


# By the names that people call them by, on the command line too.
DATA_SETS: dict[str, DataSet] = {
    "vindr-cxr": vindr_cxr,
    "chestx-ray14": chestx_ray14,
    "chexpert": chexpert,
    "rsna-pneumonia": rsna_pneumonia,
    "siim-pneumothorax": siim_pneumothorax,
    "covidx": covidx,
    "open-i": open_i,
    "mimic-cxr": mimic_cxr,
    "ms-cxr": ms_cxr,
    "padchest-gr": padchest_gr,
    "vqa-rad": vqa_rad,
    "coco-boxes": coco_boxes,
    "label-studio": label_studio,
    "llava-chats": llava_chats,
}


def recognised(data_dir: str) -> DataSet:
    """The data set of which a folder is a release.

    Raises:
        FileNotFoundError: there is no such folder, or it is a release of none.
        ValueError: it is one of several.
    """
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir is a prepared folder or a release of a data set.")
    names = [name for name, data_set in DATA_SETS.items() if data_set.recognise(data_dir)]
    if not names:
        layouts = [data_set.LAYOUT for data_set in DATA_SETS.values()]
        raise FileNotFoundError(
            f"{data_dir} is no data set that is known: it has neither {', nor '.join(layouts)}, "
            "nor data/ and README.md (a prepared folder)."
        )
    if len(names) > 1:
        raise ValueError(f"{data_dir} holds the tables of {' and '.join(names)}: give each a folder of its own.")
    return DATA_SETS[names[0]]


def is_prepared(data_dir: str) -> bool:
    """Whether a folder is what a preparation writes, or was interrupted at: a release has no folder data/."""
    return is_folder(os.path.join(data_dir, "data"))


def load_rows(data_dir: str, split: str, cache_dir: str | None = None, num_proc: int = 1) -> datasets.Dataset:
    """Rows of `annotations.row_features`.

    Args:
        data_dir: a release of one of `DATA_SETS`, which is prepared into `cache_dir`, or the prepared folder of any
            data set: Parquet files in data/, and README.md; a path or an address.
        split: "train", or a slice such as "train[:100]".
        cache_dir: for the prepared release and the memory-mapped copy of `datasets`; its default if None.
        num_proc: processes that read radiographs.

    Raises:
        OSError, ValueError: neither a release nor a prepared folder, or one that cannot be used.
    """
    if is_prepared(data_dir):
        rows = load(data_dir, split, cache_dir)
    else:
        rows = load_release(recognised(data_dir).read_release(data_dir), split, cache_dir, num_proc)
    check_annotations(rows)
    return rows


def row_picture(rows: datasets.Dataset, number: int) -> Image.Image:
    """The picture of a row.

    Raises:
        ValueError: why there is none that can be read, without the row's name.
    """
    try:
        image = rows[number]["image"]
    # SyntaxError: Pillow's for broken PNG chunks.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture can't be decoded ({error}).") from None
    if image is None:
        raise ValueError("the row has no picture.")
    return image


def check_annotations(rows: datasets.Dataset) -> None:
    """Refuses what a broken Parquet file may hold: it would train the model on nonsense, or end a run in the middle.

    Raises:
        ValueError: a class number without a label, or a box, of findings or of texts, that is not xyxy in [0, 1] or
            has no area.
    """
    num_findings = rows.features["findings"].feature["label"].num_classes
    num_diagnoses = rows.features["diagnoses"].feature.num_classes
    columns = (rows["image_id"][:], rows["findings"][:], rows["diagnoses"][:])
    for image_id, findings, diagnoses in zip(*columns, strict=True):
        for finding in findings:
            _check_number(image_id, "finding", finding["label"], num_findings)
            _check_box(image_id, finding["box"])
        for diagnosis in diagnoses:
            _check_number(image_id, "diagnosis", diagnosis, num_diagnoses)
    for column in BOXED_TEXTS:
        if column in rows.column_names:
            for image_id, texts in zip(rows["image_id"][:], rows[column][:], strict=True):
                for text in texts or ():
                    for box in text["boxes"]:
                        _check_box(image_id, box)


def _check_box(image_id: str, box: Sequence[float | None]) -> None:
    x1, y1, x2, y2 = np.asarray(box, dtype=float)  # NaN for a null
    # False for NaN too. 1e-6 leaves room for float32.
    if not (-1e-6 <= x1 < x2 <= 1 + 1e-6 and -1e-6 <= y1 < y2 <= 1 + 1e-6):
        raise ValueError(f"{image_id}: the box {box} is not xyxy in [0, 1] or has no area.")


def _check_number(image_id: str, what: str, number: int | None, count: int) -> None:
    if number is None or not 0 <= number < count:
        raise ValueError(f"{image_id}: the {what} number {number} is not one of 0 to {count - 1}.")


def check_labels(rows: datasets.Dataset, processor: "LiteGPTProcessor", tasks: Collection[str] | None = None) -> None:
    """Refuses rows whose class numbers mean other labels than the checkpoint's.

    Args:
        tasks: what the rows are asked. What is told in words alone needs no labels; None: labels are told.

    Raises:
        ValueError: the labels differ.
    """
    if tasks is not None and not any(task in LABEL_TASKS or task == "describe" for task in tasks):
        return
    names = (rows.features["findings"].feature["label"].names, rows.features["diagnoses"].feature.names)
    if names != (list(processor.finding_labels), list(processor.diagnosis_labels)):
        raise ValueError("The data set's labels are not those that the checkpoint was made for.")


def data_set_facts(data_dir: str) -> dict[str, str | None]:
    """What a card says of a data set: `name`, `license_name` and `license_link`.

    Args:
        data_dir: a prepared folder or a release, as `load_rows` takes it.

    Raises:
        OSError, ValueError: as `load_rows`.
    """
    if is_prepared(data_dir):
        with open_text(os.path.join(data_dir, "README.md")) as file:
            card = DatasetCard(file.read()).data
        name = card.get("pretty_name") or os.path.basename(os.path.realpath(absolute(data_dir)))
        return {"name": name, "license_name": card.get("license_name"), "license_link": card.get("license_link")}
    facts = recognised(data_dir).facts(data_dir)
    return {
        "name": facts.pretty_name,
        "license_name": license_name(facts.licence) or None,
        "license_link": facts.licence_link or None,
    }
