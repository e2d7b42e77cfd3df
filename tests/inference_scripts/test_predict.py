import pytest
from PIL import Image

from litegpt.command import main
from litegpt.common.files import complete_lines
from litegpt.common.overlay import overlay

OUTPUT = {
    "findings": [{"label": "ILD", "score": 0.5, "box": {"xmin": 20, "ymin": 50, "xmax": 100, "ymax": 90}}],
    "diagnoses": [{"label": "COPD", "score": 0.9}],
    "malformed": {"identify": None, "vqa": None},
}


def test_overlay_draws_the_box_where_the_finding_is():
    picture = overlay(Image.new("L", (200, 100)), OUTPUT)
    assert picture.width == 1024  # the shorter side is enlarged to 512 pixels
    scale = picture.width / 200
    edge, inside = picture.getpixel((20 * scale + 1, 70 * scale)), picture.getpixel((60 * scale, 70 * scale))
    assert edge != (0, 0, 0) and inside == (0, 0, 0)
    assert picture.height > 512 and picture.crop((0, 512, 1024, picture.height)).getbbox()  # the diagnoses below it


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
