"""AUROC, average precision and calibration of label probabilities."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from litegpt.metrics.probabilities import probability_scores

_DESCRIPTION = """\
How well the probabilities of labels rank the images (AUROC and average precision, per label and their means) and how
far they can be taken at their word (Brier score, expected calibration error and the bins of a reliability diagram,
over all pairs of an image and a label).
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of float): per image the probability of each label, in [0, 1].
    references (list of list of int): per image 1 for each label that is present, else 0.
    labels (sequence of str): names of the labels, in the order of both.
    num_bins (int): bins of equal width for the calibration. Default 10.
Returns:
    auroc (dict): {label: ...}; None where the label is present in all images or in none.
    macro_auroc (float): mean over the labels that have one, or None.
    average_precision (dict): {label: ...}; None where the label is present in no image.
    macro_average_precision (float): mean over the labels that have one, or None.
    brier (float): mean squared difference of probability and truth.
    ece (float): mean difference between probability and frequency in a bin, weighted by the pairs in it.
    reliability (list of dict): per bin {"low", "high", "confidence", "frequency", "count"}: the mean probability and
        the share of present labels among the pairs in it; None for both where count is 0.
Examples:
    >>> metric = evaluate.load("metrics/label_probabilities")
    >>> results = metric.compute(
    ...     predictions=[[0.9, 0.2], [0.6, 0.4], [0.6, 0.1], [0.1, 0.1]],
    ...     references=[[1, 0], [1, 0], [0, 0], [0, 0]],
    ...     labels=["Pneumonia", "Tuberculosis"],
    ... )
    >>> results["auroc"], results["macro_auroc"]
    ({'Pneumonia': 0.875, 'Tuberculosis': None}, 0.875)
"""

_CITATION = """\
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={International Conference on Machine Learning (ICML)},
  year={2017}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class LabelProbabilities(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # Truths are read as floats: as integers, 0.5 would become 0 without a word.
        values = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": values, "references": values}),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[float]],
        labels: Sequence[str],
        num_bins: int = 10,
    ) -> dict[str, Any]:
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("`labels` must name at least one label and none twice.")
        p = _read_rows(predictions, "predictions", labels)
        y = _read_rows(references, "references", labels)
        bad = ~((p >= 0) & (p <= 1))  # also true for NaN
        if bad.any():
            image, label = np.argwhere(bad)[0]
            raise ValueError(f"predictions[{image}] has {p[image, label]} for {labels[label]!r}, not a probability.")
        bad = ~np.isin(y, (0, 1))
        if bad.any():
            image, label = np.argwhere(bad)[0]
            raise ValueError(f"references[{image}] has {y[image, label]} for {labels[label]!r}, neither 0 nor 1.")
        return probability_scores(p, y, labels, num_bins)


def _read_rows(rows: Sequence[Sequence[float]], what: str, labels: Sequence[str]) -> np.ndarray:
    """(images, labels) float."""
    for image, row in enumerate(rows):
        if len(row) != len(labels):
            raise ValueError(f"{what}[{image}] has {len(row)} values for {len(labels)} labels.")
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(labels))
