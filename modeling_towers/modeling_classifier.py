"""A classifier of radiographs that learns from labels alone, and shows where it sees each (ChestX-ray8, 1705.02315).

    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
    outputs = model(processor(images="radiograph.dicom").pixel_values, return_maps=True)
    outputs.logits                   # (1, labels); model.config.id2label names them
    outputs.maps                     # (1, labels, rows, columns), where each label is seen

In: pixels, and for training labels: 1, 0, or NaN where nothing is known. Trunk -> transition (a 1x1 convolution, ReLU)
-> pooling over all places -> prediction (linear) -> a logit for each label.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .checked_model import CheckedModel
from .configuration_classifier import RadiographClassifierConfig
from .tower_network import patch_tokens, tower_hidden_state, tower_network


@dataclass
class RadiographClassifierOutput(ModelOutput):
    """What `RadiographClassifier` returns; None for what was not asked for.

    Attributes:
        loss: see `weighted_cross_entropy`.
        logits: (images, labels).
        maps: (images, labels, rows, columns) float32, a grid over the whole square input, the higher the more.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    maps: torch.FloatTensor | None = None


class RadiographClassifier(CheckedModel):
    """The network.

    Its maps are the prediction's weights on the activations of each place (class activation maps, arXiv 1512.04150).
    With average pooling their mean and the bias are the logit. Of the kind "positive" they are cut off at 0: what
    speaks against a label is then as good as nothing, as in Grad-CAM (arXiv 1610.02391).
    """

    config_class = RadiographClassifierConfig
    config: RadiographClassifierConfig
    base_model_prefix = "classifier"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: RadiographClassifierConfig):
        super().__init__(config)
        self.trunk = tower_network(config.trunk_config, config.trunk_stage)
        width = config.width if config.transition_width is None else config.transition_width
        self.transition = nn.Conv2d(config.width, width, 1) if width else None
        self.prediction = nn.Linear(width or config.width, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, RadiographClassifier):
            if module.transition is not None:
                init.kaiming_normal_(module.transition.weight, nonlinearity="relu")
                init.zeros_(module.transition.bias)
            init.normal_(module.prediction.weight, std=module.prediction.in_features**-0.5)
            init.zeros_(module.prediction.bias)
        elif module is not self.transition and module is not self.prediction:
            super()._init_weights(module)

    def activations(self, pixel_values: torch.FloatTensor) -> torch.FloatTensor:
        """(images, width, rows, columns), behind the transition layer."""
        hidden = tower_hidden_state(self.trunk, pixel_values)
        if hidden.ndim == 3:
            tokens = patch_tokens(hidden)
            side = math.isqrt(tokens.shape[1])
            hidden = tokens.transpose(1, 2).unflatten(2, (side, side))
        return hidden if self.transition is None else functional.relu(self.transition(hidden))

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.FloatTensor | None = None,
        return_maps: bool = False,
        map_kind: str | None = None,
    ) -> tuple | RadiographClassifierOutput:
        """Logits, and what is asked for beside them.

        Args:
            pixel_values: (images, 1 or 3, side, side).
            labels: (images, labels), 1, 0 or NaN, where a loss is wanted.
            return_maps: where each label is seen.
            map_kind: "cam" or "positive"; None: the configuration's.
        """
        activations = self.activations(pixel_values)
        logits = self.pooled_logits(activations)
        loss = None
        if labels is not None:
            with torch.autocast(logits.device.type, enabled=False):
                loss = weighted_cross_entropy(logits, labels, self.config.balance)
        maps = self.maps(activations, map_kind or self.config.map_kind) if return_maps else None
        return RadiographClassifierOutput(loss=loss, logits=logits, maps=maps)

    def pooled_logits(self, activations: torch.Tensor) -> torch.Tensor:
        """(images, width, rows, columns) -> (images, labels)."""
        if self.config.pooling != "pcam":
            return self.prediction(pooled(activations, self.config.pooling, self.config.lse_r))
        logits = self._logits_of_places(activations)
        return (_pcam_weights(logits) * logits).sum(dim=(2, 3))

    def maps(self, activations: torch.Tensor, kind: str = "cam") -> torch.Tensor:
        """(images, width, rows, columns) -> (images, labels, rows, columns) float32, of a kind, see above."""
        maps = torch.einsum("bdij,ld->blij", activations, self.prediction.weight).float()
        return maps.clamp(min=0) if kind == "positive" else maps

    def _logits_of_places(self, activations: torch.Tensor) -> torch.Tensor:
        """(images, labels, rows, columns): what the prediction says of each place by itself."""
        return functional.conv2d(activations, self.prediction.weight[:, :, None, None], self.prediction.bias)


def pooled(activations: torch.Tensor, pooling: str, lse_r: float) -> torch.Tensor:
    """(images, width, rows, columns) -> (images, width): one number for each activation.

    Log-Sum-Exp: `x* + 1/r log(1/S sum_ij exp(r (x_ij - x*)))` over the S places, with x* the largest: the paper's
    formula (section 4.1), whose x* of the largest absolute value is the same behind a ReLU.
    """
    if pooling == "average":
        return activations.mean(dim=(2, 3))
    if pooling == "max":
        return activations.amax(dim=(2, 3))
    places = activations.shape[2] * activations.shape[3]
    sums = torch.logsumexp(lse_r * activations.float().flatten(2), dim=2)
    return ((sums - math.log(places)) / lse_r).to(activations.dtype)


def _pcam_weights(logits: torch.Tensor) -> torch.Tensor:
    """(images, labels, rows, columns): each place's probability, over the places brought to a sum of 1."""
    return torch.softmax(functional.logsigmoid(logits.float()).flatten(2), dim=2).view_as(logits).to(logits.dtype)


def weighted_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, balance: str = "batch") -> torch.Tensor:
    """The paper's W-CEL over the labels that are known, divided by their number; or without weights their mean.

    `beta_P sum_{y=1} -ln f + beta_N sum_{y=0} -ln(1 - f)`, beta_P = (|P| + |N|) / |P|, beta_N = (|P| + |N|) / |N|,
    with |P| and |N| the ones and zeros among all labels of the batch (section 4.1). Divided by |P| + |N| this is the
    mean over the ones plus the mean over the zeros, so that a learning rate means the same for any batch. Without
    ones their term is 0.

    Args:
        logits: (images, labels).
        labels: likewise, 1, 0 or NaN.
        balance: "batch" or "none".
    """
    logits, known = logits.float(), torch.isfinite(labels)
    targets = labels.nan_to_num(0.0).float()
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") * known
    if balance == "none":
        return losses.sum() / known.sum().clamp(min=1)
    ones, zeros = (targets == 1) & known, (targets == 0) & known
    return (losses * ones).sum() / ones.sum().clamp(min=1) + (losses * zeros).sum() / zeros.sum().clamp(min=1)


__all__ = ["RadiographClassifier"]
