"""Mean average precision and FROC of scored boxes, and the arrays that their curves are drawn from.

Programs import the functions too, for bootstrap intervals and plots: `match` once, then any score of its result.
"""

from typing import NamedTuple

import datasets
import evaluate
import numpy as np

FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # an image; LUNA16's
ROUNDING = 1e-9  # an IoU that is the threshold up to float rounding is not above it
CHUNK = 2**18  # resamples times detections in memory at once

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


class Matches(NamedTuple):
    """The n detections of all images by falling score, which of them are true, and the m true boxes."""

    image: np.ndarray  # (n,) int, index of the image
    label: np.ndarray  # (n,) str objects
    score: np.ndarray  # (n,) float, falling
    is_true: np.ndarray  # (n,) bool, False: a false positive
    true_image: np.ndarray  # (m,) int
    true_label: np.ndarray  # (m,) str objects


def match(predictions: list[list[dict]], references: list[list[dict]], threshold: float) -> Matches:
    """Detections of all images by falling score, each true or a false positive.

    By falling score, a detection takes the best still free true box of its label and image with an IoU above the
    threshold. Detections of equal score take turns in the order of their coordinates, whatever the order of the input.

    Args:
        predictions: an image is a list of {"label", "box", "score"}; box is xyxy in [0, 1] of the whole image.
        references: an image is a list of {"label", "box"}.
        threshold: IoU above which a box counts (not at it; COCO counts it at the threshold too).

    Raises:
        ValueError: the two have different lengths, a box lies outside [0, 1], a true box has no area, a score is
            missing or not finite.

    Source: COCOeval.evaluateImg of pycocotools, without crowds, areas and its limit of 100 detections an image.
    """
    if len(predictions) != len(references):
        raise ValueError(f"There are predictions for {len(predictions)} images and references for {len(references)}.")
    image, label, box = _read_boxes(predictions, "predictions", need_area=False)
    true_image, true_label, true_box = _read_boxes(references, "references", need_area=True)
    score = np.array([item.get("score") for items in predictions for item in items], dtype=np.float64)
    bad = ~np.isfinite(score)
    if bad.any():
        raise ValueError(f"predictions[{image[bad][0]}] has the score {score[bad][0]}, not a finite number.")

    label_names, label_code = np.unique(np.concatenate([label, true_label]), return_inverse=True)
    code = image * len(label_names) + label_code[: len(label)]  # one number for each pair of an image and a label
    true_code = true_image * len(label_names) + label_code[len(label) :]
    order = np.lexsort((*box.T, code, -score))
    true_order = np.lexsort((*true_box.T, true_code))
    image, label, box, score, code = image[order], label[order], box[order], score[order], code[order]
    true_image, true_label, true_box = true_image[true_order], true_label[true_order], true_box[true_order]
    true_code = true_code[true_order]

    # All pairs of a detection and a true box of one image and label: the true boxes of a code stand side by side.
    first = np.searchsorted(true_code, code, side="left")
    count = np.searchsorted(true_code, code, side="right") - first
    detection = np.repeat(np.arange(len(code)), count)
    truth = np.arange(len(detection)) + np.repeat(first - (np.cumsum(count) - count), count)
    iou = iou_of_pairs(box[detection], true_box[truth])

    above = np.flatnonzero(iou > threshold + ROUNDING)
    above = above[np.lexsort((truth[above], -iou[above], detection[above]))]
    is_true, is_taken = np.zeros(len(code), dtype=bool), np.zeros(len(true_code), dtype=bool)
    for d, t in zip(detection[above].tolist(), truth[above].tolist(), strict=True):
        if not is_true[d] and not is_taken[t]:
            is_true[d] = is_taken[t] = True
    return Matches(image, label, score, is_true, true_image, true_label)


def iou_of_pairs(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) IoU of xyxy boxes, pair by pair; 0 for boxes without area or inside out.

    Args:
        boxes: (n, 4) float.
        others: (n, 4) float, with an area.
    """
    top_left = np.maximum(boxes[:, :2], others[:, :2])
    bottom_right = np.minimum(boxes[:, 2:], others[:, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(-1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(-1) + (others[:, 2:] - others[:, :2]).prod(-1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> dict[str, float | np.ndarray]:
    """{label: area under the envelope of its precision-recall curve} of each label with a true box.

    Args:
        weights: (images,) or (resamples, images), how often each image counts. None: once.

    Returns:
        Floats, (resamples,) for weights of that shape; NaN where no true box of the label has a weight.

    Source: PASCAL VOC 2010 development kit, section 3.4.1 (all points). That equal scores are one point is ours.
    """
    rows = _rows(weights, matches)
    values = {}
    for name in sorted(set(matches.true_label)):
        of_label = matches.label == name
        image, is_true = matches.image[of_label], matches.is_true[of_label]
        ends = _last_of_equal(matches.score[of_label])
        positives = rows[:, matches.true_image[matches.true_label == name]].sum(-1)
        areas = np.zeros(len(rows))
        for chunk in _chunks(len(rows), len(image)):
            true, false = _cumulative_counts(rows[chunk], image, is_true, ends)
            precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=-1)[:, ::-1]
            areas[chunk] = (np.diff(true, axis=-1, prepend=0) * envelope).sum(-1)
        areas = np.divide(areas, positives, out=np.full(len(rows), np.nan), where=positives > 0)
        values[name] = areas if np.ndim(weights) == 2 else float(areas[0])
    return values


def mean_average_precision(matches: Matches, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Mean of `average_precision` over the labels that have a true box.

    Args:
        weights: (images,) or (resamples, images), how often each image counts. None: once.

    Returns:
        A float, (resamples,) for weights of that shape. A label whose true boxes have no weight in a resample is left
        out of that resample's mean; NaN where no label is left.
    """
    shape = (len(weights),) if np.ndim(weights) == 2 else ()
    values = np.array(list(average_precision(matches, weights).values())).reshape(-1, *shape)
    count = np.isfinite(values).sum(0)
    mean = np.divide(np.nansum(values, axis=0), count, out=np.full(shape, np.nan), where=count > 0)
    return mean if shape else float(mean)


def froc_sensitivities(
    matches: Matches,
    num_images: int,
    false_positives: tuple[float, ...] = FALSE_POSITIVES,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Share of the true boxes of all labels that are found at given false positives an image.

    The curve starts at (0, 0), is a straight line between two points (a step, but where scores are equal), and beyond
    its last point it keeps the last sensitivity.

    Args:
        num_images: all images, those without any box too.
        false_positives: (points,) false positives an image.
        weights: (images,) or (resamples, images), how often each image counts. None: once.

    Returns:
        (points,), or (resamples, points); NaN where no true box has a weight.

    Source: the evaluation of LUNA16 (Setio et al., 2017), which interpolates too.
    """
    rows = _rows(np.ones(num_images) if weights is None else weights, matches)
    if rows.shape[1] != num_images:
        raise ValueError(f"The weights are for {rows.shape[1]} images, not for {num_images}.")
    ends = _last_of_equal(matches.score)
    positives = rows[:, matches.true_image].sum(-1)
    allowed = rows.sum(-1)[:, None] * np.asarray(false_positives)
    found = np.full(allowed.shape, np.nan)
    for chunk in _chunks(len(rows), len(matches.image)):
        true, false = _cumulative_counts(rows[chunk], matches.image, matches.is_true, ends)
        true, false = (np.pad(counts, ((0, 0), (1, 0))) for counts in (true, false))
        found[chunk] = [np.interp(*row) for row in zip(allowed[chunk], false, true, strict=True)]
    found = np.divide(found, positives[:, None], out=np.full(found.shape, np.nan), where=positives[:, None] > 0)
    return found if np.ndim(weights) == 2 else found[0]


def precision_recall_curve(matches: Matches, label: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and score of each point, by falling score.

    A point is what the detections of at least its score have. There is no envelope.

    Args:
        label: of this label alone; None: of the boxes of all labels together.

    Returns:
        Three (points,) arrays, a point for each distinct score. Recall is NaN where there is no true box.
    """
    chosen = np.ones(len(matches.label), dtype=bool) if label is None else matches.label == label
    positives = len(matches.true_label) if label is None else (matches.true_label == label).sum()
    ends = _last_of_equal(matches.score[chosen])
    true = np.cumsum(matches.is_true[chosen])[ends]
    recall = true / positives if positives else np.full(len(ends), np.nan)
    return recall, true / (ends + 1), matches.score[chosen][ends]


def froc_curve(matches: Matches, num_images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positives an image, sensitivity and score of each point, by falling score, over all labels.

    A point is what the detections of at least its score have.

    Args:
        num_images: all images, those without any box too.

    Returns:
        Three (points,) arrays, a point for each distinct score. Sensitivity is NaN where there is no true box.
    """
    ends = _last_of_equal(matches.score)
    true = np.cumsum(matches.is_true)[ends]
    positives = len(matches.true_label)
    sensitivity = true / positives if positives else np.full(len(ends), np.nan)
    return (ends + 1 - true) / num_images, sensitivity, matches.score[ends]


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


def _rows(weights, matches):
    """(resamples, images) weights; ones for None."""
    num_images = 1 + max(matches.image.max(initial=-1), matches.true_image.max(initial=-1))
    rows = np.atleast_2d(np.ones(num_images) if weights is None else weights)
    if rows.shape[1] < num_images:
        raise ValueError(f"There are boxes in {num_images} images and weights for {rows.shape[1]}.")
    return rows


def _last_of_equal(scores):
    """Indices of the last of each run of equal scores: the points of a curve."""
    return np.flatnonzero(np.diff(scores, append=np.nan) != 0)


def _chunks(num_resamples, num_detections):
    """Slices of the resamples that fit into CHUNK."""
    step = max(1, CHUNK // max(1, num_detections))
    return [slice(start, start + step) for start in range(0, num_resamples, step)]


def _cumulative_counts(rows, image, is_true, ends):
    """(resamples, points) true and false detections up to each point."""
    counts = rows[:, image].astype(np.float64)
    both = np.cumsum(counts, axis=-1)[:, ends]
    true = np.cumsum(counts * is_true, axis=-1)[:, ends]
    return true, both - true


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BoxDetection(evaluate.Metric):
    def _info(self):
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

    def _compute(self, predictions, references, thresholds=(0.4, 0.5)):
        results = {"map": {}, "average_precision": {}, "froc": {}}
        for threshold in thresholds:
            matches, key = match(predictions, references, threshold), str(threshold)
            results["map"][key] = _or_none(mean_average_precision(matches))
            for label, value in average_precision(matches).items():
                results["average_precision"].setdefault(label, {})[key] = value
            sensitivities = froc_sensitivities(matches, len(references))
            results["froc"][key] = {
                "sensitivity": {f"{n:g}": _or_none(s) for n, s in zip(FALSE_POSITIVES, sensitivities, strict=True)},
                "mean": _or_none(sensitivities.mean()),
            }
        results["num_boxes"] = sum(len(image) for image in references)
        results["num_detections"] = sum(len(image) for image in predictions)
        return results


def _or_none(value):
    return None if np.isnan(value) else float(value)
