"""Training: LiteGPT with our trainer against transformers' LLaVA of the same sizes with TRL's `SFTTrainer`.

    python benchmarks/train_vs_stock.py --output outputs/bench.json

Both train the paper's LoRA on the language model, and the projector, on the same tokens in the same batches, with the
same optimizer, precision and threads; towers are frozen. Stock is what a careful user of the libraries sets up: rows
of prompt, completion and a picture that already has the tower's size, the loss on completions alone, no gradient
checkpointing. LiteGPT takes the path of `sft.py` with its examples, collator and trainer: with pixels; with the
towers' features, which are computed before (that time is not counted); and then also with batches of similar length,
which are other batches of the same examples.

Every training has a process of its own and takes a step when it is its turn, so that what else runs on the machine
falls on all of them. Every round shows the same batches; a figure is the median over the rounds of the paired ratios,
ours divided by stock's. In a first round, which is not timed, the arithmetic is counted (products of matrices,
convolutions, attention). MFU is the arithmetic of a second divided by that of a product of large matrices, timed after
each step. The memory is the peak by which a process grew since its model was built (Linux).

The sizes are those of the other comparisons with LLaVA: a tower and a language model of 85 million weights each, 49
visual tokens, and a vocabulary of Llama 2's size. Of the arithmetic that the model needs, the tower and the head have
larger shares than in the 7B model, so these ratios are not the 7B's: `gpu_training.py` measures that one.
"""

import argparse
import hashlib
import multiprocessing
import os
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from datasets import Dataset, load_from_disk
from transformers import LlavaForConditionalGeneration, LlavaProcessor, set_seed
from transformers.utils import logging
from trl import SFTTrainer

from litegpt.benchmarks.measured_training import (
    LORA,
    StepMeter,
    drawn_rows,
    litegpt_trainer,
    matmul_speed,
    processor_for,
    training_arguments,
)
from litegpt.benchmarks.results import against_llava, paired_ratio, parsed, progress, record, resident_megabytes
from litegpt.benchmarks.same_size_llava import PATCH_SIZE, same_size_configs
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.processing.processing_litegpt import IMAGE_END_TOKEN, IMAGE_TOKEN, VISUAL_TOKEN, LiteGPTProcessor
from litegpt.train_scripts.arguments import ExampleArguments
from litegpt.train_scripts.examples import training_examples
from litegpt.train_scripts.sampler import EpochSampler
from litegpt.train_scripts.sft import lora_config
from litegpt.train_scripts.views import views_of

VOCAB_SIZE = 32008
STOCK, PIXELS, CACHED, GROUPED = "LLaVA", "LiteGPT", "LiteGPT, features", "LiteGPT, features, similar lengths"
TRAININGS = (STOCK, PIXELS, CACHED, GROUPED)


def main(output: str, hidden_size: int, num_layers: int, batch_size: int, num_steps: int, rounds: int) -> None:
    """Trains each of `TRAININGS` in turn, and writes the ratios into `output`.

    Args:
        num_steps: in a round, that is batches.
    """
    with tempfile.TemporaryDirectory() as folder:
        drawn_rows(num_steps * batch_size).save_to_disk(f"{folder}/rows")
        settings = (folder, hidden_size, num_layers, batch_size, num_steps, rounds)
        os.environ["TQDM_DISABLE"] = "1"
        # A server imports what is needed, then forks a process for every training; no thread of this one goes along.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["litegpt.benchmarks.train_vs_stock"])
        connections, processes = {}, []
        for name in TRAININGS:
            connections[name], theirs = context.Pipe()
            processes.append(context.Process(target=train, args=(theirs, name, *settings)))
            processes[-1].start()
            theirs.close()
        try:
            results, peaks = interleaved_steps(connections, num_steps * (1 + rounds))
        except EOFError:
            sys.exit("A training ended early: its error stands above.")
        finally:
            for process in processes:
                process.terminate()
                process.join()

    check_same_tokens(results)
    samples = num_steps * batch_size
    speeds: dict[str, list[float]] = {name: [] for name in TRAININGS}
    for name in TRAININGS:
        shares, operations = [], sum(results[name]["operations"])
        for number in range(1, rounds + 1):
            steps = slice(number * num_steps, (number + 1) * num_steps)
            seconds = sum(results[name]["seconds"][steps])
            speeds[name].append(samples / seconds)
            shares.append(operations / seconds / statistics.median(peaks[steps]))
        print(
            f"{name}: {statistics.median(speeds[name]):.2f} samples/s ({paired_ratio(speeds, name):.2f} x), "
            f"{operations / samples / 1e9:.0f} billion operations a sample, MFU {statistics.median(shares):.2f}, "
            f"{results[name]['megabytes']:.0f} MB ({results[name]['megabytes'] / results[STOCK]['megabytes']:.2f} x)"
        )
    what = "samples/s of SFTTrainer on"
    record(
        output,
        {
            "train_vs_stock": against_llava(speeds, what, PIXELS),
            "train_cached_vs_stock": against_llava(speeds, what, CACHED),
            "train_cached_grouped_vs_stock": against_llava(speeds, what, GROUPED),
        },
    )


def interleaved_steps(connections: dict[str, Connection], count: int) -> tuple[dict[str, dict], list[float]]:
    """What each training returns, and the operations a second of a product of matrices after every step."""
    peaks, received = [], {}
    with progress(None, "steps of all trainings", total=count * len(connections)) as bar:
        for connection in connections.values():
            connection.recv()  # it is ready for its first step
        for step in range(count):
            for name in connections if step % 2 else reversed(connections):
                connections[name].send("go")
                received[name] = connections[name].recv()
                bar.update()
            peaks.append(matmul_speed(2048, torch.float32))
    return received, peaks


def check_same_tokens(results: dict[str, dict]) -> None:
    if len({results[name]["tokens"] for name in (STOCK, PIXELS, CACHED)}) > 1:
        sys.exit("The trainings did not show the same tokens in the same batches: this compares different work.")


def train(
    connection: Connection,
    name: str,
    folder: str,
    hidden_size: int,
    num_layers: int,
    batch_size: int,
    num_steps: int,
    rounds: int,
) -> None:
    """A process: trains whenever it is told to by a step, then sends what it measured."""
    logging.disable_progress_bar()
    sys.stdout = open(os.devnull, "w")  # four processes would print the same
    set_seed(0)
    rows = load_from_disk(f"{folder}/rows")
    before = resident_megabytes("VmRSS")
    build = stock_training if name == STOCK else litegpt_training
    trainer = build(name, rows, hidden_size, num_layers, batch_size, f"{folder}/{TRAININGS.index(name)}")
    tokens = hashlib.sha256()
    for batch in trainer.get_train_dataloader():
        tokens.update(batch["input_ids"].numpy().tobytes() + batch["labels"].numpy().tobytes())

    def turn():
        connection.send("ready")
        connection.recv()

    meter = StepMeter(num_counted=num_steps, turn=turn)
    trainer.add_callback(meter)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
    for _ in range(1 + rounds):
        trainer.train()
    connection.send(
        {
            "tokens": tokens.hexdigest(),
            "seconds": meter.seconds,
            "operations": meter.operations,
            "megabytes": resident_megabytes("VmHWM") - before,
        }
    )


def litegpt_training(name: str, rows: Dataset, hidden_size: int, num_layers: int, batch_size: int, folder: str):
    config, _, _ = same_size_configs(hidden_size, num_layers, VOCAB_SIZE)
    processor = processor_for(config)
    strategy = "group_by_length" if name == GROUPED else "random"
    arguments = training_arguments(folder, batch_size, bf16=False, use_cpu=True, train_sampling_strategy=strategy)
    model = LiteGPTForConditionalGeneration(config)
    return litegpt_trainer(model, processor, rows, arguments, folder, cached=name != PIXELS)


def stock_training(name: str, rows: Dataset, hidden_size: int, num_layers: int, batch_size: int, folder: str):
    two_towers, _, config = same_size_configs(hidden_size, num_layers, VOCAB_SIZE)
    ours = processor_for(two_towers)
    config.image_token_index = two_towers.image_token_id
    processor = LlavaProcessor(
        image_processor(config.vision_config.image_size),
        ours.tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=VISUAL_TOKEN,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.requires_grad_(False)
    arguments = training_arguments(folder, batch_size, bf16=False, use_cpu=True, train_sampling_strategy="sequential")
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=prompts_and_completions(rows, ours, batch_size, arguments.seed),
        processing_class=processor,
        peft_config=lora_config(LORA, ours),
    )


def prompts_and_completions(rows: Dataset, processor: LiteGPTProcessor, batch_size: int, seed: int) -> Dataset:
    """The same examples for the library's collator, in the order in which our trainer shows them."""
    views = views_of(rows, 0, seed)
    examples = training_examples(rows, views, range(len(views)), ExampleArguments(), processor)
    examples = examples.select(list(EpochSampler(len(examples), batch_size, None, seed, lambda: 0)))
    prompt = processor.prompt("identify").replace(IMAGE_TOKEN, IMAGE_TOKEN + VISUAL_TOKEN + IMAGE_END_TOKEN)
    pictures = rows.select([views[view][0] for view in examples["view"]]).select_columns("image")
    # The space after `[/INST]` is the answer's, as in our own training.
    answers = [f" {answer}{processor.tokenizer.eos_token}" for answer in examples["answer"]]
    return pictures.add_column("prompt", [prompt] * len(examples)).add_column("completion", answers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=768, help="of towers and language model, a multiple of 24")
    parser.add_argument("--num_layers", type=int, default=12, help="of LLaVA's tower and of the language model, even")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_steps", type=int, default=6, help="of a round, each with other examples")
    parser.add_argument("--rounds", type=int, default=3)
    main(
        **parsed(
            parser,
            "samples a second of LiteGPT's training, against SFTTrainer's on transformers' LLaVA of the same sizes",
            seconds=660,
            quick={"batch_size": 2, "num_steps": 2, "rounds": 2},
            quick_seconds=90,
        )
    )
