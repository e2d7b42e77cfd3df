"""TRL's trainers, of LiteGPT models: runs that end well, and `SFTTrainer` with the paper's schedule and epochs.

trainer = LiteGPTTrainer(recipe=recipe_args, model=model, args=training_args, train_dataset=examples, ...)
trainer.train()   # a full disk, a loss that is no number, ...: a Refusal, one sentence
"""

import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainerCallback, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from trl import SFTConfig, SFTTrainer

from litegpt.common.programs import Refusal
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.train_scripts.arguments import RecipeArguments
from litegpt.train_scripts.dense_box_loss import detector_loss
from litegpt.train_scripts.resumable_trainer import ResumableTrainer
from litegpt.train_scripts.resume import last_complete_checkpoint
from litegpt.train_scripts.sampler import EpochSampler, TaskMixture

# Options of TRL that do nothing here, where the collator makes the labels and the model the loss.
UNUSED_OPTIONS = (
    "assistant_only_loss",
    "chat_template_path",
    "completion_only_loss",
    "eos_token",
    "eval_packing",
    "label_smoothing_factor",
    "loss_type",
    "packing",
    "pad_token",
    "padding_free",
    "use_liger_kernel",
)


def linear_warmup_cosine_lr(
    step: int, num_steps: int, learning_rate: float, warmup_lr: float, warmup_steps: int, min_lr: float
) -> float:
    """The learning rate of the optimizer step `step`, which counts from 0.

    Below `warmup_steps`: warmup_lr + (learning_rate - warmup_lr) * step / warmup_steps. From there on:
    min_lr + (learning_rate - min_lr) * (1 + cos(pi * step / num_steps)) / 2, where `step` counts the warm-up too, so
    that the rate falls a little at the end of the warm-up. No scheduler of the library does this.

    Source: `LinearWarmupCosineLRScheduler` of MiniGPT-4 (minigpt4/common/optims.py), which the paper's release uses.
    One difference: their code hands the warm-up the step within the epoch, so that it starts over with an epoch that
    begins before the warm-up ends (after 549 of 1,000 steps, where an epoch has 549). Here the warm-up continues.
    """
    if step < warmup_steps:
        return warmup_lr + (learning_rate - warmup_lr) * step / warmup_steps
    return min_lr + (learning_rate - min_lr) * (1 + math.cos(math.pi * step / num_steps)) / 2


class LogBeforeSave(TrainerCallback):
    """Logs with every checkpoint: a run that resumes from it then averages its losses over the same steps."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log |= control.should_save

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log |= control.should_save


class SteadyTrainer(ResumableTrainer):
    """A trainer of TRL whose run ends well: with a `Refusal`, one sentence that names the last complete checkpoint.

    Args:
        kwargs: those of TRL's trainer, which stands behind this class in a subclass's bases.
    """

    def __init__(self, **kwargs: Any):
        model, arguments = kwargs["model"], kwargs["args"]
        arguments.logging_nan_inf_filter = False  # it would show the mean of earlier losses in place of a NaN
        if arguments.ddp_find_unused_parameters is None:
            # A tower's last norm can be unused; after frozen towers every trained weight is used in every step.
            towers = (model.get_base_model() if isinstance(model, PeftModel) else model).model.towers
            arguments.ddp_find_unused_parameters = any(p.requires_grad for t in towers for p in t.parameters())
        trained = [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]
        super().__init__(**kwargs)
        # TRL rounds what is trained on a quantized base to bfloat16, in which most steps of 1e-5 are lost.
        for weight, data in trained:
            if weight.dtype != data.dtype:
                weight.data = data.to(weight.device)
        self.add_callback(LogBeforeSave())

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()}: try a lower learning_rate, more warmup_steps or bf16 in place of fp16"
            )
        return loss

    def train(self, *args, **kwargs) -> TrainOutput:
        with self.ending_in_one_sentence():
            return super().train(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        model = self.model if model is None else model
        if isinstance(model, LiteGPTForConditionalGeneration) and not self.is_fsdp_enabled:
            # Files name some towers' weights in another way than the networks; the library would leave those out.
            weights = LiteGPTForConditionalGeneration.from_pretrained(resume_from_checkpoint).state_dict()
            model.load_state_dict(weights)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    @contextmanager
    def ending_in_one_sentence(self) -> Iterator[None]:
        """Raises a `Refusal`, one sentence, where the run in this block cannot continue for reasons that are no bugs.

        A full disk, a loss that is no number, a full GPU, a process that died; other errors pass as they are.
        """
        try:
            yield
        except (OSError, RuntimeError, FloatingPointError, SafetensorError) as error:
            reason = why_a_run_ended(error)
            if reason is None:
                raise
            print(file=sys.stderr)  # the progress bar stands in this line
            last = last_complete_checkpoint(self.args.output_dir)
            going_on = "no checkpoint was saved before" if last is None else f"the same command resumes from {last}"
            raise Refusal(f"Ended at step {self.state.global_step}: {reason}; {going_on}.") from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes none, where TRL's would stand beside ours."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """The library's, without TRL's README.md. A checkpoint is complete when `trainer_state.json` stands."""
        self._refuse_broken_weights()
        folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save:
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)  # of an earlier run: it stands for other files
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, RuntimeError) and why_a_run_ended(error) is not None:
                raise  # torch reports a data process that died wherever the main process is at that moment
            raise OSError(f"{folder} could not be written ({first_line(error)})") from error

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The main process writes `trainer_state.json` and deletes older checkpoints next.
        self.accelerator.wait_for_everyone()

    def _refuse_broken_weights(self) -> None:
        """A step with infinite gradients shows in the next loss only, which a checkpoint must not come before."""
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                values = weight.to_local() if isinstance(weight, DTensor) else weight
                if not torch.isfinite(values).all():
                    raise FloatingPointError(f"{name} is not finite: try a lower learning_rate")


class LiteGPTTrainer(SteadyTrainer, SFTTrainer):
    """`SFTTrainer` of a LiteGPT model, which computes the loss of the answers without the logits of all positions.

    Args:
        recipe: schedule and sampling.
        task_weights: how often each task is shown, see `TaskMixture`; none: as often as it has examples.
        kwargs: `SFTTrainer`'s.
    """

    def __init__(self, recipe: RecipeArguments, task_weights: dict[str, float] | None = None, **kwargs):
        self.recipe, self.task_weights = recipe, task_weights
        arguments = kwargs["args"]
        refuse_options_without_effect(arguments, recipe)
        # The collator does what SFTTrainer would do with a vision data set, but never cuts: that would cut images.
        arguments.dataset_kwargs = {"skip_prepare_dataset": True}
        arguments.remove_unused_columns = False
        arguments.max_length = None
        if arguments.torch_compile:
            compile_layers(kwargs["model"], arguments.torch_compile_backend, arguments.torch_compile_mode)
            arguments.torch_compile = False  # the library would compile the whole model
            for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):  # by which the arguments told it so
                os.environ.pop(name, None)
        super().__init__(**kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if self.recipe.linear_warmup_cosine_lr and self.lr_scheduler is None:
            rate = partial(
                linear_warmup_cosine_lr,
                num_steps=num_training_steps,
                learning_rate=self.args.learning_rate,
                warmup_lr=self.recipe.warmup_lr,
                warmup_steps=self.args.get_warmup_steps(num_training_steps),
                min_lr=self.recipe.min_lr,
            )
            # LambdaLR multiplies the optimizer's own rate, which is `learning_rate` (where that is 0, all rates are).
            scale = 1 / (self.args.learning_rate or 1)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: rate(step) * scale)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochSampler:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        mixture = TaskMixture.of(dataset["task"][:], self.task_weights) if self.task_weights else None
        by_length = self.args.train_sampling_strategy == "group_by_length"
        sampler = EpochSampler(
            len(dataset),
            self.get_total_train_batch_size(self.args),
            self.recipe.steps_per_epoch,
            self.args.seed if self.args.data_seed is None else self.args.data_seed,
            # Not `set_epoch`: Accelerate does not hand it on where a run of several processes resumes within an epoch.
            current_epoch=lambda: self.state.global_step // sampler.steps_per_epoch,
            with_replacement=self.recipe.sample_with_replacement,
            lengths=dataset[self.args.length_column_name] if by_length else None,
            mixture=mixture,
        )
        return sampler

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        # Not SFTTrainer's, which scores every position on a CPU and gathers entropy and accuracy in every step.
        inputs = {**inputs, "use_cache": False, "skip_logits": not return_outputs}
        findings, known = inputs.pop("findings", None), inputs.pop("known", None)
        loss, outputs = super(SFTTrainer, self).compute_loss(model, inputs, True, num_items_in_batch)
        if findings is not None and model.training:
            base = self.accelerator.unwrap_model(model, keep_torch_compile=False)
            base = base.get_base_model() if isinstance(base, PeftModel) else base
            features = outputs.image_outputs.last_hidden_state
            of_detector = detector_loss(base.model.detector, features, findings, known)
            loss = loss + self.recipe.detector_loss_weight * of_detector / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


def compile_layers(model: torch.nn.Module, backend: str = "inductor", mode: str | None = None) -> None:
    """Compiles the layers of the language model in place; what is saved of the model stays the same.

    They are the same code many times, which is compiled once, in seconds; what differs from batch to batch (lengths,
    how many answers have boxes) stays around them.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    for module in base.model.language_model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(backend=backend, mode=mode)


def refuse_options_without_effect(arguments: SFTConfig, recipe: RecipeArguments) -> None:
    """Ends the program where an option is set that the trainer would not heed."""
    refuse_options(arguments, UNUSED_OPTIONS, SFTConfig)
    if arguments.train_sampling_strategy not in ("random", "group_by_length"):
        raise Refusal("train_sampling_strategy: random or group_by_length.")
    if recipe.linear_warmup_cosine_lr and arguments.lr_scheduler_kwargs:
        raise Refusal("lr_scheduler_kwargs: linear_warmup_cosine_lr has warmup_lr and min_lr instead.")


def refuse_options(arguments: TrainingArguments, names: Sequence[str], kind: type[TrainingArguments]) -> None:
    """Ends the program where one of the options `names`, of TRL's class `kind`, is not as it is by default."""
    # Fresh ones rather than the fields' defaults, which some releases of TRL fill in when one is made. On the same
    # device: whoever makes one chooses it for the whole process, and a trainer made after that takes it.
    same_device = {name: getattr(arguments, name) for name in ("use_cpu", "bf16", "fp16")}
    defaults = kind(arguments.output_dir, **same_device, report_to="none")
    for name in names:
        if getattr(arguments, name) != getattr(defaults, name):
            raise Refusal(f"{name}: this option of TRL has no effect here; leave it out.")


def why_a_run_ended(error: Exception) -> str | None:
    """The reason in a few words, or None where the error looks like a bug, whose traceback is wanted."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "the GPU's memory is full: lower per_device_train_batch_size and raise gradient_accumulation_steps, or "
            "try gradient_checkpointing or load_in_8bit"
        )
    if isinstance(error, (OSError, FloatingPointError, SafetensorError)):
        return first_line(error)
    if text.startswith("DataLoader worker"):
        return f"a process that loads data has died ({first_line(error)})"
    if isinstance(error, torch.distributed.DistError) or "gloo" in text or "NCCL" in text:
        return f"another process of the run has died or cannot be reached ({first_line(error).split('. ')[0]})"
    return None


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
