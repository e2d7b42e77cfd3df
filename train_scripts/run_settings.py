"""What a run was started with: the same command goes on with it, another one does not mix with it.

    settings = settings_of(arguments, training_arguments)
    is_finished = check_settings(Path("outputs/run"), settings)
    keep_settings(Path("outputs/run"), settings)     # OUTPUT_DIR/arguments.json, once the input is known to be good

In: a program's arguments. Out: whether OUTPUT_DIR/metrics.json is this very run's.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from litegpt.common.files import write_text
from litegpt.common.programs import Refusal

FILE = "arguments.json"
ELSEWHERE = ("cache_dir", "training_cache_dir", "num_proc")  # change nothing in a result
# What a run that was interrupted may go on with another value of, and a finished one is not another run's result by.
OF_TRAINING = (
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "optim_args",
    "metric_for_best_model",
)


def settings_of(arguments: Any, training_arguments: TrainingArguments) -> dict[str, dict[str, Any]]:
    """{"run": what must never change, "training": what must not change of a finished run}, as JSON has them."""
    run = {name: value for name, value in asdict(arguments).items() if name not in ELSEWHERE}
    training = {name: getattr(training_arguments, name) for name in OF_TRAINING}
    settings = {"run": run | {"seed": training_arguments.seed}, "training": training}
    return json.loads(json.dumps(settings, default=str))


def check_settings(output_dir: Path, settings: dict[str, dict[str, Any]]) -> bool:
    """Whether the run has been finished.

    Raises:
        Refusal: the folder holds a run of other settings.
    """
    path = output_dir / FILE
    is_finished = path.is_file() and (output_dir / "metrics.json").is_file()
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        for kind in ("run", "training") if is_finished else ("run",):
            for name, value in settings[kind].items():
                if before.get(kind, {}).get(name) != value:
                    raise Refusal(
                        f"{output_dir}: holds a run with --{name} {before.get(kind, {}).get(name)}, not {value}: "
                        "choose another output_dir."
                    )
    return is_finished


def keep_settings(output_dir: Path, settings: dict[str, dict[str, Any]]) -> None:
    """Writes what a run is started with."""
    write_text(output_dir / FILE, json.dumps(settings, indent=2) + "\n")
