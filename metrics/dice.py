"""Masks that were found against masks that are there: Dice of each image, and what predicting nothing is worth.

In: masks, (images, height, width) bool, of which three numbers of pixels an image are kept. Out: figures, which take
`weights`, how often each image counts: many resamples of the images are scored at once.

    counts = pixel_counts(predicted, true)              # (images, 3)
    dice(counts)                                        # (images,): 1 where both masks are empty
    mean_dice(counts)                                   # over all images
    mean_dice(counts, "with mask")                      # over those that have a true mask
    mean_dice(counts, "without mask")                   # the share of the others in which nothing is predicted
    mean_dice(counts, "balanced")                       # the mean of the last two
    mean_dice(nothing_predicted(counts))                # the share of images without a true mask

An empty answer to an image without a mask has a Dice of 1. So where most images have none, predicting nothing has a
high mean: .647 on SIIM-ACR and .766 on RSNA with the lists that ECAMP (arXiv 2312.13316) published. The mean over
images with a mask has no such gift, but false alarms cost it nothing; "balanced" hangs on neither share: 1/2 for
predicting nothing.
"""

from typing import Literal

import numpy as np

from litegpt.metrics.ratios import number_or_rows, ratio, weight_rows

Among = Literal["all", "with mask", "without mask", "balanced"]
AMONG: tuple[Among, ...] = ("all", "with mask", "without mask", "balanced")


def pixel_counts(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(images, 3) int64: pixels of the prediction, of the truth, of both.

    Args:
        predicted, true: (images, height, width) bool.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"The predicted masks have the shape {predicted.shape}, the true ones {true.shape}.")
    both = predicted & true
    return np.stack([np.count_nonzero(masks, axis=(1, 2)) for masks in (predicted, true, both)], axis=1)


def nothing_predicted(counts: np.ndarray) -> np.ndarray:
    """(images, 3) counts of empty predictions against the same truths."""
    return counts * np.array([0, 1, 0])


def dice(counts: np.ndarray) -> np.ndarray:
    """(images,) twice the common pixels over the sum of both masks' pixels; 1 where both are empty.

    Args:
        counts: as `pixel_counts` gives them.

    Source: Dice (1945); 1 for two empty masks as in Kaggle's SIIM-ACR Pneumothorax Segmentation.
    """
    predicted, true, both = np.moveaxis(np.asarray(counts), -1, 0)
    return ratio(2 * both, predicted + true, otherwise=1)


def mean_dice(counts: np.ndarray, among: Among = "all", weights: np.ndarray | None = None) -> float | np.ndarray:
    """Mean Dice of images, see the top of this file.

    Args:
        counts: (images, 3), as `pixel_counts` gives them.
        among: of which images.
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        A float, (rows,) for weights of that shape; NaN where no such image has a weight.
    """
    rows = weight_rows(weights, len(counts))
    if among == "balanced":
        means = (mean_dice(counts, "with mask", rows) + mean_dice(counts, "without mask", rows)) / 2
        return number_or_rows(means, weights)
    has_mask = np.asarray(counts)[:, 1] > 0
    chosen = {"all": np.ones_like(has_mask), "with mask": has_mask, "without mask": ~has_mask}[among]
    return number_or_rows(ratio(rows @ (dice(counts) * chosen), rows @ chosen), weights)
