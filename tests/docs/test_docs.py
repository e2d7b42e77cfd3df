"""Every command, snippet, link and name of the documentation is one that the code has."""

import re
from pathlib import Path

import pytest
import yaml

import litegpt
from tests.docs.checks import (
    LINK,
    ROOT,
    code_problem,
    code_words,
    command_problem,
    fenced_blocks,
    heading_anchors,
    link_problem,
    prose,
    python_problem,
    shell_commands,
)

GUIDES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CARDS = [*sorted((ROOT / "metrics").glob("*/README.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]


def name_in_repository(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("guide", GUIDES, ids=name_in_repository)
def test_every_command_is_one_that_the_programs_take(guide):
    blocks = fenced_blocks(guide.read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} <= {"bash", "python", "text", "yaml"}
    commands = [words for language, text in blocks if language == "bash" for words in shell_commands(text)]
    assert [(" ".join(words), problem) for words in commands if (problem := command_problem(words))] == []


@pytest.mark.parametrize("guide", GUIDES, ids=name_in_repository)
def test_every_snippet_compiles_and_takes_what_litegpt_has(guide):
    blocks = fenced_blocks(guide.read_text(encoding="utf-8"))
    assert [problem for language, code in blocks if language == "python" and (problem := python_problem(code))] == []


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if guide.name != "CHANGELOG.md"], ids=name_in_repository)
def test_every_path_command_and_option_in_a_sentence_is_there(guide):
    codes = code_words(guide.read_text(encoding="utf-8"))
    assert [(code, problem) for code in codes if (problem := code_problem(code))] == []


@pytest.mark.parametrize("document", GUIDES + CARDS, ids=name_in_repository)
def test_every_link_leads_to_a_file_and_a_heading(document):
    links = LINK.findall(prose(document.read_text(encoding="utf-8")))
    assert [(link, problem) for link in links if (problem := link_problem(link, document))] == []


def test_the_readme_is_short_and_leads_to_every_guide():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    assert {name_in_repository(guide) for guide in GUIDES} - {"README.md"} <= set(LINK.findall(readme))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["version"] == litegpt.__version__


def test_the_list_of_files_is_complete():
    """Each folder of the code with all files in it; of the tests those that several share."""
    listed, folder = [], ""
    for line in (ROOT / "docs" / "files.md").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"## `(.*)`", line):
            folder = heading[1]
        elif entry := re.match(r"- `([\w/]+\.py)`: \S", line):
            listed.append(folder + entry[1])
    there = {path for path in ROOT.glob("[a-z]*/*.py")}
    for path in list(there):
        if path.parent.name != "tests":
            there.update(path.parent.rglob("*.py"))
    assert sorted(listed) == sorted(map(name_in_repository, there))


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("litegpt predikt --output_dir out", "there is no command predikt"),
        ("litegpt prepare vindr --data_dir a --output_dir b", "there is no command prepare vindr"),
        ("litegpt evaluate --data_dir a --model_name_or_path b --output_dir c --tasks idenify", "invalid choice"),
        ("litegpt evaluate --data_dir a --model_name_or_path b --output_dir c --spilt test", "did you mean --split"),
        ("litegpt evaluate --data_dir a --model_name_or_path b", "required: --output_dir"),
        ("litegpt memory --batch_size four", "invalid int value"),
        ("litegpt new --config tinny --output_dir a", "did you mean tiny"),
        ("litegpt train --config litegpt --data_dir a --learning_rat", "--learning_rat"),
        ("litegpt train --config litegpt --data_dir a --max_steps few", "invalid int value"),
        ("accelerate launch --config_file train_scripts/accelerate/dpp.yaml train_scripts/sft.py", "dpp.yaml"),
        ("accelerate launch train_scripts/sft.py --box_ordr label --data_dir a", "--box_ordr"),
        ("python train_scripts/evaluate_litegpt.py", "there is no train_scripts/evaluate_litegpt.py"),
        ("python hub/push_to_hub.py --folder a", "required: --repo_id"),
        ("make tset", "no target tset"),
        ("litgpt predict", "nobody knows the program litgpt"),
    ],
)
def test_a_broken_command_is_found(command, problem):
    (words,) = shell_commands(command)
    assert problem in (command_problem(words) or "nothing is wrong")


def test_commands_are_read_as_a_shell_reads_them():
    block = "D=data/x  # where\nSEED=1 litegpt memory \\\n    --batch_size 2  # two\n\nlitegpt predict '$D a' $D/b"
    assert list(shell_commands(block)) == [
        ["litegpt", "memory", "--batch_size", "2"],
        ["litegpt", "predict", "data/x a", "data/x/b"],
    ]
    for command in (
        "make BASE_PYTHON=python3.12 VLLM= test",
        "litegpt evaluate --data_dir $DATA --model_name_or_path $MODEL --output_dir out --split test[:100]",
        "litegpt train --config tiny_stage1 --data_dir $D --model_name_or_path a --max_steps 3 --bf16 false",
    ):
        (words,) = shell_commands(command)
        assert command_problem(words) is None


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("trian.md", "there is no trian.md"),
        ("../README.md#license", "README.md has no heading #license"),
        ("#no-such-part", "docs/serve.md has no heading #no-such-part"),
        ("../README.md#licences", None),
        ("https://example.org/nothing", None),
    ],
)
def test_a_broken_link_is_found(link, problem):
    assert link_problem(link, ROOT / "docs" / "serve.md") == problem


def test_anchors_are_those_of_github():
    markdown = "# A `code` & more\n## Train\n```bash\n# no heading\n```\n## Train\n### [The link](x.md), it's\n"
    assert heading_anchors(markdown) == {"a-code--more", "train", "train-1", "the-link-its"}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import litegpt\nlitegpt.load_chekpoint('a')", "litegpt has no load_chekpoint"),
        ("from litegpt.processing.answers import Findings", "litegpt.processing.answers has no Findings"),
        (
            "from litegpt.train_scripts.pretrain_towers import main",
            "litegpt.train_scripts.pretrain_towers has no main",
        ),
        ("print(", "line 1: '(' was never closed"),
        ("from litegpt.metrics import boxes\nimport litegpt\nlitegpt.load_rows", None),
    ],
)
def test_a_broken_snippet_is_found(code, problem):
    assert python_problem(code) == problem


@pytest.mark.parametrize(
    ("code", "is_right"),
    [
        ("train_scripts/configs/", True),
        ("train_scripts/pretrain_towers.py", False),
        ("acme/litegpt", True),  # no folder of ours
        ("datasets_scripts/NAME.py", True),
        ("litegpt push", True),
        ("litegpt publish", False),
        ("litegpt convert --merge_lora false", True),
        ("litegpt convert --merge false", True),  # an option of another command: names alone are looked at
        ("litegpt convert --merge_lara false", False),
        ("--train_sampling_strategy group_by_length", True),
        ("--train_sampling_strateggy", False),
        ("--max-model-len 1024", True),
        ("make test-newest", True),
        ("make tests", False),
    ],
)
def test_a_broken_name_in_a_sentence_is_found(code, is_right):
    assert (code_problem(code) is None) == is_right
