"""Scores of models that are blind to the image: what answers are worth that know nothing of it.

In: questions, and answers that were given to other images. Out: the headline figures and each task's scores, as
metrics.json has them of the real answers.

    shuffled_control(questions, answers, labels, temperatures)["identify"]["classification"]["micro"]["f1"]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.figures import all_headline_figures, headline_figures, row_figures, task_statistics
from litegpt.evaluation_scripts.questions import Question
from litegpt.evaluation_scripts.task_scores import score_texts, task_scores

SHUFFLES = 10


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
