"""What stands behind an image tower that answers one question: labels of a radiograph, a mask, or boxes.

In: a tower's maps, (images, width, rows, columns) of a square grid. Out: logits.

    head = ClassificationHead(width=768, num_labels=14)
    head(maps)                                              # (images, 14)
    SegmentationHead(width=768, grid=14, side=224)(maps)    # (images, 224, 224)
    DetectionHead(width=768, num_labels=3)(maps)            # (images, cells, 3 + 1 + 4), see `dense_boxes.py`

Every head takes a tower of any width and grid. They are small: a few convolutions at most.
"""

import math

import torch
from torch import nn
from torch.nn import functional

CLASSIFIER_DEVIATION = 2e-5
MASK_WIDTHS = (512, 256, 128, 64)
DETECTION_WIDTH = 256
PRIOR_PROBABILITY = 0.01  # of a cell's label before anything is learnt


class ClassificationHead(nn.Module):
    """Mean of the patch tokens, a fresh LayerNorm, Linear.

    Source: ECAMP's fine-tuning (arXiv 2312.13316), as MAE's: a new norm, weights of a deviation of 2e-5. There it
        replaces the tower's own last norm; here it comes after that.
    """

    def __init__(self, width: int, num_labels: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, num_labels)
        nn.init.trunc_normal_(self.linear.weight, std=CLASSIFIER_DEVIATION, a=-2.0, b=2.0)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(maps.mean(dim=(2, 3))))


class SegmentationHead(nn.Module):
    """Linear, then convolutions with batch norm, each doubling the map, then one logit a pixel.

    As many doublings as lead from the grid to the input: 4 for patches of 16 pixels. Where these do not hit the
    input's side, the logits are stretched to it. A narrow tower has no wider convolutions than itself.

    Args:
        grid: tokens along a side.
        side: pixels along a side of the input, and of what comes out.

    Source: ECAMP's and MGCA's segmentation, 512, 256, 128 and 64 wide (SETR's, arXiv 2012.15840, section 3.2).
    """

    def __init__(self, width: int, grid: int, side: int):
        super().__init__()
        doublings = max(1, math.ceil(math.log2(side / grid)))
        widths = [min(w, width) for w in (*MASK_WIDTHS, *[MASK_WIDTHS[-1]] * doublings)[:doublings]]
        self.side = side
        self.linear = nn.Conv2d(width, width, 1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in zip((width, *widths), widths, strict=False)
        )
        self.logits = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.linear(maps)
        for stage in self.stages:
            maps = functional.interpolate(stage(maps), scale_factor=2, mode="bilinear", align_corners=False)
        logits = self.logits(maps)
        if logits.shape[-1] != self.side:
            logits = functional.interpolate(logits, size=self.side, mode="bilinear", align_corners=False)
        return logits[:, 0]


class DetectionHead(nn.Module):
    """A logit for each label, one for any of them, and a box, for every cell of three maps.

    The maps have twice the tower's grid, the grid, and half of it: 28, 14 and 7 cells a side for ViT-B/16 at 224. The
    convolutions after them are the same for all three, and are told where a cell lies.

    Source: the three maps of one map as in ViTDet (arXiv 2203.16527, section 3); heads without anchors as in FCOS
        (arXiv 1904.01355). The library has no head of this kind that takes a tower's maps.
    """

    def __init__(self, width: int, num_labels: int):
        super().__init__()
        channels = min(DETECTION_WIDTH, 32 * math.ceil(width / 32))
        self.finer = nn.ConvTranspose2d(width, channels, 2, stride=2)
        self.same = nn.Conv2d(width, channels, 1)
        self.coarser = nn.Conv2d(width, channels, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(3))
        self.trunk = nn.Sequential(
            nn.Conv2d(channels + 2, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
        )
        self.logits = nn.Conv2d(channels, num_labels + 1, 1)
        self.boxes = nn.Conv2d(channels, 4, 1)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.constant_(self.logits.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
        nn.init.normal_(self.boxes.weight, std=0.01)
        nn.init.zeros_(self.boxes.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        half = functional.adaptive_max_pool2d(maps, -(-maps.shape[-1] // 2))
        levels = self.finer(maps), self.same(maps), self.coarser(half)
        outputs = []
        for norm, level in zip(self.norms, levels, strict=True):
            level = functional.relu(norm(level))
            level = self.trunk(torch.cat([level, places(level)], dim=1))
            outputs.append(torch.cat([self.logits(level), self.boxes(level)], dim=1).flatten(2).transpose(1, 2))
        return torch.cat(outputs, dim=1)


def places(maps: torch.Tensor) -> torch.Tensor:
    """(images, 2, rows, columns): x and y of each cell's centre, from -1 to 1."""
    side = maps.shape[-1]
    centres = (2 * torch.arange(side, device=maps.device, dtype=maps.dtype) + 1) / side - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y]).expand(len(maps), 2, side, side)
