import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from litegpt.common.programs import Refusal
from litegpt.common.shard_runs import Machines, run_shards
from tests.shard_work import SquareWork

pytest.importorskip("ray")
ROOT = str(Path(__file__).resolve().parents[2])
RUN = """
import json, sys
from pathlib import Path
from litegpt.common.shard_runs import Machines, run_shards
from tests.shard_work import SquareWork
kills = {int(number): what for number, what in json.loads(sys.argv[2]).items()}
work, machines = SquareWork(Path(sys.argv[1]), kills), Machines(num_workers=2, ray="local")
for outcome in run_shards(work, range(6), machines):
    print(json.dumps([outcome.number, outcome.set_aside, outcome.worker]))
"""


def run_in_ray(folder: Path, kills: dict[int, str]) -> subprocess.CompletedProcess:
    """A program of its own: who uses Ray keeps its threads."""
    command = [sys.executable, "-c", RUN, str(folder), json.dumps(kills)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True)


def test_actors_that_die_are_replaced_and_a_shard_that_kills_two_is_set_aside(tmp_path):
    run = run_in_ray(tmp_path, {1: "kill once", 3: "kill", 4: "memory"})
    # Ray itself says something of each death, and nothing else.
    said = [line for line in run.stdout.splitlines() if not line.startswith("[")]
    assert run.returncode == 0 and run.stderr == "" and all("died or was killed" in line for line in said), run
    work = SquareWork(tmp_path)
    outcomes = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    reasons = {number: reason for number, reason, _ in outcomes if reason}
    assert sorted(number for number, *_ in outcomes) == list(range(6)) and set(reasons) == {3, 4}
    assert "out of memory" in reasons[4] and "tried 2 times" in reasons[3]
    assert {number: work.result(number).read_text() for number in (0, 1, 2, 5)} == {0: "0", 1: "1", 2: "4", 5: "25"}
    assert [len(work.tries(number)) for number in range(6)] == [1, 2, 1, 2, 2, 1]
    assert {tries.split()[1] for tries in work.tries(0)} == {"1"}
    pids = {work.tries(number)[-1].split()[0] for number in (0, 1, 2, 5)}
    assert {worker.split()[1] for number, _, worker in outcomes if number in (0, 1, 2, 5)} == pids


@pytest.mark.slow
def test_what_the_work_raises_comes_out_of_ray_as_it_was_raised(tmp_path):
    run = run_in_ray(tmp_path, {0: "bug"})
    assert run.returncode == 1 and run.stderr.strip().splitlines()[-1] == "LookupError: a bug in 0"
    assert list((tmp_path / "attempts").glob("*")) == []


def test_an_address_where_no_cluster_is_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "1")
    with pytest.raises(Refusal, match="no Ray cluster answers there"):
        list(run_shards(SquareWork(tmp_path), range(2), Machines(ray="127.0.0.1:1")))
