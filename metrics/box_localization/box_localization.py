"""Accuracy at IoU thresholds of boxes that a language model writes as text, without scores."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.boxes import best_overlaps, localization_scores

_DESCRIPTION = """\
Acc@t: the share of true boxes for which an answer has a box of the same label in the same image with an IoU above t.
It comes by three definitions that differ in the denominator and in the IoU: over all true boxes, over those whose
label the answer names (the text of the LiteGPT paper), and as the LiteGPT release computes it.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of dict): per image the predicted boxes, {"label": str, "box": [x1, y1, x2, y2]}, xyxy in
        [0, 1] of the whole image. A malformed answer has an empty list: all true boxes of its image are missed. A box
        turned inside out overlaps nothing.
    references (list of list of dict): per image the true boxes, in the same form; each must have an area.
    thresholds (sequence of float): IoU thresholds; a box counts above them, not at them. Default (0.3, 0.4, 0.5).
Returns:
    accuracy_at_iou (dict): {"0.3": ..., ...}, over all true boxes.
    accuracy_at_iou_matched (dict): over the true boxes whose label the answer names in that image.
    accuracy_at_iou_release (dict): over all true boxes, IoU of the integers round(100 * v) with inclusive pixels (1 is
        added to each extent).
    per_class (dict): {label: {"num_boxes": int, "accuracy_at_iou": {...}}} over all true boxes of that label.
    num_boxes (int): true boxes.
    num_matched_boxes (int): those whose label the answer names in that image.
    An accuracy without any box in its denominator is None.
Examples:
    >>> metric = evaluate.load("metrics/box_localization")
    >>> results = metric.compute(
    ...     predictions=[[{"label": "Edema", "box": [0, 0, 0.5, 0.9]}], []],
    ...     references=[[{"label": "Edema", "box": [0, 0, 0.5, 0.5]}], [{"label": "ILD", "box": [0, 0, 0.4, 0.4]}]],
    ... )
    >>> results["accuracy_at_iou"], results["accuracy_at_iou_matched"]
    ({'0.3': 0.5, '0.4': 0.5, '0.5': 0.5}, {'0.3': 1.0, '0.4': 1.0, '0.5': 1.0})
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
class BoxLocalization(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.List(
            {"label": datasets.Value("string"), "box": datasets.List(datasets.Value("float64"), length=4)}
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": boxes, "references": boxes}),
            reference_urls=["https://arxiv.org/abs/2407.12064"],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[dict[str, Any]]],
        references: Sequence[Sequence[dict[str, Any]]],
        thresholds: Sequence[float] = (0.3, 0.4, 0.5),
    ) -> dict[str, Any]:
        return localization_scores(best_overlaps(predictions, references), thresholds)
