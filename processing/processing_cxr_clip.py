"""CXR-CLIP's processor: radiographs and sentences -> the model's tensors.

processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
processor(images=["a.dicom", "b.png"], text=["there is no pleural effusion."])
# {"pixel_values": (2, 3, 224, 224), "input_ids": (1, 9), "attention_mask": (1, 9)}
"""

import sys
from typing import Any

from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .image_sources import as_source, flat_images
from .radiograph import in_standard_view, load_radiograph, squash_radiograph
from .zero_shot_pipeline_cxr_clip import RadiographZeroShotPipeline  # noqa: F401 (its file must travel with this one)


class CXRCLIPProcessor(ProcessorMixin):
    """One image processor and the text tower's tokenizer.

    Images may be DICOM, PNG or JPEG files, `pydicom.Dataset`s, PIL images, arrays, ... (see `load_radiograph`), singly
    or in lists. Each becomes an 8-bit grey picture in the standard view. An image processor without a crop squashes
    the whole of it, as LiteGPT does; one with a crop cuts the longer sides, as CXR-CLIP's published code does.

    Args:
        image_processor: of the image tower.
        tokenizer: of the text tower.
        max_length: tokens of a text; what is longer is cut.
        windowing: of DICOM files, "dicom" or "paper", see `dicom_to_radiograph`.
    """

    def __init__(self, image_processor=None, tokenizer=None, max_length: int = 256, windowing: str = "dicom"):
        self.max_length = max_length
        self.windowing = windowing
        super().__init__(image_processor, tokenizer)

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
            pictures = [self.picture(image) for image in flat_images(images)]
            data |= self.image_processor(pictures, return_tensors=kwargs["return_tensors"])
        return BatchFeature(data)

    def picture(self, source: Any) -> Image.Image:
        """One radiograph in RGB, in the standard view; squashed to the tower's input where nothing is cut off.

        Raises:
            RadiographError: the radiograph cannot be used.
        """
        size = self.squashed_size
        if size is None:
            return in_standard_view(load_radiograph(as_source(source), self.windowing)).convert("RGB")
        resample = Image.Resampling(self.image_processor.resample)
        squashed = squash_radiograph(as_source(source), [size], resample, self.windowing)
        return squashed.pictures[size].convert("RGB")

    @property
    def squashed_size(self) -> tuple[int, int] | None:
        """(width, height) that whole radiographs are squashed to; None where the image processor crops them."""
        size = dict(self.image_processor.size)
        if self.image_processor.do_center_crop or not {"height", "width"} <= size.keys():
            return None
        return size["width"], size["height"]

    def load(self, images: Any) -> list[Image.Image]:
        """Radiographs (one, or nested lists) as 8-bit grey pictures of their own size, as they were given.

        Raises:
            RadiographError: a radiograph cannot be used.
        """
        return [load_radiograph(as_source(image), self.windowing) for image in flat_images(images)]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]


# As in processing_litegpt.py: dill finds classes in the package of their module alone.
if __package__:
    setattr(sys.modules[__package__], __name__.rpartition(".")[2], sys.modules[__name__])


__all__ = ["CXRCLIPProcessor"]
