import json
from types import SimpleNamespace

import pytest

from litegpt.benchmarks import run_all
from litegpt.benchmarks.run_all import FOLDER, PROGRAMS, main


def test_every_program_of_the_folder_is_run():
    programs = {file.stem for file in FOLDER.glob("*.py") if "parsed(" in file.read_text() and file.stem != "results"}
    assert programs == set(PROGRAMS)
    for name, has_quick_form in PROGRAMS.items():
        assert ("quick={" in (FOLDER / f"{name}.py").read_text()) == has_quick_form


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """What was started: each program records a figure, the second fails, the third measures nothing."""
    started = []

    def run(command: list[str]) -> SimpleNamespace:
        started.append(command)
        if len(started) != 3:
            with open(command[command.index("--output") + 1], "w") as file:
                json.dump({f"figure_{len(started)}": {"value": 2.0, "unit": "x", "against": "theirs"}}, file)
        return SimpleNamespace(returncode=1 if len(started) == 2 else 0)

    monkeypatch.setattr(run_all.subprocess, "run", run)
    return started


def test_a_program_that_fails_is_named_and_the_others_go_on(commands, tmp_path, capsys):
    path = tmp_path / "bench.json"
    names = ["scoring", "load_vs_llava", "jump_ahead", "train_vs_stock"]
    assert main(str(path), quick=True, programs=names) == 1
    assert [command[1] for command in commands] == [str(FOLDER / f"{name}.py") for name in names]
    assert ["--quick" in command for command in commands] == [False, True, True, True]
    assert list(json.loads(path.read_text())) == ["figure_1", "figure_2", "figure_4"]
    printed = capsys.readouterr().out
    assert "=== 3 of 4: jump_ahead ===" in printed and "FAILED with status 1" in printed
    assert "nothing was measured" in printed and printed.endswith("Failed: load_vs_llava\n")
    table = printed[printed.index("program ") :]
    assert "figure_4: 2.00 x against theirs" in table


def test_where_all_goes_well_the_status_is_0_and_the_long_form_is_run(commands, tmp_path):
    assert main(str(tmp_path / "bench.json"), quick=False, programs=["load_vs_llava"]) == 0
    assert "--quick" not in commands[0]
