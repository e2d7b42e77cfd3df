"""Radiographs as a PACS can file them: what a published file lacks for that is made up, in a copy.

    radiograph = filed(Path("release/test/0f1c.dicom"))
    radiograph.data         # the file's bytes, or the copy's
    radiograph.made_up      # ("PatientID", "PatientName", "StudyInstanceUID", ...); () where the file had all
    radiograph.study, radiograph.instance       # UIDs

In: a DICOM file. Out: its bytes, with which study and instance they are. Released radiographs, VinDr-CXR's among
them, have lost the tags that say whose they are, and often the UIDs. Made-up values come from the file's digest: the
same file is the same study each time. Nothing that a file has is changed.
"""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import ComputedRadiographyImageStorage

from litegpt.inference_scripts.dicom_identity import RADIOGRAPH_CLASSES, quietly


@dataclass(frozen=True)
class Filed:
    """A radiograph that a PACS takes."""

    path: Path
    data: bytes
    study: str
    instance: str
    made_up: tuple[str, ...]


@quietly
def filed(path: Path) -> Filed:
    """A file as a PACS takes it.

    Raises:
        ValueError: it is no DICOM file, or none of a radiograph; it names the file and the reason.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        dataset = pydicom.dcmread(BytesIO(data))
    except InvalidDicomError:
        raise ValueError(f"{path} is no DICOM file.") from None
    except Exception as error:  # pydicom raises whatever a bad value runs into
        raise ValueError(f"{path} cannot be read as DICOM ({type(error).__name__}).") from None
    digest = hashlib.sha256(data).hexdigest()
    made_up = tuple(keyword for keyword, value in _made_up(dataset, digest).items() if _fill(dataset, keyword, value))
    if dataset.SOPClassUID not in RADIOGRAPH_CLASSES:
        raise ValueError(f"{path} is no radiograph: CR and DX images are, this is {dataset.SOPClassUID.name}.")
    if "PixelData" not in dataset or "Rows" not in dataset:
        raise ValueError(f"{path} is no radiograph: it has no pixels.")
    if made_up:
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        data = buffer.getvalue()
    return Filed(path, data, str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID), made_up)


def _made_up(dataset: pydicom.Dataset, digest: str) -> dict[str, str]:
    """What stands in for each tag that a PACS files by."""
    meta = dataset.file_meta
    sop_class = dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ComputedRadiographyImageStorage
    return {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": meta.get("MediaStorageSOPInstanceUID") or _uid(digest, "instance"),
        "SeriesInstanceUID": _uid(digest, "series"),
        "StudyInstanceUID": _uid(digest, "study"),
        "Modality": "CR" if sop_class == ComputedRadiographyImageStorage else "DX",
        "PatientID": f"MADE-UP-{digest[:8]}",
        "PatientName": f"ANONYMOUS^{digest[:8]}",
    }


def _fill(dataset: pydicom.Dataset, keyword: str, value: str) -> bool:
    """Sets a tag that has no value; whether it had none."""
    if dataset.get(keyword):
        return False
    setattr(dataset, keyword, value)
    return True


def _uid(digest: str, level: str) -> str:
    """A UID of 128 bits of a hash (PS3.5, B.2)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(f'{digest} {level}'.encode()).digest()[:16], 'big')}"
