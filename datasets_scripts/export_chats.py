"""A prepared data set -> chats in LLaVA's JSON, with their pictures, for whoever trains other models on them.

    litegpt chats --data_dir prepared/chats --output_dir outputs/chats
    litegpt chats --data_dir prepared/open-i --split test --tasks vqa report --output_dir outputs/chats

In: rows of any data set. Out, in the output folder:

    chats.json             [{"id": "a1", "image": "images/a1.png", "conversations": [
                              {"from": "human", "value": "<image>\\nIs there a fracture?"}, {"from": "gpt", ...}]}]
    images/a1.png          as the rows have it, byte for byte
    chats_settings.json    of what data set, under what licence, and what was asked

A chat is a row's column `chat`; or, where `--tasks` are named or the rows have no such column, all questions of the
tasks that the row tells the answer of, in the tasks' order, in the words of LiteGPT's prompts without their
identifiers (`instructions.py`). Rows that tell none are left out. What
`litegpt prepare llava-chats` read is written with the same ids, turns and pixels (pictures of at most
`--shortest_edge`). The licence of the data set holds for this copy too, of its pictures and of its reports' words.

Pictures are written one by one and chats.json is named last. The same command again writes what is missing.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import datasets
from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.arguments import parse
from litegpt.common.files import refuse_filled_folder, replacing, write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.arguments import ChatsArguments
from litegpt.datasets_scripts.instructions import instructions_for, questions
from litegpt.datasets_scripts.llava_chats import Turns, conversations_of
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.processing.tasks import DEFAULT_TASKS

CHATS, IMAGES, SETTINGS = "chats.json", "images", "chats_settings.json"
OWN_CHAT = "chat"  # the task whose answer is the row's column of that name
LONGEST_NAME = 150  # of a picture, without its suffix; file systems take 255 bytes


def turns_of_row(row: dict[str, Any], tasks: Sequence[str], features: datasets.Features) -> Turns:
    """A row's chat; no turns where it tells none.

    Args:
        tasks: what is asked; "chat": the row's own chat, as it stands there.
        features: the rows' schema, with the labels.
    """
    labels = (features["findings"].feature["label"].names, features["diagnoses"].feature.names)
    instructions = instructions_for(labels[1])
    turns: Turns = []
    for task in tasks:
        if task == OWN_CHAT:
            turns += row.get("chat") or ()
            continue
        for asked in questions(row, task, *labels):
            words = instructions[task].replace("{about}", asked.about or "")
            turns += ({"role": "user", "text": words}, {"role": "assistant", "text": asked.answer})
    return turns


def picture_name(image_id: str, data: bytes) -> str:
    """The name of a row's picture: its image_id, with %2F for what a file may not be called.

    Raises:
        OSError: the bytes are no picture.
    """
    with Image.open(io.BytesIO(data)) as picture:
        suffix = {"JPEG": "jpg"}.get(picture.format or "", (picture.format or "").lower())
    name = quote(image_id, safe=" ")
    if len(name) > LONGEST_NAME:
        name = f"{name[:100]}-{hashlib.sha256(image_id.encode()).hexdigest()[:32]}"
    return f"{name}.{suffix}"


def write_picture(path: Path, data: bytes) -> None:
    """Writes a picture, unless it lies there already, whole and the same."""
    if not (path.is_file() and path.read_bytes() == data):
        with replacing(path) as temporary:
            temporary.write_bytes(data)


def write_chats(rows: datasets.Dataset, folder: Path, tasks: Sequence[str]) -> Counter[str]:
    """Writes chats.json and the pictures; returns counts: chats, without_answer, without_picture (rows left out).

    Raises:
        ValueError: no row gives a chat, two rows have one image_id, or a turn is of neither user nor assistant.
    """
    counts: Counter[str] = Counter()
    names: set[str] = set()
    features, rows = rows.features, rows.cast_column("image", datasets.Image(decode=False))
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    with replacing(folder / CHATS) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in tqdm(rows, unit="row", desc="Chats", disable=None):
            turns = turns_of_row(row, tasks, features)
            if not turns:
                counts["without_answer"] += 1
                continue
            try:
                data = row["image"]["bytes"]
                name = picture_name(row["image_id"], data)
            except (OSError, TypeError, Image.DecompressionBombError):  # a null, or bytes that are none
                counts["without_picture"] += 1
                continue
            if name in names:
                raise ValueError(f"Two rows have the image_id {row['image_id']}, which is to be a chat's name.")
            try:
                said = conversations_of(turns)
            except KeyError as role:
                raise ValueError(f"{row['image_id']}: a turn is of {role}, not of user or assistant.") from None
            names.add(name)
            write_picture(folder / IMAGES / name, data)
            chat = {"id": row["image_id"], "image": f"{IMAGES}/{name}", "conversations": said}
            file.write((",\n" if counts["chats"] else "[\n") + json.dumps(chat, ensure_ascii=False))
            counts["chats"] += 1
        if not counts["chats"]:
            asked = ", ".join(tasks)
            raise ValueError(f"None of the {len(rows):,} rows gives a chat: they tell nothing of --tasks {asked}.")
        file.write("\n]\n")
    return counts


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Makes a folder this run's.

    Raises:
        ValueError: it holds chats of other settings, or something else.
    """
    path = folder / SETTINGS
    if not path.is_file():
        refuse_filled_folder(folder)
    else:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{path} is damaged: choose another output_dir.") from None
        others = [
            f"{name} {before.get(name)}, not {value}" for name, value in settings.items() if before.get(name) != value
        ]
        if others:
            raise ValueError(f"{folder} holds other chats ({'; '.join(others)}): choose another output_dir.")
    write_text(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


@program
def main(args: ChatsArguments) -> None:
    """Writes the chats."""
    folder = Path(args.output_dir)
    with refuse_bad_input():
        rows = load_rows(str(args.data_dir), args.split, args.cache_dir, args.num_proc)
        facts = data_set_facts(str(args.data_dir))
        tasks = args.tasks or ([OWN_CHAT] if "chat" in rows.column_names else list(DEFAULT_TASKS))
        settings = {"data_set": facts["name"], "licence": facts["license_name"], "split": args.split}
        begin(folder, {**settings, "rows": len(rows), "tasks": tasks})
    try:
        counts = write_chats(rows, folder, tasks)
    except ValueError as error:
        raise Refusal(str(error)) from None
    print(f"{folder / CHATS}: {counts['chats']:,} chats")
    for rule, words in (("without_answer", "tell no answer"), ("without_picture", "have no picture that can be read")):
        if counts[rule]:
            print(f"{counts[rule]:,} rows left out that {words}")
    licence = facts["license_name"] or "not stated"
    print(f"The data set's licence ({licence}) holds for these pictures and words too.")


if __name__ == "__main__":
    main(*parse([ChatsArguments], None, "export_chats.py", __doc__))
