"""What a step of ECAMP costs, against the library's masked autoencoder and its BERT alone, at the same sizes.

    python benchmarks/ecamp_vs_mae.py --output outputs/bench.json                        # the paper's sizes
    python benchmarks/ecamp_vs_mae.py --sizes tiny --batch_size 64 --num_steps 4         # those of tiny_ecamp

ECAMP draws masked patches as the library's `ViTMAEForPreTraining` does, draws them once more at twice the size, and
reads masked words as `BertForMaskedLM` does, with what the image shows fused in before. Its step should cost no more
than the two steps together. All three are trained by the same trainer on the same ready batches (pictures, crops and
masked prompts of drawn radiographs), in turn; the autoencoder is given the small pictures that ECAMP makes itself. At
the paper's sizes texts are filled up to 256 tokens and there are 30,000 words, of which ECAMP scores the masked alone.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn
from transformers import BertForMaskedLM, PrinterCallback, Trainer, TrainingArguments, ViTMAEForPreTraining, set_seed
from transformers.utils import logging

from litegpt.benchmarks.cxr_clip_vs_open_clip import InTurn, interleaved_rounds, our_round
from litegpt.benchmarks.measured_training import drawn_rows
from litegpt.benchmarks.results import merge, paired_ratio, parsed
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers import ECAMPConfig, ECAMPModel
from litegpt.modeling_towers.ecamp_checkpoints import new_ecamp
from litegpt.train_scripts import pretrain_ecamp
from litegpt.train_scripts.arguments import MaskingArguments, ReportArguments
from litegpt.train_scripts.context_windows import WHOLE
from litegpt.train_scripts.ecamp_trainer import ECAMPCollator, ECAMPTrainer, Views
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.report_masking import ReportMasking
from litegpt.train_scripts.reports import Reports
from litegpt.train_scripts.tower_trainer import StudyIndices

CONFIGS = Path(pretrain_ecamp.__file__).with_name("configs")
SIZES = {"paper": "ecamp.yaml", "tiny": "tiny_ecamp.yaml"}
OURS, PICTURES, WORDS, TOGETHER = "ECAMP", "masked autoencoder", "BERT", "the two together"
DRAWN = 64  # radiographs; more rows show them again

Batch = dict[str, torch.Tensor]


def main(output: str, device: str, sizes: str, batch_size: int, num_steps: int, rounds: int) -> None:
    """Measures steps in turn, and writes the figure into `output`.

    Args:
        sizes: "paper" or "tiny".
        num_steps: in a round, that is batches.
    """
    logging.disable_progress_bar()
    if device == "cuda" and not torch.cuda.is_available():
        print("No GPU here: nothing was measured (--device cpu runs the same).")
        return
    with tempfile.TemporaryDirectory() as folder:
        model, reports, batches = ready(sizes, batch_size, num_steps, folder)
        small = [{"pixel_values": model.reduced(batch["pixel_values"]), "noise": batch["noise"]} for batch in batches]
        words = [{name: batch[name] for name in ("input_ids", "attention_mask", "labels")} for batch in batches]
        theirs = {
            PICTURES: (ViTMAEForPreTraining(model.config.vision_config), small),
            WORDS: (BertForMaskedLM(model.config.text_config), words),
        }
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        options = arguments(device, batch_size, folder)
        turns = {
            name: our_round(trainer_of(Trainer, their_model, options, reports, given), wait)
            for name, (their_model, given) in theirs.items()
        }
        turns[OURS] = our_round(trainer_of(ECAMPTrainer, model, options, reports, batches), wait)
        seconds = interleaved_rounds(turns, rounds, "ECAMP and its parts")
    seconds[TOGETHER] = [sum(parts) for parts in zip(seconds[PICTURES], seconds[WORDS], strict=True)]
    shape = f"{model.config.picture_size} pixels, {batches[0]['input_ids'].shape[1]} tokens at most"
    print(f"{batch_size} radiographs a step, {shape}, {sizes} sizes ({device})")
    for name, values in seconds.items():
        print(f"  {name}: {statistics.median(values) / num_steps:.3f} s a step")
    figure = {
        "value": paired_ratio(seconds, OURS, TOGETHER),
        "unit": "x",
        "against": f"a step of ViTMAEForPreTraining and one of BertForMaskedLM, {sizes} sizes ({device})",
    }
    print(f"  ECAMP's step takes {figure['value']:.2f} x the two together")
    merge(output, {"ecamp/step_vs_mae": figure})


def ready(sizes: str, batch_size: int, num_steps: int, folder: str) -> tuple[ECAMPModel, StudyIndices, list[Batch]]:
    """A fresh ECAMP, what it reads, and batches."""
    set_seed(0)
    recipe = yaml.safe_load((CONFIGS / SIZES[sizes]).read_text(encoding="utf-8"))
    drawn = drawn_rows(DRAWN)
    rows = drawn.select(np.arange(num_steps * batch_size) % len(drawn))
    reports = StudyIndices([Reports(rows, ReportArguments())])
    tower_configs = {name: recipe[name] for name in ("vision_config", "text_config") if name in recipe}
    config = ECAMPConfig(**tower_configs)
    model, tokenizer = new_ecamp(ECAMPConfig(**tower_configs), pretrain_ecamp.corpus(reports.studies))
    if sizes == "paper":  # prompts have fewer words than reports
        model = ECAMPModel(config)
    store = RadiographStore(rows, [image_processor(model.config.picture_size, [0.47] * 3, [0.3] * 3)], folder)
    windows = [np.tile(np.float32(WHOLE), (len(rows), 1))]
    views = Views(model.config.image_size // model.config.vision_config.patch_size, recipe["min_crop_area"])
    masking = ReportMasking(tokenizer, MaskingArguments(max_length=recipe["max_length"]))
    collator = ECAMPCollator(reports, [store], windows, masking, views)
    numbers = np.arange(num_steps * batch_size).reshape(num_steps, batch_size).tolist()
    batches = [dict(collator(batch)) for batch in numbers]
    if sizes == "paper":
        batches = [filled_up(batch, recipe["max_length"]) for batch in batches]
    return model, reports, batches


def filled_up(batch: Batch, length: int) -> Batch:
    """Texts said again and again up to a length, as long as reports are."""
    texts = {name: value for name, value in batch.items() if value.ndim == 2 and name not in ("noise", "windows")}
    repeated = {
        name: value.repeat(1, -(-length // value.shape[1]))[:, :length].contiguous() for name, value in texts.items()
    }
    return batch | repeated


def arguments(device: str, batch_size: int, folder: str) -> TrainingArguments:
    """One epoch; nothing is saved or reported."""
    return TrainingArguments(
        folder,
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-4,
        bf16=device == "cuda",
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=100,
        report_to="none",
        disable_tqdm=True,
    )


def trainer_of(
    kind: Callable[..., Trainer],
    model: nn.Module,
    options: TrainingArguments,
    reports: StudyIndices,
    batches: Sequence[dict[str, Any]],
) -> Trainer:
    trainer = kind(model=model, args=options, train_dataset=reports, data_collator=InTurn(batches))
    trainer.remove_callback(PrinterCallback)
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", choices=SIZES, default="paper")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_steps", type=int, default=1, help="of a round, each with other radiographs")
    parser.add_argument("--rounds", type=int, default=7)
    main(
        **parsed(
            parser,
            "a step of ECAMP, against a masked autoencoder's and BERT's together",
            seconds=180,
            quick={"rounds": 3},
            quick_seconds=90,
        )
    )
