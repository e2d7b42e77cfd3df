"""The arguments of a training program: ours, and those of transformers and TRL beside them.

    parser = TrainingParser([TowerArguments, TrainingArguments], usage="...", description=__doc__)
    tower_arguments, training_arguments = parser.parse()

`parse` ends the program with one sentence where they cannot be used.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn, get_origin

from trl import TrlParser

from litegpt.common.arguments import check_numbers, check_places, configuration_file, unknown_option


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps a program's description in lines, and shows what options are by default."""


class TrainingParser(TrlParser):
    """TRL's parser, which answers a mistake with one sentence."""

    def __init__(self, dataclass_types: list[type], **kwargs: Any):
        super().__init__(dataclass_types, formatter_class=HelpFormatter, **kwargs)
        for action in self._actions:  # the library would hand the text to `dict`
            if dict in (action.type, get_origin(action.type)):
                action.type = _json_object

    def parse(self, argv: Sequence[str] | None = None) -> list[Any]:
        """An instance of each dataclass, from the words `argv` and the YAML file that `--config` names.

        Args:
            argv: those of the command line if None.
        """
        argv = list(sys.argv[1:] if argv is None else argv)
        names = [field.name for dataclass in self.dataclass_types for field in fields(dataclass)]
        options = ["--help", "--config", *(f"--{prefix}{name}" for name in names for prefix in ("", "no_"))]
        if refusal := unknown_option(argv, options):
            self.error(refusal)
        try:
            if "--config" in argv[:-1]:
                place = argv.index("--config") + 1
                argv[place] = str(configuration_file(argv[place]))
            *parsed, unknown_in_file, unknown_words = self.parse_args_and_config(
                argv, return_remaining_strings=True, separate_remaining_strings=True
            )
            for arguments in parsed:
                check_numbers(arguments)
                check_places(arguments)
        except FileNotFoundError as error:
            self.error(f"--config {error.filename}: {error.strerror}")
        except ValueError as error:
            if "bf16" in str(error):
                self.error(
                    "bf16: there is no GPU that computes in bfloat16. The paper's recipe needs a GPU with 9 to 15 GiB "
                    "(litegpt memory); on a CPU: --bf16 false --use_cpu true, and a tiny model."
                )
            self.error(str(error).strip().splitlines()[0])
        if refusal := unknown_option(unknown_in_file[:1], options):
            self.error(f"the YAML file: {refusal}")
        if unknown_words:
            self.error(f"nothing takes the word {unknown_words[0]}")
        return parsed

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text} is no JSON object")
    return value
