import errno
import json
import os
import signal

import pytest
from datasets.exceptions import DatasetGenerationError

from litegpt.common.addresses import StoreError
from litegpt.common.files import complete_lines, write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input, stopped_by_sigterm


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


def ended(error: BaseException) -> SystemExit:
    @program
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value


def test_ctrl_c_ends_a_program_with_its_status_and_a_sentence(capsys):
    assert ended(KeyboardInterrupt()).code == 130
    assert capsys.readouterr().err.strip() == "Stopped. The same command resumes."


def test_sigterm_is_as_ctrl_c_where_a_program_says_so():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stopped_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_person_can_mend_is_one_sentence_wherever_it_is_found():
    assert ended(Refusal("x.csv: the split has no rows.")).code == "x.csv: the split has no rows."
    full = OSError(errno.ENOSPC, "No space left on device", "out/metrics.json")
    assert ended(full).code == "out/metrics.json: the disk is full."
    assert ended(PermissionError(errno.EACCES, "Permission denied", "out")).code == "out: there is no permission."


@pytest.mark.parametrize("bug", [ValueError("x"), KeyError("x"), OSError("x")])
def test_a_bug_keeps_its_traceback(bug):
    @program
    def main() -> None:
        raise bug

    with pytest.raises(type(bug)):
        main()


def test_a_store_that_cannot_be_used_is_one_sentence_wherever_it_is_found():
    assert str(ended(StoreError("s3://bucket/a: there is no permission."))) == "s3://bucket/a: there is no permission."
