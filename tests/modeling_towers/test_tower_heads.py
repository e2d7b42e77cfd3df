"""Heads behind any tower: shapes, formulas, places of cells."""

import pytest
import torch

from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_litegpt.modeling_detector import DetectionHead
from litegpt.modeling_towers.image_towers import new_image_tower
from litegpt.modeling_towers.tower_heads import ClassificationHead, SegmentationHead
from tests.small_cxr_clip import RESNET
from tests.small_finetune import SIDE, VIT


def test_classification_is_the_normalised_mean_of_the_tokens_and_a_line():
    head = ClassificationHead(6, 2)
    torch.nn.init.normal_(head.linear.weight)
    maps = torch.randn(3, 6, 4, 4)
    mean = maps.flatten(2).mean(dim=2)
    normalised = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(head(maps), normalised @ head.linear.weight.T)


def test_a_fresh_classifier_says_next_to_nothing():
    assert ClassificationHead(64, 5)(torch.randn(8, 64, 3, 3)).abs().max() < 0.01


@pytest.mark.parametrize(("grid", "side", "stages"), [(14, 224, 4), (8, 64, 3), (7, 224, 5), (16, 224, 4), (5, 20, 2)])
def test_a_mask_has_the_inputs_size_whatever_the_patches(grid, side, stages):
    head = SegmentationHead(12, grid, side)
    assert len(head.stages) == stages
    assert head(torch.randn(2, 12, grid, grid)).shape == (2, side, side)


def test_the_papers_segmentation_has_its_widths():
    head = SegmentationHead(768, 14, 224)
    assert [stage[0].out_channels for stage in head.stages] == [512, 256, 128, 64]


@pytest.mark.parametrize("config", [VIT, {**RESNET, "image_size": SIDE}], ids=["vit", "resnet"])
def test_every_head_takes_the_maps_of_a_vit_and_of_a_resnet(config):
    tower = new_image_tower(config, image_processor(SIDE))
    maps = tower.maps(torch.randn(2, 1, SIDE, SIDE))
    assert ClassificationHead(tower.width, 3)(maps).shape == (2, 3)
    assert SegmentationHead(tower.width, tower.grid, SIDE)(maps).shape == (2, SIDE, SIDE)
    assert DetectionHead(tower.width, 3)(maps).shape[0] == 2
