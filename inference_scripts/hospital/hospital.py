"""A small hospital on this machine, to see it all: a PACS, LiteGPT's node, a viewer, and radiographs on their way.

    litegpt hospital --model_name_or_path outputs/demo/checkpoint --output_dir outputs/hospital
    litegpt hospital ... --radiographs folder_of_dicoms        # your own instead of eight synthetic ones

Starts Orthanc, which passes every chest radiograph on to the node; the node, which answers and sends results back
beside the radiograph; OHIF, in which all of it is looked at. Prints the addresses, waits for the answers, then stays
until Ctrl-C or SIGTERM, which stop all of it: status 0. Where one of them ends by itself, the others are stopped, and
it says which and why: status 1. Needs Orthanc (apt-get install orthanc orthanc-dicomweb) and, the first time, npm.

In the output folder: `orthanc/` and `node/` (database, spool, logs), `phantoms/`, and `addresses.json` while it runs.
The same command takes up again what is there; `--fresh` begins anew. It is a demonstration: nobody is asked for a
password. What to look at is in docs/hospital.md.
"""

import json
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from litegpt.common.arguments import parse
from litegpt.common.files import write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.inference_scripts.arguments import HospitalArguments
from litegpt.inference_scripts.hospital.children import Child, ChildError, free_port
from litegpt.inference_scripts.hospital.ohif import FetchError, ohif
from litegpt.inference_scripts.hospital.orthanc import AE_TITLE, Modality, Orthanc, OrthancPorts, missing
from litegpt.inference_scripts.hospital.studies import Filed, filed
from litegpt.inference_scripts.hospital.viewer import Viewer
from litegpt.inference_scripts.listing import files_below

NODE_TITLE = "LITEGPT"
KINDS = ["SR", "PR", "SC"]  # of results: all there are, since this is to see them
NODE_START_LIMIT = 1800  # seconds: a checkpoint of 7B takes minutes to load
BETWEEN_LOOKS = 0.5  # seconds
QUIET = 10  # seconds in which the node has nothing to do and no report comes: the rest will have none
PHANTOMS = {"num_train": 3, "num_test": 8, "size": 256, "seed": 7}  # as the demo's, which its checkpoint has not seen


class StopRequested(Exception):
    """Ctrl-C or SIGTERM came."""


class Stopping:
    """Whether somebody wants us to stop, asked where that is safe: no child is lost on the way."""

    def __init__(self):
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def check(self) -> None:
        if self.requested:
            raise StopRequested

    def _request(self, number: int, frame: object) -> None:
        self.requested = True


@program
def main(args: HospitalArguments) -> int:
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if (reason := missing()) is not None:
        raise SystemExit(reason)
    stopping = Stopping()
    try:
        with FileLock(output_dir / "hospital.lock", timeout=0), ExitStack() as running:
            return _run(args, output_dir, stopping, running)
    except Timeout:
        raise SystemExit(f"{output_dir} is in use by another litegpt hospital.") from None
    except (ChildError, FetchError) as error:
        raise SystemExit(str(error)) from None
    except StopRequested:
        print("Stopped. The same command takes it up again.")
        return 0


def _run(args: HospitalArguments, output_dir: Path, stopping: Stopping, running: ExitStack) -> int:
    """Starts everything, sends, and stays; `running` stops all that was started."""
    if args.fresh:
        for name in ("orthanc", "node"):
            shutil.rmtree(output_dir / name, ignore_errors=True)
    viewer_files = ohif(Path(args.ohif_dir))
    with refuse_bad_input():
        radiographs = _radiographs(args, output_dir)
    stopping.check()
    ports = OrthancPorts(args.pacs_port or free_port(), args.pacs_dicom_port or free_port())
    node_at = Modality(NODE_TITLE, args.node_port or free_port())
    monitoring = f"http://127.0.0.1:{(monitoring_port := free_port())}"
    pacs = running.enter_context(Orthanc(output_dir / "orthanc", ports, node_at))
    settings = {
        "port": node_at.port,
        "monitoring_port": monitoring_port,
        "pacs": f"{AE_TITLE}@127.0.0.1:{ports.dicom}",
    }
    node = running.enter_context(_node(args, output_dir / "node", settings))
    print(f"The node loads {args.model_name_or_path} ...", flush=True)
    node.wait_for(lambda: stopping.check() or _health(monitoring)["model_loaded"], NODE_START_LIMIT)
    try:
        viewer = running.enter_context(Viewer(viewer_files, ports.http, args.viewer_port))
    except OSError as error:
        raise SystemExit(f"The viewer cannot listen on port {args.viewer_port} ({error.strerror}).") from None
    addresses = {
        "viewer": viewer.url,
        "pacs": pacs.url,
        "dicomweb": f"{viewer.url}/dicom-web",
        "pacs_dicom": f"{AE_TITLE}@127.0.0.1:{ports.dicom}",
        "node_dicom": f"{NODE_TITLE}@127.0.0.1:{node_at.port}",
        "node_health": f"{monitoring}/health",
        "pids": {child.name: child.pid for child in (pacs, node)},
    }
    write_text(output_dir / "addresses.json", json.dumps(addresses, indent=2) + "\n")
    running.callback((output_dir / "addresses.json").unlink, missing_ok=True)
    print(
        f"  viewer (OHIF)    {viewer.url}\n"
        f"  PACS (Orthanc)   {pacs.url}   {addresses['pacs_dicom']}   DICOMweb {addresses['dicomweb']}\n"
        f"  node (LiteGPT)   {addresses['node_dicom']}   {addresses['node_health']}",
        flush=True,
    )

    def rest() -> None:
        """A moment, after which nobody wants us to stop and all children still run."""
        time.sleep(BETWEEN_LOOKS)
        stopping.check()
        pacs.check()
        node.check()

    sent = _send(pacs, radiographs, stopping)
    answered = _wait_for_answers(pacs, sent, monitoring, rest)
    print(f"{answered} of {len(sent)} answered: reports, presentation states and overlays are in the PACS.")
    if answered < len(sent):
        print(f"The others cannot be: {output_dir / 'node' / 'spool' / 'failed'} says why.")
    print("Ctrl-C stops all of it.", flush=True)
    while True:
        rest()


def _node(args: HospitalArguments, folder: Path, settings: dict[str, Any]) -> Child:
    """Starts `litegpt node` with a configuration file of these settings and of what it is asked."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "model_name_or_path": args.model_name_or_path,
        "spool": str(folder / "spool"),
        "ae_title": NODE_TITLE,
        "calling_ae_titles": [AE_TITLE],
        "kinds": KINDS,
        **settings,
    }
    if args.threshold is not None:
        settings["threshold"] = args.threshold
    write_text(folder / "node.yaml", json.dumps(settings, indent=2) + "\n")  # JSON is YAML
    command = [sys.executable, "-m", "litegpt", "node", "--config", str(folder / "node.yaml")]
    return Child("the node", command, folder / "node.log", environment={"PYTHONUNBUFFERED": "1"})


def _health(monitoring: str) -> dict[str, Any]:
    """What the node says of itself; before it says anything, that it has not loaded its checkpoint."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{monitoring}/health", timeout=10) as response:
            return json.load(response)
    except urllib.error.HTTPError as trouble:  # says what is not well
        return json.load(trouble)
    except OSError:
        return {"model_loaded": False, "queue": {}}


def _radiographs(args: HospitalArguments, output_dir: Path) -> list[Filed]:
    """What is sent; says what cannot be, and what is made up."""
    folders = args.radiographs
    if folders is None:
        from litegpt.datasets_scripts.phantom_cxr import write_release  # imports what draws them

        write_release(output_dir / "phantoms", **PHANTOMS)
        folders = [str(output_dir / "phantoms" / "test")]
    found, made_up = [], Counter()
    for path in files_below([Path(folder) for folder in folders]).files:
        try:
            found.append(filed(path))
        except (ValueError, OSError) as error:
            print(f"Not sent: {error}", file=sys.stderr)
        else:
            made_up.update(found[-1].made_up)
    if not found:
        raise ValueError(f"there is no DICOM radiograph in {' '.join(folders)}.")
    for keyword, count in made_up.items():
        print(f"{keyword} is made up for {count} of {len(found)} radiographs, which have none.")
    return found


def _send(pacs: Orthanc, radiographs: Sequence[Filed], stopping: Stopping) -> list[Filed]:
    """Stores the radiographs; those that were there already and never answered go to the node once more.

    Returns:
        what the PACS took.
    """
    taken = []
    for radiograph in radiographs:
        stopping.check()
        try:
            stored = pacs.store(radiograph.data)
            if stored["Status"] == "AlreadyStored" and not _reports(pacs, radiograph.study):
                pacs.send(stored["ID"])
        except urllib.error.HTTPError as error:
            print(f"Not sent: the PACS refused {radiograph.path} ({error}).", file=sys.stderr)
        else:
            taken.append(radiograph)
    print(f"{len(taken)} radiographs sent.", flush=True)
    return taken


def _reports(pacs: Orthanc, study: str) -> int:
    """How many structured reports the study has."""
    return len(pacs.find("Instance", StudyInstanceUID=study, Modality="SR"))


def _wait_for_answers(pacs: Orthanc, sent: Sequence[Filed], monitoring: str, rest: Callable[[], None]) -> int:
    """Waits until every radiograph has a report in its study, or the node has nothing more to do; returns how many."""
    wanted = Counter(radiograph.study for radiograph in sent)
    answered, since = -1, time.monotonic()
    while True:
        reports = sum(min(count, _reports(pacs, study)) for study, count in wanted.items())
        queue = _health(monitoring)["queue"]
        if reports != answered or queue.get("unanswered") or queue.get("undelivered"):
            answered, since = reports, time.monotonic()
        if answered == len(sent) or time.monotonic() - since > QUIET:
            return answered
        rest()


if __name__ == "__main__":
    sys.exit(main(*parse([HospitalArguments], None, "hospital.py", __doc__)))
