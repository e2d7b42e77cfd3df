"""Radiographs are read in a child process: a codec that crashes, hangs or eats memory costs one file, not the run.

    with DecodingProcess("dicom", shortest_edge=512) as decoder:
        decoder.read("radiograph.dicom").png

In: the path or the address of a DICOM file or a picture. Out: a `DecodedRadiograph`, the picture to store as PNG and
what the file's header tells, or a RadiographError with the reason why there is none.

The child reads the file, also a remote one, and does all of the work on pixels, so that several of them use several
cores. It is this file run as a program: `multiprocessing` would import the main program once more in every child. Over
its standard input it gets paths; over its standard output it gives for each a JSON header and a PNG.
"""

import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

import litegpt
from litegpt.common.addresses import StoreError, absolute, is_remote, open_address, read_bytes
from litegpt.datasets_scripts.preparation.demographics import dicom_age, known_sex
from litegpt.datasets_scripts.preparation.splits import perceptual_hash, pixel_hash
from litegpt.processing.dicom import MAX_BYTES
from litegpt.processing.doubts import RadiographError, short
from litegpt.processing.radiograph import load_radiograph

COMMAND = (sys.executable, "-m", "litegpt.datasets_scripts.preparation.decoding_process")
MEMORY_LIMIT = 3 << 30  # bytes of the child's; the largest file and picture that `load_radiograph` takes need less


@dataclass(frozen=True)
class DecodedRadiograph:
    """A radiograph that could be read.

    Attributes:
        png: the picture to store, 8-bit grey.
        width, height: pixels of the source.
        view: a DICOM's View Position (0018,5101), such as "PA"; "" where it has no valid one or is no DICOM.
        sex: a DICOM's Patient's Sex (0010,0040), "F" or "M"; "" where it is another or none.
        age: a DICOM's Patient's Age (0010,1010) in whole years; None where it has none that can be.
        pixel_hash, perceptual_hash: of the picture to store, see `splits.py`.
        warnings: what `load_radiograph` warned of, without the file's name.
    """

    png: bytes
    width: int
    height: int
    view: str
    sex: str
    age: int | None
    pixel_hash: str
    perceptual_hash: str
    warnings: tuple[str, ...]


class DecodingProcess:
    """A child process that reads radiographs, one at a time, for one thread.

    It starts with the first file, and anew after a crash. It ends with `close`, and when this process ends, however
    that comes about.

    Args:
        windowing: see `load_radiograph`.
        shortest_edge: pictures are scaled down to this many pixels on the shorter side; None keeps them.
        timeout_s: seconds after which a file that is still being read is given up.
    """

    def __init__(self, windowing: str, shortest_edge: int | None, timeout_s: float = 120):
        self.timeout_s = timeout_s
        self._arguments = [windowing, str(shortest_edge or 0), str(timeout_s)]
        self._child: subprocess.Popen | None = None
        self._interrupted = False

    def __enter__(self) -> "DecodingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: str | os.PathLike) -> DecodedRadiograph:
        """Reads one radiograph.

        Raises:
            RadiographError: `load_radiograph` refused it, or its decoder crashed or took too long.
            ChildProcessError: the child does not start.
            StoreError: a remote file's store cannot be reached, or does not let us read: no fault of the file.
            RuntimeError: another thread called `interrupt`.
        """
        whole = absolute(path)  # the child runs in another folder
        child = self._running_child()
        timed_out = False

        def give_up() -> None:
            nonlocal timed_out
            timed_out = True
            child.kill()

        timer = threading.Timer(self.timeout_s, give_up)
        timer.start()
        try:
            _write_frame(child.stdin, os.fsencode(whole))
            header, png = _read_frame(child.stdout), _read_frame(child.stdout)
        except (EOFError, OSError):
            header = png = None
        finally:
            timer.cancel()
            timer.join()
        if header is None or timed_out:
            status = self._stop()
        if self._interrupted:
            raise RuntimeError("The reading of radiographs was interrupted.")
        if header is None:
            raise RadiographError(f"Cannot use {os.fspath(path)}: {self._cause(status, timed_out)}.")
        facts = json.loads(header)
        if "unreachable" in facts:
            raise StoreError(facts["unreachable"])
        if "error" in facts:
            raise RadiographError(facts["error"].replace(whole, os.fspath(path)))
        return DecodedRadiograph(png=png, **{**facts, "warnings": tuple(facts["warnings"])})

    def interrupt(self) -> None:
        """Ends the child at once and for good. Any thread may call it, also while another one waits in `read`."""
        self._interrupted = True
        if self._child is not None:
            self._child.kill()

    def close(self) -> None:
        """Ends the child; the next `read` would start another."""
        if self._child is not None:
            self._stop()

    def _running_child(self) -> subprocess.Popen:
        if self._child is not None and self._child.poll() is not None:
            self._stop()
        if self._child is None and not self._interrupted:
            # In a session of its own Ctrl-C does not reach it: this process decides when it ends.
            self._child = subprocess.Popen(
                [*COMMAND, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(litegpt.__file__).resolve().parents[1],  # from where `litegpt` is imported in any case
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
            try:
                _read_frame(self._child.stdout)
            except EOFError:
                status = self._stop()
                if not self._interrupted:
                    raise ChildProcessError(
                        f"The process that reads radiographs does not start: it ended with status {status}."
                    ) from None
        if self._interrupted:
            raise RuntimeError("The reading of radiographs was interrupted.")
        return self._child

    def _stop(self) -> int:
        """Ends the child; its status is negative where a signal ended it."""
        child, self._child = self._child, None
        child.kill()
        with suppress(BrokenPipeError), child:  # waits and closes the pipes
            pass
        return child.returncode

    def _cause(self, status: int, timed_out: bool) -> str:
        if timed_out:
            return f"reading it took longer than {self.timeout_s:g} s"
        if status < 0:
            return f"its decoder crashed (signal {-status})"
        return f"its decoder ended the process (status {status})"


def _write_frame(stream: BinaryIO, data: bytes) -> None:
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def _read_frame(stream: BinaryIO) -> bytes:
    length = stream.read(4)
    if len(length) < 4:
        raise EOFError
    data = stream.read(struct.unpack(">I", length)[0])
    if len(data) < struct.unpack(">I", length)[0]:
        raise EOFError
    return data


# --- In the child ----------------------------------------------------------------------------------------------------


def decode(path: str, windowing: str, shortest_edge: int | None) -> DecodedRadiograph:
    """Reads a radiograph in this process; see `DecodingProcess.read`."""
    source = {"bytes": _downloaded(path), "path": path} if is_remote(path) else path
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = load_radiograph(source, windowing=windowing)
        with open_address(path) if source is path else io.BytesIO(source["bytes"]) as file:
            tags = _read_tags(file, path, "ViewPosition", "PatientSex", "PatientAge")
    # Ours alone: a library's own warnings may quote a patient's tags.
    texts, ours = [str(warning.message) for warning in caught], f"{short(path)}: "
    stored, png = shrink(image, shortest_edge), io.BytesIO()
    # zlib's search for repeated strings finds none in a radiograph: without it files are as small as at its default
    # level in a fifth of the time.
    stored.save(png, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return DecodedRadiograph(
        png=png.getvalue(),
        width=image.width,
        height=image.height,
        view=_valid_view(tags["ViewPosition"]),
        sex=known_sex(tags["PatientSex"]),
        age=dicom_age(tags["PatientAge"]),
        pixel_hash=pixel_hash(stored),
        perceptual_hash=perceptual_hash(stored),
        warnings=tuple(text.removeprefix(ours) for text in texts if text.startswith(ours)),
    )


def _downloaded(address: str) -> bytes:
    """A remote file.

    Raises:
        RadiographError: it is not there, or too large.
        StoreError: its store cannot be used, perhaps for no file.
    """
    try:
        return read_bytes(address, MAX_BYTES)
    except StoreError:
        raise
    except OSError as error:
        raise RadiographError(str(error)) from None


def read_view(path: str) -> str:
    """A DICOM's View Position (0018,5101), such as "PA" or "AP"; "" where it has no valid one or is no DICOM."""
    with open_address(path) as file:
        return _valid_view(_read_tags(file, path, "ViewPosition")["ViewPosition"])


def _valid_view(view: str) -> str:
    return view if re.fullmatch(r"[A-Z0-9_ ]{1,16}", view) else ""  # what PS3.5 allows in a code string


def read_patient_id(path: str) -> str:
    """A DICOM's Patient ID (0010,0020), never to be written anywhere; "" where it has none or cannot be read.

    Raises:
        StoreError: a remote file's store cannot be used.
    """
    try:
        with open_address(path) as file:
            return _read_tags(file, path, "PatientID")["PatientID"]
    except StoreError:
        raise
    except Exception:  # a damaged file: reading its radiograph will say so
        return ""


def _read_tags(file: BinaryIO, name: str, *keywords: str) -> dict[str, str]:
    """{keyword: a DICOM's value as text}; "" where the file has none or is no DICOM."""
    if file.read(132)[128:] != b"DICM" and not name.lower().endswith((".dicom", ".dcm")):
        return dict.fromkeys(keywords, "")
    import pydicom

    file.seek(0)
    header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(keywords))
    return {keyword: str(header.get(keyword) or "").strip() for keyword in keywords}


def shrink(image: Image.Image, shortest_edge: int | None) -> Image.Image:
    """Scaled down to `shortest_edge` pixels on the shorter side, its aspect kept; a smaller image stays as it is."""
    shorter = min(image.size)
    if shortest_edge is None or shorter <= shortest_edge:
        return image
    size = tuple(round(side * shortest_edge / shorter) for side in image.size)
    return image.resize(size, Image.Resampling.BICUBIC)


def limit_this_process() -> None:
    """Bounds the memory; and no dump of a crash is written, as a radiograph would lie in it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main(windowing: str, shortest_edge: str, timeout_s: str) -> None:
    """Answers requests until standard input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a codec prints would break a reply
    posix = os.name == "posix"  # the others have neither limits nor timers
    if posix:
        limit_this_process()
    _write_frame(replies, b"ready")
    while True:
        try:
            path = os.fsdecode(_read_frame(requests))
        except EOFError:
            return
        if posix:
            # The parent keeps the time; but if it is gone, nobody would end a codec that hangs.
            signal.setitimer(signal.ITIMER_REAL, float(timeout_s) + 10)
        png = b""
        try:
            decoded = decode(path, windowing, int(shortest_edge) or None)
        except RadiographError as error:
            facts = {"error": str(error)}
        except MemoryError:
            facts = {"error": f"Cannot use {path}: reading it needs more than {MEMORY_LIMIT >> 30} GiB of memory."}
        except StoreError as error:
            facts = {"unreachable": str(error)}
        except Exception as error:  # one file must not end a run; the message might quote a patient's tags
            facts = {"error": f"Cannot use {path}: reading it failed ({type(error).__name__})."}
        else:
            facts = asdict(decoded)
            png = facts.pop("png")
        try:
            _write_frame(replies, json.dumps(facts).encode())
            _write_frame(replies, png)
        except BrokenPipeError:  # the parent is gone
            os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
