"""ECAMP: an image tower that learns by drawing masked patches and reading masked reports (arXiv 2312.13316).

    litegpt distil-reports --data_dir prepared/open-i --output_dir outputs/distilled
    litegpt pretrain-ecamp --config tiny_ecamp --data_dirs prepared/open-i \\
        --distilled outputs/distilled/distilled.jsonl --output_dir outputs/ecamp
    accelerate launch train_scripts/pretrain_ecamp.py --config ecamp --data_dirs prepared/mimic-cxr \\
        --distilled outputs/distilled/distilled.jsonl --vision_tower vit-mae-base --output_dir outputs/ecamp

A radiograph shows a crop at twice the encoder's size, and its study's report with the distilled one in it, or prompts
of its labels. MRM: `--super_resolution_weight 0 --fusion add --distilled_share 0 --mask_descriptors false
--entity_share 0.5 --other_share 0.5 --alpha 1`; plain MAE: `--super_resolution_weight 0 --text_weight 0`; the rows of
the paper's Table 4 lie between (docs/ecamp.md). `--release` does what the published code does where it differs.
Control: `--shuffle_reports`.

Writes OUTPUT_DIR/checkpoint, which `AutoModel` and `litegpt new --vision_tower` take, OUTPUT_DIR/tower, the encoder
alone, and OUTPUT_DIR/drawings; the same command resumes where an interrupted run stopped.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from transformers import CLIPImageProcessorPil, TrainingArguments, set_seed
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.label_prompts import known_labels, sentences
from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_litegpt.model_card import add_training, training_entry
from litegpt.modeling_litegpt.taken_tower import taken_tower
from litegpt.modeling_towers import ECAMPConfig, ECAMPModel
from litegpt.modeling_towers.checkpoints import load_cxr_clip
from litegpt.modeling_towers.ecamp_checkpoints import load_ecamp, new_ecamp, save_ecamp
from litegpt.modeling_towers.image_towers import load_image_tower, save_image_tower
from litegpt.train_scripts.arguments import ECAMPArguments, MaskingArguments, PictureArguments, ReportArguments
from litegpt.train_scripts.context_windows import WHOLE, windows_of_boxes, windows_of_similarity
from litegpt.train_scripts.ecamp_drawings import DrawingsCallback
from litegpt.train_scripts.ecamp_trainer import ECAMPCollator, ECAMPTrainer, Views
from litegpt.train_scripts.ecamp_validation import ECAMPValidation
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.report_masking import ReportMasking
from litegpt.train_scripts.reports import Reports
from litegpt.train_scripts.resume import checkpoint_to_resume
from litegpt.train_scripts.tower_trainer import StudyIndices, picture_dtype
from litegpt.train_scripts.training_parser import TrainingParser


@program
def main(
    arguments: ECAMPArguments,
    report_arguments: ReportArguments,
    masking_arguments: MaskingArguments,
    picture_arguments: PictureArguments,
    training_arguments: TrainingArguments,
) -> None:
    resumed = checkpoint_to_resume(training_arguments)
    run = prepared_run(
        arguments, report_arguments, masking_arguments, picture_arguments, training_arguments, resumed is not None
    )
    trainer = run.trainer
    trainer.train(resume_from_checkpoint=resumed)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        for entry in run.entries:
            add_training(model.config, entry, trainer.state.global_step)
        checkpoint = f"{training_arguments.output_dir}/checkpoint"
        save_ecamp(model, run.tokenizer, run.processor, checkpoint)
        save_image_tower(load_image_tower(checkpoint), f"{training_arguments.output_dir}/tower")


class PreparedRun(NamedTuple):
    """A training that has not begun; `entries`: what the card will say of it, but for its steps."""

    trainer: ECAMPTrainer
    tokenizer: PreTrainedTokenizerBase
    processor: CLIPImageProcessorPil
    entries: list[dict[str, Any]]


def prepared_run(
    arguments: ECAMPArguments,
    report_arguments: ReportArguments,
    masking_arguments: MaskingArguments,
    picture_arguments: PictureArguments,
    training_arguments: TrainingArguments,
    goes_on: bool = False,
) -> PreparedRun:
    """Reads the data, makes or loads the model, and puts both into a trainer.

    Args:
        goes_on: a run that was interrupted has the model it started from.
    """
    if not 0 < masking_arguments.alpha <= 1:
        raise Refusal(f"alpha: it must be above 0 and at most 1, not {masking_arguments.alpha}.")
    if (picture_arguments.context == "similarity") != (picture_arguments.context_model is not None):
        raise Refusal("context: similarity needs a context_model, a CXR-CLIP checkpoint; nothing else takes one.")
    cache_dir = arguments.training_cache_dir or f"{training_arguments.output_dir}/cache"

    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_arguments.main_process_first(desc="preparing data"):
        rows = rows_of_split(arguments, arguments.train_split)
        reports = [Reports(part, report_arguments, training_arguments.seed) for part in rows]
        for data_dir, part in zip(arguments.data_dirs, reports, strict=True):
            print(f"{data_dir}: {len(part):,} radiographs{part.remarks}")
        model, tokenizer, processor = starting_point(
            arguments, masking_arguments.max_length, reports, training_arguments, goes_on
        )
        large = image_processor(model.config.picture_size, processor.image_mean, processor.image_std)
        stores = [RadiographStore(part, [large], cache_dir) for part in rows]
        windows = [context_windows(picture_arguments, *parts, cache_dir) for parts in zip(reports, rows, strict=True)]
        held_out_rows = rows_of_split(arguments, arguments.validation_split) if arguments.validation_split else []
        own_reports = replace(report_arguments, shuffle_reports=False)
        held_out = [Reports(part, own_reports) for part in held_out_rows]
        held_out_stores = [RadiographStore(part, [large], cache_dir) for part in held_out_rows]
        trained = "the image encoder" if model.language_model is None else "the image encoder and the text encoder"
        entries = [
            training_entry("pretrain_ecamp.py", data_dir, len(part), [], trained, training_arguments)
            for data_dir, part in zip(arguments.data_dirs, reports, strict=True)
        ]

    masking = None
    if model.language_model is not None:
        masking = ReportMasking(tokenizer, masking_arguments, model.config.release)
    views = Views(
        model.config.image_size // model.config.vision_config.patch_size,
        picture_arguments.min_crop_area,
        model.config.release,
        training_arguments.seed,
        picture_dtype(training_arguments),
    )
    collator = ECAMPCollator(StudyIndices(reports), stores, windows, masking, views)
    shown, validation = collator, None
    if held_out:
        everywhere = [np.tile(np.float32(WHOLE), (len(part), 1)) for part in held_out]
        whole = replace(views, min_crop_area=None, dtype=torch.float32)
        shown = ECAMPCollator(StudyIndices(held_out), held_out_stores, everywhere, masking, whole)
        validation = ECAMPValidation(shown, training_arguments.per_device_train_batch_size)
    drawings = DrawingsCallback(shown, processor, tokenizer if masking else None)
    trainer = ECAMPTrainer(
        abnormal_share=report_arguments.abnormal_share,
        validation=validation,
        model=model,
        args=training_arguments,
        train_dataset=collator.reports,
        eval_dataset=shown.reports if held_out else None,
        data_collator=collator,
        callbacks=[drawings],
    )
    return PreparedRun(trainer, tokenizer, processor, entries)


def rows_of_split(arguments: ECAMPArguments, split: str) -> list[datasets.Dataset]:
    """The rows of each data set."""
    return [load_rows(data_dir, split, arguments.cache_dir, arguments.num_proc) for data_dir in arguments.data_dirs]


def starting_point(
    arguments: ECAMPArguments,
    max_length: int,
    reports: Sequence[Reports],
    training_arguments: TrainingArguments,
    goes_on: bool,
) -> tuple[ECAMPModel, PreTrainedTokenizerBase, CLIPImageProcessorPil]:
    """What training starts from, kept in OUTPUT_DIR/start, so that a resumed run has the same tokenizer.

    Raises:
        OSError, ValueError: there is no such checkpoint or tower, or texts would be longer than the model's.
    """
    if arguments.model_name_or_path is not None:
        found = load_ecamp(arguments.model_name_or_path)
        positions = found[0].config.text_config.max_position_embeddings
        if max_length > positions:
            raise ValueError(f"max_length: {max_length} tokens are more than the model's {positions} positions.")
        return found
    start = Path(training_arguments.output_dir, "start")
    is_main = training_arguments.process_index == 0
    if is_main and not (goes_on and (start / "config.json").is_file()):
        set_seed(training_arguments.seed)
        config = ECAMPConfig(
            vision_config=arguments.vision_config,
            text_config={**arguments.text_config, "max_position_embeddings": max_length},
            super_resolution_weight=arguments.super_resolution_weight,
            text_weight=arguments.text_weight,
            fusion=arguments.fusion,
            release=arguments.release,
        )
        config.base_models = []
        model, tokenizer = new_ecamp(config, corpus(reports), arguments.tokenizer)
        if arguments.vision_tower is not None:
            taken = taken_tower(arguments.vision_tower)
            taken.load_into(model.mae.vit, arguments.vision_tower)
            # For the card; a folder by its own name, since where it lies is nobody's business.
            model.config.base_models = taken.record.get("base_models") or [Path(arguments.vision_tower).resolve().name]
        mean, std = [arguments.image_mean] * 3, [arguments.image_std] * 3
        save_ecamp(model, tokenizer, image_processor(config.image_size, mean, std), start)
    return load_ecamp(start)


def corpus(reports: Sequence[Reports]) -> Iterator[str]:
    """What a tokenizer learns from: the reports, and every sentence of the prompts."""
    for part in reports:
        yield from part.corpus()
    for label in known_labels():
        for state in ("positive", "negative", "uncertain"):
            yield from sentences(label, state)


def context_windows(
    arguments: PictureArguments, reports: Reports, rows: datasets.Dataset, cache_dir: str
) -> np.ndarray:
    """(radiographs, 4) xyxy, where super-resolution is judged."""
    if arguments.context == "boxes":
        return windows_of_boxes([reports.boxes(number) for number in range(len(reports))])
    if arguments.context == "similarity":
        model, processor = load_cxr_clip(arguments.context_model)
        store = RadiographStore(rows, [processor.image_processor], cache_dir)
        return windows_of_similarity(model, processor, store, reports, cache_dir)
    return np.tile(np.float32(WHOLE), (len(reports), 1))


def argument_parser() -> TrainingParser:
    return TrainingParser(
        (ECAMPArguments, ReportArguments, MaskingArguments, PictureArguments, TrainingArguments), description=__doc__
    )


if __name__ == "__main__":
    main(*argument_parser().parse())
