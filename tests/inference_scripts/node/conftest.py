"""Parts of a node in a folder of the test's own."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litegpt.inference_scripts.arguments import NodeArguments
from litegpt.inference_scripts.node.monitoring import Monitor
from litegpt.inference_scripts.node.spool import Spool
from tests.small_pacs import as_file, radiograph


class Kept(Monitor):
    """A monitor whose lines a test reads."""

    def __init__(self):
        self.lines: list[str] = []
        super().__init__(self.lines.append)

    def events(self, name: str) -> list[dict]:
        return [line for line in map(json.loads, self.lines) if line["event"] == name]


@pytest.fixture
def monitor() -> Kept:
    return Kept()


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        spool.remember("key")
        yield spool


@pytest.fixture
def arguments(tmp_path) -> Callable[..., NodeArguments]:
    """A node's arguments: any free port, the test's spool."""

    def made(**options) -> NodeArguments:
        usual = {"model_name_or_path": "none", "spool": str(tmp_path / "spool"), "calling_ae_titles": ["SENDER"]}
        usual |= {"pacs": "PACS@127.0.0.1:1", "port": 0, "monitoring_port": 0, "network_timeout": 5.0}
        return NodeArguments(**(usual | {"reserve_megabytes": 0} | options))

    return made


def put(spool: Spool, number: int) -> str:
    """A radiograph into the queue, as the receiver puts it; its UID."""
    dataset = radiograph(number)
    uid = str(dataset.SOPInstanceUID)
    part = spool.part(uid)
    part.write_bytes(as_file(dataset))
    spool.accept(uid, part)
    return uid


@pytest.fixture
def queued(spool) -> Callable[[int], str]:
    return lambda number: put(spool, number)


@pytest.fixture
def until() -> Callable[..., None]:
    def wait(holds: Callable[[], bool], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)

    return wait


@pytest.fixture
def below() -> Callable[[Path], list[str]]:
    """Names of the files below a folder, without the node's own two."""
    return lambda folder: sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("lock", "at_work.json")
    )


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    """A certificate of localhost, its own authority, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    file = tmp_path_factory.mktemp("tls") / "node.pem"
    key, extensions = file.with_suffix(".key"), "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", extensions, "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file
