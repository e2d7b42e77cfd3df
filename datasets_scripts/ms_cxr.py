"""MS-CXR (1,162 phrases of MIMIC-CXR's reports, with boxes), as PhysioNet releases it, to this project's rows.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/ms-cxr", split="test", num_proc=8)
    rows[0]["phrase"]    # [{"phrase": "Patchy opacity in the left base", "boxes": [[0.55, 0.54, 0.75, 0.68]]}]

or, once for all programs: `litegpt prepare ms-cxr --data_dir path/to/ms-cxr --output_dir prepared/ms-cxr`.

The layout, of 0.1 and 1.1.0 (https://physionet.org/content/ms-cxr/; Boecking et al., ECCV 2022, arXiv 2204.09817):

    MS_CXR_Local_Alignment_v1.0.0.csv   dicom_id, category_name, label_text, path, x, y, w, h, image_width,
                                        image_height, in 1.1.0 also split: a line a box, in pixels of the full size
    files/p10/p10000001/s50000001/DICOM_ID.jpg     MIMIC-CXR-JPG's, which MS-CXR does not have: here or in a folder
                                        beside the table, also as a link, also resized, also .png
    mimic-cxr-2.0.0-split.csv.gz        MIMIC-CXR-JPG's split, beside the table or beside files/

Where there is no `files/`, pictures DICOM_ID.jpg may lie anywhere below. A row is an image. `phrase` has its phrases,
each with all its boxes; `findings` the same boxes with their category. Nobody marked what else these radiographs show:
a category without a box is unknown, not absent. There are no diagnoses.

Splits: MIMIC-CXR-JPG's, where its table is there, since models that were trained on MIMIC-CXR's train are tested on
none of it. Without it the table's own column, which calls images of MIMIC-CXR's test "train"; how many images were
split so is counted and said (images_of_own_split). Without either, as 0.1 alone has it, all is test.
"""

import os
import re
from dataclasses import dataclass, field

from litegpt.common.addresses import absolute, entries_of, is_file, is_folder
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts import mimic_cxr
from litegpt.datasets_scripts.annotations import Box, Finding, ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.image_files import find_files, match, paths_by_split
from litegpt.datasets_scripts.picture_boxes import Size, boxes_in_pixels
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.report_texts import joined
from litegpt.datasets_scripts.tables import box_numbers, plain, read_csv

FINDING_LABELS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
LABELS_BY_PLAIN_NAME = {plain(label): label for label in FINDING_LABELS}

TABLE = re.compile(r"MS_CXR_Local_Alignment.*\.csv(\.gz)?", re.IGNORECASE)
LAYOUT = "MS_CXR_Local_Alignment_v1.0.0.csv (MS-CXR)"
BOX_COLUMNS, SIZE_COLUMNS = ("x", "y", "w", "h"), ("image_width", "image_height")
COLUMNS = ("dicom_id", "category_name", "label_text", "path", *BOX_COLUMNS, *SIZE_COLUMNS)
FOLDER = "files"  # of MIMIC-CXR-JPG
PATH = re.compile(r"(?:.*/)?(files/p\d+/p(\d+)/s(\d+)/)[^/]+")
SPLITS = {"train": "train", "val": "validation", "validate": "validation", "validation": "validation", "test": "test"}

CITATION = """\
@inproceedings{boecking2022making,
  title={Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing},
  author={Boecking, Benedikt and Usuyama, Naoto and Bannur, Shruthi and Castro, Daniel C. and Schwaighofer, Anton and
          Hyland, Stephanie and others},
  booktitle={European Conference on Computer Vision},
  year={2022}
}"""
FACTS = DataSetFacts(
    name="ms_cxr",
    pretty_name="MS-CXR",
    homepage="https://physionet.org/content/ms-cxr/",
    licence=mimic_cxr.FACTS.licence,
    licence_link="https://physionet.org/content/ms-cxr/view-license/1.1.0/",
    personal_information=mimic_cxr.FACTS.personal_information,
    citation=f"{CITATION}\n{mimic_cxr.CITATION}",
)


@dataclass
class BoxedImage:
    """What the table says of one image.

    Attributes:
        folder: such as "files/p10/p10000001/s50000001/".
        patient_id, study_id: MIMIC-CXR's.
        size: width and height in pixels of what the boxes were drawn on.
        split: of the table's own column; "" where it has none.
        findings: the boxes with their categories, xyxy in these pixels, each once.
        phrases: {phrase: its boxes}.
    """

    folder: str
    patient_id: str
    study_id: str
    size: Size
    split: str
    findings: list[Finding] = field(default_factory=list)
    phrases: dict[str, list[Box]] = field(default_factory=dict)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has the table with the boxes."""
    return bool(_tables(data_dir))


def _tables(data_dir: str) -> list[str]:
    return [os.path.join(data_dir, name) for name in entries_of(data_dir)[1] if TABLE.fullmatch(name)]


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def read_table(path: str) -> tuple[dict[str, BoxedImage], dict[str, dict[str, int]]]:
    """{dicom_id: what the table says of it}, and {dicom_id: {rule: count}} of lines that gave no box.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; a category, a path or a split is none of the release's, a phrase
            is empty, a size is no size, or two lines of an image differ in what is the image's.
    """
    images: dict[str, BoxedImage] = {}
    skipped: dict[str, dict[str, int]] = {}
    for where, row in read_csv(path, COLUMNS, optional=("split",)):
        image_id, phrase = row["dicom_id"], joined(row["label_text"])
        label, place = LABELS_BY_PLAIN_NAME.get(plain(row["category_name"])), PATH.fullmatch(row["path"])
        if label is None:
            known = ", ".join(FINDING_LABELS)
            raise ValueError(f"{where}: the category is {row['category_name']!r}, not one of {known}.")
        if not image_id or place is None:
            example = "files/p10/p10000001/s50000001/DICOM_ID.jpg"
            raise ValueError(f"{where}: {row['path']!r} is no path such as {example}.")
        if not phrase:
            raise ValueError(f"{where}: the line has no phrase (label_text).")
        if row.get("split", "") not in ("", *SPLITS):
            raise ValueError(f"{where}: the split is {row['split']!r}, not one of {', '.join(SPLITS)}.")
        size, box = _size(row, where), box_numbers(row, BOX_COLUMNS, where)
        said = BoxedImage(*place.groups(), size, SPLITS.get(row.get("split", ""), ""))
        image = images.setdefault(image_id, said)
        for name in ("folder", "size", "split"):
            if getattr(image, name) != getattr(said, name):
                raise ValueError(f"{where}: image {image_id} has another {name} in an earlier line.")
        rules = skipped.setdefault(image_id, {"boxes_without_area": 0, "boxes_listed_twice": 0})
        boxes = image.phrases.setdefault(phrase, [])
        if box is None or box[2] <= 0 or box[3] <= 0:
            rules["boxes_without_area"] += 1
            continue
        x, y, width, height = box
        corners = (x, y, x + width, y + height)
        finding = Finding(label, corners)
        rules["boxes_listed_twice"] += corners in boxes and finding in image.findings
        if corners not in boxes:
            boxes.append(corners)
        if finding not in image.findings:
            image.findings.append(finding)
    for image in images.values():  # a phrase is on the radiograph: without a box nothing is known of where
        image.phrases = {phrase: boxes for phrase, boxes in image.phrases.items() if boxes}
    return images, skipped


def _size(row: dict[str, str], where: str) -> Size:
    try:
        width, height = (float(row[column]) for column in SIZE_COLUMNS)
    except ValueError:
        width = height = 0
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise ValueError(f"{where}: image_width and image_height are no size in pixels.")
    return width, height


def find_pictures(data_dir: str, images: dict[str, BoxedImage], table: str) -> dict[str, str]:
    """{dicom_id: path} of the pictures that are there, by MIMIC-CXR-JPG's paths, or by their names alone.

    Raises:
        FileNotFoundError: none is.
        ValueError: as `image_files.match`.
    """
    folders = _folders_with_files(data_dir)
    if not folders:
        return match(list(images), find_files(data_dir), table, data_dir)
    paths = {}
    for image_id, image in images.items():
        stems = [os.path.join(folder, image.folder, image_id) for folder in folders]
        path = next((stem + end for stem in stems for end in mimic_cxr.IMAGE_SUFFIXES if is_file(stem + end)), None)
        if path is not None:
            paths[image_id] = path
    if not paths:
        image_id, image = next(iter(images.items()))
        raise FileNotFoundError(
            f"{data_dir} has none of the radiographs that {os.path.basename(table)} names, such as "
            f"{image.folder}{image_id}.jpg: they are MIMIC-CXR-JPG's."
        )
    return paths


def _folders_with_files(data_dir: str) -> list[str]:
    """The folder itself and those in it, as far as they have a folder files/."""
    below = [os.path.join(data_dir, name) for name in sorted(entries_of(data_dir)[0]) if name != FOLDER]
    return [folder for folder in (data_dir, *below) if is_folder(os.path.join(folder, FOLDER))]


def _mimic_splits(data_dir: str) -> dict[str, str] | None:
    """{dicom_id: split} of MIMIC-CXR-JPG's table, where it is there."""
    folders = dict.fromkeys((data_dir, *_folders_with_files(data_dir)))
    path = next(filter(None, (mimic_cxr.table_path(folder, "split") for folder in folders)), None)
    return None if path is None else mimic_cxr.read_splits(path)


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the table, and of boxed images the header.

    `counts`, for each split: images; images_of_own_split (by MS-CXR's own column); phrases; boxes; boxes_without_area
    (skipped, also lines without a box); boxes_listed_twice; boxes_scaled, boxes_clipped. For the split "none": images
    that no split names, which are left out.

    Raises:
        FileNotFoundError: the table or all radiographs are missing.
        ValueError: a table cannot be read; it names the file and the line.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of an MS-CXR release.")
    tables = _tables(data_dir)
    if not tables:
        raise FileNotFoundError(f"{data_dir} has no {LAYOUT}.")
    if len(tables) > 1:
        raise ValueError(f"{tables[0]} and {os.path.basename(tables[1])} are two versions: keep one of them.")
    images, skipped = read_table(tables[0])
    if not images:
        raise ValueError(f"{tables[0]} names no image.")
    split_of, by_own_column = _split(images, _mimic_splits(data_dir))

    annotations: dict[str, list[ImageAnnotation]] = {}
    for split in dict.fromkeys(SPLITS.values()):
        chosen = [image_id for image_id in images if split_of[image_id] == split]
        if chosen:
            annotations[split] = [_annotation(image_id, images[image_id]) for image_id in chosen]
    if not annotations:
        raise ValueError(f"{tables[0]}: MIMIC-CXR-JPG's table of splits names none of its images.")
    paths = find_pictures(data_dir, images, tables[0])
    sizes = {image_id: image.size for image_id, image in images.items()}
    annotations, fits = boxes_in_pixels(annotations, paths, sizes, tables[0])

    counts: dict[str, dict[str, int]] = {}
    for split, chosen in annotations.items():
        counts[split] = {"images": len(chosen)}
        if by_own_column:
            counts[split]["images_of_own_split"] = len(chosen)
        counts[split]["phrases"] = sum(len(image.optional["phrase"]) for image in chosen)
        counts[split]["boxes"] = sum(len(image.findings) for image in chosen)
        for rule in ("boxes_without_area", "boxes_listed_twice"):
            counts[split][rule] = sum(skipped[image.image_id][rule] for image in chosen)
        counts[split] |= fits[split]
    counts["none"] = {"images": sum(split == "none" for split in split_of.values())}
    return Release(
        facts=FACTS,
        finding_labels=FINDING_LABELS,
        diagnosis_labels=(),
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts=counts,
        columns=("study_id", "patient_id", "phrase"),
    )


def _split(images: dict[str, BoxedImage], of_mimic: dict[str, str] | None) -> tuple[dict[str, str], bool]:
    """{dicom_id: split}, "none" where no split names it; and whether they are the table's own."""
    if of_mimic is not None:
        return {image_id: of_mimic.get(image_id, "none") for image_id in images}, False
    if any(image.split for image in images.values()):
        return {image_id: image.split or "none" for image_id, image in images.items()}, True
    return dict.fromkeys(images, "test"), False


def _annotation(image_id: str, image: BoxedImage) -> ImageAnnotation:
    phrases = [{"phrase": text, "boxes": boxes} for text, boxes in image.phrases.items()]
    return ImageAnnotation(
        image_id,
        findings=tuple(image.findings),
        diagnoses=(),
        patient_id=image.patient_id,
        optional={"study_id": image.study_id, "phrase": phrases},
    )


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "ms_cxr.py", __doc__))
