"""Which resolution, and which part of a LiteGPT with a detector, finds nodules, calcifications and fractures.

    python benchmarks/small_findings.py --data_dir outputs/drawn --output_dir outputs/small --sides 160 320
    LITEGPT_REAL_CXR=path/to/data python benchmarks/small_findings.py --real ...    # and on a hundred real radiographs

In: a release whose pictures are at least as large as the largest side, with findings drawn into radiographs or into
phantoms. Out: for each side of the towers' input the average precision (IoU .3) of each label, of the detector and of
the answers, and of all whose median box is smaller than `SMALL` of the picture; in Markdown and `small.json`. Each
side has the same CPU time: four times the pixels, a quarter of the radiographs. With `--real` also Acc given the label
on the folds of `box_folds.py`, which are not trained on. What is finished is not done again.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from litegpt.benchmarks.box_folds import box_folds, real_data, scores
from litegpt.benchmarks.commands import command, cpu_seconds
from litegpt.benchmarks.real_box_figures import as_predictions
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.predictions import answer_lines, doubts_unsaid
from litegpt.evaluation_scripts.questions import label_names, true_boxes
from litegpt.metrics.boxes import average_precision, match
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

CONFIGS = Path(__file__).resolve().parents[1] / "train_scripts" / "configs"
PARTS = {"detector": "detected_findings", "answer": "findings"}
SMALL = 0.01  # of the picture's area: 10 % of a side
SMALLEST_SIDE, RADIOGRAPHS, BATCH = 160, 24_000, 32  # that towers see at the smallest side
STAGE_ONE_STEPS = 500
SMALL_REAL = ("Nodule/Mass", "Calcification", "Rib fracture", "Atelectasis", "Pleural thickening")


def trained(folder: Path, data: Path, side: int, seed: int) -> tuple[Path, dict[str, float]]:
    """A checkpoint whose tower sees pictures of `side`, and the CPU seconds of its trainings."""
    config = yaml.safe_load((CONFIGS / "tiny_detector.yaml").read_text(encoding="utf-8"))
    config["vision_config"]["image_size"] = side
    config["visual_token_group_size"] *= round((side / SMALLEST_SIDE) ** 2)  # as many visual tokens
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    shared = ("--data_dir", data, "--cache_dir", folder.parent / "cache", "--seed", seed)
    shared += ("--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true")
    command(folder, "new", "--config", path, "--output_dir", folder / "new", "--seed", seed)
    batch = max(8, round(BATCH * SMALLEST_SIDE / side))
    steps = round(RADIOGRAPHS * (SMALLEST_SIDE / side) ** 2 / batch)
    options = ("--max_steps", steps, "--per_device_train_batch_size", batch, "--repeat_findings", 1)
    towers = ("pretrain-boxes", "--config", "tiny_detector_towers", "--model_name_or_path", folder / "new")
    command(folder, *towers, *options, *shared, "--output_dir", folder / "towers")
    answers = ("train", "--config", "tiny_detector_answers", "--use_cpu", "true", "--augmented_views", 1)
    answers += ("--max_steps", STAGE_ONE_STEPS, "--model_name_or_path", folder / "towers" / "checkpoint")
    command(folder, *answers, *shared, "--output_dir", folder / "answers")
    return folder / "answers" / "checkpoint", cpu_seconds(folder)


def lines_of(checkpoint: Path, rows: Any, **options: Any) -> list[dict[str, Any]]:
    """What the pipeline says of the findings in rows, as lines of a predictions file; `options` are its own."""
    model, processor = load_checkpoint(checkpoint)
    pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device="cpu")
    with doubts_unsaid():
        return list(answer_lines(pipe, rows, "identify", batch_size=16, max_new_tokens=512, **options))


def precisions(lines: Sequence[Mapping[str, Any]], true: Sequence[Any], field: str) -> dict[str, float]:
    """Average precision at IoU .3 of each label that has a box."""
    return {k: float(v) for k, v in average_precision(match([line[field] for line in lines], true, 0.3)).items()}


def main(options: argparse.Namespace) -> None:
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows = load_rows(str(options.data_dir), "test", str(options.output_dir / "cache"), 1)
    true = true_boxes(rows.select_columns("findings"), label_names(rows)["finding"])
    areas: dict[str, list[float]] = {}
    for of_image in true:
        for found in of_image:
            x1, y1, x2, y2 = found["box"]
            areas.setdefault(found["label"], []).append((x2 - x1) * (y2 - y1))
    labels = sorted(areas, key=lambda label: np.median(areas[label]))
    small = [label for label in labels if np.median(areas[label]) < SMALL]
    results: dict[str, Any] = {"small": small, "boxes": {label: len(of) for label, of in areas.items()}}
    for side in options.sides:
        folder = options.output_dir / f"side{side}"
        folder.mkdir(exist_ok=True)
        checkpoint, seconds = trained(folder, options.data_dir, side, options.seed)
        lines = lines_of(checkpoint, rows)
        of_side: dict[str, Any] = {part: precisions(lines, true, field) for part, field in PARTS.items()}
        if options.real:
            folds = box_folds(real_data(options.real_data), options.output_dir / "cache")
            tested = lines_of(checkpoint, folds.rows.select(np.flatnonzero(folds.tested)))
            of_side["real"] = {
                part: scores(folds, {line["image_id"]: as_predictions(line[field]) for line in tested})["by_label"]
                for part, field in PARTS.items()
            }
        results[f"{side} px"] = of_side | {"cpu_seconds": seconds}
    (options.output_dir / "small.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    columns = [(f"{side} px", part) for side in options.sides for part in PARTS]
    print(f"| label | boxes | median side | {' | '.join(f'{side}, {part}' for side, part in columns)} |")
    print("|---" * (len(columns) + 3) + "|")
    for label in labels:
        cells = [f"{results[side][part].get(label, float('nan')):.2f}" for side, part in columns]
        print(f"| {label} | {len(areas[label])} | {np.median(areas[label]) ** 0.5:.3f} | {' | '.join(cells)} |")
    cells = [f"{np.mean([results[side][part][label] for label in small]):.2f}" for side, part in columns]
    print(f"| mean of the small ones | {sum(len(areas[label]) for label in small)} | | {' | '.join(cells)} |")
    if options.real:
        for label in SMALL_REAL:
            found = [results[side]["real"][part].get(label, {}) for side, part in columns]
            cells = [f"{one.get('own', float('nan')):.2f}" for one in found]
            print(f"| real, Acc given the label: {label} | {found[0].get('pairs', 0)} | | {' | '.join(cells)} |")
    print(f"CPU seconds: { {side: results[f'{side} px']['cpu_seconds'] for side in options.sides} }")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="a release with boxes, train and test")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--sides", nargs="+", type=int, default=[160, 320])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="also the real radiographs of box_folds.py")
    parser.add_argument("--real_data", help="their folder; else LITEGPT_REAL_CXR names it")
    main(parser.parse_args())
