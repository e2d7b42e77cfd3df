"""Maps of an answer's words: in the right place, of the right size, and a model that is left as it was."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig

from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answer_maps import (
    METHODS,
    Span,
    answer_maps,
    joined_grids,
    label_maps,
    patch_values,
    taught_inputs,
    text_maps,
)
from litegpt.processing.answers import text_to_findings

ANSWER = "Local diseases of this chest radiograph are <p>ILD</p> {<10><20><50><90>},<p>Nodule/Mass</p> {<1><2><5><9>}."
OTHER = "Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<38><52><81><74>}."
LABELS = ["Cardiomegaly", "ILD", "Nodule/Mass"]
GRADIENTS = ("gradient_attention", "integrated")


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)[0].eval()


@pytest.fixture
def pixels(processor, radiographs):
    return pixels_of(processor, radiographs)


def pixels_of(processor, radiographs):
    prompts = [processor.prompt("identify")] * len(radiographs)
    return processor(images=radiographs, text=prompts, padding=True, add_special_tokens=False, return_tensors="pt")


@pytest.fixture
def one(processor, pixels):
    """The inputs of one radiograph with an answer, and a span of three of its tokens."""
    first_only = {name: value[:1] for name, value in pixels.items()}
    inputs, (first,) = taught_inputs(processor, first_only, [processor.answer_ids(ANSWER)])
    return inputs, Span(0, [first + 1, first + 2, first + 4])


def log_probability(model, inputs, span, **changes):
    """Of a span's tokens, by the definition."""
    given = {**inputs, **changes}
    with torch.no_grad():
        scores = model(**given).logits[span.row].float().log_softmax(-1)
    return sum(scores[place - 1, inputs["input_ids"][span.row, place]].item() for place in span.places)


def without_pixels(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


# --- Places ----------------------------------------------------------------------------------------------------------


def test_a_visual_token_lights_its_own_patches_across_rows_and_towers():
    def lit(token):
        weights = torch.zeros(49)
        weights[token] = 1.0
        return joined_grids(patch_values(weights, 5), [14, 7])

    wrapped = lit(2)  # patches 10 to 14: the end of the first row and the beginning of the second
    assert wrapped.nonzero().tolist() == [[0, 10], [0, 11], [0, 12], [0, 13], [1, 0]]
    assert wrapped[0, 10].item() == pytest.approx(0.2)
    mixed = lit(39)  # the last patch of the first tower, and four of the second's first row, each as large as four
    expected = torch.zeros(14, 14)
    expected[13, 13] = 0.2
    expected[:2, :8] = 0.2 / 4
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("sides", [[14, 7], [7], [7, 14], [10, 7], [24, 7]])
def test_the_sum_of_a_map_is_that_of_its_patches(sides):
    values = torch.randn(2, 3, sum(side**2 for side in sides), generator=torch.Generator().manual_seed(0))
    joined = joined_grids(values, sides)
    assert joined.shape == (2, 3, max(sides), max(sides))
    torch.testing.assert_close(joined.sum((-2, -1)), values.sum(-1), atol=1e-4, rtol=1e-4)
    if len(sides) == 1:
        torch.testing.assert_close(joined, values.view(2, 3, 7, 7))


@pytest.mark.parametrize("patch", [0, 37, 64 + 6])
def test_where_one_patch_alone_reaches_the_projector_the_map_is_that_patch(model, one, patch):
    mask = torch.zeros(80, 1)
    mask[patch] = 1.0
    hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda module, given: (given[0] * mask,))
    try:
        (grid,) = answer_maps(model, one[0], [one[1]], "integrated")
    finally:
        hook.remove()
    expected = torch.zeros(8, 8, dtype=torch.bool)
    if patch < 64:
        expected[patch // 8, patch % 8] = True
    else:
        row, column = divmod(patch - 64, 4)
        expected[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = True
    assert torch.equal(grid != 0, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_one_tower_is_explained_on_its_grid(model, one, method):
    config = copy.deepcopy(model.config)
    config.aux_vision_config, config.visual_token_group_size = None, 4
    inputs = {name: value for name, value in one[0].items() if name != "aux_pixel_values"}
    (grid,) = answer_maps(LiteGPTForConditionalGeneration(config).eval(), inputs, [one[1]], method)
    assert grid.shape == (8, 8) and torch.isfinite(grid).all() and grid.max() > grid.min()


class OneCell:
    """Stands in for a model of one tower: the brighter one cell of 8 x 8 is, the likelier is token 1."""

    device = "cpu"
    config = SimpleNamespace(tower_grids=[8], image_token_id=9, num_visual_tokens=1)

    def __init__(self, row, column):
        self.cell = (slice(None), 0, slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))

    def __call__(self, input_ids, pixel_values, logits_to_keep, **kwargs):
        logits = torch.zeros(*input_ids.shape, 10)
        logits[..., 1] = pixel_values[self.cell].mean((1, 2))[:, None]
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])


@pytest.mark.parametrize("place", [(0, 0), (2, 5), (7, 7)])
def test_occlusion_has_its_maximum_where_the_model_looks(place):
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[OneCell(*place).cell] = 3.0
    tokens = torch.tensor([[9, 4, 1]])
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "pixel_values": pixels}
    (grid,) = answer_maps(OneCell(*place), inputs, [Span(0, [2])], "occlusion")
    assert np.unravel_index(int(grid.argmax()), grid.shape) == place
    far = np.abs(np.indices(grid.shape) - np.array(place)[:, None, None]).max(0) > 1  # the window is of two cells
    assert grid.numpy()[far] == pytest.approx(0, abs=1e-6) and grid.min() >= -1e-6
    assert torch.equal(pixels[:, :, ~pixels[0, 0].bool()], torch.zeros(1, 3, 64 * 64 - 64))  # the caller's own


# --- Values ----------------------------------------------------------------------------------------------------------


def test_integrated_gradients_sum_to_what_the_patches_differences_add(model, one):
    inputs, span = one
    (grid,) = answer_maps(model, inputs, [span], "integrated")
    with torch.no_grad():
        features = model.model.get_patch_features(inputs["pixel_values"], inputs["aux_pixel_values"])
    towers = features.split([64, 16], dim=1)
    average = torch.cat([tower.mean(1, keepdim=True).expand_as(tower) for tower in towers], dim=1)
    text = without_pixels(inputs)
    here, there = (log_probability(model, text, span, patch_features=given) for given in (features, average))
    # Up to the integral's steps: with random weights the path to the average is not straight.
    assert grid.sum().item() == pytest.approx(here - there, rel=0.2)


def test_attention_is_that_from_where_the_tokens_are_predicted_to_the_visual_tokens(model, one):
    inputs, span = one
    (grid,) = answer_maps(model, inputs, [span], "attention")
    seen = copy.deepcopy(model)
    seen.set_attn_implementation("eager")
    with torch.no_grad():
        layers = seen(**inputs, output_attentions=True).attentions
    places = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    total = sum(layer[0, :, place - 1, places].sum().item() for layer in layers for place in span.places)
    heads = layers[0].shape[1]
    assert grid.sum().item() == pytest.approx(total / (len(layers) * heads * len(span.places)), rel=1e-4)
    assert grid.min() >= 0 and grid.sum() < 1


def test_gradient_attention_is_chefer_s_relevance(model, one):
    inputs, span = one
    (grid,) = answer_maps(model, inputs, [span], "gradient_attention")
    seen = copy.deepcopy(model)
    seen.set_attn_implementation("eager")
    output = seen(**inputs, output_attentions=True)
    scores = output.logits[0].log_softmax(-1)
    target = sum(scores[place - 1, inputs["input_ids"][0, place]] for place in span.places)
    relevance = torch.eye(inputs["input_ids"].shape[1])
    for attention in output.attentions:
        (gradient,) = torch.autograd.grad(target, attention, retain_graph=True)
        relevance = relevance + (gradient * attention)[0].relu().mean(0) @ relevance
    places = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    rows = relevance[[place - 1 for place in span.places]].mean(0)[places]
    torch.testing.assert_close(grid, joined_grids(patch_values(rows, 5), [8, 4]).detach(), rtol=1e-3, atol=1e-7)
    assert grid.max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_what_each_radiograph_gives_by_itself(model, processor, pixels, method):
    answers = [ANSWER, OTHER, ANSWER]  # of different lengths: the second is padded
    words = [[[f.label_span] for f in text_to_findings(answer, LABELS)] for answer in answers]
    together = text_maps(model, processor, pixels, answers, words, method)
    assert [maps.shape for maps in together] == [(2, 8, 8), (1, 8, 8), (2, 8, 8)]
    for row, answer in enumerate(answers):
        alone_pixels = {name: value[row : row + 1] for name, value in pixels.items()}
        for number, word in enumerate(words[row]):
            ((alone,),) = text_maps(model, processor, alone_pixels, [answer], [[word]], method)
            np.testing.assert_allclose(together[row][number], alone, rtol=0.02, atol=1e-3 * np.abs(alone).max())
    assert np.abs(together[0][0] - together[2][0]).max() > 0.05 * np.abs(together[0][0]).max()  # other radiographs


# --- Labels and boxes ------------------------------------------------------------------------------------------------


def test_the_answer_is_taught_as_it_is_trained(processor, pixels, radiographs):
    inputs, first = taught_inputs(processor, pixels, [processor.answer_ids(ANSWER), [], processor.answer_ids(OTHER)])
    for row, answer in enumerate((ANSWER, "", OTHER)):
        mask = inputs["attention_mask"][row].bool()
        prompt = pixels["input_ids"][row].tolist()
        assert inputs["input_ids"][row, mask].tolist() == prompt + (processor.answer_ids(answer) if answer else [])
        assert inputs["input_ids"].shape[1] - first[row] == mask.sum() - len(prompt)


def test_a_label_is_explained_as_if_it_had_been_answered_first(model, processor, pixels):
    maps = label_maps(model, processor, pixels, ["ILD", "Cardiomegaly", "ILD"], "integrated")
    assert maps.shape == (3, 8, 8) and maps.dtype == np.float32
    words = [[[text_to_findings(answer, LABELS)[0].label_span]] for answer in (ANSWER, OTHER, ANSWER)]
    answered = text_maps(model, processor, pixels, [ANSWER, OTHER, ANSWER], words, "integrated")
    np.testing.assert_allclose(maps, np.concatenate(answered), rtol=0.02, atol=1e-3 * np.abs(maps).max())


def test_many_labels_are_looked_at_some_at_a_time(model, processor, pixels, monkeypatch):
    labels = ["ILD", "Cardiomegaly", "Edema"]
    expected = label_maps(model, processor, pixels, labels, "attention")
    monkeypatch.setattr("litegpt.processing.answer_maps.ROWS_AT_ONCE", 2)
    found = label_maps(model, processor, pixels, labels, "attention")
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-3 * expected.max())


def test_a_box_is_the_one_that_the_model_writes_after_the_label(model, processor, pixels, monkeypatch):
    explained = {}

    def recorded(model, processor, pixels, answers, words, method):
        explained["answers"], explained["words"] = answers, words
        return [np.zeros((1, 8, 8), np.float32)] * len(answers)

    labels, grammar = ["Cardiomegaly", "ILD", "Nodule/Mass"], processor.answer_grammar
    monkeypatch.setattr("litegpt.processing.answer_maps.text_maps", recorded)
    label_maps(model, processor, pixels, labels, explain="box")
    inputs, first = taught_inputs(processor, pixels, list(map(processor.answer_ids, explained["answers"])))
    with torch.no_grad():
        logits = model(**inputs).logits
    for row, (label, answer, (ranges,)) in enumerate(zip(labels, *explained.values(), strict=True)):
        (found,) = text_to_findings(answer, processor.finding_labels)
        assert found.label == label
        assert [int(answer[slice(*characters)]) for characters in ranges] == [round(100 * v) for v in found.box]
        state, choices = grammar.start("identify"), 0
        for place in range(first[row], inputs["input_ids"].shape[1]):
            token, possible = inputs["input_ids"][row, place].item(), grammar.allowed[state.node]
            if found.label in processor.tokenizer.decode(inputs["input_ids"][row, first[row] : place]):
                if "}" not in processor.tokenizer.decode([token]):  # whether another finding follows is not asked
                    scores = logits[row, place - 1, possible]
                    assert scores[possible.index(token)] == scores.max()
                    choices += len(possible) > 1
            state = grammar.advance(state, token, 10_000)
        assert choices >= 4
    assert len({text_to_findings(answer, labels)[0].box for answer in explained["answers"]}) > 1


# --- The model is left as it was -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_model_keeps_its_attention_and_its_gradients(model, one, method):
    language_model = model.get_decoder()
    before = language_model.config._attn_implementation
    assert before == "sdpa"  # else this test says nothing
    asked = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():  # as pipelines do
        answer_maps(model, one[0], [one[1]], method)
        assert not torch.is_grad_enabled()
    assert language_model.config._attn_implementation == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == asked


def test_attention_is_restored_where_the_language_model_fails(model, one, monkeypatch):
    monkeypatch.setattr(type(model), "forward", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer_maps(model, one[0], [one[1]], "attention")
    assert model.get_decoder().config._attn_implementation == "sdpa"


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_frozen_model_gives_the_same_maps(model, one, method):
    frozen = copy.deepcopy(model).requires_grad_(False)
    expected, found = (answer_maps(explained, one[0], [one[1]], method) for explained in (model, frozen))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["8 bit", "LoRA"])
@pytest.mark.parametrize("method", METHODS)
def test_quantized_models_and_those_with_an_adapter_are_explained(model, tiny_checkpoint, one, kind, method):
    if kind == "8 bit":
        other, _ = load_checkpoint(tiny_checkpoint, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    else:
        fresh, _ = load_checkpoint(tiny_checkpoint)
        other = get_peft_model(fresh, LoraConfig(target_modules=LORA_TARGET_MODULES))  # fresh LoRA changes nothing
    expected, found = (
        answer_maps(explained, one[0], [one[1]], method).flatten() for explained in (model, other.eval())
    )
    assert torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.95


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_in_half_precision_maps_are_numbers_much_like_those_in_single(model, one, method, dtype):
    half = copy.deepcopy(model).to(dtype)
    expected, found = (answer_maps(explained, one[0], [one[1]], method).flatten() for explained in (model, half))
    assert found.dtype == torch.float32 and torch.isfinite(found).all()
    assert torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.8


# --- What cannot be explained ----------------------------------------------------------------------------------------


def test_what_cannot_be_explained_is_refused(model, processor, pixels, one):
    inputs, span = one
    with pytest.raises(ValueError, match="there is no method 'saliency' to explain answers; there are: attention"):
        answer_maps(model, inputs, [span], "saliency")
    with pytest.raises(ValueError, match="names no token, or one that is not in its row"):
        answer_maps(model, inputs, [Span(0, [10_000])])
    with pytest.raises(ValueError, match="names no token"):
        answer_maps(model, inputs, [Span(0, [])])
    cut = {**inputs, "input_ids": inputs["input_ids"][:, 30:], "attention_mask": inputs["attention_mask"][:, 30:]}
    with pytest.raises(ValueError, match="row 0 has .* visual tokens, not the 16 of one radiograph"):
        answer_maps(model, cut, [Span(0, [5])])
    with pytest.raises(ValueError, match="the checkpoint has no finding 'Cold'; it has: Aortic enlargement"):
        label_maps(model, processor, pixels, ["Cold"] * 3)
    with pytest.raises(ValueError, match="explain is 'label' or 'box', not 'both'"):
        label_maps(model, processor, pixels, ["ILD"] * 3, explain="both")
    packed = {**inputs, "pixel_values": torch.cat([inputs["pixel_values"]] * 2, dim=1)}
    del packed["aux_pixel_values"]
    with pytest.raises(ValueError, match="each tower's pixels by themselves"):
        answer_maps(model, packed, [span], "occlusion")


def test_a_checkpoint_brings_its_maps_along(tiny_checkpoint):
    assert (tiny_checkpoint / "answer_maps.py").is_file()


def test_nothing_asked_is_no_map(model, processor, pixels, one):
    assert answer_maps(model, one[0], []).shape == (0, 8, 8)
    assert label_maps(model, processor, {name: value[:0] for name, value in pixels.items()}, []).shape == (0, 8, 8)
