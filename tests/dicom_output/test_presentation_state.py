from typing import Any

import pydicom
import pytest

from litegpt.dicom_output.result_objects import result_objects
from litegpt.dicom_output.source_header import source_header
from tests.dicom_output.made_up_answer import COLUMNS, ROWS, answer, radiograph_file


def state(changes: dict[str, Any] | None = None, **tags: Any) -> pydicom.Dataset:
    return result_objects(source_header(radiograph_file(**tags), "a.dcm"), answer(**changes or {}), ("PR",))["PR"]


def test_boxes_and_names_are_drawn_in_pixels_of_the_radiograph():
    first, second, _ = state().GraphicAnnotationSequence
    box, name = first.GraphicObjectSequence[0], first.TextObjectSequence[0]
    assert (box.GraphicType, box.GraphicAnnotationUnits, box.GraphicFilled) == ("POLYLINE", "PIXEL", "N")
    assert list(box.GraphicData) == [30, 50, 75, 50, 75, 95, 30, 95, 30, 50]
    assert name.UnformattedTextValue == "Cardiomegaly 0.88"
    assert second.TextObjectSequence[0].UnformattedTextValue == "Pneumothorax", "it has no score"


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (95, 115, 100, 120), (0, 0, 100, 120), (50, 1, 51, 2)])
def test_names_stand_inside_the_picture(box):
    finding = {"label": "Edema", "score": 0.5, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
    name = state({"findings": [finding]}).GraphicAnnotationSequence[0].TextObjectSequence[0]
    (x1, y1), (x2, y2) = name.BoundingBoxTopLeftHandCorner, name.BoundingBoxBottomRightHandCorner
    assert 0 <= x1 < x2 <= COLUMNS and 0 <= y1 < y2 <= ROWS


def test_diagnoses_stand_below_and_say_that_nobody_verified_them():
    assert state().GraphicAnnotationSequence[-1].TextObjectSequence[0].UnformattedTextValue == (
        "AI, unverified: Pneumonia 0.71."
    )


def test_an_answer_that_names_nothing_draws_nothing():
    assert "GraphicAnnotationSequence" not in state({"findings": [], "diagnoses": []})


def test_an_answer_that_was_not_understood_says_so_on_the_picture():
    made = state({"findings": [], "diagnoses": [], "malformed": {"identify": "it ends within a box"}})
    assert "not understood" in made.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue


@pytest.mark.parametrize(("polarity", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_the_radiograph_keeps_its_polarity_and_its_window(polarity, shape):
    made = state(PhotometricInterpretation=polarity)
    assert made.PresentationLUTShape == shape
    assert made.SoftcopyVOILUTSequence[0].WindowWidth == 256
