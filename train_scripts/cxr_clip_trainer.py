"""`Trainer` of CXR-CLIP: batches of studies, its loss over all processes, large batches in little memory.

In: indices of studies. A batch is {"pixel_values": (views * studies, 1 or 3 channels, ...), "input_ids" and
"attention_mask": (views * studies, tokens)}, all first views before all second ones. Out: a trained model; in the log
the loss's terms, and the figures of a validation.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers.feature_extraction_utils import BatchFeature

from litegpt.common.programs import Refusal
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.train_scripts.contrastive_loss import ContrastiveLoss, LossWeights, contrastive_loss
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.studies import Studies
from litegpt.train_scripts.tower_trainer import StudyIndices, TowerTrainer, finite
from litegpt.train_scripts.views import Movement

TERMS = ("mvs", "icl", "tcl")
PICTURES_AT_ONCE = 64  # that a collator moves: it takes several times their memory


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


class CXRCLIPTrainer(TowerTrainer):
    """`Trainer` of a `CXRCLIPModel`.

    With `chunk_size` the batch's vectors are computed in chunks without a graph, then the loss and its gradient at the
    vectors, then each chunk again with that gradient: memory is a chunk's, the gradient the whole batch's. Dropout
    draws the same numbers both times. Batch norms see a chunk, as they see one GPU's share of a batch.

    Args:
        weights: of the loss's terms.
        chunk_size: studies in memory at once; None: the batch.
        kwargs: `TowerTrainer`'s.

    Source of the chunks: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (2021),
        arXiv 2101.06983 (GradCache).
    """

    def __init__(
        self,
        weights: LossWeights,
        chunk_size: int | None = None,
        **kwargs: Any,
    ):
        arguments = kwargs["args"]
        if arguments.gradient_accumulation_steps > 1:
            raise Refusal(
                "gradient_accumulation_steps: accumulated batches do not see each other, so that a study would not be "
                "told from more others; a larger per_device_train_batch_size with --chunk_size does that."
            )
        self.weights, self.chunk_size = weights, chunk_size
        super().__init__(**kwargs)

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
            return super().training_step(model, inputs, *args, **kwargs)
        return finite(self._step_in_chunks(model, inputs))

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
        self.note({name: getattr(terms, name) for name in TERMS} | {"scale": embeddings.scale})
        return terms.loss


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
