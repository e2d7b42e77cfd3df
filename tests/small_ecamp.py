"""A tiny ECAMP, and a training of it that a test can afford."""

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from litegpt.train_scripts import pretrain_ecamp
from litegpt.train_scripts.arguments import ECAMPArguments, MaskingArguments, PictureArguments, ReportArguments

VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "decoder_hidden_size": 16,
    "decoder_intermediate_size": 24,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}
TEXT = {
    "vocab_size": 200,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ARGUMENTS = (ECAMPArguments, ReportArguments, MaskingArguments, PictureArguments)


def pretrain(output_dir: Path | str, data_dirs: list[str], **options: Any) -> None:
    """Runs `pretrain_ecamp.main`; `options` are those of any of its argument classes."""
    values_by_class = [
        {name: options.pop(name) for name in list(options) if name in arguments.__dataclass_fields__}
        for arguments in ARGUMENTS
    ]
    values_by_class[0] = {"data_dirs": data_dirs, "vision_config": VISION, "text_config": TEXT, **values_by_class[0]}
    values_by_class[2] = {"max_length": 32, **values_by_class[2]}
    defaults = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1}
    defaults |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    pretrain_ecamp.main(
        *(arguments(**values) for arguments, values in zip(ARGUMENTS, values_by_class, strict=True)),
        TrainingArguments(str(output_dir), **{**defaults, **options}),
    )
