"""The data set card of a prepared folder: README.md, whose YAML tells `datasets.load_dataset(folder)` what to read."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetInfo, SplitDict
from huggingface_hub import DatasetCard, DatasetCardData

from datasets_scripts.annotations import row_features
from processing.answers import NO_FINDING

# The Hub's names for numbers of rows below a limit.
SIZE_CATEGORIES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}

MERGES = {  # what `merge_readers.py` does, for people who see only the folder
    "paper": "of the boxes of one label that overlap (IoU above 0.5) the first is kept, and the diagnoses are those "
    "that any reader states. An image that one reader calls normal and another does not is left out. So does the "
    "LiteGPT paper (arXiv 2407.12064, section 4.2).",
    "union": "boxes of one label that overlap (IoU above 0.5) become the box around them, and the diagnoses are those "
    'that any reader states; any other label beats "No finding".',
    "majority": "boxes of one label that overlap (IoU above 0.5) become their median box where more than half of the "
    "image's readers drew one, and the diagnoses are those that more than half of the readers state.",
    "weighted_box_fusion": "boxes of one label are fused by weighted box fusion (arXiv 1910.13302), each reader a "
    "model of equal weight, and the diagnoses are those that any reader states. An image that one reader calls normal "
    "and another does not is left out.",
}
WINDOWINGS = {
    "dicom": "as DICOM says (Modality LUT, then VOI LUT or window, then the inversion of MONOCHROME1)",
    "paper": "as the LiteGPT paper's code does (arXiv 2407.12064, appendix A)",
}

CARD = """# {pretty_name}, prepared for LiteGPT

Chest radiographs with boxed findings and diagnoses, from [{pretty_name}]({homepage}), where it is said who made and
who publishes them. This folder is a copy that a program prepared: rows of one schema, in Parquet.

```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder")  # or streaming=True
labels = dataset["{first_split}"].features["findings"].feature["label"].names
```

## Rows

| column | what it holds |
|---|---|
| `image_id` | the release's name of the image |
| `image` | the radiograph, grey, 8 bits, PNG |
| `width`, `height` | pixels of the release's image, which may be larger than the stored one |
| `findings` | `label` (a class number), `box` (xyxy, 0 to 1 of the whole image), `readers` (how many marked it) |
| `diagnoses` | class numbers of what holds for the whole image |
| `view` | View Position such as PA or AP; empty where unknown |{optional_rows}

No findings and the diagnosis "{no_finding}" is a normal image. No findings without it is *unknown*: a label was given
without a box, or nothing was said.

## How it was made

{how_it_was_made}

{options}

## Counts

{split_counts}

Findings: boxes, and in brackets the images with at least one.

{finding_counts}

Diagnoses: images.

{diagnosis_counts}

What each rule of the preparation met. `summary.csv` has the same numbers, `manifest.csv` says for each image what
became of it, `duplicates.csv` names the images that are in two splits.

{summary}

## Personal and sensitive information

{personal_information}

Of a DICOM file only the pixels and the View Position were read; no other tag is in this folder: no name, no patient
number, no date, age or sex. {demographics}Where the tables number the patients, that number served to keep a patient
in one split and is not written. Text burned into a picture stays in it. Nobody may try to find out who the people are.

## Licence

[{licence}]({licence_link})

The release's licence goes on holding for this copy. Do not upload the folder or pass it on unless the licence allows
it: `push_to_hub` makes a public repository unless it is called with `private=True`, and even a private one may break
the licence.

## Intended use

Research: training and testing models that name findings in frontal chest radiographs, draw their boxes and state
diagnoses. Not for clinical use: neither the data nor what is trained on it is a medical device. Annotations are
opinions of readers or of a program that read reports, shares of labels are those of one release, and what works on
them may fail in another hospital.
{citation}"""

DEMOGRAPHICS_ROW = "| `sex`, `age` | F, M or empty where unknown; years, null where unknown |"
DEMOGRAPHICS = (
    "Sex and age are what the release's public tables say of each image, kept so that results can be compared between "
    "groups of people. "
)
READINGS_ROW = "| `readings` | what each reader (`rad_id`) drew and stated before they were merged |"
PERSONAL_INFORMATION = (
    "The radiographs are of people. Their publisher removed what identifies them; health data they remain."
)


def count_split(rows: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, Any]:
    """What the card says about one split.

    Args:
        rows: for each row the labels of its findings (one for each box) and its diagnoses, by name.

    Returns:
        rows, with_findings, no_finding, unknown: numbers of rows; boxes: {finding label: number of boxes}; images:
        {finding label: number of rows with a box}; diagnoses: {diagnosis: number of rows}.
    """
    kinds: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    images: Counter[str] = Counter()
    diagnosed: Counter[str] = Counter()
    for findings, diagnoses in rows:
        kinds["with_findings" if findings else "no_finding" if NO_FINDING in diagnoses else "unknown"] += 1
        boxes.update(findings)
        images.update(set(findings))
        diagnosed.update(set(diagnoses))
    return {
        "rows": kinds.total(),
        **{kind: kinds[kind] for kind in ("with_findings", "no_finding", "unknown")},
        "boxes": dict(boxes),
        "images": dict(images),
        "diagnoses": dict(diagnosed),
    }


def card_text(
    *,
    name: str,
    pretty_name: str,
    homepage: str,
    licence: str,
    splits: Mapping[str, Mapping[str, Any]],
    finding_labels: Sequence[str],
    diagnosis_labels: Sequence[str],
    options: Mapping[str, Any],
    summary: Sequence[tuple[str, str, int]],
    demographics: bool = False,
    licence_link: str = "",
    personal_information: str = PERSONAL_INFORMATION,
    citation: str = "",
) -> str:
    """README.md of a prepared folder whose rows lie in data/SPLIT-*.parquet.

    Its YAML holds the schema with the label names and the number of rows of each split, so that `load_dataset` notices
    a missing shard, and names the Parquet files, so that it reads no other file of the folder.

    Args:
        name: the data set's name on disk, such as "vindr_cxr"; a tag of the card.
        pretty_name: its name in prose, such as "VinDr-CXR".
        homepage: address of the release.
        licence: name of the release's licence, in prose.
        splits: {split: what `count_split` returns}, of splits that have rows.
        finding_labels, diagnosis_labels: in the order of the class numbers.
        options: what the preparation was told; "merge", "windowing", "shortest_edge", "validation_share" and
            "keep_readings" are explained, all are listed.
        summary: (split, rule, count).
        demographics: whether the rows have the columns `sex` and `age`.
        licence_link: address of the licence; the homepage if empty.
        personal_information: who the people are, how they were protected and what the release asks of its users.
        citation: as the publisher asks for it, in BibTeX; no section if empty.
    """
    licence_link = licence_link or homepage
    keep_readings = bool(options.get("keep_readings"))
    features = row_features(finding_labels, diagnosis_labels, keep_readings, demographics)
    numbers = [{"name": split, "num_examples": counts["rows"]} for split, counts in splits.items()]
    info = DatasetInfo(features=features, splits=SplitDict.from_split_dict(numbers))
    metadata = DatasetCardData(
        pretty_name=pretty_name,
        license="other",
        license_name=license_name(licence),
        license_link=licence_link,
        task_categories=["image-text-to-text", "object-detection", "image-classification"],
        size_categories=_size_category(sum(counts["rows"] for counts in splits.values())),
        tags=["medical", "radiology", "chest-x-ray", name.replace("_", "-")],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
        dataset_info=info._to_yaml_dict(),  # as `Dataset.push_to_hub` writes it
    )
    optional_rows = [
        row for row, is_there in ((DEMOGRAPHICS_ROW, demographics), (READINGS_ROW, keep_readings)) if is_there
    ]
    text = CARD.format(
        pretty_name=pretty_name,
        homepage=homepage,
        first_split=next(iter(splits)),
        optional_rows="".join(f"\n{row}" for row in optional_rows),
        demographics=DEMOGRAPHICS if demographics else "",
        no_finding=NO_FINDING,
        how_it_was_made="\n\n".join(_how_it_was_made(options)),
        options=_table(["option", "value"], [[f"`{option}`", str(value)] for option, value in options.items()]),
        split_counts=_table(
            ["split", "images", "with findings", NO_FINDING, "unknown", "boxes"],
            [
                [split, *(counts[kind] for kind in ("rows", "with_findings", "no_finding", "unknown"))]
                + [sum(counts["boxes"].values())]
                for split, counts in splits.items()
            ],
        ),
        finding_counts=_table(
            ["finding", *splits],
            [
                [label, *(f"{s['boxes'].get(label, 0):,} ({s['images'].get(label, 0):,})" for s in splits.values())]
                for label in finding_labels
            ],
        ),
        diagnosis_counts=_table(
            ["diagnosis", *splits],
            [[label, *(s["diagnoses"].get(label, 0) for s in splits.values())] for label in diagnosis_labels],
        ),
        summary=_table(["split", "rule", "count"], summary),
        personal_information=personal_information.strip(),
        licence=licence,
        licence_link=licence_link,
        citation=f"\n## Citation\n\n```bibtex\n{citation.strip()}\n```\n" if citation else "",
    )
    return str(DatasetCard(f"---\n{metadata}\n---\n\n{text}"))


def card_for_hub(folder: Path) -> str:
    """README.md of a prepared folder with the sizes of its Parquet files in the metadata.

    `Dataset.push_to_hub` wants them: it fails on a repository whose card states none.

    Raises:
        FileNotFoundError: there is no README.md: the preparation was interrupted.
        ValueError: a Parquet file is damaged, or a split has not as many rows as the card states.
    """
    if not (folder / "README.md").is_file():
        raise FileNotFoundError(f"{folder} has no README.md: its preparation was interrupted.")
    card = DatasetCard.load(folder / "README.md")
    info = card.data["dataset_info"]
    info["download_size"] = info["dataset_size"] = 0
    for split in info["splits"]:
        rows = split["num_bytes"] = 0
        for path in sorted((folder / "data").glob(f"{split['name']}-*.parquet")):
            try:
                metadata = pq.read_metadata(path)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{path} is damaged: {error}") from None
            rows += metadata.num_rows
            split["num_bytes"] += sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
            info["download_size"] += path.stat().st_size
        if rows != split["num_examples"]:
            raise ValueError(
                f"{folder} has {rows} rows of {split['name']}, where README.md states {split['num_examples']}."
            )
        info["dataset_size"] += split["num_bytes"]
    return str(card)


def license_name(prose: str) -> str:
    """A name as the Hub wants it in metadata: "Some License 1.5" becomes "some-license-1.5"."""
    return re.sub(r"[^a-z0-9.]+", "-", prose.lower()).strip("-")


def _how_it_was_made(options: Mapping[str, Any]) -> list[str]:
    """The options in prose, a paragraph each."""
    paragraphs = []
    edge, windowing = options.get("shortest_edge"), options.get("windowing")
    size = "are stored in full" if edge is None else f"are scaled down to {edge} pixels on the shorter side"
    grey = f" DICOM's grey values became 8 bits {WINDOWINGS[windowing]}." if windowing in WINDOWINGS else ""
    kept = "" if edge is None else ", the aspect kept; smaller ones are stored as they are"
    paragraphs.append(f"Pictures {size}{kept}.{grey} Boxes were clipped to the image.")
    if options.get("merge") in MERGES:
        paragraphs.append(f"Where several readers annotated an image, {MERGES[options['merge']]}")
    if options.get("validation_share"):
        paragraphs.append(
            f"The split `validation` was taken out of `train`: {options['validation_share']:.0%} of the patients (of "
            "the images, where the release names no patients), by a hash, so that they are always the same."
        )
    return paragraphs


def _size_category(rows: int) -> str:
    return next((category for limit, category in SIZE_CATEGORIES.items() if rows < limit), "1M<n<10M")


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers with thousands' commas."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
