"""CXR-CLIP's objective: multi-view supervision, image and text contrast (arXiv 2310.13292, section 3.3).

    images, texts: (views, studies, width), of length 1; views 1 or 2

    loss = InfoNCE of all pairs (image view, text view), their mean                  MVS; of one view each, CLIP's loss
         + image_weight * InfoNCE(image view 1, image view 2)                        ICL
         + text_weight * InfoNCE(text view 1, text view 2)                           TCL

Every study is told from all others of the batch, over all processes: what the others hold is gathered *with*
gradient, so that the mean over processes, which DDP makes of the gradients, is the gradient of the whole batch's loss.
(To put the own slice into what was gathered without gradient, as is often done, gives another: a test shows it.)
"""

from typing import NamedTuple

import torch
from torch import distributed
from torch.nn import functional


class ContrastiveLoss(NamedTuple):
    """The loss and its terms, scalars; a term that is not used is None."""

    loss: torch.Tensor
    mvs: torch.Tensor
    icl: torch.Tensor | None
    tcl: torch.Tensor | None


class LossWeights(NamedTuple):
    """Of the terms beside MVS, whose own weight is 1 unless texts are left out."""

    image: float = 1.0
    text: float = 0.5
    multi_view: float = 1.0


PAPER_WEIGHTS = LossWeights()


def contrastive_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    weights: LossWeights = PAPER_WEIGHTS,
    alone: bool = False,
) -> ContrastiveLoss:
    """The loss of this process's studies among those of all processes.

    Args:
        images, texts: (views, studies, width), of length 1. The views may differ in number, 1 or 2 each.
        scale: what cosines are multiplied by.
        alone: among this process's studies only, as for a validation that every process makes.

    Source: equations 1 and 2 of the paper; the weights stand in its section 4.2.
    """
    parted = _is_parted() and not alone
    all_images, all_texts = (_Gather.apply(vectors) if parted else vectors for vectors in (images, texts))
    first_row = distributed.get_rank() * images.shape[1] if parted else 0
    pairs = [
        info_nce((image, text), (all_image, all_text), scale, first_row)
        for image, all_image in zip(images, all_images, strict=True)
        for text, all_text in zip(texts, all_texts, strict=True)
    ]
    mvs = torch.stack(pairs).mean()
    loss, icl, tcl = weights.multi_view * mvs, None, None
    if len(images) > 1 and weights.image:
        icl = info_nce(tuple(images), tuple(all_images), scale, first_row)
        loss = loss + weights.image * icl
    if len(texts) > 1 and weights.text:
        tcl = info_nce(tuple(texts), tuple(all_texts), scale, first_row)
        loss = loss + weights.text * tcl
    return ContrastiveLoss(loss, mvs, icl, tcl)


def info_nce(
    own: tuple[torch.Tensor, torch.Tensor],
    everyones: tuple[torch.Tensor, torch.Tensor],
    scale: torch.Tensor,
    first_row: int = 0,
) -> torch.Tensor:
    """Mean of both directions' cross-entropies, for this process's rows.

    Args:
        own: two (studies, width), of which the i-th rows belong together.
        everyones: the same of all processes, (processes * studies, width), in the order of the ranks.
        first_row: where this process's begin among them.

    Source: equation 1 of the paper; van den Oord et al. (2018), arXiv 1807.03748.
    """
    first, second = own
    targets = first_row + torch.arange(len(first), device=first.device)
    there = functional.cross_entropy(scale * first @ everyones[1].T, targets)
    back = functional.cross_entropy(scale * second @ everyones[0].T, targets)
    return (there + back) / 2


class _Gather(torch.autograd.Function):
    """(views, processes * studies, width) of every process's (views, studies, width), by rank.

    Backward, each process gets what the losses of all of them say about its own vectors.
    """

    @staticmethod
    def forward(ctx, vectors: torch.Tensor) -> torch.Tensor:
        ctx.studies = vectors.shape[1]
        parts = [torch.empty_like(vectors) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, vectors.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        start = distributed.get_rank() * ctx.studies
        return gradient[:, start : start + ctx.studies]


def _is_parted() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
