"""The headline figures of answers, from counts of each image.

An image can count more than once, or not at all: the bootstrap's resamples, groups of radiographs and the two sides of
a paired test are rows of weights, and their figures are products with the counts. The definitions are those of the
metrics in `metrics/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from metrics.box_detection.box_detection import (
    FALSE_POSITIVES,
    ROUNDING,
    Matches,
    froc_sensitivities,
    iou_of_pairs,
    match,
    mean_average_precision,
)
from metrics.label_probabilities.label_probabilities import auroc, reliability
from processing.answers import NO_FINDING
from processing.pipeline_litegpt import FINDING_TASKS, calibrated
from train_scripts.intervals import Figures, Name, number_or_none

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
UNCALIBRATED = {"finding": 1.0, "diagnosis": 1.0}  # temperatures that leave scores as they are


class Question(NamedTuple):
    """A task, and the images that tell its answer: their indices, their rows, and the true answers."""

    task: str
    images: np.ndarray
    rows: list[dict[str, Any]]
    texts: list[str]


@dataclass(frozen=True)
class TaskStatistics:
    """What a task's figures are sums of.

    Attributes:
        task: such as "identify".
        images: (known,) indices of the images that tell the answer; all other arrays but `malformed` are of them.
        malformed: (images,) bool, of all images.
        labels: (known, 3) labels named rightly, named, true.
        finding: (known, 3) whether the image rightly is said to have a finding, is said to, has one.
        confidences: {"before", "after"}: (items,) scores with the temperature taken out, and as they are; None where
            the answers have none. An item is a box, or an image's diagnosis, named or not.
        item_images: (items,) positions in `images`.
        item_truths: (items,) bool, whether the box is right (IoU above 0.4), the diagnosis true.
    """

    task: str
    images: np.ndarray
    malformed: np.ndarray
    labels: np.ndarray
    finding: np.ndarray
    confidences: dict[str, np.ndarray] | None
    item_images: np.ndarray
    item_truths: np.ndarray

    def reliability(self) -> dict[str, Any] | None:
        """The bins of a reliability diagram, before and after calibration."""
        if self.confidences is None:
            return None
        return {when: reliability(p, self.item_truths, NUM_BINS) for when, p in self.confidences.items()}

    def calibration_error(self, when: str, weights: np.ndarray) -> np.ndarray:
        """(rows,) expected calibration error of `label_probabilities`, for (rows, known) weights."""
        if self.confidences is None:
            return np.full(len(weights), np.nan)
        confidence = self.confidences[when]
        edges = np.arange(1, NUM_BINS) / NUM_BINS
        place = self.item_images * NUM_BINS + np.searchsorted(edges, confidence, side="left")
        size = len(self.images) * NUM_BINS
        gaps = np.bincount(place, weights=confidence - self.item_truths, minlength=size)
        counts = np.bincount(self.item_images, minlength=len(self.images))
        return _ratio(np.abs(weights @ gaps.reshape(-1, NUM_BINS)).sum(-1), weights @ counts)


@dataclass(frozen=True)
class FindingStatistics(TaskStatistics):
    """Of `[identify]` or `[grounding]`.

    Attributes:
        boxes: (known, 4) true boxes, and those found at `ACCURACY_THRESHOLDS`.
        matches: by IoU threshold.
        finding_probability: (known,) 1 - P(No finding); None where the answers have none.
    """

    boxes: np.ndarray
    matches: dict[str, Matches]
    finding_probability: np.ndarray | None

    def figures(self, weights: np.ndarray) -> Figures:
        """(rows, known) weights -> the figures of each row."""
        boxes = weights @ self.boxes
        found = {str(threshold): boxes[:, i] for i, threshold in enumerate(ACCURACY_THRESHOLDS, start=1)}
        froc = froc_sensitivities(self.matches[RIGHT], len(self.images), weights=weights)
        finding_auroc = np.full(len(weights), np.nan)
        if self.finding_probability is not None:
            finding_auroc = auroc(self.finding_probability, self.finding[:, 2], weights)
        return {
            ("finding_f1",): _f1(weights @ self.finding),
            ("micro_f1", self.task): _f1(weights @ self.labels),
            **{("accuracy_at_iou", key): _ratio(number, boxes[:, 0]) for key, number in found.items()},
            **{("map", key): mean_average_precision(matches, weights) for key, matches in self.matches.items()},
            ("froc", "mean"): froc.mean(-1),
            **{("froc", "sensitivity", f"{n:g}"): froc[:, i] for i, n in enumerate(FALSE_POSITIVES)},
            ("finding_auroc",): finding_auroc,
            **{("ece", "findings", when): self.calibration_error(when, weights) for when in ("before", "after")},
        }


@dataclass(frozen=True)
class DiagnosisStatistics(TaskStatistics):
    """Of `[vqa]`.

    Attributes:
        diagnoses: (known, labels) bool, the true ones.
        probabilities: (known, labels); None where the answers have none.
        names: of the labels.
    """

    diagnoses: np.ndarray
    probabilities: np.ndarray | None
    names: list[str]

    def figures(self, weights: np.ndarray) -> Figures:
        """(rows, known) weights -> the figures of each row. A label without an AUROC is left out of its row's mean."""
        areas = np.full((len(weights), len(self.names)), np.nan)
        if self.probabilities is not None:
            areas = auroc(self.probabilities, self.diagnoses, weights)
        known = np.isfinite(areas)
        return {
            ("vqa_finding_f1",): _f1(weights @ self.finding),
            ("micro_f1", self.task): _f1(weights @ self.labels),
            ("auroc", "macro"): _ratio(np.where(known, areas, 0).sum(-1), known.sum(-1)),
            **{("auroc", name): areas[:, i] for i, name in enumerate(self.names)},
            **{("ece", "diagnoses", when): self.calibration_error(when, weights) for when in ("before", "after")},
        }


def headline_figures(statistics: Sequence[FindingStatistics | DiagnosisStatistics], weights: np.ndarray) -> Figures:
    """The headline figures of all tasks; where two tasks have the same one, it is the later task's.

    Args:
        weights: (rows, images) how often each image counts.

    Returns:
        Of each row a number, NaN where it cannot be computed.
    """
    figures: Figures = {}
    malformed = np.zeros(len(weights))
    for of_task in statistics:
        figures |= of_task.figures(weights[:, of_task.images])
        malformed += weights @ of_task.malformed
    figures["malformed",] = _ratio(malformed, len(statistics) * weights.sum(-1))
    return figures


def task_statistics(
    of: Question, answers: Sequence[dict[str, Any]], labels: dict[str, list[str]], temperatures: dict[str, float]
) -> FindingStatistics | DiagnosisStatistics:
    """Args:
    answers: to the question, for all images.
    """
    malformed = np.array([prediction["malformed"] is not None for prediction in answers])
    known = [answers[index] for index in of.images]
    shared = {"task": of.task, "images": of.images, "malformed": malformed}
    if of.task not in FINDING_TASKS:
        names = labels["diagnosis"]
        probabilities, truths = stated_probabilities(known, names), true_diagnoses(of.rows, names)
        true_names = [{names[index] for index in row["diagnoses"]} for row in of.rows]
        named = [set(named_labels(prediction, "diagnoses")) & set(names) for prediction in known]
        confidences = None if probabilities is None else _confidences(probabilities.ravel(), temperatures["diagnosis"])
        return DiagnosisStatistics(
            **shared,
            labels=_label_counts(named, true_names),
            finding=_finding_counts(true_names, named, malformed[of.images]),
            confidences=confidences,
            item_images=np.repeat(np.arange(len(known)), len(names)),
            item_truths=truths.ravel(),
            diagnoses=truths,
            probabilities=probabilities,
            names=names,
        )
    true = true_boxes(of.rows, labels)
    predicted = [prediction["findings"] for prediction in known]
    true_names = [{box["label"] for box in boxes} for boxes in true]
    named = [{box["label"] for box in boxes} for boxes in predicted]
    matches = {str(threshold): match(predicted, true, threshold) for threshold in DETECTION_THRESHOLDS}
    no_finding = stated_probabilities(known, [NO_FINDING])
    return FindingStatistics(
        **shared,
        labels=_label_counts(named, true_names),
        finding=_finding_counts(true_names, named, malformed[of.images]),
        confidences=_confidences(matches[RIGHT].score, temperatures["finding"]),
        item_images=matches[RIGHT].image,
        item_truths=matches[RIGHT].is_true,
        boxes=_found_boxes(predicted, true),
        matches=matches,
        finding_probability=None if no_finding is None else 1 - no_finding[:, 0],
    )


def of_row(figures: Figures, row: int = 0) -> dict[Name, float | None]:
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


# --- Answers and rows as arrays --------------------------------------------------------------------------------------


def _confidences(probabilities: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    probabilities = np.clip(probabilities, 0, 1)  # a mean of float32 may lie 1e-7 above one
    return {"before": calibrated(probabilities, 1 / temperature), "after": probabilities}


def named_labels(prediction: dict[str, Any], what: str) -> list[str]:
    """The labels that an answer names; none for a malformed one, which the metric counts as wrong."""
    if prediction["malformed"] is not None:
        return []
    return sorted({item["label"] for item in prediction[what]}) or [NO_FINDING]


def true_boxes(rows: Sequence[dict[str, Any]], labels: dict[str, list[str]]) -> list[list[dict[str, Any]]]:
    names = labels["finding"]
    return [[{"label": names[item["label"]], "box": item["box"]} for item in row["findings"]] for row in rows]


def true_diagnoses(rows: Sequence[dict[str, Any]], names: list[str]) -> np.ndarray:
    """(rows, labels) bool."""
    truths = np.zeros((len(rows), len(names)), dtype=bool)
    for index, row in enumerate(rows):
        truths[index, row["diagnoses"]] = True
    return truths


def stated_probabilities(predictions: Sequence[dict[str, Any]], names: Sequence[str]) -> np.ndarray | None:
    """(predictions, names); None where an answer has none, as without constrained decoding."""
    stated = [prediction.get("probabilities") or {} for prediction in predictions]  # older files lack them
    if not all(name in of for of in stated for name in names):
        return None
    return np.clip([[of[name] for name in names] for of in stated], 0, 1)


def _label_counts(named: Sequence[set[str]], true: Sequence[set[str]]) -> np.ndarray:
    """(images, 3): labels named rightly, named, true."""
    return np.array([[len(a & b), len(a), len(b)] for a, b in zip(named, true, strict=True)], dtype=float)


def _finding_counts(true: Sequence[set[str]], named: Sequence[set[str]], malformed: np.ndarray) -> np.ndarray:
    """(images, 3): rightly said to have a finding, said to, having one. What is malformed is wrong."""
    has_finding = np.array([bool(names - {NO_FINDING}) for names in true])
    says_finding = np.array([bool(names - {NO_FINDING}) for names in named])
    says_finding = np.where(malformed, ~has_finding, says_finding)
    return np.stack([has_finding & says_finding, says_finding, has_finding], axis=1).astype(float)


def _found_boxes(predicted: Sequence[list[dict[str, Any]]], true: Sequence[list[dict[str, Any]]]) -> np.ndarray:
    """(images, 1 + thresholds): true boxes, and those with a predicted box of their label above each IoU threshold."""
    image_of, pairs = [], []  # of each true box; (number of a true box, its box, a predicted box of its label)
    for image, (boxes, stated) in enumerate(zip(true, predicted, strict=True)):
        for box in boxes:
            same = [other["box"] for other in stated if other["label"] == box["label"]]
            pairs += [(len(image_of), *box["box"], *other) for other in same]
            image_of.append(image)
    best, values = np.zeros(len(image_of)), np.array(pairs, dtype=float).reshape(-1, 9)
    np.maximum.at(best, values[:, 0].astype(int), iou_of_pairs(values[:, 1:5], values[:, 5:]))
    columns = [np.ones(len(best)), *(best > threshold + ROUNDING for threshold in ACCURACY_THRESHOLDS)]
    places = np.array(image_of, dtype=int)
    return np.stack([np.bincount(places, weights=column, minlength=len(true)) for column in columns], axis=1)


def _f1(counts: np.ndarray) -> np.ndarray:
    """(rows,) of (rows, 3) counts: right, predicted, true; 0 where nothing is predicted or true."""
    return np.nan_to_num(_ratio(2 * counts[:, 0], counts[:, 1] + counts[:, 2]))


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    return np.divide(
        numerators, denominators, out=np.full(np.shape(numerators), np.nan), where=np.asarray(denominators) > 0
    )
