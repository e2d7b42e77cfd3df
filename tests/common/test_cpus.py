import os
import subprocess
import sys
from pathlib import Path

import pytest

from litegpt.common.cpus import threads_for, usable_cpus

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to CPUs")
def test_a_process_that_is_bound_to_one_cpu_has_one():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "from litegpt.common.cpus import usable_cpus; print(usable_cpus())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).stdout == b"1\n"


def test_a_small_network_has_one_thread_and_a_large_one_all_cpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_for(1_250_000) == 1
    assert threads_for(7_000_000_000) == usable_cpus()


def test_what_the_environment_says_of_threads_holds(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_for(1_250_000) == threads_for(7_000_000_000) == 3


def test_threads_that_wait_sleep_unless_the_environment_says_otherwise():
    code = "import os, litegpt, torch; print(os.environ['OMP_WAIT_POLICY'])"
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | {
        "PYTHONPATH": str(ROOT)
    }
    said = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.strip()
        for environment in (plain, plain | {"OMP_WAIT_POLICY": "ACTIVE"})
    ]
    assert said == ["PASSIVE", "ACTIVE"]
