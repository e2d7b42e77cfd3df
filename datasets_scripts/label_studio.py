"""Boxes that were drawn or corrected in Label Studio to this project's rows.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("outputs/correct", split="train", num_proc=8)
    rows[0]["findings"]    # [{"label": 3, "box": [0.38, 0.52, 0.81, 0.74], "readers": 1}]

or, once for all programs, a folder that `datasets.load_dataset` reads:

    litegpt prepare label-studio --data_dir outputs/correct --output_dir prepared/corrected --name "Our films"

The layout:

    project-1-at-2026-01-31-09-30-0a1b2c3d.json   Label Studio's export "JSON"; also label_studio.json
    pictures/a1.png                               anywhere below; DICOM and JPEG too, and scaled copies
    litegpt_labels.json                           as `litegpt export` wrote it, if the labels are to be a checkpoint's

    [{"id": 1, "data": {"image": "/data/local-files/?d=pictures/a1.png", "image_id": "a1"}, "annotations": [
       {"completed_by": 7, "was_cancelled": false, "result": [
         {"type": "rectanglelabels", "original_width": 2000, "original_height": 2500, "image_rotation": 0, "value":
           {"x": 38, "y": 52, "width": 43, "height": 22, "rotation": 0, "rectanglelabels": ["Cardiomegaly"]}}]}]}]

A radiograph is `image_id`, or else the name of its picture. Each annotator is a reader, whom `completed_by` numbers;
several readers of one radiograph are merged as VinDr-CXR's (`--merge`, see `preparation/merge_readers.py`). An
annotation without boxes says "No finding". Tasks without an annotation, and annotations that were skipped (cancelled),
are left out and counted; so are choices, texts and relations, which say nothing of boxes. A finding that was drawn as
anything but an upright rectangle is refused: without it a radiograph would pass for one without that finding.
"""

import math
import os
import re
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from litegpt.common.addresses import absolute, entries_of
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import Box
from litegpt.datasets_scripts.arguments import ReadersArguments
from litegpt.datasets_scripts.corrected_boxes import (
    Correction,
    Source,
    facts_of,
    label_of,
    read_correction,
    read_json,
    read_labels,
    release_of,
)
from litegpt.datasets_scripts.image_files import image_id_of
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.merge_readers import check_merge
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release

FILE = re.compile(r"project-\d+-at-.*\.json|label_studio\.json")
LAYOUT = "project-NUMBER-at-DATE.json (Label Studio)"
BOX = "rectanglelabels"
WITHOUT_A_PLACE = ("choices", "textarea", "rating", "number", "datetime", "taxonomy", "relation", "pairwise", "ranker")
UPLOADED = re.compile(r"[0-9a-f]{8}-")  # what stands before the name of a picture that was uploaded


def recognise(data_dir: str) -> bool:
    """Whether a folder has an export of Label Studio."""
    return bool(_files(data_dir))


def _files(data_dir: str) -> list[str]:
    return [os.path.join(data_dir, name) for name in entries_of(data_dir)[1] if FILE.fullmatch(name)]


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of the folder: it is the user's own."""
    return facts_of(data_dir)


def read_release(
    data_dir: str | os.PathLike, merge: str = "paper", name: str | None = None, licence: str | None = None
) -> Release:
    """Reads the export, and of boxed radiographs the header.

    `counts` of train: images; images_dropped (correctors differ whether there is anything), images_with_boxes,
    images_no_finding; boxes; boxes_without_area (skipped); images_not_annotated, annotations_cancelled and
    remarks_not_read (left out).

    Args:
        merge: how several readers are merged: one of `merge_readers.MERGES`.
        name, licence: of one's own data, for the card.

    Raises:
        FileNotFoundError: the export or all radiographs are missing.
        ValueError: the export cannot be used; the file is named, and the task.
    """
    check_merge(merge)
    data_dir = absolute(data_dir)
    files = _files(data_dir)
    if not files:
        raise FileNotFoundError(f"{data_dir} has no {LAYOUT}.")
    if len(files) > 1:
        raise ValueError(f"{files[0]} and {os.path.basename(files[1])} are two exports: keep one of them.")
    tasks = _tasks(files[0])
    labels = read_labels(data_dir, sorted(_names(tasks)))
    rules = ("boxes_without_area", "images_not_annotated", "annotations_cancelled", "remarks_not_read")
    count = Counter(dict.fromkeys(rules, 0))
    source = Source(data_dir, files[0], counts={"train": count})
    found: dict[str, list[Correction]] = {}
    for task in tasks:
        where = f"{files[0]}, task {task.get('id')}"
        image_id = _image_id(task, where)
        if image_id in source.named:
            raise ValueError(f"{where}: the image {image_id} is in another task too.")
        source.named.add(image_id)
        finished = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
        count["annotations_cancelled"] += len(task["annotations"]) - len(finished)
        if not finished:
            count["images_not_annotated"] += 1
            continue
        found[image_id] = []
        for number, annotation in enumerate(finished, start=1):
            boxes = []
            for region in annotation["result"]:
                if region.get("type") in WITHOUT_A_PLACE:
                    count["remarks_not_read"] += 1
                    continue
                names, box, size = _rectangle(region, where)
                if source.sizes.setdefault(image_id, size) != size:
                    raise ValueError(f"{where}: its boxes are of pictures of two sizes.")
                boxes += [(label_of(label, labels, where), box) for label in names]
            found[image_id].append(read_correction(_annotator(annotation, number), boxes, count))
    return release_of({"train": found}, source, labels, merge, facts_of(data_dir, name, licence))


def _tasks(path: str) -> list[dict[str, Any]]:
    """The tasks of an export, as far as lists and objects go."""
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f'{path} is no list of tasks: export as "JSON".')
    for task in tasks:
        annotations = task.get("annotations")
        if not isinstance(annotations, list) or not isinstance(task.get("data"), dict):
            raise ValueError(f'{path}, task {task.get("id")}: it has no data or annotations: export as "JSON".')
        for annotation in annotations:
            regions = annotation.get("result") if isinstance(annotation, dict) else None
            if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
                raise ValueError(f"{path}, task {task.get('id')}: an annotation has no list result.")
    return tasks


def _names(tasks: list[dict[str, Any]]) -> set[str]:
    """All labels of all rectangles."""
    regions = [region for task in tasks for annotation in task["annotations"] for region in annotation["result"]]
    values = [region["value"] for region in regions if isinstance(region.get("value"), dict)]
    return {str(name) for value in values for name in value.get(BOX) or ()}


def _image_id(task: dict[str, Any], where: str) -> str:
    """`image_id` of the task's data, or the name in the picture's address."""
    if isinstance(task["data"].get("image_id"), str):
        return task["data"]["image_id"]
    address = task["data"].get("image")
    if not isinstance(address, str):
        raise ValueError(f"{where}: its data have neither image_id nor image.")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    name = image_id_of(local[0] if local else unquote(parts.path))
    return UPLOADED.sub("", name, count=1) if "/upload/" in parts.path else name


def _annotator(annotation: dict[str, Any], number: int) -> str:
    """Label Studio's number of a person: names and addresses, which it may give too, are needed nowhere.

    Args:
        number: of the annotation, where nothing tells who made it.
    """
    person = annotation.get("completed_by")
    person = person.get("id") if isinstance(person, dict) else person
    return str(person) if isinstance(person, int) else f"annotation {number}"


def _rectangle(region: dict[str, Any], where: str) -> tuple[list[str], Box, tuple[int, int]]:
    """The labels of a rectangle, its box xyxy in pixels, and the picture's size.

    Raises:
        ValueError: it is none, is turned, or has no label.
    """
    where, value = f"{where}, region {region.get('id')}", region.get("value")
    if region.get("type") != BOX or not isinstance(value, dict):
        raise ValueError(f"{where}: it is no rectangle with a label ({region.get('type')}): draw one, or remove it.")
    if value.get("rotation") or region.get("image_rotation"):
        raise ValueError(f"{where}: the box, or the picture under it, is rotated; draw it upright.")
    names = value.get(BOX)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: the box has no label.")
    numbers = [value.get(name) for name in ("x", "y", "width", "height")]
    size = region.get("original_width"), region.get("original_height")
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in (*numbers, *size)):
        raise ValueError(f"{where}: x, y, width, height, original_width or original_height is no number.")
    if min(size) <= 0:
        raise ValueError(f"{where}: its picture has {size[0]} x {size[1]} pixels.")
    x, y, width, height = (number / 100 for number in numbers)
    return names, (x * size[0], y * size[1], (x + width) * size[0], (y + height) * size[1]), size


@program
def main(arguments: ReadersArguments, options: PreparationOptions) -> None:
    """Prepares corrected boxes."""
    with refuse_bad_input():
        own = {"merge": arguments.merge, "name": arguments.name, "licence": arguments.licence}
        run_preparation(read_release, arguments, options, **own)


if __name__ == "__main__":
    main(*parse([ReadersArguments, PreparationOptions], None, "label_studio.py", __doc__))
