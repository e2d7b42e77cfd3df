"""What a tiny classifier learns of places from labels alone, on phantoms and on real radiographs, with its controls.

    python benchmarks/classifier_figures.py phantoms --output_dir outputs/classifier_figures
    LITEGPT_REAL_CXR=path/to/data python benchmarks/classifier_figures.py real --output_dir outputs/classifier_figures

Runs the project's own commands, two at a time with a thread each, and prints the tables of docs/chestx_ray8.md; what
is finished is not done again. Phantoms: the recipe of `tiny_classifier.yaml` with each pooling, two seeds of
Log-Sum-Exp and of the average, trained on 3,000 drawn radiographs, tested on 1,500 others. Real: `nih_320`
(cxr_clip_figures.py says what the folder holds) with trunks that start fresh or from Open-i's reports; its boxes in
test, which are few, and those in train, whose labels were learnt and whose boxes were not read.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from litegpt.benchmarks.cxr_clip_figures import command, real_data
from litegpt.datasets_scripts.rows import is_prepared
from litegpt.evaluation_scripts.reports.localization import COLUMNS, NAMES
from litegpt.evaluation_scripts.reports.sections import at


class Run(NamedTuple):
    """A training's options beside the recipe's, and its seed."""

    options: tuple[str, ...] = ()
    seed: int = 0


class Boxes(NamedTuple):
    """How boxes are drawn: options of `litegpt localize`."""

    options: tuple[str, ...] = ()


ONE = ("--box_rule", "peak", "--box_thresholds")
BOXES = {
    "regions above 60 and 180": Boxes(),
    "the same, of what speaks for the label": Boxes(("--method", "positive")),
    "one box above 110": Boxes((*ONE, "110")),
    "one box above 90, of what speaks for the label": Boxes(("--method", "positive", *ONE, "90")),
}
PHANTOM_RUNS = {
    "LSE, seed 0": Run(),
    "LSE, seed 1": Run(seed=1),
    "average, seed 0": Run(("--pooling", "average")),
    "average, seed 1": Run(("--pooling", "average"), 1),
    "max": Run(("--pooling", "max")),
    "PCAM": Run(("--pooling", "pcam")),
}
# The CXR-CLIP's own trunk to its third stage: 10 x 10 places of 160 pixels.
STAGE = ("--trunk_stage", "stage3", "--image_size", "160")
FEW = ("--max_steps", "500", "--eval_steps", "100", "--save_steps", "100", "--learning_rate", "5e-4")
SPLITS = {"phantoms": ("test",), "real": ("test", "train")}


def main(what: str, output_dir: Path) -> None:
    folder = output_dir / what
    folder.mkdir(parents=True, exist_ok=True)
    if what == "phantoms":
        data, runs, splits = phantoms(folder), PHANTOM_RUNS, ("train[:-300]", "train[-300:]")
    else:
        data, runs, splits = *real_runs(folder), ("train[:-110]", "train[-110:]")
    with ThreadPoolExecutor(2) as two:
        list(two.map(lambda name: train(folder, data, name, runs[name], splits), runs))
        list(two.map(lambda name: localize(folder, data, name, SPLITS[what]), runs))
    for split in SPLITS[what]:
        print(f"\n{split}\n\n{table(folder, list(runs), split)}")


def phantoms(folder: Path) -> Path:
    data = folder / "data"
    if not is_prepared(str(data)) and not (data / "annotations" / "image_labels_test.csv").is_file():
        sizes = ("--num_train", 3300, "--num_test", 1500, "--size", 256)
        command("prepare", "phantom", "--output_dir", data, *sizes, "--num_proc", 2)
    return data


def real_runs(folder: Path) -> tuple[Path, dict[str, Run]]:
    """The radiographs, and the runs, whose trunks are trained on Open-i's reports first."""
    data = real_data(folder)
    shared = ("--data_dirs", data["open_i"], "--cache_dir", folder / "cache", "--report_to", "none")
    shared = (*shared, "--save_strategy", "no", "--disable_tqdm", "true")
    towers = {name: folder / name / "checkpoint" for name in ("cxr_clip", "ecamp")}
    if not (towers["cxr_clip"] / "config.json").is_file():
        command("pretrain-cxr-clip", "--config", "tiny_cxr_clip", "--output_dir", folder / "cxr_clip", *shared)
    if not (towers["ecamp"] / "config.json").is_file():
        distilled = folder / "distilled"
        command("distil-reports", "--data_dir", data["open_i"], "--output_dir", distilled, "--method", "rules")
        options = ("--distilled", distilled / "distilled.jsonl", "--max_steps", 900)
        command("pretrain-ecamp", "--config", "tiny_ecamp", "--output_dir", folder / "ecamp", *shared, *options)
    cxr_clip, ecamp = (str(path) for path in towers.values())
    runs = {
        "CXR-CLIP's trunk": Run(("--trunk", cxr_clip, *STAGE, *FEW)),
        "the same, random weights": Run(("--trunk", cxr_clip, "--random_weights", *STAGE, *FEW)),
        "ECAMP's trunk": Run(("--trunk", ecamp, *FEW)),
        "the same, random weights (ViT)": Run(("--trunk", ecamp, "--random_weights", *FEW)),
    }
    return data["nih"], runs


def place(folder: Path, name: str) -> Path:
    return folder / "".join(letter if letter.isalnum() else "_" for letter in name)


def train(folder: Path, data: Path, name: str, run: Run, splits: tuple[str, str]) -> None:
    output = place(folder, name)
    if (output / "metrics.json").is_file():
        return
    shared = ("--data_dir", data, "--train_split", splits[0], "--validation_split", splits[1])
    shared = (*shared, "--cache_dir", folder / "cache", "--training_cache_dir", folder / "cache" / "pictures")
    quiet = ("--report_to", "none", "--disable_tqdm", "true", "--per_device_eval_batch_size", 64)
    what = ("--config", "tiny_classifier", "--output_dir", output, "--seed", run.seed)
    command("train-classifier", *what, *shared, *quiet, *run.options)


def localize(folder: Path, data: Path, name: str, splits: Sequence[str]) -> None:
    for split in splits:
        for boxes, how in BOXES.items():
            output = place(place(folder, name), f"{split} {boxes}")
            if not (output / "metrics.json").is_file():
                model = ("--model_name_or_path", place(folder, name) / "checkpoint", "--data_dir", data)
                # Controls are shown of the first way alone.
                control = ("--random_weights", boxes == next(iter(BOXES)))
                where = ("--split", split, "--output_dir", output, "--cache_dir", folder / "cache")
                command("localize", *model, *where, *control, *how.options)


def table(folder: Path, runs: Sequence[str], split: str) -> str:
    """What was measured, in Markdown: a line a run, way of boxes and control; all boxes together."""
    lines = [f"| run | boxes | AUROC | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 3) + "|"]
    for name in runs:
        for boxes in BOXES:
            path = place(place(folder, name), f"{split} {boxes}") / "metrics.json"
            metrics = json.loads(path.read_text(encoding="utf-8"))
            area = at(metrics, "classification", "figures", "classifier", "all", "macro")
            given = metrics["given_class"]
            for who, control in NAMES.items():
                if who != "map" and boxes != next(iter(BOXES)):
                    continue
                cells = [
                    figure(at(given, "pooled", who, *path), at(given, "pooled_intervals", who, *path))
                    for path in COLUMNS.values()
                ]
                how = f"{boxes}, {given['boxes_a_map']:.1f} a map" if who == "map" else control
                lines.append(f"| {name} | {how} | {area:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.2f}" if interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["phantoms", "real"])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/classifier_figures"))
    main(**vars(parser.parse_args()))
