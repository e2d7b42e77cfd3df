"""How many radiographs a second the processor's cores bring to a GPU, against how many it needs.

    python benchmarks/gpu_pixels.py --output outputs/bench.json
    python benchmarks/gpu_pixels.py --width 160 --height 192 --workers 1 2 --seconds 0.2

From DICOM files, as predictions read them: phantoms of full size and 12 to 16 bits, in each transfer syntax a few
files, read again and again, to both towers' tensors by LiteGPT's processor. From rows, as trainings read them: PNGs
with a shorter side of 512 pixels, stored once at the towers' size (`RadiographStore`; how fast is a figure of its
own, of one process), from there in batches of 32, cropped at random as CXR-CLIP's, in half precision. Both by torch's
`DataLoader` with one process, half as many as cores, and as many, of one thread each; a figure is taken once each has
read a batch. The files stay in the system's memory: no disk is measured.

JPEG 2000 and RLE are decoded by imagecodecs where that is installed, else by pylibjpeg and by pydicom itself, which
takes longer. JPEG 2000 is left out where pylibjpeg-openjpeg, which writes it, is missing.

What is needed is read from the file of figures (`--output`), where `gpu_generation.py`, `gpu_training.py` and
`gpu_towers.py` have written: answers a second with jumps ahead, and radiographs a second of the fastest training (two
for each study of CXR-CLIP). Where the first has only tokens a second, an answer is taken to have 64, three findings.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from torch.utils.data import DataLoader
from tqdm import tqdm

from litegpt.benchmarks.gpu_generation import architecture_config
from litegpt.benchmarks.gpu_report import answers_a_second
from litegpt.benchmarks.measured_training import processor_for
from litegpt.benchmarks.results import merge, parsed, progress, read
from litegpt.datasets_scripts.phantom_cxr import encode_dicom
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement

SYNTAXES: dict[str, tuple[UID, str | None]] = {  # and the module that writes it
    "raw": (ExplicitVRLittleEndian, None),
    "rle": (RLELossless, None),
    "jpeg2000": (JPEG2000Lossless, "openjpeg"),  # pylibjpeg-openjpeg
}
FILES = 2  # of each syntax
ROW_SIDE = 512
ROWS = 16  # that are drawn; the store has them this many times
TIMES = 16
DICOM_BATCH, ROW_BATCH = 2, 32
ROW = "rows"

Figure = dict[str, Any]


def main(output: str, width: int, height: int, workers: Sequence[int], seconds: float) -> None:
    """Measures each source with each number of processes, and writes the figures into `output`.

    Args:
        width, height: of the DICOM files.
        seconds: of each measurement, at least.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it warns in every process that a loader forks
    figures = read(output)
    demand = {ROW: needed_by_trainings(figures), "DICOM": answers_a_second(figures)}
    decoder = "imagecodecs" if find_spec("imagecodecs") else "pylibjpeg and pydicom"
    processor = processor_for(architecture_config("litegpt"))
    print(f"{os.cpu_count()} cores; JPEG 2000 and RLE decoded by {decoder}")
    print(f"{'':>10} {'processes':>9} {'images/s':>9}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for source in (ROW, *SYNTAXES):
            if source == ROW:
                rows = drawn_rows(ROWS)
                start = time.perf_counter()
                store = RadiographStore(rows, processor.tower_image_processors, folder)
                stored = {"pixels/rows/stored": figure(len(rows) / (time.perf_counter() - start), "one process")}
                merge(output, stored)
                tqdm.write(f"{'stored':>10} {1:>9} {stored['pixels/rows/stored']['value']:>9.1f}")
                collate, batch_size = RowCollator(store, len(rows)), ROW_BATCH
            else:
                syntax, module = SYNTAXES[source]
                if module is not None and find_spec(module) is None:
                    print(f"{source:>10}: left out, pylibjpeg-{module} is not installed")
                    continue
                paths = write_files(Path(folder), source, syntax, (width, height))
                collate, batch_size = FileCollator(processor, paths), DICOM_BATCH
            speeds = {}
            for count in progress(workers, source):
                speeds[count] = images_a_second(collate, batch_size, count, seconds)
                tqdm.write(f"{source:>10} {count:>9} {speeds[count]:>9.1f}")
            how = "no reference" if source in (ROW, "raw") else f"no reference (decoded by {decoder})"
            found = {f"pixels/{source}/{count}_processes": figure(speed, how) for count, speed in speeds.items()}
            if needed := demand[ROW if source == ROW else "DICOM"]:
                ratio = max(speeds.values()) / needed[0]
                found[f"pixels/{source}/fed_vs_needed"] = {"value": ratio, "unit": "x", "against": needed[1]}
                tqdm.write(f"{source:>10} {'':>9} {ratio:>8.2f} x {needed[1]}")
            merge(output, found)


def figure(value: float, against: str) -> Figure:
    return {"value": value, "unit": "images/s", "against": against}


def needed_by_trainings(figures: dict[str, Figure]) -> tuple[float, str] | None:
    """Radiographs a second of the fastest training that was measured, and which it is."""
    found = []
    for name, measured in figures.items():
        parts = name.split("/")
        if parts[-1] == "speed" and (parts[0] == "towers" or parts[0] == "training" and "pixels" in parts):
            images = 2 if parts[2].startswith("cxr_clip") else 1
            found.append((images * measured["value"], f"{images * measured['value']:.0f} images/s of {name}"))
    return max(found, default=None)


class FileCollator:
    """Numbers -> both towers' tensors of DICOM files, in turn."""

    def __init__(self, processor: LiteGPTProcessor, paths: Sequence[Path]):
        self.processor, self.paths = processor, paths

    def __call__(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        paths = [self.paths[number % len(self.paths)] for number in numbers]
        inputs = self.processor(images=paths, text=["<image>"] * len(paths), return_tensors="pt")
        return {name: values for name, values in inputs.items() if name.endswith("pixel_values")}


class RowCollator:
    """Numbers -> one channel of stored radiographs, moved, as `StudyCollator` makes them."""

    def __init__(self, store: RadiographStore, count: int):
        self.store, self.count = store, count

    def __call__(self, numbers: list[int]) -> torch.Tensor:
        rng = np.random.default_rng(numbers)
        # Contrast is not equalised: that needs OpenCV.
        movements = [Movement.random_crop(rng, equalised=0) for _ in numbers]
        values, *_ = self.store.pixel_values([number % self.count for number in numbers], movements)
        return values[:, :1].half()


def images_a_second(collate: Callable[[list[int]], Any], batch_size: int, workers: int, seconds: float) -> float:
    """What a loader gives once each of its processes has read a batch; as many batches of each are counted."""
    loader = DataLoader(range(1 << 40), batch_size=batch_size, collate_fn=collate, num_workers=workers)
    batches = iter(loader)
    images = -batch_size * workers  # the first of each
    start = time.perf_counter()
    while images <= 0 or time.perf_counter() - start < seconds:
        if images == 0:
            start = time.perf_counter()
        for _ in range(workers):
            next(batches)
        images += batch_size * workers
    return images / (time.perf_counter() - start)


def write_files(folder: Path, name: str, syntax: UID, size: tuple[int, int]) -> list[Path]:
    """Phantoms of (width, height) in a transfer syntax."""
    paths = [folder / f"{name}_{number}.dcm" for number in range(FILES)]
    for number, path in enumerate(progress(paths, f"drawing, {name}")):
        rng = np.random.default_rng(number)
        encode_dicom(draw_phantom(rng, size).pixels, "0" * 32, rng, syntax).save_as(path, enforce_file_format=True)
    return paths


def drawn_rows(count: int) -> datasets.Dataset:
    """Radiographs as rows hold them, each several times."""
    pictures = []
    for number in progress(range(count), "drawing, rows"):
        phantom = draw_phantom(np.random.default_rng(number), (ROW_SIDE, ROW_SIDE * 5 // 4))
        pictures.append(Image.fromarray((255 * phantom.pixels).astype(np.uint8)))
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": pictures}, features=features)
    return rows.select(list(itertools.islice(itertools.cycle(range(count)), count * TIMES)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--height", type=int, default=2500)
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=sorted({1, max(1, cores // 2), cores}),
        help="processes that read; by default one, half as many as there are cores, and as many",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, at least")
    main(
        **parsed(
            parser,
            "radiographs a second from DICOM files and stored rows, against what a GPU needs",
            seconds=60,
            quick={"seconds": 1.0},
            quick_seconds=40,
            where="16 cores",
        )
    )
