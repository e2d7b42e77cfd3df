"""A program's arguments: a dataclass -> flags, a YAML file and checks.

In: a dataclass, whose fields have a type, a default unless they must be given, and metadata (`argument`). Out: an
instance of it, or one sentence and the status 2. Imports nothing heavy: `--help` and a mistyped flag are answered at
once, before a program's libraries are loaded.

    @dataclass
    class PredictArguments:
        radiographs: list[str] = argument("DICOM, PNG or JPEG files.", positional=True)
        batch_size: Count = argument("Radiographs answered together.", default=8)

    (args,) = parse([PredictArguments], ["--batch_size", "4", "a.dicom"], "litegpt predict", "Findings, as JSON.")

Flags are those of transformers' HfArgumentParser: `--flag`, `--flag false`, `--no_flag`; a dash may stand for an
underscore; lists take several values, dictionaries JSON. `--config FILE.yaml` has the same names; flags come first.
"""

import argparse
import dataclasses
import errno
import json
import sys
import types
import typing
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from itertools import zip_longest
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

from litegpt.common.addresses import is_remote, shown


class Bounds(NamedTuple):
    """What a number must be; None: no such bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def broken(self, number: float) -> str | None:
        """The bound that the number does not keep, in words."""
        for name, holds in (("at_least", ge), ("above", gt), ("at_most", le), ("below", lt)):
            bound = getattr(self, name)
            if bound is not None and not holds(number, bound):
                return f"{name.replace('_', ' ')} {bound:g}"
        return None


TRUTHS = dict.fromkeys(("true", "yes", "1", "t", "y"), True) | dict.fromkeys(("false", "no", "0", "f", "n"), False)
CONFIGS = Path(__file__).resolve().parents[1] / "train_scripts" / "configs"

# Bounds stand in the type, where transformers' parser of a training program's arguments does not look at them.
Count = Annotated[int, Bounds(at_least=1)]
WholeNumber = Annotated[int, Bounds(at_least=0)]
Share = Annotated[float, Bounds(at_least=0, at_most=1)]
Positive = Annotated[float, Bounds(above=0)]
# A path or an address such as s3://bucket/a; all other options take none (`check_places`).
Place = Annotated[str, "place"]


def argument(help: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A field of a dataclass of arguments.

    Args:
        help: its line of `--help`.
        default: without one it must be given. A list or dictionary is copied for every instance.
        metadata: `choices`, `positional` (one or several values without a flag), `parse` (text -> value), `nargs` (how
            many values a list has).
    """
    metadata = {"help": help, **metadata}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse(arguments: Sequence[type], argv: Sequence[str] | None, program: str, description: str) -> list[Any]:
    """Instances of the dataclasses `arguments`; ends the program where they cannot be made.

    Args:
        argv: the words after the program's name; those of the command line if None.
        program: what a person writes, for messages.
        description: opens the help.
    """
    parser = argument_parser(arguments, program, description)
    argv = parser.checked_words(sys.argv[1:] if argv is None else argv)
    config, _ = _config_parser().parse_known_args(argv)
    if config.config is not None:
        parser.set_defaults_of_file(Path(config.config))
    values = vars(parser.parse_args(argv))
    found = []
    for dataclass in arguments:
        names = [field.name for field in dataclasses.fields(dataclass)]
        try:
            found.append(dataclass(**{name: values[name] for name in names}))
            check_numbers(found[-1])
            check_places(found[-1])
        except ValueError as error:
            parser.error(str(error))
    return found


def check_numbers(arguments: Any) -> None:
    """Holds the numbers of an instance, also those of a list, against the `Bounds` of their types.

    Raises:
        ValueError: one is out of its bounds; it names the flag.
    """
    for name, hint in typing.get_type_hints(type(arguments), include_extras=True).items():
        bounds = _bounds(hint)
        value = getattr(arguments, name)
        for number in value if isinstance(value, list) else [value]:
            if bounds is not None and isinstance(number, (int, float)) and (broken := bounds.broken(number)):
                raise ValueError(f"--{name} must be {broken}, not {number}.")


def check_places(arguments: Any) -> None:
    """Refuses addresses in options that take paths alone; those of a web server are let through.

    Raises:
        ValueError: there is one; it names the flag.
    """
    for name, hint in typing.get_type_hints(type(arguments), include_extras=True).items():
        value = getattr(arguments, name)
        for text in value if isinstance(value, list) else [value]:
            if not _is_place(hint) and is_remote(text) and not text.startswith(("http://", "https://")):
                raise ValueError(f"--{name} is on this machine: it takes no address such as {shown(text)}.")


def configuration_file(path: str | Path) -> Path:
    """The YAML file that is meant: a path, or the name of one of ours, such as `tiny`.

    Raises:
        FileNotFoundError: neither.
    """
    ours = {file.stem: file for file in sorted(CONFIGS.glob("*.yaml"))}
    if Path(path).is_file() or str(path) in ours:
        return Path(path) if Path(path).is_file() else ours[str(path)]
    near = did_you_mean(Path(path).stem, list(ours))
    raise FileNotFoundError(errno.ENOENT, f"there is no such file{near}", str(path))


def unknown_option(words: Sequence[str], options: Sequence[str]) -> str | None:
    """A sentence about the first of the words that looks like an option and is none; None where there is none.

    Args:
        options: such as "--batch_size"; a beginning of one is an option too, as argparse takes it.
    """
    for word in words:
        name = _declared(word.partition("=")[0])
        # A value may begin so and have several words: --launch_options "--multi_gpu --num_processes 2".
        if (
            name.startswith("--")
            and len(name) > 2
            and " " not in word
            and not any(option.startswith(name) for option in options)
        ):
            return f"there is no option {name}{did_you_mean(name, options) or '; --help lists all'}"
    return None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """ "; did you mean KNOWN?" where one is near, else ""."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, which answers a mistake with one sentence and knows YAML files."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def checked_words(self, words: Sequence[str]) -> list[str]:
        """The words with options as they are declared; an unknown one ends the program.

        A flag that is true or false takes the word after it only where that is a truth value, not a file; and what is
        no value of the list before it, a file behind its choices or numbers, is none of the list.
        """
        options = {option: action for action in self._actions for option in action.option_strings}
        if refusal := unknown_option(words, list(options)):
            self.error(refusal)
        checked = []
        for word, following in zip_longest(words, words[1:], fillvalue=""):
            name, equals, value = word.partition("=")
            if name.startswith("--") and " " not in name:
                name = _declared(name)
                is_flag = name in options and options[name].type is _truth
                if is_flag and not equals and following.lower() not in TRUTHS:
                    equals, value = "=", "true"
            checked.append(name + equals + value)
        return self._with_files_first(checked, options)

    def _with_files_first(self, words: list[str], options: dict[str, argparse.Action]) -> list[str]:
        """The words; files that stand behind the last list, which would be taken for values of it, before all."""
        last = max((place for place, word in enumerate(words) if word.startswith("--")), default=len(words))
        name = words[last] if last < len(words) else ""
        meant = [option for option in options if name and option.startswith(name)]  # a beginning is an option, too
        action = options[name if name in meant else meant[0]] if len(meant) == 1 or name in meant else None
        takes_files = any(not one.option_strings and one.nargs in ("+", "*") for one in self._actions)
        if action is None or action.nargs is None or not takes_files or isinstance(action.const, bool):
            return words
        values = words[last + 1 :]
        most = action.nargs if isinstance(action.nargs, int) else len(values)
        fitting = next((n for n, word in enumerate(values) if n == most or not _is_value(word, action)), len(values))
        return [*values[fitting:], *words[: last + 1], *values[:fitting]] if fitting else words

    def set_defaults_of_file(self, path: Path) -> None:
        """Takes the values of a YAML file as defaults; what it has, need not be given."""
        actions = {action.dest: action for action in self._actions}
        for name, value in self._values_of_file(path).items():
            if name not in actions or name in ("help", "config"):
                self.error(f"{path}: there is no option {name}{did_you_mean(name, list(actions))}")
            action = actions[name]
            action.required = False
            if isinstance(value, str) and action.type is not None:
                try:
                    value = action.type(value)
                except (ValueError, argparse.ArgumentTypeError):
                    self.error(f"{path}: {name} cannot be {value!r}")
            if action.nargs in ("+", "*") and not isinstance(value, list):
                self.error(f"{path}: {name} is a list, not {value!r}")
            for choice in value if isinstance(value, list) else [value]:
                if action.choices is not None and choice not in action.choices:
                    self.error(f"{path}: {name} is one of {', '.join(map(str, action.choices))}, not {choice!r}")
            self.set_defaults(**{name: value})

    def _values_of_file(self, path: Path) -> dict[str, Any]:
        import yaml  # only where a file is named

        try:
            values = yaml.safe_load(configuration_file(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            self.error(f"--config {path} cannot be read ({getattr(error, 'strerror', None) or error})")
        except yaml.YAMLError as error:
            self.error(f"--config {path} is no YAML: {str(error).splitlines()[0]}")
        if not isinstance(values, dict):
            self.error(f"--config {path} has no lines of the form NAME: VALUE")
        return values


def argument_parser(arguments: Sequence[type], program: str, description: str) -> ArgumentParser:
    """The parser of the dataclasses `arguments`, all of whose fields are flags but the positional ones."""
    in_lines = argparse.RawDescriptionHelpFormatter
    parser = ArgumentParser(prog=program, description=description, formatter_class=in_lines)
    parser.add_argument("--config", metavar="FILE.yaml", help="Options by name; those of the command line come first.")
    for dataclass in arguments:
        hints = typing.get_type_hints(dataclass)
        for field in dataclasses.fields(dataclass):
            _add(parser, field, hints[field.name])
    return parser


def _add(parser: ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    metadata, default = field.metadata, _default(field)
    kind, is_list = _kind(hint)
    help_line = metadata.get("help", "")
    if default not in (dataclasses.MISSING, None, "") and not metadata.get("positional"):
        help_line += f" Default: {' '.join(map(str, default)) if is_list else default}."
    options: dict[str, Any] = {"help": help_line.replace("%", "%%")}
    parse_text = metadata.get("parse")
    if parse_text is not None:
        options["type"] = parse_text
    elif kind is bool:
        options["type"] = _truth
    elif kind is dict:
        options["type"] = json.loads
    elif typing.get_origin(kind) is typing.Literal:
        options["choices"] = list(typing.get_args(kind))
    elif kind in (int, float):
        options["type"] = partial(_number_or_none, kind) if type(None) in typing.get_args(hint) else kind
    if "choices" in metadata:
        options["choices"] = metadata["choices"]
    if is_list:
        options["nargs"] = metadata.get("nargs", "+")
    if metadata.get("positional"):
        if default is not dataclasses.MISSING:
            options |= {"nargs": "*", "default": default}
        parser.add_argument(field.name, **options)
        return
    flag = f"--{field.name}"
    if kind is bool:
        options |= {"nargs": "?", "const": True}
    if default is dataclasses.MISSING:
        parser.add_argument(flag, required=True, **options)
        return
    parser.add_argument(flag, default=default, **options)
    if kind is bool and default is True:
        parser.add_argument(f"--no_{field.name}", dest=field.name, action="store_false", help=argparse.SUPPRESS)


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there may be several."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return (dict, False) if typing.get_origin(hint) is dict else (hint, False)


def _declared(option: str) -> str:
    """--batch-size -> --batch_size, as options are declared."""
    return f"--{option[2:].replace('-', '_')}" if option.startswith("--") else option


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _number_or_none(kind: type, text: str) -> int | float | None:
    return None if text.lower() == "none" else kind(text)


def _is_value(text: str, action: argparse.Action) -> bool:
    """Whether a list's option may have such a value."""
    try:
        value = text if action.type is None else action.type(text)
    except (ValueError, argparse.ArgumentTypeError):
        return False
    return action.choices is None or value in action.choices


def _truth(text: str) -> bool:
    if text.lower() not in TRUTHS:
        raise argparse.ArgumentTypeError(f"true or false, not {text!r}")
    return TRUTHS[text.lower()]


def _bounds(hint: Any) -> Bounds | None:
    """The bounds in a type, also in `list[Count]` and `Count | None`."""
    if typing.get_origin(hint) is Annotated:
        return next((part for part in hint.__metadata__ if isinstance(part, Bounds)), None)
    return next((bounds for part in typing.get_args(hint) if (bounds := _bounds(part)) is not None), None)


def _is_place(hint: Any) -> bool:
    """Whether a type is `Place`, also `list[Place]` and `Place | None`."""
    return Place in (hint, *typing.get_args(hint))


def _config_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return parser
