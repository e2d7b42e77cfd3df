"""What is said of a radiograph that cannot be used, or only with doubts; and the largest that is read.

    with collected_warnings() as said:
        warn("a.dcm", "it has 2 frames, the first is used")  # UserWarning: a.dcm: it has 2 frames, ...
    said  # ["it has 2 frames, the first is used"]: goes with the answer
    raise unusable("a.dcm", "it is empty")  # RadiographError: Cannot use a.dcm: it is empty.

No message quotes a value of a tag that could tell who the patient is.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MAX_PIXELS = 89_478_485  # rows x columns x samples, Pillow's own limit; a chest radiograph has 5 to 20 million

_thread = threading.local()


class RadiographError(ValueError):
    """The radiograph cannot be used; the message is one sentence that names the file and the reason."""


def check_size(rows: int, columns: int, samples: int, name: str) -> None:
    """Refuses a radiograph of more than `MAX_PIXELS`."""
    if rows * columns * samples > MAX_PIXELS:
        raise unusable(name, f"it has {rows} x {columns} pixels, more than {MAX_PIXELS // max(samples, 1):,}")


def unusable(name: str, reason: str) -> RadiographError:
    return RadiographError(f"Cannot use {short(name)}: {reason}.")


def warn(name: str, message: str) -> None:
    """Says a doubt about a radiograph, once: a UserWarning, and a text for `collected_warnings`, or that alone."""
    collected = getattr(_thread, "warnings", None)
    if collected is not None:
        if message in collected:
            return
        collected.append(message)
    if not getattr(_thread, "is_quiet", False):
        warnings.warn(f"{short(name)}: {message}", stacklevel=2)


@contextmanager
def collected_warnings(quiet: bool = False) -> Iterator[list[str]]:
    """The texts that `warn` says of one radiograph in this thread, without its name; the outermost collects.

    Args:
        quiet: they are collected, and no UserWarning says them, which threads could not tell apart.
    """
    outer, was_quiet = getattr(_thread, "warnings", None), getattr(_thread, "is_quiet", False)
    _thread.warnings, _thread.is_quiet = ([] if outer is None else outer), quiet or was_quiet
    try:
        yield _thread.warnings
    finally:
        _thread.warnings, _thread.is_quiet = outer, was_quiet


def short(name: str) -> str:
    """A name for a message: on one line, without its middle where it is long, as a file given as a string is."""
    name = name if len(name) <= 100 else f"{name[:32]}...{name[-65:]}"
    return " ".join(name.splitlines()) or "''"
