"""Saves a LiteGPT checkpoint that is ready for the Hub: weights, processor, the code that loads them, a model card."""

import shutil
from pathlib import Path

from transformers import GenerationConfig, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration, LiteGPTModel
from processing.processing_litegpt import LiteGPTProcessor

AUTO_MAP = {
    "AutoConfig": "configuration_litegpt.LiteGPTConfig",
    "AutoModel": "modeling_litegpt.LiteGPTModel",
    "AutoModelForImageTextToText": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoModelForCausalLM": "modeling_litegpt.LiteGPTForConditionalGeneration",
    "AutoProcessor": "processing_litegpt.LiteGPTProcessor",
}
CUSTOM_PIPELINES = {
    "chest-xray-findings": {
        "impl": "pipeline_litegpt.ChestXrayFindingsPipeline",
        "pt": ["AutoModelForImageTextToText"],
        "type": "multimodal",
    }
}

MODEL_CARD = """---
license: other
library_name: transformers
pipeline_tag: image-text-to-text
tags: [litegpt, chest-x-ray, radiology, object-detection]
---

# LiteGPT

A vision-language model for frontal chest radiographs: it names findings, draws their boxes and states diagnoses
([arXiv 2407.12064](https://arxiv.org/abs/2407.12064)). Research software, not a medical device: not for clinical use.

```python
from transformers import pipeline

pipe = pipeline("chest-xray-findings", model=PATH_OR_ID, trust_remote_code=True)
pipe("radiograph.dicom")  # DICOM needs `pip install pydicom imagecodecs`; PNG and JPEG need nothing more
```

`AutoModelForImageTextToText`, `AutoProcessor` and `pipeline("image-text-to-text")` load it as well, with
`trust_remote_code=True`. Prompts are those of `processor_config.json` under `instructions`; answers are greedy.

- Parameters: {parameters:,}. Visual tokens: {visual_tokens} from {patch_tokens} patch tokens of {towers} tower(s).
- Findings: {findings}.
- Diagnoses: {diagnoses}.

Weights that start from Llama 2, BiomedCLIP or PubMedCLIP stay under those licences, training on VinDr-CXR is bound to
its PhysioNet licence.
"""


def save_checkpoint(model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, folder: str | Path) -> None:
    """Writes `folder` so that it loads with transformers alone (`trust_remote_code=True`), nothing of ours installed.

    The folder is written under a temporary name first: an interrupted save leaves an older checkpoint as it was.
    """
    folder = Path(folder)
    temporary = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(temporary, ignore_errors=True)

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
    model.save_pretrained(temporary)
    processor.save_pretrained(temporary)
    config = model.config
    (temporary / "README.md").write_text(
        MODEL_CARD.format(
            parameters=model.num_parameters(),
            visual_tokens=config.num_visual_tokens,
            patch_tokens=config.num_patch_tokens,
            towers=len(config.tower_configs),
            findings=", ".join(processor.finding_labels),
            diagnoses=", ".join(processor.diagnosis_labels),
        ),
        encoding="utf-8",
    )
    older = folder.with_name(folder.name + ".older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        folder.rename(older)
    temporary.rename(folder)
    shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(folder: str | Path, **kwargs) -> tuple[LiteGPTForConditionalGeneration, LiteGPTProcessor]:
    """Model and processor of a checkpoint, with this repository's code rather than the checkpoint's copy of it."""
    model, info = LiteGPTForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **kwargs)
    if info["missing_keys"] or info["unexpected_keys"]:
        raise ValueError(
            f"{folder}: the weights do not fit the configuration: missing {sorted(info['missing_keys'])}, "
            f"unexpected {sorted(info['unexpected_keys'])}."
        )
    return model, LiteGPTProcessor.from_pretrained(folder)


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The trainer's state to go on from: as asked for, or else the last one of an interrupted run in `output_dir`."""
    if arguments.resume_from_checkpoint is not None:
        return arguments.resume_from_checkpoint
    last = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).is_dir() else None
    if last is not None:
        print(f"Going on from {last}; for a run from the beginning choose another output_dir.")
    return last
