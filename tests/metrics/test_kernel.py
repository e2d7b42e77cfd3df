"""The files of metrics/ that compute and are no `evaluate` module."""

import subprocess
import sys
from pathlib import Path

import pytest

METRICS = Path(__file__).parents[2] / "metrics"
KERNEL = sorted(path.stem for path in METRICS.glob("*.py"))
MODULES = sorted(path.name for path in METRICS.iterdir() if (path / f"{path.name}.py").is_file())


def test_the_kernel_needs_numpy_alone():
    """`evaluate` alone would import transformers and torch, and take seconds."""
    assert set(KERNEL) >= {"boxes", "intervals", "labels", "probabilities"}
    script = f"""
import importlib, sys
at_start = set(sys.modules)
for name in {KERNEL}:
    importlib.import_module("litegpt.metrics." + name)
print(*set(sys.modules) - at_start)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    ours = {name for name in imported if name.startswith("litegpt.")}
    assert ours == {"litegpt.metrics", *(f"litegpt.metrics.{name}" for name in KERNEL)}
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"litegpt", "numpy"}


@pytest.mark.parametrize("name", MODULES)
def test_a_card_says_what_its_module_needs(name):
    text = (METRICS / name / "README.md").read_text()
    assert "`pip install .` in a clone of this repository" in text.split("## How to use")[1].split("```")[0]
