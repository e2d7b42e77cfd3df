"""How fast CXR-CLIP and ECAMP train on a GPU, in bfloat16, at the sizes and with the batches of their papers.

    python benchmarks/gpu_towers.py --output outputs/bench.json
    python benchmarks/gpu_towers.py --compiled
    python benchmarks/gpu_towers.py --device cpu --architecture tiny --batch_size 4 --num_steps 1

Models, losses, optimizer and loop are those of `pretrain_cxr_clip.py` and `pretrain_ecamp.py`, with random weights:
speed does not depend on their values. So are the batches, which lie on the device before a step begins; whether
radiographs come as fast is what `gpu_pixels.py` measures. A sample of CXR-CLIP is a study, two pictures of 224 pixels
and two texts; the batch is the paper's 128. One of ECAMP is a radiograph of 448 pixels, a quarter of whose patches the
encoder sees, and a report of which 70 % of the words are masked; the batch is the 256 of each of the paper's four
GPUs. Texts have 64 to 256 tokens, filled up to 256.

`--compiled` is the trainer's own `--torch_compile`, whose first steps are not timed.

The arithmetic of a step (products of matrices, convolutions, attention) is counted before, in eager mode; MFU is the
arithmetic of a second divided by that of a product of large bfloat16 matrices on the same device in the same run. The
memory is the peak of what torch has allocated on the GPU. A paper run of CXR-CLIP is 15 epochs of 222,628 studies of
MIMIC-CXR, 216,478 of CheXpert and 89,696 of ChestX-ray14: 7.93 million samples. One of ECAMP is 115 epochs of 377,110
radiographs of MIMIC-CXR: 43.4 million, which took its authors 20 hours on four A100.
"""

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import PrinterCallback, TrainingArguments
from transformers.configuration_utils import PreTrainedConfig

from litegpt.benchmarks.cxr_clip_vs_open_clip import Batch, InTurn
from litegpt.benchmarks.measured_training import CPU_ATTENTION, StepMeter, matmul_speed
from litegpt.benchmarks.results import merge, parsed, progress
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel, ECAMPConfig, ECAMPModel
from litegpt.train_scripts.arguments import StudyArguments
from litegpt.train_scripts.contrastive_loss import PAPER_WEIGHTS
from litegpt.train_scripts.cxr_clip_trainer import CXRCLIPTrainer
from litegpt.train_scripts.ecamp_trainer import ECAMPTrainer
from litegpt.train_scripts.pretrain_cxr_clip import for_this_machine
from litegpt.train_scripts.report_masking import NOT_ASKED
from litegpt.train_scripts.tower_trainer import StudyIndices, TowerTrainer, picture_dtype

ARCHITECTURES = ("paper", "tiny")
CXR_CLIP_RUN = 15 * (222_628 + 216_478 + 89_696)
ECAMP_RUN = 115 * 377_110
MASKED_SHARE = 0.7  # of a report's words
BATCHES = 2  # different ones, in turn: a compiled step must not hang on how many words one of them masks
WARM_UP = 4  # steps: compilation, for one number of masked words and for any, and the optimizer's state
TINY_TEXT = {"vocab_size": 500, "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4}
TINY_TEXT |= {"num_hidden_layers": 1, "max_position_embeddings": 64}
TINY_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]}
TINY_SWIN = {"model_type": "swin", "image_size": 56, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4]}
TINY_VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
TINY_VIT |= {"num_attention_heads": 4, "decoder_hidden_size": 48, "decoder_num_attention_heads": 4}
AGAINST = "the speed of a product of large bfloat16 matrices"


class Training(NamedTuple):
    """What is trained and how.

    Attributes:
        draw: makes a batch of a configuration, a number of samples, a device and the pictures' dtype.
        settings: the recipe's, for the optimizer.
        run: samples of a paper run.
        paper: what its time is held against.
    """

    config: CXRCLIPConfig | ECAMPConfig
    model: type[nn.Module]
    trainer: Callable[..., TowerTrainer]
    draw: Callable[..., Batch]
    batch_size: int
    settings: dict[str, float]
    run: int
    paper: str


class Drawn:
    """So many samples, of which the trainer knows nothing but their number."""

    arguments = StudyArguments()  # CXR-CLIP's: two pictures and two texts

    def __init__(self, count: int):
        self.abnormal = np.zeros(count, dtype=bool)

    def __len__(self) -> int:
        return len(self.abnormal)


def main(output: str, device: str, architecture: str, compiled: bool, batch_size: int | None, num_steps: int) -> None:
    """Measures training steps, and writes the figures of each network into `output` as soon as it has them.

    Args:
        batch_size: of every network; None: the papers'.
        num_steps: that are timed.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("No GPU here: nothing was measured (--device cpu --architecture tiny runs the same code).")
        return
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    name = torch.cuda.get_device_name(device) if on_gpu else device
    size, repeats = (8192, 10) if on_gpu else (256, 3)
    peak = matmul_speed(size, torch.bfloat16, device, wait, repeats)
    mode = "compiled" if compiled else "eager"
    print(f"{architecture}, {mode}, on {name}: {peak / 1e12:.2f} TFLOP/s in a product of bfloat16 matrices")
    print(f"{'':>17} {'batch':>5} {'samples/s':>9} {'MFU':>5} {'peak GB':>7} {'paper run':>9}", flush=True)
    for network, training in trainings(architecture).items():
        if batch_size is not None:
            training = training._replace(batch_size=batch_size)
        seconds, operations = step(training, device, compiled, num_steps, wait, network)
        speed = training.batch_size / seconds
        mfu, hours = operations / seconds / peak, training.run / speed / 3600
        figures = {
            "speed": {"value": speed, "unit": "samples/s", "against": f"no reference (on {name})"},
            "mfu": {"value": mfu, "unit": "x", "against": f"{AGAINST} ({name})"},
            "paper_run": {"value": hours, "unit": "h", "against": training.paper},
        }
        if on_gpu:
            memory = torch.cuda.max_memory_allocated() / 1e9
            figures["memory"] = {"value": memory, "unit": "GB", "against": f"no reference (on {name})"}
        tqdm.write(
            f"{network:>17} {training.batch_size:>5} {speed:>9.1f} {mfu:>5.2f} "
            f"{f'{memory:.1f}' if on_gpu else '-':>7} {hours:>7.1f} h"
        )
        key = f"towers/{architecture}/{network}/{mode}"
        merge(output, {f"{key}/{figure}": value for figure, value in figures.items()})
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()


def trainings(architecture: str) -> dict[str, Training]:
    """By the network's name; the settings are those of train_scripts/configs."""
    tiny = architecture == "tiny"
    images = {"resnet50": TINY_RESNET, "swin": TINY_SWIN} if tiny else {"resnet50": {"model_type": "resnet"}}
    images.setdefault("swin", {"model_type": "swin"})
    text = {"model_type": "bert", **TINY_TEXT} if tiny else None  # None: Bio_ClinicalBERT's
    contrast = {"learning_rate": 5e-5, "weight_decay": 1e-4}
    found = {
        f"cxr_clip_{tower}": Training(
            CXRCLIPConfig(vision_config=config, text_config=text, image_size=56 if tiny else 224),
            CXRCLIPModel,
            partial(CXRCLIPTrainer, PAPER_WEIGHTS),
            cxr_clip_batch,
            128,
            contrast,
            CXR_CLIP_RUN,
            "no reference (the paper: 4 x V100)",
        )
        for tower, config in images.items()
    }
    found["ecamp"] = Training(
        ECAMPConfig(**({"vision_config": TINY_VIT, "text_config": TINY_TEXT} if tiny else {})),
        ECAMPModel,
        ECAMPTrainer,
        ecamp_batch,
        256,
        {"learning_rate": 1.5e-4, "adam_beta2": 0.95, "weight_decay": 0.05},
        ECAMP_RUN,
        "20 h on 4 x A100 (the paper)",
    )
    return found


def step(
    training: Training, device: str, compiled: bool, num_steps: int, wait: Callable[[], None], what: str
) -> tuple[float, int]:
    """Seconds of a step, the median, and its arithmetic."""
    on_gpu = torch.device(device).type == "cuda"
    steps = WARM_UP + num_steps
    with tempfile.TemporaryDirectory() as folder, progress(None, what, total=steps) as bar:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=training.batch_size,
            max_grad_norm=0.0,
            bf16=True,
            torch_compile=compiled,
            # What inductor writes for a CPU takes minutes to compile.
            torch_compile_backend=("inductor" if on_gpu else "aot_eager") if compiled else None,
            use_cpu=not on_gpu,
            dataloader_pin_memory=False,  # the batches lie on the device
            save_strategy="no",
            logging_steps=100,
            report_to="none",
            disable_tqdm=True,
            **training.settings,
        )
        with torch.device(device):
            model = for_this_machine(training.model(training.config), arguments)
        batches = [
            training.draw(training.config, training.batch_size, device, picture_dtype(arguments))
            for _ in range(BATCHES)
        ]
        trainer = training.trainer(
            model=model,
            args=arguments,
            train_dataset=StudyIndices([Drawn(steps * training.batch_size)]),
            data_collator=InTurn(batches),
        )
        trainer.remove_callback(PrinterCallback)
        operations = counted(trainer, model, batches[0], device)
        meter = StepMeter(0, wait, turn=bar.update)
        trainer.add_callback(meter)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    return statistics.median(meter.seconds[WARM_UP:]), operations


def counted(trainer: TowerTrainer, model: nn.Module, batch: Batch, device: str) -> int:
    """The arithmetic of a step, forward and backward."""
    model.train()
    counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
    with counter, torch.autocast(torch.device(device).type, torch.bfloat16):
        trainer.compute_loss(model, dict(batch)).backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def cxr_clip_batch(config: CXRCLIPConfig, studies: int, device: str, dtype: torch.dtype) -> Batch:
    """Two pictures and two texts of each study."""
    # A ResNet's mean and deviation are other ones for each channel; else one channel stands for all.
    channels = 3 if config.vision_config.model_type == "resnet" else 1
    side = config.image_size
    pixels = torch.randn(2 * studies, channels, side, side, device=device).to(dtype)
    return {"pixel_values": pixels, **texts(config.text_config, 2 * studies, device)}


def ecamp_batch(config: ECAMPConfig, radiographs: int, device: str, dtype: torch.dtype) -> Batch:
    """A picture of each radiograph, and its report with masked words."""
    side, vision = config.picture_size, config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    reports = texts(config.text_config, radiographs, device)
    ids, mask = reports["input_ids"], reports["attention_mask"]
    masked = (torch.rand(ids.shape, device=device) < MASKED_SHARE) & mask.bool()
    return {
        "pixel_values": torch.randn(radiographs, 1, side, side, device=device).to(dtype),
        "noise": torch.rand(radiographs, patches, device=device),
        "windows": torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).repeat(radiographs, 1),
        **reports,
        "labels": ids.masked_fill(~masked, NOT_ASKED),
        "token_weights": torch.ones(ids.shape, device=device),
    }


def texts(config: PreTrainedConfig, count: int, device: str) -> Batch:
    """Random words, a quarter to all of what a text may have; 256 at most."""
    length = min(256, config.max_position_embeddings)
    lengths = torch.randint(length // 4, length + 1, (count, 1), device=device)
    return {
        "input_ids": torch.randint(5, config.vocab_size, (count, length), device=device),
        "attention_mask": (torch.arange(length, device=device) < lengths).long(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="without a GPU nothing is measured, unless this says cpu")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="paper")
    parser.add_argument("--compiled", action="store_true", help="by torch.compile")
    parser.add_argument("--batch_size", type=int, help="of every network; by default the papers': 128, 128 and 256")
    parser.add_argument("--num_steps", type=int, default=20, help="that are timed")
    main(
        **parsed(
            parser,
            "samples a second and MFU of CXR-CLIP's and ECAMP's training, against products of large matrices",
            seconds=60,
            quick={"num_steps": 8},
            quick_seconds=40,
            where="an H100 (an estimate; without a GPU nothing is measured)",
        )
    )
