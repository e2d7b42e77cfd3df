import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import STATES, row_features
from litegpt.datasets_scripts.mimic_cxr import DIAGNOSIS_LABELS, FINDING_LABELS, read_release
from litegpt.datasets_scripts.preparation.prepare import load_release
from litegpt.datasets_scripts.preparation.summary import summary_in_words
from litegpt.datasets_scripts.rows import data_set_facts, load_rows, recognised

METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
CHEXPERT = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
# (image, subject, study, view, split): a study of two images; an empty view; an odd one; a later study of a patient
IMAGES = [
    ("a", 10000001, 50000001, "PA", "train"),
    ("b", 10000001, 50000001, "LATERAL", "train"),
    ("c", 10000001, 50000002, "", "train"),
    ("d", 11000002, 50000003, "AP AXIAL", "validate"),
    ("e", 12000003, 50000004, "AP", "test"),
    ("f", 12000003, 50000005, "LL", "test"),
]
LABELS = {
    50000001: ",1.0,,-1.0,,,,,,0.0,,,,",
    50000002: ",,,,,,,,1.0,,,,,1.0",
    50000003: ",,,,,,,,1.0,,,,0.0,",
    50000004: ",,,,,,,,,,,,,",
}
FOLDERS = {study: f"files/p{str(subject)[:2]}/p{subject}/s{study}" for _, subject, study, *_ in IMAGES}
REPORTS = {
    50000001: "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n FINDINGS:\n\n"
    " The heart is\n enlarged. ___ sternotomy.\n\n IMPRESSION:\n\n No acute process.\n",
    50000002: " ADDENDUM:\n\n IMPRESSION:  Read by ___.\n                   FINAL REPORT\n IMPRESSION:  Pacemaker.\n",
    50000003: "\n",
    50000004: " FINAL REPORT\n HISTORY:  Cough.\n\n The lungs are clear.\n",
}


def dicom_id(letter: str) -> str:
    return "-".join([letter * 8] * 5)


def write_tables(root, images=IMAGES, labels=LABELS, packed=True):
    rest = "3056,2544,21770203,101522.5,CHEST (PA AND LAT),postero-anterior,Erect"
    tables = {
        "metadata": [METADATA]
        + [
            f"{dicom_id(i)},{subject},{study},CHEST (PA AND LAT),{view},{rest}"
            for i, subject, study, view, _ in images
        ],
        "split": ["dicom_id,study_id,subject_id,split"]
        + [f"{dicom_id(i)},{study},{subject},{split}" for i, subject, study, _, split in images],
        "chexpert": [CHEXPERT] + [f"1,{study},{cells}" for study, cells in labels.items()],
    }
    for table, lines in tables.items():
        text = ("\n".join(lines) + "\n").encode()
        name = f"mimic-cxr-2.0.0-{table}.csv"
        (root / f"{name}.gz").write_bytes(gzip.compress(text)) if packed else (root / name).write_bytes(text)


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(ord(path.name[0])).integers(0, 255, (40, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def release(tmp_path) -> Path:
    """Six images of five studies, of which the last has no image, no report and no labels."""
    root = tmp_path / "mimic-cxr-jpg"
    for image, _, study, *_ in IMAGES[:-1]:
        write_image(root / FOLDERS[study] / f"{dicom_id(image)}.jpg")
    for study, text in REPORTS.items():
        (root / f"{FOLDERS[study]}.txt").write_text(text)
    write_tables(root)
    return root


def test_the_labels_are_the_releases_but_for_no_finding():
    columns = CHEXPERT.split(",")[2:]
    assert len(DIAGNOSIS_LABELS) == 14 and set(DIAGNOSIS_LABELS) - {"No finding"} == set(columns) - {"No Finding"}


def test_tables_and_reports_become_annotations(release):
    read = read_release(release)
    assert {split: [image.view for image in images] for split, images in read.annotations.items()} == {
        "train": ["PA", "LATERAL", ""],
        "validation": ["AP AXIAL"],
        "test": ["AP", "LL"],
    }
    first, second, third = read.annotations["train"]
    assert (first.image_id, first.patient_id, first.diagnoses) == (dicom_id("a"), "10000001", ("Cardiomegaly",))
    assert (
        first.optional
        == second.optional
        == {
            "study_id": "50000001",
            "report_findings": "The heart is enlarged. ___ sternotomy.",
            "report_impression": "No acute process.",
            "mentioned": [
                {"label": "Cardiomegaly", "state": "positive"},
                {"label": "Edema", "state": "uncertain"},
                {"label": "Pleural Effusion", "state": "negative"},
            ],
        }
    )
    assert (third.optional["report_findings"], third.optional["report_impression"]) == (None, "Pacemaker.")
    texts = [image.optional["report_impression"] for image in read.annotations["test"]]
    assert texts == ["The lungs are clear.", None]


def test_no_finding_is_a_diagnosis_where_it_stands_alone_and_mentioned_always(release):
    read = read_release(release)
    with_device, normal = read.annotations["train"][2], read.annotations["validation"][0]
    assert with_device.diagnoses == ("Support Devices",) and normal.diagnoses == ("No finding",)
    assert {"label": "No finding", "state": "positive"} in with_device.optional["mentioned"]
    assert {"label": "Pneumothorax", "state": "negative"} in normal.optional["mentioned"]


def test_what_is_missing_is_counted(release):
    write_tables(release, [*IMAGES, ("9", 12000003, 50000005, "PA", "test")])
    table = release / "mimic-cxr-2.0.0-metadata.csv.gz"
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    lines[-1] = lines[-1].replace(dicom_id("9"), dicom_id("8"))  # listed is 9, known is 8
    table.write_bytes(gzip.compress("\n".join(lines).encode()))
    counts = read_release(release).counts
    assert counts["test"] == {
        "images": 2,
        "images_no_finding": 0,
        "images_unknown": 2,
        "images_not_in_table": 1,
        "images_without_labels": 1,
        "reports": 2,
        "reports_missing": 1,
        "reports_without_text": 0,
    }
    assert counts["none"] == {"images": 1}
    assert counts["validation"]["reports_without_text"] == 1 and counts["validation"]["images_no_finding"] == 1


def test_unpacked_tables_and_reports_in_a_folder_of_their_own_read_the_same(release):
    expected = read_release(release)
    for path in release.glob("*.gz"):
        path.unlink()
    write_tables(release, packed=False)
    for path in sorted(release.rglob("*.txt")):
        moved = release / "mimic-cxr-reports" / path.relative_to(release)
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
    assert read_release(release) == expected


def test_a_release_without_reports_has_no_columns_for_them(release):
    for path in release.rglob("*.txt"):
        path.unlink()
    read = read_release(release)
    assert read.columns == ("study_id", "patient_id", "mentioned")
    assert [rules["reports_missing"] for split, rules in read.counts.items() if split != "none"] == [2, 1, 2]


def test_a_table_that_pandas_saved_again_reads_the_same(release):
    expected = read_release(release)
    table = release / "mimic-cxr-2.0.0-metadata.csv.gz"
    text = gzip.decompress(table.read_bytes()).decode()
    assert ",,3056" in text
    table.write_bytes(gzip.compress(text.replace(",,3056", ",NaN,3056").encode()))
    assert read_release(release) == expected


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("split", "validate", "val", "split.csv.gz, line 5: the split is 'val', not one of train, validate, test"),
        ("chexpert", "-1.0", "2.0", "chexpert.csv.gz, line 2: Edema is '2.0', not 1.0, 0.0, -1.0 or empty"),
        ("chexpert", "1,50000002", "1,50000001", "chexpert.csv.gz, line 3: study 50000001 is in the table twice"),
        ("chexpert", "Edema", "Oedema", "chexpert.csv.gz has no column Edema"),
        ("metadata", dicom_id("b"), dicom_id("a"), "metadata.csv.gz, line 3: image aaaaaaaa-.* is in the table twice"),
        ("metadata", "ViewPosition", "View", "metadata.csv.gz has no column ViewPosition"),
    ],
)
def test_bad_tables_are_refused_with_a_sentence_that_names_file_and_line(release, table, old, new, message):
    path = release / f"mimic-cxr-2.0.0-{table}.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))
    with pytest.raises(ValueError, match=message):
        read_release(release)


def test_a_report_that_is_no_text_is_named(release):
    (release / f"{FOLDERS[50000001]}.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"s50000001\.txt is not a text file in UTF-8"):
        read_release(release)


def test_missing_tables_and_radiographs_are_named(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    for path in release.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="none of the radiographs that its tables name, such as files/p10"):
        read_release(release)
    (release / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no mimic-cxr-2.0.0-chexpert.csv.gz \(or .csv\)"):
        read_release(release)


def test_rows_have_reports_and_states(release, tmp_path):
    assert recognised(str(release)).FACTS.name == "mimic_cxr"
    rows = load_rows(str(release), "train", str(tmp_path / "cache"))
    columns = ("study_id", "patient_id", "report_findings", "report_impression", "mentioned")
    assert rows.features == row_features(FINDING_LABELS, DIAGNOSIS_LABELS, columns)
    row = rows[1]
    assert (row["study_id"], row["patient_id"], row["view"]) == ("50000001", "10000001", "LATERAL")
    assert row["findings"] == [] and row["image"].size == (32, 40) and row["report_impression"] == "No acute process."
    mentioned = [(DIAGNOSIS_LABELS[entry["label"]], STATES[entry["state"]]) for entry in row["mentioned"]]
    assert mentioned == [("Cardiomegaly", "positive"), ("Edema", "uncertain"), ("Pleural Effusion", "negative")]
    assert rows[2]["report_findings"] is None
    streamed = list(load_release(read_release(release), split="test", streaming=True))
    assert [row["image_id"] for row in streamed] == [dicom_id("e")]


def test_the_command_prepares_a_part_of_the_release(release, tmp_path):
    shutil.rmtree(release / "files" / "p11")  # not downloaded
    with pytest.raises(SystemExit, match="None of the validation radiographs"):
        main(["prepare", "mimic-cxr", "--data_dir", str(release), "--output_dir", str(tmp_path / "none")])
    write_image(release / FOLDERS[50000003] / f"{dicom_id('d')}.png")
    out = tmp_path / "out"
    assert main(["prepare", "mimic-cxr", "--data_dir", str(release), "--output_dir", str(out)]) == 0
    words = " ".join(summary_in_words(out))
    assert "test: 1 row; 1 image of studies that the table of labels lacks; 1 report missing" in words
    assert "1 of 2 radiographs left out: 1 (there is none)" in words
    assert "**The text of reports is in this folder**" in (out / "README.md").read_text()
    assert data_set_facts(str(out))["license_name"] == "physionet-credentialed-health-data-license-1.5.0"
