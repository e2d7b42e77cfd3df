"""How sure a figure is: bootstrap intervals of one run, and a paired test between two.

In: a function from weights, how often each image counts, to figures. A resample counts each image as often as it was
drawn, so nothing is scored again, and the weights of many resamples are one matrix, (rows, images). Out: an interval
of each figure, or how two runs differ in it.

    hits = np.array([1.0, 1.0, 0.0, 1.0])
    accuracy = lambda weights: {("accuracy",): weights @ hits / weights.sum(-1)}
    bootstrap_intervals(accuracy, num_images=4)  # {("accuracy",): [0.25, 1.0]}
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from litegpt.metrics.ratios import number_or_none

Name = tuple[str, ...]  # of a figure: where it stands in metrics.json, such as ("accuracy_at_iou", "0.5")
Figures = dict[Name, np.ndarray]  # of each row of weights one number, (rows,); NaN where it cannot be computed
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
    statistic: Statistic, num_images: int, num_resamples: int = NUM_RESAMPLES
) -> dict[Name, list[float] | None]:
    """95 % intervals of figures: [low, high], None where no resample gives the figure.

    Images are drawn with replacement, as many as there are; the interval lies between the 2.5th and the 97.5th
    percentile of the resamples' figures. A resample without a figure (no true box of any label, say) is left out of
    that figure's interval. Images are drawn one by one: where a patient has several, the rows do not tell, and the
    intervals are too narrow. They say how much the choice of test images matters, not the seed of a training.

    Args:
        statistic: (rows, num_images) weights -> the figures of each row.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, the percentile interval.
    """
    figures = _joined(statistic(weights) for weights in resamples(num_images, num_resamples))
    return {name: percentile_interval(values) for name, values in figures.items()}


def paired_comparison(
    statistic: Statistic,
    num_images: int,
    num_resamples: int = NUM_RESAMPLES,
    num_permutations: int = NUM_PERMUTATIONS,
) -> dict[Name, Comparison]:
    """Each figure of two runs over the same images, their difference, its 95 % interval, and how likely chance is.

    The interval is the paired bootstrap's: both runs are resampled with the same images. The p value is two-sided, of
    a test by approximate randomisation: if the two runs are alike, it does not matter which of them gave an answer, so
    the answers of each image are swapped or not by the toss of a coin; p is the share of such permutations that make
    the difference at least as large as it is, (1 + number) / (1 + permutations).

    Args:
        statistic: (rows, 2 * num_images) weights -> figures; the first half of the images are run A's answers, the
            second half run B's to the same images in the same order.

    Source: Noreen, Computer-Intensive Methods for Testing Hypotheses (1989), chapter 2; the bootstrap as above.
    """

    def differences(first: np.ndarray, second: np.ndarray) -> Figures:
        """Figures where run B has the weights `first` and run A `second`, less those of the other way round."""
        both_ways = np.concatenate([np.hstack([first, second]), np.hstack([second, first])])
        return {name: values[len(first) :] - values[: len(first)] for name, values in statistic(both_ways).items()}

    once = np.ones((1, num_images))
    observed = statistic(np.block([[once, 0 * once], [0 * once, once]]))
    drawn = _joined(differences(weights, 0 * weights) for weights in resamples(num_images, num_resamples))
    swapped = _joined(differences(1 - coins, coins) for coins in coin_tosses(num_images, num_permutations))
    result = {}
    for name, (a, b) in observed.items():
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


def resamples(num_images: int, count: int) -> Iterator[np.ndarray]:
    """Blocks of (resamples, images): how often each image is drawn; `count` rows in all, the same in every run."""
    rng = np.random.default_rng(SEED)
    for rows in _block_sizes(num_images, count):
        drawn = rng.integers(num_images, size=(rows, num_images)) + num_images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * num_images).reshape(rows, num_images).astype(float)


def coin_tosses(num_images: int, count: int) -> Iterator[np.ndarray]:
    """Blocks of (permutations, images) of 0 and 1; `count` rows in all, the same in every run."""
    rng = np.random.default_rng(SEED)
    for rows in _block_sizes(4 * num_images, count):  # two runs, two ways round
        yield rng.integers(2, size=(rows, num_images)).astype(float)


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
