"""Label states of reports against those of the true reports: whether they say the same, by F1.

In: per image the labels that a report speaks of and how, {"Edema": "negative", "Pneumonia": "uncertain", ...}, as
answered and as true; a label that it does not speak of is left out. Any labeller may have read them. Out: F1 of
"positive" against everything else, each image counted as often as `weights` say.

    answered = [{"Edema": "positive", "Pneumonia": "negative"}, {"Edema": "negative"}]
    true = [{"Edema": "uncertain"}, {"Edema": "positive"}]
    agreement = label_agreement(answered, true)  # uncertain is positive
    agreement_figures(agreement)["micro_f1", "14"]  # array([0.667]): of two true ones one is named
    agreement_scores(label_agreement(answered, true, uncertain="negative"))["per_label"]["Edema"]["f1"]  # 0.0

A label that is positive on neither side has no F1, and stands in no mean over labels. The published tables count it 0
(scikit-learn's `zero_division=0`), which matters where there are few reports.

Sources: Irvin et al., CheXpert (2019), arXiv 1901.07031, for the 14 labels, and the five of its competition; Smit et
al., CheXbert (2020), arXiv 2004.09167; Miura et al. (2021), arXiv 2010.10042, who measure reports so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import macro_mean, number_or_none, ratio, weight_rows

CHEXPERT_LABELS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
FIVE_LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
GROUPS = {"14": CHEXPERT_LABELS, "5": FIVE_LABELS}
POSITIVE, NEGATIVE, UNCERTAIN = "positive", "negative", "uncertain"

States = Mapping[str, str]


class LabelAgreement(NamedTuple):
    """What the reports of n images call positive; columns are those of `CHEXPERT_LABELS`."""

    named: np.ndarray  # (n, 14) bool, as answered
    true: np.ndarray  # (n, 14) bool


def label_agreement(
    predictions: Sequence[States],
    references: Sequence[States],
    uncertain: Literal["positive", "negative"] = "positive",
) -> LabelAgreement:
    """Reads the states of n images.

    Args:
        predictions, references: (n,) {label: "positive", "negative" or "uncertain"}; not spoken of: left out.
        uncertain: what an uncertain label counts as, on both sides. CheXbert's F1 counts it as positive.

    Raises:
        ValueError: the lengths differ, a label is none of the 14, a state is none of the three. The text names the
            image.
    """
    if len(predictions) != len(references):
        raise ValueError(f"There are predictions for {len(predictions)} images and references for {len(references)}.")
    counted = (POSITIVE, UNCERTAIN) if uncertain == POSITIVE else (POSITIVE,)
    return LabelAgreement(_positive(predictions, counted, "predictions"), _positive(references, counted, "references"))


def _positive(images: Sequence[States], counted: Sequence[str], what: str) -> np.ndarray:
    """(images, 14) bool: the labels whose state is one of those that count."""
    columns = {label: column for column, label in enumerate(CHEXPERT_LABELS)}
    matrix = np.zeros((len(images), len(columns)), dtype=bool)
    for image, states in enumerate(images):
        for label, state in states.items():
            if label not in columns:
                raise ValueError(f"{what}[{image}] has the label {label!r}, which is none of CheXpert's 14.")
            if state not in (POSITIVE, NEGATIVE, UNCERTAIN):
                raise ValueError(
                    f"{what}[{image}] calls {label!r} {state!r}, not {POSITIVE}, {NEGATIVE} or {UNCERTAIN}."
                )
            matrix[image, columns[label]] = state in counted
    return matrix


def agreement_figures(agreement: LabelAgreement, weights: np.ndarray | None = None) -> Figures:
    """F1 for each row of weights.

    Args:
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        ("micro_f1", "14") and ("micro_f1", "5"), (rows,): of all pairs of an image and a label together, NaN without a
        positive one; ("macro_f1", "14") and ("macro_f1", "5"), (rows, labels), NaN where a label has no F1: the F1 of
        each label, of which the figure is the mean, for `litegpt.metrics.intervals`.
    """
    rows = weight_rows(weights, len(agreement.true))
    right, named, true = _counts(agreement, rows)
    figures: Figures = {}
    for group, labels in GROUPS.items():
        columns = [CHEXPERT_LABELS.index(label) for label in labels]
        some = [counts[:, columns] for counts in (right, named, true)]
        figures["micro_f1", group] = _f1(*(counts.sum(-1) for counts in some))
        figures["macro_f1", group] = _f1(*some)
    return figures


def _counts(agreement: LabelAgreement, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, 14) each: images where a label is positive on both sides, as answered, as true."""
    named, true = agreement
    return rows @ (named & true), rows @ named, rows @ true


def _f1(right: np.ndarray, named: np.ndarray, true: np.ndarray) -> np.ndarray:
    return ratio(2 * right, named + true)


def agreement_scores(agreement: LabelAgreement) -> dict[str, Any]:
    """All scores of `metrics/report_label_agreement`, each image counted once.

    Returns:
        "micro_f1" and "macro_f1", each {"14", "5"}; "per_label", {label: {"precision", "recall", "f1", "named",
        "true", "right"}}, the last three counts of images; "num_images". None where there is nothing to divide by.
    """
    scores: dict[str, Any] = {}
    for (name, group), values in agreement_figures(agreement).items():
        value = macro_mean(values)[0] if values.ndim == 2 else values[0]
        scores.setdefault(name, {})[group] = number_or_none(value)
    counts = np.concatenate(_counts(agreement, weight_rows(None, len(agreement.true))))
    scores["per_label"] = {
        label: {
            "precision": number_or_none(float(ratio(right, named))),
            "recall": number_or_none(float(ratio(right, true))),
            "f1": number_or_none(float(_f1(right, named, true))),
            "named": int(named),
            "true": int(true),
            "right": int(right),
        }
        for label, (right, named, true) in zip(CHEXPERT_LABELS, counts.T, strict=True)
    }
    return scores | {"num_images": len(agreement.true)}
