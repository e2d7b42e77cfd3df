"""What a tiny CXR-CLIP learns in minutes, on phantoms and on real radiographs, each with its controls.

    python benchmarks/cxr_clip_figures.py phantoms --output_dir outputs/cxr_clip_figures
    LITEGPT_REAL_CXR=path/to/data python benchmarks/cxr_clip_figures.py real --output_dir outputs/cxr_clip_figures

Runs the project's own commands, two at a time with a thread each, and prints the tables of docs/cxr_clip.md; what is
finished is not done again. `real` needs a folder with Open-i in two parts, `openi_1400/` (Kaggle's layout) and
`reports/`, whose split `test` is not trained on, and `nih_320/` (ChestX-ray14's radiographs in VinDr-CXR's layout):
another hospital, where nothing was trained. Runs: the recipe of `tiny_cxr_clip.yaml` with two seeds; its reports
shuffled among studies; contrast of images alone, without any text.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from litegpt.datasets_scripts.rows import is_prepared


class Run(NamedTuple):
    """A training: its options beside the recipe's, and whether texts taught it anything."""

    seed: int
    options: tuple[str, ...] = ()


SHUFFLED = ("--shuffle_reports",)
IMAGES_ALONE = ("--multi_view_weight", "0", "--text_loss_weight", "0")
RUNS = {
    "seed 0": Run(0),
    "seed 1": Run(1),
    "reports shuffled": Run(0, SHUFFLED),
    "images alone": Run(0, IMAGES_ALONE),
}
# Small findings are lost in narrow crops, and drawn radiographs are all of one exposure.
PHANTOM_OPTIONS = ("--abnormal_share", "0.95", "--negatives", "1", "--min_crop_area", "0.8", "--max_gamma", "0.1")
PHANTOM_LENGTH = ("--image_size", "96", "--max_steps", "500", "--learning_rate", "2e-3")
FIGURES = {  # title: the task, and where in its figures
    "zero-shot, sentences as reports have them": ("zero_shot", "report", "all", "macro"),
    "the same among abnormal radiographs": ("zero_shot", "report", "abnormal", "macro"),
    "zero-shot, plain sentences": ("zero_shot", "plain", "all", "macro"),
    "the same among abnormal": ("zero_shot", "plain", "abnormal", "macro"),
    "zero-shot, the paper's words": ("zero_shot", "paper", "all", "macro"),
    "zero-shot, words that no report has": ("zero_shot", "templates", "all", "macro"),
    "vectors of other radiographs": ("zero_shot", "shuffled", "all", "macro"),
    "knowing abnormal or not, alone": ("zero_shot", "anything_there", "all", "macro"),
    "linear probe, 100 %": ("probe", "100", "features", "all", "macro"),
    "the probe among abnormal": ("probe", "100", "features", "abnormal", "macro"),
    "probe of random weights": ("probe", "100", "random", "all", "macro"),
    "probe of 16 x 16 pixels": ("probe", "100", "pixels", "all", "macro"),
    "probe less random weights": ("probe", "100", "features_less_random", "all", "macro"),
    "probe less pixels": ("probe", "100", "features_less_pixels", "all", "macro"),
    "mean rank of the right report": ("retrieval", "image_to_text", "mean_rank"),
    "right report among the first ten": ("retrieval", "image_to_text", "recall_at_10"),
}
LOG = Path("outputs/cxr_clip_figures.log")
LITEGPT = [sys.executable, "-m", "litegpt"]


def main(what: str, output_dir: Path) -> None:
    folder = output_dir / what
    folder.mkdir(parents=True, exist_ok=True)
    if what == "real":
        data = real_data(folder)
        train, options, tests = data["open_i"], (), data
        runs = RUNS
    else:
        data = phantoms(folder)
        train, options, tests = data["phantoms"], (*PHANTOM_OPTIONS, *PHANTOM_LENGTH), data
        runs = {name: run for name, run in RUNS.items() if name != "images alone"}
    with ThreadPoolExecutor(2) as two:
        list(two.map(lambda item: training(folder, train, item[0], item[1], options), runs.items()))
        jobs = [(name, test) for name in runs for test in tests]
        list(two.map(lambda job: evaluation(folder, job[0], job[1], tests[job[1]]), jobs))
    print(table(folder, list(runs), list(tests)))


def real_data(folder: Path) -> dict[str, Path]:
    """Open-i and the other hospital's radiographs, prepared; as they are where both are there."""
    prepared = {"open_i": folder / "prepared_open_i", "nih": folder / "prepared_nih"}
    if all((path / "README.md").is_file() for path in prepared.values()):
        return prepared
    source = Path(os.environ.get("LITEGPT_REAL_CXR", "")).resolve()
    if not (source / "openi_1400").is_dir():
        sys.exit("LITEGPT_REAL_CXR names no folder with openi_1400, reports and nih_320.")
    if not (folder / "open_i" / "splits.csv").is_file():
        lay_out_open_i(source, folder / "open_i")
    command("prepare", "open-i", "--data_dir", folder / "open_i", "--output_dir", prepared["open_i"])
    nih = ("--merge", "union", "--name", "ChestX-ray14 (835 radiographs)")
    command("prepare", "vindr-cxr", "--data_dir", source / "nih_320", "--output_dir", prepared["nih"], *nih)
    return prepared


def lay_out_open_i(source: Path, folder: Path) -> None:
    """Both parts of Open-i as one release in Kaggle's layout, with splits.csv; pictures are links."""
    pictures = folder / "images" / "images_normalized"
    pictures.mkdir(parents=True, exist_ok=True)
    reports = {row["uid"]: row for row in rows_of(source / "reports/openi/indiana_reports.csv")}
    projections = {row["filename"]: row for row in rows_of(source / "reports/openi/indiana_projections.csv")}
    split = {row["uid"]: "train" for row in rows_of(source / "openi_1400/indiana_reports.csv")}
    shown = rows_of(source / "openi_1400/indiana_projections.csv")
    files = {row["filename"]: source / "openi_1400/images/images_normalized" / row["filename"] for row in shown}
    for line in (source / "reports/studies.jsonl").read_text(encoding="utf-8").splitlines():
        study = json.loads(line)
        if study["source"] != "open-i":
            continue
        split[study["study_id"].removeprefix("openi_")] = study["split"]
        for image in study["images"]:
            name = Path(image["file"]).stem.removeprefix("openi_")
            shown.append({**projections[f"{name}.dcm.png"], "filename": f"{name}.dcm.jpg"})
            files[f"{name}.dcm.jpg"] = source / "reports" / image["file"]
    for name, file in files.items():
        if not (pictures / name).exists():
            (pictures / name).symlink_to(file)
    write_table(folder / "indiana_reports.csv", [reports[uid] for uid in split])
    write_table(folder / "indiana_projections.csv", shown)
    write_table(folder / "splits.csv", [{"uid": uid, "split": part} for uid, part in split.items()])


def phantoms(folder: Path) -> dict[str, Path]:
    """3,300 drawn radiographs to train on, 1,500 others to test on."""
    data = folder / "data"
    if not is_prepared(str(data)):
        command("prepare", "phantom", "--output_dir", data, "--num_train", 3300, "--num_test", 1500, "--num_proc", 2)
    return {"phantoms": data}


def training(folder: Path, data: Path, name: str, run: Run, options: Sequence[str]) -> None:
    output = folder / name.replace(" ", "_")
    if (output / "checkpoint" / "config.json").is_file():
        return
    shared = ("--cache_dir", folder / "cache", "--training_cache_dir", folder / "cache" / f"seed_{run.seed}")
    quiet = ("--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true")
    what = ("--config", "tiny_cxr_clip", "--data_dirs", data, "--output_dir", output, "--seed", run.seed)
    command("pretrain-cxr-clip", *what, *shared, *quiet, *options, *run.options)


def evaluation(folder: Path, name: str, test: str, data: Path) -> None:
    run = folder / name.replace(" ", "_")
    if (run / test / "metrics.json").is_file():
        return
    options = ["--min_positives", "28" if test == "phantoms" else "10", "--cache_dir", folder / "cache"]
    if test == "open_i":
        options += ["--tasks", "zero_shot", "retrieval", "--frontal_only"]
    else:
        options += ["--tasks", "zero_shot", "probe", "--train_split", "train"]
    if test == "phantoms":  # trained on labels' plain sentences, no report's
        options += ["--wordings", "plain", "paper", "templates"]
    where = ("--model_name_or_path", run / "checkpoint", "--data_dir", data, "--output_dir", run / test)
    command("evaluate-cxr-clip", *where, *options)


def command(*words: Any) -> None:
    """Runs a command of litegpt with one thread; ends the program where it fails. Its output goes to `LOG`."""
    words = [str(word) for word in words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    print("litegpt", *words, flush=True)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        done = subprocess.run([*LITEGPT, *words], env=environment, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"litegpt {words[0]} failed: the end of {LOG} says why.")


def table(folder: Path, runs: Sequence[str], tests: Sequence[str]) -> str:
    """What was measured, in Markdown: a line a figure, a column a run."""
    lines = ["| | " + " | ".join(runs) + " |", "|---" * (len(runs) + 1) + "|"]
    for test in tests:
        metrics = [
            json.loads((folder / name.replace(" ", "_") / test / "metrics.json").read_text(encoding="utf-8"))
            for name in runs
        ]
        for title, (task, *path) in FIGURES.items():
            if all(of_run[task] is not None and has(of_run[task], path) for of_run in metrics):
                cells = [figure(of_run[task], path) for of_run in metrics]
                lines.append(f"| {test}: {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def has(scores: dict[str, Any], path: Sequence[str]) -> bool:
    return path[0] == "100" or path[0] in scores["figures"]


def figure(scores: dict[str, Any], path: Sequence[str]) -> str:
    """ "0.683 [0.62, 0.74]" of the figure at a path, through a probe's part where it begins with one."""
    if path[0] == "100":
        scores, path = scores["parts"]["100"], path[1:]
    value, interval = scores["figures"], scores["intervals"]
    for key in path:
        value, interval = value[key], interval[key]
    form = "{:.1f}" if value > 2 else "{:.3f}"
    return form.format(value) + (" [" + ", ".join(map(form.format, interval)) + "]" if interval else "")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["phantoms", "real"])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/cxr_clip_figures"))
    main(**vars(parser.parse_args()))
