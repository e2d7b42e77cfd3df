"""`Trainer` of CXR-CLIP: batches of studies, its loss over all processes, large batches in little memory.

In: indices of studies. A batch is {"pixel_values": (views * studies, 1 or 3 channels, ...), "input_ids" and
"attention_mask": (views * studies, tokens)}, all first views before all second ones. Out: a trained model; in the log
the loss's terms, and the figures of a validation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.feature_extraction_utils import BatchFeature

from litegpt.common.programs import Refusal
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.train_scripts.contrastive_loss import ContrastiveLoss, LossWeights, contrastive_loss
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.sampler import EpochSampler
from litegpt.train_scripts.studies import Studies
from litegpt.train_scripts.views import Movement

TERMS = ("mvs", "icl", "tcl")
PICTURES_AT_ONCE = 64  # that a collator moves: it takes several times their memory


class StudyIndices(Dataset):
    """The studies of several data sets, numbered one after another; the collator makes batches of the numbers."""

    def __init__(self, studies: Sequence[Studies]):
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


class StudyCollator:
    """Numbers of studies -> a batch; pictures moved at random, or as they are where the studies are not augmented.

    Args:
        seed: of what is drawn, with the numbers that `StudySampler` gives.
        dtype: of the pictures, see `picture_dtype`.
    """

    def __init__(
        self,
        studies: StudyIndices,
        stores: Sequence[RadiographStore],
        processor: CXRCLIPProcessor,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        self.studies, self.stores, self.processor, self.seed = studies, list(stores), processor, seed
        self.dtype = dtype
        # A radiograph is grey: where mean and deviation are one for all channels, so are these. The model takes one of
        # them in place of three; of a large batch the pictures would else be most of the memory.
        means, deviations = set(processor.image_processor.image_mean), set(processor.image_processor.image_std)
        self.channels = 1 if len(means) == len(deviations) == 1 else 3

    def __call__(self, numbers: list[int]) -> BatchFeature:
        # Not from torch's random state: where a run resumes within an epoch, the library draws a batch before it
        # restores that.
        indices = [number % len(self.studies) for number in numbers]
        return self.batch(indices, np.random.default_rng([self.seed, *numbers]))

    def batch(self, indices: Sequence[int], rng: np.random.Generator | None) -> BatchFeature:
        """A batch drawn with `rng`; None: each study's first picture, unmoved, and its whole report."""
        pictures: torch.Tensor | None = None
        texts: list[list[str]] = []
        for part, numbers, places in self.studies.parts(indices):
            studies = self.studies.studies[part]
            drawn = studies.first(numbers) if rng is None else studies.draw(numbers, rng)
            texts = texts or [[""] * len(indices) for _ in drawn.texts]
            for view, (rows, sentences) in enumerate(zip(drawn.rows, drawn.texts, strict=True)):
                moved = [self._movement(studies, rng) for _ in rows]
                for start in range(0, len(rows), PICTURES_AT_ONCE):
                    stretch = slice(start, start + PICTURES_AT_ONCE)
                    (values,) = self.stores[part].pixel_values(rows[stretch], moved[stretch])
                    values = values[:, : self.channels].to(self.dtype)
                    if pictures is None:
                        pictures = values.new_empty((len(drawn.rows), len(indices), *values.shape[1:]))
                    pictures[view, torch.from_numpy(places[stretch])] = values
                for place, text in zip(places, sentences, strict=True):
                    texts[view][place] = text
        encoded = self.processor(text=[text for view in texts for text in view])
        return BatchFeature({"pixel_values": pictures.flatten(0, 1), **encoded})

    def _movement(self, studies: Studies, rng: np.random.Generator | None) -> Movement:
        arguments = studies.arguments
        if rng is None or not arguments.augment:
            return Movement()
        return Movement.random_crop(rng, arguments.min_crop_area, arguments.max_gamma, arguments.equalise)


class Embeddings(NamedTuple):
    """Vectors of a batch, (views, studies, width), and the scale."""

    images: torch.Tensor
    texts: torch.Tensor
    scale: torch.Tensor


class CXRCLIPTrainer(Trainer):
    """`Trainer` of a `CXRCLIPModel`.

    With `chunk_size` the batch's vectors are computed in chunks without a graph, then the loss and its gradient at the
    vectors, then each chunk again with that gradient: memory is a chunk's, the gradient the whole batch's. Dropout
    draws the same numbers both times. Batch norms see a chunk, as they see one GPU's share of a batch.

    Args:
        weights: of the loss's terms.
        chunk_size: studies in memory at once; None: the batch.
        abnormal_share: see `StudySampler`.
        validation: called whenever the trainer evaluates; returns figures by name.
        kwargs: `Trainer`'s.

    Source of the chunks: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (2021),
        arXiv 2101.06983 (GradCache).
    """

    def __init__(
        self,
        weights: LossWeights,
        chunk_size: int | None = None,
        abnormal_share: float | None = None,
        validation: Callable[[nn.Module], dict[str, float]] | None = None,
        **kwargs: Any,
    ):
        arguments = kwargs["args"]
        if arguments.gradient_accumulation_steps > 1:
            raise Refusal(
                "gradient_accumulation_steps: accumulated batches do not see each other, so that a study would not be "
                "told from more others; a larger per_device_train_batch_size with --chunk_size does that."
            )
        arguments.remove_unused_columns = False
        self.weights, self.chunk_size, self.abnormal_share = weights, chunk_size, abnormal_share
        self.validation = validation
        self._terms: dict[str, list[torch.Tensor]] = {}
        super().__init__(**kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> StudySampler:
        dataset = self.train_dataset
        sampler = StudySampler(
            dataset.abnormal,
            self.abnormal_share,
            batch_size=self.args.per_device_train_batch_size * self.args.world_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            # Not `set_epoch`: Accelerate does not hand it on where a run of several processes resumes within an epoch.
            current_epoch=lambda: self.state.global_step // sampler.steps_per_epoch,
        )
        if sampler.num_examples < sampler.batch_size:
            raise Refusal(
                f"A batch of {sampler.batch_size} studies is larger than the {sampler.num_examples} there are."
            )
        return sampler

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """By `from_pretrained`: files name some towers' weights in another way; the library would leave those out."""
        weights = CXRCLIPModel.from_pretrained(resume_from_checkpoint).state_dict()
        (self.model if model is None else model).load_state_dict(weights)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor | tuple[torch.Tensor, Embeddings]:
        embeddings = self._embeddings(model, inputs, self._views(inputs))
        loss = self._loss(embeddings)
        return (loss, embeddings) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if self.chunk_size is None:
            loss = super().training_step(model, inputs, *args, **kwargs)
        else:
            loss = self._step_in_chunks(model, inputs)
        if not torch.isfinite(loss):
            raise Refusal(f"The loss is {loss.item()}: try a lower learning_rate or more warmup_steps.")
        return loss

    def _step_in_chunks(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        views = self._views(inputs)
        states, parts = [], []
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with torch.no_grad(), self.compute_loss_context_manager():
            for chunk in chunks_of(inputs, views, self.chunk_size):
                states.append(random_state(self.args.device))
                parts.append(self._embeddings(model, chunk, views))
        for name, buffer in model.named_buffers():  # batch norms count each picture once
            buffer.copy_(buffers[name])

        images = torch.cat([part.images for part in parts], dim=1).requires_grad_()
        texts = torch.cat([part.texts for part in parts], dim=1).requires_grad_()
        scale = parts[0].scale.detach().requires_grad_()
        loss = self._loss(Embeddings(images, texts, scale))
        gradients = torch.autograd.grad(loss, (images, texts, scale), allow_unused=True)
        image_gradient, text_gradient, scale_gradient = (
            torch.zeros_like(values) if gradient is None else gradient
            for gradient, values in zip(gradients, (images, texts, scale), strict=True)
        )

        start = 0
        # A chunk is a copy: they are cut anew, so that there is one at a time.
        chunks = chunks_of(inputs, views, self.chunk_size)
        for number, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
            is_last = number == len(states) - 1
            parted = isinstance(model, DistributedDataParallel) and not is_last
            set_random_state(state, self.args.device)  # after the last one it is where the first pass left it
            with model.no_sync() if parted else nullcontext():
                with self.compute_loss_context_manager():
                    part = self._embeddings(model, chunk, views)
                stretch = slice(start, start + part.images.shape[1])
                at_vectors = (part.images * image_gradient[:, stretch]).sum()
                at_vectors = at_vectors + (part.texts * text_gradient[:, stretch]).sum()
                # The scale is of all chunks: its gradient counts once.
                at_vectors = at_vectors + part.scale * scale_gradient * float(is_last)
                self.accelerator.backward(at_vectors)
            start = stretch.stop
        return loss.detach()

    def _views(self, inputs: dict[str, torch.Tensor]) -> int:
        return 2 if self.train_dataset.studies[0].arguments.multi_view else 1

    def _embeddings(self, model: nn.Module, inputs: dict[str, torch.Tensor], views: int) -> Embeddings:
        outputs = model(**inputs)
        return Embeddings(
            outputs.image_embeds.unflatten(0, (views, -1)),
            outputs.text_embeds.unflatten(0, (views, -1)),
            outputs.logit_scale,
        )

    def _loss(self, embeddings: Embeddings) -> torch.Tensor:
        with torch.autocast(self.args.device.type, enabled=False):  # cosines in full precision
            terms: ContrastiveLoss = contrastive_loss(*embeddings, self.weights)
        for name in TERMS:
            if (value := getattr(terms, name)) is not None:
                self._terms.setdefault(name, []).append(value.detach())
        return terms.loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self._terms.items()}
            logs["scale"] = self.accelerator.unwrap_model(self.model).scale.item()
            self._terms.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """The figures of `validation`, computed by every process, logged and handed to the callbacks."""
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        # A validation draws nothing from the random numbers of the steps that follow.
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad(), self.compute_loss_context_manager():
            figures = {f"{metric_key_prefix}_{name}": value for name, value in self.validation(model).items()}
        model.train()
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures


def picture_dtype(arguments: TrainingArguments) -> torch.dtype:
    """Of a batch's pictures: half precision is a tenth of a grey level, no loss where the tower computes in it."""
    return torch.float16 if arguments.bf16 or arguments.fp16 else torch.float32


def chunks_of(inputs: dict[str, torch.Tensor], views: int, size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of at most `size` studies, of a batch whose first axis is views * studies."""
    by_view = {name: values.unflatten(0, (views, -1)) for name, values in inputs.items()}
    studies = by_view["pixel_values"].shape[1]
    for start in range(0, studies, size):
        yield {name: values[:, start : start + size].flatten(0, 1) for name, values in by_view.items()}


def random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of the processor, and of the GPU where that computes."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
