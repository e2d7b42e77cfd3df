import base64
import io
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from litegpt.common.templates import template
from litegpt.evaluation_scripts.questions import label_names
from litegpt.evaluation_scripts.reports import gallery as module
from litegpt.evaluation_scripts.reports.gallery import (
    IOU,
    MAP_SIDE,
    MAPS_SHOWN,
    SHOWN,
    SHOWN_PER_LABEL,
    SIDE,
    AnswerMaps,
    Case,
    Rectangle,
    chosen,
    diagnosis_gallery,
    gallery,
    iou,
    map_pictures,
    picture,
    placed_words,
    row_cases,
)
from litegpt.metrics.boxes import match


def as_html(macro: str, *arguments: Any) -> Markup:
    return getattr(template(module.__file__, "gallery.html.jinja").module, macro)(*arguments)


@pytest.fixture(scope="module")
def lines(rows) -> list[dict]:
    """To each radiograph one box that is nowhere."""
    box = {"label": "Edema", "box": [0.0, 0.0, 0.125, 0.25], "score": 0.875}
    return [
        {"image_id": image_id, "task": "identify", "answer": "An answer.", "findings": [box], "malformed": None}
        for image_id in rows["image_id"]
    ]


def test_boxes_are_drawn_where_they_are():
    """On a radiograph that is twice as wide as high, so that x and y are not taken for each other."""
    row = {"image_id": "wide", "image": Image.new("L", (2 * SIDE, SIDE))}
    true = {"label": "ILD", "box": [0.5, 0.5, 1.0, 0.75]}
    answered = {"label": "ILD", "box": [0.25, 0.5, 1.0, 0.75], "score": 0.875}
    (case,) = row_cases(0, [true], [answered])
    shown = picture(case, row, [true, {"label": "Edema", "box": [0.0, 0.0, 0.125, 0.25]}], [answered])
    figure = as_html("figure", shown)
    assert f'viewBox="0 0 {SIDE} {SIDE // 2}"' in figure
    assert '<rect class="true" x="240.0" y="120.0" width="240.0" height="60.0"><title>ILD</title>' in figure
    assert '<rect class="answered" x="120.0" y="120.0" width="360.0" height="60.0"><title>ILD</title>' in figure
    assert '<rect class="true other" x="0.0" y="0.0" width="60.0" height="60.0"><title>Edema</title>' in figure
    assert "<b>ILD</b><br>score 0.875, IoU 0.67<br><small>wide</small>" in figure


def test_labels_stand_at_their_boxes_inside_the_picture_and_cover_no_other():
    boxes = [("ILD", "true", 400.0, 0.0), ("Pulmonary fibrosis", "answered", 380.0, 2.0), ("ILD", "true", 402.0, 2.0)]
    rectangles = [Rectangle(label, origin, True, x, y, 60.0, 40.0) for label, origin, x, y in boxes]
    words = placed_words(rectangles, (480, 480))
    assert [one.rectangle for one in words] == rectangles
    areas = [(one.x, one.y - one.height, one.x + 0.6 * one.height * len(one.rectangle.label), one.y) for one in words]
    for left, top, right, bottom in areas:
        assert 0 <= left and right <= 480 and top >= -0.3 * 24 and bottom <= 480
    for i, (left, top, _, bottom) in enumerate(areas):
        for other in areas[:i]:
            assert bottom <= other[1] + 8 or other[3] <= top + 8 or left >= other[2]
    # A true label stands above its box where it can, an answered one below.
    (above,) = placed_words([Rectangle("ILD", "true", True, 50.0, 100.0, 60.0, 40.0)], (480, 480))
    (below,) = placed_words([Rectangle("ILD", "answered", True, 50.0, 100.0, 60.0, 40.0)], (480, 480))
    assert above.x == below.x == 50 and above.y < 100 and below.y > 140


def test_right_missed_and_wrong_diagnoses_are_shown_with_the_whole_answer(rows):
    """Every radiograph is said to have Pneumonia and COPD, one answer is malformed."""
    labels = label_names(rows)
    answer = "Global diseases of this chest radiograph are Pneumonia, COPD."
    named = [{"label": label, "score": score} for label, score in (("Pneumonia", 0.75), ("COPD", 0.5))]
    given = [
        {"image_id": image_id, "task": "vqa", "answer": answer, "diagnoses": named, "malformed": None}
        for image_id in rows["image_id"]
    ]
    given[0] |= {"diagnoses": [], "malformed": "it does not end with a full stop"}
    truths = [{labels["diagnosis"][index] for index in diagnoses} - {"No finding"} for diagnoses in rows["diagnoses"]]
    groups = {group.title: group for group in diagnosis_gallery(given, rows, labels)}
    said = [{"Pneumonia", "COPD"} if index else set() for index in range(len(rows))]
    expected = {
        "Right diagnoses": sum(len(one & true) for one, true in zip(said, truths, strict=True)),
        "Missed diagnoses": sum(len(true - one) for one, true in zip(said, truths, strict=True)),
        "Wrong diagnoses": sum(len(one - true) for one, true in zip(said, truths, strict=True)),
    }
    assert {title: group.count for title, group in groups.items()} == expected
    assert expected["Missed diagnoses"] > 0 < expected["Wrong diagnoses"]
    shown = groups["Wrong diagnoses"].pictures[0]
    assert shown.answer == answer and shown.truth.startswith("Global diseases of this chest radiograph are")
    assert shown.case.score == 0.75 and shown.case.iou is None
    figure = as_html("figure", shown)
    assert f"<b>Answer</b> {answer}" in figure and "probability 0.750" in figure and "IoU" not in figure
    assert as_html("gallery", list(groups.values()), None).count("<h3>") == 3


def test_a_boxs_words_are_escaped():
    row = {"image_id": "<i>&", "image": Image.new("L", (8, 8))}
    label = "\"a\" < 'b' & <c>"
    (case,) = row_cases(0, [], [{"label": label, "box": [0.0, 0.0, 1.0, 1.0], "score": 0.5}])
    figure = as_html("figure", picture(case, row, [], [{"label": label, "box": [0.0, 0.0, 1.0, 1.0]}]))
    escaped = "&#34;a&#34; &lt; &#39;b&#39; &amp; &lt;c&gt;"
    assert f'aria-label="{escaped}, score 0.500, IoU 0.00"' in figure and f"<title>{escaped}</title>" in figure
    assert f"<b>{escaped}</b>" in figure and "<small>&lt;i&gt;&amp;</small>" in figure


def test_a_radiograph_is_shown_whole_and_small():
    row = {"image_id": "a", "image": Image.new("I;16", (2 * SIDE, 4 * SIDE))}
    shown = picture(case("missed", 0, "ILD"), row, [], [])
    assert (shown.width, shown.height) == (SIDE // 2, SIDE) and shown.data_url.startswith("data:image/jpeg;base64,/9j")


def test_where_the_data_tells_no_boxes_none_is_invented(rows, lines):
    """Diagnoses without findings, as most of ChestX-ray14: the scores leave such radiographs out, too."""
    table = rows.select([0]).remove_columns("image").to_dict()
    table["findings"], table["diagnoses"] = [[]], [[0]]
    unknown = type(rows).from_dict(table, features=rows.remove_columns("image").features)
    groups = list(gallery(lines[:1], unknown, label_names(rows)))
    assert as_html("gallery", groups, IOU).count("There are none.") == 3
    assert [group.count for group in groups] == [0, 0, 0]


def test_only_the_pictures_that_are_shown_are_read(rows, lines):
    read = []

    class Rows:
        def __getitem__(self, key):
            if key not in ("findings", "diagnoses"):
                read.append(key)
            return rows[key]

    groups = list(gallery(lines, Rows(), label_names(rows)))
    shown = as_html("gallery", groups, IOU).count("<image ")
    assert len(read) == shown <= 3 * SHOWN
    assert 0 < shown < sum(group.count for group in groups)


def greys(size: tuple[int, int] = (2 * SIDE, SIDE)) -> Image.Image:
    return Image.new("L", size, 100)


def one_bright_cell(row: int, column: int) -> np.ndarray:
    grid = np.zeros((4, 4), np.float32)
    grid[row, column] = 2
    return grid


def test_a_map_lies_over_its_radiograph_with_the_boxes_of_its_label_alone():
    """On a radiograph that is twice as wide as high, so that x and y are not taken for each other."""
    boxes = {"ILD": [0.5, 0.5, 1.0, 0.75], "Edema": [0.0, 0.0, 0.125, 0.25]}
    findings = [{"label": label, "box": boxes[label], "score": 0.5} for label in ("Edema", "ILD", "ILD")]
    findings[2] |= {"box": [0.25, 0.5, 1.0, 0.75], "score": 0.875}
    truths = [{"label": label, "box": box} for label, box in boxes.items()]
    maps = AnswerMaps("what speaks", lambda image, line, numbers: np.stack([one_bright_cell(3, 0)] * len(numbers)))
    first, second, third = map_pictures(maps, greys(), {"findings": findings}, truths)
    assert [one.label for one in (first, second, third)] == ["ILD", "Edema", "ILD"] and first.score == 0.875
    assert (first.width, first.height) == (MAP_SIDE, MAP_SIDE // 2)
    assert first.rectangles == [
        Rectangle("ILD", "true", True, 120.0, 60.0, 120.0, 30.0),
        Rectangle("ILD", "answered", True, 60.0, 60.0, 180.0, 30.0),
    ]
    assert [(one.origin, one.width) for one in third.rectangles] == [("true", 120.0), ("answered", 120.0)]
    assert {one.label for one in second.rectangles} == {"Edema"}
    drawn = Image.open(io.BytesIO(base64.b64decode(first.data_url.partition(",")[2])))
    pixels = np.asarray(drawn.convert("RGB")).astype(int)
    yellow = pixels[..., 0] - pixels[..., 2]
    y, x = np.unravel_index(yellow.argmax(), yellow.shape)
    assert y >= 3 / 4 * drawn.height - 2 and x <= drawn.width / 4 + 2
    assert yellow.max() > 50 and yellow[5, -5] < 0  # the lowest value is bluish


def test_of_many_findings_those_of_the_highest_scores_have_maps_and_that_is_said():
    scores = [0.125, 0.75, 0.25, 0.875, 0.5, 0.375]
    findings = [{"label": "ILD", "box": [0.0, 0.0, 0.5, 0.5], "score": score} for score in scores]
    asked = []

    def grids(image, line, numbers):
        asked.extend(numbers)
        return np.zeros((len(numbers), 2, 2), np.float32)

    maps = AnswerMaps("gradients: of <words>", grids)
    row = {"image_id": "a", "image": greys()}
    (case, *_) = row_cases(0, [], findings)
    shown = picture(case, row, [], findings)
    shown = shown._replace(maps=map_pictures(maps, row["image"], {"findings": findings}, []))
    assert asked == [3, 1, 4, 5] and len(shown.maps) == MAPS_SHOWN
    strip = as_html("maps", shown)
    assert strip.count("<svg ") == strip.count("No segmentation.") == MAPS_SHOWN
    assert "Maps of 4 of the 6 findings that the answer names: those of the highest scores." in strip
    assert "<b>ILD</b><br>score 0.875<br>Gradients: of &lt;words&gt;. No segmentation." in strip
    few = shown._replace(rectangles=shown.rectangles[:4])
    assert "Maps of" not in as_html("maps", few)
    # An answer without findings asks for nothing.
    assert map_pictures(maps, greys(), {"findings": []}, []) == [] and len(asked) == MAPS_SHOWN


def test_maps_are_made_once_of_each_radiograph_that_is_shown_and_change_nothing_else(rows, lines):
    """Every second answer names nothing."""
    given = [line | {"findings": line["findings"] if place % 2 else []} for place, line in enumerate(lines)]
    asked = []

    def grids(image, line, numbers):
        asked.append(line["image_id"])
        return np.zeros((len(numbers), 2, 2), np.float32)

    labels = label_names(rows)
    plain = list(gallery(given, rows, labels))
    explained = list(gallery(given, rows, labels, AnswerMaps("what speaks", grids)))
    pictures = [one for group in explained for one in group.pictures]
    named = {line["image_id"] for line in given if line["findings"]}
    with_maps = [one.image_id for one in pictures if one.maps]
    assert sorted(asked) == sorted(set(with_maps)) == sorted(named & {one.image_id for one in pictures})
    assert 0 < len(asked) < len(with_maps) < len(pictures)  # else this test says nothing
    assert [group._replace(pictures=[one._replace(maps=()) for one in group.pictures]) for group in explained] == plain
    text, bare = as_html("gallery", explained, IOU), as_html("gallery", plain, IOU)
    assert text.count('class="explained"') == len(with_maps) and "<code>litegpt localize</code>" in text
    assert "litegpt localize" not in bare and "maps" not in bare


def random_boxes(rng, count, with_scores):
    for _ in range(count):
        x, y, width, height = rng.choice(np.arange(1, 9) / 16, 4)
        box = {"label": str(rng.choice(["Edema", "ILD"])), "box": [x, y, x + width, y + height]}
        yield {**box, "score": float(rng.random())} if with_scores else box


def test_right_and_invented_boxes_are_those_of_the_metric():
    rng = np.random.default_rng(0)
    truths = [list(random_boxes(rng, rng.integers(4), False)) for _ in range(200)]
    answers = [list(random_boxes(rng, rng.integers(5), True)) for _ in range(200)]
    cases = [case for row in range(200) for case in row_cases(row, truths[row], answers[row])]
    matches = match(answers, truths, IOU)
    expected = sorted(zip(matches.image.tolist(), matches.score.tolist(), matches.is_true.tolist(), strict=True))
    assert expected == sorted((case.row, case.score, case.kind == "right") for case in cases if case.kind != "missed")
    assert sum(case.kind == "missed" for case in cases) == len(matches.true_image) - matches.is_true.sum() > 0
    for case in cases:
        assert case.iou == (iou(case.true_box, case.answered_box) if case.true_box and case.answered_box else 0.0)
        assert (case.iou > IOU) == (case.kind == "right") or case.kind != "right"


def test_the_overlap_of_two_boxes():
    assert iou([0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]) == pytest.approx(1 / 3)
    assert iou([0, 0, 0.5, 0.5], [0.5, 0, 1, 1]) == 0 and iou([0.5, 0.5, 0, 0], [0, 0, 1, 1]) == 0


def case(kind, row, label, score=None) -> Case:
    return Case(kind, row, label, score, 0.0, None, None)


def test_the_highest_scores_are_shown_but_not_one_label_alone():
    often = [case("right", row, "Cardiomegaly", 0.9 - row / 100) for row in range(20)]
    rare = [case("right", 20 + row, label, 0.1) for row, label in enumerate(("ILD", "Edema", "ILD"))]
    shown = chosen(often + rare)
    assert len(shown) == SHOWN and shown == chosen(rare[::-1] + often[::-1])
    assert {one.label for one in shown} == {"Cardiomegaly", "ILD", "Edema"}
    assert [one.row for one in shown[:SHOWN_PER_LABEL]] == [0, 1]
    assert len(chosen(often)) == SHOWN


def test_missed_boxes_are_shown_of_as_many_labels_as_there_are():
    cases = [case("missed", row, label) for row, label in enumerate(["ILD"] * 10 + ["Edema"] * 3 + ["Emphysema"])]
    assert [one.label for one in chosen(cases)] == ["ILD", "Edema", "Emphysema", "ILD", "Edema", "ILD", "Edema", "ILD"]
