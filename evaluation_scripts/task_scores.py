"""All scores of the answers to one task, each image counted once: what metrics.json has under the task's name.

In: the statistics of a task, and texts. Out: dictionaries, as the modules of `metrics/` return them.

    scores = task_scores(task_statistics(asked, answers, labels))
    scores["classification"]["micro"]["f1"], scores["localization"]["accuracy_at_iou"]["0.4"]
    scores["text"] = score_texts([answers[index] for index in asked.images], asked.texts)
"""

from collections.abc import Sequence
from typing import Any

from litegpt.evaluation_scripts.figures import (
    ACCURACY_THRESHOLDS,
    NUM_BINS,
    DiagnosisStatistics,
    FindingStatistics,
)
from litegpt.metrics.boxes import detection_scores, localization_scores
from litegpt.metrics.labels import classification_scores
from litegpt.metrics.probabilities import probability_scores
from litegpt.processing.tasks import DIAGNOSES, FINDINGS, TASKS


def task_scores(statistics: FindingStatistics | DiagnosisStatistics) -> dict[str, Any]:
    """The scores of the answers to images that tell them.

    Returns:
        "classification"; of findings also "localization" and "detection"; of diagnoses also "probabilities", None
        where the answers have none.
    """
    return {
        "classification": classification_scores(statistics.label_sets),
        **SCORES[TASKS[statistics.task].kind](statistics),
    }


def _box_scores(statistics: FindingStatistics) -> dict[str, Any]:
    return {
        "localization": localization_scores(statistics.overlaps, ACCURACY_THRESHOLDS),
        "detection": detection_scores(statistics.matches, len(statistics.images)),
    }


def _probability_scores(statistics: DiagnosisStatistics) -> dict[str, Any]:
    if statistics.probabilities is None:
        return {"probabilities": None}
    names = statistics.label_sets.labels
    return {"probabilities": probability_scores(statistics.probabilities, statistics.diagnoses, names, NUM_BINS)}


SCORES = {FINDINGS: _box_scores, DIAGNOSES: _probability_scores}


def score_texts(predictions: Sequence[dict[str, Any]], texts: Sequence[str]) -> dict[str, Any]:
    """Overlap of the answers' wording with the true answers `texts`; a malformed answer is scored as it is."""
    # NLTK and the other libraries of texts take seconds to import, which most users of this file need not wait.
    from litegpt.metrics.text_overlap.text_overlap import text_scores

    return text_scores([prediction["answer"] for prediction in predictions], texts)
