"""LoRA adapters, as PEFT saves them: added to a model, saved with processor and card, merged.

In: a model and a LoRA configuration, or the folder of an adapter. Out: a `PeftModel`; a folder; the merged model. Only
those who have an adapter import this file: PEFT takes seconds.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict

from litegpt.common.files import give_usual_permissions, replacing_folder
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.model_card import adapter_card
from litegpt.processing.processing_litegpt import LiteGPTProcessor

# The paper adapts the language model alone; bare names would also match the towers' projections.
LORA_TARGET_MODULES = r".*language_model\.layers.*\.(q_proj|v_proj)"
# What `config.json` says of a checkpoint's training, for an adapter, which has none.
TRAINING_RECORD = "training_record.json"


def merged_adapter(
    base: LiteGPTForConditionalGeneration, folder: str | Path, revision: str | None = None
) -> LiteGPTForConditionalGeneration:
    """The base with an adapter's LoRA merged into its weights.

    Raises:
        ValueError: the adapter's tensors do not fit the base.
    """
    lora = PeftConfig.from_pretrained(folder, revision=revision)
    return add_adapter(base, lora, folder, revision).merge_and_unload().requires_grad_(True)


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
    tensors = load_peft_weights(str(folder), device="cpu", revision=revision)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    for part, indices in (saved.trainable_token_indices or {}).items():
        ours = (lora.trainable_token_indices or {}).get(part, [])
        if not set(indices) <= set(ours):
            raise ValueError(f"{folder}: the adapter was trained on tokens of other numbers than the base's.")
        if indices != ours:  # tasks were added since: their tokens start as the base has them
            for name in [name for name in tensors if f".{part}." in name and ".token_adapter." in name]:
                rows = expected[name].clone()
                rows[[ours.index(index) for index in indices]] = tensors[name].to(rows.dtype)
                tensors[name] = rows
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
