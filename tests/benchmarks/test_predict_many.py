import os
import subprocess
import sys

import pytest

from litegpt.benchmarks.predict_many import Measured as Way
from litegpt.benchmarks.predict_many import Run, check, digest, family, is_running, own_megabytes


def test_a_family_is_a_process_and_all_that_descend_from_it():
    child = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"])
    try:
        while len(family(child.pid)) < 2:
            assert child.poll() is None
        assert {child.pid} < set(family(child.pid)) <= set(family(os.getpid()))
        assert own_megabytes(child.pid) > 1 and all(map(is_running, family(child.pid)))
    finally:
        for pid in reversed(family(child.pid)):
            os.kill(pid, 9)
        child.wait()
    assert not is_running(child.pid) and own_megabytes(child.pid) == 0


def test_a_rate_is_that_after_the_start():
    assert Way(seconds=30, start_up=10, megabytes=500, overhead=0.01).rate(100) == 5


def test_results_of_other_names_or_bytes_have_another_digest(tmp_path):
    (tmp_path / "results").mkdir()
    found = {digest(tmp_path)}
    for name, data in (("shard-0", b"a"), ("shard-0", b"b"), ("shard-1", b"b")):
        (tmp_path / "results" / name).write_bytes(data)
        found.add(digest(tmp_path))
    assert len(found) == 4
    with pytest.raises(SystemExit, match="It does not hold that they are alike"):
        check("they are alike", False)


def test_the_logs_of_a_run_are_read_while_they_are_written(tmp_path):
    run = Run({"shard_size": 3}, tmp_path / "in", tmp_path / "out", "--shard", "0/2")
    assert run.lines() == [] and run.command[-4:] == ["--output_dir", str(tmp_path / "out"), "--shard", "0/2"]
    (tmp_path / "out" / "logs").mkdir(parents=True)
    (tmp_path / "out" / "logs" / "0-of-2.jsonl").write_text('{"number": 1}\n{"numb')
    assert run.lines() == [{"number": 1}]
