"""A classifier's processor: radiographs -> the model's pixels.

processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
processor(images=["a.dicom", "b.png"])     # {"pixel_values": (2, 3, 224, 224)}
"""

import sys

from .image_classification_pipeline import RadiographClassificationPipeline  # noqa: F401 (its file travels with this)
from .processing_radiograph import RadiographProcessor


class RadiographClassifierProcessor(RadiographProcessor):
    """A `RadiographProcessor` whose pipeline answers "image-classification"."""


# As in processing_litegpt.py: dill finds classes in the package of their module alone.
if __package__:
    setattr(sys.modules[__package__], __name__.rpartition(".")[2], sys.modules[__name__])


__all__ = ["RadiographClassifierProcessor"]
