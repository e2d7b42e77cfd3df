"""What the node says of itself: a log of JSON lines, counters, and two pages over HTTP.

    monitor = Monitor()
    monitor.log("received", uid="1.2.3", bytes=9_000_000)     # {"time": "...", "event": "received", "uid": ...}
    monitor.count("received")
    with monitor.timed("answer", radiographs=8): ...
    pages = Pages(monitor, health, ("127.0.0.1", 11180))      # /metrics, /health, /alive

Everything that is said of a radiograph is its UID: no tag of a patient, no value of a file. Libraries quote values in
their messages, so theirs are kept silent, and of an error that is not ours the kind and the place are said alone.
"""

import json
import logging
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "dicomweb_client", "retrying", "urllib3", "PIL")
PREFIX = "litegpt_node"
COUNTED = {  # name -> what it counts
    "received": "radiographs accepted",
    "repeated": "radiographs that came again and were known",
    "refused": "objects and associations refused, by reason",
    "swept": "radiographs fetched by the sweep",
    "answered": "radiographs answered",
    "failed": "radiographs put into failed/, by reason",
    "delivered": "radiographs whose results are in the PACS",
    "retries": "repeated attempts, by what was tried again",
}


class Monitor:
    """Counters, seconds of each step, and the log; for all threads.

    Args:
        write: takes a line of the log.
    """

    def __init__(self, write: Callable[[str], Any] | None = None):
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._timed: Counter[str] = Counter()
        self.last: dict[str, float] = {}  # event -> when it was logged last

    def log(self, event: str, **facts: Any) -> None:
        """A line of the log; `facts` are numbers, UIDs and sentences of ours."""
        now = datetime.now(timezone.utc)
        with self._lock:
            self.last[event] = now.timestamp()
            self._write(json.dumps({"time": now.isoformat(timespec="milliseconds"), "event": event, **facts}))

    def count(self, name: str, reason: str = "", by: int = 1) -> None:
        with self._lock:
            self._counts[name, reason] += by

    def refuse(self, reason: str, **facts: Any) -> None:
        """Counts and logs something that was refused."""
        self.count("refused", reason)
        self.log("refused", reason=reason, **facts)

    def took(self, step: str, seconds: float, radiographs: int = 1) -> None:
        """Adds the seconds that a step took for one or several radiographs."""
        with self._lock:
            self._seconds[step] += seconds
            self._timed[step] += radiographs

    @contextmanager
    def timed(self, step: str, radiographs: int = 1) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.took(step, time.monotonic() - start, radiographs)

    def total(self, name: str) -> int:
        with self._lock:
            return sum(count for (counted, _), count in self._counts.items() if counted == name)

    def metrics(self, gauges: dict[str, float]) -> str:
        """In Prometheus' text format, with the gauges' present values."""
        with self._lock:
            counts, seconds, timed = dict(self._counts), dict(self._seconds), dict(self._timed)
        lines = []
        for name, meaning in COUNTED.items():
            lines += [f"# HELP {PREFIX}_{name}_total {meaning}", f"# TYPE {PREFIX}_{name}_total counter"]
            found = {reason: count for (counted, reason), count in counts.items() if counted == name} or {"": 0}
            for reason, count in sorted(found.items()):
                lines.append(f"{PREFIX}_{name}_total{_label('reason', reason)} {count}")
        lines += [
            f"# HELP {PREFIX}_step_seconds what each radiograph's steps took",
            f"# TYPE {PREFIX}_step_seconds summary",
        ]
        for step in sorted(timed):
            lines.append(f"{PREFIX}_step_seconds_sum{_label('step', step)} {seconds[step]:.6f}")
            lines.append(f"{PREFIX}_step_seconds_count{_label('step', step)} {timed[step]}")
        for name, value in gauges.items():
            lines += [f"# TYPE {PREFIX}_{name} gauge", f"{PREFIX}_{name} {value}"]
        return "\n".join(lines) + "\n"


class Pages:
    """`/metrics`, `/health` and `/alive` at an address; they are there until `close`.

    Args:
        health: returns what is wrong, as sentences, the facts of the health page, and the gauges.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        monitor: Monitor,
        health: Callable[[], tuple[list[str], dict[str, Any], dict[str, float]]],
        address: tuple[str, int],
    ):
        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds that a client may take

            def do_GET(self) -> None:
                wrong, facts, gauges = health()
                if self.path == "/metrics":
                    return self.send(200, "text/plain; version=0.0.4", monitor.metrics(gauges))
                if self.path == "/health":
                    body = {"status": "trouble" if wrong else "ok", "wrong": wrong, **facts}
                    return self.send(503 if wrong else 200, "application/json", json.dumps(body) + "\n")
                if self.path == "/alive":
                    return self.send(200, "text/plain", "alive\n")
                return self.send(404, "text/plain", "there are /metrics, /health and /alive\n")

            def send(self, status: int, kind: str, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="pages", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def silence_libraries() -> None:
    """Keeps what libraries say of files, in which they quote values, from the terminal and from logs."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")


def kind_and_place(error: BaseException) -> str:
    """Of an error whose message may quote a file: "ValueError at result_objects.py:123"."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
        if frames
        else type(error).__name__
    )


def _label(name: str, value: str) -> str:
    return f'{{{name}="{value}"}}' if value else ""
