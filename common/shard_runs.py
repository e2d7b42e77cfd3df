"""Numbered shards of work, computed on this machine or on many; what is done stays done, whoever is killed.

    for outcome in run_shards(work, own_share(range(200), "3/16"), Machines(num_workers=2)):
        print(work.name(outcome.number), outcome.set_aside or "done")

In: a `ShardWork`, which computes a shard and writes its result whole; the numbers; which machines. Out: an outcome for
each shard that had no result yet, as they come. The workers are this process, child processes (`shard_workers.py`) or
actors of Ray (`ray_runs.py`); they load what they need once and compute a shard at a time.

A worker that dies loses its shard, which a fresh worker gets; `shard_attempts.py` says when it is set aside. What the
work raises is no death: it ends the run, and comes out of `run_shards` as it was raised.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from litegpt.common.shard_attempts import ShardAttempts

FAILED_STARTS = 3  # workers in a row that die before they have loaded what they need: then no shard is to blame


class ShardWork(Protocol):
    """What is computed in shards; small and picklable, as it travels to the workers.

    Attributes:
        folder: of the output, a path or an address, where `attempts/` and `set_aside/` are kept.
    """

    folder: str | Path

    def start(self) -> Callable[[int], None]:
        """Loads, in the worker, what shards need; what it returns computes one and writes its result whole."""

    def name(self, number: int) -> str:
        """What people and files call a shard, such as "shard-000123-of-000200"."""

    def is_done(self, number: int) -> bool:
        """Whether its result is there."""


@dataclass(frozen=True)
class Machines:
    """Who computes.

    Attributes:
        num_workers: that compute at a time. One, without Ray, is this process.
        ray: None, or the address of a Ray cluster; "auto": the one that this machine is part of; "local": one of this
            machine alone, which ends with the run.
        threads: of each worker, so many that libraries use, and CPUs that Ray counts for it.
        gpus: of each worker; 0.5 shares one between two. With 0 nothing is said of GPUs: a worker here sees those that
            this process sees.
    """

    num_workers: int = 1
    ray: str | None = None
    threads: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class ShardOutcome:
    """What became of a shard.

    Attributes:
        set_aside: why no result will come; None: it is there.
        worker: who computed it: its machine, or its node in Ray, and its process.
        seconds: from when the worker was given it until its result was there.
        computing: of these, within the work itself.
    """

    number: int
    set_aside: str | None = None
    worker: str = ""
    seconds: float = 0.0
    computing: float = 0.0


class WorkerDiedError(Exception):
    """A worker ended before its shard did; one sentence.

    Attributes:
        with_machine: its whole machine went, which says little about the shard.
    """

    def __init__(self, reason: str, with_machine: bool = False):
        super().__init__(reason, with_machine)
        self.reason, self.with_machine = reason, with_machine


class Worker(Protocol):
    """It loads when it is hired, then computes a shard at a time.

    Attributes:
        name: its machine and process, known when it has loaded.
    """

    name: str

    def begin(self, number: int) -> None:
        """Gives it a shard."""

    def finish(self) -> tuple[float, float]:
        """Waits until it has loaded, or computed its shard: seconds since, and those within the work.

        Raises:
            WorkerDiedError: it is gone.
            Exception: what the work raised.
        """

    def stop(self) -> None:
        """Ends it, whatever it does."""


class Crew(Protocol):
    """Where workers come from."""

    def hire(self) -> Worker:
        """A new one, which begins to load."""

    def first(self, workers: Collection[Worker]) -> Worker:
        """Waits until one of them has loaded, has computed its shard, or is gone."""

    def close(self) -> None:
        """After the last."""


def own_share(numbers: Sequence[int], share: str) -> Sequence[int]:
    """Of the numbers, those of one of several runs that divide them: "3/16" is every 16th from the fourth on.

    Raises:
        ValueError: `share` is of another form, or names none of the shares, which count from 0.
    """
    form = re.fullmatch(r"(\d+)/(\d+)", share)
    if form is None or int(form[1]) >= int(form[2]):
        raise ValueError(f"a share is NUMBER/COUNT, such as 0/16 to 15/16, not {share}")
    return numbers[int(form[1]) :: int(form[2])]


def run_shards(work: ShardWork, numbers: Sequence[int], machines: Machines) -> Iterator[ShardOutcome]:
    """Computes the shards that have no result; first come those that were set aside before.

    Raises:
        ChildProcessError: the workers die before they have loaded what they need.
        Refusal: there is no such Ray cluster, or no Ray.
        Exception: what the work raised.
    """
    missing = [number for number in numbers if not work.is_done(number)]
    attempts = ShardAttempts(work.folder, {work.name(number) for number in missing})
    pending, again = deque(missing), deque()
    for number in missing:
        if (reason := attempts.set_aside.get(work.name(number))) is not None:
            pending.remove(number)
            yield ShardOutcome(number, reason)
    if not pending:
        return
    crew = _crew(work, machines)
    at_work: dict[Worker, int | None] = {}  # None: it loads
    failed_starts = 0
    try:
        while pending or again or at_work:
            loading = sum(number is None for number in at_work.values())
            for _ in range(min(machines.num_workers - len(at_work), len(pending) + len(again) - loading)):
                at_work[crew.hire()] = None
            worker = crew.first(at_work)
            number, outcome = at_work[worker], None
            try:
                seconds, computing = worker.finish()
            except WorkerDiedError as death:
                worker.stop()
                del at_work[worker]
                if number is None:
                    failed_starts += 1
                    if failed_starts == FAILED_STARTS:
                        raise ChildProcessError(
                            f"{FAILED_STARTS} workers in a row ended before they had loaded what they need "
                            f"({death.reason}): is there memory for {machines.num_workers}?"
                        ) from None
                elif (reason := attempts.died(work.name(number), death.reason, death.with_machine)) is not None:
                    yield ShardOutcome(number, reason, worker.name)
                else:
                    again.append(number)
                continue
            del at_work[worker]
            if number is not None:
                attempts.end(work.name(number))
                outcome = ShardOutcome(number, None, worker.name, seconds, computing)
            failed_starts = 0
            # A shard whose worker died goes to a fresh one: another may have been short of memory before it came.
            queue = again if number is None and again else pending
            if queue:
                at_work[worker] = queue.popleft()
                attempts.begin(work.name(at_work[worker]))
                worker.begin(at_work[worker])
            else:
                worker.stop()
            if outcome is not None:
                yield outcome
    finally:
        for worker, number in at_work.items():
            worker.stop()
            if number is not None:
                attempts.interrupt(work.name(number))
        crew.close()


def _crew(work: ShardWork, machines: Machines) -> Crew:
    # Each imports only what it needs, and those that are workers import this file.
    if machines.ray is not None:
        from litegpt.common.ray_runs import RayCrew

        return RayCrew(work, machines)
    from litegpt.common.shard_workers import ChildCrew, OwnCrew

    return OwnCrew(work) if machines.num_workers == 1 else ChildCrew(work, machines)
