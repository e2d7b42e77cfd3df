"""VQA-RAD (315 radiological images, 107 of the chest, with questions), as published, to rows of this project's schema.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/vqa-rad", split="test", num_proc=8)
    rows[0]["qa"]    # [{"question": "Is there a pneumothorax?", "answer": "no", "closed": True}, ...]

or, once for all programs: `litegpt prepare vqa-rad --data_dir path/to/vqa-rad --output_dir prepared/vqa-rad`.

The layout (https://osf.io/89kps/; Lau et al., Scientific Data 5:180251, 2018):

    VQA_RAD Dataset Public.json     a list of questions: qid, image_name, image_organ (CHEST, HEAD, ABD), question,
                                    answer, answer_type (CLOSED, OPEN), phrase_type (freeform, test_freeform, ...)
    VQA_RAD Image Folder/synpic100132.jpg     anywhere below

A row is a radiograph of the chest with all its questions; images of other organs are left out and counted. Answers
come without the blanks around them, yes and no in lower case. `findings` and `diagnoses` are empty: nobody labelled
the images.

Splits: the release's test is of questions (their phrase_type begins with "test_"), and 203 of its images are in its
train too, with the same question in other words. Here an image of which any question is in the test is test, with all
its questions (questions_of_train tells how many those are); figures on it are not comparable with those of papers
that split by question. A table of one's own beside the JSON, `splits.csv` (image_name, split), names train, validation
or test instead; images that it does not name are left out.
"""

import os
import re
from typing import Any

from litegpt.common.addresses import absolute, entries_of, is_folder
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.corrected_boxes import read_json
from litegpt.datasets_scripts.image_files import ImageIds, file_counts, find_files, image_id_of, match, paths_by_split
from litegpt.datasets_scripts.own_splits import SPLITS, SPLITS_FILE, read_own_splits
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.report_texts import joined

FILE = re.compile(r"vqa[ _-]?rad.*\.json", re.IGNORECASE)
LAYOUT = "VQA_RAD Dataset Public.json (VQA-RAD)"
ORGAN = "CHEST"
CLOSED = {"CLOSED": True, "OPEN": False}
TEST = "test_"  # how the phrase_type of a question of the release's test begins

CITATION = """\
@article{lau2018dataset,
  title={A dataset of clinically generated visual questions and answers about radiology images},
  author={Lau, Jason J. and Gayen, Soumya and Ben Abacha, Asma and Demner-Fushman, Dina},
  journal={Scientific Data},
  volume={5},
  pages={180251},
  year={2018}
}"""
FACTS = DataSetFacts(
    name="vqa_rad",
    pretty_name="VQA-RAD",
    homepage="https://osf.io/89kps/",
    licence="CC0 1.0",
    licence_link="https://creativecommons.org/publicdomain/zero/1.0/",
    citation=CITATION,
)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has the questions."""
    return bool(_files(data_dir))


def _files(data_dir: str) -> list[str]:
    return [os.path.join(data_dir, name) for name in entries_of(data_dir)[1] if FILE.fullmatch(name)]


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def read_questions(path: str) -> list[tuple[str, dict[str, str]]]:
    """[("PATH, question QID", fields)] of the release's list; a field is text in one line, "" where it is missing.

    Raises:
        OSError, ValueError: the file is no JSON list of objects, or a field holds neither text nor a number.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is no list of questions.")
    questions = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, question {entry.get('qid', f'number {number}')}"
        names = ("image_name", "image_organ", "question", "answer", "answer_type", "phrase_type")
        questions.append((where, {name: _text(entry.get(name), name, where) for name in names}))
    return questions


def _text(value: Any, name: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{where}: {name} is {value!r}, not a text.")
    return joined(str(value))  # answers that are numbers stand as such in the file


def answer_of(text: str) -> str:
    """An answer as rows have it: "Yes" -> "yes", "Yes." -> "yes"; others stay as they are written."""
    bare = text.rstrip(".").casefold()
    return bare if bare in ("yes", "no") else text


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the questions and finds the radiographs.

    `counts`, for each split: images; questions, of which questions_closed; questions_listed_twice (of one image, with
    the same answer) and questions_without_answer (or without words), which are left out; for the test by image,
    questions_of_train. For the split "none": images and questions of images that splits.csv does not name,
    images_of_other_organs, images_not_there (named in splits.csv).

    Raises:
        FileNotFoundError: the questions or all radiographs are missing.
        ValueError: the file is no list of questions, or has a type of answer that is none of the release's.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of VQA-RAD.")
    found = _files(data_dir)
    if not found:
        raise FileNotFoundError(f"{data_dir} has no {LAYOUT}.")
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {os.path.basename(found[1])} are two lists: keep one of them.")

    questions: dict[str, list[tuple[str, dict[str, str]]]] = {}
    others, image_ids = set(), ImageIds()
    for where, fields in read_questions(found[0]):
        image_id = image_ids(fields["image_name"], where)
        if fields["image_organ"].upper() == ORGAN:
            questions.setdefault(image_id, []).append((where, fields))
        else:
            others.add(image_id)
    if not questions:
        raise ValueError(f"{found[0]} has no question on an image of the chest (image_organ {ORGAN}).")
    own_splits = read_own_splits(data_dir, "image_name", "image", image_id_of)
    split_of = {image_id: _release_split(asked) for image_id, asked in questions.items()}
    if own_splits is not None:
        split_of = {image_id: own_splits.get(image_id, "none") for image_id in questions}
        if set(split_of.values()) == {"none"}:
            splits_path = os.path.join(data_dir, SPLITS_FILE)
            raise ValueError(f"{splits_path} names none of the images of {os.path.basename(found[0])}.")

    splits = [split for split in SPLITS if split in split_of.values()]
    rules = ("images", "questions", "questions_closed", "questions_listed_twice", "questions_without_answer")
    counts = {split: dict.fromkeys(rules, 0) for split in splits}
    counts["none"] = {
        "images": 0,
        "questions": 0,
        "images_of_other_organs": len(others - questions.keys()),
        "images_not_there": len((own_splits or {}).keys() - questions.keys() - others),
    }
    annotations: dict[str, list[ImageAnnotation]] = {split: [] for split in splits}
    for image_id, asked in questions.items():
        split = split_of[image_id]
        met = counts[split]
        met["images"] += 1
        if split == "none":
            met["questions"] += len(asked)
            continue
        annotations[split].append(ImageAnnotation(image_id, (), (), optional={"qa": _qa(asked, met)}))
        if split == "test" and own_splits is None:
            asked_in_train = sum(not fields["phrase_type"].startswith(TEST) for _, fields in asked)
            met["questions_of_train"] = met.get("questions_of_train", 0) + asked_in_train

    files = find_files(data_dir)
    named = [image.image_id for images in annotations.values() for image in images]
    paths = match(named, files, found[0], data_dir)
    counts["none"] |= file_counts(files, questions.keys() | others)
    return Release(
        facts=FACTS,
        finding_labels=(),
        diagnosis_labels=(),
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts=counts,
        columns=("qa",),
    )


def _release_split(asked: list[tuple[str, dict[str, str]]]) -> str:
    return "test" if any(fields["phrase_type"].startswith(TEST) for _, fields in asked) else "train"


def _qa(asked: list[tuple[str, dict[str, str]]], met: dict[str, int]) -> list[dict[str, Any]]:
    """An image's questions for its row; `met` gets what was counted."""
    qa: list[dict[str, Any]] = []
    for where, fields in asked:
        kind = fields["answer_type"].upper()
        if kind not in CLOSED:
            raise ValueError(f"{where}: answer_type is {fields['answer_type']!r}, not CLOSED or OPEN.")
        entry = {"question": fields["question"], "answer": answer_of(fields["answer"]), "closed": CLOSED[kind]}
        if not entry["question"] or not entry["answer"]:
            met["questions_without_answer"] += 1
        elif entry in qa:
            met["questions_listed_twice"] += 1
        else:
            qa.append(entry)
            met["questions"] += 1
            met["questions_closed"] += entry["closed"]
    return qa


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "vqa_rad.py", __doc__))
