"""The radiograph classifier: its poolings, its loss, its maps, its checkpoints."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForImageClassification, AutoProcessor, pipeline

from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers import RadiographClassifier, RadiographClassifierConfig, classifier_checkpoints
from litegpt.modeling_towers.classifier_checkpoints import (
    load_classifier,
    load_trunk,
    new_classifier,
    save_classifier,
)
from litegpt.modeling_towers.image_towers import new_image_tower, save_image_tower
from litegpt.modeling_towers.modeling_classifier import pooled, weighted_cross_entropy
from tests.small_classifier import RESNET, small_classifier
from tests.small_dicom import small_dicom
from tests.small_finetune import SIDE, VIT

PIXELS = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
ACTIVATIONS = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(1))
NAME = "embedder.embedder.convolution.weight"


# --- Pooling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [0.1, 1.0, 10.0])
def test_log_sum_exp_is_the_papers_formula(r):
    found = pooled(ACTIVATIONS, "lse", r)
    for image in range(2):
        for channel in range(5):
            values = ACTIVATIONS[image, channel].flatten().tolist()
            highest = max(map(abs, values))
            mean = sum(math.exp(r * (value - highest)) for value in values) / len(values)
            assert found[image, channel].item() == pytest.approx(highest + math.log(mean) / r, abs=1e-5)


def test_log_sum_exp_lies_between_the_average_and_the_maximum_and_reaches_both():
    average, largest = pooled(ACTIVATIONS, "average", 0), pooled(ACTIVATIONS, "max", 0)
    assert torch.allclose(average, ACTIVATIONS.mean(dim=(2, 3)))
    torch.testing.assert_close(pooled(ACTIVATIONS, "lse", 1e-2), average, atol=2e-3, rtol=0)
    torch.testing.assert_close(pooled(ACTIVATIONS, "lse", 1e4), largest, atol=1e-3, rtol=0)
    between = pooled(ACTIVATIONS, "lse", 10.0)
    assert (average < between).all() and (between < largest).all()


def test_log_sum_exp_of_large_and_of_negative_activations_is_finite():
    for shift in (1e4, -1e4):
        torch.testing.assert_close(pooled(ACTIVATIONS + shift, "lse", 10.0), pooled(ACTIVATIONS, "lse", 10.0) + shift)


# --- Loss ------------------------------------------------------------------------------------------------------------


def test_the_weighted_loss_equals_a_loop_over_known_labels():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(7, 4, generator=generator)
    labels = (torch.rand(7, 4, generator=generator) < 0.3).float()
    labels[2, 1] = labels[5, 3] = torch.nan
    ones = zeros = 0
    positive = negative = 0.0
    for logit, label in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        if label == 1:
            ones, positive = ones + 1, positive - math.log(probability)
        elif label == 0:
            zeros, negative = zeros + 1, negative - math.log(1 - probability)
    total = ones + zeros
    paper = total / ones * positive + total / zeros * negative
    assert total == 26 and weighted_cross_entropy(logits, labels).item() == pytest.approx(paper / total, rel=1e-5)
    plain = weighted_cross_entropy(logits, labels, "none").item()
    assert plain == pytest.approx((positive + negative) / total, rel=1e-5)


def test_a_batch_without_positive_or_without_known_labels_has_a_finite_loss_and_gradient():
    for labels in (torch.zeros(2, 3), torch.ones(2, 3), torch.full((2, 3), torch.nan)):
        logits = torch.randn(2, 3, requires_grad=True)
        weighted_cross_entropy(logits, labels).backward()
        assert torch.isfinite(logits.grad).all()


# --- Maps ------------------------------------------------------------------------------------------------------------


def test_a_class_activation_maps_mean_and_the_bias_are_the_logit_of_average_pooling():
    model, _ = small_classifier(pooling="average")
    outputs = model(PIXELS, return_maps=True)
    assert outputs.maps.shape == (3, 2, 8, 8) and outputs.logits.shape == (3, 2)
    torch.testing.assert_close(outputs.maps.mean(dim=(2, 3)) + model.prediction.bias, outputs.logits)


def test_a_positive_map_has_nothing_of_what_speaks_against_a_label():
    model, _ = small_classifier()
    whole, positive = (model(PIXELS, return_maps=True, map_kind=kind).maps for kind in ("cam", "positive"))
    assert (whole < 0).any() and torch.equal(positive, whole.clamp(min=0))


def test_maps_are_of_the_places_that_they_show():
    """What changes in a corner of the picture changes the map there, and not in the opposite corner."""
    model, _ = small_classifier()
    changed = PIXELS.clone()
    changed[:, :, :4, -4:] += 3.0
    difference = (model(changed, return_maps=True).maps - model(PIXELS, return_maps=True).maps).abs().sum(dim=(0, 1))
    assert difference[0, -1] > 0.01 and difference[-1, 0] == 0


def test_pcam_equals_its_published_form():
    """Weights: probabilities of the places, brought to a sum of 1; the logit is that of the weighted feature."""
    model, _ = small_classifier(pooling="pcam")
    activations = model.activations(PIXELS)
    logits = torch.einsum("bdij,ld->blij", activations, model.prediction.weight)
    logits = logits + model.prediction.bias[:, None, None]
    weights = logits.sigmoid() / logits.sigmoid().sum(dim=(2, 3), keepdim=True)
    features = torch.einsum("blij,bdij->bld", weights, activations)
    expected = (features * model.prediction.weight).sum(dim=-1) + model.prediction.bias
    torch.testing.assert_close(model(PIXELS).logits, expected, atol=1e-5, rtol=1e-4)


# --- Trunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trunk", [RESNET, VIT, {**VIT, "model_type": "clip_vision_model"}])
def test_any_tower_is_a_trunk_and_keeps_its_weights(trunk, tmp_path):
    tower = new_image_tower(trunk, image_processor(SIDE))
    save_image_tower(tower, tmp_path / "tower")
    model, processor = new_classifier(load_trunk(str(tmp_path / "tower")), ["Mass"])
    outputs = model(PIXELS, torch.tensor([[1.0], [0.0], [torch.nan]]), return_maps=True)
    outputs.loss.backward()
    side = math.isqrt(outputs.maps[0, 0].numel())
    assert outputs.maps.shape == (3, 1, side, side) and processor.squashed_size == (SIDE, SIDE)
    weights = {name: value for name, value in tower.network.named_parameters() if not name.startswith("pooler")}
    assert weights and all(torch.equal(value, model.trunk.state_dict()[name]) for name, value in weights.items())
    unused = [name for name, value in model.named_parameters() if value.grad is None]
    # The last layer's norm of CLIP is of its class token, which nobody reads.
    assert not [name for name in unused if "post_layernorm" not in name]


def test_a_trunk_that_ends_at_a_stage_has_the_finer_map():
    deep = {**RESNET, "hidden_sizes": [16, 24], "depths": [1, 1]}
    assert small_classifier(trunk=deep)[0](PIXELS, return_maps=True).maps.shape[-1] == 4
    model, _ = small_classifier(trunk=deep, trunk_stage="stage1")
    assert model(PIXELS, return_maps=True).maps.shape[-1] == 8 and model.transition.in_channels == 16


def test_a_stage_of_a_trunk_without_stages_is_refused():
    with pytest.raises(ValueError, match="trunk_stage: a vit ends where it ends"):
        small_classifier(trunk=VIT, trunk_stage="stage1")


def test_a_convolutional_trunk_takes_larger_pictures_and_a_vit_says_that_it_does_not(tmp_path):
    for trunk in (RESNET, VIT):
        save_image_tower(new_image_tower(trunk, image_processor(SIDE)), tmp_path / trunk["model_type"])
    tower = load_trunk(str(tmp_path / "resnet"), image_size=64)
    model, processor = new_classifier(tower, ["Mass"])
    assert processor.squashed_size == (64, 64) and model.config.image_size == 64
    with pytest.raises(ValueError, match="32 pixels a side, and no other"):
        load_trunk(str(tmp_path / "vit"), image_size=64)


def test_densenet_121_of_timm_is_a_trunk_and_travels(tmp_path):
    pytest.importorskip("timm", reason="needs timm, of the extra `convert`")
    from transformers import TimmWrapperConfig, TimmWrapperModel

    published = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3), "input_size": (3, 64, 64)}
    config = TimmWrapperConfig(architecture="densenet121", pretrained_cfg=published)
    TimmWrapperModel(config).save_pretrained(tmp_path / "densenet")
    trunk = load_trunk(str(tmp_path / "densenet"))
    assert list(trunk.processor.image_mean) == [0.4, 0.5, 0.6] and trunk.processor.size["height"] == 64
    model, processor = new_classifier(trunk, ["Mass", "Nodule"])
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = model.eval()(pixels, return_maps=True)
    assert model.config.trunk_width == 1024 and outputs.maps.shape == (1, 2, 2, 2)
    save_classifier(model, processor, tmp_path / "checkpoint")
    loaded = AutoModel.from_pretrained(tmp_path / "checkpoint", trust_remote_code=True).eval()
    assert torch.equal(loaded(pixels).logits, outputs.logits)


def test_a_published_network_brings_the_pixels_that_it_was_trained_on(tmp_path, monkeypatch):
    """As by its name on the Hub, which is not reached here: a folder stands for it."""
    tower = new_image_tower(RESNET, image_processor(SIDE, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    save_image_tower(tower, tmp_path / "owner" / "resnet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(classifier_checkpoints, "load_image_tower", None)
    monkeypatch.setattr(classifier_checkpoints, "_is_of_timm", lambda folder: True)
    trunk = load_trunk("owner/resnet")
    assert list(trunk.processor.image_mean) == [0.1, 0.2, 0.3] and list(trunk.processor.image_std) == [0.4, 0.5, 0.6]
    assert torch.equal(trunk.network.state_dict()[NAME], tower.network.state_dict()[NAME])


def test_what_there_is_not_is_refused():
    for options, said in (
        ({"pooling": "mean"}, "pooling must be one of average, max, lse, pcam"),
        ({"balance": "all"}, "balance"),
        ({"map_kind": "grad"}, "map_kind"),
        ({"box_rule": "all"}, "box_rule"),
    ):
        with pytest.raises(ValueError, match=said):
            RadiographClassifierConfig(**options)


# --- Checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model, processor = small_classifier(present={"Mass": 0.2})
    folder = tmp_path_factory.mktemp("classifier") / "checkpoint"
    save_classifier(model, processor, folder)
    return folder


def test_a_checkpoint_comes_back_as_it_was(checkpoint):
    model, processor = load_classifier(checkpoint)
    assert torch.equal(model.eval()(PIXELS).logits, small_classifier()[0](PIXELS).logits)
    assert model.config.labels == ["Mass", "Nodule"] and model.config.present == {"Mass": 0.2}
    for auto in (AutoModel, AutoModelForImageClassification):
        assert type(auto.from_pretrained(checkpoint)) is RadiographClassifier
    assert AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True).squashed_size == (SIDE, SIDE)
    card = (checkpoint / "README.md").read_text()
    assert "Mass, Nodule" in card and "| Mass | 0.200 |" in card and "pipeline_tag: image-classification" in card


def test_a_checkpoint_of_another_kind_is_named(checkpoint, tmp_path):
    save_image_tower(new_image_tower(VIT, image_processor(SIDE)), tmp_path / "tower")
    with pytest.raises(ValueError, match="a checkpoint of vit, not of radiograph_classifier"):
        load_classifier(tmp_path / "tower")


@pytest.fixture
def radiograph(tmp_path):
    greys = np.random.default_rng(0).integers(0, 256, (70, 60)).astype(np.uint8)
    small_dicom(greys).save_as(tmp_path / "radiograph.dicom", enforce_file_format=True)
    return tmp_path / "radiograph.dicom"


def test_the_pipeline_gives_each_labels_probability_its_map_and_boxes_in_pixels(checkpoint, radiograph):
    pipe = pipeline("image-classification", model=str(checkpoint), trust_remote_code=True)
    model, processor = load_classifier(checkpoint)
    with torch.inference_mode():
        outputs = model.eval()(processor(images=str(radiograph)).pixel_values, return_maps=True)
    expected = dict(zip(model.config.labels, outputs.logits.sigmoid()[0].tolist(), strict=True))
    found = pipe(str(radiograph), return_maps=True, return_boxes=True)
    assert [item["score"] for item in found] == sorted(expected.values(), reverse=True)
    for item in found:
        number = model.config.labels.index(item["label"])
        assert item["score"] == pytest.approx(expected[item["label"]], abs=1e-6)
        np.testing.assert_allclose(item["map"], outputs.maps[0, number].numpy(), atol=1e-5)
    boxes = {item["label"]: item["boxes"] for item in found}
    assert boxes["Mass"]
    for box in boxes["Mass"]:
        assert (
            0 <= box["box"]["xmin"] < box["box"]["xmax"] <= 60 and 0 <= box["box"]["ymin"] < box["box"]["ymax"] <= 70
        )
        assert 0 < box["score"] <= expected["Mass"]
    assert bool(boxes["Nodule"]) == (expected["Nodule"] >= 0.5)
    assert len(pipe([str(radiograph)] * 2, top_k=1)[1]) == 1
    with pytest.raises(TypeError, match="takes no function_to_apply"):
        pipe(str(radiograph), function_to_apply="softmax")


def test_without_scipy_the_pipeline_still_names_labels(checkpoint, radiograph, monkeypatch):
    pipe = pipeline("image-classification", model=str(checkpoint), trust_remote_code=True)
    for name, module in list(sys.modules.items()):
        if name.endswith(".map_boxes"):
            monkeypatch.setattr(module, "ndimage", None)
    assert len(pipe(str(radiograph))) == 2
    with pytest.raises(ImportError, match="pip install scipy"):
        pipe(str(radiograph), return_boxes=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_the_whole_one(dtype):
    model, _ = small_classifier()
    exact = model(PIXELS, return_maps=True)
    half = model.to(dtype)(PIXELS, return_maps=True)
    assert half.maps.dtype == torch.float32
    torch.testing.assert_close(half.logits.float(), exact.logits, atol=0.1, rtol=0.1)
    assert functional.cosine_similarity(half.maps.flatten(), exact.maps.flatten(), dim=0) > 0.99
