"""metrics.json: all that is computed from the answers to a split.

In: the lines of predictions.jsonl and the rows that they answer. Out: the headline figures with intervals, controls,
and each task's scores with groups and curves. All are computed by `litegpt.metrics`.

    metrics = score_predictions(lines, rows, ["identify", "vqa"], label_names(dataset))
    metrics["accuracy_at_iou"]["0.4"], metrics["intervals"]["accuracy_at_iou"]["0.4"]  # 0.63, [0.58, 0.67]
    metrics["identify"]["classification"]["per_class"]["Cardiomegaly"]["f1"]
    metrics["identify"]["decisions"]["Finding"]["sensitivity"], metrics["identify"]["decisions"]["Finding"]["ppv"]
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from litegpt.evaluation_scripts.box_sources import source_scores
from litegpt.evaluation_scripts.controls import control_scores, prior_control, shuffled_control
from litegpt.evaluation_scripts.figures import (
    RIGHT,
    UNCALIBRATED,
    DiagnosisStatistics,
    FindingStatistics,
    all_headline_figures,
    headline_figures,
    row_figures,
    row_patients,
    task_statistics,
)
from litegpt.evaluation_scripts.groups import group_figures
from litegpt.evaluation_scripts.questions import by_task, question
from litegpt.evaluation_scripts.row_priors import RowPriors
from litegpt.evaluation_scripts.task_scores import score_texts, task_scores
from litegpt.metrics.boxes import Matches, box_counts, froc_curve, precision_recall_curve
from litegpt.metrics.intervals import bootstrap_intervals
from litegpt.metrics.labels import decisions

CURVE_POINTS = 100


class Calibration(NamedTuple):
    """What `calibrate.py` wrote into a checkpoint."""

    temperatures: dict[str, float] = UNCALIBRATED  # by kind of answer, those that calibrated the scores
    thresholds: dict[str, float] = {}  # operating point of each finding
    source_thresholds: dict[str, dict[str, float]] = {}  # of what is found beside the answers, see `box_sources.py`


def score_predictions(
    predictions: Sequence[dict[str, Any]],
    rows: Iterable[dict[str, Any]],
    tasks: Sequence[str],
    labels: dict[str, list[str]],
    controls: dict[str, Sequence[dict[str, Any]]] | None = None,
    calibration: Calibration | None = None,
    learnt: RowPriors | None = None,
) -> dict[str, Any]:
    """What `metrics.json` says of the answers.

    On top the headline figures: `finding_f1` (F1 of the class Finding; of the diagnoses `vqa_finding_f1`), `micro_f1`
    of each task, `accuracy_at_iou` (all true boxes), `map`, `froc` (at IoU 0.4), `auroc` (diagnoses), `finding_auroc`
    (1 - P(No finding) of the findings' task), `ece` with the temperature taken out (before) and as the answers state
    it (after), and `malformed`, a share of all answers. `intervals` has their 95 % intervals, by patient where the
    rows tell patients, `controls` the same figures of models that are blind to the image (of `prior` those of boxes
    alone), and each task its scores. None stands for what cannot be computed.

    Args:
        predictions: lines of the predictions file, for each task in the order of the rows.
        rows: without their images.
        labels: as `label_names` gives them.
        controls: by name the lines of the answers to images that are no radiographs; image i is given the answer to
            the i-th of them, over and over.
        calibration: of the checkpoint; None: it has none.
        learnt: the rows' location priors, for the control `prior`; None: without it.

    Raises:
        ValueError: no row tells the answer to a task, or an answer names a label that is none of its question's.
    """
    rows = list(rows)
    temperatures, thresholds, source_thresholds = calibration or Calibration()
    questions = [question(task, rows, labels) for task in tasks]
    answers = by_task(predictions, tasks)
    statistics = [task_statistics(asked, answers[asked.task], labels, temperatures) for asked in questions]
    figures = partial(headline_figures, statistics)
    metrics = all_headline_figures(row_figures(figures(np.ones((1, len(rows))))))
    by_label = partial(headline_figures, statistics, by_label=True)
    intervals = bootstrap_intervals(by_label, len(rows), patients=row_patients(rows))
    metrics["intervals"] = all_headline_figures(intervals)
    metrics["controls"] = {"shuffled": shuffled_control(questions, answers, labels, temperatures)}
    for name, lines in (controls or {}).items():
        control_answers = by_task(lines, tasks)
        given = {task: [own[i % len(own)] for i in range(len(rows))] for task, own in control_answers.items()}
        metrics["controls"][name] = control_scores(questions, given, labels, temperatures)
    if learnt is not None:
        metrics["controls"]["prior"] = prior_control(questions, learnt.priors, labels) | {"source": learnt.source}
    for asked, statistic in zip(questions, statistics, strict=True):
        task_answers, num_images = answers[asked.task], len(asked.images)
        scores = task_scores(statistic)
        scores["text"] = score_texts([task_answers[index] for index in asked.images], asked.texts)
        scores["num_unknown"] = len(rows) - num_images
        scores["num_malformed"] = int(statistic.malformed.sum())
        texts = Counter(prediction["answer"] for prediction in task_answers)
        scores["identical"] = {"share": max(texts.values()) / len(rows), "distinct": len(texts)}
        scores["groups"], scores["groups_left_out"] = group_figures(statistic, rows)
        scores["reliability"] = statistic.reliability()
        scores["decisions"] = task_decisions(statistic, thresholds)
        if isinstance(statistic, FindingStatistics):
            patients = row_patients(rows)
            of_images = None if patients is None else np.unique(patients[asked.images], return_inverse=True)[1]
            scores["box_sources"] = source_scores(
                asked, task_answers, labels, of_images, {"answer": thresholds, **source_thresholds}
            )
            scores["curves"] = curves(statistic.matches[RIGHT], num_images)
            # Beyond it the FROC keeps its last sensitivity: there are no more boxes.
            scores["froc_measured_to"] = {
                key: measured_to(matches, num_images) for key, matches in statistic.matches.items()
            }
            scores["operating_points"] = operating_points(statistic.matches[RIGHT], num_images, thresholds)
        metrics[asked.task] = scores
    return metrics


# --- Curves and operating points -------------------------------------------------------------------------------------


def curves(matches: Matches, num_images: int) -> dict[str, Any]:
    """The curves of boxes at the IoU of `RIGHT`, at most a hundred points each.

    Returns:
        "precision_recall", {RIGHT: {"pooled": points, "per_class": {label: points}}} of the labels that have boxes, a
        point is [recall, precision]; "froc", points [false positives an image, sensitivity].
    """
    per_class = {
        label: curve_points(*precision_recall_curve(matches, label)[:2]) for label in sorted(set(matches.true_label))
    }
    pooled = curve_points(*precision_recall_curve(matches)[:2])
    return {
        "precision_recall": {RIGHT: {"pooled": pooled, "per_class": per_class}},
        "froc": curve_points(*froc_curve(matches, num_images)[:2]),
    }


def operating_points(matches: Matches, num_images: int, thresholds: dict[str, float]) -> dict[str, dict[str, Any]]:
    """What the thresholds reach on these images, by label; None where there is nothing to divide by."""
    result = {}
    for label, threshold in thresholds.items():
        right, detections, num_boxes = box_counts(matches, threshold, label)
        result[label] = {
            "threshold": threshold,
            "precision": right / detections if detections else None,
            "recall": right / num_boxes if num_boxes else None,
            "false_positives_per_image": (detections - right) / num_images,
            "num_boxes": num_boxes,
        }
    return result


def measured_to(matches: Matches, num_images: int) -> float:
    """False positives an image that all answered boxes together have: where the FROC's curve ends."""
    return float(np.count_nonzero(~matches.is_true) / num_images)


# --- Decisions -------------------------------------------------------------------------------------------------------


def task_decisions(
    statistic: FindingStatistics | DiagnosisStatistics, thresholds: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Sensitivity, specificity, PPV and NPV with their four counts, of "Finding" and of each label, an image each.

    An image is said to have a finding from one box of its label on whose score is at least the label's threshold (all
    boxes where the checkpoint has no thresholds), and a diagnosis if the answer names it. It is said to have "Finding"
    where it has any of the labels. A malformed answer names no label, and of "Finding" it says what is wrong.
    """
    sets = statistic.label_sets
    if isinstance(statistic, FindingStatistics):
        says = kept_labels(statistic, thresholds)
        says_finding = np.where(sets.is_malformed, ~sets.has_finding, says.any(1))
    else:
        says, says_finding = sets.named, sets.says_finding
    return {
        "Finding": decisions(says_finding, sets.has_finding),
        **{name: decisions(says[:, column], sets.true[:, column]) for column, name in enumerate(sets.labels)},
    }


def kept_labels(statistic: FindingStatistics, thresholds: dict[str, float]) -> np.ndarray:
    """(images, labels) bool, whether an answer has a box of the label with at least its threshold."""
    labels, matches = statistic.label_sets.labels, statistic.matches[RIGHT]
    columns = {label: column for column, label in enumerate(labels)}
    says = np.zeros((len(statistic.images), len(labels)), dtype=bool)
    for image, label, score in zip(matches.image.tolist(), matches.label.tolist(), matches.score, strict=True):
        if score >= thresholds.get(label, 0.0):
            says[image, columns[label]] = True
    return says


# --- Points of curves ------------------------------------------------------------------------------------------------


def curve_points(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """[x, y] of at most `CURVE_POINTS` points of a curve, its ends among them; none where it cannot be computed."""
    if not np.isfinite([*x, *y]).all():
        return []
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).astype(int))
    return [[float(x[i]), float(y[i])] for i in chosen]
