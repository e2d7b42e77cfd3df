"""`Trainer` of ECAMP: batches of radiographs with masked reports, and the loss's terms in the log.

In: numbers of radiographs. A batch is what `ECAMPModel` takes: {"pixel_values": (n, 1 or 3, side, side), "noise":
(n, patches), "windows": (n, 4)}, and where there is text "input_ids", "attention_mask", "labels" and "token_weights",
(n, tokens), with "descriptors" beside. Out: a trained model. What is drawn of a radiograph (crop, patches, sentence,
words) hangs on its number, the epoch and the seed alone: however many processes share a batch, it is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.feature_extraction_utils import BatchFeature

from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.report_masking import NOT_ASKED, MaskedReport, ReportMasking
from litegpt.train_scripts.tower_trainer import StudyIndices, TowerTrainer
from litegpt.train_scripts.views import Movement

TERMS = ("image_loss", "super_resolution_loss", "text_loss")


@dataclass(frozen=True)
class Views:
    """How radiographs are shown.

    Attributes:
        patches: along a side of what the encoder sees.
        min_crop_area: the smallest part of a picture that is shown; None: whole pictures, as in a validation.
        release: mirror images, and windows that stay where they were.
        seed: of what is drawn.
        dtype: of the pictures, see `picture_dtype`.
    """

    patches: int
    min_crop_area: float | None
    release: bool = False
    seed: int = 0
    dtype: torch.dtype = torch.float32


class ECAMPCollator:
    """Numbers of radiographs -> a batch.

    Args:
        reports: of several data sets, whose numbers these are.
        stores: their radiographs, at the size of the large pictures.
        windows: of each data set (radiographs, 4) xyxy, where super-resolution is judged.
        masking: of the reports; None: there is no text.
    """

    def __init__(
        self,
        reports: StudyIndices,
        stores: Sequence[RadiographStore],
        windows: Sequence[np.ndarray],
        masking: ReportMasking | None,
        views: Views,
    ):
        self.reports, self.stores, self.windows = reports, list(stores), list(windows)
        self.masking, self.views = masking, views

    def __call__(self, numbers: Sequence[int]) -> BatchFeature:
        # Not from torch's random state: where a run resumes within an epoch, the library draws a batch before it
        # restores that.
        views = self.views
        indices = [number % len(self.reports) for number in numbers]
        rngs = [np.random.default_rng([views.seed, number]) for number in numbers]
        pixels: torch.Tensor | None = None
        windows = torch.empty(len(indices), 4)
        masked: list[MaskedReport | None] = [None] * len(indices)
        for part, own_numbers, places in self.reports.parts(indices):
            reports = self.reports.studies[part]
            movements = [self._movement(rngs[place]) for place in places]
            (values,) = self.stores[part].pixel_values(reports.rows[own_numbers], movements)
            if pixels is None:
                pixels = values.new_empty((len(indices), 1, *values.shape[2:]), dtype=views.dtype)
            pixels[torch.from_numpy(places)] = values[:, :1].to(views.dtype)
            for place, number, movement in zip(places, own_numbers, movements, strict=True):
                window = self.windows[part][number]
                windows[place] = torch.from_numpy(np.asarray(window if views.release else movement.box(window)))
                if self.masking is not None:
                    masked[place] = self.masking(reports.text(number, rngs[place]), rngs[place])
        if views.release and views.min_crop_area is not None:
            mirrored = torch.tensor([rng.random() < 0.5 for rng in rngs])
            pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        noise = torch.from_numpy(np.stack([rng.random(views.patches**2, dtype=np.float32) for rng in rngs]))
        batch = {"pixel_values": pixels, "windows": windows, "noise": noise}
        return BatchFeature(batch if self.masking is None else batch | self._padded(masked))

    def _movement(self, rng: np.random.Generator) -> Movement:
        least = self.views.min_crop_area
        return Movement() if least is None else Movement.resized_crop(rng, least)

    def _padded(self, reports: Sequence[MaskedReport]) -> dict[str, torch.Tensor]:
        pad = self.masking.tokenizer.pad_token_id
        shape = len(reports), max(len(report.input_ids) for report in reports)
        batch = {
            "input_ids": torch.full(shape, pad),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "labels": torch.full(shape, NOT_ASKED),
            "token_weights": torch.zeros(shape),
            "descriptors": torch.zeros(shape, dtype=torch.bool),
        }
        for row, report in enumerate(reports):
            length = len(report.input_ids)
            batch["input_ids"][row, :length] = torch.from_numpy(report.input_ids)
            batch["attention_mask"][row, :length] = torch.from_numpy((report.input_ids != pad).astype(int))
            batch["labels"][row, :length] = torch.from_numpy(report.labels)
            batch["token_weights"][row, :length] = torch.from_numpy(report.weights)
            batch["descriptors"][row, :length] = torch.from_numpy(report.descriptors)
        return batch


class ECAMPTrainer(TowerTrainer):
    """`Trainer` of an `ECAMPModel`: the loss of a batch is the same however many processes share it."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        outputs = model(**inputs)
        loss = outputs.loss
        if outputs.text_loss is not None and self.args.world_size > 1:
            # Means over the words of all processes: each has another number of them.
            asked = (inputs["labels"] != NOT_ASKED).sum()
            share = asked * self.args.world_size / self.accelerator.gather(asked).sum()
            weight = self.accelerator.unwrap_model(model).config.text_weight
            loss = loss + weight * (share - 1) * outputs.text_loss
        self.note({name: getattr(outputs, name) for name in TERMS})
        return (loss, outputs) if return_outputs else loss
