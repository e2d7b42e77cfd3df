import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Blip2VisionConfig, Blip2VisionModel, CLIPConfig, CLIPModel, CLIPVisionModel, ViTModel
from transformers.models.blip_2.modeling_blip_2 import Blip2VisionEmbeddings

from litegpt.modeling_litegpt import LiteGPTConfig
from litegpt.modeling_litegpt.published_weights import (
    PublishedTensor,
    biomedclip_tower,
    clip_tower,
    eva_clip_tower,
    llama,
    lora_and_projector,
    read_weights,
    resized_positions,
)
from tests.vit_weights import vit_weights


def tower_with(model_class: type, config, tensors: Iterable[PublishedTensor], **kwargs) -> nn.Module:
    """A tower of transformers that has loaded what a reader yields, with nothing missing or left over."""
    named = {name: tensor for _, name, tensor in tensors if name is not None}
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=named, output_loading_info=True, **kwargs
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def vit_features(weights: dict, pixels: torch.Tensor, heads: int, blocks: int) -> torch.Tensor:
    """The forward pass of a pre-norm vision transformer, written from its formula; without the last norm."""
    patch = weights["patch_embed.proj.weight"].shape[-1]
    width = weights["cls_token"].shape[-1]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return nn.functional.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    def linear(x: torch.Tensor, name: str, bias: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + bias

    x = nn.functional.conv2d(pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], patch)
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], dim=1) + weights["pos_embed"]
    for block in (f"blocks.{number}" for number in range(blocks)):
        if f"{block}.attn.q_bias" in weights:
            query, value = weights[f"{block}.attn.q_bias"], weights[f"{block}.attn.v_bias"]
            bias = torch.cat([query, torch.zeros(width), value])
        else:
            bias = weights[f"{block}.attn.qkv.bias"]
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv", bias)
        query, key, value = qkv.unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
        attention = (query @ key.mT / (width // heads) ** 0.5).softmax(-1) @ value
        x = x + linear(attention.transpose(1, 2).flatten(2), f"{block}.attn.proj", weights[f"{block}.attn.proj.bias"])
        hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1", weights[f"{block}.mlp.fc1.bias"])
        x = x + linear(nn.functional.gelu(hidden), f"{block}.mlp.fc2", weights[f"{block}.mlp.fc2.bias"])
    return x


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def test_biomedclips_tower_gives_the_features_of_its_formula_at_the_real_size(tmp_path, pixels):
    weights = vit_weights(768, 3072, 12, 16, 197, fused_bias=True)
    file = {f"visual.trunk.{key}": tensor for key, tensor in weights.items()}
    file |= {"visual.head.proj.weight": torch.ones(512, 768), "logit_scale": torch.tensor(4.0)}
    file["text.transformer.embeddings.position_ids"] = torch.arange(512)
    torch.save(file, tmp_path / "open_clip_pytorch_model.bin")

    tensors = list(biomedclip_tower(tmp_path, "tower."))
    left_out = {key for key, name, _ in tensors if name is None}
    assert left_out == {"visual.head.proj.weight", "logit_scale", "text.transformer.embeddings.position_ids"}
    named = [(key, name and name.removeprefix("tower."), tensor) for key, name, tensor in tensors]
    tower = tower_with(ViTModel, LiteGPTConfig().vision_config, named, add_pooling_layer=False)
    with torch.no_grad():
        features = vit_features(weights, pixels, heads=12, blocks=12)
        features = nn.functional.layer_norm(features, (768,), weights["norm.weight"], weights["norm.bias"], 1e-6)
        difference = (tower(pixels).last_hidden_state - features).abs().max()
    assert difference <= 1e-5 and features.abs().max() > 0.5


def test_biomedclips_tower_gives_open_clips_features_at_the_real_size(tmp_path, pixels):
    pytest.importorskip("open_clip", reason="compares with open_clip; `make test-convert` installs it")
    from open_clip.model import _build_vision_tower

    torch.manual_seed(0)
    visual = _build_vision_tower(
        512, {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    ).eval()
    with torch.no_grad():
        for parameter in visual.parameters():  # fresh norms and biases are 1 and 0: mixing them up would not show
            parameter.add_(torch.randn_like(parameter) * 0.02)
    file = {f"visual.{key}": tensor for key, tensor in visual.state_dict().items()}
    torch.save({**file, "logit_scale": torch.tensor(4.0)}, tmp_path / "open_clip_pytorch_model.bin")

    tensors = biomedclip_tower(tmp_path / "open_clip_pytorch_model.bin", "")
    tower = tower_with(ViTModel, LiteGPTConfig().vision_config, tensors, add_pooling_layer=False)
    with torch.no_grad():
        features = visual.trunk.forward_features(pixels)
        difference = (tower(pixels).last_hidden_state - features).abs().max()
    assert difference <= 1e-5 and features.abs().max() > 0.5


def test_pubmedclips_tower_gives_clips_features_at_the_real_size(tmp_path, pixels):
    torch.manual_seed(0)
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config=LiteGPTConfig().aux_vision_config.to_dict(), text_config=text)
    clip = CLIPModel(config).eval()
    clip.save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    file["vision_model.embeddings.position_ids"] = torch.arange(50)[None]  # as old files have it
    (tmp_path / "model.safetensors").unlink()
    torch.save(file, tmp_path / "pytorch_model.bin")

    tensors = list(clip_tower(tmp_path, ""))
    unknown = [key for key, name, _ in tensors if name == key]
    left_out = {key.split(".")[0] for key, name, _ in tensors if name is None}
    assert not unknown
    assert left_out == {"text_model", "text_projection", "visual_projection", "logit_scale", "vision_model"}
    tower = tower_with(CLIPVisionModel, LiteGPTConfig().aux_vision_config, tensors)
    with torch.no_grad():
        features = clip.vision_model(pixels).last_hidden_state
        difference = (tower(pixels).last_hidden_state - features).abs().max()
    assert difference <= 1e-5 and features.abs().max() > 0.5


def test_eva_clip_gives_the_features_of_its_formula_at_a_larger_size_than_it_was_trained_on(tmp_path):
    weights = vit_weights(64, 96, 3, 14, 1 + 16, fused_bias=False)
    torch.save({**weights, "head.weight": torch.ones(5, 64)}, tmp_path / "eva_vit_g.pth")
    config = Blip2VisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=112
    )
    tensors = list(eva_clip_tower(tmp_path / "eva_vit_g.pth", "", num_layers=2, num_patches=64))
    left_out = {key for key, name, _ in tensors if name is None}
    assert {"norm.weight", "norm.bias", "head.weight", "blocks.2.attn.q_bias", "blocks.2.mlp.fc1.weight"} <= left_out
    assert not any(key.startswith("blocks.0") for key in left_out)

    post_norm = {
        f"post_layernorm.{kind}": fill((64,)) for kind, fill in (("weight", torch.ones), ("bias", torch.zeros))
    }
    tensors += [(name, name, tensor) for name, tensor in post_norm.items()]
    tower = tower_with(Blip2VisionModel, config, tensors)
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        larger = {**weights, "pos_embed": resized_positions(weights["pos_embed"], 64)}
        features = nn.functional.layer_norm(vit_features(larger, pixels, heads=4, blocks=2), (64,), eps=1e-6)
        difference = (tower(pixels).last_hidden_state - features).abs().max()
    assert difference <= 1e-5


def test_positions_are_resized_as_blip_2_does_and_in_the_published_precision():
    config = Blip2VisionConfig(hidden_size=8, image_size=56, patch_size=14)
    embeddings = Blip2VisionEmbeddings(config)
    positions = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0))
    embeddings.position_embedding.data = positions
    wanted = embeddings.interpolate_pos_encoding(torch.empty(1, 65, 8), 112, 112)
    torch.testing.assert_close(resized_positions(positions, 64), wanted)
    half = resized_positions(positions.half(), 64)
    assert half.dtype == torch.float16 and torch.equal(half[:, :1], positions[:, :1].half())
    assert torch.equal(resized_positions(positions, 16), positions)


@pytest.mark.parametrize(
    ("language_model", "default", "projector"),
    [
        ("llama_model", "", {"llama_proj.weight": "linear_2.weight", "llama_proj.bias": "linear_2.bias"}),
        (
            "language_model",
            ".default",
            {"language_proj.0.weight": "linear_1.weight", "language_proj.2.bias": "linear_2.bias"},
        ),
        ("language_model", ".default", {"language_proj.weight": "linear_2.weight"}),
    ],
    ids=["MiniGPT-v2", "LiteGPT", "LiteGPT with EVA-CLIP-g"],
)
def test_lora_and_projector_are_found_among_buffers_and_the_optimizers_state(
    tmp_path, language_model, default, projector
):
    layers = f"{language_model}.base_model.model.model.layers"
    lora = {f"{layers}.3.self_attn.q_proj.lora_{part}{default}.weight": torch.ones(2, 2) for part in "AB"}
    buffers = [f"{layers}.3.self_attn.rotary_emb.inv_freq", "visual_encoder.embeddings.position_ids"]
    buffers += [f"{layers}.3.mlp.up_proj.SCB", f"{layers}.3.self_attn.q_proj.base_layer.weight_format"]
    buffers += ["audio_language_proj.0.weight"]
    model = {**lora, **dict.fromkeys([*projector, *buffers, "surprise.weight"], torch.ones(2))}
    state = {"model": model, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "config": {"a": 1}, "epoch": 2}
    torch.save(state, tmp_path / "checkpoint.pth")

    names = {key: name for key, name, _ in lora_and_projector(tmp_path / "checkpoint.pth")}
    ours = "model.language_model.layers.3.self_attn.q_proj"
    assert {names.pop(key) for key in lora} == {f"{ours}.lora_A.weight", f"{ours}.lora_B.weight"}
    assert {key: names.pop(key) for key in projector} == {
        key: f"model.multi_modal_projector.{name}" for key, name in projector.items()
    }
    assert names == {**dict.fromkeys(buffers), "surprise.weight": "surprise.weight"}


def test_llamas_rotary_buffers_are_left_out(tmp_path):
    keys = ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.norm.weight", "lm_head.weight"]
    save_file({key: torch.ones(2) for key in keys}, tmp_path / "model.safetensors")
    names = {key: name for key, name, _ in llama(tmp_path)}
    assert names == dict(zip(keys, [None, "model.language_model.norm.weight", "lm_head.weight"], strict=True))


def save_safetensors(tensors: dict, path: Path) -> None:
    save_file(tensors, path.with_suffix(".safetensors"))


def save_legacy_pickle(tensors: dict, path: Path) -> None:
    torch.save(tensors, path.with_suffix(".bin"), _use_new_zipfile_serialization=False)


def save_pickle(tensors: dict, path: Path) -> None:
    torch.save(tensors, path.with_suffix(".bin"))


@pytest.mark.parametrize("save", [save_safetensors, save_pickle, save_legacy_pickle])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_is_read_in_every_format(tmp_path, save: Callable, sharded: bool):
    stem, suffix = ("model", ".safetensors") if save is save_safetensors else ("pytorch_model", ".bin")
    tensors = {"a": torch.randn(3), "b": torch.randn(2, 2).half()}
    if sharded:
        save({"a": tensors["a"]}, tmp_path / f"{stem}-00001-of-00002")
        save({"b": tensors["b"]}, tmp_path / f"{stem}-00002-of-00002")
        weight_map = {key: f"{stem}-0000{n}-of-00002{suffix}" for n, key in enumerate(tensors, 1)}
        (tmp_path / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    else:
        save(tensors, tmp_path / stem)
    read = dict(read_weights(tmp_path))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[key], tensors[key]) and read[key].dtype == tensors[key].dtype for key in tensors)


def test_tensors_of_a_pickle_stay_on_disk(tmp_path):
    torch.save({"a": torch.zeros(10_000_000)}, tmp_path / "weights.bin")
    status = Path(f"/proc/{os.getpid()}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc, which only Linux has")

    def anonymous_kib() -> int:
        return int(status.read_text().split("RssAnon:")[1].split()[0])

    before = anonymous_kib()
    tensors = dict(read_weights(tmp_path / "weights.bin"))
    assert tensors["a"].sum() == 0
    assert anonymous_kib() - before < 20_000  # of 39,063 KiB


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"model": {"a": torch.ones(2)}, "config": Trap()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: is refused .* it holds posix\.mkdir"):
        list(read_weights(tmp_path / "weights.pth"))
    assert not (tmp_path / "sprung").exists()


def damaged(path: Path, file: str) -> None:
    if file == "truncated.safetensors":
        save_file({"a": torch.ones(1000)}, path)
        os.truncate(path, 2000)
    elif file == "truncated.bin":
        torch.save({"a": torch.ones(1000)}, path)
        os.truncate(path, 2000)
    elif file == "empty.bin":
        path.touch()
    elif file == "words.bin":
        path.write_text("version https://git-lfs.github.com/spec/v1")
    elif file == "numbers.bin":
        torch.save({"a": 1}, path)


@pytest.mark.parametrize(
    "file", ["missing.bin", "truncated.safetensors", "truncated.bin", "empty.bin", "words.bin", "numbers.bin"]
)
def test_a_damaged_file_is_refused_by_name(tmp_path, file):
    damaged(tmp_path / file, file)
    with pytest.raises((OSError, ValueError), match=file) as error:
        list(read_weights(tmp_path / file))
    assert "\n" not in str(error.value)


def test_a_folder_that_lacks_a_shard_or_a_tensor_of_its_index_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        list(read_weights(tmp_path))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"one\.safetensors: there is no such file"):
        list(read_weights(tmp_path))
    save_file({"a": torch.ones(2)}, tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=r"one\.safetensors: lacks 1 tensors that .*index\.json names: b"):
        list(read_weights(tmp_path))
    index.write_text("{}")
    with pytest.raises(ValueError, match="is no index of weights"):
        list(read_weights(tmp_path))
