"""`litegpt new --vision_tower`: a tower out of another checkpoint, with its weights, pixels and record."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
    ViTModel,
)

from litegpt.modeling_litegpt.checkpoints import image_processor, load_checkpoint
from litegpt.modeling_litegpt.configuration_litegpt import tower_grid
from litegpt.modeling_litegpt.modeling_litegpt import patch_tokens
from litegpt.modeling_litegpt.new_checkpoint import main
from litegpt.modeling_litegpt.taken_tower import taken_tower
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel
from litegpt.modeling_towers.checkpoints import save_cxr_clip
from litegpt.modeling_towers.classifier_checkpoints import save_classifier
from litegpt.modeling_towers.image_towers import load_image_tower
from litegpt.modeling_towers.tower_network import tower_hidden_state
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from tests.small_classifier import RESNET as CLASSIFIERS_TRUNK
from tests.small_classifier import small_classifier
from tests.small_cxr_clip import BERT, RESNET, VIT

SIDE = 64
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
CLIP_TOWER = {
    **{name: value for name, value in VIT.items() if "dropout" not in name},
    "model_type": "clip_vision_model",
}
MEAN, STD = [0.4, 0.41, 0.42], [0.3, 0.31, 0.32]
DATA_SET = {"name": "Made-up", "license_name": None, "license_link": None}
RECORD = [{"program": "pretrain_cxr_clip.py", "data_set": DATA_SET, "radiographs": 7, "tasks": []}]
RECORD[0] |= {"trained": "both towers", "batch_size": 8, "learning_rate": 1e-3, "seed": 0, "steps": 5}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "edema"]


def write_cxr_clip(folder: Path, tower: dict) -> CXRCLIPModel:
    torch.manual_seed(5)
    config = CXRCLIPConfig(
        vision_config={**tower, **({} if tower is RESNET else {"image_size": SIDE})},
        text_config={**BERT, "vocab_size": len(WORDS)},
        image_size=SIDE,
        projection_dim=8,
    )
    config.base_models, config.training_record = ["resnet_50"], RECORD
    model = CXRCLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    tokenizer = BertTokenizer({word: number for number, word in enumerate(WORDS)})
    save_cxr_clip(model, CXRCLIPProcessor(image_processor(SIDE, MEAN, STD), tokenizer), folder)
    return model


def new_litegpt(arguments, folder: Path, tower: Path, **changes):
    changes = {"aux_vision_config": None, "visual_token_group_size": 4, "vision_tower": str(tower), **changes}
    main(replace(arguments, output_dir=str(folder), **changes))
    return load_checkpoint(folder)


def answers(model, processor) -> torch.Tensor:
    inputs = processor(
        images=np.full((80, 70), 99, dtype=np.uint8),
        text=processor.prompt("identify"),
        add_special_tokens=False,
        return_tensors="pt",
    )
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == model.config.num_visual_tokens
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.mark.parametrize(
    ("tower", "patches"),
    [(RESNET, 64), (SWIN, 64), (VIT, 64), (CLIP_TOWER, 64)],
    ids=["resnet", "swin", "vit", "clip_vision_model"],
)
def test_a_cxr_clips_tower_is_taken_as_it_is(tower, patches, tiny_arguments, tmp_path):
    cxr_clip = write_cxr_clip(tmp_path / "cxr_clip", tower)
    model, processor = new_litegpt(tiny_arguments, tmp_path / "new", tmp_path / "cxr_clip")
    assert model.config.num_patch_tokens == patches and model.config.num_visual_tokens == patches // 4
    expected, found = cxr_clip.vision_model.state_dict(), model.model.vision_tower.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        features = model.model.get_patch_features(pixels)
        torch.testing.assert_close(features.reshape(2, patches, -1), cxr_clip.get_patch_features(pixels))
    (pictures,) = processor.tower_image_processors
    assert list(pictures.image_mean) == MEAN and list(pictures.image_std) == STD
    assert dict(pictures.size) == {"height": SIDE, "width": SIDE}
    assert torch.isfinite(answers(model, processor)).all()


def test_its_making_goes_with_a_tower(tiny_arguments, tmp_path):
    write_cxr_clip(tmp_path / "cxr_clip", RESNET)
    model, _ = new_litegpt(tiny_arguments, tmp_path / "new", tmp_path / "cxr_clip")
    assert model.config.training_record == RECORD and model.config.base_models == ["resnet_50"]
    assert "Made-up" in (tmp_path / "new" / "README.md").read_text()


def test_a_second_tower_may_be_taken_beside_a_fresh_one(tiny_arguments, tmp_path):
    cxr_clip = write_cxr_clip(tmp_path / "cxr_clip", {**VIT, "patch_size": 16})
    model, processor = new_litegpt(
        tiny_arguments,
        tmp_path / "new",
        None,
        vision_tower=None,
        aux_vision_tower=str(tmp_path / "cxr_clip"),
        vision_config={**tiny_arguments.vision_config, "hidden_size": 16, "intermediate_size": 24},
    )
    assert model.config.num_patch_tokens == 64 + 16 and model.config.num_visual_tokens == 20
    for name, tensor in model.model.aux_vision_tower.state_dict().items():
        assert torch.equal(tensor, cxr_clip.vision_model.state_dict()[name]), name
    first, second = processor.tower_image_processors
    assert list(second.image_mean) == MEAN != list(first.image_mean)
    assert torch.isfinite(answers(model, processor)).all()


def test_a_litegpts_first_tower_is_taken(tiny_checkpoint, tiny_arguments, tmp_path):
    model, _ = new_litegpt(tiny_arguments, tmp_path / "new", tiny_checkpoint)
    expected = load_checkpoint(tiny_checkpoint)[0].model.vision_tower.state_dict()
    for name, tensor in model.model.vision_tower.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_the_tower_of_a_clip_and_one_saved_alone_are_taken(tiny_arguments, tmp_path):
    tower = {name: value for name, value in CLIP_TOWER.items() if name != "model_type"} | {"image_size": SIDE}
    CLIPModel(CLIPConfig(vision_config=tower, text_config={"hidden_size": 16, "vocab_size": 9})).save_pretrained(
        tmp_path / "clip"
    )
    alone = {name: value for name, value in VIT.items() if name != "model_type"} | {"image_size": SIDE}
    ViTModel(ViTConfig(**alone)).save_pretrained(tmp_path / "vit")
    for name, path in (("clip", "vision_model"), ("vit", "")):
        model, _ = new_litegpt(tiny_arguments, tmp_path / f"new {name}", tmp_path / name)
        expected = AutoModel.from_pretrained(tmp_path / name).get_submodule(path).state_dict()
        for key, tensor in model.model.vision_tower.state_dict().items():
            assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("trunk", [CLASSIFIERS_TRUNK, {**VIT, "image_size": SIDE}], ids=["resnet", "vit"])
def test_a_classifiers_trunk_is_taken_with_its_making(trunk, tiny_arguments, tmp_path):
    classifier, processor = small_classifier(trunk=trunk)
    classifier.config.training_record = RECORD
    save_classifier(classifier, processor, tmp_path / "classifier")
    model, _ = new_litegpt(tiny_arguments, tmp_path / "new", tmp_path / "classifier")
    tower = load_image_tower(tmp_path / "classifier")
    assert model.config.training_record == tower.config.training_record == RECORD
    assert model.config.num_patch_tokens == tower.grid**2
    expected = classifier.trunk.state_dict()
    for network in (model.model.vision_tower, tower.network):
        assert network.state_dict().keys() == expected.keys()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
    pixels = torch.randn(2, 3, tower.config.image_size, tower.config.image_size)
    with torch.no_grad():
        tokens = patch_tokens(tower_hidden_state(classifier.trunk, pixels))
        torch.testing.assert_close(tower.eval()(pixels), tokens)
        torch.testing.assert_close(model.eval().model.get_patch_features(pixels).reshape(tokens.shape), tokens)


@pytest.mark.parametrize("change", [{"trunk_stage": "stage1"}, {"trunk_config": {"model_type": "timm_wrapper"}}])
def test_a_trunk_that_is_no_tower_is_refused_in_one_sentence(change, tiny_arguments, tmp_path):
    save_classifier(*small_classifier(), tmp_path / "classifier")
    config = tmp_path / "classifier" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(SystemExit, match="a trunk that ends at a stage, or is a network of timm, is no image tower"):
        new_litegpt(tiny_arguments, tmp_path / "new", tmp_path / "classifier")
    assert not (tmp_path / "new").exists()


def test_a_folder_without_a_tower_is_refused_in_one_sentence(tiny_arguments, tmp_path):
    BertModel(BertConfig(**{name: BERT[name] for name in BERT if name != "model_type"})).save_pretrained(
        tmp_path / "bert"
    )
    sentences = {"bert": "a bert has no image tower that can be taken", "nothing": "nothing"}
    for folder, sentence in ((tmp_path / name, sentence) for name, sentence in sentences.items()):
        with pytest.raises(SystemExit, match=sentence):
            new_litegpt(tiny_arguments, tmp_path / "new", folder)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tower", [RESNET, SWIN, VIT], ids=["resnet", "swin", "vit"])
def test_weights_that_are_missing_or_of_another_shape_are_refused(tower, tmp_path):
    model = write_cxr_clip(tmp_path / "cxr_clip", tower).vision_model
    taken = taken_tower(str(tmp_path / "cxr_clip"))
    name, tensor = next((name, tensor) for name, tensor in taken.weights.items() if tensor.ndim == 1)
    for weights in (
        {key: value for key, value in taken.weights.items() if key != name},
        {**taken.weights, name: torch.zeros(len(tensor) + 1)},
    ):
        with pytest.raises(ValueError, match="cxr_clip: the tower's .* is missing or of another shape"):
            replace(taken, weights=weights).load_into(model, str(tmp_path / "cxr_clip"))


def test_a_configuration_without_pixels_statistics_has_clips(tmp_path):
    write_cxr_clip(tmp_path / "cxr_clip", RESNET)
    for file in ("processor_config.json", "preprocessor_config.json"):
        (tmp_path / "cxr_clip" / file).unlink(missing_ok=True)
    assert taken_tower(str(tmp_path / "cxr_clip")).mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    config = json.loads((tmp_path / "cxr_clip" / "config.json").read_text())
    assert taken_tower(str(tmp_path / "cxr_clip")).config["hidden_sizes"] == config["vision_config"]["hidden_sizes"]


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (ViTConfig(image_size=224, patch_size=16), 14),
        (ViTConfig(image_size=230, patch_size=16), 14),
        (SwinConfig(image_size=224), 7),
        (SwinConfig(image_size=100, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=5), 13),
        (ResNetConfig(image_size=224, embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic"), 7),
        (ResNetConfig(image_size=100, embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic"), 4),
    ],
)
def test_the_grid_of_a_tower_is_what_it_gives(config, side):
    if config.model_type == "vit":
        config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads = 8, 8, 1, 1
    pixels = torch.zeros(1, 3, config.image_size, config.image_size)
    tokens = patch_tokens(AutoModel.from_config(config)(pixels).last_hidden_state)
    assert tower_grid(config) == side and tokens.shape[1] == side**2
