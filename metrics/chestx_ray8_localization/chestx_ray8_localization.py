"""Localisation accuracy and average false positives per class, as the ChestX-ray8 paper reports them."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.boxes import CHESTX_RAY8_IOBB, CHESTX_RAY8_IOU, chestx_ray8_scores

_DESCRIPTION = """\
Per class, the share of true boxes that are found (Acc.) and the average number of false boxes an image (AFP), where
"found" means an IoU above T(IoU), or an IoBB above T(IoBB). IoBB is the intersection over the area of the detected
box: how much of the detection lies on the finding. It forgives a detection that is smaller than the finding.

What the paper says (section 4.3): a localisation is correct where IoU > T(IoU) or IoBB > T(IoBB); Tables 4, 7 and 19
give Acc. and the "average false positive number" per class. No code was published, and it leaves open:
- What Acc. counts. Here true boxes: one is found where any detected box of its class in its image is above the
  threshold. All Acc. of Table 4 are whole numbers over the class's boxes (Atelectasis: 131 of 180).
- What a false positive is. Here a detected box that is above the threshold with no true box of its class in its
  image: a finding may be found by several boxes, none of which is then false.
- The images over which it is averaged. Here all that carry a true box of any class, as all AFP of Tables 4 and 19 are
  whole numbers over 984, whatever the class (984 boxes in 880 images were released, so the paper seems to have taken
  each box for an image). Images without a true box are left out: most of ChestX-ray14 is labelled but not boxed, and
  what is detected there is neither true nor false.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of dict): per image the detected boxes, {"label": str, "box": [x1, y1, x2, y2]}, xyxy in
        [0, 1] of the whole image. A malformed answer has an empty list. A box without area or turned inside out
        overlaps nothing, so it is a false positive.
    references (list of list of dict): per image the true boxes, in the same form; each must have an area.
    iou_thresholds, iobb_thresholds (sequence of float): a box counts above them, not at them. The paper's by default.
Returns:
    per_class (dict): {label: scores} of each label that has a true or a detected box in the images with a true box:
        num_boxes, num_detections (int).
        accuracy_at_iou, accuracy_at_iobb (dict): {"0.1": ..., ...}; None where the label has no true box.
        false_positives_at_iou, false_positives_at_iobb (dict): {"0.1": ..., ...}, false boxes an image.
    num_images (int): images with a true box; the others do not enter.
    num_boxes (int): true boxes.
Examples:
    >>> metric = evaluate.load("metrics/chestx_ray8_localization")
    >>> results = metric.compute(
    ...     predictions=[[{"label": "Mass", "box": [0, 0, 0.4, 0.4]}], [{"label": "Mass", "box": [0, 0, 0.1, 0.1]}]],
    ...     references=[[{"label": "Mass", "box": [0, 0, 0.4, 0.3]}], [{"label": "Nodule", "box": [0, 0, 0.1, 0.1]}]],
    ...     iou_thresholds=(0.5,),
    ...     iobb_thresholds=(0.5, 0.9),
    ... )
    >>> results["per_class"]["Mass"]["accuracy_at_iobb"], results["per_class"]["Mass"]["false_positives_at_iobb"]
    ({'0.5': 1.0, '0.9': 0.0}, {'0.5': 0.5, '0.9': 1.0})
"""

_CITATION = """\
@inproceedings{wang2017chestxray8,
  title={ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and
         Localization of Common Thorax Diseases},
  author={Wang, Xiaosong and Peng, Yifan and Lu, Le and Lu, Zhiyong and Bagheri, Mohammadhadi and Summers, Ronald M.},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages={3462--3471},
  year={2017}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ChestXray8Localization(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.List(
            {"label": datasets.Value("string"), "box": datasets.List(datasets.Value("float64"), length=4)}
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": boxes, "references": boxes}),
            reference_urls=["https://arxiv.org/abs/1705.02315"],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[dict[str, Any]]],
        references: Sequence[Sequence[dict[str, Any]]],
        iou_thresholds: Sequence[float] = CHESTX_RAY8_IOU,
        iobb_thresholds: Sequence[float] = CHESTX_RAY8_IOBB,
    ) -> dict[str, Any]:
        return chestx_ray8_scores(predictions, references, iou_thresholds, iobb_thresholds)
