import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from litegpt.command import main
from litegpt.common.addresses import write_bytes
from litegpt.common.shard_runs import ShardOutcome
from litegpt.datasets_scripts.arguments import ReadersArguments
from litegpt.datasets_scripts.preparation import decoding_process, many_machines
from litegpt.datasets_scripts.preparation import prepare as radiograph_dataset
from litegpt.datasets_scripts.preparation.decoding_process import DecodingProcess
from litegpt.datasets_scripts.preparation.many_machines import PreparationWork, run_preparation
from litegpt.datasets_scripts.preparation.prepare import digest_of, load, prepare
from litegpt.datasets_scripts.preparation.release import PreparationOptions
from litegpt.datasets_scripts.rows import data_set_facts
from litegpt.datasets_scripts.vindr_cxr import read_release

ROOT = str(Path(__file__).resolve().parents[3])
SHARDS = ["test-00000-of-00001", *(f"train-0000{number}-of-00003" for number in range(3))]


class InThisProcess(DecodingProcess):
    """Starts no child: they take longer to start than these tests to run."""

    def __init__(self, windowing, shortest_edge, timeout_s):
        super().__init__(windowing, shortest_edge, timeout_s)
        self._how = (windowing, shortest_edge)

    def read(self, path):
        return decoding_process.decode(path, *self._how)


@pytest.fixture
def small_shards(monkeypatch):
    """Four shards of `phantom_release`, read in this process."""
    monkeypatch.setattr(radiograph_dataset, "ROWS_PER_SHARD", 8)
    monkeypatch.setattr(radiograph_dataset, "DecodingProcess", InThisProcess)


@pytest.fixture
def run(phantom_release, small_shards, tmp_path):
    """Runs one share of `phantom_release` into a folder, as the program does."""

    def run(shard, output_dir=tmp_path / "shared", **arguments):
        arguments = ReadersArguments(str(phantom_release), str(output_dir), shard=shard, **arguments)
        run_preparation(read_release, arguments, PreparationOptions())

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but the log, which has dates, and the lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("preparation.log", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_shares_in_any_order_write_the_bytes_of_one_process(run, phantom_release, tmp_path, capsys):
    prepare(read_release(phantom_release), tmp_path / "alone")
    capsys.readouterr()
    for shard, there in (("2/3", 1), ("0/3", 3)):
        run(shard)
        assert f"{there} of 4 shards are there; the run that finds all of them finishes" in capsys.readouterr().out
        assert not (tmp_path / "shared" / "README.md").exists()
        with pytest.raises(FileNotFoundError, match="its preparation was interrupted"):
            load(tmp_path / "shared")
    run("1/3")
    assert "train: " in capsys.readouterr().out
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "alone")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")}
    run("0/3")  # a task that starts late
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")} == before


def test_one_process_goes_on_with_what_shares_have_written(run, phantom_release, tmp_path):
    prepare(read_release(phantom_release), tmp_path / "alone")
    run("0/2")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared" / "data").iterdir()}
    assert len(written) == 2
    prepare(read_release(phantom_release), tmp_path / "shared")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "alone")


def test_a_run_that_joins_leaves_what_others_are_writing_and_the_last_clears_up(run, tmp_path):
    run("0/2")
    others = tmp_path / "shared" / "data" / "train-00002-of-00003.parquet.incomplete"
    others.write_bytes(b"half")
    run("0/2")
    assert others.read_bytes() == b"half"
    others.rename(others.with_name("train-00009-of-00010.parquet.incomplete"))  # of a machine that is gone
    run("1/2")
    assert sorted(path.stem for path in (tmp_path / "shared" / "data").iterdir()) == SHARDS


def test_a_share_whose_folder_another_preparation_takes_writes_no_more(run, phantom_release, tmp_path, monkeypatch):
    release = read_release(phantom_release)
    write_csv = radiograph_dataset.summary.write_csv

    def claimed_meanwhile(path, *args):
        write_csv(path, *args)
        if path.endswith("train-00000-of-00003.csv"):
            settings = tmp_path / "shared" / "preparation.json"
            settings.write_text(settings.read_text().replace(digest_of(release, PreparationOptions()), "another"))

    monkeypatch.setattr(radiograph_dataset.summary, "write_csv", claimed_meanwhile)
    with pytest.raises(ValueError, match="has been claimed by another preparation meanwhile"):
        run("0/1")
    assert [path.stem for path in (tmp_path / "shared" / "data").glob("*.parquet")] == ["train-00000-of-00003"]


def test_a_worker_that_finds_another_release_writes_nothing(phantom_release, small_shards, tmp_path):
    release, options = read_release(phantom_release), PreparationOptions()
    other = replace(release, annotations={**release.annotations, "train": release.annotations["train"][1:]})
    work = PreparationWork(
        str(tmp_path), tuple(SHARDS), frozenset(), lambda: other, options, digest_of(release, options), 1
    )
    with pytest.raises(ValueError, match="A worker finds another release at that place"):
        work.start()


def test_a_shard_that_is_set_aside_is_named_and_the_folder_not_finished(run, tmp_path, monkeypatch):
    run_shards = many_machines.run_shards

    def without_the_first(work, numbers, machines):
        yield ShardOutcome(0, "it was tried 2 times")
        yield from run_shards(work, numbers[1:], machines)

    with monkeypatch.context() as patch, pytest.raises(ValueError) as found:
        patch.setattr(many_machines, "run_shards", without_the_first)
        run("0/1")
    assert "is not finished: shards are set aside, train-00000-of-00003 (it was tried 2 times)" in str(found.value)
    assert not (tmp_path / "shared" / "README.md").exists()
    run("0/1")
    assert (tmp_path / "shared" / "README.md").exists() and not (tmp_path / "shared" / "set_aside").exists()


def test_a_share_of_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "vindr-cxr", "--data_dir", "a", "--output_dir", "b", "--shard", "16/16"])
    assert "a share is NUMBER/COUNT, such as 0/16 to 15/16, not 16/16" in capsys.readouterr().err


def command(release: Path, folder: Path, *options: str) -> list[str]:
    words = ["prepare", "vindr-cxr", "--data_dir", str(release), "--output_dir", str(folder), *options]
    return [sys.executable, "-m", "litegpt.command", *words]


@pytest.mark.slow
def test_tasks_that_run_at_once_finish_once(phantom_release, tmp_path):
    environment = {**os.environ, "PYTHONPATH": ROOT}
    subprocess.run(command(phantom_release, tmp_path / "alone"), env=environment, check=True, capture_output=True)
    # Two of them have the same share, as where a scheduler starts a task anew that is still alive.
    tasks = [
        subprocess.Popen(command(phantom_release, tmp_path / "shared", "--shard", shard), env=environment)
        for shard in ("0/2", "1/2", "1/2")
    ]
    assert [task.wait() for task in tasks] == [0, 0, 0]
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "alone")
    assert (tmp_path / "shared" / "preparation.log").read_text().count("train: ") == 1


@pytest.mark.slow
def test_workers_on_ray_write_the_bytes_of_one_process(phantom_release, tmp_path):
    pytest.importorskip("ray")
    environment = {**os.environ, "PYTHONPATH": ROOT}
    alone = command(os.path.relpath(phantom_release, tmp_path), Path("alone"))
    subprocess.run(alone, env=environment, cwd=tmp_path, check=True, capture_output=True)
    on_ray = command(os.path.relpath(phantom_release, tmp_path), Path("ray"), "--ray", "local", "--num_workers", "2")
    subprocess.run(on_ray, env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "alone")


# --- At addresses ----------------------------------------------------------------------------------------------------


def local_of(address: str) -> Path:
    """Where a file of the fixture `shelf` lies."""
    return Path(os.environ["SHELF"], address.removeprefix("shelf://"))


def same_but_for_states(folder: Path, other: Path) -> bool:
    """preparation.json says by what the radiographs are known: at an address by something else."""
    found = [files_of(folder), files_of(other)]
    return all(files.pop("preparation.json") for files in found) and found[0] == found[1]


def test_a_release_at_an_address_is_prepared_to_an_address(phantom_release, shelf, tmp_path):
    shutil.copytree(phantom_release, local_of(shelf) / "release")
    prepare(read_release(phantom_release), tmp_path / "alone", PreparationOptions(validation_share=0.3))
    options = PreparationOptions(validation_share=0.3)
    prepare(read_release(f"{shelf}/release"), f"{shelf}/prepared/", options)  # children read it
    assert same_but_for_states(local_of(f"{shelf}/prepared"), tmp_path / "alone")
    log = (local_of(shelf) / "prepared" / "preparation.log").read_text()
    assert "test-00000-of-00001 is written" in log and "test: 8 rows" in log
    here, there = (load(folder, cache_dir=tmp_path / "cache") for folder in (tmp_path / "alone", f"{shelf}/prepared"))
    assert set(there) == set(here) == {"train", "validation", "test"}
    for split in here:
        assert there[split].features == here[split].features and there[split].to_list() == here[split].to_list()


def test_a_prepared_folder_at_an_address_is_streamed(phantom_release, small_shards, tmp_path):
    prepare(read_release(phantom_release), tmp_path / "alone")
    for name, data in files_of(tmp_path / "alone").items():
        write_bytes(f"memory://streamed/{name}", data)
    streamed = load("memory://streamed", "test", streaming=True)
    rows = load(tmp_path / "alone", "test", cache_dir=tmp_path / "cache")
    assert [row["image_id"] for row in streamed] == rows["image_id"][:]
    assert data_set_facts("memory://streamed") == data_set_facts(str(tmp_path / "alone"))
    MemoryFileSystem.store.clear()


def test_shares_at_an_address_write_the_same(phantom_release, small_shards, shelf, tmp_path):
    shutil.copytree(phantom_release, local_of(shelf) / "release")
    prepare(read_release(phantom_release), tmp_path / "alone")
    for shard in ("1/2", "0/2"):
        arguments = ReadersArguments(f"{shelf}/release", f"{shelf}/shared", shard=shard)
        run_preparation(read_release, arguments, PreparationOptions())
    assert same_but_for_states(local_of(f"{shelf}/shared"), tmp_path / "alone")


def test_a_radiograph_that_was_replaced_at_an_address_is_prepared_anew(phantom_release, shelf, small_shards):
    shutil.copytree(phantom_release, local_of(shelf) / "release")
    release = read_release(f"{shelf}/release")
    digest = digest_of(release, PreparationOptions())
    first, second = sorted((local_of(shelf) / "release" / "test").iterdir())[:2]
    shutil.copy(second, first)
    assert digest_of(read_release(f"{shelf}/release"), PreparationOptions()) != digest


def test_a_missing_radiograph_at_an_address_is_left_out(phantom_release, shelf, small_shards):
    shutil.copytree(phantom_release, local_of(shelf) / "release")
    release = read_release(f"{shelf}/release")
    gone = sorted((local_of(shelf) / "release" / "test").iterdir())[0]
    gone.unlink()
    prepare(release, f"{shelf}/prepared")
    manifest = (local_of(shelf) / "prepared" / "manifest.csv").read_text()
    assert f"{gone.stem},test,{gone.name}: there is no such file" in manifest.replace('"', "")
    assert shelf not in manifest


def test_a_store_that_fails_ends_the_preparation_and_leaves_nothing_out(phantom_release, shelf, tmp_path, monkeypatch):
    shutil.copytree(phantom_release, local_of(shelf) / "release")
    release = read_release(f"{shelf}/release")
    broken = tmp_path / "package" / "shelf_files.py"  # as the children find it
    broken.write_text(broken.read_text() + "\n    def cat_file(self, path, **how):\n        raise TimeoutError\n")
    with pytest.raises(OSError, match=r"it cannot be reached or used \(TimeoutError\)"):
        prepare(release, f"{shelf}/prepared")
    assert list((local_of(shelf) / "prepared").glob("data/*")) == []
