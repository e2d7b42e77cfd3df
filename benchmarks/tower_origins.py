"""What a LiteGPT makes of towers that learned in different ways: labels, boxes, CXR-CLIP, ECAMP, these and then boxes.

    python benchmarks/tower_origins.py phantoms --output_dir outputs/tower_origins
    LITEGPT_REAL_CXR=path/to/data python benchmarks/tower_origins.py real --output_dir outputs/tower_origins

One architecture (the demo's first tower and language model), as many steps of each way of learning, the same steps of
LiteGPT on the frozen tower, two seeds; untrained towers are the control, and each figure has that of another image's
answer. On phantoms CXR-CLIP and ECAMP learn from prompts of the labels, on real radiographs from Open-i's reports, and
LiteGPT from `nih_320`, another hospital's radiographs. What is finished is not done again.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from litegpt.benchmarks.cxr_clip_figures import PHANTOM_OPTIONS, command, phantoms, real_data

CONFIGS = Path(__file__).resolve().parents[1] / "train_scripts" / "configs"
TOWER_STEPS, LITEGPT_STEPS = 400, 300
ECAMP_BATCH = 16  # radiographs of 448 pixels, as many as a step of boxes shows
ORIGINS = ("untrained", "labels", "boxes", "CXR-CLIP", "CXR-CLIP, boxes", "ECAMP", "ECAMP, boxes")
FIGURES = {  # where in metrics.json, and below controls.shuffled
    "findings, micro F1": ("micro_f1", "identify"),
    "boxes, Acc@0.3": ("accuracy_at_iou", "0.3"),
    "boxes, mAP@0.4": ("map", "0.4"),
    "diagnoses, micro F1": ("micro_f1", "vqa"),
    "diagnoses, mean AUROC": ("auroc", "macro"),
}


def main(what: str, output_dir: Path, seeds: Sequence[int]) -> None:
    folder = output_dir / what
    folder.mkdir(parents=True, exist_ok=True)
    data = real_data(folder) if what == "real" else phantoms(folder)
    litegpt_data, reports = (data["nih"], data["open_i"]) if what == "real" else (data["phantoms"],) * 2
    options = () if what == "real" else PHANTOM_OPTIONS
    write_configs(folder)
    with ThreadPoolExecutor(2) as two:
        list(two.map(lambda seed: of_seed(folder, litegpt_data, reports, options, seed), seeds))
    print(table(folder, seeds))


def write_configs(folder: Path) -> None:
    """The recipes with one tower: the demo's first, and a CXR-CLIP around the same."""
    tiny = yaml.safe_load((CONFIGS / "tiny.yaml").read_text(encoding="utf-8"))
    one_tower = {**tiny, "aux_vision_config": None, "visual_token_group_size": 4, "detector": False}
    (folder / "one_tower.yaml").write_text(yaml.safe_dump(one_tower), encoding="utf-8")
    cxr_clip = yaml.safe_load((CONFIGS / "tiny_cxr_clip.yaml").read_text(encoding="utf-8"))
    cxr_clip |= {"vision_config": tiny["vision_config"], "max_steps": TOWER_STEPS}
    (folder / "cxr_clip.yaml").write_text(yaml.safe_dump(cxr_clip), encoding="utf-8")

    ecamp = yaml.safe_load((CONFIGS / "tiny_ecamp.yaml").read_text(encoding="utf-8"))
    vit = {name: value for name, value in tiny["vision_config"].items() if name != "model_type"}
    decoder = {name: value for name, value in ecamp["vision_config"].items() if name.startswith("decoder_")}
    ecamp |= {"vision_config": vit | decoder, "max_steps": TOWER_STEPS, "per_device_train_batch_size": ECAMP_BATCH}
    (folder / "ecamp.yaml").write_text(yaml.safe_dump(ecamp), encoding="utf-8")


def of_seed(folder: Path, data: Path, reports: Path, options: Sequence[str], seed: int) -> None:
    """All towers of a seed, and LiteGPT on each."""
    run = folder / f"seed_{seed}"
    cache = ("--cache_dir", folder / "cache", "--training_cache_dir", run / "cache")
    quiet = ("--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true", "--seed", seed)
    new = ("new", "--config", folder / "one_tower.yaml", "--seed", seed)  # labels are VinDr-CXR's in both
    boxes = ("pretrain-boxes", "--config", "tiny_towers", "--data_dir", data, *cache, *quiet)
    boxes = (*boxes, "--max_steps", TOWER_STEPS)
    once(run / "untrained", *new)
    start = ("--model_name_or_path", run / "untrained")
    once(run / "boxes/checkpoint", *boxes, *start)
    once(run / "labels/checkpoint", *boxes, *start, "--labels_only")
    clip = ("pretrain-cxr-clip", "--config", folder / "cxr_clip.yaml", "--data_dirs", reports, *cache, *quiet)
    once(run / "clip/checkpoint", *clip, *options)
    once(run / "CXR-CLIP", *new, "--vision_tower", run / "clip/checkpoint")
    once(run / "CXR-CLIP_boxes/checkpoint", *boxes, "--model_name_or_path", run / "CXR-CLIP")
    ecamp = ("pretrain-ecamp", "--config", folder / "ecamp.yaml", "--data_dirs", reports, *cache, *quiet)
    once(run / "ecamp/checkpoint", *ecamp)
    once(run / "ECAMP", *new, "--vision_tower", run / "ecamp/checkpoint")
    once(run / "ECAMP_boxes/checkpoint", *boxes, "--model_name_or_path", run / "ECAMP")
    for origin in ORIGINS:
        tower = run / origin.replace(", ", "_")
        tower = tower / "checkpoint" if (tower / "checkpoint").is_dir() else tower
        trained = run / "litegpt" / origin.replace(", ", "_")
        train = ("train", "--config", "tiny_stage1", "--data_dir", data, *cache, *quiet, "--tasks", "identify", "vqa")
        once(trained / "checkpoint", *train, "--model_name_or_path", tower, "--max_steps", LITEGPT_STEPS)
        shutil.rmtree(trained / "cache", ignore_errors=True)
        if not (trained / "metrics.json").is_file():
            model = ("--model_name_or_path", trained / "checkpoint", "--data_dir", data, "--output_dir", trained)
            command("evaluate", *model, "--split", "test[:200]", "--cache_dir", folder / "cache")


def once(output: Path, *words: Any) -> None:
    """Runs a command that writes `output`, or a run of which it is the checkpoint, unless that is there."""
    if not (output / "config.json").is_file():
        command(*words, "--output_dir", output.parent if output.name == "checkpoint" else output)


def table(folder: Path, seeds: Sequence[int]) -> str:
    """The figures of each origin, a seed after the other, with another image's answer in brackets."""
    lines = ["| towers learned from | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for origin in ORIGINS:
        paths = [folder / f"seed_{seed}" / "litegpt" / origin.replace(", ", "_") / "metrics.json" for seed in seeds]
        metrics = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        cells = [
            "; ".join(f"{at(run, path):.2f} ({at(run['controls']['shuffled'], path):.2f})" for run in metrics)
            for path in FIGURES.values()
        ]
        lines.append(f"| {origin} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def at(values: Any, path: Sequence[str]) -> float:
    """The number at a path; NaN where there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return float("nan") if values is None else values


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["phantoms", "real"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/tower_origins"))
    main(**vars(parser.parse_args()))
