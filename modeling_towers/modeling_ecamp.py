"""ECAMP: an image encoder that learns by drawing what it does not see and reading masked reports (arXiv 2312.13316).

    model = ECAMPModel(ECAMPConfig())
    outputs = model(pixel_values, input_ids=masked, attention_mask=attended, labels=labels)   # a loss with its terms
    outputs.reconstruction     # (images, 3, 224, 224)

In: radiographs at twice the encoder's size, and reports of which words are masked. The encoder sees a quarter of the
patches of a copy at half the size; the decoder draws the others, super-resolution the large picture, and the text
encoder says the masked words with what the encoder saw before it. What is used afterwards is the encoder: its weights
have the names of `ViTModel`'s.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import BertForMaskedLM, ViTMAEForPreTraining
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .checked_model import CheckedModel
from .configuration_ecamp import ECAMPConfig


@dataclass
class ECAMPOutput(ModelOutput):
    """What `ECAMPModel` returns; None for the parts that the model has not, or that were not asked for.

    Attributes:
        loss: the weighted sum of the three that follow, float32 scalars.
        image_loss: mean squared error of the masked patches.
        super_resolution_loss: of the large picture within the windows, a mean over all of its pixels.
        text_loss: weighted cross entropy, a mean over the words that `labels` asks for.
        reconstruction: (images, channels, side, side), the decoder's picture, at the masked and the seen patches.
        super_resolution: (images, channels, scale * side, scale * side).
        patch_mask: (images, side / patch, side / patch), 1 where a patch was masked.
        logits: (images, tokens, vocabulary), where no labels are given.
    """

    loss: torch.FloatTensor | None = None
    image_loss: torch.FloatTensor | None = None
    super_resolution_loss: torch.FloatTensor | None = None
    text_loss: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None
    super_resolution: torch.FloatTensor | None = None
    patch_mask: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None


class ECAMPSuperResolution(nn.Module):
    """(images, channels, side, side) -> the same picture `scale` times as large: bilinear, beside two convolutions.

    Source: the paper's section 3.3. The published code ends in a ReLU, so that it cannot draw what is darker than the
    mean grey.
    """

    def __init__(self, config: ECAMPConfig):
        super().__init__()
        channels = config.vision_config.num_channels
        self.scale, self.release = config.scale, config.release
        self.convolution_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.convolution_2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        # In this order of memory a CPU computes so few channels three times as fast.
        picture = picture.contiguous(memory_format=torch.channels_last)
        large = functional.interpolate(picture, scale_factor=self.scale, mode="bilinear", align_corners=False)
        large = large + self.convolution_2(functional.relu(self.convolution_1(large)))
        return functional.relu(large) if self.release else large


class ECAMPAttention(nn.Module):
    """Attention of several heads without a projection after it: (batch, queries, width) of (batch, keys, width)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        parts = (self.query(queries), self.key(keys), self.value(keys))
        heads = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)


class ECAMPFusion(nn.Module):
    """Multi-scale context fusion: gives a text's embeddings what is seen of its image.

    t = LN(x + S(SA(x))), v = V(patches), g = G(mean(v)), c = CA(t, v), y = LN(t + O(c + g)), LN(y + FFN(y)), where V,
    G, S and O are linear. The class token is no patch; padding is not attended to. Source: section 3.4 and the
    published code, which alone has the feed-forward part.
    """

    def __init__(self, config: ECAMPConfig):
        super().__init__()
        text = config.text_config
        width, heads, eps = text.hidden_size, text.num_attention_heads, text.layer_norm_eps
        self.fusion = config.fusion
        self.patches = nn.Linear(config.vision_config.hidden_size, width)
        if self.fusion == "add":
            return
        self.self_attention, self.self_output = ECAMPAttention(width, heads), nn.Linear(width, width)
        self.self_norm = nn.LayerNorm(width, eps=eps)
        if self.fusion != "global":
            self.cross_attention = ECAMPAttention(width, heads)
        if self.fusion != "local":
            self.mean = nn.Linear(width, width)
        self.output, self.output_norm = nn.Linear(width, width), nn.LayerNorm(width, eps=eps)
        self.wide, self.narrow = nn.Linear(width, text.intermediate_size), nn.Linear(text.intermediate_size, width)
        self.last_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(text.hidden_dropout_prob)

    def forward(self, embeddings: torch.Tensor, patches: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(texts, tokens, text width) from the same and (texts, seen patches, image width).

        Args:
            mask: (texts, 1, 1, tokens), what self-attention adds to its logits.
        """
        patches = self.patches(patches)
        if self.fusion == "add":
            return embeddings + patches.mean(dim=1, keepdim=True)
        attended = self.self_output(self.self_attention(embeddings, embeddings, mask))
        text = self.self_norm(embeddings + self.dropout(attended))
        context = torch.zeros_like(text)
        if self.fusion != "global":
            context = context + self.cross_attention(text, patches)
        if self.fusion != "local":
            context = context + self.mean(patches.mean(dim=1, keepdim=True))
        text = self.output_norm(text + self.dropout(self.output(context)))
        return self.last_norm(text + self.dropout(self.narrow(functional.gelu(self.wide(text)))))


class ECAMPModel(CheckedModel):
    """Encoder, decoder, super-resolution, fusion and text encoder; and their losses.

    `release` computes as the published code does: the image's loss is a mean over all pixels, to which seen patches
    give 0; super-resolution ends in a ReLU; the text encoder's head is not tied to its embeddings.
    """

    config_class = ECAMPConfig
    config: ECAMPConfig
    base_model_prefix = "ecamp"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: ECAMPConfig):
        super().__init__(config)
        config.text_config.tie_word_embeddings = not config.release
        self.mae = ViTMAEForPreTraining(config.vision_config)
        self.super_resolution = ECAMPSuperResolution(config) if config.super_resolution_weight else None
        self.language_model = BertForMaskedLM(config.text_config) if config.text_weight else None
        self.fusion = ECAMPFusion(config) if config.text_weight and config.fusion != "none" else None
        self.post_init()
        # Fixed, and set here: the library's own MAE starts with positions that are all 0 (5.17 to 5.24).
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        for table in (self.mae.vit.embeddings.position_embeddings, self.mae.decoder.decoder_pos_embed):
            init.copy_(table, sinusoidal_positions(side, table.shape[-1]))
        init.normal_(self.mae.decoder.mask_token, std=vision.initializer_range)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        token_weights: torch.FloatTensor | None = None,
        windows: torch.FloatTensor | None = None,
        noise: torch.FloatTensor | None = None,
        **kwargs,
    ) -> tuple | ECAMPOutput:
        """Losses and pictures.

        Args:
            pixel_values: (images, 1 or 3, picture_size, picture_size), normalised; one grey channel stands for all.
            input_ids, attention_mask: (images, tokens), a report of each image with its words masked; none: no text.
            labels: (images, tokens), the words to say, -100 where none is asked for; none: logits are returned.
            token_weights: (images, tokens) of the words' losses; none: 1.
            windows: (images, 4) xyxy in [0, 1], where super-resolution is judged; none: everywhere.
            noise: (images, patches), of which the lowest quarter is seen; none: drawn at random.
        """
        small = self.reduced(pixel_values)
        encoded = self.mae.vit(small.to(self.dtype), noise=noise)
        reconstruction = self.mae.unpatchify(self.mae.decoder(encoded.last_hidden_state, encoded.ids_restore).logits)
        patch_mask = encoded.mask.unflatten(1, (self.config.image_size // self.config.vision_config.patch_size, -1))
        image_loss = self._image_loss(reconstruction.float(), small, patch_mask)
        loss, drawn, super_resolution_loss, text_loss, logits = image_loss, None, None, None, None
        if self.super_resolution is not None:
            drawn = self.super_resolution(reconstruction)
            super_resolution_loss = window_loss(drawn.float(), pixel_values.float(), windows)
            loss = loss + self.config.super_resolution_weight * super_resolution_loss
        if self.language_model is not None and input_ids is not None:
            hidden = self.read(encoded.last_hidden_state[:, 1:], input_ids, attention_mask)
            if labels is None:
                logits = self.language_model.cls(hidden)
            else:
                text_loss = self._text_loss(hidden, labels, token_weights)
                loss = loss + self.config.text_weight * text_loss
        return ECAMPOutput(
            loss, image_loss, super_resolution_loss, text_loss, reconstruction, drawn, patch_mask, logits
        )

    def reduced(self, large: torch.Tensor) -> torch.Tensor:
        """The picture that the encoder sees a part of, (images, 3, image_size, image_size), in float32.

        Args:
            large: (images, 1 or 3, picture_size, picture_size).
        """
        side = self.config.image_size
        small = functional.interpolate(large.float(), size=(side, side), mode="bicubic", antialias=True)
        return small.expand(-1, self.config.vision_config.num_channels, -1, -1)

    def read(
        self, patches: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(texts, tokens, text width): the text encoder's states, of texts and (texts, seen patches, image width)."""
        bert = self.language_model.bert
        embeddings = bert.embeddings(input_ids=input_ids)
        mask = None
        if attention_mask is not None:
            mask = torch.zeros_like(attention_mask, dtype=embeddings.dtype)
            mask = mask.masked_fill(attention_mask == 0, torch.finfo(embeddings.dtype).min)[:, None, None]
        if self.fusion is not None:
            embeddings = self.fusion(embeddings, patches, mask)
        return bert.encoder(embeddings, attention_mask=mask).last_hidden_state

    def _image_loss(self, drawn: torch.Tensor, true: torch.Tensor, patch_mask: torch.Tensor) -> torch.Tensor:
        size = self.config.vision_config.patch_size
        masked = patch_mask.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, None]
        errors = (drawn - true) ** 2 * masked
        return errors.mean() if self.config.release else errors.mean() / masked.mean()

    def _text_loss(self, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        asked = labels != -100
        logits = self.language_model.cls(hidden[asked])  # of the words that are asked for alone: 30,000 scores each
        losses = functional.cross_entropy(logits.float(), labels[asked], reduction="none")
        if weights is not None:
            losses = losses * weights[asked]
        return losses.sum() / asked.sum().clamp(min=1)


def window_loss(drawn: torch.Tensor, true: torch.Tensor, windows: torch.Tensor | None) -> torch.Tensor:
    """Mean over all pixels of the squared error within each image's window; outside it is 0. Source: equation 5.

    Args:
        drawn: (images, channels, side, side).
        true: the same, or one grey channel that stands for all.
        windows: (images, 4) xyxy in [0, 1]; a pixel is inside where its centre is. None: the whole image.
    """
    errors = (drawn - true) ** 2
    if windows is not None:
        centres = (torch.arange(true.shape[-1], device=true.device) + 0.5) / true.shape[-1]
        x1, y1, x2, y2 = windows.to(true.device).unsqueeze(-1).unbind(1)
        columns, rows = (centres >= x1) & (centres <= x2), (centres >= y1) & (centres <= y2)
        errors = errors * (rows[:, :, None] & columns[:, None])[:, None]
    return errors.mean()


def sinusoidal_positions(side: int, width: int) -> torch.Tensor:
    """(1, 1 + side * side, width): the class token's, zeros, and the patches', row by row. Source: MAE's code.

    Of a patch the first half of the numbers tells the column, the second one the row; each is a quarter of sines and
    a quarter of cosines of frequencies from 1 to 1 / 10,000.
    """
    quarter = width // 4
    frequencies = 1 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (columns, rows)]
    patches = torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), patches])[None].float()


__all__ = ["ECAMPModel"]
