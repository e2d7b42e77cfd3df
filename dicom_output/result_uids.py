"""The UIDs of results: the same radiograph, asked of the same checkpoint in the same way, gives the same objects.

    result_uids(source, line, "SR")      # ("2.25.1234...", "2.25.5678..."): series and SOP Instance UID

So a result that is sent again, after a crash or by a second node, is one that the PACS knows, not a second report.
Another checkpoint, or other settings, make another series; so do other boxes than the answer's (`with_boxes_of`).
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import pydicom
from pydicom.uid import UID

ANSWERED = "findings"  # a line's list of the answer's boxes
FILED = ("identify", "vqa", "grounding")  # questions whose answers are filed: free text, which nobody verifies, is not
# What of a line of the predictions makes an answer another answer, and the boxes that the objects show.
ASKED = ("constrained", "threshold", "with_candidates", "views", "boxes")


class ImageUids(NamedTuple):
    """The UIDs of a radiograph, called as in its data set, which can stand in their place."""

    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str


def result_uids(source: pydicom.Dataset | ImageUids, facts: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Series and SOP Instance UID of one kind of result.

    Args:
        source: the radiograph's, with its three UIDs.
        facts: a line of the predictions, or what is known of it before: the checkpoint and `ASKED`.
        kind: "SR", "PR" or "SC".
    """
    asked = asked_of(facts)
    series = hashed_uid(source.StudyInstanceUID, source.SeriesInstanceUID, asked, kind, "series")
    return series, hashed_uid(source.SOPInstanceUID, asked, kind)


def asked_of(facts: Mapping[str, Any]) -> str:
    """What was asked of which checkpoint, as one text."""
    checkpoint = facts.get("checkpoint_sha256") or facts["checkpoint"]
    return "|".join([checkpoint, *(f"{name}={facts[name]}" for name in ASKED if facts.get(name) is not None)])


def hashed_uid(*parts: str) -> UID:
    """A UID that is a number of 128 bits (PS3.5, B.2), here the first ones of the parts' SHA-256."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def filed_malformed(line: Mapping[str, Any]) -> dict[str, str]:
    """Why answers that are filed were not understood, by task; those that were are left out."""
    malformed = line.get("malformed") or {}
    return {task: reason for task, reason in malformed.items() if reason and task in FILED}


def with_boxes_of(line: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A line with another of its lists of boxes in the answer's place, such as "fused_findings"; UIDs tell them apart.

    A malformed answer has no other boxes, and keeps what it has: none.

    Raises:
        KeyError: the line has no such list.
    """
    if source == ANSWERED:
        return dict(line)
    malformed = any(filed_malformed(line).values())
    return {**line, "findings": line.get(source, []) if malformed else line[source], "boxes": source}
