"""What a tiny ECAMP learns in ten minutes of one core, and in an hour, beside MRM, plain MAE and random weights.

    python benchmarks/ecamp_figures.py phantoms --output_dir outputs/ecamp_figures
    LITEGPT_REAL_CXR=path/to/data python benchmarks/ecamp_figures.py real --output_dir outputs/ecamp_figures

Runs the project's own commands and prints the tables of docs/ecamp.md; what is finished is not done again. Each run
makes as many steps as one core makes in `--cpu_seconds`: what a step takes is measured first and kept in steps.json.
With `--device cuda` a GPU makes the same steps, `--jobs` runs at a time, and a ViT-B/16 at 224 pixels makes
`--vit_steps` too. After a tenth, a quarter, a half and all of the steps a linear probe reads the tower.
Its controls: the same network at its start, and 16 x 16 grey pixels.

Phantoms: prompts of 3,300 drawn radiographs' labels; tested on 1,500 others. Real: Open-i's reports, distilled by
rules; tested on `nih_320`, another hospital's radiographs, of which nothing was trained on (cxr_clip_figures.py).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import TrainerCallback

from litegpt.benchmarks.cxr_clip_figures import command, figure, phantoms, real_data
from litegpt.datasets_scripts.image_labels import abnormal, label_matrix, label_names
from litegpt.datasets_scripts.rows import load_rows
from litegpt.datasets_scripts.tables import plain
from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.probe import FEATURES, ProbeSet, probe_scores
from litegpt.evaluation_scripts.ranking import figures_and_intervals, ranking_figures, usable_labels
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers.image_towers import ImageTower, load_image_tower
from litegpt.processing.answers import NO_FINDING
from litegpt.train_scripts import pretrain_ecamp
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement


class Run(NamedTuple):
    """A training: which of `KINDS` or `VIT`, and its seed."""

    kind: str
    seed: int = 0


MRM = "--super_resolution_weight 0 --fusion add --distilled_share 0 --mask_descriptors false --alpha 1"
KINDS = {
    "ECAMP": "",
    "MRM": f"{MRM} --entity_share 0.5 --other_share 0.5",
    "MAE": "--super_resolution_weight 0 --text_weight 0",
    "ECAMP, reports shuffled": "--shuffle_reports",
    "ECAMP, an hour": "",
}
MEASURED = ("ECAMP", "MRM", "MAE")  # what a step of them takes; the others are ECAMPs
HOUR = 3600
VIT = "ECAMP, ViT-B/16 at 224 pixels"
# The paper's encoder and decoder; a text encoder of four layers for so few reports.
VIT_SIZES = ("--vision_config", "{}", "--text_config", '{"vocab_size": 3000, "num_hidden_layers": 4}')
VIT_TRAINING = "--per_device_train_batch_size 256 --learning_rate 6e-4 --max_length 128 --dataloader_num_workers 6"
VIT_OPTIONS = (*VIT_SIZES, *VIT_TRAINING.split())
RUNS = {
    "phantoms": tuple(map(Run, ("ECAMP", "MRM", "MAE", "ECAMP, an hour"))),
    "real": tuple(map(Run, ("ECAMP", "MRM", "MAE", "ECAMP, reports shuffled"))),
}
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the steps, after which a tower is probed
SAVED = 20  # times in a run; the shares are multiples of a twentieth
STEPS_MEASURED = 10
PHANTOM_OPTIONS = "--abnormal_share 0.8 --context boxes --min_crop_area 0.7 --validation_split test[:512]".split()
QUIET = "--report_to none --disable_tqdm true --save_only_model true".split()
ON_GPU = "--use_cpu false --bf16 true --dataloader_persistent_workers true --dataloader_pin_memory true".split()
FEWEST = {"phantoms": 28, "real": 10}  # positive test radiographs of a label
BATCH_SIZE = 128
PARTS = ("train", "features", "table")


def main(args: argparse.Namespace) -> None:
    folder = args.output_dir / args.what
    folder.mkdir(parents=True, exist_ok=True)
    train, tested, options = data_of(args.what, folder)
    steps = steps_of_kinds(folder, train, options, args.cpu_seconds)
    runs = list(RUNS[args.what])
    if args.device == "cuda":
        options = (*options, *ON_GPU, "--dataloader_num_workers", str(args.num_workers))
    if args.vit_steps:
        steps[VIT] = args.vit_steps
        runs = [Run(VIT), *runs]
    with ThreadPoolExecutor(args.jobs) as together:
        if "train" in args.parts:
            list(together.map(lambda run: training(folder, train, run, options, steps[run.kind]), runs))
        if "features" in args.parts:
            list(together.map(lambda run: write_features(folder, tested, run, steps[run.kind]), runs))
    if "table" in args.parts:
        measured = [run for run in (*runs, Run(VIT)) if features_of(folder, run).exists()]
        print(table(folder, args.what, tested, list(dict.fromkeys(measured))))


def data_of(what: str, folder: Path) -> tuple[Path, Path, tuple[str, ...]]:
    """Prepared folders to train on and to test on, and the training's options."""
    if what == "phantoms":
        data = phantoms(folder)["phantoms"]
        return data, data, tuple(PHANTOM_OPTIONS)
    data = real_data(folder)
    distilled = folder / "distilled" / "distilled.jsonl"
    if not distilled.is_file():
        command("distil-reports", "--data_dir", data["open_i"], "--output_dir", distilled.parent, "--method", "rules")
    return data["open_i"], data["nih"], ("--distilled", str(distilled), "--validation_split", "test")


# --- Training --------------------------------------------------------------------------------------------------------


def path_of(folder: Path, run: Run) -> Path:
    return folder / ("".join(letter if letter.isalnum() else "_" for letter in run.kind) + f"_{run.seed}")


def steps_of_kinds(folder: Path, data: Path, options: Sequence[str], cpu_seconds: float) -> dict[str, int]:
    """Steps that one core makes of each kind; what one takes is measured once, and kept."""
    path = folder / "steps.json"
    if not path.is_file():
        seconds = {kind: cpu_seconds_of_a_step(folder, data, [*options, *KINDS[kind].split()]) for kind in MEASURED}
        path.write_text(json.dumps(seconds, indent=1), encoding="utf-8")
    seconds = json.loads(path.read_text(encoding="utf-8"))
    times = dict.fromkeys(KINDS, cpu_seconds) | {"ECAMP, an hour": HOUR}
    return {kind: round(times[kind] / seconds.get(kind, seconds["ECAMP"])) for kind in KINDS}


def cpu_seconds_of_a_step(folder: Path, data: Path, options: Sequence[str]) -> float:
    """Of a run with these options, the batch included, on one thread; the median of some after the first ones."""
    torch.set_num_threads(1)
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.process_time())

    with tempfile.TemporaryDirectory(dir=folder) as output:
        length = ("--max_steps", STEPS_MEASURED, "--save_strategy", "no", "--validation_split", "test[:8]")
        words = [*words_of_run(folder, data, Path(output), 0), *options, *length]
        trainer = pretrain_ecamp.prepared_run(*pretrain_ecamp.argument_parser().parse(list(map(str, words)))).trainer
        trainer.add_callback(Clock())
        trainer.train()
    return float(np.median(np.diff(times)[2:]))


def training(folder: Path, data: Path, run: Run, options: Sequence[str], steps: int) -> None:
    output = path_of(folder, run)
    if (output / "checkpoint" / "config.json").is_file():
        return
    kind_options = VIT_OPTIONS if run.kind == VIT else KINDS[run.kind].split()
    every = max(1, steps // (4 if run.kind == VIT else SAVED))
    length = ("--max_steps", steps, "--save_steps", every, "--save_total_limit", 100)
    validation = ("--eval_strategy", "steps", "--eval_steps", max(1, steps // 4))
    words = words_of_run(folder, data, output, run.seed)
    command("pretrain-ecamp", *words, *options, *kind_options, *length, *validation)


def words_of_run(folder: Path, data: Path, output: Path, seed: int) -> list[Any]:
    cache = ("--cache_dir", folder / "cache", "--training_cache_dir", folder / "cache")
    where = ("--config", "tiny_ecamp", "--data_dirs", data, "--output_dir", output, "--seed", seed)
    return [*where, *cache, *QUIET]


# --- Features and probes ---------------------------------------------------------------------------------------------


def features_of(folder: Path, run: Run) -> Path:
    return path_of(folder, run) / "features.npz"


def write_features(folder: Path, data: Path, run: Run, steps: int) -> None:
    """The towers' mean tokens of all radiographs: {"train_0.25": (images, width), ...}; share 0 is the start."""
    output = path_of(folder, run)
    if features_of(folder, run).exists() or not (output / "start").is_dir():
        return
    every = max(1, steps // SAVED)
    folders = {0.0: output / "start"}
    folders |= {share: output / f"checkpoint-{every * round(share * SAVED)}" for share in SHARES[:-1]}
    folders[1.0] = output / "checkpoint"
    arrays = {}
    for split in ("train", "test"):
        rows = load_rows(str(data), split, str(folder / "cache"))
        for share, checkpoint in folders.items():
            if (checkpoint / "config.json").is_file():
                arrays[f"{split}_{share}"] = mean_tokens(checkpoint, output / "start", rows, folder / "cache")
    np.savez_compressed(features_of(folder, run), **arrays)


@torch.no_grad()
def mean_tokens(checkpoint: Path, start: Path, rows: Any, cache: Path) -> np.ndarray:
    """(images, width) float16; of a trainer's checkpoint the image processor is that of the run's start."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tower = ImageTower(load_image_tower(checkpoint).network, load_image_tower(start).processor).eval().to(device)
    store = RadiographStore(rows, [tower.processor], cache)
    found = []
    for first in range(0, len(rows), BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, len(rows)))
        (pixels,) = store.pixel_values(numbers, [Movement()] * len(numbers))
        found.append(tower(pixels.to(device)).mean(dim=1).half().cpu().numpy())
    return np.concatenate(found)


def table(folder: Path, what: str, data: Path, runs: Sequence[Run]) -> str:
    """What was measured, in Markdown: a line a run and a share of its steps."""
    train, test = (load_rows(str(data), split, str(folder / "cache")) for split in ("train", "test"))
    names = [name for name in label_names(test.features) if plain(name) != plain(NO_FINDING)]
    truths, known = label_matrix(test, names), label_matrix(train, names)
    usable, _ = usable_labels(names, truths, FEWEST[what])
    usable = usable[(known[:, usable] == 1).any(0)]
    pixels = [grey_pixels(rows, folder / "cache") for rows in (train, test)]
    lines = [
        f"{len(usable)} labels, {len(train):,} radiographs to learn a probe from and {len(test):,} to test it",
        "| run | steps | AUROC of the probe | among abnormal | less the start | less 16 x 16 pixels |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        arrays = np.load(features_of(folder, run))
        for share in (0.0, *SHARES):
            if f"test_{share}" not in arrays:
                continue
            sets = [
                ProbeSet(
                    {
                        FEATURES: arrays[f"{split}_{share}"].astype(np.float32),
                        "start": arrays[f"{split}_0.0"].astype(np.float32),
                        "pixels": grey,
                    },
                    values[:, usable],
                )
                for split, grey, values in zip(("train", "test"), pixels, (known, truths), strict=True)
            ]
            scores = all_radiographs(*sets, abnormal(test), [names[place] for place in usable])
            paths = [(FEATURES, "all"), (FEATURES, "abnormal"), ("features_less_start", "all")]
            cells = [figure(scores, (*path, "macro")) for path in (*paths, ("features_less_pixels", "all"))]
            made = f"{share * last_state(folder, run)['max_steps']:,.0f}"
            lines.append(f"| {run.kind}, seed {run.seed} | {made} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *said(folder, runs)])


def all_radiographs(train: ProbeSet, test: ProbeSet, ill: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Figures and intervals of probes that learn from all radiographs, named as `probe_figures` names them."""
    part = np.arange(len(train.truths))
    scores = {
        name: probe_scores(features, train.truths, test.features[name], part)
        for name, features in train.features.items()
    }
    differences = [(FEATURES, name) for name in scores if name != FEATURES]
    statistic = ranking_figures(scores, test.truths, ill, labels, differences)
    points, intervals = figures_and_intervals(statistic, len(test.truths), None)
    return {"figures": nested(points), "intervals": nested(intervals)}


def grey_pixels(rows: Any, cache: Path) -> np.ndarray:
    """(images, 256) grey levels of the radiographs squashed to 16 x 16."""
    store = RadiographStore(rows, [image_processor(16)], cache)
    return np.asarray(store.pictures[0], dtype=np.float32).reshape(len(rows), -1)


def last_state(folder: Path, run: Run) -> dict[str, Any]:
    """What the trainer noted with its last checkpoint."""
    steps = [int(path.name.rpartition("-")[2]) for path in path_of(folder, run).glob("checkpoint-*")]
    path = path_of(folder, run) / f"checkpoint-{max(steps)}" / "trainer_state.json"
    return json.loads(path.read_text(encoding="utf-8"))


def said(folder: Path, runs: Sequence[Run]) -> list[str]:
    """Losses and words of held-out radiographs, as each run's log has them."""
    columns = ("image_loss", "super_resolution_loss", "word_loss", "word_loss_other_image", "descriptor_accuracy")
    columns = (*columns, "descriptor_accuracy_other_image")
    lines = [f"| run | step | {' | '.join(name.replace('_', ' ') for name in columns)} |", "|---" * 8 + "|"]
    for run in runs:
        for entry in last_state(folder, run)["log_history"]:
            if "eval_loss" in entry:
                cells = [f"{entry[f'eval_{name}']:.3f}" if f"eval_{name}" in entry else "" for name in columns]
                lines.append(f"| {run.kind}, seed {run.seed} | {entry['step']:,} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["phantoms", "real"])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/ecamp_figures"))
    parser.add_argument("--cpu_seconds", type=float, default=600)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--num_workers", type=int, default=2, help="processes of a run on a GPU that make batches")
    parser.add_argument("--vit_steps", type=int, default=0, help="of a ViT-B/16 at 224 pixels, on a GPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    main(parser.parse_args())
