import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.llava_chats import conversations_of, read_release, turns_of
from litegpt.datasets_scripts.rows import data_set_facts, load_rows, recognised
from tests.small_dicom import small_dicom


def said(*texts):
    """A conversation in LLaVA's words."""
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


CHATS = [
    {"id": "c1", "image": "a.png", "conversations": said("<image>\nIs it normal?", "Yes.", "Are you sure? ", "No.\n")},
    {"id": "c2", "image": "a.png", "conversations": said("<image>\nWhich view?", "PA")},
    {"id": 3, "image": "deep/b.dcm", "conversations": said("<image>\nBeschreibe: Ä\u2028{<1>}", 'Größe "normal".')},
]
# What each is left out for.
MALFORMED = {
    "it is no object": 7,
    "it has no id": {"image": "a.png", "conversations": said("<image>\nQ", "A")},
    "it has no image": {"id": "m1", "conversations": said("<image>\nQ", "A")},
    "it is about several images": {"id": "m2", "image": ["a.png", "b.png"], "conversations": said("<image>\nQ", "A")},
    "no path within the folder": {"id": "m3", "image": "../a.png", "conversations": said("<image>\nQ", "A")},
    "it has no conversations": {"id": "m4", "image": "a.png", "conversations": []},
    "turn 2 is empty": {"id": "m5", "image": "a.png", "conversations": said("<image>\nQ", " ")},
    "turn 1 is empty": {"id": "m6", "image": "a.png", "conversations": said("<image>\n", "A")},
    "turn 2 has no text": {"id": "m7", "image": "a.png", "conversations": said("<image>\nQ", None)},
    "turn 1 is from gpt, as the one": {"id": "m8", "image": "a.png", "conversations": said("<image>\nQ", "A")[::-1]},
    "turn 1 is from 'system', not human": {"id": "m9", "image": "a.png", "conversations": [{"from": "system"}]},
    "without an answer": {"id": "m10", "image": "a.png", "conversations": said("<image>\nQ", "A", "Q")},
    "turn 3 has the mark <image>": {"id": "m11", "image": "a.png", "conversations": said("Q", "A", "<image>\nQ", "A")},
    "turn 1 has the mark <image>": {"id": "m12", "image": "a.png", "conversations": said("<image><image>Q", "A")},
    "turn 1 is from ['human'], not human": {"id": "m15", "image": "a.png", "conversations": [{"from": ["human"]}]},
    "its id has signs that cannot be printed": {"id": "\ud83d\n", "image": "a.png", "conversations": said("Q", "A")},
    "its image is no whole Unicode": {"id": "m14", "image": "\ud83d.png", "conversations": said("Q", "A")},
    "turn 2 is no whole Unicode": {"id": "m13", "image": "a.png", "conversations": said("<image>\nQ", "\ud83d")},
}


def write_chats(folder: Path, chats, name="chats.json"):
    lines = [json.dumps(chat) for chat in chats]
    (folder / name).write_text("\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]", encoding="utf-8")


@pytest.fixture
def chats(tmp_path) -> Path:
    """Three chats about two pictures, one of them DICOM in a folder; and a picture that none is about."""
    folder = tmp_path / "Our chats"
    (folder / "deep").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 32), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "a.png")
    small_dicom(pixels[1]).save_as(folder / "deep" / "b.dcm", enforce_file_format=True)
    Image.fromarray(pixels[1]).save(folder / "other.jpg")
    write_chats(folder, CHATS)
    return folder


def prepare(folder, out, *options):
    main(["prepare", "llava-chats", "--data_dir", str(folder), "--output_dir", str(out), *options])


def test_a_chat_is_a_row_with_its_turns_as_they_were_written(chats, tmp_path):
    prepare(chats, tmp_path / "out", "--licence", "CC BY 4.0")
    rows = load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1)
    assert rows.features == row_features((), (), ("chat",)) and rows["image_id"][:] == ["c1", "c2", "3"]
    assert rows[0]["chat"] == [
        {"role": "user", "text": "Is it normal?"},
        {"role": "assistant", "text": "Yes."},
        {"role": "user", "text": "Are you sure? "},
        {"role": "assistant", "text": "No.\n"},
    ]
    assert rows[0]["image"].size == (32, 40) and (rows[0]["findings"], rows[0]["diagnoses"]) == ([], [])
    facts = data_set_facts(str(tmp_path / "out"))
    assert (facts["name"], facts["license_name"]) == ("Our chats", "cc-by-4.0")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `chat` | a conversation about the radiograph" in card and "VinDr-CXR" not in card
    assert "\nChest radiographs with chats: Our chats, data of whoever prepared this folder." in card


def test_lines_of_json_give_the_same_rows(chats):
    expected = read_release(chats)
    (chats / "chats.json").unlink()
    write_chats(chats, CHATS, "chats.jsonl")
    assert read_release(chats) == expected
    assert expected.counts == {
        "train": {"chats": 3, "turns": 8, "images": 2, "chats_left_out": 0},
        "none": {"files_not_in_table": 1},
    }


@pytest.mark.parametrize("name", ["chats.json", "chats.jsonl"])
def test_malformed_chats_are_left_out_counted_and_named(chats, tmp_path, capsys, name):
    (chats / "chats.json").unlink()
    write_chats(chats, [*MALFORMED.values(), *CHATS], name)
    read = read_release(chats)
    assert len(read.annotations["train"]) == 3 and read.counts["train"]["chats_left_out"] == len(MALFORMED)
    place = "line" if name.endswith("l") else "chat"
    for number, (reason, remark) in enumerate(zip(MALFORMED, read.remarks, strict=True), start=1):
        assert remark.startswith(f"{name}, {place} {number}") and reason in remark
    prepare(chats, tmp_path / "out")
    assert f"{len(MALFORMED)} chats left out, see preparation.log" in capsys.readouterr().out
    log = (tmp_path / "out" / "preparation.log").read_text()
    assert f"{name}, {place} 7 ('m5') is left out: turn 2 is empty." in log and str(tmp_path) not in log


def test_a_line_that_is_no_json_is_a_malformed_chat_and_a_file_that_is_none_is_refused(chats):
    (chats / "chats.json").unlink()
    write_chats(chats, CHATS, "chats.jsonl")
    with open(chats / "chats.jsonl", "a") as file:
        file.write('\n{"id": "cut", "conversations": [\n')
    assert read_release(chats).remarks == ("chats.jsonl, line 4 is left out: it is no object.",)
    (chats / "chats.jsonl").write_text('"conversations"\n{"a"')
    with pytest.raises(
        ValueError, match="has no chat that can be used: chats.jsonl, line 1 is left out: it is no obj"
    ):
        read_release(chats)
    (chats / "chats.jsonl").write_bytes(b'"conversations"\n"\xff"')
    with pytest.raises(ValueError, match="chats.jsonl is no text in UTF-8"):
        read_release(chats)
    (chats / "chats.jsonl").rename(chats / "chats.json")
    for text, message in (
        ('{"conversations": []}', "is no list of chats"),
        ('["conversations"', "is not a JSON file"),
    ):
        (chats / "chats.json").write_text(text)
        with pytest.raises(ValueError, match=f"chats.json {message}"):
            read_release(chats)


def test_two_chats_of_one_id_are_refused_naming_both(chats):
    write_chats(chats, [*CHATS, {**CHATS[2], "id": "3"}])
    with pytest.raises(ValueError, match="chats.json: chat 3 and chat 4 both have the id 3, which is"):
        read_release(chats)


def test_the_mark_may_stand_elsewhere_in_the_first_turn_or_be_missing():
    for first in ("<image>\nQ", "Q\n<image>", "Q <image>", "<image> Q", "Q"):
        assert turns_of(said(first, "A"))[0]["text"] == "Q"
    assert conversations_of(turns_of(said("Q\n<image>", "A"))) == said("<image>\nQ", "A")


def test_pictures_may_lie_in_a_folder_and_have_no_suffix(chats):
    (chats / "images" / "set").mkdir(parents=True)
    (chats / "a.png").rename(chats / "images" / "set" / "a.png")
    (chats / "deep" / "b.dcm").rename(chats / "1.2.3")
    write_chats(chats, [{**CHATS[0], "image": "set/a.png"}, {**CHATS[2], "image": "1.2.3"}])
    assert read_release(chats).images["train"] == {
        "c1": str(chats / "images" / "set" / "a.png"),
        "3": str(chats / "1.2.3"),
    }
    (chats / "set").mkdir()
    (chats / "more" / "set").mkdir(parents=True)
    (chats / "more" / "set" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="set/a.png may be images/set/a.png or more/set/a.png: remove one"):
        read_release(chats)
    (chats / "set" / "a.png").write_bytes(b"")  # the path itself comes first
    assert read_release(chats).images["train"]["c1"] == str(chats / "set" / "a.png")


def test_a_missing_picture_costs_its_chats_alone(chats, tmp_path, capsys):
    (chats / "a.png").unlink()
    prepare(chats, tmp_path / "out")
    assert "2 of 3 radiographs left out: 2 (there is none)" in capsys.readouterr().out
    (chats / "deep" / "b.dcm").unlink()
    with pytest.raises(FileNotFoundError, match="has none of the radiographs that its chats name, such as a.png"):
        read_release(chats)


def test_chats_about_one_picture_stay_in_one_split(chats, tmp_path):
    many = [{**CHATS[0], "id": f"c{number}", "image": f"{number % 6}.png"} for number in range(24)]
    for number in range(6):
        Image.new("L", (8, 8), number * 40).save(chats / f"{number}.png")
    write_chats(chats, many)
    prepare(chats, tmp_path / "out", "--validation_share", "0.4")
    sides = {}
    for split in ("train", "validation"):
        for row in load_rows(str(tmp_path / "out"), split, str(tmp_path / "cache"), 1):
            sides.setdefault(int(row["image_id"][1:]) % 6, set()).add(split)
    assert len(sides) == 6 and all(len(splits) == 1 for splits in sides.values())


def test_a_folder_of_chats_is_told_by_what_its_json_speaks_of(chats, tmp_path):
    (chats / "litegpt_labels.json").write_text("{}")
    assert recognised(str(chats)).LAYOUT.endswith("(LLaVA's chats)")
    write_chats(chats, CHATS, "more.json")
    with pytest.raises(ValueError, match="chats.json and more.json both hold chats: keep one"):
        read_release(chats)
    for name in ("chats.json", "more.json"):
        (chats / name).unlink()
    with pytest.raises(FileNotFoundError, match="has no one .json or .jsonl with conversations"):
        read_release(chats)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
