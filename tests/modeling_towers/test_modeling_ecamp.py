"""ECAMP's network: its losses against loops and hand formulas, what sees what, and its encoder as a tower."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, BertForMaskedLM, ViTConfig, ViTModel

from litegpt.modeling_towers import ECAMPConfig, ECAMPModel
from litegpt.modeling_towers.modeling_ecamp import ECAMPFusion, sinusoidal_positions, window_loss
from tests.small_ecamp import TEXT, VISION

PATCHES, LARGE, PATCH = 16, 64, 8


def model(**options) -> ECAMPModel:
    torch.manual_seed(0)
    options = {"vision_config": VISION, "text_config": TEXT, **options}
    return ECAMPModel(ECAMPConfig(**options)).eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(3, 1, LARGE, LARGE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.rand(3, PATCHES, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def reports() -> dict[str, torch.Tensor]:
    """Three of 6 tokens, the last one filled up."""
    ids = torch.randint(5, 200, (3, 6), generator=torch.Generator().manual_seed(3))
    attended = torch.ones_like(ids)
    ids[2, 4:], attended[2, 4:] = 0, 0
    labels = torch.where(attended.bool() & (torch.arange(6) % 2 == 0), ids, -100)
    return {"input_ids": torch.where(labels != -100, 4, ids), "attention_mask": attended, "labels": labels}


def test_a_quarter_of_the_patches_is_seen_and_the_rest_is_judged_patch_by_patch(pictures, noise):
    network = model()
    outputs = network(pictures, noise=noise)
    assert outputs.patch_mask.shape == (3, 4, 4) and outputs.patch_mask.flatten(1).sum(1).tolist() == [12] * 3
    small = network.reduced(pictures)
    errors = []
    for image in range(3):
        for patch in noise[image].argsort()[PATCHES // 4 :].tolist():
            row, column = divmod(patch, 4)
            place = (image, slice(None), *(slice(at * PATCH, at * PATCH + PATCH) for at in (row, column)))
            errors.append(((outputs.reconstruction[place] - small[place]) ** 2).mean())
    assert outputs.image_loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
    release = model(release=True)
    release.load_state_dict(network.state_dict())
    assert release(pictures, noise=noise).image_loss.item() == pytest.approx(0.75 * outputs.image_loss.item())


def test_patches_are_put_together_as_they_were_taken_apart(pictures):
    small = model().reduced(pictures)
    mae = model().mae
    assert torch.equal(mae.unpatchify(mae.patchify(small)), small)


def test_the_encoder_is_blind_to_masked_pixels_and_their_targets_alone_count(pictures, noise):
    network = model()
    small = network.reduced(pictures).clone().requires_grad_()
    encoded = network.mae.vit(small, noise=noise)
    encoded.last_hidden_state.sum().backward()
    masked = encoded.mask.unflatten(1, (4, 4)).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None]
    assert (small.grad * masked).abs().max() == 0 and (small.grad * (1 - masked)).abs().max() > 0
    drawn = torch.randn_like(small)
    loss = network._image_loss(drawn, small.detach(), masked[:, 0, ::PATCH, ::PATCH])
    other = torch.where(masked == 1, small, small + 5).detach()
    assert torch.equal(loss, network._image_loss(drawn, other, masked[:, 0, ::PATCH, ::PATCH]))


def test_super_resolution_is_judged_within_the_window_alone():
    drawn, true = torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    true[:, :, :4] = 1.0  # the upper half
    windows = torch.tensor([[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0]])
    assert window_loss(drawn, true, None).item() == 0.5
    assert window_loss(drawn[:1], true[:1], windows[:1]).item() == 0.5
    assert window_loss(drawn[1:], true[1:], windows[1:]).item() == 0.0
    eighth = torch.tensor([[0.0, 0.0, 0.25, 0.5]])
    assert window_loss(drawn[:1], true[:1], eighth).item() == pytest.approx(0.125)


def test_super_resolution_can_be_darker_than_the_mean_and_the_releases_cannot(pictures, noise):
    assert model()(pictures, noise=noise).super_resolution.min() < 0
    drawn = model(release=True)(pictures, noise=noise).super_resolution
    assert drawn.min() == 0 and drawn.shape == (3, 3, LARGE, LARGE)


def test_words_are_said_as_berts_own_masked_language_model_says_them(pictures, noise, reports):
    network = model(fusion="none")
    bert = BertForMaskedLM(network.config.text_config).eval()
    bert.load_state_dict(network.language_model.state_dict())
    outputs = network(pictures, noise=noise, **reports)
    assert outputs.text_loss.item() == pytest.approx(bert(**reports).loss.item(), rel=1e-5)
    weights = torch.rand(3, 6)
    asked = reports["labels"] != -100
    losses = functional.cross_entropy(bert(**reports).logits[asked], reports["labels"][asked], reduction="none")
    weighted = network(pictures, noise=noise, **reports, token_weights=weights).text_loss
    assert weighted.item() == pytest.approx(((losses * weights[asked]).sum() / asked.sum()).item(), rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_terms_and_reaches_every_trained_weight(pictures, noise, reports):
    network = model(super_resolution_weight=0.5, text_weight=2.0).train()
    outputs = network(pictures, noise=noise, **reports)
    expected = outputs.image_loss + 0.5 * outputs.super_resolution_loss + 2 * outputs.text_loss
    assert torch.allclose(outputs.loss, expected)
    outputs.loss.backward()
    assert [name for name, w in network.named_parameters() if w.requires_grad and w.grad is None] == []


@pytest.mark.parametrize("fusion", ["both", "global", "local", "add"])
def test_the_fusion_is_the_formula_written_by_hand(fusion):
    torch.manual_seed(4)
    config = ECAMPConfig(vision_config=VISION, text_config=TEXT, fusion=fusion)
    layer = ECAMPFusion(config).eval()
    text, patches = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    mask = torch.zeros(2, 1, 1, 5)
    mask[1, ..., 3:] = -1e9

    def attention(part, queries, keys, added):
        q, k, v = part.query(queries), part.key(keys), part.value(keys)
        heads = []
        for columns in (slice(0, 8), slice(8, 16)):
            logits = q[..., columns] @ k[..., columns].transpose(1, 2) / 8**0.5
            heads.append((logits + added).softmax(-1) @ v[..., columns])
        return torch.cat(heads, -1)

    seen = layer.patches(patches)
    if fusion == "add":
        expected = text + seen.mean(1, keepdim=True)
    else:
        t = layer.self_norm(text + layer.self_output(attention(layer.self_attention, text, text, mask[:, 0])))
        context = torch.zeros_like(t)
        if fusion != "global":
            context = context + attention(layer.cross_attention, t, seen, 0)
        if fusion != "local":
            context = context + layer.mean(seen.mean(1, keepdim=True))
        y = layer.output_norm(t + layer.output(context))
        expected = layer.last_norm(y + layer.narrow(functional.gelu(layer.wide(y))))
    assert torch.allclose(layer(text, patches, mask), expected, atol=1e-6)
    assert torch.allclose(layer(text, patches[:, [2, 0, 3, 1]], mask), expected, atol=1e-5)  # whatever their order


def test_the_text_is_told_with_what_is_seen_of_its_own_image(pictures, noise, reports):
    asked = {**reports, "labels": None}
    for fusion, differs in (("both", True), ("none", False)):
        network = model(fusion=fusion)
        logits = [network(pixels, noise=noise, **asked).logits for pixels in (pictures, pictures.flip(0))]
        assert (not torch.allclose(*logits, atol=1e-6)) == differs


def test_what_is_not_there_has_no_weights():
    mae = model(super_resolution_weight=0.0, text_weight=0.0)
    assert {name.partition(".")[0] for name in mae.state_dict()} == {"mae"}
    assert {name.partition(".")[0] for name in model(fusion="none").state_dict()} == {
        "mae",
        "super_resolution",
        "language_model",
    }
    with pytest.raises(ValueError, match="fusion must be one of both, global, local, add, none, not 'all'"):
        ECAMPConfig(fusion="all")


def test_positions_are_sinusoids_from_the_start_and_are_not_trained():
    """The library's own fresh MAE has positions of zeros: it could not tell where a patch lies."""
    network = model()
    for table, width in (
        (network.mae.vit.embeddings.position_embeddings, 16),
        (network.mae.decoder.decoder_pos_embed, 16),
    ):
        assert torch.equal(table, sinusoidal_positions(4, width)) and not table.requires_grad
    table = sinusoidal_positions(4, 16)[0]
    assert table[0].abs().max() == 0
    assert table[1 + 7, 0].item() == pytest.approx(torch.tensor(3.0).sin().item())  # row 1, column 3
    assert table[1 + 7, 8].item() == pytest.approx(torch.tensor(1.0).sin().item())
    assert len(torch.unique(table, dim=0)) == 17


def test_heads_weights_are_the_embeddings_and_the_releases_are_not():
    for release in (False, True):
        network = model(release=release).language_model
        tied = network.cls.predictions.decoder.weight is network.bert.embeddings.word_embeddings.weight
        assert tied != release


def test_a_saved_model_is_loaded_whole(tmp_path, pictures, noise, reports):
    network = model()
    network.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, ECAMPModel)
    assert torch.equal(loaded(pictures, noise=noise, **reports).loss, network(pictures, noise=noise, **reports).loss)
    predictions = loaded.language_model
    assert predictions.cls.predictions.decoder.weight is predictions.bert.embeddings.word_embeddings.weight


def test_the_encoder_that_sees_all_patches_is_a_vit(pictures):
    network = model()
    config = {name: value for name, value in VISION.items() if not name.startswith("decoder")}
    vit = ViTModel(ViTConfig(**config, layer_norm_eps=1e-6), add_pooling_layer=False).eval()
    vit.load_state_dict(network.mae.vit.state_dict())
    network.mae.vit.config.mask_ratio = 0.0
    small = network.reduced(pictures)
    seen = network.mae.vit(small, noise=torch.arange(PATCHES).float().repeat(3, 1)).last_hidden_state
    assert torch.equal(seen, vit(small).last_hidden_state)
