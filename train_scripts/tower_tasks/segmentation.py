"""Masks of one thing: which there are, their loss, what is measured.

    task = Segmentation.of(train_rows)               # labels: ["Pneumothorax"]
    masks = task.truths(rows, folder)                # a `MaskStore`
    task.loss(logits, masks.targets([0, 7], movements))

In: rows with the column `mask` (SIIM-ACR), or else with boxes, which are filled (RSNA Pneumonia). Out: logits' loss,
packed masks, scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional

from litegpt.common.files import replacing
from litegpt.evaluation_scripts.tower_scores.segmentation import best_region, dices, mask_scores, mean_dices
from litegpt.train_scripts.mask_store import MaskStore

FOCAL_WEIGHT, FOCUS = 10.0, 2.0
ANY = "any finding"
SMOOTH = 1.0  # pixels: without them an empty batch has no Dice


def mixed_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """10 * focal - log(dice), a scalar.

        focal = mean over all pixels of (1 - p_t)^2 * -log(p_t),    p_t: probability of what is true of the pixel
        dice = (2 * sum(p * mask) + 1) / (sum(p) + sum(mask) + 1),  over all pixels of the batch

    Args:
        logits, masks: (images, height, width).

    Source: focal loss: Lin et al., arXiv 1708.02002, equation 4, without its alpha; Dice: Milletari et al., arXiv
        1606.04797, section 3, with plain sums below. Together as in ECAMP's and MGCA's segmentation.
    """
    logits = logits.float()
    surprise = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    focal = ((1 - torch.exp(-surprise)) ** FOCUS * surprise).mean()
    found = logits.sigmoid()
    dice = (2 * (found * masks).sum() + SMOOTH) / (found.sum() + masks.sum() + SMOOTH)
    return FOCAL_WEIGHT * focal - dice.log()


def packed(masks: torch.Tensor) -> torch.Tensor:
    """(images, bytes) uint8 of (images, height, width) bool: eight pixels a byte, as `numpy.packbits`."""
    bits = functional.pad(masks.flatten(1), (0, -masks[0].numel() % 8)).unflatten(1, (-1, 8))
    values = 2 ** torch.arange(7, -1, -1, device=masks.device)
    return (bits * values).sum(dim=-1).to(torch.uint8)


@dataclass(frozen=True)
class Segmentation:
    """One mask a radiograph.

    Attributes:
        labels: the name of what it shows.
        side: pixels of the tower's input.
    """

    labels: list[str]
    side: int
    name = "segmentation"
    single_label = False
    metric = "dice_balanced"

    @classmethod
    def of(cls, rows: Dataset, side: int) -> "Segmentation":
        """The task of the data's masks; of boxes all labels together are one thing, `ANY`.

        Raises:
            ValueError: the data has neither masks nor boxes.
        """
        names = rows.features["diagnoses" if "mask" in rows.column_names else "findings"].feature
        names = names.names if "mask" in rows.column_names else names["label"].names
        if "mask" not in rows.column_names and not any(rows["findings"][:]):
            raise ValueError("The training radiographs have neither masks nor boxes.")
        return cls(list(names) if len(names) == 1 else [ANY], side)

    def truths(self, rows: Dataset, folder: Path) -> MaskStore:
        return MaskStore(rows, self.side, folder)

    def cannot_measure(self, truths: MaskStore, least: int) -> str | None:
        return None if truths.positive.any() else "no radiograph has a mask"

    def loss(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return mixed_loss(logits, batch["masks"])

    def answers(self, logits: torch.Tensor) -> torch.Tensor:
        """(images, bytes) packed: the pixels whose probability is above a half."""
        return packed(logits > 0)

    def validation_figures(self, answers: np.ndarray, truths: MaskStore) -> dict[str, float]:
        return dict(mean_dices(answers, truths.true))

    def scores(
        self,
        answers: np.ndarray,
        truths: MaskStore,
        train: MaskStore,
        patients: np.ndarray | None,
        min_positives: int,
    ) -> dict[str, Any]:
        region = best_region(train.true, train.positive)
        return {"labels": self.labels, "left_out": {}} | mask_scores(answers, truths.true, region, patients)

    def write_predictions(
        self, answers: np.ndarray, truths: MaskStore, image_ids: Sequence[str], folder: Path
    ) -> None:
        """predictions.npz: image_ids, side, masks (each `numpy.packbits` of side x side), dice of each."""
        with replacing(folder / "predictions.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                image_ids=np.array(image_ids),
                side=self.side,
                masks=answers,
                dice=dices(answers, truths.true),
            )
