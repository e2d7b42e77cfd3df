"""Files that an interruption does not leave half written."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Writes under a temporary name, then renames: `path` is whole at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def complete_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of an earlier run; a last line that was cut off by an interruption is removed from the file."""
    return list(each_line(path))


def each_line(path: Path) -> Iterator[dict[str, Any]]:
    """`complete_lines` one by one, of files that memory should not hold; what was cut off goes when all are read."""
    if not path.exists():
        return
    whole = 0
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n"):
                whole += len(text)
                yield json.loads(text)
    if whole != path.stat().st_size:
        os.truncate(path, whole)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; the file takes the place of `path` when it is complete."""
    temporary = path.with_name(f"{path.name}.incomplete")
    yield temporary
    os.replace(temporary, path)


def give_usual_permissions(path: Path) -> None:
    """Lets those read a file who may read this process's others: safetensors lets the owner alone read its files."""
    mask = os.umask(0)  # there is no other way to ask for it
    os.umask(mask)
    path.chmod(0o666 & ~mask)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A name to write a folder to; it takes the place of `folder` when it is complete, or goes where it fails."""
    temporary = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    older = folder.with_name(folder.name + ".older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        folder.rename(older)
    temporary.rename(folder)
    shutil.rmtree(older, ignore_errors=True)


def refuse_filled_folder(folder: str | Path) -> None:
    """Refuses an output folder that holds something already, which a program would overwrite.

    Raises:
        ValueError: it does, or is a file.
    """
    if Path(folder).is_dir() and any(Path(folder).iterdir()) or Path(folder).is_file():
        raise ValueError(f"{folder} exists already and is not empty: choose another output_dir, or remove it first.")


def weights_sha256(folder: str | Path) -> dict[str, str]:
    """{file name: SHA-256} of a checkpoint's weights: they tell whether figures were measured on them."""
    digests = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digests[path.name] = digest.hexdigest()
    return digests
