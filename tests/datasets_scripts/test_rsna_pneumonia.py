import json
import re
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts import chestx_ray14
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.image_labels import abnormal, states_of
from litegpt.datasets_scripts.preparation.prepare import load_release, prepare
from litegpt.datasets_scripts.preparation.splits import seventy_fifteen_fifteen
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.datasets_scripts.rsna_pneumonia import (
    DIAGNOSIS_LABELS,
    FINDING_LABELS,
    read_release,
)
from tests.small_dicom import small_dicom

DOCS = Path(__file__).parents[2] / "docs" / "prepare_data.md"
LABEL_FILE, CLASS_FILE = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
MAPPING_FILE = "pneumonia-challenge-dataset-mappings_2018.json"
IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(20)]
CLASSES = ["Lung Opacity", "No Lung Opacity / Not Normal", "Normal"]


def write_tables(root, ids=IDS):
    """Every third image has two boxes, the next is abnormal without any, the next normal."""
    labels, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for number, image_id in enumerate(ids):
        boxes = ["250.0,160.0,200.0,350.0,1", "600.0,256,128.0,512.0,1"] if number % 3 == 0 else [",,,,0"]
        labels += [f"{image_id},{box}" for box in boxes]
        classes += [f"{image_id},{CLASSES[number % 3]}"] * len(boxes)
    (root / LABEL_FILE).write_text("\n".join(labels) + "\n")
    (root / CLASS_FILE).write_text("\n".join(classes) + "\n")


def write_mapping(root, ids=IDS):
    """Pairs of images are of one person."""
    entries = [
        {"subset_img_id": image_id, "img_id": f"{7 + number // 2:08d}_{number:03d}.png", "labels": ["Normal"], "n": 3}
        for number, image_id in enumerate(ids)
    ]
    other = {"subset_img_id": str(uuid.UUID(int=99)), "img_id": "00000099_000.png"}  # an image of the challenge's test
    (root / MAPPING_FILE).write_text(json.dumps([*entries, other]))


@pytest.fixture
def release(tmp_path):
    """A release of twenty radiographs of 64 x 64; one is DICOM."""
    root = tmp_path / "rsna"
    folder = root / "stage_2_train_images"
    folder.mkdir(parents=True)
    for number, image_id in enumerate(IDS):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
        if number:
            Image.fromarray(pixels).save(folder / f"{image_id}.png")
        else:
            dicom = small_dicom(pixels)
            dicom.ViewPosition, dicom.PatientSex, dicom.PatientAge = "PA", "F", "058Y"
            dicom.save_as(folder / f"{image_id}.dcm", enforce_file_format=True)
    (root / "stage_2_test_images").mkdir()
    Image.new("L", (8, 8)).save(root / "stage_2_test_images" / f"{uuid.UUID(int=5)}.png")
    write_tables(root)
    return root


def images_of(read):
    return {image.image_id: image for images in read.annotations.values() for image in images}


def test_the_split_is_the_published_one_in_size_and_that_of_scikit_learns_permutation():
    ids = sorted(str(uuid.UUID(int=number)) for number in range(26_684))
    split_of = seventy_fifteen_fifteen(ids)
    assert Counter(split_of.values()) == {"train": 18_678, "validation": 4_003, "test": 4_003}
    order = np.random.RandomState(0).permutation(len(ids))
    others = [ids[index] for index in order[:8_006]]
    halves = np.random.RandomState(0).permutation(8_006)
    assert {others[index] for index in halves[4_003:]} == {key for key, split in split_of.items() if split == "test"}


def test_tables_become_boxes_and_diagnoses(release):
    read = read_release(release)
    images = images_of(read)
    assert list(read.annotations) == ["train", "validation", "test"]
    assert {split: len(part) for split, part in read.annotations.items()} == {"train": 14, "validation": 3, "test": 3}
    assert [images[image_id].diagnoses for image_id in IDS[:3]] == [
        ("Pneumonia",),
        ("Other abnormality",),
        ("No finding",),
    ]
    assert [finding.box for finding in images[IDS[3]].findings] == [  # of 1024 pixels, in pixels of 64
        (15.625, 10, 28.125, 31.875),
        (37.5, 16, 45.5, 48),
    ]
    assert all(not images[image_id].findings for image_id in IDS[1:3])
    assert {image.patient_id for image in images.values()} == set(IDS)


def test_rows_go_end_to_end(release, tmp_path):
    rows = load_release(read_release(release), cache_dir=tmp_path / "cache")
    assert rows.num_rows == {"train": 14, "validation": 3, "test": 3}
    columns = ("patient_id", "sex", "age")
    assert rows["test"].features == row_features(FINDING_LABELS, DIAGNOSIS_LABELS, columns)
    by_id = {row["image_id"]: row for part in rows.values() for row in part}
    first = by_id[IDS[0]]
    assert (first["view"], first["sex"], first["age"], first["width"]) == ("PA", "F", 58, 64)
    assert first["findings"][0]["box"] == pytest.approx([250 / 1024, 160 / 1024, 450 / 1024, 510 / 1024])
    assert states_of(first, rows["test"].features) == {
        "Lung Opacity": "positive",
        "Pneumonia": "positive",
        "Other abnormality": "negative",
        "No finding": "negative",
    }
    loaded = load_rows(str(release), "train", str(tmp_path / "cache"), 1)
    assert abnormal(loaded).tolist() == [IDS.index(image_id) % 3 < 2 for image_id in loaded["image_id"]]


def test_without_the_classes_nothing_is_known_of_those_without_pneumonia(release, tmp_path):
    (release / CLASS_FILE).unlink()
    read = read_release(release)
    images = images_of(read)
    assert read.diagnosis_labels == ("Pneumonia",)
    assert [images[image_id].diagnoses for image_id in IDS[:3]] == [("Pneumonia",), (), ()]
    rows = load_rows(str(release), "train", str(tmp_path / "cache"), 1)
    normal = next(row for row in rows.remove_columns("image") if not row["diagnoses"])
    assert states_of(normal, rows.features) == {"Lung Opacity": "negative", "Pneumonia": "negative"}


def test_with_the_mapping_patients_are_the_nihs_and_those_on_both_sides_are_counted(release, tmp_path, capsys):
    write_mapping(release)
    read = read_release(release)
    images = images_of(read)
    assert [images[image_id].patient_id for image_id in IDS[:4]] == ["7", "7", "8", "8"]  # as ChestX-ray14's tables
    splits_of = {}
    for split, part in read.annotations.items():
        for image in part:
            splits_of.setdefault(image.patient_id, set()).add(split)
    shared = {split: sum(split in s and len(s) > 1 for s in splits_of.values()) for split in read.annotations}
    assert sum(shared.values()) > 0
    assert {split: read.counts[split]["patients_of_other_splits"] for split in shared} == shared
    assert all(read.counts[split]["images_not_in_mapping"] == 0 for split in shared)
    assert read.annotations.keys() == shared.keys()
    prepare(read, tmp_path / "out")
    assert f"{shared['test']} patients that other splits have too" in capsys.readouterr().out
    assert load_rows(str(tmp_path / "out"), "test", str(tmp_path / "cache"), 1)["patient_id"][0].isdigit()


def test_chestx_ray14_leaves_out_the_patients_of_the_test_as_the_docs_say(release, tmp_path):
    write_mapping(release)
    prepare(read_release(release), tmp_path / "prepared")
    code = re.search(r"```python\n(import litegpt\n\nrows = .*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    nih = tmp_path / "nih"
    (nih / "images").mkdir(parents=True)
    names = [f"{7 + number // 2:08d}_{number:03d}.png" for number in range(20)]
    for name in names:
        Image.new("L", (8, 8)).save(nih / "images" / name)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position"
    lines = [f"{name},No Finding,0,{int(name[:8])},58,M,PA" for name in names]
    (nih / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *lines]) + "\n")
    (nih / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h]\n")
    (nih / "train_val_list.txt").write_text("\n".join(names))
    code = code.replace("prepared/rsna-pneumonia", str(tmp_path / "prepared")).replace(
        "path/to/chestx-ray14", str(nih)
    )
    exec(code.replace("cache_dir=None", f"cache_dir={str(tmp_path / 'cache')!r}"), {})
    test = {image.patient_id for image in read_release(release).annotations["test"]}
    train = [image.patient_id for image in chestx_ray14.read_release(nih).annotations["train"]]
    assert test and not test & set(train) and len(train) == 20 - 2 * len(test)


def test_an_image_that_the_mapping_lacks_keeps_its_own_name_and_is_counted(release):
    write_mapping(release, IDS[1:])
    read = read_release(release)
    assert images_of(read)[IDS[0]].patient_id == IDS[0]
    assert sum(read.counts[split]["images_not_in_mapping"] for split in read.annotations) == 1


def test_what_the_tables_hold_is_counted(release):
    with open(release / LABEL_FILE, "a") as file:
        file.write(f"{IDS[3]},10,10,0,20,1\n")
    with open(release / CLASS_FILE) as file:
        kept = [line for line in file if IDS[1] not in line]
    (release / CLASS_FILE).write_text("".join(kept))
    counts = read_release(release).counts
    total = {rule: sum(counts[s][rule] for s in ("train", "validation", "test")) for rule in counts["train"]}
    assert total == {
        "images": 20,
        "images_with_boxes": 7,
        "images_no_finding": 6,
        "boxes": 14,
        "boxes_without_area": 1,
        "boxes_clipped": 0,
        "images_without_class": 1,
    }
    assert counts["none"] == {}  # the challenge's test images are no files of the tables


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (LABEL_FILE, "Target", "Goal", "stage_2_train_labels.csv has no column Target"),
        (LABEL_FILE, ",,,,0", "1,2,3,4,0", f"{LABEL_FILE}, line 4: image {IDS[1]} has a box and Target 0"),
        (LABEL_FILE, "512.0,1", "512.0,2", f"{LABEL_FILE}, line 3: an image label is '2', not 0 or 1"),
        (LABEL_FILE, "600.0,256,128.0,512.0,1", ",,,,0", f"line 3: image {IDS[0]} has Target 0 and Target 1"),
        (LABEL_FILE, "250.0", "wide", f"{LABEL_FILE}, line 2: a box coordinate is no number"),
        (LABEL_FILE, IDS[1], "", f"{LABEL_FILE}, line 4: the line names no image"),
        (CLASS_FILE, ",Normal\n", ",Fine\n", f"{CLASS_FILE}, line 5: unknown class 'Fine'"),
        (
            CLASS_FILE,
            ",Normal\n",
            ",Lung Opacity\n",
            f"line 5: image {IDS[2]} is 'Lung Opacity', but .* gives Target 0",
        ),
        (MAPPING_FILE, "[", "", f"{MAPPING_FILE} is not a JSON file"),
        (MAPPING_FILE, "_0", "-0", f"{MAPPING_FILE} names no patientId of {LABEL_FILE} beside an image such as"),
    ],
)
def test_bad_files_are_refused_with_a_sentence(release, file, old, new, message):
    write_mapping(release)
    text = (release / file).read_text()
    assert old in text
    (release / file).write_text(text.replace(old, new, -1 if old == "_0" else 1))
    with pytest.raises(ValueError, match=message):
        read_release(release)


def test_a_mapping_that_is_no_list_of_objects_is_refused(release):
    (release / MAPPING_FILE).write_text('{"a": 1}')
    with pytest.raises(ValueError, match="mappings_2018.json is no list of objects"):
        read_release(release)


def test_a_folder_without_radiographs_or_tables_is_refused(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    (release / "stage_2_train_images").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="holds none of the radiographs"):
        read_release(release)
    (release / LABEL_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"{LABEL_FILE} is missing"):
        read_release(release)


def test_the_command_prepares_a_folder(release, tmp_path):
    main(["prepare", "rsna-pneumonia", "--data_dir", str(release), "--output_dir", str(tmp_path / "out")])
    facts = data_set_facts(str(tmp_path / "out"))
    assert facts == data_set_facts(str(release)) and facts["name"] == "RSNA Pneumonia"
    assert load_rows(str(tmp_path / "out"), "test", str(tmp_path / "cache"), 1).num_rows == 3
