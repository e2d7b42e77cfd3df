import csv
import filecmp
import io
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from litegpt.command import main
from litegpt.datasets_scripts import phantom_cxr
from litegpt.datasets_scripts.phantom_cxr import TRANSFER_SYNTAXES, encode_dicom, read_phantom, write_release
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.rows import data_set_facts
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS, read_release
from litegpt.processing.radiograph import load_radiograph

PROGRAM = Path(phantom_cxr.__file__)
NUM_TRAIN, NUM_TEST = 40, 12


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "release"
    write_release(folder, NUM_TRAIN, NUM_TEST, (80, 96), seed=3)
    return folder


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def intersection_over_union(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0) * max(height, 0)
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


# Files


def test_the_same_picture_comes_from_every_encoding():
    pixels = draw_phantom(np.random.default_rng(5), 64).pixels
    expected = np.rint(255 * pixels)
    encodings, tags = set(), set()
    for seed in range(80):
        dataset = encode_dicom(pixels, "0" * 32, np.random.default_rng(seed))
        encodings.add((dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation))
        tags.add((dataset.BitsStored, "WindowCenter" in dataset, dataset.RescaleIntercept))
        shown = np.asarray(load_radiograph(dataset), np.float32)
        assert np.abs(shown - expected).max() <= 1
    assert {syntax for syntax, _ in encodings} == set(TRANSFER_SYNTAXES) and len(encodings) > 8
    assert len(tags) > 10


@pytest.mark.parametrize("seed", [1, 2, 7])
def test_every_transfer_syntax_holds_the_same_pixels(monkeypatch, seed):
    """Through pydicom's own decoders; it has none for lossless JPEG, there another codec than the encoder's reads."""
    pixels = draw_phantom(np.random.default_rng(5), (70, 64)).pixels
    stored, shown, headers = {}, {}, {}
    for syntax in TRANSFER_SYNTAXES:
        monkeypatch.setattr(phantom_cxr, "TRANSFER_SYNTAXES", {syntax: 1.0})
        file = io.BytesIO()
        encode_dicom(pixels, "0" * 32, np.random.default_rng(seed)).save_as(file, enforce_file_format=True)
        file.seek(0)
        dataset = pydicom.dcmread(file)
        assert dataset.file_meta.TransferSyntaxUID == syntax
        if syntax == JPEGLosslessSV1:
            (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
            assert frame[frame.index(b"\xff\xda") + 7] == 1  # the scan's predictor: PS3.5, 10.2 asks for the first
            stored[syntax] = imagecodecs.ljpeg_decode(frame)
        else:
            stored[syntax] = dataset.pixel_array
        shown[syntax] = np.asarray(load_radiograph(file.getvalue()))
        del dataset.PixelData
        headers[syntax] = dataset.to_json_dict()
    first = stored[ExplicitVRLittleEndian]
    assert first.shape == (64, 70) and 2 ** (dataset.BitsStored - 1) < first.max() < 2**dataset.BitsStored
    for syntax in TRANSFER_SYNTAXES:
        assert (stored[syntax] == first).all(), syntax
        assert (shown[syntax] == shown[ExplicitVRLittleEndian]).all(), syntax
        assert headers[syntax] == headers[ExplicitVRLittleEndian], syntax


def test_the_layout_is_vindr_cxrs(release):
    tables = {path.name: rows_of(path) for path in (release / "annotations").iterdir()}
    box_columns = ["class_name", "x_min", "y_min", "x_max", "y_max"]
    assert list(tables["annotations_train.csv"][0]) == ["image_id", "rad_id", *box_columns]
    assert list(tables["annotations_test.csv"][0]) == ["image_id", *box_columns]
    labels = [*FINDING_LABELS, "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease", "No finding"]
    assert list(tables["image_labels_train.csv"][0]) == ["image_id", "rad_id", *labels]
    assert list(tables["image_labels_test.csv"][0]) == ["image_id", *labels]
    for split, number, readers in (("train", NUM_TRAIN, 3), ("test", NUM_TEST, 1)):
        files = sorted(path.name for path in (release / split).iterdir())
        assert len(files) == number and all(re.fullmatch(r"[0-9a-f]{32}\.dicom", name) for name in files)
        images = Counter(row["image_id"] for row in tables[f"image_labels_{split}.csv"])
        assert images == {name.removesuffix(".dicom"): readers for name in files}
        assert {row["image_id"] for row in tables[f"annotations_{split}.csv"]} == set(images)


@pytest.mark.parametrize("split", ["train", "test"])
def test_boxes_are_pixels_and_agree_with_the_image_labels(release, split):
    boxes = defaultdict(set)
    for row in rows_of(release / "annotations" / f"annotations_{split}.csv"):
        boxes[row["image_id"], row.get("rad_id")].add(row["class_name"])
        edges = [row[name] for name in ("x_min", "y_min", "x_max", "y_max")]
        if row["class_name"] == "No finding":
            assert edges == [""] * 4
        else:
            left, top, right, bottom = map(float, edges)
            assert 0 <= left < right <= 80 and 0 <= top < bottom <= 96
    assert {"No finding"} in boxes.values() and len(set.union(*boxes.values())) > 3
    diagnoses = [label.replace("Other diseases", "Other disease") for label in DIAGNOSIS_LABELS]
    for row in rows_of(release / "annotations" / f"image_labels_{split}.csv"):
        seen = boxes[row["image_id"], row.get("rad_id")]
        assert {label for label in FINDING_LABELS if row[label] == "1"} == seen - {"No finding"}
        present = [label for label in diagnoses if row[label] == "1"]
        assert present and (present == ["No finding"]) == (seen == {"No finding"})


def test_dicoms_are_frontal_chest_radiographs_without_a_person(release):
    dataset = pydicom.dcmread(next((release / "train").iterdir()))
    assert (dataset.Modality, dataset.BodyPartExamined) == ("DX", "CHEST")
    assert (dataset.Columns, dataset.Rows, dataset.BitsAllocated) == (80, 96, 16)
    assert (dataset.PatientName, dataset.PatientIdentityRemoved) == ("PHANTOM", "YES")
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


def test_both_splits_have_two_views(release):
    for split in ("train", "test"):
        views = Counter(pydicom.dcmread(path).ViewPosition for path in (release / split).iterdir())
        assert set(views) == {"PA", "AP"} and views["PA"] > 2 * views["AP"]


def test_readers_disagree_a_little():
    rng = np.random.default_rng(0)
    truth = [("Cardiomegaly", (0.3, 0.5, 0.7, 0.8)), ("Consolidation", (0.2, 0.5, 0.4, 0.7))]
    readings = [read_phantom(truth, rng) for _ in range(3000)]
    hearts = [box for seen in readings for label, box, _ in seen if label == "Cardiomegaly"]
    overlaps = [intersection_over_union(a, b) for a, b in zip(hearts, hearts[1:], strict=False)]
    assert 0.75 < np.mean(overlaps) < 0.95 and np.mean(np.array(overlaps) > 0.5) > 0.99
    assert 0.01 < 1 - len(hearts) / len(readings) < 0.03
    renamed = [seen for seen in readings if "Infiltration" in [label for label, _, _ in seen]]
    assert 0.004 < len(renamed) / len(readings) < 0.02
    assert 0 < sum(len(seen) == 3 for seen in readings) < 60
    assert all(read_phantom([], rng) == [] for _ in range(300))  # or normal images would become conflicts


def test_three_readers_of_the_pool_annotate_a_training_image(release):
    readers = defaultdict(set)
    for row in rows_of(release / "annotations" / "annotations_train.csv"):
        readers[row["image_id"]].add(row["rad_id"])
    assert {len(names) for names in readers.values()} == {3}
    assert set.union(*readers.values()) <= {f"R{number}" for number in range(1, 18)}


# The program


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def assert_same_files(a, b):
    names = files_of(a)
    assert names == files_of(b)
    assert filecmp.cmpfiles(a, b, names, shallow=False) == (names, [], [])


def test_two_processes_write_the_same_bytes_as_one(release, tmp_path):
    write_release(tmp_path / "two", NUM_TRAIN, NUM_TEST, (80, 96), seed=3, num_proc=2)
    assert_same_files(release, tmp_path / "two")


def test_another_seed_gives_other_images(release, tmp_path):
    write_release(tmp_path, 2, 1, (80, 96), seed=4)
    assert not {path.name for path in (tmp_path / "train").iterdir()} & {p.name for p in (release / "train").iterdir()}


def test_a_second_run_writes_only_what_is_missing(tmp_path):
    write_release(tmp_path / "whole", 4, 1, 64, seed=1)
    write_release(tmp_path / "resumed", 4, 1, 64, seed=1)
    missing, kept = list((tmp_path / "resumed" / "train").iterdir())[:2]
    missing.unlink()
    (tmp_path / "resumed" / "annotations" / "annotations_train.csv").unlink()
    written = kept.stat().st_mtime_ns
    write_release(tmp_path / "resumed", 4, 1, 64, seed=1)
    assert_same_files(tmp_path / "whole", tmp_path / "resumed")
    assert kept.stat().st_mtime_ns == written


def test_a_second_run_draws_no_picture_that_is_there(tmp_path, monkeypatch):
    write_release(tmp_path, 6, 2, 64, seed=1)
    tables = {path: path.read_bytes() for path in (tmp_path / "annotations").iterdir()}
    for path in tables:
        path.unlink()
    monkeypatch.setattr(phantom_cxr, "draw_phantom", lambda *_: pytest.fail("drawn"))
    write_release(tmp_path, 6, 2, 64, seed=1)
    assert {path: path.read_bytes() for path in tables} == tables


def test_an_interrupted_run_leaves_no_half_written_image_and_no_table(tmp_path, monkeypatch):
    def fail_midway(dataset, path, **kwargs):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pydicom.dataset.Dataset, "save_as", fail_midway)
    with pytest.raises(KeyboardInterrupt):
        write_release(tmp_path, 2, 1, 64)
    assert not list(tmp_path.rglob("*.dicom")) and not list(tmp_path.rglob("*.csv"))
    monkeypatch.undo()
    write_release(tmp_path, 2, 1, 64)
    assert len(list(tmp_path.rglob("*.dicom"))) == 3 and not list(tmp_path.rglob("*.incomplete"))


def test_other_settings_are_refused_with_their_names(release):
    before = (release / "phantom.json").read_text()
    with pytest.raises(ValueError, match="other settings .seed 3, not 5.: choose another folder"):
        write_release(release, NUM_TRAIN, NUM_TEST, (80, 96), seed=5)
    assert (release / "phantom.json").read_text() == before
    assert json.loads(before)["width"] == 80


def test_a_folder_of_other_things_is_refused(tmp_path):
    """Above all the real release, whose tables would be overwritten."""
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="is not empty and has no phantom.json"):
        write_release(tmp_path, 1, 1, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_the_program_takes_flags(tmp_path):
    flags = ["--output_dir", tmp_path / "out", "--num_train", "1", "--num_test", "1", "--size", "70x64"]
    done = subprocess.run([sys.executable, PROGRAM, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "out" / "phantom.json").read_text())
    assert (settings["width"], settings["height"]) == (70, 64)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--size", "big"], "--size is a number of pixels or WIDTHxHEIGHT, not 'big'."),
        (["--size", "40"], "A phantom needs at least 64 pixels a side, but its size is 40x40."),
        (["--num_proc", "0"], "--num_proc must be at least 1, not 0."),
        (["--seed", "-1"], "--seed must be at least 0, not -1."),
    ],
)
def test_the_program_refuses_bad_numbers_in_one_sentence_and_writes_nothing(tmp_path, capsys, flags, sentence):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "phantom", "--output_dir", str(tmp_path / "out"), *flags])
    assert sentence in f"{stop.value.code} {capsys.readouterr().err}"
    assert not (tmp_path / "out").exists()


def test_a_run_that_failed_before_its_first_picture_does_not_stand_in_the_way(tmp_path):
    (tmp_path / "phantom.json").write_text('{"num_train": 7}')
    (tmp_path / "train").mkdir()
    phantom_cxr.write_release(tmp_path, num_train=1, num_test=1, size=64)
    with pytest.raises(ValueError, match=r"holds phantoms of other settings \(num_train 1, not 2\)"):
        phantom_cxr.write_release(tmp_path, num_train=2, num_test=1, size=64)


# Findings drawn into radiographs

SEMI = {"num_train": 12, "num_test": 4, "size": (80, 96), "seed": 3, "backgrounds_licence": "CC BY-NC-ND 4.0"}


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    """Two folders of normal chests: DICOM of four patients with two each, and PNG without patients, of which two show
    no lungs and one is torn."""
    folder = tmp_path_factory.mktemp("normals")
    (folder / "dicom").mkdir()
    (folder / "png").mkdir()
    for index in range(8):
        pixels = draw_phantom(np.random.default_rng(index), 96, labels=()).pixels
        dataset = encode_dicom(pixels, f"{index:032x}", np.random.default_rng(index))
        dataset.PatientID, dataset.PatientName = f"MRN-{index // 2}-4711", "Doe^Jane"
        dataset.AccessionNumber, dataset.PatientBirthDate = "ACC0815", "19480229"
        dataset.save_as(folder / "dicom" / f"{index}.dcm", enforce_file_format=True)
        grey = np.rint(255 * draw_phantom(np.random.default_rng(50 + index), 96, labels=()).pixels)
        grey = grey if index < 6 else 255 - grey
        Image.fromarray(grey.astype(np.uint8)).save(folder / "png" / f"{index}.png")
    (folder / "png" / "torn.png").write_bytes((folder / "png" / "1.png").read_bytes()[:200])
    return [str(folder / "dicom"), str(folder / "png")]


@pytest.fixture(scope="module")
def semi(normals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("semi") / "release"
    write_release(folder, **SEMI, backgrounds=normals)
    return folder


def test_drawn_findings_are_a_release_in_vindr_cxrs_layout(semi):
    release = read_release(str(semi))
    assert {split: len(images) for split, images in release.images.items()} == {"train": 12, "test": 4}
    assert any(image.findings for images in release.annotations.values() for image in images)
    for split, readers in (("train", 3), ("test", 1)):
        images = Counter(row["image_id"] for row in rows_of(semi / "annotations" / f"image_labels_{split}.csv"))
        assert images == {path.stem: readers for path in (semi / split).iterdir()}
        for path in (semi / split).iterdir():
            dataset = pydicom.dcmread(path)
            assert (dataset.Columns, dataset.Rows) == (80, 96)
            assert dataset.DerivationDescription == "semi-synthetic: findings drawn into a radiograph (seed 3)"
            assert np.asarray(load_radiograph(path)).std() > 20


def test_every_picture_says_on_what_it_was_drawn_and_shows_it(semi, normals):
    rows = rows_of(semi / "annotations" / "backgrounds.csv")
    assert list(rows[0]) == ["image_id", "background", "folder", "split"]
    assert Counter((row["split"], row["folder"]) for row in rows) == {
        ("train", "0"): 6,
        ("train", "1"): 6,
        ("test", "0"): 2,
        ("test", "1"): 2,
    }
    for row in rows:
        background = load_radiograph(Path(normals[int(row["folder"])]) / row["background"])
        drawn = load_radiograph(semi / row["split"] / f"{row['image_id']}.dicom")
        pair = [np.asarray(picture.resize((80, 96)), float).ravel() for picture in (background, drawn)]
        assert np.corrcoef(pair)[0, 1] > 0.7


def test_no_patient_is_in_both_splits(semi):
    patients = defaultdict(set)
    for row in rows_of(semi / "annotations" / "backgrounds.csv"):
        name = row["background"]
        patients[row["split"]].add(f"{int(name[0]) // 2}" if row["folder"] == "0" else name)
    assert patients["train"] and patients["test"] and not patients["train"] & patients["test"]
    ids = {
        split: {pydicom.dcmread(path).PatientID for path in (semi / split).iterdir()} for split in ("train", "test")
    }
    assert not ids["train"] & ids["test"] and len(ids["train"]) == len(patients["train"])


def test_nothing_of_the_patient_is_in_any_file(semi):
    for path in semi.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in (b"MRN-", b"4711", b"Doe", b"ACC0815", b"19480229") if secret in content]
    dataset = pydicom.dcmread(next((semi / "train").iterdir()))
    assert re.fullmatch("[0-9a-f]{16}", dataset.PatientID)
    assert (dataset.PatientName, dataset.PatientSex, dataset.PatientAge) == ("SEMI-SYNTHETIC", "", "")


def test_what_was_refused_and_what_is_unreadable_is_counted_and_said(normals, tmp_path, capsys):
    write_release(tmp_path, **SEMI, backgrounds=normals)
    said = capsys.readouterr()
    assert "png: lungs were found in 6 of 9 radiographs that were looked at; 2 were refused, 1 are unread" in said.out
    assert "all of its 9 files are taken for normal" in said.out and "the patient of 9 normal" in said.out
    assert "torn.png" in said.out + said.err
    settings = json.loads((tmp_path / "phantom.json").read_text())
    assert settings["kind"] == "semi-synthetic" and settings["backgrounds"] == ["dicom", "png"]
    assert settings["counts"][1] == {
        "folder": "png",
        "normal": 9,
        "looked_at": 9,
        "accepted": 6,
        "refused": 2,
        "unreadable": 1,
    }
    line = '{"folder": 1, "background": "torn.png", "lungs": "unreadable"}'
    assert line in (tmp_path / "lungs.jsonl").read_text().splitlines()


def test_drawn_findings_do_not_depend_on_the_number_of_processes(semi, normals, tmp_path):
    write_release(tmp_path / "two", **SEMI, backgrounds=normals, num_proc=2)
    assert_same_files(semi, tmp_path / "two")


def test_an_interrupted_drawing_resumes_to_the_same_files(semi, normals, tmp_path, monkeypatch):
    folder, written = tmp_path / "release", []

    def fail_midway(dataset, path, **kwargs):
        written.append(path)
        if len(written) == 5:
            Path(path).write_bytes(b"half")
            raise KeyboardInterrupt
        return save_as(dataset, path, **kwargs)

    save_as = pydicom.dataset.Dataset.save_as
    monkeypatch.setattr(pydicom.dataset.Dataset, "save_as", fail_midway)
    with pytest.raises(KeyboardInterrupt):
        write_release(folder, **SEMI, backgrounds=normals)
    assert len(list(folder.rglob("*.dicom"))) == 4 and not list(folder.rglob("annotations_*.csv"))
    monkeypatch.undo()
    monkeypatch.setattr(phantom_cxr, "state_of", lambda *_, **__: pytest.fail("lungs are known already"))
    write_release(folder, **SEMI, backgrounds=normals)
    assert not list(folder.rglob("*.incomplete"))
    assert_same_files(semi, folder)


def test_other_backgrounds_are_other_settings(semi, normals):
    with pytest.raises(ValueError, match="phantoms of other settings .*backgrounds"):
        write_release(semi, **SEMI, backgrounds=normals[:1])
    with pytest.raises(ValueError, match="phantoms of other settings .*kind semi-synthetic, not None"):
        write_release(semi, 12, 4, (80, 96), seed=3)


@pytest.mark.parametrize("licence", ["CC BY-NC-ND 4.0", None])
def test_the_backgrounds_licence_is_in_the_readme_and_on_the_card(normals, tmp_path, licence):
    write_release(tmp_path / "semi", 4, 2, 64, seed=5, backgrounds=normals, backgrounds_licence=licence)
    readme = (tmp_path / "semi" / "README.md").read_text()
    assert "keep the licence of the radiographs that they are drawn on" in readme and "only where" in readme
    assert (licence or "is unknown") in readme
    prepare(read_release(str(tmp_path / "semi")), tmp_path / "prepared")
    card = (tmp_path / "prepared" / "README.md").read_text()
    assert "changed copies of other radiographs" in card and "Apache" not in card and "of nobody" not in card
    assert f"\n{licence or 'Not stated'}" in card
    for folder in ("semi", "prepared"):
        facts = data_set_facts(str(tmp_path / folder))
        assert facts["license_name"] == (licence and "cc-by-nc-nd-4.0") and "Semi-synthetic" in facts["name"]


def test_large_pictures_are_drawn_smaller_and_enlarged(normals, tmp_path):
    write_release(tmp_path, 1, 1, (600, 700), backgrounds=normals[:1])
    picture = load_radiograph(next((tmp_path / "train").iterdir()))
    assert picture.size == (600, 700)
    for row in rows_of(tmp_path / "annotations" / "annotations_train.csv"):
        assert not row["x_max"] or float(row["x_max"]) <= 600 and float(row["y_max"]) <= 700


def test_backgrounds_of_which_none_can_be_used_are_refused_in_one_sentence(tmp_path, capsys):
    folder = tmp_path / "noise"
    folder.mkdir()
    for index in range(3):
        grey = np.random.default_rng(index).integers(0, 255, (90, 90), np.uint8)
        Image.fromarray(grey).save(folder / f"{index}.png")
    flags = ["--output_dir", str(tmp_path / "out"), "--num_train", "2", "--num_test", "1", "--size", "64"]
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "phantom", *flags, "--backgrounds", str(folder)])
    assert "none of its 2 normal radiographs for train can be drawn on" in str(stop.value.code)
    assert "2 where no two lungs are found" in str(stop.value.code)
    assert not list((tmp_path / "out").rglob("*.dicom"))
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "phantom", *flags, "--backgrounds", str(tmp_path / "nowhere")])
    assert "nowhere is no folder" in str(stop.value.code)
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "phantom", *flags, "--backgrounds_licence", "mine"])
    assert "name these too" in str(stop.value.code)
