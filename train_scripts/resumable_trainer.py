"""What every `Trainer` here needs, so that a run that was killed goes on to the same weights: TRL's takes it in too.

class TowerTrainer(ResumableTrainer): ...
class LiteGPTTrainer(ResumableTrainer, SFTTrainer): ...
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import Trainer


class ResumableTrainer(Trainer):
    """`Trainer` whose validations draw nothing from a training's random numbers, and whose last step is the last."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.random_numbers_kept():
            return super().evaluate(*args, **kwargs)

    @contextmanager
    def random_numbers_kept(self) -> Iterator[None]:
        """What this block draws does not change the steps that follow, as the library's data loaders would."""
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            yield

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A run that was killed after its last step would be given one more: the library looks after a step only.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)


class SavedWhole:
    """Of a `Trainer` whose model is saved by `save_pretrained`, and so loaded by `from_pretrained`.

    Files name some towers' weights in another way than the network does; the library would leave those out.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        into = self.model if model is None else model
        into.load_state_dict(type(into).from_pretrained(resume_from_checkpoint).state_dict())

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)
