"""The reference detector learns from the same boxes, in the library's form, and gives boxes that can be scored."""

import pytest
import torch

from litegpt.benchmarks.detr_reference import small_detr, targets


def test_targets_are_centres_and_sizes():
    found = targets([{"label": 3, "box": [0.1, 0.2, 0.5, 0.8]}])
    assert found["class_labels"].tolist() == [3]
    assert found["boxes"][0].tolist() == pytest.approx([0.3, 0.5, 0.4, 0.6])
    assert targets([])["boxes"].shape == (0, 4)


def test_the_network_is_about_as_large_as_the_tiny_litegpt_and_its_loss_has_a_gradient():
    torch.manual_seed(0)
    model = small_detr(["Edema", "ILD"])
    assert 0.8e6 < sum(p.numel() for p in model.parameters()) < 1.6e6
    labels = [targets([{"label": 1, "box": [0.1, 0.2, 0.5, 0.8]}]), targets([])]
    loss = model(pixel_values=torch.zeros(2, 3, 96, 96), labels=labels).loss
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and sum(grad.abs().sum() for grad in grads) > 0
