"""The radiographs that people have open: in memory alone, by a token that nobody can guess, for a while.

    shelf = Shelf()
    token = shelf.put(session, Radiograph(data, received))
    shelf.get(token).line = line         # KeyError where it is gone
    shelf.forget(session)                # the page was closed

Bounded in bytes and in time: what was used longest ago leaves first, and the page asks for its file again.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from litegpt.inference_scripts.inbox import Received

MOST_BYTES = 1 << 30
SECONDS = 600  # since it was last used


@dataclass
class Radiograph:
    """One that somebody has open.

    Attributes:
        data: its file.
        received: its picture, and what a line says of it.
        line: the answer to it, where there is one yet.
        words: what the pipeline returned to each question in words, by question.
    """

    data: bytes
    received: Received
    line: dict[str, Any] | None = None
    words: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return len(self.data) + self.received.picture.width * self.received.picture.height


class Shelf:
    """Radiographs by token.

    Args:
        most_bytes: that all together may take; the newest stays, whatever it takes.
        seconds: that one stays after it was last used.
        clock: seconds that pass.
    """

    def __init__(
        self, most_bytes: int = MOST_BYTES, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ):
        self.most_bytes, self.seconds, self.clock = most_bytes, seconds, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, float, Radiograph]] = OrderedDict()  # the longest unused first

    def put(self, session: str, radiograph: Radiograph) -> str:
        """The token of a radiograph that a page, by its session, has opened."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = (session, self.clock(), radiograph)
            self._clear()
        return token

    def get(self, token: str) -> Radiograph:
        """Raises KeyError where it is no longer kept."""
        with self._lock:
            self._clear()
            session, _, radiograph = self._kept.pop(token)
            self._kept[token] = (session, self.clock(), radiograph)
            return radiograph

    def forget(self, session: str) -> None:
        """Drops all that a page has opened."""
        with self._lock:
            for token in [token for token, (owner, _, _) in self._kept.items() if owner == session]:
                del self._kept[token]

    def clear_old(self) -> None:
        """Drops what nobody has used for a while."""
        with self._lock:
            self._clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)

    def _clear(self) -> None:
        oldest = self.clock() - self.seconds
        total = sum(radiograph.bytes for _, _, radiograph in self._kept.values())
        for token, (_, used, radiograph) in list(self._kept.items()):
            if used >= oldest and (total <= self.most_bytes or len(self._kept) == 1):
                break
            total -= radiograph.bytes
            del self._kept[token]
