import json

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.corrected_boxes import LABELS_FILE, Labels, write_labels
from litegpt.datasets_scripts.label_studio import read_release
from litegpt.datasets_scripts.rows import DATA_SETS, load_rows, recognised
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from tests.small_training import train

SIZE = (101, 67)
EXPORT = "project-1-at-2026-01-31-09-30-0a1b2c3d.json"


def region(label, box, **changes):
    """A rectangle as Label Studio exports it; `box` is xyxy in pixels."""
    (width, height), (x1, y1, x2, y2) = SIZE, box
    value = {"x": 100 * x1 / width, "y": 100 * y1 / height, "rotation": 0, "rectanglelabels": [label]}
    value |= {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height}
    return {
        "id": "r1",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "origin": "manual",
        "value": value,
        **changes,
    }


def annotation(*regions, by=7, **changes):
    return {"id": 1, "completed_by": by, "was_cancelled": False, "result": list(regions), **changes}


def task(name, *annotations):
    data = {"image": f"/data/local-files/?d=pictures/{name}.png", "image_id": name}
    return {"id": ord(name[0]), "data": data, "annotations": list(annotations), "predictions": [], "drafts": []}


@pytest.fixture
def films(tmp_path):
    """Radiographs a to f, and what writes an export about them."""
    root = tmp_path / "films"
    (root / "pictures").mkdir(parents=True)
    for number, name in enumerate("abcdef"):
        pixels = np.random.default_rng(number).integers(0, 255, SIZE[::-1], dtype=np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{name}.png")
    return root


def write(root, *tasks):
    (root / EXPORT).write_text(json.dumps(tasks))
    return root


BOX = (20, 30.5, 61, 50.5)


def test_annotations_become_rows_and_what_nobody_annotated_is_left_out_and_counted(films, tmp_path, capsys):
    write(
        films,
        task("a", annotation(region("ILD", BOX), {"type": "choices", "value": {"choices": ["poor"]}})),
        task("b", annotation()),
        task("c"),
        task("d", annotation(region("ILD", BOX), was_cancelled=True)),
        task("e", annotation(region("Cardiomegaly", (1, 1, 1, 9)))),
    )
    assert recognised(str(films)) is DATA_SETS["label-studio"]
    rows = load_rows(str(films), "train", str(tmp_path / "cache"), 1)
    assert rows["image_id"][:] == ["a", "b", "e"]
    assert rows.features["findings"].feature["label"].names == ["Cardiomegaly", "ILD"]
    (found,) = rows[0]["findings"]
    assert (found["label"], found["readers"]) == (1, 1)
    assert found["box"] == pytest.approx([20 / 101, 30.5 / 67, 61 / 101, 50.5 / 67])
    # "No finding" is said by an annotation without boxes, not by a box without area.
    assert rows["diagnoses"][:] == [[], [0], []] and rows[2]["findings"] == []
    options = ["--data_dir", str(films), "--output_dir", str(tmp_path / "out")]
    assert main(["prepare", "label-studio", *options]) == 0
    said = capsys.readouterr().out
    assert "2 images left out that nobody annotated; 1 annotation left out, skipped by the annotator" in said
    assert "1 remark without a place not read" in said and "1 box skipped that end where they begin" in said


def test_several_annotators_are_readers_and_merged_as_vindrs(films):
    other = (21, 30.5, 62, 50.5)
    write(
        films,
        task(
            "a", annotation(region("ILD", BOX), by=1), annotation(region("ILD", other), by={"id": 2, "email": "x@y"})
        ),
        task("b", annotation(region("ILD", BOX), by=1), annotation(by=2)),
        task("c", annotation(by=1), annotation(by=2)),
        task("d", annotation(region("ILD", BOX), region("ILD", other), by=1)),
    )
    read = read_release(films)
    images = {image.image_id: image for image in read.annotations["train"]}
    assert [(found.box, found.readers) for found in images["a"].findings] == [(pytest.approx(BOX), 2)]
    assert "b" not in images and read.counts["train"]["images_dropped"] == 1
    assert images["c"].diagnoses == ("No finding",)
    assert [reading.rad_id for reading in images["a"].readings] == ["1", "2"]
    # One corrector is taken at their word: both boxes stay.
    assert [found.readers for found in images["d"].findings] == [1, 1]
    union = {image.image_id: image for image in read_release(films, merge="union").annotations["train"]}
    assert union["a"].findings[0].box == pytest.approx((20, 30.5, 62, 50.5)) and union["b"].diagnoses == ()
    with pytest.raises(ValueError, match="merge must be one of"):
        read_release(films, merge="best")


def test_annotators_that_are_not_told_apart_are_several(films):
    first, second = annotation(region("ILD", BOX)), annotation(region("ILD", BOX))
    del first["completed_by"], second["completed_by"]
    assert read_release(write(films, task("a", first, second))).annotations["train"][0].findings[0].readers == 2


@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=pictures/a.png",
        "/data/local-files/?d=films%2Fpictures%2Fa.png",
        "/data/upload/1/0a1b2c3d-a.png",
        "https://films.example/x/a.png?token=3",
        "s3://films/a.png",
    ],
)
def test_a_radiograph_is_known_by_its_pictures_address_too(address, films):
    one = task("a", annotation())
    one["data"] = {"image": address}
    assert read_release(write(films, one)).images["train"] == {"a": str(films / "pictures" / "a.png")}


def test_a_checkpoint_is_trained_further_on_what_came_back(films, tiny_checkpoint, tmp_path):
    write_labels(films, Labels(FINDING_LABELS, DIAGNOSIS_LABELS))
    boxes = [task(name, annotation(region("ILD", BOX))) for name in "abcd"]
    write(films, *boxes, task("e", annotation()), task("f", annotation()))
    options = {"tasks": ["identify"], "max_steps": 1}
    train(tmp_path / "out", tiny_checkpoint, films, str(tmp_path / "cache"), **options)
    assert any((tmp_path / "out").rglob("*.safetensors"))


def changed(**value):
    one = region("ILD", BOX)
    one["value"] |= value
    return one


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (changed(rotation=12.5), "task 97, region r1: the box, or the picture under it, is rotated"),
        (region("ILD", BOX, image_rotation=90), "task 97, region r1: the box, or the picture under it, is rotated"),
        (changed(rectanglelabels=[]), "task 97, region r1: the box has no label"),
        (changed(x="5"), "task 97, region r1: x, y, width, height, original_width or original_height is no number"),
        (region("ILD", BOX, original_width=None), "task 97, region r1: x, y, width, height, original_width"),
        (region("ILD", BOX, type="polygonlabels"), r"task 97, region r1: it is no rectangle with a label \(polygon"),
        (region("Dragon", BOX), "task 97: unknown label 'Dragon'; known are ILD"),
    ],
)
def test_a_region_that_cannot_be_used_is_named(broken, sentence, films):
    write_labels(films, Labels(("ILD",)))
    with pytest.raises(ValueError, match=sentence) as error:
        read_release(write(films, task("a", annotation(broken))))
    assert str(films / EXPORT) in str(error.value)


def test_boxes_of_two_sizes_and_two_tasks_of_one_image_are_refused(films):
    two = annotation(region("ILD", BOX), region("ILD", BOX, original_width=99))
    with pytest.raises(ValueError, match="task 97: its boxes are of pictures of two sizes"):
        read_release(write(films, task("a", two)))
    with pytest.raises(ValueError, match="task 97: the image a is in another task too"):
        read_release(write(films, task("a", annotation()), task("a", annotation())))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[{broken", "is not a JSON file"),
        ('{"tasks": []}', 'is no list of tasks: export as "JSON"'),
        ('[{"id": 3, "image": "a.png", "label": []}]', 'task 3: it has no data or annotations: export as "JSON"'),
        ('[{"id": 3, "data": {}, "annotations": [{}]}]', "task 3: an annotation has no list result"),
        ('[{"id": 3, "data": {}, "annotations": []}]', "task 3: its data have neither image_id nor image"),
        ("[]", "no radiograph is annotated in it"),
    ],
)
def test_another_file_is_refused_with_its_name(text, sentence, films):
    (films / EXPORT).write_text(text)
    with pytest.raises(ValueError, match=sentence) as error:
        read_release(films)
    assert str(films / EXPORT) in str(error.value)


def test_two_exports_in_a_folder_are_refused(films):
    write(films, task("a", annotation()))
    (films / "label_studio.json").write_text("[]")
    with pytest.raises(ValueError, match="are two exports: keep one of them"):
        read_release(films)
    assert not (films / LABELS_FILE).exists()
