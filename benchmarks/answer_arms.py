"""What finds more boxes on crowded radiographs: other groups of patches, more pixels, a zoomed view, a finer grid.

    make demo
    litegpt prepare phantom --output_dir outputs/fresh --num_train 2 --num_test 1000 --size 256 --seed 7
    python benchmarks/answer_arms.py --towers outputs/demo/towers/checkpoint --data_dir outputs/demo/phantoms \\
        --test_dir outputs/fresh --output_dir outputs/arms --seconds 130 --seeds 0 1
    python benchmarks/answer_arms.py --arms --grid outputs/fresh:test path/to/nih_320:train ...    # the grid alone

In: a checkpoint with trained towers, the radiographs that they learned from and others to test on. Out, in Markdown
and `arms.md`: for each seed and their mean a table of all test radiographs and one of those with `CROWDED` true boxes
or more, with 95 % intervals and differences to the first arm on the same resamples, and what the first arm's boxes
lose on the answers' grid; with `--views` what another view of each radiograph adds, with `--grid` what true boxes
lose on it.

An arm has the same trained towers, frozen, and a fresh projector and language model; `ARMS` says how many patch tokens
are joined into one and how many times as wide the towers' input is, their positions interpolated. All have the same
CPU seconds of `litegpt train`, start-up included, features computed before: a pilot tells how many steps those are.
The seed draws the fresh weights and the order of the radiographs; their moved views are the same. Operating points,
for F1 and Acc, are chosen on `--calibration_split`. What is finished is not done again.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from litegpt.benchmarks import detection_figures
from litegpt.benchmarks.commands import command, cpu_seconds
from litegpt.benchmarks.detection_figures import ArmFigures
from litegpt.benchmarks.small_findings import lines_of
from litegpt.common.files import write_text
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.box_sources import SourceBoxes
from litegpt.evaluation_scripts.calibrate import choose_thresholds, fit_temperature
from litegpt.evaluation_scripts.figures import RIGHT, row_patients
from litegpt.evaluation_scripts.questions import label_names, true_boxes
from litegpt.metrics.boxes import iou_of_pairs, match
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, load_processor, new_processor, save_checkpoint
from litegpt.processing.box_scores import calibrated_findings
from litegpt.processing.findings_language import GRID
from litegpt.processing.moved_views import MovedView

# Patch tokens in a group, and the side of the towers' input as a multiple of what they learned. The paper's 245 patch
# tokens, 5 x 7 x 7, have no groups of 2.
ARMS = {
    "group 5": (5, 1),
    "group 1": (1, 1),
    "group 7": (7, 1),
    "448 px, group 20": (20, 2),
    "448 px, group 5": (5, 2),
}
VIEWS = {"one moved view": None, "one zoomed view": MovedView(scale=(1.25, 1.25))}  # beside the plain one
CROWDED = 4  # true boxes
PILOT_STEPS = 100
GRIDS = (GRID // 2, GRID, 2 * GRID, 10 * GRID)
COLUMNS = {name: path for name, path in detection_figures.COLUMNS.items() if name != "ECE"}
Boxes = list[list[dict[str, Any]]]
Found = Mapping[str, tuple[Boxes, Mapping[str, float]]]  # by name, with the operating points of labels


# --- Arms ------------------------------------------------------------------------------------------------------------


def arm_checkpoint(towers: Path, folder: Path, group_size: int, wider: int, seed: int) -> Path:
    """A checkpoint with the trained towers, for an input so many times as wide, and everything after them fresh."""
    if (folder / "config.json").is_file():
        return folder
    trained, processor = load_checkpoint(towers)
    without_detector = {"num_detector_labels": 0, "num_candidate_tokens": 0}
    values = trained.config.to_dict() | without_detector | {"visual_token_group_size": group_size}
    for tower in ("vision_config", "aux_vision_config"):
        if values[tower] is not None:
            values[tower]["image_size"] *= wider
    set_seed(seed)
    model = LiteGPTForConditionalGeneration(LiteGPTConfig.from_dict(values))
    for own, of_trained in zip(model.model.towers, trained.model.towers, strict=True):
        own.load_state_dict(widened(of_trained, own.config.image_size))
    statistics = [(of.image_mean, of.image_std) for of in processor.tower_image_processors]
    labels = (processor.finding_labels, processor.diagnosis_labels)
    save_checkpoint(model, new_processor(model.config, processor.tokenizer, *labels, statistics), folder)
    return folder


def widened(tower: PreTrainedModel, side: int) -> dict[str, torch.Tensor]:
    """A ViT's or CLIP tower's weights for an input of `side` pixels: positions interpolated as the library does."""
    state = tower.state_dict()
    name = next(name for name in state if "position_embedding" in name)
    positions = torch.empty(1, 1 + (side // tower.config.patch_size) ** 2, tower.config.hidden_size)
    with torch.no_grad():
        wider = tower.embeddings.interpolate_pos_encoding(positions, side, side)
    return state | {name: wider.reshape(*state[name].shape[:-2], *wider.shape[-2:])}


def steps_for(seconds: float, start: float, pilot: float) -> int:
    """The steps that fit into CPU seconds, where one step takes `start` seconds and `PILOT_STEPS` steps `pilot`."""
    return max(1, 1 + int((seconds - start) * (PILOT_STEPS - 1) / (pilot - start)))


def trained(options: argparse.Namespace, arm: str, seed: int) -> tuple[Path, int]:
    """The trained checkpoint of an arm and its steps."""
    group_size, wider = ARMS[arm]
    folder, name = options.output_dir, arm.replace(" px,", "").replace(" ", "_")
    data = ("--data_dir", options.data_dir, "--train_split", options.train_split, "--cache_dir", folder / "cache")
    data += ("--training_cache_dir", folder / "cache", "--seed", 0, "--use_cpu", "true")
    data += ("--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true")

    def train(checkpoint: Path, steps: int, output: str, order: int = 0) -> float:
        what = ("--model_name_or_path", checkpoint, "--max_steps", steps, "--data_seed", order)
        command(folder, "train", "--config", "tiny_stage1", *what, *data, "--output_dir", folder / output)
        return cpu_seconds(folder)[output]

    fresh = arm_checkpoint(options.towers, folder / f"new-{name}-seed{seed}", group_size, wider, seed)
    train(fresh, 1, f"features-{wider}")
    start = train(fresh, 1, f"start-{wider}")
    steps = steps_for(options.seconds, start, train(fresh, PILOT_STEPS, f"pilot-{name}"))
    train(fresh, steps, f"{name}-seed{seed}", seed)
    return folder / f"{name}-seed{seed}", steps


# --- Answers ---------------------------------------------------------------------------------------------------------


def answers(checkpoint: Path, rows: Dataset, path: Path, view: MovedView | None = None, **asked: Any) -> list[dict]:
    """Lines of the predictions file, kept at `path`; with `view` it is the one beside the plain radiograph."""
    if not path.exists():
        shown = patch("litegpt.processing.pipeline_litegpt.moved_views", lambda _: [view]) if view else nullcontext()
        with shown:
            write_text(path, json.dumps(lines_of(checkpoint, rows, **asked)))
    return json.loads(path.read_text(encoding="utf-8"))


def sources(lines: Sequence[Mapping], chosen_on: Sequence[Mapping], true: Boxes, labels: Sequence[str]) -> dict:
    """Of greedy answers, and of those with insertion, the boxes of `lines` and each label's operating point.

    Temperatures and operating points are chosen on the answers `chosen_on`, whose true boxes are `true`.
    """
    temperatures = {}
    for field in ("findings", "candidates"):
        matches = match([line[field] for line in chosen_on], true, float(RIGHT))
        temperatures[field] = fit_temperature(matches.score, matches.is_true) or 1.0

    def boxes(of: Sequence[Mapping], fields: Sequence[str]) -> Boxes:
        return [[box for f in fields for box in calibrated_findings(line[f], temperatures[f])] for line in of]

    found = {}
    for name, fields in (("greedy", ["findings"]), ("insertion", ["findings", "candidates"])):
        points = choose_thresholds(match(boxes(chosen_on, fields), true, float(RIGHT)), labels)[1]
        found[name] = boxes(lines, fields), {label: point["threshold"] for label, point in points.items()}
    return found


def table(seeds: Sequence[Found], true: Boxes, patients: np.ndarray | None) -> list[str]:
    """Lines of Markdown, the mean of seeds; "ARM; ANSWERS" is held against the same answers of the first arm."""
    of_name = {
        name: [SourceBoxes(boxes, true, points) for boxes, points in (s[name] for s in seeds)] for name in seeds[0]
    }
    first = next(iter(of_name)).split("; ")[0]
    against = {name: f"{first}; {name.split('; ')[1]}" for name in of_name}

    figures = ArmFigures(of_name, against, patients)
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines += [f"| {name} | {figures.cells(name, COLUMNS.values())} |" for name in of_name]
    for name in of_name:
        if name != against[name]:
            lines.append(f"| {name}, less {first} | {figures.differences(name, COLUMNS.values())} |")
    return lines


# --- The grid --------------------------------------------------------------------------------------------------------


def on_grid(boxes: np.ndarray, grid: int) -> np.ndarray:
    """Boxes, (n, 4) in [0, 1], as a grid of 0..grid writes them: at least one unit wide and high."""
    low, high = np.round(boxes * grid).clip(0, grid).reshape(-1, 2, 2).transpose(1, 0, 2)
    thin = low == high
    at_end = thin & (high == grid)
    return np.concatenate([low - at_end, high + (thin & ~at_end)], axis=1) / grid


def rounded_to(found: Boxes, grid: int) -> Boxes:
    """Found boxes as an answer with this grid would write them."""
    return [
        [{**box, "box": on_grid(np.array([box["box"]], dtype=float), grid)[0].tolist()} for box in of_image]
        for of_image in found
    ]


def grid_table(name: str, true: Boxes) -> list[str]:
    """Lines of Markdown: how much true boxes, all and the smallest tenth, overlap themselves once they are rounded."""
    boxes = np.array([found["box"] for of_image in true for found in of_image], dtype=float)
    labels = np.array([found["label"] for of_image in true for found in of_image])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    small = areas <= np.quantile(areas, 0.1)
    head = (
        f"{name}, {len(boxes)} boxes",
        "mean IoU",
        "smallest tenth",
        "least",
        "above .5",
        "above .75",
        "worst label",
    )
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|---|"]
    for grid in GRIDS:
        iou = iou_of_pairs(on_grid(boxes, grid), boxes)
        worst = min(set(labels), key=lambda label: iou[labels == label].mean())
        cells = [f"{value:.4f}" for value in (iou.mean(), iou[small].mean(), iou.min())]
        cells += [f"{np.mean(iou > least):.4f}" for least in (0.5, 0.75)]
        cells.append(f"{worst} ({(labels == worst).sum()}) {iou[labels == worst].mean():.3f}")
        lines.append(f"| 0..{grid} | {' | '.join(cells)} |")
    return lines


# --- All of it -------------------------------------------------------------------------------------------------------


def boxes_of(rows: Dataset) -> Boxes:
    return true_boxes(rows.select_columns("findings"), label_names(rows)["finding"])


def crowded(true: Boxes) -> np.ndarray:
    """Numbers of the radiographs with at least `CROWDED` boxes."""
    return np.flatnonzero([len(of_image) >= CROWDED for of_image in true])


def measured(
    options: argparse.Namespace, seed: int, rows: Dataset, chosen_on: Dataset
) -> tuple[list[str], list[Found]]:
    """What each arm cost, and what was found, of each table: by arm, in other views of the first, on a grid."""
    labels, folder = label_names(rows)["finding"], options.output_dir
    costs, arms = [], {}
    for arm in options.arms:
        output, steps = trained(options, arm, seed)
        lines = answers(output / "checkpoint", rows, output / "test.json", candidates=True)
        of_chosen = answers(output / "checkpoint", chosen_on, output / "calibration.json", candidates=True)
        own = sources(lines, of_chosen, boxes_of(chosen_on), labels)
        arms |= {f"{arm}; {name}": of_name for name, of_name in own.items()}
        tokens = load_processor(output / "checkpoint").image_seq_length
        costs += [f"- {arm}: {tokens} visual tokens, {steps:,} steps, {cpu_seconds(folder)[output.name]} CPU s"]
        if arm == options.arms[0]:
            first, views = output, {"plain view; all boxes": ([line["findings"] for line in lines], {})}
    for name, view in VIEWS.items() if options.views else ():
        lines = answers(first / "checkpoint", rows, first / f"{name.replace(' ', '_')}.json", view, views=1)
        views[f"{name}; all boxes"] = [line["view_findings"] for line in lines], {}
    greedy, points = arms[f"{options.arms[0]}; greedy"]
    written = {"between the grid; greedy": (greedy, points), "on the grid; greedy": (rounded_to(greedy, GRID), points)}
    return costs, [arms, views if options.views else {}, written]


def main(options: argparse.Namespace) -> None:
    options.output_dir.mkdir(parents=True, exist_ok=True)
    text: list[str] = []
    for where in options.grid:
        data_dir, split = where.rsplit(":", 1)
        text += [*grid_table(f"{Path(data_dir).name}, {split}", boxes_of(load_rows(data_dir, split, None, 1))), ""]
    if options.arms:
        cache = str(options.output_dir / "cache")
        rows = load_rows(str(options.test_dir), "test", cache, 1)
        chosen_on = load_rows(str(options.data_dir), options.calibration_split, cache, 1)
        true, patients = boxes_of(rows), row_patients(rows.remove_columns("image"))
        sets = {"all": np.arange(len(true)), f"with {CROWDED} boxes or more": crowded(true)}
        of_seeds = []
        for seed in options.seeds:
            costs, parts = measured(options, seed, rows, chosen_on)
            of_seeds.append(parts)
            text += [f"## Seed {seed}", "", *costs, "", *tables([parts], sets, true, patients)]
        if len(of_seeds) > 1:
            text += ["## Mean of the seeds", "", *tables(of_seeds, sets, true, patients)]
    print("\n".join(text))
    write_text(options.output_dir / "arms.md", "\n".join(text))


def tables(
    of_seeds: Sequence[Sequence[Found]], sets: Mapping[str, np.ndarray], true: Boxes, patients: np.ndarray | None
) -> list[str]:
    """For each set of radiographs a heading and a table of each part of what the seeds found."""
    text = []
    for name, chosen in sets.items():
        some = [true[i] for i in chosen]
        numbers = None if patients is None else np.unique(patients[chosen], return_inverse=True)[1]
        text += [f"{len(chosen)} radiographs ({name}), {sum(map(len, some))} true boxes", ""]
        for parts in zip(*of_seeds, strict=True):
            if parts[0]:
                kept = [{n: ([b[i] for i in chosen], points) for n, (b, points) in part.items()} for part in parts]
                text += [*table(kept, some, numbers), ""]
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", type=Path, default=Path("outputs/demo/towers/checkpoint"))
    parser.add_argument(
        "--data_dir", type=Path, default=Path("outputs/demo/phantoms"), help="the towers learned of it"
    )
    parser.add_argument("--train_split", default="train[:-300]")
    parser.add_argument("--calibration_split", default="train[-300:]", help="not trained on")
    parser.add_argument("--test_dir", type=Path, default=Path("outputs/fresh"), help="its split test")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/arms"))
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS), help="the first is the reference")
    parser.add_argument("--seconds", type=float, default=130.0, help="CPU seconds of each training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--views", action="store_true", help="a moved and a zoomed view of the first arm as well")
    parser.add_argument("--grid", nargs="*", default=[], metavar="DIR:SPLIT", help="whose boxes are rounded")
    main(parser.parse_args())
