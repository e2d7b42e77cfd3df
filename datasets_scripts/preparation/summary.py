"""What became of every image of a preparation: three tables in the prepared folder, and the same in words.

In: the manifest's lines, one for each image. Out: manifest.csv, summary.csv (split, rule, count), duplicates.csv, and

    train: 14,022 rows; 975 images dropped that one reader calls normal and another does not
    train: 3 of 14,025 radiographs left out: 2 (it is neither a DICOM file nor a picture), 1 (there is none)
    test: 3,000 rows
    1 pair of equal or nearly equal images in two splits, see duplicates.csv
"""

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from litegpt.common.addresses import open_text, replacing_address
from litegpt.datasets_scripts.preparation.splits import duplicates_across_splits
from litegpt.processing.dicom import RadiographError

logger = logging.getLogger(__name__)

MANIFEST_COLUMNS = (
    "image_id",
    "split",
    "outcome",  # "ok", or why there is no row
    "pixel_hash",
    "perceptual_hash",
    "boxes_outside_image",
    "warnings",
)
# What reading the tables met, in words; a rule of summary.csv that is not here is not said.
IN_WORDS = {
    "boxes_without_area": "{} skipped that end where they begin or before",
    "boxes_of_no_finding": '{} of "No finding" skipped',
    "boxes_of_0_to_1": "{} given from 0 to 1",
    "boxes_scaled": "{} scaled from the size that the tables give to the pictures' own",
    "boxes_listed_twice": "{} listed twice",
    "boxes_of_further_readers": "{} of further readers left out",
    "boxes_without_label": "{} that no label of the rows means, of sentences alone",
    "boxes_clipped": "{} cut off or left out at the edge of the picture",
    "boxes_not_in_table": "{} of images that are not in the table",
    "images_with_unboxed_findings": "{} with a finding that the tables state and no box shows",
    "images_of_own_split": "{} split by MS-CXR's own column, whose train has images of MIMIC-CXR's test",
    "images_excluded": "{} left out of patients that are kept for a test",
    "images_without_mentions": "{} of which nothing is said",
    "images_without_report": "{} without a report",
    "images_without_class": "{} of which the classes' table says nothing",
    "images_not_in_mapping": "{} that the mapping to ChestX-ray14 lacks",
    "images_listed_twice": "{} listed twice",
    "images_of_other_folders": "{} lying in the folder of another split",
    "patients_not_in_table": "{} to be left out and not in the table",
    "patients_of_other_splits": "{} that other splits have too",
    "images_not_in_table": "{} of the split's list not in the table",
    "files_not_in_table": "{} not read that no table names",
    "second_files": "{} not read beside another of the same image",
    "images_without_labels": "{} of studies that the table of labels lacks",
    "reports_missing": "{} missing",
    "reports_without_text": "{} with neither findings nor impression",
    "reports_without_image": "{} without a radiograph",
    "lists_missing": "{} missing: val.txt, so there is no split validation",
    "tables_not_read": "{} not read: train.csv, beside annotations/",
    "images_not_annotated": "{} left out that nobody annotated",
    "chats_left_out": "{} left out, see preparation.log",
    "sentences_without_text": "{} left out without words",
    "questions_of_train": "{} of the release's own train, on images that its test has too",
    "questions_listed_twice": "{} listed twice",
    "questions_without_answer": "{} left out without words or an answer",
    "annotations_cancelled": "{} left out, skipped by the annotator",
    "remarks_not_read": "{} without a place not read (choices, texts, relations)",
}
NOUNS = {
    "boxes": "box",
    "images": "image",
    "patients": "patient",
    "files": "file",
    "tables": "table",
    "second": "file",
    "reports": "report",
    "lists": "list",
    "annotations": "annotation",
    "remarks": "remark",
    "chats": "chat",
    "sentences": "sentence",
    "questions": "question",
}
DUPLICATE_COLUMNS = ("split_a", "image_a", "split_b", "image_b", "kind", "distance")


def missing_radiograph(image_id: str) -> RadiographError:
    """What is wrong where an annotated image has no file."""
    return RadiographError(f"There is no radiograph for image_id {image_id}.")


def write_summary(
    folder: str, lines: Sequence[Mapping[str, str]], table_counts: Mapping[str, Mapping[str, int]]
) -> list[tuple[str, str, int]]:
    """Writes the three tables.

    Args:
        lines: of the manifest, {column: value}, split by split.
        table_counts: {split: {rule: count}}, what reading the release's tables met.

    Returns:
        The rows of summary.csv: the tables' counts; then for each split images_left_out, images_with_warnings and
        boxes_outside_image.
    """
    summary = [(split, rule, count) for split, rules in table_counts.items() for rule, count in rules.items()]
    for split, images in by_split(lines).items():
        summary.append((split, "images_left_out", sum(line["outcome"] != "ok" for line in images)))
        summary.append((split, "images_with_warnings", sum(line["warnings"] != "" for line in images)))
        summary.append((split, "boxes_outside_image", sum(int(line["boxes_outside_image"] or 0) for line in images)))
    duplicates = duplicates_across_splits([line for line in lines if line["outcome"] == "ok"])
    write_csv(os.path.join(folder, "manifest.csv"), MANIFEST_COLUMNS, [tuple(line.values()) for line in lines])
    write_csv(os.path.join(folder, "summary.csv"), ("split", "rule", "count"), summary)
    write_csv(os.path.join(folder, "duplicates.csv"), DUPLICATE_COLUMNS, duplicates)
    return summary


def summary_in_words(folder: str) -> list[str]:
    """A finished folder's three tables in lines of text, which name no image and no path."""
    counts = {(row["split"], row["rule"]): int(row["count"]) for row in read_csv(os.path.join(folder, "summary.csv"))}
    text = []
    for split, images in by_split(read_csv(os.path.join(folder, "manifest.csv"))).items():
        reasons = Counter(_reason(line) for line in images if line["outcome"] != "ok")
        parts = [f"{split}: {_number(len(images) - reasons.total(), 'row')}"]
        if dropped := counts.get((split, "images_dropped"), 0):
            parts.append(f"{_number(dropped, 'image')} dropped that one reader calls normal and another does not")
        if outside := counts[split, "boxes_outside_image"]:
            parts.append(f"{_number(outside, 'finding')} left out whose box lies outside the image")
        for rule, words in IN_WORDS.items():
            if count := counts.get((split, rule), 0):
                parts.append(words.format(_number(count, NOUNS[rule.partition("_")[0]])))
        text.append("; ".join(parts))
        if reasons:
            counted = ", ".join(f"{count:,} ({reason})" for reason, count in reasons.most_common())
            text.append(f"{split}: {reasons.total():,} of {len(images):,} radiographs left out: {counted}")
    for rule, noun in (("reports", "report"), ("images", "image"), ("boxes", "box")):
        if count := counts.get(("none", rule), 0):
            text.append(f"{_number(count, noun)} left out that no list of a split names")
    duplicates = len(read_csv(os.path.join(folder, "duplicates.csv")))
    if duplicates:
        text.append(f"{_number(duplicates, 'pair')} of equal or nearly equal images in two splits, see duplicates.csv")
    return text


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('x') else 's'}"


def _reason(line: Mapping[str, str]) -> str:
    """Why an image was left out, without its name: `Cannot use a.png: it is no picture.` -> `it is no picture`."""
    if line["outcome"] == str(missing_radiograph(line["image_id"])):
        return "there is none"
    return (line["outcome"].partition(": ")[2] or line["outcome"]).removesuffix(".")


def report_losses(folder: str, on_error: str) -> None:
    """Warns of what a finished folder left out and of what is in two splits.

    Raises:
        RadiographError: `on_error` is "raise", and a radiograph was left out: by an earlier run that skipped it.
    """
    for split, images in by_split(read_csv(os.path.join(folder, "manifest.csv"))).items():
        left_out = [line for line in images if line["outcome"] != "ok"]
        if left_out and on_error == "raise":
            raise RadiographError(left_out[0]["outcome"])
        if left_out:
            shown = ", ".join(line["image_id"] for line in left_out[:20]) + (", ..." if len(left_out) > 20 else "")
            logger.warning(
                "%s: %d of %d radiographs were left out, see %s: %s",
                *(split, len(left_out), len(images), os.path.join(folder, "manifest.csv"), shown),
            )
    duplicates = read_csv(os.path.join(folder, "duplicates.csv"))
    if duplicates:
        logger.warning(
            "%d pairs of images are in two splits, see %s.", len(duplicates), os.path.join(folder, "duplicates.csv")
        )


def by_split(lines: Iterable[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    """{split: its lines of the manifest}, in their order."""
    splits: dict[str, list[Mapping[str, str]]] = {}
    for line in lines:
        splits.setdefault(line["split"], []).append(line)
    return splits


def write_csv(path: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV with a header, whole at any moment."""
    with replacing_address(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def read_csv(path: str) -> list[dict[str, str]]:
    """Its rows, {column: cell}."""
    with open_text(path, newline="") as file:
        return list(csv.DictReader(file))
