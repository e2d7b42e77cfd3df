"""Chats about radiographs in LLaVA's JSON, one's own or another model's, to rows of this project's schema.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/chats", split="train", num_proc=8)
    rows[0]["chat"]    # [{"role": "user", "text": "Is there a fracture?"}, {"role": "assistant", "text": "No."}]

or, once for all programs: `litegpt prepare llava-chats --data_dir path/to/chats --output_dir prepared/chats`.

The layout (https://github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md):

    chats.json           any name; one list, or as chats.jsonl a chat a line, which spares memory
    images/a1.png        `image` as a path within the folder, or within one of its folders; DICOM too

    [{"id": "c1", "image": "images/a1.png", "conversations": [
       {"from": "human", "value": "<image>\\nIs there a fracture?"}, {"from": "gpt", "value": "No."}]}]

A row is a chat: `image_id` is its id, and several chats about one radiograph are several rows with the same picture.
`chat` has its turns as they were written, without the mark `<image>`, of which there may be one, in the first turn.
Nothing else is known: rows have no findings and no diagnoses. All is train; `--validation_share` keeps the chats about
one picture together.

A chat that cannot be used (no id, no image or several; turns that are not human, gpt, human, gpt, ...; a turn without
words) is left out and counted, and preparation.log says which and why. Two chats of one id are refused.
`litegpt chats` writes rows in this layout again: the same ids, turns and pixels.
"""

import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from litegpt.common.addresses import absolute, entries_of, is_file, is_folder, open_address, open_text
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import ImageAnnotation
from litegpt.datasets_scripts.arguments import OwnDataArguments
from litegpt.datasets_scripts.corrected_boxes import facts_of, read_json
from litegpt.datasets_scripts.image_files import find_files
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release

LAYOUT = "one .json or .jsonl with conversations (LLaVA's chats)"
MARK = "<image>"
ROLES = {"human": "user", "gpt": "assistant"}  # LLaVA's names: ours
LONGEST_REMARK = 200  # signs of an id, and of a reason that quotes the file
BEGINNING = 1 << 16  # bytes of a file in which a chat's conversations begin
DICOM = (".dcm", ".dicom")

Turns = list[dict[str, str]]


class Chat(NamedTuple):
    """A chat of the file.

    Attributes:
        id: unique in the file.
        image: path within the folder, with / between folders.
        turns: `{"role": "user" | "assistant", "text"}`, the first a user's, the last an assistant's.
    """

    id: str
    image: str
    turns: Turns


def turns_of(conversations: Any) -> Turns:
    """LLaVA's `conversations` as turns, without the mark of the picture.

    Raises:
        ValueError: why they are no chat about one picture.
    """
    if not isinstance(conversations, list) or not conversations:
        raise ValueError("it has no conversations")
    turns: Turns = []
    for number, turn in enumerate(conversations, start=1):
        speaker, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if not isinstance(speaker, str) or speaker not in ROLES:
            raise ValueError(f"turn {number} is from {speaker!r}, not human or gpt")
        if ROLES[speaker] != ("user", "assistant")[(number - 1) % 2]:
            raise ValueError(f"turn {number} is from {speaker}, as the one before or at the beginning")
        if not isinstance(text, str):
            raise ValueError(f"turn {number} has no text")
        if number == 1:
            text = _without_mark(text)
        if MARK in text:
            raise ValueError(f"turn {number} has the mark {MARK}, which stands once, in the first turn")
        if not text.strip():
            raise ValueError(f"turn {number} is empty")
        _check_text(text, f"turn {number}")
        turns.append({"role": ROLES[speaker], "text": text})
    if turns[-1]["role"] == "user":
        raise ValueError("its last turn is the human's, without an answer")
    return turns


def _without_mark(text: str) -> str:
    """Text behind the mark stays as it is; where LLaVA's files have it elsewhere, blanks around it go too."""
    if text.startswith(f"{MARK}\n"):
        return text.removeprefix(f"{MARK}\n")
    return text.replace(MARK, "", 1).strip() if MARK in text else text


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may hold half a character (\\ud83d), which no file of text may
        raise ValueError(f"{what} is no whole Unicode") from None


def conversations_of(turns: Iterable[dict[str, str]]) -> Turns:
    """The inverse of `turns_of`: LLaVA's `conversations`, with the mark before the first turn.

    Raises:
        KeyError: a role is none of `ROLES`.
    """
    names = {role: name for name, role in ROLES.items()}
    said = [{"from": names[turn["role"]], "value": turn["text"]} for turn in turns]
    said[0]["value"] = f"{MARK}\n{said[0]['value']}"
    return said


def read_chat(entry: Any) -> Chat:
    """A chat of an entry of the list.

    Raises:
        ValueError: why it cannot be used.
    """
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    name, image = entry.get("id"), entry.get("image")
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise ValueError("it has no id")
    if not str(name).isprintable():
        raise ValueError("its id has signs that cannot be printed")
    if isinstance(image, list) and len(image) > 1:
        raise ValueError("it is about several images")
    if isinstance(image, list) and image:
        image = image[0]
    if not isinstance(image, str) or not image.strip():
        raise ValueError("it has no image")
    path = posixpath.normpath(image.strip().replace("\\", "/"))
    if path.startswith(("/", "../")) or path in (".", "..") or re.match(r"\w+:/|[a-zA-Z]:", path):
        raise ValueError(f"its image {image!r} is no path within the folder")
    _check_text(path, "its image")
    return Chat(str(name), path, turns_of(entry.get("conversations")))


def read_entries(path: str) -> Iterator[tuple[str, Any]]:
    """("chat 7", entry) of a list in JSON, or ("line 7", entry) of lines in JSON, None where a line is none.

    Raises:
        OSError, ValueError: the file cannot be read, is no JSON or no list.
    """
    if not path.lower().endswith(".jsonl"):
        entries = read_json(path)
        if not isinstance(entries, list):
            raise ValueError(f"{path} is no list of chats.")
        for number, entry in enumerate(entries, start=1):
            yield f"chat {number:,}", entry
        return
    try:
        with open_text(path, "utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    entry = None
                yield f"line {number:,}", entry
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}.") from None


def recognise(data_dir: str) -> bool:
    """Whether a folder has chats: a file whose beginning speaks of conversations."""
    return bool(_files(data_dir))


def _files(data_dir: str) -> list[str]:
    paths = [os.path.join(data_dir, name) for name in entries_of(data_dir)[1]]
    return [path for path in paths if path.lower().endswith((".json", ".jsonl")) and _has_conversations(path)]


def _has_conversations(path: str) -> bool:
    with open_address(path) as file:
        return b'"conversations"' in file.read(BEGINNING)


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of the folder: it is the user's own."""
    return facts_of(data_dir)


def read_release(data_dir: str | os.PathLike, name: str | None = None, licence: str | None = None) -> Release:
    """Reads the chats and finds their radiographs.

    `counts` of train: chats; turns; images (pictures that they are about); chats_left_out, which `remarks` name. For
    the split "none": files_not_in_table, pictures that no chat is about.

    Args:
        name, licence: of one's own data, for the card.

    Raises:
        FileNotFoundError: there are no chats, or none of their radiographs.
        ValueError: the file is no list of chats, none of them can be used, two have one id, or an image may be either
            of two files.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be a folder with chats and their pictures.")
    found = _files(data_dir)
    if not found:
        raise FileNotFoundError(f"{data_dir} has no {LAYOUT}.")
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {os.path.basename(found[1])} both hold chats: keep one of them.")
    file_name = os.path.basename(found[0])

    annotations: list[ImageAnnotation] = []
    images: dict[str, str] = {}  # {the chat's id: its image}
    places: dict[str, str] = {}  # {the chat's id: where it stands}
    remarks: list[str] = []
    turns = 0
    for where, entry in read_entries(found[0]):
        try:
            chat = read_chat(entry)
        except ValueError as reason:
            called = f" ({entry['id']!r})" if isinstance(entry, dict) and entry.get("id") else ""
            remarks.append(
                f"{file_name}, {where}{called[:LONGEST_REMARK]} is left out: {str(reason)[:LONGEST_REMARK]}."
            )
            continue
        if chat.id in places:
            both = f"{places[chat.id]} and {where}"
            raise ValueError(f"{found[0]}: {both} both have the id {chat.id}, which is to be a row's name.")
        places[chat.id], images[chat.id] = where, chat.image
        turns += len(chat.turns)
        # Chats about one picture stay in one split; of DICOM its Patient ID says more.
        group = "" if chat.image.lower().endswith(DICOM) else chat.image
        annotations.append(ImageAnnotation(chat.id, (), (), patient_id=group, optional={"chat": chat.turns}))
    if not annotations:
        first = f": {remarks[0]}" if remarks else "."
        raise ValueError(f"{found[0]} has no chat that can be used{first}")

    pictures = find_files(data_dir, id_of=_within).paths
    paths = find_pictures(set(images.values()), pictures, data_dir)
    train = {"chats": len(annotations), "turns": turns, "images": len(set(images.values()))}
    return Release(
        facts=facts_of(data_dir, name, licence),
        finding_labels=(),
        diagnosis_labels=(),
        annotations={"train": annotations},
        images={"train": {chat: paths[image] for chat, image in images.items() if image in paths}},
        counts={
            "train": train | {"chats_left_out": len(remarks)},
            "none": {"files_not_in_table": len(set(pictures.values()) - set(paths.values()))},
        },
        columns=("chat",),
        remarks=tuple(remarks),
    )


def _within(path: str) -> str:
    return posixpath.normpath(path.replace(os.sep, "/"))


def find_pictures(images: set[str], files: dict[str, str], data_dir: str) -> dict[str, str]:
    """{image: path} of those that have a file, at their path within the folder or within one of its folders.

    Args:
        files: {path within the folder: path} of files whose suffix is a picture's.

    Raises:
        FileNotFoundError: none has.
        ValueError: an image may be either of two files.
    """
    alike: dict[str, list[str]] = {}
    for inside in files:
        alike.setdefault(posixpath.basename(inside), []).append(inside)
    paths = {}
    for image in images:
        others = [inside for inside in alike.get(posixpath.basename(image), ()) if inside.endswith(f"/{image}")]
        if image in files:
            paths[image] = files[image]
        elif len(others) > 1:
            raise ValueError(f"{data_dir}: {image} may be {others[0]} or {others[1]}: remove one.")
        elif others:
            paths[image] = files[others[0]]
        elif is_file(os.path.join(data_dir, image)):  # DICOM files often have no suffix
            paths[image] = os.path.join(data_dir, image)
    if not paths:
        raise FileNotFoundError(f"{data_dir} has none of the radiographs that its chats name, such as {min(images)}.")
    return paths


@program
def main(arguments: OwnDataArguments, options: PreparationOptions) -> None:
    """Prepares chats."""
    with refuse_bad_input():
        own = {"name": arguments.name, "licence": arguments.licence}
        run_preparation(read_release, arguments, options, **own)


if __name__ == "__main__":
    main(*parse([OwnDataArguments, PreparationOptions], None, "llava_chats.py", __doc__))
