"""PadChest-GR (BIMCV; 4,555 frontal radiographs with grounded reports), as released, to rows of this project's schema.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/padchest-gr", split="test", num_proc=8)
    rows[0]["sentences"]    # [{"text": "Right pleural effusion.", "boxes": [[0.1, 0.55, 0.42, 0.9]]}, ...]

or, once for all programs: `litegpt prepare padchest-gr --data_dir path/to/padchest-gr --output_dir prepared/gr`.

The layout (https://bimcv.cipf.es/bimcv-projects/padchest-gr/; Castro et al., arXiv 2411.05085):

    grounded_reports_20240819.json     a list of studies, each with ImageID and findings: sentence_en, abnormal, boxes
                                       (x1, y1, x2, y2 from 0 to 1), labels, ...
    master_table.csv                   ImageID, split (train, validation, test), ...: a line a study and label
    Padchest_GR_files/PadChest_GR/IMAGE_ID.png     anywhere below, also resized

A row is an image. `sentences` has the report's English sentences in their order, each with its boxes, and
`report_findings` the same as one text; many describe what has changed since an earlier radiograph, which is not among
the rows. Boxes that further readers drew (`extra_boxes`) are left out and counted.

The labels are VinDr-CXR's, so that its checkpoints can be trained and tested on these rows. A box is a finding where
all labels of its sentence mean one and the same of VinDr-CXR's findings (`LABELS`); others (tubes, an elongated aorta,
sentences of several labels, where nobody knows which box is which) are boxes of sentences alone, counted as
boxes_without_label. So `findings` may lack some: they do for scores of single labels, less for answers that are to
name all. `diagnoses` has "No finding" where no sentence is abnormal; no other diagnosis is told.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from litegpt.common.addresses import absolute, entries_of, is_file, is_folder
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import Finding, ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.corrected_boxes import read_json
from litegpt.datasets_scripts.image_files import ImageIds, file_counts, find_files, match, paths_by_split
from litegpt.datasets_scripts.own_splits import SPLITS
from litegpt.datasets_scripts.picture_boxes import boxes_in_pixels
from litegpt.datasets_scripts.preparation.demographics import known_sex
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.report_texts import joined
from litegpt.datasets_scripts.tables import plain, read_csv
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.processing.answers import NO_FINDING

# {label of VinDr-CXR: PadChest's labels that mean it}. Patterns that may be several of them are in none.
LABELS = {
    "Aortic enlargement": ("aortic button enlargement", "aortic aneurysm"),
    "Atelectasis": (
        *("atelectasis", "laminar atelectasis", "lobar atelectasis", "segmental atelectasis", "round atelectasis"),
        *("total atelectasis", "atelectasis basal"),
    ),
    "Calcification": ("calcified densities", "calcified granuloma", "calcified adenopathy"),
    "Cardiomegaly": ("cardiomegaly",),
    "Clavicle fracture": ("clavicle fracture",),
    "Consolidation": ("consolidation",),
    "Edema": ("pulmonary edema",),
    "Emphysema": ("emphysema",),
    "Enlarged PA": ("pulmonary artery enlargement",),
    "ILD": ("interstitial pattern", "reticular interstitial pattern", "reticulonodular interstitial pattern"),
    "Infiltration": ("infiltrates",),
    "Lung Opacity": ("increased density", "alveolar pattern", "ground glass pattern"),
    "Lung cavity": ("cavitation",),
    "Mediastinal shift": ("mediastinal shift",),
    "Nodule/Mass": ("nodule", "multiple nodules", "mass", "pulmonary mass"),
    "Pleural effusion": ("pleural effusion", "loculated pleural effusion", "loculated fissural effusion"),
    "Pleural thickening": ("pleural thickening", "apical pleural thickening", "calcified pleural thickening"),
    "Pneumothorax": ("pneumothorax",),
    "Pulmonary fibrosis": ("pulmonary fibrosis", "fibrotic band"),
    "Rib fracture": ("rib fracture", "callus rib fracture"),
}
LABELS_BY_PADCHESTS = {plain(name): label for label, names in LABELS.items() for name in names}

REPORTS = re.compile(r"grounded_reports_\w+\.json")
TABLE = "master_table.csv"
LAYOUT = f"grounded_reports_20240819.json and {TABLE} (PadChest-GR)"
SENTENCE = "sentence_en"

HOMEPAGE = "https://bimcv.cipf.es/bimcv-projects/padchest-gr/"
CITATION = """\
@article{castro2024padchestgr,
  title={{PadChest-GR}: A Bilingual Chest X-Ray Dataset for Grounded Radiology Report Generation},
  author={Castro, Daniel C. and Bustos, Aurelia and Bannur, Shruthi and Hyland, Stephanie L. and others},
  journal={arXiv preprint arXiv:2411.05085},
  year={2024}
}"""
FACTS = DataSetFacts(
    name="padchest_gr",
    pretty_name="PadChest-GR",
    homepage=HOMEPAGE,
    licence="PadChest Dataset Research Use Agreement",
    licence_link="https://bimcv.cipf.es/bimcv-projects/padchest/padchest-dataset-research-use-agreement/",
    personal_information=(
        "The radiographs and reports are of patients of one hospital. Their publisher removed what identifies them. "
        "Whoever got them has agreed not to pass them on and not to look for the people."
    ),
    citation=CITATION,
)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has the grounded reports and the table with the splits."""
    return bool(_reports(data_dir)) and is_file(os.path.join(data_dir, TABLE))


def _reports(data_dir: str) -> list[str]:
    return [os.path.join(data_dir, name) for name in entries_of(data_dir)[1] if REPORTS.fullmatch(name)]


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def read_table(path: str) -> dict[str, dict[str, str]]:
    """{image_id: its first line} of the master table: split, and PatientSex_DICOM and PatientID where it has them.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; a split is none of the release's, or an image is in two.
    """
    lines: dict[str, dict[str, str]] = {}
    image_ids = ImageIds()
    for where, row in read_csv(path, ("ImageID", "split"), optional=("PatientSex_DICOM", "PatientID")):
        image_id, split = image_ids(row["ImageID"], where), row["split"]
        if split not in SPLITS:
            raise ValueError(f"{where}: the split is {split!r}, not one of {', '.join(SPLITS)}.")
        first = lines.setdefault(image_id, row)
        if first["split"] != split:
            raise ValueError(f"{where}: image {image_id} is in {first['split']} too.")
    return lines


def read_study(study: Mapping[str, Any], where: str, count: Counter[str]) -> dict[str, Any]:
    """{"sentences", "findings", "diagnoses"} of a study, boxes from 0 to 1.

    Args:
        count: gets boxes_without_area, boxes_of_further_readers and boxes_without_label, and sentences_without_text.

    Raises:
        ValueError: `findings` is no list of objects, or a box is not four numbers.
    """
    entries = study.get("findings")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{where}: findings is no list of sentences.")
    sentences, findings = [], []
    for entry in entries:
        text = entry.get(SENTENCE)
        boxes = [box for box in _boxes(entry.get("boxes"), where) if box[0] < box[2] and box[1] < box[3]]
        count["boxes_without_area"] += len(entry.get("boxes") or ()) - len(boxes)
        count["boxes_of_further_readers"] += len(_boxes(entry.get("extra_boxes"), where))
        if not isinstance(text, str) or not text.strip():
            count["sentences_without_text"] += 1
            continue
        sentences.append({"text": joined(text), "boxes": boxes})
        labels = {LABELS_BY_PADCHESTS.get(plain(str(label))) for label in entry.get("labels") or ()}
        label = labels.pop() if len(labels) == 1 else None
        if label is None:
            count["boxes_without_label"] += len(boxes)
        else:
            findings += [Finding(label, box) for box in boxes]
    normal = bool(entries) and all(entry.get("abnormal") is False for entry in entries)
    return {"sentences": sentences, "findings": tuple(findings), "diagnoses": (NO_FINDING,) if normal else ()}


def _boxes(boxes: Any, where: str) -> list[tuple[float, ...]]:
    if not isinstance(boxes, list | None):
        raise ValueError(f"{where}: boxes are {boxes!r}, not a list.")
    for box in boxes or ():
        if not (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(edge, (int, float)) and math.isfinite(edge) for edge in box)
        ):
            raise ValueError(f"{where}: the box {box!r} is not four numbers, x1, y1, x2, y2.")
    return [tuple(map(float, box)) for box in boxes or ()]


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the reports and the table, and of boxed images the header.

    `counts`, for each split: images; images_no_finding; sentences; boxes; boxes_without_area (skipped);
    boxes_of_further_readers (left out); boxes_without_label (no findings); sentences_without_text (left out);
    boxes_of_0_to_1, boxes_clipped. For the split "none": images of studies that the table does not name, which are
    left out, and images_without_report (of the table).

    Raises:
        FileNotFoundError: a file or all radiographs are missing.
        ValueError: a file cannot be read; it names the file and the line, or the study.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a PadChest-GR release.")
    reports, table = _reports(data_dir), os.path.join(data_dir, TABLE)
    if not reports:
        raise FileNotFoundError(f"{data_dir} has no grounded_reports_20240819.json.")
    if len(reports) > 1:
        raise ValueError(f"{reports[0]} and {os.path.basename(reports[1])} are two versions: keep one of them.")
    lines = read_table(table)
    studies = read_json(reports[0])
    if not isinstance(studies, list) or not all(isinstance(study, dict) for study in studies):
        raise ValueError(f"{reports[0]} is no list of studies.")

    annotations: dict[str, list[ImageAnnotation]] = {}
    counts: dict[str, Counter[str]] = {}
    image_ids, seen = ImageIds(), set()
    for number, study in enumerate(studies, start=1):
        where = f"{reports[0]}, study {number}"
        image_id = image_ids(str(study.get("ImageID") or ""), where)
        if image_id in seen:
            raise ValueError(f"{where}: image {image_id} is in the file twice.")
        seen.add(image_id)
        line = lines.get(image_id, {"split": "none"})
        count = counts.setdefault(line["split"], Counter(images=0))
        count["images"] += 1
        if line["split"] == "none":
            continue
        told = read_study(study, where, count)
        sentences = told.pop("sentences")
        count["images_no_finding"] += bool(told["diagnoses"])
        count["sentences"] += len(sentences)
        count["boxes"] += sum(len(sentence["boxes"]) for sentence in sentences)
        optional = {
            "study_id": str(study.get("StudyID") or "") or None,
            "sex": known_sex(line.get("PatientSex_DICOM", "")),
            "report_findings": " ".join(sentence["text"] for sentence in sentences) or None,
            "sentences": sentences,
        }
        annotations.setdefault(line["split"], []).append(
            ImageAnnotation(image_id, patient_id=line.get("PatientID", ""), optional=optional, **told)
        )
    if not annotations:
        raise ValueError(f"{table} names none of the images of {os.path.basename(reports[0])}.")
    counts.setdefault("none", Counter(images=0))["images_without_report"] = len(lines.keys() - seen)

    annotations = {split: annotations[split] for split in SPLITS if split in annotations}
    patients = any(image.patient_id for images in annotations.values() for image in images)
    files = find_files(data_dir)
    named = [image.image_id for images in annotations.values() for image in images]
    paths = match(named, files, reports[0], data_dir)
    annotations, fits = boxes_in_pixels(annotations, paths, dict.fromkeys(named, (1.0, 1.0)), reports[0])
    return Release(
        facts=FACTS,
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts={split: dict(counts[split]) | fits[split] for split in annotations}
        | {"none": dict(counts["none"]) | file_counts(files, seen | lines.keys())},
        columns=("study_id", *(("patient_id",) if patients else ()), "sex", "report_findings", "sentences"),
    )


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "padchest_gr.py", __doc__))
