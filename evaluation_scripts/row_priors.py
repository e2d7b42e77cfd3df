"""What rows are given by a model that never looks: boxes and places where those of other radiographs lie most.

    learnt = row_priors(rows, other_rows("prepared/vindr-cxr", "train", rows, cache_dir=None, num_proc=1))
    learnt.priors[7].best["Cardiomegaly"]    # [0.38, 0.52, 0.81, 0.74], what row 7 is given
    learnt.source                            # {"split": "train", "folds": None, "radiographs_with_boxes": 4394}

In: rows that are evaluated, and those of a training split, without the radiographs and patients of the former. Out:
of each row its prior. Where no box is left to learn from it is cross-fitted: each fifth of the patients, or
radiographs, gets what the boxes of the other four give. Annotations alone are read, no picture.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.patients import apart_from, patients_of
from litegpt.evaluation_scripts.questions import label_names, true_boxes
from litegpt.metrics.boxes import Images
from litegpt.metrics.location_prior import best_boxes, hottest_places, scored_boxes
from litegpt.processing.tasks import FINDINGS

FOLDS = 5


class Prior(NamedTuple):
    """What a radiograph is given, whatever it shows.

    Attributes:
        boxes: {"label", "box", "score"}, a few of each label.
        best: by label one box.
        places: by label x and y.
    """

    boxes: list[dict[str, Any]]
    best: dict[str, list[float]]
    places: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, images: Images) -> "Prior":
        return cls(scored_boxes(images), best_boxes(images), hottest_places(images))


class RowPriors(NamedTuple):
    """Of each row its prior, and what they are learnt from, for metrics.json; without `split` it was cross-fitted."""

    priors: Sequence[Prior]
    source: dict[str, Any]


def other_rows(data_dir: str, split: str, rows: Dataset, cache_dir: str | None, num_proc: int) -> Dataset | None:
    """The rows of a split that share neither radiograph nor patient with `rows`; None: the data has no such split.

    Raises:
        OSError, ValueError: as `load_rows`.
    """
    if re.match(r"\w*", split)[0] not in (rows.info.splits or {}):
        return None
    return apart_from(load_rows(data_dir, split, cache_dir, num_proc), rows)


def row_priors(rows: Dataset, others: Dataset | None) -> RowPriors:
    """Of each row the prior of the other rows' boxes or, where they have none, of the rows' own, cross-fitted."""
    boxes = _boxes(rows)
    learnt = [] if others is None else _boxes(others)
    if any(learnt):
        source = {"split": str(others.split), "folds": None, "radiographs_with_boxes": sum(map(bool, learnt))}
        return RowPriors([Prior.of(learnt)] * len(rows), source)
    patients = patients_of(rows)
    patients = np.arange(len(rows)) if patients is None else patients
    folds = (np.random.default_rng(0).permutation(len(set(patients.tolist()))) % FOLDS)[patients]
    of_folds = [
        Prior.of([of_row for of_row, fold in zip(boxes, folds, strict=True) if fold != left_out])
        for left_out in range(FOLDS)
    ]
    source = {"split": None, "folds": FOLDS, "radiographs_with_boxes": sum(map(bool, boxes))}
    return RowPriors([of_folds[fold] for fold in folds], source)


def _boxes(rows: Dataset) -> list[list[dict[str, Any]]]:
    return true_boxes(rows.select_columns("findings"), label_names(rows)[FINDINGS.name])
