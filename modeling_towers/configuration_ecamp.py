"""ECAMP's configuration: a masked image encoder with its decoder, a text encoder, and how the two are joined."""

from typing import Any

from transformers import BertConfig, ViTMAEConfig
from transformers.configuration_utils import PreTrainedConfig

# How text tokens are given what is seen of the image; ECAMP's own is the first.
FUSIONS = ("both", "global", "local", "add", "none")
# ViT-B/16 with timm's epsilon, and MAE's decoder with four blocks, as the published code has them. The paper says
# "8-layer" of the encoder, but its baselines are all of 12, and so is its release.
VISION: dict[str, Any] = {
    "layer_norm_eps": 1e-6,
    "decoder_hidden_size": 512,
    "decoder_num_attention_heads": 16,
    "decoder_num_hidden_layers": 4,
}
TEXT: dict[str, Any] = {
    "vocab_size": 30000,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "max_position_embeddings": 256,
}


class ECAMPConfig(PreTrainedConfig):
    """Configuration of ECAMP (arXiv 2312.13316). The defaults are the paper's; MRM and MAE are other values.

    Args:
        vision_config: encoder and decoder, `ViTMAEConfig` or its values beside `VISION`.
        text_config: `BertConfig` or its values beside `TEXT`.
        scale: how many times larger the pictures are that super-resolution draws, along a side; a whole number.
        super_resolution_weight, text_weight: of their losses beside that of the masked patches, which counts 1. With 0
            there is no such part in the model. Both 0: MAE.
        fusion: "both" the patches that are seen, by attention, and their mean; "local", "global": one of them; "add":
            the mean added to the text's embeddings and nothing else, as MRM does; "none": the text sees no image.
        release: as the published code computes, where it differs from the paper: see `ECAMPModel`.

    Raises:
        ValueError: there is no such fusion.
    """

    model_type = "ecamp"
    sub_configs = {"vision_config": ViTMAEConfig, "text_config": BertConfig}

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    scale: int = 2
    super_resolution_weight: float = 1.0
    text_weight: float = 1.0
    fusion: str = "both"
    release: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, ViTMAEConfig):
            self.vision_config = ViTMAEConfig(**{**VISION, **(self.vision_config or {})})
        if not isinstance(self.text_config, BertConfig):
            self.text_config = BertConfig(**{**TEXT, **(self.text_config or {})})
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, not {self.fusion!r}.")
        super().__post_init__(**kwargs)

    @property
    def image_size(self) -> int:
        """Pixels along a side of what the encoder sees."""
        return self.vision_config.image_size

    @property
    def picture_size(self) -> int:
        """Pixels along a side of the pictures that the model is given, of which the encoder sees a smaller copy."""
        return self.scale * self.image_size


__all__ = ["ECAMPConfig"]
