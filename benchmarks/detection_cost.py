"""What insertion and moved views cost: wall-clock of the pipeline with them, against its plain greedy answers.

    make demo
    python benchmarks/detection_cost.py --output outputs/bench.json
    python benchmarks/detection_cost.py --model_name_or_path CHECKPOINT --data_dir DATA

A trained checkpoint answers [identify] for pictures in memory, one at a time and 16 at a time (16 prompts: with four
views five belong to one radiograph). All ways answer the same radiographs in turn; a figure is the median of the
paired ratios. The answers must be the same, or the program ends with an error. A GPU is used where there is one.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from litegpt.benchmarks.results import parsed, progress, record
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.predictions import doubts_unsaid
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "insertion": {"candidates": True},
    "views4": {"views": 4},
    "both": {"candidates": True, "views": 4},
}
IN_A_GROUP = 16


def main(output: str, model_name_or_path: str, data_dir: str, cache_dir: str | None, images: int) -> None:
    if not (Path(model_name_or_path) / "config.json").is_file():
        print(f"No checkpoint at {model_name_or_path}: nothing was measured (`make demo` trains one).")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = load_checkpoint(model_name_or_path)
    pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device=device, tasks=["identify"])
    pictures = load_rows(data_dir, f"test[:{images}]", cache_dir, num_proc=1)["image"][:]
    groups = [pictures[start : start + IN_A_GROUP] for start in range(0, len(pictures), IN_A_GROUP)]
    results = {}
    with doubts_unsaid():
        pipe(pictures[:2], candidates=True, views=4)  # warm-up
        for batch_size in (1, 16):
            ratios = compared(pipe, groups, batch_size)
            for way, values in ratios.items():
                results[f"detection/{way}_cost_batch{batch_size}"] = {
                    "value": statistics.median(values),
                    "unit": "x",
                    "against": f"the pipeline's greedy answers to [identify], {batch_size} at a time",
                }
    record(output, results)


def compared(pipe: ChestXrayFindingsPipeline, groups: list[list], batch_size: int) -> dict[str, list[float]]:
    """For each way but greedy its time divided by greedy's, a ratio a group."""
    ratios: dict[str, list[float]] = {way: [] for way in WAYS if way != "greedy"}
    for number, group in enumerate(progress(groups, f"batches of {batch_size}")):
        seconds, answers = {}, {}
        names = list(WAYS)
        for way in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            outputs = pipe(group, batch_size=batch_size, **WAYS[way])
            if pipe.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[way] = time.perf_counter() - start
            answers[way] = [one["answers"] for one in outputs]
        if any(answers[way] != answers["greedy"] for way in names):
            sys.exit(f"Group {number}: the answers are not those of the plain pipeline.")
        for way, values in ratios.items():
            values.append(seconds[way] / seconds["greedy"])
    return ratios


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="outputs/demo/checkpoint")
    parser.add_argument("--data_dir", default="outputs/demo/phantoms")
    parser.add_argument("--cache_dir", default="outputs/demo/cache")
    parser.add_argument("--images", type=int, default=160)
    main(
        **parsed(
            parser,
            "time of insertion and of moved views, against greedy answers",
            seconds=120,
            quick={"images": 48},
            quick_seconds=40,
        )
    )
