"""Localisation accuracy and average false positives per class, as the ChestX-ray8 paper reports them."""

import datasets
import evaluate
import numpy as np

IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # the paper's Table 7
IOBB_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)  # its Tables 4 and 19
ROUNDING = 1e-9  # a ratio that is the threshold up to float rounding is not above it

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


def _ratios(references, predictions):
    """(references, predictions) IoU and IoBB of xyxy boxes; 0 for detected boxes without area or inside out.

    Args:
        references: (n, 4) float, with an area.
        predictions: (m, 4) float.
    """
    top_left = np.maximum(references[:, None, :2], predictions[None, :, :2])
    bottom_right = np.minimum(references[:, None, 2:], predictions[None, :, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(-1)
    reference_areas = (references[:, 2:] - references[:, :2]).prod(-1)[:, None]
    prediction_areas = (predictions[:, 2:] - predictions[:, :2]).prod(-1)[None, :]
    zeros, overlap = np.zeros_like(intersection), intersection > 0
    iou = np.divide(intersection, reference_areas + prediction_areas - intersection, out=zeros.copy(), where=overlap)
    iobb = np.divide(intersection, np.broadcast_to(prediction_areas, zeros.shape), out=zeros, where=overlap)
    return iou, iobb


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


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ChestXray8Localization(evaluate.Metric):
    def _info(self):
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

    def _compute(self, predictions, references, iou_thresholds=IOU_THRESHOLDS, iobb_thresholds=IOBB_THRESHOLDS):
        boxed = [image for image in range(len(references)) if references[image]]
        _read_boxes(predictions, "predictions", need_area=False)  # an image that does not enter is checked too
        true_image, true_label, true = _read_boxes(references, "references", need_area=True)
        true_image = np.searchsorted(boxed, true_image)
        detected_image, detected_label, detected = _read_boxes(
            [predictions[image] for image in boxed], "predictions", need_area=False
        )
        # A true box's best ratio over the detected boxes of its label in its image, and the other way round.
        best_of_true = {"iou": np.zeros(len(true)), "iobb": np.zeros(len(true))}
        best_of_detected = {"iou": np.zeros(len(detected)), "iobb": np.zeros(len(detected))}
        true_starts = np.searchsorted(true_image, np.arange(len(boxed) + 1))
        detected_starts = np.searchsorted(detected_image, np.arange(len(boxed) + 1))
        for image in range(len(boxed)):
            of_true = slice(*true_starts[image : image + 2])
            of_detected = slice(*detected_starts[image : image + 2])
            if of_detected.start == of_detected.stop:
                continue
            same_label = true_label[of_true, None] == detected_label[None, of_detected]
            for name, ratio in zip(("iou", "iobb"), _ratios(true[of_true], detected[of_detected]), strict=True):
                ratio = np.where(same_label, ratio, 0)
                best_of_true[name][of_true] = ratio.max(1)
                best_of_detected[name][of_detected] = ratio.max(0)

        per_class = {}
        for label in sorted({*true_label, *detected_label}):
            is_true, is_detected = true_label == label, detected_label == label
            scores = {"num_boxes": int(is_true.sum()), "num_detections": int(is_detected.sum())}
            for name, thresholds in (("iou", iou_thresholds), ("iobb", iobb_thresholds)):
                found, claimed = best_of_true[name][is_true], best_of_detected[name][is_detected]
                scores[f"accuracy_at_{name}"] = {
                    str(t): float((found > t + ROUNDING).mean()) if len(found) else None for t in thresholds
                }
                scores[f"false_positives_at_{name}"] = {
                    str(t): float((claimed <= t + ROUNDING).sum() / len(boxed)) for t in thresholds
                }
            per_class[label] = scores
        return {"per_class": per_class, "num_images": len(boxed), "num_boxes": len(true)}
