"""What `litegpt grpo` is worth beside `litegpt train` in the same CPU time, both on from one checkpoint of stage one.

    litegpt prepare phantom --output_dir outputs/fresh --num_train 2 --num_test 1000 --size 256 --seed 7
    python benchmarks/grpo_vs_sft.py --checkpoint outputs/demo/stage1/checkpoint --data_dir outputs/demo/phantoms \\
        --test_dir outputs/fresh --output_dir outputs/grpo_vs_sft

In: the checkpoint, the data that it was trained on (but for the last 300 rows of train), a test split. Out: a table in
Markdown and `figures.json`: of the checkpoint and of each arm the box F1 at IoU .5 of its greedy answers, of their
boxes from the score on that is best on the 300 rows that nobody trained on, and from the one that is best on the test
itself; mAP@.4, FROC, micro F1, Acc@.5; differences to the better of the SFT arms (on those 300 rows), with 95 %
intervals of the paired bootstrap over the test images.

CPU seconds are those of the processes, start included. The arms of `grpo` take `--grpo_steps`; SFT gets the steps that
take as long as the longest of them, by two short runs of it, which also fill the cache of the towers' features for it.
What is finished is not done again; `--arms` lets several processes train one each, before a run of all.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from litegpt.benchmarks.commands import command, cpu_seconds
from litegpt.benchmarks.small_findings import lines_of
from litegpt.common.files import complete_lines, write_text
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.calibrate import best_threshold, operating_point
from litegpt.evaluation_scripts.figures import headline_figures, task_statistics
from litegpt.evaluation_scripts.questions import label_names, question, true_boxes
from litegpt.metrics.boxes import Images, Matches, box_counts, match
from litegpt.metrics.intervals import Comparison, Figures, Name, paired_comparison
from litegpt.metrics.ratios import ratio

TASK, IOU = "identify", 0.5
TRAINED, CALIBRATED = "train[:-300]", "train[-300:]"
SCORES = ("--reward_functions", "box_f1", "candidate_scores")
# Arm -> its stages: the program, how much of the steps it takes, options.
ARMS: dict[str, list[tuple[str, float, tuple[Any, ...]]]] = {
    "sft 2e-4": [("train", 1.0, ("--learning_rate", 2e-4))],
    "sft 1e-3": [("train", 1.0, ("--learning_rate", 1e-3))],
    "box_f1": [("grpo", 1.0, ())],
    "box_f1 + candidate_scores": [("grpo", 0.75, SCORES)],  # scoring takes time
    "sft, then box_f1": [("train", 0.5, ("--learning_rate", 1e-3)), ("grpo", 0.5, ())],
}
SFT_ARM = "sft "  # how names of arms of SFT alone begin
SFT = ("--config", "tiny_stage1", "--warmup_steps", 20, "--lr_scheduler_kwargs", '{"min_lr": 2e-5}')
PILOTS = (20, 120)  # steps
SHOWN: dict[str, Name] = {
    "mAP@.4": ("map", "0.4"),
    "FROC": ("froc", "mean"),
    "micro F1": ("micro_f1", TASK),
    "Acc@.5": ("accuracy_at_iou", "0.5"),
}
BOXES = {"box F1@.5": "greedy", "calibrated": "calibrated", "best on test": "best"}


def train(folder: Path, options: argparse.Namespace, program: str, start: Path, steps: int, words: Sequence) -> Path:
    """The checkpoint that a program writes into `folder`."""
    shared = ("--data_dir", options.data_dir, "--train_split", TRAINED, "--cache_dir", options.output_dir / "cache")
    shared += ("--training_cache_dir", options.output_dir / "cache", "--seed", options.seed, "--use_cpu", "true")
    shared += ("--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true", "--max_steps", steps)
    config = SFT if program == "train" else ("--config", "tiny_grpo")
    folder.parent.mkdir(parents=True, exist_ok=True)
    command(folder.parent, program, *config, *shared, *words, "--model_name_or_path", start, "--output_dir", folder)
    return folder / "checkpoint"


def trained_arm(name: str, options: argparse.Namespace, steps: Mapping[str, int]) -> tuple[Path, float]:
    """The checkpoint of an arm, and the CPU seconds that it took."""
    folder, checkpoint = options.output_dir / name.replace(" ", "_").replace(",", ""), options.checkpoint
    for number, (program, share, words) in enumerate(ARMS[name]):
        count = max(1, round(share * steps[program]))
        checkpoint = train(folder / f"stage{number}", options, program, checkpoint, count, words)
    return checkpoint, sum(cpu_seconds(folder).values())


def trained_arms(options: argparse.Namespace) -> dict[str, tuple[Path, float]]:
    """The checkpoints of the arms, and their CPU seconds: first those of `grpo` alone, whose time SFT then has."""
    steps, trained = {"grpo": options.grpo_steps}, {}
    with_sft = [name for name in options.arms if any(program == "train" for program, *_ in ARMS[name])]
    for name in options.arms:
        if name not in with_sft:
            trained[name] = trained_arm(name, options, steps)
    if with_sft:
        longest = max((seconds for _, seconds in trained.values()), default=0.0)
        steps["train"] = options.sft_steps or steps_of_sft(options, longest)
        print(f"Steps: {steps}", flush=True)
    return trained | {name: trained_arm(name, options, steps) for name in with_sft}


def steps_of_sft(options: argparse.Namespace, seconds: float) -> int:
    """How many steps of SFT take so many CPU seconds, by the time of two short runs."""
    folder = options.output_dir / "pilots"
    for steps in (1, *PILOTS):  # the first one fills the cache
        train(folder / f"steps{steps}", options, "train", options.checkpoint, steps, ())
    short, long = (cpu_seconds(folder)[f"steps{steps}"] for steps in PILOTS)
    a_step = (long - short) / (PILOTS[1] - PILOTS[0])
    return round(PILOTS[0] + (seconds - short) / a_step)


def answers(checkpoint: Path, rows: Dataset, path: Path) -> list[dict[str, Any]]:
    """The greedy answers to the rows with boxes as they are written, as lines of a predictions file."""
    if not path.is_file():
        lines = lines_of(checkpoint, rows, written_boxes=True)
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return list(complete_lines(path))


def image_counts(matches: Matches, threshold: float, num_images: int) -> np.ndarray:
    """(3, images): right boxes from a score on, all of them, and true boxes."""
    kept = matches.score >= threshold
    images = (matches.image[kept & matches.is_true], matches.image[kept], matches.true_image)
    return np.stack([np.bincount(image, minlength=num_images) for image in images])


def box_f1(counts: Mapping[str, np.ndarray], weights: np.ndarray) -> Figures:
    """The F1 of boxes for (rows, images) weights, of each (3, images) count."""
    figures: Figures = {}
    for name, of_images in counts.items():
        right, answered, true = of_images @ weights.T
        figures["box_f1", name] = ratio(2 * right, answered + true)
    return figures


class Tested:
    """An arm's answers to the test, and its boxes from three scores on: 0, the calibrated, the best on the test."""

    def __init__(self, lines: list[dict[str, Any]], calibrating: Matches, true: Images):
        self.lines = lines
        matches = match([line["findings"] for line in lines], true, IOU)
        thresholds = {"greedy": 0.0, "calibrated": best_threshold(calibrating), "best": best_threshold(matches)}
        self.thresholds = {name: 0.0 if value is None else value for name, value in thresholds.items()}
        self.counts = {name: image_counts(matches, value, len(true)) for name, value in self.thresholds.items()}
        right, answered, _ = box_counts(matches, self.thresholds["calibrated"])
        self.held_out = operating_point(calibrating, self.thresholds["calibrated"])["f1"]
        self.false_positives = (answered - right) / len(true)


def compared(
    a: Tested, b: Tested, rows: Sequence[dict[str, Any]], labels: dict[str, list[str]]
) -> dict[Name, Comparison]:
    """Every figure of two arms over the same images, b - a."""
    statistics = task_statistics(question(TASK, [*rows, *rows], labels), [*a.lines, *b.lines], labels)
    counts = {name: np.hstack([a.counts[name], b.counts[name]]) for name in a.counts}

    def figures(weights: np.ndarray) -> Figures:
        found = headline_figures([statistics], weights, by_label=True)
        return {name: found[name] for name in SHOWN.values()} | box_f1(counts, weights)

    return paired_comparison(figures, len(rows), num_permutations=200)


def table(arms: Mapping[str, dict[str, Any]], bar: str) -> str:
    """The figures of each arm, and differences to the bar with their intervals."""
    columns = [*BOXES, *SHOWN]
    lines = [f"| | CPU s | {' | '.join(columns)} | FP/image |", "|---" * (len(columns) + 3) + "|"]
    for name, arm in arms.items():
        cells = []
        for column in columns:
            figure = arm["figures"][column]
            difference = (
                ""
                if figure["interval"] is None or name == bar
                else (f" ({figure['difference']:+.3f} [{figure['interval'][0]:+.3f}, {figure['interval'][1]:+.3f}])")
            )
            cells.append(f"{figure['b']:.3f}{difference}")
        lines.append(f"| {name} | {arm['cpu_seconds']:.0f} | {' | '.join(cells)} | {arm['false_positives']:.3f} |")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    unknown = set(options.arms) - ARMS.keys()
    if unknown:
        sys.exit(f"--arms: there is no {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}.")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    cache = str(options.output_dir / "cache")
    test, calibrating = (
        load_rows(str(options.test_dir), "test", cache),
        load_rows(str(options.data_dir), CALIBRATED, cache),
    )
    labels = label_names(test)
    true = true_boxes(test.select_columns("findings"), labels["finding"])
    calibrating_true = true_boxes(calibrating.select_columns("findings"), labels["finding"])

    checkpoints = {"stage one": (options.checkpoint, 0.0)} | trained_arms(options)
    if not any(name.startswith(SFT_ARM) for name in checkpoints):
        print(f"{', '.join(options.arms)}: trained. They are compared in a run with an arm of SFT.")
        return

    tested = {}
    for name, (checkpoint, _) in checkpoints.items():
        folder = options.output_dir / "answers"
        stem = name.replace(" ", "_").replace(",", "")
        held_out = answers(checkpoint, calibrating, folder / f"{stem}-calibration.jsonl")
        matches = match([line["findings"] for line in held_out], calibrating_true, IOU)
        tested[name] = Tested(answers(checkpoint, test, folder / f"{stem}-test.jsonl"), matches, true)
        at = tested[name].thresholds["calibrated"]
        print(f"{name}: box F1@.5 {tested[name].held_out:.3f} on the calibration rows, of boxes from {at:.3f} on")
    # The bar is chosen where nobody is tested.
    bar = max((name for name in tested if name.startswith(SFT_ARM)), key=lambda name: tested[name].held_out)
    rows = list(test.remove_columns("image"))
    result: dict[str, dict[str, Any]] = {}
    for name, arm in tested.items():
        figures = compared(tested[bar], arm, rows, labels)
        shown = {title: figures["box_f1", key] for title, key in BOXES.items()}
        shown |= {title: figures[name_] for title, name_ in SHOWN.items()}
        result[name] = {
            "cpu_seconds": checkpoints[name][1],
            "thresholds": arm.thresholds,
            "false_positives": arm.false_positives,
            "figures": {title: figure._asdict() for title, figure in shown.items()},
        }
    write_text(options.output_dir / "figures.json", json.dumps({"bar": bar, "arms": result}, indent=1))
    print(f"In brackets: less {bar}, with 95 %.\n\n{table(result, bar)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of stage one")
    parser.add_argument("--data_dir", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--test_dir", type=Path, required=True, help="a data set whose split test is tested on")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--grpo_steps", type=int, default=100)
    parser.add_argument("--sft_steps", type=int, help="by default as many as take the same CPU time")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="some of the arms alone")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
