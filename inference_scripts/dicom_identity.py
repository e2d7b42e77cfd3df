"""What tells a DICOM radiograph from others and how it was taken, and what DICOM objects and files are no images.

    identity(data)               # {"sop_instance_uid": "1.2.840...", "series_instance_uid": ..., "study_instance_uid":
                                 #  ..., "view": "PA", "laterality": None}; of a PNG all are None
    other_kind(data, "a/SR.dcm") # "Basic Text SR"; None of what may be a radiograph, though a damaged one

In: a file's bytes. Out: five tags and no other, and a kind. Pixels are not decoded here. A value that is not what the
standard makes of it is None: whatever a file has in the place of a UID, a name cannot pass. `data` of an `identity`
has been read as a radiograph before, which bounds what a deflated file inflates to.
"""

import functools
import mimetypes
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

import pydicom
from pydicom.filereader import read_dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from litegpt.processing.dicom import silence_pydicom

P, R = ParamSpec("P"), TypeVar("R")
# Classes of radiographs of today; what a PACS passes on, and a node takes.
RADIOGRAPH_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
UIDS = {
    "sop_instance_uid": "SOPInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
}
TAGS = [*UIDS.values(), "ViewPosition", "ViewCodeSequence", "ImageLaterality", "Laterality"]
UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*")  # PS3.5, 9.1; at most 64 characters
CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5, table 6.2-1
SIDES = ("R", "L", "U", "B")  # PS3.3, C.8.11.5.1.1: right, left, unpaired, both
VIEWS = {"antero-posterior": "AP", "postero-anterior": "PA", "left lateral": "LL", "right lateral": "RL"}
# What a radiograph's file may be called: one that is no picture is a damaged radiograph, no other file.
RADIOGRAPHS = (
    ".dcm .dicom .dic .ima .img .raw .png .jpg .jpeg .jfif .gif .bmp .tif .tiff .webp .jp2 .j2k .jpx .pgm .ppm .pnm"
).split()
MAGIC = {b"%PDF": "PDF", b"PK\x03\x04": "ZIP", b"MZ": "program", b"\x7fELF": "program", b"\xd0\xcf\x11\xe0": "Office"}
TYPES = mimetypes.MimeTypes()  # Python's own table, not the machine's


def is_uid(text: Any) -> bool:
    """Whether it can be a UID, and so a file's name: digits and dots, at most 64; leading zeros occur."""
    return isinstance(text, str) and len(text) <= 64 and UID_FORM.fullmatch(text) is not None


def quietly(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps what pydicom says of bad values from the terminal: it quotes them."""

    @functools.wraps(function)
    def without_a_word(*args: P.args, **kwargs: P.kwargs) -> R:
        silence_pydicom()
        return function(*args, **kwargs)

    return without_a_word


@quietly
def identity(data: bytes) -> dict[str, str | None]:
    """UIDs, view and laterality of a radiograph's file.

    The view is the View Position, or else the View Code Sequence's, as AP, PA, LL, RL or in the standard's words. The
    laterality is the Image Laterality, or else the Laterality.
    """
    dataset = _dataset(data, TAGS) if _is_dicom(data) else pydicom.Dataset()
    found = {name: _text(dataset, keyword) for name, keyword in UIDS.items()}
    found = {name: uid if is_uid(uid) else None for name, uid in found.items()}
    view = _text(dataset, "ViewPosition")
    view = view.upper() if view and CODE_STRING.fullmatch(view.upper()) else _coded_view(dataset)
    sides = [_text(dataset, "ImageLaterality"), _text(dataset, "Laterality")]
    return {**found, "view": view, "laterality": next((side for side in sides if side in SIDES), None)}


@quietly
def other_kind(data: bytes, name: str) -> str | None:
    """What a file is that is no image: a DICOM object without pixels by its SOP class, another file by its suffix.

    Args:
        data: of a file that could not be read as a radiograph.
        name: the file's, whose suffix counts where it is no DICOM.

    Returns:
        None where it is, or may have been, an image: also of another modality, a damaged one, or an empty file.
    """
    if data[128:132] == b"DICM" or not _is_other_file(data, name):
        return _object_without_pixels(data)
    magic = next((kind for start, kind in MAGIC.items() if data.startswith(start)), None)
    return magic or PurePath(name).suffix.lower() or "text"


def _is_other_file(data: bytes, name: str) -> bool:
    path = PurePath(name.lower().removesuffix(".gz"))
    if path.suffix in RADIOGRAPHS:
        return False
    kind = TYPES.guess_type(path.name)[0]
    if kind is not None:
        return not kind.startswith("image/")
    return data.startswith(tuple(MAGIC)) or _is_text(data[:4096])


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:  # else the end was cut within a character
            return False
        text = data[: error.start].decode("utf-8")
    return bool(text.strip()) and all(character.isprintable() or character in "\t\r\n\f\ufeff" for character in text)


# --- DICOM -----------------------------------------------------------------------------------------------------------


def _is_dicom(data: bytes) -> bool:
    """Also of an old file without preamble, which begins with a tag of group 2 or 8, of either byte order."""
    return data[128:132] == b"DICM" or data[:2] in (b"\x02\0", b"\0\x02", b"\x08\0", b"\0\x08")


def _dataset(data: bytes, keywords: list[str]) -> pydicom.Dataset:
    """The tags alone; nothing of a file that pydicom cannot read."""
    try:
        return pydicom.dcmread(BytesIO(data), force=True, stop_before_pixels=True, specific_tags=keywords)
    except Exception:  # pydicom raises whatever a bad value runs into
        return pydicom.Dataset()


def _text(dataset: pydicom.Dataset, keyword: str) -> str | None:
    """One value; None where there is none, several, or one that pydicom cannot convert."""
    try:
        value = dataset.get(keyword)
    except Exception:  # as in `_dataset`
        return None
    return str(value).strip() if isinstance(value, str) else None


def _coded_view(dataset: pydicom.Dataset) -> str | None:
    """The View Code Sequence's first item in the words of PS3.16, CID 4010; its own words may be anyone's."""
    try:
        item = dataset.ViewCodeSequence[0]
        given = Code(str(item.CodeValue), str(item.CodingSchemeDesignator), "")
    except Exception:  # as in `_dataset`; there is none
        return None
    known = (getattr(codes.cid4010, name) for name in codes.cid4010.dir())
    meaning = next((code.meaning for code in known if code == given), None)
    return VIEWS.get(meaning, meaning)


def _object_without_pixels(data: bytes) -> str | None:
    """The SOP class, in words, of a DICOM object that is no image by its class."""
    meta, dataset = pydicom.Dataset(), pydicom.Dataset()
    if data[128:132] == b"DICM":
        meta = _file_meta(data)
    if _text(meta, "TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:  # pydicom inflates without a limit
        dataset = _dataset(data, ["SOPClassUID", "Rows"])
    uid = UID(_text(meta, "MediaStorageSOPClassUID") or _text(dataset, "SOPClassUID") or "")
    if not uid:
        return None
    if uid.name == uid:  # none of the standard's: a maker's own
        return None if "Rows" in dataset else "private DICOM object"
    return None if "Image Storage" in uid.name else uid.name.removesuffix(" Storage")


def _file_meta(data: bytes) -> pydicom.Dataset:
    """The File Meta Information alone (PS3.10, 7.1), which is always in explicit VR little endian."""
    try:
        return read_dataset(BytesIO(data[132:]), False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    except Exception:  # as in `_dataset`
        return pydicom.Dataset()
