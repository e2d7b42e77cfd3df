"""A picture that looks like a chest radiograph, for tests of what is said about pictures that do not."""

from functools import cache

import numpy as np

from litegpt.datasets_scripts.phantoms.picture import draw_phantom


@cache
def chest(width: int = 240, height: int = 300) -> np.ndarray:
    """(height, width) uint8 of a phantom, from 0 to 255; not to be changed."""
    pixels = draw_phantom(np.random.default_rng(3), (width, height)).pixels.astype(float)
    low, high = np.percentile(pixels, (0.5, 99.5))
    greys = np.rint(np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    greys[0, 0], greys[0, 1] = 0, 255  # so that its range is full
    greys.setflags(write=False)
    return greys
