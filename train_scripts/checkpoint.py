"""LiteGPT checkpoints and adapters as folders that are ready for the Hub, saved and loaded.

A checkpoint is whole: weights, processor, the code that loads them, a model card. An adapter, as PEFT saves it, needs
the checkpoint that it was trained on, its base.
"""

import train_scripts.startup  # noqa: F401

# isort: split
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from transformers import CLIPImageProcessorPil, GenerationConfig, PreTrainedTokenizerBase, TrainingArguments
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.integrations import is_fsdp_enabled
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import find_adapter_config_file

from datasets_scripts.files import give_usual_permissions
from datasets_scripts.instructions import instructions_for
from modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration, LiteGPTModel
from processing.processing_litegpt import LiteGPTProcessor
from train_scripts.model_card import adapter_card, model_card

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
# What `config.json` says of a checkpoint's training, for an adapter, which has none.
TRAINING_RECORD = "training_record.json"
CUSTOM_PIPELINES = {
    task: {"impl": code, "pt": ["AutoModelForImageTextToText"], "type": "multimodal"}
    for task, code in (
        ("chest-xray-findings", "pipeline_litegpt.ChestXrayFindingsPipeline"),
        ("image-text-to-text", "chat_pipeline_litegpt.RadiographTextPipeline"),
    )
}
# What `generate` does unless it is told otherwise: whole answers, greedy.
GENERATION_DEFAULTS = {"max_new_tokens": 512, "do_sample": False}


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
    if state_dict is not None:
        # FSDP2 makes the model one of torch's classes, whose code would be copied; ZeRO-3's tensors would be renamed.
        with torch.device("meta"):
            model = LiteGPTForConditionalGeneration._from_config(model.config, dtype=model.dtype)
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
        **GENERATION_DEFAULTS,
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


def image_processor(side: int) -> CLIPImageProcessorPil:
    """Squashes the whole radiograph to side x side (bicubic, no crop), with CLIP's mean and deviation."""
    return CLIPImageProcessorPil(
        size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=OPENAI_CLIP_MEAN,
        image_std=OPENAI_CLIP_STD,
    )


def load_checkpoint(
    folder: str | Path, revision: str | None = None, **kwargs
) -> tuple[LiteGPTForConditionalGeneration, LiteGPTProcessor]:
    """Model and processor, with this repository's code rather than the checkpoint's copy of it.

    Args:
        folder: a checkpoint, or an adapter, which is merged into its base. A folder or a repository on the Hub.
        revision: of the repository.
        kwargs: for `from_pretrained`.

    Raises:
        OSError: there is no such checkpoint, or the adapter's base is not found.
        ValueError: the weights do not fit.
    """
    base = base_of_adapter(folder, revision)
    processor = load_processor(folder, revision)
    if base is None:
        return LiteGPTForConditionalGeneration.from_pretrained(folder, revision=revision, **kwargs), processor
    model, _ = load_checkpoint(base, **kwargs)
    lora = PeftConfig.from_pretrained(folder, revision=revision)
    merged = add_adapter(model, lora, folder, revision).merge_and_unload()
    return merged.requires_grad_(True), processor


def load_processor(folder: str | Path, revision: str | None = None) -> LiteGPTProcessor:
    """The processor of a checkpoint, or of an adapter: its own, which is calibrated for it, or else its base's."""
    base = base_of_adapter(folder, revision)
    try:
        return LiteGPTProcessor.from_pretrained(folder, revision=revision)
    except OSError:
        if base is None:
            raise
        return load_processor(base)


# --- Adapters --------------------------------------------------------------------------------------------------------


def base_of_adapter(folder: str | Path, revision: str | None = None) -> str | None:
    """The checkpoint that an adapter needs; None where `folder` is no adapter.

    An adapter inside a checkpoint's folder is for that checkpoint, wherever both have been moved.

    Raises:
        FileNotFoundError: the base is not where the adapter says.
    """
    if find_adapter_config_file(str(folder), revision=revision) is None:
        return None
    around = Path(folder).parent
    if (around / "config.json").is_file():
        return str(around)
    base = PeftConfig.from_pretrained(folder, revision=revision).base_model_name_or_path
    try:
        LiteGPTConfig.get_config_dict(base)
    except OSError:
        raise FileNotFoundError(
            f"{folder}: this adapter's base, {base}, is neither a folder nor a repository on the Hub; say where it is "
            "in adapter_config.json (base_model_name_or_path)."
        ) from None
    return base


def add_adapter(
    model: LiteGPTForConditionalGeneration,
    lora: LoraConfig,
    folder: str | Path | None = None,
    revision: str | None = None,
    trained_dtype: torch.dtype | None = None,
) -> PeftModel:
    """The model with LoRA, fresh or as an adapter has it.

    Of what `lora` trains in full, an adapter may lack all of a module (`convert_weights_to_hf.py` writes LoRA alone):
    it starts as the base has it, and that is printed.

    Args:
        folder: the adapter; None: fresh LoRA.
        trained_dtype: of all weights that are trained; None: LoRA float32, what is trained in full as the base has it.

    Raises:
        ValueError: the adapter is of another kind or size than `lora`, or its tensors do not fit.
    """
    base = model.name_or_path
    model = get_peft_model(model, lora)
    # A path that holds from whatever folder the adapter is loaded.
    lora.base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else base
    if trained_dtype is not None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(trained_dtype)
    if folder is None:
        return model

    saved = PeftConfig.from_pretrained(folder, revision=revision)
    for name in ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora"):
        theirs, ours = getattr(saved, name, None), getattr(lora, name)
        if theirs != ours:
            raise ValueError(f"{folder}: the adapter has {name} {theirs}, where {ours} is asked for.")
    if saved.trainable_token_indices not in (None, lora.trainable_token_indices):
        raise ValueError(f"{folder}: the adapter was trained on tokens of other numbers than the base's.")
    tensors = load_peft_weights(str(folder), device="cpu", revision=revision)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name in sorted(tensors.keys() | expected.keys()):
        if name not in expected:
            raise ValueError(f"{folder}: the adapter has a tensor that there is no place for: {name}")
        if name not in tensors and ".lora_" in name:
            raise ValueError(f"{folder}: the adapter lacks {name}")
        if name in tensors and tensors[name].shape != expected[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
            raise ValueError(f"{folder}: {name} has shape {shapes}")
    for part in [*(lora.modules_to_save or ()), *(lora.trainable_token_indices or ())]:
        names = [name for name in expected if f".{part}." in name]
        missing = [name for name in names if name not in tensors]
        if 0 < len(missing) < len(names):
            raise ValueError(f"{folder}: the adapter has a part of {part} alone, it lacks {missing[0]}")
        if missing:
            print(f"{folder} has no {part}: it starts as the base has it.")
    set_peft_model_state_dict(model, expected | tensors)
    record = Path(folder, TRAINING_RECORD)
    if record.is_file():
        model.config.training_record = json.loads(record.read_text(encoding="utf-8"))
    return model


def save_adapter(
    model: PeftModel,
    processor: LiteGPTProcessor,
    folder: str | Path,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes `folder` as PEFT saves an adapter, with the processor and a card beside it.

    Args:
        state_dict: the weights, where the model's own are sharded over processes.
    """
    LiteGPTProcessor.register_for_auto_class()
    lora = model.peft_config["default"]
    with replacing_folder(Path(folder)) as temporary:
        model.save_pretrained(temporary, state_dict=state_dict, save_embedding_layers=False)
        give_usual_permissions(temporary / "adapter_model.safetensors")
        processor.save_pretrained(temporary)
        (temporary / "README.md").write_text(adapter_card(model.config, processor, lora), encoding="utf-8")
        record = json.dumps(model.config.to_dict().get("training_record") or [], indent=2)
        (temporary / TRAINING_RECORD).write_text(record + "\n", encoding="utf-8")


# --- Checkpoints of a run, which the trainer writes ------------------------------------------------------------------


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The trainer's state to go on from: as asked for, or else the last one of an interrupted run in `output_dir`.

    What an interruption left incomplete is removed.
    """
    asked_for = arguments.resume_from_checkpoint
    if asked_for is not None:
        if not is_complete(Path(asked_for)):
            raise SystemExit(f"{asked_for}: not a complete checkpoint of a run (no readable {TRAINER_STATE_NAME}).")
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
            print(f"Going on from {last}; for a run from the beginning choose another output_dir.")
    return last


def refuse_to_resume_where_the_library_cannot(arguments: TrainingArguments) -> None:
    """Ends the program for several processes on a CPU with transformers 5.17, which fails at the optimizer's state."""
    on_cpus = arguments.world_size > 1 and arguments.device.type == "cpu" and not is_fsdp_enabled()
    if on_cpus and transformers.__version__.startswith("5.17."):
        raise SystemExit(
            "transformers 5.17 cannot go on from a checkpoint in several processes on a CPU, and later ones can: "
            "install one, or go on in one process."
        )


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
