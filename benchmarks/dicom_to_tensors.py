"""From a DICOM file to both towers' tensors: LiteGPT's processor against the paper's code and CLIP's preprocessing.

    python benchmarks/dicom_to_tensors.py --output outputs/bench.json

The reference is appendix A of arXiv 2407.12064 (pydicom with pylibjpeg, a window in float64, RGB), then the image
processor of each tower. Reference and ours run interleaved on the same file; a figure is the median of the paired
ratios (x: times faster). Printed beside: the error of the fast option in grey levels, how much of the time is the
decoder's, and the stages of the exact path. Peak memory is what a process grows by (Linux).
"""

import argparse
import cProfile
import ctypes
import importlib.metadata
import itertools
import multiprocessing
import pstats
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from transformers import CLIPImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from litegpt.benchmarks.results import parsed, progress, record
from litegpt.datasets_scripts.phantom_cxr import encode_dicom
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt.answer_tokenizer import train_tokenizer
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.processing.processing_litegpt import LiteGPTProcessor, add_litegpt_tokens

SYNTAXES: dict[str, UID] = {
    "raw": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpegls": JPEGLSLossless,
    "jpeg_lossless": JPEGLosslessSV1,
    "jpeg2000": JPEG2000Lossless,
}
DECODERS = {  # alone, on the bare stream
    "rle": lambda stream: imagecodecs.dicomrle_decode(stream, "<u2"),
    "jpegls": imagecodecs.jpegls_decode,
    "jpeg_lossless": imagecodecs.jpeg8_decode,
    "jpeg2000": imagecodecs.jpeg2k_decode,
}
STAGES = {"dcmread": "read the file", "_decode": "decode", "_display": "window", "resize": "resize"}
M_MMAP_THRESHOLD = -3  # glibc's malloc.h
AGAINST = "appendix A of the paper (pydicom with pylibjpeg), then CLIP's image processor for each tower"


def main(output: str, width: int, height: int, repeats: int, phantoms: int, syntaxes: Sequence[str]) -> None:
    if {"jpegls", "jpeg_lossless"} & set(syntaxes) and not has_pylibjpeg_libjpeg():
        sys.exit("The reference decodes JPEG with pylibjpeg-libjpeg, which is missing: pip install -e .[bench]")
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(FINDING_LABELS, DIAGNOSIS_LABELS)
    add_litegpt_tokens(tokenizer)
    clip = image_processor(224)
    exact, fast, two_threads = (
        # The paper's window, so that both sides make the same picture.
        LiteGPTProcessor(clip, image_processor(224), tokenizer, windowing="paper", **options)
        for options in ({}, {"fast": True}, {"num_threads": 2})
    )
    ours = {"exact": exact, "fast": fast}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: write_files(Path(folder), name, SYNTAXES[name], (width, height), phantoms)
            for name in progress(syntaxes, "drawing phantoms")
        }
        tiny = {name: write_files(Path(folder), f"tiny_{name}", SYNTAXES[name], (128, 128), 1)[0] for name in syntaxes}
        for name, paths in files.items():
            processors = ours | ({"exact_2_threads": two_threads} if name == "jpeg2000" else {})
            runs = {"reference": lambda path: paper(path, clip)}
            runs |= {key: lambda path, p=processor: tensors(path, p) for key, processor in processors.items()}
            check_exactness(paths, runs)
            seconds = interleaved_seconds(runs, paths, repeats, name)
            for key in processors:
                ratios = [r / o for r, o in zip(seconds["reference"], seconds[key], strict=True)]
                results[f"dicom/{name}/{key}"] = result(statistics.median(ratios))
            peaks = {key: peak_memory(runs[key], paths[0], tiny[name]) for key in ("reference", "exact", "fast")}
            results[f"dicom/{name}/exact_memory"] = result(peaks["reference"] / peaks["exact"], "the peak memory of ")
            results[f"dicom/{name}/fast_memory"] = result(peaks["reference"] / peaks["fast"], "the peak memory of ")
            print_details(name, paths, runs, seconds, peaks)
    record(output, results)


def result(value: float, what: str = "") -> dict:
    return {"value": value, "unit": "x", "against": what + AGAINST}


def has_pylibjpeg_libjpeg() -> bool:
    return any(d.metadata["Name"] == "pylibjpeg-libjpeg" for d in importlib.metadata.distributions())


def write_files(folder: Path, name: str, syntax: UID, size: tuple[int, int], count: int) -> list[Path]:
    """Phantoms in a transfer syntax, of 12, 14, 16 bits in turn, with a window."""
    paths: list[Path] = []
    for seed in itertools.count():
        # How a phantom is encoded depends on the seed alone.
        drawn = encode_dicom(np.eye(64), "0" * 32, np.random.default_rng(seed))
        wanted = syntax, (12, 14, 16)[len(paths) % 3]
        if (drawn.file_meta.TransferSyntaxUID, drawn.BitsStored) == wanted and "WindowCenter" in drawn:
            pixels = draw_phantom(np.random.default_rng(seed), size).pixels
            paths.append(folder / f"{name}_{len(paths)}.dcm")
            dataset = encode_dicom(pixels, "0" * 32, np.random.default_rng(seed))
            dataset.save_as(paths[-1], enforce_file_format=True)
        if len(paths) == count:
            return paths


def paper(path: Path, clip: CLIPImageProcessor) -> list[torch.Tensor]:
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.astype(np.float64)
    flip = -1 if dataset.PhotometricInterpretation == "MONOCHROME1" else 1
    normalised = (pixels - float(dataset.WindowCenter)) / float(dataset.WindowWidth)
    grey = (np.clip(normalised, -1, 1) * flip * 127.5 + 127.5).astype(np.uint8)
    picture = Image.fromarray(grey).convert("RGB")
    return [clip(picture, return_tensors="pt")["pixel_values"] for _ in range(2)]


def tensors(path: Path, processor: LiteGPTProcessor) -> list[torch.Tensor]:
    inputs = processor(images=path, text="<image>", return_tensors="pt")
    return [inputs["pixel_values"], inputs["aux_pixel_values"]]


def check_exactness(paths: Sequence[Path], runs: dict[str, Callable]) -> None:
    """Also the first round, which loads codecs."""
    for path in paths:
        reference = runs["reference"](path)
        for key in runs:
            found = runs[key](path)
            if key.startswith("exact") and not all(map(torch.equal, reference, found)):
                sys.exit(f"{path.name}: the tensors of the exact path are not the reference's.")


def interleaved_seconds(
    runs: dict[str, Callable], paths: Sequence[Path], repeats: int, what: str
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for path in progress([path for _ in range(repeats) for path in paths], what):
        for key, run in runs.items():
            start = time.perf_counter()
            run(path)
            seconds[key].append(time.perf_counter() - start)
    return seconds


def peak_memory(run: Callable, path: Path, tiny: Path) -> float:
    """MB by which a radiograph makes a process grow that has read a tiny one before (Linux)."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_growth, args=(run, path, tiny, sender))
    child.start()
    sender.close()
    growth = receiver.recv()
    child.join()
    return growth


def _send_growth(run: Callable, path: Path, tiny: Path, sender: Connection) -> None:
    run(tiny)
    # What earlier runs have freed goes back to the system first, and from now on whatever is freed.
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
    before = _status("VmRSS")
    thread = threading.Thread(target=run, args=(path,))  # one that has no memory from earlier runs
    thread.start()
    thread.join()
    sender.send((_status("VmHWM") - before) / 1e6)


def _status(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def print_details(
    name: str,
    paths: Sequence[Path],
    runs: dict[str, Callable],
    seconds: dict[str, list[float]],
    peaks: dict[str, float],
) -> None:
    milliseconds = {key: 1000 * statistics.median(values) for key, values in seconds.items()}
    print(f"{name}: " + ", ".join(f"{key} {value:.0f} ms" for key, value in milliseconds.items()))
    print("  peak memory: " + ", ".join(f"{key} {value:.0f} MB" for key, value in peaks.items()))
    difference = np.concatenate([greys(runs["fast"](path)[0]) - greys(runs["exact"](path)[0]) for path in paths])
    print(f"  fast is off by {abs(difference).max():.0f} grey levels at most, {abs(difference).mean():.2f} on average")
    if name in DECODERS:
        stream = get_frame(pydicom.dcmread(paths[0]).PixelData, 0, number_of_frames=1)
        decoder = {"decoder": lambda _: DECODERS[name](stream)}
        alone = 1000 * statistics.median(interleaved_seconds(decoder, paths[:1], 3, "decoder")["decoder"])
        print(f"  the decoder alone takes {alone:.0f} ms: {alone / milliseconds['exact']:.0%} of the exact path")
    profile = cProfile.Profile()
    profile.runcall(runs["exact"], paths[0])
    stats = pstats.Stats(profile).stats
    total = max(cumulative for *_, cumulative, _ in stats.values())
    stages = {label: 0.0 for label in STAGES.values()}
    for (file, _, function), (*_, cumulative, _) in stats.items():
        if function in STAGES and file.endswith(("filereader.py", "dicom.py", "Image.py")):
            stages[STAGES[function]] += cumulative / total
    print("  " + ", ".join(f"{label} {share:.0%}" for label, share in stages.items()), flush=True)


def greys(pixel_values: torch.Tensor) -> np.ndarray:
    return np.asarray((pixel_values[0, 0] * OPENAI_CLIP_STD[0] + OPENAI_CLIP_MEAN[0]) * 255).round().ravel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2500)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--phantoms", type=int, default=3, help="different ones for each transfer syntax")
    parser.add_argument("--repeats", type=int, default=3, help="of every phantom")
    parser.add_argument("--syntaxes", nargs="+", choices=SYNTAXES, default=list(SYNTAXES))
    main(
        **parsed(
            parser,
            "from a DICOM file to both towers' tensors, against the paper's code and CLIP's preprocessing",
            seconds=300,
            quick={"phantoms": 1, "repeats": 2},
            quick_seconds=60,
        )
    )
