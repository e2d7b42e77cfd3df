"""Commands of litegpt that a benchmark starts: with one thread, once, their CPU seconds noted.

    command(folder, "new", "--config", "tiny", "--output_dir", folder / "new")

In: the words after `litegpt`, with `--output_dir`. Out: what the command writes; in `folder` a log.txt of all, and
cpu_seconds.json by the name of the output. One whose checkpoint is there is not run again.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def command(folder: Path, *words: Any) -> None:
    """Runs a command of litegpt unless its checkpoint is there; ends the program where it fails."""
    words = [str(word) for word in words]
    output = Path(words[words.index("--output_dir") + 1])
    if any((output / name).is_file() for name in ("config.json", "checkpoint/config.json")):
        return
    print("litegpt", *words, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    log = folder / "log.txt"
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "litegpt", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        sys.exit(f"litegpt {words[0]} failed: the end of {log} says why.")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    noted = cpu_seconds(folder)
    noted[output.name] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
    (folder / "cpu_seconds.json").write_text(json.dumps(noted, indent=1), encoding="utf-8")


def cpu_seconds(folder: Path) -> dict[str, float]:
    """Of the commands of a folder, by the name of their output."""
    path = folder / "cpu_seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
