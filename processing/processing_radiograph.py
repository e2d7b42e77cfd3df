"""Radiographs in all forms that we read -> the pixels of a model that has one image processor.

processor = RadiographProcessor(CLIPImageProcessorPil(...))
processor(images=["a.dicom", "b.png"])     # {"pixel_values": (2, 3, 224, 224)}

CXR-CLIP's and the classifier's processors are made of it.
"""

from typing import Any

from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .image_sources import as_source, flat_images
from .radiograph import in_standard_view, load_radiograph, squash_radiograph


class RadiographProcessor(ProcessorMixin):
    """One image processor.

    Images may be DICOM, PNG or JPEG files, `pydicom.Dataset`s, PIL images, arrays, ... (see `load_radiograph`), singly
    or in lists. Each becomes an 8-bit grey picture in the standard view. An image processor without a crop squashes
    the whole of it, as LiteGPT does; one with a crop cuts the longer sides.

    Args:
        image_processor: of the network.
        windowing: of DICOM files, "dicom" or "paper", see `dicom_to_radiograph`.
    """

    def __init__(self, image_processor=None, windowing: str = "dicom"):
        self.windowing = windowing
        super().__init__(image_processor)

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        """Tensors of radiographs.

        Raises:
            RadiographError: a radiograph cannot be used.
        """
        return BatchFeature(dict(self.pixels(images, kwargs.get("return_tensors", "pt"))))

    def pixels(self, images: Any, return_tensors: str) -> BatchFeature:
        """What the image processor makes of radiographs (one, or nested lists)."""
        pictures = [self.picture(image) for image in flat_images(images)]
        return self.image_processor(pictures, return_tensors=return_tensors)

    def picture(self, source: Any) -> Image.Image:
        """One radiograph in RGB, in the standard view; squashed to the network's input where nothing is cut off.

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
        return ["pixel_values"]
