"""Answers as DICOM objects that a PACS files beside the radiograph: structured report, presentation state, picture.

source = source_header(data, "a.dicom")               # the radiograph's tags, made complete; SourceError if useless
objects = result_objects(source, line, kinds=("SR", "PR"))       # {"SR": pydicom.Dataset, "PR": ...}
objects["SR"].save_as("findings_sr.dcm")
series, instance = result_uids(source, line, "SR")    # before there is an answer: line may be Answerer.facts
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pydicom
from PIL import Image

KINDS = ("SR", "PR", "SC")


class SourceError(ValueError):
    """No result can refer to this radiograph; the message is one sentence that names the file and the reason."""


def source_header(data: bytes, name: str) -> pydicom.Dataset:
    raise NotImplementedError


def result_uids(source: pydicom.Dataset, facts: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Series and SOP Instance UID, from the radiograph's UIDs, the checkpoint as it is asked, and the kind."""
    raise NotImplementedError


def result_objects(
    source: pydicom.Dataset,
    line: Mapping[str, Any],
    kinds: Sequence[str] = ("SR", "PR"),
    picture: Image.Image | None = None,
) -> dict[str, pydicom.Dataset]:
    raise NotImplementedError
