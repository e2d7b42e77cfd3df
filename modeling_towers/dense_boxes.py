"""A detection head's output, a logit for each label and a box for each cell of three maps -> boxes with scores.

    cells = cells_of(grid=14)                                # centres and sizes of 28 x 28 + 14 x 14 + 7 x 7 cells
    boxes = decoded(outputs[..., -4:], cells)                # (images, cells, 4), xyxy in [0, 1]
    candidates = best_candidates(outputs, cells)             # (images, 200, 6): channel, score, box
    kept = kept_boxes(candidates[0], channel=2)              # (n, 5): score, box; no two overlap much

Channels are the labels, and last the channel "any of them". Boxes are xyxy in [0, 1] of the whole image.
"""

from typing import NamedTuple

import numpy as np
import torch

from litegpt.datasets_scripts.preparation.merge_readers import keep_one_of_overlapping, pairwise_iou

MAX_STRETCH = 4.0  # a box's edge is at most exp(4) cells from the cell's centre
CANDIDATES = 100  # of an image's labels, and as many of "any"
MAX_BOXES = 20  # of a label in an image
MIN_SCORE = 0.01  # what a cell says before anything is learnt
OVERLAP = 0.35  # boxes of a label that overlap more are one
VOTING = 0.5  # boxes that overlap the kept one more have a say in where it is
SMALLEST = 1e-3  # of the image's side


class Cells(NamedTuple):
    """The cells of three maps, the finest first, row by row.

    Attributes:
        centre: (cells, 2) x and y in [0, 1].
        size: (cells,) side of a cell.
        level: (cells,) 0, 1, 2: of which map.
    """

    centre: torch.Tensor
    size: torch.Tensor
    level: torch.Tensor

    def to(self, device: torch.device) -> "Cells":
        return Cells(*(values.to(device) for values in self))


def cells_of(grid: int) -> Cells:
    """Of a tower's grid: maps of twice its cells a side, as many, and half, rounded up."""
    centres, sizes, levels = [], [], []
    for level, side in enumerate((2 * grid, grid, -(-grid // 2))):
        places = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(places, places, indexing="ij")
        centres.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
        sizes.append(torch.full((side * side,), 1 / side))
        levels.append(torch.full((side * side,), level))
    return Cells(torch.cat(centres), torch.cat(sizes), torch.cat(levels))


def decoded(distances: torch.Tensor, cells: Cells) -> torch.Tensor:
    """(..., cells, 4) xyxy boxes: each edge lies exp(output) cells from the cell's centre; cut off at the image.

    Args:
        distances: (..., cells, 4) for left, top, right, bottom.
    """
    reach = cells.size[:, None] * distances.float().clamp(-MAX_STRETCH, MAX_STRETCH).exp()
    return torch.cat([cells.centre - reach[..., :2], cells.centre + reach[..., 2:]], dim=-1)


def best_candidates(outputs: torch.Tensor, cells: Cells) -> torch.Tensor:
    """(images, candidates, 6): channel, score and box of the best pairs of a cell and a label, then of "any".

    Args:
        outputs: (images, cells, labels + 1 + 4), as `DetectionHead` gives them.
    """
    outputs = outputs.float()
    boxes = decoded(outputs[..., -4:], cells).clamp(0, 1)
    scores = outputs[..., :-4].sigmoid()
    labels = scores.shape[-1] - 1
    found = []
    for channels, first in ((scores[..., :labels], 0), (scores[..., labels:], labels)):
        best = channels.flatten(1).topk(min(CANDIDATES, channels[0].numel()), dim=1)
        cell = best.indices // channels.shape[-1]
        channel = first + best.indices % channels.shape[-1]
        chosen = boxes.gather(1, cell[..., None].expand(-1, -1, 4))
        found.append(torch.cat([channel[..., None], best.values[..., None], chosen], dim=-1))
    return torch.cat(found, dim=1)


def kept_boxes(candidates: np.ndarray, channel: int) -> np.ndarray:
    """(n, 5) score and box of one image's channel by falling score; of boxes that overlap the best one stays.

    Boxes of less than `MIN_SCORE` are none. Its place is the mean of all that overlap it by more than `VOTING`, each
    counting by its score.

    Args:
        candidates: (candidates, 6) of one image, as `best_candidates` gives them.

    Source: Felzenszwalb et al. (2010), section 6.2 (non-maximum suppression); Gidaris and Komodakis (2015),
        arXiv 1505.01749, section 4 (box voting).
    """
    own = candidates[candidates[:, 0] == channel, 1:].astype(float)
    own = own[(own[:, 0] >= MIN_SCORE) & (own[:, 3:] - own[:, 1:3] >= SMALLEST).all(axis=1)]
    own = own[np.argsort(-own[:, 0], kind="stable")]
    if not len(own):
        return own
    kept = keep_one_of_overlapping(own[:, 1:], OVERLAP)[:MAX_BOXES]
    votes = (pairwise_iou(own[:, 1:])[kept] > VOTING) * own[:, 0]
    return np.hstack([own[kept, :1], votes @ own[:, 1:] / votes.sum(axis=1, keepdims=True)])
