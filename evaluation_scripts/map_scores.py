"""How well maps tell where findings are: boxes and the highest place of a map against true boxes, beside controls.

    regions = map_regions(grid, *BoxRule())                  # of one radiograph's map of one label
    scores = given_class_scores(truths, {"map": [maps], "another_image": [others, ...]}, patients)
    scores["figures"]["map"]["accuracy_at_iou"]["0.3"]       # the mean over the labels
    scores["pooled"]["map"]["pointing_game"]                 # over all radiographs and labels together

In: of each radiograph its true boxes, and the regions of the maps of the labels that these have. That a label is
present is told, not asked: the protocol of the works after ChestX-ray8. Out: figures with 95 % intervals.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.evaluation_scripts.row_priors import Prior
from litegpt.metrics.boxes import CHESTX_RAY8_IOBB, CHESTX_RAY8_IOU, ROUNDING, iobb_of_pairs, iou_of_pairs
from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import ratio
from litegpt.processing.map_boxes import MapBox, Regions, map_regions

MAP = "map"  # the figures of the maps themselves; all others are controls
METRICS = (
    *(("accuracy_at_iou", f"{t:g}") for t in CHESTX_RAY8_IOU),
    *(("accuracy_at_iobb", f"{t:g}") for t in CHESTX_RAY8_IOBB),
    *(("one_box_accuracy_at_iou", f"{t:g}") for t in CHESTX_RAY8_IOU),
)
POINTING = ("pointing_game",)


OfLabels = Mapping[str, Regions]  # of one radiograph
Truths = Sequence[Sequence[Mapping[str, Any]]]  # of each radiograph the true {"label", "box"}


class BoxRule(NamedTuple):
    """How boxes are drawn around a map, as `map_regions` takes it; by default as the paper does."""

    thresholds: tuple[float, ...] = (60, 180)
    rule: str = "regions"


def centre_prior(boxes: BoxRule, side: int = 32) -> Regions:
    """The regions of a map that falls off from the radiograph's centre, whatever it shows: a control."""
    places = (np.arange(side) + 0.5) / side - 0.5
    return map_regions(np.exp(-(places[:, None] ** 2 + places[None] ** 2) / 0.08).astype(np.float32), *boxes)


def prior_regions(prior: Prior, labels: Sequence[str]) -> dict[str, Regions]:
    """Of each label its hottest place and its best box, whatever a radiograph shows: a control.

    A label of which nothing was learnt has neither.
    """
    return {
        label: Regions(prior.places[label], (MapBox(tuple(prior.best[label]), 1.0),))
        if label in prior.best
        else Regions(None, ())
        for label in labels
    }


def given_class_scores(
    truths: Truths, regions: Mapping[str, Sequence[Sequence[OfLabels]]], patients: np.ndarray | None
) -> dict[str, Any]:
    """The figures of the maps and of each control, and how the maps differ from it.

    "accuracy_at_iou": the share of true boxes that any box of the label's map meets with an IoU above the threshold;
    "accuracy_at_iobb" likewise by the share of the map's box that lies in the true one; "one_box_accuracy_at_iou" with
    the map's strongest box alone; "pointing_game": the share of radiographs with the label whose map is highest within
    a true box of it (Zhang et al., arXiv 1608.00507, without their margin of 15 pixels).

    Args:
        truths: of each radiograph, one box at least.
        regions: `MAP`, and controls; of each one or several runs, whose figures are averaged, each of which has for
            every radiograph the regions of all of its true labels.
        patients: (radiographs,) numbers from 0 on; None: each is another one's.

    Returns:
        "figures" (means over the labels) and "pooled" (over all boxes, or radiographs and labels, together), each with
        their "intervals"; of a control also MAP_less_CONTROL. "per_class" {label: {"num_boxes", and the map's
        figures}}; "boxes_a_map".
    """
    labels = sorted({box["label"] for boxes in truths for box in boxes})
    sums = {who: _Sums.of(truths, runs, labels) for who, runs in regions.items()}

    def statistic(weights: np.ndarray) -> Figures:
        figures: Figures = {}
        for who, of_who in sums.items():
            for kind, found in of_who.shares(weights).items():
                figures |= {(kind, who, *metric): values for metric, values in found.items()}
        for control in (who for who in sums if who != MAP):
            for metric in (*METRICS, POINTING):
                for kind in ("figures", "pooled"):
                    own, others = figures[(kind, MAP, *metric)], figures[(kind, control, *metric)]
                    figures[(kind, f"{MAP}_less_{control}", *metric)] = own - others
        return figures

    points, intervals = figures_and_intervals(statistic, len(truths), patients)
    points, intervals = nested(points), nested(intervals)
    alone = sums[MAP].shares(np.ones((1, len(truths))))["figures"]
    per_class = {
        label: {
            "num_boxes": int(sums[MAP].boxes[:, number].sum()),
            **nested({metric: _rounded(values[0, number]) for metric, values in alone.items()}),
        }
        for number, label in enumerate(labels)
    }
    maps = [of_label for run in regions[MAP] for of_image in run for of_label in of_image.values()]
    return {
        "figures": points["figures"],
        "intervals": intervals["figures"],
        "pooled": points["pooled"],
        "pooled_intervals": intervals["pooled"],
        "per_class": per_class,
        "boxes_a_map": float(np.mean([len(found.boxes) for found in maps])),
    }


class _Sums(NamedTuple):
    """Sums over a radiograph's boxes of a label, so that any weights of the radiographs give figures at once.

    Attributes:
        boxes: (images, labels) how many true boxes.
        hits: (images, labels, metrics) how many of them are found, a mean over the runs.
        pairs: (images, labels) 1 where there is any.
        pointed: (images, labels) 1 where the highest place lies in one, likewise a mean.
    """

    boxes: np.ndarray
    hits: np.ndarray
    pairs: np.ndarray
    pointed: np.ndarray

    @classmethod
    def of(cls, truths: Truths, runs: Sequence[Sequence[OfLabels]], labels: Sequence[str]) -> "_Sums":
        place = {label: number for number, label in enumerate(labels)}
        shape = len(truths), len(labels)
        boxes, pointed = np.zeros(shape), np.zeros(shape)
        hits = np.zeros((*shape, len(METRICS)))
        for image, of_image in enumerate(truths):
            for label in {box["label"] for box in of_image}:
                true = np.array([box["box"] for box in of_image if box["label"] == label], dtype=float)
                number = place[label]
                boxes[image, number] = len(true)
                for run in runs:
                    hits[image, number] += _found(run[image][label], true) / len(runs)
                    pointed[image, number] += _is_in(run[image][label].peak, true) / len(runs)
        return cls(boxes, hits, (boxes > 0).astype(float), pointed)

    def shares(self, weights: np.ndarray) -> dict[str, Figures]:
        """{"figures": {metric: (rows, labels)}, "pooled": {metric: (rows,)}} under (rows, images) weights."""
        boxes, pairs, pointed = weights @ self.boxes, weights @ self.pairs, weights @ self.pointed
        hits = np.tensordot(weights, self.hits, axes=(1, 0))  # (rows, labels, metrics)
        by_label = {metric: ratio(hits[..., number], boxes) for number, metric in enumerate(METRICS)}
        together = {metric: ratio(hits[..., number].sum(1), boxes.sum(1)) for number, metric in enumerate(METRICS)}
        return {
            "figures": by_label | {POINTING: ratio(pointed, pairs)},
            "pooled": together | {POINTING: ratio(pointed.sum(1), pairs.sum(1))},
        }


def _found(found: Regions, true: np.ndarray) -> np.ndarray:
    """(metrics,) how many of the (n, 4) true boxes are found, in the order of `METRICS`."""
    boxes = np.array([box.box for box in found.boxes], dtype=float).reshape(-1, 4)
    if not len(boxes):
        return np.zeros(len(METRICS))
    ours, theirs = np.repeat(boxes, len(true), axis=0), np.tile(true, (len(boxes), 1))
    iou = iou_of_pairs(ours, theirs).reshape(len(boxes), len(true))
    iobb = iobb_of_pairs(ours, theirs).reshape(len(boxes), len(true))
    strongest = int(np.argmax([box.strength for box in found.boxes]))
    best = {
        "accuracy_at_iou": iou.max(axis=0),
        "accuracy_at_iobb": iobb.max(axis=0),
        "one_box_accuracy_at_iou": iou[strongest],
    }
    return np.array([(best[metric] > float(threshold) + ROUNDING).sum() for metric, threshold in METRICS])


def _is_in(peak: tuple[float, float] | None, true: np.ndarray) -> bool:
    if peak is None:
        return False
    x, y = peak
    return bool(((true[:, 0] <= x) & (x <= true[:, 2]) & (true[:, 1] <= y) & (y <= true[:, 3])).any())


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
