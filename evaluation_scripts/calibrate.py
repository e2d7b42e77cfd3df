"""Scores that can be taken at their word, and a threshold for each finding, chosen on a validation split.

    litegpt calibrate --model_name_or_path outputs/demo/checkpoint --data_dir outputs/demo/phantoms \\
        --split 'train[-300:]' --output_dir outputs/demo/calibration

The split must be one that the checkpoint was not trained on, and not the one that it is tested on. From its answers
(`uncalibrated_predictions.jsonl`; an interrupted run resumes after the last one) it is known how often a score is
right. From that come

- a temperature for the scores of boxes and one for those of diagnoses, by maximum likelihood (Guo et al., On
  Calibration of Modern Neural Networks, ICML 2017, section 4.2): a score p becomes sigmoid(logit(p) / temperature),
  which ranks as before. A box is right where its IoU with a true box of its label is above 0.4 and no box of a higher
  score has taken that one; a diagnosis is right where it is present.
- a threshold for each finding: from this calibrated score on, its boxes have the best F1. A finding with fewer than 20
  true boxes, or no right one, gets the threshold that is best for the boxes of all findings together.

Both are written into the checkpoint's processor_config.json (`score_temperatures`, `score_thresholds`), for the
pipeline and evaluate_litegpt.py; nothing else in the checkpoint changes. So do the findings that answers leave out
(`--candidates`), what several views say together (`--views 4`), the boxes of a detector, and what it and the answers
say together: each has a temperature and thresholds (`candidate_thresholds`, ...). `calibration.json` says what was
gained. Calibrating a checkpoint again starts from its uncalibrated scores.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.optimize import minimize_scalar
from scipy.special import logit

from litegpt.common.arguments import parse
from litegpt.common.files import write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.arguments import CalibrationArguments, EvaluationArguments
from litegpt.evaluation_scripts.figures import (
    NUM_BINS,
    RIGHT,
    UNCALIBRATED,
    DiagnosisStatistics,
    FindingStatistics,
    task_statistics,
)
from litegpt.evaluation_scripts.predictions import load_pipeline, predict
from litegpt.evaluation_scripts.questions import Question, by_task, label_names, question, true_boxes
from litegpt.metrics.boxes import Matches, box_counts, match, precision_recall_curve
from litegpt.metrics.probabilities import expected_calibration_error
from litegpt.processing.box_fusion import ANSWER, CANDIDATE, DETECTOR, FUSED, VIEW, fused_findings
from litegpt.processing.box_scores import calibrated, calibrated_findings
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.tasks import TASKS

# What stands beside the answers, and the field of a line that has it; views and detector before what is made of them.
BESIDE = {
    CANDIDATE: "candidates",
    VIEW: "view_findings",
    DETECTOR: "detected_findings",
    FUSED: "fused_findings",
}
MIN_SCORES = 30  # fewer do not tell a temperature
# True boxes; fewer do not tell a threshold. From 300 phantoms to 1,000 others, F1 at IoU 0.5 of findings and of
# findings with candidates: .672, .622 with 5, .681, .678 with 20, .688, .687 with one threshold for all labels.
MIN_BOXES = 20
TEMPERATURES = (0.05, 20.0)  # the lowest and the highest
# For the fit, scores are at least this far from 0 and 1, about as far as float32 can tell: one sure but wrong answer
# would otherwise weigh more than all others.
CLIP = 1e-7


@program
def main(args: CalibrationArguments) -> None:
    output_dir = Path(args.output_dir)
    with refuse_bad_input():
        processor_config = writable_processor_config(args.model_name_or_path)
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
    if args.split.startswith("test"):
        print(f"{args.split} is calibrated on: figures of the same radiographs will look better than they are.")
    answers = by_task(uncalibrated_predictions(args, rows), args.tasks)
    labels, truths = label_names(rows), list(rows.remove_columns("image"))
    statistics = {
        TASKS[task].kind.name: task_statistics(question(task, truths, labels), answers[task], labels, UNCALIBRATED)
        for task in args.tasks
    }
    result = {"split": args.split, "radiographs": len(rows), **calibration(statistics, labels["finding"])}
    for task in (task for task in args.tasks if TASKS[task].kind.has_boxes):
        calibrate_beside(result, question(task, truths, labels), answers[task], labels["finding"])
    with refuse_bad_input():
        write_into_checkpoint(processor_config, result)
        write_text(output_dir / "calibration.json", json.dumps(result, indent=2) + "\n")
    print(f"{output_dir / 'calibration.json'}: temperatures {result['temperatures']}")


def uncalibrated_predictions(args: CalibrationArguments, rows: Dataset) -> list[dict[str, Any]]:
    """The answers to all rows and tasks, with the scores that they have at temperature 1."""
    evaluation_args = EvaluationArguments(**asdict(args))
    path = Path(args.output_dir) / "uncalibrated_predictions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if (path.parent / "calibration.json").exists():
        path.unlink(missing_ok=True)  # predict refuses them: the checkpoint's temperatures have changed

    def pipeline() -> ChestXrayFindingsPipeline:
        with refuse_bad_input():
            pipe = load_pipeline(evaluation_args, rows)
        pipe.processor.score_temperatures = dict(UNCALIBRATED)
        return pipe

    return predict(evaluation_args, rows, path, pipeline)


def calibration(
    statistics: dict[str, FindingStatistics | DiagnosisStatistics], finding_labels: Sequence[str]
) -> dict[str, Any]:
    """What `calibration.json` says: temperatures, ECE with and without them, and thresholds."""
    note = "Temperatures and thresholds were chosen on this split: on others expect a higher ECE and a lower F1."
    result: dict[str, Any] = {"note": note, "temperatures": {}, "ece": {}}
    for kind, of_kind in statistics.items():
        scores, is_right = of_kind.confidences["before"], of_kind.item_truths
        temperature = fit_temperature(scores, is_right)
        if temperature is None:
            print(f"{kind}: {is_right.sum()} of {len(scores)} scores are right, which tells no temperature.")
        elif temperature in TEMPERATURES:
            print(
                f"{kind}: no temperature from {TEMPERATURES[0]} to {TEMPERATURES[1]} makes these scores probabilities."
            )
        result["temperatures"][kind] = temperature = temperature or 1.0
        name = "findings" if kind == "finding" else "diagnoses"
        result["ece"][name] = calibration_errors(scores, is_right, temperature)
        if kind == "finding":
            matches = of_kind.matches[RIGHT]._replace(score=calibrated(scores, temperature))
            result["pooled"], result["thresholds"] = choose_thresholds(matches, finding_labels)
            if result["pooled"] is None:
                print("No box is right, so no thresholds are chosen.")
    return result


def calibrate_beside(
    result: dict[str, Any], asked: Question, answers: Sequence[dict[str, Any]], finding_labels: Sequence[str]
) -> None:
    """Puts temperatures and thresholds of the boxes beside the answers into `result`, of all that the lines have.

    Thresholds of candidates are those of the findings and the candidates together, temperatures of what answers, or
    views where there are any, and the detector say together are fitted to both, each calibrated by itself.
    """
    known = [answers[index] for index in asked.images]
    true = true_boxes(asked.rows, finding_labels)
    findings = [calibrated_findings(line["findings"], result["temperatures"].get("finding", 1.0)) for line in known]
    said, who, detected = findings, ANSWER, []
    for kind, field in BESIDE.items():
        if not all(field in line for line in known):
            continue
        boxes = [line[field] for line in known]
        if kind == FUSED:
            boxes = [fused_findings(*both, who) for both in zip(said, detected, strict=True)]
        matches = match(boxes, true, float(RIGHT))
        temperature = fit_temperature(matches.score, matches.is_true)
        if temperature is None:
            print(f"{kind}: {matches.is_true.sum()} of {len(matches.score)} boxes are right: no temperature.")
        result["temperatures"][kind] = temperature = temperature or 1.0
        result["ece"][kind] = calibration_errors(matches.score, matches.is_true, temperature)
        boxes = [calibrated_findings(of_image, temperature) for of_image in boxes]
        if kind == DETECTOR:
            detected = boxes
        if kind == VIEW:
            said, who = boxes, VIEW
        reported = boxes
        if kind == CANDIDATE:
            reported = [[*named, *left_out] for named, left_out in zip(findings, boxes, strict=True)]
        result[f"{kind}_thresholds"] = choose_thresholds(match(reported, true, float(RIGHT)), finding_labels)[1]


# --- Temperatures ----------------------------------------------------------------------------------------------------


def fit_temperature(scores: np.ndarray, is_right: np.ndarray) -> float | None:
    """The temperature of greatest likelihood, within `TEMPERATURES`, to four decimals.

    The likelihood has one maximum: it is that of a logistic regression on logit(score) with no intercept, whose slope
    is 1 / temperature.

    Args:
        scores: (n,) uncalibrated, in [0, 1].
        is_right: (n,) bool.

    Returns:
        None where there are fewer than `MIN_SCORES`, or all are right or all are wrong.
    """
    if len(scores) < MIN_SCORES or is_right.all() or not is_right.any():
        return None
    logits = logit(np.clip(scores, CLIP, 1 - CLIP)) * np.where(is_right, 1, -1)

    def negative_log_likelihood(log_temperature: float) -> float:
        return np.logaddexp(0, -logits / np.exp(log_temperature)).mean()

    found = minimize_scalar(
        negative_log_likelihood, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-8}
    )
    return round(float(np.exp(found.x)), 4)


def calibration_errors(scores: np.ndarray, is_right: np.ndarray, temperature: float) -> dict[str, Any]:
    """The calibration error of scores before and after the temperature, None without any, and how many there are."""
    both = {"before": scores, "after": calibrated(scores, temperature)}
    errors = {when: expected_calibration_error(p, is_right, NUM_BINS) if len(p) else None for when, p in both.items()}
    return {**errors, "num_scores": len(scores), "num_right": int(is_right.sum())}


# --- Thresholds ------------------------------------------------------------------------------------------------------


def choose_thresholds(
    matches: Matches, labels: Sequence[str]
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The operating point of all boxes together, and that of each label, `chosen_on` "label" or "pooled".

    Args:
        matches: with calibrated scores.
        labels: of the checkpoint; each gets a threshold.

    Returns:
        None and {} where no box is right.
    """
    pooled = best_threshold(matches)
    if pooled is None:
        return None, {}
    points = {}
    for label in labels:
        own = best_threshold(matches, label) if (matches.true_label == label).sum() >= MIN_BOXES else None
        point = operating_point(matches, pooled if own is None else own, label)
        points[label] = {**point, "chosen_on": "pooled" if own is None else "label"}
    return operating_point(matches, pooled), points


def best_threshold(matches: Matches, label: str | None = None) -> float | None:
    """The score from which on boxes have the best F1; of several such scores the highest.

    It lies in the middle between the lowest score that is kept and the next one, and is 0 where all are kept.

    Args:
        label: of this label alone; None: of the boxes of all labels together.

    Returns:
        None where no box is right.
    """
    recall, precision, scores = precision_recall_curve(matches, label)
    if not precision.any():
        return None
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    best = int(np.argmax(f1.round(12)))  # equal ones may differ in the last bit
    return float(scores[best] + scores[best + 1]) / 2 if best + 1 < len(scores) else 0.0


def operating_point(matches: Matches, threshold: float, label: str | None = None) -> dict[str, Any]:
    """Precision, recall and F1 of the boxes from `threshold` on; None where there is nothing to divide by."""
    right, detections, boxes = box_counts(matches, threshold, label)
    return {
        "threshold": threshold,
        "precision": right / detections if detections else None,
        "recall": right / boxes if boxes else None,
        "f1": 2 * right / (detections + boxes) if detections + boxes else None,
        "num_boxes": boxes,
        "num_detections": detections,
    }


# --- The checkpoint --------------------------------------------------------------------------------------------------


def writable_processor_config(checkpoint: str) -> Path:
    """The file of the checkpoint or adapter that temperatures and thresholds belong in.

    Raises:
        FileNotFoundError: `checkpoint` is no folder, such as a repository on the Hub, or has no such file.
        PermissionError: the folder is read-only.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{checkpoint} is no folder, and calibration writes into the checkpoint: download a checkpoint of the Hub "
            "first (hf download)."
        )
    path = folder / "processor_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the temperatures and thresholds belong in it.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is read-only, and calibration writes into the checkpoint: copy it first.")
    return path


def write_into_checkpoint(path: Path, result: dict[str, Any]) -> None:
    """Puts temperatures and thresholds, as far as `result` has them, into processor_config.json and keeps all else."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["score_temperatures"] = config.get("score_temperatures", {}) | result["temperatures"]
    names = {"thresholds": "score_thresholds"} | {f"{kind}_thresholds": f"{kind}_thresholds" for kind in BESIDE}
    for name, name_there in names.items():
        if name in result:
            config[name_there] = {label: point["threshold"] for label, point in result[name].items()}
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*parse([CalibrationArguments], None, "calibrate.py", __doc__))
