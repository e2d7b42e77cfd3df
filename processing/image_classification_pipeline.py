"""`pipeline("image-classification")`: the library's own, for radiographs in all forms that we read.

pipe = pipeline("image-classification", model=checkpoint, trust_remote_code=True)
pipe("radiograph.dicom", top_k=2)      # [{"label": "Effusion", "score": 0.81}, {"label": "Edema", "score": 0.22}]
found = pipe("radiograph.dicom", return_maps=True, return_boxes=True)
found[0]["map"]                        # (rows, columns) float32, over the radiograph as it was given
found[0]["boxes"]                      # [{"score": 0.62, "box": {"xmin": 12, "ymin": 30, "xmax": 80, "ymax": 95}}]
"""

import os
import warnings
from typing import Any

import numpy as np
from transformers.pipelines.image_classification import ImageClassificationPipeline

from .map_boxes import map_regions
from .radiograph import box_in_pixels, grid_as_given


class RadiographClassificationPipeline(ImageClassificationPipeline):
    """The library's pipeline: the probability of each label, by itself, the likeliest first.

    Called with one radiograph or a list. `top_k`: the likeliest labels alone. `return_maps`: beside each label a
    "map", where the network sees it; `map_kind` as the model's. `return_boxes`: beside each label "boxes" in pixels of
    the radiograph as it was given, drawn around its map's regions: none of a label that is not called present, from
    the probability on that the checkpoint's configuration says. What is doubtful about the radiograph is warned of.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def check_model_type(self, supported_models: Any) -> None:
        """The library's list of models has no remote code; any that gives logits and maps of labels will do."""

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        return_maps: bool = False,
        return_boxes: bool = False,
        map_kind: str | None = None,
        **kwargs: Any,
    ):
        if kwargs:
            raise TypeError(f"pipeline(image-classification) takes no {', '.join(sorted(kwargs))}.")
        forward = {"return_maps": return_maps or return_boxes, "map_kind": map_kind}
        return {}, forward, {"top_k": top_k, "return_maps": return_maps, "return_boxes": return_boxes}

    def preprocess(self, image: Any) -> dict[str, Any]:
        (radiograph,) = self.processor.load(image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was read before, and its warnings were heard
            pixels = self.processor(images=radiograph)["pixel_values"]
        return {
            "pixel_values": pixels.to(self.dtype),
            "size": radiograph.size,
            "turn": radiograph.info.get("turn"),
        }

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        outputs = self.model(model_inputs["pixel_values"], **options)
        return {**model_inputs, "logits": outputs.logits, "maps": outputs.maps}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: int | None = None,
        return_maps: bool = False,
        return_boxes: bool = False,
    ) -> list[dict[str, Any]]:
        config = self.model.config
        probabilities = model_outputs["logits"][0].float().sigmoid().tolist()
        found = []
        for number, score in enumerate(probabilities):
            item: dict[str, Any] = {"label": config.id2label[number], "score": score}
            if return_maps or return_boxes:
                grid = grid_as_given(model_outputs["maps"][0, number].numpy(), model_outputs["turn"])
            if return_maps:
                item["map"] = grid
            if return_boxes:
                is_present = score >= config.cut_off(item["label"])
                item["boxes"] = (
                    boxes_in_pixels(grid, score, model_outputs["size"], config.box_thresholds, config.box_rule)
                    if is_present
                    else []
                )
            found.append(item)
        return sorted(found, key=lambda item: -item["score"])[:top_k]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves a checkpoint: model, processor, and the code of both."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def boxes_in_pixels(
    grid: np.ndarray, probability: float, size: tuple[int, int], thresholds: list[float], rule: str
) -> list[dict[str, Any]]:
    """A map's boxes as the object-detection pipeline writes them; scores are probability times the map's strength."""
    return [
        {"score": probability * found.strength, "box": box_in_pixels(found.box, *size)}
        for found in map_regions(grid, thresholds, rule).boxes
    ]


__all__ = ["RadiographClassificationPipeline"]
