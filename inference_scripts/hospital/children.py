"""Programs that another one starts, watches and stops.

    with Child("node", [sys.executable, "-m", "litegpt", "node", ...], Path("outputs/hospital/node.log")) as node:
        node.wait_for(lambda: is_open(port), seconds=60)     # ChildError, with the log's last lines, where it ends
    # here it has ended, and what it started, too

In: a command. Out: a process in a session of its own, so that Ctrl-C reaches the program alone that started it, which
then stops its children in the order that it wants. Where it is killed itself, the system ends them. What they print
goes into a file each.
"""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LAST_LINES = 5  # of a log, in a message
BETWEEN_LOOKS = 0.1  # seconds
PR_SET_PDEATHSIG = 1  # of Linux's prctl
LIBC = ctypes.CDLL(None)


class ChildError(RuntimeError):
    """A program did not start, or ended by itself; the message says which, why and where its log is."""


class Child:
    """A running program.

    Attributes:
        name: what people call it.
        log: the file with what it printed; a new start writes it anew.
        pid: of the process, which leads a group of its own.

    Args:
        command: its words.
        folder: where it runs; None: where we do.
        environment: variables that it gets beside ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ):
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
            except OSError as error:
                raise ChildError(f"{name} cannot be started: {command[0]} ({error.strerror}).") from None
        self.pid = self._process.pid

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raises a ChildError where the program has ended."""
        status = self._process.poll()
        if status is not None:
            how = f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
            raise ChildError(f"{self.name} has ended by itself ({how}). {self.said()}")

    def wait_for(self, ready: Callable[[], bool], seconds: float) -> None:
        """Waits until it is ready.

        Raises:
            ChildError: it ended before, or is not ready in that time.
        """
        limit = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > limit:
                raise ChildError(f"{self.name} does not answer after {seconds:g} seconds. {self.said()}")
            time.sleep(BETWEEN_LOOKS)

    def said(self) -> str:
        """Where its log is, and the last lines of it."""
        lines = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"Its log is {self.log}" + (", which ends:\n" + "\n".join(lines[-LAST_LINES:]) if lines else ".")

    def stop(self, seconds: float = 20) -> None:
        """Ends it, and whatever it started; by force what is left after that time."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # none of the group is left
            pass


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Has the system end this process when the one that started it has ended, however that was (Linux)."""
    LIBC.prctl(PR_SET_PDEATHSIG, number)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
