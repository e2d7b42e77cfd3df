"""The loss of a `DetectionHead`: which cells a box is learnt at, labels of cells, boxes of cells.

    cells = cells_of(grid=14)
    targets = cell_targets([[{"label": 0, "box": [0.2, 0.3, 0.5, 0.6]}], []], cells, num_labels=3)
    dense_box_loss(outputs, targets, known, cells)

In: findings of each image, boxes xyxy in [0, 1]. Out: a scalar. A box is learnt at the cells whose centre lies in its
middle (half its width, half its height), of all maps, and at the cell of each map that is nearest to its own
centre; where such boxes overlap, the smallest. Of the other cells in a box nothing is learnt, outside all boxes that
there is none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from litegpt.modeling_litegpt.modeling_detector import Cells, LiteGPTDetector, decoded

FOCUS, POSITIVE_WEIGHT = 2.0, 0.25  # the focal loss' gamma and alpha
LABEL_WEIGHT = 2.0
DETECTOR_BOX_WEIGHT = 4.0  # of a LiteGPT's detector: as in `pretrain_boxes.py`, where a box is counts most
MIDDLE = 0.5  # of a box' width and height


class CellTargets(NamedTuple):
    """What cells should say.

    Attributes:
        inside: (images, cells, labels + 1) 1 or 0: whether a box is learnt there; the last column of any label.
        counted: (images, cells) 1 or 0: 0 at a box' margin, of which nothing is learnt.
        boxes: (images, cells, 4) xyxy where one is learnt, else zeros.
    """

    inside: torch.Tensor
    counted: torch.Tensor
    boxes: torch.Tensor


def cell_targets(findings: Sequence[Sequence[Mapping[str, Any]]], cells: Cells, num_labels: int) -> CellTargets:
    """At which cells which box is learnt.

    Args:
        findings: of each image {"label": number, "box": xyxy in [0, 1]}.
    """
    inside = torch.zeros(len(findings), len(cells.size), num_labels + 1)
    counted = torch.ones(len(findings), len(cells.size))
    boxes = torch.zeros(len(findings), len(cells.size), 4)
    for image, of_image in enumerate(findings):
        for finding in sorted(of_image, key=_area, reverse=True):  # the largest first, so that the smallest stays
            box = torch.tensor(finding["box"], dtype=torch.float32)
            centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            away = (cells.centre - centre).abs()
            chosen = (away <= MIDDLE * size / 2).all(dim=-1)
            for level in range(int(cells.level.max()) + 1):
                distance = torch.where(cells.level == level, away.square().sum(dim=-1), torch.inf)
                chosen[distance.argmin()] = True
            counted[image, (away <= size / 2).all(dim=-1)] = 0
            inside[image, chosen, finding["label"]] = 1
            inside[image, chosen, num_labels] = 1
            boxes[image, chosen] = box
        counted[image, inside[image, :, num_labels] > 0] = 1
    return CellTargets(inside, counted, boxes)


def _area(finding: Mapping[str, Any]) -> float:
    x1, y1, x2, y2 = finding["box"]
    return (x2 - x1) * (y2 - y1)


def dense_box_loss(
    outputs: torch.Tensor, targets: CellTargets, known: torch.Tensor, cells: Cells, box_weight: float = 1.0
) -> torch.Tensor:
    """2 * focal loss of the labels / number of positives + mean of 1 - GIoU over the cells where a box is learnt.

    Args:
        outputs: (images, cells, labels + 1 + 4), as `DetectionHead` gives them.
        known: (images, labels + 1) 1 or 0; where a label is not known, nothing is learnt of it.

    Source: FCOS (arXiv 1904.01355), section 3.1, with GIoU (arXiv 1902.09630) in place of IoU, and boxes learnt at all
        maps, not at one by their size: a hundred boxes are few. Focal loss: arXiv 1708.02002, equation 5. Average
        precision of any finding at IoU .3 on held-out folds of 90 boxed radiographs of ChestX-ray14, a ResNet, 250
        steps: .41; learnt at all cells in a box .37, there with plain cross entropy .34; at one map .34.
    """
    logits, distances = outputs[..., :-4], outputs[..., -4:]
    inside = targets.inside * known[:, None]
    surprise = functional.binary_cross_entropy_with_logits(logits, inside, reduction="none")
    weight = POSITIVE_WEIGHT * inside + (1 - POSITIVE_WEIGHT) * (1 - inside)
    weight = weight * known[:, None] * targets.counted[..., None]
    focal = weight * (1 - torch.exp(-surprise)) ** FOCUS * surprise
    loss = LABEL_WEIGHT * focal.sum() / inside.sum().clamp(min=len(outputs))  # a batch may have no box
    learnt = inside[..., -1] > 0
    if learnt.any():
        overlaps = generalised_iou(decoded(distances, cells)[learnt], targets.boxes[learnt])
        loss = loss + box_weight * (1 - overlaps).mean()
    return loss


def detector_loss(
    detector: LiteGPTDetector,
    patch_features: torch.Tensor,
    findings: Sequence[Sequence[Mapping[str, Any]]],
    known: torch.Tensor | None,
) -> torch.Tensor:
    """`dense_box_loss` of a model's detector, with a larger weight of boxes.

    Args:
        patch_features: (images, patch tokens, tower width), of all towers.
        findings: of each image {"label": number, "box": xyxy in [0, 1]}.
        known: (images, labels) 1 or 0, of which labels the boxes are known; None: of all.
    """
    outputs = detector(patch_features).float()
    cells = detector.cells_on(outputs.device)
    num_labels = outputs.shape[-1] - 5
    targets = cell_targets(findings, cells.to("cpu"), num_labels)
    targets = CellTargets(*(values.to(outputs.device) for values in targets))
    every = outputs.new_ones(len(outputs), num_labels + 1)
    if known is not None:
        every[:, :-1] = known.to(every)
        every[:, -1] = every[:, :-1].amax(dim=1)  # "any of them" is known where one of them is
    return dense_box_loss(outputs, targets, every, cells, DETECTOR_BOX_WEIGHT)


def generalised_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(n,) from -1 to 1: IoU of (n, 4) xyxy boxes, pair by pair, less the share of their hull that neither fills.

    The library's `generalized_box_iou` computes all pairs, of which these are the diagonal.

    Source: Rezatofighi et al., arXiv 1902.09630, algorithm 1.
    """
    common = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    hull = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    intersection, around = common.prod(dim=-1), hull.prod(dim=-1).clamp(min=1e-9)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1) + (others[:, 2:] - others[:, :2]).prod(dim=-1) - intersection
    return intersection / union.clamp(min=1e-9) - (around - union) / around
