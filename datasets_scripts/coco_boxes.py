"""Boxes that were drawn or corrected in CVAT, or another tool that writes COCO, to this project's rows.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("outputs/correct", split="train", num_proc=8)
    rows[0]["findings"]    # [{"label": 3, "box": [0.38, 0.52, 0.81, 0.74], "readers": 1}]

or, once for all programs, a folder that `datasets.load_dataset` reads:

    litegpt prepare coco-boxes --data_dir outputs/correct --output_dir prepared/corrected --name "Our films"

The layout is that of CVAT's export "COCO 1.0" (https://cocodataset.org/#format-data), unpacked:

    annotations/instances_default.json    also instances_train.json, instances_val.json, instances_test.json
    pictures/a1.png, images/a2.png        anywhere below; DICOM and JPEG too, and scaled copies of the whole image
    litegpt_labels.json                   as `litegpt export` wrote it, if the labels are to be a checkpoint's

    {"images": [{"id": 1, "file_name": "a1.png", "width": 2000, "height": 2500}],
     "categories": [{"id": 4, "name": "Cardiomegaly"}],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 4, "bbox": [760, 1300, 860, 550]}]}

`bbox` is x, y, width, height in pixels; of a polygon or a mask it is the box around it. COCO does not say who drew a
box, nor whether a radiograph without any was looked at: it counts as "No finding", so export what is finished.
"""

import math
import os
import re
from collections import Counter
from typing import Any

from litegpt.common.addresses import absolute, entries_of, is_folder
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import Box
from litegpt.datasets_scripts.arguments import OwnDataArguments
from litegpt.datasets_scripts.corrected_boxes import (
    Correction,
    Labels,
    Source,
    facts_of,
    label_of,
    read_correction,
    read_json,
    read_labels,
    release_of,
)
from litegpt.datasets_scripts.image_files import ImageIds
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release

FOLDER, FILE = "annotations", re.compile(r"instances_(\w+)\.json")
LAYOUT = f"{FOLDER}/instances_default.json (COCO, of CVAT)"
SPLITS = {"default": "train", "train": "train", "val": "validation", "validation": "validation", "test": "test"}


def recognise(data_dir: str) -> bool:
    """Whether a folder has boxes in COCO's layout."""
    return bool(_files(data_dir))


def _files(data_dir: str) -> dict[str, str]:
    """{the subset's name: path of its file}."""
    folder = os.path.join(data_dir, FOLDER)
    names = entries_of(folder)[1] if is_folder(folder) else []
    return {found[1]: os.path.join(folder, name) for name in names if (found := FILE.fullmatch(name))}


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of the folder: it is the user's own."""
    return facts_of(data_dir)


def read_release(data_dir: str | os.PathLike, name: str | None = None, licence: str | None = None) -> Release:
    """Reads the files, and of boxed radiographs the header.

    `counts`, for each split: images, images_with_boxes, images_no_finding; boxes; boxes_without_area (skipped).

    Args:
        name, licence: of one's own data, for the card.

    Raises:
        FileNotFoundError: a file or all radiographs are missing.
        ValueError: a file is no COCO, or its boxes cannot be used; the file is named, and the annotation.
    """
    data_dir = absolute(data_dir)
    files = _files(data_dir)
    if not files:
        raise FileNotFoundError(f"{data_dir} has no {LAYOUT}.")
    unknown = [path for subset, path in files.items() if subset not in SPLITS]
    if unknown:
        raise ValueError(f"{unknown[0]} is of no split: a subset is called {', '.join(SPLITS)}.")
    contents = {subset: _content(path) for subset, path in files.items()}
    named = [category["name"] for content in contents.values() for category in content["categories"]]
    labels = read_labels(data_dir, named)
    source, image_ids = Source(data_dir, os.path.join(data_dir, FOLDER)), ImageIds()
    found: dict[str, dict[str, list[Correction]]] = {}
    for subset, content in contents.items():
        images = found.setdefault(SPLITS[subset], {})
        count = source.counts.setdefault(SPLITS[subset], Counter(boxes_without_area=0))
        for image_id, boxes in _boxes_of_images(content, files[subset], labels, image_ids, source).items():
            if image_id in source.named:
                raise ValueError(f"{files[subset]}: the image {image_id} stands twice in {FOLDER}/.")
            source.named.add(image_id)
            images[image_id] = [read_correction("", boxes, count)]
    return release_of(found, source, labels, merge="", facts=facts_of(data_dir, name, licence))


def _content(path: str) -> dict[str, list[dict[str, Any]]]:
    """A COCO file, as far as lists go."""
    content = read_json(path)
    if isinstance(content, list):
        raise ValueError(f"{path} is a list, as COCO's results are: export the annotations.")
    lists = ("images", "categories", "annotations")
    missing = [name for name in lists if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        raise ValueError(f"{path} is no COCO file: it has no list {missing[0]}.")
    for name in lists:
        if not all(isinstance(entry, dict) for entry in content[name]):
            raise ValueError(f"{path}: an entry of {name} is no object.")
    if not all(isinstance(category.get("name"), str) for category in content["categories"]):
        raise ValueError(f"{path}: a category has no name.")
    return content


def _boxes_of_images(
    content: dict[str, list[dict[str, Any]]], path: str, labels: Labels, image_ids: ImageIds, source: Source
) -> dict[str, list[tuple[str, Box]]]:
    """{image_id: (label, box) pairs}, boxes xyxy in pixels; the images' sizes are added to the source's."""
    names = {category.get("id"): category["name"] for category in content["categories"]}
    boxes: dict[str, list[tuple[str, Box]]] = {}
    by_number: dict[Any, str] = {}
    for image in content["images"]:
        where = f"{path}, image {image.get('id')}"
        width, height = image.get("width"), image.get("height")
        if not isinstance(image.get("file_name"), str):
            raise ValueError(f"{where}: it has no file_name.")
        if not all(isinstance(side, (int, float)) and side > 0 for side in (width, height)):
            raise ValueError(f"{where}: it has no width and height in pixels.")
        image_id = image_ids(image["file_name"], where)
        if image_id in boxes or image.get("id") in by_number:
            raise ValueError(f"{where}: the image {image_id}, or its id, stands twice.")
        by_number[image.get("id")], boxes[image_id] = image_id, []
        source.sizes[image_id] = (width, height)
    for annotation in content["annotations"]:
        where = f"{path}, annotation {annotation.get('id')}"
        image_id = by_number.get(annotation.get("image_id"))
        if image_id is None:
            raise ValueError(f"{where}: there is no image {annotation.get('image_id')}.")
        if annotation.get("category_id") not in names:
            raise ValueError(f"{where}: there is no category {annotation.get('category_id')}.")
        label = label_of(names[annotation["category_id"]], labels, where)
        boxes[image_id].append((label, _box(annotation, f"{where} (of {image_id})")))
    return boxes


def _box(annotation: dict[str, Any], where: str) -> Box:
    numbers = annotation.get("bbox")
    if not (
        isinstance(numbers, list)
        and len(numbers) == 4
        and all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)
    ):
        raise ValueError(f"{where}: its bbox is not four numbers, x, y, width, height.")
    attributes = annotation.get("attributes")
    if isinstance(attributes, dict) and attributes.get("rotation"):
        raise ValueError(f"{where}: the box is rotated by {attributes['rotation']:g} degrees; draw it upright.")
    x, y, width, height = map(float, numbers)
    return x, y, x + width, y + height


@program
def main(arguments: OwnDataArguments, options: PreparationOptions) -> None:
    """Prepares corrected boxes."""
    with refuse_bad_input():
        own = {"name": arguments.name, "licence": arguments.licence}
        run_preparation(read_release, arguments, options, **own)


if __name__ == "__main__":
    main(*parse([OwnDataArguments, PreparationOptions], None, "coco_boxes.py", __doc__))
