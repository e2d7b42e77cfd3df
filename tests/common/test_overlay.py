from itertools import combinations
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from litegpt.common.overlay import (
    COLOURS,
    DISCLAIMER,
    DrawnFinding,
    Sizes,
    box_corners,
    colour_of_label,
    contact_sheet,
    has_boxes,
    is_drawn,
    name_places,
    overlay,
    save,
)
from litegpt.datasets_scripts.vindr_cxr import FINDING_LABELS

OUTPUT = {
    "findings": [{"label": "ILD", "score": 0.5, "box": {"xmin": 20, "ymin": 50, "xmax": 100, "ymax": 90}}],
    "diagnoses": [{"label": "COPD", "score": 0.9}],
    "malformed": {"identify": None, "vqa": None},
}
TWO = {
    **OUTPUT,
    "findings": [
        *OUTPUT["findings"],
        {"label": "Edema", "score": 0.2, "box": {"xmin": 120, "ymin": 10, "xmax": 190, "ymax": 60}},
    ],
}


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The texts that are drawn, in their order."""
    texts, draw_text = [], ImageDraw.ImageDraw.text

    def recording(self, xy, text, *args, **kwargs):
        texts.append(text)
        return draw_text(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    return texts


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def lab(colour: str) -> np.ndarray:
    """CIELAB of an sRGB colour (D65)."""
    linear = np.array(
        [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.divide(rgb(colour), 255)]
    )
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(matrix @ linear / [0.9505, 1, 1.089])  # all are bright enough for the cube root
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def pixels_of(picture: Image.Image, label: str) -> int:
    return int((np.asarray(picture) == rgb(colour_of_label(label))).all(axis=-1).sum())


def test_overlay_draws_the_box_where_the_finding_is():
    picture = overlay(Image.new("L", (200, 100)), OUTPUT)
    assert picture.width == 1024  # the shorter side is enlarged to 512 pixels
    scale = picture.width / 200
    edge, inside = picture.getpixel((20 * scale + 1, 70 * scale)), picture.getpixel((60 * scale, 70 * scale))
    assert edge != (0, 0, 0) and inside == (0, 0, 0)
    assert picture.height > 512 and picture.crop((0, 512, 1024, picture.height)).getbbox()  # the diagnoses below it


def test_a_label_has_one_colour_whatever_else_is_in_the_picture():
    for findings in (TWO["findings"], TWO["findings"][::-1], TWO["findings"][:1]):
        picture = overlay(Image.new("L", (200, 100)), {**TWO, "findings": findings})
        assert picture.getpixel((20 * 5.12 + 1, 70 * 5.12)) == rgb(COLOURS["ILD"])
    assert colour_of_label("Hernia") == colour_of_label("Hernia") in COLOURS.values()


def test_each_of_the_22_labels_has_a_colour_that_the_eye_tells_from_the_others():
    assert COLOURS.keys() == set(FINDING_LABELS)
    distances = [np.linalg.norm(lab(a) - lab(b)) for a, b in combinations(COLOURS.values(), 2)]
    assert min(distances) > 30  # 2.3 is just seen side by side
    assert min(lab(colour)[0] for colour in COLOURS.values()) > 50  # bright on a dark radiograph


def test_what_lies_below_its_operating_point_is_thin_without_a_name_and_said_to_be(written):
    radiograph = Image.new("L", (200, 100))
    plain = overlay(radiograph, TWO)
    assert {"ILD 0.50", "Edema 0.20"} <= set(written)
    del written[:]
    picture = overlay(radiograph, TWO, {"Edema": 0.3, "ILD": 0.3})
    assert "ILD 0.50" in written and "Edema 0.20" not in written[:2]
    assert "Below the operating point (thin boxes): Edema 0.20" in " ".join("".join(written).split())
    assert 0 < pixels_of(picture, "Edema") < pixels_of(plain, "Edema") / 2
    drawn = (0, 0, picture.width, 512)
    assert pixels_of(picture.crop(drawn), "ILD") == pixels_of(plain.crop(drawn), "ILD")


@pytest.mark.parametrize("side", [512, 1024, 3000])
def test_names_lie_on_no_other_name_and_on_no_corner_of_another_box(side):
    rng, sizes = Random(side), Sizes.for_picture(side, side)
    findings = []
    for label in [*FINDING_LABELS, *FINDING_LABELS[:8]]:
        x, y, width, height = (rng.uniform(low, high) for low, high in ((0, 0.7), (0, 0.7), (0.02, 0.3), (0.02, 0.3)))
        box = tuple(side * value for value in (x, y, x + width, y + height))
        findings.append(DrawnFinding(f"{label} 0.50", colour_of_label(label), box, rng.random() < 0.3))
    places = name_places(findings, (side, side), ImageFont.load_default(size=sizes.font), sizes)
    assert [place is None for place in places] == [finding.below_threshold for finding in findings]

    def overlap(a, b):
        return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

    named = [(finding, place) for finding, place in zip(findings, places, strict=True) if place]
    assert not any(overlap(a, b) for (_, a), (_, b) in combinations(named, 2))
    for finding, place in named:
        assert place[0] >= 0 and place[1] >= 0 and place[2] <= side and place[3] <= side
        others = [other for other in findings if other is not finding]
        assert not any(overlap(place, corner) for other in others for corner in box_corners(other.box, sizes))


def test_the_footer_says_whose_answer_it_is_and_what_speaks_against_it(written):
    line = {
        **OUTPUT,
        "warnings": ["it looks inverted"],
        "checkpoint": "demo/checkpoint",
        "trained_on": ["Phantoms"],
        "caution": "trained on synthetic radiographs: its answers to real ones mean nothing",
    }
    overlay(Image.new("L", (600, 600)), line)
    text = " ".join("".join(f" {piece}" for piece in written).split())
    assert "Warning: it looks inverted" in text
    assert "Caution: trained on synthetic radiographs: its answers to real ones mean nothing" in text
    assert text.endswith(f"demo/checkpoint, trained on Phantoms. {DISCLAIMER}")


def test_an_answer_without_scores_and_one_that_is_malformed_are_drawn(written):
    findings = [{**OUTPUT["findings"][0], "score": None}]
    malformed = {"identify": None, "vqa": "an unknown label: " + 300 * "x"}
    picture = overlay(Image.new("L", (600, 600)), {**OUTPUT, "findings": findings, "malformed": malformed})
    assert "ILD" in written and picture.height > 700
    font = ImageFont.load_default(size=Sizes.for_picture(600, 600).font)
    assert all(font.getlength(piece) <= 600 for piece in written)  # also a word that is longer than the picture


def test_a_saved_picture_says_of_itself_that_it_is_drawn(tmp_path):
    picture = overlay(Image.new("L", (200, 100)), OUTPUT)
    save(picture, tmp_path / "below" / "drawn.png")
    assert is_drawn((tmp_path / "below" / "drawn.png").read_bytes())
    picture.save(tmp_path / "plain.png")
    assert not is_drawn((tmp_path / "plain.png").read_bytes())
    assert not is_drawn(b"\x89PNG\r\n\x1a\n1234") and not is_drawn(b"")


def test_a_contact_sheet_is_as_high_as_its_highest_picture():
    sheet = contact_sheet([overlay(Image.new("L", size), OUTPUT) for size in ((200, 100), (200, 300))])
    assert sheet.width == 800 and sheet.height > 600


IN_WORDS = {
    **OUTPUT,
    "phrases": [
        {
            "phrase": "enlarged heart",
            "present": 0.97,
            "boxes": [{"score": 0.87, "box": {"xmin": 120, "ymin": 10, "xmax": 190, "ymax": 60}}],
        }
    ],
    "grounded_report": [
        {
            "text": "There is a nodule.",
            "probability": 0.31,
            "verified": False,
            "doubtful": True,
            "boxes": [{"score": 0.4, "box": {"xmin": 110, "ymin": 70, "xmax": 150, "ymax": 95}}],
        }
    ],
}


def test_phrases_and_sentences_are_drawn_and_a_doubtful_one_is_thin_and_marked(written):
    picture = overlay(Image.new("L", (200, 100)), IN_WORDS)
    assert "enlarged heart 0.87" in written and "There is a nodule. 0.40" not in written
    text = " ".join("".join(f" {piece}" for piece in written).split())
    assert '"enlarged heart": seen, probability 0.97' in text
    assert "0.31 There is a nodule. [doubtful]" in text and "nobody has verified" in text
    radiograph = picture.crop((0, 0, 1024, 512))
    sure, doubtful = (pixels_of(radiograph, words) for words in ("enlarged heart", "There is a nodule."))
    assert 0 < doubtful < sure / 2
    certain = [{**IN_WORDS["grounded_report"][0], "doubtful": False}]
    again = overlay(Image.new("L", (200, 100)), {**IN_WORDS, "grounded_report": certain}).crop((0, 0, 1024, 512))
    assert pixels_of(again, "There is a nodule.") > 2 * doubtful


def test_what_is_drawn_counts_as_boxes():
    assert has_boxes(OUTPUT) and has_boxes({**IN_WORDS, "findings": []})
    assert not has_boxes({"findings": [], "phrases": [{"phrase": "a", "present": 0.1, "boxes": []}]})
