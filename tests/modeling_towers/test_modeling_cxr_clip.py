"""CXR-CLIP's dual encoder: what its vectors are made of, its precision, its checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoModel, AutoProcessor, BertTokenizer, CLIPConfig, CLIPModel, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.modeling_outputs import BaseModelOutputWithPooling

from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel
from litegpt.modeling_towers.checkpoints import load_cxr_clip, save_cxr_clip
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from tests.small_dicom import small_dicom

SIDE = 32
VIT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
}
TOWERS = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": SIDE},
    "vit": {**VIT, "patch_size": 8},
    "clip_vision_model": {**VIT, "patch_size": 8},
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "there", "is", "pneumothorax", "edema", "."]
TEXTS = ["no pneumothorax.", "there is edema.", "edema"]
PIXELS = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def new_model(tower: str = "vit", **options) -> CXRCLIPModel:
    """A small model whose biases and norms differ from those of a fresh one."""
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), **VIT, "max_position_embeddings": 64}
    text = {"model_type": "bert", **{name: value for name, value in text.items() if name != "image_size"}}
    towers = {"vision_config": {"model_type": tower, **TOWERS[tower]}, "text_config": text}
    config = CXRCLIPConfig(**towers, image_size=SIDE, projection_dim=12, **options)
    model = CXRCLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def new_processor() -> CXRCLIPProcessor:
    tokenizer = BertTokenizer({word: number for number, word in enumerate(WORDS)})
    return CXRCLIPProcessor(image_processor(SIDE, [0.5] * 3, [0.5] * 3), tokenizer, max_length=16)


def inputs() -> dict[str, torch.Tensor]:
    return {**new_processor()(text=TEXTS), "pixel_values": PIXELS}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cxr_clip") / "checkpoint"
    save_cxr_clip(new_model(), new_processor(), folder)
    return folder


@pytest.fixture
def radiograph(tmp_path) -> Path:
    greys = np.random.default_rng(0).integers(0, 256, (70, 60)).astype(np.uint8)
    small_dicom(greys).save_as(tmp_path / "radiograph.dicom", enforce_file_format=True)
    return tmp_path / "radiograph.dicom"


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_a_checkpoints_own_code_computes_what_was_saved(tmp_path, tower):
    model = new_model(tower)
    save_cxr_clip(model, new_processor(), tmp_path / "saved")
    copied_class = get_class_from_dynamic_module("modeling_cxr_clip.CXRCLIPModel", str(tmp_path / "saved"))
    assert copied_class is not CXRCLIPModel
    copied, (ours, processor) = copied_class.from_pretrained(tmp_path / "saved"), load_cxr_clip(tmp_path / "saved")
    assert copied.config.image_size == ours.config.image_size == SIDE and processor.max_length == 16
    expected = model(**inputs())
    for loaded in (copied, ours, AutoModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)):
        assert torch.equal(loaded(**inputs()).logits_per_image, expected.logits_per_image)


@torch.no_grad()
def test_the_pipeline_answers_about_a_dicom_file_as_the_auto_classes_do(checkpoint, radiograph):
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    labels = ["pneumothorax", "edema"]
    tensors = processor(images=str(radiograph), text=[f"there is {label}." for label in labels])
    assert tensors["pixel_values"].shape == (1, 3, SIDE, SIDE)
    probabilities = model(**tensors).logits_per_image.softmax(-1)[0]
    pipe = pipeline("zero-shot-image-classification", model=str(checkpoint), trust_remote_code=True)
    answers = pipe(str(radiograph), candidate_labels=labels, hypothesis_template="there is {}.")
    assert answers == sorted(answers, key=lambda answer: -answer["score"])
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(
        dict(zip(labels, probabilities.tolist(), strict=True))
    )


@torch.no_grad()
def test_with_a_negative_template_each_label_is_held_against_its_own_negation(checkpoint, radiograph):
    model, processor = load_cxr_clip(checkpoint)
    labels = ["pneumothorax", "edema"]
    pipe = pipeline("zero-shot-image-classification", model=str(checkpoint), trust_remote_code=True)
    answers = pipe(str(radiograph), candidate_labels=labels, negative_template="no {}")
    for answer in answers:
        outputs = model(**processor(images=str(radiograph), text=[answer["label"], f"no {answer['label']}"]))
        cosines = outputs.image_embeds @ outputs.text_embeds.T  # not multiplied by the scale
        assert answer["score"] == pytest.approx(cosines.softmax(-1)[0, 0].item(), abs=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize(("tower", "side", "classes"), [("resnet", 4, 0), ("swin", 4, 0), ("vit", 4, 1)])
@torch.no_grad()
def test_images_are_pooled_as_the_configuration_says(tower, side, classes, pooling):
    check_image_pooling(tower, side, classes, pooling)


@pytest.mark.parametrize("pooling", ["mean", "first"])
@torch.no_grad()
def test_images_of_a_clip_tower_are_pooled_likewise(pooling):
    check_image_pooling("clip_vision_model", 4, 1, pooling)


def check_image_pooling(tower: str, side: int, classes: int, pooling: str) -> None:
    """Holds vectors against those computed, token by token, from the tower's last hidden state."""
    model = new_model(tower, image_pooling=pooling)
    hidden = model.vision_model(PIXELS).last_hidden_state
    if hidden.ndim == 4:
        tokens = [hidden[:, :, row, column] for row in range(side) for column in range(side)]
    else:
        tokens = [hidden[:, number] for number in range(classes + side * side)]
    patches = tokens[classes:]
    assert torch.equal(model.get_patch_features(PIXELS), torch.stack(patches, 1))
    pooled = tokens[0] if pooling == "first" else sum(patches) / len(patches)
    torch.testing.assert_close(model.get_pooled_features(PIXELS), pooled)
    projected = pooled @ model.image_projection.weight.T + model.image_projection.bias
    torch.testing.assert_close(model.get_image_features(PIXELS).pooler_output, projected)
    embeds = model(pixel_values=PIXELS).image_embeds
    torch.testing.assert_close(embeds, projected / projected.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(
        model.get_patch_embeddings(PIXELS),
        functional.normalize(model.image_projection(torch.stack(patches, 1)), dim=-1),
    )


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("pooling", ["last", "first", "mean"])
@torch.no_grad()
def test_texts_are_pooled_as_the_configuration_says_wherever_their_padding_stands(pooling, padding):
    model, processor = new_model(text_pooling=pooling), new_processor()
    processor.tokenizer.padding_side = padding
    encoded = processor(text=TEXTS)
    attended = [mask.nonzero()[:, 0].tolist() for mask in encoded["attention_mask"]]
    assert [len(places) for places in attended] == [5, 6, 3]
    hidden = model.text_model(**encoded).last_hidden_state
    choose = {"last": slice(-1, None), "first": slice(1), "mean": slice(None)}[pooling]
    pooled = torch.stack([tokens[places[choose]].mean(0) for tokens, places in zip(hidden, attended, strict=True)])
    features = model.get_text_features(**encoded).pooler_output
    torch.testing.assert_close(features, pooled @ model.text_projection.weight.T + model.text_projection.bias)
    if padding == "right":  # BERT counts positions from the left
        alone = model.get_text_features(**processor(text=TEXTS[2])).pooler_output
        torch.testing.assert_close(features[2:], alone)


@torch.no_grad()
def test_the_scale_and_the_cosines_stay_in_float32_when_the_model_is_in_bfloat16(checkpoint, tmp_path):
    half = CXRCLIPModel.from_pretrained(checkpoint, dtype=torch.bfloat16)
    half.logit_scale.fill_(3.14159)
    half.save_pretrained(tmp_path)
    again = CXRCLIPModel.from_pretrained(tmp_path, dtype="auto")
    assert again.dtype == torch.bfloat16
    assert torch.equal(again.logit_scale, torch.tensor(3.14159))
    assert {parameter.dtype for name, parameter in again.named_parameters() if name != "logit_scale"} == {
        torch.bfloat16
    }
    outputs = again(**inputs())
    for tensor in (outputs.logits_per_image, outputs.image_embeds, outputs.text_embeds, outputs.logit_scale):
        assert tensor.dtype == torch.float32
    torch.testing.assert_close(outputs.image_embeds.norm(dim=-1), torch.ones(3))
    assert torch.equal(outputs.logits_per_image, outputs.logit_scale * outputs.image_embeds @ outputs.text_embeds.T)


def test_the_cosines_stay_in_float32_under_autocast_and_the_scale_learns():
    model = new_model()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.get_image_features(PIXELS).pooler_output.dtype == torch.bfloat16  # autocast is at work
        outputs = model(**inputs(), return_loss=True)
    outputs.loss.backward()
    assert outputs.logits_per_image.dtype == outputs.loss.dtype == model.logit_scale.grad.dtype == torch.float32
    assert model.logit_scale.grad.abs() > 0
    exact = outputs.logit_scale * outputs.image_embeds @ outputs.text_embeds.T
    assert torch.equal(outputs.logits_per_image, exact)


@torch.no_grad()
def test_the_loss_of_the_same_vectors_is_that_of_transformers_clip(monkeypatch):
    text = {name: value for name, value in VIT.items() if name != "image_size"}
    clip = CLIPModel(CLIPConfig(vision_config=TOWERS["vit"] | {"patch_size": 8}, text_config=text)).eval()
    theirs = clip(input_ids=torch.arange(15).view(3, 5), pixel_values=PIXELS, return_loss=True)
    model = new_model()
    model.logit_scale.copy_(clip.logit_scale)
    for name, vectors in (("image", theirs.image_embeds), ("text", theirs.text_embeds)):
        output = BaseModelOutputWithPooling(pooler_output=7 * vectors)
        monkeypatch.setattr(model, f"get_{name}_features", lambda *inputs, output=output: output)
    ours = model(**inputs(), return_loss=True)
    torch.testing.assert_close(ours.logits_per_text, theirs.logits_per_text)
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert torch.equal(ours.logits_per_text, ours.logits_per_image.T)


@torch.no_grad()
def test_the_scale_is_bounded_only_where_the_configuration_says_so():
    for bound, expected in ((None, np.exp(5.0)), (100.0, 100.0)):
        model = new_model(max_logit_scale=bound)
        model.logit_scale.fill_(5.0)
        assert model(**inputs()).logit_scale.item() == pytest.approx(expected)


def test_a_fresh_model_starts_with_the_papers_scale_and_unbiased_projections():
    model = CXRCLIPModel(new_model().config)
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert not model.image_projection.bias.any()
    assert model.text_projection.weight.std().item() == pytest.approx(0.25, rel=0.3)  # as CLIP's: 16 ** -0.5
    assert not any("pooler" in name for name in model.state_dict())  # nothing would train it


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_projection.bias": None}, "missing: image_projection.bias"),
        ({"text_projection.scale": torch.ones(2)}, "unexpected: text_projection.scale"),
        ({"image_projection.bias": torch.ones(5)}, "of another shape: .*image_projection.bias"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, sentence):
    new_model().save_pretrained(tmp_path)
    change_weights(tmp_path, **change)
    with pytest.raises(ValueError, match=f"the weights do not fit the configuration: {sentence}"):
        CXRCLIPModel.from_pretrained(tmp_path)


def test_what_cannot_be_computed_is_refused_in_one_sentence(tiny_checkpoint):
    model = new_model()
    with pytest.raises(ValueError, match="neither an image nor a text"):
        model()
    with pytest.raises(ValueError, match="as many texts as images"):
        model(input_ids=torch.tensor([[2, 5, 3]]), pixel_values=PIXELS, return_loss=True)
    with pytest.raises(ValueError, match="image_pooling must be one of mean, first, not 'max'"):
        new_model(image_pooling="max")
    with pytest.raises(ValueError, match="a checkpoint of litegpt, not of cxr_clip"):
        load_cxr_clip(tiny_checkpoint)
