"""How sure a figure is: bootstrap intervals of one run, and a paired test between two.

In: a function from weights, how often each image counts, to figures. A resample counts each image as often as it was
drawn, so nothing is scored again, and the weights of many resamples are one matrix, (rows, images). Out: an interval
of each figure, or how two runs differ in it. Where a patient has several images, patients are drawn, each with all of
its images.

    hits = np.array([1.0, 1.0, 0.0, 1.0])
    accuracy = lambda weights: {("accuracy",): weights @ hits / weights.sum(-1)}
    bootstrap_intervals(accuracy, num_images=4)  # {("accuracy",): [0.25, 1.0]}
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from litegpt.metrics.ratios import macro_mean, number_or_none

Name = tuple[str, ...]  # of a figure: where it stands in metrics.json, such as ("accuracy_at_iou", "0.5")
# Of each row of weights one number, (rows,); NaN where it cannot be computed. A figure that is the mean over labels
# may be (rows, labels), NaN where a row lacks the label: then each resample has the mean over the same labels.
Figures = dict[Name, np.ndarray]
Statistic = Callable[[np.ndarray], Figures]  # from (rows, images) weights

NUM_RESAMPLES, NUM_PERMUTATIONS = 1000, 2000
SEED = 0
WEIGHTS_AT_ONCE = 2**21  # numbers in a block of weights: 16 MB


class Comparison(NamedTuple):
    """A figure of two runs over the same images. `interval` is that of `difference`, b - a; None: unknown."""

    a: float | None
    b: float | None
    difference: float | None
    interval: list[float] | None
    p_value: float | None


def bootstrap_intervals(
    statistic: Statistic, num_images: int, num_resamples: int = NUM_RESAMPLES, patients: np.ndarray | None = None
) -> dict[Name, list[float] | None]:
    """95 % intervals of figures: [low, high], None where no resample gives the figure.

    Patients are drawn with replacement, as many as there are, each with all of its images; the interval lies between
    the 2.5th and the 97.5th percentile of the resamples' figures. A resample without a figure (no true box of any
    label, say) is left out of that figure's interval; of a mean over labels, see `means_over_the_same_labels`. The
    intervals say how much the choice of test images matters, not the seed of a training.

    Args:
        statistic: (rows, num_images) weights -> the figures of each row.
        patients: (num_images,) int, the number of each image's patient, from 0 on. None: each image is of another
            one; where that is not so and the data does not tell, the intervals are too narrow.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, the percentile interval; of
        clusters: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
    """
    observed = statistic(np.ones((1, num_images)))
    figures = _joined(statistic(weights) for weights in resamples(num_images, num_resamples, patients))
    return {
        name: percentile_interval(means_over_the_same_labels(values, observed[name][0]))
        for name, values in figures.items()
    }


def means_over_the_same_labels(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(rows,) the mean of each row over the labels that have a figure on the images themselves.

    A label that a row lacks, as no image with it was drawn, keeps there the figure that it has on the images
    themselves. Left out, it would make the row the mean of other labels: rare labels, which are often the bad ones,
    would count less than in the figure, and the interval would lie beside it. A label of one image varies in no
    resample, so with many of them the interval is too narrow: on drawn data of 20 labels with 1 to 20 images, nine of
    them with 4 or fewer, it held the truth in 87 % of 400 cases (with labels left out in 92 %, centred 0.02 too high).

    Args:
        values: (rows, labels), NaN where a row lacks a label; (rows,) are returned as they are.
        observed: (labels,) of all images, each once; NaN where there is no figure.
    """
    if values.ndim == 1:
        return values
    filled = np.where(np.isfinite(values), values, observed)
    return macro_mean(filled[:, np.isfinite(observed)])


def paired_comparison(
    statistic: Statistic,
    num_images: int,
    num_resamples: int = NUM_RESAMPLES,
    num_permutations: int = NUM_PERMUTATIONS,
    patients: np.ndarray | None = None,
) -> dict[Name, Comparison]:
    """Each figure of two runs over the same images, their difference, its 95 % interval, and how likely chance is.

    The interval is the paired bootstrap's: both runs are resampled with the same images. The p value is two-sided, of
    a test by approximate randomisation: if the two runs are alike, it does not matter which of them gave an answer, so
    the answers to each patient's images are swapped or not by the toss of a coin; p is the share of such permutations
    that make the difference at least as large as it is, (1 + number) / (1 + permutations).

    Args:
        statistic: (rows, 2 * num_images) weights -> figures; the first half of the images are run A's answers, the
            second half run B's to the same images in the same order.
        patients: (num_images,), as `bootstrap_intervals` takes them.

    Source: Noreen, Computer-Intensive Methods for Testing Hypotheses (1989), chapter 2; the bootstrap as above.
    """

    once = np.ones((1, num_images))
    observed = statistic(np.block([[once, 0 * once], [0 * once, once]]))

    def differences(first: np.ndarray, second: np.ndarray) -> Figures:
        """Figures where run B has the weights `first` and run A `second`, less those of the other way round."""
        both_ways = statistic(np.concatenate([np.hstack([first, second]), np.hstack([second, first])]))
        result = {}
        for name, values in both_ways.items():
            observed_a, observed_b = observed[name]
            a = means_over_the_same_labels(values[: len(first)], observed_a)
            result[name] = means_over_the_same_labels(values[len(first) :], observed_b) - a
        return result

    drawn = _joined(differences(weights, 0 * weights) for weights in resamples(num_images, num_resamples, patients))
    swapped = _joined(differences(1 - coins, coins) for coins in coin_tosses(num_images, num_permutations, patients))
    result = {}
    for name, values in observed.items():
        a, b = values if values.ndim == 1 else macro_mean(values)
        by_chance = swapped[name][np.isfinite(swapped[name])]
        known = bool(np.isfinite(b - a)) and len(by_chance) > 0
        # 1e-12: sums of floats in another order are no difference.
        extreme = np.count_nonzero(np.abs(by_chance) >= abs(b - a) - 1e-12) if known else 0
        result[name] = Comparison(
            number_or_none(a),
            number_or_none(b),
            number_or_none(b - a),
            percentile_interval(drawn[name]) if known else None,
            (1 + extreme) / (1 + len(by_chance)) if known else None,
        )
    return result


def patient_numbers(names: Sequence[str]) -> np.ndarray:
    """(images,) the number of each image's patient, from 0 on; an image with an empty name is a patient of its own.

    Args:
        names: (images,) such as ["p1", "p1", "", ""], which gives three patients.
    """
    keys = [("patient", name) if name else ("image", index) for index, name in enumerate(names)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=int)


def resamples(num_images: int, count: int, patients: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Blocks of (resamples, images): how often each image is drawn; `count` rows in all, the same in every run.

    Args:
        patients: (num_images,) numbers from 0 on; all images of one are drawn together. None: each image by itself.
    """
    rng = np.random.default_rng(SEED)
    drawn_units = num_images if patients is None else int(patients.max()) + 1
    for rows in _block_sizes(num_images, count):
        drawn = rng.integers(drawn_units, size=(rows, drawn_units)) + drawn_units * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * drawn_units).reshape(rows, drawn_units).astype(float)
        yield times if patients is None else times[:, patients]


def coin_tosses(num_images: int, count: int, patients: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Blocks of (permutations, images) of 0 and 1; `count` rows in all, the same in every run.

    Args:
        patients: as for `resamples`; all images of one have the same side of the coin.
    """
    rng = np.random.default_rng(SEED)
    tossed_units = num_images if patients is None else int(patients.max()) + 1
    for rows in _block_sizes(4 * num_images, count):  # two runs, two ways round
        coins = rng.integers(2, size=(rows, tossed_units)).astype(float)
        yield coins if patients is None else coins[:, patients]


def percentile_interval(values: np.ndarray) -> list[float] | None:
    """[2.5th, 97.5th] percentile of the values that are not NaN; None where there are none."""
    values = values[np.isfinite(values)]
    return [float(bound) for bound in np.percentile(values, (2.5, 97.5))] if len(values) else None


def _block_sizes(num_images: int, count: int) -> list[int]:
    """Rows a block, `count` in all, so that a block's weights are at most WEIGHTS_AT_ONCE."""
    step = max(1, WEIGHTS_AT_ONCE // max(1, num_images))
    return [min(step, count - start) for start in range(0, count, step)]


def _joined(blocks: Iterable[Figures]) -> Figures:
    """The figures of all rows, of those of blocks of rows."""
    blocks = list(blocks)
    return {name: np.concatenate([figures[name] for figures in blocks]) for name in blocks[0]}
