"""What the training benchmarks share: a LoRA training of LiteGPT on drawn radiographs, whose steps are measured."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from PIL import Image
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import ModelConfig, SFTConfig

from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.adapters import add_adapter
from litegpt.modeling_litegpt.checkpoints import new_processor
from litegpt.processing.answers import Finding, findings_to_text
from litegpt.processing.processing_litegpt import VISUAL_TOKEN, LiteGPTProcessor, add_litegpt_tokens
from litegpt.train_scripts.arguments import ExampleArguments, RecipeArguments
from litegpt.train_scripts.examples import ChatCollator, training_examples
from litegpt.train_scripts.patch_features import patch_feature_file
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.sft import lora_config
from litegpt.train_scripts.trainer import LiteGPTTrainer
from litegpt.train_scripts.views import views_of

SIDE = 224  # pixels of the towers' input
TOKENS = 340  # of the tokenizer
# How Llama 2's cuts a text before it merges: at spaces, a digit alone, and letters apart from signs.
PIECES = Regex(r"▁?\p{L}+|\p{N}|▁?[^\p{L}\p{N}▁]+|▁")
LORA = ModelConfig(use_peft=True, lora_r=64, lora_alpha=16, lora_dropout=0.05)  # the paper's


def attention_operations(query, key, value, *args, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def attention_backward_operations(grad, query, key, value, *args, **kwargs) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# Torch itself counts the attention of GPUs only; the functions are given shapes.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_operations,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_operations,
}


class StepMeter(TrainerCallback):
    """Times the steps of one training or several; counts the arithmetic of the first, whose time that spoils.

    Args:
        num_counted: steps whose operations are counted.
        wait: returns when the device has done its work; a CPU has by the time it is called.
        turn: is called before every step and returns when the step may start; that is not in the time.
    """

    def __init__(
        self, num_counted: int, wait: Callable[[], None] | None = None, turn: Callable[[], None] | None = None
    ):
        self.num_counted = num_counted
        self.wait = wait or (lambda: None)
        self.turn = turn or (lambda: None)
        self.seconds: list[float] = []
        self.operations: list[int] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self._start_step()

    def on_step_end(self, args, state, control, **kwargs):
        self.wait()
        self.seconds.append(time.perf_counter() - self.start)
        if len(self.seconds) <= self.num_counted:
            self.counter.__exit__(None, None, None)
            self.operations.append(self.counter.get_total_flops())
        if state.global_step < state.max_steps:
            self._start_step()

    def _start_step(self) -> None:
        # From the end of a step to the end of the next one: the batch, which the trainer collates, is in the time.
        self.turn()
        if len(self.seconds) < self.num_counted:
            self.counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION).__enter__()
        self.wait()
        self.start = time.perf_counter()


def drawn_rows(count: int) -> Dataset:
    """Rows with findings, as the paper's stage one has them, and their pictures at the towers' size."""
    rows, rng = [], np.random.default_rng(0)
    while len(rows) < count:
        phantom = draw_phantom(rng.spawn(1)[0], SIDE)
        if not phantom.findings:
            continue
        findings = [
            {"label": FINDING_LABELS.index(label), "box": box, "readers": 1} for label, box in phantom.findings
        ]
        rows.append(
            {
                "image_id": str(len(rows)),
                "image": Image.fromarray((255 * phantom.pixels).astype(np.uint8)),
                "width": SIDE,
                "height": SIDE,
                "findings": findings,
                "diagnoses": [DIAGNOSIS_LABELS.index(label) for label in phantom.diagnoses],
                "view": "PA",
            }
        )
    return Dataset.from_list(rows, features=row_features(FINDING_LABELS, DIAGNOSIS_LABELS))


def processor_for(config: LiteGPTConfig) -> LiteGPTProcessor:
    """A processor whose tokenizer cuts text about as Llama 2's does; sets the configuration's image token.

    How long sequences are, and which share of them is the answer, hangs on that. Llama 2's own tokenizer cannot be
    shipped. It, too, has a token for every digit and several for a word of radiology; a finding with its box takes
    some 20.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(split=False), pre_tokenizers.Split(PIECES, "isolated")]
    )
    texts = [f" {instruction} [/INST]" for instruction in instructions_for(DIAGNOSIS_LABELS).values()]
    for label in FINDING_LABELS:
        texts.append(
            findings_to_text([Finding(label, (0.12, 0.34, 0.56, 0.78)), Finding(label, (0.0, 0.1, 0.9, 1.0))])
        )
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    add_litegpt_tokens(fast)
    config.image_token_id = fast.convert_tokens_to_ids(VISUAL_TOKEN)
    return new_processor(config, fast, FINDING_LABELS, DIAGNOSIS_LABELS)


def training_arguments(folder: str | Path, batch_size: int, **options) -> SFTConfig:
    """One epoch without gradient checkpointing, with the paper's optimizer; nothing is saved or reported."""
    return SFTConfig(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-5,
        weight_decay=0.05,
        max_length=None,
        gradient_checkpointing=False,
        dataloader_pin_memory=not options["use_cpu"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )


def litegpt_trainer(
    model: LiteGPTForConditionalGeneration | PeftModel,
    processor: LiteGPTProcessor,
    rows: Dataset,
    arguments: SFTConfig,
    folder: str | Path,
    cached: bool,
) -> LiteGPTTrainer:
    """As `sft.py` trains: frozen towers, the paper's LoRA in float32, its examples, collator and trainer.

    Args:
        model: also one that has that adapter already.
        folder: where radiographs, and features if `cached`, are written.
    """
    views = views_of(rows, 0, arguments.seed)
    store = RadiographStore(rows, processor.tower_image_processors, folder)
    adapted = model
    if not isinstance(model, PeftModel):
        adapted = add_adapter(model, lora_config(LORA, processor), trained_dtype=torch.float32)
    features = patch_feature_file(adapted.get_base_model().model, store, views, folder) if cached else None
    return LiteGPTTrainer(
        recipe=RecipeArguments(),
        model=adapted,
        args=arguments,
        train_dataset=training_examples(rows, views, range(len(views)), ExampleArguments(), processor),
        processing_class=processor,
        data_collator=ChatCollator(processor, store, views, features),
    )


def matmul_speed(
    size: int, dtype: torch.dtype, device: str = "cpu", wait: Callable[[], None] | None = None, repeats: int = 3
) -> float:
    """Operations a second of a product of two (size, size) matrices; the best of some."""
    wait = wait or (lambda: None)
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        a @ b
        wait()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
