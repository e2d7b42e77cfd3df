"""Every way of generating gives what it should: the same greedy answer, or one that fits the scores it returns."""

import copy
import functools

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationMixin,
    LlamaConfig,
    LogitsProcessor,
    LogitsProcessorList,
    set_seed,
)
from transformers.cache_utils import DynamicCache

from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.token_tree import CACHE

NEW_TOKENS = 8
encodes_images_first = pytest.mark.skipif(
    not hasattr(GenerationMixin, "_supports_mm_encoder_outputs"),
    reason="this release of transformers does not encode images before it generates, so it cannot do this with one",
)


@pytest.fixture(scope="module")
def model(tiny_checkpoint) -> LiteGPTForConditionalGeneration:
    model = LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint)
    model.generation_config.eos_token_id = None  # untrained answers end by chance; here all have the same length
    return model


@pytest.fixture(scope="module")
def processor(tiny_checkpoint) -> LiteGPTProcessor:
    return LiteGPTProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture
def inputs(processor, radiographs) -> dict[str, torch.Tensor]:
    """Two radiographs with prompts of different length: the shorter one is padded on the left."""
    return encoded(processor, radiographs[:2], ["identify", "vqa"])


def encoded(processor: LiteGPTProcessor, images: list, tasks: list[str]) -> dict[str, torch.Tensor]:
    prompts = [processor.prompt(task) for task in tasks]
    return processor(images=images, text=prompts, padding=True, add_special_tokens=False, return_tensors="pt")


def generated(model: LiteGPTForConditionalGeneration, inputs: dict[str, torch.Tensor], **kwargs) -> torch.Tensor:
    """The new tokens alone."""
    kwargs = {"max_new_tokens": NEW_TOKENS, "do_sample": False, **kwargs}
    return model.generate(**inputs, **kwargs)[:, inputs["input_ids"].shape[1] :]


@pytest.fixture
def answers(model, inputs) -> torch.Tensor:
    """The greedy answers, token by token from the logits of whole forward passes: no cache, no `generate`."""
    tokens = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    pixels = {key: inputs[key] for key in ("pixel_values", "aux_pixel_values")}
    for _ in range(NEW_TOKENS):
        # `generate` gives padded rows their own positions; a forward pass must be told them.
        positions = (tokens["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            best = model(**tokens, **pixels, position_ids=positions).logits[:, -1:].argmax(-1)
        tokens["input_ids"] = torch.cat([tokens["input_ids"], best], dim=1)
        tokens["attention_mask"] = torch.cat([tokens["attention_mask"], torch.ones_like(best)], dim=1)
    answers = tokens["input_ids"][:, -NEW_TOKENS:]
    assert inputs["attention_mask"][:, 0].tolist() == [0, 1]  # the first prompt is padded,
    assert len(set(answers.flatten().tolist())) > NEW_TOKENS  # and a constant answer would prove nothing
    return answers


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static", "disable_compile": True},
        {"num_beams": 1, "return_dict_in_generate": False},
        pytest.param({"prefill_chunk_size": 7}, marks=encodes_images_first),
        {"logits_to_keep": 3},
        {"do_sample": True, "top_k": 1},
    ],
    ids=lambda kwargs: "-".join(map(str, kwargs)) or "cache",
)
def test_every_way_of_greedy_decoding_gives_the_same_answer(model, inputs, answers, kwargs):
    assert torch.equal(generated(model, inputs, **kwargs), answers)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_every_attention_gives_the_same_answer(model, inputs, answers, implementation):
    other = copy.deepcopy(model)
    other.set_attn_implementation(implementation)
    assert torch.equal(generated(other, inputs), answers)


def test_an_answer_is_the_same_alone_and_in_a_padded_batch(model, processor, radiographs, answers):
    for image, task, answer in zip(radiographs, ["identify", "vqa"], answers, strict=False):
        assert torch.equal(generated(model, encoded(processor, [image], [task])), answer[None])


def test_scores_are_the_logits_of_a_forward_pass(model, inputs, answers):
    output = model.generate(
        **inputs,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
    )
    attention = torch.cat([inputs["attention_mask"], torch.ones_like(answers)], dim=1)
    pixels = {key: inputs[key] for key in ("pixel_values", "aux_pixel_values")}
    positions = (attention.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = model(input_ids=output.sequences, attention_mask=attention, position_ids=positions, **pixels)
    expected = whole.logits[:, -NEW_TOKENS - 1 : -1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), expected, atol=1e-4, rtol=1e-4)
    scores = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    of_answers = expected.log_softmax(-1).gather(-1, answers[..., None])[..., 0]
    torch.testing.assert_close(scores, of_answers, atol=1e-4, rtol=1e-4)
    assert len(output.hidden_states) == NEW_TOKENS


def test_beams_find_answers_at_least_as_likely_as_the_greedy_one(model, inputs, answers):
    output = model.generate(
        **inputs,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=4,
        num_return_sequences=4,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = output.sequences[:, -NEW_TOKENS:].view(2, 4, NEW_TOKENS)
    assert len({tuple(beam) for beam in found[0].tolist()}) == 4
    scores = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices).sum(-1)
    torch.testing.assert_close(scores / NEW_TOKENS, output.sequences_scores, atol=1e-4, rtol=1e-4)
    greedy = model.generate(
        **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_scores=True
    )
    greedy_scores = model.compute_transition_scores(greedy.sequences, greedy.scores, normalize_logits=True).sum(-1)
    assert (scores.view(2, 4)[:, 0] >= greedy_scores - 1e-4).all()


def test_samples_repeat_by_seed_and_differ_among_themselves(model, inputs):
    samples = []
    for seed in (1, 1, 2):
        set_seed(seed)
        samples.append(generated(model, inputs, do_sample=True, temperature=2.0, num_return_sequences=2))
    assert samples[0].shape == (4, NEW_TOKENS)
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])
    assert not torch.equal(samples[0][0], samples[0][1])


def test_generation_goes_on_from_an_earlier_cache(model, inputs, answers):
    # Both rows of the batch are needed, as the cache was made for them.
    first = model.generate(
        **inputs, max_new_tokens=3, do_sample=False, return_dict_in_generate=True, **{CACHE: DynamicCache()}
    )
    assert torch.equal(first.sequences[:, -3:], answers[:, :3])
    attention = torch.cat([inputs["attention_mask"], torch.ones_like(answers[:, :3])], dim=1)
    rest = model.generate(
        input_ids=first.sequences,
        attention_mask=attention,
        **{CACHE: first[CACHE]},
        max_new_tokens=NEW_TOKENS - 3,
        do_sample=False,
    )
    assert torch.equal(rest[:, -NEW_TOKENS:], answers)


def test_embeddings_take_the_place_of_tokens(model, inputs, answers):
    pixels = {key: inputs[key] for key in ("pixel_values", "aux_pixel_values")}
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    kwargs = {"attention_mask": inputs["attention_mask"], "max_new_tokens": NEW_TOKENS, "do_sample": False}
    assert torch.equal(model.generate(inputs_embeds=embeddings, **pixels, **kwargs), answers)


@encodes_images_first
def test_stored_patch_features_take_the_place_of_pixels(model, inputs, answers):
    with torch.no_grad():
        features = model.model.get_patch_features(inputs["pixel_values"], inputs["aux_pixel_values"])
    text = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    assert torch.equal(generated(model, {**text, "patch_features": features}), answers)


@encodes_images_first
def test_the_image_is_shown_with_the_prompt_alone(model, inputs):
    """Also by releases of transformers that do not know `mm_encoder_outputs` and would hand it on with every token."""
    more = {"mm_encoder_outputs": {"image": None}, CACHE: DynamicCache()}
    for options, is_shown in (
        ({"is_first_iteration": True}, True),
        ({"is_first_iteration": False}, False),
        ({"is_first_iteration": False, "use_cache": False}, True),
    ):
        prepared = model.prepare_inputs_for_generation(inputs["input_ids"], **more, **options)
        assert ("mm_encoder_outputs" in prepared) == is_shown


def test_an_assistant_model_changes_nothing(model, processor, radiographs, answers):
    text = model.config.text_config
    set_seed(0)
    assistant = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=text.vocab_size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    ).eval()
    assistant.generation_config.eos_token_id = None
    inputs = encoded(processor, radiographs[:1], ["identify"])
    assert torch.equal(generated(model, inputs, assistant_model=assistant), answers[:1])


def test_allowed_tokens_and_logits_processors_steer_the_answer(model, inputs):
    allowed = [5, 6, 7]
    steered = generated(model, inputs, prefix_allowed_tokens_fn=lambda row, tokens: allowed)
    assert set(steered.flatten().tolist()) <= set(allowed)

    class Only9(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([9]), 0.0)

    assert (generated(model, inputs, logits_processor=LogitsProcessorList([Only9()])) == 9).all()


def test_the_image_is_encoded_once(model, inputs, monkeypatch):
    calls = []
    run_tower = model.model.vision_tower.forward
    monkeypatch.setattr(model.model.vision_tower, "forward", lambda *a, **k: calls.append(1) or run_tower(*a, **k))
    generated(model, inputs, num_beams=3)
    assert len(calls) == 1


def test_a_conversation_without_a_radiograph_is_answered(model, processor):
    inputs = processor(text="[INST] Hello [/INST]", add_special_tokens=False, return_tensors="pt")
    assert generated(model, inputs).shape == (1, NEW_TOKENS)


def test_the_whole_model_is_one_graph_for_torch_compile(model, inputs):
    graph = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(graph(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_decoding_steps_are_one_graph_with_a_static_cache(model, inputs, answers):
    torch.compiler.reset()
    graphs = []

    def count(graph, examples):
        graphs.append(graph)
        return graph.forward

    compiled = copy.deepcopy(model)
    whole = compiled.forward
    step = torch.compile(whole, fullgraph=True, backend=count)

    @functools.wraps(whole)
    def forward(*args, **kwargs):
        return (step if kwargs["input_ids"].shape[1] == 1 else whole)(*args, **kwargs)

    compiled.forward = forward
    result = generated(compiled, inputs, cache_implementation="static", disable_compile=True)
    assert torch.equal(result, answers)
    assert len(graphs) == 1
