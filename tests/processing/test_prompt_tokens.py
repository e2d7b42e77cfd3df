"""A prompt and its answer have the same tokens in training, in every way of asking, in the grammar and in TRL."""

import pytest
import transformers
from jinja2 import TemplateError
from packaging.version import Version

from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answers import Finding, diagnoses_to_text, findings_to_text
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from tests.llama_like_tokenizer import llama_like_tokenizer
from tests.prompt_paths import PICTURE, answered_by_path, chat, pipeline_of, processor_of, prompt_by_path
from tests.tokenizer_kinds import TOKENIZERS

KINDS = TOKENIZERS | {
    "Llama, legacy": lambda *labels: llama_like_tokenizer(*labels, legacy=True),
    "Llama, with BOS": lambda *labels: llama_like_tokenizer(*labels, add_bos_token=True),
    "Llama, legacy, with BOS": lambda *labels: llama_like_tokenizer(*labels, legacy=True, add_bos_token=True),
}
ANSWERS = {
    "identify": findings_to_text([Finding("ILD", (0.1, 0.2, 0.3, 0.44)), Finding("Cardiomegaly", (0, 0, 1, 1))]),
    "vqa": diagnoses_to_text(["Pneumonia", "Other diseases"]),
}


@pytest.fixture(scope="module", params=KINDS)
def processor(request) -> LiteGPTProcessor:
    return processor_of(KINDS[request.param](FINDING_LABELS, DIAGNOSIS_LABELS), FINDING_LABELS, DIAGNOSIS_LABELS)


@pytest.fixture(scope="module")
def loaded(processor, tmp_path_factory) -> LiteGPTProcessor:
    folder = tmp_path_factory.mktemp("processor")
    processor.save_pretrained(folder)
    return LiteGPTProcessor.from_pretrained(folder)


@pytest.mark.parametrize("task", ANSWERS)
def test_a_prompt_has_the_same_tokens_however_it_is_asked(processor, loaded, task, tiny_checkpoint):
    tokenizer = processor.tokenizer
    turn = processor.prompt(task).removeprefix("<s>").strip().replace("<image>", processor.expanded_image)
    expected = [tokenizer.bos_token_id, *tokenizer(turn, add_special_tokens=False)["input_ids"]]
    model = load_checkpoint(tiny_checkpoint)[0]
    for one in (processor, loaded):
        for path, ids in prompt_by_path(one, task, pipeline_of(model, one)).items():
            assert ids == expected, (path, tokenizer.convert_ids_to_tokens(ids)[:6])


@pytest.mark.parametrize("task", ANSWERS)
def test_an_answer_has_the_same_tokens_in_training_grammar_template_and_trl(processor, loaded, task):
    tokenizer, answer = processor.tokenizer, ANSWERS[task]
    trained = answered_by_path(processor, task, answer)["training"]
    for one in (processor, loaded):
        for path, ids in answered_by_path(one, task, answer).items():
            if path == "TRL, prompt and completion" and tokenizer.backend_tokenizer.normalizer is not None:
                continue  # TRL encodes the completion by itself, and Llama's normalizer sets a second space before it
            assert ids == trained, (path, tokenizer.convert_ids_to_tokens(ids))
        state, grammar = one.answer_grammar.start(task), one.answer_grammar
        answer_ids = [*one.answer_ids(answer), tokenizer.eos_token_id]
        for number, token in enumerate(answer_ids, start=1):
            assert token in grammar.allowed[state.node]
            state = grammar.advance(state, token, 1000 - number)
        assert state == grammar.END


# transformers 5.17 counts the answer's characters in the text in which `<image>` is not yet expanded.
@pytest.mark.skipif(Version(transformers.__version__) < Version("5.18"), reason="the library marks other tokens")
@pytest.mark.parametrize("task", ANSWERS)
def test_the_template_marks_the_answer_and_its_end_as_the_assistants(processor, task):
    tokenizer, answer = processor.tokenizer, ANSWERS[task]
    answer_ids = [*processor.answer_ids(answer), tokenizer.eos_token_id]
    marked = processor.apply_chat_template(
        chat(processor, task, answer), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    mask, ids = marked["assistant_masks"][0], marked["input_ids"][0]
    assert [token for token, marks in zip(ids, mask, strict=True) if marks] == answer_ids
    assert tokenizer.decode(answer_ids, skip_special_tokens=True).strip() == answer


def test_every_turn_of_a_chat_begins_as_the_first_does(processor, loaded):
    tokenizer, answer = processor.tokenizer, ANSWERS["vqa"]
    turns = chat(processor, "vqa", answer)
    follow_up = {"role": "user", "content": "[vqa] Really?"}
    second = tokenizer("[INST] [vqa] Really? [/INST]", add_special_tokens=False)["input_ids"]
    first = answered_by_path(processor, "vqa", answer)["training"]
    for one in (processor, loaded):
        ids = one.apply_chat_template([*turns, follow_up], tokenize=True, return_dict=True)["input_ids"][0]
        assert ids == [*first, tokenizer.bos_token_id, *second]


def test_llama_2_sees_the_bracket_with_a_space_before_it(processor):
    tokenizer = processor.tokenizer
    ids = prompt_by_path(processor, "vqa")["training"]
    if "▁[" in tokenizer.get_vocab():
        assert tokenizer.convert_ids_to_tokens(ids[:4]) == ["<s>", "▁[", "INST", "]"]
        assert tokenizer.convert_ids_to_tokens(processor.answer_ids(ANSWERS["vqa"])[0]).startswith("▁")


def test_an_answer_that_is_given_back_with_its_space_has_the_same_tokens(processor):
    inputs = [
        processor.apply_chat_template(chat(processor, "vqa", answer), tokenize=True, return_dict=True)["input_ids"]
        for answer in (ANSWERS["vqa"], f" {ANSWERS['vqa']}")
    ]
    assert inputs[0] == inputs[1]


# --- Chats that are not as they should be ----------------------------------------------------------------------------


@pytest.fixture
def tiny(tiny_checkpoint) -> LiteGPTProcessor:
    return load_checkpoint(tiny_checkpoint)[1]


def test_images_stand_first_in_their_turn(tiny):
    image, text = {"type": "image"}, {"type": "text", "text": "[vqa] Which?"}
    assert tiny.apply_chat_template([{"role": "user", "content": [text, image]}]).endswith(
        "[INST] <image> [vqa] Which? [/INST]"
    )
    assert "[INST] <image> <image> [vqa] Which? [/INST]" in tiny.apply_chat_template(
        [{"role": "user", "content": [image, text, image]}]
    )
    assert tiny.apply_chat_template([{"role": "user", "content": [image]}]).endswith("[INST] <image> [/INST]")


@pytest.mark.parametrize(
    "message, sentence",
    [
        ({"role": "user", "content": [{"type": "txt", "text": "A?"}]}, "type image or text, not txt"),
        ({"role": "user", "content": [{"type": "video"}]}, "type image or text, not video"),
        ({"role": "user", "content": [{"text": "A?"}]}, "type image or text, not"),
        ({"role": "user", "content": ["A?"]}, "type image or text, not"),
        (
            {"role": "user", "content": [{"type": "text"}]},
            "An item of the type text in a chat has its words under text",
        ),
        ({"role": "user", "content": [{"type": "text", "content": "A?"}]}, "has its words under text"),
        ({"role": "user"}, "has a text or a list of items as its content"),
        ({"role": "user", "content": {"type": "text", "text": "A?"}}, "has a text or a list of items as its content"),
        ({"role": "doctor", "content": "A?"}, "role system, user or assistant, not doctor"),
        ({"content": "A?"}, "role system, user or assistant, not"),
        ({"role": "assistant", "content": [{"type": "image"}]}, "stands in a turn of the user, not .* assistant"),
    ],
)
def test_a_mistyped_message_is_an_error_of_one_sentence(tiny, message, sentence):
    with pytest.raises(TemplateError, match=sentence) as raised:
        tiny.apply_chat_template([message])
    assert str(raised.value).endswith(".") and len(str(raised.value)) < 100


@pytest.mark.parametrize("max_length, sentence", [(8, "Truncation cut into the 16 placeholders"), (2, "truncation")])
def test_truncation_that_cuts_a_radiograph_is_an_error(tiny, max_length, sentence):
    options = {"truncation": True, "max_length": max_length}
    with pytest.raises(ValueError, match=sentence):
        tiny(images=PICTURE, text=tiny.prompt("vqa"), **options)
    whole = tiny(images=PICTURE, text=tiny.prompt("vqa"), truncation=True, max_length=500)
    assert whole["input_ids"] == tiny(images=PICTURE, text=tiny.prompt("vqa"))["input_ids"]
