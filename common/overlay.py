"""Radiographs with what was answered drawn on them, for people: findings, phrases, a report's sentences.

In: a radiograph and an answer, as the pipeline or a predictions file has it. Out: a picture. `overlay` is for one
answer, `panel` for an answer beside the truth, `contact_sheet` for several pictures in one, `coloured` for a map.

    picture = overlay(load_radiograph("a.dicom"), line, processor.score_thresholds)
    save(picture, Path("a.png"))     # the file says of itself that it is no radiograph: `is_drawn`

What lies below its operating point, as a doubtful sentence does, has a thin box without a name, and is listed below
the radiograph like all others.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from litegpt.common.answers_in_words import malformed_in_words, words_in_words
from litegpt.common.files import replacing
from litegpt.dicom_output.source_header import is_own_picture
from litegpt.processing.answers import NO_FINDING
from litegpt.processing.tasks import TASKS

COLUMNS, SIDE, LINE = 4, 400, 18  # pictures side by side, and their side and a line of text in pixels
TRUE, ANSWERED = "#06d6a0", "#ffd166"
OUTLINE = {"stroke_width": 1, "stroke_fill": "#000000"}  # keeps names legible on a bright radiograph
DISCLAIMER = "Research software, not for diagnosis"
# Each label's own, in whatever picture it stands: bright on grey, and no two closer than 36 in CIELAB (CIE 1976).
COLOURS = {
    "Aortic enlargement": "#ff5a5a",
    "Cardiomegaly": "#ffd25a",
    "Pleural effusion": "#00d2ff",
    "Pleural thickening": "#d200ff",
    "Pulmonary fibrosis": "#00ff00",
    "Calcification": "#00964b",
    "Emphysema": "#a569b4",
    "Nodule/Mass": "#ff0087",
    "Lung Opacity": "#d2f000",
    "Atelectasis": "#1effd2",
    "Clavicle fracture": "#b4783c",
    "Consolidation": "#6969ff",
    "Other lesion": "#d2f0b4",
    "ILD": "#00ff87",
    "Infiltration": "#ff8700",
    "Edema": "#ffa5b4",
    "Lung cyst": "#78870f",
    "Pneumothorax": "#ff0000",
    "Enlarged PA": "#0087e1",
    "Lung cavity": "#ff69f0",
    "Mediastinal shift": "#3ca596",
    "Rib fracture": "#4bb400",
}
TEXT, FAINT, CAUTION = "#ffffff", "#b8b8b8", "#ffb347"  # what was answered, where it is from, what speaks against it
MIN_OVERLAY = 512  # of the shorter side, in pixels
FONT = 0.022  # of the shorter side
MIN_FONT = 14
COLOUR_MAP = "viridis"  # rises evenly in lightness: readable with any colour blindness, and in grey
OPACITY = 0.2, 0.5  # of the smallest and the largest value: what a map says little of hides little
DRAWN = "LiteGPT: answers drawn on a radiograph"  # in the PNG's text, as its Software
NO_BREAK = "\N{NO-BREAK SPACE}"  # where a line must not be cut
PNG = b"\x89PNG\r\n\x1a\n"

Rectangle = tuple[float, float, float, float]  # xyxy in pixels of the picture


class Sizes(NamedTuple):
    """What grows with a picture, in its pixels."""

    font: int
    line: int  # the height of a line of text
    box: int  # the width of a box's lines
    thin_box: int  # of one below the operating point

    @classmethod
    def for_picture(cls, width: int, height: int) -> "Sizes":
        font = max(MIN_FONT, round(FONT * min(width, height)))
        return cls(font, round(1.35 * font), max(2, font // 7), max(1, font // 20))


def overlay(
    radiograph: Image.Image, output: Mapping[str, Any], score_thresholds: Mapping[str, float] | None = None
) -> Image.Image:
    """The radiograph with the boxes of findings, phrases and sentences drawn, and below it everything in words.

    Args:
        radiograph: as the boxes' pixels refer to it; small ones are enlarged for legible text.
        output: of the `chest-xray-findings` pipeline, or a line of the predictions of `predict.py`, whose checkpoint,
            data sets and caution are written below as well.
        score_thresholds: the checkpoint's operating points, by label. What scores less has a thin box without a name.
    """
    scale = max(1.0, MIN_OVERLAY / min(radiograph.size))
    width, height = (round(scale * side) for side in radiograph.size)
    sizes = Sizes.for_picture(width, height)
    font = ImageFont.load_default(size=sizes.font)
    below = _lines_below(output, score_thresholds or {}, width - sizes.line, font)
    canvas = Image.new("RGB", (width, height + (len(below) + 1) * sizes.line))
    canvas.paste(radiograph.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"))
    _draw_findings(canvas, (width, height), _drawn_findings(output, score_thresholds or {}, scale), font, sizes)
    draw, y = ImageDraw.Draw(canvas), height + sizes.line // 2
    for line in below:
        x = sizes.line / 2
        for colour, text in line:
            draw.text((x, y), text, fill=colour, font=font)
            x += font.getlength(text)
        y += sizes.line
    return canvas


def colour_of_label(label: str) -> str:
    """The label's own colour, the same in every picture; a label that has none gets one that its letters choose."""
    return COLOURS.get(label) or list(COLOURS.values())[zlib.crc32(label.encode()) % len(COLOURS)]


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG that says of itself that it is drawn, so that no program answers it as a radiograph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(png_bytes(picture))


class Drawing(NamedTuple):
    """What an overlay is made of, and its file."""

    picture: Image.Image
    line: dict[str, Any]
    thresholds: dict[str, float]
    path: Path


def saved_overlay(drawing: Drawing) -> dict[str, Any]:
    """Writes an overlay, also in a process that knows no more than this file; its line."""
    save(overlay(drawing.picture, drawing.line, drawing.thresholds), drawing.path)
    return drawing.line


def png_bytes(picture: Image.Image) -> bytes:
    """The file that `save` writes."""
    file, software = BytesIO(), PngInfo()
    software.add_text("Software", DRAWN)
    # A quarter of the time that the default level takes, for a file that is a sixth larger.
    picture.save(file, format="PNG", pnginfo=software, compress_level=1)
    return file.getvalue()


def is_drawn(data: bytes) -> bool:
    """Whether a file's bytes are a picture of `save`, or the same as a DICOM object."""
    if not data.startswith(PNG):
        return is_own_picture(data)
    try:
        return Image.open(BytesIO(data), formats=("PNG",)).info.get("Software") == DRAWN
    except Exception:  # a damaged PNG, for which Pillow has several errors
        return False


# --- The boxes and their names ---------------------------------------------------------------------------------------


# A list of the pipeline's output whose entries have boxes -> what names them.
BOXES_IN_WORDS = {"phrases": "phrase", "grounded_report": "text"}
LONGEST_NAME = 40  # characters of a sentence beside its box; below the radiograph it stands whole


class DrawnFinding(NamedTuple):
    """A finding, phrase or sentence as it is drawn."""

    text: str
    colour: str
    box: Rectangle
    below_threshold: bool


def _drawn_findings(
    output: Mapping[str, Any], score_thresholds: Mapping[str, float], scale: float
) -> list[DrawnFinding]:
    """Findings, phrases and sentences with boxes, the surest first, as names are placed."""
    boxes = [
        ({**finding, "doubtful": _is_below(finding, score_thresholds)}, finding["label"])
        for finding in output["findings"]
    ]
    for key, words in BOXES_IN_WORDS.items():
        for item in output.get(key, ()):
            name, doubtful = item[words], bool(item.get("doubtful"))
            boxes += [({**box, "label": shortened(name), "doubtful": doubtful}, name) for box in item["boxes"]]
    return [
        DrawnFinding(
            _with_score(drawn),
            colour_of_label(name),
            tuple(scale * drawn["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")),
            drawn["doubtful"],
        )
        for drawn, name in sorted(boxes, key=lambda one: -(one[0]["score"] or 0.0))
    ]


def has_boxes(output: Mapping[str, Any]) -> bool:
    """Whether anything would be drawn on the radiograph."""
    return bool(_drawn_findings(output, {}, 1.0))


def shortened(words: str) -> str:
    """A phrase or sentence as it stands beside its box; elsewhere it stands whole."""
    return words if len(words) <= LONGEST_NAME else words[: LONGEST_NAME - 1].rstrip() + "…"


def _is_below(finding: Mapping[str, Any], score_thresholds: Mapping[str, float]) -> bool:
    return finding["score"] is not None and finding["score"] < score_thresholds.get(finding["label"], 0.0)


def _with_score(item: Mapping[str, Any]) -> str:
    return item["label"] if item["score"] is None else f"{item['label']} {item['score']:.2f}"


def _draw_findings(
    canvas: Image.Image,
    size: tuple[int, int],
    findings: Sequence[DrawnFinding],
    font: ImageFont.FreeTypeFont,
    sizes: Sizes,
) -> None:
    """Boxes, then names over them; `size` is the radiograph's part of the canvas."""
    draw = ImageDraw.Draw(canvas)
    for finding in reversed(findings):  # the surest lies on top
        if finding.below_threshold:
            draw.rectangle(finding.box, outline=finding.colour, width=sizes.thin_box)
        else:
            around = _grown(finding.box, 1)
            draw.rectangle(around, outline="#000000", width=sizes.box + 2)  # a dark edge, for bright radiographs
            draw.rectangle(finding.box, outline=finding.colour, width=sizes.box)
    for finding, place in zip(findings, name_places(findings, size, font, sizes), strict=True):
        if place is None:  # it stands in the list below, in its colour
            continue
        if not _overlap(place, _grown(finding.box, sizes.line)):
            draw.line([_nearest(finding.box, place), _nearest(place, finding.box)], fill=finding.colour, width=1)
        draw.rectangle(place, fill="#000000")
        draw.text((place[0] + sizes.font / 2, place[1] + sizes.line / 2), finding.text, finding.colour, font, "lm")


def name_places(
    findings: Sequence[DrawnFinding], size: tuple[int, int], font: ImageFont.FreeTypeFont, sizes: Sizes
) -> list[Rectangle | None]:
    """Where each finding's name stands: on no other name and on no corner of another finding's box.

    Returns:
        Rectangles inside a radiograph of `size`, (width, height); None for what lies below its operating point, and
        where there is no room.
    """
    taken: list[Rectangle] = []
    places: list[Rectangle | None] = []
    for finding in findings:
        place = None
        if not finding.below_threshold:
            corners = [c for other in findings if other.box != finding.box for c in box_corners(other.box, sizes)]
            room = font.getlength(finding.text) + sizes.font, sizes.line
            place = _free_place(finding.box, room, size, [*taken, *corners], sizes)
        places.append(place)
        taken += [place] if place else []
    return places


def _free_place(
    box: Rectangle, room: tuple[float, float], size: tuple[int, int], taken: Sequence[Rectangle], sizes: Sizes
) -> Rectangle | None:
    """Where a name of (width, height) lies inside the picture and on nothing that is taken, as near as there is."""
    for x, y in _places(box, room, size, sizes):
        place = (x, y, x + room[0], y + room[1])
        inside = x >= 0 and y >= 0 and place[2] <= size[0] and place[3] <= size[1]
        if inside and not any(_overlap(place, other) for other in taken):
            return place
    return None


def _places(
    box: Rectangle, room: tuple[float, float], size: tuple[int, int], sizes: Sizes
) -> Iterator[tuple[float, float]]:
    """Left upper corners for a name: along the box's upper and lower edge, outside and inside it, then everywhere."""
    (x1, y1, x2, y2), (width, height) = box, room
    last_x, last_y = size[0] - width, size[1] - height
    inside = sizes.box + 1
    for y in (y1 - height - 2, y2 + 2, y1 + inside, y2 - height - inside):
        for x in (x1, x2 - width, (x1 + x2 - width) / 2):
            yield min(max(x, 0.0), last_x), y
    steps = [(column, row) for row in _steps(last_y, height / 2) for column in _steps(last_x, 2 * height)]
    centre = ((x1 + x2 - width) / 2, (y1 + y2 - height) / 2)
    half = ((x2 - x1 + width) / 2, (y2 - y1 + height) / 2)

    def distance(step: tuple[float, float]) -> float:
        away = (max(0.0, abs(step[axis] - centre[axis]) - half[axis]) for axis in (0, 1))
        return sum(way**2 for way in away)

    yield from sorted(steps, key=distance)


def _steps(last: float, step: float) -> list[float]:
    return [number * step for number in range(int(last // step) + 1)] if last >= 0 else []


def box_corners(box: Rectangle, sizes: Sizes) -> list[Rectangle]:
    """The box's corners, with the little around them by which a corner is seen."""
    around = 2 * sizes.box
    return [(x - around, y - around, x + around, y + around) for x in (box[0], box[2]) for y in (box[1], box[3])]


def _overlap(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _grown(box: Rectangle, by: float) -> Rectangle:
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def _nearest(box: Rectangle, other: Rectangle) -> tuple[float, float]:
    """The point of `box` that is nearest to the middle of another."""
    x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])


# --- The words below -------------------------------------------------------------------------------------------------


def _lines_below(
    output: Mapping[str, Any], score_thresholds: Mapping[str, float], width: int, font: ImageFont.FreeTypeFont
) -> list[list[tuple[str, str]]]:
    """The lines, each of pieces (colour, text): what was answered, what speaks against it, and where it is from."""
    drawn = {item[words] for key, words in BOXES_IN_WORDS.items() for item in output.get(key, ()) if item["boxes"]}
    below = [finding for finding in output["findings"] if _is_below(finding, score_thresholds)]
    above = sorted((f for f in output["findings"] if f not in below), key=lambda finding: finding["label"])
    paragraphs = [[(CAUTION, said.text)] for said in malformed_in_words(output)]
    for said in words_in_words(output, with_boxes=False):
        is_drawn_there = said.of is not None and said.of in drawn
        colour = CAUTION if said.is_caution else colour_of_label(said.of) if is_drawn_there else TEXT
        paragraphs.append([(colour, said.text.strip())])
    if output["diagnoses"]:
        paragraphs.append([(TEXT, f"Diagnoses: {_listed(output['diagnoses'])}")])
    if above:
        commas = [","] * (len(above) - 1) + [""]
        named = [(colour_of_label(f["label"]), _listed([f]) + comma) for f, comma in zip(above, commas, strict=True)]
        paragraphs.append([(TEXT, "Findings:"), *named])
    if below:
        paragraphs.append([(FAINT, f"Below the operating point (thin boxes): {_listed(below)}")])
    paragraphs += [[(CAUTION, f"Warning: {warning}")] for warning in output.get("warnings", [])]
    if output.get("caution"):
        paragraphs.append([(CAUTION, f"Caution: {output['caution']}")])
    paragraphs.append([(FAINT, _footer(output))])
    return [line for paragraph in paragraphs for line in _wrapped(paragraph, width, font)]


def _footer(output: Mapping[str, Any]) -> str:
    """The checkpoint and its data sets, where they are known, and what no answer may be used for."""
    if "checkpoint" not in output:
        return DISCLAIMER
    trained_on = f", trained on {', '.join(output['trained_on'])}" if output.get("trained_on") else ""
    return f"{output['checkpoint']}{trained_on}. {DISCLAIMER}"


def _listed(items: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(_with_score(item).replace(" ", NO_BREAK) for item in items)


def _wrapped(
    paragraph: Sequence[tuple[str, str]], width: int, font: ImageFont.FreeTypeFont
) -> list[list[tuple[str, str]]]:
    """The paragraph's words in lines of at most `width` pixels; a longer word is cut."""
    lines: list[list[tuple[str, str]]] = [[]]
    x = 0.0
    for colour, text in paragraph:
        for word in re.split(r"[ \t\r\n]+", text.strip()):
            for part in _cut(word, width, font):
                space = " " if lines[-1] else ""
                if lines[-1] and x + font.getlength(space + part) > width:
                    lines.append([])
                    x, space = 0.0, ""
                piece = (space + part).replace(NO_BREAK, " ")
                lines[-1].append((colour, piece))
                x += font.getlength(piece)
    return lines


def _cut(word: str, width: int, font: ImageFont.FreeTypeFont) -> Iterator[str]:
    while len(word) > 1 and font.getlength(word) > width:
        fitting = 1
        while font.getlength(word[: fitting + 1]) <= width:
            fitting += 1
        yield word[:fitting]
        word = word[fitting:]
    yield word


# --- A map -----------------------------------------------------------------------------------------------------------


def coloured(picture: Image.Image, values: np.ndarray, low: float, high: float) -> Image.Image:
    """The picture with a map's values over it, as colours.

    Args:
        picture: grey.
        values: (height, width) of the picture; NaN where the map says nothing.
        low, high: the values of the first colour and of the last; what lies beyond has these colours.
    """
    import matplotlib  # takes a while that programs without maps need not wait

    colours = (255 * matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3]).round().astype(np.uint8)
    opacity = (255 * np.linspace(*OPACITY, 256)).astype(np.uint8)
    seen = ~np.isnan(values)
    index = (255 * (np.where(seen, values, low) - low) / (high - low or 1.0)).clip(0, 255).astype(np.uint8)
    return Image.composite(
        Image.fromarray(colours[index]), picture.convert("RGB"), Image.fromarray(opacity[index] * seen)
    )


# --- Several in one --------------------------------------------------------------------------------------------------


def panel(
    image: Image.Image, row: dict[str, Any], lines: dict[str, dict[str, Any]], labels: dict[str, list[str]]
) -> Image.Image:
    """A radiograph with true boxes in green and answered ones in yellow; below it both in words.

    Args:
        image: the radiograph, 8-bit grey.
        row: its findings and diagnoses.
        lines: by task the line of the predictions file.
        labels: of findings and diagnoses, as `label_names` gives them.

    Returns:
        SIDE wide, with two lines of text for each task below the radiograph.
    """
    radiograph = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE))
    canvas = Image.new("RGB", (SIDE, SIDE + 2 * len(lines) * LINE))
    canvas.paste(radiograph)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=0.75 * LINE)
    y = SIDE
    for task, line in lines.items():
        kind = TASKS[task].kind
        answered = [item["label"] for item in line[kind.output]]
        if kind.has_boxes:
            true = [labels[kind.name][finding["label"]] for finding in row["findings"]]
            for colour, names, findings in ((TRUE, true, row["findings"]), (ANSWERED, answered, line["findings"])):
                for name, finding in zip(names, findings, strict=True):
                    x1, y1, x2, y2 = _in_pixels(finding["box"], radiograph)
                    draw.rectangle([x1, y1, x2, y2], outline=colour, width=2)
                    # What is true stands above its box, what was answered below: so both can be read.
                    place, anchor = ((x1, y1), "lb") if colour == TRUE else ((x1, y2), "lt")
                    draw.text(place, name, fill=colour, font=font, anchor=anchor, **OUTLINE)
        else:
            true = [labels[kind.name][index] for index in row["diagnoses"]]
        for colour, words in ((TRUE, _words(true)), (ANSWERED, line["malformed"] or _words(answered))):
            draw.text((4, y), f"[{task}] {words}", fill=colour, font=font)
            y += LINE
    return canvas


def contact_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, `COLUMNS` in a row, each scaled to a width of SIDE; a row is as high as the highest."""
    pictures = [ImageOps.contain(picture.convert("RGB"), (SIDE, picture.height)) for picture in pictures]
    height = max(picture.height for picture in pictures)
    columns, rows = min(COLUMNS, len(pictures)), -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (columns * SIDE, rows * height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % COLUMNS * SIDE, place // COLUMNS * height))
    return sheet


def _words(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or NO_FINDING


def _in_pixels(box: Sequence[float], image: Image.Image) -> list[float]:
    return [value * side for value, side in zip(box, 2 * image.size, strict=True)]
