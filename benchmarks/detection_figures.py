"""What finds more than a greedy answer, and what that costs: insertion, moved views, boxes of most expected IoU.

    make demo
    litegpt prepare phantom --output_dir outputs/fresh --num_train 2 --num_test 1000 --size 256 --seed 7
    litegpt calibrate --views 4 --model_name_or_path outputs/demo/checkpoint --split 'train[-300:]' ...
    python benchmarks/detection_figures.py --checkpoints outputs/demo/checkpoint --data_dir outputs/fresh

In: checkpoints that were calibrated with views (of several seeds, say), and a split with boxes. Out: for each a table
with 95 % intervals by image or patient, differences to the greedy answer as it is written on the same resamples, and a
table by label, in Markdown; `--output_dir` keeps them, and every arm's lines. Arms:

    as written   the greedy answer, its boxes on the grid of 100
    greedy       the same answer, its boxes those of most expected IoU
    insertion    and the findings that it leaves out
    views        the answers to four moved views and the plain one, fused
    both         the same, each with what it leaves out

F1 and Acc: of boxes from the checkpoint's operating points on. Passes and tokens of the language model, and the time
of the whole pipeline (reading of the files included), are an image's, 16 prompts at a time.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litegpt.common.files import write_text
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.box_sources import SourceBoxes
from litegpt.evaluation_scripts.figures import label_precisions, row_patients
from litegpt.evaluation_scripts.predictions import answer_lines, doubts_unsaid
from litegpt.evaluation_scripts.questions import label_names, question, true_boxes
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.metrics.boxes import FALSE_POSITIVES
from litegpt.metrics.intervals import Figures
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

TASK = "identify"
ARMS: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {  # options, fields of a line, operating points
    "as written": ({"written_boxes": True}, ("findings",), "score_thresholds"),
    "greedy": ({}, ("findings",), "score_thresholds"),
    "insertion": ({"candidates": True}, ("findings", "candidates"), "candidate_thresholds"),
    "views": ({"views": 4}, ("view_findings",), "view_thresholds"),
    "both": ({"candidates": True, "views": 4}, ("view_findings",), "view_thresholds"),
}
REFERENCE = "as written"
COLUMNS = {
    "mAP@.4": ("map", "0.4"),
    "mAP@.5": ("map", "0.5"),
    "FROC": ("froc", "mean"),
    "most": ("sensitivity",),
    "F1@.5": ("box_f1", "0.5"),
    "Acc@.5": ("accuracy_at_iou", "0.5"),
    "ECE": ("ece",),
    "boxes": ("boxes",),
}


def main(checkpoints: list[str], data_dir: str, split: str, cache_dir: str | None, output_dir: str) -> None:
    rows = load_rows(data_dir, split, cache_dir, num_proc=1)
    truths, text = list(rows.remove_columns("image")), []
    asked = question(TASK, truths, label_names(rows))
    true = true_boxes(asked.rows, label_names(rows)["finding"])
    patients = row_patients(asked.rows)
    for checkpoint in checkpoints:
        sources, costs = {}, {}
        for arm, (options, fields, thresholds) in ARMS.items():
            path = Path(output_dir, f"{Path(checkpoint).parent.name}-{arm.replace(' ', '_')}.json")
            if not path.exists():
                write_text(path, json.dumps(measured(checkpoint, rows, options)))
            kept = json.loads(path.read_text())
            costs[arm] = kept["cost"]
            boxes = [[box for field in fields for box in kept["lines"][i][field]] for i in asked.images]
            points = json.loads(Path(checkpoint, "processor_config.json").read_text()).get(thresholds, {})
            sources[arm] = SourceBoxes(boxes, true, points)
        text += [f"## {checkpoint} on {data_dir}, {split}", "", *tables(sources, costs, len(true), patients), ""]
    print("\n".join(text))
    write_text(Path(output_dir, "detection.md"), "\n".join(text))


def measured(checkpoint: str, rows: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The lines of an arm, and what they cost an image."""
    model, processor = load_checkpoint(checkpoint)
    pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device="cpu")
    passes: list[int] = []

    def count(_: torch.nn.Module, __: tuple, given: dict[str, Any]) -> None:
        passes.append(given["inputs_embeds"].shape[:2].numel())

    start = time.perf_counter()
    with doubts_unsaid(), model.get_decoder().register_forward_pre_hook(count, with_kwargs=True):
        lines = list(answer_lines(pipe, rows, TASK, batch_size=16, max_new_tokens=512, **options))
    seconds = time.perf_counter() - start
    cost = {"passes": len(passes) / len(rows), "tokens": sum(passes) / len(rows), "ms": 1000 * seconds / len(rows)}
    return {"lines": lines, "cost": cost}


class ArmFigures:
    """Figures of arms with their 95 % intervals, and differences on the same resamples.

    Args:
        arms: by name the boxes of one seed or several, whose figures are averaged.
        against: by name what each arm is held against.
        patients: number of each image's patient; None: each is another one's.
    """

    def __init__(
        self, arms: Mapping[str, Sequence[SourceBoxes]], against: Mapping[str, str], patients: np.ndarray | None
    ):
        self.arms, self.against = arms, against
        num_images = next(iter(arms.values()))[0].num_images
        self.points, self.intervals = figures_and_intervals(self._figures, num_images, patients)

    def _figures(self, weights: np.ndarray) -> Figures:
        figures: Figures = {}
        for arm, seeds in self.arms.items():
            of_seeds = [boxes.figures(weights) for boxes in seeds]
            figures |= {(arm, *key): np.mean([figures[key] for figures in of_seeds], axis=0) for key in of_seeds[0]}
        for (arm, *key), values in list(figures.items()):
            figures[("less", arm, *key)] = values - figures[(self.against[arm], *key)]
        return figures

    def cell(self, *name: str, sign: str = "") -> str:
        """A figure with its interval; of a difference the name begins with "less"."""
        point, interval = self.points[name], self.intervals[name]
        ends = "" if interval is None else " [" + ", ".join(f"{end:{sign}.3f}" for end in interval) + "]"
        return ("-" if point is None else f"{point:{sign}.3f}") + ends

    def cells(self, arm: str, columns: Iterable[tuple[str, ...]]) -> str:
        """Cells of a row of Markdown, the figures of an arm."""
        return " | ".join(self.cell(arm, *path) for path in columns)

    def differences(self, arm: str, columns: Iterable[tuple[str, ...]]) -> str:
        """The same of its differences to what it is held against."""
        return " | ".join(self.cell("less", arm, *path, sign="+") for path in columns)


def tables(
    sources: dict[str, SourceBoxes], costs: dict[str, dict[str, float]], num_images: int, patients: np.ndarray | None
) -> list[str]:
    """Lines of Markdown."""
    arms = {arm: [boxes] for arm, boxes in sources.items()}
    found = ArmFigures(arms, dict.fromkeys(arms, REFERENCE), patients)
    lines = [f"| | {' | '.join(COLUMNS)} | passes | tokens | ms |", f"|---|{'---|' * (len(COLUMNS) + 3)}"]
    for arm, cost in costs.items():
        spent = f"{cost['passes']:.2f} | {cost['tokens']:.0f} | {cost['ms']:.1f}"
        lines.append(f"| {arm} | {found.cells(arm, COLUMNS.values())} | {spent} |")
    for arm in list(costs)[1:]:
        lines.append(f"| {arm}, less {REFERENCE} | {found.differences(arm, COLUMNS.values())} | | | |")
    false_alarms = [("froc", "sensitivity", f"{number:g}") for number in FALSE_POSITIVES]
    lines += ["", f"| sensitivity at | {' | '.join(key[-1] for key in false_alarms)} |"]
    lines.append(f"|---|{'---|' * len(false_alarms)}")
    lines += [f"| {arm} | {found.cells(arm, false_alarms)} |" for arm in costs]
    once = np.ones((1, num_images))
    precisions = {arm: label_precisions(boxes.matches["0.4"], once)[0] for arm, boxes in sources.items()}
    counts = dict(zip(*np.unique(sources[REFERENCE].matches["0.4"].true_label, return_counts=True), strict=True))
    lines += ["", f"| AP@.4 | boxes | {' | '.join(costs)} |", f"|---|---|{'---|' * len(costs)}"]
    for number, (label, count) in enumerate(sorted(counts.items())):
        values = " | ".join(f"{of_arm[number]:.2f}" for of_arm in precisions.values())
        lines.append(f"| {label} | {count} | {values} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", nargs="+", default=["outputs/demo/checkpoint"])
    parser.add_argument("--data_dir", default="outputs/demo/phantoms")
    parser.add_argument("--split", default="test")
    parser.add_argument("--cache_dir")
    parser.add_argument("--output_dir", default="outputs/detection")
    main(**vars(parser.parse_args()))
