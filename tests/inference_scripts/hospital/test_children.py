"""Programs that another one starts: none stays behind, and one that ends says why."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litegpt.inference_scripts.hospital.children import Child, ChildError, free_port, is_open

ROOT = Path(__file__).resolve().parents[3]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended; nobody has asked for its status yet


def wait_until(happened) -> None:
    limit = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_it_is_stopped_with_all_that_it_started(tmp_path):
    code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    log = tmp_path / "log"
    with Child("one", python(f"{code}; print(p.pid, flush=True); time.sleep(99)"), log) as child:
        child.wait_for(lambda: log.read_text().strip() != "", 30)
        pids = [child.pid, int(log.read_text())]
        assert all(map(is_running, pids))
    wait_until(lambda: not any(map(is_running, pids)))


def test_one_that_does_not_listen_to_the_first_signal_is_ended_by_force(tmp_path):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"
    )
    child = Child("one", python(code), tmp_path / "log")
    child.wait_for(lambda: "up" in child.log.read_text(), 30)
    child.stop(seconds=0.2)
    assert not is_running(child.pid)


@pytest.mark.parametrize(
    ("code", "how"),
    [("print('no room'); raise SystemExit(3)", "status 3"), ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL")],
)
def test_one_that_ends_by_itself_is_named_with_its_status_and_its_last_lines(tmp_path, code, how):
    with Child("the node", python(code), tmp_path / "node.log") as child:
        with pytest.raises(ChildError, match=f"the node has ended by itself .{how}") as error:
            child.wait_for(lambda: False, 30)
    assert "node.log" in str(error.value) and ("no room" in str(error.value)) == (how == "status 3")


def test_one_that_never_answers_is_given_up(tmp_path):
    with Child("one", python("import time; time.sleep(99)"), tmp_path / "log") as child:
        with pytest.raises(ChildError, match="does not answer after 0.3 seconds"):
            child.wait_for(lambda: False, 0.3)


def test_a_program_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ChildError, match="one cannot be started: no-such-program"):
        Child("one", ["no-such-program"], tmp_path / "log")


def test_it_ends_where_the_one_that_started_it_is_killed(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from litegpt.inference_scripts.hospital.children import Child\n"
        "child = Child('one', [sys.executable, '-c', 'import time; time.sleep(99)'], Path(sys.argv[1]))\n"
        "print(child.pid, flush=True); time.sleep(1); os.kill(os.getpid(), 9)"
    )
    command = [*python(code), str(tmp_path / "log")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ})
    wait_until(lambda: not is_running(int(done.stdout)))


def test_a_free_port_is_free():
    assert not is_open(free_port())
