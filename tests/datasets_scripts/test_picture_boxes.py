import pytest
from PIL import Image

from litegpt.datasets_scripts.annotations import Finding, ImageAnnotation, Reading
from litegpt.datasets_scripts.picture_boxes import boxes_in_pixels, picture_size


def fit(folder, boxes, size=(100, 200), sizes=None):
    """`boxes_in_pixels` of one picture a box; returns their boxes and what was counted."""
    annotations, paths = [], {}
    for index, box in enumerate(boxes):
        name = f"i{index}"
        paths[name] = str(folder / f"{name}.png")
        Image.new("L", size).save(paths[name])
        finding = (Finding("ILD", box),)
        annotations.append(ImageAnnotation(name, finding, (), readings=(Reading("R1", finding, ()),)))
    sizes = dict.fromkeys(paths, sizes) if sizes else {}
    fitted, counts = boxes_in_pixels({"train": annotations}, paths, sizes, "t.csv")
    assert all(image.readings[0].findings == image.findings for image in fitted["train"])
    return [image.findings[0].box for image in fitted["train"]], counts["train"]


def test_boxes_of_the_pictures_stay_and_those_of_an_original_are_scaled(tmp_path):
    boxes = [(10, 20, 80, 160), (0, 0, 101, 202)]  # one pixel beyond the edge is rounding
    assert fit(tmp_path, boxes) == (boxes, {})
    scaled, counts = fit(tmp_path, [(100, 200, 1000, 2000), (10, 20, 30, 40)], sizes=(1000, 2000))
    assert scaled == [pytest.approx((10, 20, 100, 200)), pytest.approx((1, 2, 3, 4))] and counts == {"boxes_scaled": 2}


def test_boxes_of_texts_are_scaled_with_the_findings_and_count_once(tmp_path):
    Image.new("L", (100, 200)).save(tmp_path / "a.png")
    box, other = (100, 200, 500, 1000), (0, 0, 1000, 2000)
    told = {"phrase": [{"phrase": "A mass", "boxes": [box]}, {"phrase": "No mass", "boxes": []}], "study_id": "s"}
    told["sentences"] = [{"text": "A mass.", "boxes": [other]}]
    image = ImageAnnotation("a", (Finding("ILD", box),), (), optional=told)
    only_texts = ImageAnnotation("b", (), (), optional={"sentences": [{"text": "A mass.", "boxes": [other]}]})
    paths = dict.fromkeys(("a", "b"), str(tmp_path / "a.png"))
    fitted, counts = boxes_in_pixels({"train": [image, only_texts]}, paths, dict.fromkeys(paths, (1000, 2000)), "t")
    assert counts == {"train": {"boxes_scaled": 3}}
    first, second = fitted["train"]
    assert first.findings[0].box == first.optional["phrase"][0]["boxes"][0] == (10, 20, 50, 100)
    assert first.optional["sentences"][0]["boxes"] == second.optional["sentences"][0]["boxes"] == [(0, 0, 100, 200)]
    assert first.optional["phrase"][1] == told["phrase"][1] and first.optional["study_id"] == "s"
    with pytest.raises(ValueError, match=r"boxes leave 1 of the 1 pictures .*\(b: 0, 0, 1000, 2000 of 100 x 200"):
        boxes_in_pixels({"train": [only_texts]}, paths, {}, "t.csv")


def test_boxes_of_0_to_1_are_told_by_their_values(tmp_path):
    assert fit(tmp_path, [(0.1, 0.2, 0.5, 1.0)]) == ([pytest.approx((10, 40, 50, 200))], {"boxes_of_0_to_1": 1})


def test_boxes_of_an_original_of_unknown_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^t.csv: boxes leave 2 of the 3 .*\(i0: .* of 100 x 200 pixels\): if they"):
        fit(tmp_path, [(300, 300, 400, 400), (50, 50, 90, 900), (10, 10, 60, 60)])
    with pytest.raises(ValueError, match="boxes leave 1 of the 1 pictures"):
        fit(tmp_path, [(300, 300, 400, 400)])
    with pytest.raises(ValueError, match="they were drawn on pictures of another size"):
        fit(tmp_path, [(300, 300, 1400, 400), (30, 30, 1400, 400)], sizes=(1000, 2000))


@pytest.mark.parametrize("good, stray", [(1, 1), (18, 2), (30, 3)])
def test_a_few_stray_boxes_are_counted_and_do_not_stand_in_the_way(tmp_path, good, stray):
    boxes = [(10, 10, 90, 190)] * good + [(60, 60, 130, 190)] * stray
    assert fit(tmp_path, boxes) == (boxes, {"boxes_clipped": stray})


def test_more_than_a_tenth_of_stray_pictures_is_no_accident(tmp_path):
    with pytest.raises(ValueError, match="boxes leave 3 of the 20 pictures"):
        fit(tmp_path, [(10, 10, 90, 190)] * 17 + [(60, 60, 130, 190)] * 3)


def test_boxes_that_fit_the_pictures_and_the_sizes_of_the_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"said to be of 1000 x 2000 pixels \(i0\).*as they are \(100 x 200\)"):
        fit(tmp_path, [(10, 20, 80, 160)], sizes=(1000, 2000))


def test_boxes_of_smaller_pictures_are_refused_unless_the_table_says_the_size(tmp_path):
    boxes = [(5, 5, 40, 80)] * 3
    with pytest.raises(ValueError, match="all boxes lie in the upper left quarter"):
        fit(tmp_path, boxes)
    assert fit(tmp_path, boxes, sizes=(100, 200))[0] == boxes
    assert fit(tmp_path, boxes, sizes=(50, 100))[0] == [(10, 10, 80, 160)] * 3
    assert fit(tmp_path, [*boxes, (60, 5, 90, 80)])[1] == {}


def test_a_picture_that_cannot_be_read_keeps_its_boxes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    image = ImageAnnotation("a", (Finding("ILD", (300, 300, 400, 400)),), ())
    for paths in ({}, {"a": str(tmp_path / "a.png")}):
        assert boxes_in_pixels({"train": [image]}, paths, {}, "t.csv") == ({"train": [image]}, {"train": {}})


def test_sizes_are_those_of_the_picture_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert picture_size(str(tmp_path / "turned.jpg")) == (20, 30)
