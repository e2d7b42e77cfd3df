"""`litegpt hospital` as a person runs it, with a tiny checkpoint: results come back, and nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

from litegpt.inference_scripts.hospital.orthanc import missing
from tests.hospital.fetch_ohif import FOLDER

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds


@pytest.fixture(scope="module", autouse=True)
def installed(ohif_files):
    if (reason := missing()) is not None:
        pytest.skip(reason)


@pytest.fixture
def radiographs(phantom_dicoms, tmp_path) -> Path:
    """Three phantoms, one of them without patient and study; one that the node cannot read; what is no radiograph."""
    folder = tmp_path / "radiographs"
    folder.mkdir()
    for path in phantom_dicoms[:3]:
        dataset = pydicom.dcmread(path)
        if path == phantom_dicoms[0]:
            del dataset.PatientName, dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID
        dataset.save_as(folder / path.name)
    dataset = pydicom.dcmread(phantom_dicoms[3])
    dataset.BitsStored = dataset.BitsAllocated + 1
    dataset.save_as(folder / "unreadable.dcm")
    (folder / "notes.dcm").write_text("not a DICOM file")
    return folder


@contextmanager
def hospital(checkpoint: Path, output_dir: Path, *options: str) -> Iterator[subprocess.Popen]:
    """The running program, when all is answered; what it printed is in `log`."""
    command = [sys.executable, "-m", "litegpt", "hospital", "--model_name_or_path", str(checkpoint)]
    command += ["--output_dir", str(output_dir), "--ohif_dir", str(FOLDER), *options]
    with log_of(output_dir).open("w") as log:
        running = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        limit = time.monotonic() + PATIENCE
        while "Ctrl-C stops" not in (said := log_of(output_dir).read_text()):
            assert running.poll() is None, said
            assert time.monotonic() < limit, said
            time.sleep(0.2)
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
            running.wait(60)


def log_of(output_dir: Path) -> Path:
    return output_dir.with_name(f"{output_dir.name}.log")


def addresses(output_dir: Path) -> dict:
    return json.loads((output_dir / "addresses.json").read_text())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"  # nobody has asked for its status yet


def wait_until_ended(pids: list[int]) -> None:
    limit = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(map(is_running, pids))


def instances(pacs: str) -> list[dict]:
    query = {"Level": "Instance", "Query": {}, "Expand": False}
    with urllib.request.urlopen(f"{pacs}/tools/find", json.dumps(query).encode()) as response:
        found = json.load(response)
    tags = []
    for instance in found:
        with urllib.request.urlopen(f"{pacs}/instances/{instance}/simplified-tags") as response:
            tags.append(json.load(response))
    return tags


def series_by_study(pacs: str) -> dict[str, list[str]]:
    studies: dict[str, list[str]] = {}
    for tags in instances(pacs):
        studies.setdefault(tags["StudyInstanceUID"], []).append(tags.get("SeriesDescription", tags["Modality"]))
    return {study: sorted(found) for study, found in studies.items()}


def wait_for_instances(pacs: str, count: int) -> dict[str, list[str]]:
    limit = time.monotonic() + 60
    while len(instances(pacs)) < count and time.monotonic() < limit:
        time.sleep(0.5)
    return series_by_study(pacs)


def test_radiographs_come_back_with_results_and_sigterm_stops_all(tiny_checkpoint, radiographs, tmp_path):
    output_dir = tmp_path / "hospital"
    with hospital(tiny_checkpoint, output_dir, "--radiographs", str(radiographs)) as running:
        found = addresses(output_dir)
        said = log_of(output_dir).read_text()
        assert all(found[name] in said for name in ("viewer", "pacs", "pacs_dicom", "node_dicom"))
        assert "notes.dcm" in said and "StudyInstanceUID is made up for 1 of 4" in said
        assert "3 of 4 answered" in said and "spool/failed says why" in said
        studies = wait_for_instances(found["pacs"], 3 * 4 + 1)
        assert sorted(map(len, studies.values())) == [1, 4, 4, 4]
        for results in studies.values():
            assert sum("LiteGPT" in series for series in results) == len(results) - 1, results
        with urllib.request.urlopen(f"{found['dicomweb']}/studies") as response:
            assert len(json.load(response)) == 4
        pids = list(found["pids"].values())
        assert len(pids) == 2 and all(map(is_running, pids))
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    wait_until_ended(pids)
    assert "Stopped." in log_of(output_dir).read_text() and not (output_dir / "addresses.json").exists()

    # The same command takes up what is there, and answers nothing twice.
    with hospital(tiny_checkpoint, output_dir, "--radiographs", str(radiographs)) as running:
        assert series_by_study(addresses(output_dir)["pacs"]) == studies
        again = subprocess.run(running.args, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
        assert again.returncode == 1 and "in use by another" in again.stderr
    with hospital(tiny_checkpoint, output_dir, "--fresh", "--radiographs", str(min(radiographs.iterdir()))):
        assert len(series_by_study(addresses(output_dir)["pacs"])) == 1


def test_where_one_ends_by_itself_it_is_named_and_the_others_are_stopped(tiny_checkpoint, radiographs, tmp_path):
    output_dir = tmp_path / "hospital"
    with hospital(tiny_checkpoint, output_dir, "--radiographs", str(radiographs)) as running:
        pids = addresses(output_dir)["pids"]
        os.kill(pids["the node"], signal.SIGKILL)
        assert running.wait(60) == 1
    assert "the node has ended by itself (signal SIGKILL)" in log_of(output_dir).read_text()
    wait_until_ended(list(pids.values()))


def test_where_it_is_killed_itself_nothing_stays_behind(tiny_checkpoint, radiographs, tmp_path):
    output_dir = tmp_path / "hospital"
    with hospital(tiny_checkpoint, output_dir, "--radiographs", str(radiographs)) as running:
        pids = list(addresses(output_dir)["pids"].values())
        running.kill()
        running.wait()
    wait_until_ended(pids)


def test_a_checkpoint_that_is_not_there_is_one_sentence(radiographs, tmp_path):
    command = [sys.executable, "-m", "litegpt", "hospital", "--model_name_or_path", str(tmp_path / "nothing")]
    command += ["--output_dir", str(tmp_path / "out"), "--ohif_dir", str(FOLDER), "--radiographs", str(radiographs)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "the node has ended by itself" in done.stderr and "Traceback" not in done.stderr
