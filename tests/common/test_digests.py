import hashlib
import os
import shutil
from pathlib import Path

import pytest

from litegpt.common import digests as digests_module
from litegpt.common.addresses import open_address, write_bytes
from litegpt.common.digests import Digests, state_of_file


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the files whose bytes are read; not of the file of digests."""
    names, open_file = [], Path.open

    def recording(self, mode="r", *args, **kwargs):
        names.extend([self.name] if mode == "rb" and self.suffix != ".jsonl" else [])
        return open_file(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", recording)
    return names


def test_a_file_is_read_once_also_by_the_next_run(tmp_path, opened):
    file = tmp_path / "a.dcm"
    file.write_bytes(b"pixels")
    digest = Digests(tmp_path / "digests.jsonl").bytes_read(file, state_of_file(file), file.read_bytes())
    assert digest == hashlib.sha256(b"pixels").hexdigest()
    del opened[:]
    assert Digests(tmp_path / "digests.jsonl").file(file) == digest and opened == []
    os.utime(file, ns=(1, 1))  # touched: read again, once
    for _ in range(2):
        assert Digests(tmp_path / "digests.jsonl").file(file) == digest
    assert opened == ["a.dcm"]


def test_other_bytes_of_the_same_size_and_time_are_seen(tmp_path):
    file, other = tmp_path / "a.dcm", tmp_path / "b.dcm"
    for path, data in ((file, b"pixels"), (other, b"others")):
        path.write_bytes(data)
        os.utime(path, ns=(10**18, 10**18))  # as from one archive
    before = Digests(tmp_path / "digests.jsonl").file(file)
    other.replace(file)
    assert Digests(tmp_path / "digests.jsonl").file(file) == hashlib.sha256(b"others").hexdigest() != before


def test_a_checkpoints_digest_is_of_its_weights_and_settings(tiny_checkpoint, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    digests = Digests(tmp_path / "digests.jsonl")
    first = digests.checkpoint(str(checkpoint))
    assert first == Digests(tmp_path / "others.jsonl").checkpoint(str(tiny_checkpoint))
    (checkpoint / "README.md").write_text("another card")
    assert digests.checkpoint(str(checkpoint)) == first
    for name in ("processor_config.json", "model.safetensors"):
        with (checkpoint / name).open("ab") as file:
            file.write(b" ")
        assert digests.checkpoint(str(checkpoint)) != first
        first = digests.checkpoint(str(checkpoint))
    assert digests.checkpoint("acme/litegpt") is None


def test_a_remote_file_is_read_once_and_again_when_it_is_replaced(tmp_path, shelf, monkeypatch):
    address, read = f"{shelf}/a.dcm", []
    monkeypatch.setattr(digests_module, "open_address", lambda file: read.append(file) or open_address(file))
    write_bytes(address, b"pixels")
    for data, times in ((b"pixels", 1), (b"pixels", 1), (b"others", 2)):
        if data == b"others":
            write_bytes(address, data)
        digest = Digests(tmp_path / "digests.jsonl").file(address)
        assert digest == hashlib.sha256(data).hexdigest() and len(read) == times


def test_a_store_that_tells_no_versions_is_read_each_time(tmp_path, shelf, monkeypatch):
    address = f"{shelf}/a.dcm"
    write_bytes(address, b"pixels")
    monkeypatch.setattr(digests_module, "state_of", lambda address: (6, ""))
    Digests(tmp_path / "digests.jsonl").file(address)
    write_bytes(address, b"others")
    assert Digests(tmp_path / "digests.jsonl").file(address) == hashlib.sha256(b"others").hexdigest()
