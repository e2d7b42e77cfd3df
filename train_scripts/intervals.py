"""How sure a figure is: bootstrap intervals of one run, and a paired test between two.

Both ask for figures of the same images with other weights: a resample counts each image as often as it was drawn. So
nothing is scored again, and the weights of many resamples are one matrix, (resamples, images).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Name = tuple[str, ...]  # of a figure: where it stands in metrics.json, such as ("accuracy_at_iou", "0.5")
Figures = dict[Name, np.ndarray]  # of each row of weights one number, (rows,); NaN where it cannot be computed
FiguresOf = Callable[[np.ndarray], Figures]

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
    figures_of: FiguresOf, num_images: int, num_resamples: int = NUM_RESAMPLES
) -> dict[Name, list[float] | None]:
    """95 % intervals of figures: [low, high], None where no resample gives the figure.

    Images are drawn with replacement, as many as there are; the interval lies between the 2.5th and the 97.5th
    percentile of the resamples' figures. A resample without a figure (no true box of any label, say) is left out of
    that figure's interval. Images are drawn one by one: where a patient has several, the rows do not tell, and the
    intervals are too narrow. They say how much the choice of test images matters, not the seed of a training.

    Args:
        figures_of: (rows, num_images) weights -> the figures of each row.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, the percentile interval.
    """
    return {
        name: percentile_interval(values)
        for name, values in _of_all(figures_of, resamples(num_images, num_resamples)).items()
    }


def paired_comparison(
    figures_of: FiguresOf,
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
        figures_of: (rows, 2 * num_images) weights -> figures; the first half of the images are run A's answers, the
            second half run B's to the same images in the same order.

    Source: Noreen, Computer-Intensive Methods for Testing Hypotheses (1989), chapter 2; the bootstrap as above.
    """

    def differences(blocks: Iterator[tuple[np.ndarray, np.ndarray]]) -> Figures:
        def of_both(weights: np.ndarray) -> Figures:
            values = figures_of(weights)
            half = len(weights) // 2
            return {name: numbers[half:] - numbers[:half] for name, numbers in values.items()}

        return _of_all(of_both, (np.concatenate([np.hstack(pair), np.hstack(pair[::-1])]) for pair in blocks))

    once = np.ones((1, num_images))
    observed = figures_of(np.block([[once, 0 * once], [0 * once, once]]))
    drawn = differences((weights, 0 * weights) for weights in resamples(num_images, num_resamples))
    swapped = differences((1 - coins, coins) for coins in coin_tosses(num_images, num_permutations))
    result = {}
    for name, (a, b) in observed.items():
        of_coins = swapped[name][np.isfinite(swapped[name])]
        known = bool(np.isfinite(b - a)) and len(of_coins) > 0
        # 1e-12: sums of floats in another order are no difference.
        extreme = np.count_nonzero(np.abs(of_coins) >= abs(b - a) - 1e-12) if known else 0
        result[name] = Comparison(
            number_or_none(a),
            number_or_none(b),
            number_or_none(b - a),
            percentile_interval(drawn[name]) if known else None,
            (1 + extreme) / (1 + len(of_coins)) if known else None,
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
    for rows in _block_sizes(4 * num_images, count):  # two runs, two sides
        yield rng.integers(2, size=(rows, num_images)).astype(float)


def percentile_interval(values: np.ndarray) -> list[float] | None:
    """[2.5th, 97.5th] percentile of the values that are not NaN; None where there are none."""
    values = values[np.isfinite(values)]
    return [float(bound) for bound in np.percentile(values, (2.5, 97.5))] if len(values) else None


def number_or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def _block_sizes(num_images: int, count: int) -> list[int]:
    step = max(1, WEIGHTS_AT_ONCE // max(1, num_images))
    return [min(step, count - start) for start in range(0, count, step)]


def _of_all(figures_of: FiguresOf, blocks: Iterator[np.ndarray]) -> Figures:
    of_blocks = [figures_of(weights) for weights in blocks]
    return {name: np.concatenate([figures[name] for figures in of_blocks]) for name in of_blocks[0]}
