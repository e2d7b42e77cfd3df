"""CXR-CLIP's training: its speed against open_clip's own training code, and the memory of a large batch.

    .venv-convert/bin/python benchmarks/cxr_clip_vs_open_clip.py --output outputs/bench.json
    .venv/bin/python benchmarks/cxr_clip_vs_open_clip.py --parts memory

Speed: ours is `Trainer.train` with `CXRCLIPTrainer`, on the model as `pretrain_cxr_clip.py` prepares it; theirs is
open_clip's `train_one_epoch` with its loss, its AdamW, its groups of weights and its autocast, on its
`CustomTextCLIP` around the very same towers: the same modules and weights, whose vectors are compared before anything
is timed. Both are whole loops, with schedule, clipped gradients and log, and both find their batches ready in memory:
the same pictures and tokens, in the same order, threads and precision. They take a round of steps in turn; a figure
is the median over the rounds of the paired ratios, pairs a second of ours divided by theirs. A study with two pictures
and two texts is two pairs: four encodings are counted as four, so that ours with MVS, ICL and TCL meets theirs with
twice as many pairs as studies. "Plain" is one picture and one text of each study: the same objective on both sides.

Ours keeps a ResNet's weights in the order of memory that computes fastest (`channels_last`), which open_clip leaves to
who uses it: printed beside is the ratio to an open_clip whose image tower got the same.

Memory: a process trains two steps with the real collator (pictures, texts, the next batch that waits); it is the peak
by which it grew since before the model was built (Linux), or of what torch has allocated on a GPU. That of eight times
as many studies in chunks (`--chunk_size`) is divided by that of a plain step; the pictures of the batches count.

On a CPU the towers are those of `tiny_cxr_clip.yaml` in bfloat16, on a GPU ResNet-50 and BERT-base at 224 pixels. What
is shown are phantoms, and prompts of their labels.
"""

import argparse
import copy
import importlib.util
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import yaml
from torch import nn
from transformers import PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging

from litegpt.benchmarks.measured_training import StepMeter, drawn_rows
from litegpt.benchmarks.results import paired_ratio, parsed, progress, record, resident_megabytes
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.modeling_towers.new_cxr_clip import TowerSources, new_cxr_clip
from litegpt.modeling_towers.tower_network import standardized
from litegpt.train_scripts import pretrain_cxr_clip
from litegpt.train_scripts.arguments import StudyArguments
from litegpt.train_scripts.contrastive_loss import PAPER_WEIGHTS
from litegpt.train_scripts.cxr_clip_trainer import CXRCLIPTrainer, StudyCollator
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.studies import Studies
from litegpt.train_scripts.tower_trainer import StudyIndices, picture_dtype

PARTS = ("step", "memory")
OURS, THEIRS, THEIRS_CHANNELS_LAST = "LiteGPT", "open_clip", "open_clip, channels last"
TINY = Path(pretrain_cxr_clip.__file__).with_name("configs") / "tiny_cxr_clip.yaml"
FULL_SIZE = {
    "vision_config": {"model_type": "resnet"},
    "text_config": {"model_type": "bert"},
    "image_size": 224,
    "projection_dim": 512,
    "max_length": 256,
}
TIMES = 8  # so many plain batches is the large one
PICTURES = 64  # drawn; more rows show them again
NO_OPEN_CLIP = (
    "open_clip is not installed here, so no step is compared: `make .venv-convert/installed`, then "
    ".venv-convert/bin/python benchmarks/cxr_clip_vs_open_clip.py"
)

Batch = dict[str, torch.Tensor]


class Training(NamedTuple):
    """Our model and what shows it studies."""

    model: CXRCLIPModel
    studies: StudyIndices
    collator: StudyCollator


def main(output: str, device: str, parts: Sequence[str], batch_size: int, num_steps: int, rounds: int) -> None:
    """Measures `parts`, and writes the figures into `output`.

    Args:
        batch_size: studies in a plain batch.
        num_steps: in a round, that is batches.
    """
    logging.disable_progress_bar()
    if device == "cuda" and not torch.cuda.is_available():
        print("No GPU here: nothing was measured (--device cpu runs small towers).")
        return
    if "memory" in parts:
        record(output, memory_of_a_large_batch(device, batch_size, rounds))
    if "step" in parts and importlib.util.find_spec("open_clip_train") is None:
        print(NO_OPEN_CLIP)
    elif "step" in parts:
        for multi_view in (True, False):
            record(output, step_against_open_clip(device, batch_size, num_steps, rounds, multi_view))


def new_training(device: str, num_studies: int, multi_view: bool, folder: str) -> Training:
    """Fresh towers, and phantoms as studies, whose texts are prompts of their labels."""
    set_seed(0)
    drawn = drawn_rows(min(num_studies, PICTURES))
    rows = drawn.select(np.arange(num_studies) % len(drawn))
    studies = StudyIndices([Studies(rows, StudyArguments(multi_view=multi_view, equalise=0.0))])
    sizes = FULL_SIZE if device == "cuda" else yaml.safe_load(TINY.read_text(encoding="utf-8"))
    sources = TowerSources(**{name: sizes[name] for name in FULL_SIZE})
    model, processor = new_cxr_clip(sources, pretrain_cxr_clip.corpus(studies.studies))
    model.config.text_pooling = "first"  # open_clip has no pooling of the last token for such towers
    collator = StudyCollator(studies, [RadiographStore(rows, [processor.image_processor], folder)], processor)
    return Training(model, studies, collator)


def our_trainer(
    training: Training, device: str, batch_size: int, folder: str, collator: Callable, chunk_size: int | None = None
) -> CXRCLIPTrainer:
    """One epoch of our trainer; nothing is saved or reported."""
    arguments = TrainingArguments(
        folder,
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-4,
        adam_beta2=0.98,
        weight_decay=0.05,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        save_strategy="no",
        logging_steps=100,  # theirs
        report_to="none",
        disable_tqdm=True,
    )
    trainer = CXRCLIPTrainer(
        PAPER_WEIGHTS,
        chunk_size,
        model=pretrain_cxr_clip.for_this_machine(training.model, arguments),
        args=arguments,
        train_dataset=training.studies,
        data_collator=collator,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


# --- speed ---


def step_against_open_clip(
    device: str, batch_size: int, num_steps: int, rounds: int, multi_view: bool
) -> dict[str, dict]:
    """The figure of one setting, to record."""
    with tempfile.TemporaryDirectory() as folder:
        training = new_training(device, num_steps * batch_size, multi_view, folder)
        numbers = np.arange(num_steps * batch_size).reshape(num_steps, batch_size).tolist()
        batches = [dict(training.collator.batch(batch, np.random.default_rng(0))) for batch in numbers]
        for batch in batches:  # as open_clip needs them: three channels
            batch["pixel_values"] = batch["pixel_values"].expand(-1, 3, -1, -1).contiguous()
        theirs = {name: same_towers(training.model) for name in (THEIRS, THEIRS_CHANNELS_LAST)}
        theirs[THEIRS_CHANNELS_LAST].visual.to(memory_format=torch.channels_last)
        check_same_vectors(training.model, theirs[THEIRS], batches[0])
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        turns = {name: their_round(model, batches, device, wait) for name, model in theirs.items()}
        turns[OURS] = our_round(our_trainer(training, device, batch_size, folder, InTurn(batches)), wait)
        seconds = interleaved_rounds(turns, rounds, "two views" if multi_view else "one view")
    pairs = sum(len(batch["input_ids"]) for batch in batches)
    speeds = {name: [pairs / value for value in values] for name, values in seconds.items()}
    setting = "MVS, ICL and TCL of two views" if multi_view else "one view"
    print(f"{setting}: {pairs // num_steps} pairs a step, {batches[0]['input_ids'].shape[1]} tokens a text at most")
    for name, values in speeds.items():
        print(
            f"  {name}: {statistics.median(values):.1f} pairs/s; LiteGPT's are "
            f"{paired_ratio(speeds, OURS, name):.2f} x"
        )
    return {
        f"cxr_clip/{'step' if multi_view else 'plain_step'}_vs_open_clip": {
            "value": paired_ratio(speeds, OURS, THEIRS),
            "unit": "x",
            "against": f"pairs/s of open_clip's training code on the same towers and pairs ({device}, bfloat16)",
        }
    }


def interleaved_rounds(turns: dict[str, Callable[[], float]], rounds: int, what: str) -> dict[str, list[float]]:
    """Seconds of every round after a first one, by name; the order turns around from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in progress(range(1 + rounds), f"rounds, {what}"):
        for name in turns if number % 2 else reversed(turns):
            taken = turns[name]()
            if number:  # the first one makes the optimizer's state and torch's buffers
                seconds[name].append(taken)
    return seconds


class InTurn:
    """A collator of ready batches: whichever studies are asked for, the next one."""

    def __init__(self, batches: Sequence[Batch]):
        self.batches, self.next = batches, 0

    def __call__(self, indices: list[int]) -> Batch:
        batch = self.batches[self.next % len(self.batches)]
        self.next += 1
        return dict(batch)


def our_round(trainer: CXRCLIPTrainer, wait: Callable[[], None]) -> Callable[[], float]:
    """A function that trains an epoch and returns its seconds."""

    def turn() -> float:
        meter = StepMeter(num_counted=0, wait=wait)
        trainer.add_callback(meter)
        trainer.train()
        trainer.remove_callback(meter)
        return sum(meter.seconds)

    return turn


def their_round(model: nn.Module, batches: Sequence[Batch], device: str, wait: Callable[[], None]) -> Callable:
    """A function that trains an epoch with open_clip's `train_one_epoch` and returns its seconds.

    What open_clip's `main` does before it stands here: the groups of weights that decay or do not, and its schedule.
    """
    from open_clip import create_loss
    from open_clip_train.params import parse_args
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    options = f"--device {device} --precision amp_bf16 --lr 1e-4 --beta2 0.98 --wd 0.05 --grad-clip-norm 1"
    arguments = parse_args([*options.split(), "--batch-size", str(len(batches[0]["input_ids"]))])
    arguments.distill, arguments.rank, arguments.world_size, arguments.wandb = False, 0, 1, False
    model = model.to(device)
    decaying = [weight for name, weight in model.named_parameters() if weight.ndim > 1 and "bias" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim < 2 or "bias" in name]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.0}, {"params": decaying, "weight_decay": arguments.wd}],
        lr=arguments.lr,
        betas=(arguments.beta1, arguments.beta2),
        eps=arguments.eps,
    )
    schedule = cosine_lr(optimizer, arguments.lr, 1, 1000)
    loss = create_loss(arguments)
    pairs = [(batch["pixel_values"], batch["input_ids"]) for batch in batches]
    data = {"train": SimpleNamespace(dataloader=InMemory(pairs), set_epoch=lambda epoch: None)}

    def turn() -> float:
        wait()
        start = time.perf_counter()
        train_one_epoch(model, data, loss, 0, optimizer, None, schedule, None, arguments)
        wait()
        return time.perf_counter() - start

    return turn


class InMemory(list):
    """Ready batches as a loader of open_clip's."""

    @property
    def num_batches(self) -> int:
        return len(self)

    @property
    def num_samples(self) -> int:
        return sum(len(texts) for _, texts in self)


def same_towers(ours: CXRCLIPModel) -> nn.Module:
    """open_clip's `CustomTextCLIP` with our towers: its own text adapter, and an image tower made to its measure."""
    from open_clip import CustomTextCLIP
    from open_clip.hf_model import HFTextEncoder

    class SameTowers(CustomTextCLIP):
        def __init__(self):
            nn.Module.__init__(self)  # its own builds towers from timm
            self.output_dict = True
            self.visual = ImageTower(copy.deepcopy(ours.vision_model), copy.deepcopy(ours.image_projection))
            self.text = HFTextEncoder(
                "", ours.config.projection_dim, ours.config.text_config, "cls_last_hidden_state_pooler"
            )
            self.text.transformer = copy.deepcopy(ours.text_model)
            self.text.proj = copy.deepcopy(ours.text_projection)
            self.logit_scale = copy.deepcopy(ours.logit_scale)
            self.logit_bias = None

    return SameTowers()


class ImageTower(nn.Module):
    """A ResNet of transformers, its own mean over the places, and a projection; pixels standardised if it says so."""

    def __init__(self, tower: nn.Module, projection: nn.Module):
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if getattr(self.tower.config, "standardize_pixels", False):
            pixels = standardized(pixels)
        return self.projection(self.tower(pixels).pooler_output.flatten(1))


@torch.no_grad()
def check_same_vectors(ours: CXRCLIPModel, theirs: nn.Module, batch: Batch) -> None:
    """Ends the program unless both give the same vectors of a batch."""
    ours.eval(), theirs.eval()
    our_vectors, their_vectors = ours(**batch), theirs(batch["pixel_values"], batch["input_ids"])
    for mine, yours in (("image_embeds", "image_features"), ("text_embeds", "text_features")):
        if not torch.allclose(our_vectors[mine], their_vectors[yours], atol=1e-5):
            sys.exit("The two models give other vectors of the same batch: this compares different work.")


# --- memory ---


def memory_of_a_large_batch(device: str, batch_size: int, repeats: int) -> dict[str, dict]:
    """The figure to record; the large batch in chunks of the plain one's size."""
    large = TIMES * batch_size
    plain, chunked = f"a batch of {batch_size}", f"a batch of {large} in chunks of {batch_size}"
    ways = {plain: (batch_size, None), chunked: (large, batch_size)}
    megabytes: dict[str, list[float]] = {name: [] for name in ways}
    # A server imports what is needed, then forks a process for every training; no thread of this process goes along.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["litegpt.benchmarks.cxr_clip_vs_open_clip"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        for _ in progress(range(repeats), "trainings whose memory is measured"):
            for name, (size, chunk_size) in ways.items():
                megabytes[name].append(pool.apply(peak_megabytes, (device, size, chunk_size)))
    for name, values in megabytes.items():
        print(f"{name}: {statistics.median(values):.0f} MB")
    return {
        f"cxr_clip/memory_{large}_vs_{batch_size}": {
            "value": paired_ratio(megabytes, chunked, plain),
            "unit": "x",
            "against": f"the peak memory of a plain step with {batch_size} studies ({device}, bfloat16)",
        }
    }


def peak_megabytes(device: str, batch_size: int, chunk_size: int | None) -> float:
    """MB by which this process grows at its peak, or that torch allocates on the GPU, in two steps of a training."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        before = resident_megabytes("VmRSS")
        training = new_training(device, 2 * batch_size, True, folder)
        trainer = our_trainer(training, device, batch_size, folder, training.collator, chunk_size)
        training.collator.dtype = picture_dtype(trainer.args)  # as pretrain_cxr_clip.py has it
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
        trainer.train()
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 1e6
        return resident_megabytes("VmHWM") - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--batch_size", type=int, default=64, help="studies in a plain batch")
    parser.add_argument("--num_steps", type=int, default=4, help="of a round, each with other studies")
    parser.add_argument("--rounds", type=int, default=9)
    main(
        **parsed(
            parser,
            "CXR-CLIP's pairs a second, against open_clip's training; memory of a large batch, against a small one's",
            seconds=300,
            quick={"num_steps": 2, "rounds": 3},
            quick_seconds=90,
        )
    )
