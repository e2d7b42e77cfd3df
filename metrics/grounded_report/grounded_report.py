"""Reports sentence by sentence, each with its boxes."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.grounded_reports import grounded_report_scores, report_counts

_DESCRIPTION = """\
Sentences of a report are matched one to one with the true ones of the same image. Precision, recall and F1 of the
sentences, of the sentences together with their boxes, and of the boxes of matched sentences.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of dict): per image the answered sentences, {"text": str, "boxes": [[x1, y1, x2, y2],
        ...]}, xyxy in [0, 1] of the whole image; "boxes" is [] where a sentence has none. A malformed answer has an
        empty list.
    references (list of list of dict): per image the true sentences, in the same form.
Returns:
    sentences (dict): {"precision", "recall", "f1"}; a sentence is right where the image has a true one of the same
        text in lower case, with single blanks, without a final stop.
    sentences_with_boxes (dict): the same; its boxes must match too: each has one of the other side with an IoU of at
        least 0.5, or neither side has any.
    boxes (dict): the same of the boxes of matched sentences.
    num_answered, num_true, num_matched, num_matched_with_boxes (int): sentences.
    num_answered_boxes, num_right_boxes, num_true_boxes, num_found_boxes (int): boxes of matched sentences.
    A figure with nothing to divide by is None.
Raises:
    ValueError: a box lies outside [0, 1], or a true box has no area.
Examples:
    >>> metric = evaluate.load("metrics/grounded_report")
    >>> box = [0.0, 0.5, 0.4, 0.9]
    >>> results = metric.compute(
    ...     predictions=[[{"text": "There is an effusion", "boxes": [box]}, {"text": "No mass.", "boxes": []}]],
    ...     references=[[{"text": "There is an effusion.", "boxes": [box]}, {"text": "No edema.", "boxes": []}]],
    ... )
    >>> results["sentences"]["f1"], results["sentences_with_boxes"]["f1"], results["boxes"]["f1"]
    (0.5, 0.5, 1.0)
"""

_CITATION = """\
@article{bannur2024maira2,
  title={MAIRA-2: Grounded Radiology Report Generation},
  author={Bannur, Shruthi and Bouzid, Kenza and Castro, Daniel C. and Schwaighofer, Anton and others},
  journal={arXiv preprint arXiv:2406.04449},
  year={2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class GroundedReport(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.List(datasets.List(datasets.Value("float64"), length=4))
        sentences = datasets.List({"text": datasets.Value("string"), "boxes": boxes})
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": sentences, "references": sentences}),
            reference_urls=["https://arxiv.org/abs/2406.04449"],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[dict[str, Any]]],
        references: Sequence[Sequence[dict[str, Any]]],
    ) -> dict[str, Any]:
        return grounded_report_scores(report_counts(predictions, references))
