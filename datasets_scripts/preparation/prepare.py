"""A release of radiographs -> a folder of Parquet files that `datasets.load_dataset(folder)` reads.

    prepare(read_release("path/to/vindr-cxr"), "prepared/vindr-cxr", num_proc=8)
    rows = load("prepared/vindr-cxr", "train")

    README.md                              the data set card; its YAML names the Parquet files
    data/train-00003-of-00059.parquet      rows of `annotations.row_features`, pictures as PNG
    manifest.csv                           what became of every image, and its hashes
    summary.csv                            split, rule, count: what the tables held and what was left out
    duplicates.csv                         images that are on both sides of a split
    preparation.json                       the options, and digests of all that the rows are made of
    preparation.log                        when each shard was written, and the summary in words

A shard is written under a temporary name, then renamed, so an interrupted preparation continues after its last whole
shard; README.md is written last. Reading radiographs happens in processes that may crash (`decoding_process.py`).
"""

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm.auto import tqdm

from litegpt.common.addresses import (
    StoreError,
    entries_of,
    exists,
    is_file,
    is_folder,
    is_remote,
    open_address,
    open_text,
    remove,
    remove_folder,
    replacing_address,
    state_of,
    write_bytes,
)
from litegpt.common.read_ahead import started_ahead
from litegpt.datasets_scripts.annotations import ROWS_VERSION, ImageAnnotation, row_features, row_of
from litegpt.datasets_scripts.preparation import splits, summary
from litegpt.datasets_scripts.preparation.dataset_card import card_text, count_split
from litegpt.datasets_scripts.preparation.decoding_process import DecodedRadiograph, DecodingProcess, read_patient_id
from litegpt.datasets_scripts.preparation.release import PreparationOptions, Release
from litegpt.processing.dicom import RadiographError

logger = logging.getLogger(__name__)

ROWS_PER_SHARD = 256
# A row group is what a reader of the Parquet file holds in memory, and `prepare` before it is written.
ROWS_PER_GROUP, BYTES_PER_GROUP = 64, 32 << 20


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
    """Writes the folder that this file's head describes, or what is missing of it, and prints what was left out.

    What a run that failed left behind does not stand in the way of the next: its shards stay where their rows would be
    the same, and are written anew where, say, a radiograph was repaired.

    Args:
        output_dir: a new or empty folder, or one that an interrupted preparation of the same release left; a path or
            an address.
        num_proc: processes that read radiographs.

    Raises:
        ValueError: the folder holds something else, or whole shards of other options; none of a split's radiographs
            can be read; train or validation would be empty.
        FileNotFoundError: a shard of a finished folder is gone.
        RadiographError: a radiograph is missing or failed, and `on_error` is "raise".
        ChildProcessError: the processes that read radiographs do not start.
    """
    options, folder = options or PreparationOptions(), folder_of(output_dir)
    _prepare(release, folder, options, num_proc, digest_of(release, options))
    print(f"{folder}:", *summary.summary_in_words(folder), sep="\n  ")


def folder_of(output_dir: str | os.PathLike) -> str:
    """The folder that a preparation writes, as a path or an address.

    Raises:
        ValueError: it has a name that nobody could read it by.
    """
    folder = os.fspath(output_dir).rstrip("/")
    if set("*?[]") & set(folder):
        raise ValueError(f"{folder}: `datasets` would take *, ?, [ and ] in the folder's name for a pattern.")
    return folder


def _prepare(release: Release, folder: str, options: PreparationOptions, num_proc: int, digest: str) -> None:
    if num_proc < 1:
        raise ValueError(f"num_proc must be at least 1, not {num_proc}.")
    if not is_finished(folder, digest, release, options):
        with locked(folder):
            if not is_finished(folder, digest, release, options):  # another process may have been here
                shards = shards_of(release, options.validation_share)
                claim(folder, shards, digest, release, options)
                _write_shards(shards, folder, release, options, num_proc)
                finish(shards, folder, digest, release, options)
    check_complete(folder)
    summary.report_losses(folder, options.on_error)


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
    folder = folder.rstrip("/") if is_remote(folder) else str(Path(folder).resolve())
    if not is_file(os.path.join(folder, "README.md")) or not is_folder(os.path.join(folder, "data")):
        raise FileNotFoundError(
            f"{folder} is no prepared data set, or its preparation was interrupted: it has no README.md and data/."
        )
    names = check_complete(folder)
    source: dict[str, Any] = {"path": folder}
    if is_remote(folder):  # the library takes no folder there, but Parquet files, which know their columns
        files: dict[str, list[str]] = {}
        for name in names:
            files.setdefault(name.rsplit("-", 3)[0], []).append(_parquet(folder, name))
        source = {"path": "parquet", "data_files": files}
    return datasets.load_dataset(
        **source, split=split, cache_dir=None if cache_dir is None else str(cache_dir), streaming=streaming
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
    if is_remote(cache_dir):
        raise ValueError(
            f"{cache_dir} is no cache_dir, which must be on this machine: prepare the release there first."
        )
    cache_dir = Path(cache_dir or datasets.config.HF_DATASETS_CACHE)
    digest = digest_of(release, options)  # it looks at every radiograph's file
    folder = folder_of(cache_dir / f"{release.facts.name}-{digest[:32]}")
    _prepare(release, folder, options, num_proc or 1, digest)
    for line in summary.summary_in_words(folder):
        logger.info("%s: %s", release.facts.pretty_name, line)
    return load(folder, split, cache_dir)


def digest_of(release: Release, options: PreparationOptions) -> str:
    """SHA-256 of all that the rows are made of: tables, radiographs, options, and the version of the rows.

    Of a radiograph the file's name, size and time of change count, or what its store tells contents apart by; of the
    code `annotations.ROWS_VERSION` alone.
    """
    images = (
        (split, annotation, release.images[split].get(annotation.image_id))
        for split, annotations in release.annotations.items()
        for annotation in annotations
    )
    return _digest(
        [*_rules(release, options), release.counts], ((split, image, _state_of(path)) for split, image, path in images)
    )


def _shard_digest(shard: Shard, release: Release, options: PreparationOptions) -> str:
    """The same of one shard's rows: those that an earlier run wrote may stay where it is the same."""
    return _digest(_rules(release, options), ((annotation, _state_of(path)) for annotation, path in shard.images))


def _digest(rules: Iterable[Any], images: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in (*rules, *images):
        digest.update(repr(part).encode())
    return digest.hexdigest()


def _rules(release: Release, options: PreparationOptions) -> list[Any]:
    """By what, besides the images, rows are made."""
    labels = (release.finding_labels, release.diagnosis_labels)
    return [ROWS_VERSION, labels, _columns(release, options), _options_of_rows(release, options)]


def _state_of(path: str | None) -> tuple[str, int, int | str] | None:
    if path is None:
        return None
    try:
        if is_remote(path):
            return os.path.basename(path), *state_of(path)
        status = os.stat(path)
    except StoreError:
        raise
    except OSError:  # a link to nowhere: reading it will say so
        return None
    return os.path.basename(path), status.st_size, status.st_mtime_ns


def _options_of_rows(release: Release, options: PreparationOptions) -> dict[str, Any]:
    """Without those that only say when a radiograph is given up: a run may continue with others."""
    given_up = ("on_error", "timeout_s")
    return {name: value for name, value in _all_options(release, options).items() if name not in given_up}


def _all_options(release: Release, options: PreparationOptions) -> dict[str, Any]:
    facts = release.facts
    # What the user says of their own data stands in the card, so a folder of another name is another one.
    own = {} if facts.homepage else {"name": facts.pretty_name, "licence": facts.licence or "not stated"}
    return own | ({"merge": release.merge} if release.merge else {}) | asdict(options)


def _columns(release: Release, options: PreparationOptions) -> tuple[str, ...]:
    """The optional columns of the rows."""
    return (*release.columns, "readings") if options.keep_readings else release.columns


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


# --- Whose a folder is -----------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: str, name: str = ".lock") -> Iterator[None]:
    """Waits until nobody else is in such a block, on any machine whose file system knows locks; makes the folder.

    An object store knows none: there several may be in the block, and what they do must bear it.
    """
    if is_remote(folder):
        yield
        return
    os.makedirs(folder, exist_ok=True)
    with FileLock(os.path.join(folder, name)):
        yield


def is_finished(folder: str, digest: str, release: Release, options: PreparationOptions) -> bool:
    """Whether the folder holds these rows, all of them.

    Raises:
        ValueError: it holds something else.
    """
    found = _settings(folder)
    if found is None:
        if is_folder(folder) and any(name != ".lock" for names in entries_of(folder) for name in names):
            raise ValueError(f"{folder} is not empty and has no preparation.json: choose another folder.")
        return False
    if not exists(os.path.join(folder, "README.md")):
        return False
    if found["digest"] != digest:
        raise _prepared_otherwise(folder, found, release, options)
    return True


def claim(folder: str, shards: list[Shard], digest: str, release: Release, options: PreparationOptions) -> None:
    """Makes an unfinished folder this preparation's: shards with the rows it would write stay, all else goes.

    A folder that is this preparation's already stays as it is: others may be writing its shards.

    Raises:
        ValueError: there are whole shards, and every one is of other rows: they may be hours of work.
    """
    digests = {shard.name: _shard_digest(shard, release, options) for shard in shards}
    found = _settings(folder) or {}  # read after the digests were computed, which takes its time
    settings = {"digest": digest, "options": _all_options(release, options), "shards": digests}
    if (found.get("digest"), found.get("shards")) != (digest, digests):
        data = _names(folder, "data")
        ours = written_shards(folder) & {name for name, _ in digests.items() & found.get("shards", {}).items()}
        whole = {name for name in data if fnmatch(name, "*-of-*.parquet")}
        if whole and not whole & {f"{name}.parquet" for name in ours}:
            raise _prepared_otherwise(folder, found, release, options)
        for name in data:
            if name.removesuffix(".parquet") not in ours:
                remove(os.path.join(folder, "data", name))
        if not whole:
            remove(os.path.join(folder, "preparation.log"))
    if found != settings:
        write_bytes(os.path.join(folder, "preparation.json"), (json.dumps(settings) + "\n").encode())


def written_shards(folder: str) -> set[str]:
    """The names of the shards that are there, each with its part of the manifest."""
    parts = {name.removesuffix(".csv") for name in _names(folder, "manifest")}
    return {name.removesuffix(".parquet") for name in _names(folder, "data")} & parts


def _names(folder: str, below: str) -> list[str]:
    """Of the files in one of its folders; none where that is not made yet."""
    try:
        return entries_of(os.path.join(folder, below))[1]
    except FileNotFoundError:
        return []


def _settings(folder: str) -> dict[str, Any] | None:
    """What preparation.json says; None where there is none."""
    path = os.path.join(folder, "preparation.json")
    if not exists(path):
        return None
    try:
        with open_text(path) as file:
            return json.load(file)
    except ValueError:
        raise ValueError(f"{path} is damaged: delete the folder, or choose another one.") from None


def _prepared_otherwise(
    folder: str, found: dict[str, Any], release: Release, options: PreparationOptions
) -> ValueError:
    others = [
        f"{name} {found['options'][name]}, not {value}"
        for name, value in _options_of_rows(release, options).items()
        if found["options"].get(name, value) != value
    ]
    why = ", ".join(others) or "of other files, or by another version of this code"
    return ValueError(
        f"{folder} holds a data set that was prepared otherwise ({why}): choose another folder, or delete this one."
    )


# --- Rows ------------------------------------------------------------------------------------------------------------


def _rows_of(
    shard: Shard, read: Iterable[Callable[[], DecodedRadiograph]], columns: tuple[str, ...], on_error: str
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any]]]:
    """For each image its row, None where it is left out, and its line of the manifest.

    Args:
        read: for each image of the shard what reads its radiograph, or raises RadiographError.
    """
    for (annotation, path), read_image in zip(shard.images, read, strict=True):
        row, line = None, {"image_id": annotation.image_id, "split": shard.split, "outcome": "ok"}
        try:
            decoded = read_image()
            row, outside = row_of(annotation, decoded, columns)
            line["pixel_hash"], line["perceptual_hash"] = decoded.pixel_hash, decoded.perceptual_hash
            line["boxes_outside_image"], line["warnings"] = outside, "; ".join(decoded.warnings)
        except RadiographError as error:
            if on_error == "raise":
                raise
            # The folder may be passed on, so it does not tell where the release lay.
            line["outcome"] = str(error) if path is None else str(error).replace(path, os.path.basename(path))
        yield row, line


def _read(decoder: DecodingProcess, annotation: ImageAnnotation, path: str | None) -> DecodedRadiograph:
    if path is None:
        raise summary.missing_radiograph(annotation.image_id)
    return decoder.read(path)


def _stream(
    release: Release, split: str | None, options: PreparationOptions
) -> datasets.IterableDataset | datasets.IterableDatasetDict:
    shards: dict[str, list[Shard]] = {}
    for shard in shards_of(release, options.validation_share):
        shards.setdefault(shard.split, []).append(shard)
    if split is not None and split not in shards:
        raise ValueError(f"streaming takes one of the splits {', '.join(shards)}, and no slices, not {split!r}.")
    columns = _columns(release, options)
    features = row_features(release.finding_labels, release.diagnosis_labels, columns)
    streams = {
        name: datasets.IterableDataset.from_generator(
            _stream_rows,
            features=features,
            # A list is divided among a loader's workers. `datasets` hashes all arguments, which takes a moment for
            # bytes, and seconds for thousands of annotations.
            gen_kwargs={
                "shards": [pickle.dumps(shard) for shard in parts],
                "columns": columns,
                "options": options,
            },
            split=datasets.NamedSplit(name),
        )
        for name, parts in shards.items()
        if split in (None, name)
    }
    return streams[split] if split else datasets.IterableDatasetDict(streams)


def _stream_rows(
    shards: list[bytes], columns: tuple[str, ...], options: PreparationOptions
) -> Iterator[dict[str, Any]]:
    with DecodingProcess(options.windowing, options.shortest_edge, options.timeout_s) as decoder:
        for shard in map(pickle.loads, shards):
            read = [partial(_read, decoder, *image) for image in shard.images]
            for row, line in _rows_of(shard, read, columns, options.on_error):
                if row is None:
                    logger.warning("%s: image %s is left out: %s", shard.split, line["image_id"], line["outcome"])
                else:
                    yield row


# --- Files -----------------------------------------------------------------------------------------------------------


def _write_shards(
    shards: list[Shard], folder: str, release: Release, options: PreparationOptions, num_proc: int
) -> None:
    """One shard after the other; `num_proc` images are read at a time."""
    written = written_shards(folder)
    pending = [shard for shard in shards if shard.name not in written]
    total = sum(len(shard.images) for shard in shards)
    done = total - sum(len(shard.images) for shard in pending)
    log(folder, f"{release.facts.pretty_name}: {total:,} images, of which {done:,} were prepared before")
    with (
        tqdm(total=total, initial=done, unit="image", desc="Radiographs", disable=None) as progress,
        ShardWriter(folder, release, options, num_proc) as writer,
    ):
        for shard in pending:
            writer.write(shard, progress.update)
            done += len(shard.images)
            log(folder, f"{done:,} of {total:,} images: {shard.name} is written")


class ShardWriter:
    """Writes shards, one at a time, of which `num_proc` images are read at a time; ends its processes at last."""

    def __init__(self, folder: str, release: Release, options: PreparationOptions, num_proc: int):
        self.folder, self.options, self.num_proc = folder, options, num_proc
        self.claimed = _settings(folder)["digest"]
        self.columns = _columns(release, options)
        self.features = row_features(release.finding_labels, release.diagnosis_labels, self.columns)
        self.decoders = [
            DecodingProcess(options.windowing, options.shortest_edge, options.timeout_s) for _ in range(num_proc)
        ]
        self.idle: SimpleQueue[DecodingProcess] = SimpleQueue()
        for decoder in self.decoders:
            self.idle.put(decoder)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in self.decoders:
            decoder.close()

    def write(self, shard: Shard, progress: Callable[[], Any] = lambda: None) -> None:
        """Writes a shard, unless another process has just done it.

        Args:
            progress: called after each image.

        Raises:
            ValueError: another preparation has claimed the folder.
            RadiographError: a radiograph is missing or failed, and `on_error` is "raise".
        """
        with locked(os.path.join(self.folder, "manifest"), f"{shard.name}.lock"):
            parts = (_parquet(self.folder, shard.name), _manifest_part(self.folder, shard.name))
            if all(map(exists, parts)) or exists(os.path.join(self.folder, "README.md")):
                return
            with ThreadPoolExecutor(self.num_proc) as pool:
                try:
                    started = started_ahead(self._read, shard.images, pool, most=2 * self.num_proc)
                    read = (future.result for future in started)
                    self._write(shard, _rows_of(shard, read, self.columns, self.options.on_error), progress)
                except BaseException:  # Ctrl-C too
                    for decoder in self.decoders:
                        decoder.interrupt()
                    pool.shutdown(cancel_futures=True)
                    raise

    def _read(self, image: tuple[ImageAnnotation, str | None]) -> DecodedRadiograph:
        decoder = self.idle.get()
        try:
            return _read(decoder, *image)
        finally:
            self.idle.put(decoder)

    def _write(
        self,
        shard: Shard,
        rows: Iterable[tuple[dict[str, Any] | None, dict[str, Any]]],
        progress: Callable[[], Any],
    ) -> None:
        lines, group, size, schema = [], [], 0, self.features.arrow_schema
        # Dictionary encoding would look for equal pictures.
        with (
            replacing_address(_parquet(self.folder, shard.name)) as temporary,
            pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer,
        ):
            for row, line in rows:
                lines.append([line.get(column, "") for column in summary.MANIFEST_COLUMNS])
                if row is not None:
                    group.append(self.features.encode_example(row))
                    size += len(row["image"]["bytes"])
                is_last = len(lines) == len(shard.images)
                if group and (len(group) == ROWS_PER_GROUP or size > BYTES_PER_GROUP or is_last):
                    writer.write_table(pa.Table.from_pylist(group, schema=schema))
                    group, size = [], 0
                progress()
            if (_settings(self.folder) or {}).get("digest") != self.claimed:
                raise ValueError(f"{self.folder} has been claimed by another preparation meanwhile.")
            # Before the shard: where a shard is, its part of the manifest is too.
            summary.write_csv(_manifest_part(self.folder, shard.name), summary.MANIFEST_COLUMNS, lines)


def finish(shards: list[Shard], folder: str, digest: str, release: Release, options: PreparationOptions) -> None:
    """Writes what is known when all shards are there; README.md last.

    On an object store two machines may do it at once: both write the same.
    """
    try:
        lines = [line for shard in shards for line in summary.read_csv(_manifest_part(folder, shard.name))]
    except FileNotFoundError:
        if is_finished(folder, digest, release, options):  # by another machine, meanwhile
            return
        raise
    counts = {split: count_split(_labels_of_rows(folder, shards, split)) for split in summary.by_split(lines)}
    empty = [split for split, count in counts.items() if count["rows"] == 0]
    if empty:
        for shard in shards:
            if shard.split in empty:  # they hold nothing that another run would have to spare
                remove(_parquet(folder, shard.name))
        raise ValueError(
            f"None of the {empty[0]} radiographs of {release.facts.pretty_name} could be read; the first: "
            f"{next(line['outcome'] for line in lines if line['split'] == empty[0])}"
        )
    for name in {*_names(folder, "data")} - {f"{shard.name}.parquet" for shard in shards}:
        remove(os.path.join(folder, "data", name))  # of a process that was killed
    met = summary.write_summary(folder, lines, release.counts)
    card = card_text(release, _columns(release, options), counts, _options_of_rows(release, options), met)
    for text in (*summary.summary_in_words(folder), "\n".join(release.remarks)):
        if text:
            log(folder, text)
    write_bytes(os.path.join(folder, "README.md"), card.encode())
    for name in ("manifest", "attempts", "set_aside"):  # the last two are of `shard_attempts.py`
        remove_folder(os.path.join(folder, name))


def log(folder: str, text: str) -> None:
    """A line of preparation.log; the folder may be passed on, so none tells where the release lay.

    On an object store, which adds to no object, it is written anew: lines of machines that write at once may be lost.
    """
    path = os.path.join(folder, "preparation.log")
    line = f"{datetime.now().isoformat(sep=' ', timespec='seconds')}  {text}\n"
    if not is_remote(folder):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
        return
    earlier = ""
    if exists(path):
        with open_text(path) as file:
            earlier = file.read()
    write_bytes(path, (earlier + line).encode())


def check_complete(folder: str) -> list[str]:
    """The names of a finished folder's shards, in order.

    Raises:
        FileNotFoundError: one is gone: `datasets` would not miss it.
    """
    names = [name.removesuffix(".parquet") for name in _names(folder, "data") if fnmatch(name, "*-of-*.parquet")]
    for split, count in {(name.rsplit("-", 3)[0], int(name[-5:])) for name in names}:
        for index in range(count):
            name = f"{split}-{index:05d}-of-{count:05d}"
            if name not in names:
                raise FileNotFoundError(f"{_parquet(folder, name)} is gone: delete the folder and prepare it again.")
    return names


def _labels_of_rows(folder: str, shards: list[Shard], split: str) -> Iterator[tuple[list[str], list[str]]]:
    """The labels of each row's boxes, and its diagnoses, as they stand in the Parquet files."""
    for shard in shards:
        if shard.split == split:
            with open_address(_parquet(folder, shard.name)) as file:
                table = pq.read_table(file, columns=["findings", "diagnoses"])
            features = datasets.Features.from_arrow_schema(table.schema)
            finding_label, diagnosis = features["findings"].feature["label"], features["diagnoses"].feature
            for row in table.to_pylist():
                labels = [finding["label"] for finding in row["findings"]]
                yield finding_label.int2str(labels), diagnosis.int2str(row["diagnoses"])


def _parquet(folder: str, name: str) -> str:
    return os.path.join(folder, "data", f"{name}.parquet")


def _manifest_part(folder: str, name: str) -> str:
    return os.path.join(folder, "manifest", f"{name}.csv")
