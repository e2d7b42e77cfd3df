"""Files with the names and shapes of ECAMP's and MRM's releases become towers that compute the same."""

from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from litegpt.modeling_towers.arguments import ECAMPConversionArguments
from litegpt.modeling_towers.convert_ecamp import main
from litegpt.modeling_towers.image_towers import load_image_tower
from tests.modeling_litegpt.test_published_weights import vit_features
from tests.vit_weights import vit_weights


@pytest.fixture(scope="module")
def encoder() -> dict[str, torch.Tensor]:
    return vit_weights(768, 3072, 12, 16, 197, fused_bias=True)


def write(path: Path, encoder: dict[str, torch.Tensor]) -> str:
    """As the release: beside the encoder what it was trained with, whose names are its own."""
    others = {"mask_token": torch.zeros(1, 1, 512), "decoder_embed.weight": torch.zeros(512, 768)}
    others |= {"decoder_blocks.0.norm1.weight": torch.zeros(512), "super_res.conv1.weight": torch.zeros(3, 3, 3, 3)}
    others |= {
        "bert_encoder.model.bert.cross_attn_layer.gap.weight": torch.zeros(4, 4),
        "bert_mlp.bias": torch.zeros(4),
    }
    torch.save({"model": {**encoder, **others}, "epoch": 115}, path)
    return str(path)


def test_the_encoder_computes_what_its_formula_says_and_loads_without_our_code(encoder, tmp_path, capsys):
    weights = write(tmp_path / "ECAMP_ViT_Base_16.pth", encoder)
    main(ECAMPConversionArguments(weights, str(tmp_path / "tower")))
    said = capsys.readouterr().out
    assert "left out: bert_encoder, 1 tensors" in said and "left out: decoder_embed, 1 tensors" in said
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    tower = AutoModel.from_pretrained(tmp_path / "tower", add_pooling_layer=False).eval()
    with torch.no_grad():
        features = vit_features(encoder, pixels, heads=12, blocks=12)
        expected = torch.nn.functional.layer_norm(features, (768,), encoder["norm.weight"], encoder["norm.bias"], 1e-6)
        assert (tower(pixels).last_hidden_state - expected).abs().max() <= 1e-5
        assert (load_image_tower(tmp_path / "tower").eval()(pixels) - expected[:, 1:]).abs().max() <= 1e-5
    processor = AutoImageProcessor.from_pretrained(tmp_path / "tower")
    assert list(processor.image_mean) == [0.4721] * 3 and list(processor.image_std) == [0.3037] * 3
    card = (tmp_path / "tower" / "README.md").read_text()
    assert "ECAMP's published weights" in card and "MIMIC-CXR" in card and "non-commercial" in card


def test_mrms_weights_have_their_own_pixels_and_card(encoder, tmp_path):
    main(ECAMPConversionArguments(write(tmp_path / "MRM.pth", encoder), str(tmp_path / "tower"), "mrm"))
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "tower").image_mean) == [0.4978] * 3
    assert "MRM's published weights" in (tmp_path / "tower" / "README.md").read_text()


def test_a_file_that_is_none_is_refused_and_nothing_is_written(encoder, tmp_path):
    without = {name: tensor for name, tensor in encoder.items() if name != "blocks.3.mlp.fc2.bias"}
    other_shape = {**encoder, "pos_embed": torch.zeros(1, 50, 768)}
    for number, (tensors, sentence) in enumerate(
        ((without, "encoder.layer.3.*is missing or of another shape|layers.3.*is missing"), (other_shape, "position"))
    ):
        path = write(tmp_path / f"{number}.pth", tensors)
        with pytest.raises(SystemExit, match=sentence):
            main(ECAMPConversionArguments(path, str(tmp_path / "tower")))
    with pytest.raises(SystemExit, match="there is no such file"):
        main(ECAMPConversionArguments(str(tmp_path / "nothing.pth"), str(tmp_path / "tower")))
    assert not (tmp_path / "tower").exists()
