"""Boxes that were found against boxes that are there: Acc@IoU, average precision and FROC.

In: per image a list of boxes, {"label": str, "box": [x1, y1, x2, y2]}, xyxy in [0, 1] of the whole image; where they
are ranked, with a "score" too. An image without boxes, and a malformed answer, is an empty list. Out: figures, and the
arrays that curves are drawn from. Figures take `weights`, how often each image counts: many resamples of the images
are scored at once.

    predictions = [[{"label": "Edema", "box": [0.0, 0.0, 0.5, 0.9], "score": 0.9}], []]
    references = [[{"label": "Edema", "box": [0.0, 0.0, 0.5, 0.5]}], [{"label": "ILD", "box": [0.0, 0.0, 0.4, 0.4]}]]

    overlaps = best_overlaps(predictions, references)  # of each true box the best IoU; scores are not needed
    accuracy_at_iou(overlaps, 0.5)  # 0.5, one of two true boxes
    accuracy_at_iou(overlaps, 0.5, definition="matched")  # 1.0, of those whose label the image's answer names

    matches = match(predictions, references, 0.5)  # which detections are true, by falling score
    mean_average_precision(matches)  # 0.5, Edema has 1, ILD 0
    mean_average_precision(matches, weights=np.array([[1, 1], [2, 0]]))  # of each resample: array([0.5, 1. ])
    froc_sensitivities(matches, num_images=2)  # at 1/8, 1/4, ... 8 false positives an image
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from litegpt.metrics.ratios import macro_mean, number_or_none, number_or_rows, ratio, weight_rows

FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # an image; LUNA16's
ROUNDING = 1e-9  # a ratio that is the threshold up to float rounding is not above it
CHESTX_RAY8_IOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # thresholds of ChestX-ray8's Table 7
CHESTX_RAY8_IOBB = (0.1, 0.25, 0.5, 0.75, 0.9)  # of its Tables 4 and 19
CHUNK = 2**18  # resamples times detections in memory at once

Images = Sequence[Sequence[Mapping[str, Any]]]  # an image is a list of {"label", "box"}, ranked ones with "score"
Definition = Literal["all", "matched", "release"]


# --- Reading ---------------------------------------------------------------------------------------------------------


class Boxes(NamedTuple):
    """The n boxes of all images, in the order of the images."""

    image: np.ndarray  # (n,) int, index of the image
    label: np.ndarray  # (n,) str objects
    box: np.ndarray  # (n, 4) float, xyxy

    def chosen(self, index: np.ndarray) -> "Boxes":
        """Those of an index or a mask."""
        return Boxes(*(values[index] for values in self))


def read_boxes(images: Images, what: str, need_area: bool) -> Boxes:
    """The boxes of all images as arrays.

    Args:
        images: an image is a list of {"label", "box"}; box is xyxy in [0, 1] of the whole image.
        what: "predictions" or "references", for the error's text.
        need_area: whether a box that is flat or turned inside out is an error.

    Raises:
        ValueError: a box lies outside [0, 1], or has no area where it must have one. The text names the image.
    """
    image = np.repeat(np.arange(len(images)), [len(items) for items in images])
    items = [item for items in images for item in items]
    labels = np.array([item["label"] for item in items], dtype=object)
    boxes = np.array([item["box"] for item in items], dtype=np.float64).reshape(-1, 4)
    # The comparison is also false for NaN. 1e-6 leaves room for boxes that went through float32.
    bad = ~((boxes >= -1e-6) & (boxes <= 1 + 1e-6)).all(-1)
    if bad.any():
        raise ValueError(f"{what}[{image[bad][0]}] has the box {boxes[bad][0].tolist()}, not xyxy in [0, 1].")
    flat = ~(boxes[:, 2:] > boxes[:, :2]).all(-1)
    if need_area and flat.any():
        raise ValueError(f"{what}[{image[flat][0]}] has the box {boxes[flat][0].tolist()}, which has no area.")
    return Boxes(image, labels, boxes)


def _read_both(predictions: Images, references: Images) -> tuple[Boxes, Boxes]:
    """The predicted boxes and the true ones."""
    if len(predictions) != len(references):
        raise ValueError(f"There are predictions for {len(predictions)} images and references for {len(references)}.")
    predicted = read_boxes(predictions, "predictions", need_area=False)
    return predicted, read_boxes(references, "references", need_area=True)


# --- Pairs -----------------------------------------------------------------------------------------------------------


def iou_of_pairs(boxes: np.ndarray, others: np.ndarray, inclusive: int = 0) -> np.ndarray:
    """(n,) IoU of xyxy boxes, pair by pair; 0 for boxes without area or inside out.

    Args:
        boxes: (n, 4) float.
        others: (n, 4) float, with an area.
        inclusive: what is added to each extent: 0 for continuous coordinates, 1 where x2 and y2 are the last pixel
            inside the box.
    """
    intersection = _intersections(boxes, others, inclusive)
    union = _areas(boxes, inclusive) + _areas(others, inclusive) - intersection
    return ratio(intersection, union, otherwise=0)


def iobb_of_pairs(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) share of each of the (n, 4) boxes that lies in the other one of its pair; 0 for those without an area."""
    # Two extents turned inside out have a positive area, but no intersection.
    return ratio(_intersections(boxes, others), _areas(boxes), otherwise=0)


def _intersections(boxes: np.ndarray, others: np.ndarray, inclusive: int = 0) -> np.ndarray:
    top_left = np.maximum(boxes[:, :2], others[:, :2])
    bottom_right = np.minimum(boxes[:, 2:], others[:, 2:])
    return np.clip(bottom_right - top_left + inclusive, 0, None).prod(-1)


def _areas(boxes: np.ndarray, inclusive: int = 0) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2] + inclusive).prod(-1)


def pairs_of_label(boxes: Boxes, others: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of one of `boxes` and one of `others` with the same image and label: (pairs,) indices of both."""
    code, other_code = _codes(boxes, others)
    order = np.argsort(other_code, kind="stable")
    # The others of a code stand side by side in this order.
    first = np.searchsorted(other_code[order], code, side="left")
    count = np.searchsorted(other_code[order], code, side="right") - first
    place = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    return np.repeat(np.arange(len(code)), count), order[place]


def _codes(boxes: Boxes, others: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Of each box of both one number, the same for the same image and label."""
    names, label = np.unique(np.concatenate([boxes.label, others.label]), return_inverse=True)
    image = np.concatenate([boxes.image, others.image])
    code = image * len(names) + label
    return code[: len(boxes.label)], code[len(boxes.label) :]


# --- Acc@IoU: boxes without scores -----------------------------------------------------------------------------------


class BestOverlaps(NamedTuple):
    """What each of the m true boxes has of the predicted boxes of its label in its image."""

    image: np.ndarray  # (m,) int
    label: np.ndarray  # (m,) str objects
    iou: np.ndarray  # (m,) float, the best IoU; 0 where nothing overlaps
    release_iou: np.ndarray  # (m,) float, the best IoU as the LiteGPT release computes it
    is_named: np.ndarray  # (m,) bool, whether there is any

    def chosen(self, index: np.ndarray) -> "BestOverlaps":
        """Those of an index or a mask."""
        return BestOverlaps(*(values[index] for values in self))


def best_overlaps(predictions: Images, references: Images) -> BestOverlaps:
    """The best IoU of each true box; a predicted box may be the best of several.

    The release's IoU is that of the integers round(100 * v) with inclusive pixels: 1 is added to each extent.

    Raises:
        ValueError: the two have different lengths, a box lies outside [0, 1], a true box has no area.
    """
    predicted, true = _read_both(predictions, references)
    pair, truth = pairs_of_label(predicted, true)
    boxes, others = predicted.box[pair], true.box[truth]
    iou, release_iou = iou_of_pairs(boxes, others), iou_of_pairs(np.rint(100 * boxes), np.rint(100 * others), 1)
    is_named = np.zeros(len(true.label), dtype=bool)
    is_named[truth] = True
    return BestOverlaps(true.image, true.label, _best(iou, truth, true), _best(release_iou, truth, true), is_named)


def _best(ratios: np.ndarray, index: np.ndarray, boxes: Boxes) -> np.ndarray:
    """Of each box the largest of the (pairs,) ratios that `index` says are its own; 0 where it has none."""
    best = np.zeros(len(boxes.label))
    np.maximum.at(best, index, ratios)
    return best


def accuracy_at_iou(
    overlaps: BestOverlaps, threshold: float, weights: np.ndarray | None = None, definition: Definition = "all"
) -> float | np.ndarray:
    """Share of the true boxes that have a predicted box of their label with an IoU above the threshold (not at it).

    Args:
        weights: (images,) or (rows, images), how often each image counts. None: once.
        definition: "all" true boxes; "matched", those whose label the image's prediction names (the text of the
            LiteGPT paper, arXiv 2407.12064); "release", all, with the IoU of its published code.

    Returns:
        A float, (rows,) for weights of that shape; NaN where no true box has a weight.
    """
    is_counted = overlaps.is_named if definition == "matched" else np.ones(len(overlaps.image), dtype=bool)
    iou = overlaps.release_iou if definition == "release" else overlaps.iou
    is_found = is_counted & (iou > threshold + ROUNDING)
    rows = _rows(weights, overlaps.image)
    found, counted = (
        rows @ np.bincount(overlaps.image, weights=boxes, minlength=rows.shape[1]) for boxes in (is_found, is_counted)
    )
    return number_or_rows(ratio(found, counted), weights)


def localization_scores(overlaps: BestOverlaps, thresholds: Sequence[float]) -> dict[str, Any]:
    """All scores of `metrics/box_localization`.

    Returns:
        "accuracy_at_iou", "accuracy_at_iou_matched", "accuracy_at_iou_release", each {"0.3": accuracy, ...}, None over
        no box at all; "per_class", {label: {"num_boxes", "accuracy_at_iou"}}; "num_boxes"; "num_matched_boxes".
    """

    def accuracies(boxes: BestOverlaps, definition: Definition = "all") -> dict[str, float | None]:
        return {str(t): number_or_none(accuracy_at_iou(boxes, t, definition=definition)) for t in thresholds}

    by_label = {label: overlaps.chosen(overlaps.label == label) for label in sorted(set(overlaps.label))}
    return {
        "accuracy_at_iou": accuracies(overlaps),
        "accuracy_at_iou_matched": accuracies(overlaps, "matched"),
        "accuracy_at_iou_release": accuracies(overlaps, "release"),
        "per_class": {
            label: {"num_boxes": len(boxes.label), "accuracy_at_iou": accuracies(boxes)}
            for label, boxes in by_label.items()
        },
        "num_boxes": len(overlaps.label),
        "num_matched_boxes": int(overlaps.is_named.sum()),
    }


def chestx_ray8_scores(
    predictions: Images, references: Images, iou_thresholds: Sequence[float], iobb_thresholds: Sequence[float]
) -> dict[str, Any]:
    """All scores of `metrics/chestx_ray8_localization`; images without a true box do not enter.

    Returns:
        "per_class", {label: {"num_boxes", "num_detections", "accuracy_at_iou", "false_positives_at_iou",
        "accuracy_at_iobb", "false_positives_at_iobb"}}; "num_images"; "num_boxes". Accuracies are None where the label
        has no true box, false positives are boxes an image.

    Raises:
        ValueError: the two have different lengths, a box lies outside [0, 1], a true box has no area.

    Source: Wang et al., ChestX-ray8, CVPR 2017, section 4.3, as far as it says; see the module's card.
    """
    predicted, true = _read_both(predictions, references)
    detected = predicted.chosen(np.isin(predicted.image, true.image))
    num_images = len(set(true.image.tolist()))
    pair, truth = pairs_of_label(detected, true)
    boxes, others = detected.box[pair], true.box[truth]
    per_class: dict[str, dict[str, Any]] = {
        label: {"num_boxes": int((true.label == label).sum()), "num_detections": int((detected.label == label).sum())}
        for label in sorted({*true.label, *detected.label})
    }
    for name, ratios, thresholds in (
        ("iou", iou_of_pairs(boxes, others), iou_thresholds),
        ("iobb", iobb_of_pairs(boxes, others), iobb_thresholds),
    ):
        best_of_true, best_of_detected = _best(ratios, truth, true), _best(ratios, pair, detected)
        for label, scores in per_class.items():
            found, claimed = best_of_true[true.label == label], best_of_detected[detected.label == label]
            scores[f"accuracy_at_{name}"] = {
                str(t): number_or_none(ratio((found > t + ROUNDING).sum(), len(found))) for t in thresholds
            }
            scores[f"false_positives_at_{name}"] = {
                str(t): float((claimed <= t + ROUNDING).sum() / num_images) for t in thresholds
            }
    return {"per_class": per_class, "num_images": num_images, "num_boxes": len(true.label)}


# --- Average precision and FROC: boxes with scores -------------------------------------------------------------------


class Matches(NamedTuple):
    """The n detections of all images by falling score, which of them are true, and the m true boxes."""

    image: np.ndarray  # (n,) int, index of the image
    label: np.ndarray  # (n,) str objects
    score: np.ndarray  # (n,) float, falling
    is_true: np.ndarray  # (n,) bool, False: a false positive
    true_image: np.ndarray  # (m,) int
    true_label: np.ndarray  # (m,) str objects


def match(predictions: Images, references: Images, threshold: float) -> Matches:
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
    detected, true = _read_both(predictions, references)
    score = np.array([item.get("score") for items in predictions for item in items], dtype=np.float64)
    bad = ~np.isfinite(score)
    if bad.any():
        raise ValueError(f"predictions[{detected.image[bad][0]}] has the score {score[bad][0]}, not a finite number.")

    code, true_code = _codes(detected, true)
    order = np.lexsort((*detected.box.T, code, -score))
    detected, score = detected.chosen(order), score[order]
    true = true.chosen(np.lexsort((*true.box.T, true_code)))

    detection, truth = pairs_of_label(detected, true)
    iou = iou_of_pairs(detected.box[detection], true.box[truth])
    above = np.flatnonzero(iou > threshold + ROUNDING)
    above = above[np.lexsort((truth[above], -iou[above], detection[above]))]
    is_true, is_taken = np.zeros(len(score), dtype=bool), np.zeros(len(true.label), dtype=bool)
    for d, t in zip(detection[above].tolist(), truth[above].tolist(), strict=True):
        if not is_true[d] and not is_taken[t]:
            is_true[d] = is_taken[t] = True
    return Matches(detected.image, detected.label, score, is_true, true.image, true.label)


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> dict[str, float | np.ndarray]:
    """{label: area under the envelope of its precision-recall curve} of each label with a true box.

    Args:
        weights: (images,) or (resamples, images), how often each image counts. None: once.

    Returns:
        Floats, (resamples,) for weights of that shape; NaN where no true box of the label has a weight.

    Source: PASCAL VOC 2010 development kit, section 3.4.1 (all points). That equal scores are one point is ours.
    """
    rows = _rows(weights, matches.image, matches.true_image)
    values = {}
    for name in sorted(set(matches.true_label)):
        chosen = matches.label == name
        image, is_true = matches.image[chosen], matches.is_true[chosen]
        ends = _last_of_equal(matches.score[chosen])
        positives = rows[:, matches.true_image[matches.true_label == name]].sum(-1)
        areas = np.zeros(len(rows))
        for chunk in _chunks(len(rows), len(image)):
            true, false = _cumulative_counts(rows[chunk], image, is_true, ends)
            precision = ratio(true, true + false, otherwise=0)
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=-1)[:, ::-1]
            areas[chunk] = (np.diff(true, axis=-1, prepend=0) * envelope).sum(-1)
        values[name] = number_or_rows(ratio(areas, positives), weights)
    return values


def mean_average_precision(matches: Matches, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Mean of `average_precision` over the labels that have a true box.

    Args:
        weights: (images,) or (resamples, images), how often each image counts. None: once.

    Returns:
        A float, (resamples,) for weights of that shape. A label whose true boxes have no weight in a resample is left
        out of that resample's mean, as if the images were really repeated; NaN where no label is left. For an interval
        see `intervals.means_over_the_same_labels`.
    """
    shape = (len(weights),) if np.ndim(weights) == 2 else ()
    return macro_mean(np.array(list(average_precision(matches, weights).values())).reshape(-1, *shape).T)


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
    rows = _rows(np.ones(num_images) if weights is None else weights, matches.image, matches.true_image)
    rows = weight_rows(rows, num_images)
    ends = _last_of_equal(matches.score)
    positives = rows[:, matches.true_image].sum(-1)
    allowed = rows.sum(-1)[:, None] * np.asarray(false_positives)
    found = np.full(allowed.shape, np.nan)
    for chunk in _chunks(len(rows), len(matches.image)):
        true, false = _cumulative_counts(rows[chunk], matches.image, matches.is_true, ends)
        true, false = (np.pad(counts, ((0, 0), (1, 0))) for counts in (true, false))
        found[chunk] = [np.interp(*row) for row in zip(allowed[chunk], false, true, strict=True)]
    found = ratio(found, positives[:, None])
    return found if np.ndim(weights) == 2 else found[0]


def detection_scores(matches: Mapping[str, Matches], num_images: int) -> dict[str, Any]:
    """All scores of `metrics/box_detection`.

    Args:
        matches: by IoU threshold, "0.4" for example; one at least, of the same boxes.
        num_images: all images, those without any box too.

    Returns:
        "map", {"0.4": value, ...}; "average_precision", {label: {"0.4": value, ...}}; "froc", {"0.4": {"sensitivity":
        {"0.125": value, ...}, "mean": value}, ...}; "num_boxes"; "num_detections". None without any true box.

    Raises:
        ValueError: there is no threshold.
    """
    if not matches:
        raise ValueError("There is no IoU threshold to score boxes at.")
    scores: dict[str, Any] = {"map": {}, "average_precision": {}, "froc": {}}
    for key, at_threshold in matches.items():
        scores["map"][key] = number_or_none(mean_average_precision(at_threshold))
        for label, value in average_precision(at_threshold).items():
            scores["average_precision"].setdefault(label, {})[key] = value
        found = froc_sensitivities(at_threshold, num_images)
        scores["froc"][key] = {
            "sensitivity": {f"{n:g}": number_or_none(s) for n, s in zip(FALSE_POSITIVES, found, strict=True)},
            "mean": number_or_none(found.mean()),
        }
    first = next(iter(matches.values()))
    return {**scores, "num_boxes": len(first.true_label), "num_detections": len(first.label)}


# --- Curves and operating points -------------------------------------------------------------------------------------


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


def box_counts(matches: Matches, threshold: float, label: str | None = None) -> tuple[int, int, int]:
    """Right boxes and all boxes with a score from `threshold` on, and true boxes.

    Args:
        label: of this label alone; None: of the boxes of all labels together.
    """
    # By falling score the matches above a threshold are those that they would be without the rest.
    kept, is_counted = matches.score >= threshold, np.ones(len(matches.true_label), dtype=bool)
    if label is not None:
        kept, is_counted = kept & (matches.label == label), matches.true_label == label
    return int((kept & matches.is_true).sum()), int(kept.sum()), int(is_counted.sum())


# --- Sums over images and detections ---------------------------------------------------------------------------------


def _rows(weights: np.ndarray | None, *images: np.ndarray) -> np.ndarray:
    """(resamples, images) weights; ones for None.

    Args:
        images: arrays of the indices of images that have boxes.
    """
    num_images = 1 + max(indices.max(initial=-1) for indices in images)
    rows = np.atleast_2d(np.ones(num_images) if weights is None else weights)
    if rows.shape[1] < num_images:
        raise ValueError(f"There are boxes in {num_images} images and weights for {rows.shape[1]}.")
    return rows


def _last_of_equal(scores: np.ndarray) -> np.ndarray:
    """Indices of the last of each run of equal scores: the points of a curve."""
    return np.flatnonzero(np.diff(scores, append=np.nan) != 0)


def _chunks(num_resamples: int, num_detections: int) -> list[slice]:
    """Slices of the resamples that fit into CHUNK."""
    step = max(1, CHUNK // max(1, num_detections))
    return [slice(start, start + step) for start in range(0, num_resamples, step)]


def _cumulative_counts(
    rows: np.ndarray, image: np.ndarray, is_true: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(resamples, points) true and false detections up to each point."""
    counts = rows[:, image].astype(np.float64)
    both = np.cumsum(counts, axis=-1)[:, ends]
    true = np.cumsum(counts * is_true, axis=-1)[:, ends]
    return true, both - true
