"""Files that an interruption does not leave half written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
