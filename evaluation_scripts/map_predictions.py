"""The predictions file of `litegpt localize`: what a source of maps says of radiographs, a line each, and resuming.

    found = map_predictions(source, rows, {0: [], 7: ["Effusion"]}, [7], Path("predictions.jsonl"), 32)
    found[7].regions["Effusion"].boxes

In: rows, and of those to be looked at the labels whose maps are wanted. Out: lines {"image_id", "task": "localize",
"malformed", "regions": {label: {"peak", "boxes"}}} and, of a classifier, "diagnoses" (all labels with scores) and
"findings" (boxes of labels that are called present); boxes are xyxy in [0, 1], those of regions with their strength.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.files import each_line
from litegpt.datasets_scripts.rows import row_picture
from litegpt.evaluation_scripts.map_sources import MapSource, Seen
from litegpt.processing.map_boxes import MapBox, Regions, map_regions

Line = dict[str, Any]


class Prediction(NamedTuple):
    """What is kept of a line in memory.

    Attributes:
        malformed: why the radiograph could not be read; None of others.
        scores: (labels,) probabilities; None of a source that has none.
        findings: boxes of the labels that are called present, {"label", "box", "score"}.
        regions: by label.
    """

    malformed: str | None
    scores: np.ndarray | None = None
    findings: Sequence[dict[str, Any]] = ()
    regions: Mapping[str, Regions] = {}


def map_predictions(
    source: MapSource,
    rows: Dataset,
    wanted: Mapping[int, Sequence[str]],
    boxed: Sequence[int],
    path: Path,
    batch_size: int,
) -> dict[int, Prediction]:
    """The predictions of some rows, by their numbers: those that `path` has, and the missing ones, which are appended.

    Args:
        wanted: numbers of rows, and the labels of each whose maps are wanted.
        boxed: numbers of rows whose findings and regions are kept in memory; of others the scores alone.
    """
    image_ids, kept_whole = rows["image_id"][:], set(boxed)
    number_of = {image_ids[number]: number for number in wanted}
    done = {}
    for line in each_line(path):
        if (number := number_of.get(line["image_id"])) is not None:
            done[number] = _kept(line, number in kept_whole)
    pending = [number for number in wanted if number not in done]
    pictures = rows.select_columns("image")
    with path.open("a", encoding="utf-8") as file, tqdm(total=len(pending), desc=path.stem, mininterval=1) as bar:
        for start in range(0, len(pending), batch_size):
            batch = {number: image_ids[number] for number in pending[start : start + batch_size]}
            for number, line in zip(batch, _lines(source, pictures, batch, wanted), strict=True):
                done[number] = _kept(line, number in kept_whole)
                file.write(json.dumps(line) + "\n")
            file.flush()
            bar.update(len(batch))
    return {number: done[number] for number in wanted}


def _lines(
    source: MapSource, pictures: Dataset, image_ids: Mapping[int, str], wanted: Mapping[int, Sequence[str]]
) -> Iterator[Line]:
    """The lines of one batch: of the rows that `image_ids` has by their numbers."""
    read, unread = read_pictures(pictures, image_ids)
    seen = source.look(list(read.values()), [wanted[number] for number in read]) if read else []
    by_number = dict(zip(read, seen, strict=True))
    for number, image_id in image_ids.items():
        line: Line = {"image_id": image_id, "task": "localize", "malformed": unread.get(number)}
        yield line if number in unread else line | _said(source, by_number[number])


def read_pictures(rows: Dataset, numbers: Iterable[int]) -> tuple[dict[int, Image.Image], dict[int, str]]:
    """The pictures of some rows by their numbers, and why those of the others cannot be read."""
    read, unread = {}, {}
    for number in numbers:
        try:
            read[number] = row_picture(rows, number)
        except ValueError as error:
            unread[number] = str(error)
    return read, unread


def _said(source: MapSource, seen: Seen) -> Line:
    """What a line says of a radiograph that was looked at."""
    regions = {label: map_regions(grid, *source.boxes) for label, grid in seen.grids.items()}
    said: Line = {}
    if seen.probabilities is not None:
        scores = dict(zip(source.labels, map(float, seen.probabilities), strict=True))
        said["diagnoses"] = [{"label": label, "score": score} for label, score in scores.items()]
        said["findings"] = [
            {"label": label, "box": list(box.box), "score": scores[label] * box.strength}
            for label in source.labels
            if scores[label] >= source.cut_offs[label]
            for box in regions[label].boxes
        ]
    said["regions"] = {
        label: {"peak": found.peak, "boxes": [[*box.box, box.strength] for box in found.boxes]}
        for label, found in regions.items()
    }
    return said


def _kept(line: Line, whole: bool) -> Prediction:
    scores = None
    if "diagnoses" in line:
        scores = np.array([item["score"] for item in line["diagnoses"]], dtype=np.float32)
    if not whole or line["malformed"] is not None:
        return Prediction(line["malformed"], scores)
    regions = {
        label: Regions(
            None if found["peak"] is None else tuple(found["peak"]),
            tuple(MapBox(tuple(box[:4]), box[4]) for box in found["boxes"]),
        )
        for label, found in line["regions"].items()
    }
    return Prediction(None, scores, line.get("findings", ()), regions)
