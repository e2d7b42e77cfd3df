import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.chestx_ray14 import (
    DIAGNOSIS_LABELS,
    FINDING_LABELS,
    load_chestx_ray14,
    read_release,
)
from litegpt.datasets_scripts.preparation.demographics import age_in_years
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.rows import load_rows

# The headers as published; the rows of Data_Entry_2017.csv end in a comma, some copies' rows do not.
ENTRY_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
ENTRY_2020 = ENTRY_2017.replace("Gender", "Sex").rstrip(",")
BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"

ENTRIES = [
    ("00000001_000.png", "Cardiomegaly|Emphysema", 1, "PA"),
    ("00000001_001.png", "No Finding", 1, "AP"),
    ("00000002_000.png", "Infiltration|Pleural_Thickening", 2, "PA"),
    ("00000003_000.png", "No Finding", 3, "PA"),
    ("00000003_001.png", "Hernia", 3, "PA"),
]
BOX_ROWS = [
    ("00000002_000.png", "Infiltrate", 512, 256, 128.5, 256),
    ("00000002_000.png", "Mass", 0, 0, 1024, 1024),
]
TRAIN, TEST = ["00000001_000.png", "00000001_001.png"], ["00000002_000.png", "00000003_000.png", "00000003_001.png"]


def write_tables(root, entries, boxes, train, test, entry_file="Data_Entry_2017_v2020.csv", header=ENTRY_2020, end=""):
    lines = [
        f"{name},{labels},0,{patient},58,M,{view},2682,2749,0.143,0.143{end}"
        for name, labels, patient, view in entries
    ]
    (root / entry_file).write_text("\n".join([header, *lines]) + "\n")
    lines = [f"{','.join(map(str, row))},,," for row in boxes]
    (root / "BBox_List_2017.csv").write_text("\n".join([BOXES, *lines]) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(train))
    (root / "test_list.txt").write_text("\n".join(test) + "\n")


def write_image(path, size=(64, 64), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name) + size[0]).integers(0, 255, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).resize(size).convert(mode).save(path)


@pytest.fixture
def release(tmp_path) -> Path:
    """A release of five images, of which the folder has four, one of them in RGBA."""
    root = tmp_path / "release"
    for name, mode in (("00000001_000", "L"), ("00000001_001", "RGBA"), ("00000002_000", "L"), ("00000003_000", "L")):
        write_image(root / "images" / f"{name}.png", mode=mode)
    write_tables(root, ENTRIES, BOX_ROWS, TRAIN, TEST)
    return root


def test_the_labels_are_the_releases():
    assert len(FINDING_LABELS) == 8 and list(FINDING_LABELS) == sorted(FINDING_LABELS)
    assert len(DIAGNOSIS_LABELS) == 15 and list(DIAGNOSIS_LABELS[:14]) == sorted(DIAGNOSIS_LABELS[:14])
    assert DIAGNOSIS_LABELS[-1] == "No finding" and set(FINDING_LABELS) < set(DIAGNOSIS_LABELS)


def test_tables_and_lists_become_annotations(release):
    read = read_release(release)
    train, test = read.annotations["train"], read.annotations["test"]
    assert [(image.image_id, image.diagnoses, image.patient_id, image.view) for image in train] == [
        ("00000001_000", ("Cardiomegaly", "Emphysema"), "1", "PA"),
        ("00000001_001", ("No finding",), "1", "AP"),
    ]
    assert [image.image_id for image in test] == ["00000002_000", "00000003_000", "00000003_001"]
    assert test[0].diagnoses == ("Infiltration", "Mass", "Pleural thickening")
    assert [finding.label for finding in test[0].findings] == ["Infiltration", "Mass"]
    assert set(read.images["test"]) == {"00000002_000", "00000003_000"}
    assert read.finding_labels == FINDING_LABELS and read.diagnosis_labels == DIAGNOSIS_LABELS


def test_boxes_of_1024_are_in_pixels_of_a_resized_image(release):
    write_image(release / "images" / "00000002_000.png", size=(128, 512))
    finding = read_release(release).annotations["test"][0].findings[0]
    assert finding.box == (64, 128, 80.0625, 256)


def test_boxes_of_an_unreadable_image_do_not_stop_the_reading(release):
    (release / "images" / "00000002_000.png").write_bytes(b"no picture")
    assert read_release(release).annotations["test"][0].findings[0].box == (512, 256, 640.5, 512)


@pytest.mark.parametrize(
    ("cell", "age"),
    [
        ("58", 58),
        ("058Y", 58),
        (" 3 ", 3),
        ("023M", 1),
        ("011M", 0),
        ("053W", 1),
        ("020D", 0),
        ("120", 120),
        ("413", None),
        ("", None),
        ("n/a", None),
        ("-1", None),
        ("5 8", None),
    ],
)
def test_ages_are_whole_years_and_impossible_ones_unknown(cell, age):
    assert age_in_years(cell) == age


def test_sex_and_age_are_the_tables(release):
    edit(release / "Data_Entry_2017_v2020.csv", ",58,M,AP", ",413,F,AP")
    edit(release / "Data_Entry_2017_v2020.csv", "2,58,M,PA", "2,,,PA")
    read = read_release(release)
    assert [image.optional for image in read.annotations["train"]] == [
        {"sex": "M", "age": 58},
        {"sex": "F", "age": None},
    ]
    assert read.annotations["test"][0].optional == {"sex": "", "age": None}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Patient Age,Patient Sex", "Years,Patient Sex", {"sex": "M", "age": None}),
        ("Patient Age,Patient Sex", "Patient Age,S", {"sex": "", "age": 58}),
        ("Patient Age,Patient Sex", "Years,S", {}),
    ],
)
def test_a_copy_of_the_table_without_sex_or_age_reads_as_unknown(release, old, new, expected):
    edit(release / "Data_Entry_2017_v2020.csv", old, new)
    read = read_release(release)
    assert all(image.optional == expected for image in read.annotations["test"])
    assert read.columns == (("patient_id", "sex", "age") if expected else ("patient_id",))


def test_rows_of_a_table_without_sex_and_age_have_no_such_columns(release, tmp_path):
    edit(release / "Data_Entry_2017_v2020.csv", "Patient Age,Patient Sex", "Years,S")
    rows = load_chestx_ray14(release, split="test", cache_dir=tmp_path / "cache")
    assert rows.features == row_features(FINDING_LABELS, DIAGNOSIS_LABELS, ("patient_id",))


def test_the_rules_are_counted(release):
    write_tables(
        release,
        [*ENTRIES, ("00000009_000.png", "Mass", 9, "PA")],  # in no list
        [
            ("00000002_000.png", "Infiltrate", 512, 256, 128.5, 256),
            ("00000002_000.png", "Nodule", 512, 256, 0, 256),  # no area
            ("00000003_000.png", "Effusion", 1, 2, 3, 4),  # "No Finding"
            ("00000008_000.png", "Effusion", 1, 2, 3, 4),  # listed, not in the table
            ("00000009_000.png", "Mass", 1, 2, 3, 4),
            ("00000010_000.png", "Mass", 1, 2, 3, 4),  # nowhere else
        ],
        TRAIN,
        [*TEST, "00000008_000.png", ""],
    )
    read = read_release(release)
    assert read.counts["train"] == {
        "images": 2,
        "images_in_conflict": 0,
        "images_with_boxes": 0,
        "images_no_finding": 1,
        "images_unknown": 1,
        "images_not_in_table": 0,
        "boxes": 0,
        "boxes_without_area": 0,
        "boxes_not_in_table": 0,
    }
    assert read.counts["test"] == {
        "images": 3,
        "images_in_conflict": 1,
        "images_with_boxes": 2,
        "images_no_finding": 0,
        "images_unknown": 1,
        "images_not_in_table": 1,
        "boxes": 2,
        "boxes_without_area": 1,
        "boxes_not_in_table": 1,
    }
    assert read.counts["none"] == {"images": 1, "boxes": 2}
    boxed = read.annotations["test"][1]
    assert boxed.image_id == "00000003_000" and boxed.diagnoses == ("Effusion",)


@pytest.mark.parametrize("end", [",", ""])
def test_the_table_of_2017_reads_the_same(release, end):
    """Its header has a twelfth, empty cell; in some copies the rows have it too."""
    expected = read_release(release)
    os.remove(release / "Data_Entry_2017_v2020.csv")
    write_tables(release, ENTRIES, BOX_ROWS, TRAIN, TEST, "Data_Entry_2017.csv", ENTRY_2017, end)
    assert read_release(release) == expected


def test_a_box_file_without_empty_cells_reads_the_same(release):
    expected = read_release(release)
    text = (release / "BBox_List_2017.csv").read_text()
    (release / "BBox_List_2017.csv").write_text(text.replace(",,,\n", "\n"))
    assert read_release(release) == expected


def test_a_byte_order_mark_is_no_part_of_a_name(release):
    expected = read_release(release)
    for name in ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"):
        (release / name).write_text("\ufeff" + (release / name).read_text(), encoding="utf-8")
    assert read_release(release) == expected


def test_images_in_twelve_folders_are_found(release):
    expected = {image_id for images in read_release(release).images.values() for image_id in images}
    for number, path in enumerate(sorted((release / "images").iterdir()), start=1):
        folder = release / f"images_{number:03d}" / "images"
        folder.mkdir(parents=True)
        path.rename(folder / path.name)
    (release / "images").rmdir()
    images = {image_id: path for split in read_release(release).images.values() for image_id, path in split.items()}
    assert set(images) == expected and all(os.path.isfile(path) for path in images.values())
    assert "images_002" in images["00000001_001"]


# Patients of tests of other data sets


def test_images_of_excluded_patients_leave_train_and_are_counted(release, tmp_path, capsys):
    extra = [("00000004_000.png", "Mass", 4, "PA"), ("00000004_001.png", "Mass", 4, "PA")]
    for name, *_ in extra:
        write_image(release / "images" / name)
    write_tables(release, [*ENTRIES, *extra], BOX_ROWS, [*TRAIN, *(name for name, *_ in extra)], TEST)
    complete = read_release(release)
    assert "images_excluded" not in complete.counts["train"]
    (release / "exclude_patients.txt").write_text("00000004\n\n3\n99999\n")  # 3 is in test, where it stays
    read = read_release(release)
    assert {image.patient_id for image in read.annotations["train"]} == {"1"}
    assert read.annotations["test"] == complete.annotations["test"]
    assert (read.counts["train"]["images_excluded"], read.counts["train"]["patients_not_in_table"]) == (2, 1)
    prepare(read, tmp_path / "out")
    said = capsys.readouterr().out
    assert "2 images left out of patients that are kept for a test" in said
    assert "1 patient to be left out and not in the table" in said
    assert load_rows(str(release), "train", str(tmp_path / "cache"), 1)["patient_id"][:] == ["1", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n00000002_000.png\n", "exclude_patients.txt, line 2: '00000002_000.png' is no Patient ID"),
        ("1\n", "exclude_patients.txt leaves no image of train"),
    ],
)
def test_a_list_of_patients_that_cannot_be_meant_is_refused(release, text, message):
    (release / "exclude_patients.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_release(release)


def test_a_release_with_one_list_has_one_split(release):
    os.remove(release / "train_val_list.txt")
    read = read_release(release)
    assert list(read.annotations) == ["test"] and read.counts["none"]["images"] == 2


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Data_Entry_2017_v2020.csv", "Hernia", "Hernya", "Data_Entry_2017_v2020.csv, line 6: unknown label 'Hernya'"),
        ("Data_Entry_2017_v2020.csv", "Hernia", "", "line 6: unknown label ''"),
        ("Data_Entry_2017_v2020.csv", "Patient ID", "Patient", "Data_Entry_2017_v2020.csv has no column Patient ID"),
        ("Data_Entry_2017_v2020.csv", "0,3,58,M,PA", "0,3,58\n", "line 5: the line ends before View Position"),
        ("Data_Entry_2017_v2020.csv", "00000003_001", "00000003_000", "line 6: image 00000003_000 .* twice"),
        ("BBox_List_2017.csv", "Infiltrate", "Hernia", "BBox_List_2017.csv, line 2: unknown label 'Hernia'"),
        ("BBox_List_2017.csv", "Bbox [x", "x", "BBox_List_2017.csv has no column Bbox"),
        ("BBox_List_2017.csv", "128.5", "wide", "BBox_List_2017.csv, line 2: a box coordinate is no number"),
        ("BBox_List_2017.csv", "128.5", "nan", "BBox_List_2017.csv, line 2: a box coordinate is not finite"),
        (
            "test_list.txt",
            "00000003_000",
            "00000001_000",
            "test_list.txt: image 00000001_000 is in train_val_list.txt",
        ),
    ],
)
def test_bad_tables_are_refused_with_a_sentence_that_names_the_file(release, file, old, new, message):
    edit(release / file, old, new)
    with pytest.raises(ValueError, match=message):
        read_release(release)


@pytest.mark.parametrize("name", ["Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "test_list.txt"])
def test_a_file_that_is_no_text_is_named(release, name):
    (release / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(ValueError, match=f"{name} is not a .* file in UTF-8"):
        read_release(release)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Data_Entry_2017_v2020.csv"], "neither Data_Entry_2017_v2020.csv nor Data_Entry_2017.csv"),
        (["BBox_List_2017.csv"], "BBox_List_2017.csv is missing"),
        (["train_val_list.txt", "test_list.txt"], "neither of the split lists, train_val_list.txt and test_list.txt"),
    ],
)
def test_missing_files_are_named(release, names, message):
    for name in names:
        os.remove(release / name)
    with pytest.raises(FileNotFoundError, match=message):
        read_release(release)


def test_a_folder_without_radiographs_is_refused(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    (release / "images").rename(release / "pictures")
    with pytest.raises(FileNotFoundError, match="has no radiographs in images/"):
        read_release(release)


def test_rows_have_the_releases_labels_and_boxes_of_the_whole_image(release, tmp_path):
    dataset = load_chestx_ray14(release, cache_dir=tmp_path / "cache", shortest_edge=32)
    assert dataset.num_rows == {"train": 2, "test": 2}  # one test image is missing
    assert dataset["test"].features["findings"].feature["label"].names == list(FINDING_LABELS)
    row = dataset["test"][0]
    assert (row["image_id"], row["width"], row["height"], row["view"]) == ("00000002_000", 64, 64, "PA")
    assert row["image"].size == (32, 32) and row["image"].mode == "L"
    assert [FINDING_LABELS[finding["label"]] for finding in row["findings"]] == ["Infiltration", "Mass"]
    assert row["findings"][0]["box"] == pytest.approx([512 / 1024, 256 / 1024, 640.5 / 1024, 512 / 1024])
    assert row["findings"][1]["box"] == [0, 0, 1, 1]
    assert [DIAGNOSIS_LABELS[index] for index in dataset["train"][1]["diagnoses"]] == ["No finding"]


def test_rows_have_sex_and_age_and_are_trained_on_as_any_others(release, tmp_path):
    edit(release / "Data_Entry_2017_v2020.csv", "2,58,M,PA", "2,413,F,PA")
    prepare(read_release(release), tmp_path / "out")
    rows = load_rows(str(tmp_path / "out"), "test", str(tmp_path / "cache"), 1)
    assert rows.features == row_features(FINDING_LABELS, DIAGNOSIS_LABELS, ("patient_id", "sex", "age"))
    assert (rows["sex"][:], rows["age"][:]) == (["F", "M"], [None, 58])
    train = load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1)
    assert datasets.concatenate_datasets([train, rows])["age"][:] == [58, 58, None, 58]


def test_a_streamed_release_has_the_prepared_rows(release, tmp_path):
    prepared = load_chestx_ray14(release, split="test", cache_dir=tmp_path / "cache")
    streamed = list(load_chestx_ray14(release, split="test", streaming=True))
    assert [{**row, "image": None} for row in streamed] == [{**row, "image": None} for row in prepared]


def test_the_program_prepares_a_folder(release, tmp_path):
    arguments = ["--data_dir", str(release), "--output_dir", str(tmp_path / "out"), "--shortest_edge", "32"]
    command = [sys.executable, "datasets_scripts/chestx_ray14.py", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    dataset = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert dataset["test"].num_rows == 2 and set(dataset) == {"train", "test"}
    assert min(dataset["train"][0]["image"].size) == 32
    with open(tmp_path / "out" / "summary.csv", newline="") as file:
        summary = {(row["split"], row["rule"]): row["count"] for row in csv.DictReader(file)}
    assert summary["test", "images_with_boxes"] == "1" and summary["none", "images"] == "0"


def test_the_program_refuses_a_bad_release_with_one_sentence(release, tmp_path):
    os.remove(release / "BBox_List_2017.csv")
    arguments = ["--data_dir", str(release), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"BBox_List_2017.csv is missing\.$"):
        main(["prepare", "chestx-ray14", *arguments])
    assert not (tmp_path / "out").exists()


def test_real_radiographs_in_the_releases_layout(real_cxr, tmp_path):
    """Nine boxed NIH radiographs, at full size and as a copy of 224 x 224: the same boxes of the whole image."""
    with open(real_cxr / "real_cxr" / "manifest.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "nih_png"]
    boxes_of = {
        Path(row["file"]).name: [box for box in json.loads(row["boxes"]) if box["source"] == "NIH_BBox_2017"]
        for row in rows
    }
    boxed = [row for row in rows if boxes_of[Path(row["file"]).name]][:9]
    plain = [row for row in rows if row["labels"] == "No Finding"][:3]
    roots = {"full": tmp_path / "full", "small": tmp_path / "small"}
    names = []
    for row in [*boxed, *plain]:
        source = real_cxr / "real_cxr" / row["file"]
        names.append(source.name)
        for root in roots.values():
            (root / "images").mkdir(parents=True, exist_ok=True)
        os.symlink(source, roots["full"] / "images" / source.name)
        Image.open(source).convert("L").resize((224, 224)).save(roots["small"] / "images" / source.name)
    entries = [
        (Path(row["file"]).name, row["labels"], Path(row["file"]).name[:8], row["view"]) for row in [*boxed, *plain]
    ]
    box_rows = [
        (name, box["label"], *box["xyxy"][:2], box["xyxy"][2] - box["xyxy"][0], box["xyxy"][3] - box["xyxy"][1])
        for name in names
        for box in boxes_of[name]
    ]
    loaded = {}
    for name, root in roots.items():
        write_tables(root, entries, box_rows, train=names[9:], test=names[:9])
        loaded[name] = load_chestx_ray14(root, cache_dir=tmp_path / f"cache_{name}", shortest_edge=224)

    assert loaded["full"].num_rows == {"train": 3, "test": 9}
    assert sum(len(row["findings"]) for row in loaded["full"]["test"]) == len(box_rows) >= 9
    for row, file_name in zip(loaded["full"]["test"], names, strict=False):
        assert (row["image_id"], row["width"], row["height"]) == (file_name[:-4], 1024, 1024)
        for finding, box in zip(row["findings"], boxes_of[file_name], strict=True):
            assert FINDING_LABELS[finding["label"]] == box["label"].replace("Infiltrate", "Infiltration")
            assert np.multiply(finding["box"], 1024) == pytest.approx(box["xyxy"], abs=0.01)
    for full, small in zip(loaded["full"]["test"], loaded["small"]["test"], strict=True):
        assert (small["width"], small["height"]) == (224, 224)
        for one, other in zip(full["findings"], small["findings"], strict=True):
            assert one["box"] == pytest.approx(other["box"], abs=1e-6)
        difference = np.abs(np.asarray(full["image"], float) - np.asarray(small["image"], float))
        assert difference.mean() < 4
    assert [row["diagnoses"] for row in loaded["full"]["train"]] == [[DIAGNOSIS_LABELS.index("No finding")]] * 3


# Tables and pictures as people have them


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("test_list.txt", lambda text: text.replace("0000000", "images/0000000")),
        ("test_list.txt", lambda text: "\ufeff" + text.replace(".png\n", ";")),
        ("train_val_list.txt", lambda text: text.replace(".png", "")),
        ("Data_Entry_2017_v2020.csv", lambda text: text.replace(",", ";").replace("0.143", "0,143")),
        ("Data_Entry_2017_v2020.csv", lambda text: text.replace("Image Index", "image index ").replace("Age", "AGE")),
        ("Data_Entry_2017_v2020.csv", lambda text: text.replace("g_T", "g t").replace("|", " | ") + ",,,\n"),
        ("BBox_List_2017.csv", lambda text: text.replace("Bbox [x,y,w,h]", "x,y,w,h")),
    ],
)
def test_a_table_or_list_that_was_saved_again_reads_the_same(release, name, change):
    expected = read_release(release)
    text = (release / name).read_text()
    (release / name).write_text(change(text), encoding="utf-8")
    assert change(text) != text and read_release(release) == expected


@pytest.mark.parametrize("both", [True, False])
def test_a_list_of_other_names_is_refused_with_an_example_of_both_sides(release, both):
    for name in ("test_list.txt", "train_val_list.txt") if both else ("test_list.txt",):
        (release / name).write_text((release / name).read_text().replace("0000000", "images/nih-"))
    with pytest.raises(ValueError, match='list has "images/nih-[12]_000.png", the table "00000001_000.png"'):
        read_release(release)


def test_boxes_that_may_have_been_scaled_with_the_pictures_are_refused(release):
    for name in ("00000002_000", "00000003_000"):
        write_image(release / "images" / f"{name}.png", size=(512, 512))
    edit(release / "BBox_List_2017.csv", "512,256,128.5,256", "256,128,64,128")
    edit(release / "BBox_List_2017.csv", "0,0,1024,1024", "0,0,512,512")
    with pytest.raises(ValueError, match="said to be of 1024 x 1024 pixels .* scaled already"):
        read_release(release)


@pytest.mark.parametrize("folder", ["images/images_001", "images/images/images", "."])
def test_images_are_found_where_people_unpack_them(release, folder):
    expected = set(read_release(release).images["test"])
    (release / "images").rename(release / "moved")
    (release / folder).mkdir(parents=True, exist_ok=True)
    for path in (release / "moved").iterdir():
        path.rename(release / folder / path.name)
    assert set(read_release(release).images["test"]) == expected
