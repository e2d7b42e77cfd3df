"""LiteGPT checkpoints as folders that are ready for the Hub, saved and loaded.

    model, processor = load_checkpoint("outputs/demo/checkpoint")   # or an adapter, or OWNER/NAME on the Hub
    save_checkpoint(model, processor, "outputs/copy")

A checkpoint is whole: weights, processor, the code that loads them, a model card. An adapter, as PEFT saves it
(`adapters.py`), needs the checkpoint that it was trained on, its base; loaded, it is merged into that.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import CLIPImageProcessorPil, GenerationConfig, PreTrainedTokenizerBase
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import find_adapter_config_file

from litegpt.common.arguments import did_you_mean
from litegpt.common.files import replacing_folder
from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration, LiteGPTModel
from litegpt.modeling_litegpt.model_card import model_card
from litegpt.modeling_litegpt.new_tasks import grow_to
from litegpt.processing.processing_litegpt import LiteGPTProcessor

AUTO_MAP = {
    "AutoConfig": "configuration_litegpt.LiteGPTConfig",
    "AutoModel": "modeling_litegpt.LiteGPTModel",
    "AutoModelForImageTextToText": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoModelForCausalLM": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoProcessor": "processing_litegpt.LiteGPTProcessor",
}
CUSTOM_PIPELINES = {
    task: {"impl": code, "pt": ["AutoModelForImageTextToText"], "type": "multimodal"}
    for task, code in (
        ("chest-xray-findings", "pipeline_litegpt.ChestXrayFindingsPipeline"),
        ("image-text-to-text", "chat_pipeline_litegpt.RadiographTextPipeline"),
    )
}
# What `generate` does unless it is told otherwise: whole answers, greedy.
GENERATION_DEFAULTS = {"max_new_tokens": 512, "do_sample": False}
CONFIGURATIONS = ("config.json", "adapter_config.json")  # a checkpoint has the one, an adapter the other
REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")  # on the Hub


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


def new_processor(
    config: LiteGPTConfig,
    tokenizer: PreTrainedTokenizerBase,
    finding_labels: Sequence[str],
    diagnosis_labels: Sequence[str],
    statistics: Sequence[tuple[Sequence[float], Sequence[float]] | None] = (),
) -> LiteGPTProcessor:
    """The processor of a new checkpoint; `tokenizer` has the tokens of `add_litegpt_tokens`.

    Args:
        statistics: for each tower the mean and the deviation of its pixels; None or nothing: CLIP's.
    """
    statistics = [*statistics, *[None] * len(config.tower_configs)]
    return LiteGPTProcessor(
        *(
            image_processor(tower.image_size, *(of or ()))
            for tower, of in zip(config.tower_configs, statistics, strict=False)
        ),
        tokenizer=tokenizer,
        num_towers=len(config.tower_configs),
        image_seq_length=config.num_visual_tokens,
        finding_labels=list(finding_labels),
        diagnosis_labels=list(diagnosis_labels),
        instructions=instructions_for(diagnosis_labels),
    )


def image_processor(
    side: int, mean: Sequence[float] = OPENAI_CLIP_MEAN, std: Sequence[float] = OPENAI_CLIP_STD
) -> CLIPImageProcessorPil:
    """Squashes the whole radiograph to side x side (bicubic, no crop), by default with CLIP's mean and deviation."""
    return CLIPImageProcessorPil(
        size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=list(mean),
        image_std=list(std),
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
    from litegpt.modeling_litegpt.adapters import merged_adapter  # it imports PEFT, which a checkpoint does not need

    model, base_processor = load_checkpoint(base, **kwargs)
    grow_to(model, base_processor.tokenizer, processor.tokenizer)  # to the tasks that the adapter added
    return merged_adapter(model, folder, revision), processor


def load_processor(folder: str | Path, revision: str | None = None) -> LiteGPTProcessor:
    """The processor of a checkpoint, or of an adapter: its own, which is calibrated for it, or else its base's.

    Raises:
        OSError: there is no such checkpoint, or the adapter's base is not found.
    """
    base = base_of_adapter(folder, revision)
    try:
        return LiteGPTProcessor.from_pretrained(folder, revision=revision)
    except OSError:
        if base is None:
            raise
        return load_processor(base)


def base_of_adapter(folder: str | Path, revision: str | None = None) -> str | None:
    """The checkpoint that an adapter needs; None where `folder` is no adapter.

    An adapter inside a checkpoint's folder is for that checkpoint, wherever both have been moved.

    Raises:
        FileNotFoundError: there is no such checkpoint or adapter, or its base is not where it says.
    """
    check_checkpoint_exists(folder)
    file = find_adapter_config_file(str(folder), revision=revision)
    if file is None:
        return None
    around = Path(folder).parent
    if (around / "config.json").is_file():
        return str(around)
    base = json.loads(Path(file).read_text(encoding="utf-8")).get("base_model_name_or_path")
    try:
        LiteGPTConfig.get_config_dict(base)
    except (OSError, TypeError):  # TypeError: it names none
        raise FileNotFoundError(
            f"{folder}: this adapter's base, {base}, is neither a folder nor a repository on the Hub; say where it is "
            "in adapter_config.json (base_model_name_or_path)."
        ) from None
    return base


def check_checkpoint_exists(folder: str | Path) -> None:
    """Says what is wrong with the name of a checkpoint, where the library would speak of repositories alone.

    Raises:
        FileNotFoundError: it is a folder without a checkpoint, or a path that leads nowhere.
    """
    path = Path(folder)
    if path.is_dir():
        if any((path / name).is_file() for name in CONFIGURATIONS):
            return
        below = [
            name for name in ("checkpoint", "adapter") if any((path / name / c).is_file() for c in CONFIGURATIONS)
        ]
        hint = f"; did you mean {path / below[0]}?" if below else "."
        raise FileNotFoundError(f"{folder} holds no checkpoint: it has no config.json{hint}")
    if path.exists():
        raise FileNotFoundError(f"{folder} is a file; a checkpoint is a folder or a repository on the Hub.")
    if path.parent.is_dir() and str(path.parent) != ".":
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir() if other.is_dir()])
        near = near.replace("did you mean ", f"did you mean {path.parent}/")
    else:
        near = ""
    if near or not REPOSITORY.fullmatch(str(folder)) or str(folder).startswith("outputs/"):
        raise FileNotFoundError(
            f"{folder}: there is no such folder{near or '.'} A checkpoint is a folder, such as the "
            "outputs/demo/checkpoint that `make demo` makes, or a repository on the Hub, OWNER/NAME."
        )
