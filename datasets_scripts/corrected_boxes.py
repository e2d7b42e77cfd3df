"""Boxes that people drew or corrected in an annotation tool: what its files have in common, whatever their format.

In: for each radiograph what its correctors left on it, and the size that their boxes are of. Out: a `Release`, each
corrector a reader.

    found = {"train": {"a1": [Correction("7", (Finding("ILD", (90, 80, 900, 960)),), frozenset({"ILD"}))]}}
    source = Source("films", "films/project-1-at-2026.json", sizes={"a1": (2000, 2500)})
    release_of(found, source, Labels(("ILD",)), "paper", facts_of("films"))

`litegpt export` writes litegpt_labels.json, the labels of the checkpoint that answered, beside what it gives to a
tool. Where that file lies in the folder of what comes back, rows have these labels in this order, so that the
checkpoint can be trained further on them. Without it they have the labels that the tool's file names, and one
diagnosis, "No finding".

What a row says about "nothing there": a radiograph that was looked at and has no box has the diagnosis "No finding".
Other diagnoses are unknown. One that nobody looked at is left out, if the format tells.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litegpt.common.addresses import absolute, is_file
from litegpt.common.files import write_text
from litegpt.datasets_scripts.annotations import Finding, ImageAnnotation, Reading
from litegpt.datasets_scripts.image_files import file_counts, find_files, match, paths_by_split
from litegpt.datasets_scripts.picture_boxes import Size, boxes_in_pixels
from litegpt.datasets_scripts.preparation.merge_readers import merge_diagnoses, merge_readers
from litegpt.datasets_scripts.preparation.release import DataSetFacts, Release, own_facts
from litegpt.datasets_scripts.tables import plain, read_text
from litegpt.processing.answers import NO_FINDING

LABELS_FILE = "litegpt_labels.json"


@dataclass(frozen=True)
class Labels:
    """The labels that findings and diagnoses may have, in the order of the class numbers."""

    findings: tuple[str, ...]
    diagnoses: tuple[str, ...] = (NO_FINDING,)


@dataclass(frozen=True)
class Correction:
    """What one corrector left on a radiograph.

    Attributes:
        corrector: who it was, "" where the file does not tell.
        findings: boxes, xyxy in pixels.
        labels: of all boxes, also of those that have no area and are no findings; none: there is nothing.
    """

    corrector: str
    findings: tuple[Finding, ...]
    labels: frozenset[str]


@dataclass
class Source:
    """Where corrections are from.

    Attributes:
        data_dir: the folder, with the radiographs anywhere below.
        table: path of the tool's file, or files, for sentences.
        sizes: {image_id: width and height of what the boxes were drawn on}.
        counts: {split: {rule: count}}, what reading the file met.
        named: all image_ids of the file, also of radiographs that are left out.
    """

    data_dir: str
    table: str
    sizes: dict[str, Size] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)


def write_labels(folder: Path, labels: Labels) -> None:
    """Writes the file of labels, for corrections that come back."""
    lists = {"finding_labels": labels.findings, "diagnosis_labels": labels.diagnoses}
    write_text(folder / LABELS_FILE, json.dumps(lists, indent=2, ensure_ascii=False) + "\n")


def read_labels(data_dir: str, named: Iterable[str]) -> Labels:
    """The labels of a folder's file of labels; where there is none, those that the tool's file names.

    Raises:
        ValueError: the file is none that `write_labels` wrote.
    """
    path = os.path.join(data_dir, LABELS_FILE)
    if not is_file(path):
        return Labels(tuple(dict.fromkeys(named)))
    lists = read_json(path)
    try:
        labels = Labels(tuple(lists["finding_labels"]), tuple(lists["diagnosis_labels"]))
    except (KeyError, TypeError):
        labels = None
    if labels is None or not all(isinstance(label, str) for label in (*labels.findings, *labels.diagnoses)):
        raise ValueError(f"{path} has no lists finding_labels and diagnosis_labels.")
    return labels


def label_of(name: str, labels: Labels, where: str) -> str:
    """The label that a tool's name means, in any case.

    Raises:
        ValueError: none does.
    """
    label = next((label for label in labels.findings if plain(label) == plain(name)), None)
    if label is None:
        raise ValueError(f"{where}: unknown label {name!r}; known are {', '.join(labels.findings)}.")
    return label


def read_json(path: str) -> Any:
    """What a JSON file holds.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON; the file is named.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:  # also text in another encoding
        raise ValueError(f"{path} is not a JSON file: {error}.") from None


def read_correction(corrector: str, boxes: Iterable[tuple[str, Any]], count: Counter[str]) -> Correction:
    """A corrector's (label, box) pairs; a box that ends where it begins or before is skipped and counted."""
    findings, labels = [], set()
    for label, box in boxes:
        labels.add(label)
        if box[0] < box[2] and box[1] < box[3]:
            findings.append(Finding(label, box))
        else:
            count["boxes_without_area"] += 1
    return Correction(corrector, tuple(findings), frozenset(labels))


def facts_of(data_dir: str, name: str | None = None, licence: str | None = None) -> DataSetFacts:
    """What cards say of corrected boxes: they are the user's own data."""
    return own_facts(name or os.path.basename(absolute(data_dir)), licence)


def release_of(
    found: Mapping[str, Mapping[str, list[Correction]]],
    source: Source,
    labels: Labels,
    merge: str,
    facts: DataSetFacts,
) -> Release:
    """The release of corrections, whose radiographs are looked for, and of boxed ones the headers read.

    Args:
        found: {split: {image_id: corrections}}.
        merge: how several correctors of one radiograph are merged, one of `merge_readers.MERGES`; one alone is taken
            at their word. "" where the file does not tell them apart.

    Raises:
        FileNotFoundError: no radiograph is there.
        ValueError: two files are one radiograph, the boxes do not fit the pictures, or nothing was annotated.
    """
    annotations: dict[str, list[ImageAnnotation]] = {}
    for split, images in found.items():
        count = source.counts.setdefault(split, Counter())
        annotations[split] = []
        for image_id, corrections in images.items():
            annotation = _merged(image_id, corrections, merge)
            count["images"] += 1
            if annotation is None:
                count["images_dropped"] += 1
                continue
            annotations[split].append(annotation)
            count["boxes"] += len(annotation.findings)
            count["images_with_boxes"] += bool(annotation.findings)
            count["images_no_finding"] += NO_FINDING in annotation.diagnoses
    if not any(annotations.values()):
        raise ValueError(f"{source.table}: no radiograph is annotated in it.")
    files = find_files(source.data_dir)
    image_ids = [image.image_id for images in annotations.values() for image in images]
    paths = match(image_ids, files, source.table, source.data_dir)
    annotations, fits = boxes_in_pixels(annotations, paths, source.sizes, source.table)
    counts = {split: dict(count) | fits[split] for split, count in source.counts.items()}
    return Release(
        facts=facts,
        finding_labels=labels.findings,
        diagnosis_labels=labels.diagnoses,
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts={**counts, "none": file_counts(files, source.named)},
        merge=merge,
    )


def _merged(image_id: str, corrections: list[Correction], merge: str) -> ImageAnnotation | None:
    """One radiograph's annotation; None where one corrector says that there is nothing and another that there is."""
    stated = [correction.labels or {NO_FINDING} for correction in corrections]
    readings = tuple(
        Reading(correction.corrector, correction.findings, () if correction.labels else (NO_FINDING,))
        for correction in corrections
    )
    if len(readings) == 1:
        labels, findings = stated[0], readings[0].findings
    else:
        labels, findings = merge_diagnoses(stated, merge, NO_FINDING), merge_readers(readings, merge)
    if labels is None:
        return None
    return ImageAnnotation(image_id, findings, (NO_FINDING,) if labels == {NO_FINDING} else (), readings)
