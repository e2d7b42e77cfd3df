"""Work in shards that a test can wait for: a shard is a file with its number's square; some kill their worker."""

import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from litegpt.common.files import write_text


@dataclass(frozen=True)
class SquareWork:
    """Squares in files.

    Attributes:
        kills: number -> what happens to who computes it: "kill" (signal 9), "exit", "memory" or "bug", "full" (disk);
            "kill once" is a kill at the first time alone.
        seconds: that a shard takes.
        start_fails: the worker dies as it loads.
    """

    folder: Path
    kills: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    start_fails: bool = False

    def start(self) -> Callable[[int], None]:
        if self.start_fails:
            os._exit(7)
        return self.compute

    def name(self, number: int) -> str:
        return f"shard-{number:02d}"

    def is_done(self, number: int) -> bool:
        return self.result(number).exists()

    def result(self, number: int) -> Path:
        return self.folder / "results" / f"{self.name(number)}.txt"

    def compute(self, number: int) -> None:
        with self.tried(number).open("a") as file:
            file.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")
        time.sleep(self.seconds)
        what = self.kills.get(number)
        if what == "kill" or what == "kill once" and len(self.tries(number)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            os._exit(3)
        if what == "memory":
            raise MemoryError
        if what == "bug":
            raise LookupError(f"a bug in {number}")
        if what == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/result")
        write_text(self.result(number), f"{number**2}")

    def tried(self, number: int) -> Path:
        return self.folder / f"tried-{number}"

    def tries(self, number: int) -> list[str]:
        """Process and threads of each try."""
        return self.tried(number).read_text().splitlines() if self.tried(number).exists() else []
