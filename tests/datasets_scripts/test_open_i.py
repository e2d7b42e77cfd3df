import csv
import shutil
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.open_i import (
    COLUMNS,
    DIAGNOSIS_LABELS,
    FINDING_LABELS,
    labels_of,
    name_of,
    read_release,
    xml_studies,
)
from litegpt.datasets_scripts.preparation.prepare import load_release, prepare
from litegpt.datasets_scripts.preparation.summary import summary_in_words
from litegpt.datasets_scripts.rows import data_set_facts, load_rows, recognised

REPORTS = ["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"]
# (uid, tags, findings, impression): both sections and two images; normal, three images; no findings; tags that mean
# nothing here; neither section; no image.
STUDIES = [
    ("9001", "Opacity/lung/base/left;Cardiomegaly/mild", "Heart, at  the XXXX,\n is enlarged.", "1. Left opacity."),
    ("9002", "normal", "Clear.", "No acute disease."),
    ("9003", "Thickening/pleura/right;Thickening/bronchi", "", "Stable."),
    ("9004", "Diaphragm/right/elevated", "Elevated diaphragm.", ""),
    ("9005", "No Indexing", "", " "),
    ("9006", "normal", "Clear.", "Clear."),
]
IMAGES = [
    ("9001", "9001_IM-0001-1001.dcm.png", "Frontal"),
    ("9001", "9001_IM-0001-2001.dcm.png", "Lateral"),
    ("9002", "9002_IM-0002-1001.dcm.png", "Frontal"),
    ("9002", "9002_IM-0002-1002.dcm.png", "Frontal"),
    ("9002", "9002_IM-0002-2001.dcm.png", "Lateral"),
    ("9003", "9003_IM-0003-1001.dcm.png", ""),
    ("9004", "9004_IM-0004-1001.dcm.png", "Frontal"),
    ("9005", "9005_IM-0005-1001.dcm.png", "Frontal"),
]
XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{uid}"/><pmcId id="{uid}"/>
 <MedlineCitation><Article><Abstract>
  <AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION"/>
  <AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">{impression}</AbstractText>
 </Abstract></Article></MedlineCitation>
 <MeSH>{tags}<automatic>cardiomegaly</automatic></MeSH>{images}
</eCitation>"""


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(map(ord, path.name))).integers(0, 255, (40, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def kaggle(tmp_path) -> Path:
    """Kaggle's layout: six reports, eight images of five of them, of which one has no file."""
    root = tmp_path / "open-i"
    for _, name, _ in IMAGES[:-1]:
        write_image(root / "images" / "images_normalized" / name)
    rows = [(uid, tags, "", "", "Cough", "None.", *sections) for uid, tags, *sections in STUDIES]
    write_csv(root / "indiana_reports.csv", [REPORTS, *rows])
    write_csv(root / "indiana_projections.csv", [("uid", "filename", "projection"), *IMAGES])
    return root


@pytest.fixture
def nlm(tmp_path) -> Path:
    """The same in the NLM's layout, whose names of images have two forms."""
    root = tmp_path / "nlm"
    (root / "ecgen-radiology").mkdir(parents=True)
    for uid, tags, findings, impression in STUDIES:
        names = [name.partition(".")[0] for other, name, _ in IMAGES if other == uid]
        ids = [f"CXR{name}" if uid == "9001" else f"CXR{uid}_{name}" for name in names]
        for image in ids:
            if uid != "9005":
                write_image(root / "NLMCXR_png" / f"{image}.png")
        text = XML.format(
            uid=uid,
            tags="".join(f"<major>{tag}</major>" for tag in tags.split(";")),
            findings=findings,
            impression=impression,
            images="".join(f'<parentImage id="{image}"><figureId>F1</figureId></parentImage>' for image in ids),
        )
        (root / "ecgen-radiology" / f"{uid[-1]}.xml").write_text(text)
    return root


def test_names_of_both_layouts_are_one():
    assert name_of("NLMCXR_png/CXR1_1_IM-0001-3001.png") == name_of("CXR1_1_IM-0001-3001") == "1_IM-0001-3001"
    assert name_of("CXR9_IM-2407-1001") == name_of("9_IM-2407-1001.dcm.png") == "9_IM-2407-1001"
    assert name_of("9/9_IM-2407-1001.dcm") == "9_IM-2407-1001"


@pytest.mark.parametrize(
    ("tags", "labels"),
    [
        (["normal"], ("No finding",)),
        (["normal", "Cardiomegaly"], ("Cardiomegaly",)),
        (["Lung/bilateral/hyperdistention"], ("Hyperinflation",)),
        (["Lung/hypoinflation"], ()),
        (["Aorta, Thoracic/tortuous/mild"], ("Aortic tortuosity",)),
        (["Aorta/prominent"], ()),
        (["Thickening/pleura/apex/left"], ("Pleural thickening",)),
        (["Thickening/bronchovascular"], ()),
        (["Thoracic vertebrae/degenerative", "Kyphosis"], ("Scoliosis or degenerative spine",)),
        (["Hydropneumothorax/left"], ("Pleural effusion", "Pneumothorax")),
        (["Subcutaneous Emphysema", "No Indexing", ""], ()),
        (["Nodule/lung", "Mass/lung", "Opacity/lung"], ("Lung Opacity", "Nodule/Mass")),
    ],
)
def test_tags_become_labels_by_their_head_and_the_part_that_must_be_there(tags, labels):
    assert labels_of(tags) == labels


def test_kaggles_tables_become_annotations(kaggle):
    read = read_release(kaggle)
    images = read.annotations["train"]
    assert list(read.annotations) == ["train"] and len(images) == 8 and len(read.images["train"]) == 7
    assert [(image.image_id, image.view, image.patient_id) for image in images[:3]] == [
        ("9001_IM-0001-1001", "Frontal", "9001"),
        ("9001_IM-0001-2001", "Lateral", "9001"),
        ("9002_IM-0002-1001", "Frontal", "9002"),
    ]
    assert [images[index].diagnoses for index in (0, 2, 5, 6, 7)] == [
        ("Cardiomegaly", "Lung Opacity"),
        ("No finding",),
        ("Pleural thickening",),
        (),
        (),
    ]
    assert images[0].optional == {
        "study_id": "9001",
        "report_findings": "Heart, at the XXXX, is enlarged.",
        "report_impression": "1. Left opacity.",
    }
    texts = [(image.optional["report_findings"], image.optional["report_impression"]) for image in images[5:]]
    assert texts == [(None, "Stable."), ("Elevated diaphragm.", None), (None, None)]


def test_what_is_left_out_is_counted(kaggle):
    with open(kaggle / "indiana_projections.csv", "a") as file:
        file.write("9009,9009_IM-0001-1001.dcm.png,Frontal\n")
    write_image(kaggle / "images" / "other.png")
    assert read_release(kaggle).counts == {
        "train": {
            "reports": 6,
            "reports_without_text": 1,
            "reports_without_image": 1,
            "images": 8,
            "images_no_finding": 3,
            "images_unknown": 2,
        },
        "none": {
            "reports": 0,
            "reports_not_there": 0,
            "images": 0,
            "images_without_report": 1,
            "files_not_in_table": 1,
        },
    }


def test_the_nlms_layout_reads_the_same_without_views(kaggle, nlm):
    expected, read = read_release(kaggle), read_release(nlm)
    assert read.counts == expected.counts
    for ours, theirs in zip(read.annotations["train"], expected.annotations["train"], strict=True):
        assert ours.view == "" and {**vars(ours), "view": theirs.view} == vars(theirs)
    assert read.images["train"].keys() == expected.images["train"].keys()


def test_of_png_and_dicom_the_png_is_read(nlm):
    expected = read_release(nlm).images
    (nlm / "NLMCXR_dcm" / "9001").mkdir(parents=True)
    (nlm / "NLMCXR_dcm" / "9001" / "9001_IM-0001-1001.dcm").write_bytes(b"")
    read = read_release(nlm)
    assert read.images == expected and read.counts["none"]["second_files"] == 1


@pytest.mark.parametrize("folder", ["pictures", "."])
def test_pictures_may_lie_elsewhere_and_be_jpegs(kaggle, folder):
    expected = set(read_release(kaggle).images["train"])
    (kaggle / folder).mkdir(exist_ok=True)
    for path in list((kaggle / "images" / "images_normalized").iterdir()):
        Image.open(path).save(kaggle / folder / f"{path.stem}.jpg")
    shutil.rmtree(kaggle / "images")
    assert set(read_release(kaggle).images["train"]) == expected


def test_ones_own_splits_name_the_studies_that_count(kaggle):
    write_csv(
        kaggle / "splits.csv",
        [("uid", "split"), ("CXR9001", "train"), ("9002", "test"), ("9006", "test"), ("9999", "test")],
    )
    read = read_release(kaggle)
    assert {split: len(images) for split, images in read.annotations.items()} == {"train": 2, "test": 3}
    assert read.counts["none"] == {"reports": 3, "reports_not_there": 1, "images": 3, "images_without_report": 0}
    assert read.counts["test"]["reports_without_image"] == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "splits.csv",
            "uid,split\n9001,validate\n",
            r"splits\.csv, line 2: the split is 'validate', not one of train",
        ),
        ("splits.csv", "uid,split\n1,train\n1,test\n", r"splits\.csv, line 3: study 1 is in train too"),
        ("indiana_reports.csv", "uid,findings,impression\n", r"indiana_reports\.csv has no column MeSH"),
        ("indiana_reports.csv", "uid,MeSH,findings,impression\n1,,,\n1,,,\n", "line 3: report 1 stands there twice"),
        ("indiana_reports.csv", "uid,MeSH,findings,impression\n,,a,\n", "line 2: report without a name"),
        (
            "indiana_projections.csv",
            "uid,filename,projection\n1,a.png,\n2,a.png,\n",
            "line 3: image a stands there tw",
        ),
    ],
)
def test_bad_tables_are_refused_with_a_sentence_that_names_the_file(kaggle, name, text, message):
    (kaggle / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_release(kaggle)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</eCitation>", "", r"1\.xml is no XML"),
        ("uId", "uid", r"1\.xml is no report of Open-i: it has no uId"),
        ("CXR9001", "CXR9002", r"2\.xml: report 9002 stands there twice"),
    ],
)
def test_bad_reports_are_refused_with_a_sentence_that_names_the_file(nlm, old, new, message):
    path = nlm / "ecgen-radiology" / "1.xml"
    path.write_text(path.read_text().replace(f"{old}", new, 1))
    with pytest.raises(ValueError, match=message):
        read_release(nlm)


def test_folders_without_tables_reports_or_radiographs_are_refused(kaggle, nlm, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match="neither indiana_reports.csv and indiana_projections.csv nor ecgen-rad"
    ):
        read_release(tmp_path)
    shutil.rmtree(kaggle / "images")
    with pytest.raises(FileNotFoundError, match="has no radiographs"):
        read_release(kaggle)
    for path in (nlm / "ecgen-radiology").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no reports \(\*\.xml\)"):
        read_release(nlm)


def test_rows_have_the_reports_and_no_boxes(kaggle, tmp_path):
    rows = load_rows(str(kaggle), "train", str(tmp_path / "cache"))
    assert rows.features == row_features(FINDING_LABELS, DIAGNOSIS_LABELS, COLUMNS)
    assert rows.num_rows == 7 and not any(rows["findings"][:])
    row = rows[0]
    assert (row["study_id"], row["patient_id"], row["view"]) == ("9001", "9001", "Frontal")
    assert row["report_findings"] == "Heart, at the XXXX, is enlarged." and row["image"].size == (32, 40)
    assert [DIAGNOSIS_LABELS[label] for label in row["diagnoses"]] == ["Cardiomegaly", "Lung Opacity"]
    assert rows[5]["report_findings"] is None and rows[6]["report_impression"] is None
    streamed = list(load_release(read_release(kaggle), split="train", streaming=True))
    assert [{**row, "image": None} for row in streamed] == [{**row, "image": None} for row in rows]


def test_the_command_prepares_a_folder_whose_card_says_what_is_in_it(kaggle, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["prepare", "open-i", "--data_dir", str(kaggle), "--output_dir", str(out)]) == 0
    assert datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"].num_rows == 7
    words = " ".join(summary_in_words(out))
    assert "1 report with neither findings nor impression; 1 report without a radiograph" in words
    card = (out / "README.md").read_text()
    assert "**The text of reports is in this folder**" in card and "must not be passed on" in card
    assert "boxed findings and" not in card and "Findings: boxes" not in card
    assert data_set_facts(str(out))["license_name"] == "cc-by-nc-nd-4.0"
    assert data_set_facts(str(kaggle))["name"] == "Open-i"


def needs(folder: Path) -> Path:
    if not folder.exists():
        pytest.skip(f"needs the real reports: no {folder}")
    return folder


def test_real_studies_in_kaggles_layout(real_cxr, tmp_path):
    folder = needs(real_cxr / "openi_1400")
    assert recognised(str(folder)).FACTS.name == "open_i"
    read = read_release(folder)
    images = read.annotations["train"]
    assert len({image.patient_id for image in images}) == read.counts["train"]["reports"] == 1400
    assert len(images) == len(read.images["train"]) == 2661
    assert {image.view for image in images} == {"Frontal", "Lateral"}
    assert {label for image in images for label in image.diagnoses} == set(DIAGNOSIS_LABELS)
    assert (read.counts["train"]["images_no_finding"], read.counts["train"]["images_unknown"]) == (1106, 345)


def test_all_real_reports_in_the_nlms_layout(real_cxr, tmp_path):
    with tarfile.open(needs(real_cxr / "reports" / "openi" / "NLMCXR_reports.tgz")) as archive:
        archive.extractall(tmp_path, filter="data")
    studies = list(xml_studies(str(tmp_path)))
    findings, impression = ([getattr(study, name) for study in studies] for name in ("findings", "impression"))
    assert len(studies) == 3955 and sum(len(study.images) for study in studies) == 7470
    assert sum(not study.images for study in studies) == 104
    assert sum(map(bool, findings)) == 3425 and sum(map(bool, impression)) == 3921
    assert sum(bool(a or b) for a, b in zip(findings, impression, strict=True)) == 3927
    assert {label for study in studies for label in labels_of(study.tags)} == set(DIAGNOSIS_LABELS)


def test_a_prepared_folder_reads_as_the_release(kaggle, tmp_path):
    prepare(read_release(kaggle), tmp_path / "out")
    rows = load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"))
    again = load_rows(str(kaggle), "train", str(tmp_path / "cache2"))
    assert rows.features == again.features and rows["report_impression"][:] == again["report_impression"][:]
