"""Answers of a checkpoint over a split, and their scores beside those of a model that is blind to the image.

    python train_scripts/evaluate_litegpt.py --model_name_or_path outputs/demo/checkpoint \\
        --data_dir outputs/demo/phantoms --output_dir outputs/demo

Writes `predictions.jsonl` (one line an image and task; an interrupted run goes on after the last one), `metrics.json`
and `report.md`. Decoding is greedy. The control gives every image the answers of another one, drawn at random.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.pipelines.pt_utils import KeyDataset
from trl import TrlParser

from datasets_scripts.instructions import answer
from processing.answers import NO_FINDING, text_to_findings
from processing.pipeline_litegpt import FINDING_TASKS, ChestXrayFindingsPipeline
from train_scripts.checkpoint import load_checkpoint
from train_scripts.files import complete_lines, refuse_bad_input, write_text
from train_scripts.model_card import data_set_facts, weights_sha256
from train_scripts.report import write_report
from train_scripts.rows import check_labels, load_rows

METRICS = Path(__file__).resolve().parents[1] / "metrics"
SHUFFLES = 10


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
    split = args.split
    if args.with_findings_only:
        rows = rows.select([index for index, findings in enumerate(rows["findings"]) if findings])
        split = f"{args.split}, with findings"
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    predictions = predict(args, rows, output_dir / "predictions.jsonl")
    metrics = scores_with_control(predictions, rows.remove_columns("image"), args.tasks, label_names(rows))
    # For the model card: what was measured on what, and that the figures are of these weights.
    metrics["data_set"] = {**data_set, "split": split, "radiographs": len(rows)}
    metrics["weights"] = weights_sha256(args.model_name_or_path)
    write_text(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_text(output_dir / "report.md", write_report(metrics, args.model_name_or_path, args.data_dir, split))
    print(f"{output_dir / 'report.md'}: Finding F1 {metrics['finding_f1']}, Acc@IoU {metrics['accuracy_at_iou']}")


def predict(args: EvaluationArguments, rows: Dataset, path: Path) -> list[dict[str, Any]]:
    """The predictions of all rows and tasks, those that `path` already has and the missing ones, which are appended.

    Raises:
        SystemExit: `path` holds predictions of another checkpoint or of other data.
    """
    _check_settings(args, path)
    done = {(line["image_id"], line["task"]): line for line in complete_lines(path)}
    image_ids = rows["image_id"][:]
    pending = {
        task: [index for index, image_id in enumerate(image_ids) if (image_id, task) not in done]
        for task in args.tasks
    }
    if any(pending.values()):
        with refuse_bad_input():
            model, processor = load_checkpoint(args.model_name_or_path, dtype=args.dtype)
            check_labels(rows, processor)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device=device)
    with path.open("a", encoding="utf-8") as file:
        # A task at a time: the answers of one are of similar length, so a batch waits less for its longest.
        for task in (task for task in args.tasks if pending[task]):
            lines = answer_lines(pipe, rows.select(pending[task]), task, args.batch_size, args.max_new_tokens)
            for line in tqdm(lines, total=len(pending[task]), desc=f"Answers [{task}]", mininterval=1):
                done[line["image_id"], line["task"]] = line
                file.write(json.dumps(line) + "\n")
                file.flush()
    return [done[image_id, task] for image_id in image_ids for task in args.tasks]


def answer_lines(
    pipe: ChestXrayFindingsPipeline, rows: Dataset, task: str, batch_size: int, max_new_tokens: int
) -> Iterator[dict[str, Any]]:
    """The answers to `task` as lines of the predictions file, one a row."""
    outputs = pipe(KeyDataset(rows, "image"), batch_size=batch_size, tasks=[task], max_new_tokens=max_new_tokens)
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
    return {**line, "malformed": malformed}


def scores_with_control(
    predictions: list[dict[str, Any]], rows: Dataset, tasks: list[str], labels: dict[str, list[str]]
) -> dict[str, Any]:
    """Scores of all tasks; under `control` the mean of the same scores over shuffled images.

    On top stand the headline figures: `finding_f1` (F1 of the class Finding) and `accuracy_at_iou` (all true boxes).
    """
    metrics: dict[str, Any] = {"finding_f1": None, "accuracy_at_iou": None, "control": {}}
    rng = np.random.default_rng(0)
    for task in tasks:
        of_task = [prediction for prediction in predictions if prediction["task"] == task]
        true_texts = [true_answer(row, task, labels) for row in rows]
        known = [index for index, text in enumerate(true_texts) if text is not None]
        answered = [of_task[index] for index in known]
        truths = [rows[index] for index in known]
        shuffled = [[answered[i] for i in _others(len(answered), rng)] for _ in range(SHUFFLES)]
        score = score_findings if task in FINDING_TASKS else score_diagnoses
        if not answered:
            raise SystemExit(f"{task}: no radiograph of this split tells the answer, so there is nothing to score.")
        metrics[task] = score(answered, truths, labels)
        metrics[task]["num_unknown"] = len(rows) - len(known)
        metrics[task]["num_malformed"] = sum(prediction["malformed"] is not None for prediction in of_task)
        metrics["control"][task] = _mean([score(answers, truths, labels) for answers in shuffled])
        texts = [true_texts[index] for index in known]
        metrics[task]["text"] = score_texts(answered, texts)
        metrics["control"][task]["text"] = score_texts(shuffled[0], texts)  # slow, and one shuffle hardly varies
        if task in FINDING_TASKS:
            for where in (metrics, metrics["control"]):
                where["finding_f1"] = where[task]["classification"]["finding"]["f1"]
                where["accuracy_at_iou"] = where[task]["localization"]["accuracy_at_iou"]
    return metrics


def label_names(rows: Dataset) -> dict[str, list[str]]:
    return {
        "finding": rows.features["findings"].feature["label"].names,
        "diagnosis": rows.features["diagnoses"].feature.names,
    }


def score_findings(
    predictions: list[dict[str, Any]], rows: list[dict[str, Any]], labels: dict[str, list[str]]
) -> dict[str, Any]:
    names = labels["finding"]
    true_boxes = [
        [{"label": names[finding["label"]], "box": finding["box"]} for finding in row["findings"]] for row in rows
    ]
    predicted_boxes = [
        [{"label": finding["label"], "box": finding["box"]} for finding in prediction["findings"]]
        for prediction in predictions
    ]
    return {
        "classification": _metric("finding_classification").compute(
            predictions=[_names(prediction, "findings") for prediction in predictions],
            references=[sorted({box["label"] for box in boxes}) for boxes in true_boxes],
            labels=names,
        ),
        "localization": _metric("box_localization").compute(predictions=predicted_boxes, references=true_boxes),
    }


def score_diagnoses(
    predictions: list[dict[str, Any]], rows: list[dict[str, Any]], labels: dict[str, list[str]]
) -> dict[str, Any]:
    names = labels["diagnosis"]
    classification = _metric("finding_classification").compute(
        predictions=[_names(prediction, "diagnoses") for prediction in predictions],
        references=[[names[index] for index in row["diagnoses"]] for row in rows],
        labels=names,
    )
    return {"classification": classification}


def score_texts(predictions: list[dict[str, Any]], texts: list[str]) -> dict[str, Any]:
    """Overlap of the answers' wording with the true answers `texts`; a malformed answer is scored as it is."""
    answers = [prediction["answer"] for prediction in predictions]
    return _metric("text_overlap").compute(predictions=answers, references=texts)


def true_answer(row: dict[str, Any], task: str, labels: dict[str, list[str]]) -> str | None:
    """What the answer should be, or None where the row does not tell it."""
    return answer(row["findings"], row["diagnoses"], task, labels["finding"], labels["diagnosis"])


def _names(prediction: dict[str, Any], what: str) -> list[str]:
    """The labels that an answer names; none for a malformed one, which the metric counts as wrong."""
    if prediction["malformed"] is not None:
        return []
    return sorted({item["label"] for item in prediction[what]}) or [NO_FINDING]


def _others(count: int, rng: np.random.Generator) -> np.ndarray:
    """For each of `count` images another one: a random cycle, so that none keeps its own."""
    order = rng.permutation(count)
    others = np.empty(count, dtype=int)
    others[order] = np.roll(order, 1)
    return others


def _mean(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean of nested dictionaries of numbers; None where a number is missing in all of them."""
    result = {}
    for key, value in scores[0].items():
        values = [score[key] for score in scores if score.get(key) is not None]
        if isinstance(value, dict):
            result[key] = _mean(values)
        else:
            result[key] = float(np.mean(values)) if values else None
    return result


def _metric(name: str) -> evaluate.Metric:
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


def _check_settings(args: EvaluationArguments, path: Path) -> None:
    weights = sorted(Path(args.model_name_or_path).glob("*.safetensors"))
    settings = {
        "model": args.model_name_or_path,
        "weights": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights],
        "data": str(Path(args.data_dir).resolve()),
        "split": args.split,
        "max_new_tokens": args.max_new_tokens,
    }
    settings_path = path.with_suffix(".settings.json")
    if path.exists() and settings_path.exists() and json.loads(settings_path.read_text()) != settings:
        raise SystemExit(
            f"{path} holds predictions of another checkpoint, split or data set; remove it or choose another "
            "output_dir."
        )
    write_text(settings_path, json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    main(TrlParser(EvaluationArguments).parse_args_and_config()[0])
