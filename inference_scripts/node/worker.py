"""Answers the radiographs of the queue, in batches, and makes the DICOM objects of their results.

    worker = Worker(spool, answerer, how, monitor, stop)     # how: WorkSettings
    worker.run()                      # until `stop` is set; what is not done then, stays in the queue

Threads read ahead, as decoding JPEG 2000 takes as long as a small model's answer, and make the objects behind; the
model answers in the thread of `run`. A batch is what has been read by then: one radiograph does not wait for others.
A batch that fails is repeated one by one, and only the radiograph that fails alone is put into failed/. A server that
does not answer fails nothing: it is waited for.
"""

import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import pydicom

from litegpt.common.overlay import overlay
from litegpt.dicom_output.result_objects import result_objects
from litegpt.dicom_output.result_uids import with_boxes_of
from litegpt.dicom_output.source_header import SourceError, source_header
from litegpt.inference_scripts.answerers import Answerer
from litegpt.inference_scripts.ask_server import RefusedError
from litegpt.inference_scripts.inbox import Received, receive
from litegpt.inference_scripts.node.backoff import Backoff
from litegpt.inference_scripts.node.monitoring import Monitor, kind_and_place
from litegpt.inference_scripts.node.spool import Spool
from litegpt.inference_scripts.node.suspects import Suspects
from litegpt.processing.dicom import RadiographError

DISK_PAUSE = 10  # seconds until a full disk is tried again
OF_THE_RADIOGRAPH = (400, 413, 422)  # HTTP: what a server says of a request that it will never take


@dataclass(frozen=True)
class WorkSettings:
    """How radiographs are answered.

    Attributes:
        batch_size: radiographs that the model answers together.
        reading_threads: that read ahead, and make the objects.
        kinds: of results.
        source: which boxes of the answer they have.
    """

    batch_size: int = 8
    reading_threads: int = 2
    kinds: Sequence[str] = ("SR", "PR")
    source: str = "findings"


@dataclass(frozen=True)
class Read:
    """A radiograph that was read: its pixels for the model, its header for the results."""

    uid: str
    received: Received
    header: pydicom.Dataset


class Worker:
    """Turns what is in `spool.unanswered` into results.

    Attributes:
        trouble: why nothing is answered; None if all is well.
    """

    def __init__(self, spool: Spool, answerer: Answerer, how: WorkSettings, monitor: Monitor, stop: threading.Event):
        self.spool, self.answerer, self.how, self.monitor, self.stop = spool, answerer, how, monitor, stop
        self.suspects = Suspects(spool.folder / "at_work.json")
        self.trouble: str | None = None
        self._reading: deque[tuple[str, Future[Read | None]]] = deque()
        self._making: dict[str, Future[None]] = {}
        self._threads = ThreadPoolExecutor(how.reading_threads, "reader")
        self._makers = ThreadPoolExecutor(1, "maker")  # one: it computes in Python alone

    def run(self) -> None:
        self._answer_alone()
        while not self.stop.is_set():
            try:
                self._read_ahead()
            except OSError as error:  # of the spool, whose disk may be full
                self._wait_for_disk(error)
                continue
            batch = self._batch()
            if batch:
                self._answer(batch)
        self._threads.shutdown(cancel_futures=True)
        self._makers.shutdown()
        self.suspects.close()

    # --- Read ---

    def _read_ahead(self) -> None:
        """Has so many radiographs read, or being read, as two batches take; waits for one where there is none."""
        ahead = 2 * self.how.batch_size
        self._making = {uid: made for uid, made in self._making.items() if not made.done()}
        if len(self._making) >= ahead:  # the model is faster than the results are made
            wait(self._making.values(), timeout=0.5, return_when=FIRST_COMPLETED)
            return
        while len(self._reading) < ahead:
            try:
                uid = self.spool.unanswered.get(timeout=0 if self._reading else 0.5)
            except queue.Empty:
                return
            if not self.spool.waits(uid) or uid in self._making or uid in dict(self._reading):
                continue
            self._start_reading(uid)

    def _start_reading(self, uid: str) -> None:
        self.suspects.begin([uid])
        self._reading.append((uid, self._threads.submit(self._read, uid)))

    def _read(self, uid: str) -> Read | None:
        """The radiograph; None where it cannot be used, and has been put aside."""
        path, start = self.spool.image(uid), time.monotonic()
        self.monitor.took("wait", max(0.0, time.time() - path.stat().st_mtime))
        try:
            data = path.read_bytes()
            received = receive(path, data, hashlib.sha256(data).hexdigest(), self.answerer.processor.windowing)
            read = Read(uid, received, source_header(data, path.name))
        except (RadiographError, SourceError) as error:
            self._fail(uid, "read", str(error).replace(str(path.parent) + "/", ""))
            return None
        except Exception as error:
            self._fail(uid, "read", f"it cannot be read: {kind_and_place(error)}")
            return None
        self.monitor.took("read", time.monotonic() - start)
        return read

    def _batch(self) -> list[Read]:
        """What has been read, in its order; waits for the first."""
        batch: list[Read] = []
        while self._reading and len(batch) < self.how.batch_size:
            if batch and not self._reading[0][1].done():
                break
            read = self._reading[0][1].result()
            self._reading.popleft()
            if read is not None:
                batch.append(read)
        return batch

    def _answer_alone(self) -> None:
        """First, one by one, what was at work when an earlier run ended."""
        for uid in list(self.suspects.alone):
            if self.stop.is_set():
                return
            if not self.spool.waits(uid):
                self.suspects.end([uid])
            elif self.suspects.is_deadly(uid):
                self._fail(uid, "read", f"the node ended {self.suspects.alone[uid]} times while it was at work on it")
            else:
                self._start_reading(uid)
                self._answer(self._batch())
                if uid in self._making:
                    self._making.pop(uid).result()

    # --- Answer ---

    def _answer(self, batch: list[Read]) -> None:
        lines = self._lines(batch)
        for read, line in zip(batch, lines or [], strict=False):
            if line is not None:
                self._making[read.uid] = self._makers.submit(self._make, read, line)

    def _lines(self, batch: list[Read]) -> list[dict[str, Any] | None] | None:
        """The answers; None in the place of one that cannot be had, and for all when the node stops before."""
        backoff = Backoff()
        while batch and not self.stop.is_set():
            try:
                with self.monitor.timed("answer", len(batch)):
                    lines = self.answerer.lines([read.received for read in batch])
                self.trouble = None
                self.monitor.count("answered", by=len(batch))
                return lines
            except RefusedError as error:
                if error.code in OF_THE_RADIOGRAPH:
                    return self._one_by_one(batch, error, f"the server refuses it with HTTP status {error.code}")
                self._wait(f"the server answers with HTTP status {error.code}", backoff)
            except ConnectionError:
                self._wait("the server of answers cannot be reached", backoff)
            except Exception as error:
                if is_of_the_machine(error):
                    raise
                return self._one_by_one(batch, error, f"it cannot be answered: {kind_and_place(error)}")
        return None

    def _one_by_one(self, batch: list[Read], error: Exception, why: str) -> list[dict[str, Any] | None]:
        if len(batch) == 1:
            self._fail(batch[0].uid, "answer", why)
            return [None]
        self.monitor.log("batch_failed", radiographs=len(batch), why=kind_and_place(error))
        self.monitor.count("retries", "batch")
        lines = []
        for read in batch:
            lines += self._lines([read]) or [None]
        return lines

    def _wait(self, why: str, backoff: Backoff) -> None:
        seconds = backoff.next()
        self.trouble = why
        self.monitor.count("retries", "answer")
        self.monitor.log("not_answered", why=why, again_in=round(seconds, 1))
        self.stop.wait(seconds)

    # --- Make the objects ---

    def _make(self, read: Read, line: dict[str, Any]) -> None:
        """Results of an answer, into the spool."""
        start = time.monotonic()
        try:
            objects = self._objects(read, line)
        except Exception as error:
            self._fail(read.uid, "objects", f"its results cannot be made: {kind_and_place(error)}")
            return
        if not objects:
            self._fail(read.uid, "objects", f"there can be no {' or '.join(self.how.kinds)} of it")
            return
        while not self.stop.is_set():
            try:
                self.spool.keep_results(read.uid, objects)
                self.suspects.end([read.uid])
                break
            except OSError as error:
                self._wait_for_disk(error)
        else:
            return
        self.monitor.took("objects", time.monotonic() - start)
        facts = {"findings": len(line["findings"]), "malformed": any((line.get("malformed") or {}).values())}
        self.monitor.log("answered", uid=read.uid, **facts)

    def _objects(self, read: Read, line: dict[str, Any]) -> dict[str, pydicom.Dataset]:
        line = with_boxes_of(line, self.how.source)
        picture = None
        if "SC" in self.how.kinds:
            picture = overlay(read.received.picture, line, self.answerer.processor.score_thresholds)
        return result_objects(read.header, line, self.how.kinds, picture)

    # --- What does not work ---

    def _fail(self, uid: str, step: str, why: str) -> None:
        while not self.stop.is_set():
            try:
                self.spool.fail(uid, {"step": step, "why": why})
                self.suspects.end([uid])
                break
            except OSError as error:
                self._wait_for_disk(error)
        else:  # it stays in the queue
            return
        self.monitor.count("failed", step)
        self.monitor.log("failed", uid=uid, step=step, why=why)

    def _wait_for_disk(self, error: OSError) -> None:
        self.monitor.log("spool_trouble", why=error.strerror)
        self.stop.wait(DISK_PAUSE)


def is_of_the_machine(error: Exception) -> bool:
    """Whether the GPU failed, after which nothing can be answered in this process: a new one may."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
