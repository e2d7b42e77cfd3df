"""CXR-CLIP: image and text towers from radiographs with reports or labels (arXiv 2310.13292).

    litegpt pretrain-cxr-clip --config tiny_cxr_clip --data_dirs prepared/open-i --output_dir outputs/cxr_clip
    accelerate launch train_scripts/pretrain_cxr_clip.py --config cxr_clip_swin --data_dirs prepared/mimic-cxr \\
        prepared/chexpert prepared/chestx-ray14 --validation_split validation --output_dir outputs/cxr_clip

A study shows two of its pictures and two texts: sections of its report, or prompts of its labels. The rows of the
paper's Table 4 are flags, each with all before it on: `--study_sampling`, `--augment`, `--multi_view`,
`--image_loss_weight 1`, `--text_loss_weight 0.5`; all off is plain CLIP. Controls: `--shuffle_reports` (a study gets
another one's text), `--multi_view_weight 0 --text_loss_weight 0` (images alone, no text teaches them).

The batch over all processes is `per_device_train_batch_size` times their number, and every study is told from all
others of it. `--chunk_size` computes a large one in little memory. Writes OUTPUT_DIR/checkpoint, which `AutoModel` and
`litegpt new --vision_tower` take; the same command resumes where an interrupted run stopped.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.label_prompts import known_labels, sentences
from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_litegpt.model_card import add_training, training_entry
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.modeling_towers.checkpoints import load_cxr_clip, save_cxr_clip
from litegpt.modeling_towers.new_cxr_clip import TowerSources, new_cxr_clip
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.train_scripts.arguments import ContrastArguments, CXRCLIPArguments, StudyArguments
from litegpt.train_scripts.contrastive_loss import LossWeights
from litegpt.train_scripts.cxr_clip_trainer import CXRCLIPTrainer, StudyCollator
from litegpt.train_scripts.cxr_clip_validation import CXRCLIPValidation
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.resume import checkpoint_to_resume
from litegpt.train_scripts.studies import Studies
from litegpt.train_scripts.tower_trainer import StudyIndices, picture_dtype
from litegpt.train_scripts.training_parser import TrainingParser


@program
def main(
    arguments: CXRCLIPArguments,
    study_arguments: StudyArguments,
    contrast: ContrastArguments,
    training_arguments: TrainingArguments,
) -> None:
    if study_arguments.augment and study_arguments.equalise and find_spec("cv2") is None:
        raise Refusal(
            "equalise: contrast is equalised by OpenCV: pip install opencv-python-headless, or --equalise 0."
        )
    cache_dir = arguments.training_cache_dir or f"{training_arguments.output_dir}/cache"
    resumed = checkpoint_to_resume(training_arguments)
    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_arguments.main_process_first(desc="preparing data"):
        rows = [
            load_rows(data_dir, arguments.train_split, arguments.cache_dir, arguments.num_proc)
            for data_dir in arguments.data_dirs
        ]
        studies = StudyIndices([Studies(part, study_arguments, training_arguments.seed) for part in rows])
        for data_dir, part, found in zip(arguments.data_dirs, rows, studies.studies, strict=True):
            said = f", {found.left_out:,} without a text left out" if found.left_out else ""
            print(f"{data_dir}: {len(found):,} studies, {len(part):,} radiographs{said}")
        model, processor = starting_point(arguments, study_arguments, studies, training_arguments, resumed)
        stores = [RadiographStore(part, [processor.image_processor], cache_dir) for part in rows]
        entries = [
            training_entry("pretrain_cxr_clip.py", data_dir, part.radiographs, [], "both towers", training_arguments)
            for data_dir, part in zip(arguments.data_dirs, studies.studies, strict=True)
        ]
        validation_rows = []
        if arguments.validation_split is not None:
            validation_rows = [
                load_rows(data_dir, arguments.validation_split, arguments.cache_dir, arguments.num_proc)
                for data_dir in arguments.data_dirs
            ]
        plain = replace(study_arguments, augment=False, shuffle_reports=False, abnormal_share=None)
        held_out = StudyIndices([Studies(part, plain) for part in validation_rows]) if validation_rows else None
        held_out_stores = [RadiographStore(part, [processor.image_processor], cache_dir) for part in validation_rows]

    weights = LossWeights(contrast.image_loss_weight, contrast.text_loss_weight, contrast.multi_view_weight)
    validation = None
    if held_out is not None:
        collator = StudyCollator(held_out, held_out_stores, processor)
        validation = CXRCLIPValidation(collator, processor, weights, training_arguments.per_device_train_batch_size)
    trainer = CXRCLIPTrainer(
        weights=weights,
        chunk_size=contrast.chunk_size,
        abnormal_share=study_arguments.abnormal_share,
        validation=validation,
        model=for_this_machine(model, training_arguments),
        args=training_arguments,
        train_dataset=studies,
        eval_dataset=held_out,
        data_collator=StudyCollator(
            studies, stores, processor, training_arguments.seed, picture_dtype(training_arguments)
        ),
    )
    trainer.train(resume_from_checkpoint=resumed)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        for entry in entries:
            add_training(model.config, entry, trainer.state.global_step)
        save_cxr_clip(model, processor, f"{training_arguments.output_dir}/checkpoint")


def starting_point(
    arguments: CXRCLIPArguments,
    study_arguments: StudyArguments,
    studies: StudyIndices,
    training_arguments: TrainingArguments,
    resumed: str | None,
) -> tuple[CXRCLIPModel, CXRCLIPProcessor]:
    """The model that training starts from, kept in OUTPUT_DIR/start, so that a resumed run has the same tokenizer."""
    if arguments.model_name_or_path is not None:
        return load_cxr_clip(arguments.model_name_or_path)
    start = Path(training_arguments.output_dir, "start")
    is_main = training_arguments.process_index == 0
    if is_main and (resumed is None or not (start / "config.json").is_file()):
        set_seed(training_arguments.seed)
        sources = TowerSources(
            vision_model=arguments.vision_model,
            vision_config=arguments.vision_config,
            text_model=arguments.text_model,
            text_config=arguments.text_config,
            image_size=arguments.image_size,
            projection_dim=arguments.projection_dim,
            max_length=arguments.max_length,
            image_pooling="first" if study_arguments.release and _is_swin(arguments) else "mean",
        )
        save_cxr_clip(*new_cxr_clip(sources, corpus(studies.studies)), start)
    return load_cxr_clip(start)


def corpus(studies: Sequence[Studies]) -> Iterator[str]:
    """What a tokenizer learns from: the reports, and every sentence of the prompts."""
    for part in studies:
        yield from part.corpus()
    for label in known_labels():
        for state in ("positive", "negative", "uncertain"):
            yield from sentences(label, state)


def for_this_machine(model: CXRCLIPModel, training_arguments: TrainingArguments) -> CXRCLIPModel:
    """Convolutions in the order of memory that computes fastest; batch norms over all GPUs, as the paper's code."""
    if model.config.vision_config.model_type == "resnet":
        model.vision_model.to(memory_format=torch.channels_last)
        if training_arguments.world_size > 1 and training_arguments.device.type == "cuda":
            model.vision_model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model.vision_model)
    return model


def _is_swin(arguments: CXRCLIPArguments) -> bool:
    return "swin" in (arguments.vision_model or (arguments.vision_config or {}).get("model_type", "")).lower()


def argument_parser() -> TrainingParser:
    return TrainingParser(
        (CXRCLIPArguments, StudyArguments, ContrastArguments, TrainingArguments), description=__doc__
    )


if __name__ == "__main__":
    main(*argument_parser().parse())
