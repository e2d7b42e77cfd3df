"""Results in their order, while threads compute those that come next.

    for picture in ahead(load, paths, threads=2, most=16):   # load(paths[0]), load(paths[1]), ...
        answer(picture)                                       # meanwhile up to 16 more are loaded

It pays where `function` waits for a disk or a network, or spends its time in libraries that let other threads run
meanwhile, as decoders, NumPy and torch do.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int, most: int) -> Iterator[R]:
    """`map(function, items)`, of which up to `most` results are computed, or kept, before they are asked for.

    `items` are taken in the thread that asks for results. What `function` raises comes where its result would; what
    had not begun by then never does.
    """
    started: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            started.append(pool.submit(function, item))
            if len(started) > most:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
