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
