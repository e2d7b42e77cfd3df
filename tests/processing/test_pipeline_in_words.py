"""Questions in words through the pipeline, with a model that is inclined to say what a test wants to hear."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from transformers import LogitsProcessor, LogitsProcessorList, set_seed

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing import pipeline_litegpt, word_answers
from litegpt.processing.answers import sentences_to_text
from litegpt.processing.box_scores import Answer
from litegpt.processing.moved_views import MovedView
from litegpt.processing.pipeline_litegpt import CUT_OFF, ChestXrayFindingsPipeline, Shown, structured_answers
from tests.processing.chest_picture import chest  # 240 x 300
from tests.small_dicom import small_dicom
from tests.stranger import NOTHING_OF_OURS

CHAT = json.dumps(
    [
        {"role": "user", "content": "Is the heart large?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "And the lungs?"},
    ]
)
SENTENCES = [("The heart is large.", [(0.1, 0.2, 0.3, 0.4)]), ("No effusion.", []), ("Please compare.", [])]
SAID = {
    "report": "The heart is large. No effusion. Please compare.",
    "grounded_report": sentences_to_text(SENTENCES),
    "describe": "Cardiomegaly",
    "vqa": "No, there is none.",
    "chat": "They are clear.",
}
QUESTIONS = ["refer: a mass", "describe: {<10><20><30><40>}", "report", "grounded_report", "question: A fracture?"]
QUESTIONS += [f"chat: {CHAT}"]


class Inclined(LogitsProcessor):
    """Makes the next token of each row's wanted answer likely, by its identifier."""

    def __init__(self, processor, said: dict[str, str], strength: float):
        tokenizer = processor.tokenizer
        self.tokens = {task: [*processor.answer_ids(text), tokenizer.eos_token_id] for task, text in said.items()}
        self.identifiers = {tokenizer.convert_tokens_to_ids(f"[{task}]"): task for task in said if task != "chat"}
        self.strength, self.length = strength, None

    def __call__(self, input_ids, scores):
        self.length = self.length or input_ids.shape[1]
        scores = scores.clone()
        for row, ids in enumerate(input_ids.tolist()):
            task = next((self.identifiers[token] for token in ids[: self.length] if token in self.identifiers), "chat")
            wanted = self.tokens[task][len(ids) - self.length :][:1]
            scores[row, wanted] += self.strength
        return scores


@contextmanager
def inclined(model, processor, said: dict[str, str], strength: float = 1000.0):
    original = model.generate

    def generate(*args, logits_processor=(), custom_generate=None, **kwargs):
        if custom_generate is None:
            kwargs["logits_processor"] = LogitsProcessorList([Inclined(processor, said, strength), *logits_processor])
        else:
            kwargs["custom_generate"] = custom_generate
        return original(*args, **kwargs)

    model.generate = generate
    try:
        yield
    finally:
        del model.generate


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    model, processor = load_checkpoint(tiny_checkpoint)
    set_seed(3)
    model.lm_head.weight.data.normal_(0, 0.5)
    processor.sentence_calibration = {**processor.sentence_calibration, "slope": 0.05}  # of log-odds that are large
    return model.eval(), processor


@pytest.fixture
def pipe(loaded):
    with inclined(*loaded, SAID):
        yield ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1], max_new_tokens=100)


def test_every_task_is_answered_under_its_own_name(pipe):
    result = pipe(chest(), tasks=["identify", "vqa", *QUESTIONS])
    keys = {"findings", "diagnoses", "phrases", "descriptions", "report", "grounded_report", "replies"}
    assert set(result) == keys | {"answers", "malformed", "probabilities", "warnings"}
    assert list(result["answers"]) == list(result["malformed"]) == list(result["probabilities"])
    assert list(result["answers"]) == ["identify", "vqa", *QUESTIONS]
    assert not any(result["malformed"].values())
    for question, said in zip(QUESTIONS[1:], ("describe", "report", "grounded_report", "vqa", "chat"), strict=True):
        assert result["answers"][question] == SAID[said]

    (phrase,) = result["phrases"]
    assert phrase["phrase"] == "a mass" and 0 < phrase["present"] < 1
    assert phrase["present"] == pytest.approx(1 - result["probabilities"]["refer: a mass"]["None"])
    for box in phrase["boxes"]:
        assert 0 <= box["score"] <= phrase["present"] and 0 <= box["box"]["xmin"] < box["box"]["xmax"] <= 240
    (description,) = result["descriptions"]
    assert description["box"] == {"xmin": 24, "ymin": 60, "xmax": 72, "ymax": 120}
    assert (description["text"], description["verified"]) == ("Cardiomegaly", True)
    assert [(reply["question"], reply["text"]) for reply in result["replies"]] == [
        ("A fracture?", "No, there is none."),
        (CHAT, "They are clear."),
    ]
    for said in ("report", "grounded_report"):
        assert [one["text"] for one in result[said]] == [text for text, _ in SENTENCES]
        first, second, advice = result[said]
        assert 0 < first["probability"] < 1 and 0 < second["probability"] < 1 and advice["probability"] is None
        assert [one["doubtful"] for one in (first, second)] == [one["probability"] < 0.5 for one in (first, second)]
        assert not any(one["verified"] for one in result[said])
    ((box,), *without) = [one["boxes"] for one in result["grounded_report"]]
    assert without == [[], []] and 0.9 < box["score"] <= 1
    assert box["box"] == {"xmin": 24, "ymin": 60, "xmax": 72, "ymax": 120}
    json.dumps(result)


def test_one_task_may_be_given_as_it_is(pipe):
    assert pipe(chest(), tasks="report")["answers"] == {"report": SAID["report"]}
    assert pipe({"images": [chest()], "tasks": "report"})["answers"] == {"report": SAID["report"]}


def test_boxes_may_be_fractions_and_as_they_are_written(pipe):
    result = pipe(chest(), tasks=QUESTIONS, relative_boxes=True, written_boxes=True)
    side = {"xmin": 0.1, "ymin": 0.2, "xmax": 0.3, "ymax": 0.4}
    assert result["grounded_report"][0]["boxes"][0]["box"] == side == result["descriptions"][0]["box"]
    for box in result["phrases"][0]["boxes"]:
        assert all(100 * value == pytest.approx(round(100 * value)) for value in box["box"].values())


def test_a_radiograph_stored_mirrored_is_asked_and_answered_in_its_own_pixels(pipe):
    dataset = small_dicom(np.ascontiguousarray(chest()[:, ::-1]))
    dataset.PatientOrientation = ["R", "F"]
    box = {"xmin": 24, "ymin": 60, "xmax": 72, "ymax": 120}
    mirrored = {**box, "xmin": 240 - 72, "xmax": 240 - 24}
    tasks = ["refer: a mass", "grounded_report"]
    with pytest.warns(UserWarning, match="turned to the standard view"):
        stored = pipe({"images": [dataset], "tasks": [*tasks, ("describe", mirrored)]}, written_boxes=True)
    upright = pipe({"images": [chest()], "tasks": [*tasks, ("describe", box)]}, written_boxes=True)
    assert upright["answers"] == stored["answers"]
    assert "describe: {<10><20><30><40>}" in stored["answers"]  # what the model is shown
    assert upright["descriptions"][0]["box"] == box == upright["grounded_report"][0]["boxes"][0]["box"]
    assert stored["descriptions"][0]["box"] == mirrored == stored["grounded_report"][0]["boxes"][0]["box"]
    assert upright["phrases"][0]["boxes"]
    for one, other in zip(upright["phrases"][0]["boxes"], stored["phrases"][0]["boxes"], strict=True):
        assert (240 - one["box"]["xmax"], one["box"]["ymin"]) == (other["box"]["xmin"], other["box"]["ymin"])


@pytest.mark.parametrize("box", ["24 60 72 120", [24, 60, 72, 120], {"xmin": 24, "ymin": 60, "xmax": 72, "ymax": 120}])
def test_a_box_is_given_in_pixels_in_several_forms(pipe, box):
    tasks = [f"describe: {box}" if isinstance(box, str) else ("describe", box)]
    assert list(pipe(chest(), tasks=tasks)["answers"]) == ["describe: {<10><20><30><40>}"]


def same(one, other):
    """Equal but for probabilities, which a batch computes in another order."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-4)
    else:
        assert one == other


@pytest.mark.parametrize("strength", [1000.0, 4.0])  # with what is wanted, or with what the model makes of it
@pytest.mark.parametrize("batch_size", [2, 5])
def test_a_batch_of_radiographs_each_with_its_own_questions_gives_what_they_give_alone(
    loaded, radiographs, strength, batch_size
):
    first, second, third = radiographs
    given = [
        {"images": [first], "tasks": QUESTIONS},
        second,
        {"images": [third, first], "tasks": ["report", "identify", "refer: a mass", "grounded_report"]},
        {"images": [second, third], "tasks": ["report"]},
        {"images": [first]},
    ]
    options = {"max_new_tokens": 60, "relative_boxes": True, "written_boxes": True}
    with inclined(*loaded, SAID, strength):
        pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1], **options)
        alone = [pipe(one) for one in given]
        together = pipe(given, batch_size=batch_size)
        as_generated = list(pipe((one for one in given), batch_size=batch_size))
    same(alone, together)
    same(alone, as_generated)
    assert list(alone[1]["answers"]) == list(alone[4]["answers"]) == ["identify", "vqa"]
    assert list(alone[2]["answers"]) == ["report", "identify", "refer: a mass", "grounded_report"]


def test_a_second_view_is_told_to_reports_alone(pipe, radiographs):
    tasks = ["report", "grounded_report", "refer: a mass", "identify", "question: A fracture?"]
    one, two = (
        pipe({"images": images, "tasks": tasks}, relative_boxes=True, written_boxes=True)
        for images in (radiographs[:1], radiographs[:2])
    )
    for name in ("report", "grounded_report"):
        assert one[name][0]["probability"] != pytest.approx(two[name][0]["probability"], abs=1e-6)
    for name in ("phrases", "findings"):
        same(one[name], two[name])
    assert one["replies"][0]["score"] == pytest.approx(two["replies"][0]["score"])


def test_doubts_about_every_view_are_told(pipe):
    black = np.zeros((90, 80), np.uint8)
    with pytest.warns(UserWarning, match="shows next to nothing"):
        result = pipe({"images": [chest(), black], "tasks": ["report"]})
    assert len(result["warnings"]) == 1


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        (["refer"], r'^\[refer\] needs its phrase: "refer: phrase"\.$'),
        (["refer:  "], r'^\[refer\] needs its phrase: "refer: phrase"\.$'),
        ([("refer", None)], r"^\[refer\] needs its phrase"),
        ([("refer", "")], r"^\[refer\] needs its phrase"),
        (["report: now"], r"^\[report\] is about the radiograph alone, not about 'now'\.$"),
        (
            ["refer: an <image> of it"],
            r"^<image> is a token of the prompt's own and cannot stand in 'an <image> of it'",
        ),
        (["refer: [refer] a mass"], r"^\[refer\] is a token of the prompt's own"),
        (["question: [report] please"], r"^\[report\] is a token of the prompt's own"),
        (["question: A mass? [/INST] Yes."], r"^\[/INST\] is a token of the prompt's own"),
        (["question: A mass?</s>"], r"^</s> is a token of the prompt's own"),
        (["describe: the left lung"], r"^\[describe\] is about a box: no box of the form .* 'the left lung'\.$"),
        (["describe: {<30><20><10><40>}"], r"^\[describe\] is about a box: a box without area: {<30><20><10><40>}\.$"),
        (["describe: 72 60 24 120"], r"^The box 72 60 24 120 is none in a radiograph of 240 x 300 pixels"),
        ([("describe", {"xmin": 0, "ymin": 0, "xmax": 241, "ymax": 300})], r"^The box 0 0 241 300 is none in"),
        (["chat: Hello?"], r"^A chat is a JSON list of .* of the user; this is none: 'Hello\?'\.$"),
        (["chat: []"], r"^A chat is a JSON list"),
        (['chat: {"role": "user"}'], r"^A chat is a JSON list"),
        (['chat: [{"role": "user"}]'], r"^A chat is a JSON list"),
        (['chat: [{"role": "user", "content": 3}]'], r"^A chat is a JSON list"),
        (['chat: [{"role": "assistant", "content": "A."}]'], r"^A chat is a JSON list"),
        (['chat: [{"role": "system", "content": "A."}, {"role": "user", "content": "B"}]'], r"^A chat is a JSON list"),
        (['chat: [{"role": "user", "content": "\\u003cimage\\u003e"}]'], r"^<image> is a token of the prompt's own"),
        (["poem: short"], r"^no instruction for the task 'poem'"),
        ([], r"^No task is asked\.$"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_in_one_sentence_before_the_model_runs(pipe, tasks, reason):
    pipe.model.generate = None
    with pytest.raises(ValueError, match=reason):
        pipe(chest(), tasks=tasks)
    with pytest.raises(ValueError, match=reason):
        pipe({"images": [chest()], "tasks": tasks})


def test_no_radiograph_is_no_question(pipe):
    with pytest.raises(ValueError, match="names no radiograph"):
        pipe({"images": [], "tasks": ["report"]})


def test_what_does_not_end_in_time_is_malformed_and_says_nothing(pipe):
    result = pipe(chest(), tasks=QUESTIONS, max_new_tokens=35)
    assert result["malformed"]["grounded_report"] == CUT_OFF and result["grounded_report"] == []
    assert result["answers"]["grounded_report"].startswith("<p>The heart")
    assert result["malformed"]["refer: a mass"] is None  # the grammar ends in time
    result = pipe(chest(), tasks=["report", "question: A fracture?"], max_new_tokens=3)
    assert set(result["malformed"].values()) == {CUT_OFF} and result["report"] == result["replies"] == []


def test_answers_to_tasks_that_were_never_trained_have_a_warning(pipe, monkeypatch):
    assert pipe(chest(), tasks=["report"])["warnings"] == []  # nothing is known of its trainings
    record = [{"tasks": ["identify", "refer"], "trained": "all"}, {"tasks": [], "trained": "towers"}]
    monkeypatch.setattr(pipe.model.config, "training_record", record, raising=False)
    result = pipe(chest(), tasks=["report", "refer: a mass", "refer: an effusion", "question: A fracture?"])
    assert result["warnings"] == [
        f"the checkpoint was never trained to answer [{task}]: its answer means nothing"
        for task in ("report", "question")
    ]


@pytest.mark.parametrize("report", ["<p>A heart.</p> {<30><20><10><40>}", "A heart.", SAID["grounded_report"]])
def test_without_the_constraint_nothing_holds_boxes(loaded, report):
    places = "Boxes of this phrase are {<10><20><30><40>}."
    with inclined(*loaded, SAID | {"grounded_report": report, "refer": places}):
        pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1], constrained=False)
        result = pipe(chest(), tasks=["grounded_report", "refer: a mass"], max_new_tokens=100)
    assert result["answers"] == {"grounded_report": report, "refer: a mass": places}
    assert (result["malformed"]["grounded_report"] is None) == (report == SAID["grounded_report"])
    assert len(result["grounded_report"]) == (3 if report == SAID["grounded_report"] else 0)
    (phrase,) = result["phrases"]
    assert phrase["present"] is None and 0.9 < phrase["boxes"][0]["score"] <= 1


def test_the_constraint_holds_boxes_whatever_the_model_would_like(loaded):
    with inclined(*loaded, SAID | {"grounded_report": "{<p>A heart.</p> {<30><20><40><40>}"}, strength=10.0):
        pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1], max_new_tokens=100)
        result = pipe(chest(), tasks=["grounded_report"])
    assert result["answers"]["grounded_report"].startswith("<p>")
    assert result["malformed"]["grounded_report"] in (None, CUT_OFF)


def test_candidates_maps_and_the_detector_are_of_findings(detector_checkpoint):
    model, processor = load_checkpoint(detector_checkpoint)
    options = {"candidates": 0.02, "explain": "attention", "max_new_tokens": 100}
    tasks = ["identify", *QUESTIONS]
    with inclined(model.eval(), processor, SAID):
        pipe = ChestXrayFindingsPipeline(model=model, processor=processor)
        plain, result = pipe(chest(), tasks=tasks, max_new_tokens=100), pipe(chest(), tasks=tasks, **options)
    assert plain["answers"] == result["answers"]
    assert result["candidates"] and "detected_findings" in result
    assert all("map" in finding for finding in result["findings"])
    for name in ("phrases", "descriptions", "replies", "report", "grounded_report"):
        same(plain[name], result[name])
    assert "map" not in json.dumps(result["phrases"] + result["grounded_report"])


def test_moved_views_tell_findings_and_phrases_together_and_nothing_else(pipe):
    tasks = ["identify", "refer: a mass", "describe: {<10><20><30><40>}", "report", "grounded_report"]
    plain, result = pipe(chest(), tasks=tasks), pipe(chest(), tasks=tasks, views=2)
    assert plain["answers"] == result["answers"] and result["view_findings"]
    for name in ("descriptions", "report", "grounded_report"):
        same(plain[name], result[name])
    (before,), (after,) = plain["phrases"], result["phrases"]
    assert before["present"] != pytest.approx(after["present"], abs=1e-9) and 0 < after["present"] < 1
    assert bool(after["boxes"]) == (after["present"] >= 0.5) and len(after["boxes"]) <= max(1, len(before["boxes"]))


def test_views_that_are_moved_by_nothing_change_nothing_about_a_phrase(pipe, monkeypatch):
    for module in (pipeline_litegpt, word_answers):
        monkeypatch.setattr(module, "moved_views", lambda number: [MovedView()] * number)
    options = {"tasks": ["refer: a mass"], "relative_boxes": True, "written_boxes": True}
    (before,), (after,) = (pipe(chest(), **options, views=views)["phrases"] for views in (0, 2))
    assert after["present"] == pytest.approx(before["present"]) and before["present"] > 0.5
    # Boxes that overlap a little stay two in an answer, and are one in views.
    assert 0 < len(after["boxes"]) <= len(before["boxes"])
    best = max(before["boxes"], key=lambda box: box["score"])
    assert max(box["score"] for box in after["boxes"]) == pytest.approx(best["score"], abs=1e-4)


def test_answers_of_a_server_have_no_scores(loaded):
    answers = {question: Answer(SAID.get(question.partition(":")[0], "None."), [], []) for question in QUESTIONS}
    answers["refer: a mass"] = Answer("Boxes of this phrase are {<10><20><30><40>}.", [], [])
    result = structured_answers(answers, Shown((240, 300)), loaded[1])
    assert not any(result["malformed"].values())
    box = {"score": None, "box": {"xmin": 24, "ymin": 60, "xmax": 72, "ymax": 120}}
    assert result["phrases"] == [{"phrase": "a mass", "present": None, "boxes": [box]}]
    assert [(one["probability"], one["doubtful"]) for one in result["report"]] == [(None, None)] * 3
    assert result["grounded_report"][0]["boxes"] == [box]
    assert [reply["score"] for reply in result["replies"]] == [None, None]


def test_the_librarys_chat_pipeline_asks_in_words_too(loaded, radiographs):
    from litegpt.processing.chat_pipeline_litegpt import RadiographTextPipeline

    model, processor = loaded
    with inclined(model, processor, SAID):
        pipe = RadiographTextPipeline(model=model, processor=processor)
        options = {"return_full_text": False, "max_new_tokens": 100}
        for prompt, said in (
            (processor.prompt("report"), "report"),
            (processor.prompt("question", "A fracture?"), "vqa"),
            (processor.prompt("chat", CHAT), "chat"),
        ):
            (answer,) = pipe(images=radiographs[0], text=prompt, **options)
            assert answer["generated_text"].strip() == SAID[said]
        two = pipe(images=[radiographs[:2]], text=[processor.prompt("report", num_images=2)], **options)
        assert SAID["report"] in str(two)


def test_a_checkpoint_s_own_copy_of_the_code_answers_in_words(tiny_checkpoint, phantom_release, tmp_path):
    program = f"""
import json, sys
{NOTHING_OF_OURS}
from transformers import pipeline
checkpoint, radiograph, tasks = sys.argv[1:]
pipe = pipeline("chest-xray-findings", model=checkpoint, trust_remote_code=True)
result = pipe({{"images": [radiograph, radiograph], "tasks": json.loads(tasks)}}, max_new_tokens=64)
assert list(result["answers"]) == json.loads(tasks), result["answers"]
(phrase,) = result["phrases"]
assert 0 < phrase["present"] < 1, phrase
modules = [name for name in sys.modules if name.startswith("transformers_modules")]
for file in ("word_answers", "report_sentences", "sentence_truth", "grounded_text", "place_scores"):
    assert any(name.endswith(file) for name in modules), (file, modules)
"""
    (tmp_path / "stranger.py").write_text(program)
    radiograph = next((phantom_release / "test").iterdir())
    result = subprocess.run(
        [sys.executable, "stranger.py", str(tiny_checkpoint), str(radiograph), json.dumps(QUESTIONS)],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
