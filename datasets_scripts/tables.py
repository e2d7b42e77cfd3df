"""CSV tables of data sets: rows of text, boxes and flags in their cells; what is wrong is named by file and line.

for where, row in read_csv("annotations_train.csv", ("image_id", "x_min", "y_min", "x_max", "y_max")):
    row["image_id"]                                                    # "a1"
    box_numbers(row, ("x_min", "y_min", "x_max", "y_max"), where)      # (950.0, 1560.0, 2025.0, 2220.0), or None
"""

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence

NO_SPELLINGS: Mapping[str, str] = {}


def header(path: str) -> list[str]:
    """The column names of a CSV; none where there is no such file or it is no text."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read_csv(
    path: str, columns: Sequence[str], spellings: Mapping[str, str] = NO_SPELLINGS, whole_lines: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """("PATH, line N", row) of a CSV that must have `columns`; a byte order mark is no part of the first name.

    Args:
        columns: they must be in the header, and each line must have a cell for them.
        spellings: {a column's name in some releases: its name in the rows}.
        whole_lines: whether each line must have as many cells as the header. Copies of some tables differ in how many
            empty cells end the header and the lines.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column or a cell of it is missing, or the file is not CSV text.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is missing.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [spellings.get(name, name) for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in reader.fieldnames]
            if missing:
                raise ValueError(f"{path} has no column {', '.join(missing)}.")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if whole_lines and (None in row or None in row.values()):  # marks of surplus and of missing cells
                    raise ValueError(f"{where}: the number of cells is not that of the header.")
                empty = [column for column in columns if row[column] is None]
                if empty:
                    raise ValueError(f"{where}: the line ends before {empty[0]}.")
                yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}.") from error


def box_numbers(
    row: Mapping[str, str], columns: Sequence[str], where: str
) -> tuple[float, float, float, float] | None:
    """The four numbers of a box, or None where its cells are empty (or NaN, as pandas writes).

    Raises:
        ValueError: a cell is no number or not finite, or only some are empty.
    """
    cells = [row[column].strip() for column in columns]
    try:
        a, b, c, d = (float(cell or "nan") for cell in cells)
    except ValueError as error:
        raise ValueError(f"{where}: a box coordinate is no number ({error}).") from error
    numbers = (a, b, c, d)
    if all(math.isnan(number) for number in numbers):
        return None
    if "" in cells:
        raise ValueError(f"{where}: a box has only some of its coordinates.")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{where}: a box coordinate is not finite.")
    return numbers


def flag(cell: str, where: str) -> bool:
    """Whether a cell of 0 or 1 (or 0.0, 1.0, as pandas writes) marks its label; an empty cell does not.

    Raises:
        ValueError: another cell.
    """
    if cell not in ("", "0", "1", "0.0", "1.0"):
        raise ValueError(f"{where}: an image label is {cell!r}, not 0 or 1.")
    return cell.startswith("1")
