import gzip

import pytest

from litegpt.datasets_scripts.tables import box_numbers, flag, header, read_csv

EDGES = ("x1", "y1", "x2", "y2")


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_rows_come_with_their_file_and_line(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeffid,label\na,"two\nlines"\nb,c\n')
    assert list(read_csv(path, ("id",))) == [
        (f"{path}, line 3", {"id": "a", "label": "two\nlines"}),
        (f"{path}, line 4", {"id": "b", "label": "c"}),
    ]


def test_a_column_is_known_by_its_other_spelling(tmp_path):
    path = write(tmp_path / "a.csv", "id,Other disease\na,1\n")
    ((_, row),) = read_csv(path, ("id", "Other diseases"), {"Other disease": "Other diseases"})
    assert row == {"id": "a", "Other diseases": "1"}


@pytest.mark.parametrize("line", ["a", "a,b,"])
def test_cells_too_few_or_too_many_count_only_where_lines_must_be_whole(tmp_path, line):
    path = write(tmp_path / "a.csv", f"id,label\n{line}\n")
    assert [row["id"] for _, row in read_csv(path, ("id",))] == ["a"]
    with pytest.raises(ValueError, match="line 2: the number of cells is not that of the header"):
        list(read_csv(path, ("id",), whole_lines=True))


def test_a_line_that_ends_before_a_column_that_must_be_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line 2: the line ends before label"):
        list(read_csv(write(tmp_path / "a.csv", "id,label\na\n"), ("id", "label")))


def test_a_table_that_is_missing_lacks_a_column_or_is_no_text_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.csv is missing"):
        list(read_csv(str(tmp_path / "a.csv"), ()))
    with pytest.raises(ValueError, match=r"b\.csv has no column label, view"):
        list(read_csv(write(tmp_path / "b.csv", "id\na\n"), ("id", "label", "view")))
    with pytest.raises(ValueError, match=r"c\.csv is not a CSV file in UTF-8"):
        list(read_csv(write(tmp_path / "c.csv", "id\nä\n", "latin-1"), ("id",)))


def test_a_header_is_read_from_any_file_and_is_empty_where_there_is_none(tmp_path):
    assert header(write(tmp_path / "a.csv", "\ufeffid,label\n")) == ["id", "label"]
    assert header(write(tmp_path / "b.csv", "")) == header(str(tmp_path / "c.csv")) == []
    assert header(write(tmp_path / "d.csv", "ä", "latin-1")) == header(str(tmp_path)) == []


def test_a_packed_table_reads_the_same_and_a_damaged_one_is_named(tmp_path):
    text = "\ufeffid;x\na;1,5\n"
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    rows = [row for _, row in read_csv(str(packed), ("id",))]
    assert rows == [row for _, row in read_csv(write(tmp_path / "a.csv", text), ("id",))] == [{"id": "a", "x": "1.5"}]
    assert header(str(packed)) == ["id", "x"]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(OSError, match=r"a\.csv\.gz is cut off or damaged"):
        list(read_csv(str(packed), ("id",)))
    assert header(str(packed)) == []


@pytest.mark.parametrize(
    ("cells", "box"),
    [(["1", "2.5", " 3", "4e1"], (1, 2.5, 3, 40)), ([""] * 4, None), (["nan"] * 4, None), (["NaN", "", "", ""], None)],
)
def test_a_box_is_four_numbers_or_nothing(cells, box):
    assert box_numbers(dict(zip(EDGES, cells, strict=True)), EDGES, "a.csv, line 2") == box


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["1", "two", "3", "4"], "a box coordinate is no number"),
        (["1", "", "3", "4"], "a box has only some of its coordinates"),
        (["1", "nan", "3", "4"], "a box coordinate is not finite"),
        (["1", "inf", "3", "4"], "a box coordinate is not finite"),
    ],
)
def test_a_box_that_is_neither_is_refused_with_its_line(cells, reason):
    with pytest.raises(ValueError, match=f"^a.csv, line 2: {reason}"):
        box_numbers(dict(zip(EDGES, cells, strict=True)), EDGES, "a.csv, line 2")


def test_a_flag_is_zero_or_one():
    assert [flag(cell, "") for cell in ("", "0", "0.0", "1", "1.0")] == [False, False, False, True, True]
    with pytest.raises(ValueError, match="^a.csv, line 2: an image label is '2', not 0 or 1"):
        flag("2", "a.csv, line 2")
