"""The client against a tiny stand-in for an OpenAI-compatible server; `tests/serving` has the real one."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.common.files import complete_lines
from litegpt.modeling_litegpt.provenance import UNTRAINED
from litegpt.processing.answer_ebnf import sentences_ebnf
from litegpt.processing.box_scores import BoxProbabilities, box_score
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.radiograph import load_radiograph

FINDINGS = [
    "Local diseases of this chest radiograph are ",
    "<p>",
    "ILD",
    "</p> {",
    "<10>",
    "<20>",
    "<30>",
    "<40>",
    "}",
    ".",
]
DIAGNOSES = ["Global diseases of this chest radiograph are ", "COPD", "."]


class Server(ThreadingHTTPServer):
    """Gives each chat completion the tokens that `answer` returns for (task, picture), and keeps the requests."""

    def __init__(self, answer: Callable[[str, Image.Image], list[str]]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.requests = answer, []
        self.with_logprobs, self.refusal, self.barrier = True, None, None
        self.finish_reason = "stop"
        self.refuses_grammars = False
        self.logprobs: dict[str, float] = {}  # of tokens; of the others log(0.5)
        self.others: dict[str, dict[str, float]] = {}  # in a token's place: log probabilities of other tokens

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send({"object": "list", "data": [{"id": "served-model", "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refusal:
            return self.send({"error": {"message": self.server.refusal}}, 400)
        if self.server.refuses_grammars and "structured_outputs" in request:
            return self.send({"error": {"message": "unknown field: structured_outputs"}}, 400)
        if self.server.barrier:
            self.server.barrier.wait(timeout=20)
        self.server.requests.append(request)
        image, *_, text = request["messages"][0]["content"]
        header, _, data = image["image_url"]["url"].partition(",")
        assert header == "data:image/png;base64" and text["text"].startswith("[")
        picture = Image.open(BytesIO(base64.b64decode(data)))
        tokens = self.server.answer(text["text"][1 : text["text"].index("]")], picture)
        choice = {"message": {"role": "assistant", "content": "".join(tokens)}, "logprobs": None}
        choice["finish_reason"] = self.server.finish_reason
        if self.server.with_logprobs:
            logprobs = [self.server.logprobs.get(token, float(np.log(0.5))) for token in [*tokens, "</s>"]]
            pairs = zip([*tokens, "</s>"], logprobs, strict=True)
            content = [{"token": token, "logprob": logprob} for token, logprob in pairs]
            for entry in content:
                others = [{"token": t, "logprob": lp} for t, lp in self.server.others.get(entry["token"], {}).items()]
                entry["top_logprobs"] = [dict(entry), *others]
            choice["logprobs"] = {"content": content}
        self.send({"choices": [choice]})

    def send(self, body: dict, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def running(answer: Callable[[str, Image.Image], list[str]]) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with running(lambda task, picture: FINDINGS if task == "identify" else DIAGNOSES) as server:
        yield server


@pytest.fixture
def ask(tiny_checkpoint, tmp_path):
    """Runs the program; returns its status and the lines of its output."""

    def run(base_url, *radiographs, **options):
        flags = ["--constrained" if options.pop("constrained", True) else "--no-constrained"]
        tasks = ["--tasks", *options.pop("tasks")] if "tasks" in options else []
        flags += tasks + [text for name, value in options.items() for text in (f"--{name}", str(value))]
        fixed = ["--base_url", base_url, "--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path)]
        status = main(["ask", *fixed, *flags, *map(str, radiographs)])
        return status, complete_lines(tmp_path / "predictions.jsonl")

    return run


@pytest.fixture
def pictures(tmp_path):
    """Six PNGs in a folder, each of its own grey and 200 x 100 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(6):
        Image.new("L", (200, 100), 20 * index).save(folder / f"{index}.png")
    return folder


def test_boxes_are_in_pixels_of_the_radiograph_and_scores_from_the_servers_probabilities(server, ask, pictures):
    status, lines = ask(server.url, pictures / "0.png")
    assert status == 0 and len(lines) == 1
    assert lines[0] == {
        "file": str(pictures / "0.png"),
        "sha256": hashlib.sha256((pictures / "0.png").read_bytes()).hexdigest(),
        "sop_instance_uid": None,
        "series_instance_uid": None,
        "study_instance_uid": None,
        "view": None,
        "laterality": None,
        "model": lines[0]["model"],
        "constrained": True,
        "threshold": None,
        "with_candidates": False,
        "views": 0,
        "tasks": ["identify", "vqa"],
        "max_new_tokens": 512,
        "checkpoint": lines[0]["checkpoint"],
        "checkpoint_sha256": lines[0]["checkpoint_sha256"],
        "trained_on": [],
        "caution": UNTRAINED,
        "not_for_diagnosis": True,
        "warnings": list(load_radiograph(pictures / "0.png").info["warnings"]),  # it is black
        "width": 200,
        "height": 100,
        # Half of its finding, its label and each coordinate: that far the server is sure.
        "findings": [
            {
                "label": "ILD",
                "score": pytest.approx(0.5**6, abs=0.01),
                "box": {"xmin": 20, "ymin": 20, "xmax": 60, "ymax": 40},
            }
        ],
        "diagnoses": [{"label": "COPD", "score": 0.5}],
        "probabilities": {"identify": {}, "vqa": {}},
        "answers": {"identify": "".join(FINDINGS), "vqa": "".join(DIAGNOSES)},
        "malformed": {"identify": None, "vqa": None},
    }


def test_the_request_is_greedy_and_asks_in_the_checkpoints_words(server, ask, pictures, tiny_checkpoint):
    ask(server.url, pictures / "0.png", max_new_tokens=99)
    instructions = json.loads((tiny_checkpoint / "processor_config.json").read_text())["instructions"]
    texts = [request["messages"][0]["content"][1]["text"] for request in server.requests]
    assert texts == [f"[{task}] {instructions[task]}" for task in ("identify", "vqa")]
    assert all(request["temperature"] == 0 and request["max_tokens"] == 99 for request in server.requests)
    assert {request["model"] for request in server.requests} == {"served-model"}


def test_a_dicoms_pixels_are_sent_exactly_and_no_tag_of_it(ask, phantom_release):
    dicom = sorted((phantom_release / "test").iterdir())[0]
    tags = pydicom.dcmread(dicom, stop_before_pixels=True)
    sent = []
    with running(lambda task, picture: sent.append(picture.copy()) or DIAGNOSES) as server:
        status, lines = ask(server.url, dicom)
    assert status == 0 and lines[0]["width"] == 128
    assert lines[0]["sop_instance_uid"] == tags.SOPInstanceUID and tags.SOPInstanceUID not in str(server.requests)
    for picture in sent:
        assert picture.mode == "L" and not picture.info
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(load_radiograph(dicom)))


def test_a_radiograph_that_is_stored_turned_is_sent_upright_and_its_boxes_come_back_as_given(
    ask, phantom_release, tmp_path
):
    dataset = pydicom.dcmread(sorted((phantom_release / "test").iterdir())[0])
    dataset.PatientOrientation, dataset.ViewPosition = ["R", "H"], "AP"  # upside down
    dataset.save_as(tmp_path / "turned.dcm")
    sent = []

    def answer(task, picture):
        sent.append(picture.copy())
        return FINDINGS if task == "identify" else DIAGNOSES

    with running(answer) as server:
        _, lines = ask(server.url, tmp_path / "turned.dcm")
    given = load_radiograph(tmp_path / "turned.dcm")
    assert given.info["turn"] == Image.Transpose.ROTATE_180
    np.testing.assert_array_equal(np.asarray(sent[0]), np.asarray(given)[::-1, ::-1])
    assert lines[0]["findings"][0]["box"] == {"xmin": 90, "ymin": 77, "xmax": 115, "ymax": 102}  # of 128 x 128
    assert lines[0]["warnings"] == list(given.info["warnings"])


def test_an_answer_that_cannot_be_parsed_has_its_reason(ask, pictures):
    with running(lambda task, picture: ["I see ", "nothing"]) as server:
        status, lines = ask(server.url, pictures / "0.png")
    assert status == 0 and lines[0]["findings"] == [] and lines[0]["diagnoses"] == []
    assert lines[0]["answers"]["identify"] == "I see nothing"
    assert lines[0]["malformed"]["identify"].startswith("it does not begin with 'Local diseases")


def test_a_space_before_the_answer_is_not_part_of_it(ask, pictures):
    with running(lambda task, picture: [" " + FINDINGS[0], *FINDINGS[1:]]) as server:
        _, lines = ask(server.url, pictures / "0.png")
    assert lines[0]["answers"]["identify"] == "".join(FINDINGS) and lines[0]["findings"][0]["score"] > 0


def test_the_score_is_the_pipelines_own_of_the_coordinates_that_the_server_considered(server, ask, pictures):
    server.logprobs = {"<p>": 0.0, "ILD": np.log(0.8), **dict.fromkeys(["<10>", "<20>", "<30>", "<40>"], np.log(0.6))}
    server.others = {"<10>": {"<11>": np.log(0.4)}, "<40>": {"<90>": np.log(0.4)}}
    _, lines = ask(server.url, pictures / "0.png")
    coordinates = np.zeros((4, 101))
    coordinates[[0, 1, 2, 3], [10, 20, 30, 40]] = 0.6
    coordinates[0, 11] = coordinates[3, 90] = 0.4
    expected = box_score((0.1, 0.2, 0.3, 0.4), BoxProbabilities(entry=1.0, label=0.8, coordinates=coordinates))
    assert lines[0]["findings"][0]["score"] == pytest.approx(expected) and 0.1 < expected < 0.3
    assert {request["top_logprobs"] for request in server.requests} == {20}


def test_without_probabilities_there_is_no_score(server, ask, pictures):
    server.with_logprobs = False
    _, lines = ask(server.url, pictures / "0.png")
    assert lines[0]["findings"][0]["score"] is None and lines[0]["diagnoses"][0]["score"] is None


def test_radiographs_are_asked_about_together_and_stand_in_their_order(ask, pictures):
    def answer(task, picture):
        grey = picture.getpixel((0, 0))
        return [f"Global diseases of this chest radiograph are {grey}."]

    with running(answer) as server:
        server.barrier = threading.Barrier(3)  # no request is answered before three are there
        status, lines = ask(server.url, pictures, concurrency=3)
    assert status == 0
    assert [line["file"] for line in lines] == [str(pictures / f"{index}.png") for index in range(6)]
    assert [line["malformed"]["vqa"] for line in lines] == [f"an unknown label: '{20 * i}'" for i in range(6)]


def test_unusable_files_are_named_and_nothing_is_asked_twice(server, ask, pictures, capsys):
    (pictures / "7.dcm").write_text("no radiograph")
    status, lines = ask(server.url, pictures)
    assert status == 1 and len(lines) == 6
    output = capsys.readouterr()
    assert "7.dcm: it is neither a DICOM file nor a picture" in output.err
    assert "6 radiographs answered; 1 could not be used" in output.out

    (pictures / "7.dcm").unlink()
    Image.new("L", (200, 100)).save(pictures / "8.png")
    del server.requests[:]
    status, lines = ask(server.url, pictures)
    assert status == 0 and len(lines) == 7 and len(server.requests) == 2


def test_a_replaced_file_is_asked_about_anew(server, ask, pictures):
    ask(server.url, pictures / "0.png", pictures / "1.png")
    Image.new("L", (300, 90)).save(pictures / "0.png")
    _, lines = ask(server.url, pictures / "0.png", pictures / "1.png")
    assert [(line["file"][-5:], line["width"]) for line in lines] == [("1.png", 200), ("0.png", 300)]


def test_a_refusal_stops_with_the_servers_reason_and_keeps_what_was_answered(server, ask, pictures, tmp_path):
    ask(server.url, pictures / "0.png")
    server.refusal = "the prompt is too long\nand more"
    with pytest.raises(SystemExit, match="chat/completions: the server refuses: 400 the prompt is too long$"):
        ask(server.url, pictures)
    assert len(complete_lines(tmp_path / "predictions.jsonl")) == 1


def test_each_request_has_the_grammar_of_its_answer(server, ask, pictures, tiny_checkpoint):
    ask(server.url, pictures / "0.png", max_new_tokens=99)
    grammar = LiteGPTProcessor.from_pretrained(tiny_checkpoint).answer_grammar
    expected = [{"grammar": grammar.ebnf(task, max_new_tokens=99)} for task in ("identify", "vqa")]
    assert [request["structured_outputs"] for request in server.requests] == expected


def test_unconstrained_requests_have_none_and_are_other_questions(server, ask, pictures):
    ask(server.url, pictures / "0.png")
    del server.requests[:]
    status, lines = ask(server.url, pictures / "0.png", constrained=False)
    assert status == 0 and [line["constrained"] for line in lines] == [True, False]
    assert len(server.requests) == 2 and not any("structured_outputs" in request for request in server.requests)


def test_a_server_that_takes_no_grammar_is_told_from_one_that_refuses_anyway(server, ask, pictures):
    server.refuses_grammars = True
    sentence = "refuses: 400 unknown field: structured_outputs; it answers without .*: --no-constrained$"
    with pytest.raises(SystemExit, match=sentence):
        ask(server.url, pictures / "0.png")
    assert ask(server.url, pictures / "0.png", constrained=False)[0] == 0
    server.refusal = "no such model"
    with pytest.raises(SystemExit, match="refuses: 400 no such model$"):
        ask(server.url, pictures / "1.png")


def test_too_few_tokens_for_an_answer_are_one_sentence(server, ask, pictures):
    with pytest.raises(SystemExit, match=r"An answer to \[identify\] may take \d+ tokens; max_new_tokens is 5\.$"):
        ask(server.url, pictures / "0.png", max_new_tokens=5)


def test_no_server_is_one_sentence(server, ask, pictures):
    url = server.url.replace(str(server.server_port), "1")
    with pytest.raises(SystemExit, match=r"/v1/models: no answer from a server \(.*refused.*\)$"):
        ask(url, pictures)
    with pytest.raises(SystemExit, match=r"no answer from a server \(unknown url type"):
        ask("not a url", pictures)


def test_views_are_asked_about_boxes_and_fused(server, ask, pictures):
    """The server names the same box in every view: brought back, they lie near one another and are one."""
    status, lines = ask(server.url, pictures / "3.png", views=3)
    assert status == 0 and lines[0]["views"] == 3
    asked = [request["messages"][0]["content"][1]["text"] for request in server.requests]
    assert sum(text.startswith("[identify]") for text in asked) == 4
    assert sum(text.startswith("[vqa]") for text in asked) == 1
    sent = {request["messages"][0]["content"][0]["image_url"]["url"] for request in server.requests}
    assert len(sent) == 4  # one picture plain, three moved
    (fused,) = lines[0]["view_findings"]
    assert fused["label"] == "ILD" and fused["views"] == 4
    assert fused["score"] == pytest.approx(lines[0]["findings"][0]["score"])
    _, again = ask(server.url, pictures / "3.png")
    assert len(again) == 2 and "view_findings" not in again[1]


def test_views_without_probabilities_are_not_fused_and_the_line_says_so(server, ask, pictures):
    server.with_logprobs = False
    status, (line,) = ask(server.url, pictures / "3.png", views=2)
    assert status == 0 and "view_findings" not in line
    assert line["findings"][0]["score"] is None
    assert "its views are not fused" in line["warnings"][-1]


# --- Questions in words ---

WORDS = {
    "refer": ["Boxes of this phrase are ", "{", "<10>", "<20>", "<30>", "<40>", "}", "."],
    "report": ["The heart is enlarged.", " No effusion."],
    "grounded_report": ["<p>", "Edema.", "</p> {", "<10>", "<20>", "<30>", "<40>", "}", " <p>No effusion.</p>"],
    "vqa": ["No."],
    "describe": ["Cardiomegaly"],
}
QUESTIONS = ["refer: enlarged heart", "report", "grounded_report", "question: A fracture?", "describe: 20 10 60 40"]


@pytest.fixture
def in_words() -> Iterator[Server]:
    with running(lambda task, picture: WORDS[task]) as server:
        yield server


def test_questions_in_words_are_sent_as_the_processor_puts_them_and_their_answers_read(
    in_words, ask, pictures, tiny_checkpoint
):
    status, (line,) = ask(in_words.url, pictures / "3.png", tasks=QUESTIONS)
    assert status == 0 and line["tasks"] == QUESTIONS
    assert [request["messages"][0]["content"][-1]["text"] for request in in_words.requests] == [
        "[refer] Give the bounding boxes of: enlarged heart",
        "[report] Write the findings section of the report.",
        "[grounded_report] Write the findings section of the report, each sentence with its boxes.",
        "[vqa] A fracture?",
        "[describe] What is in this box: {<10><10><30><40>}",  # of 200 x 100 pixels
    ]
    (phrase,) = line["phrases"]
    box = {"xmin": 20, "ymin": 20, "xmax": 60, "ymax": 40}
    assert phrase["phrase"] == "enlarged heart" and phrase["boxes"][0]["box"] == box
    assert phrase["present"] == pytest.approx(0.5)  # of the token that decides between a box and None
    assert [item["text"] for item in line["report"]] == ["The heart is enlarged.", "No effusion."]
    assert all(item["probability"] is None and item["doubtful"] is None for item in line["report"])
    assert [(item["text"], len(item["boxes"])) for item in line["grounded_report"]] == [
        ("Edema.", 1),
        ("No effusion.", 0),
    ]
    assert line["grounded_report"][0]["boxes"][0]["box"] == box
    assert line["replies"] == [{"question": "A fracture?", "text": "No.", "score": 0.5, "verified": False}]
    assert line["descriptions"][0]["box"] == {"xmin": 20, "ymin": 10, "xmax": 60, "ymax": 40}
    assert line["descriptions"][0]["verified"] is True and not any(line["malformed"].values())


def test_boxes_have_a_grammar_and_free_text_has_none(in_words, ask, pictures, tiny_checkpoint):
    ask(in_words.url, pictures / "3.png", tasks=QUESTIONS)
    refer, report, grounded, question, describe = in_words.requests
    grammar = LiteGPTProcessor.from_pretrained(tiny_checkpoint).answer_grammar
    assert refer["structured_outputs"] == {"grammar": grammar.ebnf("refer", 512)}
    assert grounded["structured_outputs"] == {"grammar": sentences_ebnf()}
    assert not any("structured_outputs" in request for request in (report, question, describe))


def test_that_a_phrase_is_not_seen_has_its_probability(ask, pictures):
    with running(lambda task, picture: ["Boxes of this phrase are ", "None", "."]) as server:
        server.logprobs = {"None": float(np.log(0.9))}
        _, (line,) = ask(server.url, pictures / "3.png", tasks=["refer: nodule"])
    assert line["phrases"] == [{"phrase": "nodule", "present": pytest.approx(0.1), "boxes": []}]
    with running(lambda task, picture: ["Boxes of this phrase are ", "None", "."]) as server:
        server.with_logprobs = False
        _, lines = ask(server.url, pictures / "2.png", tasks=["refer: nodule"])
    assert lines[1]["phrases"] == [{"phrase": "nodule", "present": None, "boxes": []}]


def test_a_report_that_is_cut_off_says_so(in_words, ask, pictures):
    in_words.finish_reason = "length"
    status, (line,) = ask(in_words.url, pictures / "3.png", tasks=["report"])
    assert status == 0 and line["report"] == [] and "it is cut off" in line["malformed"]["report"]


def test_a_second_view_is_sent_with_reports_alone(in_words, ask, pictures):
    _, (line,) = ask(
        in_words.url, pictures / "3.png", second_view=pictures / "5.png", tasks=["report", "question: A fracture?"]
    )
    report, question = in_words.requests
    kinds = [item["type"] for item in report["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"] and len(question["messages"][0]["content"]) == 2
    sent = [
        Image.open(BytesIO(base64.b64decode(i["image_url"]["url"].partition(",")[2])))
        for i in report["messages"][0]["content"][:2]
    ]
    assert [picture.getpixel((0, 0)) for picture in sent] == [60, 100]
    assert line["second_view"] == str(pictures / "5.png")


def test_other_questions_have_lines_of_their_own(in_words, ask, pictures):
    ask(in_words.url, pictures / "3.png", tasks=["report"])
    _, lines = ask(in_words.url, pictures / "3.png", tasks=["refer: nodule"])
    assert [line["tasks"] for line in lines] == [["report"], ["refer: nodule"]]
    del in_words.requests[:]
    _, again = ask(in_words.url, pictures / "3.png", tasks=["report"])
    assert again == lines and in_words.requests == []
    _, lines = ask(in_words.url, pictures / "3.png", second_view=pictures / "5.png", tasks=["report"])
    assert len(lines) == 3


def test_several_servers_divide_the_radiographs_of_predict_many(tiny_checkpoint, phantom_release, tmp_path):
    def answer(task, picture):
        return FINDINGS if task == "identify" else DIAGNOSES

    command = ["predict-many", "--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path / "out")]
    command += ["--format", "jsonl", "--shard_size", "4", "--batch_size", "4", "--num_workers", "1"]
    with running(answer) as first, running(answer) as second:
        urls = [first.url, second.url]
        assert main([*command, str(phantom_release / "test"), "--base_url", *urls]) == 0
        assert [len(server.requests) for server in (first, second)] == [8, 8]  # 8 radiographs, two questions each
    lines = [line for path in sorted((tmp_path / "out" / "results").iterdir()) for line in complete_lines(path)]
    assert len(lines) == 8 and {line["diagnoses"][0]["label"] for line in lines} == {"COPD"}
    # Another server may go on, and one that is not there ends the run with a sentence.
    next((tmp_path / "out" / "results").iterdir()).unlink()
    with pytest.raises(SystemExit, match="no answer from a server"):
        main([*command, str(phantom_release / "test"), "--base_url", first.url])
