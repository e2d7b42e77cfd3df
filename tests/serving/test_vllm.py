"""vLLM's answers over HTTP are transformers' own, token for token. Needs `.venv-serve`, which `make serve` builds."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList, pipeline

from litegpt.benchmarks.node_stand_ins import NodeProcess, Sender, until
from litegpt.command import main
from litegpt.common.files import complete_lines
from litegpt.dicom_output.result_uids import result_uids
from litegpt.dicom_output.source_header import source_header
from litegpt.inference_scripts.answerers import AnswerSettings, LocalAnswerer, ServerAnswerer
from litegpt.inference_scripts.ask_server import Client, data_url, fetch_json, with_images
from litegpt.inference_scripts.inbox import receive
from litegpt.processing.answers import AnswerError, text_to_diagnoses, text_to_findings
from litegpt.processing.grounded_text import GroundedTextProcessor
from litegpt.processing.radiograph import load_radiograph
from litegpt.processing.tasks import DEFAULT_TASKS, split_question
from tests.serving.conftest import IN_WORDS, QUESTIONS
from tests.small_pacs import dicom_pacs

MAX_NEW_TOKENS = 64


@pytest.fixture(scope="module")
def client(base_url, answering_checkpoint):
    return Client(base_url, AutoProcessor.from_pretrained(answering_checkpoint, trust_remote_code=True))


@pytest.fixture(scope="module")
def expected(answering_checkpoint, phantoms) -> dict[tuple[Path, str], list[int]]:
    """(phantom, task) -> the tokens that transformers' `generate` answers greedily, in float32."""
    model = AutoModelForImageTextToText.from_pretrained(answering_checkpoint, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(answering_checkpoint, trust_remote_code=True)
    assert model.dtype == torch.float32
    tokens = {}
    for phantom in phantoms:
        for task in DEFAULT_TASKS:
            prompt = processor.prompt(task)
            inputs = processor(images=str(phantom), text=prompt, add_special_tokens=False, return_tensors="pt")
            sequence = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)[0]
            tokens[phantom, task] = sequence[inputs["input_ids"].shape[1] :].tolist()
    return tokens


def tokens_of(client: Client, phantom: Path, task: str) -> list[int]:
    content = [
        {"type": "image_url", "image_url": {"url": data_url(load_radiograph(phantom))}},
        {"type": "text", "text": f"[{task}] {client.processor.instructions[task]}"},
    ]
    return tokens_for(client, content)


def tokens_for(client: Client, content: list | str, **constraint) -> list[int]:
    request = {
        "model": client.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": MAX_NEW_TOKENS,
        "temperature": 0,
        "return_token_ids": True,  # vLLM's own
        **constraint,
    }
    return fetch_json(f"{client.base_url}/chat/completions", request)["choices"][0]["token_ids"]


def test_the_test_can_fail(expected):
    """Equal answers would prove little if every radiograph had the same one."""
    assert len({tuple(tokens) for (_, task), tokens in expected.items() if task == "identify"}) > 5


def test_answers_are_transformers_token_for_token(client, expected):
    assert {key: tokens_of(client, *key) for key in expected} == expected


def test_concurrent_requests_change_no_answer(client, expected):
    with ThreadPoolExecutor(8) as threads:
        answers = dict(zip(expected, threads.map(lambda key: tokens_of(client, *key), expected), strict=True))
    assert answers == expected


def test_a_question_without_a_radiograph_is_answered_as_by_transformers(client, answering_checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(answering_checkpoint, trust_remote_code=True).eval()
    question = "Which of the following diagnoses are present?"
    text = client.processor.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
    inputs = client.processor(text=text, add_special_tokens=False, return_tensors="pt")
    sequence = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)[0]
    assert tokens_for(client, question) == sequence[inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("constrained", [True, False])
def test_the_client_writes_what_the_pipeline_answers(base_url, answering_checkpoint, phantoms, tmp_path, constrained):
    """Boxes in pixels, diagnoses and scores, from DICOM files, through the program."""
    options = ["--base_url", base_url, "--model_name_or_path", str(answering_checkpoint)]
    options += ["--output_dir", str(tmp_path), "--constrained" if constrained else "--no-constrained"]
    assert main(["ask", *options, *map(str, phantoms)]) == 0
    lines = complete_lines(tmp_path / "predictions.jsonl")
    assert [line["file"] for line in lines] == [str(phantom) for phantom in phantoms]
    pipe = pipeline("chest-xray-findings", str(answering_checkpoint), trust_remote_code=True, constrained=constrained)
    outputs = pipe([str(phantom) for phantom in phantoms], batch_size=4)
    assert sum(len(output["findings"]) for output in outputs) > 10
    for line, output in zip(lines, outputs, strict=True):
        assert line["answers"] == output["answers"] and line["malformed"] == output["malformed"]
        for kind in ("findings", "diagnoses"):
            scores = [entry.pop("score") for entry in output[kind]]
            served = [entry.pop("score") for entry in line[kind]]
            if kind == "findings":  # a server tells 20 tokens in a coordinate's place, the pipeline sees 100
                assert served == pytest.approx(scores, abs=0.06)
            elif not constrained:
                assert served == pytest.approx(scores, abs=1e-4)
            assert json.dumps(line[kind]) == json.dumps(output[kind])


def test_who_asks_a_server_gets_what_the_checkpoint_here_answers(base_url, answering_checkpoint, phantoms):
    settings = AnswerSettings(str(answering_checkpoint))
    here, there = LocalAnswerer(settings), ServerAnswerer(settings, base_url)
    batch = [receive(path, path.read_bytes(), "", here.processor.windowing) for path in phantoms[:8]]
    lines, served = here.lines(batch), there.lines(batch)
    assert [line["answers"] for line in served] == [line["answers"] for line in lines]
    assert all(set(here.facts) <= set(line) and line["checkpoint_sha256"] for line in served)


# --- Questions in words ---

Asked = tuple[tuple[Path, ...], str]  # radiographs, and a question about them


@pytest.fixture(scope="module")
def expected_in_words(answering_checkpoint, phantoms) -> dict[Asked, list[int]]:
    """The tokens that transformers answers greedily in float32; boxes as the pipeline holds them."""
    model = AutoModelForImageTextToText.from_pretrained(answering_checkpoint, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(answering_checkpoint, trust_remote_code=True)
    asked = [((phantom,), question) for phantom in phantoms[:IN_WORDS] for question in QUESTIONS]
    asked += [((phantoms[number], phantoms[number + 1]), "report") for number in range(IN_WORDS)]
    tokens = {}
    for radiographs, question in asked:
        task, about = split_question(question)
        prompt = processor.prompt(task, about, len(radiographs))
        options = {"add_special_tokens": False, "return_tensors": "pt"}
        inputs = processor(images=[str(path) for path in radiographs], text=prompt, **options)
        way = {}
        if task == "refer":
            way = {"custom_generate": processor.constrained_greedy()}
        elif task == "grounded_report":
            way = {"logits_processor": LogitsProcessorList([GroundedTextProcessor(processor.tokenizer, [True])])}
        sequence = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, **way)[0]
        tokens[radiographs, question] = sequence[inputs["input_ids"].shape[1] :].tolist()
    return tokens


def tokens_in_words(client: Client, radiographs: tuple[Path, ...], question: str) -> list[int]:
    task, about = split_question(question)
    urls = [data_url(load_radiograph(path)) for path in radiographs]
    (message,) = with_images(client.processor.messages(task, about, len(urls)), urls)
    grammar = client.grammar(task)
    assert (grammar is not None) == (task in ("refer", "grounded_report"))
    constraint = {"structured_outputs": {"grammar": grammar}} if grammar else {}
    return tokens_for(client, message["content"], **constraint)


def test_the_test_in_words_can_fail(expected_in_words, client):
    """Answers differ from radiograph to radiograph and end, some have boxes, and two views are told from one."""
    texts = {key: client.processor.tokenizer.decode(tokens) for key, tokens in expected_in_words.items()}
    for question in QUESTIONS[:3]:
        assert len({text for (_, asked), text in texts.items() if asked == question}) > 2
    assert sum("{<" in text for (_, question), text in texts.items() if question == QUESTIONS[0]) >= 2
    assert any("Two views" in text for (radiographs, _), text in texts.items() if len(radiographs) == 2)
    assert all(tokens[-1] == client.processor.tokenizer.eos_token_id for tokens in expected_in_words.values())


def test_answers_in_words_are_transformers_token_for_token(client, expected_in_words):
    assert {key: tokens_in_words(client, *key) for key in expected_in_words} == expected_in_words


def test_concurrent_questions_in_words_change_no_answer(client, expected_in_words):
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda key: tokens_in_words(client, *key), expected_in_words)
        answers = dict(zip(expected_in_words, found, strict=True))
    assert answers == expected_in_words


def test_who_asks_a_server_in_words_gets_what_the_checkpoint_here_answers(base_url, answering_checkpoint, phantoms):
    """But for what a server does not tell: a sentence's probability."""
    settings = AnswerSettings(str(answering_checkpoint), tasks=QUESTIONS)
    here, there = LocalAnswerer(settings), ServerAnswerer(settings, base_url)
    pictures = [load_radiograph(path) for path in phantoms[:IN_WORDS]]
    for output, served in zip(here.outputs(pictures), there.outputs(pictures), strict=True):
        assert served["answers"] == output["answers"] and served["malformed"] == output["malformed"]
        for phrase, of_server in zip(output["phrases"], served["phrases"], strict=True):
            assert of_server["present"] == pytest.approx(phrase["present"], abs=0.02)
            assert [box["box"] for box in of_server["boxes"]] == [box["box"] for box in phrase["boxes"]]
        for key in ("report", "grounded_report"):
            assert [item["text"] for item in served[key]] == [item["text"] for item in output[key]]
            assert {item["probability"] for item in served[key]} == {None}
        assert served["replies"][0]["score"] == pytest.approx(output["replies"][0]["score"], abs=1e-3)


def test_a_node_answers_with_the_server(base_url, answering_checkpoint, phantoms, tmp_path):
    """From C-STORE to the PACS: each radiograph's report and presentation state, with the UIDs of this checkpoint."""
    facts = ServerAnswerer(AnswerSettings(str(answering_checkpoint)), base_url).facts
    sources = [source_header(path, path.name) for path in phantoms]
    expected = {result_uids(source, facts, kind)[1] for source in sources for kind in ("SR", "PR")}
    with dicom_pacs() as pacs:
        options = {"model_name_or_path": str(answering_checkpoint), "base_url": base_url, "pacs": pacs.address}
        with NodeProcess(tmp_path / "node", options) as node:
            Sender(node.address, phantoms).run(120)
            until(lambda: set(pacs.stored) == expected, 120, "not all results are in the PACS", node)


def test_a_grammar_that_is_none_is_refused_and_the_flag_named(client, phantoms):
    broken = Client(client.base_url, client.processor)
    broken.grammars = {"vqa": "root ::= missing"}
    with pytest.raises(ConnectionError, match="the server refuses: 400 .*: --no-constrained$"):
        broken.ask([data_url(load_radiograph(phantoms[0]))], "vqa")


def test_with_the_grammar_even_random_weights_give_well_formed_answers(untrained_url, untrained_checkpoint, phantoms):
    """One finding at most: random weights go on for long, and an engine does not know how much room is left."""
    processor = AutoProcessor.from_pretrained(untrained_checkpoint, trust_remote_code=True)
    read = {
        "identify": lambda text: text_to_findings(text, processor.finding_labels),
        "vqa": lambda text: text_to_diagnoses(text, processor.diagnosis_labels),
    }
    for task in DEFAULT_TASKS:
        least = processor.answer_grammar.least_room(task)
        constraint = {"structured_outputs": {"grammar": processor.answer_grammar.ebnf(task, max_new_tokens=least)}}
        answers = set()
        for number, phantom in enumerate(phantoms[:10]):
            content = [
                {"type": "image_url", "image_url": {"url": data_url(load_radiograph(phantom))}},
                {"type": "text", "text": f"[{task}] {processor.instructions[task]}"},
            ]
            request = {
                "model": fetch_json(f"{untrained_url}/models")["data"][0]["id"],
                "messages": [{"role": "user", "content": content}],
                "max_tokens": 400,  # a token for each byte of the longest answer
                "temperature": 1.0,
                "seed": number,
            }
            with pytest.raises(AnswerError):
                read[task](text_of(untrained_url, request))
            answers.add(text_of(untrained_url, {**request, **constraint}))
        assert len(answers) > 1
        for text in answers:
            read[task](text)


def text_of(base_url: str, request: dict) -> str:
    completion = fetch_json(f"{base_url}/chat/completions", request)
    return (completion["choices"][0]["message"]["content"] or "").lstrip()
