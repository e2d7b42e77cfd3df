"""LiteGPT's configuration: two vision towers, a projector and a language model."""

from dataclasses import field

from transformers import CONFIG_MAPPING, AutoConfig
from transformers.configuration_utils import PreTrainedConfig

# ViT-B/16 as BiomedCLIP's image tower (timm's layer norm epsilon) and ViT-B/32 as PubMedCLIP's (CLIP's own defaults).
BIOMEDCLIP_TOWER = {"model_type": "vit", "layer_norm_eps": 1e-6}
PUBMEDCLIP_TOWER = {"model_type": "clip_vision_model"}
# Llama 2 7B. To Llama's 32,000 tokens come <pad>, <image>, </image>, <visual>, [identify], [vqa] and [grounding]; one
# row stays unused, because tensor cores and tensor parallelism want a vocabulary that is a multiple of 8.
LLAMA_2_7B = {"model_type": "llama", "vocab_size": 32008, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}

# Sides of a detector's maps, as shares of the tower's grid.
DETECTOR_SCALES = (2, 1, 0.5)


class LiteGPTConfig(PreTrainedConfig):
    """Configuration of a LiteGPT model. The defaults are the paper's sizes (arXiv 2407.12064, section 3.1).

    Args:
        vision_config: the first tower: a configuration, a dictionary with `model_type`, or None for ViT-B/16.
        aux_vision_config: the second tower, ViT-B/32 by default; None for a model with one tower.
        text_config: the language model, None for Llama 2 7B.
        image_token_id: id of the placeholder that stands for one visual token in `input_ids`.
        visual_token_group_size: how many adjacent patch tokens are joined into one visual token.
        projector_hidden_size: width between the projector's two linear layers; None for one linear layer (MiniGPT-v2).
        projector_hidden_act: activation between the two layers.
        normalize_patch_features: whether each patch token is brought to mean 0 and deviation 1 (a layer norm without
            weights) before tokens are joined. The paper does not say so, but its code does, for every tower.
        num_detector_labels: of the dense heads on the patch tokens, which name findings with boxes without a word
            (`modeling_detector.py`); 0, as in the paper: there are none.
        detector_hidden_size: width of their convolutions; None: that of the towers, 256 at most.
        detector_scales: sides of their maps, as shares of the finest tower's grid: 2, 1 or less.
        num_candidate_tokens: visual tokens after those of the patches, each of which tells the language model of one
            box that the detector sees; 0, as in the paper: it hears nothing of it.

    Raises:
        ValueError: the towers' widths differ, their patch tokens are no multiple of `visual_token_group_size`, there
            are candidate tokens without a detector, or its maps have another scale.
    """

    model_type = "litegpt"
    sub_configs = {"vision_config": AutoConfig, "aux_vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: dict | PreTrainedConfig | None = None
    aux_vision_config: dict | PreTrainedConfig | None = field(default_factory=lambda: dict(PUBMEDCLIP_TOWER))
    text_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 32003
    visual_token_group_size: int = 5
    projector_hidden_size: int | None = 5632
    projector_hidden_act: str = "gelu"
    normalize_patch_features: bool = False
    num_detector_labels: int = 0
    detector_hidden_size: int | None = None
    detector_scales: list[float] | tuple[float, ...] = DETECTOR_SCALES
    num_candidate_tokens: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        self.vision_config = _sub_config(self.vision_config, BIOMEDCLIP_TOWER)
        self.text_config = _sub_config(self.text_config, LLAMA_2_7B)
        if self.aux_vision_config is not None:
            self.aux_vision_config = _sub_config(self.aux_vision_config, PUBMEDCLIP_TOWER)

        widths = [tower_width(tower) for tower in self.tower_configs]
        if len(set(widths)) > 1:
            raise ValueError(
                f"The towers' tokens are concatenated, so their widths must agree: hidden_size is {widths[0]} in "
                f"vision_config and {widths[1]} in aux_vision_config."
            )
        if self.num_patch_tokens % self.visual_token_group_size:
            raise ValueError(
                f"The towers give {self.num_patch_tokens} patch tokens, which is no multiple of "
                f"visual_token_group_size={self.visual_token_group_size}."
            )
        if self.num_candidate_tokens and not self.num_detector_labels:
            raise ValueError("num_candidate_tokens tell of a detector's boxes, and num_detector_labels is 0: none.")
        if not all(scale in (1, 2) or 0 < scale < 1 for scale in self.detector_scales):
            raise ValueError(f"detector_scales are 2, 1 or between 0 and 1, not {self.detector_scales}.")
        super().__post_init__(**kwargs)

    @property
    def tower_configs(self) -> list[PreTrainedConfig]:
        """The configurations of the one or two towers, in the order in which their tokens are concatenated."""
        return [self.vision_config] + ([self.aux_vision_config] if self.aux_vision_config is not None else [])

    @property
    def tower_grids(self) -> list[int]:
        """Patch tokens along a side of each tower's square grid, in that order (14 and 7 in the paper)."""
        return [tower_grid(tower) for tower in self.tower_configs]

    @property
    def num_patch_tokens(self) -> int:
        """Patch tokens of all towers for one radiograph (245 in the paper: 196 + 49)."""
        return sum(side**2 for side in self.tower_grids)

    @property
    def num_visual_tokens(self) -> int:
        """Tokens that one radiograph takes in the language model's input (49 in the paper)."""
        return self.num_patch_tokens // self.visual_token_group_size + self.num_candidate_tokens


def tower_width(config: PreTrainedConfig) -> int:
    """Width of a tower's tokens; a ResNet has one for each stage, and the last counts."""
    width = getattr(config, "hidden_size", None)
    return config.hidden_sizes[-1] if width is None else width


def tower_grid(config: PreTrainedConfig) -> int:
    """Patch tokens along a side of a tower's square input: 14 of ViT-B/16 at 224 pixels, 7 of Swin-Tiny or ResNet-50.

    Towers of several stages halve their grid at each stage after the first, and fill up what is no multiple; a
    ResNet's stem has a stride of 4.
    """
    if not hasattr(config, "depths"):
        return config.image_size // config.patch_size
    stride = getattr(config, "patch_size", 4) * 2 ** (len(config.depths) - 1)
    return -(-config.image_size // stride)


def _sub_config(config: dict | PreTrainedConfig | None, default: dict) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    values = dict(default if config is None else config)
    return CONFIG_MAPPING[values.pop("model_type", default["model_type"])](**values)


__all__ = ["LiteGPTConfig"]
