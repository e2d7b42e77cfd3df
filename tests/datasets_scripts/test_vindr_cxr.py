import csv
import os
import random

import numpy as np
import PIL.Image
import pytest

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.rows import load_rows
from litegpt.datasets_scripts.vindr_cxr import (
    DIAGNOSIS_LABELS,
    FINDING_LABELS,
    load_vindr_cxr,
    read_annotations,
    read_release,
)

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
    features = row_features(FINDING_LABELS, DIAGNOSIS_LABELS, ("sex", "age"))
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
