"""CXR-CLIP's configuration: an image tower, a text tower, and how both become vectors of one space."""

import math

from transformers import CONFIG_MAPPING, AutoConfig
from transformers.configuration_utils import PreTrainedConfig

IMAGE_POOLINGS = ("mean", "first")
TEXT_POOLINGS = ("last", "first", "mean")
# The paper's two: Swin-Tiny and Bio_ClinicalBERT, whose geometry is BERT-base's with its cased vocabulary.
SWIN_TINY = {"model_type": "swin"}
BIO_CLINICAL_BERT = {"model_type": "bert", "vocab_size": 28996}


class CXRCLIPConfig(PreTrainedConfig):
    """Configuration of CXR-CLIP (arXiv 2310.13292, section 3.2). The defaults are the paper's, with Swin-Tiny.

    Args:
        vision_config: the image tower: a configuration, a dictionary with `model_type` (swin, resnet, vit, ...: any
            whose model gives `last_hidden_state`), or None for Swin-Tiny. With `standardize_pixels` each radiograph
            is brought to mean 0 and deviation 1 before the tower.
        text_config: the text tower, of BERT's family; None for the geometry of Bio_ClinicalBERT.
        image_size: pixels of the square input, for towers whose own configuration does not say (ResNet).
        projection_dim: width of the common space.
        image_pooling: "mean" of the patch tokens, as the paper says; "first" token: what the published code does for
            all towers but ResNet, and so what the published Swin-Tiny weights need. Of a ViT it is the class token.
        text_pooling: "last" attended token, [SEP] (the paper's [EOS]); "first", [CLS]; or the "mean" of them.
        logit_scale_init_value: logarithm of the scale at the start, 1 / 0.07.
        max_logit_scale: bound of the scale itself, such as CLIP's 100; None: none, as in the published code.

    Raises:
        ValueError: a pooling that there is not.
    """

    model_type = "cxr_clip"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    image_size: int = 224
    projection_dim: int = 512
    image_pooling: str = "mean"
    text_pooling: str = "last"
    logit_scale_init_value: float = math.log(1 / 0.07)
    max_logit_scale: float | None = None

    def __post_init__(self, **kwargs):
        self.vision_config = _sub_config(self.vision_config, SWIN_TINY)
        self.text_config = _sub_config(self.text_config, BIO_CLINICAL_BERT)
        if getattr(self.vision_config, "image_size", None) is None:
            self.vision_config.image_size = self.image_size
        self.image_size = self.vision_config.image_size
        for name, known in (("image_pooling", IMAGE_POOLINGS), ("text_pooling", TEXT_POOLINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}.")
        super().__post_init__(**kwargs)

    @property
    def image_width(self) -> int:
        """Width of the image tower's tokens; a ResNet has one for each stage, and the last counts."""
        width = getattr(self.vision_config, "hidden_size", None)
        return self.vision_config.hidden_sizes[-1] if width is None else width


def _sub_config(config: dict | PreTrainedConfig | None, default: dict) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    values = dict(default if config is None else config)
    return CONFIG_MAPPING[values.pop("model_type", default["model_type"])](**values)


__all__ = ["CXRCLIPConfig"]
