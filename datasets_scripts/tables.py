"""CSV tables of data sets: rows of text, boxes and flags in their cells; what is wrong is named by file and line.

for where, row in read_csv("annotations_train.csv", ("image_id", "x_min", "y_min", "x_max", "y_max")):
    row["image_id"]                                                    # "a1"
    box_numbers(row, ("x_min", "y_min", "x_max", "y_max"), where)      # (950.0, 1560.0, 2025.0, 2220.0), or None

Tables that Excel or pandas saved again read the same: with a byte order mark or in UTF-16, cells separated by commas,
semicolons or tabs, decimal commas, blanks around cells, names in another case, empty columns and lines at the end; and
so do tables that are packed as .gz.
"""

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

from litegpt.common.addresses import is_file, open_address

NO_SPELLINGS: Mapping[str, str] = {}
DELIMITERS = ",;\t"
# 12,5 is 12.5 where commas do not separate cells; where they do, 1,234 may be a thousand.
DECIMAL_COMMA = {",": r"[+-]?\d+,(?!\d{3}$)\d+", ";": r"[+-]?\d+,\d+", "\t": r"[+-]?\d+,\d+"}
GZIP = b"\x1f\x8b"  # how a .gz begins
EMPTY_CELLS = ("", "null", "none", "na", "n/a", "#n/a", "<na>")
FLAGS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def plain(name: str) -> str:
    """A column's name or a label without what people and programs change in it: "Lung_Opacity " -> "lung opacity"."""
    return " ".join(name.replace("_", " ").split()).casefold()


def read_text(path: str) -> str:
    """A file's text in UTF-8, or in UTF-16 behind its byte order mark, as Excel's "Unicode text" has it; or of a .gz.

    Raises:
        OSError: it cannot be read, or unpacked.
        UnicodeError: it is neither.
    """
    with open_address(path) as file:
        data = file.read()
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise OSError(f"{path} is cut off or damaged: {error}.") from None
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def delimiter_of(text: str) -> str:
    """What separates the cells of a CSV: that of `DELIMITERS` by which its first line has the most cells."""
    first_line = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").partition("\n")[0])
    return max(DELIMITERS, key=first_line.count)


def header(path: str) -> list[str]:
    """The column names of a CSV; none where there is no such file or it is no text."""
    try:
        text = read_text(path)
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text)), [])
    except (OSError, UnicodeError, csv.Error):
        return []
    return [name.strip() for name in names]


def has_columns(path: str, columns: Sequence[str]) -> bool:
    """Whether a CSV has all of these columns, in any case."""
    return {plain(column) for column in columns} <= {plain(name) for name in header(path)}


def read_csv(
    path: str,
    columns: Sequence[str],
    spellings: Mapping[str, str] = NO_SPELLINGS,
    whole_lines: bool = False,
    optional: Sequence[str] = (),
) -> Iterator[tuple[str, dict[str, str]]]:
    """("PATH, line N", row) of a CSV that must have `columns`; cells come without the blanks around them.

    Lines without any text are no rows.

    Args:
        columns: they must be in the header, in any case, and each line must have a cell for them.
        spellings: {a column's name in some releases: its name in the rows}.
        whole_lines: whether each line must have a cell for each column that has a name, and none beyond the header.
            Copies of some tables differ in how many empty cells end the header and the lines.
        optional: columns that rows have under this name where the table has them, in any case.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column or a cell of it is missing, a column stands twice, or the file is not CSV text.
    """
    if not is_file(path):
        raise FileNotFoundError(f"{path} is missing.")
    known = {plain(name): name for name in (*columns, *optional)}
    known |= {plain(name): own for name, own in spellings.items()}
    try:
        text = read_text(path)
        delimiter = delimiter_of(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        names = [known.get(plain(name), name.strip()) for name in next(reader, [])]
        missing = [column for column in columns if column not in names]
        if missing:
            there = ", ".join(filter(None, names)) or "no columns"
            raise ValueError(f"{path} has no column {', '.join(missing)}: it has {there}.")
        twice = [column for column in known.values() if names.count(column) > 1]
        if twice:
            raise ValueError(f"{path} has the column {twice[0]} twice.")
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            where = f"{path}, line {reader.line_num}"
            if whole_lines and (len(cells) > len(names) or any(names[len(cells) :])):
                raise ValueError(f"{where}: the number of cells is not that of the header.")
            row = dict(zip(names, cells, strict=False))
            short = [column for column in columns if column not in row]
            if short:
                raise ValueError(f"{where}: the line ends before {short[0]}.")
            comma = DECIMAL_COMMA[delimiter]
            yield (
                where,
                {
                    name: cell.replace(",", ".") if "," in cell and re.fullmatch(comma, cell) else cell
                    for name, cell in row.items()
                },
            )
    except (UnicodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}.") from error


def box_numbers(
    row: Mapping[str, str], columns: Sequence[str], where: str
) -> tuple[float, float, float, float] | None:
    """The four numbers of a box, or None where its cells are empty (or NaN, NULL and the like, as programs write).

    Raises:
        ValueError: a cell is no number or not finite, or only some are empty.
    """
    cells = [row[column].strip() for column in columns]
    cells = ["" if cell.casefold() in EMPTY_CELLS else cell for cell in cells]
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
    """Whether a cell of 0 or 1 (or 0.0, 1.0, True, False, as programs write) marks its label; an empty cell does not.

    Raises:
        ValueError: another cell.
    """
    marks = FLAGS.get(cell.casefold())
    if marks is None:
        raise ValueError(f"{where}: an image label is {cell!r}, not 0 or 1.")
    return marks
