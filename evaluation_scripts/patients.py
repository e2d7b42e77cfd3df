"""Whose radiographs rows are, and which radiographs and people stand in two splits.

    numbers = patients_of(rows)        # (rows,) numbers from 0 on; None where no patient is known to have two rows
    in_both(rows, train)               # {"radiographs": 0, "patients": 3}: a test that has seen three of its patients
    apart_from(train, rows)            # train without these three patients

In: rows with the column `image_id` and, where the data set declares it, `patient_id`; "" is an unknown patient.
"""

import numpy as np
from datasets import Dataset

from litegpt.metrics.intervals import patient_numbers

COLUMNS = {"radiographs": "image_id", "patients": "patient_id"}


def patients_of(rows: Dataset) -> np.ndarray | None:
    """(rows,) numbers of the rows' patients; None where no patient is known to have two rows."""
    if "patient_id" not in rows.column_names:
        return None
    numbers = patient_numbers([name or "" for name in rows["patient_id"][:]])
    return numbers if len(numbers) and numbers.max() + 1 < len(rows) else None


def in_both(rows: Dataset, others: Dataset) -> dict[str, int]:
    """{"radiographs", "patients"}: how many stand in both; what a split does not tell counts as none."""
    return {
        what: len((set(rows[column][:]) & set(others[column][:])) - {"", None})
        if column in rows.column_names and column in others.column_names
        else 0
        for what, column in COLUMNS.items()
    }


def apart_from(rows: Dataset, others: Dataset) -> Dataset:
    """The rows of which neither the radiograph nor the patient stands among the others."""
    is_apart = np.ones(len(rows), dtype=bool)
    for column in COLUMNS.values():
        if column in rows.column_names and column in others.column_names:
            known = set(others[column][:]) - {"", None}
            is_apart &= [name not in known for name in rows[column][:]]
    return rows.select(np.flatnonzero(is_apart))
