import csv
import json

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.coco_boxes import read_release
from litegpt.datasets_scripts.corrected_boxes import LABELS_FILE
from litegpt.datasets_scripts.image_labels import states_of
from litegpt.datasets_scripts.rows import DATA_SETS, data_set_facts, load_rows, recognised

SIZE = (101, 67)


def content():
    """Three radiographs: two boxes, one, none."""
    width, height = SIZE
    return {
        "images": [
            {"id": number, "file_name": f"{name}.png", "width": width, "height": height}
            for number, name in enumerate("abc", start=10)
        ],
        "categories": [{"id": 4, "name": "Cardiomegaly"}, {"id": 7, "name": "ILD"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 4, "bbox": [20, 30.5, 41, 20]},
            {"id": 2, "image_id": 10, "category_id": 7, "bbox": [0, 0, 101, 67], "attributes": {"rotation": 0.0}},
            {"id": 3, "image_id": 11, "category_id": 7, "bbox": [60, 40, 41, 27], "iscrowd": 0},
        ],
    }


def write(root, content, subset="default"):
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{subset}.json").write_text(json.dumps(content))


@pytest.fixture
def films(tmp_path):
    root = tmp_path / "Our films"
    (root / "images" / "default").mkdir(parents=True)
    for number, name in enumerate("abc"):
        pixels = np.random.default_rng(number).integers(0, 255, SIZE[::-1], dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / "default" / f"{name}.png")
    write(root, content())
    return root


def test_boxes_become_rows_and_a_radiograph_without_any_is_one_without_a_finding(films, tmp_path):
    assert recognised(str(films)) is DATA_SETS["coco-boxes"]
    rows = load_rows(str(films), "train", str(tmp_path / "cache"), 1)
    assert rows["image_id"][:] == ["a", "b", "c"] and rows["width"][:] == [101] * 3 and rows["height"][:] == [67] * 3
    assert rows.features["findings"].feature["label"].names == ["Cardiomegaly", "ILD"]
    first, second, third = rows
    assert [found["label"] for found in first["findings"]] == [0, 1]
    assert first["findings"][0]["box"] == pytest.approx([20 / 101, 30.5 / 67, 61 / 101, 50.5 / 67])
    assert [found["readers"] for found in first["findings"]] == [1, 1]
    assert second["findings"][0]["box"] == pytest.approx([60 / 101, 40 / 67, 1, 1])
    assert (first["diagnoses"], third["findings"], third["diagnoses"]) == ([], [], [0])
    assert states_of(third, rows.features) == {"Cardiomegaly": "negative", "ILD": "negative", "No finding": "positive"}


def test_a_folder_is_the_users_own_data(films, tmp_path):
    assert data_set_facts(str(films)) == {"name": "Our films", "license_name": None, "license_link": None}
    options = ["--data_dir", str(films), "--output_dir", str(tmp_path / "out"), "--licence", "CC BY 4.0"]
    assert main(["prepare", "coco-boxes", *options, "--name", "Corrected"]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pretty_name: Corrected" in card and "CC BY 4.0" in card
    assert load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1)["image_id"][:] == ["a", "b", "c"]


def test_subsets_are_splits(films, tmp_path):
    whole = content()
    for subset, number in (("train", 0), ("val", 1), ("test", 2)):
        write(films, {**whole, "images": whole["images"][number : number + 1], "annotations": []}, subset)
    (films / "annotations" / "instances_default.json").unlink()
    read = read_release(films)
    assert {split: [image.image_id for image in images] for split, images in read.annotations.items()} == {
        "train": ["a"],
        "validation": ["b"],
        "test": ["c"],
    }
    write(films, whole, "train")
    with pytest.raises(ValueError, match="the image c stands twice in annotations|the image b stands twice"):
        read_release(films)
    write(films, whole, "monday")
    with pytest.raises(ValueError, match=r"instances_monday\.json is of no split: a subset is called default, train"):
        read_release(films)


def test_with_the_checkpoints_labels_rows_have_these(films, tmp_path):
    labels = {"finding_labels": ["Nodule", "ILD", "Cardiomegaly"], "diagnosis_labels": ["COPD", "No finding"]}
    (films / LABELS_FILE).write_text(json.dumps(labels))
    renamed = content()
    renamed["categories"][0]["name"] = "cardiomegaly "
    write(films, renamed)
    rows = load_rows(str(films), "train", str(tmp_path / "cache"), 1)
    assert rows.features["findings"].feature["label"].names == labels["finding_labels"]
    assert [found["label"] for found in rows[0]["findings"]] == [2, 1] and rows[2]["diagnoses"] == [1]
    renamed["categories"][0]["name"] = "Dragon"
    write(films, renamed)
    with pytest.raises(ValueError, match=r"annotation 1: unknown label 'Dragon'; known are Nodule, ILD, Cardiomegaly"):
        read_release(films)
    (films / LABELS_FILE).write_text('{"finding_labels": 3}')
    with pytest.raises(ValueError, match=rf"{LABELS_FILE} has no lists"):
        read_release(films)


def test_boxes_of_the_original_fit_scaled_pictures(films):
    for name in "abc":
        path = films / "images" / "default" / f"{name}.png"
        Image.open(path).resize((50, 33)).save(path)
    image = read_release(films).annotations["train"][1]
    assert image.findings[0].box == pytest.approx((60 * 50 / 101, 40 * 33 / 67, 50, 33))


def test_a_box_without_area_is_counted_and_its_radiograph_not_called_normal(films, tmp_path):
    changed = content()
    changed["annotations"][2]["bbox"] = [60, 40, 0, 27]
    write(films, changed)
    read = read_release(films)
    assert read.counts["train"]["boxes_without_area"] == 1 and read.counts["train"]["images_no_finding"] == 1
    assert (read.annotations["train"][1].findings, read.annotations["train"][1].diagnoses) == ((), ())


def test_a_radiograph_that_is_missing_is_left_out_and_named(films, tmp_path):
    (films / "images" / "default" / "b.png").unlink()
    assert main(["prepare", "coco-boxes", "--data_dir", str(films), "--output_dir", str(tmp_path / "out")]) == 0
    lines = {line["image_id"]: line["outcome"] for line in csv.DictReader((tmp_path / "out" / "manifest.csv").open())}
    assert lines == {"a": "ok", "b": "There is no radiograph for image_id b.", "c": "ok"}
    for name in "ac":
        (films / "images" / "default" / f"{name}.png").unlink()
    with pytest.raises(FileNotFoundError, match="holds none of the radiographs that the annotations name"):
        read_release(films)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 1 \(of a\): its bbox is not four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, None, 4]), r"annotation 1 \(of a\): its bbox is not four"),
        (lambda c: c["annotations"][0].update(attributes={"rotation": 30.5}), r"rotated by 30\.5 degrees"),
        (lambda c: c["annotations"][0].update(image_id=99), r"annotation 1: there is no image 99"),
        (lambda c: c["annotations"][0].update(category_id=1), r"annotation 1: there is no category 1"),
        (lambda c: c["images"][0].pop("file_name"), r"image 10: it has no file_name"),
        (lambda c: c["images"][0].update(width=0), r"image 10: it has no width and height in pixels"),
        (lambda c: c["images"][1].update(file_name="a.png"), r"image 11: the image a, or its id, stands twice"),
        (lambda c: c["images"][1].update(id=10), r"image 10: the image b, or its id, stands twice"),
        (lambda c: c["images"][1].update(file_name="other/a.png"), r"image 11: other/a\.png and a are two images"),
        (lambda c: c.pop("categories"), r"instances_default\.json is no COCO file: it has no list categories"),
        (lambda c: c["categories"][0].pop("name"), r"a category has no name"),
        (lambda c: c["annotations"].append(3), r"an entry of annotations is no object"),
        (lambda c: c.update(images=[], annotations=[]), r"no radiograph is annotated in it"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence_with_the_file(change, sentence, films):
    changed = content()
    change(changed)
    write(films, changed)
    with pytest.raises(ValueError, match=sentence) as error:
        read_release(films)
    assert str(films / "annotations") in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_coco_is_refused_by_the_program(films, tmp_path):
    path = films / "annotations" / "instances_default.json"
    options = ["prepare", "coco-boxes", "--data_dir", str(films), "--output_dir", str(tmp_path / "out")]
    for text, sentence in (("{broken", "is not a JSON file"), ("[]", "is a list, as COCO's results are")):
        path.write_text(text)
        with pytest.raises(SystemExit, match=sentence) as exit_:
            main(options)
        assert str(path) in str(exit_.value)
