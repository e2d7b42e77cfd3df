import argparse
import json

import pytest

from litegpt.benchmarks.results import parsed, record


def options(*arguments: str, quick: dict | None = None) -> dict:
    parser = argparse.ArgumentParser(prog="speed.py")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 32])
    return parsed(
        parser, "ours, against theirs", seconds=240, quick=quick, quick_seconds=40.4, arguments=list(arguments)
    )


QUICK = {"repeats": 3, "sizes": [1]}


def test_a_program_begins_with_what_it_measures_and_how_long_that_takes(capsys):
    assert options() == {"repeats": 11, "sizes": [1, 32], "output": "outputs/bench.json"}
    assert capsys.readouterr().out == "speed.py: ours, against theirs. About 4 min on two CPU cores.\n"
    options(quick=QUICK)
    assert "About 4 min on two CPU cores (--quick is shorter)." in capsys.readouterr().out


def test_quick_sets_what_the_command_line_does_not(capsys):
    assert options("--quick", quick=QUICK) == {"repeats": 3, "sizes": [1], "output": "outputs/bench.json"}
    assert "About 40 s on two CPU cores (--quick)." in capsys.readouterr().out
    assert options("--quick", "--repeats", "7", quick=QUICK)["repeats"] == 7


def test_a_program_without_a_quick_form_has_no_such_flag():
    with pytest.raises(SystemExit):
        options("--quick")


def test_results_of_several_programs_are_merged_and_newer_ones_replace_older_ones(tmp_path):
    path = tmp_path / "below" / "bench.json"
    record(path, {"a": {"value": 1.0, "unit": "x", "against": "b"}, "c": {"value": 2.0, "unit": "s", "against": "d"}})
    record(path, {"a": {"value": 3.0, "unit": "x", "against": "b"}})
    results = json.loads(path.read_text())
    assert results["a"]["value"] == 3.0 and results["c"]["value"] == 2.0
