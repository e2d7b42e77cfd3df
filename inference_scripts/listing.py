"""The files below folders that may be radiographs.

    files_below([Path("inbox"), Path("a.dicom")])
    # Listing(files=[Path("inbox/a.png"), Path("inbox/study/b.dcm"), Path("a.dicom")], drawn=[])
    files_below(["s3://bucket/inbox"])          # the same of a remote folder, as addresses

A folder is entered once, however many links lead to it: real folders first, then linked ones, and none that a link
lies in. Hidden files and folders are left out, and what programs of this folder write: `predictions.jsonl` and
`maps.jsonl`, the pictures and arrays that they name, and beside them what goes with them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litegpt.common.addresses import entries_of, is_folder, is_remote, open_address

PREDICTIONS, DIGESTS, MAPS = "predictions.jsonl", "digests.jsonl", "maps.jsonl"
WRITTEN = (PREDICTIONS, DIGESTS, MAPS)
RUN = ("plan.json", "plan", "results")  # a folder that `litegpt predict-many` writes is left out whole
UNFINISHED = ".incomplete"  # `files.replacing` was interrupted


@dataclass
class Listing:
    """What lies below folders: paths, and the addresses of what is remote.

    Attributes:
        files: what may be a radiograph, each path once; also a link that leads nowhere, and a folder that cannot be
            listed, which a program then names among what it could not use.
        drawn: pictures with answers that an earlier run has drawn.
    """

    files: list[Path | str] = field(default_factory=list)
    drawn: list[Path | str] = field(default_factory=list)


def files_below(paths: Sequence[Path | str]) -> Listing:
    """The files themselves and every file below the folders, in order.

    Raises:
        StoreError: nobody can say whether a remote one is a file or a folder.
    """
    listing = Listing()
    for file, is_drawn in each_file(paths):
        (listing.drawn if is_drawn else listing.files).append(file)
    listing.files = list(dict.fromkeys(listing.files))
    return listing


def each_file(paths: Sequence[Path | str]) -> Iterator[tuple[Path | str, bool]]:
    """The same one after another, each with whether it is a drawn picture: in memory are one folder's, and links."""
    entered: list[Path] = []  # with all that is below
    links: list[Path] = []
    for path in paths:
        if is_remote(path):
            if is_folder(path):
                yield from _enter_remote(path.rstrip("/"))
            else:
                yield path, False
        elif path.is_dir():
            yield from _enter_all(path, entered, links)
        else:
            yield path, False
    for link in links:  # grows, where a linked folder has links
        if link.resolve() not in link.parent.resolve().parents:
            yield from _enter_all(link, entered, links)


def _enter_all(folder: Path, entered: list[Path], links: list[Path]) -> Iterator[tuple[Path, bool]]:
    real = folder.resolve()
    for other in entered:
        if real.is_relative_to(other) and not any(part.startswith(".") for part in real.relative_to(other).parts):
            return
    before = set(entered)
    entered.append(real)
    yield from _enter(folder, real, before, links)


def _enter(folder: Path, real: Path, before: set[Path], links: list[Path]) -> Iterator[tuple[Path, bool]]:
    """The files of a folder, whose real path is `real`, and below it, but for what was entered before."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        yield folder, False
        return
    if all((folder / name).exists() for name in RUN):
        return
    drawn, written = _written(folder / PREDICTIONS, folder / MAPS)
    for entry in entries:
        if entry.is_dir():
            if entry.is_symlink():
                links.append(entry)
            elif real / entry.name not in before:
                yield from _enter(entry, real / entry.name, before, links)
        elif entry.name in drawn:
            yield entry, True
        elif entry.name in written or entry.name.endswith(UNFINISHED):
            continue
        elif entry.is_file() or entry.is_symlink():  # no pipe, which would wait for ever
            yield entry, False


def _enter_remote(folder: str) -> Iterator[tuple[str, bool]]:
    try:
        folders, names = entries_of(folder)
    except OSError:
        yield folder, False
        return
    if {*RUN} <= {*folders, *names}:
        return
    drawn, written = _written(*(f"{folder}/{name}" if name in names else None for name in (PREDICTIONS, MAPS)))
    for name in sorted([*folders, *names]):
        if name.startswith("."):
            continue
        if name in folders:
            yield from _enter_remote(f"{folder}/{name}")
        elif name in drawn:
            yield f"{folder}/{name}", True
        elif name not in written and not name.endswith(UNFINISHED):
            yield f"{folder}/{name}", False


def _written(predictions: Path | str | None, maps: Path | str | None) -> tuple[set[str], set[str]]:
    """The names of pictures that were drawn, and of what else programs write, by the lines beside them."""
    drawn = {*_named(predictions, "overlay"), *_named(maps, "overlay")}
    return drawn, {*WRITTEN, *_named(maps, "grid")}


def _named(lines_file: Path | str | None, key: str) -> Iterator[str]:
    """The names of what an earlier run has written beside its lines; other programs' files of this name have none."""
    if lines_file is None or not (is_remote(lines_file) or lines_file.is_file()):
        return
    with open_address(lines_file) as lines:
        for line in lines:
            try:
                yield str(json.loads(line)[key])
            except (ValueError, KeyError, TypeError):
                continue
