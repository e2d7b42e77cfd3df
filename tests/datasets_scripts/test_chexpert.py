import csv
import json
import random

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.chexpert import (
    DIAGNOSIS_LABELS,
    LABEL_COLUMNS,
    five_by_two_hundred,
    image_id_of_path,
    read_release,
)
from litegpt.datasets_scripts.image_labels import abnormal, label_matrix, states_of
from litegpt.datasets_scripts.preparation.prepare import load_release, prepare
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.hub.push_to_hub import check_licence
from litegpt.metrics.report_labels import FIVE_LABELS

# As published: "No Finding" comes first, and the folder's name is in each path.
HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
TRAIN = [
    "train/patient99991/study1/view1_frontal.jpg,Female,61,Frontal,AP,,,-1.0,1.0,,,,,,0.0,1.0,,,1.0",
    "train/patient99991/study1/view2_lateral.jpg,Female,61,Lateral,,,,-1.0,1.0,,,,,,0.0,1.0,,,1.0",
    "train/patient99992/study1/view1_frontal.jpg,Male,40,Frontal,PA,1.0,,,,,,,,,0.0,,,,1.0",
    "train/patient99992/study2/view1_frontal.jpg,Unknown,0,Frontal,LL,1.0,,,,,,,,,,,,,",
    "train/patient99993/study1/view1_frontal.jpg,Male,90,Frontal,AP,,,,,,,,,,,,,,",
]
VALID = ["valid/patient99995/study1/view1_frontal.jpg,Male,73,Frontal,AP," + ",".join(["0.0"] * 13) + ",1.0"]
PLUS_HEADER = [
    *("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order"),
    *("report", "section_narrative", "section_findings", "section_impression", "age", "sex", "race", "split"),
]


def write_tables(root, train=TRAIN, valid=VALID, folder="CheXpert-v1.0-small"):
    for name, lines in (("train.csv", train), ("valid.csv", valid)):
        text = "".join(f"{folder}/{line}\n" for line in lines)
        (root / name).write_text(f"{HEADER}\n{text}")


def write_picture(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 255, size[::-1], dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def release(tmp_path):
    """A small release of four patients, of whom one is in valid.csv."""
    root = tmp_path / "CheXpert-v1.0-small"
    for line in (*TRAIN, *VALID):
        write_picture(root / line.partition(",")[0])
    write_tables(root)
    return root


def write_plus(root, reports, header=PLUS_HEADER):
    """`reports`: (path, findings, impression)."""
    with open(root / "df_chexpert_plus_240401.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        for path, findings, impression in reports:
            split, patient = path.split("/")[:2]
            row = {
                "path_to_image": path,
                "path_to_dcm": path.replace(".jpg", ".dcm"),
                "frontal_lateral": "Lateral" if "lateral" in path else "Frontal",
                "ap_pa": "" if "lateral" in path else "PA",
                "deid_patient_id": patient,
                "report": f"NARRATIVE:\nRADIOGRAPH\n{impression}",
                "section_findings": findings,
                "section_impression": impression,
                "age": "61.0",
                "sex": "Female",
                "split": split,
            }
            writer.writerow({name: row[name] for name in header if name in row})


def labels_of(image):
    return {item["label"]: item["state"] for item in image.optional["mentioned"]}


def test_the_labels_are_the_tables_with_no_finding_last():
    assert set(LABEL_COLUMNS) == set(HEADER.split(",")[5:]) and len(LABEL_COLUMNS) == 14
    assert DIAGNOSIS_LABELS[:13] == LABEL_COLUMNS[:13] and DIAGNOSIS_LABELS[13] == "No finding"
    assert set(FIVE_LABELS) < set(DIAGNOSIS_LABELS)


@pytest.mark.parametrize(
    "path",
    [
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
        "CheXpert-v1.0/train/patient00001/study1/view1_frontal.png",
        "patient00001/study1/view1_frontal.dcm",
        r"train\patient00001\study1\view1_frontal.jpg",
        "patient00001_study1_view1_frontal",
    ],
)
def test_an_image_has_one_name_in_every_copy(path):
    assert image_id_of_path(path) == "patient00001_study1_view1_frontal"


def test_tables_become_annotations_with_states(release):
    read = read_release(release)
    first, lateral, device, normal, silent = read.annotations["train"]
    assert (first.image_id, first.patient_id) == ("patient99991_study1_view1_frontal", "patient99991")
    assert first.optional["study_id"] == "patient99991/study1"
    assert labels_of(first) == {
        "Cardiomegaly": "uncertain",
        "Lung Opacity": "positive",
        "Pneumothorax": "negative",
        "Pleural Effusion": "positive",
        "Support Devices": "positive",
    }
    assert first.diagnoses == ("Lung Opacity", "Pleural Effusion", "Support Devices")
    assert [image.view for image in read.annotations["train"]] == ["AP", "Lateral", "PA", "", "AP"]
    assert labels_of(lateral) == labels_of(first)
    people = [(image.optional["sex"], image.optional["age"]) for image in (first, device, normal)]
    assert people == [("F", 61), ("M", 40), ("", 0)]
    assert silent.optional["mentioned"] == [] and silent.diagnoses == ()
    (valid,) = read.annotations["validation"]
    assert set(labels_of(valid).values()) == {"negative", "positive"} and len(labels_of(valid)) == 14
    assert set(read.images["train"]) == {image.image_id for image in read.annotations["train"]}


def test_no_finding_is_a_diagnosis_where_it_stands_alone_and_mentioned_wherever_it_stands(release):
    *_, device, normal, _ = read_release(release).annotations["train"]
    assert device.diagnoses == ("Support Devices",) and labels_of(device)["No finding"] == "positive"
    assert normal.diagnoses == ("No finding",)


def test_what_the_tables_hold_is_counted(release):
    write_picture(release / "train" / "patient99999" / "study1" / "view1_frontal.jpg")
    counts = read_release(release).counts
    assert counts["train"] == {"images": 5, "images_no_finding": 2, "images_without_mentions": 1}
    assert counts["validation"]["images"] == 1 and counts["none"] == {"files_not_in_table": 1}


def test_rows_go_end_to_end(release, tmp_path):
    rows = load_rows(str(release), "train", str(tmp_path / "cache"), 1)
    assert rows.features == row_features((), DIAGNOSIS_LABELS, ("study_id", "patient_id", "sex", "age", "mentioned"))
    assert rows["patient_id"][:] == ["patient99991"] * 2 + ["patient99992"] * 2 + ["patient99993"]
    assert rows[0]["image"].size == (40, 30) and rows[0]["findings"] == []
    assert states_of(rows[4], rows.features) == {}
    assert abnormal(rows).tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(
        label_matrix(rows, ["Pneumothorax", "Cardiomegaly", "No finding"]),
        [[0, np.nan, np.nan], [0, np.nan, np.nan], [0, np.nan, 1], [np.nan, np.nan, 1], [np.nan] * 3],
    )
    streamed = list(load_release(read_release(release), "train", streaming=True))
    assert [{**row, "image": None} for row in streamed] == [{**row, "image": None} for row in rows]


def test_the_command_prepares_a_folder_whose_card_names_the_agreement(release, tmp_path, capsys):
    main(["prepare", "chexpert", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    assert "validation: 1 row" in capsys.readouterr().out
    facts = data_set_facts(str(tmp_path / "out"))
    assert facts == data_set_facts(str(release))
    assert facts["license_name"] == "stanford-university-dataset-research-use-agreement"
    assert load_rows(str(tmp_path / "out"), "validation", str(tmp_path / "cache"), 1).num_rows == 1


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("train.csv", "-1.0,1.0", "-1.0,2.0", "train.csv, line 2: a label is '2.0', not 1.0, 0.0, -1.0 or empty"),
        ("train.csv", "Edema", "Oedema", "train.csv has no column Edema"),
        ("train.csv", "patient99993/", "person/", "train.csv, line 6: .* names no image: it has no patientNNNNN"),
        ("valid.csv", "valid/patient99995", "train/patient99993", "valid.csv, line 2: image patient99993_.* twice"),
        ("train.csv", "Frontal,AP,,,-1.0", "Frontal", "train.csv, line 2: the line ends before"),
    ],
)
def test_bad_tables_are_refused_with_a_sentence_that_names_the_line(release, table, old, new, message):
    text = (release / table).read_text()
    assert old in text
    (release / table).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_release(release)


def test_a_folder_without_tables_or_radiographs_is_refused(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has neither train.csv nor valid.csv nor df_chexpert_plus_240401.csv"):
        read_release(tmp_path)
    for name in ("train", "valid"):
        (release / name).rename(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="holds none of the radiographs"):
        read_release(release)


def test_labels_that_pandas_saved_again_read_the_same(release):
    expected = read_release(release).annotations
    text = (release / "train.csv").read_text()
    (release / "train.csv").write_text(text.replace(".0,", ",").replace(".0\n", "\n"))
    assert read_release(release).annotations == expected


# CheXpert Plus


REPORTS = [
    ("train/patient99991/study1/view1_frontal.jpg", "Heart is\nenlarged, perhaps.", "1. Effusion."),
    ("train/patient99991/study1/view2_lateral.jpg", "Heart is\nenlarged, perhaps.", "1. Effusion."),
    ("train/patient99992/study1/view1_frontal.jpg", "", "Normal chest."),
    ("train/patient99992/study2/view1_frontal.jpg", "nan", ""),
    ("valid/patient99995/study1/view1_frontal.jpg", "", "Pacemaker."),
    ("train/patient99888/study1/view1_frontal.jpg", "", "Of an image that is not in train.csv."),
]


def test_reports_are_joined_by_the_images_name(release, tmp_path, capsys):
    write_plus(release, REPORTS)
    prepare(read_release(release), tmp_path / "out")
    rows = load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1)
    assert rows["report_findings"][:] == ["Heart is enlarged, perhaps."] * 2 + [None] * 3
    assert rows["report_impression"][:] == ["1. Effusion."] * 2 + ["Normal chest.", None, None]
    counts = read_release(release).counts
    assert counts["train"]["images_without_report"] == 2 and counts["validation"]["images_without_report"] == 0
    assert counts["none"]["reports_not_in_table"] == 1
    assert "2 images without a report" in capsys.readouterr().out
    assert data_set_facts(str(tmp_path / "out"))["name"] == "CheXpert Plus"
    two_views = [row for row in rows.remove_columns("image") if row["study_id"] == "patient99991/study1"]
    assert [row["view"] for row in two_views] == ["AP", "Lateral"]


def test_what_stanfords_agreement_forbids_to_share_is_not_pushed(release, tmp_path):
    prepare(read_release(release), tmp_path / "labels")
    card = (tmp_path / "labels" / "README.md").read_text()
    check_licence(tmp_path / "labels", card, private=True)
    with pytest.raises(ValueError, match="research-use-agreement, which forbids sharing it"):
        check_licence(tmp_path / "labels", card, private=False)
    write_plus(release, REPORTS)
    prepare(read_release(release), tmp_path / "reports")
    with pytest.raises(ValueError, match="holds reports under stanford-university-dataset-research-use-agreement"):
        check_licence(tmp_path / "reports", (tmp_path / "reports" / "README.md").read_text(), private=True)


def plus_alone(tmp_path, labels=None, file="impression_fixed.json"):
    root = tmp_path / "chexpert_plus"
    for path, _, _ in REPORTS:
        write_picture(root / "PNG" / path.replace(".jpg", ".png"))
    write_plus(root, REPORTS)
    if labels is not None:
        (root / "chexbert_labels").mkdir()
        (root / "chexbert_labels" / file).write_text("".join(f"{json.dumps(line)}\n" for line in labels))
    return root


@pytest.mark.parametrize("file", ["impression_fixed.json", "report_fixed.json"])
def test_plus_alone_has_its_own_splits_people_and_labels(tmp_path, file):
    nothing = dict.fromkeys(LABEL_COLUMNS)
    labels = [
        {"path_to_image": REPORTS[0][0], **nothing, "Edema": -1.0, "Pleural Effusion": 1.0, "Fracture": 0.0},
        {"path_to_image": REPORTS[2][0], **nothing, "No Finding": 1.0},
    ]
    root = plus_alone(tmp_path, labels, file)
    rows = load_rows(str(root), "train", str(tmp_path / "cache"), 1)
    assert rows.num_rows == 5 and rows["view"][:2] == ["PA", "Lateral"] and rows["age"][0] == 61
    assert rows["sex"][0] == "F" and rows["report_impression"][2] == "Normal chest."
    states = [states_of(row, rows.features) for row in rows.remove_columns("image")]
    assert states[0] == {"Edema": "uncertain", "Pleural Effusion": "positive", "Fracture": "negative"}
    assert states[2] == {"No finding": "positive"} and states[1] == states[3] == {}
    assert load_rows(str(root), "validation", str(tmp_path / "cache"), 1).num_rows == 1


def test_plus_without_labels_says_nothing_of_any(tmp_path):
    read = read_release(plus_alone(tmp_path))
    assert read.counts["train"]["images_without_mentions"] == 5 and "mentioned" in read.columns


def test_png_and_dicom_of_one_image_are_one_image(tmp_path):
    root = plus_alone(tmp_path)
    dicom = root / "DICOM" / REPORTS[0][0].replace(".jpg", ".dcm")
    dicom.parent.mkdir(parents=True)
    dicom.write_bytes(b"")
    read = read_release(root)
    assert read.images["train"]["patient99991_study1_view1_frontal"] == str(dicom)  # DICOM first, as everywhere
    assert read.counts["none"]["second_files"] == 1


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("df_chexpert_plus_240401.csv", "section_findings", "findings", "has no column section_findings"),
        ("df_chexpert_plus_240401.csv", ",valid\r\n", ",test\r\n", "line [0-9]+: the split is 'test', not train or"),
        ("df_chexpert_plus_240401.csv", "view2_lateral.jpg", "view1_frontal.jpg", "patient99991_.* twice"),
        ("chexbert_labels/impression_fixed.json", "{", "", "impression_fixed.json, line 1: it is no JSON object"),
        ("chexbert_labels/impression_fixed.json", "1.0", "3", "impression_fixed.json, line 1: a label is '3'"),
    ],
)
def test_bad_files_of_plus_are_refused_by_line(tmp_path, file, old, new, message):
    root = plus_alone(tmp_path, [{"path_to_image": REPORTS[0][0], "Edema": 1.0}])
    text = (root / file).read_bytes().decode()
    assert old in text
    (root / file).write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(ValueError, match=message):
        read_release(root)


# CheXpert5x200


def test_all_images_of_the_tests_patients_leave_train_and_are_counted(release, tmp_path, capsys):
    path = "CheXpert-v1.0/train/patient99991/study1/view1_frontal.jpg"  # of the other size
    (release / "chexpert_5x200.csv").write_text(f"Path,Cardiomegaly\n{path},1.0\n")
    read = read_release(release)
    assert list(read.annotations) == ["train", "validation", "test5x200"]
    assert {image.patient_id for image in read.annotations["train"]} == {"patient99992", "patient99993"}
    assert [image.image_id for image in read.annotations["test5x200"]] == ["patient99991_study1_view1_frontal"]
    assert read.counts["train"]["images_excluded"] == 1 and read.counts["train"]["images"] == 4
    prepare(read, tmp_path / "out")
    assert "1 image left out of patients that are kept for a test" in capsys.readouterr().out
    rows = load_rows(str(tmp_path / "out"), "test5x200", str(tmp_path / "cache"), 1)
    assert rows["image_id"][:] == ["patient99991_study1_view1_frontal"]


def test_a_list_of_other_images_is_refused_and_one_with_some_counted(release):
    (release / "chexpert_5x200.csv").write_text("Path\ntrain/patient11111/study1/view1_frontal.jpg\n")
    with pytest.raises(ValueError, match="chexpert_5x200.csv names no image of the tables: patient11111_study1"):
        read_release(release)
    with open(release / "chexpert_5x200.csv", "a") as file:
        file.write("train/patient99993/study1/view1_frontal.jpg\n")
    assert read_release(release).counts["test5x200"]["images_not_in_table"] == 1
    (release / "chexpert_5x200.csv").write_text("Path\nsomething.jpg\n")
    with pytest.raises(ValueError, match="chexpert_5x200.csv, line 2: 'something.jpg' names no image"):
        read_release(release)


def test_five_by_two_hundred_draws_frontal_images_with_one_label_alone(release):
    chance = random.Random(0)
    lines, fitting = [], set()
    for number in range(60):
        cells = dict.fromkeys(HEADER.split(",")[5:], "")
        cells[FIVE_LABELS[number % 5]] = "1.0"
        kind = number // 5 % 4
        if kind == 1:
            cells[chance.choice(["Fracture", "Support Devices", "Lung Opacity"])] = chance.choice(["1.0", "-1.0"])
        if kind == 2:
            cells["Pneumothorax"] = "0.0"  # said not to be there: as good as not mentioned
        view = "Lateral," if kind == 3 else "Frontal,AP"
        lines.append(f"train/patient{number:05d}/study1/view1_frontal.jpg,Male,50,{view},{','.join(cells.values())}")
        write_picture(release / lines[-1].partition(",")[0])
        if kind in (0, 2):
            fitting.add(f"patient{number:05d}_study1_view1_frontal")
    write_tables(release, lines, VALID)
    images = read_release(release).annotations["train"]
    chosen = five_by_two_hundred(images, number=4)
    assert len(chosen) == 20 and set(chosen) <= fitting and len(set(chosen)) == 20
    labels = {image.image_id: image.diagnoses for image in images}
    assert [labels[image_id] for image_id in chosen] == [(label,) for label in FIVE_LABELS for _ in range(4)]
    assert chosen == five_by_two_hundred(images[::-1], number=4) != five_by_two_hundred(images, number=4, seed=1)
    (release / "chexpert_5x200.csv").write_text("\n".join(["Path", *chosen]) + "\n")  # the names serve as paths
    assert len(read_release(release).annotations["test5x200"]) == 20
    with pytest.raises(ValueError, match="Atelectasis stands alone in 6 frontal images, not in 7"):
        five_by_two_hundred(images, number=7)
