"""What an ECAMP has learned while it trains, on radiographs that it is not trained on.

    validation = ECAMPValidation(collator, batch_size=64)
    validation(model)    # {"loss": 2.1, "descriptor_accuracy": 0.31, "descriptor_accuracy_other_image": 0.30, ...}

The losses are the training's, with patches and words that are masked the same each time. Whether the text looks at the
image: how many masked descriptors (the words that say whether a thing is there) are said right, and what all masked
words cost, with the right radiograph and with another one's. Where both are equal, the text is told by itself.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional
from transformers.feature_extraction_utils import BatchFeature

from litegpt.modeling_towers import ECAMPModel
from litegpt.train_scripts.ecamp_trainer import TERMS, ECAMPCollator
from litegpt.train_scripts.report_masking import NOT_ASKED


class ECAMPValidation:
    """Figures of a model on the radiographs of a collator that does not crop; the model must be in evaluation mode."""

    def __init__(self, collator: ECAMPCollator, batch_size: int):
        self.collator, self.batch_size = collator, batch_size

    def __call__(self, model: ECAMPModel) -> dict[str, float]:
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}

        def add(name: str, value: torch.Tensor, count: int) -> None:
            sums[name] = sums.get(name, 0.0) + value.item() * count
            counts[name] = counts.get(name, 0) + count

        for batch in self.batches():
            batch = batch.to(model.device)
            outputs = model(**batch)
            for name in ("loss", *TERMS):
                if (value := getattr(outputs, name)) is not None:
                    add(name, value, len(batch["pixel_values"]))
            if outputs.text_loss is None:
                continue
            asked = batch["labels"] != NOT_ASKED
            descriptors = (batch["descriptors"] & asked)[asked]
            truth = batch["labels"][asked]
            for name, pixels in (("", batch["pixel_values"]), ("_other_image", batch["pixel_values"].roll(1, 0))):
                logits = model(**{**batch, "pixel_values": pixels, "labels": None}).logits[asked].float()
                add(f"word_loss{name}", functional.cross_entropy(logits, truth), len(truth))
                if descriptors.any():
                    right = (logits.argmax(-1) == truth)[descriptors].float().mean()
                    add(f"descriptor_accuracy{name}", right, int(descriptors.sum()))
        return {name: value / counts[name] for name, value in sums.items()}

    def batches(self) -> Iterator[BatchFeature]:
        """All radiographs, in an order in which neighbours are of other studies."""
        order = np.random.default_rng(0).permutation(len(self.collator.reports)).tolist()
        for start in range(0, len(order), self.batch_size):
            yield self.collator(order[start : start + self.batch_size])
