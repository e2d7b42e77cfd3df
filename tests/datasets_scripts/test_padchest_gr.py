import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts import vindr_cxr
from litegpt.datasets_scripts.padchest_gr import LABELS, read_release
from litegpt.datasets_scripts.rows import data_set_facts, load_rows, recognised

FILE, TABLE = "grounded_reports_20240819.json", "master_table.csv"


def sentence(text, abnormal=True, boxes=(), labels=(), **more):
    entry = {"sentence_en": text, "sentence_es": "En español.", "abnormal": abnormal}
    if abnormal:  # normal sentences often lack these
        entry |= {"boxes": list(boxes), "labels": list(labels), "locations": [], "progression": None}
    return entry | more


LEFT, RIGHT = [0.5, 0.5, 0.9, 0.9], [0.1, 0.5, 0.4, 0.9]
STUDIES = {
    "a_1": [
        sentence(
            "Both  effusions.", boxes=[LEFT, RIGHT], labels=["pleural effusion"], extra_boxes=[LEFT, [0, 0, 1, 1]]
        ),
        sentence("Normal heart size.", abnormal=False),
        sentence("Tube.", boxes=[[0.4, 0, 0.6, 0.5]], labels=["endotracheal tube"]),
    ],
    "b_2": [sentence("Clear lungs.", abnormal=False), sentence("Normal heart.", abnormal=False)],
    "c_3": [
        sentence("Large heart with atelectasis.", boxes=[LEFT], labels=["cardiomegaly", "laminar atelectasis"]),
        sentence("Basal bands.", boxes=[RIGHT], labels=[" Laminar atelectasis", "atelectasis"]),
        sentence("Scoliosis.", labels=["scoliosis"]),
    ],
    "d_4": [sentence("Nodule.", boxes=[LEFT], labels=["nodule"])],
}
SPLITS = {"a_1": "train", "b_2": "train", "c_3": "test", "d_4": "validation"}


def write_reports(root: Path, studies=STUDIES):
    entries = [
        {
            "StudyID": f"s{name}",
            "ReportID": "3",
            "PreviousImageID": None,
            "ImageID": f"{name}.png",
            "findings": findings,
        }
        for name, findings in studies.items()
    ]
    (root / FILE).write_text(json.dumps(entries), encoding="utf-8")


def write_table(root: Path, splits=SPLITS, patients=False):
    """A line a study and label, so that images stand several times."""
    header = "StudyID,ImageID,PatientSex_DICOM,label,label_group,split" + (",PatientID" if patients else "")
    lines = [
        f"s{name},{name}.png,F,{label},x,{split}{',p' + name if patients else ''}"
        for name, split in splits.items()
        for label in ("one", "two")
    ]
    (root / TABLE).write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture
def release(tmp_path) -> Path:
    """Four radiographs of 16 bits, and an earlier one that no report is about."""
    root = tmp_path / "padchest-gr"
    (root / "Padchest_GR_files" / "PadChest_GR").mkdir(parents=True)
    for name in STUDIES:
        pixels = np.random.default_rng(ord(name[0])).integers(0, 4095, (50, 40), dtype=np.uint16)
        Image.fromarray(pixels).save(root / "Padchest_GR_files" / "PadChest_GR" / f"{name}.png")
    (root / "Padchest_GR_files" / "Prior").mkdir()
    Image.new("L", (40, 50)).save(root / "Padchest_GR_files" / "Prior" / "z_9.png")
    write_reports(root)
    write_table(root)
    return root


def images_of(read):
    return {image.image_id: image for images in read.annotations.values() for image in images}


def test_the_labels_are_vindr_cxrs_and_none_is_meant_by_two():
    names = [name for names in LABELS.values() for name in names]
    assert set(LABELS) <= set(vindr_cxr.FINDING_LABELS) and len(names) == len(set(names))


def test_reports_become_sentences_with_their_boxes(release):
    read = read_release(release)
    assert {split: [i.image_id for i in images] for split, images in read.annotations.items()} == {
        "train": ["a_1", "b_2"],
        "validation": ["d_4"],
        "test": ["c_3"],
    }
    a = images_of(read)["a_1"].optional
    assert [(s["text"], len(s["boxes"])) for s in a["sentences"]] == [
        ("Both effusions.", 2),
        ("Normal heart size.", 0),
        ("Tube.", 1),
    ]
    assert a["sentences"][0]["boxes"][0] == pytest.approx((20, 25, 36, 45))  # in pixels of 40 x 50
    assert a["report_findings"] == "Both effusions. Normal heart size. Tube."
    assert (a["study_id"], a["sex"]) == ("sa_1", "F") and "patient_id" not in read.columns


def test_boxes_are_findings_where_one_label_of_vindr_cxr_means_them_and_normal_is_what_no_sentence_denies(release):
    images = images_of(read_release(release))
    assert [finding.label for finding in images["a_1"].findings] == ["Pleural effusion"] * 2
    assert [(f.label, f.box) for f in images["c_3"].findings] == [("Atelectasis", pytest.approx((4, 25, 16, 45)))]
    assert {name: image.diagnoses for name, image in images.items()} == {
        "a_1": (),
        "b_2": ("No finding",),
        "c_3": (),
        "d_4": (),
    }


def test_what_is_left_out_is_counted(release):
    write_reports(
        release, STUDIES | {"e_5": [], "d_4": [*STUDIES["d_4"], sentence("", boxes=[LEFT], labels=["mass"])]}
    )
    write_table(release, SPLITS | {"f_6": "train"})
    counts = read_release(release).counts
    assert counts["train"] == {
        "images": 2,
        "images_no_finding": 1,
        "sentences": 5,
        "boxes": 3,
        "boxes_without_area": 0,
        "boxes_of_further_readers": 2,
        "boxes_without_label": 1,
        "boxes_of_0_to_1": 3,
    }
    assert counts["test"]["boxes_without_label"] == 1  # two labels: whose box it is, nobody knows
    assert counts["validation"]["sentences_without_text"] == 1 and counts["validation"]["boxes"] == 1
    assert counts["none"] == {"images": 1, "images_without_report": 1, "files_not_in_table": 1}


def test_rows_go_end_to_end(release, tmp_path, capsys):
    write_table(release, patients=True)
    main(["prepare", "padchest-gr", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    assert "2 boxes of further readers left out; 1 box that no label of the rows means" in capsys.readouterr().out
    rows = load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1)
    assert rows.features["findings"].feature["label"].names == list(vindr_cxr.FINDING_LABELS)
    row = rows[0]
    assert row["patient_id"] == "pa_1" and row["image"].size == (40, 50)
    assert row["sentences"][0] == {"text": "Both effusions.", "boxes": [pytest.approx(LEFT), pytest.approx(RIGHT)]}
    facts = data_set_facts(str(tmp_path / "out"))
    assert facts == data_set_facts(str(release)) and facts["name"] == "PadChest-GR"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "(`report_findings`, `sentences`). It must not be passed on" in card


def test_a_few_boxes_beyond_the_edge_are_clipped_and_many_refused(release):
    studies = {name: [sentence("A mass.", boxes=[LEFT], labels=["mass"])] for name in STUDIES}
    write_reports(release, studies | {"a_1": [sentence("A mass.", boxes=[[0.5, 0.5, 1.2, 0.9]], labels=["mass"])]})
    assert read_release(release).counts["train"]["boxes_clipped"] == 1
    write_reports(release, {name: [sentence("A mass.", boxes=[[0, 0, 40, 50]])] for name in STUDIES})
    with pytest.raises(ValueError, match=f"{FILE}: boxes leave 4 of the 4 pictures"):
        read_release(release)


@pytest.mark.parametrize(
    ("studies", "message"),
    [
        ({"a_1": [sentence("x", boxes=[[0, 0, 1]])]}, r"study 1: the box \[0, 0, 1\] is not four numbers"),
        ({"a_1": [sentence("x", boxes=[[0, 0, 1, None]])]}, "study 1: the box .* is not four numbers"),
        ({"a_1": [sentence("x") | {"boxes": 3}]}, "study 1: boxes are 3, not a list"),
        ({"a_1": "none"}, "study 1: findings is no list of sentences"),
        ({"a_1": [], " a_1": []}, "study 2: image a_1 is in the file twice"),
        ({"q_1": []}, "master_table.csv names none of the images of grounded_reports"),
    ],
)
def test_bad_reports_are_refused_with_a_sentence(release, studies, message):
    write_reports(release, studies)
    with pytest.raises(ValueError, match=message):
        read_release(release)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split", "part", "master_table.csv has no column split"),
        ("x,train", "x,dev", "line 2: the split is 'dev', not one of train, validation, test"),
        ("one,x,test", "one,x,train", "line 7: image c_3 is in train too"),
    ],
)
def test_bad_tables_are_refused_with_a_sentence(release, old, new, message):
    text = (release / TABLE).read_text()
    (release / TABLE).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_release(release)


def test_files_that_are_missing_or_no_json_are_named(release, tmp_path):
    assert recognised(str(release)).LAYOUT.endswith("(PadChest-GR)")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    (release / FILE).write_text("[")
    with pytest.raises(ValueError, match=f"{FILE} is not a JSON file"):
        read_release(release)
    (release / FILE).write_text('{"a": 1}')
    with pytest.raises(ValueError, match=f"{FILE} is no list of studies"):
        read_release(release)
    (release / "grounded_reports_20250101.json").write_text("[]")
    with pytest.raises(ValueError, match="two versions: keep one"):
        read_release(release)
    for path in release.glob("*.json"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {FILE}"):
        read_release(release)
