"""Linear probes: what the frozen image tower's features hold of each label, beside two controls.

    parts = nested_parts(num_train, patients)            # {"1": [indices, ...], "10": [...], "100": [indices]}
    scores = probe_scores(train_features, train_truths, test_features, parts["100"][0])   # (test images, labels)

In: features of training and test radiographs, and labels. Out: scores, AUROC with intervals, differences to the
controls. A probe is a logistic regression for each label on features standardised by the training radiographs, with
C = 0.01, never tuned. The controls are probes too: 16 x 16 grey pixels of the same radiographs, and the features of
the same network with random weights. A mean AUROC of .69 on real radiographs is what random weights can give.

CXR-CLIP (arXiv 2310.13292) trains one linear layer by gradient descent instead, with augmentation; its appendix.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import figures_and_intervals, label_aurocs, ranking_figures

PARTS = {"1": 0.01, "10": 0.1, "100": 1.0}  # of the training radiographs
SEEDS = (0, 1, 2)  # of what a part holds
STRENGTH = 0.01  # C of scikit-learn: the inverse of how strongly weights are held down
FEW_IMAGES = 20  # a part of fewer is noise
ROWS_AT_ONCE = 4096
FEATURES = "features"


class ProbeSet(NamedTuple):
    """Radiographs that a probe learns from or is tested on.

    Attributes:
        features: {name: (images, width)}, `FEATURES` and the controls; they may lie in files.
        truths: (images, labels) 1, 0 or NaN.
        patients: (images,) numbers of patients, from 0 on; None where unknown.
    """

    features: Mapping[str, np.ndarray]
    truths: np.ndarray
    patients: np.ndarray | None = None


def nested_parts(
    count: int, patients: np.ndarray | None = None, seeds: Sequence[int] = SEEDS
) -> dict[str, list[np.ndarray]]:
    """{part: sorted indices for each seed}; 100 % has one. Of a seed a smaller part lies within each larger one.

    Patients are drawn, each with all images, until the part has its share of the images, rounded up.

    Args:
        count: of training radiographs.
        patients: (count,) numbers of patients; None: each radiograph is another one's.
    """
    numbers = np.arange(count) if patients is None else np.asarray(patients)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    for seed in seeds:
        # Radiographs in the order in which their patients are drawn.
        place = np.random.default_rng(seed).permutation(numbers.max() + 1)[numbers]
        order = np.argsort(place, kind="stable")
        ends = np.flatnonzero(np.diff(place[order], append=-1)) + 1  # a part ends with a patient's last radiograph
        for name, share in PARTS.items():
            if share < 1:
                end = ends[np.searchsorted(ends, np.ceil(share * count))]
                parts[name].append(np.sort(order[:end]))
    parts["100"] = [np.arange(count)]
    return parts


def probe_scores(train: np.ndarray, truths: np.ndarray, test: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(test images, labels) scores of a logistic regression for each label.

    A label that the part has no positive or no negative radiograph of scores 0 everywhere: an AUROC of .5.

    Args:
        train, test: (images, width) features, which may lie in files.
        truths: (train images, labels) 1, 0 or NaN, which is left out of its label.
        part: indices of the training radiographs that are learnt from. Features are standardised by all of `train`.
    """
    from sklearn.linear_model import LogisticRegression  # a second that others need not wait

    mean, deviation = _moments(train)
    learnt, known = (train[part] - mean) / deviation, np.isfinite(truths[part])
    scores = np.zeros((len(test), truths.shape[1]), dtype=np.float32)
    weights = np.zeros((train.shape[1], truths.shape[1]), dtype=np.float32)
    for label in range(truths.shape[1]):
        chosen = known[:, label]
        answers = truths[part][chosen, label]
        if len(np.unique(answers)) == 2:
            images = learnt if chosen.all() else learnt[chosen]
            weights[:, label] = LogisticRegression(C=STRENGTH, max_iter=1000).fit(images, answers).coef_[0]
    for start in range(0, len(test), ROWS_AT_ONCE):  # the intercept ranks nothing
        scores[start : start + ROWS_AT_ONCE] = ((test[start : start + ROWS_AT_ONCE] - mean) / deviation) @ weights
    return scores


def probe_figures(train: ProbeSet, test: ProbeSet, abnormal: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """What metrics.json says of probes: {part: {"images", "figures", "intervals", "by_seed"}}.

    Of several seeds a figure is the mean of their AUROCs; "images" and "by_seed" have a value for each seed, the
    latter the mean over the labels, {features: {"all" and "abnormal": [value, ...]}}. Figures are named as those of
    zero-shot, with the names of features in the place of wordings, and "features_less_CONTROL", whose intervals are
    of the difference on the same draws.

    Args:
        abnormal: (test images,) bool.
        labels: names of the columns of the truths.
    """
    result = {}
    for part, chosen in nested_parts(len(train.truths), train.patients).items():
        scores = {
            name: [probe_scores(features, train.truths, test.features[name], indices) for indices in chosen]
            for name, features in train.features.items()
        }
        differences = [(FEATURES, name) for name in scores if name != FEATURES]
        statistic = ranking_figures(scores, test.truths, abnormal, labels, differences)
        points, intervals = figures_and_intervals(statistic, len(test.truths), test.patients)
        result[part] = {
            "images": [len(indices) for indices in chosen],
            "figures": nested(points),
            "intervals": nested(intervals),
            "by_seed": {name: _by_seed(given, test.truths, abnormal) for name, given in scores.items()},
        }
    return result


def _by_seed(scores: Sequence[np.ndarray], truths: np.ndarray, abnormal: np.ndarray) -> dict[str, list[float]]:
    def mean(values: np.ndarray, chosen: np.ndarray) -> float | None:
        areas = label_aurocs(values[chosen], truths[chosen], np.ones((1, int(chosen.sum()))))
        return float(np.nanmean(areas)) if np.isfinite(areas).any() else None

    everything = np.ones(len(truths), dtype=bool)
    return {
        among: [mean(values, chosen) for values in scores]
        for among, chosen in (("all", everything), ("abnormal", abnormal))
    }


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(width,) float32 mean and deviation, 1 where a feature never changes; a part of the rows at a time."""
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(features), ROWS_AT_ONCE)]
    mean = sum(features[block].sum(0, dtype=np.float64) for block in blocks) / len(features)
    variance = sum(((features[block] - mean) ** 2).sum(0) for block in blocks) / len(features)
    deviation = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
    return mean.astype(np.float32), deviation.astype(np.float32)
