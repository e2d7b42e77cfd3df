"""Fine-tunes an image tower, or probes it, on labels, masks or boxes, and tests it beside controls.

    litegpt finetune-tower --config finetune_rsna --tower outputs/ecamp/checkpoint \\
        --data_dir prepared/rsna-pneumonia --output_dir outputs/rsna
    litegpt finetune-tower --config finetune_rsna --tower outputs/ecamp/checkpoint \\
        --data_dir prepared/rsna-pneumonia --part 0.01 --frozen --output_dir outputs/rsna_probe_1

Any tower: ECAMP's, CXR-CLIP's, LiteGPT's, a ViT's or ResNet's. `--frozen`: only the head learns. `--part 0.01`, 0.1:
parts of the training radiographs by patient. The control: the same command with `--random_weights`.

The best checkpoint by a validation is kept, the test is looked at once. Writes OUTPUT_DIR/metrics.json (figures with
95 % intervals, controls), predictions.npz or predictions.jsonl, and checkpoint/, which every program takes as a tower
and `load_finetuned` with its head. The same command resumes where an interrupted run stopped, and shows a finished
one.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from litegpt.common.files import weights_sha256, write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.rows import data_set_facts
from litegpt.evaluation_scripts.evaluate_litegpt import bootstrap_facts, versions
from litegpt.evaluation_scripts.patients import patients_of
from litegpt.evaluation_scripts.probe import FEW_IMAGES
from litegpt.evaluation_scripts.tower_scores.table import score_table
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_litegpt.model_card import add_training, training_entry
from litegpt.modeling_litegpt.provenance import short_name
from litegpt.modeling_towers.finetuned_tower import DESCRIPTION, FinetunedTower, load_finetuned, save_finetuned
from litegpt.modeling_towers.image_towers import ImageTower, fresh_image_tower, load_image_tower, measure_batch_norms
from litegpt.train_scripts.arguments import FinetuneArguments
from litegpt.train_scripts.finetune_splits import Splits, load_splits
from litegpt.train_scripts.finetune_trainer import FinetuneTrainer, Radiographs, Task
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.resume import checkpoint_to_resume
from litegpt.train_scripts.run_settings import check_settings, keep_settings, settings_of
from litegpt.train_scripts.tower_tasks.classification import Classification, SingleLabel
from litegpt.train_scripts.tower_tasks.detection import Detection
from litegpt.train_scripts.tower_tasks.segmentation import Segmentation
from litegpt.train_scripts.tower_trainer import picture_dtype
from litegpt.train_scripts.training_parser import TrainingParser

TASK_METRIC = "task"
CALIBRATION_IMAGES = 384  # that batch norms of a frozen random tower are measured on


@dataclass
class FinetuneTrainingArguments(TrainingArguments):
    """Those of transformers; the best checkpoint of a validation is kept, by the task's own figure."""

    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = TASK_METRIC
    restore_callback_states_from_checkpoint: bool = True


@program
def main(arguments: FinetuneArguments, training_arguments: FinetuneTrainingArguments) -> None:
    output_dir = Path(training_arguments.output_dir)
    settings = settings_of(arguments, training_arguments)
    if check_settings(output_dir, settings):
        print(score_table(json.loads((output_dir / "metrics.json").read_text(encoding="utf-8"))))
        return
    resumed = checkpoint_to_resume(training_arguments)
    checkpoint = output_dir / "checkpoint"
    is_trained = (checkpoint / DESCRIPTION).is_file()
    set_seed(training_arguments.seed)
    with refuse_bad_input():
        tower = load_image_tower(checkpoint) if is_trained else starting_tower(arguments)
    cache_dir = Path(arguments.training_cache_dir or output_dir / "cache")
    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_arguments.main_process_first(desc="preparing data"):
        splits = load_splits(arguments, arguments.task, training_arguments.seed)
        task = task_of(arguments, splits.train, tower)
        train, validation, test = radiographs_of(splits, task, tower, arguments, training_arguments, cache_dir)
        refuse_too_few(task, train, validation, test, arguments)
        entry = training_entry(
            "finetune_tower.py",
            arguments.data_dir,
            len(train),
            [],
            f"a head for {task.name} alone" if arguments.frozen else f"the image tower and a head for {task.name}",
            training_arguments,
        )
    if is_trained:
        with refuse_bad_input():
            model = load_finetuned(checkpoint)
    else:
        if arguments.frozen and (arguments.random_weights or arguments.tower is None):
            calibrate(tower, train, training_arguments)
        model = FinetunedTower(tower, task.name, task.labels, task.single_label, arguments.frozen)
    earlier = tower.config.to_dict().get("training_record") or []
    earlier = earlier[:-1] if is_trained else earlier  # the last one is this run's own
    trainer = FinetuneTrainer(
        task=task,
        positive_share=arguments.positive_share,
        model=model,
        args=with_task_metric(training_arguments, task),
        train_dataset=train,
        eval_dataset=validation,
        callbacks=[] if arguments.patience is None else [EarlyStoppingCallback(arguments.patience)],
    )
    if trainer.is_world_process_zero():
        keep_settings(output_dir, settings)
    if not is_trained:
        print(f"{task.name} of {', '.join(task.labels)}: {len(train):,} radiographs to learn from.")
        trainer.train(resume_from_checkpoint=resumed)
        if trainer.is_world_process_zero():
            state = trainer.state
            steps = state.best_global_step if training_arguments.load_best_model_at_end else state.global_step
            add_training(tower.config, entry | {"validation": state.best_metric}, steps)
            save_finetuned(trainer.accelerator.unwrap_model(trainer.model), checkpoint)
    answers = trainer.answers(test)
    if trainer.is_world_process_zero():
        patients = patients_of(splits.test)
        with refuse_bad_input():
            scores = task.scores(answers, test.truths, train.truths, patients, arguments.min_positives)
        task.write_predictions(answers, test.truths, splits.test["image_id"][:], output_dir)
        metrics = {
            "task": task.name,
            **scores,
            "warnings": [*splits.warnings, *warnings_about(earlier, len(train), arguments)],
            "data_set": data_set_facts(arguments.data_dir)
            | {"radiographs": {"train": len(train), "validation": len(validation), "test": len(test)}},
            "training": tower.config.to_dict()["training_record"][-1]
            | {"chosen_by": trainer.args.metric_for_best_model},
            "tower": tower_name(arguments),
            "weights": weights_sha256(checkpoint),
            "bootstrap": bootstrap_facts(splits.test),
            "run": versions(),
        }
        write_text(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        print(score_table(metrics))


def starting_tower(arguments: FinetuneArguments) -> ImageTower:
    """The tower to train, with its weights or, where that is asked for, random ones.

    Raises:
        OSError, ValueError: there is none, or its configuration cannot be used.
    """
    if arguments.tower is None and arguments.tower_config is None:
        raise ValueError("Give --tower, a checkpoint's folder, or --tower_config.")
    if arguments.tower is not None:
        tower = load_image_tower(arguments.tower)
        if not arguments.random_weights:
            return tower
        return fresh_image_tower(tower.config, tower.processor)
    if not {"model_type", "image_size"} <= arguments.tower_config.keys():
        raise ValueError("--tower_config needs `model_type` and `image_size`.")
    return fresh_image_tower(arguments.tower_config, image_processor(arguments.tower_config["image_size"]))


def task_of(arguments: FinetuneArguments, train: Dataset, tower: ImageTower) -> Task:
    """The task, with the labels that the training rows can teach.

    Raises:
        ValueError: they can teach none, or an option is of another task.
    """
    for name in ("single_label", "unmentioned_negative"):
        if getattr(arguments, name) and arguments.task != "classification":
            raise ValueError(f"--{name} is an option of classification.")
    if arguments.task == "classification":
        kind = SingleLabel if arguments.single_label else Classification
        return kind.of(train, arguments.labels, arguments.unmentioned_negative)
    if arguments.task == "segmentation":
        if arguments.labels:
            raise ValueError("--labels is no option of segmentation: a mask shows what it shows.")
        return Segmentation.of(train, tower.config.image_size)
    return Detection.of(train, arguments.labels, tower.grid)


def radiographs_of(
    splits: Splits,
    task: Task,
    tower: ImageTower,
    arguments: FinetuneArguments,
    training_arguments: TrainingArguments,
    cache_dir: Path,
) -> list[Radiographs]:
    """Train, moved at random, validation and test, as they are."""
    crops = {
        "min_crop_area": arguments.min_crop_area,
        "max_gamma": arguments.max_gamma,
        "seed": training_arguments.seed,
    }
    return [
        Radiographs(
            RadiographStore(rows, [tower.processor], cache_dir),
            task.truths(rows, cache_dir),
            dtype=picture_dtype(training_arguments),
            **options,
        )
        for rows, options in ((splits.train, crops), (splits.validation, {}), (splits.test, {}))
    ]


def refuse_too_few(
    task: Task, train: Radiographs, validation: Radiographs, test: Radiographs, arguments: FinetuneArguments
) -> None:
    """Ends a run whose end could not be measured, before it begins.

    Raises:
        ValueError: validation or test cannot tell good answers from bad ones, or training shows nothing.
    """
    for name, radiographs, least in (
        (arguments.validation_split, validation, 1),
        (arguments.test_split, test, arguments.min_positives),
    ):
        if refusal := task.cannot_measure(radiographs.truths, least):
            raise ValueError(f"{arguments.data_dir}, {name}: {refusal}.")
    if not train.truths.positive.any():
        raise ValueError(f"{arguments.data_dir}, {arguments.train_split}: no radiograph has what is to be learnt.")
    if arguments.positive_share == 0:
        raise ValueError("--positive_share must be above 0.")


def calibrate(tower: ImageTower, train: Radiographs, arguments: TrainingArguments) -> None:
    """Fits the batch norms of random weights to up to 384 training radiographs, evenly spread."""

    def show() -> None:
        plain = Radiographs(train.store, train.truths)
        numbers = np.linspace(0, len(train) - 1, min(len(train), CALIBRATION_IMAGES)).astype(int).tolist()
        for start in range(0, len(numbers), arguments.per_device_eval_batch_size):
            batch = plain.batch(numbers[start : start + arguments.per_device_eval_batch_size])
            tower(batch["pixel_values"].to(arguments.device))

    tower.to(arguments.device)
    measure_batch_norms(tower, show)


def with_task_metric(arguments: FinetuneTrainingArguments, task: Task) -> FinetuneTrainingArguments:
    if arguments.metric_for_best_model == TASK_METRIC:
        arguments.metric_for_best_model, arguments.greater_is_better = task.metric, True
    return arguments


def tower_name(arguments: FinetuneArguments) -> str:
    """What metrics.json calls the tower."""
    if arguments.tower is None:
        return f"random weights ({arguments.tower_config['model_type']})"
    return (
        f"random weights ({short_name(arguments.tower)})" if arguments.random_weights else short_name(arguments.tower)
    )


def warnings_about(earlier: list[dict[str, Any]], radiographs: int, arguments: FinetuneArguments) -> list[str]:
    """What readers of the scores must know of the tower's earlier trainings and of what it learnt from."""
    warnings = []
    name = data_set_facts(arguments.data_dir)["name"]
    if name in [training["data_set"]["name"] for training in earlier]:
        warnings.append(
            f"the tower was trained on {name} before: these radiographs are of a source that it knows, and it may "
            "have seen some of the test's."
        )
    if radiographs < FEW_IMAGES:
        warnings.append(f"learnt from {radiographs} radiographs: noise.")
    return warnings


def argument_parser() -> TrainingParser:
    return TrainingParser((FinetuneArguments, FinetuneTrainingArguments), description=__doc__)


if __name__ == "__main__":
    main(*argument_parser().parse())
