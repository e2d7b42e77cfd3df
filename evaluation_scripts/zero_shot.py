"""Zero-shot: how well sentences alone tell radiographs with a label from those without it.

    pairs = pair_vectors([evaluation_pair("Edema"), evaluation_pair("Mass")], vector_of)   # vector_of: {text: vector}
    scores = pair_scores(image_vectors, pairs)       # (images, 2): cosine with the positive less the other
    macro_auroc(image_vectors, pairs, truths)        # 0.83, the mean over the labels: for validation in training

In: vectors of length 1 of radiographs and sentences. Out: scores and figures. A side's vector is the mean of its
sentences' vectors, brought to length 1 again. CXR-CLIP's softmax over the two cosines ranks as their difference does.

    class_scores(image_vectors, [class_prompts(label) for label in FIVE], vector_of).argmax(1)   # CheXpert 5x200

Source: CXR-CLIP (arXiv 2310.13292), section 4.3 and its released code; the five classes: GLoRIA (ICCV 2021), 4.3.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from litegpt.datasets_scripts.label_prompts import Pair, evaluation_pair
from litegpt.datasets_scripts.tables import plain
from litegpt.evaluation_scripts.controls import SHUFFLES, random_cycle
from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import (
    ANYTHING_THERE,
    figures_and_intervals,
    label_aurocs,
    ranking_figures,
)
from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import macro_mean, ratio

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")  # CheXpert's competition
NAMES_OF_FIVE = {plain(name): (plain(name),) for name in FIVE[:-1]} | {
    "pleural effusion": ("pleural effusion", "effusion")
}
SHUFFLED = "shuffled"


class PairVectors(NamedTuple):
    """(labels, dimensions) vectors of length 1 of the two sides; NaN where a label has no sentences."""

    positive: np.ndarray
    negative: np.ndarray


def pair_vectors(pairs: Sequence[Pair | None], vector_of: Mapping[str, np.ndarray]) -> PairVectors:
    """One vector a side, of the labels' sentences.

    Args:
        pairs: of each label; None: it has no sentences.
        vector_of: {sentence: vector of length 1}.
    """
    dimensions = len(next(iter(vector_of.values())))
    nothing = np.full(dimensions, np.nan, dtype=np.float32)

    def side(texts: Sequence[str]) -> np.ndarray:
        mean = np.mean([vector_of[text] for text in texts], axis=0, dtype=np.float64)
        return (mean / np.linalg.norm(mean)).astype(np.float32)

    sides = [(nothing, nothing) if pair is None else tuple(map(side, pair)) for pair in pairs]
    return PairVectors(*(np.stack(vectors) for vectors in zip(*sides, strict=True)))


def pair_scores(image_vectors: np.ndarray, pairs: PairVectors) -> np.ndarray:
    """(images, labels): cosine with the positive side less that with the negative one, from -2 to 2."""
    return image_vectors @ (pairs.positive - pairs.negative).T


def macro_auroc(image_vectors: np.ndarray, pairs: PairVectors, truths: np.ndarray) -> float:
    """The mean AUROC over the labels that have both kinds of radiographs; NaN where none has.

    Args:
        image_vectors: (images, dimensions) of length 1.
        truths: (images, labels) 1, 0 or NaN for unknown.
    """
    return macro_mean(label_aurocs(pair_scores(image_vectors, pairs), truths, np.ones((1, len(truths))))[0])


def wording_pairs(labels: Sequence[str], wording: str) -> list[Pair | None]:
    """The pairs of all labels; None for one that has none in this wording."""

    def pair(label: str) -> Pair | None:
        try:
            return evaluation_pair(label, wording)
        except ValueError:
            return None

    return [pair(label) for label in labels]


def zero_shot_scores(
    image_vectors: np.ndarray,
    pairs: Mapping[str, PairVectors],
    truths: np.ndarray,
    abnormal: np.ndarray,
    labels: Sequence[str],
    patients: np.ndarray | None = None,
) -> dict[str, Any]:
    """What metrics.json says of zero-shot, without the labels that are left out.

    "figures" and "intervals": {score: {"all" and "abnormal": {"macro": value, "per_label": {label: value}}}} of AUROC.
    A score is a wording, `SHUFFLED` (the first wording's, each radiograph with another one's vector, the mean of ten
    shuffles), `ANYTHING_THERE`, and the first wording less either. Of wordings there are "accuracy" and "f1" too,
    means over the labels, where a radiograph has the label if its score is above 0.

    Args:
        pairs: by wording; the first one is the headline.
        truths: (images, labels) 1, 0 or NaN.
        abnormal: (images,) bool.
        patients: as `bootstrap_intervals` takes them.
    """
    first = next(iter(pairs))
    scores = {wording: pair_scores(image_vectors, vectors) for wording, vectors in pairs.items()}
    said = {wording: decision_counts(values, truths) for wording, values in scores.items()}
    rng = np.random.default_rng(0)
    shuffled = [scores[first][random_cycle(len(image_vectors), rng)] for _ in range(SHUFFLES)]
    ranking = ranking_figures(
        {**scores, SHUFFLED: shuffled},
        truths,
        abnormal,
        labels,
        [(first, SHUFFLED), (first, ANYTHING_THERE)],
    )

    def statistic(weights: np.ndarray) -> Figures:
        figures = ranking(weights)
        for wording, (right, known, hits, misses) in said.items():
            figures[wording, "accuracy"] = ratio(weights @ right, weights @ known)
            figures[wording, "f1"] = ratio(2 * (weights @ hits), 2 * (weights @ hits) + weights @ misses)
        return figures

    points, intervals = figures_and_intervals(statistic, len(truths), patients)
    return {
        "wordings": list(pairs),
        "labels": {
            label: {
                "positives": int((truths[:, place] == 1).sum()),
                "negatives": int((truths[:, place] == 0).sum()),
                "abnormal_negatives": int((truths[abnormal, place] == 0).sum()),
            }
            for place, label in enumerate(labels)
        },
        "figures": nested(points),
        "intervals": nested(intervals),
    }


def decision_counts(scores: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, ...]:
    """(images, labels) of 0 and 1 each: right, known, true positive, and false positive or negative; argmax of two."""
    known = np.isfinite(truths) & np.isfinite(scores)
    says, is_true = known & (scores > 0), known & (truths == 1)
    return tuple(part.astype(float) for part in (known & (says == is_true), known, says & is_true, says != is_true))


# --- The five classes ------------------------------------------------------------------------------------------------


def five_columns(labels: Sequence[str]) -> list[int] | None:
    """Columns of CheXpert's five competition labels; None where the data lacks one."""
    places = {plain(label): place for place, label in enumerate(labels)}
    columns = [next((places[name] for name in names if name in places), None) for names in NAMES_OF_FIVE.values()]
    return None if None in columns else columns


def five_classes(truths: np.ndarray) -> np.ndarray:
    """(images,) the one of five labels that is positive; -1 for a radiograph with none or several of them."""
    positive = truths == 1
    return np.where(positive.sum(1) == 1, positive.argmax(1), -1)


def class_scores(
    image_vectors: np.ndarray, prompts: Sequence[Sequence[str]], vector_of: Mapping[str, np.ndarray]
) -> np.ndarray:
    """(images, classes): the mean cosine over all of a class's sentences."""
    means = [np.mean([vector_of[text] for text in texts], axis=0) for texts in prompts]
    return image_vectors @ np.stack(means).T


def class_accuracy(scores: np.ndarray, classes: np.ndarray, patients: np.ndarray | None = None) -> dict[str, Any]:
    """Accuracy of the highest score, with its interval, the shuffled control and the commonest class's share.

    Args:
        scores: (images, classes).
        classes: (images,) the true one of each.
    """
    right = (scores.argmax(1) == classes).astype(float)
    rng = np.random.default_rng(0)
    guesses = [scores[random_cycle(len(classes), rng)].argmax(1) for _ in range(SHUFFLES)]
    shuffled = np.mean([guess == classes for guess in guesses], axis=0)

    def statistic(weights: np.ndarray) -> Figures:
        total = weights.sum(1)
        figures = {("accuracy",): weights @ right / total, (SHUFFLED,): weights @ shuffled / total}
        figures[f"accuracy_less_{SHUFFLED}",] = figures["accuracy",] - figures[SHUFFLED,]
        return figures

    points, intervals = figures_and_intervals(statistic, len(classes), patients)
    counts = np.bincount(classes, minlength=scores.shape[1])
    return {
        "images": len(classes),
        "counts": counts.tolist(),
        "commonest": float(counts.max() / len(classes)),
        "figures": nested(points),
        "intervals": nested(intervals),
    }
