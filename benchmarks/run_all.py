"""Every program of this folder, one after the other, merged into one file; at the end a table of what they measured.

    python benchmarks/run_all.py --quick --output outputs/bench.json

With `--quick` each runs in its quick form where it has one. Six measure the checkpoint that `make demo` trains,
three a GPU: without one `--device cuda` has nothing to measure, and they say so, as do two that need an Orthanc. One
compares with open_clip only where that is installed (`make bench`). A program that fails is named, and the others
continue; the status is then 1.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from litegpt.benchmarks.results import OUTPUT, as_text, merge, read

FOLDER = Path(__file__).parent
PROGRAMS = {  # and whether they have a quick form
    "scoring": False,
    "load_vs_llava": True,
    "generate_vs_llava": True,
    "dicom_to_tensors": True,
    "jump_ahead": True,
    "predict_speed": True,
    "predict_many": True,
    "detection_cost": True,
    "box_score_definitions": True,
    "train_vs_stock": True,
    "cxr_clip_vs_open_clip": True,
    "ecamp_vs_mae": True,
    "classifier_maps": True,
    "node_round_trip": True,
    "node_hostile": True,
    "node_speed": True,
    "gpu_generation": True,
    "gpu_training": True,
    "gpu_towers": True,
    "gpu_pixels": True,
    "cost_model": True,
}


def main(output: str, quick: bool, programs: Sequence[str]) -> int:
    """The status of the process: 1 if a program failed."""
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(programs, start=1):
            print(f"\n=== {number} of {len(programs)}: {name} ===", flush=True)
            figures = f"{folder}/{name}.json"
            command = [sys.executable, str(FOLDER / f"{name}.py"), "--output", figures]
            start = time.perf_counter()
            status = subprocess.run(command + ["--quick"] * (quick and PROGRAMS[name])).returncode
            seconds = time.perf_counter() - start
            print(f"=== {name}: {seconds:.0f} s ===", flush=True)
            results = read(figures)
            merge(output, results)
            lines = [f"{figure}: {as_text(result)}" for figure, result in results.items()]
            if status:
                failed.append(name)
                lines.append(f"FAILED with status {status}: its error stands above")
            rows.append((name, seconds, lines or ["nothing was measured: it says above why"]))
    print(f"\n{'program':<22} {'seconds':>7}  what")
    for name, seconds, lines in rows:
        print(f"{name:<22} {seconds:>7.0f}  {lines[0]}")
        for line in lines[1:]:
            print(f"{'':<31} {line}")
    print(f"{'all':<22} {sum(seconds for _, seconds, _ in rows):>7.0f}  {output}")
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=OUTPUT)
    parser.add_argument("--quick", action="store_true", help="each program in its quick form")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    sys.exit(main(**vars(parser.parse_args())))
