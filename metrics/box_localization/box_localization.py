"""Accuracy at IoU thresholds of boxes that a language model writes as text, without scores."""

import datasets
import evaluate
import numpy as np

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


def _iou_matrix(references, predictions, inclusive=0):
    """(references, predictions) IoU of xyxy boxes; `inclusive` is added to each extent. 0 for boxes inside out.

    Args:
        references: (n, 4) float.
        predictions: (m, 4) float.
        inclusive: 0 for continuous coordinates, 1 where x2 and y2 are the last pixel inside the box.
    """
    top_left = np.maximum(references[:, None, :2], predictions[None, :, :2])
    bottom_right = np.minimum(references[:, None, 2:], predictions[None, :, 2:])
    intersection = np.clip(bottom_right - top_left + inclusive, 0, None).prod(-1)
    reference_areas = (references[:, 2:] - references[:, :2] + inclusive).prod(-1)
    prediction_areas = (predictions[:, 2:] - predictions[:, :2] + inclusive).prod(-1)
    union = reference_areas[:, None] + prediction_areas[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def _read_boxes(images, what, need_area):
    """(n,) image indices, (n,) labels and (n, 4) boxes of all images."""
    image_of = np.repeat(np.arange(len(images)), [len(image) for image in images])
    items = [item for image in images for item in image]
    labels = np.array([item["label"] for item in items], dtype=object)
    boxes = np.array([item["box"] for item in items], dtype=np.float64).reshape(-1, 4)
    # The comparison is also false for NaN. 1e-6 leaves room for boxes that went through float32.
    bad = ~((boxes >= -1e-6) & (boxes <= 1 + 1e-6)).all(-1)
    if bad.any():
        raise ValueError(f"{what}[{image_of[bad][0]}] has the box {boxes[bad][0].tolist()}, not xyxy in [0, 1].")
    flat = ~(boxes[:, 2:] > boxes[:, :2]).all(-1)
    if need_area and flat.any():
        raise ValueError(f"{what}[{image_of[flat][0]}] has the box {boxes[flat][0].tolist()}, which has no area.")
    return image_of, labels, boxes


def _accuracies(best_iou, thresholds):
    # 1e-9: an IoU that is the threshold up to float rounding is not above it.
    return {str(t): float((best_iou > t + 1e-9).mean()) if len(best_iou) else None for t in thresholds}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BoxLocalization(evaluate.Metric):
    def _info(self):
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

    def _compute(self, predictions, references, thresholds=(0.3, 0.4, 0.5)):
        predicted_image, predicted_label, predicted = _read_boxes(predictions, "predictions", need_area=False)
        true_image, true_label, true = _read_boxes(references, "references", need_area=True)
        best_iou, best_release_iou = np.zeros(len(true)), np.zeros(len(true))
        is_named = np.zeros(len(true), dtype=bool)

        # Both sides are ordered by image, so image i's boxes are the slice from starts[i] to starts[i + 1].
        true_starts = np.searchsorted(true_image, np.arange(len(references) + 1))
        predicted_starts = np.searchsorted(predicted_image, np.arange(len(predictions) + 1))
        for image in range(len(references)):
            t0, t1 = true_starts[image : image + 2]
            p0, p1 = predicted_starts[image : image + 2]
            if t0 == t1 or p0 == p1:
                continue
            same_label = true_label[t0:t1, None] == predicted_label[None, p0:p1]
            iou = _iou_matrix(true[t0:t1], predicted[p0:p1])
            release_iou = _iou_matrix(np.rint(100 * true[t0:t1]), np.rint(100 * predicted[p0:p1]), inclusive=1)
            best_iou[t0:t1] = np.where(same_label, iou, 0).max(1)
            best_release_iou[t0:t1] = np.where(same_label, release_iou, 0).max(1)
            is_named[t0:t1] = same_label.any(1)

        return {
            "accuracy_at_iou": _accuracies(best_iou, thresholds),
            "accuracy_at_iou_matched": _accuracies(best_iou[is_named], thresholds),
            "accuracy_at_iou_release": _accuracies(best_release_iou, thresholds),
            "per_class": {
                label: {
                    "num_boxes": int((true_label == label).sum()),
                    "accuracy_at_iou": _accuracies(best_iou[true_label == label], thresholds),
                }
                for label in sorted(set(true_label))
            },
            "num_boxes": len(true),
            "num_matched_boxes": int(is_named.sum()),
        }
