"""Arguments of a program: from flags, from a YAML file, and what is refused in one sentence."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from litegpt.common.arguments import Count, Place, Share, argument, check_numbers, configuration_file, parse


@dataclass
class Arguments:
    files: list[str] = argument("Files.", positional=True)
    output_dir: str = argument("Where to.")
    batch_size: Count = argument("Together.", default=8)
    share: Share | None = argument("Of 100 %.", default=None)
    tasks: list[str] = argument("What to ask.", default=["identify", "vqa"], choices=["identify", "vqa", "grounding"])
    order: Literal["label", "position"] = argument("Of boxes.", default="label")
    constrained: bool = argument("Or as they come.", default=True)
    quiet: bool = argument("Says nothing.", default=False)
    sizes: dict[str, Any] = argument("Of the network.", default={})


def parsed(*words: str) -> Arguments:
    (arguments,) = parse([Arguments], words, "litegpt test", "A test.")
    return arguments


def refusal(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parsed(*words)
    assert stop.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence.strip()


def test_flags_are_those_of_the_librarys_parser():
    arguments = parsed(
        "a", "b", "--output-dir", "out", "--batch_size=4", "--tasks", "vqa", "--quiet", "--sizes", '{"a": 1}'
    )
    assert (arguments.files, arguments.output_dir, arguments.batch_size) == (["a", "b"], "out", 4)
    assert (arguments.tasks, arguments.quiet, arguments.constrained, arguments.sizes) == (
        ["vqa"],
        True,
        True,
        {"a": 1},
    )
    for words in (["--constrained", "false"], ["--no_constrained"], ["--no-constrained"]):
        assert parsed("a", "--output_dir", "out", *words).constrained is False
    assert parsed("a", "--output_dir", "out", "--quiet", "true", "--constrained").quiet is True
    assert parsed("--output_dir", "out", "--constrained", "a.png").files == ["a.png"]
    assert parsed("a", "--output_dir", "--multi_gpu --num_processes 2").output_dir == "--multi_gpu --num_processes 2"


def test_defaults_are_not_shared_between_runs():
    parsed("a", "--output_dir", "out").tasks.append("x")
    assert parsed("a", "--output_dir", "out").tasks == ["identify", "vqa"]


def test_a_yaml_file_has_the_same_names_and_flags_come_first(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "output_dir: out\nbatch_size: 2\nshare: '0.25'\ntasks: [grounding]\nconstrained: false\nsizes: {a: 1}\n"
    )
    arguments = parsed("a", "--config", str(path), "--batch_size", "3")
    assert (arguments.output_dir, arguments.batch_size, arguments.share) == ("out", 3, 0.25)
    assert (arguments.tasks, arguments.constrained, arguments.sizes) == (["grounding"], False, {"a": 1})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--outptu_dir", "x"], "litegpt test: there is no option --outptu_dir; did you mean --output_dir?"),
        (["--batch-sizes", "3"], "litegpt test: there is no option --batch_sizes; did you mean --batch_size?"),
        (["a"], "litegpt test: the following arguments are required: --output_dir"),
        (["a", "--output_dir", "x", "--batch_size", "0"], "litegpt test: --batch_size must be at least 1, not 0."),
        (["a", "--output_dir", "x", "--share", "1.5"], "litegpt test: --share must be at most 1, not 1.5."),
    ],
)
def test_a_mistake_is_one_sentence(capsys, words, sentence):
    assert refusal(capsys, *words) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bach_size: 3", "there is no option bach_size; did you mean batch_size?"),
        ("batch_size: many", "batch_size cannot be 'many'"),
        ("tasks: vqa", "tasks is a list, not 'vqa'"),
        ("order: size", "order is one of label, position, not 'size'"),
        ("- 1", "has no lines of the form NAME: VALUE"),
        ("a: [", "is no YAML"),
        ("batch_size: 0\noutput_dir: x", "--batch_size must be at least 1, not 0."),
    ],
)
def test_a_yaml_file_that_cannot_be_used_is_one_sentence(capsys, tmp_path, text, sentence):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert sentence in refusal(capsys, "a", "--config", str(path))


def test_a_configuration_of_ours_is_meant_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configuration_file("tiny").name == "tiny.yaml" and configuration_file("tiny").is_file()
    with pytest.raises(FileNotFoundError, match="did you mean litegpt_grounding"):
        configuration_file("litegpt_groundin")


def test_numbers_of_an_instance_made_in_python_are_checked_too():
    with pytest.raises(ValueError, match="--batch_size must be at least 1, not -1."):
        check_numbers(Arguments(["a"], "out", batch_size=-1))


def test_positional_values_may_be_left_out_where_they_have_a_default():
    @dataclass
    class Arguments:
        files: list[str] = argument("Files.", default=[], positional=True)
        size: Count = argument("Of each.", default=3)

    for words, files in (([], []), (["--size", "2"], []), (["a", "b", "--size", "2"], ["a", "b"])):
        (found,) = parse([Arguments], words, "program", "It does.")
        assert found.files == files


@dataclass
class Places:
    radiographs: list[Place] = argument("Read.")
    output_dir: str = argument("Written.")
    base_url: str = argument("Of a server.", default="http://127.0.0.1")


def test_an_address_is_taken_where_an_option_says_so_and_refused_elsewhere(capsys):
    words = ["--radiographs", "s3://bucket/a", "--output_dir"]
    (places,) = parse([Places], [*words, "out"], "litegpt test", "")
    assert places.radiographs == ["s3://bucket/a"]
    with pytest.raises(SystemExit):
        parse([Places], [*words, "s3://user:secret@bucket/out"], "litegpt test", "")
    sentence = "litegpt test: --output_dir is on this machine: it takes no address such as s3://bucket/out.\n"
    assert capsys.readouterr().err == sentence


@dataclass
class Asked:
    files: list[str] = argument("Files.", positional=True)
    tasks: list[str] = argument("What to ask.", default=["identify"], choices=["identify", "vqa"])
    box: list[float] | None = argument("Of what.", default=None, nargs=4)
    names: list[str] | None = argument("Any.", default=None)


@pytest.mark.parametrize(
    ("words", "files", "box"),
    [
        (["--tasks", "vqa", "identify", "a.png", "b.png"], ["a.png", "b.png"], None),
        (["--task", "vqa", "a.png"], ["a.png"], None),  # a beginning of the option
        (["--box", "1", "2", "3", "4", "a.png"], ["a.png"], [1, 2, 3, 4]),
        (["--box", "1", "2", "3", "4", "5"], ["5"], [1, 2, 3, 4]),
        (["a.png", "--tasks", "vqa"], ["a.png"], None),
        (["a.png", "--names", "b.png"], ["a.png"], None),  # they may be anything
    ],
)
def test_files_may_stand_behind_a_list_that_cannot_have_them(words, files, box):
    (arguments,) = parse([Asked], words, "litegpt test", "A test.")
    assert arguments.files == files and arguments.box == box


def test_a_mistyped_value_of_a_list_is_named_though_a_file_stands_behind_it(capsys):
    with pytest.raises(SystemExit):
        parse([Asked], ["--tasks", "vpa", "a.png"], "litegpt test", "A test.")
    assert "invalid choice: 'vpa'" in capsys.readouterr().err
