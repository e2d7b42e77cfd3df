"""Published weights, tensor by tensor, under the names that they have in a LiteGPT checkpoint's files.

Every reader of a format yields `PublishedTensor`s: the key in the published file, our name (None: LiteGPT has no use
for it, and the reader knows it by name), the tensor. A key that a reader does not know keeps its own name: no LiteGPT
tensor is called so, and whoever collects the tensors refuses it. Tensors stay on disk (memory-mapped) until used.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

PublishedTensor = tuple[str, str | None, torch.Tensor]

# What a folder of weights may hold, in the order of preference.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
PROJECTOR = "model.multi_modal_projector."
LANGUAGE_MODEL = "model.language_model."


def biomedclip_tower(path: Path, prefix: str) -> Iterator[PublishedTensor]:
    """The image tower of BiomedCLIP as open_clip stores it (timm's ViT), for transformers' `ViTModel`.

    Args:
        path: `open_clip_pytorch_model.bin`, its safetensors form, or the folder that holds one of them.
        prefix: of our names, such as "model.vision_tower.".
    """
    unused = r"visual\.head\.|text\.|logit_scale$"
    for key, tensor in read_weights(path):
        if re.match(unused, key):
            yield key, None, tensor
        else:
            yield from timm_vit([(key, tensor)], "visual.trunk.", prefix)


def timm_vit(
    tensors: Iterable[tuple[str, torch.Tensor]], published_prefix: str, prefix: str
) -> Iterator[PublishedTensor]:
    """A vision transformer in timm's or MAE's names, for transformers' `ViTModel`; queries, keys and values parted.

    Args:
        published_prefix: of the published names, such as "visual.trunk.".
        prefix: of our names.
    """
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    for key, tensor in tensors:
        qkv = re.fullmatch(re.escape(published_prefix) + r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key)
        if qkv:
            layer, kind = qkv.groups()
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                yield key, f"{prefix}encoder.layer.{layer}.attention.attention.{part}.{kind}", rows
        else:
            yield key, _renamed(key, published_prefix, names, prefix, "encoder.layer."), tensor


def clip_tower(path: Path, prefix: str) -> Iterator[PublishedTensor]:
    """The image tower of PubMedCLIP, or another `CLIPModel` in transformers' format, for `CLIPVisionModel`.

    Args:
        path: the model's folder, or its file of weights.
        prefix: of our names, such as "model.aux_vision_tower.".
    """
    unused = r"text_model\.|text_projection\.|visual_projection\.|logit_scale$|vision_model\.embeddings\.position_ids$"
    for key, tensor in read_weights(path):
        if re.match(unused, key):
            yield key, None, tensor
        elif key.startswith("vision_model."):
            yield key, prefix + key.removeprefix("vision_model."), tensor
        else:
            yield key, key, tensor


def eva_clip_tower(path: Path, prefix: str, num_layers: int, num_patches: int) -> Iterator[PublishedTensor]:
    """EVA-CLIP-g as BLIP-2 publishes it (`eva_vit_g.pth`), for transformers' `Blip2VisionModel`.

    The last block and the norm after it are not used, position embeddings are resized: as in BLIP-2 and MiniGPT-v2.

    Args:
        path: the file.
        prefix: of our names, such as "model.vision_tower.".
        num_layers: blocks that are used (39 of 40).
        num_patches: patches of the image that the model shall see (1024 for 448 x 448 pixels).
    """
    names = {
        "cls_token": "embeddings.class_embedding",
        "patch_embed.proj": "embeddings.patch_embedding",
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.qkv": "self_attn.qkv",
        "attn.proj": "self_attn.projection",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    biases: dict[str, torch.Tensor] = {}
    for key, tensor in read_weights(path):
        block = re.match(r"blocks\.(\d+)\.", key)
        if (block and int(block[1]) >= num_layers) or re.match(r"(norm|head)\.", key):
            yield key, None, tensor
        elif match := re.fullmatch(r"blocks\.(\d+)\.attn\.([qv])_bias", key):
            layer, part = match.groups()
            biases[f"{layer}.{part}"] = tensor
            if f"{layer}.q" in biases and f"{layer}.v" in biases:
                query, value = biases.pop(f"{layer}.q"), biases.pop(f"{layer}.v")
                bias = torch.cat([query, torch.zeros_like(query), value])  # keys have no bias in EVA
                yield key, f"{prefix}encoder.layers.{layer}.self_attn.qkv.bias", bias
        elif key == "pos_embed":
            yield key, prefix + "embeddings.position_embedding", resized_positions(tensor, num_patches)
        else:
            yield key, _renamed(key, "", names, prefix, "encoder.layers."), tensor


def llama(path: Path) -> Iterator[PublishedTensor]:
    """A language model in transformers' format, as Llama 2 is published: a folder with its (sharded) weights."""
    for key, tensor in read_weights(path):
        if key.endswith("rotary_emb.inv_freq"):
            yield key, None, tensor
        elif key.startswith("model."):
            yield key, LANGUAGE_MODEL + key.removeprefix("model."), tensor
        else:
            yield key, key, tensor


def lora_and_projector(path: Path) -> Iterator[PublishedTensor]:
    """What MiniGPT-v2 (`checkpoint_stage3.pth`) or LiteGPT's release trained: LoRA and the projector.

    Both files hold all that was not frozen, and so buffers too, among them those of layers loaded in 8 bit. LoRA comes
    as `<name of the adapted layer>.lora_A.weight` and `.lora_B.weight`. MiniGPT-v2's one layer becomes the projector's
    last one.
    """
    projector_layers = {"llama_proj.": "linear_2.", "language_proj.0.": "linear_1.", "language_proj.2.": "linear_2."}
    projector_layers["language_proj."] = "linear_2."  # the release with EVA-CLIP-g has one layer
    for key, tensor in read_weights(path):
        lora = re.fullmatch(
            r"(?:llama_model|language_model)\.base_model\.model\.model\.(.+\.lora_[AB])(?:\.default)?\.weight", key
        )
        layer = next((published for published in projector_layers if key.startswith(published)), None)
        if lora:
            yield key, f"{LANGUAGE_MODEL}{lora[1]}.weight", tensor
        elif layer:
            yield key, PROJECTOR + projector_layers[layer] + key.removeprefix(layer), tensor
        elif re.search(r"\.(inv_freq|position_ids|SCB|weight_format)$|^audio_language_proj\.", key):
            yield key, None, tensor
        else:
            yield key, key, tensor


def resized_positions(positions: torch.Tensor, num_patches: int) -> torch.Tensor:
    """Position embeddings for another number of patches: bicubic, the class token's kept.

    Args:
        positions: (1, 1 + old patches, width), patches of a square image row by row.
        num_patches: new patches, a square number.

    Returns:
        (1, 1 + num_patches, width), of the same dtype; computed in float32.

    Source: `interpolate_pos_embed` of MiniGPT-v2.
    """
    old, new = round((positions.shape[1] - 1) ** 0.5), round(num_patches**0.5)
    if old == new:
        return positions
    grid = positions[:, 1:].float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def read_weights(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Keys and tensors of a file of weights, or of a folder in transformers' or open_clip's layout.

    Args:
        path: safetensors or PyTorch (a pickle; of `{"model": ..., "optimizer": ...}` the model), or a folder with one
            of `WEIGHT_FILES`.

    Raises:
        OSError: a file, or a shard that the index names, is missing.
        ValueError: a file is damaged, lacks what the index says, or needs more than tensors to be unpickled.
    """
    if not path.is_dir():
        yield from _read_file(path)
        return
    name = next((name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if name is None:
        raise FileNotFoundError(f"{path}: holds no weights; looked for {', '.join(WEIGHT_FILES)}")
    if not name.endswith(".json"):
        yield from _read_file(path / name)
        return
    try:
        shard_of = json.loads((path / name).read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / name}: is no index of weights: {error!r}") from error
    for shard in sorted(set(shard_of.values())):
        missing = {key for key in shard_of if shard_of[key] == shard}
        for key, tensor in _read_file(path / shard):
            missing.discard(key)
            yield key, tensor
        if missing:
            raise ValueError(f"{path / shard}: lacks {len(missing)} tensors that {name} names: {min(missing)}, ...")


def _read_file(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise ValueError(f"{path}: is no whole safetensors file: {error}") from error
    else:
        yield from _unpickle(path).items()


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        # Files of PyTorch before 1.6 are no archives and cannot be mapped.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {unsafe[1]}, and more than tensors is not unpickled" if unsafe else "it is damaged"
        raise ValueError(f"{path}: is refused as a file of weights: {reason}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path}: is no whole file of PyTorch weights") from error
    if isinstance(weights, dict) and isinstance(weights.get("model"), dict):
        weights = weights["model"]
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ValueError(f"{path}: holds something else than named tensors")
    return {key: tensor.detach() for key, tensor in weights.items()}


def _renamed(key: str, published_prefix: str, names: dict[str, str], prefix: str, layers: str) -> str:
    """Our name of a vision transformer's tensor, or the key itself where `names` does not know it."""
    match = re.fullmatch(re.escape(published_prefix) + r"(?:blocks\.(\d+)\.)?(.+?)(\.weight|\.bias)?", key)
    if match is None or match[2] not in names:
        return key
    layer = "" if match[1] is None else f"{layers}{match[1]}."
    return prefix + layer + names[match[2]] + (match[3] or "")
