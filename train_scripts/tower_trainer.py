"""What the trainers of towers share: studies of several data sets in turn, terms of the loss in the log, validation.

In: data sets that have a length and say which of their studies have findings. Out: numbers of studies, of which a
collator makes batches; a `Trainer` whose log has what a training notes at each step, and the figures of a validation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from litegpt.common.programs import Refusal
from litegpt.train_scripts.resumable_trainer import ResumableTrainer, SavedWhole
from litegpt.train_scripts.sampler import EpochSampler


class StudySet(Protocol):
    """The studies of one data set; `abnormal`: (studies,) bool, which have findings."""

    abnormal: np.ndarray

    def __len__(self) -> int: ...


class StudyIndices(Dataset):
    """The studies of several data sets, numbered one after another; the collator makes batches of the numbers."""

    def __init__(self, studies: Sequence[StudySet]):
        self.studies = list(studies)
        self.starts = np.cumsum([0, *map(len, studies)])
        self.abnormal = np.concatenate([part.abnormal for part in studies])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> int:
        return index

    def parts(self, indices: Sequence[int]) -> Iterator[tuple[int, list[int], np.ndarray]]:
        """(number of the data set, its own numbers of studies, their places among `indices`) of each that has any."""
        of = np.searchsorted(self.starts, indices, side="right") - 1
        for part in np.unique(of):
            places = np.flatnonzero(of == part)
            yield int(part), [int(indices[place] - self.starts[part]) for place in places], places


class StudySampler(EpochSampler):
    """Every study once an epoch; or every study with findings, and so many others that these have the share asked for.

    Args:
        abnormal: (studies,) which have findings.
        share: of these in an epoch; None: as it comes.
        options: `EpochSampler`'s.
    """

    def __init__(self, abnormal: np.ndarray, share: float | None, **options: Any):
        self.groups = None
        count = len(abnormal)
        if share is not None:
            first, second = np.flatnonzero(abnormal), np.flatnonzero(~abnormal)
            others = round(len(first) * (1 - share) / share) if share else len(second)
            if not len(first) or share == 0:
                raise Refusal("abnormal_share: it must be above 0, and there must be studies with findings.")
            self.groups = first, second, min(others, len(second))
            count = len(first) + self.groups[2]
        self.studies = len(abnormal)
        super().__init__(count, steps_per_epoch=None, **options)

    def __iter__(self) -> Iterator[int]:
        """Numbers that tell the epoch too, from which `StudyCollator` seeds what it draws: index + epoch * studies."""
        first = self.current_epoch() * self.studies
        return iter([first + index for index in super().__iter__()])

    def _permutation(self, number: int) -> np.ndarray:
        if self.groups is None:
            return super()._permutation(number)
        first, second, others = self.groups
        rng = np.random.default_rng([self.seed, number])
        return rng.permutation(np.concatenate([first, rng.permutation(second)[:others]]))


class TowerTrainer(SavedWhole, ResumableTrainer):
    """`Trainer` of a model that is saved whole, over the studies of several data sets.

    Args:
        abnormal_share: see `StudySampler`.
        validation: called whenever the trainer evaluates; returns figures by name.
        kwargs: `Trainer`'s; `train_dataset` is a `StudyIndices`.
    """

    def __init__(
        self,
        abnormal_share: float | None = None,
        validation: Callable[[nn.Module], dict[str, float]] | None = None,
        **kwargs: Any,
    ):
        kwargs["args"].remove_unused_columns = False
        self.abnormal_share, self.validation = abnormal_share, validation
        self._noted: dict[str, list[torch.Tensor]] = {}
        super().__init__(**kwargs)
        # The loss of a step is a mean of its own: of several accumulated ones the trainer takes the mean. Releases
        # of the library read the one or the other.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> StudySampler:
        sampler = study_sampler(self, self.train_dataset.abnormal, self.abnormal_share)
        if sampler.num_examples < sampler.batch_size:
            raise Refusal(
                f"A batch of {sampler.batch_size} studies is larger than the {sampler.num_examples} there are."
            )
        return sampler

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return finite(super().training_step(*args, **kwargs))

    def note(self, values: Mapping[str, torch.Tensor | None]) -> None:
        """Scalars of a step, whose means the next line of the log has; None is not noted."""
        for name, value in values.items():
            if value is not None:
                self._noted.setdefault(name, []).append(value.detach())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= {name: torch.stack(values).float().mean().item() for name, values in self._noted.items()}
            self._noted.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """The figures of `validation`, computed by every process, logged and handed to the callbacks."""
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        with self.random_numbers_kept(), torch.no_grad(), self.compute_loss_context_manager():
            figures = {f"{metric_key_prefix}_{name}": value for name, value in self.validation(model).items()}
        model.train()
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures


def study_sampler(trainer: Trainer, abnormal: np.ndarray, share: float | None) -> StudySampler:
    """The order in which a trainer shows its studies, over all processes and accumulated batches."""
    arguments = trainer.args
    per_process = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    sampler = StudySampler(
        abnormal,
        share,
        batch_size=per_process * arguments.world_size,
        seed=arguments.seed if arguments.data_seed is None else arguments.data_seed,
        # Not `set_epoch`: Accelerate does not hand it on where a run of several processes resumes within an epoch.
        current_epoch=lambda: trainer.state.global_step // sampler.steps_per_epoch,
    )
    return sampler


def finite(loss: torch.Tensor) -> torch.Tensor:
    """The loss of a step; a run whose loss is no number ends here, before it is saved."""
    if not torch.isfinite(loss):
        raise Refusal(f"The loss is {loss.item()}: try a lower learning_rate or more warmup_steps.")
    return loss


def picture_dtype(arguments: TrainingArguments) -> torch.dtype:
    """Of a batch's pictures: half precision is a tenth of a grey level, no loss where the tower computes in it."""
    return torch.float16 if arguments.bf16 or arguments.fp16 else torch.float32
