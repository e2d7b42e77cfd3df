"""Multi-label classification of findings or diagnoses, per class, averaged, and as Finding against No finding."""

import datasets
import evaluate
import numpy as np

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


def _ratio(numerator, denominator):
    """numerator / denominator, 0 where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _scores(true_positives, predicted, actual):
    """Precision, recall and F1 of counts, elementwise."""
    return (
        _ratio(true_positives, predicted),
        _ratio(true_positives, actual),
        _ratio(2 * np.asarray(true_positives), np.asarray(predicted) + np.asarray(actual)),
    )


def _as_dict(precision, recall, f1, support):
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}


def _binary_scores(true_positives, predicted, actual):
    return _as_dict(*_scores(true_positives, predicted, actual), actual)


def _indicator_matrix(label_lists, labels, negative_label, what):
    """(images, labels) bool. `negative_label` is always a known name, but a column only if it is among `labels`."""
    columns = {label: column for column, label in enumerate(labels)}
    matrix = np.zeros((len(label_lists), len(labels)), dtype=bool)
    for row, image_labels in enumerate(label_lists):
        for label in image_labels:
            if label in columns:
                matrix[row, columns[label]] = True
            elif label != negative_label:
                raise ValueError(f"{what}[{row}] has the label {label!r}, which is not among `labels`.")
    return matrix


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class FindingClassification(evaluate.Metric):
    def _info(self):
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

    def _compute(self, predictions, references, labels, negative_label="No finding"):
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("`labels` must name at least one class and none twice.")
        if not references:
            raise ValueError("There are no images to score.")
        references = [image or [negative_label] for image in references]
        predicted = _indicator_matrix(predictions, labels, negative_label, "predictions")
        actual = _indicator_matrix(references, labels, negative_label, "references")

        has_finding = np.array([any(label != negative_label for label in image) for image in references], dtype=bool)
        says_finding = np.array([any(label != negative_label for label in image) for image in predictions], dtype=bool)
        is_empty = np.array([len(image) == 0 for image in predictions], dtype=bool)
        says_finding[is_empty] = ~has_finding[is_empty]

        hits = predicted & actual
        precision, recall, f1 = _scores(hits.sum(0), predicted.sum(0), actual.sum(0))
        support = actual.sum(0)
        total = int(support.sum())
        weights = _ratio(support, total)
        by_image = _scores(hits.sum(1), predicted.sum(1), actual.sum(1))
        return {
            "finding": _binary_scores((has_finding & says_finding).sum(), says_finding.sum(), has_finding.sum()),
            "no_finding": _binary_scores(
                (~has_finding & ~says_finding).sum(), (~says_finding).sum(), (~has_finding).sum()
            ),
            "per_class": {
                label: _as_dict(precision[i], recall[i], f1[i], support[i]) for i, label in enumerate(labels)
            },
            "micro": _as_dict(*_scores(hits.sum(), predicted.sum(), total), total),
            "macro": _as_dict(precision.mean(), recall.mean(), f1.mean(), total),
            "weighted": _as_dict(precision @ weights, recall @ weights, f1 @ weights, total),
            "samples": _as_dict(*(values.mean() for values in by_image), total),
            "num_images": len(references),
            "num_empty_predictions": int(is_empty.sum()),
        }
