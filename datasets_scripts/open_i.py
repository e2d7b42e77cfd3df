"""Open-i (Indiana University; 7,470 radiographs, 3,955 reports), as it is published, to rows of this project's schema.

    from litegpt.datasets_scripts.rows import load_rows

    dataset = load_rows("path/to/open-i", split="train", num_proc=8)
    dataset[0]["report_impression"]      # "No acute disease."

or, once for all programs: `litegpt prepare open-i --data_dir path/to/open-i --output_dir prepared/open-i`.

Two layouts (https://openi.nlm.nih.gov/faq; Demner-Fushman et al., JAMIA 23(2):304-310, 2016):

    indiana_reports.csv                  uid, MeSH, findings, impression, ...            Kaggle's
    indiana_projections.csv              uid, filename, projection (Frontal, Lateral)
    images/images_normalized/1_IM-0001-4001.dcm.png

    ecgen-radiology/1.xml                a report each, which names its images           the NLM's
    NLMCXR_png/CXR1_1_IM-0001-3001.png   or NLMCXR_dcm/1/1_IM-0001-3001.dcm

The pictures, PNG, JPEG or DICOM, may lie anywhere below the folder. An image has one name in both layouts,
"1_IM-0001-3001". A row is an image, with its study's report and labels; patients are not numbered, and a study counts
as one. Nobody drew boxes: `findings` is empty. `diagnoses` are what people tagged the report with (`TAGS`); a tag
"normal" is "No finding", and of other tags alone nothing follows: the row has no diagnosis. The NLM's layout does not
say which image is frontal: `view` is then the DICOM file's, which is often empty.

The release has no splits: all is train. A table of one's own beside the others, `splits.csv` (uid, split), names
train, validation or test; studies that it does not name are left out.
"""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from litegpt.common.addresses import absolute, entries_of, is_file, is_folder, open_address
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.image_files import file_counts, find_files, image_id_of, match, paths_by_split
from litegpt.datasets_scripts.own_splits import SPLITS, read_own_splits
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.report_texts import joined
from litegpt.datasets_scripts.tables import plain, read_csv
from litegpt.processing.answers import NO_FINDING


class Tag(NamedTuple):
    """A label, and the tags that mean it.

    Attributes:
        label: as rows have it.
        heads: how such a tag begins, in any case: "Opacity" of "Opacity/lung/base/left".
        part: what must stand among the tag's other parts; "" where nothing must.
    """

    label: str
    heads: tuple[str, ...]
    part: str = ""


TAGS = (
    Tag("Cardiomegaly", ("Cardiomegaly",)),
    Tag("Pleural effusion", ("Pleural Effusion", "Hydropneumothorax")),
    Tag("Atelectasis", ("Pulmonary Atelectasis", "Atelectasis")),
    Tag("Lung Opacity", ("Opacity",)),
    Tag("Nodule/Mass", ("Nodule", "Mass")),
    Tag("Infiltration", ("Infiltrate",)),
    Tag("Consolidation", ("Consolidation",)),
    Tag("Pneumonia", ("Pneumonia",)),
    Tag("Emphysema", ("Emphysema", "Pulmonary Emphysema", "Bullous Emphysema")),
    Tag("Pneumothorax", ("Pneumothorax", "Hydropneumothorax", "Hemopneumothorax")),
    Tag("Pulmonary fibrosis", ("Pulmonary Fibrosis",)),
    Tag("Pleural thickening", ("Thickening",), part="pleura"),
    Tag("Calcification", ("Calcinosis", "Calcified Granuloma")),
    Tag("Fracture", ("Fractures, Bone",)),
    Tag("Edema", ("Pulmonary Edema", "Pulmonary Congestion")),
    Tag("Hernia", ("Hernia, Hiatal", "Hernia, Diaphragmatic")),
    Tag("Hyperinflation", ("Lung",), part="hyperdistention"),
    Tag("Support devices", ("Catheters, Indwelling", "Implanted Medical Device", "Medical Device", "Tube, Inserted")),
    Tag("Support devices", ("Surgical Instruments",)),  # clips, wires and the like
    Tag("Aortic tortuosity", ("Aorta", "Aorta, Thoracic"), part="tortuous"),
    Tag("Scoliosis or degenerative spine", ("Scoliosis", "Kyphosis", "Spondylosis")),
    Tag("Scoliosis or degenerative spine", ("Spine", "Thoracic Vertebrae", "Lumbar Vertebrae"), part="degenerative"),
    Tag(NO_FINDING, ("normal",)),
)
FINDING_LABELS: tuple[str, ...] = ()
DIAGNOSIS_LABELS: tuple[str, ...] = tuple(dict.fromkeys(tag.label for tag in TAGS))

REPORTS_FILE, REPORTS_COLUMNS = "indiana_reports.csv", ("uid", "MeSH", "findings", "impression")
PROJECTIONS_FILE, PROJECTIONS_COLUMNS = "indiana_projections.csv", ("uid", "filename", "projection")
XML_FOLDER = "ecgen-radiology"
LAYOUT = f"{REPORTS_FILE} and {PROJECTIONS_FILE}, or {XML_FOLDER}/ (Open-i)"
COLUMNS = ("study_id", "patient_id", "report_findings", "report_impression")

CITATION = """\
@article{demnerfushman2016preparing,
  title={Preparing a collection of radiology examinations for distribution and retrieval},
  author={Demner-Fushman, Dina and Kohli, Marc D. and Rosenman, Marc B. and Shooshan, Sonya E. and Rodriguez, Laritza
          and Antani, Sameer and Thoma, George R. and McDonald, Clement J.},
  journal={Journal of the American Medical Informatics Association},
  volume={23},
  number={2},
  pages={304--310},
  year={2016}
}"""
FACTS = DataSetFacts(
    name="open_i",
    pretty_name="Open-i",
    homepage="https://openi.nlm.nih.gov/",
    licence="CC BY-NC-ND 4.0",
    licence_link="https://creativecommons.org/licenses/by-nc-nd/4.0/",
    personal_information=(
        "The radiographs and reports are of people. Their publisher removed what identifies them (`XXXX` in texts); "
        "health data they remain."
    ),
    citation=CITATION,
)


@dataclass(frozen=True)
class Study:
    """A report and the images that it is about.

    Attributes:
        uid: the study's number.
        images: {image_id: view}, "" where the view is unknown.
        tags: such as "Opacity/lung/base/left".
        findings, impression: the sections' text; None where there is none.
    """

    uid: str
    images: dict[str, str]
    tags: tuple[str, ...]
    findings: str | None
    impression: str | None


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has Kaggle's two tables or the NLM's folder of reports."""
    return _is_kaggles(data_dir) or is_folder(os.path.join(data_dir, XML_FOLDER))


def _is_kaggles(data_dir: str) -> bool:
    return all(is_file(os.path.join(data_dir, name)) for name in (REPORTS_FILE, PROJECTIONS_FILE))


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def name_of(cell: str) -> str:
    """An image's name in both layouts: CXR1_1_IM-0001-3001.png, 1_IM-0001-3001.dcm.png -> 1_IM-0001-3001."""
    return re.sub(r"^CXR(\d+)_(?:\1_)?", r"\1_", image_id_of(cell))


def labels_of(tags: Iterable[str]) -> tuple[str, ...]:
    """The diagnoses that a study's tags mean, in the labels' order; "No finding" only where it stands alone."""
    parts = [[plain(part) for part in tag.split("/")] for tag in tags]
    labels = {
        tag.label
        for head, *others in parts
        for tag in TAGS
        if head in map(plain, tag.heads) and (not tag.part or tag.part in others)
    }
    if len(labels) > 1:
        labels.discard(NO_FINDING)
    return tuple(label for label in DIAGNOSIS_LABELS if label in labels)


def kaggle_studies(data_dir: str) -> tuple[list[Study], int]:
    """The studies of Kaggle's tables, and how many of their images belong to no report.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; a report or an image stands twice.
    """
    images: dict[str, dict[str, str]] = {}
    names: set[str] = set()
    for where, row in read_csv(os.path.join(data_dir, PROJECTIONS_FILE), PROJECTIONS_COLUMNS):
        name = name_of(row["filename"])
        _add(name, names, f"{where}: image")
        images.setdefault(row["uid"], {})[name] = row["projection"]
    studies: list[Study] = []
    uids: set[str] = set()
    for where, row in read_csv(os.path.join(data_dir, REPORTS_FILE), REPORTS_COLUMNS):
        _add(row["uid"], uids, f"{where}: report")
        sections = joined(row["findings"]) or None, joined(row["impression"]) or None
        studies.append(Study(row["uid"], images.pop(row["uid"], {}), tuple(row["MeSH"].split(";")), *sections))
    return studies, sum(map(len, images.values()))


def xml_studies(data_dir: str) -> Iterator[Study]:
    """The studies of the NLM's XML files, in the order of their numbers.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is no report in XML, or a report or an image stands twice; it names the file.
    """
    folder = os.path.join(data_dir, XML_FOLDER)
    paths = [os.path.join(folder, name) for name in entries_of(folder)[1] if name.lower().endswith(".xml")]
    if not paths:
        raise FileNotFoundError(f"{folder} has no reports (*.xml): unpack NLMCXR_reports.tgz.")
    uids: set[str] = set()
    names: set[str] = set()
    for path in sorted(paths, key=lambda path: (len(path), path)):  # 2.xml before 10.xml
        try:
            with open_address(path) as file:
                root = ET.parse(file).getroot()
        except ET.ParseError as error:
            raise ValueError(f"{path} is no XML: {error}.") from None
        uid = root.find("uId")
        if uid is None or not uid.get("id"):
            raise ValueError(f"{path} is no report of Open-i: it has no uId with an id.")
        number = _number_of(uid.get("id", ""))
        _add(number, uids, f"{path}: report")
        sections = {section.get("Label"): joined("".join(section.itertext())) for section in root.iter("AbstractText")}
        images = [name_of(image.get("id", "")) for image in root.findall("parentImage")]
        for image in images:
            _add(image, names, f"{path}: image")
        yield Study(
            uid=number,
            images=dict.fromkeys(images, ""),
            tags=tuple(joined("".join(tag.itertext())) for tag in root.findall("MeSH/major")),
            findings=sections.get("FINDINGS") or None,
            impression=sections.get("IMPRESSION") or None,
        )


def _number_of(uid: str) -> str:
    return uid.removeprefix("CXR")


def _add(name: str, seen: set[str], what: str) -> None:
    if not name:
        raise ValueError(f"{what} without a name.")
    if name in seen:
        raise ValueError(f"{what} {name} stands there twice.")
    seen.add(name)


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the reports and finds the radiographs.

    `counts`, for each split: reports; reports_without_text (neither findings nor impression); reports_without_image
    (no row); images, of which images_no_finding and images_unknown (no diagnosis follows from the tags). For the split
    "none": reports and images of studies that splits.csv does not name, reports_not_there (named in it),
    images_without_report.

    Raises:
        FileNotFoundError: a table, the reports or all radiographs are missing.
        ValueError: a table or report cannot be read, or a study or image stands twice; it names the file.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of an Open-i release.")
    if not recognise(data_dir):
        raise FileNotFoundError(f"{data_dir} has neither {REPORTS_FILE} and {PROJECTIONS_FILE} nor {XML_FOLDER}/.")
    studies, without_report = kaggle_studies(data_dir) if _is_kaggles(data_dir) else (list(xml_studies(data_dir)), 0)
    own_splits = read_own_splits(data_dir, "uid", "study", _number_of)
    files = find_files(data_dir, id_of=name_of)
    if not files.paths:
        raise FileNotFoundError(f"{data_dir} has no radiographs, of Kaggle's images/ or the NLM's NLMCXR_png/.")

    splits = ("train",) if own_splits is None else [split for split in SPLITS if split in own_splits.values()]
    rules = ("reports", "reports_without_text", "reports_without_image")
    rules += ("images", "images_no_finding", "images_unknown")
    counts = {split: dict.fromkeys(rules, 0) for split in splits}
    annotations: dict[str, list[ImageAnnotation]] = {split: [] for split in splits}
    uids = {study.uid for study in studies}
    counts["none"] = {
        "reports": 0,
        "reports_not_there": len((own_splits or {}).keys() - uids),
        "images": 0,
        "images_without_report": without_report,
    }
    for study in studies:
        split = "train" if own_splits is None else own_splits.get(study.uid, "none")
        met = counts[split]
        met["reports"] += 1
        met["images"] += len(study.images)
        if split == "none":
            continue
        labels = labels_of(study.tags)
        met["reports_without_text"] += study.findings is None and study.impression is None
        met["reports_without_image"] += not study.images
        met["images_no_finding"] += len(study.images) * (NO_FINDING in labels)
        met["images_unknown"] += len(study.images) * (not labels)
        report = {
            "study_id": study.uid,
            "report_findings": study.findings,
            "report_impression": study.impression,
        }
        annotations[split] += [
            ImageAnnotation(image, (), labels, patient_id=study.uid, view=view, optional=report)
            for image, view in study.images.items()
        ]

    named = [annotation.image_id for images in annotations.values() for annotation in images]
    table = os.path.join(data_dir, PROJECTIONS_FILE if _is_kaggles(data_dir) else XML_FOLDER)
    paths = match(named, files, table, data_dir)
    counts["none"] |= file_counts(files, {image for study in studies for image in study.images})
    return Release(
        facts=FACTS,
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts=counts,
        columns=COLUMNS,
    )


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "open_i.py", __doc__))
