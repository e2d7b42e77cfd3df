"""The tags of a radiograph's DICOM file that results need to be filed beside it and to point at it.

    source = source_header(data, "a.dicom")     # SourceError: Cannot refer to a.dicom: it has no Study Instance UID.
    source.StudyInstanceUID, source.Rows        # "1.2.840...", 2336

In: a file's bytes, or its path. Out: a data set with the tags of `KEPT` and no other, so that nothing of a maker's own
and no bad value gets into the results. Text is in Unicode, whatever the file's character set was. Tags that results
must have, though they may be empty (type 2), are there; values that the standard does not allow are left out. This is
the one place where a patient's tags are read: they stand in no other output than these DICOM objects.
"""

import logging
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.config import RAISE
from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pydicom.valuerep import validate_value

MAY_BE_EMPTY = (  # type 2 in every result
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns")
KEPT = (
    *MAY_BE_EMPTY,
    *NEEDED,
    "IssuerOfPatientID",
    "StudyDescription",
    "Modality",
    "BodyPartExamined",
    "Laterality",
    "PatientOrientation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "BitsStored",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
)
SEXES = ("M", "F", "O")  # PS3.3, C.7.1.1
UID_FORM = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")  # PS3.5, 9.1
LONGEST_UID = 64
UNICODE = "ISO_IR 192"


MAKER, NAME = "LiteGPT project", "LiteGPT"  # that a result says made it
DEFLATED = b"1.2.840.10008.1.2.1.99"


class SourceError(ValueError):
    """No result can refer to this radiograph; the message is one sentence that names the file and the reason."""


def source_header(data: bytes | Path, name: str) -> pydicom.Dataset:
    """The tags of a radiograph that its results need, all of them well-formed.

    Args:
        data: of a DICOM file, or its path, that was read as a radiograph before: this bounds what a deflated one
            inflates to.
        name: of the file, for messages.

    Raises:
        SourceError: it is no DICOM file, lacks a UID or its size, or is of no class of the standard.

    Warns:
        UserWarning: a value is not what the standard makes of it, and the results are without it. It is not quoted.
    """
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it quotes values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = _read(data, name)
        source, left_out = _well_formed(dataset)
    for keyword in left_out:
        description = dictionary_description(keyword)
        warnings.warn(f"{name}: its {description} is not valid: the results are without it", stacklevel=2)
    for keyword in NEEDED:
        if keyword not in source:
            raise _useless(name, f"it has no {'valid ' * (keyword in left_out)}{dictionary_description(keyword)}")
    if UID(source.SOPClassUID).name == source.SOPClassUID:
        raise _useless(name, "its SOP Class UID is none of the standard's")
    return source


def is_own_picture(data: bytes) -> bool:
    """Whether a file's bytes are a secondary capture that we made: with an answer drawn on it, it is no radiograph."""
    # A deflated one is none of ours, and pydicom inflates without a limit.
    if data[128:132] != b"DICM" or DEFLATED in data[:1024]:
        return False
    try:
        tags = ["SOPClassUID", "Manufacturer", "ManufacturerModelName"]
        dataset = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=tags)
        return tuple(dataset.get(keyword) for keyword in tags) == (SecondaryCaptureImageStorage, MAKER, NAME)
    except Exception:  # pydicom raises whatever a bad file runs into
        return False


def _read(data: bytes | Path, name: str) -> pydicom.Dataset:
    file = BytesIO(data) if isinstance(data, bytes) else data
    try:
        return pydicom.dcmread(file, force=True, stop_before_pixels=True)
    except Exception as error:  # pydicom raises whatever a bad file runs into
        raise _useless(name, "its tags cannot be read") from error


def _well_formed(dataset: pydicom.Dataset) -> tuple[pydicom.Dataset, list[str]]:
    """A data set of `KEPT` alone, and the keywords of values that are not valid."""
    source, left_out = pydicom.Dataset(), []
    for keyword in KEPT:
        if keyword not in dataset:
            continue
        try:
            element = dataset[keyword]
            if element.VM and not _is_valid(keyword, element):
                raise ValueError
        except Exception:  # as in `_read`; whatever a bad value runs into
            left_out.append(keyword)
        else:
            if element.VM or keyword in MAY_BE_EMPTY:
                source.add(element)
    if "WindowCenter" not in source or "WindowWidth" not in source:
        for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
            source.pop(keyword, None)
    for keyword in MAY_BE_EMPTY:
        if keyword not in source:
            setattr(source, keyword, "")
    source.SpecificCharacterSet = UNICODE
    return source, left_out


def _is_valid(keyword: str, element: pydicom.DataElement) -> bool:
    vr = dictionary_VR(keyword)
    values: list[Any] = list(element.value) if element.VM > 1 or vr == "SQ" else [element.value]
    if vr == "SQ":
        return len(values) > 0
    if element.VR != vr:
        return False
    for value in values:
        validate_value(vr, str(value) if vr in ("PN", "DS", "IS") else value, RAISE)
    if vr == "UI":
        return all(len(value) <= LONGEST_UID and UID_FORM.fullmatch(value) for value in values)
    if keyword == "PatientSex":
        return values[0] in SEXES
    if keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        return len(values) == 2 and all(value > 0 for value in values)
    if keyword in ("Rows", "Columns", "WindowWidth", "NumberOfFrames"):
        return all(value > 0 for value in values)
    return True


def _useless(name: str, reason: str) -> SourceError:
    return SourceError(f"Cannot refer to {name}: {reason}.")
