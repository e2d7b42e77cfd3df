"""Rows of several data sets in one, for a training that asks each what it tells.

    rows = joined_rows(load_rows("prepared/vindr-cxr", "train"), [load_rows("prepared/vqa-rad", "train")])
    # Beside findings and diagnoses of the first, what the others say in words: phrases, reports, questions, chats.

The class numbers are the first one's. A data set with other labels keeps its words and its pictures; its findings and
diagnoses, and what else is told in its labels, are left out, as nobody knows which label of the one is which of the
other. A column that a data set does not have is null in its rows.
"""

from collections.abc import Sequence

from datasets import Dataset, concatenate_datasets

LABELLED = ("findings", "diagnoses")
IDS = ("study_id", "patient_id")
ALSO_LABELLED = ("mentioned", "image_labels", "readings")  # optional columns with class numbers


def has_other_labels(rows: Dataset, other: Dataset) -> bool:
    """Whether class numbers of the other data set mean other labels than those of `rows`."""
    return any(other.features[column] != rows.features[column] for column in LABELLED)


def joined_rows(rows: Dataset, others: Sequence[Dataset]) -> Dataset:
    """One table of them all, those of `rows` first."""
    parts = [rows]
    for number, other in enumerate(others, start=1):
        for column in IDS:
            if column in other.column_names:  # "1" of two data sets is not the same study
                ids = [f"{number}/{name}" for name in other[column]]
                other = other.remove_columns(column).add_column(column, ids)
        if has_other_labels(rows, other):
            other = other.remove_columns([column for column in ALSO_LABELLED if column in other.column_names])
            for column in LABELLED:
                nothing: list[list] = [[] for _ in range(len(other))]
                other = other.remove_columns(column).add_column(column, nothing, feature=rows.features[column])
        parts.append(other)
    return concatenate_datasets(parts) if others else rows
