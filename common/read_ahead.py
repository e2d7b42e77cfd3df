"""Results in their order, while a pool of threads or processes computes those that come next.

    with ThreadPoolExecutor(2) as pool:
        for picture in ahead(load, paths, pool, most=16):   # load(paths[0]), load(paths[1]), ...
            answer(picture)                                  # meanwhile up to 16 more are loaded

Threads are for what waits for a disk or a network, or spends its time in libraries that let other threads run
meanwhile, as decoders do; `helping_processes` for what is Python's own work, and can be handed over cheaply.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], pool: Executor, most: int) -> Iterator[R]:
    """`map(function, items)`, of which up to `most` results are computed, or kept, before they are asked for.

    `items` are taken in the thread that asks for results. What `function` raises comes where its result would; what
    had not begun by then never does.
    """
    started = started_ahead(function, items, pool, most)
    try:
        for future in started:
            yield future.result()
    finally:
        started.close()


def started_ahead(
    function: Callable[[T], R], items: Iterable[T], pool: Executor, most: int
) -> Generator[Future[R], None, None]:
    """The same as futures, for who goes on after what one of them raises."""
    started: deque[Future[R]] = deque()
    try:
        for item in items:
            started.append(pool.submit(function, item))
            if len(started) > most:
                yield started.popleft()
        while started:
            yield started.popleft()
    finally:
        for future in started:
            future.cancel()


def helping_processes(count: int) -> ProcessPoolExecutor:
    """Processes that compute what can be pickled; Ctrl-C is left to the process that they help.

    They are forked by a process that has no threads and no model: a copy of this one might wait for a lock for ever.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    return ProcessPoolExecutor(count, context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
