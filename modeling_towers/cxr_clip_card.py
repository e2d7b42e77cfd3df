"""A CXR-CLIP checkpoint -> its model card (README.md).

    cxr_clip_card(model.config, processor, model.num_parameters())   # "---\\n...\\n---\\n\\n# CXR-CLIP ..."

In: configuration and processor. Out: text, which `cxr_clip_card.md.jinja` lays out. As of LiteGPT's card, what it says
of base models and training stands in the configuration (`base_models`, `training_record`); nothing else is claimed.
"""

from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData

from litegpt.common.templates import template
from litegpt.datasets_scripts.preparation.dataset_card import license_name
from litegpt.modeling_litegpt.model_card import THIS_REPOSITORY, base_model, recorded_data_sets

if TYPE_CHECKING:  # they import torch
    from litegpt.modeling_towers import CXRCLIPConfig
    from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor


def cxr_clip_card(config: "CXRCLIPConfig", processor: "CXRCLIPProcessor", num_parameters: int) -> str:
    """README.md of a checkpoint."""
    recorded = config.to_dict()
    data_sets = recorded_data_sets(config)
    bases = recorded.get("base_models")
    data = ModelCardData(
        license="other",
        license_name="see-licences",
        license_link="README.md#licences",
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        language="en",
        tags=["cxr-clip", "medical", "radiology", "chest-x-ray", "custom_code"],
        datasets=[license_name(facts["name"]) for facts in data_sets] or None,
    )
    text = template(__file__, "cxr_clip_card.md.jinja").render(
        this_repository=THIS_REPOSITORY,
        config=config,
        processor=processor,
        num_parameters=num_parameters,
        base_models=None if bases is None else [base_model(key) for key in bases],
        is_published="cxr_clip" in (bases or []),
        trainings=recorded.get("training_record") or [],
        data_sets=data_sets,
    )
    return f"---\n{data}\n---\n\n{text}"
