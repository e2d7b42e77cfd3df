"""CXR-CLIP's processor: radiographs and sentences -> the model's tensors.

processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
processor(images=["a.dicom", "b.png"], text=["there is no pleural effusion."])
# {"pixel_values": (2, 3, 224, 224), "input_ids": (1, 9), "attention_mask": (1, 9)}
"""

import sys
from typing import Any

from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .processing_radiograph import RadiographProcessor
from .zero_shot_pipeline_cxr_clip import RadiographZeroShotPipeline  # noqa: F401 (its file must travel with this one)


class CXRCLIPProcessor(RadiographProcessor):
    """One image processor and the text tower's tokenizer.

    Images are what `RadiographProcessor` takes. An image processor with a crop, which cuts the longer sides, is that
    of CXR-CLIP's published code.

    Args:
        image_processor: of the image tower.
        tokenizer: of the text tower.
        max_length: tokens of a text; what is longer is cut.
        windowing: of DICOM files, "dicom" or "paper", see `dicom_to_radiograph`.
    """

    def __init__(self, image_processor=None, tokenizer=None, max_length: int = 256, windowing: str = "dicom"):
        self.max_length = max_length
        self.windowing = windowing
        ProcessorMixin.__init__(self, image_processor, tokenizer)

    def __call__(self, images: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Tensors of radiographs, of texts, or of both.

        Args:
            kwargs: for the tokenizer; its texts are padded to the longest and cut at `max_length` unless these say so.

        Raises:
            RadiographError: a radiograph cannot be used.
            ValueError: there is neither a radiograph nor a text.
        """
        if images is None and text is None:
            raise ValueError("There is neither a radiograph nor a text: give images or text.")
        kwargs = {"return_tensors": "pt", **kwargs}
        data: dict[str, Any] = {}
        if text is not None:
            options = {"padding": True, "truncation": True, "max_length": self.max_length, **kwargs}
            encoded = self.tokenizer(text, **options)
            data |= {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if images is not None:
            data |= self.pixels(images, kwargs["return_tensors"])
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]


# As in processing_litegpt.py: dill finds classes in the package of their module alone.
if __package__:
    setattr(sys.modules[__package__], __name__.rpartition(".")[2], sys.modules[__name__])


__all__ = ["CXRCLIPProcessor"]
