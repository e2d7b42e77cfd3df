"""The paper's model and its baselines are configurations of one code: their sizes; a small version of each runs."""

import json
from pathlib import Path

import pytest
import torch

from litegpt import modeling_litegpt
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration

CONFIGS = Path(modeling_litegpt.__file__).parent / "configs"
SMALL_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL_TEXT = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}

# ViT-B/16 without a head, CLIP's ViT-B/32 without its projection, as published.
VIT_B_16, CLIP_B_32 = 85_798_656, 87_456_000
# EVA-CLIP-g by hand: 39 layers (two norms, attention with biases, MLP), patch convolution, class token, 32 x 32 + 1
# positions for 448 pixels, last norm.
EVA_LAYER = 4 * 1408 + (3 * 1408 * 1408 + 3 * 1408) + (1408 * 1408 + 1408) + (2 * 1408 * 6144 + 6144 + 1408)
EVA_CLIP_G = 39 * EVA_LAYER + (3 * 14 * 14 * 1408 + 1408) + 1408 + 1025 * 1408 + 2 * 1408
# Llama 2 7B as published, with 8 more rows in embeddings and head.
LLAMA_2_7B = 6_738_415_616 + 2 * 8 * 4096


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


SIZES = {  # visual tokens, width of a joined token, parameters of the towers, parameters of the projector
    "litegpt": (49, 3840, [VIT_B_16, CLIP_B_32], linear(3840, 5632) + linear(5632, 4096)),
    "biomedclip": (49, 3072, [VIT_B_16], linear(3072, 5632) + linear(5632, 4096)),
    "pubmedclip": (49, 768, [CLIP_B_32], linear(768, 5632) + linear(5632, 4096)),
    "minigpt_v2": (256, 5632, [EVA_CLIP_G], linear(5632, 4096)),
}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_configuration_is_tested():
    assert {file.stem for file in CONFIGS.glob("*.json")} == SIZES.keys()


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_are_the_published_ones(name):
    visual_tokens, joined_width, towers, projector = SIZES[name]
    config = LiteGPTConfig.from_json_file(CONFIGS / f"{name}.json")
    with torch.device("meta"):
        model = LiteGPTForConditionalGeneration(config)
        pixels = [torch.empty(2, 3, tower.image_size, tower.image_size) for tower in config.tower_configs]
        visual = model.get_image_features(*pixels, return_dict=True).pooler_output

    assert [tuple(tokens.shape) for tokens in visual] == [(visual_tokens, 4096)] * 2
    assert config.num_visual_tokens == visual_tokens
    first = model.model.multi_modal_projector.linear_1 or model.model.multi_modal_projector.linear_2
    assert first.in_features == joined_width
    assert [parameters(tower) for tower in model.model.towers] == towers
    assert parameters(model.model.multi_modal_projector) == projector
    assert parameters(model) == sum(towers) + projector + LLAMA_2_7B


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_a_small_version_answers_and_is_saved(name, normalize, tmp_path):
    values = json.loads((CONFIGS / f"{name}.json").read_text())
    for part in ("vision_config", "aux_vision_config"):
        if values[part] is not None:
            values[part] |= SMALL_TOWER
    values |= {"text_config": {"model_type": "llama", "vocab_size": 99, **SMALL_TEXT}, "image_token_id": 98}
    config = LiteGPTConfig(**values, normalize_patch_features=normalize)
    torch.manual_seed(0)
    model = LiteGPTForConditionalGeneration(config).eval()

    names = ("pixel_values", "aux_pixel_values")
    inputs = {
        pixels: torch.randn(2, 3, tower.image_size, tower.image_size)
        for pixels, tower in zip(names, config.tower_configs, strict=False)
    }
    words = torch.randint(3, 90, (2, 5))
    visual = torch.full((2, config.num_visual_tokens), config.image_token_id)
    inputs["input_ids"] = torch.cat([words[:, :2], visual, words[:, 2:]], dim=1)
    answers = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert answers.shape == (2, inputs["input_ids"].shape[1] + 4)

    model.save_pretrained(tmp_path)
    again = LiteGPTForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
    changed = {**inputs, "pixel_values": inputs["pixel_values"] + 1}
    assert not torch.allclose(again(**changed).logits, model(**inputs).logits)
