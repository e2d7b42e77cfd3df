"""What a document says against the code: commands, Python snippets, links, names in `code`.

In: Markdown, or a piece of it. Out: problems as sentences; none where all is right.

    fenced_blocks("```bash\\nlitegpt memory\\n```")            # [("bash", "litegpt memory\\n")]
    command_problem(["litegpt", "predikt"])                   # "there is no command predikt"
    link_problem("train.md#no-such-part", Path("docs/serve.md"))   # "docs/train.md has no heading #no-such-part"

Commands are read by the programs' own parsers, as far as words go: no file is looked for and nothing runs.
"""

import ast
import functools
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import yaml

from litegpt.command import COMMANDS
from litegpt.common.arguments import argument_parser, configuration_file

ROOT = Path(__file__).resolve().parents[2]
# Programs of others, whose words nobody checks.
OTHERS = {".", "cd", "git", "hf", "pip", "ray", "vllm"}
MODULES = {"pip", "pytest", "venv"}  # python -m
# Words that stand for what a reader puts in their place.
PLACEHOLDER = re.compile(r"(?<![A-Z])(CHECKPOINT|COMMAND|FILE|FOLDER|NAME|OUTPUT_DIR|ROW)(?![A-Z])|\.\.\.|\*")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)


# --- Markdown --------------------------------------------------------------------------------------------------------


def fenced_blocks(markdown: str) -> list[tuple[str, str]]:
    """The fenced blocks: their language, "" for none, and their text, without the indent of a list."""
    pattern = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
    return [(language, re.sub(f"(?m)^{indent}", "", text)) for indent, language, text in pattern.findall(markdown)]


def prose(markdown: str) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", markdown)


def code_words(markdown: str) -> list[str]:
    """What stands in `single backticks`."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(markdown))]


def heading_anchors(markdown: str) -> set[str]:
    """The anchors that GitHub gives the headings: small letters, no punctuation, - for a space, -1 for the second."""
    anchors: list[str] = []
    for heading in re.findall(r"(?m)^#+ +(.*)$", prose(markdown)):
        text = LINK.sub(lambda link: link.group().partition("]")[0][1:], heading)
        anchors.append(re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-"))
    counts = [anchors[:place].count(anchor) for place, anchor in enumerate(anchors)]
    return {f"{anchor}-{count}" if count else anchor for anchor, count in zip(anchors, counts, strict=True)}


def link_problem(link: str, document: Path) -> str | None:
    """Whether a relative link of `document` leads to a file and, with #anchor, a heading; others are not fetched."""
    if re.match(r"(https?|mailto):", link):
        return None
    file, _, anchor = link.partition("#")
    target = (document.parent / file).resolve() if file else document.resolve()
    if not target.exists():
        return f"there is no {file}"
    if anchor and anchor not in heading_anchors(target.read_text(encoding="utf-8")):
        return f"{target.relative_to(ROOT)} has no heading #{anchor}"
    return None


# --- Commands --------------------------------------------------------------------------------------------------------


def shell_commands(text: str) -> Iterator[list[str]]:
    """The commands of a block, as words; continued lines are joined, comments gone, $NAMES of the block filled in."""
    values: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        for name, value in values.items():
            line = line.replace(f"${name}", value)
        words = shlex.split(line, comments=True)
        while words and (assignment := ASSIGNMENT.fullmatch(words[0])):
            values[assignment[1]] = assignment[2]
            words = words[1:]
        if words:
            yield words


def command_problem(words: Sequence[str]) -> str | None:
    """What is wrong with a command: its program, its file, its target, or an option and its value."""
    program, rest = Path(words[0]).name, list(words[1:])
    if program == "litegpt":
        return litegpt_problem(rest)
    if program in ("python", "python3"):
        return _python_problem(rest)
    if program == "accelerate":
        return _accelerate_problem(rest)
    if program == "make":
        return _make_problem(rest)
    if words[0] in OTHERS or (ROOT / words[0]).is_file():
        return None
    return f"nobody knows the program {words[0]}"


def litegpt_problem(words: Sequence[str]) -> str | None:
    """What is wrong with the words after `litegpt`."""
    if not words or words[0] in ("--help", "--version"):
        return None
    name, rest = command_name(words)
    if name not in COMMANDS:
        return f"there is no command {name}"
    if {"--help", "--help_all"} & set(rest):
        return None
    return options_problem(name, rest)


def command_name(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of a command, which has two words where it is one of a group, and the words after it."""
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    length = 2 if words[0] in groups else 1
    return " ".join(words[:length]), list(words[length:])


def options_problem(name: str, words: list[str]) -> str | None:
    """What the command's own parser says of options and values; no class of arguments is made, no file looked for."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            (_read_training_options if COMMANDS[name].trains else _read_options)(name, words)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    except SystemExit:
        return said.getvalue().strip()
    return None


def _read_options(name: str, words: list[str]) -> None:
    parser = argument_parser(COMMANDS[name].argument_classes(), f"litegpt {name}", "")
    words = parser.checked_words(words)
    if "--config" in words:
        parser.set_defaults_of_file(Path(words[words.index("--config") + 1]))
    parser.parse_args(words)


def _read_training_options(name: str, words: list[str]) -> None:
    parser = training_parser(name)
    if "--config" in words:
        place = words.index("--config")
        values = yaml.safe_load(configuration_file(words[place + 1]).read_text(encoding="utf-8"))
        words = words[:place] + words[place + 2 :]
        unknown = set(values) - option_names(name)
        if unknown:
            raise ValueError(f"the YAML file has no option {', '.join(sorted(unknown))}")
    _, unknown = parser.parse_known_args(words)
    if unknown:
        raise ValueError(f"there is no option {unknown[0]}")


@functools.cache
def training_parser(name: str):
    """The parser of a command that takes the options of transformers and TRL as well."""
    return import_module(COMMANDS[name].module).argument_parser()


def option_names(name: str) -> set[str]:
    """The names of a command's options, without dashes."""
    command = COMMANDS[name]
    classes = training_parser(name).dataclass_types if command.trains else command.argument_classes()
    return {"config", "help", "help_all"} | {field.name for dataclass in classes for field in fields(dataclass)}


@functools.cache
def all_options() -> set[str]:
    """The options of all commands, such as --data_dir."""
    return {f"--{option}" for name in COMMANDS for option in option_names(name)}


def _python_problem(words: list[str]) -> str | None:
    if words[:2] == ["-m", "litegpt"]:
        return litegpt_problem(words[2:])
    if words[0] == "-m":
        return None if words[1] in MODULES else f"nobody knows the module {words[1]}"
    return _file_problem(words[0], words[1:])


def _accelerate_problem(words: list[str]) -> str | None:
    if words[0] != "launch":
        return f"accelerate {words[0]} is not known"
    if "--config_file" in words and not (ROOT / words[words.index("--config_file") + 1]).is_file():
        return f"there is no {words[words.index('--config_file') + 1]}"
    programs = [place for place, word in enumerate(words) if word.endswith(".py")]
    return _file_problem(words[programs[0]], words[programs[0] + 1 :]) if programs else "accelerate starts no file"


def _file_problem(file: str, words: list[str]) -> str | None:
    if not (ROOT / file).is_file():
        return f"there is no {file}"
    names = [name for name, command in COMMANDS.items() if command.file == file]
    return options_problem(names[0], words) if names else None


def _make_problem(words: list[str]) -> str | None:
    targets = re.findall(r"(?m)^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    unknown = [word for word in words if not ASSIGNMENT.fullmatch(word) and word not in targets]
    return f"the Makefile has no target {unknown[0]}" if unknown else None


# --- Names and snippets ----------------------------------------------------------------------------------------------


def code_problem(code: str) -> str | None:
    """What is wrong with `code` in a sentence: a path of ours, a command's name and options, a target, an option."""
    if PLACEHOLDER.search(code):
        return None
    if code.startswith("--"):
        option = code.split()[0].partition("=")[0]
        is_ours = "-" not in option[2:]  # vLLM and others write their options with dashes
        return f"no command has an option {option}" if is_ours and option not in all_options() else None
    words = shlex.split(code) if code.startswith(("litegpt ", "make ")) else [code]
    if words[0] == "make" and len(words) > 1:
        return _make_problem(words[1:])
    if words[0] == "litegpt" and len(words) > 1 and not words[1].startswith("-"):
        name, rest = command_name(words[1:])
        known = {name, name.partition(" ")[0]} & {*COMMANDS, *(other.partition(" ")[0] for other in COMMANDS)}
        unknown = [word for word in rest if word.startswith("--") and word not in all_options()]
        return f"{code}: not known" if not known or unknown else None
    if re.fullmatch(r"[\w.-]+/[\w./-]*", code):
        is_ours = (ROOT / code.partition("/")[0]).is_dir() and not code.startswith("outputs/")
        return f"there is no {code}" if is_ours and not (ROOT / code).exists() else None
    return None


def python_problem(code: str) -> str | None:
    """Whether a snippet compiles, and what it takes from `litegpt` exists."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "litegpt":
            taken = [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "litegpt":
            taken = [("litegpt", node.attr)]
        else:
            continue
        for module, name in taken:
            if not _exists(module, name):
                return f"{module} has no {name}"
    return None


def _exists(module: str, name: str) -> bool:
    try:
        if hasattr(import_module(module), name):
            return True
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True
