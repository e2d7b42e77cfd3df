"""A DICOM node: radiographs come in, reports and presentation states go back to the PACS.

    litegpt node --model_name_or_path outputs/demo/checkpoint --spool /var/lib/litegpt/spool \\
        --calling_ae_titles PACS --pacs PACS@pacs.hospital.example:104
    litegpt node --config node.yaml      # the same names; deployment/ beside this file has an example

In: CR and DX by C-STORE from the AE titles that are named, and with `--sweep_seconds` what a sweep of the PACS's
DICOMweb services finds unanswered. Out: a structured report and a presentation state for each, by C-STORE or, without
`--pacs`, by STOW-RS; they have the same UIDs each time they are made. The queue is a folder: a node that is killed
continues where it was. What cannot be answered or delivered lies in the spool's failed/, with the reason.

The log has a JSON line for each event; of a radiograph it says the UID alone. /health, /metrics (Prometheus) and
/alive are at the monitoring port. SIGTERM and Ctrl-C end the node; the status is 0, the queue stays. docs/node.md is
the guide.
"""

import hashlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.inference_scripts.answerers import Answerer, AnswerSettings, LocalAnswerer, ServerAnswerer
from litegpt.inference_scripts.arguments import NodeArguments
from litegpt.inference_scripts.node.backoff import Backoff
from litegpt.inference_scripts.node.delivery import Delivery
from litegpt.inference_scripts.node.monitoring import Monitor, Pages, kind_and_place, silence_libraries
from litegpt.inference_scripts.node.pacs import DicomPacs, WebPacs, dicomweb_client
from litegpt.inference_scripts.node.receiver import Receiver
from litegpt.inference_scripts.node.spool import Spool
from litegpt.inference_scripts.node.sweep import Sweep, SweepSettings
from litegpt.inference_scripts.node.worker import Worker, WorkSettings

PRUNING = 3600  # seconds from one look for what is too old to the next


@program
def main(args: NodeArguments) -> int:
    return serve(args, load_answerer)


def serve(args: NodeArguments, load: Callable[[NodeArguments], Answerer]) -> int:
    """Runs the node until it is told to end; returns its status.

    Args:
        load: returns who answers; a ConnectionError of it is waited out, any other error ends the node.
    """
    silence_libraries()
    with refuse_bad_input():
        spool = Spool(Path(args.spool), args.reserve_megabytes * 10**6)
    with spool:
        return Node(args, spool).run(load)


class Node:
    """The parts, and what they are doing.

    Args:
        spool: is held by the node.
    """

    def __init__(self, args: NodeArguments, spool: Spool):
        self.args, self.spool = args, spool
        self.monitor, self.stop, self.status = Monitor(), threading.Event(), 0
        self.worker: Worker | None = None
        self.delivery: Delivery | None = None
        self.sweep: Sweep | None = None
        self.threads: list[threading.Thread] = []

    def run(self, load: Callable[[NodeArguments], Answerer]) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        with refuse_bad_input():
            pacs = DicomPacs(self.args) if self.args.pacs is not None else WebPacs(self.args)
            client = dicomweb_client(self.args) if self.args.sweep_seconds else None
            pages = Pages(self.monitor, self.health, (self.args.monitoring_host, self.args.monitoring_port))
            receiver = Receiver(self.args, self.spool, self.monitor)
        try:
            self.monitor.log("listening", port=receiver.port, monitoring_port=pages.port, **self.spool.lengths())
            with refuse_bad_input():
                answerer = self._loaded(load)  # radiographs are received meanwhile
            if answerer is not None:
                self._work(answerer, pacs, client)
        finally:
            self.stop.set()
            receiver.close()
            for thread in self.threads:
                thread.join()
            pages.close()
            self.monitor.log("ended", status=self.status, **self.spool.lengths())
        return self.status

    def _loaded(self, load: Callable[[NodeArguments], Answerer]) -> Answerer | None:
        """Who answers; None where the node ends before."""
        backoff = Backoff()
        while not self.stop.is_set():
            try:
                return load(self.args)
            except ConnectionError:
                seconds = backoff.next()
                why = "the server of answers cannot be reached"
                self.monitor.log("not_answered", why=why, again_in=round(seconds, 1))
                self.stop.wait(seconds)
        return None

    def _work(self, answerer: Answerer, pacs: DicomPacs | WebPacs, client: Any) -> None:
        args = self.args
        facts = {**answerer.facts, **({} if args.source == "findings" else {"boxes": args.source})}
        # What is done is remembered for these answers and these kinds of results: others are made anew.
        self.spool.remember(hashlib.sha256(json.dumps([facts, sorted(args.kinds)]).encode()).hexdigest()[:16])
        how = WorkSettings(args.batch_size, args.reading_threads, args.kinds, args.source)
        self.worker = Worker(self.spool, answerer, how, self.monitor)
        self.delivery = Delivery(pacs, self.spool, self.monitor, args.delivery_tries)
        self.monitor.log("model_loaded", **answerer.source.line(), **self.spool.lengths())
        self._start("delivery", lambda: self.delivery.run(self.stop))
        self._start("pruning", self._prune)
        if client is not None:
            settings = SweepSettings(args.sweep_days, sorted(args.kinds)[-1])
            self.sweep = Sweep(client, self.spool, facts, settings, self.monitor)
            self._start("sweep", lambda: self.sweep.run(self.stop, args.sweep_seconds))
        self._guarded(lambda: self.worker.run(self.stop))

    def _start(self, name: str, run: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=self._guarded, args=(run,), name=name))
        self.threads[-1].start()

    def _guarded(self, run: Callable[[], None]) -> None:
        """Ends the whole node, with status 1, where one of its parts ends by an error: it is to be started again."""
        try:
            run()
        except Exception as error:
            self.monitor.log("crashed", part=threading.current_thread().name, why=kind_and_place(error))
            self.status = 1
            self.stop.set()

    def _prune(self) -> None:
        while True:
            try:
                self.spool.prune(self.args.keep_done_days, self.args.keep_failed_days)
            except OSError as error:
                self.monitor.log("spool_trouble", why=error.strerror)
            if self.stop.wait(PRUNING):
                return

    def health(self) -> tuple[list[str], dict[str, Any], dict[str, float]]:
        """What is wrong, as sentences; the facts of the health page; the gauges."""
        lengths, free = self.spool.lengths(), shutil.disk_usage(self.spool.folder).free
        parts = [part for part in (self.worker, self.delivery, self.sweep) if part is not None]
        wrong = [part.trouble for part in parts if part.trouble is not None]
        if self.worker is None:
            wrong.append("the model is not loaded yet")
        if self.spool.is_full():
            wrong.append("the spool's disk is full: radiographs are refused")
        last = self.monitor.last
        facts = {
            "model_loaded": self.worker is not None,
            "pacs_reached": None if self.delivery is None else self.delivery.reached,
            "last_received": last.get("received"),
            "last_answered": last.get("answered"),
            "last_delivered": last.get("delivered"),
            "queue": lengths,
            "free_bytes": free,
        }
        gauges = {f"{name}_radiographs": count for name, count in lengths.items()}
        return wrong, facts, {**gauges, "free_bytes": free, "time_seconds": time.time()}


def load_answerer(args: NodeArguments) -> Answerer:
    """The checkpoint here, or at a server.

    Raises:
        OSError, ValueError: as `LocalAnswerer`'s and `ServerAnswerer`'s; fused findings are of checkpoints with a
            detector.
    """
    settings = AnswerSettings(args.model_name_or_path, args.constrained, args.threshold, args.candidates, args.views)
    if args.base_url is not None:
        return ServerAnswerer(settings, args.base_url)
    answerer = LocalAnswerer(settings)
    if args.source == "fused_findings" and not answerer.pipe.model.config.num_detector_labels:
        raise ValueError(f"{args.model_name_or_path} has no detector: take --source findings.")
    return answerer


if __name__ == "__main__":
    sys.exit(main(*parse([NodeArguments], None, "node.py", __doc__)))
