"""Delivers results to the PACS, and keeps trying.

    delivery = Delivery(pacs, spool, monitor, tries=10)
    delivery.run(stop)      # until `stop` is set; delivery.trouble says what is wrong meanwhile

A PACS that cannot be reached is tried again after 1 s, then 2 s, ... 5 min, for ever; results wait. Results that a
PACS does not take go to the end of the queue and have such intervals of their own, so that none stops those behind it;
after `tries` attempts they are put into failed/, unless the PACS says that it has no space.
"""

import heapq
import queue
import threading
import time

import pydicom

from litegpt.inference_scripts.node.backoff import Backoff
from litegpt.inference_scripts.node.monitoring import Monitor, kind_and_place
from litegpt.inference_scripts.node.pacs import NotStoredError, Pacs, UnreachableError
from litegpt.inference_scripts.node.spool import Spool

IDLE = 30  # seconds without results after which an association is released
CHECKS = 300  # seconds between checks of a PACS that nothing is sent to


class Delivery:
    """Sends what `spool.undelivered` has.

    Attributes:
        trouble: why the PACS cannot be reached; None if it could, the last time.
        reached: when it last answered, in seconds since 1970; None: not yet.
    """

    def __init__(self, pacs: Pacs, spool: Spool, monitor: Monitor, tries: int):
        self.pacs, self.spool, self.monitor, self.tries = pacs, spool, monitor, tries
        self.trouble: str | None = None
        self.reached: float | None = None
        self._later: list[tuple[float, str]] = []  # when to try again, and what
        self._backoffs: dict[str, Backoff] = {}  # of results that were not taken
        self._unreachable = Backoff()

    def run(self, stop: threading.Event) -> None:
        self._reach(self.pacs.check, stop)
        used = checked = time.monotonic()
        while not stop.is_set():
            uid = self._next()
            now = time.monotonic()
            if uid is not None:
                self.deliver(uid, stop)
                used = checked = time.monotonic()
            elif now - checked > CHECKS:
                self._reach(self.pacs.check, stop)
                checked = time.monotonic()
                self.pacs.rest()
            elif now - used > IDLE:
                self.pacs.rest()
        self.pacs.rest()

    def deliver(self, uid: str, stop: threading.Event) -> None:
        """Tries once to deliver a radiograph's results."""
        files = self.spool.result_files(uid)
        if not files:  # it is done already
            return
        try:
            datasets = [pydicom.dcmread(file) for file in files]
            start = time.monotonic()
            self.pacs.store(datasets)
            seconds = time.monotonic() - start
            self.spool.finish(uid)
        except UnreachableError as error:
            self._unreachable_for_now(str(error), stop)
            heapq.heappush(self._later, (time.monotonic(), uid))
            return
        except NotStoredError as error:
            self._not_stored(uid, error)
            return
        except OSError as error:  # of the spool
            self.monitor.log("spool_trouble", uid=uid, why=error.strerror)
            heapq.heappush(self._later, (time.monotonic() + 10, uid))
            return
        except Exception as error:  # of a library, about these results
            self._not_stored(uid, NotStoredError(f"it cannot be sent: {kind_and_place(error)}"))
            return
        self._backoffs.pop(uid, None)
        self._reached()
        self.monitor.took("send", seconds)
        self.monitor.count("delivered")
        self.monitor.log("delivered", uid=uid, seconds=round(seconds, 3))

    def _next(self) -> str | None:
        if self._later and self._later[0][0] <= time.monotonic():
            return heapq.heappop(self._later)[1]
        try:
            return self.spool.undelivered.get(timeout=0.5)
        except queue.Empty:
            return None

    def _not_stored(self, uid: str, error: NotStoredError) -> None:
        backoff = self._backoffs.setdefault(uid, Backoff())
        seconds = backoff.next()
        if backoff.attempts >= self.tries and not error.is_for_now:
            del self._backoffs[uid]
            self.spool.fail(uid, {"step": "send", "why": str(error), "attempts": self.tries})
            self.monitor.count("failed", "not_stored")
            self.monitor.log("failed", uid=uid, step="send", why=str(error))
            return
        self.monitor.count("retries", "results")
        self.monitor.log("not_stored", uid=uid, why=str(error), again_in=round(seconds, 1))
        heapq.heappush(self._later, (time.monotonic() + seconds, uid))

    def _reach(self, check, stop: threading.Event) -> None:
        try:
            check()
        except UnreachableError as error:
            self._unreachable_for_now(str(error), stop)
        else:
            self._reached()

    def _reached(self) -> None:
        if self.trouble is not None:
            self.monitor.log("pacs_reached")
        self.trouble, self.reached = None, time.time()
        self._unreachable.reset()

    def _unreachable_for_now(self, why: str, stop: threading.Event) -> None:
        self.trouble = why
        seconds = self._unreachable.next()
        self.monitor.count("retries", "pacs")
        self.monitor.log("pacs_unreachable", why=why, again_in=round(seconds, 1))
        stop.wait(seconds)
