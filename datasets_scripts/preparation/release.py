"""What a data set's file hands to the preparation: a `Release`; and how that is prepared: `PreparationOptions`.

release = Release(
    facts=DataSetFacts("vindr_cxr", "VinDr-CXR", homepage="https://...", licence="...", licence_link="..."),
    finding_labels=("Cardiomegaly", ...), diagnosis_labels=("COPD", ..., "No finding"),
    annotations={"train": [ImageAnnotation("a1", ...), ...]}, images={"train": {"a1": "train/a1.dicom", ...}},
    counts={"train": {"images": 15000, ...}}, columns=("sex", "age"))
prepare(release, "prepared/vindr-cxr", PreparationOptions(shortest_edge=512))
"""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports `datasets`, which those who only want the options need not wait for
    from litegpt.datasets_scripts.annotations import ImageAnnotation

PERSONAL_INFORMATION = (
    "The radiographs are of people. Their publisher removed what identifies them; health data they remain."
)
OWN_PERSONAL_INFORMATION = (
    "The radiographs are of people. Who they are, and what was done to protect them, is for those to say who own the "
    "data; health data they are."
)


@dataclass(frozen=True)
class DataSetFacts:
    """What the cards say of a data set.

    Attributes:
        name: on disk, such as "vindr_cxr"; a tag of the card.
        pretty_name: in prose, such as "VinDr-CXR".
        homepage: address of the release; "" for data that nobody published.
        licence: name of the release's licence, in prose; "" where none is stated.
        licence_link: address of the licence; the homepage where the release has no page for it; "" for none.
        personal_information: who the people are, how they were protected and what the release asks of its users.
        citation: as the publisher asks for it, in BibTeX; "" for none.
    """

    name: str
    pretty_name: str
    homepage: str
    licence: str
    licence_link: str
    personal_information: str = PERSONAL_INFORMATION
    citation: str = ""


def own_facts(name: str, licence: str | None) -> DataSetFacts:
    """What cards say of a user's own data, which nobody published.

    Args:
        name: in prose.
        licence: None where none is stated.
    """
    return DataSetFacts(
        name=re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "own_data",
        pretty_name=name,
        homepage="",
        licence=licence or "",
        licence_link="",
        personal_information=OWN_PERSONAL_INFORMATION,
    )


@dataclass(frozen=True)
class Release:
    """A data set as its publisher released it: what its tables say, and where its radiographs are.

    Attributes:
        facts: what the cards say of it.
        finding_labels, diagnosis_labels: in the order of the class numbers.
        annotations: {split: the images in the tables' order}, after the readers are merged.
        images: {split: {image_id: path}}; an annotated image may have none.
        counts: {split: {rule: count}}, what reading the tables met; written into summary.csv.
        columns: the optional columns of its rows, names of `annotations.optional_columns`.
        merge: how the readers were merged; "" where the tables are of one voice.
        remarks: sentences on what was left out one by one, for preparation.log; they name no path.
    """

    facts: DataSetFacts
    finding_labels: tuple[str, ...]
    diagnosis_labels: tuple[str, ...]
    annotations: "dict[str, list[ImageAnnotation]]"
    images: dict[str, dict[str, str]]
    counts: dict[str, dict[str, int]]
    columns: tuple[str, ...] = ()
    merge: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparationOptions:
    """How a release is prepared; the programs take the fields as flags."""

    shortest_edge: int | None = field(
        default=512,
        metadata={
            "help": "Pictures are stored scaled down to this many pixels on the shorter side, those that are smaller "
            "as they are. Boxes, width and height do not depend on it."
        },
    )
    windowing: str = field(
        default="dicom",
        metadata={"help": "How DICOM's grey values become 8 bits: dicom (the standard's way) or paper (LiteGPT's)."},
    )
    on_error: str = field(
        default="skip",
        metadata={"help": "A radiograph that is missing or unreadable is left out (skip), or ends it all (raise)."},
    )
    validation_share: float = field(
        default=0.0,
        metadata={"help": "The share of train's patients that makes a split `validation`, the same ones for ever."},
    )
    keep_readings: bool = field(
        default=False, metadata={"help": "Keep what the single readers said beside what was merged of it."}
    )
    timeout_s: float = field(
        default=120, metadata={"help": "Seconds after which a radiograph that is still being read is given up."}
    )

    def __post_init__(self):
        if self.shortest_edge is not None and self.shortest_edge < 1:
            raise ValueError(f"shortest_edge must be at least 1 or None, not {self.shortest_edge}.")
        if self.windowing not in ("dicom", "paper"):
            raise ValueError(f'windowing must be "dicom" or "paper", not {self.windowing!r}.')
        if self.on_error not in ("skip", "raise"):
            raise ValueError(f'on_error must be "skip" or "raise", not {self.on_error!r}.')
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share must be at least 0 and below 1, not {self.validation_share}.")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s must be above 0, not {self.timeout_s}.")
