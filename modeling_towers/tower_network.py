"""An image tower within a model that travels: its network, and what it makes of radiographs.

    network = tower_network(config)                  # of transformers, without a pooler
    hidden = tower_hidden_state(network, pixel_values)
    patch_tokens(hidden)                             # (images, patches, width), row by row of a square grid

In: a tower's configuration and pixels, (images, 1 or 3, side, side). Out: its last hidden state, as tokens. It travels
with the checkpoints of the models that have a tower, so it imports nothing of ours.
"""

import math

import torch
from torch import nn
from transformers import AutoBackbone, AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel


def tower_network(config: PreTrainedConfig, stage: str | None = None) -> PreTrainedModel:
    """A network with random weights.

    Args:
        stage: such as "stage3": the network ends there, as a backbone of the library; None: at its end.
    """
    if stage is not None:
        config.out_features = [stage]
        return AutoBackbone.from_config(config)
    network = AutoModel.from_config(config)
    pooler = getattr(network, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        network.pooler = None  # tokens alone are used: nothing would train its weights
    return network


def tower_hidden_state(network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """The last hidden state: (images, tokens, width), or (images, width, rows, columns) of a ResNet or a backbone."""
    config = network.config
    # One channel of a grey radiograph stands for all.
    pixel_values = pixel_values.expand(-1, getattr(config, "num_channels", 3), -1, -1)
    if getattr(config, "standardize_pixels", False):
        pixel_values = standardized(pixel_values)
    output = network(pixel_values=pixel_values.to(network.dtype))
    maps = getattr(output, "feature_maps", None)
    return output.last_hidden_state if maps is None else maps[-1]


def standardized(pixel_values: torch.Tensor) -> torch.Tensor:
    """(images, channels, height, width), each radiograph brought to mean 0 and deviation 1; float32."""
    pixel_values = pixel_values.float()
    mean = pixel_values.mean(dim=(1, 2, 3), keepdim=True)
    return (pixel_values - mean) / (pixel_values.std(dim=(1, 2, 3), keepdim=True) + 1e-3)


def patch_tokens(hidden_state: torch.Tensor) -> torch.Tensor:
    """(images, patches, width) of a tower's last hidden state, row by row of a square grid.

    A ResNet's is (images, width, rows, columns). Of others' tokens the patches stand last, behind a class token and
    registers, which are fewer than twice the grid's side: so the patches are the largest square number of tokens.
    """
    if hidden_state.ndim == 4:
        return hidden_state.flatten(2).transpose(1, 2)
    return hidden_state[:, -(math.isqrt(hidden_state.shape[1]) ** 2) :]
