"""The checkpoints of a run, which the trainer writes into its output folder: from which of them it resumes.

trainer.train(resume_from_checkpoint=checkpoint_to_resume(training_arguments))
"""

import json
import shutil
from pathlib import Path

import transformers
from transformers import TrainingArguments
from transformers.integrations import is_fsdp_enabled
from transformers.trainer import TRAINER_STATE_NAME

from litegpt.common.programs import Refusal


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The trainer's state to resume from: as asked for, or else the last one of an interrupted run in `output_dir`.

    What an interruption left incomplete is removed.
    """
    asked_for = arguments.resume_from_checkpoint
    if asked_for is not None:
        if not is_complete(Path(asked_for)):
            raise Refusal(f"{asked_for}: not a complete checkpoint of a run (no readable {TRAINER_STATE_NAME}).")
        refuse_to_resume_where_the_library_cannot(arguments)
        return asked_for
    if arguments.process_index == 0:
        for folder in run_checkpoints(arguments.output_dir):
            if not is_complete(folder):
                print(f"Removing {folder}, which an interruption left incomplete.")
                shutil.rmtree(folder, ignore_errors=True)
    last = last_complete_checkpoint(arguments.output_dir)
    if last is not None:
        refuse_to_resume_where_the_library_cannot(arguments)
        if arguments.process_index == 0:
            print(f"Resuming from {last}; for a run from the beginning choose another output_dir.")
    return last


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The trainer's state of the latest step in `output_dir`."""
    complete = [str(folder) for folder in run_checkpoints(output_dir) if is_complete(folder)]
    return complete[-1] if complete else None


def run_checkpoints(output_dir: str | Path) -> list[Path]:
    """The folders `checkpoint-STEP` of the trainer, by step."""
    folders = [folder for folder in Path(output_dir).glob("checkpoint-*") if folder.name.split("-")[-1].isdecimal()]
    return sorted(folders, key=lambda folder: int(folder.name.split("-")[-1]))


def is_complete(run_checkpoint: Path) -> bool:
    """Whether the trainer wrote this folder to its end: the file that says at which step comes last."""
    try:
        json.loads((run_checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def refuse_to_resume_where_the_library_cannot(arguments: TrainingArguments) -> None:
    """Refuses several processes on a CPU with transformers 5.17, which fails at the optimizer's state."""
    on_cpus = arguments.world_size > 1 and arguments.device.type == "cpu" and not is_fsdp_enabled()
    if on_cpus and transformers.__version__.startswith("5.17."):
        raise Refusal(
            "transformers 5.17 cannot resume from a checkpoint in several processes on a CPU, and later ones can: "
            "install one, or continue in one process."
        )
