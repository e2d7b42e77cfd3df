import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, ViTConfig

from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration, LiteGPTModel

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 64,
}
TEXT = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def small_config(**changes) -> LiteGPTConfig:
    values = {
        "vision_config": ViTConfig(patch_size=8, **TOWER),
        "aux_vision_config": CLIPVisionConfig(patch_size=16, **TOWER),
        "text_config": LlamaConfig(**TEXT),
        "image_token_id": 98,
        "projector_hidden_size": 40,
    }
    return LiteGPTConfig(**{**values, **changes})


def small_model(**changes) -> LiteGPTForConditionalGeneration:
    torch.manual_seed(0)
    return LiteGPTForConditionalGeneration(small_config(**changes)).eval()


def inputs_for(model: LiteGPTForConditionalGeneration, images: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    visual = torch.full((images, model.config.num_visual_tokens), model.config.image_token_id)
    words = torch.randint(3, 90, (images, 7), generator=generator)
    pixels = torch.randn(images, 3, 64, 64, generator=generator)
    inputs = {"input_ids": torch.cat([words[:, :2], visual, words[:, 2:]], dim=1), "pixel_values": pixels}
    return inputs if model.config.aux_vision_config is None else {**inputs, "aux_pixel_values": pixels.flip(0)}


def test_default_configuration_has_the_papers_shapes_and_parameter_count():
    config = LiteGPTConfig()
    with torch.device("meta"):
        model = LiteGPTForConditionalGeneration(config)
    count = {name: sum(p.numel() for p in module.parameters()) for name, module in model.model.named_children()}

    assert (config.num_patch_tokens, config.num_visual_tokens) == (245, 49)
    projector = model.model.multi_modal_projector
    assert projector.linear_1.weight.shape == (5632, 3840)
    assert projector.linear_2.weight.shape == (4096, 5632)
    assert config.vision_config.layer_norm_eps == 1e-6 and config.aux_vision_config.hidden_act == "quick_gelu"
    # Published counts: ViT-B/16 without a head 85,798,656; CLIP's ViT-B/32 without its projection 87,456,000;
    # Llama 2 7B 6,738,415,616, here with 8 more rows in embeddings and head.
    assert count["vision_tower"] == 85_798_656
    assert count["aux_vision_tower"] == 87_456_000
    assert count["multi_modal_projector"] == 3840 * 5632 + 5632 + 5632 * 4096 + 4096
    lm_head = model.lm_head.weight.numel()
    assert count["language_model"] + lm_head == 6_738_415_616 + 2 * 8 * 4096


def test_default_configuration_runs_on_the_meta_device():
    with torch.device("meta"):
        model = LiteGPTForConditionalGeneration(LiteGPTConfig())
        features = model.model.get_patch_features(torch.empty(2, 3, 224, 224), torch.empty(2, 3, 224, 224))
        assert features.shape == (2, 245, 768)
        assert model.model.multi_modal_projector(features).shape == (2, 49, 4096)


@pytest.mark.parametrize(
    ("changes", "visual_tokens", "joined_width"),
    [
        ({"aux_vision_config": None, "visual_token_group_size": 4}, 16, 128),  # BiomedCLIP alone
        (
            {
                "vision_config": CLIPVisionConfig(patch_size=16, **TOWER),
                "aux_vision_config": None,
                "visual_token_group_size": 1,
            },
            16,
            32,
        ),
        ({"projector_hidden_size": None}, 16, 160),  # one linear layer, as in MiniGPT-v2
    ],
)
def test_ablations_are_configurations(changes, visual_tokens, joined_width):
    model = small_model(**changes)
    projector = model.model.multi_modal_projector
    first = projector.linear_2 if projector.linear_1 is None else projector.linear_1
    assert model.config.num_visual_tokens == visual_tokens
    assert first.in_features == joined_width
    logits = model(**inputs_for(model)).logits
    assert logits.shape == (2, visual_tokens + 7, 99)


def test_a_token_count_that_is_no_multiple_of_the_group_is_refused():
    with pytest.raises(ValueError, match="80 patch tokens, which is no multiple of visual_token_group_size=3"):
        small_config(visual_token_group_size=3)


def test_towers_of_different_width_are_refused():
    with pytest.raises(ValueError, match="hidden_size is 32 in vision_config and 64 in aux_vision_config"):
        small_config(aux_vision_config=CLIPVisionConfig(patch_size=16, **{**TOWER, "hidden_size": 64}))


def test_configuration_survives_a_round_trip(tmp_path):
    for changes in ({}, {"aux_vision_config": None, "visual_token_group_size": 4, "projector_hidden_size": None}):
        config = small_config(**changes)
        config.save_pretrained(tmp_path)
        loaded, expected = LiteGPTConfig.from_pretrained(tmp_path).to_dict(), config.to_dict()
        for name in ("vision_config", "aux_vision_config", "text_config", "projector_hidden_size", "image_token_id"):
            assert loaded[name] == expected[name]
        assert LiteGPTConfig.from_pretrained(tmp_path).num_visual_tokens == config.num_visual_tokens


def test_adjacent_patch_tokens_are_joined_in_sequence_order():
    model = small_model(projector_hidden_size=None)
    projector = model.model.multi_modal_projector
    features = torch.randn(1, 80, 32)
    joined = torch.stack([torch.cat([features[0, 5 * i + j] for j in range(5)]) for i in range(16)])
    torch.testing.assert_close(projector(features)[0], projector.linear_2(joined))


def test_patch_features_are_both_towers_tokens_without_class_tokens():
    model = small_model().model
    pixels, aux_pixels = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    features = model.get_patch_features(pixels, aux_pixels)
    torch.testing.assert_close(features[:, :64], model.vision_tower(pixels).last_hidden_state[:, 1:])
    torch.testing.assert_close(features[:, 64:], model.aux_vision_tower(aux_pixels).last_hidden_state[:, 1:])


def test_stored_patch_features_give_the_logits_of_the_pixels():
    model = small_model()
    inputs = inputs_for(model)
    features = model.model.get_patch_features(inputs["pixel_values"], inputs["aux_pixel_values"])
    torch.testing.assert_close(
        model(input_ids=inputs["input_ids"], patch_features=features).logits, model(**inputs).logits
    )


def test_the_answer_depends_on_both_towers():
    model = small_model()
    inputs = inputs_for(model)
    logits = model(**inputs).logits
    for name in ("pixel_values", "aux_pixel_values"):
        assert not torch.allclose(model(**{**inputs, name: inputs[name] + 1}).logits, logits)


def test_a_missing_second_picture_and_a_wrong_placeholder_count_are_errors():
    model = small_model()
    inputs = inputs_for(model)
    with pytest.raises(ValueError, match="aux_pixel_values is missing"):
        model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        model(**{**inputs, "input_ids": inputs["input_ids"][:, 3:]})


def test_the_loss_is_that_of_the_labelled_tokens_alone():
    model = small_model()
    inputs = inputs_for(model)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    output = model(**inputs, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits[:, -4:-1].flatten(0, 1), labels[:, -3:].flatten())
    torch.testing.assert_close(output.loss, expected)


def test_generation_with_cache_equals_generation_without():
    model = small_model()
    inputs = inputs_for(model)
    answers = [model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*answers)


def test_saved_weights_load_into_the_base_model_and_the_answering_model(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    inputs = inputs_for(model)
    again = LiteGPTForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
    base = LiteGPTModel.from_pretrained(tmp_path)
    torch.testing.assert_close(base(**inputs).last_hidden_state, model.model(**inputs).last_hidden_state)


def test_every_attention_gives_the_same_logits():
    model = small_model()
    inputs = inputs_for(model)
    model.set_attn_implementation("eager")
    assert model.model.vision_tower.config._attn_implementation == "eager"
    expected = model(**inputs).logits
    model.set_attn_implementation("sdpa")
    assert model.model.aux_vision_tower.config._attn_implementation == "sdpa"
    torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(reentrant):
    model = small_model().train()
    inputs = inputs_for(model)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert {name.split(".")[1] for name in expected} > {"vision_tower", "aux_vision_tower", "multi_modal_projector"}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_layers_of_both_towers_can_be_looked_at():
    model = small_model()
    inputs = inputs_for(model)
    pixels = {name: inputs[name] for name in ("pixel_values", "aux_pixel_values")}
    output = model.get_image_features(**pixels, output_hidden_states=True, return_dict=True)
    assert [states.shape[1] for states in output.hidden_states] == [65, 65, 17, 17]
    assert model.get_image_features(**pixels, return_dict=True).hidden_states is None


def test_patch_features_are_normalised_where_the_configuration_says_so():
    plain, normalising = (small_model(normalize_patch_features=on).model.multi_modal_projector for on in (False, True))
    features = 3 * torch.randn(1, 80, 32) + 2
    deviation = (features.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    normalised = (features - features.mean(-1, keepdim=True)) / deviation
    torch.testing.assert_close(normalising(features), plain(normalised))
    assert not torch.allclose(normalising(features), plain(features))
