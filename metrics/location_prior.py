"""Boxes and places of a model that never looks: those that would have been right most often in other radiographs.

In: boxes to learn from, of a training split say, xyxy in [0, 1]. Out: by label what every radiograph is given, for
average precision and FROC boxes with scores, for Acc@IoU one box, for the pointing game one place. Figures that are
not above those of these say nothing of the picture. A mean box would be a straw man: between two lungs it hits
neither.

    images = [[{"label": "Edema", "box": [0.1, 0.2, 0.4, 0.9]}], [], ...]
    scored_boxes(images)    # [{"label": "Edema", "box": [0.1, 0.2, 0.4, 0.8], "score": 0.12}, ...]
    best_boxes(images)      # {"Edema": [0.1, 0.2, 0.4, 0.8]}, hits an Edema of most images
    hottest_places(images)  # {"Edema": (0.24, 0.48)}, lies in an Edema of most images
    location_prior([[0.1, 0.2, 0.4, 0.9], ...])  # [(0.6, [0.1, 0.2, 0.4, 0.8]), (0.3, ...)]: of one label
"""

import numpy as np

from litegpt.metrics.boxes import ROUNDING, Boxes, Images, iou_of_pairs, read_boxes

PRIOR_BOXES, PRIOR_IOU = 5, 0.3
CANDIDATES, COVERED = 300, 3000  # boxes of a label that may stand for others, and that they are tried on
GRID = 64  # cells a side in which the hottest place is searched


def location_prior(boxes: np.ndarray) -> list[tuple[float, list[float]]]:
    """(score, box) of the few boxes that cover most of the boxes at IoU 0.3, the best first.

    Each next one covers most of what is left, and lies at the mean of those; the score is their share of all.

    Args:
        boxes: (n, 4) of one label, xyxy.
    """
    boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
    boxes = boxes[_drawn(len(boxes))]
    if not len(boxes):
        return []
    covers = _covers(boxes[:CANDIDATES], boxes)
    left = np.ones(len(boxes), dtype=bool)
    found = []
    for _ in range(PRIOR_BOXES):
        gains = covers[:, left].sum(axis=1)
        best = int(gains.argmax())
        if not gains[best]:
            break
        covered = left & covers[best]
        found.append((float(gains[best] / len(boxes)), boxes[covered].mean(axis=0).tolist()))
        left &= ~covered
    return found


def scored_boxes(images: Images) -> list[dict[str, object]]:
    """The `location_prior` of each label as boxes for every image, {"label", "box", "score"}.

    The score is the number of boxes that a box covers, an image: so boxes of a common label stand before those of a
    rare one where labels are ranked together.

    Args:
        images: an image is a list of {"label", "box"}; those without a box count, too.
    """
    return [
        {"label": label, "box": box, "score": score * len(boxes.label) / len(images)}
        for label, boxes in _by_label(images).items()
        for score, box in location_prior(boxes.box)
    ]


def best_boxes(images: Images) -> dict[str, list[float]]:
    """By label the one of its boxes that hits, with an IoU above 0.3, a box of it in most images."""
    found = {}
    for label, boxes in _by_label(images).items():
        boxes = boxes.chosen(np.sort(_drawn(len(boxes.label))))
        tried = boxes.box[_drawn(len(boxes.label))[:CANDIDATES]]
        hits = _of_images(_covers(tried, boxes.box), boxes.image).sum(axis=1)
        found[label] = tried[int(hits.argmax())].tolist()
    return found


def hottest_places(images: Images) -> dict[str, tuple[float, float]]:
    """By label the place, x and y, that lies in a box of it in most images: the middle of a cell of a fine grid.

    Of several such cells it is the one nearest to their mean, which may itself lie in none.
    """
    middles = (np.arange(GRID) + 0.5) / GRID
    x, y = (places.ravel() for places in np.meshgrid(middles, middles))
    found = {}
    for label, boxes in _by_label(images).items():
        boxes = boxes.chosen(np.sort(_drawn(len(boxes.label))))
        x1, y1, x2, y2 = boxes.box.T[..., None]
        inside = ((x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)).T
        heat = _of_images(inside, boxes.image).sum(axis=1)
        hottest = np.flatnonzero(heat == heat.max())
        distance = np.hypot(x[hottest] - x[hottest].mean(), y[hottest] - y[hottest].mean())
        nearest = hottest[int(distance.argmin())]
        found[label] = (float(x[nearest]), float(y[nearest]))
    return found


def _by_label(images: Images) -> dict[str, Boxes]:
    boxes = read_boxes(images, "images", need_area=True)
    return {label: boxes.chosen(boxes.label == label) for label in sorted(set(boxes.label))}


def _drawn(count: int) -> np.ndarray:
    """Indices of at most COVERED of `count` boxes, in random order, the same in every run."""
    return np.random.default_rng(0).permutation(count)[:COVERED]


def _covers(tried: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(tried, boxes) bool, whether one has an IoU above 0.3 with the other."""
    pairs = iou_of_pairs(np.repeat(tried, len(boxes), axis=0), np.tile(boxes, (len(tried), 1)))
    return pairs.reshape(len(tried), len(boxes)) > PRIOR_IOU + ROUNDING


def _of_images(is_so: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(rows, images) bool, whether it is so of any box of an image.

    Args:
        is_so: (rows, boxes) bool.
        image: (boxes,) the image of each, rising.
    """
    return np.logical_or.reduceat(is_so, np.flatnonzero(np.diff(image, prepend=-1)), axis=1)
