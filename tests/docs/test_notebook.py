"""The notebook runs from its first cell to its last, with sizes that a test can afford."""

import ast
import json
import os
import subprocess
import sys

import pytest

from tests.docs.checks import LINK, ROOT, link_problem

NOTEBOOK = ROOT / "notebooks" / "from_phantoms_to_a_report.ipynb"
SIZES = {"NUM_TRAIN": 24, "NUM_TEST": 12, "TOWER_STEPS": 2, "STEPS": 2}


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def code_of(cells: list[dict]) -> list[str]:
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def with_values(code: str, values: dict[str, object]) -> str:
    """A cell of plain assignments with other values, each of which it must have."""
    names = [ast.unparse(statement.targets[0]) for statement in ast.parse(code).body]
    assert set(values) == set(names)
    return "\n".join(f"{name} = {values[name]!r}" for name in names)


def test_it_is_in_git_as_it_is_written_not_as_it_ran(cells):
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in code_of(cells):
        ast.parse(cell)  # no magics


def test_its_links_lead_somewhere(cells):
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = LINK.findall(text)
    assert links and [problem for link in links if (problem := link_problem(link, NOTEBOOK))] == []


def test_it_runs_to_a_report_whose_figures_it_shows(cells, tmp_path):
    first, *others = code_of(cells)
    values = {"FOLDER": str(tmp_path / "notebook"), **SIZES}
    program = tmp_path / "notebook.py"
    program.write_text("\n\n".join([with_values(first, values), *others]), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    evaluation = tmp_path / "notebook" / "evaluation"
    assert (evaluation / "report.html").is_file()
    metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("F1 of the diagnoses, micro average")]
    shown = [metrics, *(metrics["controls"][name] for name in ("shuffled", "noise", "black"))]
    assert line.split()[-4:] == [f"{scores['micro_f1']['vqa']:.2f}" for scores in shown]
