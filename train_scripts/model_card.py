"""The model card (README.md) of a LiteGPT checkpoint."""

from modeling_litegpt import LiteGPTForConditionalGeneration
from processing.processing_litegpt import LiteGPTProcessor

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


def model_card(model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor) -> str:
    config = model.config
    return MODEL_CARD.format(
        parameters=model.num_parameters(),
        visual_tokens=config.num_visual_tokens,
        patch_tokens=config.num_patch_tokens,
        towers=len(config.tower_configs),
        findings=", ".join(processor.finding_labels),
        diagnoses=", ".join(processor.diagnosis_labels),
    )
