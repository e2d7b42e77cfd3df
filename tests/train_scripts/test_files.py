import json

import pytest
from datasets.exceptions import DatasetGenerationError

from train_scripts.files import complete_lines, refuse_bad_input, write_text


def test_a_line_that_was_cut_off_is_removed_from_the_file(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert complete_lines(path) == []
    path.write_text('{"a": 1}\n{"b": 2}\n{"c"')
    assert complete_lines(path) == [{"a": 1}, {"b": 2}]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"b": 2}]


def test_a_failed_write_leaves_the_older_file(tmp_path):
    path = tmp_path / "below" / "file.txt"
    write_text(path, "older")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "older"


@pytest.mark.parametrize("error", [FileNotFoundError("x.csv is missing."), ValueError("x.csv is missing.\nMore.")])
def test_bad_input_ends_the_program_with_one_sentence(error):
    with pytest.raises(SystemExit, match=r"^x\.csv is missing\.$"), refuse_bad_input():
        raise error


def test_the_reason_behind_a_failed_preparation_is_told():
    with pytest.raises(SystemExit, match="^its picture is damaged$"), refuse_bad_input():
        raise DatasetGenerationError("An error occurred") from ValueError("its picture is damaged")
