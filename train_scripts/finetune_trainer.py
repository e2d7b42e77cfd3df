"""`Trainer` of an image tower with a head: batches of a task's radiographs, its loss, its figures while it trains.

In: a split as a `Radiographs`, which makes batches {"pixel_values", "numbers", and the task's targets}. Out: a trained
model; in the log the figures of a validation, by one of which the best checkpoint is chosen; a test's answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset as Rows
from torch import nn
from torch.utils.data import Dataset
from transformers import EvalPrediction

from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.resumable_trainer import ResumableTrainer
from litegpt.train_scripts.tower_trainer import StudySampler, finite, study_sampler
from litegpt.train_scripts.views import Movement

PICTURES_AT_ONCE = 64  # that are moved: it takes several times their memory


class Truths(Protocol):
    """What is true of a split's radiographs; `positive`: (radiographs,) bool, which show what the task is about."""

    positive: np.ndarray

    def __len__(self) -> int: ...

    def targets(self, numbers: Sequence[int], movements: Sequence[Movement]) -> dict[str, torch.Tensor]:
        """What the loss needs of some radiographs that are moved."""


class Task(Protocol):
    """What a head is trained for: a file of `tower_tasks/`.

    Attributes:
        name: one of `litegpt.modeling_towers.finetuned_tower.TASKS`.
        labels: of the head.
        metric: the figure of a validation by which the best checkpoint is chosen; the higher the better.
    """

    name: str
    labels: list[str]
    single_label: bool
    metric: str

    def truths(self, rows: Rows, folder: Path) -> Truths: ...

    def cannot_measure(self, truths: Truths, least: int) -> str | None:
        """Why a split's radiographs cannot tell good answers from bad; `least` as `min_positives`."""

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor: ...

    def answers(self, output: torch.Tensor) -> torch.Tensor:
        """What of a head's output is kept of each radiograph, as small as it may be."""

    def validation_figures(self, answers: np.ndarray, truths: Truths) -> dict[str, float]: ...

    def scores(
        self, answers: np.ndarray, truths: Truths, train: Truths, patients: np.ndarray | None, min_positives: int
    ) -> dict[str, Any]:
        """What metrics.json says of a test: "labels", "counts", "left_out", "figures", "intervals"."""

    def write_predictions(self, answers: np.ndarray, truths: Truths, image_ids: Sequence[str], folder: Path) -> None:
        """Writes the predictions file of a test."""


class Radiographs(Dataset):
    """The radiographs of a split with what is true of them, a batch at a time.

    Args:
        store: of their pictures, at one tower's input size.
        min_crop_area: the smallest part of a picture that is shown; 1: all of it, always.
        max_gamma: grey values to a power between exp(-max_gamma) and exp(max_gamma).
        seed: of what is drawn of a radiograph, with its number and epoch: however many processes share a batch, and
            wherever a run resumes, it is shown in the same way.
        dtype: of the pictures.
    """

    def __init__(
        self,
        store: RadiographStore,
        truths: Truths,
        min_crop_area: float = 1.0,
        max_gamma: float = 0.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        self.store, self.truths, self.seed, self.dtype = store, truths, seed, dtype
        self.min_crop_area, self.max_gamma = min_crop_area, max_gamma
        (processor,) = store.image_processors
        # A radiograph is grey: where mean and deviation are one for all channels, the tower takes one for three.
        self.channels = 1 if len(set(processor.image_mean)) == len(set(processor.image_std)) == 1 else 3

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.batch([number])

    def __getitems__(self, numbers: list[int]) -> list[dict[str, torch.Tensor]]:
        """What a data loader asks for a batch: the list's one item is the batch, see `the_batch`."""
        return [self.batch(numbers)]

    def batch(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """A batch of radiographs; numbers are those of a split, or with an epoch, as `StudySampler` gives them."""
        movements = [self._movement(number) for number in numbers]
        rows = [number % len(self) for number in numbers]
        pictures: torch.Tensor | None = None
        for start in range(0, len(rows), PICTURES_AT_ONCE):
            stretch = slice(start, start + PICTURES_AT_ONCE)
            (values,) = self.store.pixel_values(rows[stretch], movements[stretch])
            if pictures is None:
                shape = (len(rows), self.channels, *values.shape[2:])
                pictures = torch.empty(shape, dtype=self.dtype)
            pictures[stretch] = values[:, : self.channels].to(self.dtype)
        targets = self.truths.targets(rows, movements)
        return {"pixel_values": pictures, "numbers": torch.tensor(rows), **targets}

    def _movement(self, number: int) -> Movement:
        if self.min_crop_area == 1 and not self.max_gamma:
            return Movement()
        rng = np.random.default_rng([self.seed, number])
        gamma = float(np.exp(rng.uniform(-self.max_gamma, self.max_gamma)))
        return replace(Movement.resized_crop(rng, self.min_crop_area), gamma=gamma)


def the_batch(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The collator: `Radiographs` has made the batch already."""
    return items[0]


class FinetuneTrainer(ResumableTrainer):
    """`Trainer` of a `FinetunedTower`.

    Args:
        task: whose loss and figures.
        positive_share: of the radiographs that show what the task is about, in an epoch; None: as it comes.
        kwargs: `Trainer`'s; the data sets are `Radiographs`.
    """

    def __init__(self, task: Task, positive_share: float | None = None, **kwargs: Any):
        self.task, self.positive_share = task, positive_share
        arguments = kwargs["args"]
        arguments.remove_unused_columns = False
        if arguments.world_size > 1 and arguments.device.type == "cuda":  # batch norms over all GPUs
            kwargs["model"] = nn.SyncBatchNorm.convert_sync_batchnorm(kwargs["model"])
        super().__init__(data_collator=the_batch, compute_metrics=self._validation_figures, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> StudySampler:
        return study_sampler(self, self.train_dataset.truths.positive, self.positive_share)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        output = model(inputs["pixel_values"])
        with torch.autocast(self.args.device.type, enabled=False):
            loss = self.task.loss(output, inputs)
        return (loss, output) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return finite(super().training_step(*args, **kwargs))

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss, the task's answers, and which radiographs these are."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, output = self.compute_loss(model, inputs, return_outputs=True)
        return loss.detach(), self.task.answers(output), inputs["numbers"]

    def answers(self, radiographs: Radiographs) -> np.ndarray:
        """The answers to a split, in its order, computed by all processes."""
        self.compute_metrics, figures = None, self.compute_metrics
        try:
            found = self.predict(radiographs)
        finally:
            self.compute_metrics = figures
        return in_order(found.predictions, found.label_ids)

    def _validation_figures(self, found: EvalPrediction) -> dict[str, float]:
        answers = in_order(found.predictions, found.label_ids)
        return self.task.validation_figures(answers, self.eval_dataset.truths)


def in_order(answers: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Answers by the numbers of their radiographs, of which each has one."""
    return answers[np.argsort(numbers, kind="stable")]
