"""Labels that are named against those that are true: precision, recall and F1.

In: per image the names of its labels, as an answer has them and as they are. `["No finding"]` says that nothing is
there; an empty prediction is a malformed answer, which says nothing. Out: scores of each label, averages of them, and
of the question whether an image has any finding at all.

    sets = read_labels(
        [["Cardiomegaly"], ["No finding"], []],
        [["Cardiomegaly", "Edema"], ["No finding"], ["Edema"]],
        labels=["Cardiomegaly", "Edema"],
    )
    micro_f1(sets)  # 0.5
    micro_f1(sets, weights=np.array([[1, 1, 1], [2, 1, 0]]))  # of each resample: array([0.5, 0.667])
    classification_scores(sets)["finding"]  # {"precision": 1.0, "recall": 0.5, "f1": 0.667, "support": 2}
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from litegpt.metrics.ratios import macro_mean, number_or_none, number_or_rows, ratio, weight_rows


class LabelSets(NamedTuple):
    """What n images are said to show, and what they show."""

    labels: list[str]
    named: np.ndarray  # (n, labels) bool
    true: np.ndarray  # (n, labels) bool
    says_finding: np.ndarray  # (n,) bool, named any label but the negative one; a malformed answer is wrong
    has_finding: np.ndarray  # (n,) bool
    is_malformed: np.ndarray  # (n,) bool


def read_labels(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    labels: Sequence[str],
    negative_label: str = "No finding",
) -> LabelSets:
    """The names as arrays.

    A malformed answer names no label, and of Finding and No finding it is taken for what the image is not.

    Args:
        predictions: (n,) the labels that each answer names; none for a malformed answer.
        references: (n,) the true labels; `[negative_label]` and `[]` both mean that nothing is there.
        labels: the classes. `negative_label` may be one of them.
        negative_label: the label that means that nothing is there.

    Raises:
        ValueError: no images, no classes or one twice, a label that is neither a class nor `negative_label`.
    """
    if not labels or len(set(labels)) != len(labels):
        raise ValueError("`labels` must name at least one class and none twice.")
    if not references:
        raise ValueError("There are no images to score.")
    if len(predictions) != len(references):
        raise ValueError(f"There are predictions for {len(predictions)} images and references for {len(references)}.")
    references = [names or [negative_label] for names in references]
    is_malformed = np.array([not names for names in predictions], dtype=bool)
    has_finding = _names_finding(references, negative_label)
    says_finding = np.where(is_malformed, ~has_finding, _names_finding(predictions, negative_label))
    return LabelSets(
        list(labels),
        _indicators(predictions, labels, negative_label, "predictions"),
        _indicators(references, labels, negative_label, "references"),
        says_finding,
        has_finding,
        is_malformed,
    )


def micro_f1(sets: LabelSets, weights: np.ndarray | None = None) -> float | np.ndarray:
    """F1 of all pairs of an image and a label together.

    Args:
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        A float, (rows,) for weights of that shape; 0 where no label is named or true.
    """
    return _f1(_label_counts(sets), weights)


def finding_f1(sets: LabelSets, weights: np.ndarray | None = None) -> float | np.ndarray:
    """F1 of the class Finding against No finding.

    Args:
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        A float, (rows,) for weights of that shape; 0 where no image has a finding or is said to.
    """
    return _f1(_binary_counts(sets.says_finding, sets.has_finding), weights)


def classification_scores(sets: LabelSets) -> dict[str, Any]:
    """All scores of `metrics/finding_classification`; each is {"precision", "recall", "f1", "support"}.

    Returns:
        "finding", "no_finding", "per_class" by label, "micro", "macro", "macro_present", "weighted", "samples",
        "num_images", "num_empty_predictions". A value is 0 where its denominator is 0: so a label that no image has
        pulls "macro" down. "macro_present" is the mean over the labels that an image has, "labels" their number; its
        scores are None where there is none.

    Source: the averages but "macro_present" are those of scikit-learn's classification_report with zero_division=0.
    """
    by_label = np.stack([(sets.named & sets.true).sum(0), sets.named.sum(0), sets.true.sum(0)], axis=1)
    by_image = _label_counts(sets)
    total = by_image.sum(0)
    support, num_true = by_label[:, 2], total[2]
    scores = np.stack(_precision_recall_f1(by_label))  # (3, labels)
    return {
        "finding": _scores(_binary_counts(sets.says_finding, sets.has_finding).sum(0)),
        "no_finding": _scores(_binary_counts(~sets.says_finding, ~sets.has_finding).sum(0)),
        "per_class": {label: _scores(counts) for label, counts in zip(sets.labels, by_label, strict=True)},
        "micro": _scores(total),
        "macro": _named(*(values.mean() for values in scores), num_true),
        "macro_present": _macro_present(scores, support),
        "weighted": _named(*(values @ ratio(support, num_true, otherwise=0) for values in scores), num_true),
        "samples": _named(*(values.mean() for values in _precision_recall_f1(by_image)), num_true),
        "num_images": len(sets.true),
        "num_empty_predictions": int(sets.is_malformed.sum()),
    }


def decisions(says: np.ndarray, has: np.ndarray) -> dict[str, float | int | None]:
    """A yes-or-no decision as radiologists report it: four counts, and what follows from them.

    Args:
        says, has: (images,) bool, whether the label is said to be there, and whether it is.

    Returns:
        "true_positives", "false_positives", "true_negatives", "false_negatives"; "sensitivity" (of those that have it,
        the share that is said to), "specificity" (of those without, the share that is said to be), "ppv" and "npv"
        (the share of what is said, and of what is denied, that is right). None where there is nothing to divide by.

    Source: STARD 2015 (Bossuyt et al., BMJ 351, h5527), items 23 and 24.
    """
    tp, fp, tn, fn = (int(np.count_nonzero(both)) for both in (says & has, says & ~has, ~says & ~has, ~says & has))
    return {
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        **{
            name: number_or_none(float(ratio(right, all_of_them)))
            for name, right, all_of_them in (
                ("sensitivity", tp, tp + fn),
                ("specificity", tn, tn + fp),
                ("ppv", tp, tp + fp),
                ("npv", tn, tn + fn),
            )
        },
    }


# --- Counts: the last axis of each has what is named rightly, named, true --------------------------------------------


def _label_counts(sets: LabelSets) -> np.ndarray:
    """(images, 3) labels."""
    return np.stack([(sets.named & sets.true).sum(1), sets.named.sum(1), sets.true.sum(1)], axis=1)


def _binary_counts(says: np.ndarray, has: np.ndarray) -> np.ndarray:
    """(images, 3) of a question with two answers, 0 or 1 each."""
    return np.stack([says & has, says, has], axis=1).astype(int)


def _f1(counts: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    """F1 of the (images, 3) counts, summed with the weights."""
    return number_or_rows(_precision_recall_f1(weight_rows(weights, len(counts)) @ counts)[2], weights)


def _precision_recall_f1(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (..., 3) counts, each (...)."""
    right, named, true = np.moveaxis(counts, -1, 0)
    return ratio(right, named, 0), ratio(right, true, 0), ratio(2 * right, named + true, 0)


def _macro_present(scores: np.ndarray, support: np.ndarray) -> dict[str, float | int | None]:
    """Mean of the (3, labels) scores over the labels with a support."""
    present = support > 0
    means = [number_or_none(value) for value in macro_mean(np.where(present, scores, np.nan))]
    return {
        **dict(zip(("precision", "recall", "f1"), means, strict=True)),
        "support": int(support.sum()),
        "labels": int(present.sum()),
    }


def _scores(counts: np.ndarray) -> dict[str, float | int]:
    return _named(*_precision_recall_f1(counts), counts[2])


def _named(precision: float, recall: float, f1: float, support: int) -> dict[str, float | int]:
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}


# --- Names as arrays -------------------------------------------------------------------------------------------------


def _names_finding(images: Sequence[Sequence[str]], negative_label: str) -> np.ndarray:
    """(images,) whether there is any label but the negative one."""
    return np.array([any(name != negative_label for name in names) for names in images], dtype=bool)


def _indicators(images: Sequence[Sequence[str]], labels: Sequence[str], negative_label: str, what: str) -> np.ndarray:
    """(images, labels) bool. `negative_label` is always a known name, but a column only if it is among `labels`."""
    columns = {label: column for column, label in enumerate(labels)}
    matrix = np.zeros((len(images), len(labels)), dtype=bool)
    for image, names in enumerate(images):
        for name in names:
            if name in columns:
                matrix[image, columns[name]] = True
            elif name != negative_label:
                raise ValueError(f"{what}[{image}] has the label {name!r}, which is not among `labels`.")
    return matrix
