"""The headline figures of answers, for any weights of the images.

In: a question and the answers to it. Out: what its figures are computed from, once (`task_statistics`), and from that
the figures for rows of weights: an image can count more than once, or not at all. A bootstrap's resamples, groups of
radiographs and the two sides of a paired test are such rows. The definitions are those of `litegpt.metrics`.

    statistics = [task_statistics(asked, answers[asked.task], labels, UNCALIBRATED) for asked in questions]
    figures = headline_figures(statistics, np.ones((1, num_images)))  # each image once
    figures["accuracy_at_iou", "0.4"]  # array([0.63]), a number a row of weights
    headline_figures(statistics, weights, by_label=True)["map", "0.4"]  # (rows, labels), what mAP is the mean of
    nested(row_figures(figures))  # {"accuracy_at_iou": {"0.4": 0.63, ...}, ...}, as in metrics.json
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.questions import (
    Question,
    named_labels,
    stated_probabilities,
    true_boxes,
    true_diagnoses,
    true_labels,
)
from litegpt.metrics.boxes import (
    FALSE_POSITIVES,
    BestOverlaps,
    Matches,
    accuracy_at_iou,
    average_precision,
    best_overlaps,
    froc_sensitivities,
    match,
)
from litegpt.metrics.intervals import Figures, Name, patient_numbers
from litegpt.metrics.labels import LabelSets, finding_f1, micro_f1, read_labels
from litegpt.metrics.probabilities import auroc, expected_calibration_error, reliability
from litegpt.metrics.ratios import macro_mean, number_or_none, ratio
from litegpt.processing.answers import NO_FINDING
from litegpt.processing.box_scores import calibrated
from litegpt.processing.tasks import DIAGNOSES, FINDINGS, TASKS

HEADLINE = (
    "finding_f1",
    "vqa_finding_f1",
    "micro_f1",
    "accuracy_at_iou",
    "map",
    "froc",
    "auroc",
    "finding_auroc",
    "ece",
    "malformed",
)
ACCURACY_THRESHOLDS, DETECTION_THRESHOLDS = (0.3, 0.4, 0.5), (0.4, 0.5)
RIGHT = "0.4"  # a box is right above this IoU: FROC, calibration, operating points (VinDr-CXR's own challenge)
NUM_BINS = 10  # of the calibration error
UNCALIBRATED = {FINDINGS.name: 1.0, DIAGNOSES.name: 1.0}  # temperatures that leave scores as they are


# --- What a task's figures are computed from -------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskStatistics:
    """What a task's figures are computed from.

    Attributes:
        task: such as "identify".
        images: (known,) indices of the images that tell the answer; all other attributes but `malformed` are of them.
        malformed: (images,) bool, of all images.
        label_sets: the labels that are named and true.
        confidences: {"before", "after"}: (items,) scores with the temperature taken out, and as they are; None where
            the answers have none. An item is a box, or an image's diagnosis, named or not.
        item_images: (items,) positions in `images`.
        item_truths: (items,) bool, whether the box is right (IoU above 0.4), the diagnosis true.
    """

    task: str
    images: np.ndarray
    malformed: np.ndarray
    label_sets: LabelSets
    confidences: dict[str, np.ndarray] | None
    item_images: np.ndarray
    item_truths: np.ndarray

    def reliability(self) -> dict[str, Any] | None:
        """The bins of a reliability diagram, before and after calibration."""
        if self.confidences is None:
            return None
        return {when: reliability(p, self.item_truths, NUM_BINS) for when, p in self.confidences.items()}

    def calibration_error(self, when: str, weights: np.ndarray) -> np.ndarray:
        """(rows,) expected calibration error, for (rows, known) weights."""
        if self.confidences is None:
            return np.full(len(weights), np.nan)
        return expected_calibration_error(
            self.confidences[when], self.item_truths, NUM_BINS, weights, self.item_images
        )


@dataclass(frozen=True)
class FindingStatistics(TaskStatistics):
    """Of a task about findings, such as `[identify]`.

    Attributes:
        overlaps: of the true boxes with the predicted ones.
        matches: by IoU threshold.
        finding_probability: (known,) 1 - P(No finding); None where the answers have none.
    """

    overlaps: BestOverlaps
    matches: dict[str, Matches]
    finding_probability: np.ndarray | None

    def figures(self, weights: np.ndarray) -> Figures:
        """(rows, known) weights -> the figures of each row, mAP as (rows, labels): the AP of each label."""
        froc = froc_sensitivities(self.matches[RIGHT], len(self.images), weights=weights)
        finding_auroc = np.full(len(weights), np.nan)
        if self.finding_probability is not None:
            finding_auroc = auroc(self.finding_probability, self.label_sets.has_finding, weights)
        return {
            ("finding_f1",): finding_f1(self.label_sets, weights),
            ("micro_f1", self.task): micro_f1(self.label_sets, weights),
            **{("accuracy_at_iou", str(t)): accuracy_at_iou(self.overlaps, t, weights) for t in ACCURACY_THRESHOLDS},
            **{("map", key): label_precisions(matches, weights) for key, matches in self.matches.items()},
            ("froc", "mean"): froc.mean(-1),
            **{("froc", "sensitivity", f"{n:g}"): froc[:, i] for i, n in enumerate(FALSE_POSITIVES)},
            ("finding_auroc",): finding_auroc,
            **{("ece", "findings", when): self.calibration_error(when, weights) for when in ("before", "after")},
        }


@dataclass(frozen=True)
class DiagnosisStatistics(TaskStatistics):
    """Of a task about diagnoses, such as `[vqa]`.

    Attributes:
        diagnoses: (known, labels) bool, the true ones.
        probabilities: (known, labels); None where the answers have none.
    """

    diagnoses: np.ndarray
    probabilities: np.ndarray | None

    def figures(self, weights: np.ndarray) -> Figures:
        """(rows, known) weights -> the figures of each row, the mean AUROC as (rows, labels): that of each label."""
        names = self.label_sets.labels
        areas = np.full((len(weights), len(names)), np.nan)
        if self.probabilities is not None:
            areas = auroc(self.probabilities, self.diagnoses, weights)
        return {
            ("vqa_finding_f1",): finding_f1(self.label_sets, weights),
            ("micro_f1", self.task): micro_f1(self.label_sets, weights),
            ("auroc", "macro"): areas,
            **{("auroc", name): areas[:, i] for i, name in enumerate(names)},
            **{("ece", "diagnoses", when): self.calibration_error(when, weights) for when in ("before", "after")},
        }


def task_statistics(
    asked: Question,
    answers: Sequence[dict[str, Any]],
    labels: dict[str, list[str]],
    temperatures: dict[str, float] = UNCALIBRATED,
) -> FindingStatistics | DiagnosisStatistics:
    """What the figures of a question are computed from.

    Args:
        answers: to the question, for all images, lines of the predictions file.
        labels: as `label_names` gives them.
        temperatures: by kind of answer, those that calibrated the scores.

    Raises:
        ValueError: an answer names a label that is none of the question's, or has a box or score that is none.
    """
    return STATISTICS[TASKS[asked.task].kind](asked, answers, labels, temperatures)


def _finding_statistics(
    asked: Question,
    answers: Sequence[dict[str, Any]],
    labels: dict[str, list[str]],
    temperatures: dict[str, float],
) -> FindingStatistics:
    known = [answers[index] for index in asked.images]
    predicted, true = [prediction["findings"] for prediction in known], true_boxes(asked.rows, labels[FINDINGS.name])
    matches = {str(threshold): match(predicted, true, threshold) for threshold in DETECTION_THRESHOLDS}
    no_finding = stated_probabilities(known, [NO_FINDING])
    return FindingStatistics(
        **_shared(asked, answers, labels),
        confidences=_confidences(matches[RIGHT].score, temperatures[FINDINGS.name]),
        item_images=matches[RIGHT].image,
        item_truths=matches[RIGHT].is_true,
        overlaps=best_overlaps(predicted, true),
        matches=matches,
        finding_probability=None if no_finding is None else 1 - no_finding[:, 0],
    )


def _diagnosis_statistics(
    asked: Question,
    answers: Sequence[dict[str, Any]],
    labels: dict[str, list[str]],
    temperatures: dict[str, float],
) -> DiagnosisStatistics:
    names = labels[DIAGNOSES.name]
    truths = true_diagnoses(asked.rows, names)
    stated = stated_probabilities([answers[index] for index in asked.images], names)
    return DiagnosisStatistics(
        **_shared(asked, answers, labels),
        confidences=None if stated is None else _confidences(stated.ravel(), temperatures[DIAGNOSES.name]),
        item_images=np.repeat(np.arange(len(truths)), len(names)),
        item_truths=truths.ravel(),
        diagnoses=truths,
        probabilities=stated,
    )


STATISTICS = {FINDINGS: _finding_statistics, DIAGNOSES: _diagnosis_statistics}


def _shared(asked: Question, answers: Sequence[dict[str, Any]], labels: dict[str, list[str]]) -> dict[str, Any]:
    """The fields that all kinds of answers have."""
    kind = TASKS[asked.task].kind
    names = labels[kind.name]
    named = [named_labels(answers[index], kind) for index in asked.images]
    return {
        "task": asked.task,
        "images": asked.images,
        "malformed": np.array([prediction["malformed"] is not None for prediction in answers]),
        "label_sets": read_labels(named, [true_labels(row, kind, names) for row in asked.rows], names, NO_FINDING),
    }


def label_precisions(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """(rows, labels) average precision of the labels that have a true box, NaN where a row lacks it."""
    values = list(average_precision(matches, weights).values())
    return np.array(values).reshape(-1, len(weights)).T


def _confidences(scores: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    """Scores with the temperature taken out, and as they are."""
    scores = np.clip(scores, 0, 1)  # a mean of float32 may lie 1e-7 above one
    return {"before": calibrated(scores, 1 / temperature), "after": scores}


# --- Figures ---------------------------------------------------------------------------------------------------------


def headline_figures(
    statistics: Sequence[FindingStatistics | DiagnosisStatistics], weights: np.ndarray, by_label: bool = False
) -> Figures:
    """The headline figures of all tasks; where two tasks have the same one, it is the later task's.

    Args:
        weights: (rows, images) how often each image counts.
        by_label: gives means over labels as what they are the mean of, for `litegpt.metrics.intervals`.

    Returns:
        Of each row a number, NaN where it cannot be computed; a label that a row lacks is left out of its row's mean.
        With `by_label` mAP and the mean AUROC are (rows, labels), NaN where a row lacks a label.
    """
    figures: Figures = {}
    malformed = np.zeros(len(weights))
    for statistic in statistics:
        figures |= statistic.figures(weights[:, statistic.images])
        malformed += weights @ statistic.malformed
    figures["malformed",] = ratio(malformed, len(statistics) * weights.sum(-1))
    if by_label:
        return figures
    return {name: macro_mean(values) if values.ndim == 2 else values for name, values in figures.items()}


def row_patients(rows: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """(rows,) the number of each row's patient, for intervals by patient; None where no patient has two rows.

    Args:
        rows: with the column `patient_id` if the data set declares it; "" is an unknown patient.
    """
    numbers = patient_numbers([row.get("patient_id") or "" for row in rows])
    return numbers if numbers.max() + 1 < len(rows) else None


def row_figures(figures: Figures, row: int = 0) -> dict[Name, float | None]:
    """The figures of one row of weights, NaN as None."""
    return {name: number_or_none(values[row]) for name, values in figures.items()}


def nested(figures: dict[Name, Any]) -> dict[str, Any]:
    """{("froc", "mean"): value} -> {"froc": {"mean": value}}, as figures stand in metrics.json."""
    result: dict[str, Any] = {}
    for (*path, last), value in figures.items():
        place = result
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return result


def all_headline_figures(figures: dict[Name, Any]) -> dict[str, Any]:
    """`nested`, with None for the figures of tasks that are not asked."""
    return {**dict.fromkeys(HEADLINE), **nested(figures)}
