import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litegpt.common.shard_runs import Machines, own_share, run_shards
from tests.shard_work import SquareWork

HERE = Machines()
CHILDREN = Machines(num_workers=2)


def results(work: SquareWork) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted((work.folder / "results").iterdir())}


def squares(*numbers: int) -> dict[str, str]:
    return {f"shard-{number:02d}": str(number**2) for number in numbers}


def set_aside(work: SquareWork) -> list[str]:
    return sorted(path.stem for path in (work.folder / "set_aside").glob("*"))


def attempts(work: SquareWork) -> list[str]:
    return sorted(path.stem for path in (work.folder / "attempts").glob("*"))


@pytest.mark.parametrize("machines", [HERE, CHILDREN])
def test_shards_that_have_no_result_are_computed_once(tmp_path, machines):
    work = SquareWork(tmp_path)
    assert sorted(outcome.number for outcome in run_shards(work, range(3), machines)) == [0, 1, 2]
    assert sorted(outcome.number for outcome in run_shards(work, range(5), machines)) == [3, 4]
    assert results(work) == squares(0, 1, 2, 3, 4)
    assert [len(work.tries(number)) for number in range(5)] == [1] * 5 and attempts(work) == []


def test_children_are_other_processes_with_as_many_threads_as_said(tmp_path):
    work = SquareWork(tmp_path, seconds=0.3)
    outcomes = list(run_shards(work, range(4), Machines(num_workers=2, threads=3)))
    processes = {tries.split()[0] for number in range(4) for tries in work.tries(number)}
    assert len(processes) == 2 and str(os.getpid()) not in processes
    assert {outcome.worker.split()[-1] for outcome in outcomes} == processes
    assert {tries.split()[1] for number in range(4) for tries in work.tries(number)} == {"3"}


def test_the_shard_of_a_worker_that_dies_is_computed_by_a_fresh_one(tmp_path):
    work = SquareWork(tmp_path, kills={1: "kill once"})
    outcomes = list(run_shards(work, range(6), CHILDREN))
    assert sorted(outcome.number for outcome in outcomes) == list(range(6))
    assert not any(outcome.set_aside for outcome in outcomes) and results(work) == squares(*range(6))
    first, second = (tries.split()[0] for tries in work.tries(1))
    assert first != second and attempts(work) == []


def test_a_shard_that_kills_its_worker_twice_is_set_aside_and_the_others_go_on(tmp_path):
    work = SquareWork(tmp_path, kills={1: "kill", 2: "exit", 4: "memory"})
    outcomes = {outcome.number: outcome for outcome in run_shards(work, range(6), CHILDREN)}
    reasons = {number: outcome.set_aside for number, outcome in outcomes.items() if outcome.set_aside}
    assert list(map(len, (outcomes, reasons))) == [6, 3] and results(work) == squares(0, 3, 5)
    assert "SIGKILL" in reasons[1] and "status 3" in reasons[2] and "out of memory" in reasons[4]
    assert [len(work.tries(number)) for number in (1, 2, 4)] == [2, 2, 2]
    assert set_aside(work) == ["shard-01", "shard-02", "shard-04"] and attempts(work) == []
    kept = json.loads((tmp_path / "set_aside" / "shard-01.json").read_text())
    assert kept["reason"] == reasons[1] and "Delete this file" in kept["advice"]

    # The next run names them again and does not try them, until somebody deletes the file.
    assert {outcome.number: outcome.set_aside for outcome in run_shards(work, range(6), HERE)} == reasons
    (tmp_path / "set_aside" / "shard-02.json").unlink()
    mended = SquareWork(tmp_path)
    assert [o.number for o in run_shards(mended, range(6), CHILDREN) if not o.set_aside] == [2]
    assert results(work) == squares(0, 2, 3, 5)


def test_memory_that_does_not_suffice_in_this_process_sets_a_shard_aside_too(tmp_path):
    work = SquareWork(tmp_path, kills={0: "memory"})
    outcomes = {outcome.number: outcome.set_aside for outcome in run_shards(work, range(2), HERE)}
    assert outcomes[1] is None and "out of memory" in outcomes[0] and results(work) == squares(1)


@pytest.mark.parametrize("machines", [HERE, CHILDREN])
@pytest.mark.parametrize(("what", "error"), [("bug", LookupError), ("full", OSError)])
def test_what_the_work_raises_ends_the_run_and_is_no_death(tmp_path, machines, what, error):
    work = SquareWork(tmp_path, kills={1: what})
    with pytest.raises(error) as raised:
        list(run_shards(work, range(3), machines))
    assert raised.value.args == (("a bug in 1",) if what == "bug" else (28, "No space left on device"))
    assert set_aside(work) == attempts(work) == []
    assert len(list(run_shards(SquareWork(tmp_path), range(3), HERE))) >= 1 and results(work) == squares(0, 1, 2)


def test_an_error_in_a_child_shows_where_it_was_raised(tmp_path):
    with pytest.raises(LookupError) as raised:
        list(run_shards(SquareWork(tmp_path, kills={0: "bug"}), range(1), CHILDREN))
    assert "shard_work.py" in str(raised.value.__cause__)


def test_workers_that_die_while_they_load_end_the_run_and_no_shard_is_blamed(tmp_path):
    work = SquareWork(tmp_path, start_fails=True)
    with pytest.raises(ChildProcessError, match="status 7.*memory for 2"):
        list(run_shards(work, range(3), CHILDREN))
    assert set_aside(work) == attempts(work) == []


RUN = """
import sys
from pathlib import Path
from litegpt.common.shard_runs import Machines, run_shards
from tests.shard_work import SquareWork
work = SquareWork(Path(sys.argv[1]), seconds=float(sys.argv[2]))
for outcome in run_shards(work, range(4), Machines(num_workers=int(sys.argv[3]))):
    print(outcome.number, flush=True)
"""


def killed_run(folder: Path, num_workers: int) -> None:
    """A run that is killed with -9 while its first shards are under way."""
    command = [sys.executable, "-c", RUN, str(folder), "30", str(num_workers)]
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": root}) as run:
        until(lambda: len(list(folder.glob("tried-*"))) >= num_workers)
        run.kill()


def until(holds) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_children_end_when_their_parent_is_killed_and_its_shards_lose_nothing(tmp_path):
    work = SquareWork(tmp_path)
    killed_run(tmp_path, num_workers=2)
    pids = [int(tries.split()[0]) for number in (0, 1) for tries in work.tries(number)]
    until(lambda: not any(is_running(pid) for pid in pids))
    assert attempts(work) == ["shard-00", "shard-01"]
    assert len(list(run_shards(work, range(4), CHILDREN))) == 4
    assert results(work) == squares(0, 1, 2, 3) and attempts(work) == []


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_shard_at_which_three_runs_were_killed_is_set_aside(tmp_path):
    work = SquareWork(tmp_path)
    for _ in range(2):
        for tried in tmp_path.glob("tried-*"):
            tried.unlink()
        killed_run(tmp_path, num_workers=1)
    kept = json.loads((tmp_path / "attempts" / "shard-00.json").read_text())
    assert len(kept["losses"]) == 1 and kept["under_way"]
    (tmp_path / "tried-0").unlink()
    killed_run(tmp_path, num_workers=1)
    first, *others = run_shards(work, range(4), HERE)
    assert first.number == 0 and "tried 3 times" in first.set_aside and set_aside(work) == ["shard-00"]
    assert [outcome.number for outcome in others] == [1, 2, 3] and results(work) == squares(1, 2, 3)


def test_a_run_that_is_stopped_counts_for_no_shard(tmp_path):
    for machines in (HERE, CHILDREN):
        running = run_shards(SquareWork(tmp_path, seconds=0.2), range(4), machines)
        next(running)
        running.close()  # as Ctrl-C and SIGTERM do
        assert attempts(SquareWork(tmp_path)) == []


def test_a_share_is_every_so_manieth_shard():
    assert list(own_share(range(10), "0/4")) == [0, 4, 8] and list(own_share(range(10), "3/4")) == [3, 7]
    assert sorted(number for share in range(3) for number in own_share(range(10), f"{share}/3")) == list(range(10))
    for share in ("4/4", "1", "1/0", "-1/4", "a/b", "1/4/5"):
        with pytest.raises(ValueError, match="NUMBER/COUNT"):
            own_share(range(10), share)
