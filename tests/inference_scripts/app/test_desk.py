"""What the page asks, without a browser and without Gradio."""

import base64
import json
import shutil
from io import BytesIO
from types import SimpleNamespace

import pydicom
import pytest
from PIL import Image

from litegpt.common.overlay import is_drawn
from litegpt.inference_scripts.app.desk import question_note


def sent(desk, path, name="a.dicom") -> dict:
    """What the page gets of a file that was uploaded."""
    upload = desk.uploads / name
    shutil.copy(path, upload)
    return desk.receive({"session": "s", "path": str(upload), "name": name})


@pytest.fixture
def answered(desk, answered_checkpoint):
    received = sent(desk, answered_checkpoint[1])
    return received["token"], desk.answer({"token": received["token"]})


def test_a_file_leaves_the_disk_when_it_is_read(desk, answered_checkpoint):
    received = sent(desk, answered_checkpoint[1])
    assert received["is_dicom"] and (received["width"], received["height"]) == (128, 128)
    assert list(desk.uploads.iterdir()) == []


def test_no_file_of_the_machine_is_read_that_was_not_sent(desk, tmp_path, answered_checkpoint):
    for path in (answered_checkpoint[1], desk.uploads / ".." / "secret", "/etc/passwd"):
        reply = desk.receive({"session": "s", "path": str(path), "name": "a"})
        assert reply == {"error": "Only files that were sent are read."}
    assert answered_checkpoint[1].exists()
    (desk.uploads / "link").symlink_to(answered_checkpoint[1])
    assert "error" in desk.receive({"session": "s", "path": str(desk.uploads / "link"), "name": "a"})
    assert answered_checkpoint[1].exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "Cannot use a.dcm: it is empty."),
        (b"no radiograph", "Cannot use a.dcm: it is neither a DICOM file nor a picture (PNG, JPEG, ...)."),
    ],
)
def test_a_bad_file_is_one_sentence_with_the_name_that_its_owner_knows(desk, tmp_path, data, sentence):
    (tmp_path / "bad").write_bytes(data)
    assert sent(desk, tmp_path / "bad", "a.dcm") == {"error": sentence}


def test_what_was_dropped_from_memory_is_asked_for_again(desk, answered):
    token, _ = answered
    desk.shelf.forget("s")
    for reply in (desk.answer({"token": token}), desk.pixels({"token": token}), desk.explain({"token": token})):
        assert reply["gone"] and "drop the file again" in reply["error"]


def test_no_path_of_the_machine_and_no_patients_tag_stands_in_what_is_taken_away(desk, answered, answered_checkpoint):
    token, reply = answered
    folder, path = answered_checkpoint
    made = desk.download({"token": token, "kind": "json"})
    text = base64.b64decode(made["data"]).decode()
    line = json.loads(text)
    assert line["file"] == "a.dicom" and line["findings"] and made["name"] == "a.json"
    assert str(folder) not in text and line["model"] == line["checkpoint"] and str(desk.uploads) not in text
    name = str(pydicom.dcmread(path).get("PatientName", ""))
    assert name and name not in text and name not in json.dumps(reply)


def test_the_picture_says_of_itself_that_it_is_drawn_and_is_refused_when_it_comes_back(desk, answered, tmp_path):
    token, _ = answered
    data = base64.b64decode(desk.download({"token": token, "kind": "overlay"})["data"])
    assert is_drawn(data) and Image.open(BytesIO(data)).width >= 512
    (tmp_path / "overlay.png").write_bytes(data)
    assert "no radiograph" in sent(desk, tmp_path / "overlay.png", "overlay.png")["error"]


def test_dicom_objects_have_what_reaches_its_operating_point(desk, answered, answered_checkpoint):
    pytest.importorskip("highdicom", reason='needs highdicom, of the extra dicom: pip install ".[dicom]"')
    token, reply = answered
    rows = reply["shown"]["sources"][0]["rows"]
    above = sum(row["above"] for row in rows)
    assert 0 < above < len(rows)
    made = {kind: desk.download({"token": token, "kind": kind}) for kind in ("SR", "PR")}
    assert [made[kind]["name"] for kind in made] == ["a_structured_report.dcm", "a_presentation_state.dcm"]
    report, state = (pydicom.dcmread(BytesIO(base64.b64decode(one["data"]))) for one in made.values())
    study = pydicom.dcmread(answered_checkpoint[1], stop_before_pixels=True).StudyInstanceUID
    assert report.StudyInstanceUID == state.StudyInstanceUID == study
    lines = [
        graphic for layer in state.GraphicAnnotationSequence for graphic in layer.get("GraphicObjectSequence", [])
    ]
    assert len(lines) == above


def test_a_download_that_there_is_not_is_a_sentence(desk, answered):
    token, _ = answered
    assert "there is no download 'xyz'" in desk.download({"token": token, "kind": "xyz"})["error"]


def test_the_map_of_a_finding_is_a_transparent_picture_in_the_radiographs_proportions(desk, answered):
    token, reply = answered
    row = reply["shown"]["sources"][0]["rows"][0]
    for of_answer in (True, False):
        made = desk.explain({"token": token, "label": row["label"], "index": row["index"], "of_answer": of_answer})
        picture = Image.open(BytesIO(base64.b64decode(made["picture"].partition(",")[2])))
        assert picture.mode == "RGBA" and picture.size == (512, 512) and made["low"] < made["high"]


def test_more_is_found_where_it_is_asked_for(desk, answered):
    token, _ = answered
    shown = desk.answer({"token": token, "candidates": True, "views": 1})["shown"]
    assert [source["key"] for source in shown["sources"]] == ["findings", "candidates", "view_findings"]
    line = desk.shelf.get(token).line
    assert line["with_candidates"] is True and line["views"] == 1


def test_a_question_gets_the_models_words_and_what_speaks_against_them(desk, answered):
    token, _ = answered
    own = f"[vqa] {desk.processor.instructions['vqa']}"
    reply = desk.question({"token": token, "text": own})
    assert isinstance(reply["text"], str) and reply["note"] is None
    assert desk.question({"token": token, "text": " "}) == {"error": "The question is empty."}
    assert "error" in desk.question({"token": token, "text": "What is this? <image>"})
    assert "own questions alone ([" in question_note("Is the heart large?", desk.processor)
    assert "does not know [caption]" in question_note("[caption] the heart", desk.processor)


def test_a_phrase_is_found_and_stands_in_what_is_taken_away_but_not_in_what_is_filed(desk, answered):
    token, _ = answered
    assert desk.about()["words"] == ["refer", "question", "report", "grounded_report"]
    reply = desk.words({"token": token, "task": "refer", "about": " enlarged heart "})
    (row,) = reply["rows"]
    assert reply["question"] == "refer: enlarged heart" and row["text"] == "enlarged heart"
    assert 0 <= row["probability"] <= 1 and row["marks"] == (["seen"] if row["outlines"] else ["not seen"])
    line = json.loads(base64.b64decode(desk.download({"token": token, "kind": "json"})["data"]))
    assert line["tasks"] == ["identify", "vqa", "refer: enlarged heart"]
    assert [phrase["phrase"] for phrase in line["phrases"]] == ["enlarged heart"]
    assert "phrases" not in desk.shelf.get(token).line
    desk.words({"token": token, "task": "refer", "about": "enlarged heart"})
    assert len(desk.shelf.get(token).words) == 1  # asked again it is the same question
    desk.answer({"token": token})
    assert desk.shelf.get(token).words == {}


def test_what_cannot_be_asked_in_words_is_a_sentence(desk, answered, monkeypatch):
    token, _ = answered
    assert desk.words({"token": token, "task": "refer", "about": " "}) == {"error": "The phrase is empty."}
    assert "cannot stand in" in desk.words({"token": token, "task": "refer", "about": "<image>"})["error"]
    assert "not trained to answer [chat]" in desk.words({"token": token, "task": "chat", "about": "x"})["error"]
    training = SimpleNamespace(training_record=[{"tasks": ["identify", "refer"]}])
    monkeypatch.setattr(desk.answerer, "_training", training)
    assert desk.about()["words"] == ["refer"]
    assert "not trained to answer [report]" in desk.words({"token": token, "task": "report"})["error"]
