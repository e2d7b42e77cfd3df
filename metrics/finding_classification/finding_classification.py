"""Multi-label classification of findings or diagnoses, per class, averaged, and as Finding against No finding."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.labels import classification_scores, read_labels

_DESCRIPTION = """\
Precision, recall, F1 and support of label sets, one set an image: per class, in the four averages of scikit-learn's
classification_report, and for the binary question whether an image shows any finding at all.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of str): the labels that an answer names, one list an image. `[negative_label]` is an
        answer that says that nothing is there; an empty list is a malformed answer.
    references (list of list of str): the true labels, one list an image. `[negative_label]` and `[]` both mean that
        nothing is there.
    labels (list of str): the classes. `negative_label` may be one of them (as in the paper's tables of diagnoses) or
        not (as in its tables of findings).
    negative_label (str): the label that means that nothing is there. Default "No finding".
Returns:
    finding, no_finding (dict): precision, recall, f1, support of the binary question (the paper's Table 1). An image
        is "Finding" when it has any label but `negative_label`. A malformed answer is taken for the class that the
        image is not, so it counts as wrong in both, never as "No finding".
    per_class (dict): {label: {precision, recall, f1, support}} over `labels`. A malformed answer names no class.
    micro, macro, weighted, samples (dict): precision, recall, f1, support as in scikit-learn's classification_report.
    num_images, num_empty_predictions (int).
    Where a denominator is zero, the value is 0 (scikit-learn's zero_division=0).
Examples:
    >>> metric = evaluate.load("metrics/finding_classification")
    >>> results = metric.compute(
    ...     predictions=[["Cardiomegaly"], ["No finding"], []],
    ...     references=[["Cardiomegaly", "Edema"], ["No finding"], ["Edema"]],
    ...     labels=["Cardiomegaly", "Edema"],
    ... )
    >>> results["finding"]
    {'precision': 1.0, 'recall': 0.5, 'f1': 0.6666666666666666, 'support': 2}
    >>> results["per_class"]["Edema"]
    {'precision': 0.0, 'recall': 0.0, 'f1': 0.0, 'support': 2}
"""

_CITATION = """\
@article{leduc2024litegpt,
  title={LiteGPT: Large Vision-Language Model for Joint Chest X-ray Localization and Classification Task},
  author={Le-Duc, Khai and Zhang, Ryan and Nguyen, Ngoc Son and Pham, Tan-Hanh and Dao, Anh and Ngo, Ba Hung and
          Nguyen, Anh Totti and Hy, Truong-Son},
  journal={arXiv preprint arXiv:2407.12064},
  year={2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class FindingClassification(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("string")),
                    "references": datasets.List(datasets.Value("string")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2407.12064"],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[Sequence[str]],
        labels: Sequence[str],
        negative_label: str = "No finding",
    ) -> dict[str, Any]:
        return classification_scores(read_labels(predictions, references, labels, negative_label))
