"""Several readers of one radiograph to one set of findings and one set of labels.

    merge                 boxes of one label that overlap (IoU > 0.5)    labels
    paper                 the first stands for them                      any reader's; with "No finding": image dropped
    union                 the box that encloses them                     any reader's; they beat "No finding"
    majority              their median, where most readers drew one      most readers'; they beat "No finding"
    weighted_box_fusion   their mean                                     as in paper

In: for each reader a `Reading`, boxes in any unit. Out: `Finding`s with `readers`, how many drew the box, and labels.

    merge_readers([Reading("R1", (Finding("ILD", (20, 40, 60, 80)),), ()),
                   Reading("R2", (Finding("ILD", (22, 40, 62, 80)),), ())], "paper")
    -> (Finding("ILD", (20, 40, 60, 80), readers=2),)

A box belongs to the first of a group, in the order of the table, that it overlaps: see `keep_one_of_overlapping`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from litegpt.processing.box_fusion import IOU_THRESHOLD, keep_one_of_overlapping, pairwise_iou

if TYPE_CHECKING:  # they come with `datasets`, which takes a second to import
    from litegpt.datasets_scripts.annotations import Finding, Reading

MERGES = ("paper", "union", "majority", "weighted_box_fusion")


def merge_readers(readings: Sequence[Reading], merge: str) -> tuple[Finding, ...]:
    """The findings of one image from all its readers'.

    Args:
        readings: what the readers say, those without boxes too (`majority` counts them). Pooled in this order, which
            decides which of overlapping boxes comes first. To pool in a table's order where the rows of two readers
            alternate, let a `rad_id` stand several times, once for each run of its rows: it counts as one reader.
        merge: one of `MERGES`.

    Returns:
        The merged findings. `readers` is how many readers drew a box of the group. In `paper` a box that overlaps two
        kept boxes counts for both; in the others each box belongs to one group: in `union` and `majority` to that of
        the kept box it overlaps most.
        Order: that of the first box of each group in `readings`; in `weighted_box_fusion`, which does not tell what it
        fused, label by label as `readings` first name them, then by box.

    Raises:
        ValueError: `merge` is unknown, or a box has no area.
        ImportError: `weighted_box_fusion` without the package ensemble-boxes.
    """
    check_merge(merge)
    pooled = [(finding, reading.rad_id) for reading in readings for finding in reading.findings]
    num_readers = len({reading.rad_id for reading in readings})
    if merge == "weighted_box_fusion":
        return fuse_boxes(pooled)

    merged: dict[int, Finding] = {}
    for label in dict.fromkeys(finding.label for finding, _ in pooled):
        positions = [position for position, (finding, _) in enumerate(pooled) if finding.label == label]
        boxes = np.array([pooled[position][0].box for position in positions], dtype=np.float64)
        rad_ids = np.array([pooled[position][1] for position in positions])
        kept = keep_one_of_overlapping(boxes)
        iou = pairwise_iou(boxes)
        group_of = kept[iou[:, kept].argmax(axis=1)]
        for first in kept:
            position = positions[first]
            finding = pooled[position][0]
            if merge == "paper":
                readers = len(set(rad_ids[iou[first] > IOU_THRESHOLD]))
                merged[position] = replace(finding, readers=readers)
                continue
            members = boxes[group_of == first]
            readers = len(set(rad_ids[group_of == first]))
            if merge == "union":
                box = (*members[:, :2].min(axis=0), *members[:, 2:].max(axis=0))
            elif 2 * readers > num_readers:
                box = np.median(members, axis=0)
            else:
                continue
            merged[position] = replace(finding, box=tuple(map(float, box)), readers=readers)
    return tuple(finding for _, finding in sorted(merged.items()))


def fuse_boxes(pooled: Sequence[tuple[Finding, str]]) -> tuple[Finding, ...]:
    """Weighted box fusion of (finding, rad_id) pairs: each reader is a model, all weigh the same.

    A box joins the group whose mean so far it overlaps most; boxes are taken in the order given.

    Raises:
        ValueError: a box has no area.
        ImportError: the package ensemble-boxes is missing.

    Source: Solovyev et al. (arXiv 1910.13302), by the package ensemble-boxes; LiteGPT's IoU in place of its 0.55.
    """
    try:
        from ensemble_boxes import weighted_boxes_fusion
    except ImportError as error:
        raise ImportError("The merge weighted_box_fusion needs a package: pip install ensemble-boxes") from error

    if not pooled:
        return ()
    boxes = np.array([finding.box for finding, _ in pooled], dtype=np.float64)
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError("A box has no area: boxes must be xyxy with x2 > x1 and y2 > y1.")
    # The package wants [0, 1]; IoU and mean do not change with origin and scale.
    origin, corner = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    scale = np.tile(corner - origin, 2)
    origin = np.tile(origin, 2)
    unit_boxes = (boxes - origin) / scale

    first_named = {finding.label: None for finding, _ in pooled}
    labels = list(first_named)
    rad_ids = list(dict.fromkeys(rad_id for _, rad_id in pooled))
    # The package sorts by score, equal ones in no fixed order. These keep ours, and its float32 sees them as equal.
    scores = 1 - 1e-9 * np.arange(len(pooled))
    positions = [[i for i, (_, rad_id) in enumerate(pooled) if rad_id == reader] for reader in rad_ids]
    fused, fused_scores, fused_labels = weighted_boxes_fusion(
        [unit_boxes[indices] for indices in positions],
        [scores[indices] for indices in positions],
        [[labels.index(pooled[i][0].label) for i in indices] for indices in positions],
        iou_thr=IOU_THRESHOLD,
        conf_type="box_and_model_avg",  # with scores of 1: the share of the readers that took part
    )
    order = sorted(range(len(fused)), key=lambda i: (fused_labels[i], *fused[i]))
    template = pooled[0][0]
    return tuple(
        replace(
            template,
            label=labels[int(fused_labels[i])],
            box=tuple(map(float, fused[i] * scale + origin)),
            readers=round(float(fused_scores[i]) * len(rad_ids)),
        )
        for i in order
    )


def merge_diagnoses(label_sets: Sequence[Collection[str]], merge: str, no_finding: str) -> set[str] | None:
    """The labels of one image from all its readers'.

    Args:
        label_sets: one for each reader: all labels they state, those they drew a box of too.
        merge: one of `MERGES`.
        no_finding: the label that says that there is nothing.

    Returns:
        The labels; empty where nothing is known. `no_finding` never stands beside another. None where a reader states
        `no_finding` and one another label (`paper`, `weighted_box_fusion`): such an image is dropped.

    Raises:
        ValueError: `merge` is unknown.
    """
    check_merge(merge)
    votes = Counter(label for label_set in label_sets for label in set(label_set))
    if merge == "majority":
        labels = {label for label, count in votes.items() if 2 * count > len(label_sets)}
    else:
        labels = set(votes)
    if no_finding in labels and len(labels) > 1:
        return labels - {no_finding} if merge in ("union", "majority") else None
    return labels


def check_merge(merge: str) -> None:
    """Refuses, with a ValueError, a `merge` that is none of `MERGES`."""
    if merge not in MERGES:
        raise ValueError(f"merge must be one of {', '.join(MERGES)}, not {merge!r}.")
