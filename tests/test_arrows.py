"""The house: which folder may import which. An arrow that runs back up makes light programs heavy and ties knots."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up: a folder imports those of lower floors, and itself.
FLOORS = (
    {"processing", "metrics", "dicom_output"},
    {"common"},
    {"datasets_scripts"},
    {"modeling_litegpt"},
    {"modeling_towers"},
    {"inference_scripts", "evaluation_scripts"},
    {"train_scripts", "hub", "litegpt"},
    {"benchmarks"},
)
FLOOR = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
# Training watches itself by the figures of an evaluation; an evaluation never trains in its own process.
FILES = sorted(path for folder in FLOOR for path in (ROOT / folder).rglob("*.py"))


def imported_folders(path: Path) -> set[str]:
    """The folders of ours that a file imports, also within functions."""
    folders = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        folders |= {name.split(".")[1] for name in names if name.startswith("litegpt.")}
    return folders & FLOOR.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_runs_back_up(path):
    folder = path.relative_to(ROOT).parts[0]
    others = imported_folders(path) - {folder}
    assert [other for other in others if FLOOR[other] >= FLOOR[folder]] == []


def test_what_travels_with_a_checkpoint_imports_siblings_alone():
    networks = [*ROOT.glob("modeling_*/modeling_*.py"), *ROOT.glob("modeling_*/configuration_*.py")]
    for path in [*(ROOT / "processing").glob("*.py"), *networks]:
        assert "litegpt." not in "".join(
            ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import) or isinstance(node, ast.ImportFrom) and node.level == 0
        ), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_a_library_or_of_ours_is_imported_by_an_underscored_name(path):
    allowed = {"_pytree", "_python_dispatch", "_subclasses"}  # torch's own way to count memory: memory_per_gpu.py
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
            private = {name for name in names if name.startswith("_") and not name.endswith("__")}
            assert private <= allowed, ast.unparse(node)
