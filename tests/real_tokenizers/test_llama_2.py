"""Prompts and answers in the tokens of Llama 2's published vocabulary."""

import json
import os
import subprocess
import sys
from functools import cache

import pytest
from transformers import LlamaTokenizer

from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answers import Finding, diagnoses_to_text, findings_to_text
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from tests.prompt_paths import answered_by_path, chat, pipeline_of, processor_of, prompt_by_path
from tests.real_tokenizers.fetch_packages import LLAMA_PIECES

INST = [518, 25580, 29962]  # of `[INST]` behind <s>, as Meta's own code has it
END_OF_INST = [518, 29914, 25580, 29962]
ANSWERS = {
    "identify": findings_to_text([Finding("ILD", (0.1, 0.2, 0.3, 0.44)), Finding("Cardiomegaly", (0, 0, 1, 1))]),
    "vqa": diagnoses_to_text(["Pneumonia", "Other diseases"]),
}


def llama_2_tokenizer(**options: bool) -> LlamaTokenizer:
    """transformers' tokenizer of Llama 2: a longer piece is the merge of any two, of which the earlier goes first."""
    numbers, merges = pieces_and_merges()
    return LlamaTokenizer(vocab=dict(numbers), merges=list(merges), **options)


@cache
def pieces_and_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    pieces = LLAMA_PIECES.read_bytes().decode().split("\n")  # carriage returns are in pieces
    numbers = {piece: number for number, piece in enumerate(pieces)}
    merges = []
    for piece in pieces[259:]:  # behind the special tokens and the bytes
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [pair for pair in halves if pair[0] in numbers and pair[1] in numbers]
        merges += sorted(known, key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
    return numbers, merges


@pytest.fixture(scope="module", params=[{}, {"legacy": True}, {"add_bos_token": True}], ids=str)
def processor(request) -> LiteGPTProcessor:
    return processor_of(llama_2_tokenizer(**request.param), FINDING_LABELS, DIAGNOSIS_LABELS)


@pytest.fixture(scope="module")
def folder(processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    LiteGPTProcessor.register_for_auto_class()
    processor.save_pretrained(folder)
    return folder


def test_the_vocabulary_is_llama_2s():
    """The numbers are published: by Meta's code, and by the tests of the package, which compare with it."""
    tokenizer = llama_2_tokenizer()
    for text, ids in {
        "Hello world": [15043, 3186],
        "[INST]": INST,
        "[/INST]": END_OF_INST,
        "grabbed": [2646, 1327, 287],
        "\n": [29871, 13],
        "ax\n####\nboo": [4853, 13, 4136, 13, 833, 29877],
        "镇": [29871, 30411],
        "🦙Ꙋ": [29871, 243, 162, 169, 156, 237, 156, 141],
        "The llama (/ˈlɑːmə/; 🦙Spanish": [
            *(450, 11148, 3304, 20374, 30176, 29880, 30426, 30215, 29885, 30184, 29914, 29936, 29871),
            *(243, 162, 169, 156, 15495, 728),
        ],
    }.items():
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
    assert len(tokenizer) == 32_000


@pytest.mark.parametrize("task", ANSWERS)
def test_prompts_and_answers_have_llama_2s_tokens_on_every_path(processor, folder, task, tiny_checkpoint):
    model = load_checkpoint(tiny_checkpoint)[0]
    answers = set()
    for one in (processor, LiteGPTProcessor.from_pretrained(folder)):
        for path, ids in prompt_by_path(one, task, pipeline_of(model, one)).items():
            assert ids[:4] == [1, *INST] and ids[-4:] == END_OF_INST and ids.count(1) == 1, path
            answers.add(tuple(ids))
        for path, ids in answered_by_path(one, task, ANSWERS[task]).items():
            assert tuple(ids[: -len(one.answer_ids(ANSWERS[task])) - 1]) in answers, path
            assert (
                ids[-1] == 2
                and one.tokenizer.decode(ids[-len(one.answer_ids(ANSWERS[task])) - 1 : -1]) == (ANSWERS[task])
            ), path
    assert len(answers) == 1
    by_itself = processor.tokenizer(ANSWERS[task], add_special_tokens=False)["input_ids"]
    assert processor.answer_ids(ANSWERS[task]) == by_itself  # as the paper's release encodes answers


def test_every_turn_begins_with_the_same_tokens(processor, folder):
    turns = [*chat(processor, "vqa", ANSWERS["vqa"]), {"role": "user", "content": "And now?"}]
    for one in (processor, LiteGPTProcessor.from_pretrained(folder)):
        ids = one.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"][0]
        begin = len(ids) - ids[::-1].index(1) - 1
        assert ids[begin - 1 :][:5] == [2, 1, *INST] and ids[:4] == [1, *INST] and ids.count(1) == 2


@pytest.mark.parametrize("task", ANSWERS)
def test_the_grammar_has_the_tokens_of_training(processor, task):
    grammar, eos = processor.answer_grammar, processor.tokenizer.eos_token_id
    state, ids = grammar.start(task), [*processor.answer_ids(ANSWERS[task]), eos]
    for number, token in enumerate(ids, start=1):
        assert token in grammar.allowed[state.node], processor.tokenizer.convert_ids_to_tokens(ids[:number])
        state = grammar.advance(state, token, 1000 - number)
    assert state == grammar.END


STRANGER = """
import json, sys
from PIL import Image
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
prompt = processor.prompt("vqa")
inputs = [processor(images=Image.new("L", (48, 40)), text=prompt, **options)["input_ids"][0]
          for options in ({}, {"add_special_tokens": False})]
print(json.dumps([*inputs, processor.answer_ids(sys.argv[2])]))
"""


def test_a_stranger_has_the_same_tokens(processor, folder, tmp_path):
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", STRANGER, str(folder), ANSWERS["vqa"]]
    reply = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert reply.returncode == 0, reply.stderr
    expected = prompt_by_path(processor, "vqa")["training"]
    assert json.loads(reply.stdout.splitlines()[-1]) == [expected, expected, processor.answer_ids(ANSWERS["vqa"])]
