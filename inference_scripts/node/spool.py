"""The node's queue: folders of its spool, in which a radiograph's UID stands where its work stands.

    receiving/UID.NUMBER.part      comes in; emptied when the node starts
    incoming/UID.dcm               whole and synced: the sender was told so; it stays until its results are delivered
    results/UID/SR.dcm ...         its results, which wait for the PACS
    done/KEY/UID                   empty: delivered, as this checkpoint with these settings answers it
    failed/UID/image.dcm, reason.json, results/

    with Spool(Path("/var/lib/litegpt/spool"), reserve=1 << 30) as spool:   # ValueError: another node holds it
        spool.remember("3f2a...")               # what tells answers of this checkpoint from others'
        spool.accept("1.2.3", part)             # from here on a kill -9 loses nothing
        spool.keep_results("1.2.3", {"SR": dataset, "PR": dataset})
        spool.finish("1.2.3")

Each step ends with a rename, so that a node that is killed continues with what the folders say; a step that is done
twice leaves what it left the first time. Names are UIDs alone. All folders are the owner's (0700): radiographs are in
them.
"""

import fcntl
import itertools
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pydicom

FOLDERS = ("receiving", "incoming", "results", "done", "failed")
DAY = 24 * 3600


class Spool:
    """The folders, held by one node at a time.

    Attributes:
        unanswered, undelivered: UIDs, in the order in which they came; one may be there twice, or done meanwhile.

    Args:
        folder: is made.
        reserve: bytes of its disk that incoming radiographs leave free.

    Raises:
        ValueError: another node holds it.
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path, reserve: int = 0):
        self.folder, self.reserve, self.key = folder, reserve, None
        for name in ("", *FOLDERS):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.receiving, self.incoming, self.results, self.done, self.failed = (folder / name for name in FOLDERS)
        self.unanswered: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.undelivered: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._accepting, self._numbers = threading.Lock(), itertools.count()
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ValueError(f"{folder} is held by another node: end that one, or choose another spool.") from None
        for path in [*self.receiving.iterdir(), *self.results.glob("*.incomplete")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.close()

    def remember(self, key: str) -> None:
        """Takes up what an earlier run left, and from now on keeps what is done under `key`.

        Args:
            key: a name for all that makes an answer another answer; what was done under others may come again.
        """
        (self.done / key).mkdir(mode=0o700, exist_ok=True)
        self.key = key
        for path in sorted(self.incoming.glob("*.dcm"), key=lambda path: path.stat().st_mtime):
            if self.is_done(path.stem):
                self._clear(path.stem)
            elif not (self.results / path.stem).exists():
                self.unanswered.put(path.stem)
        for folder in sorted(self.results.iterdir(), key=lambda path: path.stat().st_mtime):
            if self.is_done(folder.name):
                self._clear(folder.name)
            else:
                self.undelivered.put(folder.name)

    # --- A radiograph comes in ---

    def is_full(self) -> bool:
        return shutil.disk_usage(self.folder).free < self.reserve

    def part(self, uid: str) -> Path:
        """A name, not yet taken, under which a radiograph comes in."""
        return self.receiving / f"{uid}.{next(self._numbers)}.part"

    def accept(self, uid: str, part: Path) -> None:
        """Takes a radiograph, synced under the name `part`, into the queue; it is safe when this returns."""
        with self._accepting:
            os.replace(part, self.image(uid))
            sync(self.incoming)
        self.unanswered.put(uid)

    def is_known(self, uid: str) -> bool:
        """Whether it was delivered, or waits in the queue."""
        return self.image(uid).exists() or self.is_done(uid)

    # --- It is answered ---

    def image(self, uid: str) -> Path:
        return self.incoming / f"{uid}.dcm"

    def waits(self, uid: str) -> bool:
        """Whether it is still to be answered; what is done already, leaves the queue."""
        if self.is_done(uid):
            self._clear(uid)
        return self.image(uid).exists() and not (self.results / uid).exists()

    def keep_results(self, uid: str, objects: Mapping[str, pydicom.Dataset]) -> None:
        """Keeps the results of a radiograph, by their kind, until they are delivered."""
        temporary = self.results / f"{uid}.incomplete"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        for kind, dataset in objects.items():
            dataset.save_as(temporary / f"{kind}.dcm", enforce_file_format=True)
            sync(temporary / f"{kind}.dcm")
        sync(temporary)
        os.rename(temporary, self.results / uid)
        sync(self.results)
        self.undelivered.put(uid)

    # --- Its results are delivered ---

    def result_files(self, uid: str) -> list[Path]:
        """The results that wait for the PACS; none of what is delivered already."""
        if self.is_done(uid):
            self._clear(uid)
        return sorted((self.results / uid).glob("*.dcm"))

    def is_done(self, uid: str) -> bool:
        return self.key is not None and (self.done / self.key / uid).exists()

    def finish(self, uid: str) -> None:
        """Notes that the results are in the PACS, then deletes them and, last, the radiograph."""
        marker = self.done / self.key / uid
        marker.touch(mode=0o600)
        sync(marker.parent)
        self._clear(uid)
        shutil.rmtree(self.failed / uid, ignore_errors=True)  # of an earlier attempt

    def _clear(self, uid: str) -> None:
        shutil.rmtree(self.results / uid, ignore_errors=True)
        self.image(uid).unlink(missing_ok=True)

    # --- It cannot be answered or delivered ---

    def fail(self, uid: str, reason: Mapping[str, Any]) -> None:
        """Puts a radiograph, and its results where there are any, aside, with the reason."""
        folder = self.failed / uid
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "reason.json").write_text(json.dumps(reason) + "\n", encoding="utf-8")
        if (self.results / uid).exists():
            shutil.rmtree(folder / "results", ignore_errors=True)
            os.rename(self.results / uid, folder / "results")
        if self.image(uid).exists():
            os.replace(self.image(uid), folder / "image.dcm")
        sync(folder)

    def has_failed(self, uid: str) -> bool:
        return (self.failed / uid / "image.dcm").exists()

    # --- How much there is, and how long it stays ---

    def lengths(self) -> dict[str, int]:
        """How many radiographs wait for an answer, wait for the PACS, and have failed."""
        names = {name: set(os.listdir(self.folder / name)) for name in ("incoming", "results", "failed")}
        answered = {name for name in names["results"] if not name.endswith(".incomplete")}
        waiting = {name.removesuffix(".dcm") for name in names["incoming"]} - answered
        return {"unanswered": len(waiting), "undelivered": len(answered), "failed": len(names["failed"])}

    def prune(self, done_days: float, failed_days: float) -> None:
        """Forgets what was done, and deletes what failed, so many days ago."""
        for marker in self._older(self.done.glob("*/*"), done_days):
            marker.unlink(missing_ok=True)
        for folder in self._older(self.failed.iterdir(), failed_days):
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _older(paths: Iterator[Path], days: float) -> Iterator[Path]:
        return (path for path in paths if path.stat().st_mtime < time.time() - days * DAY)


def sync(path: Path) -> None:
    """Waits until a file, or which names a folder has, is on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
