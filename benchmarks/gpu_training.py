"""How fast LiteGPT trains on a GPU: the paper's model (7B) with the paper's LoRA, in bfloat16 and in 8 bit.

    python benchmarks/gpu_training.py --output outputs/bench.json
    python benchmarks/gpu_training.py --device cpu --architecture tiny --batch_sizes 2 --num_steps 2 --rounds 1

Random weights are made on the device: speed does not depend on their values. Those in 8 bit are saved to a temporary
folder (14 GB for the 7B) and loaded as `sft.py` loads them. The training is that of `sft.py` with its examples,
collator and trainer, on drawn radiographs with findings: with pixels, and with the towers' features, which are
computed before (that time is not counted); with SDPA, and with FlashAttention where it is installed; with the layers
as they are, and compiled as `--torch_compile true` does. There is no gradient checkpointing. The batch is that of the
paper's two processes together, 8, and in bfloat16 also four times that.

In a first round, which is not timed (compiling falls into it), the arithmetic is counted (products of matrices,
convolutions, attention), in bfloat16 with SDPA and the first batch size; the other ways do the same for a radiograph.
MFU is the arithmetic of a second divided by that of a product of large bfloat16 matrices on the same device in the
same run; the share of the data sheet's figure, where it is known, stands beside it. The memory is the peak of what
torch has allocated on the GPU. A paper run is two stages of 20 epochs of 549 steps with 8 examples each; the time is
that of stage one twice, although stage two's answers are shorter.
"""

import argparse
import gc
import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, PrinterCallback
from transformers.utils import is_bitsandbytes_available, is_flash_attn_2_available
from trl import ModelConfig

from litegpt.benchmarks.gpu_generation import architecture_config
from litegpt.benchmarks.measured_training import (
    StepMeter,
    drawn_rows,
    litegpt_trainer,
    matmul_speed,
    processor_for,
    training_arguments,
)
from litegpt.benchmarks.results import merge, parsed, progress
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.train_scripts.sft import quantization_of_language_model
from litegpt.train_scripts.trainer import LiteGPTTrainer, compile_layers

PAPER_RUN = 2 * 20 * 549 * 8  # examples: stages, epochs, steps of an epoch, batch of an optimizer step
# Products of dense bfloat16 matrices, operations a second; the first name that the device's name contains.
DATA_SHEETS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
AGAINST = "the speed of a product of large bfloat16 matrices"
PAPER = "about 3 h on 4 x A100 (the paper)"


def main(output: str, device: str, architecture: str, batch_sizes: Sequence[int], num_steps: int, rounds: int) -> None:
    """Measures training steps of an architecture, and writes them into `output`.

    Args:
        num_steps: in a round, that is batches.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("No GPU here: nothing was measured (--device cpu --architecture tiny runs the same code).")
        return
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    attentions = ["sdpa", "flash_attention_2"] if on_gpu and is_flash_attn_2_available() else ["sdpa"]
    name = torch.cuda.get_device_name(device) if on_gpu else device
    config = architecture_config(architecture)
    processor = processor_for(config)
    peak = matmul_speed(8192 if on_gpu else 1024, torch.bfloat16, device, wait, repeats=10)
    data_sheet = next((speed for part, speed in DATA_SHEETS.items() if part in name), None)
    of_data_sheet = f" of the data sheet's {data_sheet / 1e12:.0f}" if data_sheet else ""
    print(f"{architecture} on {name}: {peak / 1e12:.2f}{of_data_sheet} TFLOP/s in a product of bfloat16 matrices")
    print(
        f"{'weights':>8} {'batch':>5} {'layers':>8} {'images':>8} {'attention':>17} {'samples/s':>9} {'MFU':>5} "
        f"{'of data sheet':>13} {'peak GB':>7} {'paper run':>9}",
        flush=True,
    )
    operations: dict[str, float] = {}  # of a radiograph, by what the images are
    ways = [("bfloat16", size, layers) for size in batch_sizes for layers in ("eager", "compiled")]
    # Once compiled, layers stay so.
    ways = sorted(ways, key=lambda way: way[2], reverse=True) + [("8bit", batch_sizes[0], "eager")]
    model, weights_of_model, compiled = None, "", False
    with tempfile.TemporaryDirectory() as folder:
        for number, (weights, batch_size, layers) in enumerate(ways):
            if weights == "8bit" and not is_bitsandbytes_available():
                print("    8bit: bitsandbytes is not installed")
                continue
            if weights != weights_of_model:
                model = trainer = None
                gc.collect()
                if on_gpu:
                    torch.cuda.empty_cache()
                weights_of_model = weights
                if weights == "bfloat16":
                    model = random_model(config, device)
                else:
                    model = model_in_8bit(config, device, folder)
            if layers == "compiled" and not compiled:
                compile_layers(model)
                compiled = True
            rows = drawn_rows(num_steps * batch_size)
            arguments = training_arguments(f"{folder}/run", batch_size, bf16=True, use_cpu=not on_gpu)
            trainer = litegpt_trainer(model, processor, rows, arguments, f"{folder}/{number}", cached=True)
            model = trainer.model
            trainer.remove_callback(PrinterCallback)
            features = trainer.data_collator.features
            for images, attention in itertools.product(("pixels", "features"), attentions):
                trainer.data_collator.features = features if images == "features" else None
                model.set_attn_implementation(attention)
                what = f"{weights}, batch {batch_size}, {layers}, {images}"
                meter = trained(trainer, wait, num_steps, rounds, images not in operations, what)
                if images not in operations:
                    operations[images] = sum(meter.operations) / len(rows)
                seconds = statistics.median(
                    sum(meter.seconds[start : start + num_steps])
                    for start in range(num_steps, len(meter.seconds), num_steps)
                )
                speed = len(rows) / seconds
                arithmetic = operations[images] * speed
                figures = {
                    "speed": {"value": speed, "unit": "samples/s", "against": f"no reference (on {name})"},
                    "mfu": {"value": arithmetic / peak, "unit": "x", "against": f"{AGAINST} ({name})"},
                    "paper_run": {"value": PAPER_RUN / speed / 3600, "unit": "h", "against": PAPER},
                }
                if on_gpu:
                    memory = torch.cuda.max_memory_allocated() / 1e9
                    figures["memory"] = {"value": memory, "unit": "GB", "against": f"no reference (on {name})"}
                tqdm.write(
                    f"{weights:>8} {batch_size:>5} {layers:>8} {images:>8} {attention:>17} {speed:>9.2f} "
                    f"{arithmetic / peak:>5.2f} {f'{arithmetic / data_sheet:.2f}' if data_sheet else '-':>13} "
                    f"{f'{memory:.1f}' if on_gpu else '-':>7} {figures['paper_run']['value']:>7.1f} h"
                )
                key = f"training/{architecture}/{weights}/batch_{batch_size}/{layers}/{images}/{attention}"
                merge(output, {f"{key}/{figure}": value for figure, value in figures.items()})


def random_model(config: LiteGPTConfig, device: str) -> LiteGPTForConditionalGeneration:
    """In bfloat16."""
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    tqdm.write(f"{model.num_parameters():,} parameters")
    return model


def model_in_8bit(config: LiteGPTConfig, device: str, folder: str) -> LiteGPTForConditionalGeneration:
    """Random weights, saved to `folder`/model and loaded from there in 8 bit."""
    random_model(config, device).save_pretrained(f"{folder}/model")
    return LiteGPTForConditionalGeneration.from_pretrained(
        f"{folder}/model",
        dtype=torch.bfloat16,
        device_map={"": device},
        quantization_config=quantization_of_language_model(ModelConfig(use_peft=True, load_in_8bit=True)),
    )


def trained(
    trainer: LiteGPTTrainer, wait: Callable[[], None], num_steps: int, rounds: int, count: bool, what: str
) -> StepMeter:
    """Trains one round to warm up, in which the arithmetic is counted if `count`, and `rounds` more."""
    with progress(None, what, total=num_steps * (1 + rounds)) as bar:
        meter = StepMeter(num_steps if count else 0, wait, turn=bar.update)
        trainer.add_callback(meter)
        trainer.train()
        if trainer.args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(rounds):
            trainer.train()
        trainer.remove_callback(meter)
    return meter


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="without a GPU nothing is measured, unless this says cpu")
    parser.add_argument("--architecture", default="litegpt", help="`tiny`, or one of modeling_litegpt/configs")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--num_steps", type=int, default=8, help="of a round, each with other examples")
    parser.add_argument("--rounds", type=int, default=3)
    main(
        **parsed(
            parser,
            "samples a second and MFU of the 7B model's training, against products of large matrices",
            seconds=300,
            quick={"num_steps": 4, "rounds": 2},
            quick_seconds=150,
            where="an H100 (an estimate; without a GPU nothing is measured)",
        )
    )
