import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.rows import data_set_facts, load_rows, recognised
from litegpt.datasets_scripts.vqa_rad import answer_of, read_release

FILE = "VQA_RAD Dataset Public.json"
# (image, organ, question, answer, answer_type, phrase_type)
QUESTIONS = [
    ("synpic1.jpg", "CHEST", "Is there a  fracture?", " Yes ", "CLOSED", "freeform"),
    ("synpic1.jpg", "CHEST", "What is seen?", "Right pleural effusion", "OPEN", "para"),
    ("synpic2.jpg", "CHEST", "Is it normal?", "No.", "CLOSED ", "freeform"),  # the blank is the release's
    ("synpic2.jpg", "CHEST", "Is this normal?", "no", "CLOSED", "test_para"),
    ("synpic3.jpg", "HEAD", "Is there a bleed?", "no", "CLOSED", "freeform"),
    ("synpic4.jpg", "CHEST ", "How many ribs?", 12, "OPEN", "freeform"),
]


def write_questions(root: Path, questions=QUESTIONS):
    names = ("image_name", "image_organ", "question", "answer", "answer_type", "phrase_type")
    entries = [{"qid": 10 + number, **dict(zip(names, q, strict=True))} for number, q in enumerate(questions)]
    (root / FILE).write_text(json.dumps(entries), encoding="utf-8")


@pytest.fixture
def release(tmp_path) -> Path:
    root = tmp_path / "vqa-rad"
    (root / "VQA_RAD Image Folder").mkdir(parents=True)
    for number in range(1, 5):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "VQA_RAD Image Folder" / f"synpic{number}.jpg")
    write_questions(root)
    return root


def ids(read):
    return {split: [image.image_id for image in images] for split, images in read.annotations.items()}


def test_an_image_of_which_any_question_is_in_the_test_is_test(release):
    read = read_release(release)
    assert ids(read) == {"train": ["synpic1", "synpic4"], "test": ["synpic2"]}
    assert read.counts["test"] == {
        "images": 1,
        "questions": 2,
        "questions_closed": 2,
        "questions_listed_twice": 0,
        "questions_without_answer": 0,
        "questions_of_train": 1,
    }
    assert read.counts["none"] == {"images": 0, "questions": 0, "images_of_other_organs": 1, "images_not_there": 0}


def test_answers_are_trimmed_and_yes_and_no_in_lower_case(release):
    first, _ = read_release(release).annotations["train"]
    assert first.optional["qa"] == [
        {"question": "Is there a fracture?", "answer": "yes", "closed": True},
        {"question": "What is seen?", "answer": "Right pleural effusion", "closed": False},
    ]
    assert (answer_of("NO"), answer_of("Yes."), answer_of("No effusion.")) == ("no", "yes", "No effusion.")


def test_rows_go_end_to_end(release, tmp_path, capsys):
    main(["prepare", "vqa-rad", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    assert "1 question of the release's own train, on images that its test has too" in capsys.readouterr().out
    rows = load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1)
    assert rows.features == row_features((), (), ("qa",))
    assert rows[1]["qa"] == [{"question": "How many ribs?", "answer": "12", "closed": False}]
    assert (rows[1]["findings"], rows[1]["diagnoses"]) == ([], [])
    facts = data_set_facts(str(tmp_path / "out"))
    assert facts == data_set_facts(str(release)) and facts["license_name"] == "cc0-1.0"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `qa` | questions about the radiograph" in card and "must not be passed on" not in card


def test_a_split_of_ones_own_wins(release):
    (release / "splits.csv").write_text("image_name;split\nsynpic1.jpg;validation\nsynpic2;train\nsynpic9;test\n")
    read = read_release(release)
    assert ids(read) == {"train": ["synpic2"], "validation": ["synpic1"]}
    assert read.counts["none"]["images"] == 1 and read.counts["none"]["questions"] == 1
    assert read.counts["none"]["images_not_there"] == 1 and "questions_of_train" not in read.counts["train"]


def test_questions_that_stand_twice_or_have_no_answer_are_counted(release):
    empty = ("synpic1.jpg", "CHEST", "Is there?", None, "OPEN", "freeform")
    again = ("synpic1.jpg", "CHEST", "Is there a fracture?", "yes", "CLOSED", "para")
    write_questions(release, [*QUESTIONS, empty, again])
    met = read_release(release).counts["train"]
    assert (met["questions"], met["questions_listed_twice"], met["questions_without_answer"]) == (3, 1, 1)


def test_a_missing_picture_is_left_out(release, tmp_path, capsys):
    (release / "VQA_RAD Image Folder" / "synpic4.jpg").unlink()
    main(["prepare", "vqa-rad", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    assert "1 of 2 radiographs left out: 1 (there is none)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({4: "BOTH"}, "question 10: answer_type is 'BOTH', not CLOSED or OPEN"),
        ({0: ""}, "question 10: the line names no image"),
        ({2: ["x"]}, r"question 10: question is \['x'\], not a text"),
    ],
)
def test_bad_questions_are_refused_with_a_sentence(release, change, message):
    first = [change.get(index, value) for index, value in enumerate(QUESTIONS[0])]
    write_questions(release, [first, *QUESTIONS[1:]])
    with pytest.raises(ValueError, match=message):
        read_release(release)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image_name,split\nsynpic1,dev\n", "line 2: the split is 'dev', not one of train"),
        ("image_name,split\nsynpic1,test\nsynpic1.jpg,train\n", "line 3: image synpic1 is in test too"),
        ("image_name,split\nother,test\n", "names none of the images of VQA_RAD Dataset Public.json"),
    ],
)
def test_bad_splits_are_refused_with_a_sentence(release, table, message):
    (release / "splits.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        read_release(release)


def test_files_that_are_no_questions_are_refused(release, tmp_path):
    assert recognised(str(release)).LAYOUT.endswith("(VQA-RAD)")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    write_questions(release, [q for q in QUESTIONS if q[1] == "HEAD"])
    with pytest.raises(ValueError, match="has no question on an image of the chest"):
        read_release(release)
    (release / FILE).write_text("{}")
    with pytest.raises(ValueError, match="is no list of questions"):
        read_release(release)
    (release / "vqa-rad.json").write_text("[]")
    with pytest.raises(ValueError, match="are two lists: keep one"):
        read_release(release)
    for path in release.glob("*.json"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {FILE}"):
        read_release(release)
