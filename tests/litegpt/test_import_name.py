"""One import name, `litegpt.FOLDER`: in a clone, as a file, with -m, from a wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import litegpt

ROOT = Path(__file__).resolve().parents[2]
WHERE = "import litegpt.processing.tasks, litegpt.common.files as f, litegpt.metrics.intervals; print(f.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Of a copy: setuptools leaves a folder `build` where it builds.
    copied = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in copied.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run([*command, "-w", str(folder)], cwd=folder / "source", check=True, capture_output=True)
    return next(folder.glob("litegpt-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    """A folder with what the wheel installs, for PYTHONPATH."""
    folder = wheel.with_name("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(*command: str, path: Path, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_wheel_installs_one_name_with_all_that_it_needs_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"litegpt"}
    assert not [name for name in names if "/tests/" in name or "/benchmarks/" in name]
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and f"litegpt/{folder.name}/" in " ".join(names)]
    assert {"processing", "metrics", "common", "hub"} <= {folder.name for folder in folders}
    for folder in folders:
        for kind in ("*.py", "*.jinja", "*.yaml", "*.json"):
            for file in folder.rglob(kind):
                name = str(file.relative_to(ROOT))
                assert f"litegpt/{name}" in names or folder.name == "litegpt" and name in names, name


def test_the_command_in_a_wheel_has_a_line_for_each_program(wheel):
    archive = zipfile.ZipFile(wheel)
    entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "litegpt = litegpt.command:main" in archive.read(entry_points).decode()


def test_a_wheel_imports_its_own_files_as_module_and_as_program(installed, tmp_path):
    assert run("-c", WHERE, path=installed, cwd=tmp_path) == str(installed / "litegpt" / "common" / "files.py")
    assert "predict" in run("-m", "litegpt", "--help", path=installed, cwd=tmp_path)
    help_of_predict = run("-m", "litegpt", "predict", "--help", path=installed, cwd=tmp_path)
    assert "Findings, boxes and diagnoses of radiographs" in help_of_predict
    assert "Going" not in help_of_predict and "--contact_sheet" in help_of_predict
    program = installed / "litegpt" / "modeling_litegpt" / "new_checkpoint.py"
    run(str(program), "--config", "tiny", "--output_dir", str(tmp_path / "new"), path=installed, cwd=tmp_path)
    assert (tmp_path / "new" / "processing_litegpt.py").is_file()


def test_a_clone_imports_its_own_files_whatever_is_installed(installed, tmp_path):
    assert run("-c", WHERE, path=ROOT, cwd=tmp_path) == str(ROOT / "common" / "files.py")
    (tmp_path / "elsewhere").mkdir()
    assert "vindr-cxr" in run("-m", "litegpt", "prepare", path=ROOT, cwd=tmp_path / "elsewhere")
    program = str(ROOT / "metrics" / "intervals.py")
    assert run("-c", f"import runpy; runpy.run_path({program!r})", path=ROOT, cwd=tmp_path) == ""


def test_the_lazy_names_of_the_package_are_there(monkeypatch):
    assert set(litegpt.API) <= set(dir(litegpt))
    for name in litegpt.API:
        assert getattr(litegpt, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        litegpt.load_everything  # noqa: B018
