import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.ms_cxr import FINDING_LABELS, read_release
from litegpt.datasets_scripts.preparation.summary import summary_in_words
from litegpt.datasets_scripts.rows import data_set_facts, load_rows

TABLE = "MS_CXR_Local_Alignment_v1.0.0.csv"
HEADER = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height"
FULL = (400, 500)
# (image, category, phrase, x, y, w, h): a phrase of two boxes, a second phrase of the image, and one of two categories
LINES = [
    ("a", "Pneumonia", "Patchy opacity, left base", 200, 250, 100, 50),
    ("a", "Pneumonia", "Patchy opacity, left base", 20, 250, 100, 50),
    ("a", "Cardiomegaly", "Heart is enlarged", 100, 200, 200, 200),
    ("b", "Lung Opacity", "Basal opacity", 40, 300, 80, 100),
    ("b", "Atelectasis", "Basal opacity", 40, 300, 80, 100),
    ("c", "pleural effusion", "Right effusion", 0, 400, 150, 100),
]
SPLITS = {"a": "train", "b": "val", "c": "test"}
FOLDERS = {name: f"files/p10/p1000000{number}/s5000000{number}" for number, name in enumerate("abc")}


def write_table(root: Path, lines=LINES, splits=None, name=TABLE, delimiter=",", bom=""):
    header = HEADER + (",split" if splits else "")
    rows = [header] + [
        f'{image},{category},"{phrase}",{FOLDERS[image]}/{image}.jpg,{x},{y},{w},{h},{FULL[0]},{FULL[1]}'
        + (f",{splits[image]}" if splits else "")
        for image, category, phrase, x, y, w, h in lines
    ]
    if delimiter != ",":
        rows = [row.replace(", left", " left").replace(",", delimiter) for row in rows]
    (root / name).write_text(bom + "\n".join(rows) + "\n", encoding="utf-8")


def write_mimic_split(root: Path, splits):
    lines = ["dicom_id,study_id,subject_id,split", *(f"{image},1,1,{split}" for image, split in splits.items())]
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def write_pictures(root: Path, size=FULL):
    for name, folder in FOLDERS.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 255, size[::-1], dtype=np.uint8)
        Image.fromarray(pixels).save(root / folder / f"{name}.jpg")


@pytest.fixture
def release(tmp_path) -> Path:
    """Three radiographs; the table of 0.1, without splits."""
    root = tmp_path / "ms-cxr"
    root.mkdir()
    write_pictures(root)
    write_table(root)
    return root


def images_of(read):
    return {image.image_id: (split, image) for split, images in read.annotations.items() for image in images}


def test_a_phrase_has_all_its_boxes_and_findings_the_same_with_their_category(release):
    read = read_release(release)
    assert read.finding_labels == FINDING_LABELS and len(FINDING_LABELS) == 8 and read.diagnosis_labels == ()
    _, a = images_of(read)["a"]
    assert a.optional["phrase"] == [
        {"phrase": "Patchy opacity, left base", "boxes": [(200, 250, 300, 300), (20, 250, 120, 300)]},
        {"phrase": "Heart is enlarged", "boxes": [(100, 200, 300, 400)]},
    ]
    assert [(finding.label, finding.box) for finding in a.findings] == [
        ("Pneumonia", (200, 250, 300, 300)),
        ("Pneumonia", (20, 250, 120, 300)),
        ("Cardiomegaly", (100, 200, 300, 400)),
    ]
    assert (a.patient_id, a.optional["study_id"], a.diagnoses) == ("10000000", "50000000", ())
    _, b = images_of(read)["b"]  # one phrase of two categories
    assert b.optional["phrase"] == [{"phrase": "Basal opacity", "boxes": [(40, 300, 120, 400)]}]
    assert [finding.label for finding in b.findings] == ["Lung Opacity", "Atelectasis"]
    assert images_of(read)["c"][1].findings[0].label == "Pleural Effusion"  # in any case


def test_rows_go_end_to_end(release, tmp_path):
    main(["prepare", "ms-cxr", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    rows = load_rows(str(tmp_path / "out"), "test", str(tmp_path / "cache"), 1)
    assert rows.features == row_features(FINDING_LABELS, (), ("study_id", "patient_id", "phrase"))
    row = next(row for row in rows if row["image_id"] == "c")
    assert row["phrase"] == [{"phrase": "Right effusion", "boxes": [pytest.approx([0, 0.8, 0.375, 1])]}]
    assert row["findings"] == [{"label": 5, "box": pytest.approx([0, 0.8, 0.375, 1]), "readers": 1}]
    facts = data_set_facts(str(tmp_path / "out"))
    assert facts == data_set_facts(str(release)) and facts["name"] == "MS-CXR"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**The text of reports is in this folder** (`phrase`)" in card


def test_without_any_split_all_is_test(release):
    read = read_release(release)
    assert list(read.annotations) == ["test"] and read.counts["none"] == {"images": 0}
    assert "images_of_own_split" not in read.counts["test"]


def test_the_tables_own_split_is_taken_with_a_warning_in_the_summary(release, tmp_path, capsys):
    write_table(release, splits=SPLITS)
    read = read_release(release)
    assert {image_id: split for image_id, (split, _) in images_of(read).items()} == {
        "a": "train",
        "b": "validation",
        "c": "test",
    }
    assert read.counts["train"]["images_of_own_split"] == 1
    main(["prepare", "ms-cxr", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    words = "1 image split by MS-CXR's own column, whose train has images of MIMIC-CXR's test"
    assert words in capsys.readouterr().out and words in "\n".join(summary_in_words(str(tmp_path / "out")))


@pytest.mark.parametrize("beside_files", [True, False])
def test_mimics_split_comes_before_the_tables_own(release, beside_files):
    write_table(release, splits=SPLITS)
    folder = release
    if beside_files:  # the table alone in the folder, beside MIMIC-CXR-JPG's
        folder = release / "mimic-cxr-jpg"
        folder.mkdir()
        shutil.move(release / "files", folder / "files")
    write_mimic_split(folder, {"a": "test", "b": "validate"})
    read = read_release(release)
    assert {image_id: split for image_id, (split, _) in images_of(read).items()} == {"a": "test", "b": "validation"}
    assert read.counts["none"] == {"images": 1} and "images_of_own_split" not in read.counts["test"]
    assert read.images["test"]["a"].endswith("a.jpg")


def test_boxes_are_scaled_to_resized_pictures(release):
    write_pictures(release, (200, 250))
    read = read_release(release)
    _, a = images_of(read)["a"]
    assert a.findings[0].box == (100, 125, 150, 150) == a.optional["phrase"][0]["boxes"][0]
    assert read.counts["test"]["boxes_scaled"] == 6


def test_pictures_without_mimics_folders_are_found_by_their_names(release):
    (release / "pictures").mkdir()
    for path in list(release.rglob("*.jpg")):
        Image.open(path).save(release / "pictures" / f"{path.stem}.png")
    shutil.rmtree(release / "files")
    assert set(read_release(release).images["test"]) == {"a", "b", "c"}


def test_odd_lines_are_counted(release):
    write_table(
        release, [*LINES, LINES[0], ("c", "Pneumonia", "Left base", 10, 10, 0, 5), ("c", "Edema", "E", *[""] * 4)]
    )
    read = read_release(release)
    assert read.counts["test"] == {
        "images": 3,
        "phrases": 4,
        "boxes": 6,
        "boxes_without_area": 2,
        "boxes_listed_twice": 1,
    }
    assert [phrase["phrase"] for phrase in images_of(read)["c"][1].optional["phrase"]] == ["Right effusion"]


def test_a_table_that_excel_saved_reads_the_same(release):
    expected = read_release(release)
    write_table(release, delimiter=";", bom="\ufeff")
    again = read_release(release)
    assert again.counts == expected.counts
    assert images_of(again)["c"] == images_of(expected)["c"]


def test_a_box_outside_its_picture_takes_its_phrase_along(release, tmp_path):
    write_table(release, [*LINES, ("c", "Edema", "Edema beyond", 500, 10, 50, 50)])
    main(["prepare", "ms-cxr", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    rows = load_rows(str(tmp_path / "out"), "test", str(tmp_path / "cache"), 1)
    row = next(row for row in rows if row["image_id"] == "c")
    assert [phrase["phrase"] for phrase in row["phrase"]] == ["Right effusion"]


def test_a_missing_picture_is_left_out(release, tmp_path, capsys):
    next(release.rglob("b.jpg")).unlink()
    main(["prepare", "ms-cxr", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    assert load_rows(str(tmp_path / "out"), "test", str(tmp_path / "cache"), 1)["image_id"][:] == ["a", "c"]
    assert "1 of 3 radiographs left out: 1 (there is none)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label_text", "sentence", "has no column label_text"),
        ("Lung Opacity", "Mass", "line 5: the category is 'Mass', not one of Atelectasis, "),
        ("files/p10/p10000000/s50000000/a.jpg", "a.jpg", "line 2: 'a.jpg' is no path such as files/"),
        ('"Right effusion"', "", "line 7: the line has no phrase"),
        ("40,300,80,100,400,500", "40,wide,80,100,400,500", "line 5: a box coordinate is no number"),
        ("40,300,80,100,400,500", "40,300,80,100,401,500", "line 6: image b has another size in an earlier line"),
        ("40,300,80,100,400,500", "40,300,80,100,,500", "line 5: image_width and image_height are no size"),
    ],
)
def test_bad_lines_are_refused_with_a_sentence(release, old, new, message):
    text = (release / TABLE).read_text()
    assert old in text
    (release / TABLE).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"{TABLE}.*{message}"):
        read_release(release)


def test_an_unknown_split_is_refused(release):
    write_table(release, splits={**SPLITS, "b": "dev"})
    with pytest.raises(ValueError, match="line 5: the split is 'dev', not one of train, val, "):
        read_release(release)
    write_table(release)
    write_mimic_split(release, {"x": "test"})
    with pytest.raises(ValueError, match="MIMIC-CXR-JPG's table of splits names none of its images"):
        read_release(release)


def test_a_folder_without_table_or_pictures_and_one_with_two_tables_are_refused(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    write_table(release, name="MS_CXR_Local_Alignment_v1.1.0.csv")
    with pytest.raises(ValueError, match="are two versions: keep one"):
        read_release(release)
    (release / TABLE).unlink()
    for path in release.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="has none of the radiographs .* they are MIMIC-CXR-JPG's"):
        read_release(release)
    (release / "MS_CXR_Local_Alignment_v1.1.0.csv").unlink()
    with pytest.raises(FileNotFoundError, match="has no MS_CXR_Local_Alignment_v1.0.0.csv"):
        read_release(release)
