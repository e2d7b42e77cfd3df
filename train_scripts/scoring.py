"""Scores of answers: those of each task, the headline figures with intervals, controls and groups.

The scores of a task come from the metrics in `metrics/`; the headline figures, which agree with them, from
`headline.py`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from datasets import Dataset

from datasets_scripts.instructions import answer
from metrics.box_detection.box_detection import Matches, froc_curve, precision_recall_curve
from processing.pipeline_litegpt import FINDING_TASKS
from train_scripts.headline import (
    ACCURACY_THRESHOLDS,
    DETECTION_THRESHOLDS,
    HEADLINE,
    NUM_BINS,
    RIGHT,
    UNCALIBRATED,
    DiagnosisStatistics,
    FindingStatistics,
    Question,
    headline_figures,
    named_labels,
    nested,
    of_row,
    stated_probabilities,
    task_statistics,
    true_boxes,
    true_diagnoses,
)
from train_scripts.intervals import Name, bootstrap_intervals

METRICS = Path(__file__).resolve().parents[1] / "metrics"
SHUFFLES = 10
SMALLEST_GROUP = 10  # images
AGE_BANDS = ((80, "80+"), (60, "60-79"), (40, "40-59"), (0, "0-39"))  # from this year of age on
CURVE_POINTS = 100


def score_predictions(
    predictions: Sequence[dict[str, Any]],
    rows: Iterable[dict[str, Any]],
    tasks: Sequence[str],
    labels: dict[str, list[str]],
    controls: dict[str, Sequence[dict[str, Any]]] | None = None,
    temperatures: dict[str, float] | None = None,
    thresholds: dict[str, float] | None = None,
) -> dict[str, Any]:
    """What `metrics.json` says of the answers.

    On top the headline figures: `finding_f1` (F1 of the class Finding; of the diagnoses `vqa_finding_f1`), `micro_f1`
    of each task, `accuracy_at_iou` (all true boxes), `map`, `froc` (at IoU 0.4), `auroc` (diagnoses), `finding_auroc`
    (1 - P(No finding) of the findings' task), `ece` with the temperature taken out (before) and as the answers state
    it (after), and `malformed`, a share of all answers. `intervals` has their 95 % intervals, `controls` the same
    figures of models that are blind to the image, and each task its scores. None stands for what cannot be computed.

    Args:
        predictions: lines of the predictions file, for each task in the order of the rows.
        rows: without their images.
        labels: as `label_names` gives them.
        controls: by name the lines of the answers to images that are no radiographs; image i is given the answer to
            the i-th of them, over and over.
        temperatures: the checkpoint's, which calibrated the scores.
        thresholds: the checkpoint's operating points.

    Raises:
        SystemExit: no row tells the answer to a task.
    """
    rows = list(rows)
    temperatures = temperatures or UNCALIBRATED
    questions = [question(task, rows, labels) for task in tasks]
    answers = by_task(predictions, tasks)
    statistics = [task_statistics(of, answers[of.task], labels, temperatures) for of in questions]
    figures = partial(headline_figures, statistics)
    metrics = _headline(of_row(figures(np.ones((1, len(rows))))))
    metrics["intervals"] = _headline(bootstrap_intervals(figures, len(rows)))
    metrics["controls"] = {"shuffled": _shuffled_control(questions, answers, labels, temperatures, len(rows))}
    for name, lines in (controls or {}).items():
        of_control = by_task(lines, tasks)
        given = {task: [of_control[task][i % len(of_control[task])] for i in range(len(rows))] for task in tasks}
        metrics["controls"][name] = _control_scores(questions, given, labels, temperatures, len(rows))
    for of, statistic in zip(questions, statistics, strict=True):
        all_answers = answers[of.task]
        scores = _task_scores(of, all_answers, labels)
        scores["text"] = score_texts([all_answers[index] for index in of.images], of.texts)
        scores["num_unknown"] = len(rows) - len(of.images)
        scores["num_malformed"] = int(statistic.malformed.sum())
        texts = Counter(prediction["answer"] for prediction in all_answers)
        scores["identical"] = {"share": max(texts.values()) / len(rows), "distinct": len(texts)}
        scores["groups"], scores["groups_left_out"] = group_figures(statistic, rows)
        scores["reliability"] = statistic.reliability()
        if isinstance(statistic, FindingStatistics):
            scores["curves"] = curves(statistic.matches, len(of.images))
            scores["operating_points"] = operating_points(statistic.matches[RIGHT], len(of.images), thresholds or {})
        metrics[of.task] = scores
    return metrics


def _headline(figures: dict[Name, Any]) -> dict[str, Any]:
    """All headline figures; those of a task that is not asked are None."""
    return {**dict.fromkeys(HEADLINE), **nested(figures)}


def question(task: str, rows: Sequence[dict[str, Any]], labels: dict[str, list[str]]) -> Question:
    """Raises:
    SystemExit: no row tells the answer.
    """
    texts = [true_answer(row, task, labels) for row in rows]
    known = [index for index, text in enumerate(texts) if text is not None]
    if not known:
        raise SystemExit(f"{task}: no radiograph of this split tells the answer, so there is nothing to score.")
    return Question(task, np.array(known), [rows[index] for index in known], [texts[index] for index in known])


def by_task(predictions: Sequence[dict[str, Any]], tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    return {task: [prediction for prediction in predictions if prediction["task"] == task] for task in tasks}


# --- Scores of one task ----------------------------------------------------------------------------------------------


def label_names(rows: Dataset) -> dict[str, list[str]]:
    return {
        "finding": rows.features["findings"].feature["label"].names,
        "diagnosis": rows.features["diagnoses"].feature.names,
    }


def true_answer(row: dict[str, Any], task: str, labels: dict[str, list[str]]) -> str | None:
    """What the answer should be, or None where the row does not tell it."""
    return answer(row["findings"], row["diagnoses"], task, labels["finding"], labels["diagnosis"])


def score_findings(
    predictions: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], labels: dict[str, list[str]]
) -> dict[str, Any]:
    true = true_boxes(rows, labels)
    predicted = [prediction["findings"] for prediction in predictions]
    return {
        "classification": _computed(
            "finding_classification",
            [named_labels(prediction, "findings") for prediction in predictions],
            [sorted({box["label"] for box in boxes}) for boxes in true],
            labels=labels["finding"],
        ),
        "localization": _computed("box_localization", predicted, true, thresholds=ACCURACY_THRESHOLDS),
        "detection": _computed("box_detection", predicted, true, thresholds=DETECTION_THRESHOLDS),
    }


def score_diagnoses(
    predictions: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], labels: dict[str, list[str]]
) -> dict[str, Any]:
    """`probabilities` is None where the answers have none."""
    names = labels["diagnosis"]
    classification = _computed(
        "finding_classification",
        [named_labels(prediction, "diagnoses") for prediction in predictions],
        [[names[index] for index in row["diagnoses"]] for row in rows],
        labels=names,
    )
    probabilities = stated_probabilities(predictions, names)
    if probabilities is None:
        return {"classification": classification, "probabilities": None}
    truths = true_diagnoses(rows, names)
    return {
        "classification": classification,
        "probabilities": _computed(
            "label_probabilities", probabilities, truths.astype(int), labels=names, num_bins=NUM_BINS
        ),
    }


def score_texts(predictions: Sequence[dict[str, Any]], texts: Sequence[str]) -> dict[str, Any]:
    """Overlap of the answers' wording with the true answers `texts`; a malformed answer is scored as it is."""
    return _computed("text_overlap", [prediction["answer"] for prediction in predictions], list(texts))


# --- Controls and groups ---------------------------------------------------------------------------------------------


def _shuffled_control(
    questions: Sequence[Question],
    answers: dict[str, Sequence[dict[str, Any]]],
    labels: dict[str, list[str]],
    temperatures: dict[str, float],
    num_images: int,
) -> dict[str, Any]:
    """The mean over random cycles, in which every image is given the answer to another one."""
    rng = np.random.default_rng(0)
    shuffled: list[dict[str, list[dict[str, Any]]]] = []
    for _ in range(SHUFFLES):
        given = {}
        for of in questions:
            given[of.task] = list(answers[of.task])
            for image, other in zip(of.images, of.images[_others(len(of.images), rng)], strict=True):
                given[of.task][image] = answers[of.task][other]
        shuffled.append(given)
    rounds = [_control_scores(questions, given, labels, temperatures, num_images) for given in shuffled]
    scores = _mean(rounds)
    for of in questions:  # slow, and one shuffle hardly varies
        scores[of.task]["text"] = score_texts([shuffled[0][of.task][index] for index in of.images], of.texts)
    return scores


def _control_scores(
    questions: Sequence[Question],
    answers: dict[str, Sequence[dict[str, Any]]],
    labels: dict[str, list[str]],
    temperatures: dict[str, float],
    num_images: int,
) -> dict[str, Any]:
    statistics = [task_statistics(of, answers[of.task], labels, temperatures) for of in questions]
    scores = _headline(of_row(headline_figures(statistics, np.ones((1, num_images)))))
    for of in questions:
        scores[of.task] = _task_scores(of, answers[of.task], labels)
    return scores


def _task_scores(of: Question, answers: Sequence[dict[str, Any]], labels: dict[str, list[str]]) -> dict[str, Any]:
    score = score_findings if of.task in FINDING_TASKS else score_diagnoses
    return score([answers[index] for index in of.images], of.rows, labels)


def _others(count: int, rng: np.random.Generator) -> np.ndarray:
    """For each of `count` images another one: a random cycle, so that none keeps its own."""
    order = rng.permutation(count)
    others = np.empty(count, dtype=int)
    others[order] = np.roll(order, 1)
    return others


def _mean(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean of nested dictionaries of numbers, without their lists; None where a number is missing in all of them."""
    result = {}
    for key, value in scores[0].items():
        values = [score[key] for score in scores if score.get(key) is not None]
        if isinstance(value, dict):
            result[key] = _mean(values)
        elif not isinstance(value, list):
            result[key] = float(np.mean(values)) if values else None
    return result


def group_figures(
    statistic: FindingStatistics | DiagnosisStatistics, rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """A task's figures by view, sex and age, of the columns that the rows have with two values or more.

    Returns:
        {column: {value: {"images": number, the headline figures of this task}}}, and {column: images that are in no
        group: of a value with fewer than ten images, or whose row does not tell}.
    """
    groups, left_out = {}, {}
    is_known = np.zeros(len(rows), dtype=bool)
    is_known[statistic.images] = True
    for column in (column for column in ("view", "sex", "age") if column in rows[0]):
        values = np.array([_group(row, column) for row in rows])
        sizes = Counter(values[is_known].tolist())
        sizes.pop("", None)
        if len(sizes) < 2:
            continue
        large = sorted(value for value, size in sizes.items() if size >= SMALLEST_GROUP)
        left_out[column] = len(statistic.images) - sum(sizes[value] for value in large)
        groups[column] = {}
        if large:
            weights = (values == np.array(large)[:, None]).astype(float)
            figures = headline_figures([statistic], weights)
            for i, value in enumerate(large):
                groups[column][value] = {"images": sizes[value], **nested(of_row(figures, i))}
    return groups, left_out


def _group(row: dict[str, Any], column: str) -> str:
    """ "" where the row does not tell."""
    value = row[column]
    if column != "age":
        return value or ""
    if value is None or value < 0:
        return ""
    return next(band for start, band in AGE_BANDS if value >= start)


# --- Curves and operating points -------------------------------------------------------------------------------------


def curves(matches: dict[str, Matches], num_images: int) -> dict[str, Any]:
    """`precision_recall`: by IoU threshold [recall, precision] pooled and of each label that has boxes; `froc`:
    [false positives an image, sensitivity]. At most a hundred points each."""
    precision_recall = {
        key: {
            "pooled": _points(*precision_recall_curve(of)[:2]),
            "per_class": {
                label: _points(*precision_recall_curve(of, label)[:2]) for label in sorted(set(of.true_label))
            },
        }
        for key, of in matches.items()
        if key == RIGHT
    }
    return {"precision_recall": precision_recall, "froc": _points(*froc_curve(matches[RIGHT], num_images)[:2])}


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


def box_counts(matches: Matches, threshold: float, label: str | None = None) -> tuple[int, int, int]:
    """Right boxes and all boxes with a score from `threshold` on, and true boxes; None: of all labels together."""
    # By falling score the matches above a threshold are those that they would be without the rest.
    kept, is_true_box = matches.score >= threshold, np.ones(len(matches.true_label), dtype=bool)
    if label is not None:
        kept, is_true_box = kept & (matches.label == label), matches.true_label == label
    return int((kept & matches.is_true).sum()), int(kept.sum()), int(is_true_box.sum())


def _points(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    if not np.isfinite([*x, *y]).all():
        return []
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).astype(int))
    return [[float(x[i]), float(y[i])] for i in chosen]


def _computed(name: str, predictions: Sequence[Any], references: Sequence[Any], **options: Any) -> dict[str, Any]:
    # `compute` writes predictions and references to Arrow first, which takes longer than most metrics.
    return _metric(name)._compute(predictions=predictions, references=references, **options)


@cache
def _metric(name: str) -> evaluate.Metric:
    return evaluate.load(str(METRICS / name), keep_in_memory=True)
