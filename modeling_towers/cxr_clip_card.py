"""A CXR-CLIP checkpoint -> its model card (README.md).

    cxr_clip_card(model.config, processor, model.num_parameters())   # "---\\n...\\n---\\n\\n# CXR-CLIP ..."

In: configuration and processor. Out: text, which `cxr_clip_card.md.jinja` lays out.
"""

from typing import TYPE_CHECKING

from litegpt.modeling_towers.tower_card import tower_card

if TYPE_CHECKING:  # they import torch
    from litegpt.modeling_towers import CXRCLIPConfig
    from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor


def cxr_clip_card(config: "CXRCLIPConfig", processor: "CXRCLIPProcessor", num_parameters: int) -> str:
    """README.md of a checkpoint."""
    return tower_card(
        "cxr_clip_card.md.jinja",
        config,
        "zero-shot-image-classification",
        ["cxr-clip", "custom_code"],
        processor=processor,
        num_parameters=num_parameters,
        is_published="cxr_clip" in (config.to_dict().get("base_models") or []),
    )
