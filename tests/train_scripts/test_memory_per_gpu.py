import pytest
import torch
import yaml
from peft import get_peft_model
from torch.profiler import profile
from trl import ModelConfig

from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.processing.processing_litegpt import LITEGPT_TOKENS
from litegpt.train_scripts.arguments import DataArguments
from litegpt.train_scripts.memory_per_gpu import (
    FSDP2,
    Setting,
    dtype_of_step,
    memory_per_gpu,
    model_without_values,
    peaks_of_step,
)
from litegpt.train_scripts.sft import lora_config, model_to_train

TOWER = {
    "image_size": 64,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
BATCH_SIZE, PROMPT_TOKENS, ANSWER_TOKENS = 4, 30, 60


@pytest.fixture
def config() -> LiteGPTConfig:
    """Wide enough for the language model to set the peak, not what a CPU needs inside a convolution."""
    return LiteGPTConfig(
        vision_config={"model_type": "vit", "patch_size": 8, **TOWER},
        aux_vision_config={"model_type": "clip_vision_model", "patch_size": 16, **TOWER},
        text_config={
            "model_type": "llama",
            "hidden_size": 256,
            "intermediate_size": 640,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "vocab_size": 2048,
        },
        image_token_id=3,
        projector_hidden_size=128,
    )


def allocated_at_most(model: torch.nn.Module, config: LiteGPTConfig) -> int:
    """Bytes that torch's allocator gives out at the same time in a real step, as its profiler reports them."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))

    def step() -> None:
        text = PROMPT_TOKENS + ANSWER_TOKENS
        input_ids = torch.full((BATCH_SIZE, config.num_visual_tokens + text), 7)
        input_ids[:, : config.num_visual_tokens] = config.image_token_id
        labels = input_ids.clone()
        labels[:, :-ANSWER_TOKENS] = -100
        pixels = {name: torch.zeros(BATCH_SIZE, 3, 64, 64) for name in ("pixel_values", "aux_pixel_values")}
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=input_ids, labels=labels, **pixels, skip_logits=True, use_cache=False).loss
        loss.backward()

    step()
    with profile(profile_memory=True) as measured:
        step()
    live = peak = 0
    for event in sorted(measured.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("setting", [Setting(lora=True), Setting()], ids=str)
def test_the_peak_of_a_step_is_what_a_real_step_allocates(setting, checkpointing, config):
    dtype = dtype_of_step(setting)
    without_values = model_without_values(config, setting.lora, dtype, lora_r=8)
    predicted = sum(peaks_of_step(without_values, BATCH_SIZE, PROMPT_TOKENS, ANSWER_TOKENS, checkpointing))
    model = LiteGPTForConditionalGeneration._from_config(config, dtype=dtype)
    model.model.vision_tower.requires_grad_(False)
    model.model.aux_vision_tower.requires_grad_(False)
    base = model
    if setting.lora:
        model = get_peft_model(model, lora_config(ModelConfig(lora_r=8), FakeProcessor))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    assert allocated_at_most(model.train(), config) == pytest.approx(predicted, rel=0.05)


class FakeProcessor:
    class tokenizer:
        get_vocab = staticmethod(lambda: {token: row for row, token in enumerate(LITEGPT_TOKENS)})


def test_weights_gradients_and_optimizer_are_those_of_a_real_model(tiny_checkpoint):
    arguments = ModelConfig(str(tiny_checkpoint), dtype="bfloat16", use_peft=True, lora_r=8, load_in_8bit=True)
    model, processor = model_to_train(DataArguments("none"), arguments)
    setting = Setting(lora=True, bits=8)
    predicted = memory_per_gpu(setting, model_without_values(model.config, True, torch.bfloat16, lora_r=8), 0, 0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    scales = [parameter.SCB for parameter in model.parameters() if getattr(parameter, "SCB", None) is not None]
    assert len(scales) == 2 * 7  # every matrix of the two layers
    assert predicted.weights == sum(tensor.nbytes for tensor in [*model.parameters(), *scales])
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    assert predicted.gradients == sum(parameter.grad.nbytes for parameter in trained)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert predicted.optimizer == sum(moment.nbytes for moment in moments)


def test_sharding_divides_what_is_kept_and_gathers_a_part(config):
    whole, eighth = (
        memory_per_gpu(setting, model_without_values(config, False, torch.bfloat16), 0, 0)
        for setting in (Setting(), Setting(gpus=8, sharding="FSDP2"))
    )
    assert (eighth.weights, eighth.gradients, eighth.optimizer) == (
        whole.weights / 8,
        whole.gradients / 8,
        whole.optimizer / 8,
    )
    assert whole.gathered == 0 < eighth.gathered < 2 * whole.gradients  # weights and gradients in bfloat16


def test_the_layers_that_fsdp2_wraps_are_in_the_model(config):
    names = yaml.safe_load(FSDP2.read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
    model = model_without_values(config, False, torch.bfloat16)
    assert set(names) <= {type(module).__name__ for module in model.modules()}
