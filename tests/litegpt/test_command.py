"""The `litegpt` command: every program under one name, and nothing imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from litegpt.command import COMMANDS, main, overview

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "evaluate")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_opens_with_it_and_imports_nothing_heavy(name):
    check = f"finally: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    code = f"import sys\ntry:\n    from litegpt.command import main\n    main({[*name.split(), '--help']})\n{check}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert f"usage: litegpt {name}" in done.stdout and f"litegpt {name} " in done.stdout.partition("options:")[0]
    options = done.stdout.partition("options:")[2]
    for dataclass in COMMANDS[name].argument_classes():
        for field in dataclass.__dataclass_fields__.values():
            assert field.metadata["help"], field.name
            assert f"--{field.name} " in options or f"--{field.name}\n" in options or field.metadata.get("positional")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_is_a_program_that_also_runs_as_a_file(command):
    tree = ast.parse((ROOT / command.file).read_text(encoding="utf-8"))
    main_function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert "program" in [decorator.id for decorator in main_function.decorator_list]
    assert isinstance(tree.body[-1], ast.If) and ast.unparse(tree.body[-1].test) == "__name__ == '__main__'"


def test_the_overview_has_a_line_for_each_command():
    assert all(f"  {name} " in overview() and command.summary in overview() for name, command in COMMANDS.items())
    assert "vindr-cxr" in overview("prepare") and "predict" not in overview("prepare")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluat"], "litegpt: there is no command evaluat; did you mean evaluate?"),
        (["prepare", "vindr"], "litegpt: there is no command prepare vindr; did you mean prepare vindr-cxr?"),
        (["xyz"], "litegpt: there is no command xyz; litegpt --help lists them"),
    ],
)
def test_an_unknown_command_is_one_sentence_and_a_status(words, sentence, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.strip() == sentence


def test_without_a_command_it_says_which_there_are(capsys):
    for words in ([], ["--help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("usage: litegpt COMMAND")
    assert main(["prepare"]) == 0 and "chestx-ray14" in capsys.readouterr().out


def test_predict_does_not_import_peft_for_a_checkpoint(tiny_checkpoint, radiographs, tmp_path):
    radiographs[0].save(tmp_path / "a.png")
    words = ["predict", "--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path / "out")]
    code = f"import sys; from litegpt.command import main; main({[*words, str(tmp_path / 'a.png')]}); "
    code += "print([m for m in ('peft', 'trl', 'evaluate', 'litegpt.train_scripts') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_checkpoint_that_is_not_there_is_one_sentence_with_a_suggestion(tiny_checkpoint, radiographs, tmp_path):
    radiographs[0].save(tmp_path / "a.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint").symlink_to(tiny_checkpoint)

    def ending(name: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(
                ["predict", "--model_name_or_path", name, "--output_dir", str(tmp_path / "o"), str(tmp_path / "a.png")]
            )
        return str(stop.value.code)

    assert "make demo" in ending("outputs/nothing/checkpoint")
    assert ending(str(tmp_path / "run")).endswith(f"did you mean {tmp_path / 'run' / 'checkpoint'}?")
    assert f"did you mean {tmp_path / 'run'}?" in ending(str(tmp_path / "runs"))
    assert "is a file" in ending(str(tmp_path / "a.png"))


def test_a_command_whose_extra_is_missing_says_so_in_one_sentence(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("litegpt.inference_scripts.node", "pynetdicom"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    words = ["--model_name_or_path", "x", "--spool", "x", "--calling_ae_titles", "A", "--pacs", "A@h:1"]
    sentence = r"^litegpt node needs pynetdicom, of the extra dicom \(pip install pynetdicom\)\.$"
    with pytest.raises(SystemExit, match=sentence):
        main(["node", *words])
