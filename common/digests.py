"""SHA-256 of files, computed once for each state of a file.

    digests = Digests(Path("outputs/predictions/digests.jsonl"))
    digests.file(Path("a.dicom"))              # "9f86d081884c7d65...": read and hashed
    digests.file(Path("a.dicom"))              # the same: its size and times have not changed, nothing is read
    digests.checkpoint("outputs/demo/checkpoint")

A digest is kept with the file's size, its time of modification and its time of change, which a system gives anew to a
file that is written, copied over or renamed; of a remote file with what its store tells contents apart by. So 18,000
radiographs of 10 MB are hashed as they are answered, and a run that resumes asks the system for their times alone. Who
deletes `digests.jsonl` waits for one more reading.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from litegpt.common.addresses import is_remote, open_address, state_of
from litegpt.common.files import complete_lines

CHECKPOINT_FILES = ("config.json", "adapter_config.json", "processor_config.json", "*.safetensors")


class Digests:
    """Digests by file, which `path` keeps: a JSON line for each; of one file's lines the last holds.

    Without a path they are kept in memory alone.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.known = {} if path is None else {line["file"]: line for line in complete_lines(path)}

    def file(self, file: Path | str) -> str:
        """The digest of a file, or of what lies at an address, in hexadecimal.

        Raises:
            OSError: it cannot be read.
        """
        state = state_of_file(file)  # before it is read: a file that changes meanwhile is hashed again
        if self._is_known(file, state):
            return self.known[str(file)]["sha256"]
        digest = hashlib.sha256()
        with open_address(file) as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
        return self._keep(file, state, digest.hexdigest())

    def bytes_read(self, file: Path | str, state: dict[str, Any], data: bytes) -> str:
        """The digest of what was just read from a file, so that it need not be read again.

        Args:
            state: the file's, of `state_of_file`, from before it was read.
        """
        return self._keep(file, state, hashlib.sha256(data).hexdigest())

    def checkpoint(self, name: str) -> str | None:
        """One digest of all that makes a checkpoint's answers; None of a repository on the Hub, which is no folder."""
        folder = Path(name)
        if not folder.is_dir():
            return None
        files = sorted(file for pattern in CHECKPOINT_FILES for file in folder.glob(pattern))
        digests = {file.name: self.file(file) for file in files}
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def _is_known(self, file: Path | str, state: dict[str, Any]) -> bool:
        line = self.known.get(str(file))
        # A store that does not tell contents apart has the version "".
        return line is not None and all(line.get(name) == value != "" for name, value in state.items())

    def _keep(self, file: Path | str, state: dict[str, Any], digest: str) -> str:
        line = {"file": str(file), "sha256": digest, **state}
        if line != self.known.get(str(file)):
            self.known[str(file)] = line
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as kept:
                    kept.write(json.dumps(line) + "\n")
        return digest


def state_of_file(file: Path | str) -> dict[str, Any]:
    """By what a file is known to be as it was.

    Raises:
        OSError: it is not there.
    """
    if is_remote(file):
        size, version = state_of(file)
        return {"bytes": size, "version": version}
    state = os.stat(file)
    return {"bytes": state.st_size, "modified_ns": state.st_mtime_ns, "changed_ns": state.st_ctime_ns}
