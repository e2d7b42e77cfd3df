"""Answers as DICOM objects that a PACS files beside the radiograph: structured report, presentation state, picture.

    source = source_header(data, "a.dicom")       # the radiograph's tags; SourceError where nothing can refer to it
    objects = result_objects(source, line)        # {"SR": pydicom.Dataset, "PR": ...} of a line of the predictions
    objects["SR"].save_as("findings.SR.dcm")

The kinds are SR, a Comprehensive 3D SR after TID 1500 (`structured_report.py`), PR, a presentation state that draws
the boxes on the radiograph (`presentation_state.py`), and SC, a picture with the answer drawn on it for viewers that
know neither (`secondary_capture.py`). All say that nobody has verified them. A line carries where its answer is from:
checkpoint, digest, caution, warnings. Findings and diagnoses are filed, reports and other free text are not.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pydicom
from PIL import Image

from litegpt.dicom_output.presentation_state import is_drawn_on, presentation_state
from litegpt.dicom_output.result_series import complete, without_names
from litegpt.dicom_output.secondary_capture import secondary_capture
from litegpt.dicom_output.structured_report import structured_report

KINDS = ("SR", "PR", "SC")
DEFAULT_KINDS = ("SR", "PR")


def result_objects(
    source: pydicom.Dataset,
    line: Mapping[str, Any],
    kinds: Sequence[str] = DEFAULT_KINDS,
    picture: Image.Image | None = None,
) -> dict[str, pydicom.Dataset]:
    """The objects of an answer, by kind.

    Args:
        source: the radiograph's tags, of `source_header`.
        line: of the predictions about it; boxes in pixels of its picture. Those that reach beyond it are cut there.
        kinds: of `KINDS`.
        picture: the radiograph with the answer drawn on it, which an SC shows.

    Raises:
        ValueError: there is no such kind; an SC is asked for without a picture.

    Warns:
        UserWarning: it is in colour or of a class with several frames, and gets no PR.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"results are {', '.join(KINDS)}, not {', '.join(unknown)}")
    if "SC" in kinds and picture is None:
        raise ValueError("an SC needs the picture that it shows")
    nameless, made = without_names(source), {}
    if "SR" in kinds:
        made["SR"] = structured_report(nameless, line)
    if "PR" in kinds and is_drawn_on(source):
        made["PR"] = presentation_state(nameless, line)
    if "SC" in kinds:
        made["SC"] = secondary_capture(nameless, line, picture)
    if "PR" in kinds and "PR" not in made:
        warnings.warn(
            f"{source.SOPInstanceUID}: it is in colour or has several frames, and gets no presentation state",
            stacklevel=2,
        )
    return {kind: complete(dataset, source) for kind, dataset in made.items()}
