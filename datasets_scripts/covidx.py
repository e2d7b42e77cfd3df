"""COVIDx CXR (COVID-Net's collection of public radiographs), as it is published, to rows of this project's schema.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/covidx", split="test", num_proc=8)
    rows[0]["diagnoses"]    # [0]: COVID-19

or, once for all programs: `litegpt prepare covidx --data_dir path/to/covidx --output_dir prepared/covidx`.

The layout (Kaggle's covidx-cxr2; https://github.com/lindawangg/COVID-Net, docs/COVIDx.md; Wang et al., Scientific
Reports 10, 19549, 2020):

    train.txt, val.txt, test.txt     a line an image: patient, file name, class, source; some lists have no sources
    train/, val/, test/              the pictures, PNG and JPEG

    COVID 1 COVID(1).png COVID-19 sirm        patients' names may hold blanks
    396 000004.jpg pneumonia cohen            and files differ in their suffix alone:
    409 000004.png pneumonia cohen            so an image_id is a file's name with its suffix

There are two kinds of lists. Kaggle's and those called B on GitHub have two classes, those called A three:

    COVID-19, pneumonia, normal      diagnoses "COVID-19", "Pneumonia" (another one), "No finding": one each
    positive, negative               the diagnosis "COVID-19", or none: a negative is *not* a normal one, many of them
                                     have another pneumonia

For three classes put a version's A lists in the place of train.txt and test.txt. A picture may lie in the folder of
another split (images_of_other_folders). Without val.txt there is no split `validation` (lists_missing); a
`validation_share` takes one out of train. Who is in several splits is counted (patients_of_other_splits).

The published figure is the accuracy over the three classes. Read it with care: the classes come from different
sources. In the test of version 8A (200 COVID-19, 100, 100) every COVID-19 image is RICORD's and all others are said to
be RSNA's, so a network that tells hospitals apart does well. `images_of_...` counts the sources. RSNA's images are
ChestX-ray14's: leave its patients out of a training on those (chestx_ray14.py).
"""

import os
from collections import Counter
from typing import NamedTuple

from litegpt.common.addresses import absolute, is_file, is_folder, open_address
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.image_files import Files, find_files, match
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.tables import read_text
from litegpt.processing.answers import NO_FINDING

# {split: its list, its folder}
LISTS = {"train": ("train.txt", "train"), "validation": ("val.txt", "val"), "test": ("test.txt", "test")}
LAYOUT = "train.txt and test.txt with the classes of COVIDx (COVIDx)"
# {class: the diagnosis, None where there is none} of the two kinds of lists.
THREE_CLASSES = {"covid-19": "COVID-19", "pneumonia": "Pneumonia", "normal": NO_FINDING}
TWO_CLASSES = {"positive": "COVID-19", "negative": None}

HOMEPAGE = "https://github.com/lindawangg/COVID-Net/blob/master/docs/COVIDx.md"
CITATION = """\
@article{wang2020covidnet,
  title={COVID-Net: a tailored deep convolutional neural network design for detection of COVID-19 cases from chest
         X-ray images},
  author={Wang, Linda and Lin, Zhong Qiu and Wong, Alexander},
  journal={Scientific Reports},
  volume={10},
  pages={19549},
  year={2020}
}"""
FACTS = DataSetFacts(
    name="covidx",
    pretty_name="COVIDx CXR",
    homepage=HOMEPAGE,
    # It has no one licence. RSNA's part, the largest, forbids sharing, so `litegpt push` makes nothing of it public.
    licence="For research, each source under its own terms, RSNA's under Kaggle competition rules",
    licence_link=HOMEPAGE,
    personal_information=(
        "The radiographs are of people. The sources' publishers removed what identifies them, some took them out of "
        "articles; health data they remain."
    ),
    citation=CITATION,
)


class Line(NamedTuple):
    """A line of a list.

    Attributes:
        where: the file and the line, for the sentences.
        names: what stands before the class, at least two words: the patient, then the file.
        label: the class in lower case.
        source: such as "rsna"; "" where the list has none.
    """

    where: str
    names: tuple[str, ...]
    label: str
    source: str


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has both lists, and the first line of one is COVIDx's."""
    paths = [os.path.join(data_dir, name) for name in ("train.txt", "test.txt")]
    if not all(map(is_file, paths)):
        return False
    with open_address(paths[0]) as file:
        first = file.readline(1000).decode("utf-8-sig", errors="replace")
    return line_of(first, "") is not None


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def line_of(text: str, where: str) -> Line | None:
    """A line's parts; None where it is none: the class is the last word, or the last but one before the source."""
    words = text.split()
    for after in (1, 2):
        label = words[-after].casefold() if len(words) > after + 1 else ""
        if label in THREE_CLASSES or label in TWO_CLASSES:
            return Line(where, tuple(words[:-after]), label, "".join(words[len(words) - after + 1 :]))
    return None


def read_list(path: str) -> list[Line]:
    """The lines of a list.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text, or a line has no class or fewer parts than patient, file and class.
    """
    try:
        text = read_text(path)
    except UnicodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from error
    lines = []
    for number, words in enumerate(text.splitlines(), start=1):
        where = f"{path}, line {number}"
        if not words.strip():
            continue
        line = line_of(words, where)
        if line is None:
            classes = ", ".join((*THREE_CLASSES, *TWO_CLASSES))
            raise ValueError(f"{where} is no patient, file name and class (one of {classes}): {words.strip()[:80]!r}.")
        lines.append(line)
    return lines


def name_of(path: str) -> str:
    """An image's name: its file's, with the suffix."""
    return os.path.basename(path)


def patient_and_image(line: Line, there: set[str]) -> tuple[str, str]:
    """Patient and file of a line; where a blank is in one of them, the file is that of those `there`.

    Args:
        there: file names, in lower case.
    """
    starts = range(len(line.names) - 1, 0, -1)  # the last word alone first: known blanks are those of patients
    start = next((start for start in starts if " ".join(line.names[start:]).casefold() in there), len(line.names) - 1)
    return " ".join(line.names[:start]), " ".join(line.names[start:])


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the lists and the names of the images.

    `counts`, for each split: images; images_no_finding (three classes alone); images_listed_twice (once is enough);
    images_of_other_folders; patients_of_other_splits; and images_of_SOURCE. For train, lists_missing (val.txt). For
    the split "none", files_not_in_table: pictures that no list names.

    Raises:
        FileNotFoundError: a list or all radiographs are missing.
        ValueError: a list cannot be read, lists have different kinds of classes, or an image has two classes; it names
            the file and the line.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a COVIDx release.")
    lists = {split: os.path.join(data_dir, name) for split, (name, _) in LISTS.items()}
    missing = [os.path.basename(path) for split, path in lists.items() if not is_file(path)]
    if set(missing) - {LISTS["validation"][0]}:
        raise FileNotFoundError(f"{data_dir} has no {missing[0]}.")
    lines_of = {split: read_list(path) for split, path in lists.items() if is_file(path)}
    classes = _classes(lines_of)
    folders = {
        split: find_files(os.path.join(data_dir, folder), id_of=name_of) for split, (_, folder) in LISTS.items()
    }

    annotations: dict[str, list[ImageAnnotation]] = {}
    images: dict[str, dict[str, str]] = {}
    counts: dict[str, dict[str, int]] = {}
    for split, lines in lines_of.items():
        files = _files_of(split, folders)
        annotations[split], counts[split] = _annotations(lines, files, classes)
        named = [annotation.image_id for annotation in annotations[split]]
        images[split] = match(named, files, lists[split], data_dir)
        elsewhere = set(images[split].values()) - set(folders[split].paths.values())
        counts[split]["images_of_other_folders"] = len(elsewhere)
    patients = {split: {image.patient_id for image in found} for split, found in annotations.items()}
    for split, people in patients.items():
        others = set().union(*(patients[other] for other in patients if other != split))
        counts[split]["patients_of_other_splits"] = len(people & others)
    read = {path for found in images.values() for path in found.values()}
    unread = [path for files in folders.values() for path in files.paths.values() if path not in read]
    counts["train"]["lists_missing"] = len(missing)
    counts["none"] = {"files_not_in_table": len(unread)}
    return Release(
        facts=FACTS,
        finding_labels=(),
        diagnosis_labels=tuple(dict.fromkeys(filter(None, classes.values()))),
        annotations=annotations,
        images=images,
        counts=counts,
        columns=("patient_id",),
    )


def _classes(lines_of: dict[str, list[Line]]) -> dict[str, str | None]:
    """The kind of classes that all lists have.

    Raises:
        ValueError: they have both.
    """
    lines = [line for lines in lines_of.values() for line in lines]
    classes = TWO_CLASSES if lines and lines[0].label in TWO_CLASSES else THREE_CLASSES
    for line in lines:
        if line.label not in classes:
            raise ValueError(
                f"{line.where}: the class is {line.label!r}, but {lines[0].where} has {lines[0].label!r}: the lists "
                "must be of one kind, of two classes or of three."
            )
    return classes


def _files_of(split: str, folders: dict[str, Files]) -> Files:
    """The radiographs that a split may name: those of its own folder come first."""
    files = Files(dict(folders[split].paths), several=dict(folders[split].several))
    for other, found in folders.items():
        if other != split:
            files.paths = found.paths | files.paths
    return files


def _annotations(
    lines: list[Line], files: Files, classes: dict[str, str | None]
) -> tuple[list[ImageAnnotation], dict[str, int]]:
    """The images of a list, each once, and what was met.

    Raises:
        ValueError: an image has two classes.
    """
    there = {name.casefold() for name in files.paths}
    found: dict[str, ImageAnnotation] = {}
    label_of: dict[str, str] = {}
    counts = {"images": 0, "images_no_finding": 0, "images_listed_twice": 0}
    sources: Counter[str] = Counter()
    for line in lines:
        patient, image = patient_and_image(line, there)
        if label_of.setdefault(image, line.label) != line.label:
            raise ValueError(f"{line.where}: image {image} is {line.label}, and {label_of[image]} in a line before.")
        if image in found:
            counts["images_listed_twice"] += 1
            continue
        diagnosis = classes[line.label]
        found[image] = ImageAnnotation(image, (), (diagnosis,) if diagnosis else (), patient_id=patient)
        counts["images"] += 1
        counts["images_no_finding"] += diagnosis == NO_FINDING
        sources[f"images_of_{line.source or 'unknown_source'}"] += 1
    return list(found.values()), counts | dict(sorted(sources.items()))


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "covidx.py", __doc__))
