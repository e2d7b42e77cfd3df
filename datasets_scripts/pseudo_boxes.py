"""Boxes that a classifier's maps draw, in place of those that nobody drew: findings for LiteGPT's stage one.

    rows, covered = with_pseudo_boxes(rows, "outputs/localize_train/predictions.jsonl")
    rows[0]["findings"]         # [{"label": 3, "box": [...], "readers": 0}]
    covered                     # {"0.3": 0.41, "boxes": 171} of the true boxes, where the rows had any; else None

In: rows, and the predictions file of `litegpt localize` over the same radiographs. Out: the same rows, in which each
label that the radiograph has, and that is a finding's, has one box: the map's widest region that holds its highest
place. True boxes are not looked at, except to say which share of them is covered.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from litegpt.datasets_scripts.image_labels import label_matrix
from litegpt.metrics.boxes import accuracy_at_iou, best_overlaps

THRESHOLDS = (0.1, 0.3, 0.5)


def with_pseudo_boxes(rows: datasets.Dataset, path: str) -> tuple[datasets.Dataset, dict[str, float] | None]:
    """The rows with a map's box for each of their finding labels, and how many true boxes these cover.

    Args:
        path: predictions.jsonl, with a line for each radiograph.

    Returns:
        The rows; and {"0.1", "0.3", "0.5": share of the true boxes whose label's box has an IoU above that, "boxes":
        true boxes}, None where the rows have no box.

    Raises:
        OSError: there is no such file.
        ValueError: it is of another kind, or a radiograph has no line in it.
    """
    names = rows.features["findings"].feature["label"].names
    image_ids = rows["image_id"][:]
    has = label_matrix(rows, names) == 1
    wanted = {
        image_id: [names[place] for place in np.flatnonzero(labels)]
        for image_id, labels in zip(image_ids, has, strict=True)
    }
    boxes: dict[str, list[dict[str, Any]]] = {}
    with Path(path).open(encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            if "regions" not in line and line.get("malformed") is None:
                raise ValueError(f"{path} is no predictions file of litegpt localize: a line has no regions.")
            regions = line.get("regions", {})
            boxes[line["image_id"]] = [
                {"label": label, "box": box}
                for label in wanted.get(line["image_id"], ())
                if (box := widest_at_peak(regions.get(label))) is not None
            ]
    missing = [image_id for image_id in image_ids if image_id not in boxes]
    if missing:
        raise ValueError(f"{path}: {len(missing):,} of {len(rows):,} radiographs have no line, such as {missing[0]}.")
    found = [boxes[image_id] for image_id in image_ids]
    covered = coverage(found, rows, names)
    number = {name: place for place, name in enumerate(names)}
    findings = [
        [{"label": number[one["label"]], "box": one["box"], "readers": 0} for one in of_row] for of_row in found
    ]
    features = rows.features["findings"]
    column = datasets.Dataset.from_dict({"findings": findings}, features=datasets.Features(findings=features))
    return datasets.concatenate_datasets([rows.remove_columns("findings"), column], axis=1), covered


def widest_at_peak(regions: dict[str, Any] | None) -> list[float] | None:
    """Of a map's boxes the widest that holds its highest place; None of a flat map, or of none."""
    if regions is None or regions["peak"] is None:
        return None
    x, y = regions["peak"]
    holding = [box[:4] for box in regions["boxes"] if box[0] <= x <= box[2] and box[1] <= y <= box[3]]
    return max(holding, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])) if holding else None


def coverage(
    found: Sequence[Sequence[dict[str, Any]]], rows: datasets.Dataset, names: Sequence[str]
) -> dict[str, float] | None:
    """Which share of the rows' true boxes has a box of its label above some IoU."""
    true = [
        [{"label": names[finding["label"]], "box": finding["box"]} for finding in findings]
        for findings in rows["findings"]
    ]
    if not any(true):
        return None
    overlaps = best_overlaps(found, true)
    shares = {f"{threshold:g}": round(float(accuracy_at_iou(overlaps, threshold)), 4) for threshold in THRESHOLDS}
    return {**shares, "boxes": len(overlaps.label)}


def coverage_text(covered: dict[str, float] | None) -> str:
    """What boxes of maps are worth, in a sentence; `covered` is what `with_pseudo_boxes` gives."""
    if covered is None:
        return "boxes of maps; the data has no true ones to hold them against."
    shares = ", ".join(f"{covered[key]:.3f} above IoU {key}" for key in covered if key != "boxes")
    return f"boxes of maps in place of the data's {covered['boxes']:,}, of which they cover {shares}."
