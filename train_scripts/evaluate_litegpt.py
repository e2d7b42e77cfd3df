"""Answers of a checkpoint over a split, and their scores beside those of a model that is blind to the image.

    python train_scripts/evaluate_litegpt.py --model_name_or_path outputs/demo/checkpoint \\
        --data_dir outputs/demo/phantoms --output_dir outputs/demo

Writes `predictions.jsonl` (one line an image and task; an interrupted run goes on after the last one),
`metrics.json`, `report.md` and `report.html`. Decoding is greedy, and constrained to answers with the checkpoint's own
labels (`--constrained false`: plain). There are three controls: every image is given the answer to another one, drawn
at random; the answer to a black image; and those to images of noise (`controls.jsonl` has them).
"""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm
from transformers.pipelines.pt_utils import KeyDataset
from trl import TrlParser

from processing.answers import text_to_findings
from processing.pipeline_litegpt import FINDING_TASKS, ChestXrayFindingsPipeline
from processing.processing_litegpt import LiteGPTProcessor
from train_scripts.checkpoint import load_checkpoint, load_processor
from train_scripts.files import complete_lines, refuse_bad_input, write_text
from train_scripts.html_report import html_report
from train_scripts.model_card import data_set_facts, weights_sha256
from train_scripts.report import write_report
from train_scripts.rows import check_labels, load_rows
from train_scripts.scoring import label_names, score_predictions

NUM_NOISE_IMAGES = 8


@dataclass
class EvaluationArguments:
    model_name_or_path: str = field(metadata={"help": "A LiteGPT checkpoint."})
    data_dir: str = field(metadata={"help": "A release in VinDr-CXR's layout, or a prepared data set."})
    output_dir: str = field(metadata={"help": "Where predictions, metrics and report are written."})
    split: str = field(default="test", metadata={"help": "The split, or a slice such as test[:100]."})
    tasks: list[str] = field(default_factory=lambda: ["identify", "vqa"], metadata={"help": "What to ask."})
    with_findings_only: bool = field(
        default=False,
        metadata={
            "help": "Radiographs with findings alone, as the paper's tables of findings, boxes and their texts."
        },
    )
    constrained: bool = field(
        default=True,
        metadata={"help": "Answers of the checkpoint's own labels alone, none malformed; or as they come."},
    )
    batch_size: int = field(default=16, metadata={"help": "Prompts answered together."})
    max_new_tokens: int = field(default=512, metadata={"help": "The longest answer."})
    dtype: str = field(default="auto", metadata={"help": "float32, bfloat16, ... or auto, as the weights are stored."})
    cache_dir: str | None = field(
        default=None, metadata={"help": "Prepared data; the library's own cache by default."}
    )
    num_proc: int = field(default=1, metadata={"help": "Processes that read radiographs."})


def main(args: EvaluationArguments) -> None:
    with refuse_bad_input():
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
        data_set = data_set_facts(args.data_dir)
        processor = load_processor(args.model_name_or_path)
    split = args.split
    if args.with_findings_only:
        rows = rows.select([index for index, findings in enumerate(rows["findings"]) if findings])
        split = f"{args.split}, with findings"
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    pipe = functools.cache(lambda: load_pipeline(args, rows))
    predictions = predict(args, rows, output_dir / "predictions.jsonl", pipe)
    of_controls = predict(args, control_images(processor), output_dir / "controls.jsonl", pipe)
    controls = {
        name: [line for line in of_controls if line["image_id"].startswith(name)] for name in ("noise", "black")
    }
    metrics = score_predictions(
        predictions,
        rows.remove_columns("image"),
        args.tasks,
        label_names(rows),
        controls,
        processor.score_temperatures,
        processor.score_thresholds,
    )
    metrics["temperatures"], metrics["thresholds"] = processor.score_temperatures, processor.score_thresholds
    # For the model card: what was measured on what, and that the figures are of these weights.
    metrics["data_set"] = {**data_set, "split": split, "radiographs": len(rows)}
    metrics["weights"] = weights_sha256(args.model_name_or_path)
    write_text(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    names = (args.model_name_or_path, args.data_dir, split)
    write_text(output_dir / "report.md", write_report(metrics, *names))
    write_text(output_dir / "report.html", html_report(metrics, predictions, rows, label_names(rows), *names))
    print(f"{output_dir / 'report.md'}: Finding F1 {metrics['finding_f1']}, Acc@IoU {metrics['accuracy_at_iou']}")


def load_pipeline(args: EvaluationArguments, rows: Dataset) -> ChestXrayFindingsPipeline:
    """Raises:
    SystemExit: the checkpoint cannot be loaded, or the rows have other labels.
    """
    with refuse_bad_input():
        model, processor = load_checkpoint(args.model_name_or_path, dtype=args.dtype)
        check_labels(rows, processor)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device=device)


def control_images(processor: LiteGPTProcessor) -> Dataset:
    """Rows of images that are no radiographs: one all black, eight of uniform noise, the same in every run.

    They have the size of the towers' input: squashed to it, noise of a larger image would become an even grey.
    """
    side = max(tower.size["height"] for tower in processor.tower_image_processors)
    noise = np.random.default_rng(0).integers(0, 256, (NUM_NOISE_IMAGES, side, side), dtype=np.uint8)
    return Dataset.from_dict(
        {
            "image_id": ["black", *(f"noise-{number}" for number in range(NUM_NOISE_IMAGES))],
            "image": [Image.fromarray(pixels) for pixels in (np.zeros_like(noise[0]), *noise)],
        }
    )


def predict(
    args: EvaluationArguments,
    rows: Dataset,
    path: Path,
    pipe: Callable[[], ChestXrayFindingsPipeline] | None = None,
) -> list[dict[str, Any]]:
    """The predictions of all rows and tasks, those that `path` already has and the missing ones, which are appended.

    Args:
        pipe: gives the pipeline, where an answer is missing; by default it is loaded then.

    Raises:
        SystemExit: `path` holds predictions of another checkpoint, of other data or of another way of decoding.
    """
    _check_settings(args, path)
    done = {(line["image_id"], line["task"]): line for line in complete_lines(path)}
    image_ids = rows["image_id"][:]
    pending = {
        task: [index for index, image_id in enumerate(image_ids) if (image_id, task) not in done]
        for task in args.tasks
    }
    if any(pending.values()):
        asked = load_pipeline(args, rows) if pipe is None else pipe()
    with path.open("a", encoding="utf-8") as file:
        # A task at a time: the answers of one are of similar length, so a batch waits less for its longest.
        for task in (task for task in args.tasks if pending[task]):
            lines = answer_lines(
                asked, rows.select(pending[task]), task, args.batch_size, args.max_new_tokens, args.constrained
            )
            for line in tqdm(lines, total=len(pending[task]), desc=f"Answers [{task}]", mininterval=1):
                done[line["image_id"], line["task"]] = line
                file.write(json.dumps(line) + "\n")
                file.flush()
    return [done[image_id, task] for image_id in image_ids for task in args.tasks]


def answer_lines(
    pipe: ChestXrayFindingsPipeline,
    rows: Dataset,
    task: str,
    batch_size: int,
    max_new_tokens: int,
    constrained: bool = True,
) -> Iterator[dict[str, Any]]:
    """The answers to `task` as lines of the predictions file, one a row."""
    outputs = pipe(
        KeyDataset(rows, "image"),
        batch_size=batch_size,
        tasks=[task],
        max_new_tokens=max_new_tokens,
        constrained=constrained,
    )
    for image_id, output in zip(rows["image_id"][:], outputs, strict=True):
        yield prediction_line(image_id, task, output, pipe.processor.finding_labels)


def prediction_line(image_id: str, task: str, output: dict[str, Any], finding_labels: list[str]) -> dict[str, Any]:
    """The pipeline's output for one task; boxes are xyxy in [0, 1], exactly as the answer states them."""
    text, malformed = output["answers"][task], output["malformed"][task]
    line = {"image_id": image_id, "task": task, "answer": text}
    if task in FINDING_TASKS:
        findings = text_to_findings(text, finding_labels) if malformed is None else []
        line["findings"] = [
            {"label": finding.label, "box": list(finding.box), "score": scored["score"]}
            for finding, scored in zip(findings, output["findings"], strict=True)
        ]
    else:
        line["diagnoses"] = output["diagnoses"]
    return {**line, "probabilities": output["probabilities"][task], "malformed": malformed}


def _check_settings(args: EvaluationArguments, path: Path) -> None:
    weights = sorted(Path(args.model_name_or_path).glob("*.safetensors"))
    settings = {
        "model": args.model_name_or_path,
        "weights": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights],
        "data": str(Path(args.data_dir).resolve()),
        "split": args.split,
        "max_new_tokens": args.max_new_tokens,
        "constrained": args.constrained,
        "temperatures": load_processor(args.model_name_or_path).score_temperatures,
    }
    settings_path = path.with_suffix(".settings.json")
    if path.exists() and settings_path.exists() and json.loads(settings_path.read_text()) != settings:
        raise SystemExit(
            f"{path} holds predictions of another checkpoint, split or data set, or decoded or calibrated in another "
            "way; remove it or choose another output_dir."
        )
    write_text(settings_path, json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    main(TrlParser(EvaluationArguments).parse_args_and_config()[0])
