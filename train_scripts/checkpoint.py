"""Saves a LiteGPT checkpoint that is ready for the Hub: weights, processor, the code that loads them, a model card."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import CLIPImageProcessor, GenerationConfig, PreTrainedTokenizerBase, TrainingArguments
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.trainer_utils import get_last_checkpoint

from datasets_scripts.instructions import instructions_for
from modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration, LiteGPTModel
from processing.processing_litegpt import LiteGPTProcessor
from train_scripts.model_card import model_card

AUTO_MAP = {
    "AutoConfig": "configuration_litegpt.LiteGPTConfig",
    "AutoModel": "modeling_litegpt.LiteGPTModel",
    "AutoModelForImageTextToText": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoModelForCausalLM": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoProcessor": "processing_litegpt.LiteGPTProcessor",
}
# The paper adapts the language model alone; bare names would also match the towers' projections.
LORA_TARGET_MODULES = r".*language_model\.layers.*\.(q_proj|v_proj)"
CUSTOM_PIPELINES = {
    "chest-xray-findings": {
        "impl": "pipeline_litegpt.ChestXrayFindingsPipeline",
        "pt": ["AutoModelForImageTextToText"],
        "type": "multimodal",
    }
}


def save_checkpoint(
    model: LiteGPTForConditionalGeneration,
    processor: LiteGPTProcessor,
    folder: str | Path,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes `folder` so that it loads with transformers alone (`trust_remote_code=True`), nothing of ours installed.

    The folder is written under a temporary name first: an interrupted save leaves an older checkpoint as it was.

    Args:
        state_dict: the weights, where the model's own are sharded over processes.
    """
    with replacing_folder(Path(folder)) as temporary:
        prepare_for_hub(model, processor)
        model.save_pretrained(temporary, state_dict=state_dict)
        save_processor_and_card(model, processor, temporary)


def prepare_for_hub(model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor) -> None:
    """Gives the model's configurations all that its files on the Hub say: code, pipelines, special tokens."""
    # The saved class's own `auto_map` entry would replace the map: the whole map is set on the configuration instead.
    LiteGPTConfig.register_for_auto_class()
    LiteGPTModel.register_for_auto_class("AutoModel")
    LiteGPTForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
    LiteGPTProcessor.register_for_auto_class()
    model.config.auto_map = dict(AUTO_MAP)
    model.config.custom_pipelines = CUSTOM_PIPELINES
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def save_processor_and_card(model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, folder: Path) -> None:
    """What a checkpoint has beside the model: the processor with its code, and the model card."""
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(model, processor), encoding="utf-8")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A name to write a folder to; it takes the place of `folder` when it is complete, or goes where it fails."""
    temporary = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    older = folder.with_name(folder.name + ".older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        folder.rename(older)
    temporary.rename(folder)
    shutil.rmtree(older, ignore_errors=True)


def new_processor(
    config: LiteGPTConfig,
    tokenizer: PreTrainedTokenizerBase,
    finding_labels: Sequence[str],
    diagnosis_labels: Sequence[str],
) -> LiteGPTProcessor:
    """The processor of a new checkpoint; `tokenizer` has the tokens of `add_litegpt_tokens`."""
    return LiteGPTProcessor(
        *(image_processor(tower.image_size) for tower in config.tower_configs),
        tokenizer=tokenizer,
        num_towers=len(config.tower_configs),
        image_seq_length=config.num_visual_tokens,
        finding_labels=list(finding_labels),
        diagnosis_labels=list(diagnosis_labels),
        instructions=instructions_for(diagnosis_labels),
    )


def image_processor(side: int) -> CLIPImageProcessor:
    """Squashes the whole radiograph to side x side (bicubic, no crop), with CLIP's mean and deviation."""
    return CLIPImageProcessor(
        size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=OPENAI_CLIP_MEAN,
        image_std=OPENAI_CLIP_STD,
    )


def load_checkpoint(folder: str | Path, **kwargs) -> tuple[LiteGPTForConditionalGeneration, LiteGPTProcessor]:
    """Model and processor of a checkpoint, with this repository's code rather than the checkpoint's copy of it."""
    model = LiteGPTForConditionalGeneration.from_pretrained(folder, **kwargs)
    return model, LiteGPTProcessor.from_pretrained(folder)


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The trainer's state to go on from: as asked for, or else the last one of an interrupted run in `output_dir`."""
    if arguments.resume_from_checkpoint is not None:
        return arguments.resume_from_checkpoint
    last = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).is_dir() else None
    if last is not None:
        print(f"Going on from {last}; for a run from the beginning choose another output_dir.")
    return last
