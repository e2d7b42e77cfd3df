"""Labels of radiographs: which are learnt, their loss, what is measured.

    task = Classification.of(train_rows, asked=["Edema"], unmentioned_negative=False)
    truths = task.truths(rows)                       # of a split
    truths.targets([0, 7], movements)                # {"labels": (2, labels) 1, 0 or NaN}
    task.loss(logits, batch)

In: rows with labels. Out: logits' loss, probabilities, scores. Of a label that is unknown or uncertain (NaN) nothing
is learnt. `SingleLabel` is for data in which exactly one diagnosis holds of each radiograph, such as COVIDx.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional

from litegpt.common.files import replacing
from litegpt.datasets_scripts.image_labels import abnormal, each_row, label_matrix, label_names
from litegpt.datasets_scripts.tables import plain
from litegpt.evaluation_scripts.ranking import usable_labels
from litegpt.evaluation_scripts.tower_scores.classification import class_scores, label_scores, macro_auroc
from litegpt.processing.answers import NO_FINDING
from litegpt.train_scripts.views import Movement


@dataclass(frozen=True)
class LabelTruths:
    """What is true of a split's radiographs.

    Attributes:
        labels: (radiographs, labels) 1, 0 or NaN; of `SingleLabel` (radiographs,) numbers of classes.
        abnormal: (radiographs,) bool.
        positive: (radiographs,) bool, which have any of the labels.
    """

    labels: np.ndarray
    abnormal: np.ndarray
    positive: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def targets(self, numbers: Sequence[int], movements: Sequence[Movement]) -> dict[str, torch.Tensor]:
        return {"labels": torch.from_numpy(self.labels[np.asarray(numbers)])}


@dataclass(frozen=True)
class Classification:
    """Any number of labels, each by itself.

    Attributes:
        labels: names, of the data's own features.
        unmentioned_negative: a label that a report does not mention is negative, not unknown.
        left_out: {label: why it is not learnt}.
    """

    labels: list[str]
    unmentioned_negative: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    name = "classification"
    single_label = False
    metric = "auroc"

    @classmethod
    def of(cls, rows: Dataset, asked: Sequence[str] | None, unmentioned_negative: bool) -> "Classification":
        """The task whose labels have a positive and a negative radiograph among the training rows.

        Raises:
            ValueError: the rows do not speak of a label that is asked for, or none can be learnt.
        """
        names = list(asked or [name for name in label_names(rows.features) if plain(name) != plain(NO_FINDING)])
        usable, left_out = usable_labels(names, matrix(rows, names, unmentioned_negative), 1)
        if not len(usable):
            raise ValueError("No label has a positive and a negative training radiograph: there is nothing to learn.")
        reasons = {name: f"in training {reason}" for name, reason in left_out.items()}
        return cls([names[place] for place in usable], unmentioned_negative, reasons)

    def truths(self, rows: Dataset, folder: Path | None = None) -> LabelTruths:
        labels = matrix(rows, self.labels, self.unmentioned_negative)
        return LabelTruths(labels, abnormal(rows), (labels == 1).any(axis=1))

    def cannot_measure(self, truths: LabelTruths, least: int) -> str | None:
        if len(usable_labels(self.labels, truths.labels, least)[0]):
            return None
        return f"no label has {least} positive and {least} negative radiographs"

    def loss(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Binary cross entropy, summed over what is known, over radiographs times labels.

        So an unknown label takes nothing from the others' weight, and a batch's loss is the mean of its parts' losses
        however many processes or accumulated batches share it.
        """
        labels = batch["labels"]
        known = torch.isfinite(labels)
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), labels.nan_to_num(0.0), weight=known.float(), reduction="none"
        )
        return losses.sum() / losses.numel()

    def answers(self, logits: torch.Tensor) -> torch.Tensor:
        """(radiographs, labels) probabilities."""
        return logits.float().sigmoid()

    def validation_figures(self, answers: np.ndarray, truths: LabelTruths) -> dict[str, float]:
        return {"auroc": macro_auroc(answers, truths.labels)}

    def scores(
        self,
        answers: np.ndarray,
        truths: LabelTruths,
        train: LabelTruths,
        patients: np.ndarray | None,
        min_positives: int,
    ) -> dict[str, Any]:
        found = label_scores(answers, truths.labels, truths.abnormal, self.labels, patients, min_positives)
        return found | {"left_out": self.left_out | found["left_out"]}

    def write_predictions(
        self, answers: np.ndarray, truths: LabelTruths, image_ids: Sequence[str], folder: Path
    ) -> None:
        """predictions.npz: image_ids, labels, probabilities, truths."""
        with replacing(folder / "predictions.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                image_ids=np.array(image_ids),
                labels=np.array(self.labels),
                probabilities=answers,
                truths=truths.labels,
            )


@dataclass(frozen=True)
class SingleLabel(Classification):
    """Exactly one of the diagnoses holds of each radiograph."""

    single_label = True
    metric = "accuracy"

    @classmethod
    def of(cls, rows: Dataset, asked: Sequence[str] | None, unmentioned_negative: bool) -> "SingleLabel":
        """The task whose classes are the diagnoses that the data set declares.

        Raises:
            ValueError: single diagnoses were asked for, a radiograph has none or several, or all have the same.
        """
        if asked or unmentioned_negative:
            raise ValueError("--single_label: the classes are all diagnoses of the data; it takes no --labels.")
        task = cls(list(rows.features["diagnoses"].feature.names))
        if len(np.unique(task.truths(rows).labels)) < 2:
            raise ValueError("All training radiographs have the same diagnosis: there is nothing to learn.")
        return task

    def truths(self, rows: Dataset, folder: Path | None = None) -> LabelTruths:
        classes = np.empty(len(rows), dtype=np.int64)
        for number, row in enumerate(each_row(rows.select_columns(["image_id", "diagnoses"]))):
            if len(row["diagnoses"]) != 1:
                raise ValueError(
                    f"{row['image_id']}: has {len(row['diagnoses'])} diagnoses; --single_label needs one."
                )
            classes[number] = row["diagnoses"][0]
        normal = [plain(name) in (plain(NO_FINDING), "normal") for name in self.labels]
        positive = ~np.array(normal)[classes]
        return LabelTruths(classes, positive, positive)

    def cannot_measure(self, truths: LabelTruths, least: int) -> str | None:
        return None

    def loss(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross entropy."""
        return functional.cross_entropy(logits.float(), batch["labels"])

    def answers(self, logits: torch.Tensor) -> torch.Tensor:
        """(radiographs, labels) probabilities, which add up to 1."""
        return logits.float().softmax(dim=-1)

    def validation_figures(self, answers: np.ndarray, truths: LabelTruths) -> dict[str, float]:
        return {"accuracy": float((answers.argmax(axis=1) == truths.labels).mean())}

    def scores(
        self,
        answers: np.ndarray,
        truths: LabelTruths,
        train: LabelTruths,
        patients: np.ndarray | None,
        min_positives: int,
    ) -> dict[str, Any]:
        commonest = int(np.bincount(train.labels).argmax())
        return class_scores(answers, truths.labels, commonest, self.labels, patients)


def matrix(rows: Dataset, names: Sequence[str], unmentioned_negative: bool) -> np.ndarray:
    """(radiographs, labels) float32: 1, 0 or NaN, as `label_matrix`.

    Args:
        unmentioned_negative: what a report does not mention is 0, as users of CheXpert have it; what it is uncertain
            of stays NaN.

    Raises:
        ValueError: the rows do not speak of a label; or nothing was read out of reports, so none can be unmentioned.
    """
    labels = label_matrix(rows, names)
    if not unmentioned_negative:
        return labels
    if "mentioned" not in rows.features:
        raise ValueError("--unmentioned_negative: the data's labels were not read out of reports; leave it out.")
    all_names = rows.features["mentioned"].feature["label"].names
    for number, row in enumerate(each_row(rows.select_columns(["mentioned"]))):
        mentioned = {all_names[item["label"]] for item in row["mentioned"] or ()}
        labels[number, [place for place, name in enumerate(names) if name not in mentioned]] = 0
    return labels
