"""Labels of radiographs for a `RadiographClassifier`: as `classification.py`, with ChestX-ray8's weighted loss.

    task = WeightedLabels.of(train_rows, asked=None, unmentioned_negative=False)
    task.loss(model(pixel_values), {"labels": ...})
    task.cut_offs(answers, truths)     # {label: {"threshold", "precision", "recall", "f1", ..., "chosen_on"}}

In: rows with labels, the model's output. Out: its loss, probabilities, and from which of them on a label is present.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from litegpt.evaluation_scripts.calibrate import choose_thresholds
from litegpt.metrics.boxes import Matches
from litegpt.modeling_towers.modeling_classifier import RadiographClassifierOutput, weighted_cross_entropy
from litegpt.train_scripts.tower_tasks.classification import Classification, LabelTruths


@dataclass(frozen=True)
class WeightedLabels(Classification):
    """Any number of labels, each by itself; `balance` as `RadiographClassifierConfig`'s."""

    balance: str = "batch"

    def loss(self, output: RadiographClassifierOutput, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return weighted_cross_entropy(output.logits, batch["labels"], self.balance)

    def answers(self, output: RadiographClassifierOutput) -> torch.Tensor:
        return super().answers(output.logits)

    def cut_offs(self, answers: np.ndarray, truths: LabelTruths) -> dict[str, dict[str, Any]]:
        """Of each label the probability of best F1; that of all labels together where it has too few positives."""
        known = np.isfinite(truths.labels)
        image, label = np.nonzero(known)
        order = np.argsort(-answers[known], kind="stable")
        image, label, scores = image[order], label[order], answers[known][order]
        names, is_true = np.array(self.labels, dtype=object), truths.labels[image, label] == 1
        true_image, true_label = np.nonzero(truths.labels == 1)
        matches = Matches(image, names[label], scores, is_true, true_image, names[true_label])
        return choose_thresholds(matches, self.labels)[1]
