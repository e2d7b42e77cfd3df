"""From a DICOM file to both towers' tensors: LiteGPT's processor against the paper's code and CLIP's preprocessing.

    python benchmarks/dicom_to_tensors.py --output outputs/bench.json

The reference is appendix A of arXiv 2407.12064 (pydicom, a window in float64, RGB), then the image processor of each
tower. Both run interleaved on the same file; the figure is the median of the paired ratios (x: times faster).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from transformers import CLIPImageProcessor

from benchmarks.results import record
from datasets_scripts.phantom_cxr import encode_dicom
from datasets_scripts.phantom_pictures import draw_phantom
from datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from processing.processing_litegpt import LiteGPTProcessor, add_litegpt_tokens
from train_scripts.new_checkpoint import image_processor, train_tokenizer

SYNTAXES = {"raw": ExplicitVRLittleEndian, "rle": RLELossless, "jpegls": JPEGLSLossless, "jpeg2000": JPEG2000Lossless}
AGAINST = "appendix A of the paper, then CLIP's image processor for each tower"


def main(output: str, width: int, height: int, repeats: int) -> None:
    tokenizer = train_tokenizer(FINDING_LABELS, DIAGNOSIS_LABELS)
    add_litegpt_tokens(tokenizer)
    processor = LiteGPTProcessor(image_processor(224), image_processor(224), tokenizer)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_files(Path(folder), width, height).items():
            ratios = paired_ratios(
                lambda path=path: paper(path, processor.image_processor),
                lambda path=path: processor(images=path, text="<image>", return_tensors="pt"),
                repeats,
            )
            results[f"dicom/{name}/exact"] = {"value": statistics.median(ratios), "unit": "x", "against": AGAINST}
    record(output, results)


def write_files(folder: Path, width: int, height: int) -> dict[str, Path]:
    """The same phantom in every transfer syntax."""
    pixels = draw_phantom(np.random.default_rng(0), (width, height)).pixels
    dataset = encode_dicom(pixels, "0" * 32, np.random.default_rng(1))
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    paths = {}
    for name, syntax in SYNTAXES.items():
        copy = pydicom.dcmread(dataset_to_file(dataset, folder / "raw.dcm"))
        if syntax.is_compressed:
            copy.compress(syntax, generate_instance_uid=False)
        paths[name] = dataset_to_file(copy, folder / f"{name}.dcm")
    return paths


def dataset_to_file(dataset: pydicom.Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def paper(path: Path, clip: CLIPImageProcessor) -> list:
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.astype(np.float64)
    flip = -1 if dataset.PhotometricInterpretation == "MONOCHROME1" else 1
    if "WindowCenter" in dataset:
        normalised = (pixels - float(dataset.WindowCenter)) / float(dataset.WindowWidth)
    else:
        normalised = (pixels - np.mean(pixels)) / (np.max(pixels) - np.min(pixels))
    grey = (np.clip(normalised, -1, 1) * flip * 127.5 + 127.5).astype(np.uint8)
    picture = Image.fromarray(grey).convert("RGB")
    return [clip(picture, return_tensors="pt") for _ in range(2)]


def paired_ratios(reference: Callable, ours: Callable, repeats: int) -> list[float]:
    seconds = {reference: [], ours: []}
    for repeat in range(repeats + 1):
        for function in seconds:
            start = time.perf_counter()
            function()
            if repeat:  # the first round loads codecs
                seconds[function].append(time.perf_counter() - start)
    return [r / o for r, o in zip(seconds[reference], seconds[ours], strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="outputs/bench.json")
    parser.add_argument("--width", type=int, default=2500)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
