"""What a node is tried with: an answerer without a model, a node as a process, an Orthanc, radiographs and a sender.

    with Orthanc(folder / "orthanc") as pacs, NodeProcess(folder, {"pacs": pacs.address, ...}) as node:
        sender = Sender(node.address, files); sender.run()
        node.kill()              # -9; node.start() again
        pacs.counts()            # {study: {"DX": 1, "SR": 1, "PR": 1}}

All listen at 127.0.0.1, at ports that were free, and end with the block. A node without a checkpoint is this file as a
program: the real node with `StandInAnswerer`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import pydicom
import yaml
from pynetdicom import AE, build_context

from litegpt.common.arguments import parse
from litegpt.inference_scripts.arguments import NodeArguments
from litegpt.inference_scripts.hospital.children import end_with_parent, free_port, is_open
from litegpt.inference_scripts.hospital.orthanc import OrthancPorts, configuration, program
from litegpt.inference_scripts.inbox import Received

SENDER = "SENDER"


class StandInAnswerer:
    """Answers every radiograph alike, at once or after so many seconds."""

    facts = {"model": "stand-in", "checkpoint": "stand-in", "checkpoint_sha256": "0" * 64, "constrained": True}
    processor = SimpleNamespace(windowing="dicom", score_thresholds={})
    source = SimpleNamespace(line=lambda: {"checkpoint": "stand-in"})

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def lines(self, batch: Sequence[Received]) -> list[dict[str, Any]]:
        time.sleep(self.seconds * len(batch))
        return [self.line(received) for received in batch]

    def line(self, received: Received) -> dict[str, Any]:
        width, height = received.picture.size
        box = {"xmin": width // 3, "ymin": height // 2, "xmax": width * 3 // 4, "ymax": height * 3 // 4}
        return {
            **received.facts,
            **self.facts,
            "findings": [{"label": "Cardiomegaly", "score": 0.9, "box": box}],
            "diagnoses": [{"label": "Pneumonia", "score": 0.6}],
            "probabilities": {"vqa": {"Pneumonia": 0.6, "COPD": 0.1}},
            "malformed": {"identify": None, "vqa": None},
            "warnings": [],
        }


class Process:
    """A program in a process of its own, and what it writes in `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None):
        self.command, self.log, self.environment = list(command), log, {**os.environ, **(environment or {})}
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                preexec_fn=partial(end_with_parent, signal.SIGKILL),
            )
        self.wait()

    def wait(self) -> None:
        """Until it can be used."""

    def stop(self) -> int:
        """Its status."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def resident_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class NodeProcess(Process):
    """A node, with a checkpoint or without.

    Args:
        folder: of its spool, configuration and log.
        options: of `litegpt node`, beside the spool and ports.
        seconds: that the stand-in for a model takes, where no `model_name_or_path` is among the options.
    """

    def __init__(self, folder: Path, options: dict[str, Any], seconds: float = 0.0):
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.monitoring_port, self.spool = free_port(), free_port(), folder / "spool"
        has_model = "model_name_or_path" in options
        values = {"model_name_or_path": "stand-in", "spool": str(self.spool), "port": self.port}
        values |= {"monitoring_port": self.monitoring_port, "calling_ae_titles": [SENDER], **options}
        config = folder / "node.yaml"
        config.write_text(yaml.safe_dump(values), encoding="utf-8")
        module = "litegpt.inference_scripts.node.node" if has_model else "litegpt.benchmarks.node_stand_ins"
        environment = {"STAND_IN_SECONDS": str(seconds), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        super().__init__([sys.executable, "-m", module, "--config", str(config)], folder / "node.log", environment)

    @property
    def address(self) -> tuple[str, str, int]:
        return "LITEGPT", "127.0.0.1", self.port

    def wait(self, seconds: float = 120) -> None:
        until(lambda: is_open(self.port), seconds, "the node does not listen", self)

    def page(self, name: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitoring_port}/{name}", timeout=10) as page:
            return page.read().decode()

    def count(self, name: str) -> float:
        """A counter's or gauge's sum over its labels, of /metrics."""
        lines = [line.rpartition(" ") for line in self.page("metrics").splitlines() if line.startswith("litegpt_")]
        return sum(float(value) for label, _, value in lines if label.partition("{")[0] == f"litegpt_node_{name}")

    def events(self) -> list[dict[str, Any]]:
        """The lines of its log that are JSON."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


class Orthanc(Process):
    """A PACS with DICOM and DICOMweb, in a folder of its own."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.http = free_port(), free_port()
        config = configuration(folder.resolve(), OrthancPorts(self.http, self.port), None)
        config |= {"DicomAlwaysAllowStore": True, "DicomAlwaysAllowEcho": True}  # of any sender
        path = folder / "orthanc.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        super().__init__([program(), str(path)], folder / "orthanc.log")

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.port}"

    @property
    def dicomweb_url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def wait(self, seconds: float = 60) -> None:
        until(lambda: is_open(self.port) and is_open(self.http), seconds, "Orthanc does not listen", self)

    def counts(self) -> dict[str, Counter[str]]:
        """Of each study, its objects by modality; the study is Orthanc's own name of it."""
        query = json.dumps({"Level": "Series", "Query": {}, "Expand": True}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/tools/find", query)
        found: dict[str, Counter[str]] = defaultdict(Counter)
        with urllib.request.urlopen(request, timeout=60) as answer:
            for series in json.load(answer):
                found[series["ParentStudy"]][series["MainDicomTags"]["Modality"]] += len(series["Instances"])
        return found


class Sender:
    """Sends files by C-STORE until each was accepted, as a modality does.

    Attributes:
        accepted_at: by UID, when the answer came.
        repeats: attempts beyond the first.
        statuses: what was answered, and how often; None: nothing.
    """

    def __init__(self, address: tuple[str, str, int], files: Sequence[Path], pause: float = 0.0):
        self.address, self.files, self.pause = address, files, pause
        self.accepted_at: dict[str, float] = {}
        self.repeats, self.statuses = 0, Counter()

    def run(self, seconds: float = 600) -> None:
        """Returns when all were accepted.

        Raises:
            TimeoutError: they were not within so many seconds.
        """
        end = time.monotonic() + seconds
        sets = [pydicom.dcmread(file) for file in self.files]
        pairs = sorted({(data.SOPClassUID, data.file_meta.TransferSyntaxUID) for data in sets})
        ae = AE(SENDER)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        association, title, host, port = None, *self.address
        for data in sets:
            while True:
                if time.monotonic() > end:
                    raise TimeoutError(f"accepted were {len(self.accepted_at)} of {len(sets)}")
                status = None
                if association is None or not association.is_established:
                    association = ae.associate(host, port, [build_context(*pair) for pair in pairs], ae_title=title)
                if association.is_established:
                    try:
                        status = association.send_c_store(data).get("Status")
                    except RuntimeError:  # it ended meanwhile
                        pass
                self.statuses[status] += 1
                if status == 0:
                    self.accepted_at[data.SOPInstanceUID] = time.time()
                    break
                self.repeats += 1
                time.sleep(0.2)
            time.sleep(self.pause)
        if association is not None and association.is_established:
            association.release()


def radiographs(folder: Path, count: int, size: int) -> list[Path]:
    """So many phantoms, each a study of its own, of today."""
    from litegpt.datasets_scripts.phantom_cxr import write_release

    write_release(folder / "release", num_train=2, num_test=count, size=(size, size), seed=0, num_proc=2)
    files = sorted((folder / "release" / "test").iterdir())
    for file in files:
        data = pydicom.dcmread(file)
        data.StudyDate = f"{date.today():%Y%m%d}"
        data.save_as(file)
    return files


def until(holds, seconds: float, otherwise: str, process: Process | None = None) -> None:
    """Waits until `holds()`.

    Raises:
        TimeoutError: it did not within so many seconds, or the process has ended.
    """
    end = time.monotonic() + seconds
    while not holds():
        has_ended = process is not None and process.process.poll() is not None
        if has_ended or time.monotonic() > end:
            log = "" if process is None else "\n" + process.log.read_text(errors="replace")[-2000:]
            raise TimeoutError(otherwise + log)
        time.sleep(0.1)


class Workplace(tempfile.TemporaryDirectory):
    """A folder for a benchmark, as a path; it goes with the block."""

    def __enter__(self) -> Path:
        return Path(super().__enter__())


def main() -> int:
    """A node with the stand-in for a model."""
    from litegpt.inference_scripts.node.node import serve

    (args,) = parse([NodeArguments], None, "node_stand_ins.py", "A node without a model.")
    return serve(args, lambda _: StandInAnswerer(float(os.environ.get("STAND_IN_SECONDS", "0"))))


if __name__ == "__main__":
    sys.exit(main())
