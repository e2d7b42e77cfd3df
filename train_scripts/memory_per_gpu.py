"""How much memory training takes on each GPU: LoRA in 8, 4 or 16 bits, or all weights, on one GPU or sharded.

    litegpt memory
    litegpt memory --architecture minigpt_v2 --batch_size 1 --answer_tokens 400

Nothing is allocated and no GPU is needed: the model stands on the meta device with the frozen towers and the LoRA of
`sft.py`, and a training step runs forward and backward on tensors without values, whose storages are counted for as
long as they live. Computed rather than measured are the bytes of quantized weights and what sharding divides and
gathers. To the total comes about 1 GB for the GPU itself, and what the allocator cannot use.
"""

import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from peft import PeftModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl import ModelConfig

from litegpt.common.arguments import parse
from litegpt.common.programs import Refusal, program
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.adapters import add_adapter
from litegpt.processing.processing_litegpt import LITEGPT_TOKENS
from litegpt.train_scripts.arguments import MemoryArguments
from litegpt.train_scripts.sft import lora_config

CONFIGS = Path(__file__).parents[1] / "modeling_litegpt" / "configs"
FSDP2 = Path(__file__).parent / "accelerate" / "fsdp2.yaml"
# DeepSpeed's own limit of parameters that stay gathered (`stage3_max_live_parameters`).
ZERO3_LIVE_PARAMETERS = 1_000_000_000
GIB = 2**30


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    Args:
        bits: of the language model's matrices; 16: bfloat16.
        sharding: over `gpus`: None, "FSDP2" or "ZeRO-3".
    """

    lora: bool = False
    bits: int = 16
    gpus: int = 1
    sharding: str | None = None

    def __str__(self) -> str:
        if self.lora:
            return f"LoRA, {self.bits} bit"
        return "full" if self.sharding is None else f"full, {self.sharding}"


SETTINGS = [
    Setting(lora=True, bits=8),
    Setting(lora=True, bits=4),
    Setting(lora=True),
    Setting(),
    Setting(gpus=8, sharding="FSDP2"),
    Setting(gpus=16, sharding="FSDP2"),
    Setting(gpus=8, sharding="ZeRO-3"),
    Setting(gpus=16, sharding="ZeRO-3"),
]


@dataclass
class Memory:
    """Bytes on one GPU.

    `logits`: what the loss adds to the peak; `gathered`: weights and gradients of a sharded model that are whole for
    a moment.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


@program
def main(args: MemoryArguments) -> None:
    file = CONFIGS / f"{args.architecture}.json"
    if not file.is_file():
        raise Refusal(f"--architecture {args.architecture}: no {file.name} in {CONFIGS}.")
    config = LiteGPTConfig.from_json_file(file)
    print(
        f"{args.architecture}: {args.batch_size} radiographs on each GPU, {config.num_visual_tokens} visual tokens, "
        f"{args.prompt_tokens} of the prompt and {args.answer_tokens} of the answer each; GiB on each GPU.\n"
    )
    columns = [*Memory.__dataclass_fields__, "total"]
    print(f"| trained | GPUs | checkpointing | {' | '.join(columns)} |\n|---|---|---|{'---:|' * len(columns)}")
    step = (args.batch_size, args.prompt_tokens, args.answer_tokens)
    measured = {}
    for setting in SETTINGS:
        for checkpointing in (False, True):
            run = (setting.lora, dtype_of_step(setting), checkpointing)
            if run not in measured:
                model = model_without_values(config, setting.lora, dtype_of_step(setting), args.lora_r)
                measured[run] = (model, *peaks_of_step(model, *step, checkpointing))
            memory = memory_per_gpu(setting, *measured[run])
            cells = [f"{getattr(memory, column) / GIB:.1f}" for column in columns]
            print(f"| {setting} | {setting.gpus} | {'yes' if checkpointing else 'no'} | {' | '.join(cells)} |")


def memory_per_gpu(
    setting: Setting, model: LiteGPTForConditionalGeneration | PeftModel, activations: float, logits: float
) -> Memory:
    """Memory of AdamW in mixed precision: what is trained is float32, products are bfloat16.

    Gradients count in full beside the activations, as they stand while `gradient_accumulation_steps` are taken.

    Args:
        model: as `model_without_values` gives it.
        activations, logits: as `peaks_of_step` gives them.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(stored_bytes(name, p, setting.bits) for name, p in model.named_parameters() if not p.requires_grad)
    weights = frozen + 4 * trained
    if setting.sharding == "ZeRO-3":
        weights += 2 * trained  # bfloat16, beside the optimizer's float32
    return Memory(
        weights / setting.gpus,
        4 * trained / setting.gpus,
        8 * trained / setting.gpus,
        activations,
        logits,
        gathered_bytes(model, setting.sharding),
    )


def dtype_of_step(setting: Setting) -> torch.dtype:
    """Of the model that a step sees: sharded weights are gathered in bfloat16, else they are cast where used."""
    return torch.bfloat16 if setting.lora or setting.sharding else torch.float32


def model_without_values(
    config: LiteGPTConfig, with_lora: bool, dtype: torch.dtype, lora_r: int = 64
) -> LiteGPTForConditionalGeneration | PeftModel:
    """The model as `sft.py` trains it, on the meta device: towers frozen, LoRA and what it trains beside float32."""
    with torch.device("meta"):
        model = LiteGPTForConditionalGeneration._from_config(config, dtype=dtype)
        for tower in model.model.towers:
            tower.requires_grad_(False)
        if with_lora:
            # Which rows are the new tokens' does not matter here.
            known = {token: row for row, token in enumerate(LITEGPT_TOKENS)}
            tokenizer = SimpleNamespace(get_vocab=lambda: known)
            arguments = ModelConfig(lora_r=lora_r, lora_alpha=16)
            lora = lora_config(arguments, SimpleNamespace(tokenizer=tokenizer))
            model = add_adapter(model, lora, trained_dtype=torch.float32)
    return model.train()


def stored_bytes(name: str, parameter: torch.Tensor, bits: int) -> float:
    """Of a frozen weight. bitsandbytes keeps a float32 for each row in 8 bit, and for every 64 weights in 4 bit."""
    if bits == 16 or "language_model.layers" not in name or parameter.ndim != 2:
        return parameter.nbytes
    scales = parameter.shape[0] if bits == 8 else parameter.numel() / 64
    return parameter.numel() * bits / 8 + 4 * scales


def gathered_bytes(model: LiteGPTForConditionalGeneration, sharding: str | None) -> float:
    """Weights and gradients that are whole on each GPU at the peak, in bfloat16.

    FSDP2: the largest layer and the one that is gathered ahead of it, the gradients of both, the head and its
    gradient, and what is in no layer. ZeRO-3: as many parameters as DeepSpeed lets live, and one layer's gradients.
    """
    if sharding is None:
        return 0.0
    names = yaml.safe_load(FSDP2.read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
    layers = [module for module in model.modules() if type(module).__name__ in names]
    largest = max(_size(layer) for layer in layers)
    if sharding == "ZeRO-3":
        return 2 * min(ZERO3_LIVE_PARAMETERS, _size(model)) + 2 * largest
    head, embeddings = _size(model.lm_head), _size(model.get_input_embeddings())
    rest = _size(model) - sum(_size(layer) for layer in layers) - head - embeddings
    return 2 * (2 * largest + 2 * largest + 2 * head + rest)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- The step that is measured ---------------------------------------------------------------------------------------


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the storages that are made within this block, for as long as they live.

    Args:
        existing: tensors that were made before and are not counted.
    """

    def __init__(self, existing: list[torch.Tensor]):
        super().__init__()
        self.live = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in existing}

    def __torch_dispatch__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._forget, storage._cdata)
        self.peak = max(self.peak, self.live)
        return outputs

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def peaks_of_step(
    model: LiteGPTForConditionalGeneration | PeftModel,
    batch_size: int,
    prompt_tokens: int,
    answer_tokens: int,
    checkpointing: bool,
) -> tuple[int, int]:
    """The peak in bytes of one forward and backward pass, without weights and gradients, and what the loss adds to it.

    Args:
        model: as `model_without_values` gives it; its tensors become fake ones of a CPU.
        batch_size: sequences, each with one radiograph.
        prompt_tokens, answer_tokens: of each sequence, beside the visual tokens.
        checkpointing: `gradient_checkpointing`.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    peaks = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            if parameter.requires_grad:  # gradients are counted apart
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
        for with_loss in (False, True):
            with PeakMemory([*model.parameters(), *model.buffers()]) as memory:
                _step(base, batch_size, prompt_tokens, answer_tokens, with_loss)
            peaks.append(memory.peak)
    return peaks[0], peaks[1] - peaks[0]


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _step(
    model: LiteGPTForConditionalGeneration, batch_size: int, prompt_tokens: int, answer_tokens: int, with_loss: bool
) -> None:
    """`model(..., skip_logits=True)` and the backward pass.

    `forward` itself looks at values: it counts the placeholders and picks the answers' positions.
    """
    config = model.config
    length = config.num_visual_tokens + prompt_tokens + answer_tokens
    input_ids = torch.zeros(batch_size, length, dtype=torch.long)
    placeholders = torch.zeros(batch_size, length, 1, dtype=torch.bool)
    pixels = [torch.zeros(batch_size, 3, tower.image_size, tower.image_size) for tower in config.tower_configs]
    with torch.autocast("cpu", torch.bfloat16):
        visual_tokens = torch.cat(model.get_image_features(*pixels, return_dict=True).pooler_output)
        embeddings = model.get_input_embeddings()(input_ids)
        embeddings = embeddings.masked_scatter(placeholders, visual_tokens.to(embeddings.dtype))
        hidden_states = model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        loss = hidden_states.sum()
        if with_loss:
            answers = hidden_states.flatten(0, 1)[: batch_size * answer_tokens]
            loss = model._summed_loss(answers, input_ids.flatten()[: len(answers)])
    loss.backward()


if __name__ == "__main__":
    main(*parse([MemoryArguments], None, "memory_per_gpu.py", __doc__))
