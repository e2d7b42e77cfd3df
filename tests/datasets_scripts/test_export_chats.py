import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.export_chats import picture_name, turns_of_row, write_chats
from litegpt.datasets_scripts.instructions import INSTRUCTIONS
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.rows import load_rows
from litegpt.datasets_scripts.vindr_cxr import read_release
from litegpt.processing.answers import DIAGNOSES_PREFIX, FINDINGS_PREFIX
from tests.datasets_scripts.test_llava_chats import said


@pytest.fixture
def chats(tmp_path):
    """Chats in LLaVA's JSON, and the arrays of their pictures: odd ids, several chats about one picture."""
    folder = tmp_path / "in"
    (folder / "pictures").mkdir(parents=True)
    arrays = np.random.default_rng(1).integers(0, 255, (3, 30, 40), dtype=np.uint8)
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / "pictures" / f"{number}.png")
    ids = ["c1", "000/c 2", "Ä%20", "x" * 300, ".."]
    entries = [
        {
            "id": name,
            "image": f"pictures/{number % 3}.png",
            "conversations": said(
                f"<image>\nÜ {name[:5]}? ", '"No\t<p>x</p> {<1><2><3><4>}."', "And\u2028now?", "Yes."
            ),
        }
        for number, name in enumerate(ids)
    ]
    (folder / "chats.json").write_text(json.dumps(entries))
    return folder, entries, {name: arrays[number % 3] for number, name in enumerate(ids)}


def export(data_dir, out, *options):
    main(["chats", "--data_dir", str(data_dir), "--output_dir", str(out), *options])
    return json.loads((out / "chats.json").read_text(encoding="utf-8"))


def test_chats_come_back_with_the_same_ids_turns_and_pixels(chats, tmp_path):
    folder, entries, arrays = chats
    main(["prepare", "llava-chats", "--data_dir", str(folder), "--output_dir", str(tmp_path / "prepared")])
    written = export(tmp_path / "prepared", tmp_path / "out", "--cache_dir", str(tmp_path / "cache"))
    for field in ("id", "conversations"):
        assert [chat[field] for chat in written] == [chat[field] for chat in entries]
    for chat in written:
        assert (np.asarray(Image.open(tmp_path / "out" / chat["image"])) == arrays[chat["id"]]).all()
    assert len(list((tmp_path / "out" / "images").iterdir())) == 5
    # and once more around
    main(["prepare", "llava-chats", "--data_dir", str(tmp_path / "out"), "--output_dir", str(tmp_path / "again")])
    again = export(tmp_path / "again", tmp_path / "out2", "--cache_dir", str(tmp_path / "cache"))
    assert again == written
    pictures = [(tmp_path / out / chat["image"]).read_bytes() for out in ("out", "out2") for chat in written]
    assert pictures[:5] == pictures[5:]


@pytest.fixture(scope="module")
def phantoms(phantom_release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "phantoms"
    prepare(read_release(phantom_release), folder)
    return folder


def test_rows_without_chats_are_asked_the_usual_tasks(phantoms, tmp_path, capsys):
    written = export(phantoms, tmp_path / "out", "--split", "test", "--cache_dir", str(tmp_path / "cache"))
    rows = load_rows(str(phantoms), "test", str(tmp_path / "cache"), 1)
    assert [chat["id"] for chat in written] == rows["image_id"][:]
    turns = next(chat["conversations"] for chat in written if len(chat["conversations"]) == 4)
    assert [turn["from"] for turn in turns] == ["human", "gpt"] * 2
    assert turns[0]["value"] == f"<image>\n{INSTRUCTIONS['identify']}" and turns[2]["value"] == INSTRUCTIONS["vqa"]
    assert turns[1]["value"].startswith(FINDINGS_PREFIX) and turns[3]["value"].startswith(DIAGNOSES_PREFIX)
    told = capsys.readouterr().out
    assert f"{len(written)} chats" in told and "The data set's licence (" in told
    settings = json.loads((tmp_path / "out" / "chats_settings.json").read_text())
    assert settings["tasks"] == ["identify", "vqa"] and settings["rows"] == len(rows)
    assert str(tmp_path) not in str(settings)


def test_the_tasks_that_are_named_are_asked_in_their_order(phantoms, tmp_path):
    options = ["--split", "test", "--cache_dir", str(tmp_path / "cache"), "--tasks", "vqa"]
    written = export(phantoms, tmp_path / "out", *options)
    assert {len(chat["conversations"]) for chat in written} == {2}
    with pytest.raises(SystemExit) as error:
        export(phantoms, tmp_path / "out", *options[:-1], "walk")
    assert error.value.code == 2


def test_all_that_a_row_tells_becomes_turns_in_plain_words():
    features = row_features(("Mass",), ("No finding",), ("report_findings", "phrase", "qa", "chat"))
    box = [0.5, 0, 1, 1]
    row = {"findings": [{"label": 0, "box": box, "readers": 1}], "diagnoses": [], "report_findings": "A mass."}
    row |= {"phrase": [{"phrase": "a mass", "boxes": [box]}, {"phrase": "effusion", "boxes": []}]}
    row |= {"qa": [{"question": "Normal?", "answer": "no", "closed": True}]}
    row |= {"chat": [{"role": "user", "text": "Hello "}, {"role": "assistant", "text": "Yes?"}]}
    turns = turns_of_row(row, ["report", "refer", "describe", "question", "chat", "vqa"], features)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 6
    told = {turns[n]["text"]: turns[n + 1]["text"] for n in range(0, 12, 2)}
    assert list(told.values()) == [
        "A mass.",
        "Boxes of this phrase are {<50><0><100><100>}.",
        "Boxes of this phrase are None.",
        "Mass",
        "no",
        "Yes?",
    ]
    asked = list(told)
    assert asked[1].endswith("a mass") and asked[3].endswith("{<50><0><100><100>}")
    assert asked[4:] == ["Normal?", "Hello "] and not any("[" in words or "about" in words for words in asked)


def test_questions_of_radiographs_without_labels_are_written(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "in" / "synpic1.jpg")
    entry = {"image_name": "synpic1.jpg", "image_organ": "CHEST", "question": "Normal?", "answer": "Yes"}
    (tmp_path / "in" / "vqa-rad.json").write_text(json.dumps([entry | {"answer_type": "CLOSED"}]))
    main(["prepare", "vqa-rad", "--data_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "prepared")])
    options = ["--cache_dir", str(tmp_path / "cache"), "--tasks", "question", "identify"]
    (chat,) = export(tmp_path / "prepared", tmp_path / "out", *options)
    assert chat["conversations"] == said("<image>\nNormal?", "yes")


def test_the_same_command_resumes_and_another_is_refused(phantoms, tmp_path):
    options = ["--split", "test", "--cache_dir", str(tmp_path / "cache")]
    out = tmp_path / "out"
    written = export(phantoms, out, *options)
    kept, lost = sorted((out / "images").iterdir())[:2]
    expected, time = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.write_bytes(expected[:100])  # half written, by another program
    (out / "chats.json").rename(out / "chats.json.incomplete")
    assert export(phantoms, out, *options) == written
    assert lost.read_bytes() == expected and kept.stat().st_mtime_ns == time
    with pytest.raises(SystemExit, match="holds other chats .split train, not test|split test, not train"):
        export(phantoms, out, "--cache_dir", str(tmp_path / "cache"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(SystemExit, match="exists already and is not empty"):
        export(phantoms, tmp_path / "full", *options)


def test_nothing_is_named_chats_json_before_it_is_whole(phantoms, tmp_path, monkeypatch):
    rows = load_rows(str(phantoms), "test", str(tmp_path / "cache"), 1)
    pictures = iter(range(3))
    monkeypatch.setattr(
        "litegpt.datasets_scripts.export_chats.write_picture", lambda *_: next(pictures)
    )  # the fourth fails
    with pytest.raises((StopIteration, RuntimeError)):
        write_chats(rows, tmp_path / "out", ["vqa"])
    assert not (tmp_path / "out" / "chats.json").exists()


def test_rows_without_a_picture_or_an_answer_are_left_out_and_counted(phantoms, tmp_path):
    folder = tmp_path / "spoilt"
    shutil.copytree(phantoms, folder)
    (shard,) = folder.glob("data/test-*.parquet")
    table = pq.read_table(shard)
    images, diagnoses = table["image"].to_pylist(), table["diagnoses"].to_pylist()
    images[0], images[1], diagnoses[2] = None, {"bytes": b"no picture", "path": None}, []
    for name, values in (("image", images), ("diagnoses", diagnoses)):
        index, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(index, field, pa.array(values, field.type))
    pq.write_table(table, shard)
    rows = load_rows(str(folder), "test", str(tmp_path / "cache"), 1)
    counts = write_chats(rows, tmp_path / "out", ["vqa"])
    assert counts == {"chats": len(rows) - 3, "without_picture": 2, "without_answer": 1}


def test_rows_that_tell_nothing_of_what_is_asked_are_refused(chats, tmp_path):
    folder, _, _ = chats
    main(["prepare", "llava-chats", "--data_dir", str(folder), "--output_dir", str(tmp_path / "prepared")])
    with pytest.raises(SystemExit, match="None of the 5 rows gives a chat: they tell nothing of --tasks vqa."):
        export(tmp_path / "prepared", tmp_path / "out", "--tasks", "vqa", "--cache_dir", str(tmp_path / "cache"))
    assert not (tmp_path / "out" / "chats.json").exists()


def test_a_picture_is_named_by_its_row_within_what_file_systems_take(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    Image.new("L", (2, 2)).save(tmp_path / "a.jpg")
    png, jpeg = (tmp_path / "a.png").read_bytes(), (tmp_path / "a.jpg").read_bytes()
    assert picture_name("a b", png) == "a b.png" and picture_name("a/b", jpeg) == "a%2Fb.jpg"
    long = {picture_name("ü" * 200 + end, png) for end in "12"}
    assert len(long) == 2 and all(len(name) < 200 for name in long)
