"""Workers of `shard_runs.py` on this machine: this process, or child processes that may die without it.

    crew = ChildCrew(work, Machines(num_workers=2))
    worker = crew.hire()        # it loads
    crew.first([worker]).finish()
    worker.begin(7); worker.finish()        # the shard's result is there, or WorkerDiedError

A child is this file run as a program: `multiprocessing` would import the main program once more in each, or fork a
process that has threads and a model. Over its standard input it gets the work, then a number at a time; over its
standard output it says what became of each. It ends when its standard input does, and so when this process is gone,
however that came about.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from multiprocessing.connection import wait
from queue import SimpleQueue
from socket import gethostname
from typing import Any, BinaryIO

from litegpt.common.shard_runs import Machines, ShardWork, WorkerDiedError

COMMAND = (sys.executable, "-m", "litegpt.common.shard_workers")
OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")  # the second is torch's, of a GPU
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def seconds_of(compute: Callable[[int], None], number: int) -> float:
    """Computes a shard; how long that took.

    Raises:
        WorkerDiedError: its memory does not suffice, so that the worker can do no more.
        Exception: what the work raised.
    """
    start = time.perf_counter()
    try:
        compute(number)
    except Exception as error:
        if type(error).__name__ in OUT_OF_MEMORY:
            raise WorkerDiedError("its worker ran out of memory") from None
        raise
    return time.perf_counter() - start


class OwnWorker:
    """This process."""

    def __init__(self, work: ShardWork):
        self.work, self.name, self.compute = work, worker_name(), None
        self.number: int | None = None

    def begin(self, number: int) -> None:
        self.number = number

    def finish(self) -> tuple[float, float]:
        if self.compute is None:
            start = time.perf_counter()
            self.compute = self.work.start()
            return time.perf_counter() - start, 0.0
        seconds = seconds_of(self.compute, self.number)
        return seconds, seconds

    def stop(self) -> None:
        self.compute = None


class OwnCrew:
    def __init__(self, work: ShardWork):
        self.work = work

    def hire(self) -> OwnWorker:
        return OwnWorker(self.work)

    def first(self, workers: Collection[OwnWorker]) -> OwnWorker:
        (worker,) = workers
        return worker

    def close(self) -> None:
        pass


class ChildWorker:
    """A child process.

    Attributes:
        output: where it answers.
    """

    def __init__(self, work: bytes, environment: dict[str, str]):
        # In a session of its own Ctrl-C does not reach it: this process decides when it ends.
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), **environment},
            start_new_session=True,
        )
        self.output, self.name, self.start = self.process.stdout, worker_name(self.process.pid), time.perf_counter()
        self._send(work)

    def begin(self, number: int) -> None:
        self.start = time.perf_counter()
        self._send(b"%d\n" % number)

    def finish(self) -> tuple[float, float]:
        try:
            result = pickle.load(self.output)
        except (EOFError, pickle.UnpicklingError):
            raise WorkerDiedError(_how_it_ended(self.process.wait())) from None
        if isinstance(result, tuple):
            raise _as_raised(*result)
        return time.perf_counter() - self.start, result

    def stop(self) -> None:
        self.process.kill()
        with suppress(BrokenPipeError), self.process:  # waits and closes the pipes
            pass

    def _send(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # it has died: `finish` says so
            self.process.stdin.write(data)
            self.process.stdin.flush()


class ChildCrew:
    def __init__(self, work: ShardWork, machines: Machines):
        self.work, self.machines = pickle.dumps(work), machines
        self.places: dict[int, ChildWorker] = {}

    def hire(self) -> ChildWorker:
        taken = {place for place, worker in self.places.items() if worker.process.returncode is None}
        place = next(place for place in range(self.machines.num_workers) if place not in taken)
        self.places[place] = ChildWorker(self.work, self._environment(place))
        return self.places[place]

    def first(self, workers: Collection[ChildWorker]) -> ChildWorker:
        by_output = {worker.output: worker for worker in workers}
        return by_output[wait(list(by_output))[0]]

    def close(self) -> None:
        pass

    def _environment(self, place: int) -> dict[str, str]:
        """Threads, and the GPUs of one of the places that workers have."""
        environment = dict.fromkeys(THREADS, str(self.machines.threads))
        gpus = self.machines.gpus
        if gpus:
            first, last = int(place * gpus), max(int(place * gpus) + 1, int((place + 1) * gpus))
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",") if visible else list(map(str, range(last)))
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(names[first:last])
        return environment


def worker_name(process: int | None = None) -> str:
    return f"{gethostname()} {process or os.getpid()}"


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"its worker was ended by signal {signal.Signals(-status).name}, as when memory runs out"
    return f"its worker ended with status {status}"


class _InWorkerError(Exception):
    """Where in the worker it was raised: Python shows it above the error itself."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _as_raised(error: bytes, where: str) -> BaseException:
    try:
        raised = pickle.loads(error)
    except Exception:  # an error whose class cannot be made of its arguments
        raised = RuntimeError(where.strip().splitlines()[-1])
    raised.__cause__ = _InWorkerError(where)
    return raised


# --- In the child ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Computes shards until standard input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints would break a reply
    numbers: SimpleQueue[int] = SimpleQueue()
    work = pickle.load(requests)
    threading.Thread(target=_listen, args=(requests, numbers), daemon=True).start()
    try:
        compute = work.start()
        _reply(replies, 0.0)
        while True:
            _reply(replies, seconds_of(compute, numbers.get()))
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        _reply(replies, (_pickled(error), traceback.format_exc()))


def _listen(requests: BinaryIO, numbers: "SimpleQueue[int]") -> None:
    for line in requests:
        numbers.put(int(line))
    os._exit(1)  # the parent is gone, or has no more work: also in the middle of a shard


def _reply(replies: BinaryIO, what: Any) -> None:
    pickle.dump(what, replies)
    replies.flush()


def _pickled(error: Exception) -> bytes:
    try:
        return pickle.dumps(error)
    except Exception:  # it holds what cannot be pickled
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
