"""Questions of a checkpoint in this process; of a server, `test_ask_server.py`."""

import json
import shutil

import pytest
from PIL import Image

from litegpt.command import main
from litegpt.common.files import complete_lines


@pytest.fixture
def ask(tiny_checkpoint, capsys):
    """Runs the program; returns its status and what it prints."""

    def run(*words, checkpoint=tiny_checkpoint):
        status = main(["ask", "--model_name_or_path", str(checkpoint), *map(str, words)])
        return status, capsys.readouterr().out

    return run


@pytest.fixture
def picture(phantom_release):
    return sorted((phantom_release / "test").iterdir())[0]


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit):
        main(["ask", *map(str, words)])
    return capsys.readouterr().err


def test_a_phrase_is_answered_on_the_terminal_in_words_and_nothing_is_written(ask, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, said = ask("--task", "refer", "--phrase", "enlarged heart", picture)
    assert status == 0 and '"enlarged heart": ' in said and "seen, probability" in said
    assert "Caution: not trained to answer" in said and "answered" not in said
    assert list(tmp_path.iterdir()) == []


def test_the_words_on_the_terminal_are_those_of_the_line_also_where_it_was_there(ask, picture, tmp_path):
    words = ["--task", "describe", "--box", 10, 20, 60, 80, "--max_new_tokens", 30, "--output_dir", tmp_path, picture]
    _, said = ask(*words)
    (line,) = complete_lines(tmp_path / "predictions.jsonl")
    assert line["tasks"] == ["describe: 10 20 60 80"] and list(line["answers"]) == ["describe: {<8><16><47><62>}"]
    if line["malformed"]["describe: {<8><16><47><62>}"] is None:
        assert line["descriptions"][0]["text"] in said
    else:
        assert "it is cut off" in said
    assert ask(*words)[1] == said and len(complete_lines(tmp_path / "predictions.jsonl")) == 1


def test_without_tasks_findings_and_diagnoses_are_those_of_predict(ask, picture, tiny_checkpoint, tmp_path):
    ask(picture, "--output_dir", tmp_path / "asked")
    main(
        ["predict", "--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path / "out"), str(picture)]
    )
    (asked,), (line,) = (complete_lines(tmp_path / name / "predictions.jsonl") for name in ("asked", "out"))
    del line["overlay"]
    assert asked == line and set(line["answers"]) == {"identify", "vqa"}


def test_a_box_that_is_none_of_a_radiograph_is_named_and_the_others_are_answered(
    tiny_checkpoint, picture, tmp_path, capsys
):
    Image.new("L", (64, 64), 90).save(tmp_path / "small.png")
    words = ["--task", "describe", "--box", 10, 20, 100, 120, "--max_new_tokens", 5, "--output_dir", tmp_path / "out"]
    words += ["--model_name_or_path", tiny_checkpoint, picture, tmp_path / "small.png"]
    assert main(["ask", *map(str, words)]) == 1
    assert "small.png: --box 10 20 100 120 is none in its 64 x 64 pixels" in capsys.readouterr().err
    assert len(complete_lines(tmp_path / "out" / "predictions.jsonl")) == 1


def test_a_task_that_the_checkpoint_does_not_know_is_one_sentence(ask, picture, tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "old")
    path = tmp_path / "old" / "processor_config.json"
    config = json.loads(path.read_text())
    del config["instructions"]["refer"]
    path.write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="no instruction for the task 'refer'; this checkpoint knows: chat, describe"):
        ask("--task", "refer", "--phrase", "a", picture, checkpoint=tmp_path / "old")


def test_a_task_that_it_was_never_trained_to_answer_is_a_warning_that_travels(ask, picture, tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "trained")
    path = tmp_path / "trained" / "config.json"
    entry = {"tasks": ["identify"], "trained": "all", "data_set": {"name": "made up"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training_record": [entry]}))
    _, said = ask("--task", "refer", "--phrase", "a", picture, checkpoint=tmp_path / "trained")
    assert "Warning: the checkpoint was never trained to answer [refer]: its answer means nothing" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--task", "refer"], "--task refer needs --phrase"),
        (["--task", "report", "--phrase", "a"], "--phrase needs --task refer"),
        (["--task", "describe", "--question", "a"], "--task describe needs --box"),
        (["--tasks", "report", "report"], "--tasks has the same question twice"),
        (["--task", "reprot"], "one of identify, vqa, grounding, refer"),
        (["--tasks", "report: lungs"], "is about the radiograph alone"),
        (["--task", "question", "--question", "a", "--second_view"], "--second_view is told to reports"),
    ],
)
def test_a_question_that_is_none_is_one_sentence(capsys, picture, words, sentence):
    words = [*words, str(picture)] if words[-1] == "--second_view" else words
    assert sentence in refused(capsys, picture, "--model_name_or_path", "any", *words)


def test_a_second_view_is_of_one_radiograph_and_has_to_be_one(ask, capsys, picture, tmp_path):
    words = ["--model_name_or_path", "any", "--second_view", picture, "--task", "report"]
    assert "give one radiograph" in refused(capsys, picture, picture, *words)
    (tmp_path / "none.dcm").write_text("no radiograph")
    with pytest.raises(SystemExit, match="none.dcm: it is neither a DICOM file nor a picture"):
        ask(picture, "--second_view", tmp_path / "none.dcm", "--task", "report")


def test_a_report_of_two_views_has_a_line_of_its_own(ask, phantom_release, tmp_path):
    picture, second = sorted((phantom_release / "test").iterdir())[:2]
    words = [picture, "--output_dir", tmp_path, "--max_new_tokens", 20, "--task", "report"]
    ask(*words)
    ask(*words, "--second_view", second)
    one, two = complete_lines(tmp_path / "predictions.jsonl")
    assert "second_view" not in one and two["second_view"] == str(second) and len(two["second_view_sha256"]) == 64
    assert one["answers"].keys() == two["answers"].keys() == {"report"}
