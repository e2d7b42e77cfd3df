"""Where in a radiograph the model sees a finding, as a transparent picture to lay over it.

    found = finding_map(answerer, radiograph, {"label": "Cardiomegaly", "index": 0, "of_answer": True})
    found["picture"]       # a PNG in a data URL: viridis, more opaque the farther from 0 the value is

The ways and what they mean: `processing/answer_maps.py`; `litegpt explain` writes the same maps into files.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from litegpt.common.overlay import COLOUR_MAP
from litegpt.inference_scripts.answerers import LocalAnswerer
from litegpt.inference_scripts.app.shelf import Radiograph
from litegpt.inference_scripts.ask_server import data_url
from litegpt.inference_scripts.finding_maps import TASK, FindingMap
from litegpt.processing.answer_maps import DEFAULT_METHOD, METHODS, PIXELS, label_maps, text_maps
from litegpt.processing.answers import text_to_findings
from litegpt.processing.radiograph import grid_as_given

LONG_SIDE = 512  # of the picture, in pixels: a grid has some 14 cells a side


def finding_map(answerer: LocalAnswerer, radiograph: Radiograph, finding: Mapping[str, Any]) -> dict[str, Any]:
    """The map of one finding.

    Args:
        finding: its label; of one of the answer its number there, by which the answer's own words are explained. Any
            other is explained as if it had been answered.
    """
    processor, model = answerer.processor, answerer.pipe.model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were said when it was read
        inputs = processor(
            images=radiograph.received.picture,
            text=processor.prompt(TASK),
            add_special_tokens=False,
            return_tensors="pt",
        )
    pixels = {name: inputs[name] for name in PIXELS if name in inputs}
    if finding["of_answer"]:
        answer = radiograph.line["answers"][TASK]
        span = text_to_findings(answer, processor.finding_labels)[finding["index"]].label_span
        ((grid,),) = text_maps(model, processor, pixels, [answer], [[[span]]], DEFAULT_METHOD, TASK)
    else:
        (grid,) = label_maps(model, processor, pixels, [finding["label"]])
    grid = grid_as_given(grid, radiograph.received.picture.info.get("turn"))
    return {
        "label": finding["label"],
        "picture": data_url(coloured_grid(grid, radiograph.received.picture.size)),
        "low": float(f"{grid.min():.3g}"),
        "high": float(f"{grid.max():.3g}"),
        "method": METHODS[DEFAULT_METHOD],
        "what_it_is": FindingMap.what_it_is,
    }


def coloured_grid(grid: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """RGBA, in the proportions of a radiograph of `size`: the grid's own range in colours."""
    import matplotlib  # takes a while that a page without maps need not wait

    scale = LONG_SIDE / max(size)
    sides = tuple(max(1, round(side * scale)) for side in size)
    smooth = np.asarray(Image.fromarray(np.float32(grid)).resize(sides, Image.Resampling.BILINEAR))
    low, high = float(grid.min()), float(grid.max())
    share = ((smooth - low) / ((high - low) or 1.0)).clip(0, 1)
    colours = matplotlib.colormaps[COLOUR_MAP](share)
    strength = np.abs(smooth)  # what speaks neither for nor against hides nothing
    colours[..., 3] = strength / (strength.max() or 1.0)
    return Image.fromarray((255 * colours).round().astype(np.uint8))
