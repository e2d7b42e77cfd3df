"""Which radiographs may have ended the node: those that it worked on when it was killed, ran out of memory or crashed.

    suspects = Suspects(spool.folder / "at_work.json")
    suspects.alone            # {"1.2.3": 1}: to be answered one at a time, with how often the node ended at each
    suspects.begin(["1.2.4", "1.2.5"]) ... suspects.end(["1.2.4", "1.2.5"])

A decoder that crashes takes the whole process along: no `except` sees it, and a node that is started again would run
into the same file for ever. So the names of what is at work are kept in a file. What is named there at a start is
answered alone; the one at which the node ended `DEADLY` times is put aside.
"""

import json
import threading
from collections.abc import Iterable
from pathlib import Path

from litegpt.common.files import write_text

DEADLY = 3


class Suspects:
    """The file of what is at work.

    Attributes:
        alone: UIDs that were at work when the node ended, with how often that was.
    """

    def __init__(self, path: Path):
        self.path, self._lock, self._at_work = path, threading.Lock(), set()
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # there is none; a broken one names nobody
            kept = {"at_work": [], "ended": {}}
        self.alone: dict[str, int] = kept["ended"]
        for uid in kept["at_work"]:
            self.alone[uid] = self.alone.get(uid, 0) + 1
        self._write()

    def is_deadly(self, uid: str) -> bool:
        return self.alone.get(uid, 0) >= DEADLY

    def begin(self, uids: Iterable[str]) -> None:
        """Notes that they are at work."""
        with self._lock:
            self._at_work |= set(uids)
            self._write()

    def end(self, uids: Iterable[str]) -> None:
        """Notes that they are no longer, and none of them ended the node."""
        with self._lock:
            for uid in uids:
                self._at_work.discard(uid)
                self.alone.pop(uid, None)
            self._write()

    def close(self) -> None:
        """Notes that the node ends as it should: nothing is at work."""
        with self._lock:
            self._at_work.clear()
            self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps({"at_work": sorted(self._at_work), "ended": self.alone}))
