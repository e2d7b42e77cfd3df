"""Radiographs with scored boxes to the files of annotation tools and of a challenge.

In: what was answered about each radiograph, one after another, boxes xyxy in its pixels. Out: files in a folder, each
under a temporary name until it is whole; and sentences on what a format cannot hold.

    box = LabelledBox("ILD", (90, 80, 900, 960), score=0.7)
    answers = [Answered("a1", "a1.png", "/data/a1.png", (2000, 2500), (box,), line={})]
    write_coco(answers, ["Cardiomegaly", "ILD"], folder)
    # results.json: [{"image_id": 1, "category_id": 2, "bbox": [90, 80, 810, 880], "score": 0.7}]
    write_kaggle(answers, ["Cardiomegaly", "ILD"], folder)
    # submission.csv: a1,5 0.7 90 80 900 960

A new format is a function like these, and a line in `FORMATS`.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from litegpt.common.files import replacing, write_text
from litegpt.common.overlay import colour_of_label

# The challenge's classes (kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection): in alphabetical order from 0.
KAGGLE_CLASSES = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
KAGGLE_NO_FINDING = "14 1 0 0 1 1"
SURE = 1.0  # the score of a box without one, where a format needs it
CONTROL, OBJECT = "findings", "radiograph"  # names in Label Studio's labeling interface


@dataclass(frozen=True)
class LabelledBox:
    """A box, xyxy in pixels, with its label and its score from 0 to 1, or None."""

    label: str
    box: tuple[float, float, float, float]
    score: float | None


@dataclass(frozen=True)
class Answered:
    """What was answered about a radiograph.

    Attributes:
        name: no other has it.
        picture, url: the name of its picture, and where Label Studio finds it.
        size: width and height in pixels.
        boxes: those that are written.
        line: of the predictions.
    """

    name: str
    picture: str
    url: str
    size: tuple[int, int]
    boxes: tuple[LabelledBox, ...]
    line: dict[str, Any]


def write_coco(answers: Iterable[Answered], labels: Sequence[str], folder: Path) -> list[str]:
    """COCO's results, and a data set without annotations that has their images and categories.

    Ids count from 1: images in the order of the answers, categories in that of the labels.
    """
    images = []
    with _json_list(folder / "results.json") as add:
        for image_id, answer in enumerate(answers, start=1):
            width, height = answer.size
            images.append({"id": image_id, "file_name": answer.picture, "width": width, "height": height})
            for box in answer.boxes:
                xmin, ymin, xmax, ymax = box.box
                bbox = [round(value, 2) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]
                score = SURE if box.score is None else box.score
                category = 1 + labels.index(box.label)
                add({"image_id": image_id, "category_id": category, "bbox": bbox, "score": score})
    categories = [{"id": number, "name": label} for number, label in enumerate(labels, start=1)]
    data_set = {"info": {}, "licenses": [], "images": images, "annotations": [], "categories": categories}
    write_text(folder / "images.json", json.dumps(data_set) + "\n")
    return []


def write_kaggle(answers: Iterable[Answered], labels: Sequence[str], folder: Path) -> list[str]:
    """A submission to the VinBigData challenge; boxes of labels that it lacks are left out and counted."""
    lacking: Counter[str] = Counter()
    with (
        replacing(folder / "submission.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image_id", "PredictionString"])
        for answer in answers:
            lacking.update(box.label for box in answer.boxes if box.label not in KAGGLE_CLASSES)
            words = [
                f"{KAGGLE_CLASSES.index(box.label)} {SURE if box.score is None else box.score:.6g} "
                + " ".join(str(round(edge)) for edge in box.box)
                for box in answer.boxes
                if box.label in KAGGLE_CLASSES
            ]
            table.writerow([answer.name, " ".join(words) or KAGGLE_NO_FINDING])
    if not lacking:
        return []
    counted = ", ".join(f"{label} {count:,}" for label, count in sorted(lacking.items()))
    return [f"boxes left out, whose labels the challenge does not have: {counted}"]


def write_label_studio(answers: Iterable[Answered], labels: Sequence[str], folder: Path) -> list[str]:
    """Tasks with the boxes as predictions, in per cent of the picture as Label Studio has them, and its interface."""
    with _json_list(folder / "tasks.json") as add:
        for answer in answers:
            regions = [_region(number, box, answer.size) for number, box in enumerate(answer.boxes, start=1)]
            # By its score Label Studio sorts tasks: those first that may have most to be looked at.
            scores = [box.score for box in answer.boxes if box.score is not None]
            prediction = {
                "model_version": answer.line.get("checkpoint") or answer.line.get("model") or "LiteGPT",
                "score": max(scores, default=0.0),
                "result": regions,
            }
            add({"data": {"image": answer.url, "image_id": answer.name}, "predictions": [prediction]})
    choices = "".join(
        f"    <Label value={quoteattr(label)} background={quoteattr(colour_of_label(label))}/>\n" for label in labels
    )
    shown = f'  <Image name="{OBJECT}" value="$image" zoom="true"/>\n'
    drawn = (
        f'  <RectangleLabels name="{CONTROL}" toName="{OBJECT}" canRotate="false">\n{choices}  </RectangleLabels>\n'
    )
    write_text(folder / "labels.xml", f"<View>\n{shown}{drawn}</View>\n")
    return []


def _region(number: int, box: LabelledBox, size: tuple[int, int]) -> dict[str, Any]:
    (width, height), (xmin, ymin, xmax, ymax) = size, box.box
    return {
        "id": str(number),
        "type": "rectanglelabels",
        "from_name": CONTROL,
        "to_name": OBJECT,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": 100 * xmin / width,
            "y": 100 * ymin / height,
            "width": 100 * (xmax - xmin) / width,
            "height": 100 * (ymax - ymin) / height,
            "rotation": 0,
            "rectanglelabels": [box.label],
        },
        **({} if box.score is None else {"score": box.score}),
    }


def write_cvat(answers: Iterable[Answered], labels: Sequence[str], folder: Path) -> list[str]:
    """Annotations as "CVAT for images 1.1", and the labels as a new task's constructor takes them."""
    with replacing(folder / "annotations.xml") as temporary, temporary.open("w", encoding="utf-8") as file:
        # CVAT does not look at the labels here; others that read its files do.
        names = "".join(f"    <label><name>{escape(label)}</name><attributes/></label>\n" for label in labels)
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        file.write(f"  <meta><task><mode>annotation</mode><labels>\n{names}  </labels></task></meta>\n")
        for number, answer in enumerate(answers):
            width, height = answer.size
            file.write(f'  <image id="{number}" name={quoteattr(answer.picture)} width="{width}" height="{height}">\n')
            for box in answer.boxes:
                edges = zip(("xtl", "ytl", "xbr", "ybr"), box.box, strict=True)
                place = " ".join(f'{name}="{edge:.2f}"' for name, edge in edges)
                label = quoteattr(box.label)
                file.write(f'    <box label={label} source="auto" occluded="0" {place} z_order="0"/>\n')
            file.write("  </image>\n")
        file.write("</annotations>\n")
    choices = [{"name": label, "color": colour_of_label(label), "attributes": []} for label in labels]
    write_text(folder / "cvat_labels.json", json.dumps(choices, indent=2) + "\n")
    return []


@contextmanager
def _json_list(path: Path) -> Iterator[Callable[[Any], None]]:
    """What adds an item to the list in a JSON file, which memory need not hold."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def add(item: Any) -> None:
            nonlocal separator
            file.write(separator + json.dumps(item))
            separator = ",\n"

        yield add
        file.write("[]\n" if separator == "[\n" else "\n]\n")


# By the names that people call them by on the command line.
FORMATS = {"coco": write_coco, "kaggle": write_kaggle, "label-studio": write_label_studio, "cvat": write_cvat}
