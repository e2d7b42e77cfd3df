"""Trains a classifier of radiographs on labels alone, which shows where it sees each (ChestX-ray8, arXiv 1705.02315).

    litegpt train-classifier --config chestx_ray8 --trunk microsoft/resnet-50 \\
        --data_dir prepared/chestx-ray14 --output_dir outputs/chestx_ray8
    litegpt localize --model_name_or_path outputs/chestx_ray8/checkpoint \\
        --data_dir prepared/chestx-ray14 --output_dir outputs/chestx_ray8/test

Any trunk: ResNet-50, DenseNet-121 (timm), a ViT; the image tower of a LiteGPT, a CXR-CLIP or an ECAMP. Boxes are never
read. ChestX-ray14's official lists have no validation: `litegpt prepare chestx-ray14 --validation_share 0.1` takes one
out of train, by patient.

The best checkpoint by a validation's mean AUROC is kept; the validation also says from which score on each label is
called present. Writes OUTPUT_DIR/checkpoint/ and metrics.json, the validation's figures beside shuffled answers. The
test split is not looked at: that is `litegpt localize`. The same command resumes where an interrupted run stopped, and
shows a finished one. The control: the same command with `--random_weights`.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import json
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset
from transformers import EarlyStoppingCallback, set_seed

from litegpt.common.files import weights_sha256, write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.rows import data_set_facts
from litegpt.evaluation_scripts.evaluate_litegpt import versions
from litegpt.evaluation_scripts.patients import patients_of
from litegpt.evaluation_scripts.tower_scores.table import score_table
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_litegpt.model_card import add_training, training_entry
from litegpt.modeling_litegpt.provenance import short_name
from litegpt.modeling_towers.classifier_checkpoints import (
    load_classifier,
    load_trunk,
    new_classifier,
    save_classifier,
)
from litegpt.modeling_towers.image_towers import ImageTower, fresh_image_tower
from litegpt.train_scripts.arguments import ClassifierArguments
from litegpt.train_scripts.finetune_splits import load_splits
from litegpt.train_scripts.finetune_tower import FinetuneTrainingArguments
from litegpt.train_scripts.finetune_trainer import FinetuneTrainer, Radiographs
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.resumable_trainer import SavedWhole
from litegpt.train_scripts.resume import checkpoint_to_resume
from litegpt.train_scripts.run_settings import check_settings, keep_settings, settings_of
from litegpt.train_scripts.tower_tasks.weighted_labels import WeightedLabels
from litegpt.train_scripts.tower_trainer import picture_dtype
from litegpt.train_scripts.training_parser import TrainingParser


@dataclass
class ClassifierTrainingArguments(FinetuneTrainingArguments):
    """Those of `finetune-tower`; the best checkpoint of a validation is kept, by its mean AUROC."""

    metric_for_best_model: str | None = WeightedLabels.metric
    greater_is_better: bool | None = True


class ClassifierTrainer(SavedWhole, FinetuneTrainer):
    """`Trainer` of a `RadiographClassifier`."""


@program
def main(arguments: ClassifierArguments, training_arguments: ClassifierTrainingArguments) -> None:
    output_dir = Path(training_arguments.output_dir)
    settings = settings_of(arguments, training_arguments)
    if check_settings(output_dir, settings):
        print(score_table(json.loads((output_dir / "metrics.json").read_text(encoding="utf-8"))))
        return
    resumed = checkpoint_to_resume(training_arguments)
    checkpoint = output_dir / "checkpoint"
    is_trained = (checkpoint / "config.json").is_file()
    set_seed(training_arguments.seed)
    cache_dir = Path(arguments.training_cache_dir or output_dir / "cache")
    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_arguments.main_process_first(desc="preparing data"):
        trunk = None if is_trained else starting_trunk(arguments)
        splits = load_splits(arguments, "classification", training_arguments.seed)
        task = WeightedLabels.of(splits.train, arguments.labels, arguments.unmentioned_negative)
        task = replace(task, balance=arguments.balance)
        if trunk is None:
            model, processor = load_classifier(checkpoint)
        else:
            names = ("trunk_stage", "transition_width", "pooling", "lse_r", "balance")
            options = {name: getattr(arguments, name) for name in names}
            model, processor = new_classifier(trunk, task.labels, **options)
        movements = {name: getattr(arguments, name) for name in ("min_crop_area", "max_gamma")}
        train, validation = (
            Radiographs(
                RadiographStore(rows, [processor.image_processor], cache_dir),
                task.truths(rows),
                seed=training_arguments.seed,
                dtype=picture_dtype(training_arguments),
                **options,
            )
            for rows, options in ((splits.train, movements), (splits.validation, {}))
        )
        if refusal := task.cannot_measure(validation.truths, arguments.min_positives):
            raise ValueError(f"{arguments.data_dir}, {arguments.validation_split}: {refusal}.")
        trained = "the trunk, transition and prediction of a classifier"
        entry = training_entry("train_classifier.py", arguments.data_dir, len(train), [], trained, training_arguments)
    trainer = ClassifierTrainer(
        task=task,
        positive_share=arguments.positive_share,
        model=model,
        args=training_arguments,
        train_dataset=train,
        eval_dataset=validation,
        callbacks=[] if arguments.patience is None else [EarlyStoppingCallback(arguments.patience)],
    )
    if trainer.is_world_process_zero():
        keep_settings(output_dir, settings)
    if not is_trained:
        print(f"{len(task.labels)} labels, {len(train):,} radiographs to learn from, {arguments.pooling} pooling.")
        trainer.train(resume_from_checkpoint=resumed)
    answers = trainer.answers(validation)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        cut_offs = task.cut_offs(answers, validation.truths)
        if not is_trained:
            state = trainer.state
            steps = state.best_global_step if training_arguments.load_best_model_at_end else state.global_step
            model.config.present = {label: point["threshold"] for label, point in cut_offs.items()}
            add_training(model.config, entry | {"validation": state.best_metric}, steps)
            save_classifier(model, processor, checkpoint)
        patients = patients_of(splits.validation)
        metrics = {
            "task": task.name,
            **task.scores(answers, validation.truths, train.truths, patients, arguments.min_positives),
            "present": cut_offs,
            "warnings": [*splits.warnings, *warnings_about(splits.train)],
            "data_set": data_set_facts(arguments.data_dir)
            | {"radiographs": {"train": len(train), "validation": len(validation)}},
            "training": model.config.to_dict()["training_record"][-1] | {"chosen_by": task.metric},
            "tower": trunk_name(arguments),
            "weights": weights_sha256(checkpoint),
            "run": versions(),
        }
        write_text(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        print(score_table(metrics))


def starting_trunk(arguments: ClassifierArguments) -> ImageTower:
    """The trunk to train, with its weights or, where that is asked for, random ones.

    Raises:
        OSError, ValueError: there is none, or its configuration cannot be used.
    """
    if arguments.trunk is not None:
        trunk = load_trunk(arguments.trunk, arguments.image_size)
        return fresh_image_tower(trunk.config, trunk.processor) if arguments.random_weights else trunk
    config = dict(arguments.trunk_config or {})
    side = arguments.image_size or config.get("image_size")
    if "model_type" not in config or side is None:
        raise ValueError(
            "Give --trunk, a checkpoint's folder or a network of the Hub, or --trunk_config with `model_type` and "
            "`image_size`."
        )
    return fresh_image_tower(config | {"image_size": side}, image_processor(side))


def trunk_name(arguments: ClassifierArguments) -> str:
    """What metrics.json calls the trunk."""
    if arguments.trunk is None:
        return f"random weights ({arguments.trunk_config['model_type']})"
    name = short_name(arguments.trunk)
    return f"random weights ({name})" if arguments.random_weights else name


def warnings_about(train: Dataset) -> list[str]:
    """What readers of a localisation must know of what the classifier learnt from."""
    boxed = sum(1 for findings in train["findings"] if findings) if "findings" in train.column_names else 0
    if not boxed:
        return []
    return [f"{boxed:,} training radiographs have boxes: these were not read, but their labels were learnt."]


def argument_parser() -> TrainingParser:
    return TrainingParser((ClassifierArguments, ClassifierTrainingArguments), description=__doc__)


if __name__ == "__main__":
    main(*argument_parser().parse())
