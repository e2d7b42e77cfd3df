"""Hours and machines for 18,000, a million and 100 million radiographs, from measured stages, checked against runs.

    make demo
    python benchmarks/cost_model.py --output outputs/bench.json
    python benchmarks/cost_model.py --sizes 50 100 200

Every stage of `litegpt predict-many` is measured here on one core (`prediction_stages.py`), on phantoms of 256 pixels
and on ones of full size. Answers of the 7B model a second come from a GPU's figures (`benchmarks/GPU.md`, or the
gpu.json of `--gpu_figures`). The model is the law of the bottleneck: a radiograph needs so many seconds of each
resource, all machines together have so much of it, and what has least rules:

    hours = plan and count (one process) + start of the workers + radiographs x the largest of
            storage: bytes / bandwidth
            cores:   (read + decode + pixels + share of a shard [+ answer, without GPUs]) / cores
            GPUs:    questions / (GPUs x answers a second)

So reading must overlap answering, as it does in every worker. What is assumed is printed beside the result; more
machines than the storage can feed gain nothing, and how many it can is printed too.

The check: `litegpt predict-many` with one worker, bound to one core, on as many radiographs as `--sizes` says, a few
phantoms of 256 pixels again and again, predicted from the stages of the same run (their sum). Printed are
predicted and measured seconds and peak memory of each size; recorded are predicted by measured seconds of the largest,
and its memory by that of the smallest. One after the other on one machine: other work on it spoils the figure.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from tqdm import tqdm

from litegpt.benchmarks.gpu_report import REPORT, answers_a_second, newest
from litegpt.benchmarks.prediction_stages import (
    BATCH_SIZE,
    SHARD_SIZE,
    Run,
    Stages,
    draw_files,
    measured_stages,
    predict_many,
    written_list,
)
from litegpt.benchmarks.results import parsed, progress, record

RADIOGRAPHS = (18_000, 1_000_000, 100_000_000)
COUNTS = (1, 8, 64)  # of CPU nodes, and of GPUs
SMALL, FULL = (256, 256), (2048, 2500)
FULL_SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)
PHANTOMS = 96  # of 256 pixels
QUESTIONS = 2  # about a radiograph; on a GPU each is taken to cost as much


@dataclass(frozen=True)
class Assumed:
    """What is not measured.

    Attributes:
        cores: of a CPU node, and beside each GPU; each as fast as one here.
        gigabytes_per_s: of the storage, for all machines together.
        euros_per_hour: of a CPU node and of a GPU; None: no price is printed.
    """

    cores: int = 16
    gigabytes_per_s: float = 1.25
    euros_per_hour: Sequence[float] | None = None


@dataclass(frozen=True)
class Machines:
    """What computes.

    Attributes:
        cores: of all.
        answers: radiographs that all GPUs answer a second; 0: the cores answer.
        bandwidth: bytes a second of the storage.
        euros: an hour of all.
    """

    name: str
    cores: int
    answers: float = 0.0
    bandwidth: float = math.inf
    euros: float = 0.0


def needs(stages: Stages, machines: Machines) -> dict[str, float]:
    """Seconds of each resource that a radiograph takes."""
    on_cores = stages.read + stages.decode + stages.pixels + stages.shard / SHARD_SIZE
    needed = {"storage": stages.size / machines.bandwidth}
    if machines.answers:
        return {**needed, "cores": on_cores / machines.cores, "GPUs": 1 / machines.answers}
    return {**needed, "cores": (on_cores + stages.answer) / machines.cores}


def predicted_seconds(stages: Stages, machines: Machines, radiographs: int) -> float:
    """Of a whole run."""
    driver = radiographs * (stages.plan + stages.count)
    return driver + stages.start + radiographs * max(needs(stages, machines).values())


def main(output: str, model_name_or_path: str, gpu_figures: str, sizes: Sequence[int], assumed: Assumed) -> None:
    """Prints stages, assumptions and hours, then runs the command for each of `sizes`, and records the figures."""
    if not (Path(model_name_or_path) / "config.json").is_file():
        print(f"No checkpoint at {model_name_or_path}: nothing was measured (`make demo` trains one).")
        return
    with tempfile.TemporaryDirectory() as folder:
        small_files = draw_files(Path(folder, "small"), PHANTOMS, SMALL)
        full_files = draw_files(Path(folder, "full"), len(FULL_SYNTAXES), FULL, FULL_SYNTAXES)
        small = measured_stages(model_name_or_path, small_files, Path(folder, "small_stages"))
        full = measured_stages(model_name_or_path, full_files, Path(folder, "full_stages"))
        full = replace(full, answer=small.answer, start=small.start)  # of more radiographs, and the same
        print_stages(small, full)
        print_hours(full, machines_of(Path(gpu_figures), assumed))
        runs = {}
        for size in progress(sorted(sizes), "runs"):
            listed = written_list(Path(folder, "lists"), small_files, size)
            runs[size] = predict_many(model_name_or_path, listed, Path(folder, f"run_{size}"))
            tqdm.write(f"{size:,} radiographs: {runs[size].seconds:.1f} s")
    record(output, checked(small, runs))


def machines_of(gpu_figures: Path, assumed: Assumed) -> list[Machines]:
    """CPU nodes, and GPUs where their speed is known; prints what is assumed of them."""
    title, figures = newest(gpu_figures)
    answers = answers_a_second(figures)
    print(f"\n{'assumed':<22}")
    print(f"{'radiographs':<22} {FULL[0]} x {FULL[1]}, a quarter each uncompressed, RLE, JPEG-LS and JPEG 2000")
    print(f"{'storage':<22} {assumed.gigabytes_per_s:g} GB/s for all machines together")
    print(f"{'a CPU node':<22} {assumed.cores} cores like this one's; the checkpoint measured here answers")
    kinds = [("CPU node", 0.0)]
    if answers is None:
        print(f"{'a GPU':<22} left out: its answers a second are not known ({title})")
    else:
        kinds.append(("GPU", answers[0] / QUESTIONS))
        print(f"{'a GPU':<22} {assumed.cores} such cores beside it; the 7B answers ({title}):")
        print(f"{'':<22} {answers[1]}; {QUESTIONS} questions about each")
    print(f"{'overlap':<22} no core and no GPU waits for reading")
    prices = assumed.euros_per_hour or (0.0, 0.0)
    return [
        Machines(
            f"{count} {kind}{'s' * (count > 1)}",
            count * assumed.cores,
            count * speed,
            assumed.gigabytes_per_s * 1e9,
            count * euros,
        )
        for (kind, speed), euros in zip(kinds, prices, strict=False)
        for count in COUNTS
    ]


def print_stages(small: Stages, full: Stages) -> None:
    """Of one core."""
    print(f"\n{'stage, one core here':<22} {'256 pixels':>12} {'full size':>12}")
    for name in ("plan", "read", "decode", "pixels", "answer", "count"):
        values = (f"{1000 * getattr(stages, name):>9.2f} ms" for stages in (small, full))
        print(f"{name:<22} {' '.join(values)}")
    print(f"{f'shard of {SHARD_SIZE}':<22} {1000 * small.shard:>9.0f} ms {1000 * full.shard:>9.0f} ms")
    print(f"{'start of a worker':<22} {small.start:>10.1f} s {full.start:>10.1f} s")
    print(f"{'size':<22} {small.size / 1e6:>9.2f} MB {full.size / 1e6:>9.2f} MB")
    print(f"(answer: both questions, in batches of {BATCH_SIZE})")


def print_hours(stages: Stages, machines: Sequence[Machines]) -> None:
    """Hours, which resource rules, and what the most radiographs cost where there are prices."""
    print(f"\n{'hours for radiographs':<22} {' '.join(f'{count:>12,}' for count in RADIOGRAPHS)}  slowest")
    for each in machines:
        hours = [predicted_seconds(stages, each, count) / 3600 for count in RADIOGRAPHS]
        needed = needs(stages, each)
        euros = f", {hours[-1] * each.euros:,.0f} euros" if each.euros else ""
        columns = " ".join(f"{value:>12,.2f}" for value in hours)
        print(f"{each.name:<22} {columns}  {max(needed, key=needed.get)}{euros}")
    for one in machines[:: len(COUNTS)]:
        needed = needs(stages, one)
        fed = math.ceil(max(needed.values()) / needed["storage"])
        print(f"{one.name:<22} the storage feeds {fed} of them")


def checked(stages: Stages, runs: dict[int, Run]) -> dict[str, dict]:
    """Prints what was predicted beside what was measured; the figures to record."""
    here = Machines("one worker", cores=1)
    predicted = {size: predicted_seconds(stages, here, size) for size in runs}
    print(f"\n{'radiographs':>11} {'predicted s':>11} {'measured s':>10} {'ratio':>6} {'CPU s':>8} {'peak MB':>8}")
    for size, run in runs.items():
        print(
            f"{size:>11,} {predicted[size]:>11.1f} {run.seconds:>10.1f} {predicted[size] / run.seconds:>6.2f} "
            f"{run.cpu_seconds:>8.1f} {run.megabytes:>8.0f}"
        )
    smallest, largest = min(runs), max(runs)
    return {
        "cost_model/predicted_vs_measured": {
            "value": predicted[largest] / runs[largest].seconds,
            "unit": "x",
            "against": f"the seconds of litegpt predict-many for {largest} phantoms, one worker",
        },
        f"cost_model/memory_{largest}_vs_{smallest}": {
            "value": runs[largest].megabytes / runs[smallest].megabytes,
            "unit": "x",
            "against": f"the peak memory of litegpt predict-many for {smallest} phantoms",
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="outputs/demo/checkpoint")
    parser.add_argument("--gpu_figures", default=str(REPORT), help="GPU.md or gpu.json")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 5_000, 18_000], help="radiographs of the runs")
    parser.add_argument("--cores", type=int, default=Assumed.cores, help="of a CPU node, and beside each GPU")
    parser.add_argument(
        "--gigabytes_per_s", type=float, default=Assumed.gigabytes_per_s, help="of the storage, for all machines"
    )
    parser.add_argument("--euros_per_hour", type=float, nargs=2, metavar=("NODE", "GPU"), help="of each machine")
    options = parsed(
        parser,
        "hours for 18,000 to 100 million radiographs, predicted from stages, against runs of predict-many",
        seconds=1500,
        quick={"sizes": [50, 100, 200]},
        quick_seconds=100,
    )
    assumed = Assumed(**{field.name: options.pop(field.name) for field in fields(Assumed)})
    main(**options, assumed=assumed)
