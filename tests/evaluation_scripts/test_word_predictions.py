import json
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from PIL import Image

from litegpt.common.programs import Refusal
from litegpt.evaluation_scripts import word_predictions
from litegpt.evaluation_scripts.arguments import WordEvaluationArguments
from litegpt.evaluation_scripts.predictions import load_pipeline
from litegpt.evaluation_scripts.word_predictions import answer_words, sentence_beliefs, word_lines
from litegpt.processing.answers import sentences_to_text
from litegpt.processing.sentence_truth import probability_of
from litegpt.processing.tasks import join_question
from litegpt.processing.word_answers import spans_of_sentences

pytestmark = pytest.mark.usefixtures("one_thread")
WANTED = [
    (0, "refer", "enlarged heart"),
    (0, "refer", "no such thing"),
    (1, "refer", "enlarged heart"),
    (0, "report", None),
    (1, "grounded_report", None),
    (1, "question", "Is it: big?"),
    (2, "describe", "{<12><25><50><75>}"),
]


def box(*corners):
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))


@pytest.fixture
def args(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    return WordEvaluationArguments(
        str(tiny_checkpoint),
        str(phantom_release),
        str(tmp_path),
        batch_size=4,
        max_new_tokens=12,
        cache_dir=cache_dir,
    )


@pytest.fixture(scope="module")
def pipe(tiny_checkpoint, phantom_release, rows):
    return load_pipeline(WordEvaluationArguments(str(tiny_checkpoint), str(phantom_release), ""), rows)


def never():
    raise AssertionError("the model is asked")


def test_each_question_gets_its_own_entries_and_a_malformed_one_none():
    phrases = [
        {"phrase": f"{name}", "present": 0.5, "boxes": [{"score": 0.5, "box": box(0, 0, 0.1234567, 1)}]}
        for name in "ac"
    ]
    questions = [join_question("refer", name) for name in "abc"]
    output = {
        "phrases": phrases,
        "answers": dict(zip(questions, "ABC", strict=True)),
        "malformed": {questions[0]: None, questions[1]: "why", questions[2]: None},
        "warnings": ["dark"],
    }
    lines = list(word_lines("image", "refer", ["a", "b", "c"], output))
    assert [(line["about"], line["answer"], line["malformed"]) for line in lines] == [
        ("a", "A", None),
        ("b", "B", "why"),
        ("c", "C", None),
    ]
    assert [[entry["phrase"] for entry in line["phrases"]] for line in lines] == [["a"], [], ["c"]]
    assert lines[0]["phrases"][0]["boxes"] == [{"score": 0.5, "box": [0, 0, 0.12346, 1]}]
    assert lines[0]["warnings"] == ["dark"]
    sentences = [{"text": "A.", "probability": 0.5}, {"text": "B.", "probability": None}]
    report = {"report": sentences, "answers": {"report": "A. B."}, "malformed": {"report": None}}
    assert next(word_lines("image", "report", [None], report))["report"] == sentences


def test_an_interrupted_run_goes_on_after_the_last_line(args, rows, pipe, tmp_path, monkeypatch):
    path = tmp_path / "word_predictions.jsonl"
    first = answer_words(args, [*WANTED, WANTED[0]], rows, path, lambda: pipe)
    assert list(first) == WANTED  # what is wanted twice is asked once
    for (number, task, about), line in first.items():
        assert (line["image_id"], line["task"], line["about"]) == (rows[number]["image_id"], task, about)
        asked_alone = pipe(
            {"images": [rows[number]["image"]], "tasks": [join_question(task, about)]}, max_new_tokens=12
        )
        assert line["answer"] == asked_alone["answers"][join_question(task, about)]
    texts = path.read_text().splitlines(keepends=True)
    assert len(texts) == len(WANTED)

    path.write_text("".join(texts[:3]) + texts[3][:15])  # the fourth line was being written
    asked = []
    lines_of = word_predictions.word_lines
    monkeypatch.setattr(word_predictions, "word_lines", lambda *given: asked.append(given[2]) or lines_of(*given))
    again = answer_words(args, WANTED, rows, path, lambda: pipe)
    assert sum(map(len, asked)) == 4 and {key: line["answer"] for key, line in again.items()} == {
        key: line["answer"] for key, line in first.items()
    }
    assert answer_words(args, WANTED[:2], rows, path, never) == {key: again[key] for key in WANTED[:2]}


def test_answers_of_other_settings_are_refused(args, rows, pipe, tmp_path):
    path = tmp_path / "word_predictions.jsonl"
    answer_words(args, WANTED[:1], rows, path, lambda: pipe)
    for changes in ({"split": "train"}, {"max_new_tokens": 13}, {"template_words": True}):
        with pytest.raises(Refusal, match="predictions of another checkpoint, split or data set"):
            answer_words(replace(args, **changes), WANTED[:1], rows, path, never)


def test_a_second_view_is_told_to_reports_alone(args, rows, pipe, tmp_path):
    wanted = [(0, "refer", "enlarged heart"), (0, "report", None), (1, "report", None)]
    lines = answer_words(args, wanted, rows, tmp_path / "lines.jsonl", lambda: pipe, {0: 5})
    other = rows[5]["image_id"]
    assert [line.get("second_view") for line in lines.values()] == [None, other, None]
    together = pipe({"images": [rows[0]["image"], rows[5]["image"]], "tasks": ["report"]}, max_new_tokens=12)
    assert lines[wanted[1]]["answer"] == together["answers"]["report"]


def test_a_picture_that_cannot_be_read_is_named(args, pipe, tmp_path):
    rows = Dataset.from_dict({"image_id": ["a", "b"], "image": [Image.new("L", (64, 64)), None]})
    with pytest.raises(Refusal, match=r"^b: the row has no picture"):
        answer_words(args, [(1, "report", None)], rows, tmp_path / "lines.jsonl", lambda: pipe)


@pytest.mark.parametrize("task", ["report", "grounded_report"])
def test_beliefs_are_those_of_the_pipeline_and_are_kept(args, rows, pipe, tmp_path, task, monkeypatch):
    """What the pipeline states of sentences that it wrote, and the same of sentences of anybody."""
    sentences = ["There is cardiomegaly.", "There is no edema."]
    answer = (
        " ".join(sentences)
        if task == "report"
        else sentences_to_text([(text, [[0, 0, 0.5, 0.5]]) for text in sentences])
    )
    assert len(spans_of_sentences(task, answer)) == 2
    path = tmp_path / "sentence_beliefs.jsonl"
    wanted = [(number, answer) for number in range(6)] + [(0, answer.split(" <p>")[0].split(". ")[0])]
    beliefs = sentence_beliefs(args, wanted, task, rows, path, lambda: pipe)
    assert all(len(beliefs[number, answer]) == 2 for number in range(6))
    assert len({tuple(beliefs[number, answer]) for number in range(6)}) > 1  # they look at the picture
    # The model writes this answer itself.
    generate, ids = pipe.model.generate, [*pipe.processor.answer_ids(answer), pipe.tokenizer.eos_token_id]

    def recited(**given):
        generate(**given)  # the pipeline's recorder wants its steps
        return torch.cat([given["input_ids"], torch.tensor([ids])], dim=1)

    monkeypatch.setattr(pipe.model, "generate", recited)
    output = pipe({"images": [rows[0]["image"]], "tasks": [task]}, max_new_tokens=99)
    stated = [entry["probability"] for entry in output[task]]
    calibration = pipe.processor.sentence_calibration
    assert stated == pytest.approx([probability_of(odds, calibration) for odds in beliefs[0, answer]], rel=1e-4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert sentence_beliefs(args, wanted[:-1], task, rows, path, never) == {key: beliefs[key] for key in wanted[:-1]}
    assert json.loads(lines[0])["log_odds"] == beliefs[0, answer]
    with pytest.raises(Refusal):
        sentence_beliefs(args, wanted, "report" if task != "report" else "grounded_report", rows, path, never)
