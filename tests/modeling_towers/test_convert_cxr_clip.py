"""Files with the names and shapes of CXR-CLIP's release become checkpoints that compute the same."""

import re
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel, SwinConfig, SwinModel

from litegpt.modeling_towers import convert_cxr_clip
from litegpt.modeling_towers.arguments import CXRCLIPConversionArguments
from litegpt.modeling_towers.convert_cxr_clip import converted, main

RESNET, SWIN = "image_encoder.resnet.", "image_encoder.image_encoder."
BERT = "text_encoder.text_encoder."
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "pneumothorax", "."]
NARROW_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [32, 64, 128, 256]}
NARROW_SWIN = {"model_type": "swin", "embed_dim": 8, "num_heads": [1, 2, 4, 8]}
NARROW_BERT = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
LAYERS = (3, 4, 6, 3)  # of ResNet-50


def resnet_weights(width: int) -> Iterator[tuple[str, torch.Tensor]]:
    """torchvision's ResNet-50 without `fc`, with statistics that a wrong place of a norm would show."""

    def convolution(name: str, rows: int, columns: int, side: int) -> tuple[str, torch.Tensor]:
        return f"{name}.weight", torch.randn(rows, columns, side, side) * (2 / (columns * side**2)) ** 0.5

    def norm(name: str, width: int, scale: float = 1) -> Iterator[tuple[str, torch.Tensor]]:
        yield f"{name}.weight", scale * (0.5 + torch.rand(width))
        yield f"{name}.bias", 0.3 * torch.randn(width)
        yield f"{name}.running_mean", 0.3 * torch.randn(width)
        yield f"{name}.running_var", 0.5 + torch.rand(width)
        yield f"{name}.num_batches_tracked", torch.tensor(1234)

    yield convolution("conv1", width, 3, 7)
    yield from norm("bn1", width)
    columns = width
    for stage, layers in enumerate(LAYERS):
        inner, rows = width * 2**stage, 4 * width * 2**stage
        for layer in range(layers):
            block = f"layer{stage + 1}.{layer}"
            for number, shape in enumerate(((inner, columns, 1), (inner, inner, 3), (rows, inner, 1)), 1):
                yield convolution(f"{block}.conv{number}", *shape)
                yield from norm(f"{block}.bn{number}", shape[0], 0.3 if number == 3 else 1)
            if layer == 0:
                yield convolution(f"{block}.downsample.0", rows, columns, 1)
                yield from norm(f"{block}.downsample.1", rows)
            columns = rows


def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{name}.weight", torch.randn(rows, columns) * columns**-0.5
    yield f"{name}.bias", 0.3 * torch.randn(rows)


def layer_norm(name: str, width: int) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{name}.weight", 0.5 + torch.rand(width)
    yield f"{name}.bias", 0.3 * torch.randn(width)


def swin_weights(width: int, heads: tuple[int, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    """Swin-Tiny as transformers 4.26 names it, with the index that it stored."""
    yield "embeddings.patch_embeddings.projection.weight", 0.1 * torch.randn(width, 3, 4, 4)
    yield "embeddings.patch_embeddings.projection.bias", 0.1 * torch.randn(width)
    yield from layer_norm("embeddings.norm", width)
    for stage, depth in enumerate((2, 2, 6, 2)):
        for block in (f"encoder.layers.{stage}.blocks.{number}" for number in range(depth)):
            yield f"{block}.attention.self.relative_position_bias_table", torch.randn(13 * 13, heads[stage])
            yield f"{block}.attention.self.relative_position_index", torch.zeros(49, 49, dtype=torch.long)
            for part in ("query", "key", "value"):
                yield from linear(f"{block}.attention.self.{part}", width, width)
            yield from linear(f"{block}.attention.output.dense", width, width)
            yield from linear(f"{block}.intermediate.dense", 4 * width, width)
            yield from linear(f"{block}.output.dense", width, 4 * width)
            yield from layer_norm(f"{block}.layernorm_before", width)
            yield from layer_norm(f"{block}.layernorm_after", width)
        if stage < 3:
            yield f"encoder.layers.{stage}.downsample.reduction.weight", torch.randn(2 * width, 4 * width) * 0.1
            yield from layer_norm(f"encoder.layers.{stage}.downsample.norm", 4 * width)
            width *= 2
    yield from layer_norm("layernorm", width)


def bert_weights(words: int, width: int, layers: int, inner: int) -> Iterator[tuple[str, torch.Tensor]]:
    """BertModel as transformers 4.26 stores it: with its pooler and the numbers of the positions."""
    yield "embeddings.position_ids", torch.arange(512)[None]
    for name, rows in (("word", words), ("position", 512), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", torch.randn(rows, width)
    yield from layer_norm("embeddings.LayerNorm", width)
    for layer in (f"encoder.layer.{number}" for number in range(layers)):
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", width, width)
        yield from linear(f"{layer}.attention.output.dense", width, width)
        yield from layer_norm(f"{layer}.attention.output.LayerNorm", width)
        yield from linear(f"{layer}.intermediate.dense", inner, width)
        yield from linear(f"{layer}.output.dense", width, inner)
        yield from layer_norm(f"{layer}.output.LayerNorm", width)
    yield from linear("pooler.dense", width, width)


def weights(kind: str, width: int = 8) -> "OrderedDict[str, torch.Tensor]":
    """All that is under `model` in a published file of that kind, with a narrow text tower."""
    torch.manual_seed(0)
    if kind == "r50":
        image, image_width = {RESNET + key: tensor for key, tensor in resnet_weights(width)}, 32 * width
    else:
        image, image_width = {SWIN + key: tensor for key, tensor in swin_weights(width, (1, 2, 4, 8))}, 8 * width
    text = bert_weights(len(WORDS), 16, 2, 24)
    model = OrderedDict(image) | {BERT + key: tensor for key, tensor in text}
    model |= dict(linear("image_projection.projection", 512, image_width))
    model |= dict(linear("text_projection.projection", 512, 16))
    model["logit_scale"] = torch.tensor(3.7)
    model._metadata = OrderedDict({"": {"version": 1}})  # state_dict() has it, and so has a pickle of one
    return model


def write_published(file: Path, model: dict, legacy: bool = False) -> None:
    """A file of the release: its configuration has objects of a library that only they had who made it."""
    library, module = types.ModuleType("omegaconf"), types.ModuleType("omegaconf.listconfig")

    class ListConfig:
        def __init__(self, content: list) -> None:
            self.content, self.owner = content, self

        def __setstate__(self, state: dict) -> None:
            raise AssertionError("an object of the configuration was built")

    ListConfig.__module__, ListConfig.__qualname__ = module.__name__, "ListConfig"
    module.ListConfig = ListConfig
    sys.modules |= {"omegaconf": library, "omegaconf.listconfig": module}
    try:
        config = {"model": {"name": "clip_custom", "sizes": ListConfig([224, {"a": 1}])}, "paths": {Path("x")}}
        optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{}]}
        state = {"model": model, "optimizer": optimizer, "scheduler": {"last_epoch": 3}, "config": config}
        state |= {"epoch": 14, "train_loss": np.float64(1.5)}
        torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    finally:
        del sys.modules["omegaconf"], sys.modules["omegaconf.listconfig"]


@pytest.fixture
def narrow_text(monkeypatch) -> None:
    """Bio_ClinicalBERT with fewer channels and words."""
    monkeypatch.setattr(convert_cxr_clip, "TEXT_TOWER", NARROW_BERT)


@pytest.fixture
def narrow(monkeypatch, narrow_text) -> None:
    """The published towers, with fewer channels."""
    monkeypatch.setitem(convert_cxr_clip.IMAGE_TOWERS, RESNET, (NARROW_RESNET, "mean"))
    monkeypatch.setitem(convert_cxr_clip.IMAGE_TOWERS, SWIN, (NARROW_SWIN, "first"))


def arguments(folder: Path, kind: str, words: int = len(WORDS), **options) -> CXRCLIPConversionArguments:
    """The program's, and the tokenizer that they name: vocab.txt alone, as Bio_ClinicalBERT's folder has it."""
    (folder / "bert").mkdir()
    vocabulary = WORDS + [f"word{number}" for number in range(words - len(WORDS))]
    (folder / "bert" / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return CXRCLIPConversionArguments(
        str(folder / f"{kind}_mcc.tar"), str(folder / "bert"), str(folder / "out" / kind), **options
    )


def resnet_features(weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """ResNet-50 (version 1.5: strides in the 3 x 3 convolutions) on torchvision's names, from its formula."""

    def convolved(x: torch.Tensor, name: str, norm: str, stride: int = 1) -> torch.Tensor:
        kernel = weights[f"{RESNET}{name}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, variance, scale, shift = (
            weights[f"{RESNET}{norm}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = functional.max_pool2d(convolved(pixels, "conv1", "bn1", 2).relu(), 3, 2, padding=1)
    for stage, layers in enumerate(LAYERS):
        for layer in range(layers):
            block, stride = f"layer{stage + 1}.{layer}", 2 if stage and not layer else 1
            y = convolved(x, f"{block}.conv1", f"{block}.bn1").relu()
            y = convolved(y, f"{block}.conv2", f"{block}.bn2", stride).relu()
            y = convolved(y, f"{block}.conv3", f"{block}.bn3")
            x = x if layer else convolved(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
            x = (x + y).relu()
    return x


@pytest.mark.usefixtures("narrow_text")
def test_a_published_resnet_50_gives_the_features_of_its_formula_at_the_real_size(tmp_path, capsys):
    published = weights("r50", width=64)
    write_published(tmp_path / "r50_mcc.tar", published)
    asked = arguments(tmp_path, "r50")
    main(asked)
    said = capsys.readouterr().out
    assert f"left out: {BERT}pooler.dense.weight" in said and "(CC BY-NC)" in said and "into lower case" in said

    model = AutoModel.from_pretrained(asked.output_dir)
    assert (model.config.image_pooling, model.config.text_pooling) == ("mean", "last")
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = resnet_features(published, pixels)
        difference = (model.vision_model(pixels).last_hidden_state - features).abs().max()
        assert difference < 1e-4 and features.abs().max() > 0.5
        projected = features.mean(dim=(2, 3)) @ published["image_projection.projection.weight"].T
        projected += published["image_projection.projection.bias"]
        torch.testing.assert_close(model.get_image_features(pixels).pooler_output, projected, atol=1e-4, rtol=1e-4)
    assert model.logit_scale == published["logit_scale"]


@pytest.mark.usefixtures("narrow")
def test_a_published_swin_reads_its_first_token_and_texts_their_last(tmp_path):
    published = weights("swint")
    write_published(tmp_path / "swint_mcc.tar", published)
    asked = arguments(tmp_path, "swint")
    main(asked)
    model = AutoModel.from_pretrained(asked.output_dir)
    processor = AutoProcessor.from_pretrained(asked.output_dir, trust_remote_code=True)
    assert processor.max_length == 256

    def tower(model_class: type, config, prefix: str) -> torch.nn.Module:
        named = {key.removeprefix(prefix): tensor for key, tensor in published.items() if key.startswith(prefix)}
        loaded, info = model_class.from_pretrained(None, config=config, state_dict=named, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        return loaded.eval()

    swin = tower(SwinModel, SwinConfig(**NARROW_SWIN), SWIN)
    bert = tower(BertModel, BertConfig(**NARROW_BERT), BERT)
    pixels = torch.randn(2, 3, 224, 224)
    inputs = processor(text=["no pneumothorax.", "pneumothorax"])
    assert inputs["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 6, 3, 0, 0]]
    with torch.no_grad():
        image = swin(pixels).last_hidden_state[:, 0] @ published["image_projection.projection.weight"].T
        text = bert(**inputs).last_hidden_state[[0, 1], [4, 2]] @ published["text_projection.projection.weight"].T
        outputs = model(**inputs, pixel_values=pixels)
    for found, tower_vector, name in ((outputs.image_embeds, image, "image"), (outputs.text_embeds, text, "text")):
        expected = functional.normalize(tower_vector + published[f"{name}_projection.projection.bias"], dim=-1)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(outputs.logits_per_image, np.exp(3.7) * outputs.image_embeds @ outputs.text_embeds.T)


@pytest.mark.usefixtures("narrow")
@pytest.mark.filterwarnings("ignore:.*does not look like a frontal chest")
@pytest.mark.parametrize("kind", ["r50", "swint"])
@pytest.mark.parametrize("squash", [False, True])
def test_radiographs_are_cropped_as_published_or_squashed_and_the_card_says_so(tmp_path, capsys, kind, squash):
    write_published(tmp_path / f"{kind}_mcc.tar", weights(kind))
    asked = arguments(tmp_path, kind, squash=squash)
    main(asked)
    processor = AutoProcessor.from_pretrained(asked.output_dir, trust_remote_code=True)
    greys = np.full((300, 500), 51, np.uint8)
    greys[:, :90], greys[:, 410:] = 204, 204  # the sides, which a crop cuts
    pixels = processor(images=Image.fromarray(greys))["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    mean, std = (0.485, 0.229) if kind == "r50" else (0.5, 0.5)  # ImageNet's, or from -1 to 1
    assert pixels[0, 0, 112, 112] == pytest.approx((0.2 - mean) / std)
    assert pixels[0, 0, 112, 2] == pytest.approx(((0.8 if squash else 0.2) - mean) / std)

    card = Path(asked.output_dir, "README.md").read_text(encoding="utf-8")
    assert card.count("ot for commercial use**") == 2 and "CC BY-NC 4.0" in card and "Bio_ClinicalBERT" in card
    assert ("longer side was cut" in card) == squash == ("so measure again" in capsys.readouterr().out)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("legacy", [False, True])
def test_objects_of_a_library_that_is_not_there_are_ignored(tmp_path, legacy):
    published = weights("r50")
    write_published(tmp_path / "r50.tar", published, legacy)
    model, left_out = converted(tmp_path / "r50.tar")
    assert "omegaconf" not in sys.modules
    assert left_out == [f"{BERT}embeddings.position_ids", f"{BERT}pooler.dense.weight", f"{BERT}pooler.dense.bias"]
    kernel = "encoder.stages.2.layers.5.layer.1.convolution.weight"
    assert torch.equal(model.vision_model.state_dict()[kernel], published[f"{RESNET}layer3.5.conv2.weight"])
    assert model.config.base_models == ["cxr_clip", "bio_clinical_bert"]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({f"{RESNET}fc.weight": torch.ones(3, 2)}, f"unexpected tensor '{RESNET}fc.weight' of shape (3, 2)."),
        ({"mlm_head.bias": torch.ones(3)}, "unexpected tensor 'mlm_head.bias' of shape (3,)."),
        ({f"{BERT}surprise": torch.ones(3)}, f"unexpected tensor '{BERT}surprise' of shape (3,)."),
        (
            {f"{RESNET}layer2.0.downsample.1.running_var": None},
            "lacks 1 tensors that the model needs, such as "
            "vision_model.encoder.stages.1.layers.0.shortcut.normalization.running_var.",
        ),
        (
            {f"{BERT}embeddings.word_embeddings.weight": torch.ones(9, 16)},
            f"'{BERT}embeddings.word_embeddings.weight' has shape (9, 16), the model wants (8, 16).",
        ),
        (
            {f"{SWIN}layernorm.bias": torch.ones(8)},
            f"is no published file of CXR-CLIP: exactly one of {RESNET} and {SWIN} must begin names.",
        ),
        ({"logit_scale": 3.7}, "logit_scale under 'model' is no tensor."),
    ],
    ids=["classifier", "unknown", "unknown of BERT", "missing", "shape", "two towers", "no tensor"],
)
def test_a_file_that_does_not_fit_is_refused_by_the_name_of_its_tensor(tmp_path, changes, sentence):
    changed = {**weights("r50"), **changes}
    torch.save({"model": {key: value for key, value in changed.items() if value is not None}}, tmp_path / "r50.tar")
    with pytest.raises(ValueError) as refusal:
        converted(tmp_path / "r50.tar")
    assert re.sub(r"^(\S+): ", "", str(refusal.value)) == sentence


@pytest.mark.usefixtures("narrow")
def test_what_cannot_be_converted_ends_the_program_in_one_sentence_and_leaves_nothing(tmp_path):
    asked = arguments(tmp_path, "r50", words=9)

    def ending() -> str:
        with pytest.raises(SystemExit) as stop:
            main(asked)
        assert not Path(asked.output_dir).exists() or list(Path(asked.output_dir).iterdir()) == [
            tmp_path / "out/r50/a"
        ]
        return str(stop.value)

    assert ending() == f"{asked.weights}: there is no such file."
    write_published(Path(asked.weights), weights("r50"))
    assert ending() == f"{asked.tokenizer}: the tokenizer has 9 words, the weights were trained on 8."
    Path(asked.tokenizer, "vocab.txt").unlink()
    assert ending() == f"{asked.tokenizer}: there is no vocab.txt of a tokenizer."
    Path(asked.output_dir).mkdir(parents=True)
    Path(asked.output_dir, "a").touch()
    assert "is not empty" in ending()
