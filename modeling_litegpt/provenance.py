"""Where an answer is from: what its checkpoint is called, what that was trained on, and what follows for the answer.

    provenance("outputs/demo/checkpoint", recorded_config("outputs/demo/checkpoint")).line()
    # {"checkpoint": "demo/checkpoint", "trained_on": ["Phantoms in VinDr-CXR's layout"], "caution": "trained on
    #  synthetic radiographs: its answers to real ones mean nothing", "not_for_diagnosis": True}

In: the checkpoint's name, as a program is given it, and its configuration (`training_record` and `base_models`, see
`model_card.py`). Out: what stands in each line of the predictions, on overlays and once on the terminal. A caution is
not a warning: warnings are about one radiograph, a caution is about all answers of the checkpoint.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNTRAINED = "not trained to answer: its answers mean nothing"
UNKNOWN = "what it was trained on is not recorded"
SYNTHETIC = "trained on synthetic radiographs: its answers to real ones mean nothing"
PARTLY_SYNTHETIC = "trained on synthetic radiographs too"
SYNTHETIC_NAME = re.compile(r"phantom|synthetic", re.IGNORECASE)  # in a data set's name
# What base models, by their keys of `model_card.BASE_MODELS`, were trained on to answer about radiographs.
TRAINED_BASE_MODELS = {"litegpt": "VinDr-CXR"}


@dataclass(frozen=True)
class Provenance:
    """Where an answer is from.

    Attributes:
        checkpoint: its name, no path of a machine: the last two parts of a folder's, or the repository on the Hub.
        trained_on: names of data sets, in the order of training.
        caution: what speaks against all of the checkpoint's answers, in words; None where nothing does.
    """

    checkpoint: str
    trained_on: tuple[str, ...]
    caution: str | None

    def line(self) -> dict[str, Any]:
        """What each answer carries, as JSON has it."""
        return {
            "checkpoint": self.checkpoint,
            "trained_on": list(self.trained_on),
            "caution": self.caution,
            "not_for_diagnosis": True,
        }

    def warn(self) -> None:
        """Says the caution on standard error, as a program does once before it answers."""
        if self.caution is not None:
            print(f"{self.checkpoint}: {self.caution}.", file=sys.stderr)


def provenance(name: str | Path, config: Mapping[str, Any]) -> Provenance:
    """What is known of a checkpoint.

    Args:
        name: a folder, or a repository on the Hub.
        config: of the checkpoint, as `config.json` has it.
    """
    record = config.get("training_record") or []
    bases = [TRAINED_BASE_MODELS[key] for key in config.get("base_models") or [] if key in TRAINED_BASE_MODELS]
    trained_on = dict.fromkeys([*bases, *(entry["data_set"]["name"] for entry in record)])
    # A training without tasks, of towers, teaches to see, not to answer.
    answers_from = [*bases, *(entry["data_set"]["name"] for entry in record if entry["tasks"])]
    synthetic = [data_set for data_set in answers_from if SYNTHETIC_NAME.search(data_set)]
    if not answers_from:
        caution = UNTRAINED if record or config.get("base_models") is not None else UNKNOWN
    elif synthetic:
        caution = SYNTHETIC if len(synthetic) == len(answers_from) else PARTLY_SYNTHETIC
    else:
        caution = None
    return Provenance(short_name(name), tuple(trained_on), caution)


def short_name(name: str | Path) -> str:
    """The name of a checkpoint that says nothing about the machine it lies on.

    Example:
        >>> short_name("/home/ann/outputs/demo/checkpoint"), short_name("acme/litegpt")
        ("demo/checkpoint", "acme/litegpt")
    """
    if not Path(name).is_dir():
        return str(name)
    folder, home = Path(name).resolve(), Path.home().resolve()
    # Of a checkpoint that lies in a home folder, that folder's name is a person's.
    parts = folder.parts[1:][-1:] if folder.parent in (home, home.parent) else folder.parts[1:][-2:]
    return "/".join(parts)


def recorded_config(name: str | Path) -> dict[str, Any]:
    """The configuration of a checkpoint, or of an adapter: its base's, with the adapter's training.

    Raises:
        OSError: there is no such checkpoint, or the adapter's base is not found.
    """
    # They import torch, which what only names a checkpoint need not wait for; the adapters import PEFT as well.
    from litegpt.modeling_litegpt import LiteGPTConfig
    from litegpt.modeling_litegpt.checkpoints import base_of_adapter

    base = base_of_adapter(name)
    config, _ = LiteGPTConfig.get_config_dict(name if base is None else base)
    if base is not None:
        from litegpt.modeling_litegpt.adapters import TRAINING_RECORD

        record = Path(name, TRAINING_RECORD)
        if record.is_file():
            config["training_record"] = json.loads(record.read_text(encoding="utf-8"))
    return config
