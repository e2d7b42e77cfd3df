"""Retrieval: at which place the right candidate stands among all of them, and what follows: recall at k, mean rank.

In: embeddings of queries and candidates, and which candidate is the right one. Out: ranks from 1 on, and figures.

    texts, of_image = unique_texts(["clear lungs.", "big heart.", "clear lungs."])  # two; array([0, 1, 0])
    ranks(image_embeddings, text_embeddings, truth=of_image)                        # array([1, 1, 2])
    recall_at([1, 1, 2], 1)                                                         # 0.666...
    recall_at([1, 1, 2], 1, weights=np.array([[1, 1, 1], [0, 1, 2]]))               # array([0.667, 0.333])

Candidates that score the same share the worst place that they take: with scores [0.9, 0.5, 0.5, 0.1] the right one
has rank 3 if it is either of the two in the middle. So a model that gives everything one embedding is last everywhere,
not first.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from litegpt.metrics.ratios import number_or_rows, ratio, weight_rows

KS = (1, 5, 10)
SCORES_AT_ONCE = 2**21  # numbers in a block of scores: 16 MB
TIE = 1e-9  # of the product of the lengths: what the order of a sum makes of equal scores


class RetrievalRanks(NamedTuple):
    """The ranks of both directions, so that one array of weights of the images serves both.

    Attributes:
        image_to_text: (images,) rank of each image's text among the unique texts.
        text_to_image: (images,) rank of the best image that has this image's text, among the images.
        share: (images,) 1 / number of images with the same text: of weights of `text_to_image`, as a text that
            several images have is one query.
    """

    image_to_text: np.ndarray
    text_to_image: np.ndarray
    share: np.ndarray


# --- Ranks -----------------------------------------------------------------------------------------------------------


def ranks(queries: ArrayLike, candidates: ArrayLike, truth: ArrayLike, names: ArrayLike | None = None) -> np.ndarray:
    """(queries,) the rank of each query's right candidate by the dot product, from 1 on; ties share the worst rank.

    Never are all scores in memory at once, see `SCORES_AT_ONCE`.

    Args:
        queries: (queries, dimensions) embeddings; of unit length (`unit_length`) the scores are cosines.
        candidates: (candidates, dimensions).
        truth: (queries,) the right candidate of each query: its index, or its name.
        names: (candidates,) numbers by which `truth` names candidates. Where several have one name the best of them
            counts, and the others are not in its way. None: the indices.

    Raises:
        ValueError: the shapes do not fit, a number is not finite, or a query has no right candidate.
    """
    queries, candidates = _embeddings(queries, "queries"), _embeddings(candidates, "candidates")
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"The queries have {queries.shape[1]} dimensions, the candidates {candidates.shape[1]}.")
    truth = np.asarray(truth)
    names = np.arange(len(candidates)) if names is None else np.asarray(names)
    if truth.shape != (len(queries),) or names.shape != (len(candidates),):
        raise ValueError("Each query needs one right candidate, and each candidate one name.")
    missing = np.flatnonzero(~np.isin(truth, names))
    if len(missing):
        raise ValueError(f"Query {missing[0]} has no right candidate: {truth[missing[0]]}.")
    longest = np.linalg.norm(candidates, axis=1).max(initial=0)
    result = np.empty(len(queries), dtype=np.int64)
    step = max(1, SCORES_AT_ONCE // max(1, len(candidates)))
    for chunk in (slice(start, start + step) for start in range(0, len(queries), step)):
        scores = queries[chunk] @ candidates.T
        right = names == truth[chunk, None]
        best = np.where(right, scores, -np.inf).max(axis=1)
        best -= TIE * longest * np.linalg.norm(queries[chunk], axis=1)
        result[chunk] = 1 + np.count_nonzero((scores >= best[:, None]) & ~right, axis=1)
    return result


def unique_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts in the order in which they first appear, and (texts,) which of them each one is.

    Texts are the same where they are equal character by character.
    """
    numbers: dict[str, int] = {}
    index = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), np.array(index, dtype=np.int64)


def unit_length(embeddings: ArrayLike) -> np.ndarray:
    """(n, dimensions) the embeddings, each divided by its length, so that dot products are cosines.

    Raises:
        ValueError: a length is 0, a number is not finite.
    """
    embeddings = _embeddings(embeddings, "embeddings")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"Embedding {np.argmin(lengths)} has the length 0: it has no direction.")
    return embeddings / lengths


def retrieval_ranks(images: ArrayLike, text_embeddings: ArrayLike, texts: Sequence[str]) -> RetrievalRanks:
    """Ranks by cosine of pairs of an image and a text, in both directions; equal texts are one.

    Args:
        images: (images, dimensions) embeddings.
        text_embeddings: (images, dimensions) of each image's text; of equal texts the first one's is taken.
        texts: (images,) the texts.

    Raises:
        ValueError: there are none, their numbers differ, or as `unit_length` and `ranks`.
    """
    if not len(texts):
        raise ValueError("There are no pairs of an image and a text.")
    if not len(images) == len(text_embeddings) == len(texts):
        raise ValueError(
            f"There are {len(images)} images, {len(text_embeddings)} embeddings of texts and {len(texts)} texts."
        )
    unique, of_image = unique_texts(texts)
    _, first = np.unique(of_image, return_index=True)
    images, text_embeddings = unit_length(images), unit_length(text_embeddings)[first]
    to_text = ranks(images, text_embeddings, of_image)
    to_image = ranks(text_embeddings, images, np.arange(len(unique)), names=of_image)
    return RetrievalRanks(to_text, to_image[of_image], 1 / np.bincount(of_image)[of_image])


# --- Figures ---------------------------------------------------------------------------------------------------------


def recall_at(ranks: ArrayLike, k: int, weights: np.ndarray | None = None) -> float | np.ndarray:
    """The share of queries whose right candidate is among the first k.

    Args:
        ranks: (queries,) from 1 on.
        weights: (queries,) or (rows, queries), how often each counts. None: once.

    Returns:
        A float, (rows,) for weights of that shape; NaN where nothing counts.

    Raises:
        ValueError: k or a rank is below 1, or the weights are for another number of queries.
    """
    if k < 1:
        raise ValueError(f"Recall at {k} does not exist: the first rank is 1.")
    return _mean(_ranks(ranks) <= k, weights)


def mean_rank(ranks: ArrayLike, weights: np.ndarray | None = None) -> float | np.ndarray:
    """The mean of the ranks; arguments, result and errors as of `recall_at`."""
    return _mean(_ranks(ranks), weights)


def median_rank(ranks: ArrayLike, weights: np.ndarray | None = None) -> float | np.ndarray:
    """The median of the ranks, half way between the two in the middle; the rest as of `recall_at`."""
    ranks = _ranks(ranks)
    order = np.argsort(ranks)
    counted = np.cumsum(weight_rows(weights, len(ranks))[:, order], axis=1)
    medians = np.full(len(counted), np.nan)
    for row, counts in enumerate(counted):
        if len(counts) and counts[-1] > 0:
            half = counts[-1] / 2
            slack = 1e-9 * half  # shares such as 1/3 do not sum up to whole numbers
            middle = np.searchsorted(counts, [half - slack, half + slack])
            medians[row] = ranks[order[middle]].mean()
    return number_or_rows(medians, weights)


def chance(num_right: ArrayLike, num_candidates: int, ks: Sequence[int] = KS) -> dict[str, float]:
    """What candidates in random order give: "recall_at_K" and "mean_rank".

    With one right candidate of n these are k / n and (n + 1) / 2. With m right ones, of which the best counts, they
    are 1 - C(n - m, k) / C(n, k) and (n + 1) / (m + 1).

    Args:
        num_right: (queries,) how many right candidates each has; each query counts once.
        num_candidates: n.
    """
    n = num_candidates
    kinds, counts = np.unique(np.asarray(num_right), return_counts=True)
    recalls = {
        f"recall_at_{k}": [1 - math.comb(n - int(m), min(k, n)) / math.comb(n, min(k, n)) for m in kinds] for k in ks
    }
    return {
        **{name: float(np.average(values, weights=counts)) for name, values in recalls.items()},
        "mean_rank": float(np.average((n + 1) / (kinds + 1), weights=counts)),
    }


def retrieval_scores(images: ArrayLike, text_embeddings: ArrayLike, texts: Sequence[str]) -> dict[str, Any]:
    """All scores of `metrics/retrieval`; arguments and errors as of `retrieval_ranks`.

    Returns:
        "image_to_text" and "text_to_image", each {"recall_at_1", "recall_at_5", "recall_at_10", "mean_rank",
        "median_rank", "chance": {the same but the median}}; "num_images", "num_texts" (unique ones).
    """
    found = retrieval_ranks(images, text_embeddings, texts)
    unique, of_image = unique_texts(texts)
    counts = np.bincount(of_image)
    return {
        "image_to_text": _figures(found.image_to_text, None)
        | {"chance": chance(np.ones(len(texts), dtype=int), len(unique))},
        "text_to_image": _figures(found.text_to_image, found.share) | {"chance": chance(counts, len(texts))},
        "num_images": len(texts),
        "num_texts": len(unique),
    }


def _figures(ranks: np.ndarray, weights: np.ndarray | None) -> dict[str, Any]:
    return {
        **{f"recall_at_{k}": recall_at(ranks, k, weights) for k in KS},
        "mean_rank": mean_rank(ranks, weights),
        "median_rank": median_rank(ranks, weights),
    }


def _mean(values: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    rows = weight_rows(weights, len(values))
    return number_or_rows(ratio(rows @ values, rows.sum(axis=-1)), weights)


def _ranks(ranks: ArrayLike) -> np.ndarray:
    ranks = np.asarray(ranks, dtype=np.float64)
    if ranks.ndim != 1 or not (ranks >= 1).all():
        raise ValueError("Ranks are a list of numbers from 1 on.")
    return ranks


def _embeddings(values: ArrayLike, what: str) -> np.ndarray:
    """(n, dimensions) float64; float32 would make ties of what is near."""
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {what} are not numbers, as many for each: {error}.") from error
    if values.ndim != 2:
        raise ValueError(f"The {what} have the shape {values.shape}, not (number, dimensions).")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(f"Number {bad[0]} of the {what} is not finite.")
    return values
