"""Constrained greedy decoding that jumps ahead, against plain `generate` with a logits processor, token for token."""

import copy
import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from PIL import Image
from transformers import LogitsProcessorList, TextIteratorStreamer, set_seed

from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, new_processor
from litegpt.processing.answers import (
    FINDINGS_PREFIX,
    PLACES_PREFIX,
    places_to_text,
    text_to_diagnoses,
    text_to_findings,
    text_to_places,
)
from litegpt.processing.constrained_decoding import ConstrainedGreedyOutput
from litegpt.processing.processing_litegpt import VISUAL_TOKEN, LiteGPTProcessor
from tests.stranger import NOTHING_OF_OURS

sys.path.append(str(Path(__file__).resolve().parents[1]))
from llama_like_tokenizer import llama_like_tokenizer

TASKS = ("identify", "vqa", "grounding")
Loaded = tuple[LiteGPTForConditionalGeneration, LiteGPTProcessor]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint) -> Loaded:
    model, processor = load_checkpoint(tiny_checkpoint)
    return model.eval(), processor


@pytest.fixture(scope="module")
def llama_like(tiny) -> Loaded:
    """The same network with a tokenizer that writes a coordinate with a token a digit, and `><` as one."""
    config, labels = tiny[0].config, (tiny[1].finding_labels, tiny[1].diagnosis_labels)
    tokenizer = llama_like_tokenizer(*labels)
    config = type(config).from_dict(config.to_dict())
    config.image_token_id = tokenizer.convert_tokens_to_ids(VISUAL_TOKEN)
    config.text_config.vocab_size = len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))
    return LiteGPTForConditionalGeneration(config).eval(), new_processor(config, tokenizer, *labels)


@pytest.fixture(params=["tiny", "llama_like"])
def loaded(request) -> Loaded:
    return request.getfixturevalue(request.param)


def other_weights(loaded: Loaded, seed: int, scale: float = 10) -> Loaded:
    """Other random weights; a large scale of the head's leaves no two tokens nearly as probable as each other."""
    set_seed(seed)
    model = LiteGPTForConditionalGeneration(loaded[0].config).eval()
    model.lm_head.weight.data *= scale
    return model, loaded[1]


def prompts(processor: LiteGPTProcessor, tasks: list[str], seed: int = 0) -> dict[str, torch.Tensor]:
    """A prompt with a random image for each task; every third prompt is longer, so the others are padded."""
    rng = torch.Generator().manual_seed(seed)
    asked = [processor.prompt(task, *(["a mass"] if task == "refer" else [])) for task in tasks]
    texts = [("Hello! " if row % 3 == 1 else "") + prompt for row, prompt in enumerate(asked)]
    texts = [text.replace("<image>", processor.expanded_image) for text in texts]
    inputs = processor.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    # Pictures of a few large squares, which the towers tell apart.
    squares = torch.randn(len(tasks), 3, 4, 4, generator=rng)
    pixels = 3 * torch.nn.functional.interpolate(squares, size=(64, 64))
    tokens = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
    return {**tokens, "pixel_values": pixels, "aux_pixel_values": pixels}


def row_of(inputs: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One prompt alone, without its padding."""
    is_token = inputs["attention_mask"][row].bool()
    return {name: tensor[[row]] for name, tensor in inputs.items()} | {
        name: inputs[name][[row]][:, is_token] for name in ("input_ids", "attention_mask")
    }


def ordinary(loaded: Loaded, inputs: dict, max_new_tokens: int, **kwargs) -> torch.Tensor:
    model, processor = loaded
    processors = LogitsProcessorList([processor.answer_logits_processor(max_new_tokens)])
    return model.generate(**inputs, max_new_tokens=max_new_tokens, logits_processor=processors, **kwargs)


def jumping(
    loaded: Loaded, inputs: dict, max_new_tokens: int, jump_ahead: bool = True, compiled: bool = False
) -> ConstrainedGreedyOutput:
    model, processor = loaded
    decoding = processor.constrained_greedy(jump_ahead, compiled=compiled)
    options = {"max_new_tokens": max_new_tokens, "custom_generate": decoding, "return_dict_in_generate": True}
    return model.generate(**inputs, **options)


def parse(loaded: Loaded, inputs: dict, sequences: torch.Tensor, tasks: list[str]) -> list[list]:
    """What the answers say; an error where one is not in the answer language."""
    processor = loaded[1]
    texts = processor.batch_decode(sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [
        text_to_diagnoses(text, processor.diagnosis_labels)
        if task == "vqa"
        else text_to_places(text)
        if task == "refer"
        else text_to_findings(text, processor.finding_labels)
        for text, task in zip(texts, tasks, strict=True)
    ]


@pytest.mark.parametrize(("seed", "room"), [(5, 0), (8, 1), (11, 20), (13, 40), (14, 70)])
def test_answers_are_those_of_ordinary_constrained_greedy_decoding_and_never_malformed(loaded, seed, room):
    """40 images a seed, in batches of mixed tasks with padding and alone: 200 with each tokenizer."""
    loaded = other_weights(loaded, seed)
    grammar = loaded[1].answer_grammar
    max_new_tokens = max(grammar.least_room(task) for task in TASKS) + room
    tasks = [TASKS[row % 7 % 3] for row in range(40)]
    inputs = prompts(loaded[1], tasks, seed)
    expected = ordinary(loaded, inputs, max_new_tokens)
    output = jumping(loaded, inputs, max_new_tokens)
    assert torch.equal(output.sequences, expected)
    assert len(set(map(tuple, expected[:, inputs["input_ids"].shape[1] :].tolist()))) > 5  # a real comparison
    parse(loaded, inputs, output.sequences, tasks)
    assert output.num_forward_passes < expected.shape[1] - inputs["input_ids"].shape[1]
    for row in range(seed % 8, 40, 8):
        alone = row_of(inputs, row)
        tokens = jumping(loaded, alone, max_new_tokens).sequences[0, alone["input_ids"].shape[1] :]
        answer = expected[row, inputs["input_ids"].shape[1] :]
        assert torch.equal(tokens, answer[: len(tokens)])
        assert (answer[len(tokens) :] == loaded[1].tokenizer.pad_token_id).all()


@pytest.mark.parametrize(("seed", "room"), [(8, 1), (13, 40), (14, 300)])
def test_compiled_passes_give_the_same_answers_and_scores(loaded, seed, room, monkeypatch):
    """Rows end one after another, and the cache of fixed size grows; torch's compiler itself takes a minute."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    loaded = other_weights(loaded, seed)
    max_new_tokens = max(loaded[1].answer_grammar.least_room(task) for task in TASKS) + room
    tasks = [TASKS[row % 7 % 3] for row in range(11)]
    # A second batch, with more rows, and one row alone are read by what was compiled for the first.
    for rows in (tasks[:6], tasks, tasks[:1]):
        inputs = prompts(loaded[1], rows, seed)
        expected = jumping(loaded, inputs, max_new_tokens)
        output = jumping(loaded, inputs, max_new_tokens, compiled=True)
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.allclose(output.token_probabilities, expected.token_probabilities, atol=1e-4)
        for ours, theirs in zip(output.label_probabilities, expected.label_probabilities, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.slow
def test_torch_compiles_the_passes(tiny):
    inputs = prompts(tiny[1], ["identify", "vqa", "identify"])
    expected = jumping(tiny, inputs, 80)
    assert torch.equal(jumping(tiny, inputs, 80, compiled=True).sequences, expected.sequences)


def test_a_compiled_pass_goes_with_its_model(tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    model, processor = other_weights(tiny, 1)
    jumping((model, processor), prompts(processor, ["identify"]), 80, compiled=True)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("compiled", [False, True])
def test_what_prompts_about_the_same_radiograph_have_in_common_is_read_once(loaded, compiled, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    loaded = other_weights(loaded, 8)
    model, processor = loaded
    inputs = prompts(processor, ["identify", "vqa", "grounding"] * 2)
    for name in ("pixel_values", "aux_pixel_values"):  # two radiographs
        inputs[name] = inputs[name][[0, 0, 0, 3, 3, 3]]
    # Every third prompt begins otherwise, so less is shared; without it, all up to the identifier.
    for chosen in (range(6), [0, 2, 3, 5]):
        of_rows = {name: tensor[list(chosen)] for name, tensor in inputs.items()}
        expected = jumping(loaded, of_rows, 80)
        image = model.get_image_features(of_rows.pop("pixel_values"), of_rows.pop("aux_pixel_values"))
        first = [image.pooler_output[0], image.pooler_output[len(chosen) // 2]]
        image.pooler_output = [first[row // (len(chosen) // 2)] for row in range(len(chosen))]
        read = []
        reading = model.register_forward_pre_hook(
            lambda _, args, kwargs, read=read: read.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        output = jumping(loaded, of_rows | {"mm_encoder_outputs": {"image": image}}, 80, compiled=compiled)
        reading.remove()
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.allclose(output.token_probabilities, expected.token_probabilities, atol=1e-4)
        for ours, theirs in zip(output.label_probabilities, expected.label_probabilities, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)
        is_shared = len(chosen) == 4
        assert (read[0][0] == 2) == is_shared  # the beginning of two prompts, or the whole of all
        if is_shared:
            assert read[0][1] > processor.image_seq_length


def test_scores_are_those_of_one_token_a_pass(loaded):
    loaded = other_weights(loaded, 5, scale=1)
    inputs = prompts(loaded[1], ["vqa", "identify", "grounding", "identify", "vqa"])
    output, slow = (jumping(loaded, inputs, 80, jump_ahead) for jump_ahead in (True, False))
    assert torch.equal(output.sequences, slow.sequences)
    assert slow.num_forward_passes == slow.token_probabilities.shape[1] > output.num_forward_passes
    assert output.token_probabilities.dtype == torch.float32
    torch.testing.assert_close(output.token_probabilities, slow.token_probabilities, rtol=0, atol=1e-5)
    uncertain = output.token_probabilities < 0.999
    assert uncertain.sum() > 8 and (output.token_probabilities > 0).all()
    for labels, expected in zip(output.label_probabilities, slow.label_probabilities, strict=True):
        assert labels == pytest.approx(expected, abs=1e-5)
    assert list(output.label_probabilities[0]) == loaded[1].diagnosis_labels
    assert list(output.label_probabilities[1]) == ["No finding"]


def test_probability_of_no_finding_is_that_of_the_first_decision(tiny):
    model, processor = tiny
    texts = ["No finding.", "<p>Edema</p> {<1><2><3><4>}."]
    texts = [f"Local diseases of this chest radiograph are {text}" for text in texts]
    nothing, something = processor.tokenizer(texts, add_special_tokens=False).input_ids
    common = next(place for place, token in enumerate(nothing) if token != something[place])
    inputs = prompts(processor, ["identify"])
    tokens = torch.cat([inputs["input_ids"], torch.tensor([nothing[:common]])], dim=1)
    images = {name: inputs[name] for name in ("pixel_values", "aux_pixel_values")}
    logits = model(input_ids=tokens, **images).logits[0, -1]
    expected = logits[[nothing[common], something[common]]].softmax(dim=0)[0].item()
    assert jumping(tiny, inputs, 80).label_probabilities == [{"No finding": pytest.approx(expected, abs=1e-6)}]
    assert 0.001 < expected < 0.999


@pytest.mark.parametrize(("seed", "room"), [(6, 0), (9, 40)])
def test_boxes_of_phrases_are_those_of_ordinary_constrained_greedy_decoding(loaded, seed, room):
    loaded = other_weights(loaded, seed)
    grammar = loaded[1].answer_grammar
    tasks = [("refer", "identify", "refer", "vqa")[row % 4] for row in range(20)]
    max_new_tokens = max(grammar.least_room(task) for task in tasks) + room
    inputs = prompts(loaded[1], tasks, seed)
    expected = ordinary(loaded, inputs, max_new_tokens)
    output = jumping(loaded, inputs, max_new_tokens)
    assert torch.equal(output.sequences, expected)
    said = parse(loaded, inputs, output.sequences, tasks)
    assert any(len(places) > 0 for places in said[::2])
    assert [list(labels) for labels in output.label_probabilities[::2]] == [["None"]] * 10
    for row in (0, 2, 14):
        alone = row_of(inputs, row)
        tokens = jumping(loaded, alone, max_new_tokens).sequences[0, alone["input_ids"].shape[1] :]
        assert torch.equal(tokens, expected[row, inputs["input_ids"].shape[1] :][: len(tokens)])
    parse(loaded, inputs, ordinary(loaded, inputs, max_new_tokens, num_beams=2), tasks)


def test_that_a_phrase_is_not_there_has_the_probability_of_its_answer(loaded):
    """The product over the answer's tokens of their probabilities among those that the grammar allows there."""
    loaded = other_weights(loaded, 3, scale=1)
    model, processor = loaded
    grammar, inputs = processor.answer_grammar, prompts(processor, ["refer", "refer"])
    tokens = [*processor.answer_ids(places_to_text([])), processor.tokenizer.eos_token_id]
    for row, labels in enumerate(jumping(loaded, inputs, 80).label_probabilities):
        alone = row_of(inputs, row)
        ids = torch.cat([alone["input_ids"], torch.tensor([tokens])], dim=1)
        images = {name: alone[name] for name in ("pixel_values", "aux_pixel_values")}
        logits = model(input_ids=ids, **images).logits[0, -len(tokens) - 1 : -1]
        probability, state = 1.0, grammar.start("refer")
        for token, of_place in zip(tokens, logits, strict=True):
            allowed = grammar.allowed[state.node]
            probability *= of_place[allowed].softmax(dim=0)[allowed.index(token)].item()
            state = grammar.advance(state, token, 1000)
        assert labels == {"None": pytest.approx(probability, rel=1e-4)}
        assert 0.001 < probability < 0.999


@contextmanager
def preferring(loaded: Loaded, text: str, prefix: str = FINDINGS_PREFIX) -> Iterator[None]:
    """The tokens of this answer are the most probable ones, the first one most of all, whatever the model reads."""
    model, processor = loaded
    tokens = processor.tokenizer(prefix + text, add_special_tokens=False).input_ids
    bias = torch.zeros(model.config.text_config.vocab_size)
    for rank, token in enumerate(reversed(tokens), start=1):
        bias[token] = 1000 * rank
    handle = model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bias)
    try:
        yield
    finally:
        handle.remove()


def test_an_answer_without_findings_takes_one_pass(loaded):
    tasks = ["identify", "vqa", "identify"]
    inputs = prompts(loaded[1], tasks)
    with preferring(loaded, "No finding."):
        output = jumping(loaded, inputs, 100)
        assert torch.equal(ordinary(loaded, inputs, 100), output.sequences)
    assert parse(loaded, inputs, output.sequences, tasks)[0] == [] and output.num_forward_passes == 1


def test_a_phrase_has_no_box_one_or_several(tiny):
    inputs, grammar = prompts(tiny[1], ["refer"]), tiny[1].answer_grammar
    with preferring(tiny, "None.", PLACES_PREFIX):
        output = jumping(tiny, inputs, 100)
        assert parse(tiny, inputs, output.sequences, ["refer"]) == [[]] and output.num_forward_passes == 1
        assert output.label_probabilities[0]["None"] == pytest.approx(1)
    least, longest = grammar.least_room("refer"), grammar.languages["place"].longest_finding
    with preferring(tiny, "{<10><20><60><70>},", PLACES_PREFIX):
        for count in (1, 2, 3):  # it goes on as long as there is room
            room = least + (count - 1) * longest
            output = jumping(tiny, inputs, room)
            assert torch.equal(ordinary(tiny, inputs, room), output.sequences)
            assert len(parse(tiny, inputs, output.sequences, ["refer"])[0]) == count
            assert output.label_probabilities[0]["None"] == pytest.approx(0)


def test_right_guesses_save_passes(tiny):
    """What the model chose in the last pass is right here: it chooses the same whatever it reads."""
    inputs = prompts(tiny[1], ["identify"])
    with preferring(tiny, "<p>Edema</p> {<10><20><60><70>},"):
        output = jumping(tiny, inputs, 90)
        expected = ordinary(tiny, inputs, 90)
    assert torch.equal(output.sequences, expected)
    num_new = output.token_probabilities.shape[1]
    assert num_new > 80 and output.num_forward_passes < num_new / 6


def test_sampling_and_beams_are_constrained_by_the_logits_processor(loaded):
    tasks = ["identify", "vqa", "grounding"]
    inputs = prompts(loaded[1], tasks)
    set_seed(0)
    sampled = ordinary(loaded, inputs, 100, do_sample=True, num_return_sequences=2, temperature=3.0)
    parse(loaded, inputs, sampled, [task for task in tasks for _ in range(2)])
    beams = ordinary(loaded, inputs, 100, num_beams=3)
    parse(loaded, inputs, beams, tasks)


def test_pixels_and_stored_patch_features_give_the_same_answers(tiny, radiographs):
    model, processor = tiny
    texts = [processor.prompt(task) for task in TASKS]
    inputs = processor(images=radiographs, text=texts, padding=True, add_special_tokens=False, return_tensors="pt")
    features = model.model.get_patch_features(inputs["pixel_values"], inputs["aux_pixel_values"])
    stored = {"patch_features": features} | {name: inputs[name] for name in ("input_ids", "attention_mask")}
    output, same = jumping(tiny, inputs, 60), jumping(tiny, stored, 60)
    assert torch.equal(output.sequences, same.sequences)
    plain_ids = model.generate(**stored, max_new_tokens=60, custom_generate=processor.constrained_greedy())
    assert torch.equal(plain_ids, output.sequences)


def test_bfloat16_gives_well_formed_answers(loaded):
    model, processor = other_weights(loaded, 0)
    tasks = ["identify", "vqa", "grounding", "identify"]
    inputs = prompts(processor, tasks)
    inputs |= {name: inputs[name].bfloat16() for name in ("pixel_values", "aux_pixel_values")}
    output = jumping((model.bfloat16(), processor), inputs, 100)
    parse(loaded, inputs, output.sequences, tasks)
    assert output.token_probabilities.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"do_sample": True}, "without sampling or beams"),
        ({"num_beams": 2}, "without sampling or beams"),
        ({"cache_implementation": "static"}, "a dynamic cache"),
        ({"use_cache": False}, "a dynamic cache"),
        ({"repetition_penalty": 1.5}, "does not apply RepetitionPenaltyLogitsProcessor"),
        ({"max_time": 0.1}, "does not cut answers off, as MaxTimeCriteria would"),
        ({"stop_strings": ["COPD"]}, "stop_strings need a tokenizer"),
        ({"max_new_tokens": 5}, r"An answer to \[identify\] may take \d+ tokens; max_new_tokens is 5"),
    ],
)
def test_a_call_for_anything_else_is_refused(tiny, options, reason):
    inputs = prompts(tiny[1], ["identify"])
    options = {"max_new_tokens": 80, **options}
    with pytest.raises(ValueError, match=reason):
        tiny[0].generate(**inputs, **options, custom_generate=tiny[1].constrained_greedy())


@pytest.mark.parametrize(("text", "count"), [("", 0), ("[vqa] or [identify]?", 2)])
def test_a_prompt_needs_one_identifier(tiny, text, count):
    model, processor = tiny
    prompt = f"<s>[INST] {processor.expanded_image} {text} [/INST]"
    inputs = processor.tokenizer([prompt], add_special_tokens=False, return_tensors="pt")
    pixels = {"pixel_values": torch.zeros(1, 3, 64, 64), "aux_pixel_values": torch.zeros(1, 3, 64, 64)}
    for way in (
        {"custom_generate": processor.constrained_greedy()},
        {"logits_processor": LogitsProcessorList([processor.answer_logits_processor(80)])},
    ):
        with pytest.raises(ValueError, match=rf"needs exactly one of .*; number 0 of the batch has {count}"):
            model.generate(input_ids=inputs.input_ids, max_new_tokens=80, **pixels, **way)


def test_a_prompt_without_a_radiograph_is_not_answered(tiny):
    model, processor = tiny
    inputs = prompts(processor, ["vqa"])
    way = {"max_new_tokens": 80, "custom_generate": processor.constrained_greedy()}
    tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="placeholders of a radiograph, but no radiograph"):
        model.generate(**tokens, **way)
    with pytest.raises(ValueError, match="placeholders of a radiograph, but no radiograph"):
        model.generate(**tokens, max_new_tokens=4)
    is_text = inputs["input_ids"] != model.config.image_token_id
    with pytest.raises(ValueError, match="needs a radiograph; number 0 of the batch has none"):
        model.generate(input_ids=inputs["input_ids"][is_text][None], **way)


def test_the_last_turn_of_a_chat_is_answered(tiny, radiographs):
    model, processor = tiny
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "[identify] What is there?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": FINDINGS_PREFIX + "No finding."}]}
    chat = [question, answer, {"role": "user", "content": "[vqa] Which diagnoses?"}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=radiographs[0], text=prompt, add_special_tokens=False, return_tensors="pt")
    output = jumping(tiny, inputs, 80)
    (diagnoses,) = parse(tiny, inputs, output.sequences, ["vqa"])
    assert diagnoses
    assert torch.equal(output.sequences, ordinary(tiny, inputs, 80))


@pytest.mark.parametrize("task", ["identify", "vqa"])
def test_a_streamer_gets_the_answer_while_it_is_written_and_its_end(tiny, task):
    model, processor = tiny
    inputs = prompts(processor, [task])
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=60, skip_special_tokens=True)
    options = {"max_new_tokens": 80, "custom_generate": processor.constrained_greedy(), "streamer": streamer}
    thread = Thread(target=model.generate, kwargs={**inputs, **options})
    thread.start()
    text = "".join(streamer)
    thread.join()
    expected = ordinary(tiny, inputs, 80)[0, inputs["input_ids"].shape[1] :]
    assert text == processor.decode(expected, skip_special_tokens=True)


def test_a_new_task_gets_no_other_tasks_language(tiny):
    model, processor = tiny
    processor = copy.copy(processor)
    processor.__dict__.pop("answer_grammar", None)
    processor.tokenizer = copy.deepcopy(processor.tokenizer)
    processor.tokenizer.add_tokens(["[caption]"])
    processor.instructions = {**processor.instructions, "caption": "What is in the box?", "no token": "Why?"}
    assert "caption" not in processor.answer_grammar.tasks
    decoding = processor.constrained_greedy()
    assert set(decoding.identifiers.values()) == {*tiny[1].instructions, "caption"} - {"question", "chat"}
    inputs = prompts(tiny[1], ["vqa"])
    identifiers = {**decoding.identifiers, tiny[1].tokenizer.convert_tokens_to_ids("[vqa]"): "caption"}
    decoding.identifiers = identifiers
    with pytest.raises(ValueError, match=r"no labels or no grammar for answers to \[caption\]"):
        model.generate(**inputs, max_new_tokens=80, custom_generate=decoding)


@pytest.mark.parametrize("tuning", ["prompt", "prefix"])
def test_virtual_tokens_of_an_adapter_are_refused_and_counted_in_plain_generate(tiny_checkpoint, tuning):
    model, processor = load_checkpoint(tiny_checkpoint)
    kind = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}[tuning]
    text = model.config.text_config
    sizes = {
        "token_dim": text.hidden_size,
        "num_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
    }
    set_seed(0)
    inputs = prompts(processor, ["vqa"])
    before = ordinary((model.eval(), processor), inputs, 80, return_dict_in_generate=True, output_logits=True)
    adapted = get_peft_model(model, kind(task_type="CAUSAL_LM", num_virtual_tokens=3, **sizes)).eval()
    with pytest.raises(ValueError, match="does not add the adapter's virtual tokens"):
        adapted.generate(**inputs, max_new_tokens=80, custom_generate=processor.constrained_greedy())
    after = ordinary((adapted, processor), inputs, 80, return_dict_in_generate=True, output_logits=True)
    assert not torch.allclose(after.logits[0], before.logits[0], atol=1e-3)
    parse((model, processor), inputs, after.sequences, ["vqa"])


def test_lora_through_peft_answers_like_the_merged_model(tiny_checkpoint):
    model, processor = load_checkpoint(tiny_checkpoint)
    lora = LoraConfig(target_modules=LORA_TARGET_MODULES, init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora).eval()
    inputs = prompts(processor, ["identify", "vqa"])
    options = {"max_new_tokens": 80, "custom_generate": processor.constrained_greedy()}
    answers = adapted.generate(**inputs, **options)
    assert torch.equal(adapted.merge_and_unload().generate(**inputs, **options), answers)


STRANGER = (
    NOTHING_OF_OURS
    + """
import json
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

checkpoint, again = sys.argv[1:]
remote = {"trust_remote_code": True}
model = AutoModelForImageTextToText.from_pretrained(checkpoint, **remote).eval()
processor = AutoProcessor.from_pretrained(checkpoint, **remote)
inputs = processor(images=[Image.new("L", (64, 64), 200)] * 2, padding=True, add_special_tokens=False,
                   text=[processor.prompt(task) for task in ("identify", "vqa")], return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=60, custom_generate=processor.constrained_greedy())
processor.save_pretrained(again)
print(json.dumps(tokens[:, inputs["input_ids"].shape[1]:].tolist()))
"""
)


def test_a_stranger_decodes_so_too(tiny, tiny_checkpoint, tmp_path):
    model, processor = tiny
    (tmp_path / "stranger.py").write_text(STRANGER)
    result = subprocess.run(
        [sys.executable, "stranger.py", str(tiny_checkpoint), str(tmp_path / "again")],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert all((folder / "constrained_decoding.py").is_file() for folder in (tiny_checkpoint, tmp_path / "again"))
    texts = [processor.prompt(task) for task in ("identify", "vqa")]
    images = [Image.new("L", (64, 64), 200)] * 2
    inputs = processor(images=images, text=texts, padding=True, add_special_tokens=False, return_tensors="pt")
    expected = ordinary(tiny, inputs, 60)[:, inputs["input_ids"].shape[1] :]
    assert json.loads(result.stdout.splitlines()[-1]) == expected.tolist()
