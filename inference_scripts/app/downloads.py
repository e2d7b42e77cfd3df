"""What people take away of an answer: JSON, the radiograph with boxes drawn, and DICOM objects, made when asked for.

    download = made("overlay", radiograph, processor)
    download.name, download.type, download.data       # "a_overlay.png", "image/png", b"..."

Nothing is written to the disk. The DICOM objects carry the patient's tags, as a PACS needs them; nothing else does.
They have findings and diagnoses; what was asked in words is in the JSON and on the picture alone.
"""

import json
import warnings
from io import BytesIO
from pathlib import PurePath
from typing import Any, NamedTuple

from litegpt.common.overlay import overlay, png_bytes
from litegpt.inference_scripts.app.results import ANSWERED, filed_line, with_words
from litegpt.inference_scripts.app.shelf import Radiograph

DICOM_KINDS = {"SR": "structured_report", "PR": "presentation_state"}
KINDS = ("json", "overlay", *DICOM_KINDS)


class Download(NamedTuple):
    """A file that is only sent."""

    name: str
    type: str
    data: bytes


def made(kind: str, radiograph: Radiograph, processor: Any, source: str = ANSWERED) -> Download:
    """One of `KINDS` of a radiograph that was answered.

    Args:
        source: whose boxes DICOM objects have: a key of `results.SOURCES` that the line has.

    Raises:
        ValueError: there is no such file of this radiograph, with the reason.
    """
    line, stem = radiograph.line, PurePath(radiograph.line["file"]).stem
    if kind == "json":
        asked = with_words(line, radiograph.words)
        return Download(f"{stem}.json", "application/json", (json.dumps(asked, indent=1) + "\n").encode())
    if kind == "overlay":
        asked = with_words(line, radiograph.words)
        drawn = overlay(radiograph.received.picture, asked, processor.score_thresholds)
        return Download(f"{stem}_overlay.png", "image/png", png_bytes(drawn))
    if kind not in DICOM_KINDS:
        raise ValueError(f"there is no download {kind!r}; there are {', '.join(KINDS)}.")
    try:
        from litegpt.dicom_output.result_objects import result_objects
        from litegpt.dicom_output.source_header import source_header
    except ImportError as error:
        raise ValueError(
            f"DICOM objects need the package {error.name}, of the extra dicom: pip install {error.name}"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they name the file in the server's log; a missing PR becomes the error below
        header = source_header(radiograph.data, line["file"])
        found = result_objects(header, filed_line(line, processor, source), (kind,))
    if kind not in found:
        raise ValueError(f"{line['file']} is in colour or has several frames: it gets no presentation state.")
    file = BytesIO()
    found[kind].save_as(file, enforce_file_format=True)
    return Download(f"{stem}_{DICOM_KINDS[kind]}.dcm", "application/dicom", file.getvalue())


def is_dicom(radiograph: Radiograph) -> bool:
    """Whether results can be filed beside it: only a DICOM object has a place in a PACS."""
    return radiograph.received.facts.get("sop_instance_uid") is not None
