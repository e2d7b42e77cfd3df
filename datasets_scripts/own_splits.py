"""A table of one's own beside a release that has no splits, or others: `splits.csv`.

read_own_splits("path/to/open-i", "uid", "study", lambda cell: cell.removeprefix("CXR"))
# {"1": "train", "2": "test"}; None where there is no such table
"""

import os
from collections.abc import Callable

from litegpt.common.addresses import is_file
from litegpt.datasets_scripts.tables import read_csv

SPLITS_FILE, SPLITS = "splits.csv", ("train", "validation", "test")


def read_own_splits(data_dir: str, column: str, what: str, name_of: Callable[[str], str]) -> dict[str, str] | None:
    """{name: split} of a folder's splits.csv; None where it has none.

    Args:
        column: that names what is in a split, beside the column split.
        what: that is, in a word: "image".
        name_of: the name of a cell of the column.

    Raises:
        ValueError: as `read_csv`; a split is none of train, validation and test, or something is in two.
    """
    path = os.path.join(data_dir, SPLITS_FILE)
    if not is_file(path):
        return None
    split_of: dict[str, str] = {}
    for where, row in read_csv(path, (column, "split")):
        if row["split"] not in SPLITS:
            raise ValueError(f"{where}: the split is {row['split']!r}, not one of {', '.join(SPLITS)}.")
        name = name_of(row[column])
        if split_of.setdefault(name, row["split"]) != row["split"]:
            raise ValueError(f"{where}: {what} {name} is in {split_of[name]} too.")
    return split_of
