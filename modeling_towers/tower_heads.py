"""What stands behind an image tower that answers one question: labels of a radiograph, or a mask.

In: a tower's maps, (images, width, rows, columns) of a square grid. Out: logits. Of boxes it is `DetectionHead` of
`modeling_detector.py`.

    head = ClassificationHead(width=768, num_labels=14)
    head(maps)                                              # (images, 14)
    SegmentationHead(width=768, grid=14, side=224)(maps)    # (images, 224, 224)

Every head takes a tower of any width and grid. They are small: a few convolutions at most.
"""

import math

import torch
from torch import nn
from torch.nn import functional

CLASSIFIER_DEVIATION = 2e-5
MASK_WIDTHS = (512, 256, 128, 64)


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
