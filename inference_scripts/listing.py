"""The files below folders that may be radiographs.

    files_below([Path("inbox"), Path("a.dicom")])
    # Listing(files=[Path("inbox/a.png"), Path("inbox/study/b.dcm"), Path("a.dicom")], drawn=[])

A folder is entered once, however many links lead to it: real folders first, then linked ones, and none that a link
lies in. Hidden files and folders are left out, and what programs of this folder write: `predictions.jsonl` and
`maps.jsonl`, the pictures and arrays that they name, and beside them what goes with them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PREDICTIONS, DIGESTS, MAPS = "predictions.jsonl", "digests.jsonl", "maps.jsonl"
WRITTEN = (PREDICTIONS, DIGESTS, MAPS)
UNFINISHED = ".incomplete"  # `files.replacing` was interrupted


@dataclass
class Listing:
    """What lies below folders.

    Attributes:
        files: what may be a radiograph, each path once; also a link that leads nowhere, and a folder that cannot be
            listed, which a program then names among what it could not use.
        drawn: pictures with answers that an earlier run has drawn.
    """

    files: list[Path] = field(default_factory=list)
    drawn: list[Path] = field(default_factory=list)


def files_below(paths: Sequence[Path]) -> Listing:
    """The files themselves and every file below the folders, in order."""
    listing, entered, links = Listing(), set(), []
    for path in paths:
        if path.is_dir():
            _enter(path, listing, entered, links)
        else:
            listing.files.append(path)
    for link in links:  # grows, where a linked folder has links
        if link.resolve() not in {*entered, *link.parent.resolve().parents}:
            _enter(link, listing, entered, links)
    listing.files = list(dict.fromkeys(listing.files))
    return listing


def _enter(folder: Path, listing: Listing, entered: set[Path], links: list[Path]) -> None:
    if folder.resolve() in entered:
        return
    entered.add(folder.resolve())
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        listing.files.append(folder)
        return
    drawn = {*_named(folder / PREDICTIONS, "overlay"), *_named(folder / MAPS, "overlay")}
    written = {*WRITTEN, *_named(folder / MAPS, "grid")}
    for entry in entries:
        if entry.is_dir():
            if entry.is_symlink():
                links.append(entry)
            else:
                _enter(entry, listing, entered, links)
        elif entry.name in drawn:
            listing.drawn.append(entry)
        elif entry.name in written or entry.name.endswith(UNFINISHED):
            continue
        elif entry.is_file() or entry.is_symlink():  # no pipe, which would wait for ever
            listing.files.append(entry)


def _named(lines_file: Path, key: str) -> Iterator[str]:
    """The names of what an earlier run has written beside its lines; other programs' files of this name have none."""
    if not lines_file.is_file():
        return
    with lines_file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                yield str(json.loads(line)[key])
            except (ValueError, KeyError, TypeError):
                continue
