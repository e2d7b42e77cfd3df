"""`pipeline("image-text-to-text")`: the library's own, for radiographs in all forms that the processor reads."""

import os
from typing import Any

from transformers.pipelines.image_text_to_text import ImageTextToTextPipeline

from .pipeline_litegpt import save_model_and_processor


class RadiographTextPipeline(ImageTextToTextPipeline):
    """The library's pipeline; a DICOM file may stand beside a text, and it is saved with its processor and code.

    Example:
        >>> pipe = pipeline("image-text-to-text", model=checkpoint, trust_remote_code=True)
        >>> pipe(images="radiograph.dicom", text=pipe.processor.prompt("vqa"), return_full_text=False)
        [{"input_text": "<s>[INST] ...", "generated_text": "Global diseases of this chest radiograph are COPD."}]
    """

    def preprocess(self, inputs: Any = None, **kwargs: Any) -> dict[str, Any]:
        if isinstance(inputs, dict) and "images" in inputs:
            # The library would open them with Pillow, which reads no DICOM.
            inputs = {**inputs, "images": self.processor.load(inputs["images"])}
        return super().preprocess(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves a checkpoint: model, processor, and the code of both."""
        save_model_and_processor(self.model, self.processor, save_directory, **kwargs)


__all__ = ["RadiographTextPipeline"]
