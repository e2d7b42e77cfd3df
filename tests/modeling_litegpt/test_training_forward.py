"""What training asks of the network: a loss without logits, frozen towers that are no part of the backward pass."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, ViTConfig

from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.modeling_litegpt import LOSS_CHUNK_SIZE

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
}
VOCABULARY = 99


def small_model(**tower_changes) -> LiteGPTForConditionalGeneration:
    torch.manual_seed(0)
    text_config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    config = LiteGPTConfig(
        vision_config=ViTConfig(patch_size=8, **{**TOWER, **tower_changes}),
        aux_vision_config=CLIPVisionConfig(patch_size=16, **TOWER),
        text_config=text_config,
        image_token_id=98,
        visual_token_group_size=5,
        projector_hidden_size=40,
    )
    return LiteGPTForConditionalGeneration(config)


def freeze_towers(model: LiteGPTForConditionalGeneration) -> None:
    for tower in model.model.towers:
        tower.requires_grad_(False)


def batch(model: LiteGPTForConditionalGeneration, answered: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """One prompt a number in `answered`, which is the length of its answer; padded on the right."""
    generator = torch.Generator().manual_seed(1)
    visual = [model.config.image_token_id] * model.config.num_visual_tokens
    width = len(visual) + 3 + max(answered)
    input_ids = torch.zeros(len(answered), width, dtype=torch.long)
    labels = torch.full_like(input_ids, -100)
    for row, length in enumerate(answered):
        words = torch.randint(3, 90, (3 + length,), generator=generator)
        input_ids[row, : len(visual) + 3 + length] = torch.cat([words[:2], torch.tensor(visual), words[2:]])
        labels[row, len(visual) + 3 : len(visual) + 3 + length] = words[3:]
    pixels = torch.randn(len(answered), 3, 32, 32, generator=generator)
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).long(),
        "labels": labels,
        "pixel_values": pixels,
        "aux_pixel_values": pixels.flip(0),
    }


def loss_and_gradients(model, inputs, **options) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**inputs, **options).loss
    loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.detach(), gradients


# More answered positions than a chunk has, fewer, and a batch where one answer is empty.
@pytest.mark.parametrize("answered", [(700, 500, 300), (5, 9), (0, 4)])
@pytest.mark.parametrize("options", [{}, {"num_items_in_batch": torch.tensor(21)}, {"num_items_in_batch": 21}])
def test_the_loss_without_logits_has_the_loss_and_the_gradients_of_all_logits(answered, options):
    model = small_model()
    inputs = batch(model, answered)
    assert (sum(answered) > LOSS_CHUNK_SIZE) == (answered[0] == 700)
    loss, gradients = loss_and_gradients(model, inputs, skip_logits=True, **options)
    expected_loss, expected_gradients = loss_and_gradients(model, inputs, **options)
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-6)
    assert gradients.keys() == expected_gradients.keys() and "lm_head.weight" in gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-6, rtol=1e-5)


def test_the_loss_without_logits_is_the_same_in_bfloat16():
    model = small_model()
    inputs = batch(model, (700, 500))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradients = loss_and_gradients(model, inputs, skip_logits=True)
        expected_loss, expected_gradients = loss_and_gradients(model, inputs)
    torch.testing.assert_close(loss, expected_loss, atol=1e-3, rtol=1e-3)
    for name, gradient in gradients.items():
        scale = expected_gradients[name].abs().max().item()
        torch.testing.assert_close(gradient, expected_gradients[name], atol=0.03 * scale, rtol=0.03)


def test_no_logits_are_kept_for_the_backward_pass_where_answers_are_long():
    model, kept = small_model(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda t: t):
        output = model(**batch(model, (700, 500)), skip_logits=True)
    assert output.logits is None
    assert kept and not any(shape[-1] == VOCABULARY for shape in kept if len(shape) == 2)


def test_a_batch_without_an_answer_has_a_loss_of_zero_and_gradients():
    model = small_model()
    inputs = batch(model, (4, 2))
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    loss, gradients = loss_and_gradients(model, inputs, skip_logits=True)
    assert loss == 0
    assert set(gradients) >= {"lm_head.weight", "model.multi_modal_projector.linear_1.weight"}


def test_skip_logits_without_labels_is_refused():
    model = small_model()
    inputs = batch(model, (4,))
    del inputs["labels"]
    with pytest.raises(ValueError, match="labels are missing"):
        model(**inputs, skip_logits=True)


def test_frozen_towers_stay_in_evaluation_mode_and_trained_ones_do_not():
    model = small_model(hidden_dropout_prob=0.5)
    freeze_towers(model)
    model.train()
    assert model.training and model.model.language_model.training
    assert not any(module.training for tower in model.model.towers for module in tower.modules())
    pixels = batch(model, (4,))
    features = [model.model.get_patch_features(pixels["pixel_values"], pixels["aux_pixel_values"]) for _ in range(2)]
    assert torch.equal(*features)

    model.model.vision_tower.requires_grad_(True)
    model.train()
    assert all(module.training for module in model.model.vision_tower.modules())
    assert not model.model.aux_vision_tower.training
    assert not model.eval().model.vision_tower.training


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_nothing_of_a_frozen_tower_is_kept_for_the_backward_pass(checkpointing, lora):
    model = small_model()
    freeze_towers(model)
    inputs = batch(model, (4, 2))
    if lora:
        targets = r".*language_model\.layers.*\.(q_proj|v_proj)"
        config = LoraConfig(target_modules=targets, modules_to_save=["multi_modal_projector"], task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.enable_input_require_grads()  # hooks the towers' embeddings too
    model.train()

    base = model.get_base_model() if lora else model
    kept, tower_tensors = set(), set()

    def keep(tensor):
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    def remember(module, args, output):
        tower_tensors.update(t.untyped_storage().data_ptr() for t in (*args, output) if torch.is_tensor(t))

    alive = []  # a tower's tensors must not be freed before the end: another could take their address
    for tower in base.model.towers:
        tower_tensors.update(weight.untyped_storage().data_ptr() for weight in tower.parameters())
        for module in tower.modules():
            module.register_forward_hook(remember)
            module.register_forward_hook(lambda module, args, output: alive.append((args, output)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**inputs, skip_logits=True).loss
    assert len(alive) > 10 and kept
    pixels = {inputs[name].untyped_storage().data_ptr() for name in ("pixel_values", "aux_pixel_values")}
    assert not kept & (tower_tensors | pixels)
    loss.backward()
    assert all(weight.grad is None for tower in base.model.towers for weight in tower.parameters())
    assert any(w.grad is not None for n, w in base.named_parameters() if "multi_modal_projector" in n)


def test_gradients_reach_a_tower_that_is_trained_and_pixels_that_ask_for_them():
    model = small_model()
    freeze_towers(model)
    model.model.vision_tower.requires_grad_(True)
    inputs = batch(model, (4,))
    inputs["aux_pixel_values"].requires_grad_(True)
    model.train()
    model(**inputs, skip_logits=True).loss.backward()
    assert model.model.vision_tower.embeddings.patch_embeddings.projection.weight.grad.abs().sum() > 0
    assert inputs["aux_pixel_values"].grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.model.aux_vision_tower.parameters())
