import json
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw
from pydicom.data import get_testdata_file

from litegpt.command import main
from litegpt.common.files import complete_lines
from litegpt.common.overlay import is_drawn, overlay
from litegpt.modeling_litegpt.provenance import SYNTHETIC, UNTRAINED
from litegpt.processing.radiograph import load_radiograph


def test_folders_and_files_are_answered_and_unusable_ones_named(tiny_checkpoint, phantom_release, tmp_path, capsys):
    folder = tmp_path / "radiographs"
    (folder / "below").mkdir(parents=True)
    Image.new("L", (80, 60), 90).save(folder / "below" / "a.png")
    Image.new("RGB", (60, 60), (9, 9, 9)).save(folder / "b.jpg")
    (folder / "c.dcm").write_text("no radiograph")
    dicom = sorted((phantom_release / "test").iterdir())[0]
    options = [
        "--model_name_or_path",
        str(tiny_checkpoint),
        "--output_dir",
        str(tmp_path / "out"),
        "--batch_size",
        "2",
    ]

    assert main(["predict", *options, str(folder), str(dicom)]) == 1
    results = complete_lines(tmp_path / "out" / "predictions.jsonl")
    assert [(result["width"], result["height"]) for result in results] == [(60, 60), (80, 60), (128, 128)]
    assert results[2]["file"] == str(dicom) and set(results[0]["answers"]) == {"identify", "vqa"}
    for result in results:
        assert Image.open(tmp_path / "out" / result["overlay"]).width >= 512
    output = capsys.readouterr()
    assert "c.dcm: it is neither a DICOM file nor a picture" in output.err
    assert "3 radiographs answered; 1 could not be used" in output.out

    # Again: nothing is answered twice, also not where the last line was being written.
    path = tmp_path / "out" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:30])
    assert main(["predict", *options, str(dicom)]) == 0
    assert complete_lines(path) == results


@pytest.fixture
def predict(tiny_checkpoint, tmp_path):
    """Runs the program; returns its status and the lines of its output."""

    def run(*radiographs, output_dir=tmp_path / "out", checkpoint=tiny_checkpoint):
        options = ["--model_name_or_path", str(checkpoint), "--output_dir", str(output_dir)]
        status = main(["predict", *options, *map(str, radiographs)])
        return status, complete_lines(output_dir / "predictions.jsonl")

    return run


def test_a_replaced_file_is_answered_anew_and_its_old_answer_is_gone(predict, tmp_path, capsys):
    for name, width in (("a", 80), ("b", 90)):
        Image.new("L", (width, 60), 90).save(tmp_path / f"{name}.png")
    _, before = predict(tmp_path / "a.png", tmp_path / "b.png")
    Image.new("L", (70, 60), 90).save(tmp_path / "a.png")
    status, lines = predict(tmp_path / "a.png", tmp_path / "b.png")
    assert status == 0 and [(line["file"][-5:], line["width"]) for line in lines] == [("b.png", 90), ("a.png", 70)]
    assert lines[0] == before[1] and lines[1]["sha256"] != before[0]["sha256"]
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == sorted(line["overlay"] for line in lines)
    assert "the file or the checkpoint has changed since: 1" in capsys.readouterr().err


def test_a_checkpoint_that_is_calibrated_in_its_place_is_asked_anew(predict, tiny_checkpoint, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    Image.new("L", (80, 60), 90).save(tmp_path / "a.png")
    _, (before,) = predict(tmp_path / "a.png", checkpoint=checkpoint)
    settings = json.loads((checkpoint / "processor_config.json").read_text())
    settings["score_temperatures"] = dict.fromkeys(settings["score_temperatures"], 9.0)
    (checkpoint / "processor_config.json").write_text(json.dumps(settings))
    _, (after,) = predict(tmp_path / "a.png", checkpoint=checkpoint)
    assert after["probabilities"] != before["probabilities"]


def test_pictures_of_runs_into_the_inbox_itself_are_not_answered(predict, tmp_path, capsys):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    Image.new("L", (80, 60), 90).save(inbox / "a.png")
    for output_dir in (inbox, inbox / "out", inbox, inbox / "out", inbox / "later"):
        status, lines = predict(inbox, output_dir=output_dir)
        assert status == 0 and [line["file"] for line in lines] == [str(inbox / "a.png")]
    assert "pictures with answers drawn on them (2)" in capsys.readouterr().out
    drawn = inbox / "out" / lines[0]["overlay"]
    assert is_drawn(drawn.read_bytes())
    drawn.rename(inbox / "renamed.png")  # no list names it, it says so itself
    assert predict(inbox, output_dir=tmp_path / "elsewhere")[0] == 0
    assert "pictures with answers drawn on them (3)" in capsys.readouterr().out


def test_a_study_folder_is_answered_though_it_holds_more_than_images(predict, phantom_release, tmp_path, capsys):
    study = tmp_path / "study"
    study.mkdir()
    radiograph = sorted((phantom_release / "test").iterdir())[0]
    shutil.copy(radiograph, study / "IM1")
    shutil.copy(get_testdata_file("DICOMDIR"), study / "DICOMDIR")
    shutil.copy(get_testdata_file("test-SR.dcm"), study / "SR1.dcm")
    (study / "README.TXT").write_text("How to start the viewer")
    status, lines = predict(study)
    assert status == 0 and [line["file"] for line in lines] == [str(study / "IM1")]
    tags = pydicom.dcmread(radiograph, stop_before_pixels=True)
    assert lines[0]["sop_instance_uid"] == tags.SOPInstanceUID and lines[0]["view"] == tags.get("ViewPosition")
    output = capsys.readouterr().out
    assert "1 radiographs answered; 0 could not be used; 3 skipped, which are no radiographs" in output
    assert all(name in output for name in ("DICOMDIR", "Comprehensive SR (1)", "SR1.dcm", "README.TXT"))
    # A damaged radiograph is no such file.
    (study / "IM2").write_bytes(radiograph.read_bytes()[:3000])
    assert predict(study)[0] == 1 and "IM2: " in capsys.readouterr().err


def test_what_is_doubtful_stands_in_the_line_and_on_the_picture(predict, phantom_release, tmp_path, monkeypatch):
    dataset = pydicom.dcmread(sorted((phantom_release / "test").iterdir())[0])
    dataset.ViewPosition = "LL"
    dataset.save_as(tmp_path / "lateral.dcm")
    written, draw_text = [], ImageDraw.ImageDraw.text

    def recording(self, xy, text, *args, **kwargs):
        written.append(text)
        return draw_text(self, xy, text, *args, **kwargs)

    _, (line,) = predict(tmp_path / "lateral.dcm")
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    again = overlay(load_radiograph(tmp_path / "lateral.dcm"), line)
    (picture,) = (tmp_path / "out").glob("*_lateral.png")
    assert np.array_equal(np.asarray(again), np.asarray(Image.open(picture)))
    assert any("LL" in warning for warning in line["warnings"])
    assert all(warning in " ".join("".join(written).split()) for warning in line["warnings"])


def test_nothing_but_other_files_is_no_success(predict, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to see")
    assert predict(tmp_path / "notes.txt") == (1, [])


def test_each_answer_says_whose_it_is_and_the_terminal_once_what_it_is_worth(
    predict, tiny_checkpoint, phantom_release, tmp_path, capsys
):
    phantoms = sorted((phantom_release / "test").iterdir())[:2]
    _, lines = predict(*phantoms)
    assert {line["caution"] for line in lines} == {UNTRAINED} and capsys.readouterr().err.count(UNTRAINED) == 1

    checkpoint = tmp_path / "acme" / "litegpt"
    shutil.copytree(tiny_checkpoint, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    entry = {"data_set": {"name": "Phantoms in VinDr-CXR's layout"}, "tasks": ["identify"], "radiographs": 2}
    (checkpoint / "config.json").write_text(json.dumps({**config, "training_record": [entry]}))
    _, lines = predict(*phantoms, checkpoint=checkpoint, output_dir=tmp_path / "second")
    assert capsys.readouterr().err.count(SYNTHETIC) == 1
    for line in lines:
        assert line["checkpoint"] == "acme/litegpt" and line["trained_on"] == ["Phantoms in VinDr-CXR's layout"]
        assert line["caution"] == SYNTHETIC and line["not_for_diagnosis"] is True


def test_settings_reach_the_answers_and_other_settings_are_answered_anew(tiny_checkpoint, tmp_path):
    Image.new("L", (80, 60), 90).save(tmp_path / "a.png")
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path / "out")]
    for further in ([], ["--threshold", "1"], ["--no-constrained"], ["--threshold", "1"]):
        assert main(["predict", *options, *further, str(tmp_path / "a.png")]) == 0
    plain, high, unconstrained = complete_lines(tmp_path / "out" / "predictions.jsonl")
    assert plain["malformed"] == {"identify": None, "vqa": None} and plain["threshold"] is None
    assert high["findings"] == [] and high["answers"] == plain["answers"] and high["threshold"] == 1
    assert all(unconstrained["malformed"].values())  # the model is untrained
    assert len({line["overlay"] for line in (plain, high, unconstrained)}) == 3


def test_a_checkpoint_without_operating_points_is_refused_in_one_sentence(tiny_checkpoint, tmp_path):
    Image.new("L", (80, 60), 90).save(tmp_path / "a.png")
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="no operating points"):
        main(["predict", *options, "--threshold", "operating_point", str(tmp_path / "a.png")])


def test_a_missing_file_is_one_sentence_and_a_status(tiny_checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "predict",
                "--model_name_or_path",
                str(tiny_checkpoint),
                "--output_dir",
                str(tmp_path),
                str(tmp_path / "none.dcm"),
            ]
        )
    assert stop.value.code == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_real_dicoms_are_answered(tiny_checkpoint, real_cxr, tmp_path):
    files = [str(real_cxr / "real_cxr" / "dicom_cxr" / name) for name in ("RG1_J2KI.dcm", "nih_00000001_000.dcm")]
    assert main(["predict", "--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path), *files]) == 0
    results = complete_lines(tmp_path / "predictions.jsonl")
    assert [(result["width"], result["height"]) for result in results] == [(1841, 1955), (1024, 1024)]


def test_answers_to_dicoms_are_written_as_dicom_objects_that_a_rerun_completes(
    tiny_checkpoint, phantom_release, tmp_path, capfd
):
    first, second, useless = (tmp_path / name for name in ("first.dcm", "second.dcm", "useless.dcm"))
    for source, path in zip(sorted((phantom_release / "test").iterdir())[:2], (first, second), strict=True):
        shutil.copy(source, path)
    dataset = pydicom.dcmread(first)
    del dataset.StudyInstanceUID
    dataset.save_as(useless)
    picture = tmp_path / "picture.png"
    Image.new("L", (80, 60), 90).save(picture)
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path / "out")]
    options += ["--dicom_kinds", "SR", "PR", "SC", "--dicom_out", str(tmp_path / "results")]

    assert main(["predict", *options, str(first), str(picture)]) == 0
    written = sorted((tmp_path / "results").iterdir())
    assert sorted(path.name.split(".")[-2] for path in written) == ["PR", "SC", "SR"]
    study = pydicom.dcmread(first).StudyInstanceUID
    assert {pydicom.dcmread(path).StudyInstanceUID for path in written} == {study}
    assert "3 DICOM objects; 1 are no DICOM files and have none" in capfd.readouterr().out

    # Again, with more: what is there stays, what went missing comes back, what none can refer to is named.
    written[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in written[1:]}
    assert main(["predict", *options, *map(str, (first, second, useless))]) == 1
    assert len(list((tmp_path / "results").iterdir())) == 6 and written[0].is_file()
    assert {path: path.stat().st_mtime_ns for path in written[1:]} == before
    said = capfd.readouterr()
    assert f"Cannot refer to {useless}: it has no Study Instance UID." in said.err
    assert "1 radiographs have none" in said.out
    assert "PHANTOM" not in said.err + said.out, "a patient's name"


def test_dicom_objects_do_not_lie_among_the_predictions(tiny_checkpoint, tmp_path, capsys):
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main(["predict", *options, "--dicom_out", str(tmp_path), str(tmp_path)])
    assert end.value.code == 2 and "another folder" in capsys.readouterr().err


def test_remote_radiographs_are_answered_as_those_on_this_machine(predict, phantom_release, tmp_path, shelf, capsys):
    inbox = tmp_path / "shelf" / "bucket" / "inbox"
    (inbox / "below").mkdir(parents=True)
    dicom, other = sorted((phantom_release / "test").iterdir())[:2]
    shutil.copy(dicom, inbox / "below" / "a.dicom")
    Image.new("L", (80, 60), 90).save(inbox / "b.png")
    (inbox / "c.dcm").write_text("no radiograph")
    (inbox / "notes.txt").write_text("no image")
    status, here = predict(inbox, output_dir=tmp_path / "here")
    assert status == 1
    status, there = predict(f"{shelf}/inbox")
    assert status == 1
    said = capsys.readouterr()
    assert f"Cannot use {shelf}/inbox/c.dcm: it is neither a DICOM file nor a picture" in said.err
    assert f".txt (1): {shelf}/inbox/notes.txt" in said.out
    assert [line["file"] for line in there] == [f"{shelf}/inbox/{name}" for name in ("b.png", "below/a.dicom")]
    assert [{**line, "file": ""} for line in there] == [{**line, "file": ""} for line in here]
    # It resumes, and answers anew what was replaced.
    shutil.copy(other, inbox / "below" / "a.dicom")
    _, again = predict(f"{shelf}/inbox")
    assert "asked for anew, as the file or the checkpoint has changed since: 1" in capsys.readouterr().err
    assert again[0] == there[0] and again[1]["sha256"] != there[1]["sha256"]


def test_what_is_not_at_an_address_or_cannot_be_asked_for_is_refused_at_once(tmp_path, shelf, capsys):
    options = ["predict", "--model_name_or_path", "none", "--output_dir", str(tmp_path / "out")]
    for address, sentence in (
        (f"{shelf}/none", f"no such file or folder: {shelf}/none"),
        ("s4://bucket/a", "s4://bucket/a: s4:// is no protocol that fsspec knows."),
    ):
        with pytest.raises(SystemExit):
            main([*options, address])
        assert capsys.readouterr().err == f"litegpt predict: {sentence}\n"


def test_other_questions_are_answered_drawn_and_kept_apart(tiny_checkpoint, phantom_release, tmp_path):
    dicom = sorted((phantom_release / "test").iterdir())[0]
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path)]
    assert main(["predict", *options, str(dicom)]) == 0
    for _ in range(2):
        assert main(["predict", *options, "--tasks", "identify", "refer: enlarged heart", str(dicom)]) == 0
    plain, asked = complete_lines(tmp_path / "predictions.jsonl")
    assert plain["tasks"] == ["identify", "vqa"] and asked["tasks"] == ["identify", "refer: enlarged heart"]
    assert list(asked["answers"]) == asked["tasks"] and asked["answers"]["identify"] == plain["answers"]["identify"]
    assert [phrase["phrase"] for phrase in asked["phrases"]] == ["enlarged heart"]
    assert (tmp_path / asked["overlay"]).is_file() and asked["overlay"] != plain["overlay"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tasks", "report", "--dicom_out", "results"], "--dicom_out has findings and diagnoses, no free text"),
        (
            ["--tasks", "identify", "vqa", "report", "--dicom_out", "r", "--dicom_kinds", "SC"],
            "free text is not filed",
        ),
        (["--tasks", "refer"], "[refer] needs its phrase"),
        (["--tasks", "describe: 10 20 30 40"], "of many radiographs is about a box {<x1><y1><x2><y2>}"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(tiny_checkpoint, tmp_path, capsys, words, sentence):
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path), *options, *words])
    assert sentence in capsys.readouterr().err


def test_no_dicom_object_is_made_of_an_answer_to_other_questions(tiny_checkpoint, phantom_release, tmp_path):
    pytest.importorskip("highdicom", reason='needs highdicom, of the extra dicom: pip install ".[dicom]"')
    dicom = sorted((phantom_release / "test").iterdir())[0]
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir", str(tmp_path / "out"), str(dicom)]
    main(["predict", *options, "--tasks", "refer: nodule"])
    assert main(["predict", *options, "--dicom_out", str(tmp_path / "dicom")]) == 0
    assert len(list((tmp_path / "dicom").iterdir())) == 2  # SR and PR of findings and diagnoses
