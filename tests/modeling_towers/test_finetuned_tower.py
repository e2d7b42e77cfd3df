"""A tower with a head as a folder."""

import json

import pytest
import torch
from transformers import AutoModel

from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers.finetuned_tower import TASKS, FinetunedTower, load_finetuned, save_finetuned
from litegpt.modeling_towers.image_towers import load_image_tower, measure_batch_norms, new_image_tower
from tests.small_cxr_clip import RESNET
from tests.small_finetune import SIDE, VIT

SMALL_RESNET = {**RESNET, "image_size": SIDE}


def model(task: str, config: dict, **options) -> FinetunedTower:
    torch.manual_seed(0)
    tower = new_image_tower(config, image_processor(SIDE))
    tower.config.base_models, tower.config.training_record = [], []
    return FinetunedTower(tower, task, ["Mass", "Nodule"], **options).eval()


@pytest.mark.parametrize("config", [VIT, SMALL_RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("task", TASKS)
def test_a_folder_gives_the_same_logits_again(task, config, tmp_path):
    saved = model(task, config, single_label=task == "classification")
    save_finetuned(saved, tmp_path / "out")
    loaded = load_finetuned(tmp_path / "out")
    assert (loaded.task, loaded.labels, loaded.single_label) == (task, ["Mass", "Nodule"], saved.single_label)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(loaded(pixels), saved(pixels))
    assert not loaded.training and "Mass, Nodule" in (tmp_path / "out" / "README.md").read_text()


def test_the_folder_is_the_towers_own_for_others(tmp_path):
    saved = model("detection", VIT)
    save_finetuned(saved, tmp_path / "out")
    pixels = torch.randn(1, 3, SIDE, SIDE)
    torch.testing.assert_close(load_image_tower(tmp_path / "out").eval()(pixels), saved.tower(pixels))
    AutoModel.from_pretrained(tmp_path / "out")


def test_a_frozen_tower_computes_as_in_evaluation_without_gradient():
    frozen = model("classification", {**VIT, "hidden_dropout_prob": 0.5}, frozen=True).train()
    assert not frozen.tower.training and frozen.head.training
    pixels = torch.randn(2, 1, SIDE, SIDE)
    assert torch.equal(frozen(pixels), frozen(pixels))
    frozen(pixels).sum().backward()
    assert all(parameter.grad is None for parameter in frozen.tower.parameters())
    assert {name for name, parameter in frozen.named_parameters() if parameter.requires_grad} == {
        f"head.{name}" for name, _ in frozen.head.named_parameters()
    }


def test_a_folder_without_a_whole_head_is_refused(tmp_path):
    save_finetuned(model("classification", VIT), tmp_path / "out")
    description = json.loads((tmp_path / "out" / "head.json").read_text())
    (tmp_path / "out" / "head.json").write_text(json.dumps({**description, "labels": ["one"]}))
    with pytest.raises(ValueError, match="has no whole head"):
        load_finetuned(tmp_path / "out")
    (tmp_path / "out" / "head.json").unlink()
    with pytest.raises(ValueError, match="head.json"):
        load_finetuned(tmp_path / "out")


def test_measured_batch_norms_have_the_statistics_of_what_was_shown():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    shown = 5 + 2 * torch.randn(64, 3, 8, 8)
    measure_batch_norms(network, lambda: network(shown))
    torch.testing.assert_close(network[0].running_mean, shown.mean((0, 2, 3)))
    assert not network.training and network[0].momentum == 0.1
    assert network(shown).std().item() == pytest.approx(1, abs=0.01)
