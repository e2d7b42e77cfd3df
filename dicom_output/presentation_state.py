"""An answer as a softcopy presentation state: the findings' boxes and names, drawn by the viewer on the radiograph.

    presentation_state(source, line).save_as("boxes.PR.dcm")

The radiograph keeps its own window and polarity. There is none of a picture
in colour, or of a class with several frames.
"""

from collections.abc import Mapping
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from highdicom.utils import is_multiframe_image

from litegpt.dicom_output.result_series import rectangle, series_of, with_score

LABEL = "LITEGPT"
LAYER = hd.pr.GraphicLayer(LABEL, order=1, description="Findings of software, verified by nobody")
TEXT_HEIGHT = 1 / 40  # of the radiograph's rows
TEXT_WIDTH = 12  # of a text's box, in heights
DIAGNOSES = (0.02, 0.95, 0.98, 0.99)  # of the shown area: where the diagnoses stand
LONGEST_TEXT = 1024  # characters, PS3.5, table 6.2-1 (ST)


def presentation_state(source: pydicom.Dataset, line: Mapping[str, Any]) -> pydicom.Dataset:
    """The presentation state of one answer; `source` and `line` as `result_objects` takes them."""
    annotations = [_annotation(found, source) for found in line["findings"]]
    said = _diagnoses(line)
    if said:
        text = hd.pr.TextObject(text_value=said, units=hd.pr.AnnotationUnitsValues.DISPLAY, bounding_box=DIAGNOSES)
        annotations.append(hd.pr.GraphicAnnotation([source], LAYER, text_objects=[text]))
    # A presentation state ignores the image's own polarity (PS3.3, C.11.6): it has to say it again.
    inverse = source.get("PhotometricInterpretation") == "MONOCHROME1"
    shape = hd.PresentationLUTTransformation(hd.PresentationLUTShapeValues("INVERSE" if inverse else "IDENTITY"))
    state = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[source],
        content_label=LABEL,
        content_description="Findings of software, verified by nobody",
        graphic_layers=[LAYER] if annotations else None,
        graphic_annotations=annotations or None,
        presentation_lut_transformation=shape,
        **series_of(source, line, "PR"),
    )
    return state


def is_drawn_on(source: pydicom.Dataset) -> bool:
    """Whether there can be one: of colours it needs a scanner's profile, of several frames their functional groups."""
    return int(source.get("SamplesPerPixel", 1)) == 1 and not is_multiframe_image(source)


def _annotation(found: Mapping[str, Any], source: pydicom.Dataset) -> hd.pr.GraphicAnnotation:
    """A finding's box, and its name and score above it, or inside where there is no room."""
    points = rectangle(found["box"], source)
    box = hd.pr.GraphicObject(
        graphic_type=hd.pr.GraphicTypeValues.POLYLINE,
        graphic_data=points,
        units=hd.pr.AnnotationUnitsValues.PIXEL,
        is_filled=False,
    )
    text = hd.pr.TextObject(
        text_value=with_score(found),
        units=hd.pr.AnnotationUnitsValues.PIXEL,
        bounding_box=_place_of_text(points, source.Rows, source.Columns),
    )
    return hd.pr.GraphicAnnotation(
        referenced_images=[source],
        graphic_layer=LAYER,
        graphic_objects=[box],
        text_objects=[text],
    )


def _place_of_text(points: np.ndarray, rows: int, columns: int) -> tuple[float, float, float, float]:
    """A rectangle of some size inside the picture, xyxy: above the box, or from its upper edge down."""
    height = max(1.0, min(rows * TEXT_HEIGHT, rows / 2))
    width = min(float(columns), TEXT_WIDTH * height)
    x1, y1 = points[0]
    top = y1 - height if y1 >= height else min(y1, rows - height)
    left = min(x1, columns - width)
    return float(left), float(top), float(left + width), float(top + height)


def _diagnoses(line: Mapping[str, Any]) -> str:
    """What stands below the picture."""
    named = [
        item["label"] if item["score"] is None else f"{item['label']} {item['score']:.2f}"
        for item in line["diagnoses"]
    ]
    malformed = [f"The answer to {task} was not understood." for task, why in line["malformed"].items() if why]
    said = ([f"AI, unverified: {', '.join(named)}."] if named else []) + malformed
    return " ".join(said)[:LONGEST_TEXT]
