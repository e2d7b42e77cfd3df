"""CXR-CLIP: an image tower and a text tower whose vectors meet in one space (arXiv 2310.13292, section 3.2).

model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
outputs = model(**processor(images="radiograph.dicom", text=["no pneumothorax.", "pneumothorax."]))
outputs.logits_per_image   # (1, 2): the scale times the cosines
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput, can_return_tuple

from .checked_model import CheckedModel
from .configuration_cxr_clip import CXRCLIPConfig
from .tower_network import patch_tokens, tower_hidden_state, tower_network


@dataclass
class CXRCLIPOutput(ModelOutput):
    """What `CXRCLIPModel` returns; what was not given (pixels or texts) has none.

    Attributes:
        loss: CLIP's, of `return_loss`: the i-th image belongs to the i-th text.
        logits_per_image: (images, texts), the scale times the cosines; `logits_per_text` is its transpose.
        image_embeds: (images, projection_dim), of length 1.
        text_embeds: (texts, projection_dim), of length 1.
        logit_scale: (), the scale itself, in float32.
    """

    loss: torch.FloatTensor | None = None
    logits_per_image: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    logit_scale: torch.FloatTensor | None = None


class CXRCLIPModel(CheckedModel):
    """The dual encoder. Towers and projections compute in the model's dtype; vectors, scale and logits in float32."""

    config_class = CXRCLIPConfig
    config: CXRCLIPConfig
    base_model_prefix = "cxr_clip"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["logit_scale"]

    def __init__(self, config: CXRCLIPConfig):
        super().__init__(config)
        self.vision_model = tower_network(config.vision_config)
        self.text_model = tower_network(config.text_config)
        self.image_projection = nn.Linear(config.image_width, config.projection_dim)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, CXRCLIPModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            for projection in (module.image_projection, module.text_projection):  # as CLIP starts its own
                init.normal_(projection.weight, std=projection.in_features**-0.5)
                init.zeros_(projection.bias)
        elif not isinstance(module, nn.Linear):
            super()._init_weights(module)

    @property
    def dtype(self) -> torch.dtype:
        """That of towers and projections; the library's is the first parameter's, the scale's, always float32."""
        return self.image_projection.weight.dtype

    @property
    def scale(self) -> torch.Tensor:
        """What cosines are multiplied by, a float32 scalar."""
        scale = self.logit_scale.float().exp()
        return scale if self.config.max_logit_scale is None else scale.clamp(max=self.config.max_logit_scale)

    def get_patch_features(self, pixel_values: torch.FloatTensor) -> torch.FloatTensor:
        """(images, patches, tower width): the image tower's tokens, row by row of a square grid, no class token."""
        return patch_tokens(self._image_tokens(pixel_values))

    def get_pooled_features(self, pixel_values: torch.FloatTensor) -> torch.FloatTensor:
        """(images, tower width): one vector a radiograph before the projection, what a linear probe reads."""
        tokens = self._image_tokens(pixel_values)
        if self.config.image_pooling == "mean":
            return patch_tokens(tokens).mean(dim=1)
        return tokens[:, 0] if tokens.ndim == 3 else tokens[:, :, 0, 0]

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.FloatTensor, **kwargs) -> tuple | BaseModelOutputWithPooling:
        """`pooler_output`: (images, projection_dim), not yet of length 1."""
        return BaseModelOutputWithPooling(pooler_output=self.image_projection(self.get_pooled_features(pixel_values)))

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> tuple | BaseModelOutputWithPooling:
        """`pooler_output`: (texts, projection_dim), not yet of length 1."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        tokens = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.config.text_pooling == "last":
            # The last attended one, wherever the padding stands.
            last = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(dim=1)
            pooled = tokens[torch.arange(len(tokens), device=tokens.device), last]
        elif self.config.text_pooling == "first":
            pooled = tokens[torch.arange(len(tokens), device=tokens.device), attention_mask.argmax(dim=1)]
        else:
            attended = attention_mask.unsqueeze(-1).to(tokens.dtype)
            pooled = (tokens * attended).sum(dim=1) / attended.sum(dim=1)
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=self.text_projection(pooled))

    def get_patch_embeddings(self, pixel_values: torch.FloatTensor) -> torch.FloatTensor:
        """(images, patches, projection_dim): each patch token in the common space, of length 1.

        With mean pooling a radiograph's vector before it is brought to length 1 is the mean of these before they are.
        """
        return functional.normalize(self.image_projection(self.get_patch_features(pixel_values)).float(), dim=-1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> tuple | CXRCLIPOutput:
        """Vectors of radiographs, of texts, or of both with their cosines.

        Args:
            input_ids, attention_mask: (texts, tokens).
            pixel_values: (images, channels, height, width).
            return_loss: CLIP's loss too, in which the i-th image belongs to the i-th text.

        Raises:
            ValueError: there is neither an image nor a text; or a loss is asked for, and they are not equally many.
        """
        if input_ids is None and pixel_values is None:
            raise ValueError("There is neither an image nor a text: give pixel_values or input_ids.")
        images = texts = logits = loss = None
        if pixel_values is not None:
            images = functional.normalize(self.get_image_features(pixel_values).pooler_output.float(), dim=-1)
        if input_ids is not None:
            texts = functional.normalize(
                self.get_text_features(input_ids, attention_mask).pooler_output.float(), dim=-1
            )
        scale = self.scale
        if images is not None and texts is not None:
            with torch.autocast(images.device.type, enabled=False):  # a product of half precision would round cosines
                logits = scale * images @ texts.T
        if return_loss:
            if logits is None or logits.shape[0] != logits.shape[1]:
                raise ValueError("A loss needs as many texts as images, the i-th of the i-th.")
            pairs = torch.arange(len(logits), device=logits.device)
            loss = (functional.cross_entropy(logits, pairs) + functional.cross_entropy(logits.T, pairs)) / 2
        return CXRCLIPOutput(
            loss=loss,
            logits_per_image=logits,
            logits_per_text=None if logits is None else logits.T,
            image_embeds=images,
            text_embeds=texts,
            logit_scale=scale,
        )

    def _image_tokens(self, pixel_values: torch.FloatTensor) -> torch.FloatTensor:
        """The tower's last hidden state: (images, tokens, width), or (images, width, rows, columns) of a ResNet."""
        return tower_hidden_state(self.vision_model, pixel_values)


__all__ = ["CXRCLIPModel"]
