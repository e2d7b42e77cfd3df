"""How fast `litegpt predict` answers, against an earlier commit of this repository, alone and beside other work.

    python benchmarks/predict_speed.py --before 69f3f91 --output outputs/bench.json

Both versions answer the same phantoms with the same checkpoint, in turn, as a user starts them (no variable says how
many threads). A rate is of the radiographs between a short run and the whole one, so loading is not in it. The answers
must be the same, the scores within 1e-4. Then the same beside a process that only computes, on each second core: what
remains of the rate, where a fair share would be two thirds on two cores. The earlier commit is taken from git; where
there is none, nothing is compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from litegpt.benchmarks.results import parsed, progress, record

ROOT = Path(__file__).resolve().parents[1]
FEW = 16  # radiographs of the short run
BUSY = "while True: pass"
TOLERANCE = 1e-4


def main(output: str, checkpoint: str, phantoms: str, images: int, repeats: int, before: str) -> None:
    files = sorted(Path(phantoms).resolve().glob("*.dicom"))[:images]
    if not (Path(checkpoint) / "config.json").is_file() or len(files) <= FEW:
        print(f"No checkpoint at {checkpoint}, or no phantoms at {phantoms}: nothing was measured (`make demo`).")
        return
    with tempfile.TemporaryDirectory() as folder:
        clones = {"before": Path(folder, "before"), "now": ROOT}
        if not taken_from_git(before, clones["before"]):
            print(f"No commit {before} in git: there is nothing to compare with.")
            return
        rates: dict[tuple[str, bool], list[float]] = {}
        turns = [(name, beside, turn) for turn in range(repeats) for beside in (False, True) for name in clones]
        for name, beside, turn in progress(turns, "runs"):
            with ExitStack() as stack:
                if beside:
                    stack.enter_context(other_work())
                seconds = [
                    predict_seconds(
                        clones[name], checkpoint, files[:count], Path(folder, f"{name}{beside}{turn}{count}")
                    )
                    for count in (FEW, len(files))
                ]
            rates.setdefault((name, beside), []).append((len(files) - FEW) / (seconds[1] - seconds[0]))
        lines = [Path(folder, f"{name}False0{len(files)}", "predictions.jsonl") for name in clones]
        print(f"largest difference of a score: {largest_difference(*lines):.1e}")
    rate = {version: statistics.median(values) for version, values in rates.items()}
    for (name, beside), value in rate.items():
        turns_in_words = ", ".join(f"{turn:.1f}" for turn in rates[name, beside])
        print(f"{name}{', beside other work' if beside else ''}: {value:.1f} radiographs a second ({turns_in_words})")
    kept = {name: rate[name, True] / rate[name, False] for name in clones}
    record(
        output,
        {
            "predict/images_per_s_vs_before": {
                "value": rate["now", False] / rate["before", False],
                "unit": "x",
                "against": f"the commit {before} on the same {len(files)} phantoms",
            },
            "predict/images_per_s": {"value": rate["now", False], "unit": "images/s", "against": "no reference"},
            "predict/rate_beside_other_work": {
                "value": kept["now"],
                "unit": "x",
                "against": f"the rate alone (the commit {before}: {kept['before']:.2f})",
            },
        },
    )


def taken_from_git(commit: str, folder: Path) -> bool:
    """Whether git has the commit, whose files then lie in the folder."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    return archive.returncode == 0 and subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout).returncode == 0


@contextmanager
def other_work() -> Iterator[None]:
    """A process that computes, for every second core."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(max(1, (os.cpu_count() or 2) // 2))]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def predict_seconds(clone: Path, checkpoint: str, files: list[Path], output_dir: Path) -> float:
    """Seconds of the whole program; ends this one where it fails."""
    options = ["--model_name_or_path", str(Path(checkpoint).resolve()), "--output_dir", str(output_dir)]
    environment = {**os.environ, "PYTHONPATH": str(clone), "HF_HUB_OFFLINE": "1"}
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        environment.pop(name, None)
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "litegpt.command", "predict", *options, *map(str, files)],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        sys.exit(f"predict of {clone} ended with status {run.returncode}: {run.stderr[-2000:]}")
    return time.perf_counter() - start


def largest_difference(*files: Path) -> float:
    """Of two versions' scores; ends the program where answers or boxes differ."""
    ours, theirs = ({line["file"]: line for line in map(json.loads, file.open())} for file in files)
    largest = 0.0
    for name, line in ours.items():
        other = theirs[name]
        if line["answers"] != other["answers"]:
            sys.exit(f"{name}: the answers differ.")
        for kind in ("findings", "diagnoses"):
            for item, same in zip(line[kind], other[kind], strict=True):
                if {**item, "score": 0} != {**same, "score": 0}:
                    sys.exit(f"{name}: {item} is not {same}.")
                largest = max(largest, abs(item["score"] - same["score"]))
    if largest > TOLERANCE:
        sys.exit(f"Scores differ by {largest}.")
    return largest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="outputs/demo/checkpoint")
    parser.add_argument("--phantoms", default="outputs/demo/phantoms/train", help="a folder of DICOM files")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--before", default="69f3f91", help="a commit")
    main(
        **parsed(
            parser,
            "radiographs a second of predict, against an earlier commit, alone and beside other work",
            seconds=900,
            quick={"images": 100},
            quick_seconds=150,
        )
    )
