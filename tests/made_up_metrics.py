"""`metrics.json` as `evaluate_litegpt.py` writes it, every score of a task the same: for tests of what reads it.

    made_up_metrics(value=0.5, tasks=("identify",))["identify"]["detection"]["map"]["0.4"]  # 0.5

In: the score, that of the controls, and the names of tasks in `TASKS`. Out: the figures that tasks of
their kinds have.
"""

from typing import Any

from litegpt.processing.tasks import DIAGNOSES as DIAGNOSES_KIND
from litegpt.processing.tasks import TASKS

DIAGNOSES = ("Pneumonia", "Tuberculosis", "No finding")
FINDINGS = ("Cardiomegaly", "ILD", "Edema")  # no image has the last one
BOX_FIGURES = ("accuracy_at_iou", "map", "froc")
TEXT = ("rouge1", "rouge2", "rougeL", "rougeLsum", "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "cider")


def made_up_metrics(
    value: float = 0.75, blind: float = 0.25, tasks: tuple[str, ...] = ("identify", "vqa"), name: str = "Some-CXR"
) -> dict[str, Any]:
    """Metrics with all figures.

    Args:
        value, blind: all scores of the answers, and of the controls.
        name: the data set's.
    """
    metrics: dict[str, Any] = _headline(tasks, value)
    metrics["intervals"] = _intervals(metrics)
    metrics["controls"] = {
        control: {**_headline(tasks, blind), **{task: _scores(task, blind) for task in tasks}}
        for control in ("shuffled", "noise", "black")
    }
    boxes = [task for task in tasks if TASKS[task].kind.has_boxes]
    if boxes:
        metrics["controls"]["prior"] = _prior(boxes, blind)
    for task in tasks:
        group = {"images": 5, **_headline((task,), value)}
        metrics[task] = {
            **_scores(task, value),
            "num_unknown": 7,
            "num_malformed": 2,
            "identical": {"share": 0.125, "distinct": 17},
            "groups": {"sex": {"F": group, "M": group}},
            "groups_left_out": {"sex": 3},
            "reliability": {"before": _bins(), "after": _bins()},
            "decisions": _decisions(task),
        }
        if TASKS[task].kind.has_boxes:
            points = [[0.0, 1.0], [0.5, 0.75], [1.0, 0.5]]
            curves = {"0.4": {"pooled": points, "per_class": {label: points for label in FINDINGS[:2]}}}
            metrics[task]["froc_measured_to"] = {"0.4": 2.0, "0.5": 2.5}
            metrics[task]["curves"] = {"precision_recall": curves, "froc": [[0.25, 0.25], [2.0, 0.75]]}
            point = {"threshold": 0.3125, "precision": 0.5, "recall": 0.5, "false_positives_per_image": 0.0625}
            metrics[task]["operating_points"] = {"Cardiomegaly": {**point, "num_boxes": 4}}
    metrics["temperatures"] = {"finding": 1.5, "diagnosis": 1.0}
    metrics["thresholds"] = {"Cardiomegaly": 0.3125}
    facts = {"name": name, "license_name": "x", "license_link": None, "split": "test", "radiographs": 1500}
    run = {"checkpoint": "some/checkpoint", "constrained": True, "date": "2026-11-26", "litegpt": "0.1.0"}
    run |= {"trained_on": [name], "caution": None, "not_for_diagnosis": True}
    run |= {"transformers": "5.17.0", "torch": "2.9.0", "python": "3.11.7"}
    bootstrap = {"resamples": 1000, "seed": 0, "unit": "radiograph", "patients": None}
    return {**metrics, "data_set": facts, "weights": {}, "run": run, "bootstrap": bootstrap}


def _headline(tasks: tuple[str, ...], value: float) -> dict[str, Any]:
    kinds = [TASKS[task].kind for task in tasks]
    boxes, diagnoses = any(kind.has_boxes for kind in kinds), DIAGNOSES_KIND in kinds
    sensitivity = dict.fromkeys(("0.125", "0.25", "0.5", "1", "2", "4", "8"), value)
    ece = {"before": value, "after": value}
    return {
        "finding_f1": value if boxes else None,
        "vqa_finding_f1": value if diagnoses else None,
        "micro_f1": dict.fromkeys(tasks, value),
        "accuracy_at_iou": dict.fromkeys(("0.3", "0.4", "0.5"), value) if boxes else None,
        "map": dict.fromkeys(("0.4", "0.5"), value) if boxes else None,
        "froc": {"mean": value, "sensitivity": sensitivity} if boxes else None,
        "auroc": dict.fromkeys(("macro", *DIAGNOSES), value) if diagnoses else None,
        "finding_auroc": value if boxes else None,
        "ece": {"findings": ece if boxes else None, "diagnoses": ece if diagnoses else None},
        "malformed": 0.0,
    }


def _prior(tasks: list[str], value: float) -> dict[str, Any]:
    """The control of boxes alone."""
    of_boxes = {key: scores for key, scores in _headline(tuple(tasks), value).items() if key in BOX_FIGURES}
    scores = {task: {key: _scores(task, value)[key] for key in ("localization", "detection")} for task in tasks}
    source = {"split": "train", "folds": None, "radiographs_with_boxes": 4394}
    return {**dict.fromkeys(_headline((), 0)), **of_boxes, **scores, "source": source}


def _intervals(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {key: _intervals(value) for key, value in figures.items()}
    return None if figures is None else [figures - 0.0625, figures + 0.0625]


def _scores(task: str, value: float) -> dict[str, Any]:
    boxes = TASKS[task].kind.has_boxes
    labels = FINDINGS if boxes else DIAGNOSES
    scores = {"precision": value, "recall": value, "f1": value, "support": 10}
    averages = ("finding", "no_finding", "micro", "macro", "weighted", "samples")
    classification = {**dict.fromkeys(averages, scores), "per_class": dict.fromkeys(labels, scores), "num_images": 93}
    classification["macro_present"] = {**scores, "labels": 2}
    text = {**dict.fromkeys(TEXT, value), "meteor": None, "meteor_without_synonyms": value, "num_images": 93}
    if not boxes:
        per_label = dict.fromkeys(labels, value)
        probabilities = {"auroc": per_label, "macro_auroc": value, "average_precision": per_label}
        return {"classification": classification, "text": text, "probabilities": probabilities}
    accuracies = dict.fromkeys(("0.3", "0.4", "0.5"), value)
    localization = {
        **dict.fromkeys(("accuracy_at_iou", "accuracy_at_iou_matched", "accuracy_at_iou_release"), accuracies),
        "per_class": {label: {"num_boxes": 6, "accuracy_at_iou": accuracies} for label in labels[:2]},
        "num_boxes": 12,
        "num_matched_boxes": 8,
    }
    sensitivity = dict.fromkeys(("0.125", "0.25", "0.5", "1", "2", "4", "8"), value)
    detection = {
        "map": {"0.4": value, "0.5": value},
        "average_precision": {label: {"0.4": value, "0.5": value} for label in labels[:2]},
        "froc": dict.fromkeys(("0.4", "0.5"), {"sensitivity": sensitivity, "mean": value}),
        "num_boxes": 12,
        "num_detections": 14,
    }
    return {"classification": classification, "localization": localization, "detection": detection, "text": text}


def _decisions(task: str) -> dict[str, dict[str, Any]]:
    """Of 40 images with each label, and of none with the last one."""
    counts = {"true_positives": 30, "false_positives": 10, "true_negatives": 43, "false_negatives": 10}
    counts |= {"sensitivity": 0.75, "specificity": 43 / 53, "ppv": 0.75, "npv": 43 / 53}
    absent = {"true_positives": 0, "false_positives": 3, "true_negatives": 90, "false_negatives": 0}
    absent |= {"sensitivity": None, "specificity": 90 / 93, "ppv": 0.0, "npv": 1.0}
    *labels, last = FINDINGS if TASKS[task].kind.has_boxes else DIAGNOSES
    return {**dict.fromkeys(("Finding", *labels), counts), last: absent}


def _bins() -> list[dict[str, Any]]:
    """The lower half is empty."""
    empty = {"confidence": None, "frequency": None, "count": 0}
    return [
        {
            "low": i / 10,
            "high": (i + 1) / 10,
            **(empty if i < 5 else {"confidence": i / 10, "frequency": 1, "count": 9}),
        }
        for i in range(10)
    ]
