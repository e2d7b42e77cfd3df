"""Mean average precision and FROC of scored boxes."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.boxes import detection_scores, match

_DESCRIPTION = """\
Mean average precision and FROC of labelled boxes that carry a score, at thresholds of the IoU.

- A detection is true by COCO's rule: by falling score, each takes the best still free true box of its label and image
  with an IoU above the threshold. All others are false positives, a second box on the same finding too.
- Average precision of a label is the area under the envelope of its precision-recall curve at all of its points
  (PASCAL VOC 2010, the metric of VinDr-CXR's own challenge at IoU > 0.4). mAP is the mean over the labels with a true
  box.
- FROC: sensitivity against false positives an image over the boxes of all labels together, and its mean at 1/8, 1/4,
  1/2, 1, 2, 4 and 8 (LUNA16).
- Detections of equal score are one point of a curve, so no score depends on the order of the input.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of dict): per image the detected boxes, {"label": str, "box": [x1, y1, x2, y2], "score":
        float}, xyxy in [0, 1] of the whole image, any finite score. A malformed answer has an empty list. A box
        without area or turned inside out overlaps nothing, so it is a false positive.
    references (list of list of dict): per image the true boxes, {"label", "box"}; each must have an area.
    thresholds (sequence of float): IoU thresholds; a box counts above them, not at them. Default (0.4, 0.5).
Returns:
    map (dict): {"0.4": ..., "0.5": ...}.
    average_precision (dict): {label: {"0.4": ..., "0.5": ...}} of each label with a true box.
    froc (dict): {"0.4": {"sensitivity": {"0.125": ..., ..., "8": ...}, "mean": ...}, ...}.
    num_boxes (int): true boxes.
    num_detections (int): detected boxes.
    Without any true box all scores are None.
Examples:
    >>> metric = evaluate.load("metrics/box_detection")
    >>> results = metric.compute(
    ...     predictions=[
    ...         [
    ...             {"label": "Edema", "box": [0.0, 0.0, 0.5, 0.9], "score": 0.9},
    ...             {"label": "Edema", "box": [0.0, 0.0, 0.5, 0.8], "score": 0.8},
    ...         ],
    ...         [],
    ...     ],
    ...     references=[
    ...         [{"label": "Edema", "box": [0.0, 0.0, 0.5, 0.5]}],
    ...         [{"label": "ILD", "box": [0.2, 0.2, 0.4, 0.4]}],
    ...     ],
    ... )
    >>> results["map"], results["froc"]["0.4"]["mean"]
    ({'0.4': 0.5, '0.5': 0.5}, 0.5)
"""

_CITATION = """\
@misc{nguyen2020vinbigdata,
  title={VinBigData Chest X-ray Abnormalities Detection},
  author={Nguyen, DungNB and Nguyen, Ha Q. and Elliott, Julia and KeepLearning and Nguyen, Nhan T. and Culliton, Phil},
  howpublished={Kaggle},
  year={2020}
}
@article{setio2017luna16,
  title={Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules in computed
         tomography images: the LUNA16 challenge},
  author={Setio, Arnaud Arindra Adiyoso and others},
  journal={Medical Image Analysis},
  volume={42},
  pages={1--13},
  year={2017}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BoxDetection(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        box = {"label": datasets.Value("string"), "box": datasets.List(datasets.Value("float64"), length=4)}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.List({**box, "score": datasets.Value("float64")}),
                    "references": datasets.List(box),
                }
            ),
            reference_urls=[
                "https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection/overview/evaluation",
                "https://luna16.grand-challenge.org/Evaluation/",
            ],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[dict[str, Any]]],
        references: Sequence[Sequence[dict[str, Any]]],
        thresholds: Sequence[float] = (0.4, 0.5),
    ) -> dict[str, Any]:
        matches = {str(threshold): match(predictions, references, threshold) for threshold in thresholds}
        return detection_scores(matches, len(references))
