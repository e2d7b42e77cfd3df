"""Image towers on their own: out of any checkpoint, and as folders that load with transformers alone.

    tower = load_image_tower("outputs/ecamp/checkpoint")   # or a LiteGPT's, a CXR-CLIP's, a ViT's or ResNet's folder
    tower(pixel_values)                                    # (images, patches, width), row by row of a square grid
    tower.maps(pixel_values)                               # (images, width, rows, columns)
    save_image_tower(tower, "outputs/tower")               # AutoModel and AutoImageProcessor load it, no code of ours

In: a checkpoint's folder. Out: a module with the tower's weights, and the image processor that its pixels need. What
is known of its making (`base_models`, `training_record`) goes with it, into the card of what is saved.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, CLIPImageProcessorPil, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto import CONFIG_MAPPING

from litegpt.common.files import replacing_folder
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_litegpt.configuration_litegpt import tower_grid, tower_width
from litegpt.modeling_litegpt.modeling_litegpt import patch_tokens, tower_output
from litegpt.modeling_litegpt.taken_tower import TakenTower, taken_tower
from litegpt.modeling_towers.tower_card import tower_card


class ImageTower(nn.Module):
    """A network of transformers that gives patch tokens, and what its pixels must be.

    Args:
        network: whose `last_hidden_state` has the tokens, or a ResNet's grid.
        processor: squashes whole radiographs to its input.
    """

    def __init__(self, network: PreTrainedModel, processor: CLIPImageProcessorPil):
        super().__init__()
        self.network, self.processor = network, processor

    @property
    def config(self) -> PreTrainedConfig:
        return self.network.config

    @property
    def width(self) -> int:
        """Of a token."""
        return tower_width(self.config)

    @property
    def grid(self) -> int:
        """Tokens along a side."""
        return tower_grid(self.config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(images, 1 or 3, side, side) -> (images, grid * grid, width); one grey channel stands for all."""
        pixel_values = pixel_values.expand(-1, getattr(self.config, "num_channels", 3), -1, -1)
        return patch_tokens(tower_output(self.network, pixel_values).last_hidden_state)

    def maps(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(images, 1 or 3, side, side) -> (images, width, grid, grid)."""
        return self(pixel_values).transpose(1, 2).unflatten(2, (self.grid, self.grid))


def new_image_tower(config: dict[str, Any] | PreTrainedConfig, processor: CLIPImageProcessorPil) -> ImageTower:
    """A tower with random weights.

    Args:
        config: with `model_type`, as a checkpoint's `config.json` has it.
    """
    if not isinstance(config, PreTrainedConfig):
        values = dict(config)
        config = CONFIG_MAPPING[values.pop("model_type")](**values)
    # Only patch tokens are used; ViT alone builds a pooler for the class token unless it is told not to.
    network = AutoModel.from_config(config, **({"add_pooling_layer": False} if config.model_type == "vit" else {}))
    return ImageTower(network, processor)


def fresh_image_tower(config: dict[str, Any] | PreTrainedConfig, processor: CLIPImageProcessorPil) -> ImageTower:
    """`new_image_tower`, of which is recorded that its weights started from nothing and learned nothing yet."""
    tower = new_image_tower(config, processor)
    tower.config.base_models, tower.config.training_record = [], []
    return tower


def load_image_tower(folder: str | Path) -> ImageTower:
    """The image tower of a checkpoint's folder, see `taken_tower`.

    Raises:
        OSError: there is no checkpoint.
        ValueError: it has no image tower, or its weights are damaged.
    """
    return built_tower(taken_tower(str(folder)), str(folder))


def built_tower(taken: TakenTower, source: str) -> ImageTower:
    """The network of taken weights.

    Args:
        source: the folder or file that they are from, for the sentence about what does not fit.

    Raises:
        ValueError: a tensor is missing or of another shape.
    """
    tower = new_image_tower({**taken.config, **taken.record}, image_processor(0, taken.mean, taken.std))
    side = tower.config.image_size
    tower.processor.size = {"height": side, "width": side}
    taken.load_into(tower.network, source)
    return tower


def save_image_tower(tower: ImageTower, folder: str | Path) -> None:
    """Writes `folder`: weights, configuration, image processor and a card; under a temporary name first."""
    with replacing_folder(Path(folder)) as temporary:
        tower.network.save_pretrained(temporary)
        for file in temporary.glob("*.safetensors"):  # which the library lets their owner alone read
            file.chmod((temporary / "config.json").stat().st_mode)
        tower.processor.save_pretrained(temporary)
        card = tower_card(
            "image_tower_card.md.jinja",
            tower.config,
            "image-feature-extraction",
            [],
            tower=tower,
            num_parameters=sum(parameter.numel() for parameter in tower.parameters()),
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")


def measure_batch_norms(network: nn.Module, show: Callable[[], None]) -> None:
    """Gives fresh batch norms the statistics of what `show` passes through the network; then it is in evaluation.

    A fresh batch norm passes values on as they come, deep in a network hardly differing from image to image: without
    this a comparison with random weights that are not trained is unfair.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.train()
    if norms:
        with torch.inference_mode():
            show()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
