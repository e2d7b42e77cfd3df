"""The radiographs that a data set's tables name, and the files that hold them.

    image_id_of("images/00000001_000.png")            # "00000001_000"
    files = find_files("vindr-cxr/train", SUFFIXES)   # {"a1": "vindr-cxr/train/a1.dicom", ...}
    match(["A1"], files, "train.csv", "train")        # {"A1": "vindr-cxr/train/a1.dicom"}

Tables and lists name an image with or without a folder and a suffix; the bare name is its image_id.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litegpt.common.addresses import walk

if TYPE_CHECKING:
    from litegpt.datasets_scripts.annotations import ImageAnnotation

SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")


def image_id_of(cell: str) -> str:
    r"""train\a1.dicom.PNG -> a1; a suffix that is none of a picture's belongs to the name."""
    name = re.split(r"[/\\]", cell.strip())[-1]
    while os.path.splitext(name)[1].lower() in SUFFIXES:
        name = os.path.splitext(name)[0]
    return name


class ImageIds:
    """Bare names of a table's images; refuses those of different folders that have one name."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, cell: str, where: str) -> str:
        """The image_id of a cell.

        Raises:
            ValueError: an image of another folder has it, or there is none.
        """
        image_id = image_id_of(cell)
        folder = re.sub(r"[^/\\]*$", "", cell.strip())
        if not image_id:
            raise ValueError(f"{where}: the line names no image.")
        if self._folders.setdefault(image_id, folder) != folder:
            raise ValueError(
                f"{where}: {cell} and {self._folders[image_id]}{image_id} are two images of one name: "
                "give each a name of its own."
            )
        return image_id


@dataclass
class Files:
    """The radiographs of a folder.

    Attributes:
        paths: {image_id: path}.
        second: paths of other files of the same images, which are not read.
        several: {image_id: two paths}, of which neither comes first.
    """

    paths: dict[str, str] = field(default_factory=dict)
    second: list[str] = field(default_factory=list)
    several: dict[str, tuple[str, str]] = field(default_factory=dict)


def find_files(
    folder: str,
    suffixes: Sequence[str] = SUFFIXES,
    folders: str = ".*",
    id_of: Callable[[str], str] = image_id_of,
) -> Files:
    """The radiographs in a folder and its sub-folders.

    Of several files of one image the one least deep counts, then the first in `suffixes`' order.

    Args:
        folders: a pattern of the sub-folders' names, at any depth; hidden ones never count.
        id_of: path within the folder -> image_id, where the bare name tells no images apart.
    """
    ranked: dict[str, list[tuple[int, int, str]]] = {}
    for here, below, names in walk(folder):
        inside = os.path.relpath(here, folder)
        depth = inside.count(os.sep) + (here != folder)
        below[:] = [name for name in sorted(below) if re.fullmatch(folders, name) and name[0] not in "._"]
        if depth == 8:  # a link that leads back
            below.clear()
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in suffixes and not name.startswith("."):
                path = os.path.join(here, name)
                ranked.setdefault(id_of(os.path.join(inside, name)), []).append((depth, suffixes.index(suffix), path))
    files = Files()
    for image_id, ranks in ranked.items():
        first, *others = sorted(ranks)
        files.paths[image_id] = first[2]
        files.second += [path for *_, path in others]
        if first[0] > 0 and others and others[0][:2] == first[:2]:
            files.several[image_id] = (first[2], others[0][2])
    return files


def match(image_ids: Iterable[str], files: Files, table: str, folder: str) -> dict[str, str]:
    """{image_id: path} of the images that have a file; where the names differ in case alone, they match.

    Args:
        table, folder: what names the images and where their files lie, for the sentences.

    Raises:
        FileNotFoundError: no image has a file.
        ValueError: two images have one file, or an image has two of which neither comes first.
    """
    folded: dict[str, list[str]] = {}
    for name in files.paths:
        folded.setdefault(name.casefold(), []).append(name)
    image_ids, found, owners = list(image_ids), {}, {}
    for image_id in image_ids:
        alike = folded.get(image_id.casefold(), [])
        name = image_id if image_id in files.paths else alike[0] if len(alike) == 1 else None
        if name is None:
            continue
        if name in files.several:
            raise ValueError(f"{image_id} has two files, {' and '.join(files.several[name])}: remove one.")
        if owners.setdefault(name, image_id) != image_id:
            raise ValueError(
                f"{table} names {owners[name]} and {image_id}, and one file is both: {files.paths[name]}."
            )
        found[image_id] = files.paths[name]
    if image_ids and not found:
        raise FileNotFoundError(
            f"{folder} holds none of the radiographs that the annotations name{both_sides(table, image_ids, files)}."
        )
    return found


def both_sides(table: str, image_ids: Sequence[str], files: Files) -> str:
    """An example of both: `: train.csv has "1", the folder "0001.png"`."""
    path = next(iter(files.paths.values()), None)
    if path is None:
        return ": it holds no radiographs at all"
    return f': {os.path.basename(table)} has "{image_ids[0]}", the folder "{os.path.basename(path)}"'


def file_counts(files: Files, in_table: Collection[str]) -> dict[str, int]:
    """Radiographs that lie there and are not read: files_not_in_table, second_files; those that are not 0.

    Args:
        in_table: image_ids that the tables name, also of images that are left out by a rule.
    """
    named = {image_id.casefold() for image_id in in_table}
    counts = {
        "files_not_in_table": sum(image_id.casefold() not in named for image_id in files.paths),
        "second_files": len(files.second),
    }
    return {rule: count for rule, count in counts.items() if count}


def paths_by_split(
    annotations: "Mapping[str, Sequence[ImageAnnotation]]", paths: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """{split: {image_id: path}} of `Release`, of the images that have a file."""
    return {
        split: {image.image_id: paths[image.image_id] for image in images if image.image_id in paths}
        for split, images in annotations.items()
    }
