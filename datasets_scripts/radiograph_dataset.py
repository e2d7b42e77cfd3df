"""A release of radiographs -> a folder of Parquet files that `datasets.load_dataset(folder)` reads.

    README.md                              the data set card; its YAML names the Parquet files
    data/train-00003-of-00059.parquet      rows of `annotations.row_features`, pictures as PNG
    manifest.csv                           what became of every image, and its hashes
    summary.csv                            split, rule, count: what the tables held and what was left out
    duplicates.csv                         images that are on both sides of a split
    preparation.json                       the options, and a digest of all that the rows are made of

A shard is written under a temporary name, then renamed, so an interrupted preparation goes on after its last whole
shard; README.md is written last. Reading radiographs happens in processes that may crash (`decoding_process.py`).
"""

import csv
import hashlib
import json
import logging
import os
import pickle
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm.auto import tqdm

from datasets_scripts import annotations, decoding_process, splits
from datasets_scripts.annotations import Box, ImageAnnotation, row_features
from datasets_scripts.dataset_card import PERSONAL_INFORMATION, card_text, count_split
from datasets_scripts.decoding_process import DecodedRadiograph, DecodingProcess, read_patient_id
from datasets_scripts.files import replacing
from processing import dicom, radiograph
from processing.dicom import RadiographError

logger = logging.getLogger(__name__)

ROWS_PER_SHARD = 256
# A row group is what a reader of the Parquet file holds in memory, and `prepare` before it is written.
ROWS_PER_GROUP, BYTES_PER_GROUP = 64, 32 << 20
COLUMNS_OF_MANIFEST = (
    "image_id",
    "split",
    "outcome",
    "pixel_hash",
    "perceptual_hash",
    "boxes_outside_image",
    "warnings",
)


@dataclass(frozen=True)
class Release:
    """A data set as its publisher released it: what its tables say, and where its radiographs are.

    Attributes:
        name: of the data set on disk, such as "vindr_cxr".
        pretty_name, homepage, licence, licence_link, citation (BibTeX), personal_information: for the data set card.
        finding_labels, diagnosis_labels: in the order of the class numbers.
        annotations: {split: the images in the tables' order}, after the readers are merged.
        images: {split: {image_id: path}}; an annotated image may have none.
        counts: {split: {rule: count}}, what reading the tables met; written into summary.csv.
        merge: how the readers were merged; "" where the tables are of one voice.
    """

    name: str
    pretty_name: str
    homepage: str
    licence: str
    finding_labels: tuple[str, ...]
    diagnosis_labels: tuple[str, ...]
    annotations: dict[str, list[ImageAnnotation]]
    images: dict[str, dict[str, str]]
    counts: dict[str, dict[str, int]]
    merge: str = ""
    licence_link: str = ""
    personal_information: str = PERSONAL_INFORMATION
    citation: str = ""

    @property
    def has_demographics(self) -> bool:
        """Whether the tables tell sex or age, so that rows have these columns."""
        return any(image.demographics is not None for images in self.annotations.values() for image in images)


@dataclass(frozen=True)
class PreparationOptions:
    """How a release is prepared; the programs take the fields as flags."""

    shortest_edge: int | None = field(
        default=512,
        metadata={
            "help": "Pictures are stored scaled down to this many pixels on the shorter side, those that are smaller "
            "as they are. Boxes, width and height do not depend on it."
        },
    )
    windowing: str = field(
        default="dicom",
        metadata={"help": "How DICOM's grey values become 8 bits: dicom (the standard's way) or paper (LiteGPT's)."},
    )
    on_error: str = field(
        default="skip",
        metadata={"help": "A radiograph that is missing or unreadable is left out (skip), or ends it all (raise)."},
    )
    validation_share: float = field(
        default=0.0,
        metadata={"help": "The share of train's patients that makes a split `validation`, the same ones for ever."},
    )
    keep_readings: bool = field(
        default=False, metadata={"help": "Keep what the single readers said beside what was merged of it."}
    )
    timeout_s: float = field(
        default=120, metadata={"help": "Seconds after which a radiograph that is still being read is given up."}
    )

    def __post_init__(self):
        if self.shortest_edge is not None and self.shortest_edge < 1:
            raise ValueError(f"shortest_edge must be at least 1 or None, not {self.shortest_edge}.")
        if self.windowing not in ("dicom", "paper"):
            raise ValueError(f'windowing must be "dicom" or "paper", not {self.windowing!r}.')
        if self.on_error not in ("skip", "raise"):
            raise ValueError(f'on_error must be "skip" or "raise", not {self.on_error!r}.')
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share must be at least 0 and below 1, not {self.validation_share}.")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s must be above 0, not {self.timeout_s}.")


@dataclass(frozen=True)
class Shard:
    """Images of a split whose rows lie in one Parquet file.

    Attributes:
        name: such as "train-00003-of-00059".
        split: such as "train".
        images: (annotation, path), the path None where there is no radiograph.
    """

    name: str
    split: str
    images: tuple[tuple[ImageAnnotation, str | None], ...]


def prepare(
    release: Release, output_dir: str | os.PathLike, options: PreparationOptions | None = None, num_proc: int = 1
) -> None:
    """Writes the folder that this file's head describes, or what is missing of it.

    Args:
        output_dir: a new or empty folder, or one that an interrupted preparation of the same release left.
        num_proc: processes that read radiographs.

    Raises:
        ValueError: the folder holds something else, none of a split's radiographs can be read, or train or validation
            would be empty.
        FileNotFoundError: a shard of a finished folder is gone.
        RadiographError: a radiograph is missing or failed, and `on_error` is "raise".
        ChildProcessError: the processes that read radiographs do not start.
    """
    options = options or PreparationOptions()
    _prepare(release, Path(output_dir), options, num_proc, digest_of(release, options))


def _prepare(release: Release, folder: Path, options: PreparationOptions, num_proc: int, digest: str) -> None:
    if num_proc < 1:
        raise ValueError(f"num_proc must be at least 1, not {num_proc}.")
    if set("*?[]") & set(str(folder)):
        raise ValueError(f"{folder}: `datasets` would take *, ?, [ and ] in the folder's name for a pattern.")
    _refuse_other_content(folder, digest, options)
    if not (folder / "README.md").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _refuse_other_content(folder, digest, options)  # another process may have been here
            if not (folder / "README.md").exists():
                settings = {"digest": digest, "options": asdict(options)}
                _write_text(folder / "preparation.json", json.dumps(settings) + "\n")
                shards = shards_of(release, options.validation_share)
                _write_shards(shards, folder, release, options, num_proc)
                _finish(shards, folder, release, options)
    _check_complete(folder)
    _report(folder, options)


def load(
    folder: str | os.PathLike,
    split: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    streaming: bool = False,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """`datasets.load_dataset` of a prepared folder, with a clear refusal of one that is not finished.

    Args:
        split: "train", a slice such as "train[:100]" (not with `streaming`), or None for all.
        cache_dir: where `datasets` keeps its memory-mapped copy; its default if None.

    Raises:
        FileNotFoundError: the folder is no prepared data set, or lacks a shard.
    """
    folder = Path(folder).resolve()
    if not (folder / "README.md").is_file() or not (folder / "data").is_dir():
        raise FileNotFoundError(
            f"{folder} is no prepared data set, or its preparation was interrupted: it has no README.md and data/."
        )
    _check_complete(folder)
    return datasets.load_dataset(
        str(folder), split=split, cache_dir=None if cache_dir is None else str(cache_dir), streaming=streaming
    )


def load_release(
    release: Release,
    split: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
    streaming: bool = False,
    options: PreparationOptions | None = None,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """A release's rows, prepared in `cache_dir` unless they are there already.

    Args:
        split: "train", "test", "validation" where `options` make one, a slice such as "train[:100]" (not with
            `streaming`), or None for all.
        cache_dir: holds `NAME-DIGEST`, the prepared folder, and what `datasets` makes of it; its default if None.
            Folders of an earlier state of the release stay there.
        num_proc: processes that read radiographs.
        streaming: nothing is written; radiographs are read, and left out, as the rows are asked for.
    """
    options = options or PreparationOptions()
    if streaming:
        return _stream(release, split, options)
    cache_dir = Path(cache_dir or datasets.config.HF_DATASETS_CACHE)
    digest = digest_of(release, options)  # it looks at every radiograph's file
    folder = cache_dir / f"{release.name}-{digest[:32]}"
    _prepare(release, folder, options, num_proc or 1, digest)
    return load(folder, split, cache_dir)


def digest_of(release: Release, options: PreparationOptions) -> str:
    """Changes when the tables, the radiographs (name, size, mtime), the options or the code behind the rows change."""
    digest = hashlib.sha256()
    for module in (dicom, radiograph, decoding_process, splits, annotations, sys.modules[__name__]):
        digest.update(Path(module.__file__).read_bytes())
    labels = (release.finding_labels, release.diagnosis_labels)
    digest.update(repr((labels, release.merge, release.counts, _options_of_rows(options))).encode())
    for split, images in release.annotations.items():
        for annotation in images:
            path = release.images[split].get(annotation.image_id)
            digest.update(repr((split, annotation, path and _state_of(path))).encode())
    return digest.hexdigest()


def _state_of(path: str) -> tuple[str, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:  # a link to nowhere: reading it will say so
        return None
    return os.path.basename(path), status.st_size, status.st_mtime_ns


def _options_of_rows(options: PreparationOptions) -> dict[str, Any]:
    """Without those that only say when a radiograph is given up: a run may go on with others."""
    return {name: value for name, value in asdict(options).items() if name not in ("on_error", "timeout_s")}


def shards_of(release: Release, validation_share: float) -> list[Shard]:
    """Shards of at most `ROWS_PER_SHARD` images; `validation` is taken out of `train`, by patient.

    Patients are those of the tables, or else of the DICOM files' Patient ID; where neither is known, an image is its
    own patient (as in VinDr-CXR, whose release tells no patients).
    """
    parts: dict[str, list[tuple[ImageAnnotation, str | None]]] = {"train": [], "validation": []}
    for split, images in release.annotations.items():
        for annotation in images:
            path = release.images[split].get(annotation.image_id)
            held_out = False
            if split == "train" and validation_share > 0:
                key = annotation.patient_id or (path and read_patient_id(path)) or annotation.image_id
                held_out = splits.in_validation(key, validation_share)
            parts.setdefault("validation" if held_out else split, []).append((annotation, path))
    if validation_share > 0 and not (parts["train"] and parts["validation"]):
        raise ValueError(f"A validation_share of {validation_share} leaves train or validation empty.")
    shards = []
    for split, images in parts.items():
        count = -(-len(images) // ROWS_PER_SHARD)
        for index in range(count):
            name = f"{split}-{index:05d}-of-{count:05d}"
            shards.append(Shard(name, split, tuple(images[index * ROWS_PER_SHARD : (index + 1) * ROWS_PER_SHARD])))
    return shards


def _refuse_other_content(folder: Path, digest: str, options: PreparationOptions) -> None:
    settings = folder / "preparation.json"
    if settings.exists():
        try:
            found = json.loads(settings.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{settings} is damaged: delete the folder, or choose another one.") from None
        if found["digest"] == digest:
            return
        wanted = _options_of_rows(options)
        others = [
            f"{name} {found['options'].get(name)}, not {value}"
            for name, value in wanted.items()
            if found["options"].get(name) != value
        ]
        why = ", ".join(others) or "of other files, or by another version of this code"
        raise ValueError(f"{folder} holds a data set that was prepared otherwise ({why}): choose another folder.")
    if folder.exists() and any(path.name != ".lock" for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and has no preparation.json: choose another folder.")


# --- Rows ------------------------------------------------------------------------------------------------------------


def row_of(
    annotation: ImageAnnotation, decoded: DecodedRadiograph, keep_readings: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An image's row, with names in place of class numbers, and what the manifest says about it."""
    size = (decoded.width, decoded.height)
    boxes = [normalise_box(finding.box, *size) for finding in annotation.findings]
    row = {
        "image_id": annotation.image_id,
        "image": {"bytes": decoded.png, "path": None},
        "width": decoded.width,
        "height": decoded.height,
        "findings": [
            {"label": finding.label, "box": box, "readers": finding.readers}
            for finding, box in zip(annotation.findings, boxes, strict=True)
            if box is not None
        ],
        "diagnoses": list(annotation.diagnoses),
        "view": annotation.view or decoded.view,
    }
    if annotation.demographics is not None:
        row |= {"sex": annotation.demographics.sex, "age": annotation.demographics.age}
    if keep_readings:
        row["readings"] = [
            {
                "rad_id": reading.rad_id,
                "findings": [
                    {"label": finding.label, "box": box}
                    for finding in reading.findings
                    if (box := normalise_box(finding.box, *size)) is not None
                ],
                "diagnoses": list(reading.diagnoses),
            }
            for reading in annotation.readings
        ]
    facts = {
        "pixel_hash": decoded.pixel_hash,
        "perceptual_hash": decoded.perceptual_hash,
        "boxes_outside_image": boxes.count(None),
        "warnings": "; ".join(decoded.warnings),
    }
    return row, facts


def _features_of(release: Release, options: PreparationOptions) -> datasets.Features:
    return row_features(
        release.finding_labels, release.diagnosis_labels, options.keep_readings, release.has_demographics
    )


def normalise_box(box: Box, width: int, height: int) -> list[float] | None:
    """Pixels to [0, 1] of the whole image, clipped to it; None where nothing of the box is inside."""
    x_min, x_max = (min(max(value / width, 0.0), 1.0) for value in box[0::2])
    y_min, y_max = (min(max(value / height, 0.0), 1.0) for value in box[1::2])
    # The precision in which rows are stored, so that rows read on the fly are the same.
    return np.float32([x_min, y_min, x_max, y_max]).tolist() if x_max > x_min and y_max > y_min else None


def _rows_of(
    shard: Shard, read: Iterable[Callable[[], DecodedRadiograph]], options: PreparationOptions
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any]]]:
    """For each image its row, None where it is left out, and its line of the manifest.

    Args:
        read: for each image of the shard what reads its radiograph, or raises RadiographError.
    """
    for (annotation, path), read_image in zip(shard.images, read, strict=True):
        row, line = None, {"image_id": annotation.image_id, "split": shard.split, "outcome": "ok"}
        try:
            row, facts = row_of(annotation, read_image(), options.keep_readings)
            line.update(facts)
        except RadiographError as error:
            if options.on_error == "raise":
                raise
            # The folder may be passed on, so it does not tell where the release lay.
            line["outcome"] = str(error) if path is None else str(error).replace(path, os.path.basename(path))
        yield row, line


def _read(decoder: DecodingProcess, annotation: ImageAnnotation, path: str | None) -> DecodedRadiograph:
    if path is None:
        raise RadiographError(f"There is no radiograph for image_id {annotation.image_id}.")
    return decoder.read(path)


def _stream(
    release: Release, split: str | None, options: PreparationOptions
) -> datasets.IterableDataset | datasets.IterableDatasetDict:
    shards: dict[str, list[Shard]] = {}
    for shard in shards_of(release, options.validation_share):
        shards.setdefault(shard.split, []).append(shard)
    if split is not None and split not in shards:
        raise ValueError(f"streaming takes one of the splits {', '.join(shards)}, and no slices, not {split!r}.")
    features = _features_of(release, options)
    streams = {
        name: datasets.IterableDataset.from_generator(
            _stream_rows,
            features=features,
            # A list is divided among a loader's workers. `datasets` hashes all arguments, which takes a moment for
            # bytes, and seconds for thousands of annotations.
            gen_kwargs={"shards": [pickle.dumps(shard) for shard in of_split], "options": options},
            split=datasets.NamedSplit(name),
        )
        for name, of_split in shards.items()
        if split in (None, name)
    }
    return streams[split] if split else datasets.IterableDatasetDict(streams)


def _stream_rows(shards: list[bytes], options: PreparationOptions) -> Iterator[dict[str, Any]]:
    with DecodingProcess(options.windowing, options.shortest_edge, options.timeout_s) as decoder:
        for shard in map(pickle.loads, shards):
            read = [partial(_read, decoder, *image) for image in shard.images]
            for row, line in _rows_of(shard, read, options):
                if row is None:
                    logger.warning("%s: image %s is left out: %s", shard.split, line["image_id"], line["outcome"])
                else:
                    yield row


# --- Files -----------------------------------------------------------------------------------------------------------


def _write_shards(
    shards: list[Shard], folder: Path, release: Release, options: PreparationOptions, num_proc: int
) -> None:
    """One shard after the other; `num_proc` images are read at a time."""
    for name in ("data", "manifest"):
        (folder / name).mkdir(exist_ok=True)
    features = _features_of(release, options)
    pending = [shard for shard in shards if not _parquet(folder, shard).exists()]
    total = sum(len(shard.images) for shard in shards)
    done = total - sum(len(shard.images) for shard in pending)
    decoders = [DecodingProcess(options.windowing, options.shortest_edge, options.timeout_s) for _ in range(num_proc)]
    idle: SimpleQueue[DecodingProcess] = SimpleQueue()
    for decoder in decoders:
        idle.put(decoder)

    def read(annotation: ImageAnnotation, path: str | None) -> DecodedRadiograph:
        decoder = idle.get()
        try:
            return _read(decoder, annotation, path)
        finally:
            idle.put(decoder)

    with (
        tqdm(total=total, initial=done, unit="image", desc="Radiographs", disable=None) as progress,
        ThreadPoolExecutor(num_proc) as pool,
    ):
        try:
            for shard in pending:
                jobs = (partial(pool.submit, read, *image) for image in shard.images)
                rows = _rows_of(shard, _results_ahead(jobs, 2 * num_proc), options)
                _write_shard(shard, folder, features, rows, progress)
        except BaseException:  # Ctrl-C too
            for decoder in decoders:
                decoder.interrupt()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            for decoder in decoders:
                decoder.close()


def _results_ahead(jobs: Iterable[Callable[[], Future]], ahead: int) -> Iterator[Callable[[], DecodedRadiograph]]:
    """What gives the results, in the jobs' order, while up to `ahead` more jobs are started: not all, for memory."""
    started: deque[Future] = deque()
    for start in jobs:
        started.append(start())
        if len(started) > ahead:
            yield started.popleft().result
    while started:
        yield started.popleft().result


def _write_shard(
    shard: Shard,
    folder: Path,
    features: datasets.Features,
    rows: Iterable[tuple[dict[str, Any] | None, dict[str, Any]]],
    progress: tqdm,
) -> None:
    lines, group, size = [], [], 0
    # Dictionary encoding would look for equal pictures.
    with (
        replacing(_parquet(folder, shard)) as temporary,
        pq.ParquetWriter(temporary, features.arrow_schema, use_dictionary=False) as writer,
    ):
        for row, line in rows:
            lines.append([line.get(column, "") for column in COLUMNS_OF_MANIFEST])
            if row is not None:
                group.append(features.encode_example(row))
                size += len(row["image"]["bytes"])
            if group and (len(group) == ROWS_PER_GROUP or size > BYTES_PER_GROUP or len(lines) == len(shard.images)):
                writer.write_table(pa.Table.from_pylist(group, schema=features.arrow_schema))
                group, size = [], 0
            progress.update()
        # Before the shard: where a shard is, its part of the manifest is too.
        _write_csv(_manifest_part(folder, shard), COLUMNS_OF_MANIFEST, lines)


def _finish(shards: list[Shard], folder: Path, release: Release, options: PreparationOptions) -> None:
    """Writes what is known when all shards are there; README.md last."""
    lines = [line for shard in shards for line in _read_csv(_manifest_part(folder, shard))]
    counts = {split: count_split(_labels_of_rows(folder, shards, split)) for split in _splits(shards)}
    for split, count in counts.items():
        if count["rows"] == 0:
            raise ValueError(
                f"None of the {split} radiographs of {release.pretty_name} could be read; the first: "
                f"{next(line['outcome'] for line in lines if line['split'] == split)}"
            )
    summary = [(split, rule, count) for split, rules in release.counts.items() for rule, count in rules.items()]
    for split in counts:
        of_split = [line for line in lines if line["split"] == split]
        left_out = sum(line["outcome"] != "ok" for line in of_split)
        summary.append((split, "images_left_out", left_out))
        summary.append((split, "images_with_warnings", sum(line["warnings"] != "" for line in of_split)))
        summary.append((split, "boxes_outside_image", sum(int(line["boxes_outside_image"] or 0) for line in of_split)))
    duplicates = splits.duplicates_across_splits([line for line in lines if line["outcome"] == "ok"])

    _write_csv(folder / "manifest.csv", COLUMNS_OF_MANIFEST, [tuple(line.values()) for line in lines])
    _write_csv(folder / "summary.csv", ("split", "rule", "count"), summary)
    columns = ("split_a", "image_a", "split_b", "image_b", "kind", "distance")
    _write_csv(folder / "duplicates.csv", columns, duplicates)
    merge = {"merge": release.merge} if release.merge else {}
    card = card_text(
        name=release.name,
        pretty_name=release.pretty_name,
        homepage=release.homepage,
        licence=release.licence,
        splits=counts,
        finding_labels=release.finding_labels,
        diagnosis_labels=release.diagnosis_labels,
        options={**merge, **_options_of_rows(options)},
        summary=summary,
        demographics=release.has_demographics,
        licence_link=release.licence_link,
        personal_information=release.personal_information,
        citation=release.citation,
    )
    _write_text(folder / "README.md", card)
    shutil.rmtree(folder / "manifest")


def _check_complete(folder: Path) -> None:
    """Raises a FileNotFoundError where a shard of a finished folder is gone: `datasets` would not miss it."""
    names = {path.stem for path in (folder / "data").glob("*-of-*.parquet")}
    for split, count in {(name.rsplit("-", 3)[0], int(name[-5:])) for name in names}:
        for index in range(count):
            if f"{split}-{index:05d}-of-{count:05d}" not in names:
                missing = folder / "data" / f"{split}-{index:05d}-of-{count:05d}.parquet"
                raise FileNotFoundError(f"{missing} is gone: delete the folder and prepare it again.")


def _labels_of_rows(folder: Path, shards: list[Shard], split: str) -> Iterator[tuple[list[str], list[str]]]:
    """The labels of each row's boxes, and its diagnoses, as they stand in the Parquet files."""
    for shard in shards:
        if shard.split == split:
            table = pq.read_table(_parquet(folder, shard), columns=["findings", "diagnoses"])
            features = datasets.Features.from_arrow_schema(table.schema)
            finding_label, diagnosis = features["findings"].feature["label"], features["diagnoses"].feature
            for row in table.to_pylist():
                labels = [finding["label"] for finding in row["findings"]]
                yield finding_label.int2str(labels), diagnosis.int2str(row["diagnoses"])


def _report(folder: Path, options: PreparationOptions) -> None:
    """Warns of what was left out and of what is in two splits, also when the folder was there already."""
    lines = _read_csv(folder / "manifest.csv")
    for split in dict.fromkeys(line["split"] for line in lines):
        of_split = [line for line in lines if line["split"] == split]
        left_out = [line for line in of_split if line["outcome"] != "ok"]
        if left_out and options.on_error == "raise":
            raise RadiographError(left_out[0]["outcome"])
        if left_out:
            shown = ", ".join(line["image_id"] for line in left_out[:20]) + (", ..." if len(left_out) > 20 else "")
            logger.warning(
                "%s: %d of %d radiographs were left out, see %s: %s",
                *(split, len(left_out), len(of_split), folder / "manifest.csv", shown),
            )
    duplicates = _read_csv(folder / "duplicates.csv")
    if duplicates:
        logger.warning("%d pairs of images are in two splits, see %s.", len(duplicates), folder / "duplicates.csv")


def _splits(shards: list[Shard]) -> list[str]:
    return list(dict.fromkeys(shard.split for shard in shards))


def _parquet(folder: Path, shard: Shard) -> Path:
    return folder / "data" / f"{shard.name}.parquet"


def _manifest_part(folder: Path, shard: Shard) -> Path:
    return folder / "manifest" / f"{shard.name}.csv"


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def _read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
