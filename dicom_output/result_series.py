"""What every result has in common: its UIDs, its series, the software that made it, and what it says about itself.

    series = series_of(source, line, "SR")      # keyword arguments of highdicom's classes
    complete(made, source)                      # the names, and what highdicom leaves out
    points = rectangle(finding["box"], source)  # a finding's box as the corners of a closed line, inside the picture

In: the radiograph's tags and a line of the predictions. Nothing here is of one kind alone.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pydicom
from highdicom.utils import is_multiframe_image

from litegpt import __version__
from litegpt.dicom_output.codes import LOCAL_SCHEME, LOCAL_SCHEME_NAME
from litegpt.dicom_output.result_uids import asked_of, result_uids
from litegpt.dicom_output.source_header import MAKER, NAME

CHEST = "CHEST"
NAMES = ("PatientName", "ReferringPhysicianName")
SERIES = {  # by kind, the series' number and description; one behind all that a study has
    "SR": (9000, "LiteGPT findings (AI, unverified)"),
    "PR": (9001, "LiteGPT boxes (AI, unverified)"),
    "SC": (9002, "LiteGPT overlay (AI, unverified)"),
}
LEAST_SIDE = 1.0  # of a box in pixels: viewers do not draw a line of no length


def series_of(source: pydicom.Dataset, line: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The arguments that all of highdicom's classes take."""
    series_uid, instance_uid = result_uids(source, line, kind)
    number, description = SERIES[kind]
    return {
        "series_instance_uid": series_uid,
        "series_number": number,
        "series_description": description,
        "sop_instance_uid": instance_uid,
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": NAME,
        "software_versions": __version__,
        "device_serial_number": hashlib.sha256(asked_of(line).encode()).hexdigest()[:16],
    }


def without_names(source: pydicom.Dataset) -> pydicom.Dataset:
    """The same tags with empty names: highdicom warns of names that it finds odd, and quotes them."""
    nameless = pydicom.Dataset()
    nameless.update(source)
    for keyword in NAMES:  # in new elements: `update` shares the old ones
        nameless[keyword] = pydicom.DataElement(keyword, "PN", "")
    return nameless


def complete(made: pydicom.Dataset, source: pydicom.Dataset) -> pydicom.Dataset:
    """Adds the names, and what highdicom leaves out; returns the same object."""
    for keyword in NAMES:
        made[keyword] = source[keyword]
    if made.Modality == "SR":
        scheme = pydicom.Dataset()
        scheme.CodingSchemeDesignator = LOCAL_SCHEME
        scheme.CodingSchemeName = LOCAL_SCHEME_NAME
        scheme.CodingSchemeResponsibleOrganization = MAKER
        made.CodingSchemeIdentificationSequence = [scheme]
    else:
        made.BodyPartExamined = source.get("BodyPartExamined") or CHEST
        if made.BodyPartExamined != CHEST:  # which has no sides; of what may have them it is needed, though empty
            made.Laterality = source.get("Laterality", "")
    if "StudyDescription" in source:
        made.StudyDescription = source.StudyDescription
    made.SpecificCharacterSet = source.SpecificCharacterSet
    return made


def frames_of(source: pydicom.Dataset) -> list[int] | None:
    """The frame that is answered, the first, where the radiograph's class may have several; else None."""
    return [1] if is_multiframe_image(source) else None


def rectangle(box: Mapping[str, float], source: pydicom.Dataset) -> np.ndarray:
    """The corners of a box, (5, 2), from the left upper one around to it again.

    SCOORD (PS3.3, C.18.6.1.2) and PIXEL units of presentation states (C.10.5.1.2) count as our boxes do, from 0.0 at
    the left upper corner of the first pixel.
    """
    x1, x2 = _within(box["xmin"], box["xmax"], source.Columns)
    y1, y2 = _within(box["ymin"], box["ymax"], source.Rows)
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]], dtype=float)


def percent(score: float) -> float:
    """A probability as DICOM states certainties."""
    return round(100 * score, 1)


def with_score(item: Mapping[str, Any]) -> str:
    """A finding or a diagnosis in words."""
    return item["label"] if item["score"] is None else f"{item['label']} {item['score']:.2f}"


def _within(low: float, high: float, length: int) -> tuple[float, float]:
    """The part of a side that lies inside the picture, of some length."""
    low = min(max(float(low), 0.0), length - LEAST_SIDE)
    return low, max(min(float(high), float(length)), low + LEAST_SIDE)
