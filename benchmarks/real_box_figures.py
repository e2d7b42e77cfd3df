"""What a tiny LiteGPT with a detector finds on real radiographs: detector, answers, and both, in folds by patient.

    LITEGPT_REAL_CXR=path/to/data python benchmarks/real_box_figures.py --output_dir outputs/real_boxes --seeds 0 1
    python benchmarks/real_box_figures.py --output_dir outputs/real_boxes --arms semi few --semi outputs/semi ...

In: the boxed radiographs of `box_folds.py`. Out: for each arm a table with intervals by patient and controls, in
Markdown and `figures.json`. What is finished is not done again. Arms:

    real    the recipe of the configs tiny_detector*: towers and detector on a fold's training boxes, then the answers
    semi    towers and detector on findings drawn into normal radiographs (`--semi`, a release), no real box
    few     the same, then 20 boxed radiographs of each fold, and its radiographs without a finding
    drawn   towers, then answers on drawn findings, then both on a fold's training boxes

Rows of a table: `detector`, its boxes; `answer`, the boxes that the answers name; `both`, fused; `answer, label told`,
the box that is written after each label. Boxes of any label are those of all labels, of which overlapping ones (IoU
above .4) are one.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litegpt.benchmarks.box_folds import ANY, BoxFolds, box_folds, real_data, scores, table, write_fold
from litegpt.benchmarks.commands import command
from litegpt.benchmarks.where_sight_is_lost import of_pairs, pairs_of, written_boxes
from litegpt.datasets_scripts.preparation.merge_readers import keep_one_of_overlapping
from litegpt.evaluation_scripts.predictions import answer_lines, doubts_unsaid
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

SOURCES = {"detector": "detected_findings", "answer": "findings", "both": "fused_findings"}
TOLD = "answer, label told"
FEW = 20  # boxed radiographs of a fold
ONE_BOX = 0.4
GENTLY = ("--learning_rate", 5e-4)  # towers that have learnt from drawn findings


def trained(arm: str, folder: Path, data: Path, options: argparse.Namespace, seed: int) -> Path:
    """The checkpoint of an arm, trained on a fold's training radiographs; what folds share lies beside `folder`."""
    cache = options.output_dir / "cache"
    shared = ("--cache_dir", cache, "--training_cache_dir", cache, "--seed", seed)
    shared += ("--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true")
    towers = ("pretrain-boxes", "--config", "tiny_detector_towers", *shared)
    answers = ("train", "--config", "tiny_detector_answers", "--use_cpu", "true", *shared)

    def step(words: tuple, start: Path, learnt: Path, output: Path, *more: Any) -> Path:
        command(folder, *words, "--model_name_or_path", start, "--data_dir", learnt, "--output_dir", output, *more)
        return output / "checkpoint"

    start = folder.parent / "new"
    command(folder, "new", "--config", "tiny_detector", "--output_dir", start, "--seed", seed)
    if arm == "real":
        return step(answers, step(towers, start, data, folder / "towers"), data, folder / "answers")
    drawn = step(
        towers, start, options.semi, folder.parent / "drawn_towers", "--max_steps", 800, "--repeat_findings", 1
    )
    if arm == "semi":
        return drawn
    if arm == "few":
        return step(towers, drawn, data, folder / "towers", "--max_steps", 120, *GENTLY)
    more = ("--max_steps", 1500, "--augmented_views", 1)
    drawn = step(answers, drawn, options.semi, folder.parent / "drawn_answers", *more)
    seen = step(towers, drawn, data, folder / "towers", "--max_steps", 250, *GENTLY)
    return step(
        answers, seen, data, folder / "answers", "--max_steps", 300, "--learning_rate", 1e-3, "--warmup_steps", 30
    )


def measured(checkpoint: Path, folds: BoxFolds, fold: int, with_answers: bool) -> dict[str, dict[str, Any]]:
    """{row of the table: predictions of the radiographs that a fold tests, as `box_folds.scores` takes them}."""
    model, processor = load_checkpoint(checkpoint)
    rows = folds.test_rows(fold)
    pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device="cpu")
    with doubts_unsaid():
        lines = list(answer_lines(pipe, rows, "identify", batch_size=16, max_new_tokens=512))
    found = {
        name: {line["image_id"]: as_predictions(line[field]) for line in lines}
        for name, field in SOURCES.items()
        if with_answers or name == "detector"
    }
    if with_answers:
        found[TOLD] = told_answers(model, processor, rows)
    return found


def as_predictions(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Findings as `box_folds.scores` takes them."""
    labels: dict[str, list[tuple[float, list[float]]]] = {}
    for finding in findings:
        labels.setdefault(finding["label"], []).append((finding["score"], list(finding["box"])))
    every = sorted((pair for of_label in labels.values() for pair in of_label), key=lambda pair: -pair[0])
    boxes = np.array([box for _, box in every], dtype=float).reshape(-1, 4)
    has_area = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    kept = has_area[keep_one_of_overlapping(boxes[has_area], ONE_BOX)] if len(has_area) else []
    return {ANY: [every[place] for place in kept], "labels": labels}


def told_answers(model: Any, processor: Any, rows: Any) -> dict[str, dict[str, Any]]:
    """The box that is written after each label, scored by how likely the answer begins with it."""
    pictures = [rows[number]["image"] for number in range(len(rows))]
    features = []
    for first in range(0, len(pictures), 32):
        some = pictures[first : first + 32]
        prompts = [processor.prompt("identify")] * len(some)
        inputs = processor(images=some, text=prompts, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            shown = {name: inputs[name] for name in ("pixel_values", "aux_pixel_values") if name in inputs}
            features.append(model.get_patch_features(**shown))
    labels = sorted({finding["label"] for findings in rows["findings"][:] for finding in findings})
    pairs = pairs_of([dict.fromkeys(labels, []) for _ in pictures])
    found = of_pairs(
        written_boxes(model, processor, torch.cat(features), pairs, middle=True),
        pairs,
        processor.finding_labels,
        len(pictures),
    )
    every = [[pair for of_label in one["labels"].values() for pair in of_label] for one in found]
    merged = [as_predictions([{"label": ANY, "score": s, "box": b} for s, b in pairs_]) for pairs_ in every]
    return {
        name: {ANY: of_any[ANY], "labels": one["labels"]}
        for name, one, of_any in zip(rows["image_id"][:], found, merged, strict=True)
    }


def few_boxes(folds: BoxFolds, fold: int) -> BoxFolds:
    """Folds in which a fold's training radiographs have but FEW with a box."""
    taught = folds.taught.copy()
    boxed = [number for number in folds.train_numbers(fold) if folds.truths[number].any]
    taught[np.random.default_rng(100 + fold).permutation(boxed)[FEW:]] = False
    return replace(folds, taught=taught)


def main(options: argparse.Namespace) -> None:
    options.output_dir.mkdir(parents=True, exist_ok=True)
    folds = box_folds(real_data(options.real_data), options.output_dir / "cache")
    results: dict[str, Any] = {}
    for arm in options.arms:
        for seed in options.seeds:
            found: dict[str, dict[str, Any]] = {}
            for fold in options.folds:
                data = options.output_dir / f"{'few' if arm == 'few' else 'fold'}{fold}"
                write_fold(few_boxes(folds, fold) if arm == "few" else folds, fold, data)
                folder = options.output_dir / f"seed{seed}" / f"{arm}{fold}"
                folder.mkdir(parents=True, exist_ok=True)
                kept = folder / "predictions.json"
                if not kept.is_file():
                    checkpoint = trained(arm, folder, data, options, seed)
                    of_fold = measured(checkpoint, folds, fold, arm in ("real", "drawn"))
                    kept.write_text(json.dumps(of_fold), encoding="utf-8")
                for name, predictions in json.loads(kept.read_text(encoding="utf-8")).items():
                    found.setdefault(name, {}).update(predictions)
            for name, predictions in found.items():
                against = {"detector": found["detector"]} if name != "detector" else None
                results[f"{arm}, seed {seed}: {name}"] = scores(folds, predictions, options.folds, against)
    (options.output_dir / "figures.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real_data", help="the folder of real radiographs; else LITEGPT_REAL_CXR names it")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=["real"], choices=["real", "semi", "few", "drawn"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--semi", type=Path, help="a release with drawn findings, of `prepare phantom --backgrounds`")
    main(parser.parse_args())
