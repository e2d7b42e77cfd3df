"""A detector of findings: patch features -> a logit for each label and a box, for every cell of a few maps.

    detector = LiteGPTDetector(config)                # config.num_detector_labels = 22
    outputs = detector(patch_features)                # (images, cells, 22 + 1 + 4)
    cells = detector.cells_on(outputs.device)
    candidates = best_candidates(outputs, cells)      # (images, 200, 6): channel, score, box
    CandidateTokens(config)(outputs, cells)           # (images, 12, text width): the best ones as tokens

Channels are the labels, and last the channel "any of them". Boxes are xyxy in [0, 1] of the whole image. `kept_boxes`
of `box_fusion.py` makes findings of candidates. It travels with checkpoints.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

from .configuration_litegpt import DETECTOR_SCALES, LiteGPTConfig, tower_width

DETECTION_WIDTH = 256
PRIOR_PROBABILITY = 0.01  # of a cell's label before anything is learnt
MAX_STRETCH = 4.0  # a box's edge is at most exp(4) cells from the cell's centre
CANDIDATES = 100  # of an image's labels, and as many of "any"
SAME_BOX = 0.5  # IoU above which two candidates of a label are one visual token
PLACES, PLACE_WIDTH = 101, 1.5  # the answer language's coordinates 0..100, and how far a coordinate is felt on them


class Cells(NamedTuple):
    """The cells of a few maps, the finest first, row by row.

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


def cells_of(grid: int, scales: Sequence[float] = DETECTOR_SCALES) -> Cells:
    """Of a tower's grid: maps of so many times its cells a side, rounded up."""
    centres, sizes, levels = [], [], []
    for level, scale in enumerate(scales):
        side = math.ceil(scale * grid)
        places = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(places, places, indexing="ij")
        centres.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
        sizes.append(torch.full((side * side,), 1 / side))
        levels.append(torch.full((side * side,), level))
    return Cells(torch.cat(centres), torch.cat(sizes), torch.cat(levels))


def decoded(distances: torch.Tensor, cells: Cells) -> torch.Tensor:
    """(..., cells, 4) xyxy boxes: each edge lies exp(output) cells from the cell's centre.

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


class OutputConvolution(nn.Conv2d):
    """Outputs of each cell, which start near a value: with any other a head has to unlearn it first."""

    def __init__(self, channels: int, outputs: int, start: float):
        self.start = start
        super().__init__(channels, outputs, 1)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.01)
        nn.init.constant_(self.bias, self.start)


class DetectionHead(nn.Module):
    """A logit for each label, one for any of them, and a box, for every cell of a few maps.

    By default the maps have twice the tower's grid, the grid, and half of it: 28, 14 and 7 cells a side for ViT-B/16
    at 224. The convolutions after them are the same for all, and are told where a cell lies.

    Args:
        width: of the tower's maps.
        hidden_size: of the convolutions; None: that of the maps, 256 at most.
        scales: of the maps' sides to the tower's grid: 2, 1 or less than 1.

    Source: the maps of one map as in ViTDet (arXiv 2203.16527, section 3); heads without anchors as in FCOS
        (arXiv 1904.01355). The library has no head of this kind that takes a tower's maps.
    """

    def __init__(
        self, width: int, num_labels: int, hidden_size: int | None = None, scales: Sequence[float] = DETECTOR_SCALES
    ):
        super().__init__()
        channels = min(DETECTION_WIDTH, 32 * math.ceil(width / 32)) if hidden_size is None else hidden_size
        groups = math.gcd(8, channels)
        self.scales = tuple(scales)
        self.levels = nn.ModuleList(
            nn.ConvTranspose2d(width, channels, 2, stride=2) if scale == 2 else nn.Conv2d(width, channels, 1)
            for scale in self.scales
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in self.scales)
        self.trunk = nn.Sequential(
            nn.Conv2d(channels + 2, channels, 3, padding=1),
            nn.GroupNorm(groups, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(groups, channels),
            nn.ReLU(),
        )
        rare = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        self.logits = OutputConvolution(channels, num_labels + 1, start=rare)
        self.boxes = OutputConvolution(channels, 4, start=0.0)  # two cells a side

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        outputs = []
        for scale, level, norm in zip(self.scales, self.levels, self.norms, strict=True):
            side = math.ceil(scale * maps.shape[-1])
            found = level(functional.adaptive_max_pool2d(maps, side) if scale < 1 else maps)
            found = functional.relu(norm(found))
            found = self.trunk(torch.cat([found, places(found)], dim=1))
            outputs.append(torch.cat([self.logits(found), self.boxes(found)], dim=1).flatten(2).transpose(1, 2))
        return torch.cat(outputs, dim=1)


def places(maps: torch.Tensor) -> torch.Tensor:
    """(images, 2, rows, columns): x and y of each cell's centre, from -1 to 1."""
    side = maps.shape[-1]
    centres = (2 * torch.arange(side, device=maps.device, dtype=maps.dtype) + 1) / side - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y]).expand(len(maps), 2, side, side)


class LiteGPTDetector(nn.Module):
    """A detection head on the patch tokens of all towers, which it puts side by side on the finest tower's grid."""

    def __init__(self, config: LiteGPTConfig):
        super().__init__()
        self.grids, self.scales = config.tower_grids, config.detector_scales
        width = tower_width(config.vision_config) * len(self.grids)
        self.head = DetectionHead(width, config.num_detector_labels, config.detector_hidden_size, self.scales)

    def cells_on(self, device: torch.device) -> Cells:
        """Of the outputs. The device is theirs: the weights may lie elsewhere until they are needed."""
        return cells_of(max(self.grids), self.scales).to(device)

    def forward(self, patch_features: torch.Tensor) -> torch.Tensor:
        """(images, patch tokens, tower width) -> (images, cells, labels + 1 + 4)."""
        patch_features = patch_features.to(self.head.logits.bias.dtype)
        maps = []
        for tokens, side in zip(
            patch_features.split([side**2 for side in self.grids], dim=1), self.grids, strict=True
        ):
            of_tower = tokens.transpose(1, 2).unflatten(2, (side, side))
            if side != max(self.grids):
                of_tower = functional.interpolate(of_tower, max(self.grids), mode="bilinear", align_corners=False)
            maps.append(of_tower)
        return self.head(torch.cat(maps, dim=1))


class CandidateTokens(nn.Module):
    """The detector's best boxes as visual tokens: which label, how sure, where.

    They stand in the answer's order: by label, of a label the surest first. A coordinate is felt at the places around
    it of the answer language's grid, so that what is learnt of one helps with its neighbours.
    """

    def __init__(self, config: LiteGPTConfig):
        super().__init__()
        self.num_tokens, self.num_labels = config.num_candidate_tokens, config.num_detector_labels
        width = config.text_config.hidden_size
        hidden = config.projector_hidden_size or width
        self.linear_1 = nn.Linear(2 * self.num_labels + 4 * PLACES, hidden)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden, width)

    def forward(self, outputs: torch.Tensor, cells: Cells) -> torch.Tensor:
        """(images, cells, labels + 1 + 4) -> (images, candidate tokens, text width)."""
        candidates = best_candidates(outputs, cells)[:, : min(CANDIDATES, len(cells.size) * self.num_labels)]
        chosen = candidates_apart(candidates, self.num_tokens)
        label, score, boxes = chosen[..., 0].long(), chosen[..., 1], chosen[..., 2:]
        one_hot = functional.one_hot(label, self.num_labels).to(boxes)
        sure = one_hot * torch.logit(score, eps=1e-4)[..., None] / 4
        grid = torch.arange(PLACES, device=boxes.device)
        felt = torch.exp(-(((PLACES - 1) * boxes[..., None] - grid) ** 2) / (2 * PLACE_WIDTH**2)).flatten(-2)
        features = torch.cat([one_hot, sure, felt], dim=-1).to(self.linear_2.bias.dtype)
        return self.linear_2(self.act(self.linear_1(features)))


def candidates_apart(candidates: torch.Tensor, number: int) -> torch.Tensor:
    """(images, number, 6): the best candidates of which no two of a label overlap much, by label, then by score.

    Where fewer are apart, the best one stands in the places that are left.

    Args:
        candidates: (images, candidates, 6), as `best_candidates` gives them of labels.
    """
    label, scores, boxes = candidates[..., 0], candidates[..., 1].detach(), candidates[..., 2:].detach()
    size = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    left = scores.clone()
    chosen = []
    for _ in range(number):
        best = left.argmax(dim=1, keepdim=True)
        chosen.append(best)
        box, own_size = boxes.gather(1, best[..., None].expand(-1, -1, 4)), size.gather(1, best)
        common = (torch.minimum(boxes[..., 2:], box[..., 2:]) - torch.maximum(boxes[..., :2], box[..., :2])).clamp(0)
        common = common.prod(dim=-1)
        same = (common > SAME_BOX * (size + own_size - common)) & (label == label.gather(1, best))
        left = left.masked_fill(same.scatter(1, best, True), -1.0)
    chosen = torch.cat(chosen, dim=1)
    order = (label.gather(1, chosen) - scores.gather(1, chosen)).argsort(dim=1)
    return candidates.gather(1, chosen.gather(1, order)[..., None].expand(-1, -1, 6))
