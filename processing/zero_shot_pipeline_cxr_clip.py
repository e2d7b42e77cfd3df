"""`pipeline("zero-shot-image-classification")`: the library's own, for radiographs in all forms that we read.

pipe = pipeline("zero-shot-image-classification", model=checkpoint, trust_remote_code=True)
pipe("radiograph.dicom", candidate_labels=["pneumothorax", "pleural effusion"], negative_template="no {}")
# [{"score": 0.52, "label": "pleural effusion"}, {"score": 0.49, "label": "pneumothorax"}]
"""

import os
from typing import Any

from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline


class RadiographZeroShotPipeline(ZeroShotImageClassificationPipeline):
    """The library's pipeline, whose labels are sentences about radiographs, and need not exclude each other.

    Called as the library's, with `hypothesis_template` "{}" unless another is given. `negative_template`, such as
    "no {}", makes a question of each label for itself: its score is then the softmax over the two cosines, of the
    label and of its negation, as the paper (arXiv 2310.13292) classifies, and the scores do not sum to 1.

    Scores near one half are usual of such pairs: cosines are not multiplied by the learned scale. They rank; they are
    no probabilities.
    """

    _load_processor = True
    _load_image_processor = False
    _load_tokenizer = False

    def check_model_type(self, supported_models: Any) -> None:
        """The library's list of models has no remote code; any that gives logits of image and text will do."""

    def _sanitize_parameters(self, negative_template: str | None = None, **kwargs: Any):
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        return {**preprocess, "negative_template": negative_template}, forward, postprocess

    def preprocess(
        self,
        image: Any,
        candidate_labels: list[str] | None = None,
        hypothesis_template: str = "{}",
        negative_template: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        if not candidate_labels:
            raise ValueError("There are no candidate_labels: give the sentences or findings to choose from.")
        texts = [hypothesis_template.format(label) for label in candidate_labels]
        if negative_template is not None:
            texts += [negative_template.format(label) for label in candidate_labels]
        return {
            "inputs": self.processor(images=[image], text=texts).to(self.dtype),
            "candidate_labels": candidate_labels,
            "paired": negative_template is not None,
        }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.model(**model_inputs.pop("inputs"))
        return {**model_inputs, "logits": outputs.logits_per_image, "scale": outputs.logit_scale}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        labels, logits = model_outputs["candidate_labels"], model_outputs["logits"][0].float()
        if model_outputs["paired"]:
            cosines = (logits / model_outputs["scale"]).view(2, len(labels))
            scores = cosines.softmax(dim=0)[0]
        else:
            scores = logits.softmax(dim=-1)
        return sorted(
            ({"score": score, "label": label} for score, label in zip(scores.tolist(), labels, strict=True)),
            key=lambda item: -item["score"],
        )

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves a checkpoint: model, processor, and the code of both."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


__all__ = ["RadiographZeroShotPipeline"]
