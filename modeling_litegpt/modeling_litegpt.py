"""LiteGPT: two vision towers and a projector in front of a language model (arXiv 2407.12064, section 3.1)."""

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.generation import GenerationMixin
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.quantizers import AutoQuantizationConfig
from transformers.utils import TransformersKwargs, can_return_tuple, logging, torch_compilable_check

from .configuration_litegpt import LiteGPTConfig, tower_width
from .modeling_detector import CandidateTokens, LiteGPTDetector, OutputConvolution, best_candidates

logger = logging.get_logger(__name__)

# The newest release of transformers that this code was tested with. A checkpoint carries the code, and outlives it.
TESTED_TRANSFORMERS = "5.24"
# What a quantization leaves whole, and where its configuration lists that (bitsandbytes, HQQ, all others).
WHOLE_MODULES = (
    *("vision_tower", "aux_vision_tower", "detector", "candidate_tokens"),
    *("multi_modal_projector", "lm_head"),
)
SKIP_LISTS = ("llm_int8_skip_modules", "skip_modules", "modules_to_not_convert")
# Positions that the head scores at once where logits are not returned: 131 MB of float32 for 32,000 tokens.
LOSS_CHUNK_SIZE = 1024


# The cache has another name from transformers 5.24 on (`cache`, before `past_key_values`). Nothing here says either:
# output classes inherit the field, and `forward` hands the argument on with all that is the language model's.


@dataclass
class LiteGPTModelOutputWithPast(BaseModelOutputWithPast):
    """The language model's output; `image_outputs`: what `get_image_features` returned, None without an image."""

    image_outputs: BaseModelOutputWithPooling | None = None

    @property
    def image_hidden_states(self) -> torch.FloatTensor | None:
        """The visual tokens, (images * visual tokens, text width)."""
        return _visual_tokens(self.image_outputs)


@dataclass
class LiteGPTCausalLMOutputWithPast(CausalLMOutputWithPast):
    """Loss (where labels were given), logits (batch, sequence, vocabulary) and what the model beneath returned."""

    image_outputs: BaseModelOutputWithPooling | None = None

    @property
    def image_hidden_states(self) -> torch.FloatTensor | None:
        """The visual tokens, (images * visual tokens, text width)."""
        return _visual_tokens(self.image_outputs)


class LiteGPTMultiModalProjector(nn.Module):
    """Joins adjacent patch tokens and maps them to the language model's width.

    (images, patch tokens, tower width) -> (images, patch tokens / group, text width). Source: the paper's equations 4
    and 5.
    """

    def __init__(self, config: LiteGPTConfig):
        super().__init__()
        self.group_size = config.visual_token_group_size
        self.normalize = config.normalize_patch_features
        joined_size = tower_width(config.vision_config) * self.group_size
        text_size = config.text_config.hidden_size
        if config.projector_hidden_size is None:
            self.linear_1, self.act, self.linear_2 = None, None, nn.Linear(joined_size, text_size)
        else:
            self.linear_1 = nn.Linear(joined_size, config.projector_hidden_size)
            self.act = ACT2FN[config.projector_hidden_act]
            self.linear_2 = nn.Linear(config.projector_hidden_size, text_size)

    def forward(self, patch_features: torch.Tensor) -> torch.Tensor:
        images, tokens, width = patch_features.shape
        if self.normalize:
            patch_features = nn.functional.layer_norm(patch_features, (width,))
        # Of the bias, not of the weight: a quantized weight's dtype is that of its storage.
        patch_features = patch_features.to(self.linear_2.bias.dtype)
        hidden_states = patch_features.reshape(images, tokens // self.group_size, width * self.group_size)
        if self.linear_1 is not None:
            hidden_states = self.act(self.linear_1(hidden_states))
        return self.linear_2(hidden_states)


class LiteGPTPreTrainedModel(PreTrainedModel):
    config_class = LiteGPTConfig
    config: LiteGPTConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _no_split_modules = ["LiteGPTDetector", "CandidateTokens"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _head_keys: frozenset[str] = frozenset()  # tensors of a checkpoint's head, for a class without one

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, OutputConvolution):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """The library's `from_pretrained`, but weight files that do not fit are an error, not a warning.

        The library initialises a missing tensor at random and leaves an unexpected one out: the model then answers,
        wrongly. With `output_loading_info=True` it still does so, and the caller looks at what it returns.

        A `quantization_config` is for the language model: towers, projector and head stay whole.

        Raises:
            ValueError: a tensor is missing, unexpected or (unless `ignore_mismatched_sizes`) of another shape, or a
                weight file is damaged.
            OSError: a weight file is missing.
        """
        if Version(transformers.__version__).release[:2] > Version(TESTED_TRANSFORMERS).release:
            logger.warning_once(
                f"This checkpoint's code was tested with transformers up to {TESTED_TRANSFORMERS}, and this is "
                f"{transformers.__version__}; if something fails, refresh_checkpoint.py of LiteGPT brings newer code."
            )
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = _language_model_alone(kwargs["quantization_config"])
        if pretrained_model_name_or_path is None or kwargs.get("output_loading_info"):
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        accept_other_shapes = kwargs.pop("ignore_mismatched_sizes", False)
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        try:
            model, info = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        except SafetensorError as error:
            file = _damaged_file(Path(pretrained_model_name_or_path)) or pretrained_model_name_or_path
            raise ValueError(f"{file}: the weights are damaged or cut off ({error}).") from None
        shapes = [] if accept_other_shapes else info["mismatched_keys"]
        problems = {
            "missing": info["missing_keys"],
            "unexpected": set(info["unexpected_keys"]) - cls._head_keys,
            "of another shape": [f"{key} {tuple(theirs)} instead of {tuple(ours)}" for key, theirs, ours in shapes],
        }
        if any(problems.values()):
            raise ValueError(
                f"{pretrained_model_name_or_path}: the weights do not fit the configuration: "
                + "; ".join(f"{problem}: {_listed(keys)}" for problem, keys in problems.items() if keys)
                + ". (output_loading_info=True loads what fits.)"
            )
        return model

    def save_pretrained(self, save_directory: str | Path, *args, **kwargs) -> None:
        """The library's; weight files, which it lets their owner alone read, get the permissions of `config.json`."""
        super().save_pretrained(save_directory, *args, **kwargs)
        config = Path(save_directory, "config.json")
        if config.is_file():
            for file in config.parent.glob("*.safetensors"):
                file.chmod(config.stat().st_mode)


class LiteGPTModel(LiteGPTPreTrainedModel):
    """Towers, projector and language model, without the language modelling head."""

    # Not `_keys_to_ignore_on_load_unexpected`: vLLM would leave the head out without a word.
    _head_keys = frozenset({"lm_head.weight"})

    def __init__(self, config: LiteGPTConfig):
        super().__init__(config)
        self.vision_tower = _build_tower(config.vision_config)
        self.aux_vision_tower = None if config.aux_vision_config is None else _build_tower(config.aux_vision_config)
        self.multi_modal_projector = LiteGPTMultiModalProjector(config)
        self.detector = LiteGPTDetector(config) if config.num_detector_labels else None
        self.candidate_tokens = CandidateTokens(config) if config.num_candidate_tokens else None
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    @property
    def towers(self) -> list[PreTrainedModel]:
        """The one or two vision towers, in the order in which their tokens are concatenated."""
        return [tower for tower in (self.vision_tower, self.aux_vision_tower) if tower is not None]

    def train(self, mode: bool = True) -> "LiteGPTModel":
        """Frozen towers stay in evaluation mode."""
        super().train(mode)
        for tower in self.towers:
            tower.train(mode and _is_trained(tower))
        return self

    def get_patch_features(
        self, pixel_values: torch.FloatTensor, aux_pixel_values: torch.FloatTensor | None = None, **kwargs
    ) -> torch.FloatTensor:
        """Patch tokens of all towers, concatenated along the token axis (the paper's equations 1 to 3).

        Args:
            pixel_values: (images, 3, height, width) for the first tower.
            aux_pixel_values: the same radiographs for the second tower; None where the model has one tower.

        Returns:
            (images, patch tokens, tower width); class tokens are left out.
        """
        return self._patch_features(self._tower_outputs(pixel_values, aux_pixel_values, **kwargs))

    def _tower_outputs(
        self, pixel_values: torch.FloatTensor, aux_pixel_values: torch.FloatTensor | None, **kwargs
    ) -> list[BaseModelOutputWithPooling]:
        pixels = [pixel_values]
        if self.aux_vision_tower is not None:
            pixels = self._unpacked(pixel_values) if aux_pixel_values is None else [pixel_values, aux_pixel_values]
        outputs = []
        for tower, values in zip(self.towers, pixels, strict=True):
            # Not left to autograd: `enable_input_require_grads` makes a frozen tower's embeddings ask for gradients.
            with torch.set_grad_enabled(torch.is_grad_enabled() and (_is_trained(tower) or values.requires_grad)):
                outputs.append(tower_output(tower, values, return_dict=True, **kwargs))
        return outputs

    def _unpacked(self, pixel_values: torch.FloatTensor) -> list[torch.FloatTensor]:
        """The pixels of both towers, which the processor's `pack_pixel_values` puts into one tensor's channels."""
        if pixel_values.shape[1] != 6:
            raise ValueError("This model has two towers: aux_pixel_values is missing beside pixel_values.")
        sides = [tower.image_size for tower in self.config.tower_configs]
        return [pixel_values[:, :3, : sides[0], : sides[0]], pixel_values[:, 3:, : sides[1], : sides[1]]]

    def _patch_features(self, outputs: list[BaseModelOutputWithPooling]) -> torch.FloatTensor:
        tokens = [patch_tokens(output.last_hidden_state) for output in outputs]
        return torch.cat([t.to(tokens[0].device) for t in tokens], dim=1)  # a device map may part the towers

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        aux_pixel_values: torch.FloatTensor | None = None,
        patch_features: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """Visual tokens, from pixels or from the towers' stored `patch_features` (as `get_patch_features` gives them).

        Returns:
            `last_hidden_state`: the patch features; `pooler_output`: a list with (visual tokens, text width) an image;
            `hidden_states` and `attentions`, where asked for: those of the first tower's layers, then the second's.
        """
        outputs = []
        if patch_features is None:
            outputs = self._tower_outputs(pixel_values, aux_pixel_values, **kwargs)
            patch_features = self._patch_features(outputs)
        visual_tokens = self.multi_modal_projector(patch_features)
        if self.candidate_tokens is not None:
            detected = self.detector(patch_features)
            candidates = self.candidate_tokens(detected, self.detector.cells_on(detected.device))
            visual_tokens = torch.cat([visual_tokens, candidates.to(visual_tokens)], dim=1)
        return BaseModelOutputWithPooling(
            last_hidden_state=patch_features,
            pooler_output=list(visual_tokens),
            hidden_states=sum((output.hidden_states or () for output in outputs), ()) or None,
            attentions=sum((output.get("attentions") or () for output in outputs), ()) or None,  # a ResNet has none,
        )

    def detect(self, patch_features: torch.FloatTensor) -> torch.FloatTensor:
        """The detector's best candidates, (images, candidates, 6): channel, score, box; see `best_candidates`.

        Raises:
            ValueError: the model has no detector.
        """
        if self.detector is None:
            raise ValueError("This model has no detector: num_detector_labels of its configuration is 0.")
        outputs = self.detector(patch_features)
        return best_candidates(outputs, self.detector.cells_on(outputs.device))

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor,
        image_features: torch.FloatTensor,
    ) -> torch.BoolTensor:
        """Where the placeholders stand, (batch, sequence, 1); an error unless there is one per visual token."""
        if input_ids is None:
            placeholder = torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(placeholder)).all(-1)
        else:
            mask = input_ids == self.config.image_token_id
        count = mask.sum()
        mask = mask.unsqueeze(-1).to(inputs_embeds.device)
        torch_compilable_check(
            count * inputs_embeds.shape[-1] == image_features.numel(),
            f"Image features and image tokens do not match, tokens: {count}, features: {image_features.shape[0]}",
        )
        return mask

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        aux_pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        patch_features: torch.FloatTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | LiteGPTModelOutputWithPast:
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        # generate() encodes the image once and hands the outputs on as `mm_encoder_outputs`.
        image_outputs = (mm_encoder_outputs or {}).get("image")
        if image_outputs is None and (pixel_values is not None or patch_features is not None):
            image_outputs = self.get_image_features(pixel_values, aux_pixel_values, patch_features, return_dict=True)
        visual_tokens = _visual_tokens(image_outputs)
        if visual_tokens is not None:
            visual_tokens = visual_tokens.to(inputs_embeds.device, inputs_embeds.dtype)
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, visual_tokens)
            inputs_embeds = inputs_embeds.masked_scatter(mask, visual_tokens)
        elif input_ids is not None and input_ids.shape[1] > 1:  # not a step of decoding, whose image is in the cache
            torch_compilable_check(
                ~(input_ids == self.config.image_token_id).any(),
                "The prompt has placeholders of a radiograph, but no radiograph: pixel_values are missing.",
            )

        if kwargs.get("past_key_values") is not None and kwargs.get("cache") is not None:
            # PEFT's prefix tuning puts its prefix under the old name beside generate's empty cache.
            kwargs["cache"] = kwargs.pop("past_key_values")
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        fields = LiteGPTModelOutputWithPast.__dataclass_fields__
        passed_on = {name: value for name, value in outputs.items() if name in fields}
        return LiteGPTModelOutputWithPast(**passed_on, image_outputs=image_outputs)


class LiteGPTForConditionalGeneration(LiteGPTPreTrainedModel, GenerationMixin):
    """LiteGPT with the language modelling head: the model that answers."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: LiteGPTConfig):
        super().__init__(config)
        self.model = LiteGPTModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    @torch.no_grad()
    def generate(self, *args, patch_features: torch.FloatTensor | None = None, **kwargs):
        """The library's `generate`, which hands neither stored `patch_features` nor a `streamer` on.

        It encodes images from pixels only, and a callable `custom_generate` does not get the streamer from it.
        """
        if patch_features is not None:
            image_outputs = self.get_image_features(patch_features=patch_features, return_dict=True)
            kwargs["mm_encoder_outputs"] = {"image": image_outputs}
        if callable(kwargs.get("custom_generate")):
            if kwargs.get("stop_strings"):
                raise ValueError("stop_strings need a tokenizer, which generate hands to no callable custom_generate.")
            if kwargs.get("streamer") is not None:
                kwargs["answer_streamer"] = kwargs.pop("streamer")
        return super().generate(*args, **kwargs)

    @wraps(GenerationMixin.prepare_inputs_for_generation)  # the library reads its parameters
    def prepare_inputs_for_generation(self, *args, is_first_iteration=False, **kwargs):
        # Releases that do not encode images before they generate would show them again with every further token.
        inputs = super().prepare_inputs_for_generation(*args, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs.pop("mm_encoder_outputs", None)
        return inputs

    def get_image_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        aux_pixel_values: torch.FloatTensor | None = None,
        patch_features: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        return self.model.get_image_features(pixel_values, aux_pixel_values, patch_features, **kwargs)

    def get_patch_features(
        self, pixel_values: torch.FloatTensor, aux_pixel_values: torch.FloatTensor | None = None, **kwargs
    ) -> torch.FloatTensor:
        return self.model.get_patch_features(pixel_values, aux_pixel_values, **kwargs)

    def detect(self, patch_features: torch.FloatTensor) -> torch.FloatTensor:
        return self.model.detect(patch_features)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        aux_pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        patch_features: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | LiteGPTCausalLMOutputWithPast:
        """Next-token logits, and the loss where labels are given.

        Args:
            input_ids: (batch, sequence); every image takes `config.num_visual_tokens` placeholders
                (`config.image_token_id`).
            pixel_values, aux_pixel_values: (images, 3, height, width), one for each tower; or both in `pixel_values`,
                packed as the processor's `pack_pixel_values` does.
            patch_features: (images, patch tokens, tower width) in place of the pixels: the towers' stored output.
            labels: (batch, sequence), -100 where no loss is wanted.
            skip_logits: return the same loss without logits: the head scores the labelled positions alone, a chunk of
                them at a time.

        Raises:
            ValueError: the placeholders do not match the images; `skip_logits` without labels.
        """
        if skip_logits and labels is None:
            raise ValueError("skip_logits returns the loss alone: labels are missing.")
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            aux_pixel_values=aux_pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            patch_features=patch_features,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        loss, logits = None, None
        if skip_logits:
            loss = self._loss_without_logits(outputs.last_hidden_state, labels, **kwargs)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        if labels is not None and not skip_logits:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return LiteGPTCausalLMOutputWithPast(loss=loss, logits=logits, **rest)

    def _loss_without_logits(
        self,
        hidden_states: torch.FloatTensor,
        labels: torch.LongTensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        shift_labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.FloatTensor:
        """The library's `ForCausalLMLoss` of the logits that the head would give for (batch, sequence, width)."""
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
        labelled = shift_labels != -100
        hidden_states, targets = hidden_states[labelled.to(hidden_states.device)], shift_labels[labelled]
        loss = self._summed_loss(hidden_states, targets)
        return loss / (max(len(targets), 1) if num_items_in_batch is None else num_items_in_batch)

    def _summed_loss(self, hidden_states: torch.FloatTensor, targets: torch.LongTensor) -> torch.FloatTensor:
        """Cross-entropy of (positions, width), whose logits are made a chunk at a time, in the backward pass again."""
        # A sharded head is gathered, and its gradient reduced, for each call of it: the processes, whose answers
        # differ in length, must make equally many.
        sharded = is_deepspeed_zero3_enabled() or _is_sharded(self.lm_head)
        if sharded or len(targets) <= LOSS_CHUNK_SIZE:
            return self._summed_loss_of_chunk(hidden_states, targets)
        chunks = zip(hidden_states.split(LOSS_CHUNK_SIZE), targets.split(LOSS_CHUNK_SIZE), strict=True)
        return sum(
            checkpoint(self._summed_loss_of_chunk, *chunk, use_reentrant=False, preserve_rng_state=False)
            for chunk in chunks
        )

    def _summed_loss_of_chunk(self, hidden_states: torch.FloatTensor, targets: torch.LongTensor) -> torch.FloatTensor:
        logits = self.lm_head(hidden_states).float()
        return nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="sum")


def tower_output(tower: PreTrainedModel, pixel_values: torch.FloatTensor, **kwargs) -> BaseModelOutputWithPooling:
    """What a tower makes of (images, 3, height, width), in its own precision.

    A tower whose configuration says `standardize_pixels` was trained on radiographs that were each brought to mean 0
    and deviation 1, so that the grey values of another hospital's machines are no surprise.
    """
    if getattr(tower.config, "standardize_pixels", False):
        pixel_values = pixel_values.float()  # a mean of half precision would be another one
        mean = pixel_values.mean(dim=(1, 2, 3), keepdim=True)
        pixel_values = (pixel_values - mean) / (pixel_values.std(dim=(1, 2, 3), keepdim=True) + 1e-3)
    return tower(pixel_values.to(tower.dtype), **kwargs)


def patch_tokens(hidden_state: torch.Tensor) -> torch.Tensor:
    """(images, patches, width) of a tower's last hidden state, row by row of a square grid.

    A ResNet's is (images, width, rows, columns). Of others' tokens the patches stand last, after a class token (ViT,
    CLIP), registers or nothing (SigLIP, Swin): fewer than twice the grid's side, so the patches are the largest square
    number of tokens.
    """
    if hidden_state.ndim == 4:
        return hidden_state.flatten(2).transpose(1, 2)
    return hidden_state[:, -(math.isqrt(hidden_state.shape[1]) ** 2) :]


def _visual_tokens(image_outputs: BaseModelOutputWithPooling | None) -> torch.FloatTensor | None:
    return None if image_outputs is None else torch.cat(tuple(image_outputs.pooler_output))


def _is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 holds the module's weights."""
    if not torch.distributed.is_available():  # some builds of torch come without
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _language_model_alone(quantization: Any) -> Any:
    """A copy of a quantization's configuration (or dictionary) that leaves `WHOLE_MODULES` as they are."""
    if isinstance(quantization, dict):
        quantization = AutoQuantizationConfig.from_dict(dict(quantization))
    quantization = copy.deepcopy(quantization)
    # Full names count: those of the model with a head, then those of the model without one.
    whole = [prefix + module for prefix in ("model.", "") for module in WHOLE_MODULES]
    for name in SKIP_LISTS:
        if hasattr(quantization, name):
            setattr(quantization, name, sorted({*(getattr(quantization, name) or ()), *whole}))
    return quantization


def _build_tower(config: PreTrainedConfig) -> PreTrainedModel:
    if config.model_type == "blip_2_vision_model":  # EVA-CLIP-g; AutoModel does not know it by its configuration
        from transformers import Blip2VisionModel

        return Blip2VisionModel(config)
    # Only patch tokens are used; ViT alone builds a pooler for the class token unless it is told not to.
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if config.model_type == "vit" else {}))


def _damaged_file(folder: Path) -> Path | None:
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            return file
    return None


def _listed(keys: Collection[str], most: int = 3) -> str:
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(sorted(keys)[:most]) + rest


__all__ = ["LiteGPTForConditionalGeneration", "LiteGPTModel", "LiteGPTPreTrainedModel"]
