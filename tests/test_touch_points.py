"""The code that travels with checkpoints uses nothing of transformers that `touch_points.py` does not list."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from tests.versions.touch_points import OTHERS, SERVERS_HOOKS, TOUCH_POINTS, missing

ROOT = Path(__file__).resolve().parents[1]
TRAVELLING = [
    "modeling_litegpt/configuration_litegpt.py",
    "modeling_litegpt/modeling_litegpt.py",
    "modeling_litegpt/modeling_detector.py",
    "modeling_towers/configuration_cxr_clip.py",
    "modeling_towers/modeling_cxr_clip.py",
    "modeling_towers/tower_network.py",
    "modeling_towers/checked_model.py",
    "modeling_towers/configuration_ecamp.py",
    "modeling_towers/modeling_ecamp.py",
    "modeling_towers/configuration_classifier.py",
    "modeling_towers/modeling_classifier.py",
    *(f"processing/{path.name}" for path in sorted((ROOT / "processing").glob("*.py"))),
]


def test_the_installed_transformers_has_every_touch_point():
    assert missing() == []


@pytest.mark.parametrize("file", TRAVELLING)
def test_what_is_imported_is_listed_or_offered_by_transformers_itself(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.partition(".")[0] == "transformers"
        for alias in node.names
        if node.module != "transformers"
    }
    assert imported <= TOUCH_POINTS.keys()
    assert not [name for name in imported if name.rpartition(".")[2].startswith("_")]


@pytest.mark.parametrize("file", TRAVELLING)
def test_underscored_attributes_of_others_are_listed(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "state"))
    }
    listed = {name.rpartition(".")[2] for name in [*TOUCH_POINTS, *OTHERS]}
    assert read - own <= listed


@pytest.mark.parametrize("file", TRAVELLING)
def test_overridden_underscored_members_are_listed(file):
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    listed = {name.rpartition(".")[2] for name in TOUCH_POINTS} | SERVERS_HOOKS.keys()
    for name, ours in inspect.getmembers(module, inspect.isclass):
        if ours.__module__ != module.__name__:
            continue
        library = [base for base in ours.__mro__[1:] if base.__module__.startswith("transformers")]
        own = {member for member in vars(ours) if member.startswith("_") and not member.startswith("__")}
        overridden = {member for member in own if any(member in vars(base) for base in library)}
        # What the library's metaclasses and decorators write into every class is not ours.
        overridden -= {"_auto_class", "_abc_impl", "_registered_impl"}
        assert overridden <= listed, name
