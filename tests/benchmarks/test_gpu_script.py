import importlib.metadata
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from litegpt.benchmarks.gpu_report import (
    HEADING,
    NOT_YET,
    REPORT,
    STATE,
    answers_a_second,
    append,
    begin,
    collect,
    newest,
)

ROOT = Path(__file__).parents[2]
# In the place of Python: what writes the report is real; of the measurements one fails and one hangs.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
*"-m pip"*) exit 1 ;;
*gpu_report.py*) exec {python} "$@" ;;
esac
echo "$*" >> {calls}
case "$*" in
*jump_compiled*) exit 3 ;;
*gpu_training*) exec sleep 60 ;;
esac
while [ "$1" != --output ]; do shift; done
echo '{{"generation/speed": {{"value": 30.0, "unit": "tokens/s", "against": "no reference"}}}}' > "$2"
"""


@pytest.fixture
def no_gpu_path(tmp_path) -> str:
    """A PATH on which `nvidia-smi` fails, as where there is no GPU."""
    program(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def gpu(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(ROOT / "benchmarks" / "gpu.sh"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_parts_that_hang_or_fail_stop_no_other_and_time_that_is_up_is_said(tmp_path, no_gpu_path):
    calls = tmp_path / "calls"
    python = program(tmp_path / "python", STAND_IN.format(python=sys.executable, calls=calls))
    report = REPORT.read_text()
    settings = {"PATH": no_gpu_path, "PYTHON": str(python), "OUT": str(tmp_path / "out")}
    process = gpu("run", str(tmp_path / "no wheels"), SECONDS_IN_ALL="9", **settings)
    assert process.returncode == 1
    assert "could not be installed" in process.stdout and "No GPU here" in process.stdout
    measured = json.loads((tmp_path / "out" / "gpu.json").read_text())
    outcomes = {part["name"]: part["outcome"].split(" in ")[0] for part in measured["parts"]}
    assert outcomes == {
        "decoding": "done",
        "compiled jumps": "failed with status 3",
        "LoRA training": "not finished",
        "towers": "no time left",
        "compiled decoding": "no time left",
        "pixels": "no time left",
        "compiled towers": "no time left",
    }
    assert (
        measured["card"] == "CPU"
        and measured["before"] == measured["after"] == {}
        and measured["figures"]["generation/speed"]["value"] == 30
    )
    assert "--architecture tiny" in calls.read_text()
    assert "=== compiled jumps: failed with status 3" in (tmp_path / "out" / "gpu.log").read_text()
    assert REPORT.read_text() == report  # of a GPU's figures alone


def test_card_clocks_and_releases_are_noted_before_and_after(tmp_path, monkeypatch):
    # In the place of nvidia-smi: as many values as it is asked for, the first two with a name.
    answer = 'echo "$1" | tr "," "\\n" | awk \'{printf "%s%s", sep, "value " NR; sep=", "} END {print ""}\'\n'
    program(tmp_path / "bin" / "nvidia-smi", f"#!/bin/sh\n{answer}")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "parts.tsv").write_text("decoding\t70\tdone\n")
    begin(tmp_path)
    collect(tmp_path, tmp_path / "gpu.json")
    measured = json.loads((tmp_path / "gpu.json").read_text())
    assert (measured["card"], measured["driver"]) == ("value 1", "value 2")
    assert list(measured["before"]) == list(measured["after"]) == list(STATE)
    assert measured["releases"]["torch"] == importlib.metadata.version("torch") and "CUDA" in measured["releases"]


@pytest.mark.slow
def test_the_tiny_forms_run_on_a_cpu(tmp_path, no_gpu_path):
    process = gpu("run", PATH=no_gpu_path, PYTHON=sys.executable, OUT=str(tmp_path))
    assert process.returncode == 0, process.stdout[-3000:]
    figures = json.loads((tmp_path / "gpu.json").read_text())["figures"]
    for name in ("generation/tiny/batch_2/eager/speed", "generation/tiny/batch_2/jump_ahead/gain"):
        assert figures[name]["value"] > 0
    assert figures["training/tiny/bfloat16/pixels/sdpa/speed"]["value"] > 0
    for mode in ("eager", "compiled"):
        assert figures[f"towers/tiny/ecamp/{mode}/speed"]["value"] > 0
    assert figures["pixels/jpeg2000/2_processes"]["value"] > 0


def test_without_a_word_it_says_what_it_does():
    process = gpu()
    assert process.returncode == 2 and "benchmarks/gpu.sh wheels" in process.stdout


def test_the_report_gets_a_section_for_each_run(tmp_path):
    path, report = tmp_path / "gpu.json", tmp_path / "GPU.md"
    report.write_text(HEADING + NOT_YET)
    for date in ("2026-12-01", "2026-12-02"):
        releases = {"CUDA": "13.0", "torch": "2.11.0"}
        measured = {"date": date, "card": "A card", "driver": "580", "cores": "16", "releases": releases}
        measured |= {"before": {"SM": "345 MHz"}, "after": {"SM": "1980 MHz"}}
        parts = [{"name": "decoding", "seconds": 70, "outcome": "done"}]
        figures = {"speed": {"value": 31.42, "unit": "tokens/s", "against": "no reference"}}
        path.write_text(json.dumps({**measured, "parts": parts, "figures": figures}))
        append(path, report)
    text = report.read_text()
    assert text.startswith(HEADING + "## A card, 2026-12-01\n") and "## A card, 2026-12-02" in text
    assert NOT_YET not in text
    assert "Driver 580, CUDA 13.0, torch 2.11.0; 16 cores. decoding: done, 70 s." in text
    assert "The card before it: SM 345 MHz" in text and "The card after it: SM 1980 MHz" in text
    assert text.count("| speed | 31.4 | tokens/s | no reference |") == 2


def test_answers_a_second_count_before_tokens_a_second_and_other_decoding_not_at_all():
    figures = {
        "generation/litegpt/batch_32/compiled/speed": {"value": 6400.0, "unit": "tokens/s"},
        "generation/litegpt/batch_32/jump_ahead/speed": {"value": 3200.0, "unit": "tokens/s"},
    }
    assert answers_a_second(figures)[0] == 50
    figures["generation/litegpt/batch_32/jump_ahead/images"] = {"value": 40.0, "unit": "images/s"}
    assert answers_a_second(figures)[0] == 40
    assert answers_a_second({}) is None


def test_the_figures_of_the_last_section_are_read_back(tmp_path):
    title, figures = newest(REPORT)
    assert title == REPORT.read_text().rpartition("\n## ")[2].splitlines()[0]
    assert figures["generation/litegpt/batch_32/jump_ahead/speed"]["unit"] == "tokens/s"
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"card": "A card", "date": "2026-12-01", "figures": figures}))
    assert newest(path) == ("A card, 2026-12-01", figures)
