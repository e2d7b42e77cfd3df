"""Scores of models that are blind to the image: what answers are worth that know nothing of it.

In: questions, and answers that were given to other images, or boxes that lie where those of a training do. Out: the
headline figures and each task's scores, as metrics.json has them of the real answers.

    shuffled_control(questions, answers, labels, temperatures)["identify"]["classification"]["micro"]["f1"]
    prior_control(questions, row_priors(rows, others).priors, labels)["accuracy_at_iou"]["0.4"]
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.figures import (
    all_headline_figures,
    headline_figures,
    nested,
    row_figures,
    task_statistics,
)
from litegpt.evaluation_scripts.questions import Question, true_boxes
from litegpt.evaluation_scripts.row_priors import Prior
from litegpt.evaluation_scripts.task_scores import score_texts, task_scores
from litegpt.metrics.boxes import best_overlaps
from litegpt.processing.tasks import FINDINGS, TASKS

SHUFFLES = 10
PRIOR_FIGURES = ("accuracy_at_iou", "map", "froc")  # it answers no question: of what it names there is no figure


def shuffled_control(
    questions: Sequence[Question],
    answers: dict[str, Sequence[dict[str, Any]]],
    labels: dict[str, list[str]],
    temperatures: dict[str, float],
) -> dict[str, Any]:
    """The mean over random cycles, in which every image is given the answer to another one.

    Args:
        answers: to each task, for all images.
        labels, temperatures: as `task_statistics` takes them.
    """
    rng = np.random.default_rng(0)
    shuffled: list[dict[str, list[dict[str, Any]]]] = []
    for _ in range(SHUFFLES):
        given = {}
        for asked in questions:
            given[asked.task] = list(answers[asked.task])
            for image, other in zip(asked.images, asked.images[random_cycle(len(asked.images), rng)], strict=True):
                given[asked.task][image] = answers[asked.task][other]
        shuffled.append(given)
    scores = _mean([control_scores(questions, given, labels, temperatures) for given in shuffled])
    for asked in questions:  # slow, and one shuffle hardly varies
        scores[asked.task]["text"] = score_texts(
            [shuffled[0][asked.task][index] for index in asked.images], asked.texts
        )
    return scores


def control_scores(
    questions: Sequence[Question],
    answers: dict[str, Sequence[dict[str, Any]]],
    labels: dict[str, list[str]],
    temperatures: dict[str, float],
) -> dict[str, Any]:
    """The headline figures and each task's scores, those of texts excepted.

    Args:
        answers: to each task, for all images.
        labels, temperatures: as `task_statistics` takes them.
    """
    statistics = [task_statistics(asked, answers[asked.task], labels, temperatures) for asked in questions]
    weights = np.ones((1, len(statistics[0].malformed)))
    scores = all_headline_figures(row_figures(headline_figures(statistics, weights)))
    return scores | {statistic.task: task_scores(statistic) for statistic in statistics}


def prior_control(
    questions: Sequence[Question], priors: Sequence[Prior], labels: dict[str, list[str]]
) -> dict[str, Any]:
    """The figures of boxes that are given to radiographs whatever they show, and of each task about findings its own.

    Acc@IoU is that of the best box of each label, as if the labels were told: it counts no false box. Average
    precision and FROC are those of the few boxes that cover most, by their scores.

    Args:
        priors: of each image.
    """
    scores = all_headline_figures({})
    answers = [{"findings": prior.boxes, "malformed": None} for prior in priors]
    best = [[{"label": label, "box": box} for label, box in prior.best.items()] for prior in priors]
    for asked in questions:
        if TASKS[asked.task].kind is FINDINGS:
            overlaps = best_overlaps([best[i] for i in asked.images], true_boxes(asked.rows, labels[FINDINGS.name]))
            statistic = replace(task_statistics(asked, answers, labels), overlaps=overlaps)
            figures = row_figures(headline_figures([statistic], np.ones((1, len(answers)))))
            scores |= nested({name: value for name, value in figures.items() if name[0] in PRIOR_FIGURES})
            scores[asked.task] = task_scores(statistic)
            del scores[asked.task]["classification"]
    return scores


def random_cycle(count: int, rng: np.random.Generator) -> np.ndarray:
    """For each of `count` images the index of another one: one cycle, so that none keeps its own."""
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
