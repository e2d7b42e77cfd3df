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
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from datasets_scripts import phantom_cxr, phantom_pictures
from datasets_scripts.phantom_cxr import TRANSFER_SYNTAXES, encode_dicom, read_phantom, write_release
from datasets_scripts.phantom_pictures import diagnoses_of, diagnosis_of, draw_findings, draw_phantom, sample_labels
from datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from processing.radiograph import load_radiograph

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


# Pictures


def test_every_label_has_one_drawing():
    assert sorted([*phantom_pictures.ANATOMY_CHANGES, *phantom_pictures.OVERLAYS]) == sorted(FINDING_LABELS)


@pytest.mark.parametrize("label", FINDING_LABELS)
def test_a_finding_is_seen_in_its_box(label):
    """The same chest with and without the finding: it changes its box, clearly, and little else."""
    for seed in range(4):
        normal = draw_phantom(np.random.default_rng(seed), 128, labels=())
        abnormal = draw_phantom(np.random.default_rng(seed), 128, labels=(label,))
        ((drawn, box),) = abnormal.findings
        assert drawn == label
        inside = np.zeros((128, 128), bool)
        left, top, right, bottom = (round(128 * edge) for edge in box)
        inside[top:bottom, left:right] = True
        change = np.abs(abnormal.pixels - normal.pixels)
        assert change[inside].mean() > 0.02
        assert change[inside].mean() > 10 * change[~inside].mean()
        assert np.percentile(change[inside], 95) > 0.1
        # What changes fills the box; part of a great vessel is hidden behind the mediastinum.
        rows, columns = (np.flatnonzero((change * inside > 0.03).any(axis)) for axis in (1, 0))
        assert (rows[-1] + 1 - rows[0]) / (bottom - top) > 0.7
        assert (columns[-1] + 1 - columns[0]) / (right - left) > 0.7


def test_the_smallest_findings_span_seven_hundredths_of_the_picture():
    for label in ("Nodule/Mass", "Calcification", "Lung cyst", "Rib fracture", "Clavicle fracture"):
        for seed in range(20):
            ((_, box),) = draw_phantom(np.random.default_rng(seed), 64, labels=(label,)).findings
            assert min(box[2] - box[0], box[3] - box[1]) >= 0.07


def test_labels_follow_the_papers_frequencies_with_a_floor():
    drawn = [sample_labels(np.random.default_rng(seed)) for seed in range(6000)]
    abnormal = [set(labels) for labels in drawn if labels]
    counts = Counter(label for labels in abnormal for label in labels)
    assert 0.31 < len(abnormal) / len(drawn) < 0.35
    assert set(counts) == set(FINDING_LABELS)
    assert min(counts.values()) > 18
    assert counts["Cardiomegaly"] > 6 * counts["Edema"]
    assert 1.8 < sum(counts.values()) / len(abnormal) < 2.1
    assert {len(labels) for labels in abnormal} == {1, 2, 3, 4}
    assert max(max(Counter(labels).values()) for labels in drawn if labels) == 2


def test_boxes_have_area_inside_the_picture():
    for seed in range(150):
        rng = np.random.default_rng(seed)
        labels = [str(label) for label in rng.choice(FINDING_LABELS, 4)]
        for _, (left, top, right, bottom) in draw_phantom(rng, 64, labels).findings:
            assert 0 <= left < right - 0.03 and right <= 1
            assert 0 <= top < bottom - 0.03 and bottom <= 1


def test_pixels_span_black_to_white_at_any_size():
    for size in (64, 97, (130, 64), (600, 700)):
        pixels = draw_phantom(np.random.default_rng(1), size).pixels
        assert pixels.shape == ((size, size) if isinstance(size, int) else size[::-1])
        assert pixels.dtype == np.float32
        assert (pixels.min(), pixels.max()) == (0, 1)


@pytest.mark.parametrize(
    ("size", "means", "samples"),
    [
        (256, [0.3964, 0.5464, 0.4989, 0.4944, 0.5979, 0.6486, 0.6497, 0.6436], [0.7435, 0.6657, 0.6314, 0.2607]),
        (
            (600, 700),
            [0.3969, 0.5467, 0.4989, 0.494, 0.5974, 0.6489, 0.6492, 0.6439],
            [0.1046, 0.6517, 0.0134, 0.6214],
        ),
    ],
)
def test_a_changed_drawing_needs_a_new_picture_version(size, means, samples):
    """Figures were measured on phantoms of this version. The samples see another grain, which the means do not."""
    pixels = draw_phantom(np.random.default_rng(11), size, ("ILD", "Pleural effusion", "Nodule/Mass")).pixels.ravel()
    assert phantom_pictures.PICTURE_VERSION == 3
    assert [part.mean() for part in np.array_split(pixels, 8)] == pytest.approx(means, abs=2e-4)
    assert pixels[[5000, 20000, 30000, 40000]] == pytest.approx(samples, abs=2e-4)


def test_findings_are_known_without_the_picture():
    for seed in range(12):
        for size in (96, (600, 700)):
            findings = draw_findings(np.random.default_rng(seed), size)
            assert findings == draw_phantom(np.random.default_rng(seed), size).findings


def test_diagnoses_follow_from_findings():
    upper, lower, large = (0.2, 0.2, 0.3, 0.3), (0.2, 0.6, 0.3, 0.7), (0.2, 0.6, 0.35, 0.75)
    expected = {
        ("Emphysema", lower): "COPD",
        ("Nodule/Mass", large): "Lung tumor",
        ("Nodule/Mass", lower): "Other diseases",
        ("Lung cavity", lower): "Tuberculosis",
        ("Pulmonary fibrosis", upper): "Tuberculosis",
        ("Pulmonary fibrosis", lower): "Other diseases",
        ("Infiltration", upper): "Tuberculosis",
        ("Infiltration", lower): "Pneumonia",
        ("Consolidation", upper): "Pneumonia",
        ("Cardiomegaly", large): "Other diseases",
    }
    assert {finding: diagnosis_of(*finding) for finding in expected} == expected
    assert set(expected.values()) | {"No finding"} == set(DIAGNOSIS_LABELS)
    assert diagnoses_of([]) == ["No finding"]
    assert diagnoses_of([("ILD", lower), ("Emphysema", lower), ("ILD", lower)]) == ["Other diseases", "COPD"]


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
        (["--num_proc", "0"], "num_train, num_test and seed cannot be negative, and num_proc is at least 1."),
    ],
)
def test_the_program_refuses_bad_numbers_in_one_sentence_and_writes_nothing(tmp_path, monkeypatch, flags, sentence):
    monkeypatch.setattr(sys, "argv", ["phantom_cxr.py", "--output_dir", str(tmp_path / "out"), *flags])
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        phantom_cxr.main()
    assert not (tmp_path / "out").exists()
