"""What maps cost: labels with a map of each, against labels alone, of one radiograph classifier.

    python benchmarks/classifier_maps.py --output outputs/bench.json
    python benchmarks/classifier_maps.py --device cuda --image_size 1024

A ResNet-50 of the paper's kind (arXiv 1705.02315) with 14 labels and random weights, which cost what trained ones do.
The same radiographs are passed in batches without and with `return_maps`, in turn. Boxes are measured by themselves,
as they are drawn for labels that are called present alone.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from transformers import set_seed

from litegpt.benchmarks.results import merge, paired_ratio, parsed, progress
from litegpt.modeling_towers import RadiographClassifier, RadiographClassifierConfig
from litegpt.processing.map_boxes import map_regions

PLAIN, MAPS = "labels alone", "labels and maps"
NUM_LABELS = 14
BOXED_MAPS = 50  # on which the time for boxes is measured


def main(output: str, device: str, num_radiographs: int, batch_size: int, image_size: int, rounds: int) -> None:
    """Measures both in turn, and writes the figures into `output`."""
    if device == "cuda" and not torch.cuda.is_available():
        print("No GPU here: nothing was measured (--device cpu runs the same).")
        return
    set_seed(0)
    model = RadiographClassifier(RadiographClassifierConfig(image_size=image_size, num_labels=NUM_LABELS))
    model = model.eval().to(device)
    sizes = [min(batch_size, num_radiographs - start) for start in range(0, num_radiographs, batch_size)]
    pixels = torch.randn(batch_size, 3, image_size, image_size, device=device)
    seconds: dict[str, list[float]] = {PLAIN: [], MAPS: []}
    seconds_of(model, pixels, True)  # a first pass is slower
    for number in progress(range(rounds), "rounds"):
        totals = dict.fromkeys(seconds, 0.0)
        for place, size in enumerate(sizes):
            # Batch by batch in turn: what else the machine does falls on both.
            for name in (PLAIN, MAPS) if (number + place) % 2 else (MAPS, PLAIN):
                totals[name] += seconds_of(model, pixels[:size], name == MAPS)
        for name, total in totals.items():
            seconds[name].append(total)
    for name, values in seconds.items():
        print(f"  {name}: {statistics.median(values):.1f} s for {num_radiographs:,} radiographs")
    ratio = paired_ratio(seconds, MAPS, PLAIN)
    print(f"  with maps it takes {ratio:.2f} x as long")

    grids = np.random.default_rng(0).normal(size=(BOXED_MAPS, image_size // 32, image_size // 32)).astype(np.float32)
    start = time.perf_counter()
    for grid in grids:
        map_regions(grid)
    milliseconds = 1000 * (time.perf_counter() - start) / BOXED_MAPS
    print(f"  boxes of a map: {milliseconds:.1f} ms")
    against = f"the same {num_radiographs:,} radiographs without maps, ResNet-50 at {image_size} ({device})"
    merge(output, {"classifier/maps_vs_labels": {"value": ratio, "unit": "x", "against": against}})


@torch.inference_mode()
def seconds_of(model: RadiographClassifier, pixels: torch.Tensor, return_maps: bool) -> float:
    """The time for a batch; maps are brought to the CPU, as logits are."""
    start = time.perf_counter()
    outputs = model(pixels, return_maps=return_maps)
    outputs.logits.cpu()
    if return_maps:
        outputs.maps.cpu()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--num_radiographs", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=20)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    main(
        **parsed(
            parser,
            "labels with maps, against labels alone",
            seconds=400,
            quick={"num_radiographs": 60, "rounds": 5},
            quick_seconds=40,
        )
    )
