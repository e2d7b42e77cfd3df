"""Workers of `shard_runs.py` on a Ray cluster: actors, each of which holds what it has loaded.

    crew = RayCrew(work, Machines(num_workers=64, ray="auto", threads=4))
    worker = crew.hire()                    # an actor, as soon as the cluster has room for it
    crew.first([worker]).finish()
    worker.begin(7); worker.finish()        # the shard's result is there, or WorkerDiedError

Every node of the cluster has the same litegpt and the same paths. Ray's words on the terminal are turned off, its
logs are where they always are; and so is its report about its use.
"""

import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Collection

from tqdm.auto import tqdm

from litegpt.common.programs import Refusal
from litegpt.common.shard_runs import Machines, ShardWork, WorkerDiedError
from litegpt.common.shard_workers import seconds_of

CONNECTING = 10  # seconds within which a cluster takes a connection
PATIENCE = 60  # seconds without any worker after which it is said what the cluster lacks
OBJECT_STORE = 100 << 20  # bytes: nothing large passes through it


class RayActor:
    """What runs in the actor's process."""

    def __init__(self, work: ShardWork):
        self.work, self.compute = work, None

    def load(self) -> tuple[str, int]:
        """Its node and its process, when it has loaded."""
        import ray

        self.compute = self.work.start()
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(self, number: int) -> float:
        return seconds_of(self.compute, number)


class RayWorker:
    """An actor.

    Attributes:
        result: what it is to give next, in Ray's store.
    """

    def __init__(self, actor):
        self.actor, self.name, self.node = actor, "", ""
        self.result, self.start = actor.load.remote(), time.perf_counter()

    def begin(self, number: int) -> None:
        self.result, self.start = self.actor.run.remote(number), time.perf_counter()

    def finish(self) -> tuple[float, float]:
        import ray

        try:
            found = ray.get(self.result)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as death:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            gone = self.node != "" and self.node not in alive
            reason = "its machine left the Ray cluster" if gone else f"its worker {self.name} ended: {_short(death)}"
            raise WorkerDiedError(reason, with_machine=gone) from None
        seconds = time.perf_counter() - self.start
        if isinstance(found, tuple):
            self.node, process = found
            self.name = f"{self.node} {process}"
            return seconds, 0.0
        return seconds, found

    def stop(self) -> None:
        import ray

        ray.kill(self.actor)


class RayCrew:
    """Joins the cluster, or starts one on this machine.

    Raises:
        Refusal: Ray is not installed, or nothing answers at the address.
    """

    def __init__(self, work: ShardWork, machines: Machines):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if machines.ray == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
            # A token of this run alone: Ray, which reads it when it is imported, would leave one in the home folder.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        try:
            import ray
        except ImportError:
            raise Refusal("--ray needs ray: pip install ray") from None
        self.folder, where = None, {"address": machines.ray}
        _check_answers(machines.ray)
        if machines.ray == "local":
            # As many CPUs as are asked for: it is this machine's scheduler that divides those that there are.
            self.folder = tempfile.mkdtemp(prefix="ray")
            where |= {"num_cpus": machines.num_workers * machines.threads, "include_dashboard": False}
            where |= {"_temp_dir": self.folder, "object_store_memory": OBJECT_STORE}
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            self._remove_folder()
            if type(error).__name__ == "AuthenticationError":  # which older releases do not have
                raise Refusal(
                    f"--ray {machines.ray}: the cluster wants a token: set RAY_AUTH_MODE=token, and have its head's "
                    "~/.ray/auth_token here."
                ) from None
            if not isinstance(error, (ConnectionError, ValueError, RuntimeError)):
                raise
            raise Refusal(f"--ray {machines.ray}: no Ray cluster answers there ({_short(error)}).") from None
        self.machines, self.has_waited, self.work = machines, False, ray.put(work)
        # An actor that dies is not Ray's to start again: its shard may be what it died of.
        self.actor = ray.remote(num_cpus=machines.threads, num_gpus=machines.gpus, max_restarts=0)(RayActor)

    def hire(self) -> RayWorker:
        return RayWorker(self.actor.remote(self.work))

    def first(self, workers: Collection[RayWorker]) -> RayWorker:
        import ray

        by_result = {worker.result: worker for worker in workers}
        patience = PATIENCE if not self.has_waited else None
        ready, _ = ray.wait(list(by_result), num_returns=1, timeout=patience)
        if not ready:
            resources = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
            tqdm.write(
                f"No worker has begun after {PATIENCE} s. Each needs {self.machines.threads} CPUs and "
                f"{self.machines.gpus:g} GPUs; the cluster has {resources['CPU']:g} and {resources['GPU']:g} in all.",
                file=sys.stderr,
            )
            ready, _ = ray.wait(list(by_result), num_returns=1)
        self.has_waited = True
        return by_result[ready[0]]

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _check_answers(address: str) -> None:
    """Refuses HOST:PORT where nobody listens; Ray would try for minutes."""
    if (host_and_port := re.fullmatch(r"(.+):(\d+)", address)) is not None and "://" not in address:
        try:
            socket.create_connection((host_and_port[1], int(host_and_port[2])), CONNECTING).close()
        except OSError as error:
            raise Refusal(f"--ray {address}: no Ray cluster answers there ({error.strerror or error}).") from None


def _short(error: Exception) -> str:
    """Ray's own words, of which there are many, on one line."""
    return " ".join(str(error).split())[:300]
