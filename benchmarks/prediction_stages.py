"""How long each stage of `litegpt predict-many` takes here, on one core: for `cost_model.py`.

    drawn = draw_files(Path("files"), 48, (256, 256))
    stages = measured_stages("outputs/demo/checkpoint", drawn, Path("work"))
    stages.decode      # seconds a radiograph

The stages are the program's own functions, called one after the other on the same radiographs. What a whole command
does beside, Python's start and the checkpoint's, is the time of a run with one radiograph.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydicom.uid import UID

from litegpt.benchmarks.results import progress
from litegpt.common.shard_attempts import ShardAttempts
from litegpt.datasets_scripts.phantom_cxr import encode_dicom
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.inference_scripts.answerers import AnswerSettings, LocalAnswerer
from litegpt.inference_scripts.inbox import Received, Rejected
from litegpt.inference_scripts.many.plan import make_plan
from litegpt.inference_scripts.many.prediction_work import found_of, read
from litegpt.inference_scripts.many.reading import Reader
from litegpt.inference_scripts.many.results import counted, row_of, write_results
from litegpt.inference_scripts.many.sources import Item, Sources

BATCH_SIZE, SHARD_SIZE = 8, 500  # the command's


@dataclass(frozen=True)
class Stages:
    """Seconds of one core, in which it computed; those of the driver are of one process, however many work.

    Attributes:
        plan, count: of the driver, a radiograph.
        read, decode, pixels, answer: a radiograph; `decode`: from bytes to 8-bit grey with digest, header and checks;
            `answer`: towers, prompts and decoding, in batches.
        shard: a shard's beginning, its results, its end.
        start: a worker's, to its first answer.
        size: bytes of a radiograph.
    """

    plan: float
    read: float
    decode: float
    pixels: float
    answer: float
    shard: float
    count: float
    start: float
    size: float


class Run(NamedTuple):
    """A command that has ended: its seconds on the clock and of a processor, and the MB of its peak."""

    seconds: float
    cpu_seconds: float
    megabytes: float


def draw_files(
    folder: Path, count: int, size: tuple[int, int], syntaxes: Sequence[UID | None] = (None,)
) -> list[Path]:
    """DICOM files of phantoms of (width, height), in transfer syntaxes in turn; None: one drawn at random."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.dcm" for number in range(count)]
    for number, path in enumerate(progress(paths, "drawing phantoms")):
        rng = np.random.default_rng(number)
        pixels = draw_phantom(rng, size).pixels
        dataset = encode_dicom(pixels, f"{number:032x}", rng, syntaxes[number % len(syntaxes)])
        dataset.save_as(path, enforce_file_format=True)
    return paths


def measured_stages(model: str, paths: Sequence[Path], folder: Path) -> Stages:
    """The stages of these files, each of which is read once.

    Args:
        folder: for a plan and results, new.
    """
    torch.set_num_threads(1)
    answerer, reader = LocalAnswerer(AnswerSettings(model)), Reader(None)
    listed = written_list(folder, paths, SHARD_SIZE)
    plan, plan_seconds = timed(lambda: make_plan(str(folder / "run"), listed, {"shard_size": SHARD_SIZE}))
    items = [Item(path.stem, str(path)) for path in paths]
    windowing = answerer.processor.windowing

    def decoded() -> list[tuple[Item, str | None, Received | Rejected]]:
        return [found_of(item, read(item, reader), windowing) for item in items]

    found = decoded()  # the first round loads codecs
    pictures = [received.picture for *_, received in found if isinstance(received, Received)]
    batches = [pictures[start : start + BATCH_SIZE] for start in range(0, len(pictures), BATCH_SIZE)]
    answerer.outputs(batches[0])
    _, read_seconds = timed(lambda: [reader.read(item) for item in items])
    _, decode_seconds = timed(decoded)
    _, pixel_seconds = timed(lambda: [answerer.processor.squash(picture) for picture in pictures])
    outputs, answer_seconds = timed(lambda: [answerer.outputs(batch) for batch in progress(batches, "answering")])
    rows = [
        row_of(item, sha256, received, output, {})
        for (item, sha256, received), output in zip(found, chain.from_iterable(outputs), strict=True)
    ]
    rows = (rows * -(-SHARD_SIZE // len(rows)))[:SHARD_SIZE]

    def shard() -> None:
        attempts = ShardAttempts(plan.folder, {plan.name(0)})
        attempts.begin(plan.name(0))
        plan.items(0)
        write_results(plan.folder, plan.name(0), rows, "parquet")
        attempts.end(plan.name(0))

    _, shard_seconds = timed(shard)
    _, count_seconds = timed(lambda: counted(plan.folder, [plan.name(0)], "parquet"))
    return Stages(
        plan=plan_seconds / SHARD_SIZE,
        read=read_seconds / len(paths),
        decode=(decode_seconds - read_seconds) / len(paths),
        pixels=pixel_seconds / len(paths),
        answer=(answer_seconds - pixel_seconds) / len(paths),
        shard=shard_seconds,
        count=count_seconds / SHARD_SIZE,
        start=predict_many(model, written_list(folder, paths, 1), folder / "one").cpu_seconds,
        size=sum(path.stat().st_size for path in paths) / len(paths),
    )


def written_list(folder: Path, paths: Sequence[Path], count: int) -> Sources:
    """A list of so many radiographs: the files, again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{count}.txt"
    path.write_text("".join(f"{paths[number % len(paths)].resolve()}\n" for number in range(count)), encoding="utf-8")
    return Sources(list_file=str(path))


def predict_many(model: str, listed: Sources, output_dir: Path) -> Run:
    """Runs the command with one worker on one core, and ends the program where it fails."""
    command = [sys.executable, "-m", "litegpt", "predict-many", "--model_name_or_path", model]
    command += ["--list_file", listed.list_file, "--output_dir", str(output_dir)]
    log = output_dir.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, [min(os.sched_getaffinity(0))])
        _, status, used = os.wait4(process.pid, 0)  # of this child alone, what `getrusage` has of all
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"litegpt predict-many failed: {log.read_text(encoding='utf-8').strip().splitlines()[-1]}")
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its seconds of a processor: other work on the machine does not count."""
    start = time.process_time()
    returned = function()
    return returned, time.process_time() - start
