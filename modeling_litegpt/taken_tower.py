"""An image tower taken out of a checkpoint, as it is: what `litegpt new --vision_tower` puts before a language model.

    tower = taken_tower("outputs/cxr_clip/checkpoint")
    tower.config["model_type"]       # "resnet"
    tower.weights                    # {"embedder.embedder.convolution.weight": ..., ...}
    tower.mean, tower.std            # of the pixels that it was trained on

The folder holds a CXR-CLIP, a LiteGPT (of which the first tower is taken), an ECAMP or another masked autoencoder, a
radiograph classifier (of which the trunk is taken), a CLIP, or a tower alone, as transformers saves it.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from litegpt.modeling_litegpt.checkpoints import check_checkpoint_exists
from litegpt.modeling_litegpt.published_weights import read_weights

# Under which name a model has its image tower's weights, and its configuration; another model is a tower itself.
PLACES = {
    "cxr_clip": ("vision_model.", "vision_config"),
    "clip": ("vision_model.", "vision_config"),
    "litegpt": ("model.vision_tower.", "vision_config"),
    "ecamp": ("mae.vit.", "vision_config"),
    "radiograph_classifier": ("trunk.", "trunk_config"),
    "vit_mae": ("vit.", None),  # whose configuration is the tower's own, with more in it
}
# Of a masked autoencoder: the encoder alone is a ViT.
OF_MASKING = r"decoder_|mask_ratio$|norm_pix_loss$"
POOLERS = ("pooler.",)  # of a tower that was saved alone: nothing here reads it
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class TakenTower:
    """A tower: its configuration as a dictionary with `model_type`, its weights by name, its pixels' statistics.

    `record` is what the folder's configuration says of its making: `base_models` and `training_record`.
    """

    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    mean: list[float]
    std: list[float]
    record: dict[str, Any]

    def load_into(self, tower: torch.nn.Module, folder: str) -> None:
        """Gives a model's tower these weights.

        Raises:
            ValueError: a tensor is missing or of another shape.
        """
        # A ViT's pooler is no part of a tower, and the library would speak of its absence.
        without = {"add_pooling_layer": False} if tower.config.model_type == "vit" else {}
        # By the library: files have some towers' weights under other names than the networks.
        loaded, info = type(tower).from_pretrained(
            None,
            config=tower.config,
            state_dict=dict(self.weights),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **without,
        )
        loaded = loaded.state_dict()
        wrong = {str(key) for key in info["missing_keys"]} | {key for key, *_ in info["mismatched_keys"]}
        wrong = sorted(wrong & tower.state_dict().keys())  # without a pooler, which nothing here reads
        if wrong:
            raise ValueError(f"{folder}: the tower's {wrong[0]} is missing or of another shape.")
        tower.load_state_dict({key: loaded[key] for key in tower.state_dict()})


def taken_tower(folder: str) -> TakenTower:
    """The image tower of a checkpoint's folder.

    Raises:
        OSError: there is no checkpoint.
        ValueError: it has no image tower, or its weights are damaged.
    """
    check_checkpoint_exists(folder)
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    prefix, part = PLACES.get(config.get("model_type"), ("", None))
    tower = dict(config.get(part, config))
    if config.get("trunk_stage") is not None or tower.get("model_type") == "timm_wrapper":
        raise ValueError(
            f"{folder}: a trunk that ends at a stage, or is a network of timm, is no image tower to take."
        )
    if tower.get("model_type") == "vit_mae":
        tower = {name: value for name, value in tower.items() if not re.match(OF_MASKING, name)}
        tower["model_type"] = "vit"
    weights = {
        key.removeprefix(prefix): tensor for key, tensor in read_weights(Path(folder)) if key.startswith(prefix)
    }
    weights = {key: tensor for key, tensor in weights.items() if not key.startswith(POOLERS)}
    processor = _image_processor(Path(folder))
    if "image_size" not in tower and (size := processor.get("crop_size") or processor.get("size")):
        tower["image_size"] = size.get("height") or size.get("shortest_edge")  # a ResNet's own does not say
    if not weights or not tower.get("image_size"):
        raise ValueError(f"{folder}: a {config.get('model_type')} has no image tower that can be taken.")
    for name in ("architectures", "auto_map", "custom_pipelines", "dtype", "transformers_version"):
        tower.pop(name, None)
    record = {name: config[name] for name in ("base_models", "training_record") if name in config}
    mean, std = processor.get("image_mean", OPENAI_CLIP_MEAN), processor.get("image_std", OPENAI_CLIP_STD)
    return TakenTower(tower, weights, list(mean), list(std), record)


def _image_processor(folder: Path) -> dict[str, Any]:
    """What the folder says of its image processor; nothing where it has none."""
    for name in PROCESSOR_FILES:
        if (folder / name).is_file():
            processor = json.loads((folder / name).read_text(encoding="utf-8"))
            return processor.get("image_processor", processor)
    return {}
