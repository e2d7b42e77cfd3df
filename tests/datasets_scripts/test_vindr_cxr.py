import csv
import hashlib
import os
import random

import numpy as np
import PIL.Image
import pytest

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.datasets_scripts.vindr_cxr import (
    DIAGNOSIS_LABELS,
    FINDING_LABELS,
    load_vindr_cxr,
    read_annotations,
    read_release,
)
from litegpt.hub.push_to_hub import check_licence

LABEL_COLUMNS = [*FINDING_LABELS, *DIAGNOSIS_LABELS]
HEART = (20, 40, 60, 80)
HEART_AGAIN = (22, 40, 62, 80)  # IoU with HEART: 38 / 42
AORTA = (30, 10, 50, 30)


def write_rows(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_split(root, split, boxes, labels, columns=LABEL_COLUMNS, size=(100, 100)):
    """A release's split: `boxes` (image, reader, label, xyxy or None), `labels` {(image, reader): marked labels}."""
    reader_column = ["rad_id"] if split == "train" else []
    write_rows(
        root / "annotations" / f"annotations_{split}.csv",
        ["image_id", *reader_column, "class_name", "x_min", "y_min", "x_max", "y_max"],
        [[i, *([r] if reader_column else []), c, *(b or [""] * 4)] for i, r, c, b in boxes],
    )
    write_rows(
        root / "annotations" / f"image_labels_{split}.csv",
        ["image_id", *reader_column, *columns],
        [[i, *([r] if reader_column else []), *(int(c in m) for c in columns)] for (i, r), m in labels.items()],
    )
    (root / split).mkdir()
    for image_id in dict.fromkeys(image_id for image_id, _ in labels):
        PIL.Image.linear_gradient("L").resize(size).save(root / split / f"{image_id}.png")


@pytest.fixture
def release(tmp_path):
    """Two readers who agree on a heart, a negative, a conflict, a label without a box; and a test split."""
    root = tmp_path / "release"
    write_split(
        root,
        "train",
        boxes=[
            ("both", "R1", "Cardiomegaly", HEART),
            ("both", "R1", "Aortic enlargement", AORTA),
            ("both", "R2", "Cardiomegaly", HEART_AGAIN),
            ("negative", "R1", "No finding", None),
            ("negative", "R2", "No finding", None),
            ("conflict", "R1", "No finding", None),
            ("conflict", "R2", "Cardiomegaly", HEART),
        ],
        labels={
            ("both", "R1"): {"Cardiomegaly", "Aortic enlargement", "Other diseases"},
            ("both", "R2"): {"Cardiomegaly", "Pneumonia"},
            ("negative", "R1"): {"No finding"},
            ("negative", "R2"): {"No finding"},
            ("conflict", "R1"): {"No finding"},
            ("conflict", "R2"): {"Cardiomegaly"},
            ("boxless", "R1"): {"Edema"},
        },
    )
    write_split(
        root,
        "test",
        boxes=[("t1", "", "Pneumothorax", AORTA)],
        labels={("t1", ""): {"Pneumothorax", "COPD"}, ("t2", ""): {"No finding"}},
    )
    return root


def annotations_of(root, split="train", merge="paper"):
    return {annotation.image_id: annotation for annotation in read_annotations(str(root), split, merge)[0]}


# Labels


def test_labels_are_the_papers_in_its_order():
    assert len(FINDING_LABELS) == 22 and len(DIAGNOSIS_LABELS) == 6
    assert FINDING_LABELS[0] == "Aortic enlargement" and FINDING_LABELS[11:13] == ("Lung Opacity", "Lung cavity")
    assert FINDING_LABELS[-1] == "Other lesion" and DIAGNOSIS_LABELS[-2:] == ("COPD", "No finding")


# Reading the CSV files


def test_readers_are_pooled_and_the_first_of_overlapping_boxes_stands_for_both(release):
    findings = annotations_of(release)["both"].findings
    assert [(f.label, f.box, f.readers) for f in findings] == [
        ("Cardiomegaly", HEART, 2),
        ("Aortic enlargement", AORTA, 1),
    ]


def test_two_overlapping_boxes_of_one_reader_count_as_one_reader(tmp_path):
    boxes = [("a", "R1", "ILD", HEART), ("a", "R1", "ILD", HEART_AGAIN)]
    write_split(tmp_path, "train", boxes, {("a", "R1"): {"ILD"}})
    assert [f.readers for f in annotations_of(tmp_path)["a"].findings] == [1]


def test_boxes_of_different_labels_are_never_merged(tmp_path):
    boxes = [("a", "R1", "ILD", HEART), ("a", "R2", "Edema", HEART), ("a", "R3", "ILD", HEART)]
    write_split(tmp_path, "train", boxes, {("a", "R1"): {"ILD"}})
    assert [(f.label, f.readers) for f in annotations_of(tmp_path)["a"].findings] == [("ILD", 2), ("Edema", 1)]


def test_diagnoses_are_the_union_over_readers_in_canonical_order(release):
    assert annotations_of(release)["both"].diagnoses == ("Pneumonia", "Other diseases")


def test_an_image_in_conflict_is_dropped_from_train_and_counted(release):
    annotations, counts = read_annotations(str(release), "train")
    assert [annotation.image_id for annotation in annotations] == ["both", "negative", "boxless"]
    assert counts == {
        "images": 4,
        "images_in_conflict": 1,
        "images_dropped": 1,
        "images_with_boxes": 1,
        "images_no_finding": 1,
        "images_unknown": 1,
        "boxes_without_area": 0,
        "boxes": 3,
        "boxes_kept": 2,
        "images_with_unboxed_findings": 1,
    }


def test_a_conflict_shows_even_where_only_the_boxes_file_names_the_finding(tmp_path):
    write_split(tmp_path, "train", [("a", "R2", "ILD", HEART)], {("a", "R1"): {"No finding"}, ("a", "R2"): set()})
    assert annotations_of(tmp_path) == {}


def test_a_contradictory_test_image_stays_without_its_no_finding(tmp_path):
    write_split(tmp_path, "test", [], {("a", ""): {"No finding", "Pneumonia"}})
    annotations, counts = read_annotations(str(tmp_path), "test")
    assert annotations[0].diagnoses == ("Pneumonia",)
    assert counts["images_in_conflict"] == 1 and counts["images_dropped"] == 0


def test_a_label_without_a_box_is_never_no_finding(release):
    boxless = annotations_of(release)["boxless"]
    assert boxless.findings == () and boxless.diagnoses == ()


def test_findings_keep_the_order_of_the_csv_across_labels(tmp_path):
    boxes = [("a", "R1", "ILD", HEART), ("a", "R1", "Edema", HEART), ("a", "R1", "ILD", AORTA)]
    write_split(tmp_path, "train", boxes, {("a", "R1"): {"ILD"}})
    assert [f.label for f in annotations_of(tmp_path)["a"].findings] == ["ILD", "Edema", "ILD"]


def test_boxes_are_pooled_in_the_order_of_the_csv_where_readers_alternate(tmp_path):
    boxes = [("a", "R1", "Edema", AORTA), ("a", "R2", "ILD", HEART), ("a", "R1", "ILD", HEART_AGAIN)]
    write_split(tmp_path, "train", boxes, {("a", "R1"): {"ILD"}, ("a", "R2"): {"ILD"}})
    found = [(f.label, f.box, f.readers) for f in annotations_of(tmp_path)["a"].findings]
    assert found == [("Edema", AORTA, 1), ("ILD", HEART, 2)]


def test_the_single_readers_are_kept_beside_what_was_merged(release):
    readings = annotations_of(release)["both"].readings
    assert [reading.rad_id for reading in readings] == ["R1", "R2"]
    assert [[f.label for f in reading.findings] for reading in readings] == [
        ["Cardiomegaly", "Aortic enlargement"],
        ["Cardiomegaly"],
    ]
    assert [reading.diagnoses for reading in readings] == [("Other diseases",), ("Pneumonia",)]


def test_another_merge_of_the_readers_is_train_s_alone(release):
    union = annotations_of(release, merge="union")
    assert union["both"].findings[0].box == (20, 40, 62, 80)
    assert union["conflict"].findings[0].label == "Cardiomegaly" and union["conflict"].diagnoses == ()
    majority = annotations_of(release, merge="majority")  # of two readers
    assert [f.label for f in majority["both"].findings] == ["Cardiomegaly"] and majority["both"].diagnoses == ()
    assert annotations_of(release, "test", "majority") == annotations_of(release, "test")
    with pytest.raises(ValueError, match="merge must be one of paper, union"):
        read_release(release, merge="vote")


@pytest.mark.parametrize("spelling", ["Other disease", "Other diseases"])
def test_both_spellings_of_other_diseases_are_read(tmp_path, spelling):
    columns = [spelling if column == "Other diseases" else column for column in LABEL_COLUMNS]
    write_split(tmp_path, "test", [], {("a", ""): {spelling}}, columns=columns)
    assert annotations_of(tmp_path, "test")["a"].diagnoses == ("Other diseases",)


def test_a_box_turned_inside_out_is_skipped_but_its_label_still_counts(tmp_path):
    write_split(
        tmp_path, "train", [("a", "R1", "ILD", (60, 40, 20, 80))], {("a", "R1"): set(), ("b", "R1"): {"No finding"}}
    )
    annotations, counts = read_annotations(str(tmp_path), "train")
    assert annotations[0].findings == () and annotations[0].diagnoses == ()
    assert counts["boxes_without_area"] == 1 and counts["images_unknown"] == 1


def test_kaggles_single_file_gives_boxes_and_no_finding_only(tmp_path):
    header = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    rows = [
        ["a", "Cardiomegaly", 3, "R1", *HEART],
        ["a", "Cardiomegaly", 3, "R2", *HEART_AGAIN],
        ["b", "No finding", 14, "R1", "", "", "", ""],
    ]
    write_rows(tmp_path / "train.csv", header, rows)
    read = annotations_of(tmp_path)
    assert [(f.label, f.readers) for f in read["a"].findings] == [("Cardiomegaly", 2)] and read["a"].diagnoses == ()
    assert read["b"].diagnoses == ("No finding",)


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("annotations_train.csv", "x_min", "left", "has no column x_min"),
        ("annotations_train.csv", "rad_id", "reader", "has no column rad_id"),
        ("image_labels_train.csv", "Edema", "Oedema", "has no column Edema"),
        ("annotations_train.csv", "Aortic enlargement", "Big aorta", r"line 3: unknown label 'Big aorta'"),
        ("annotations_train.csv", "Cardiomegaly", "Pneumonia", r"line 2: 'Pneumonia' is no local label"),
        ("annotations_train.csv", "20,40,60,80", "20,forty,60,80", r"line 2: a box coordinate is no number"),
        ("annotations_train.csv", "20,40,60,80", "20,40,,80", r"line 2: a box has only some"),
        ("annotations_train.csv", "20,40,60,80", "20,40", r"line 2: the number of cells"),
        ("image_labels_train.csv", "R1,1", "R1,2", r"line 2: an image label is '2'"),
    ],
)
def test_a_csv_that_cannot_be_read_is_named_with_its_line(release, file, old, new, message):
    path = release / "annotations" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(str(release), "train")
    assert str(path) in str(error.value)


def test_a_missing_folder_csv_or_image_folder_is_named(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        load_vindr_cxr(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has neither"):
        load_vindr_cxr(tmp_path / "empty")
    (release / "test").rename(release / "elsewhere")
    with pytest.raises(FileNotFoundError, match="the test radiographs belong there"):
        load_vindr_cxr(release)
    (release / "annotations" / "image_labels_train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"image_labels_train\.csv is missing"):
        read_annotations(str(release), "train")


# Rows


def test_rows_have_the_schema_and_boxes_in_the_unit_square(release, tmp_path):
    dataset = load_vindr_cxr(release, cache_dir=tmp_path / "cache")
    features = row_features(FINDING_LABELS, DIAGNOSIS_LABELS, ("sex", "age", "image_labels"))
    assert dataset["train"].features == features and dataset["test"].features == features
    assert dataset["train"]["image_id"][:] == ["both", "negative", "boxless"]
    row = dataset["train"][0]
    assert row["image"].mode == "L" and row["image"].size == (100, 100) and row["view"] == ""
    assert [FINDING_LABELS[finding["label"]] for finding in row["findings"]] == ["Cardiomegaly", "Aortic enlargement"]
    np.testing.assert_allclose(row["findings"][0]["box"], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    assert [DIAGNOSIS_LABELS[label] for label in row["diagnoses"]] == ["Pneumonia", "Other diseases"]
    assert dataset["train"][1]["findings"] == [] and dataset["train"][1]["diagnoses"] == [5]
    assert dataset["train"][2]["findings"] == [] and dataset["train"][2]["diagnoses"] == []
    assert [finding["readers"] for finding in dataset["test"][0]["findings"]] == [1]


# What the tables say of a whole image


def image_labels_of(read, split="train"):
    return {image.image_id: image.optional.get("image_labels") for image in read.annotations[split]}


def test_where_a_finding_has_no_box_all_rows_say_what_the_tables_say_of_the_image(release, tmp_path):
    rows = load_vindr_cxr(release, cache_dir=tmp_path / "cache")
    names = rows["train"].features["image_labels"].feature.names
    assert names == [*FINDING_LABELS, *DIAGNOSIS_LABELS]
    labels = {row["image_id"]: [names[i] for i in row["image_labels"]] for split in rows.values() for row in split}
    assert labels == {
        "both": ["Aortic enlargement", "Cardiomegaly", "Pneumonia", "Other diseases"],  # of any reader
        "negative": ["No finding"],
        "boxless": ["Edema"],
        "t1": ["Pneumothorax", "COPD"],
        "t2": ["No finding"],
    }


def test_no_finding_is_no_label_of_an_image_of_which_any_reader_says_something(release):
    assert image_labels_of(read_release(release, "union"))["conflict"] == ["Cardiomegaly"]
    assert image_labels_of(read_release(release, "majority"))["both"][:2] == ["Aortic enlargement", "Cardiomegaly"]


@pytest.mark.parametrize("box", [HEART, (60, 40, 20, 80)])
def test_where_each_finding_has_a_box_rows_are_without_the_column(tmp_path, box):
    """Also where a box is skipped: VinDr-CXR's own rows stay what they are."""
    boxes = [("a", "R1", "ILD", box), *((name, "R1", "ILD", HEART) for name in "bcdefghijkl")]
    write_split(tmp_path, "train", boxes, {(name, "R1"): {"ILD", "COPD"} for name in "abcdefghijkl"})
    read = read_release(tmp_path)
    assert read.columns == ("sex", "age") and set(map(str, image_labels_of(read).values())) == {"None"}
    assert all(image.optional == {} for image in read.annotations["train"])


def test_phantoms_have_a_box_for_each_finding(phantom_release):
    read = read_release(phantom_release)
    assert read.columns == ("sex", "age") and "images_with_unboxed_findings" not in read.counts["train"]


def test_a_finding_of_an_image_that_is_dropped_adds_no_column(release):
    labels = release / "annotations" / "image_labels_train.csv"
    labels.write_text("".join(line for line in labels.open() if not line.startswith("boxless")))
    boxes = release / "annotations" / "annotations_train.csv"
    boxes.write_text("".join(line for line in boxes.open() if not line.startswith("conflict,R2")))
    assert read_release(release).columns == ("sex", "age")
    assert read_release(release, "union").columns == ("sex", "age", "image_labels")


def test_rows_that_were_prepared_without_the_column_are_not_taken_for_those_with_it(release, tmp_path):
    labels = release / "annotations" / "image_labels_train.csv"
    text = labels.read_text()
    labels.write_text("".join(line for line in labels.open() if not line.startswith("boxless")))
    assert "image_labels" not in load_vindr_cxr(release, "test", tmp_path / "cache").column_names
    prepare(read_release(release), tmp_path / "out")
    labels.write_text(text)
    assert "image_labels" in load_vindr_cxr(release, "test", tmp_path / "cache").column_names
    with pytest.raises(ValueError, match="prepared otherwise"):
        prepare(read_release(release), tmp_path / "out")


def test_what_was_counted_of_findings_without_a_box_is_said(release, tmp_path, capsys):
    prepare(read_release(release), tmp_path / "out")
    assert "1 image with a finding that the tables state and no box shows" in capsys.readouterr().out
    assert "| `image_labels` |" in (tmp_path / "out" / "README.md").read_text()


def test_changed_tables_are_noticed(release, tmp_path):
    first = load_vindr_cxr(release, "train", tmp_path / "cache")
    annotations = release / "annotations" / "annotations_train.csv"
    annotations.write_text(annotations.read_text().replace("20,40,60,80", "10,40,60,80", 1))
    second = load_vindr_cxr(release, "train", tmp_path / "cache")
    assert second._fingerprint != first._fingerprint and second[0]["findings"][0]["box"][0] == pytest.approx(0.1)


def test_streaming_yields_the_rows_that_preparing_does(release, tmp_path):
    rows = load_vindr_cxr(release, "train", tmp_path / "cache", shortest_edge=50)
    streamed = load_vindr_cxr(release, "train", streaming=True, shortest_edge=50)
    for streamed_row, row in zip(streamed, rows, strict=True):
        assert streamed_row["image"].tobytes() == row["image"].tobytes() and row["image"].size == (50, 50)
        assert {**streamed_row, "image": None} == {**row, "image": None}


def test_a_folder_with_none_of_the_radiographs_is_refused(release, tmp_path):
    for path in (release / "train").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds none of the radiographs"):
        load_vindr_cxr(release, cache_dir=tmp_path / "cache")


def test_the_program_prepares_a_folder_and_refuses_bad_input_in_one_sentence(release, tmp_path, capsys):
    def run(*arguments):
        main(["prepare", "vindr-cxr", "--data_dir", *map(str, arguments)])

    run(release, "--output_dir", tmp_path / "out", "--merge", "union", "--shortest_edge", "50")
    counts = (tmp_path / "out" / "summary.csv").read_text()
    assert "train,images_in_conflict,1\ntrain,images_dropped,0\n" in counts and "test,images_left_out,0\n" in counts
    assert "`merge` | union" in (tmp_path / "out" / "README.md").read_text()

    with pytest.raises(SystemExit, match="release is not empty and has no preparation.json: choose another folder.$"):
        run(release, "--output_dir", release)
    with pytest.raises(SystemExit, match="nowhere is no folder"):
        run(tmp_path / "nowhere", "--output_dir", tmp_path / "new")
    with pytest.raises(SystemExit):
        run(release, "--output_dir", tmp_path / "new", "--windowing", "lung")
    assert 'windowing must be "dicom" or "paper"' in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_dicom_files_are_read_in_place_of_png(real_cxr, tmp_path):
    root = tmp_path / "release"
    write_split(root, "train", [("a", "R1", "ILD", HEART)], {("a", "R1"): {"ILD"}})
    source = real_cxr / "real_cxr" / "dicom_cxr" / "RG1_J2KI.dcm"
    (root / "train" / "a.dicom").symlink_to(source)  # stands before a.png
    row = load_vindr_cxr(root, split="train", cache_dir=tmp_path / "cache", shortest_edge=64)[0]
    assert row["view"] == "PA" and min(row["width"], row["height"]) > 1000 and min(row["image"].size) == 64


def test_rows_have_sex_and_age_of_the_dicom_files_and_nothing_else_of_the_person(phantom_release, tmp_path):
    import pydicom

    prepare(read_release(phantom_release), tmp_path / "out")
    rows = load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1)
    tags = [pydicom.dcmread(phantom_release / "train" / f"{name}.dicom") for name in rows["image_id"]]
    assert rows["age"][:] == [int(header.PatientAge[:3]) for header in tags] and len(set(rows["age"][:])) > 10
    assert rows["sex"][:] == [header.PatientSex.replace("O", "") for header in tags]
    assert set(rows["sex"][:]) == {"F", "M", ""} and "patient_id" not in rows.column_names
    for path in (tmp_path / "out").iterdir():
        assert path.is_dir() or not any(f"{header.PatientAge}" in path.read_text() for header in tags)


def test_kaggles_layout_has_sex_and_age_too_and_png_copies_tell_neither(phantom_release, tmp_path):
    source = next((phantom_release / "train").iterdir())
    header = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    rows = [[name, "No finding", 14, "R1", "", "", "", ""] for name in (source.stem, "copy")]
    write_rows(tmp_path / "release" / "train.csv", header, rows)
    (tmp_path / "release" / "train").mkdir()
    (tmp_path / "release" / "train" / source.name).symlink_to(source)
    PIL.Image.new("L", (64, 64)).save(tmp_path / "release" / "train" / "copy.png")
    dicom, copy = load_vindr_cxr(tmp_path / "release", "train", tmp_path / "cache")
    assert 18 <= dicom["age"] < 90 and (copy["sex"], copy["age"]) == ("", None)


@pytest.mark.parametrize("split, rows, dropped", [("train", 598, 72), ("test", 165, 0)])
def test_real_annotations_give_negatives_only_where_every_source_says_so(real_cxr, split, rows, dropped):
    root = real_cxr / "nih_320"
    annotations, counts = read_annotations(str(root), split)
    marked = {}
    with open(root / "annotations" / f"image_labels_{split}.csv") as file:
        for row in csv.DictReader(file):
            ones = {name for name, value in row.items() if value == "1"}
            marked.setdefault(row["image_id"], set()).update(ones)
    assert len(annotations) == rows and counts["images_dropped"] == dropped
    for annotation in annotations:
        is_negative = annotation.diagnoses == ("No finding",)
        assert is_negative == (marked[annotation.image_id] == {"No finding"})
        assert not (is_negative and annotation.findings)
        assert {finding.label for finding in annotation.findings} <= marked[annotation.image_id]


def test_real_radiographs_build_from_the_release_layout(real_cxr, tmp_path):
    root = tmp_path / "release"
    (root / "annotations").mkdir(parents=True)
    for name in ("annotations_test.csv", "image_labels_test.csv"):
        (root / "annotations" / name).symlink_to(real_cxr / "nih_320" / "annotations" / name)
    (root / "test").mkdir()
    names = sorted(os.listdir(real_cxr / "nih_320" / "test"))
    chosen = random.Random(0).sample(names, 12)
    for name in chosen:
        (root / "test" / name).symlink_to(real_cxr / "nih_320" / "test" / name)
    dataset = load_vindr_cxr(root, split="test", cache_dir=tmp_path / "cache")
    assert sorted(dataset["image_id"]) == sorted(name.removesuffix(".jpg") for name in chosen)
    for row in dataset:
        assert (row["width"], row["height"]) == (320, 320)
        assert np.asarray(row["image"]).std() > 10


def test_the_card_of_phantoms_does_not_say_that_they_are_of_people(phantom_release):
    release = read_release(phantom_release)
    assert release.facts.pretty_name.startswith("Phantoms") and "nobody" in release.facts.personal_information


# Tables and pictures as people have them

KAGGLE = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
KAGGLE_ROWS = [
    ["a", "Cardiomegaly", 3, "R9", *HEART],
    ["b", "Nodule/Mass", 8, "R8", 5, 5, 90, 95],
    ["c", "No finding", 14, "R9", "", "", "", ""],
]


def write_kaggle(root, header=KAGGLE, rows=KAGGLE_ROWS, size=(100, 100), names=("a", "b", "c"), folder="train"):
    """Kaggle's layout: train.csv, and pictures of one size."""
    write_rows(root / "train.csv", header, rows)
    (root / folder).mkdir(parents=True)
    for name in names:
        PIL.Image.linear_gradient("L").resize(size).save(root / folder / f"{name}.png")
    return root


def boxes_of(release):
    return {image.image_id: [finding.box for finding in image.findings] for image in release.annotations["train"]}


def test_boxes_of_the_original_beside_small_copies_are_scaled_by_the_size_in_the_table(tmp_path):
    expected = {"a": [pytest.approx((10, 20, 30, 40))], "b": [pytest.approx((2.5, 2.5, 45, 47.5))], "c": []}
    columns = write_kaggle(
        tmp_path / "1", [*KAGGLE, "width", "height"], [[*r, 100, 100] for r in KAGGLE_ROWS], (50, 50)
    )
    release = read_release(columns)
    assert boxes_of(release) == expected and release.counts["train"]["boxes_scaled"] == 2
    meta = write_kaggle(tmp_path / "2", size=(50, 50))
    write_rows(meta / "train_meta.csv", ["image_id", "dim0", "dim1"], [[name, 100, 100] for name in "abc"])
    assert boxes_of(read_release(meta)) == expected
    with pytest.raises(ValueError, match="train.csv: boxes leave 2 of the 2 pictures .*say which in columns width"):
        read_release(write_kaggle(tmp_path / "3", size=(50, 50)))


def test_dim0_is_the_rows_and_dim1_the_columns(tmp_path):
    root = write_kaggle(tmp_path, size=(50, 50))
    write_rows(root / "train_meta.csv", ["image_id", "dim0", "dim1"], [[name, 100, 200] for name in "abc"])
    assert boxes_of(read_release(root))["a"] == [pytest.approx((5, 20, 15, 40))]


@pytest.mark.parametrize("columns", [["x", "y", "w", "h"], ["X", "Y", "Width", "Height"]])
def test_a_corner_and_a_size_are_told_by_the_columns(tmp_path, columns):
    rows = [
        [*row[:4], *((x1, y1, x2 - x1, y2 - y1) if (x1 := row[4]) != "" else row[4:])]
        for row in KAGGLE_ROWS
        for y1, x2, y2 in [row[5:]]
    ]
    release = read_release(write_kaggle(tmp_path, [*KAGGLE[:4], *columns], rows))
    assert boxes_of(release) == {"a": [HEART], "b": [(5, 5, 90, 95)], "c": []}


def test_a_corner_and_a_size_in_columns_of_two_corners_are_refused(tmp_path):
    rows = [["a", "ILD", 5, "R9", 50, 60, 30, 20], ["b", "ILD", 5, "R9", 5, 5, 60, 80]]
    with pytest.raises(ValueError, match="line 2: the box 50, 60, 30, 20 ends where .*name the columns x, y"):
        read_release(write_kaggle(tmp_path, rows=rows))


def test_columns_with_the_boxes_own_size_are_not_the_pictures(tmp_path):
    rows = [[*row, *((row[6] - row[4], row[7] - row[5]) if row[4] != "" else ("", ""))] for row in KAGGLE_ROWS]
    release = read_release(write_kaggle(tmp_path, [*KAGGLE, "width", "height"], rows))
    assert boxes_of(release)["a"] == [HEART] and "boxes_scaled" not in release.counts["train"]


def test_boxes_from_0_to_1_are_those_of_the_whole_picture(tmp_path):
    rows = [[*row[:4], *(cell if cell == "" else cell / 100 for cell in row[4:])] for row in KAGGLE_ROWS]
    release = read_release(write_kaggle(tmp_path, rows=rows))
    assert boxes_of(release)["a"] == [pytest.approx(HEART)] and release.counts["train"]["boxes_of_0_to_1"] == 2


def test_a_box_that_notebooks_give_to_no_finding_is_none(tmp_path):
    release = read_release(write_kaggle(tmp_path, rows=[*KAGGLE_ROWS[:2], [*KAGGLE_ROWS[2][:4], 0, 0, 1, 1]]))
    assert boxes_of(release)["c"] == [] and release.counts["train"]["boxes_of_no_finding"] == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text.replace(",", ";").replace(".5", ",5").replace("\n", "\r\n"),
        lambda text: text.replace("image_id,class_name", "Image_ID, Class Name").replace(",R9", ", R9 "),
        lambda text: text.replace("a,Card", "train/a.DICOM,card").replace("b,", "b.png ,"),
        lambda text: text.replace("\n", ",\n") + ",,,,,,,,\n,,,,,,,,\n",
        lambda text: text.replace(",,,,", ",NULL,NULL,NULL,NULL"),
        lambda text: text.replace("Nodule/Mass", " nodule/mass"),
        lambda text: text.replace("x_min,y_min,x_max,y_max", "xmin,ymin,xmax,ymax"),
    ],
)
def test_a_table_that_was_saved_again_reads_the_same(tmp_path, change):
    rows = [[*KAGGLE_ROWS[0][:4], 20.5, 40, 60, 80], *KAGGLE_ROWS[1:]]
    root = write_kaggle(tmp_path, rows=rows)
    expected = read_release(root)
    text = (root / "train.csv").read_text().replace("\r\n", "\n")
    (root / "train.csv").write_text(change(text), encoding="utf-8", newline="")
    assert change(text) != text and read_release(root) == expected


def test_names_of_which_none_fits_are_shown_from_both_sides(tmp_path):
    with pytest.raises(FileNotFoundError, match='train.csv has "a", the folder "0001.png"'):
        read_release(write_kaggle(tmp_path, names=("0001", "0002")))


def test_what_is_not_read_is_counted_and_said(tmp_path, capsys):
    root = write_kaggle(tmp_path / "release", names="abcd", folder="train/part1")
    PIL.Image.new("L", (30, 30)).save(root / "train" / "part1" / "a.jpg")
    prepare(read_release(root), tmp_path / "out")
    counts = (tmp_path / "out" / "summary.csv").read_text()
    assert "train,files_not_in_table,1\n" in counts and "train,second_files,1\n" in counts
    said = "1 file not read that no table names; 1 file not read beside another of the same image"
    assert said in capsys.readouterr().out and said in (tmp_path / "out" / "preparation.log").read_text()


# Whose data it is


def md5(name):
    return hashlib.md5(name.encode()).hexdigest()


def with_ids(rename, reader="R9"):
    return {
        "rows": [[rename(row[0]), *row[1:3], reader, *row[4:]] for row in KAGGLE_ROWS],
        "names": [rename(name) for name in "abc"],
    }


def test_a_folder_is_vindr_cxr_where_ids_and_readers_look_as_the_releases(tmp_path):
    root = write_kaggle(tmp_path, **with_ids(md5))
    facts = data_set_facts(str(root))
    assert facts["name"] == "VinDr-CXR" and "physionet" in facts["license_name"]
    with pytest.raises(ValueError, match="holds VinDr-CXR: its name and licence are known"):
        read_release(root, licence="CC BY 4.0")


@pytest.mark.parametrize(
    ("rename", "reader"),
    [(str, "R9"), (lambda name: name * 32, "R9"), (lambda name: f"{ord(name):032d}", "R9"), (md5, "Dr. Who")],
)
def test_any_other_folder_is_the_users_own_data(tmp_path, rename, reader, capsys):
    root = write_kaggle(tmp_path / "Our films", **with_ids(rename, reader))
    assert data_set_facts(str(root)) == {"name": "Our films", "license_name": None, "license_link": None}
    with pytest.raises(ValueError, match="cannot be named vindr cxr"):
        read_release(root, name="vindr cxr")
    arguments = ["--data_dir", str(root), "--output_dir", str(tmp_path / "out")]
    main(["prepare", "vindr-cxr", *arguments, "--name", "Ward 7", "--licence", "CC BY 4.0"])
    assert data_set_facts(str(tmp_path / "out")) == {
        "name": "Ward 7",
        "license_name": "cc-by-4.0",
        "license_link": None,
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert "CC BY 4.0, as whoever" in card and "PhysioNet" not in card and "bibtex" not in card and "Hanoi" not in card
    check_licence(tmp_path / "out", card, private=False)
    with pytest.raises(SystemExit, match="prepared otherwise .name Ward 7, not Ward 8"):
        main(["prepare", "vindr-cxr", *arguments, "--name", "Ward 8", "--licence", "CC BY 4.0"])


def test_data_of_which_no_licence_is_stated_are_not_pushed(tmp_path):
    prepare(read_release(write_kaggle(tmp_path / "vindr-cxr")), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# vindr-cxr (own data), prepared" in card and "license: unknown" in card and "Not stated" in card
    with pytest.raises(ValueError, match="does not say under what licence the data set stands"):
        check_licence(tmp_path / "out", card, private=False)
