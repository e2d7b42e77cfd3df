"""COVIDx: its lists as they really are (blanks in names, suffixes that tell files apart, no sources), to rows."""

import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts import covidx
from litegpt.datasets_scripts.covidx import line_of, patient_and_image, read_release
from litegpt.datasets_scripts.image_labels import states_of
from litegpt.datasets_scripts.preparation.prepare import load_release
from litegpt.datasets_scripts.rows import data_set_facts, load_rows, recognised
from litegpt.processing.answers import NO_FINDING

TRAIN = [
    "COVID 1 COVID(1).png COVID-19 sirm",
    "396 000004.jpg pneumonia cohen",
    "409 000004.png pneumonia cohen",
    "aa-1 aa-1.png normal rsna",
    "p7 two  words.png normal rsna",
]
VALIDATION = ["419639-7 RICORD-7-0.png COVID-19 ricord", "409 day9.JPG pneumonia cohen"]
TEST = ["419639-7 RICORD-7-1.png COVID-19", "bb-1 bb-1.png normal", "8 SARS-day9.jpeg pneumonia"]


def write_release(root, *, train=TRAIN, validation=VALIDATION, test=TEST):
    for name, folder, lines in (("train", "train", train), ("val", "val", validation), ("test", "test", test)):
        if lines is None:
            continue
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
        (root / folder).mkdir(exist_ok=True)
        for line in lines:
            words = line.split()
            after = 2 if words[-1] in ("sirm", "cohen", "rsna", "ricord") else 1
            file = words[-after - 1] if words[-after - 1] != "words.png" else "two words.png"
            Image.new("L", (40, 32), len(file)).convert("RGB").save(root / folder / file)
    return root


@pytest.fixture
def release(tmp_path):
    root = tmp_path / "covidx"
    root.mkdir()
    return write_release(root)


def test_the_class_is_found_with_and_without_a_source():
    assert line_of("p a.png COVID-19 ricord\n", "")[1:] == (("p", "a.png"), "covid-19", "ricord")
    assert line_of("p a.png positive", "")[1:] == (("p", "a.png"), "positive", "")
    assert line_of("COVID 1 COVID(1).png normal sirm", "").names == ("COVID", "1", "COVID(1).png")
    for text in ("a.png normal", "p a.png fine rsna", "normal", "", "p a.png normal rsna x"):
        assert line_of(text, "") is None, text


def test_a_blank_in_a_patients_or_a_files_name_is_told_by_the_files_that_are_there():
    line = line_of("my patient a b.png normal rsna", "")
    assert patient_and_image(line, {"b.png"}) == ("my patient a", "b.png")
    assert patient_and_image(line, {"a b.png"}) == ("my patient", "a b.png")
    assert patient_and_image(line, set()) == ("my patient a", "b.png")


def test_rows_go_end_to_end(release, tmp_path):
    rows = load_release(read_release(release), cache_dir=tmp_path / "cache")
    assert rows.num_rows == {"train": 5, "validation": 2, "test": 3}
    assert rows["train"].features["diagnoses"].feature.names == ["COVID-19", "Pneumonia", NO_FINDING]
    assert rows["train"]["image_id"][:] == ["COVID(1).png", "000004.jpg", "000004.png", "aa-1.png", "two words.png"]
    assert rows["train"]["patient_id"][:] == ["COVID 1", "396", "409", "aa-1", "p7"]
    assert [row["diagnoses"] for row in rows["train"]] == [[0], [1], [1], [2], [2]]
    assert rows["test"]["diagnoses"][:] == [[0], [2], [1]] and rows["test"][0]["findings"] == []
    assert load_rows(str(release), "validation", str(tmp_path / "cache"), 1)["image_id"][:] == [
        "RICORD-7-0.png",
        "day9.JPG",
    ]


def test_a_negative_of_two_classes_has_no_diagnosis_and_is_no_normal_one(release, tmp_path):
    write_release(release, train=["1 a.png positive cohen", "2 b.png negative rsna"], validation=None)
    (release / "val.txt").unlink()
    (release / "test.txt").write_text("3 c.png negative rsna\n")
    Image.new("L", (9, 9)).save(release / "test" / "c.png")
    rows = load_release(read_release(release), cache_dir=tmp_path / "cache")
    assert rows["train"].features["diagnoses"].feature.names == ["COVID-19"]
    assert rows["train"]["diagnoses"][:] == [[0], []] and set(rows) == {"train", "test"}
    assert states_of(rows["test"][0], rows["test"].features) == {"COVID-19": "negative"}


def test_what_the_lists_hold_is_counted(release):
    (release / "train" / "extra.png").write_bytes((release / "train" / "aa-1.png").read_bytes())
    (release / "test" / "bb-1.png").rename(release / "train" / "bb-1.png")
    with open(release / "train.txt", "a") as file:
        file.write("\naa-1 aa-1.png normal rsna\n")
    read = read_release(release)
    assert read.counts["train"] == {
        "images": 5,
        "images_no_finding": 2,
        "images_listed_twice": 1,
        "images_of_cohen": 2,
        "images_of_rsna": 2,
        "images_of_sirm": 1,
        "images_of_other_folders": 0,
        "patients_of_other_splits": 1,  # 409
        "lists_missing": 0,
    }
    assert read.counts["test"]["images_of_unknown_source"] == 3 and read.counts["test"]["images_of_other_folders"] == 1
    assert read.counts["validation"]["patients_of_other_splits"] == 2  # 409, 419639-7
    assert read.counts["none"] == {"files_not_in_table": 1}


def test_a_picture_of_the_splits_own_folder_comes_first(release):
    (release / "test" / "aa-1.png").write_bytes((release / "train" / "aa-1.png").read_bytes())
    read = read_release(release)
    assert read.images["train"]["aa-1.png"] == str(release / "train" / "aa-1.png")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["1 a.png COVID-19 cohen", "2 b.png covid rsna"], r"train\.txt, line 2 is no patient, file name and class"),
        (["1 a.png positive cohen"], r"line 1: the class is 'covid-19', but .*train\.txt, line 1 has 'positive'"),
        (["1 a.png normal x", "", "2 a.png pneumonia x"], r"line 3: image a\.png is pneumonia, and normal in a line"),
    ],
)
def test_a_line_that_cannot_be_is_refused_by_file_and_line(release, lines, sentence):
    (release / "train.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=sentence):
        read_release(release)


def test_a_folder_that_is_none_is_refused(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    (release / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="train.txt is not a text file"):
        read_release(release)
    (release / "test.txt").unlink()
    with pytest.raises(FileNotFoundError, match="has no test.txt"):
        read_release(release)


def test_lists_without_their_pictures_are_refused(release):
    for folder in ("train", "val", "test"):
        for path in (release / folder).iterdir():
            path.unlink()
    with pytest.raises(FileNotFoundError, match="holds none of the radiographs"):
        read_release(release)


def test_a_release_is_known_by_its_first_line(release, tmp_path):
    assert recognised(str(release)) is covidx
    (release / "train.txt").write_text("some other list\n")
    assert not covidx.recognise(str(release)) and not covidx.recognise(str(tmp_path))


def test_the_command_prepares_a_folder_and_says_that_there_is_no_validation(release, tmp_path, capsys):
    (release / "val.txt").unlink()
    main(["prepare", "covidx", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "1 list missing: val.txt, so there is no split validation" in said
    assert "1 patient that other splits have too" not in said  # 409 was in val.txt alone
    facts = data_set_facts(str(tmp_path / "out"))
    assert facts == data_set_facts(str(release)) and "competition-rules" in facts["license_name"]
    assert "images_of_sirm" in (tmp_path / "out" / "summary.csv").read_text()
