"""`litegpt predict-many` by one process, two, Ray's actors and a Slurm array: speed, start-up, memory, what survives.

    python benchmarks/predict_many.py --checkpoint outputs/demo/checkpoint --radiographs 300
    python benchmarks/predict_many.py --checkpoint outputs/demo/checkpoint --radiographs 5000 --kills --nodes

Phantoms are answered by one process and then in the other ways, each of which must write the same bytes. With
`--kills` Ray's four workers answer them once more while three are killed with -9, and the program itself once, which
is then started again: every radiograph must be there exactly once, with the same bytes. With `--nodes` the actors run
on two Ray nodes, which are two runtimes on this machine, and both must have computed shards.
"""

import argparse
import hashlib
import json
import os
import re
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from litegpt.benchmarks.node_stand_ins import Process, Workplace, until
from litegpt.benchmarks.results import parsed, record
from litegpt.inference_scripts.hospital.children import free_port

DEMO = "outputs/demo/checkpoint"
BETWEEN_LOOKS = 0.25  # seconds
ROOT = str(Path(__file__).resolve().parents[1])
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": ROOT,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # without it nobody speaks to the two runtimes
}


@dataclass(frozen=True)
class Measured:
    """A way of computing the same.

    Attributes:
        seconds: from its start to its end, of all processes that were started one after the other.
        start_up: of these, until the first shard was begun.
        megabytes: of all processes at once, at most; what they share is counted once.
        overhead: seconds a shard beside its computing: handing out, noting, reporting.
    """

    seconds: float
    start_up: float
    megabytes: float
    overhead: float

    def rate(self, radiographs: int) -> float:
        """Radiographs a second once it has started."""
        return radiographs / (self.seconds - self.start_up)


class Run(Process):
    """`litegpt predict-many` as a process.

    Args:
        output_dir: of the run; what it prints is beside it.
    """

    def __init__(self, options: dict[str, Any], radiographs: Path, output_dir: Path, *more: Any):
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "litegpt.command", "predict-many", str(radiographs), *words]
        command += ["--output_dir", str(output_dir), *map(str, more)]
        # What Ray leaves of a run that is killed goes with the folder.
        environment = {**ENVIRONMENT, "TMPDIR": str(output_dir.parent)}
        super().__init__(command, output_dir.with_suffix(".txt"), environment)
        self.output_dir, self.megabytes, self.started = output_dir, 0.0, 0.0

    def start(self) -> None:
        self.started = time.time()
        super().start()

    def lines(self) -> list[dict[str, Any]]:
        """What the logs say of each shard; the last line may be in the middle of being written."""
        texts = [path.read_text() for path in sorted((self.output_dir / "logs").glob("*.jsonl"))]
        return [json.loads(line) for text in texts for line in text.splitlines(True) if line.endswith("\n")]

    def finish(self, watch: Callable[[], None] = lambda: None) -> None:
        """Waits for its end; ends the program where it fails."""
        while self.process.poll() is None:
            self.megabytes = max(self.megabytes, sum(map(own_megabytes, family(self.process.pid))))
            watch()
            time.sleep(BETWEEN_LOOKS)
        if self.process.returncode != 0:
            sys.exit(f"predict-many failed with status {self.process.returncode}: {self.log.read_text()[-2000:]}")


def main(output: str, checkpoint: str, radiographs: int, size: int, shard_size: int, kills: bool, nodes: bool) -> int:
    if not Path(checkpoint, "config.json").is_file():
        print(f"Nothing is measured: there is no checkpoint {checkpoint}; make demo trains it.")
        return 0
    with Workplace() as folder:
        write_phantoms(folder / "release", radiographs, size)
        task = Task(folder, checkpoint, shard_size)
        figures = in_all_ways(task, radiographs)
        reference = digest(folder / "one_process")
        if kills:
            figures |= survive_kills(task.run("kills", "--ray", "local", "--num_workers", 4), radiographs, reference)
        if nodes:
            figures |= on_two_nodes(task, reference)
    record(output, figures)
    return 0


@dataclass(frozen=True)
class Task:
    """What is answered, of phantoms below `folder`."""

    folder: Path
    checkpoint: str
    shard_size: int

    def run(self, name: str, *more: Any) -> Run:
        options = {"model_name_or_path": self.checkpoint, "shard_size": self.shard_size}
        return Run(options, self.folder / "release" / "test", self.folder / name, *more)


def write_phantoms(folder: Path, radiographs: int, size: int) -> None:
    from litegpt.datasets_scripts.phantom_cxr import write_release

    write_release(folder, num_train=0, num_test=radiographs, size=(size, size), seed=0, num_proc=2)


# --- The table -------------------------------------------------------------------------------------------------------


def in_all_ways(task: Task, radiographs: int) -> dict[str, dict]:
    """Each way's speed beside that of one process, after a table of all; all must write the same bytes."""
    ways = {
        "one_process": [()],
        "two_workers": [("--num_workers", 2)],
        "ray_two_actors": [("--ray", "local", "--num_workers", 2)],
        "array_of_four": [("--shard", f"{share}/4") for share in range(4)],
    }
    measured = {way: measure([task.run(way, *more) for more in shares]) for way, shares in ways.items()}
    print(
        f"\n{'way':<16} {'images/s':>8} {'all, s':>7} {'start-up, s':>11} {'memory, MB':>10} {'a shard more, ms':>16}"
    )
    for way, found in measured.items():
        columns = f"{found.rate(radiographs):>8.1f} {found.seconds:>7.1f} {found.start_up:>11.1f}"
        print(f"{way:<16} {columns} {found.megabytes:>10.0f} {1000 * found.overhead:>16.1f}")
    digests = {digest(task.folder / way) for way in ways}
    check("all ways write the same bytes", len(digests) == 1)
    alone = measured.pop("one_process")
    figures = {
        f"predict_many/{way}": {
            "value": found.rate(radiographs) / alone.rate(radiographs),
            "unit": "x",
            "against": f"the radiographs a second of one process ({alone.rate(radiographs):.1f}), start-up apart",
        }
        for way, found in measured.items()
    }
    overhead = {"value": 1000 * measured["ray_two_actors"].overhead, "unit": "ms", "against": "none, a shard in Ray"}
    return {**figures, "predict_many/ray_overhead": overhead}


def measure(runs: Sequence[Run]) -> Measured:
    """Runs one after the other."""
    seconds = start_up = megabytes = 0.0
    for run in runs:
        before = len(run.lines())
        with run:
            run.finish()
        seconds += time.time() - run.started
        begun = [datetime.fromisoformat(line["ended"]).timestamp() - line["seconds"] for line in run.lines()[before:]]
        start_up += min(begun) - run.started
        megabytes = max(megabytes, run.megabytes)
    lines = runs[0].lines()
    overhead = sum(line["seconds"] - line["computing"] for line in lines) / len(lines)
    return Measured(seconds, start_up, megabytes, overhead)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    found = [pid]
    for parent in found:
        found += parents.get(parent, [])
    return found


def own_megabytes(pid: int) -> float:
    """A process's memory; of what it shares with others its part."""
    try:
        return int(re.search(r"Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) * 1024 / 1e6
    except (OSError, TypeError):  # it has ended
        return 0.0


# --- What survives ---------------------------------------------------------------------------------------------------


def survive_kills(run: Run, radiographs: int, reference: str) -> dict[str, dict]:
    """Kills three workers and the program, which is started again; all must be there once, with the same bytes."""
    shards = -(-radiographs // int(run.command[run.command.index("--shard_size") + 1]))
    at, killed, descendants = [shards * part // 5 for part in (1, 2, 3, 4)], [], []

    def kill() -> None:
        lines = run.lines()
        if len(killed) == 4 or len(lines) < at[len(killed)]:
            return
        if len(killed) == 3:
            descendants.extend(family(run.process.pid))
            run.kill()
            killed.append(run.process.pid)
            run.start()  # at once: some of what it had started may still be at work
            return
        workers = [int(line["worker"].split()[1]) for line in reversed(lines) if not line["set_aside"]]
        victim = next((pid for pid in workers if pid not in killed and is_running(pid)), None)
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    with run:
        run.finish(kill)
    check("three workers and the program were killed", len(killed) == 4)
    until(lambda: not any(map(is_running, descendants)), 120, "Ray outlives its driver")  # its agents do by a minute
    check("the same bytes after the kills", digest(run.output_dir) == reference)
    check("every radiograph is there exactly once", Counter(image_ids(run.output_dir)).most_common(1)[0][1] == 1)
    found = len(image_ids(run.output_dir))
    check(f"all {radiographs} are there", found == radiographs)
    return {"predict_many/after_kills": {"value": found, "unit": "radiographs", "against": f"{radiographs} asked for"}}


def on_two_nodes(task: Task, reference: str) -> dict[str, dict]:
    """Four actors on two Ray runtimes of this machine; both must have computed shards, and the same bytes."""
    port = free_port()
    head = ["--head", f"--port={port}", f"--temp-dir={task.folder / 'ray'}", "--include-dashboard=false"]
    with ray_node(task.folder / "head.txt", *head), ray_node(task.folder / "other.txt", f"--address=127.0.0.1:{port}"):
        run = task.run("nodes", "--ray", f"127.0.0.1:{port}", "--num_workers", 4)
        with run:
            run.finish()
    nodes = Counter(line["worker"].split()[0] for line in run.lines())
    print("shards of each Ray node:", ", ".join(f"{node[:12]}: {count}" for node, count in nodes.items()))
    check("two Ray nodes have computed shards", len(nodes) == 2)
    check("two nodes write the same bytes", digest(run.output_dir) == reference)
    return {"predict_many/nodes": {"value": len(nodes), "unit": "nodes", "against": "two Ray runtimes on one machine"}}


@contextmanager
def ray_node(log: Path, *options: str) -> Iterator[None]:
    """A Ray runtime of two CPUs, which is there when the block begins."""
    ray = str(Path(sys.executable).with_name("ray"))
    words = ["--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
    with Process([ray, "start", *options, *words], log, ENVIRONMENT) as process:
        until(lambda: "Ray runtime started" in log.read_text(), 60, "Ray does not start", process)
        yield


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def digest(output_dir: Path) -> str:
    """Of all results, by name."""
    found = hashlib.sha256()
    for path in sorted((output_dir / "results").glob("shard-*")):
        found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def image_ids(output_dir: Path) -> list[str]:
    import pyarrow.dataset as ds

    files = sorted(map(str, (output_dir / "results").glob("shard-*.parquet")))
    return ds.dataset(files).to_table(columns=["image_id"])["image_id"].to_pylist()


def check(what: str, holds: bool) -> None:
    """Says it, or ends the program."""
    if not holds:
        sys.exit(f"It does not hold that {what}.")
    print(f"  {what}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=DEMO, help="that answers")
    parser.add_argument("--radiographs", type=int, default=1000, help="phantoms")
    parser.add_argument("--size", type=int, default=256, help="of the phantoms, pixels a side")
    parser.add_argument("--shard_size", type=int, default=50)
    parser.add_argument("--kills", action="store_true", help="four of Ray's workers, and what survives kills of -9")
    parser.add_argument("--nodes", action="store_true", help="actors on two Ray runtimes of this machine")
    options = parsed(
        parser,
        "radiographs a second of predict-many in several ways, against one process",
        seconds=900,
        quick={"radiographs": 60, "shard_size": 10},
        quick_seconds=120,
    )
    sys.exit(main(**options))
