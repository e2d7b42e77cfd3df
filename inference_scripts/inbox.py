"""The radiographs that a program is given: which of them are still to be answered, and which can be read.

In: files and folders, also remote ones (s3://bucket/inbox), and the predictions of an earlier run. Out: the paths to
answer, one by one their pictures, the lines of their answers, and in words what became of all files.

    settings, source = {"model": "outputs/demo/checkpoint"}, provenance(...).line()
    inbox = Inbox(["inbox", "a.dicom"], settings, source, Path("outputs/predictions/predictions.jsonl"))
    for received in inbox.readable(inbox.pending, windowing="dicom"):
        line = inbox.answer(received, pipe(received.picture))
    print(inbox.summary())

An answer is for the bytes that a file had: a line has their digest. A file that was replaced is answered anew, and so
is every file where the checkpoint was trained or calibrated again in its place.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.addresses import is_remote, place, read_bytes, shown
from litegpt.common.digests import Digests, state_of_file
from litegpt.common.files import complete_lines, write_text
from litegpt.common.overlay import is_drawn
from litegpt.common.read_ahead import ahead
from litegpt.inference_scripts.dicom_identity import identity, other_kind
from litegpt.inference_scripts.listing import DIGESTS, files_below
from litegpt.processing.dicom import MAX_BYTES, RadiographError, unusable
from litegpt.processing.doubts import collected_warnings, short
from litegpt.processing.radiograph import load_radiograph
from litegpt.processing.tasks import DEFAULT_TASKS

DRAWN = "pictures with answers drawn on them"
MAX_NEW_TOKENS = 512  # of an answer, unless something else is asked for
NAMED = 20  # files of one kind in the summary
READ_AHEAD = 16  # radiographs


@dataclass(frozen=True)
class Received:
    """A radiograph that can be answered.

    Attributes:
        path: its file, or its address.
        picture: 8-bit grey.
        facts: what a line of the predictions says of it: file, digest, UIDs, view, laterality, width and height.
    """

    path: Path | str
    picture: Image.Image
    facts: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """A file that cannot be answered.

    Attributes:
        kind: what it is that is no radiograph; None of a radiograph that cannot be used.
        reason: one sentence.
    """

    kind: str | None
    reason: str


class Inbox:
    """What a program is asked about, and what became of it.

    Attributes:
        asked: by question, as `question` makes them, the files that were given.
        pending: the files that the predictions do not answer with these settings.
        answered: the questions that the predictions answer, as `question` makes them.
        skipped: by kind, the files that are no radiographs.
        failures: how many could not be used.
        next_number: above the number of every picture that the predictions name.

    Args:
        radiographs: files, and folders of them; paths or addresses.
        settings: that make an answer another answer, as `question` reads them.
        source: what else each line says of the checkpoint.
        predictions: the file of the run; its folder is made. Answers about what a file was before are removed.
    """

    def __init__(
        self, radiographs: Sequence[str], settings: dict[str, Any], source: dict[str, Any], predictions: Path
    ):
        predictions.parent.mkdir(parents=True, exist_ok=True)
        self.settings, self.predictions = settings, predictions
        self.digests = Digests(predictions.parent / DIGESTS)
        self.source = {**source, "checkpoint_sha256": self.digests.checkpoint(settings["model"])}
        listing = files_below([place(path) for path in radiographs])
        self.skipped = {DRAWN: listing.drawn} if listing.drawn else {}
        self.failures = 0
        asked = {question({**settings, "file": str(path)}): path for path in listing.files}
        self.asked = asked
        lines = self._without_outdated(complete_lines(predictions), asked)
        self.answered = {question(line) for line in lines}
        self.pending = [path for asked_for, path in asked.items() if asked_for not in self.answered]
        numbers = [int(line["overlay"].partition("_")[0]) for line in lines if "overlay" in line]
        self.next_number = 1 + max(numbers, default=-1)

    def readable(self, paths: Sequence[Path | str], windowing: str, threads: int = 1) -> Iterator[Received]:
        """The radiographs that can be used; what is wrong with the others, or odd about these, to standard error.

        Args:
            threads: that read ahead, while what was read is answered.
        """
        with ThreadPoolExecutor(threads) as pool:
            reading = ahead(lambda path: sort_out(path, partial(self._read, path), windowing), paths, pool, READ_AHEAD)
            for path, received in zip(paths, reading, strict=True):
                if isinstance(received, Rejected):
                    if received.kind is not None:
                        self.skipped.setdefault(received.kind, []).append(path)
                    else:
                        self.failures += 1
                        tqdm.write(received.reason, file=sys.stderr)
                    continue
                for doubt in received.picture.info.get("warnings", ()):
                    tqdm.write(f"{short(str(path))}: {doubt}", file=sys.stderr)
                yield received

    def answer(self, received: Received, output: dict[str, Any]) -> dict[str, Any]:
        """The line of the predictions for what the pipeline returned; the radiograph counts as answered."""
        line = {**received.facts, **self.settings, **self.source, **output}
        self.answered.add(question(line))
        return line

    def summary(self) -> str:
        """What became of the files, with the names of those that are no radiographs."""
        return f"{self.predictions}: {self.outcome()}"

    def outcome(self) -> str:
        """The same without the file that has the answers."""
        text = f"{len(self.answered)} radiographs answered; {self.failures} could not be used"
        if self.skipped:
            text += f"; {sum(map(len, self.skipped.values()))} skipped, which are no radiographs:"
        for kind, paths in self.skipped.items():
            more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
            text += f"\n  {kind} ({len(paths)}): {', '.join(map(shown, paths[:NAMED]))}{more}"
        return text

    @property
    def status(self) -> int:
        """What the program ends with: 0 where something was answered and nothing failed."""
        return 1 if self.failures or not self.answered else 0

    def _without_outdated(self, lines: list[dict[str, Any]], asked: dict[tuple, Path | str]) -> list[dict[str, Any]]:
        """The lines but those for what a file or the checkpoint was before, which leave with their pictures."""
        holds = [question(line) not in asked or self._holds(line, asked[question(line)]) for line in lines]
        outdated = [line for line, still in zip(lines, holds, strict=True) if not still]
        if not outdated:
            return lines
        print(
            f"{self.predictions}: asked for anew, as the file or the checkpoint has changed since: {len(outdated)}",
            file=sys.stderr,
        )
        lines = [line for line, still in zip(lines, holds, strict=True) if still]
        write_text(self.predictions, "".join(json.dumps(line) + "\n" for line in lines))
        for line in outdated:
            if "overlay" in line:
                (self.predictions.parent / Path(line["overlay"]).name).unlink(missing_ok=True)
        return lines

    def _holds(self, line: dict[str, Any], path: Path | str) -> bool:
        # Lines of earlier versions do not say what they were about.
        if "sha256" not in line or line.get("checkpoint_sha256") != self.source["checkpoint_sha256"]:
            return False
        try:
            return line["sha256"] == self.digests.file(path)
        except OSError:  # it is gone or cannot be read: that is said when it is read
            return False

    def _read(self, path: Path | str) -> tuple[bytes, str]:
        state, data = bytes_of(path)
        return data, self.digests.bytes_read(path, state, data)


def sort_out(path: Path | str, read: Callable[[], tuple[bytes, str]], windowing: str) -> Received | Rejected:
    """A radiograph, or why a file is none; what is doubtful about it goes with its picture alone.

    Args:
        path: what messages call it, and lines of the predictions.
        read: gives its bytes and their digest, or raises a RadiographError.
    """
    data = b""
    try:
        data, digest = read()
        if is_drawn(data):
            return Rejected(DRAWN, "")
        with collected_warnings(quiet=True):
            return receive(path, data, digest, windowing)
    except RadiographError as error:
        return Rejected(other_kind(data, PurePath(path).name), str(error))


def bytes_of(path: Path | str) -> tuple[dict[str, Any], bytes]:
    """A file's state from before it was read, as `Digests` takes it, and its bytes.

    Raises:
        RadiographError: there is no such file, or it cannot be read.
    """
    if is_remote(path):
        try:
            return state_of_file(path), read_bytes(path, MAX_BYTES)
        except OSError as error:
            raise RadiographError(str(error)) from None
    if path.is_dir():
        raise unusable(str(path), "it is a folder that cannot be listed")
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            load_radiograph(path)  # it says what is wrong, and reads nothing
        return state_of_file(path), path.read_bytes()
    except OSError as error:
        raise unusable(str(path), f"it cannot be opened ({error.strerror})") from None


def bytes_and_digest(path: Path | str) -> tuple[bytes, str]:
    """What `sort_out` reads of a file that stands alone.

    Raises:
        RadiographError: as `bytes_of`.
    """
    _, data = bytes_of(path)
    return data, hashlib.sha256(data).hexdigest()


def receive(path: Path | str, data: bytes, sha256: str, windowing: str) -> Received:
    """A radiograph from its file's bytes and their digest.

    Raises:
        RadiographError: it cannot be used.
    """
    picture = load_radiograph({"bytes": data, "path": str(path)}, windowing)
    size = {"width": picture.width, "height": picture.height}
    return Received(path, picture, {"file": str(path), "sha256": sha256, **identity(data), **size})


def question(line: dict[str, Any]) -> tuple:
    """What was asked for a line of the predictions: the radiograph, of which model, in which way."""
    # Earlier versions' lines do not say all of it: they are of what was asked then.
    beside = line.get("with_candidates", False), line.get("views", 0), line.get("max_new_tokens", MAX_NEW_TOKENS)
    asked = tuple(line.get("tasks", DEFAULT_TASKS)), line.get("second_view_sha256")
    return line["file"], line["model"], line.get("constrained"), line.get("threshold"), *beside, *asked
