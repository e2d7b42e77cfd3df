"""How a program ends: one sentence and a status where it cannot continue, for reasons that a person can mend.

    @program
    def main(args: PredictArguments) -> int:
        with refuse_bad_input():
            rows = load_rows(args.data_dir)   # a ValueError or OSError in here is bad input
        ...                                   # in here it is a bug, and keeps its traceback

    with stopped_by_sigterm():                # a cluster's scheduler ends a job as Ctrl-C would
        ...

Libraries raise; only a program's `main` exits: what it raises is bad input in a block of `refuse_bad_input`, and
anywhere a `Refusal`, a store that cannot be used, a disk that is full or read-only, and Ctrl-C.
"""

import errno
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from litegpt.common.addresses import StoreError

P, R = ParamSpec("P"), TypeVar("R")
INTERRUPTED = 130  # what a shell gives a program that Ctrl-C ended
DISK = {  # why an operating system does not let a program write
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "there is no permission",
    errno.EPERM: "there is no permission",
    errno.EEXIST: "a file of this name is there already",
    errno.ENOTDIR: "a file is in the place of a folder",
}


class Refusal(ValueError):
    """What a person can mend, found anywhere in a program; its message is the whole sentence that they read."""


def program(main: Callable[P, R]) -> Callable[P, R]:
    """Makes `main` end in one sentence, where it cannot continue for reasons that are not bugs."""

    @functools.wraps(main)
    def ending_in_one_sentence(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except (Refusal, StoreError) as refusal:
            raise SystemExit(str(refusal)) from None
        except KeyboardInterrupt:
            print("\nStopped. The same command resumes.", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
        except OSError as error:
            if error.errno not in DISK:
                raise
            where = error.filename or "a file could not be written"
            raise SystemExit(f"{where}: {DISK[error.errno]}.") from None

    return ending_in_one_sentence


@contextmanager
def refuse_bad_input() -> Iterator[None]:
    """Ends the program with one sentence where a checkpoint or a data set, loaded in this block, cannot be used."""
    try:
        yield
    except Exception as error:
        # The last one is `datasets`'; to import it for its class takes a second.
        if not isinstance(error, (OSError, ValueError)) and type(error).__name__ != "DatasetGenerationError":
            raise
        raise SystemExit(str(error.__cause__ or error).strip().splitlines()[0]) from None


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM is as Ctrl-C in this block: Slurm and others send it some time before they kill."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
