import csv
import hashlib
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from litegpt.command import main
from litegpt.common.files import complete_lines
from litegpt.datasets_scripts.rows import load_rows
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.inference_scripts.arguments import BOX_FORMATS
from litegpt.inference_scripts.box_formats import (
    FORMATS,
    KAGGLE_CLASSES,
    Answered,
    LabelledBox,
    write_cvat,
    write_label_studio,
)
from tests.small_dicom import small_dicom

SIDES = ("xmin", "ymin", "xmax", "ymax")
# Name, size and (label, box, score): odd sizes, boxes at edges, two of one label that overlap, none.
RADIOGRAPHS = {
    "a": (
        (333, 517),
        [
            ("Cardiomegaly", (127, 269, 270, 383), 0.9),
            ("Cardiomegaly", (130, 269, 273, 383), 0.4),
            ("ILD", (0, 0, 1, 517), 0.2),
        ],
    ),
    "b.c": ((101, 97), [("Rib fracture", (50, 3, 101, 97), 0.6), ("Other lesion", (7, 11, 8, 13), 0.5)]),
    "d": ((64, 64), []),
}
TOOLS = ("coco", "label-studio", "cvat")


def item(label, box, score):
    return {"label": label, "score": score, "box": dict(zip(SIDES, box, strict=True))}


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for number, (name, ((width, height), _)) in enumerate(RADIOGRAPHS.items()):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width), dtype=np.uint8)
        small_dicom(pixels).save_as(folder / f"{name}.dicom", enforce_file_format=True)
    return folder


@pytest.fixture
def predictions(films, tmp_path):
    """Lines as `litegpt predict` writes them."""
    lines = [
        {
            "file": str(films / f"{name}.dicom"),
            "width": width,
            "height": height,
            "checkpoint": "demo",
            "findings": [item(*found) for found in boxes],
            "malformed": {"identify": None, "vqa": None},
        }
        for name, ((width, height), boxes) in RADIOGRAPHS.items()
    ]
    return write_lines(tmp_path / "predictions.jsonl", lines)


@pytest.fixture
def export(predictions, tmp_path):
    """Runs the program; returns its status and the folder."""

    def run(*options, path=predictions, folder=tmp_path / "out"):
        return main(["export", str(path), "--output_dir", str(folder), *options]), folder

    return run


def refused(export, *options, **kwargs):
    with pytest.raises(SystemExit) as exit_:
        export(*options, **kwargs)
    return str(exit_.value)


# --- There and back --------------------------------------------------------------------------------------------------


def coco_of(images, boxes, categories):
    """What a tool exports as COCO: the boxes as annotations."""
    annotations = [
        {"id": number, "iscrowd": 0, "segmentation": [], "attributes": {"occluded": False, "rotation": 0.0}, **box}
        for number, box in enumerate(boxes, start=1)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def exported_by_coco_tool(folder):
    known = json.loads((folder / "images.json").read_text())
    boxes = [
        {k: v for k, v in box.items() if k != "score"} for box in json.loads((folder / "results.json").read_text())
    ]
    write_coco(folder, coco_of(known["images"], boxes, known["categories"]))


def exported_by_cvat(folder):
    """CVAT's import of the XML, and its export "COCO 1.0": labels count from 1, boxes have two decimals."""
    labels = [label["name"] for label in json.loads((folder / "cvat_labels.json").read_text())]
    images, boxes = [], []
    for image in ElementTree.parse(folder / "annotations.xml").getroot().iter("image"):
        number = int(image.get("id")) + 1
        size = {side: int(image.get(side)) for side in ("width", "height")}
        images.append({"id": number, "file_name": image.get("name"), **size})
        for box in image.iter("box"):
            x, y, right, bottom = (float(box.get(side)) for side in ("xtl", "ytl", "xbr", "ybr"))
            bbox = [round(value, 2) for value in (x, y, right - x, bottom - y)]
            category = 1 + labels.index(box.get("label"))
            boxes.append({"image_id": number, "category_id": category, "bbox": bbox})
    categories = [{"id": number, "name": label} for number, label in enumerate(labels, start=1)]
    write_coco(folder, coco_of(images, boxes, categories))


def write_coco(folder, content):
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_default.json").write_text(json.dumps(content))


def exported_by_label_studio(folder):
    """Each task submitted as it was predicted."""
    tasks = json.loads((folder / "tasks.json").read_text())
    interface = ElementTree.parse(folder / "labels.xml").getroot()
    image, rectangles = interface.find("Image"), interface.find("RectangleLabels")
    choices = [label.get("value") for label in rectangles]
    for number, task in enumerate(tasks, start=1):
        (prediction,) = task.pop("predictions")
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"]) == (rectangles.get("name"), rectangles.get("toName"))
            assert region["to_name"] == image.get("name") and set(region["value"]["rectanglelabels"]) <= set(choices)
            region.pop("score")
        task |= {"id": number, "annotations": [{"id": number, "completed_by": 3, "result": prediction["result"]}]}
    (folder / "project-1-at-2026-01-31-09-30-0a1b2c3d.json").write_text(json.dumps(tasks))


BACK = {"coco": exported_by_coco_tool, "cvat": exported_by_cvat, "label-studio": exported_by_label_studio}


def boxes_of(rows):
    """{image_id: [(label, box in pixels, readers)]}"""
    names = rows.features["findings"].feature["label"].names
    return {
        row["image_id"]: [
            (names[found["label"]], np.array(found["box"]) * ([row["width"], row["height"]] * 2), found["readers"])
            for found in row["findings"]
        ]
        for row in rows
    }


@pytest.mark.parametrize("tool", TOOLS)
def test_boxes_come_back_from_a_tool_to_the_pixel(tool, export, tmp_path):
    status, folder = export("--format", tool, "--pictures")
    assert status == 0
    BACK[tool](folder)
    rows = load_rows(str(folder), "train", str(tmp_path / "cache"), 1)
    found = boxes_of(rows)
    assert found.keys() == RADIOGRAPHS.keys()
    for name, (size, boxes) in RADIOGRAPHS.items():
        assert [(label, readers) for label, _, readers in found[name]] == [(label, 1) for label, *_ in boxes]
        for (_, box, _), (_, expected, _) in zip(found[name], boxes, strict=True):
            np.testing.assert_allclose(box, expected, atol=0.01)
        row = next(row for row in rows if row["image_id"] == name)
        assert (row["width"], row["height"]) == size
    # The labels are the checkpoint's, so that it can be trained further; of diagnoses "No finding" alone is known.
    assert rows.features["findings"].feature["label"].names == list(FINDING_LABELS)
    assert rows.features["diagnoses"].feature.names == list(DIAGNOSIS_LABELS)
    no_finding = DIAGNOSIS_LABELS.index("No finding")
    assert dict(zip(rows["image_id"], rows["diagnoses"], strict=True)) == {"a": [], "b.c": [], "d": [no_finding]}


@pytest.mark.parametrize("tool", TOOLS)
def test_fractions_of_evaluate_are_pixels_of_its_rows(tool, export, tmp_path):
    box = [0.38, 0.52, 0.81, 0.74]
    line = {"image_id": "e1", "task": "identify", "width": 2337, "height": 2835, "malformed": None}
    line |= {"findings": [{"label": "ILD", "box": box, "score": 0.5}]}
    other = {"image_id": "e1", "task": "vqa", "width": 2337, "height": 2835, "malformed": None, "diagnoses": []}
    status, folder = export("--format", tool, path=write_lines(tmp_path / "evaluated.jsonl", [line, other]))
    assert status == 0
    Image.new("L", (2337, 2835)).save(folder / "e1.png")
    BACK[tool](folder)
    (found,) = boxes_of(load_rows(str(folder), "train", str(tmp_path / "cache"), 1))["e1"]
    np.testing.assert_allclose(found[1], np.array(box) * [2337, 2835, 2337, 2835], atol=0.02)


def test_what_predict_and_evaluate_write_can_be_exported(tiny_checkpoint, phantom_release, tmp_path, export):
    dicoms = sorted((phantom_release / "test").iterdir())[:2]
    options = ["--model_name_or_path", str(tiny_checkpoint), "--output_dir"]
    main(["predict", *options, str(tmp_path / "predicted"), *map(str, dicoms)])
    data = ["--data_dir", str(phantom_release), "--split", "test[:2]", "--cache_dir", str(tmp_path / "cache")]
    main(["evaluate", *options, str(tmp_path / "evaluated"), *data, "--tasks", "identify", "vqa"])
    for run, pictures in (("predicted", ["--pictures"]), ("evaluated", [])):
        path = tmp_path / run / "predictions.jsonl"
        model = ["--model_name_or_path", str(tiny_checkpoint)]
        status, folder = export("--format", "coco", *model, *pictures, path=path, folder=tmp_path / f"{run}_out")
        assert status == 0
        answers = [line for line in complete_lines(path) if line.get("task") != "vqa"]
        assert len(json.loads((folder / "images.json").read_text())["images"]) == 2
        assert len(json.loads((folder / "results.json").read_text())) == sum(len(line["findings"]) for line in answers)
    assert len(list((tmp_path / "predicted_out" / "pictures").iterdir())) == 2


# --- The formats -----------------------------------------------------------------------------------------------------


def test_coco_results_are_what_pycocotools_reads(export, capsys):
    status, folder = export("--format", "coco")
    assert status == 0
    images = COCO(str(folder / "images.json"))
    results = images.loadRes(str(folder / "results.json"))
    by_name = {image["file_name"]: image["id"] for image in images.dataset["images"]}
    assert set(by_name) == {"a.png", "b.c.png", "d.png"}
    (fracture, lesion) = results.loadAnns(results.getAnnIds(imgIds=[by_name["b.c.png"]]))
    assert images.loadCats([fracture["category_id"]])[0]["name"] == "Rib fracture"
    assert (fracture["bbox"], fracture["score"], lesion["bbox"]) == ([50, 3, 51, 94], 0.6, [7, 11, 1, 2])
    # Against truth of the same boxes all are right.
    truth = coco_of(
        images.dataset["images"], json.loads((folder / "results.json").read_text()), images.dataset["categories"]
    )
    for annotation in truth["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    (folder / "truth.json").write_text(json.dumps(truth))
    true = COCO(str(folder / "truth.json"))
    scores = COCOeval(true, true.loadRes(str(folder / "results.json")), "bbox")
    scores.evaluate(), scores.accumulate(), scores.summarize()
    assert scores.stats[0] == pytest.approx(1)


def test_kaggles_file_is_the_one_written_by_hand(export, capsys):
    status, folder = export("--format", "kaggle", "--threshold", "0.3")
    assert status == 0
    assert (folder / "submission.csv").read_bytes() == (
        b"image_id,PredictionString\n"
        b"a,3 0.9 127 269 270 383 3 0.4 130 269 273 383\n"
        b"b.c,9 0.5 7 11 8 13\n"
        b"d,14 1 0 0 1 1\n"
    )
    said = capsys.readouterr().err
    assert "boxes left out that score less than the threshold: 1" in said
    assert "boxes left out, whose labels the challenge does not have: Rib fracture 1" in said


def test_kaggles_classes_are_those_of_the_challenge_in_alphabetical_order():
    assert len(KAGGLE_CLASSES) == 14 and list(KAGGLE_CLASSES) == sorted(KAGGLE_CLASSES)
    assert set(KAGGLE_CLASSES) < set(FINDING_LABELS)


def test_label_studios_regions_are_per_cent_with_the_size_and_the_score(export):
    _, folder = export("--format", "label-studio", "--picture_url", "https://films.example/")
    tasks = json.loads((folder / "tasks.json").read_text())
    assert tasks[1]["data"] == {"image": "https://films.example/b.c.png", "image_id": "b.c"}
    (prediction,) = tasks[1]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("demo", 0.6)
    region = prediction["result"][0]
    assert (region["original_width"], region["original_height"], region["score"]) == (101, 97, 0.6)
    assert region["value"]["x"] == pytest.approx(100 * 50 / 101) and region["value"]["rotation"] == 0
    assert tasks[2]["predictions"][0]["result"] == []


def test_cvats_file_says_where_boxes_are_from(export):
    _, folder = export("--format", "cvat")
    root = ElementTree.parse(folder / "annotations.xml").getroot()
    assert root.tag == "annotations" and root.find("version").text == "1.1"
    assert [name.text for name in root.findall("meta/task/labels/label/name")] == list(FINDING_LABELS)
    image = root.findall("image")[1]
    assert image.attrib == {"id": "1", "name": "b.c.png", "width": "101", "height": "97"}
    assert image.find("box").attrib == {
        "label": "Rib fracture",
        "source": "auto",
        "occluded": "0",
        "xtl": "50.00",
        "ytl": "3.00",
        "xbr": "101.00",
        "ybr": "97.00",
        "z_order": "0",
    }


def test_any_label_and_file_name_can_stand_in_xml(tmp_path):
    label, picture = 'Mass "big" & <old>', "a & b's.png"
    box = LabelledBox(label, (1.0, 2.0, 30.0, 40.0), 0.5)
    answers = [Answered("a", picture, "/a", (64, 64), (box,), {})]
    write_cvat(answers, [label], tmp_path)
    write_label_studio(answers, [label], tmp_path)
    image = ElementTree.parse(tmp_path / "annotations.xml").getroot().find("image")
    assert (image.get("name"), image.find("box").get("label")) == (picture, label)
    assert ElementTree.parse(tmp_path / "labels.xml").getroot().find("RectangleLabels/Label").get("value") == label


def test_every_format_is_offered_on_the_command_line():
    assert tuple(FORMATS) == BOX_FORMATS


# --- Which boxes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def detector_line(films):
    found = {name: [item("ILD", (x, 1, 60, 60), 0.5)] for name, x in (("findings", 1), ("candidates", 2))}
    found |= {
        name: [item("ILD", (x, 1, 60, 60), 0.5)] for name, x in (("detected_findings", 3), ("fused_findings", 4))
    }
    return {"file": str(films / "d.dicom"), "width": 64, "height": 64, "malformed": {}, **found}


@pytest.mark.parametrize(
    ("source", "lefts"),
    [("findings", [1]), ("candidates", [1, 2]), ("detected_findings", [3]), ("fused_findings", [4])],
)
def test_the_source_says_which_boxes(source, lefts, detector_line, export, tmp_path):
    path = write_lines(tmp_path / "lines.jsonl", [detector_line])
    _, folder = export("--format", "coco", "--source", source, path=path)
    assert [box["bbox"][0] for box in json.loads((folder / "results.json").read_text())] == lefts


def test_boxes_that_a_line_does_not_have_are_said(predictions, export, capsys):
    assert "line 1 has no fused_findings" in refused(export, "--format", "coco", "--source", "fused_findings")
    status, _ = export("--format", "coco", "--source", "candidates")
    assert status == 0 and "no line has candidates: these are the findings alone" in capsys.readouterr().err


def test_what_is_left_out_or_filled_in_is_counted(films, export, tmp_path, capsys):
    thin, unscored = item("ILD", (5, 5, 5, 9), 0.8), item("ILD", (5, 5, 9, 9), None)
    line = {"file": str(films / "d.dicom"), "width": 64, "height": 64, "findings": [thin, unscored]}
    bad = {"file": str(films / "a.dicom"), "width": 333, "height": 517, "findings": []}
    bad["malformed"] = {"identify": "it does not end with a full stop", "vqa": None}
    path = write_lines(tmp_path / "lines.jsonl", [line, bad])
    _, folder = export("--format", "kaggle", path=path)
    assert list(csv.reader((folder / "submission.csv").open()))[1:] == [["d", "5 1 5 5 9 9"], ["a", "14 1 0 0 1 1"]]
    said = capsys.readouterr().err
    assert "answers that could not be parsed: 1" in said
    assert "boxes left out that have no area in pixels: 1" in said
    assert "which need one, get 1: 1" in said
    _, folder = export("--format", "label-studio", path=path, folder=tmp_path / "ls")
    (prediction,) = json.loads((folder / "tasks.json").read_text())[0]["predictions"]
    assert "score" not in prediction["result"][0]


def test_labels_are_the_checkpoints(tiny_checkpoint, films, export, tmp_path, capsys):
    line = {"file": str(films / "d.dicom"), "width": 64, "height": 64, "findings": [item("Dragon", (1, 1, 9, 9), 0.8)]}
    path = write_lines(tmp_path / "lines.jsonl", [line])
    assert "line 1: 'Dragon' is no label of VinDr-CXR: name the checkpoint" in refused(
        export, "--format", "cvat", path=path
    )
    model = ["--model_name_or_path", str(tiny_checkpoint)]
    assert f"is no label of {tiny_checkpoint}" in refused(export, "--format", "cvat", *model, path=path)
    assert not (tmp_path / "out" / "annotations.xml").exists()


# --- Files that cannot be used ---------------------------------------------------------------------------------------


def test_a_file_of_other_lines_is_refused_with_the_lines_number(predictions, export, capsys, tmp_path):
    whole = predictions.read_text()
    predictions.write_text(whole + "{broken\n")
    assert f"{predictions}, line 4 is none of" in refused(export, "--format", "coco")
    predictions.write_text(whole + '{"image_id": "a", "label": "ILD"}\n')
    assert f"{predictions}, line 4 is none of" in refused(export, "--format", "coco")
    predictions.write_text("")
    assert f"{predictions} has no answers to [identify]" in refused(export, "--format", "coco")
    assert refused(export, "--format", "coco", path=tmp_path / "nowhere.jsonl") == "2"
    assert "no such file or folder: " in capsys.readouterr().err


def test_a_last_line_that_is_still_being_written_is_left_alone(predictions, export):
    whole = predictions.read_text()
    predictions.write_text(whole + '{"file": "e.dic')
    status, folder = export("--format", "coco")
    assert status == 0 and len(json.loads((folder / "images.json").read_text())["images"]) == 3
    assert predictions.read_text() == whole + '{"file": "e.dic'


def test_answers_to_questions_in_words_alone_are_no_pictures_without_boxes(predictions, export):
    lines = complete_lines(predictions)
    asked = {**lines[0], "tasks": ["report"], "findings": []}
    write_lines(predictions, [*lines[1:], asked])
    status, folder = export("--format", "coco")
    assert status == 0 and len(json.loads((folder / "images.json").read_text())["images"]) == 2


def test_lines_without_a_size_and_two_answers_to_one_radiograph_are_refused(predictions, export, capsys):
    lines = complete_lines(predictions)
    write_lines(predictions, [*lines, lines[0]])
    assert "is answered in line 1 too" in refused(export, "--format", "coco")
    del lines[1]["width"]
    write_lines(predictions, lines)
    assert "line 2: it does not say how many pixels" in refused(export, "--format", "coco")
    write_lines(predictions, [{**lines[0], "findings": [{"label": "ILD", "score": 0.5, "box": [0.1, 0.2]}]}])
    assert "line 1: a finding without label, score or box" in refused(export, "--format", "coco")


# --- Pictures --------------------------------------------------------------------------------------------------------


def test_pictures_are_the_radiographs_as_given_and_are_written_once(export, films):
    status, folder = export("--format", "cvat", "--pictures")
    assert status == 0
    shown = Image.open(folder / "pictures" / "b.c.png")
    assert (shown.size, shown.mode, shown.format) == ((101, 97), "L", "PNG")
    before = (folder / "pictures" / "a.png").stat().st_mtime_ns
    (folder / "pictures" / "d.png").unlink()
    assert export("--format", "cvat", "--pictures")[0] == 0
    assert (folder / "pictures" / "a.png").stat().st_mtime_ns == before
    assert (folder / "pictures" / "d.png").is_file()


def test_a_radiograph_that_cannot_be_shown_is_named_and_left_out(export, films, capsys):
    (films / "b.c.dicom").write_text("no radiograph")
    Image.new("L", (9, 9)).save(films / "d.dicom", format="PNG")
    status, folder = export("--format", "cvat", "--pictures")
    assert status == 1
    names = [image.get("name") for image in ElementTree.parse(folder / "annotations.xml").getroot().iter("image")]
    assert names == ["a.png"]
    said = capsys.readouterr()
    assert "b.c.dicom: it is neither a DICOM file nor a picture" in said.err
    assert "d.dicom has 9 x 9 pixels, its line says otherwise" in said.err
    assert "1 radiographs with 3 boxes; 2 left out" in said.out


def test_a_radiograph_that_was_replaced_is_not_shown_under_its_old_answer(predictions, export, films, capsys):
    lines = [{**line, "sha256": "0" * 64} for line in complete_lines(predictions)]
    write_lines(predictions, lines[:1])
    assert export("--format", "cvat", "--pictures")[0] == 1
    assert "a.dicom is not what was answered, it has changed since" in capsys.readouterr().err


def test_a_radiograph_that_was_replaced_and_answered_anew_gets_a_new_picture(predictions, export, films):
    path, (line, *_) = films / "d.png", complete_lines(predictions)
    for grey in (90, 200):
        Image.new("L", (64, 64), grey).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        write_lines(predictions, [{**line, "file": str(path), "sha256": digest, "width": 64, "height": 64}])
        status, folder = export("--format", "cvat", "--pictures")
        assert status == 0 and Image.open(folder / "pictures" / "d.png").getpixel((0, 0)) == grey


def test_files_of_one_name_in_two_folders_keep_apart(predictions, films, export):
    (films / "below").mkdir()
    Image.new("L", (333, 517), 90).save(films / "below" / "A.png")
    lines = complete_lines(predictions)
    write_lines(predictions, [*lines, {**lines[0], "file": str(films / "below" / "A.png")}])
    status, folder = export("--format", "label-studio", "--pictures")
    assert status == 0
    ids = [task["data"]["image_id"] for task in json.loads((folder / "tasks.json").read_text())]
    assert len({name.casefold() for name in ids}) == 4 and ids[0].startswith("a-") and ids[3].startswith("A-")
    assert {path.stem for path in (folder / "pictures").iterdir()} == set(ids)


def test_pictures_that_tools_show_keep_their_names(films, tmp_path, export):
    Image.new("L", (64, 64)).save(films / "f.JPG", format="JPEG")
    line = {"file": str(films / "f.JPG"), "width": 64, "height": 64, "findings": []}
    _, folder = export("--format", "label-studio", path=write_lines(tmp_path / "lines.jsonl", [line]))
    assert json.loads((folder / "tasks.json").read_text())[0]["data"]["image"].endswith("d=pictures/f.JPG")


def test_evaluates_lines_name_no_files_to_show(tmp_path, export):
    line = {"image_id": "e1", "task": "identify", "width": 64, "height": 64, "findings": []}
    path = write_lines(tmp_path / "lines.jsonl", [line])
    assert "line 1 names no file" in refused(export, "--format", "cvat", "--pictures", path=path)
