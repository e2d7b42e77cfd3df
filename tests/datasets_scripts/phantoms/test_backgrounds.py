import csv

import datasets
import numpy as np
import pytest
from PIL import Image

from litegpt.datasets_scripts.open_i import read_release
from litegpt.datasets_scripts.phantom_cxr import encode_dicom
from litegpt.datasets_scripts.phantoms.backgrounds import (
    FOUND,
    REFUSED,
    UNREADABLE,
    Background,
    LungResults,
    in_drawing_order,
    is_normal,
    list_normals,
    load_background,
    split_patients,
    state_of,
)
from litegpt.datasets_scripts.phantoms.lungs import SIDE
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.vindr_cxr import LABEL_COLUMNS
from litegpt.datasets_scripts.vindr_cxr import read_release as read_vindr_cxr


def write_picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = draw_phantom(np.random.default_rng(seed), 96, labels=()).pixels
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(path)


def write_table(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def release(tmp_path):
    """In VinDr-CXR's layout: a1 normal, a2 of a1's patient with a box, a3 and a4 normal, a5 disputed, t1 of test."""
    folder = tmp_path / "release"
    for name in ("a1", "a2", "a3", "a4", "a5"):
        write_picture(folder / "train" / f"{name}.png")
    write_picture(folder / "test" / "t1.png")
    nothing = ["No finding", "", "", "", ""]
    header = ["image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max"]
    lines = [[name, "R1", *nothing] for name in ("a1", "a3", "a4", "a5")]
    lines += [["a2", "R1", "Nodule/Mass", 10, 10, 30, 30], ["a5", "R2", "ILD", 10, 10, 30, 30]]
    write_table(folder / "annotations" / "annotations_train.csv", header, *lines)
    write_table(folder / "annotations" / "annotations_test.csv", [*header[:1], *header[2:]], ["t1", *nothing])
    for split, keys, said in (
        ("train", ["image_id", "rad_id"], [line[:3] for line in lines]),
        ("test", ["image_id"], [["t1", "No finding"]]),
    ):
        rows = [[*line[:-1], *(int(line[-1] == label) for label in LABEL_COLUMNS)] for line in said]
        write_table(folder / "annotations" / f"image_labels_{split}.csv", [*keys, *LABEL_COLUMNS], *rows)
    write_table(folder / "patients.csv", ["file", "patient_id"], ["train/a1.png", "p1"], ["a2", "p1"], ["a3", "p3"])
    return folder


# Which ones


def test_normals_of_a_release_without_patients_who_have_a_box(release):
    normals, said = list_normals(str(release), 2)
    assert [(normal.name, normal.folder) for normal in normals] == [("a3", 2), ("a4", 2)]  # of train alone
    assert normals[0].patient == "p3" and normals[1].patient == "2/a4"
    assert "2 of 6 radiographs are normal ones" in said[0] and "1 of patients with a box" in said[0]
    assert "the patient of 1 normal radiographs is unknown" in said[1] and "patients.csv" in said[1]
    (release / "patients.csv").unlink()
    assert [normal.name for normal in list_normals(str(release), 0)[0]] == ["a1", "a3", "a4"]


def test_a_box_counts_though_its_picture_is_missing(release):
    (release / "train" / "a2.png").unlink()
    (release / "train" / "a4.png").unlink()
    assert [normal.name for normal in list_normals(str(release), 0)[0]] == ["a3"]


def test_normals_of_a_prepared_data_set_are_the_releases(release, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    prepare(read_vindr_cxr(str(release), "union"), tmp_path / "prepared")
    write_table(tmp_path / "prepared" / "patients.csv", ["file", "patient_id"], ["a1", "p1"], ["a2", "p1"])
    normals, _ = list_normals(str(tmp_path / "prepared"), 0)
    assert [normal.name for normal in normals] == ["a3", "a4"]
    picture, lungs = load_background(normals[0], (96, 96))
    of_file, _ = load_background(list_normals(str(release), 0)[0][0], (96, 96))
    assert (picture == of_file).all() and lungs.shape == (2, SIDE, SIDE)


def test_normals_of_open_i_are_frontal_and_tagged_normal(tmp_path):
    tags = {"1": "normal", "2": "Opacity/lung/base", "3": "normal", "4": "Markings/lung"}
    reports = [[uid, tag, "Clear.", "Normal."] for uid, tag in tags.items()]
    write_table(tmp_path / "indiana_reports.csv", ["uid", "MeSH", "findings", "impression"], *reports)
    views = [[uid, f"{uid}_IM-{view[0]}.png", view] for uid in tags for view in ("Frontal", "Lateral")]
    write_table(tmp_path / "indiana_projections.csv", ["uid", "filename", "projection"], *views)
    for _, name, _ in views:
        write_picture(tmp_path / "images" / name)
    assert len(read_release(tmp_path).annotations["train"]) == 8
    normals, said = list_normals(str(tmp_path), 0)
    assert [(normal.name, normal.patient) for normal in normals] == [("1_IM-F", "1"), ("3_IM-F", "3")]
    assert "2 laterals" in said[0] and len(said) == 1


def test_a_folder_that_is_no_data_set_is_taken_for_normal(tmp_path):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "more" / "b.jpg")
    pixels = draw_phantom(np.random.default_rng(1), 96, labels=()).pixels
    dataset = encode_dicom(pixels, "0" * 32, np.random.default_rng(0))
    dataset.PatientID = "MRN 4711"
    dataset.save_as(tmp_path / "IM0001", enforce_file_format=True)
    normals, said = list_normals(str(tmp_path), 0)
    assert [(normal.name, normal.patient) for normal in normals] == [
        ("IM0001", "MRN 4711"),
        ("a.png", "0/a.png"),
        ("more/b.jpg", "0/more/b.jpg"),
    ]
    assert "all of its 3 files are taken for normal" in said[0] and "the patient of 2 normal" in said[1]
    write_table(
        tmp_path / "patients.csv", ["file", "patient_id"], ["a.png", "x"], ["more/b.jpg", "x"], ["IM0001", "y"]
    )
    normals, said = list_normals(str(tmp_path), 0)
    assert [normal.patient for normal in normals] == ["y", "x", "x"] and len(said) == 1


def test_folders_without_normals_are_refused_with_their_name(tmp_path, release):
    with pytest.raises(FileNotFoundError, match="--backgrounds .*nowhere is no folder"):
        list_normals(str(tmp_path / "nowhere"), 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no radiographs"):
        list_normals(str(tmp_path / "empty"), 0)
    for name in ("a1", "a3", "a4"):
        (release / "train" / f"{name}.png").unlink()
    (release / "test" / "t1.png").unlink()
    write_picture(release / "test" / "other.png")
    table = release / "annotations" / "annotations_test.csv"
    table.write_text(table.read_text().replace("t1", "other").replace("No finding,,,,", "ILD,1,1,9,9"))
    labels = release / "annotations" / "image_labels_test.csv"
    labels.write_text(labels.read_text().replace("t1", "other"))
    with pytest.raises(ValueError, match="has no normal frontal radiograph"):
        list_normals(str(release), 0)


def test_normal_is_no_finding_and_nothing_else():
    assert is_normal(["No finding"]) and is_normal(["No Finding", "Support Devices"])
    assert not is_normal([]) and not is_normal(["No finding", "ILD"]) and not is_normal(["Support Devices"])


# Splits


def some(folder, number, patients):
    return [Background(folder, f"{index}.png", f"p{index % patients}", "") for index in range(number)]


def test_every_patient_is_in_one_split_and_every_folder_in_both():
    folders = [some(0, 40, 20), some(1, 30, 10), [Background(2, "a", "x", ""), Background(2, "b", "y", "")]]
    split_of = split_patients(folders, 90, 10, seed=0)
    for backgrounds in folders:
        splits = {split_of[background.patient] for background in backgrounds}
        assert splits == {"train", "test"}
    assert sum(split == "test" for split in split_of.values()) == 2 + 1  # of 20, with the 10 of both folders; of 2
    assert split_of == split_patients(folders, 90, 10, seed=0)
    assert len({str(split_patients(folders, 90, 10, seed)) for seed in range(9)}) > 3
    assert set(split_patients(folders, 5, 0, seed=0).values()) == {"train"}
    assert set(split_patients(folders, 0, 5, seed=0).values()) == {"test"}


def test_one_patient_cannot_be_split():
    with pytest.raises(ValueError, match="folder 2 of --backgrounds are of one patient"):
        split_patients([some(0, 4, 4), some(1, 4, 1)], 3, 1, seed=0)
    assert split_patients([some(0, 4, 1)], 3, 0, seed=0) == {"p0": "train"}


def test_the_order_does_not_depend_on_the_listing():
    backgrounds = some(0, 20, 5)
    assert in_drawing_order(backgrounds, 1) == in_drawing_order(backgrounds[::-1], 1)
    assert in_drawing_order(backgrounds, 1) != in_drawing_order(backgrounds, 2)


# Lungs


def test_what_becomes_of_a_background(tmp_path):
    write_picture(tmp_path / "good.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8)).save(tmp_path / "noise.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    states = [
        state_of(Background(0, name, name, str(tmp_path / name)), (96, 96)) for name in ("good.png", "noise.png")
    ]
    assert states == [(FOUND, ""), (REFUSED, "")]
    state, reason = state_of(Background(0, "torn.png", "", str(tmp_path / "torn.png")), (96, 96))
    assert state == UNREADABLE and "torn.png" in reason and "damaged or cut short" in reason
    picture, _ = load_background(Background(0, "good.png", "", str(tmp_path / "good.png")), (70, 120))
    assert picture.shape == (120, 70) and 0 <= picture.min() < 0.1 and 0.9 < picture.max() <= 1


def test_lungs_are_looked_for_once_and_for_no_more_backgrounds_than_are_needed(tmp_path):
    truth = {f"{index}.png": (FOUND if index % 3 else REFUSED) for index in range(200)}
    truth["5.png"] = UNREADABLE
    backgrounds = [Background(0, name, name, "") for name in truth]
    looked, said = [], []

    def look(some):
        for background in some:
            looked.append(background.name)
            yield truth[background.name], "5.png is torn" if truth[background.name] == UNREADABLE else ""

    usable, states = LungResults(tmp_path / "lungs.jsonl").usable(backgrounds, 20, look, said.append)
    assert [background.name for background in usable] == [n for n in truth if truth[n] == FOUND][:20]
    assert len(looked) == states.total() < 60 and said == ["5.png is torn"]
    whole = (tmp_path / "lungs.jsonl").read_bytes()

    # Interrupted in the middle of a line, and started again: the same result, the known ones are not looked at.
    (tmp_path / "lungs.jsonl").write_bytes(whole[: len(whole) // 2])
    known = whole[: len(whole) // 2].count(b"\n")
    before, looked[:] = len(looked), []
    again, same_states = LungResults(tmp_path / "lungs.jsonl").usable(backgrounds, 20, look, said.append)
    assert again == usable and same_states == states and len(looked) == before - known
    assert (tmp_path / "lungs.jsonl").read_bytes() == whole


def test_real_data_sets_have_normals(real_cxr):
    for name, least in (("nih_320", 300), ("openi_1400", 500)):
        if not (real_cxr / name).is_dir():
            pytest.skip(f"needs {real_cxr / name}")
        normals, _ = list_normals(str(real_cxr / name), 0)
        assert len(normals) >= least
        states = [state_of(normal, (160, 160))[0] for normal in normals[:30]]
        assert 8 <= states.count(FOUND) <= 24 and UNREADABLE not in states


def test_a_dicom_without_a_patient_id_is_a_patient_of_its_own(tmp_path):
    dataset = encode_dicom(np.eye(64, dtype=np.float32), "0" * 32, np.random.default_rng(0))
    dataset.PatientID = ""
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert list_normals(str(tmp_path), 0)[0][0].patient == "0/a.dcm"
