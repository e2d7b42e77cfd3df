"""Radiographs with what was answered drawn on them, for people.

In: a radiograph and an answer, as the pipeline or a predictions file has it. Out: a picture. `overlay` is for one
answer, `panel` for an answer beside the truth, `contact_sheet` for several pictures in one.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from litegpt.processing.answers import NO_FINDING
from litegpt.processing.tasks import TASKS

COLUMNS, SIDE, LINE = 4, 400, 18  # pictures side by side, and their side and a line of text in pixels
TRUE, ANSWERED = "#06d6a0", "#ffd166"
OUTLINE = {"stroke_width": 1, "stroke_fill": "#000000"}  # keeps names legible on a bright radiograph
COLOURS = ("#ff5a5f", "#ffd166", "#06d6a0", "#4cc9f0", "#f78c6b", "#c77dff", "#a3e635", "#f472b6")
MARGIN = 0.03  # of the overlay's height, for a line of text
MIN_OVERLAY = 512


def overlay(radiograph: Image.Image, output: dict[str, Any]) -> Image.Image:
    """The radiograph with the findings' boxes and labels drawn, the diagnoses below it.

    Args:
        radiograph: as the boxes' pixels refer to it; small ones are enlarged for legible text.
        output: of the `chest-xray-findings` pipeline.
    """
    scale = max(1.0, MIN_OVERLAY / min(radiograph.size))
    width, height = (round(scale * side) for side in radiograph.size)
    line = max(14, round(MARGIN * height))
    canvas = Image.new("RGB", (width, height + 2 * line))
    canvas.paste(radiograph.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=round(0.8 * line))
    colours = {}
    for finding in output["findings"]:
        colour = colours.setdefault(finding["label"], COLOURS[len(colours) % len(COLOURS)])
        box = [scale * finding["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        draw.rectangle(box, outline=colour, width=max(2, line // 8))
        text = f"{finding['label']} {finding['score']:.2f}"
        x = max(0, min(box[0], width - draw.textlength(text, font=font)))
        y = box[1] - line if box[1] >= line else box[3]
        draw.rectangle([x, y, x + draw.textlength(text, font=font), y + line], fill="#000000")
        draw.text((x, y), text, fill=colour, font=font)
    malformed = [f"{task}: {reason}" for task, reason in output["malformed"].items() if reason]
    diagnoses = ", ".join(f"{diagnosis['label']} {diagnosis['score']:.2f}" for diagnosis in output["diagnoses"])
    draw.text((line // 2, height + line // 2), "; ".join(malformed) or diagnoses, fill="#ffffff", font=font)
    return canvas


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
