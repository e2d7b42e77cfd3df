"""What all figures are made of: rows of weights, and ratios and means that may have nothing to divide by.

In: numbers or arrays, and how often each image counts. Out: arrays in which NaN, or a value of the caller's choice,
stands for "cannot be computed".

    weight_rows(None, 3)  # array([[1., 1., 1.]]), each image once
    ratio([1, 2], [4, 0])  # array([0.25, nan])
    ratio([1, 2], [4, 0], otherwise=0)  # array([0.25, 0.  ])
    macro_mean([0.5, np.nan, 1.0])  # 0.75
    number_or_none(np.nan)  # None
"""

import numpy as np
from numpy.typing import ArrayLike


def weight_rows(weights: np.ndarray | None, num_images: int) -> np.ndarray:
    """(rows, images): how often each image counts in each of many samples of them.

    Args:
        weights: (images,) or (rows, images). None: one row, in which each image counts once.

    Raises:
        ValueError: they are for another number of images.
    """
    rows = np.ones((1, num_images)) if weights is None else np.atleast_2d(weights)
    if rows.shape[1] != num_images:
        raise ValueError(f"The weights are for {rows.shape[1]} images, not for {num_images}.")
    return rows


def number_or_rows(values: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    """(rows,) values as they are where the weights have rows, else the one value as a float."""
    return values if np.ndim(weights) == 2 else float(values[0])


def ratio(numerators: ArrayLike, denominators: ArrayLike, otherwise: float = np.nan) -> np.ndarray:
    """numerators / denominators, and `otherwise` where the denominator is not above 0.

    Args:
        numerators, denominators: of shapes that broadcast.

    Returns:
        Of the shape that they broadcast to.
    """
    numerators, denominators = np.broadcast_arrays(np.asarray(numerators, float), np.asarray(denominators, float))
    values = np.full(numerators.shape, otherwise, dtype=float)
    return np.divide(numerators, denominators, out=values, where=denominators > 0)


def macro_mean(values: ArrayLike) -> float | np.ndarray:
    """The mean over the labels that have a value, NaN where none has.

    Args:
        values: (labels,) or (rows, labels), NaN where a label has none.

    Returns:
        A float, or (rows,).
    """
    values = np.asarray(values, float)
    known = [row[np.isfinite(row)] for row in np.atleast_2d(values)]
    means = np.array([row.mean() if len(row) else np.nan for row in known])
    return means if values.ndim == 2 else float(means[0])


def number_or_none(value: float) -> float | None:
    """`value` as JSON can have it: None for NaN and infinities."""
    return float(value) if np.isfinite(value) else None
