"""Rows of several data sets in one, for a training that asks each what it tells.

    rows = joined_rows(load_rows("prepared/vindr-cxr", "train"), {"prepared/vqa-rad": load_rows(...), ...})
    # Beside findings and diagnoses of the first, what the others say in words: phrases, reports, questions, chats.

The class numbers are the first one's. A data set with other labels keeps its words and its pictures; its findings and
diagnoses, and what else is told in its labels, are left out, as nobody knows which label of the one is which of the
other. A column that a data set does not have is null in its rows.
"""

from collections.abc import Mapping

from datasets import Dataset, concatenate_datasets

LABELLED = ("findings", "diagnoses")
ALSO_LABELLED = ("mentioned", "image_labels", "readings")  # optional columns with class numbers


def joined_rows(rows: Dataset, others: Mapping[str, Dataset]) -> Dataset:
    """One table of them all, those of `rows` first; says of which data set the labels are left out.

    Args:
        others: by the data set's name, for that sentence.
    """
    parts = [rows]
    for name, other in others.items():
        if any(other.features[column] != rows.features[column] for column in LABELLED):
            print(f"{name}: its labels are not the checkpoint's; its words are used, its findings and diagnoses not.")
            other = other.remove_columns([column for column in ALSO_LABELLED if column in other.column_names])
            for column in LABELLED:
                nothing: list[list] = [[] for _ in range(len(other))]
                other = other.remove_columns(column).add_column(column, nothing, feature=rows.features[column])
        parts.append(other)
    return concatenate_datasets(parts) if others else rows
