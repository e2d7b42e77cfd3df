"""The data set card of a prepared folder: README.md, whose YAML tells `datasets.load_dataset(folder)` what to read.

In: the release's facts and labels, the options, and what was counted. Out: the card, whose text is
`dataset_card.md.jinja`. `card_for_hub` completes a card with the sizes that `Dataset.push_to_hub` wants.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetInfo, SplitDict
from huggingface_hub import DatasetCard, DatasetCardData

from litegpt.common.templates import template
from litegpt.datasets_scripts.annotations import REPORT_TEXTS, row_features
from litegpt.datasets_scripts.preparation.release import Release
from litegpt.processing.answers import NO_FINDING

# The Hub's names for numbers of rows below a limit.
SIZE_CATEGORIES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}

# What a card's first sentence says of optional columns.
CONTENTS = {
    "report_findings": "reports",
    "phrase": "phrases with boxes",
    "qa": "questions with answers",
    "chat": "chats",
}


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
    release: Release,
    columns: Collection[str],
    splits: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    summary: Sequence[tuple[str, str, int]],
) -> str:
    """README.md of a prepared folder whose rows lie in data/SPLIT-*.parquet.

    Its YAML holds the schema with the label names and the number of rows of each split, so that `load_dataset` notices
    a missing shard, and names the Parquet files, so that it reads no other file of the folder.

    Args:
        release: its facts and labels are said.
        columns: the rows' optional columns.
        splits: {split: what `count_split` returns}, of splits that have rows.
        options: what the preparation was told; "merge", "windowing", "shortest_edge" and "validation_share" are
            explained, all are listed.
        summary: (split, rule, count).
    """
    features = row_features(release.finding_labels, release.diagnosis_labels, columns)
    numbers = [{"name": split, "num_examples": counts["rows"]} for split, counts in splits.items()]
    info = DatasetInfo(features=features, splits=SplitDict.from_split_dict(numbers))
    metadata = DatasetCardData(
        pretty_name=release.facts.pretty_name,
        license="other" if release.facts.licence else "unknown",
        license_name=license_name(release.facts.licence) or None,
        license_link=release.facts.licence_link or None,
        task_categories=["image-text-to-text", "object-detection", "image-classification"],
        size_categories=_size_category(sum(counts["rows"] for counts in splits.values())),
        tags=["medical", "radiology", "chest-x-ray", release.facts.name.replace("_", "-")],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
        dataset_info=info._to_yaml_dict(),  # as `Dataset.push_to_hub` writes it
    )
    text = template(__file__, "dataset_card.md.jinja").render(
        facts=release.facts,
        columns=columns,
        contents=_contents(release, columns),
        report_texts=REPORT_TEXTS,
        no_finding=NO_FINDING,
        first_split=next(iter(splits)),
        splits=list(splits),
        **{name: options.get(name) for name in ("merge", "windowing", "shortest_edge", "validation_share")},
        options=[(f"`{option}`", str(value)) for option, value in options.items()],
        split_counts=[
            [
                split,
                *(f"{counts[kind]:,}" for kind in ("rows", "with_findings", "no_finding", "unknown")),
                f"{sum(counts['boxes'].values()):,}",
            ]
            for split, counts in splits.items()
        ],
        finding_counts=[
            [label, *(f"{s['boxes'].get(label, 0):,} ({s['images'].get(label, 0):,})" for s in splits.values())]
            for label in release.finding_labels
        ],
        diagnosis_counts=[
            [label, *(f"{s['diagnoses'].get(label, 0):,}" for s in splits.values())]
            for label in release.diagnosis_labels
        ],
        summary=[(split, rule, f"{count:,}") for split, rule, count in summary],
    )
    return str(DatasetCard(f"---\n{metadata}\n---\n\n{text}"))


def _contents(release: Release, columns: Collection[str]) -> str:
    """What comes with the radiographs: "boxed findings, diagnoses and reports"."""
    parts = ["boxed findings"] * bool(release.finding_labels) + ["diagnoses"] * bool(release.diagnosis_labels)
    parts += [words for column, words in CONTENTS.items() if column in columns]
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1] if parts else "no labels")))


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
    return re.sub(r"[^a-z0-9.]+", "-", prose.lower()).strip("-") or prose  # one without Latin letters stays


def _size_category(rows: int) -> str:
    return next((category for limit, category in SIZE_CATEGORIES.items() if rows < limit), "1M<n<10M")
