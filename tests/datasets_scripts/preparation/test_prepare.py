import csv
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import datasets
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from litegpt.datasets_scripts.annotations import Finding, ImageAnnotation, Reading, row_features
from litegpt.datasets_scripts.preparation import decoding_process
from litegpt.datasets_scripts.preparation import prepare as radiograph_dataset
from litegpt.datasets_scripts.preparation.decoding_process import DecodingProcess
from litegpt.datasets_scripts.preparation.prepare import load, load_release, prepare, shards_of
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.preparation.splits import in_validation
from litegpt.processing.dicom import RadiographError

FINDING_LABELS, DIAGNOSIS_LABELS = ("Mass", "Effusion"), ("Pneumonia", "No finding")
CRASH_AT_NAME = """
import ctypes, os, sys
from litegpt.datasets_scripts.preparation import decoding_process
from litegpt.processing.radiograph import load_radiograph

def load(path, windowing):
    if os.path.basename(path) == "train2.png":
        ctypes.string_at(0)
    return load_radiograph(path, windowing)

decoding_process.load_radiograph = load
decoding_process.main(*sys.argv[1:])
"""


class InThisProcess(DecodingProcess):
    """Starts no child: they take longer to start than these tests to run."""

    def __init__(self, windowing, shortest_edge, timeout_s):
        super().__init__(windowing, shortest_edge, timeout_s)
        self._how = (windowing, shortest_edge)

    def read(self, path):
        return decoding_process.decode(path, *self._how)


@pytest.fixture
def children(monkeypatch):
    """The child processes that a test starts, which all other tests do without."""
    started, start = [], subprocess.Popen
    monkeypatch.setattr(radiograph_dataset, "DecodingProcess", DecodingProcess)
    monkeypatch.setattr(
        decoding_process.subprocess,
        "Popen",
        lambda *args, **kwargs: started.append(start(*args, **kwargs)) or started[-1],
    )
    return started


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Five train and two test images of 100 x 60 pixels, each split in shards of two."""
    monkeypatch.setattr(radiograph_dataset, "ROWS_PER_SHARD", 2)
    monkeypatch.setattr(radiograph_dataset, "DecodingProcess", InThisProcess)
    rng = np.random.default_rng(0)
    images, annotations = {}, {}
    for split, count in (("train", 5), ("test", 2)):
        (tmp_path / "release" / split).mkdir(parents=True)
        names = [f"{split}{index}" for index in range(count)]
        images[split] = {name: str(tmp_path / "release" / split / f"{name}.png") for name in names}
        for path in images[split].values():
            Image.fromarray(rng.integers(0, 256, (60, 100), dtype=np.uint8)).save(path)
        annotations[split] = [ImageAnnotation(name, (), ("No finding",), patient_id=f"p{name}") for name in names]
    mass, outside = Finding("Mass", (-10, 30, 50, 60), 2), Finding("Effusion", (120, 0, 140, 50))
    reading = Reading("R1", (mass, outside), ("Pneumonia",))
    annotations["train"][0] = ImageAnnotation("train0", (mass, outside), ("Pneumonia",), (reading,), "p", "AP")
    return Release(
        facts=DataSetFacts("tiny", "Tiny", "https://example.org", "None", "https://example.org"),
        finding_labels=FINDING_LABELS,
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=images,
        counts={"train": {"boxes": 2}, "test": {"boxes": 0}},
    )


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def summary_of(folder):
    return {(row["split"], row["rule"]): int(row["count"]) for row in read_csv(folder / "summary.csv")}


def rows_of(dataset):
    """Rows with the pictures' pixels, so that they can be compared."""
    return [{**row, "image": (row["image"].mode, row["image"].size, row["image"].tobytes())} for row in dataset]


def names_of_files(folder):
    """Of all but the log, which tells the time."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "preparation.log"]
    return [path.relative_to(folder) for path in paths]


# Rows


def test_a_prepared_folder_is_an_ordinary_data_set(release, tmp_path):
    prepare(release, tmp_path / "out")
    dataset = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in dataset.items()} == {"train": 5, "test": 2}
    assert dataset["train"].features == row_features(FINDING_LABELS, DIAGNOSIS_LABELS)
    assert dataset["train"]["image_id"][:] == [f"train{index}" for index in range(5)]
    row = dataset["train"][0]
    np.testing.assert_array_equal(row["image"], Image.open(release.images["train"]["train0"]))
    assert (row["image"].mode, row["width"], row["height"], row["view"]) == ("L", 100, 60, "AP")
    assert row["diagnoses"] == [0] and dataset["test"][0]["diagnoses"] == [1]
    assert sorted(path.name for path in (tmp_path / "out" / "data").iterdir()) == [
        "test-00000-of-00001.parquet",
        *(f"train-0000{index}-of-00003.parquet" for index in range(3)),
    ]


def test_boxes_are_clipped_to_the_image_and_those_outside_are_counted(release, tmp_path):
    prepare(release, tmp_path / "out")
    (finding,) = load(tmp_path / "out", "train", tmp_path / "cache")[0]["findings"]
    assert (finding["label"], finding["readers"]) == (0, 2)
    np.testing.assert_allclose(finding["box"], [0, 0.5, 0.5, 1])
    assert summary_of(tmp_path / "out")["train", "boxes_outside_image"] == 1


def test_readings_are_kept_where_asked_for(release, tmp_path):
    prepare(release, tmp_path / "out", PreparationOptions(keep_readings=True))
    rows = load(tmp_path / "out", "train", tmp_path / "cache")
    ((reading,), nothing) = rows["readings"][:2]
    assert reading["rad_id"] == "R1" and reading["diagnoses"] == [0] and nothing == []
    assert [finding["label"] for finding in reading["findings"]] == [0]
    np.testing.assert_allclose(reading["findings"][0]["box"], [0, 0.5, 0.5, 1])


@pytest.fixture
def release_with_demographics(release):
    told = [{"sex": "F", "age": 58}, {"sex": "M"}, {"age": 0}]
    images = {
        split: [replace(image, optional=told[index % 3]) for index, image in enumerate(annotations)]
        for split, annotations in release.annotations.items()
    }
    return replace(release, annotations=images, columns=("sex", "age"))


def test_sex_and_age_are_columns_where_the_data_set_tells_them(release_with_demographics, tmp_path):
    prepare(release_with_demographics, tmp_path / "out")
    rows = load(tmp_path / "out", "train", tmp_path / "cache")
    assert rows.features == row_features(FINDING_LABELS, DIAGNOSIS_LABELS, ("sex", "age"))
    assert (rows["sex"][:], rows["age"][:]) == (["F", "M", "", "F", "M"], [58, None, 0, 58, None])
    assert rows.features["age"].dtype == "int32"
    streamed = load_release(release_with_demographics, "train", streaming=True)
    assert streamed.features == rows.features and rows_of(streamed) == rows_of(rows)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `sex`, `age` |" in card and "Sex and age are what the release's public tables say" in card


def prepare_until_second_shard(release, folder, monkeypatch):
    """A preparation that is interrupted when the second shard of the training split would be written."""
    write_shard = radiograph_dataset.ShardWriter.write

    def interrupted(writer, shard, *args):
        if shard.name.startswith("train-00001"):
            raise KeyboardInterrupt
        write_shard(writer, shard, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(radiograph_dataset.ShardWriter, "write", interrupted)
        prepare(release, folder)


def test_an_interrupted_preparation_with_sex_and_age_goes_on(release_with_demographics, tmp_path, monkeypatch):
    prepare(release_with_demographics, tmp_path / "whole")
    prepare_until_second_shard(release_with_demographics, tmp_path / "resumed", monkeypatch)
    assert len(list((tmp_path / "resumed" / "data").iterdir())) == 1
    prepare(release_with_demographics, tmp_path / "resumed")
    for split in ("train", "test"):
        whole, resumed = (load(tmp_path / name, split, tmp_path / "cache") for name in ("whole", "resumed"))
        assert rows_of(whole) == rows_of(resumed) and whole["age"][0] == 58


def test_a_change_of_age_is_noticed_by_the_cache(release_with_demographics, tmp_path):
    load_release(release_with_demographics, "test", tmp_path / "cache")
    older = [
        replace(image, optional={"sex": "F", "age": 59}) for image in release_with_demographics.annotations["test"]
    ]
    changed = replace(release_with_demographics, annotations={**release_with_demographics.annotations, "test": older})
    assert load_release(changed, "test", tmp_path / "cache")["age"][:] == [59, 59]


def test_pictures_are_stored_at_the_shortest_edge_and_boxes_do_not_change(release, tmp_path):
    prepare(release, tmp_path / "out", PreparationOptions(shortest_edge=30))
    row = load(tmp_path / "out", "train", tmp_path / "cache")[0]
    assert row["image"].size == (50, 30) and (row["width"], row["height"]) == (100, 60)
    np.testing.assert_allclose(row["findings"][0]["box"], [0, 0.5, 0.5, 1])


def test_two_child_processes_write_the_bytes_of_none(release, tmp_path, request):
    prepare(release, tmp_path / "one", num_proc=1)
    children = request.getfixturevalue("children")
    prepare(release, tmp_path / "two", num_proc=2)
    assert len(children) == 2
    names = names_of_files(tmp_path / "one")
    assert len(names) == 10
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_streaming_gives_the_same_rows_prepared_or_not(release, tmp_path):
    options = PreparationOptions(keep_readings=True, shortest_edge=30)
    prepare(release, tmp_path / "out", options)
    wanted = rows_of(load(tmp_path / "out", "train", tmp_path / "cache"))
    assert rows_of(load(tmp_path / "out", "train", streaming=True)) == wanted
    on_the_fly = load_release(release, "train", streaming=True, options=options)
    assert on_the_fly.num_shards == 3 and rows_of(on_the_fly) == wanted
    assert set(load_release(release, streaming=True)) == {"train", "test"}
    with pytest.raises(ValueError, match=r"splits train, test, and no slices, not 'train\[:2\]'"):
        load_release(release, "train[:2]", streaming=True)


def test_slices_and_fingerprints_are_the_same_in_another_process(release, tmp_path):
    here = load_release(release, "train[1:3]", tmp_path / "cache")
    assert here["image_id"][:] == ["train1", "train2"]
    (folder,) = tmp_path.glob("cache/tiny-*")
    program = (
        "import sys; from litegpt.datasets_scripts.preparation.prepare import load;"
        "print(load(sys.argv[1], 'train[1:3]', sys.argv[2])._fingerprint)"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, folder, tmp_path / "cache"], capture_output=True, text=True, check=True
    )
    assert (
        there.stdout.strip()
        == here._fingerprint
        == load_release(release, "train[1:3]", tmp_path / "cache")._fingerprint
    )


# What cannot be read


def test_what_was_left_out_stands_in_the_manifest_the_summary_and_a_warning(
    release, children, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(decoding_process, "COMMAND", (sys.executable, "-c", CRASH_AT_NAME))  # at train2
    del release.images["train"]["train3"]
    with open(release.images["train"]["train4"], "wb") as file:
        file.write(b"not an image")
    for _ in range(2):  # also when the folder is there already
        caplog.clear()
        prepare(release, tmp_path / "out")
        assert caplog.messages == [
            f"train: 3 of 5 radiographs were left out, see {tmp_path / 'out' / 'manifest.csv'}: train2, train3, train4"
        ]
    assert load(tmp_path / "out", "train", tmp_path / "cache")["image_id"][:] == ["train0", "train1"]
    manifest = read_csv(tmp_path / "out" / "manifest.csv")
    assert [row["outcome"] for row in manifest] == [
        "ok",
        "ok",
        "Cannot use train2.png: its decoder crashed (signal 11).",
        "There is no radiograph for image_id train3.",
        "Cannot use train4.png: it is neither a DICOM file nor a picture (PNG, JPEG, ...).",
        "ok",
        "ok",
    ]
    assert len(manifest[0]["pixel_hash"]) == 64 and manifest[2]["pixel_hash"] == ""
    summary = summary_of(tmp_path / "out")
    assert summary["train", "images_left_out"] == 3 and summary["test", "images_left_out"] == 0
    assert summary["train", "boxes"] == 2  # what the tables held
    for path in (tmp_path / "out").iterdir():
        assert path.is_dir() or str(tmp_path) not in path.read_text()


def test_on_error_raise_stops_at_a_bad_radiograph_and_skip_goes_on_from_its_whole_shards(release, tmp_path):
    (tmp_path / "release" / "train" / "train4.png").write_bytes(b"not an image")
    with pytest.raises(RadiographError, match=r"train4\.png: it is neither"):
        prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))
    whole = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").glob("*.parquet")}
    assert {path.name[:11] for path in whole} == {"train-00000", "train-00001"}
    with pytest.raises(FileNotFoundError, match="is no prepared data set, or its preparation was interrupted"):
        load(tmp_path / "out")

    prepare(release, tmp_path / "out", PreparationOptions(on_error="skip"))
    assert all(path.stat().st_mtime_ns == time for path, time in whole.items())
    assert load(tmp_path / "out", "train", tmp_path / "cache").num_rows == 4
    with pytest.raises(RadiographError, match=r"train4\.png"):
        prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))


def test_on_error_raise_names_a_missing_radiograph(release, tmp_path):
    del release.images["test"]["test1"]
    with pytest.raises(RadiographError, match="no radiograph for image_id test1"):
        prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))


def test_a_split_of_which_no_radiograph_can_be_read_is_refused(release, tmp_path):
    for path in release.images["test"].values():
        with open(path, "wb") as file:
            file.write(b"not an image")
    with pytest.raises(
        ValueError, match=r"None of the test radiographs of Tiny could be read; the first: .*test0\.png"
    ):
        prepare(release, tmp_path / "out")
    assert not (tmp_path / "out" / "README.md").exists()


def test_streaming_leaves_out_what_cannot_be_read(release, children, caplog):
    del release.images["train"]["train3"]
    with caplog.at_level(logging.WARNING):
        rows = list(load_release(release, "train", streaming=True))
    assert [row["image_id"] for row in rows] == ["train0", "train1", "train2", "train4"]
    assert caplog.messages == ["train: image train3 is left out: There is no radiograph for image_id train3."]
    assert children and all(child.poll() is not None for child in children)


# Interruption, and what a folder was made of


def test_ctrl_c_leaves_whole_shards_and_no_process_and_the_next_run_goes_on(release, children, tmp_path, monkeypatch):
    row_of = radiograph_dataset.row_of

    def press_ctrl_c(annotation, *arguments):
        if annotation.image_id == "train3":
            raise KeyboardInterrupt
        return row_of(annotation, *arguments)

    monkeypatch.setattr(radiograph_dataset, "row_of", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        prepare(release, tmp_path / "out", num_proc=2)
    assert children and all(child.poll() is not None for child in children)
    assert not (tmp_path / "out" / "README.md").exists()
    assert not (tmp_path / "out" / "data" / "train-00001-of-00003.parquet").exists()

    monkeypatch.setattr(radiograph_dataset, "row_of", row_of)
    prepare(release, tmp_path / "out", num_proc=2)
    prepare(release, tmp_path / "never_interrupted")
    for name in names_of_files(tmp_path / "never_interrupted"):
        assert (tmp_path / "never_interrupted" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_finished_folder_is_not_touched_again(release, tmp_path, monkeypatch):
    prepare(release, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(radiograph_dataset, "DecodingProcess", None)
    prepare(release, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_radiograph_that_was_repaired_after_a_failed_run_costs_its_shard_alone(release, tmp_path):
    """`raise` ends at train4, which is alone in the third shard; the first two are not written again."""
    (tmp_path / "release" / "train" / "train4.png").write_bytes(b"not an image")
    with pytest.raises(RadiographError):
        prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))
    whole = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").glob("*.parquet")}
    assert len(whole) == 2
    Image.new("L", (100, 60)).save(tmp_path / "release" / "train" / "train4.png")
    prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))
    assert all(path.stat().st_mtime_ns == time for path, time in whole.items())
    assert load(tmp_path / "out", "train", tmp_path / "cache").num_rows == 5


def test_a_whole_shard_whose_radiograph_changed_is_written_again(release, tmp_path):
    (tmp_path / "release" / "train" / "train4.png").write_bytes(b"not an image")
    with pytest.raises(RadiographError):
        prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))
    Image.new("L", (100, 60)).save(release.images["train"]["train4"])
    Image.new("L", (80, 70)).save(release.images["train"]["train2"])
    prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))
    assert load(tmp_path / "out", "train", tmp_path / "cache")["width"][:] == [100, 100, 80, 100, 100]


def test_a_run_that_could_read_nothing_of_a_split_does_not_block_the_one_after_its_repair(release, tmp_path):
    for path in release.images["test"].values():
        with open(path, "wb") as file:
            file.write(b"not an image")
    for _ in range(2):
        with pytest.raises(ValueError, match="None of the test radiographs of Tiny could be read"):
            prepare(release, tmp_path / "out")
    for path in release.images["test"].values():
        Image.new("L", (100, 60)).save(path)
    prepare(release, tmp_path / "out")
    assert load(tmp_path / "out", cache_dir=tmp_path / "cache").num_rows == {"train": 5, "test": 2}


def test_a_run_that_wrote_no_whole_shard_leaves_the_folder_to_other_options(release, tmp_path, monkeypatch):
    for images in release.images.values():
        for path in images.values():
            os.rename(path, f"{path}.away")
    with pytest.raises(ValueError, match="None of the train radiographs"):
        prepare(release, tmp_path / "out", PreparationOptions(shortest_edge=20))
    for images in release.images.values():
        for path in images.values():
            os.rename(f"{path}.away", path)
    (tmp_path / "out" / "data" / "train-00000-of-00009.parquet.incomplete").write_text("half a shard")
    prepare(release, tmp_path / "out", PreparationOptions(shortest_edge=30))
    prepare(release, tmp_path / "never_failed", PreparationOptions(shortest_edge=30))
    assert sorted(names_of_files(tmp_path / "out")) == sorted(names_of_files(tmp_path / "never_failed"))
    assert rows_of(load(tmp_path / "out", "test", tmp_path / "cache"))[0]["image"][1] == (50, 30)
    assert (tmp_path / "out" / "preparation.log").read_text().count("Tiny: 7 images") == 1


def test_whole_shards_of_other_options_or_files_are_refused_with_what_to_do(release, tmp_path, monkeypatch):
    (tmp_path / "release" / "train" / "train4.png").write_bytes(b"not an image")
    with pytest.raises(RadiographError):
        prepare(release, tmp_path / "out", PreparationOptions(on_error="raise"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    with pytest.raises(
        ValueError, match=r"\(shortest_edge 512, not 30\): choose another folder, or delete this one\.$"
    ):
        prepare(release, tmp_path / "out", PreparationOptions(shortest_edge=30))
    others = {split: [replace(image, view="LL") for image in images] for split, images in release.annotations.items()}
    with pytest.raises(ValueError, match="of other files, or by another version of this code"):
        prepare(replace(release, annotations=others), tmp_path / "out")
    with pytest.raises(ValueError, match="of other files"), monkeypatch.context() as patch:
        patch.setattr(radiograph_dataset, "ROWS_VERSION", 1_000)
        prepare(release, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_merge_that_differs_is_named(release, tmp_path):
    prepare(replace(release, merge="paper"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"prepared otherwise \(merge paper, not union\)"):
        prepare(replace(release, merge="union"), tmp_path / "out")


def test_a_validation_share_that_is_refused_leaves_a_folder_that_can_be_used(release, tmp_path):
    with pytest.raises(ValueError, match="leaves train or validation empty"):
        prepare(release, tmp_path / "out", PreparationOptions(validation_share=0.999999))
    prepare(release, tmp_path / "out")


def test_another_version_of_the_rows_prepares_anew_and_changed_code_alone_does_not(release, tmp_path, monkeypatch):
    load_release(release, "test", tmp_path / "cache")
    monkeypatch.setattr(radiograph_dataset, "__file__", __file__)
    load_release(release, "test", tmp_path / "cache")
    assert len(list(tmp_path.glob("cache/tiny-*"))) == 1
    monkeypatch.setattr(radiograph_dataset, "ROWS_VERSION", 1_000)
    load_release(release, "test", tmp_path / "cache")
    assert len(list(tmp_path.glob("cache/tiny-*"))) == 2


def test_a_folder_of_something_else_is_refused_and_not_touched(release, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="mine is not empty and has no preparation.json"):
        prepare(release, tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["letter.txt"]

    prepare(release, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    with pytest.raises(ValueError, match=r"prepared otherwise \(shortest_edge 512, not 30\)"):
        prepare(release, tmp_path / "out", PreparationOptions(shortest_edge=30))
    Image.new("L", (80, 100)).save(release.images["train"]["train0"])
    with pytest.raises(ValueError, match="of other files, or by another version of this code"):
        prepare(release, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_the_cache_notices_changed_annotations_images_and_options_and_nothing_else(release, tmp_path):
    def folders(release, **options):
        load_release(release, "train", tmp_path / "cache", options=PreparationOptions(**options))
        return len(list(tmp_path.glob("cache/tiny-*")))

    assert folders(release) == folders(release) == folders(release, on_error="raise", timeout_s=60) == 1
    assert folders(release, shortest_edge=30) == 2
    first = replace(release.annotations["train"][1], diagnoses=("Pneumonia",))
    changed = [release.annotations["train"][0], first, *release.annotations["train"][2:]]
    assert folders(replace(release, annotations={**release.annotations, "train": changed})) == 3
    os.utime(release.images["train"]["train0"], (0, 0))
    assert folders(release) == 4
    # A release that lies elsewhere is the same one.
    moved = {split: dict(images) for split, images in release.images.items()}
    (tmp_path / "release").rename(tmp_path / "elsewhere")
    for images in moved.values():
        images.update({name: path.replace("/release/", "/elsewhere/") for name, path in images.items()})
    assert folders(replace(release, images=moved)) == 4


# The summary and the log


def test_the_summary_is_printed_at_the_end_and_logged_by_what_loads(release, tmp_path, capsys, caplog):
    del release.images["train"]["train3"]
    (tmp_path / "release" / "train" / "train4.png").write_bytes(b"not an image")
    lines = [
        "train: 3 rows; 1 finding left out whose box lies outside the image",
        "train: 2 of 5 radiographs left out: 1 (there is none), "
        "1 (it is neither a DICOM file nor a picture (PNG, JPEG, ...))",
        "test: 2 rows",
    ]
    for _ in range(2):  # also when the folder is there already
        prepare(release, tmp_path / "out")
        assert capsys.readouterr().out.splitlines() == [f"{tmp_path / 'out'}:", *(f"  {line}" for line in lines)]
    with caplog.at_level(logging.INFO, logger=radiograph_dataset.__name__):
        load_release(release, "train", tmp_path / "cache")
    assert [f"Tiny: {line}" for line in lines] == caplog.messages[-3:] and capsys.readouterr().out == ""


def test_the_log_tells_when_each_shard_was_written_and_the_summary(release, tmp_path, monkeypatch):
    prepare_until_second_shard(release, tmp_path / "out", monkeypatch)
    prepare(release, tmp_path / "out")
    log = (tmp_path / "out" / "preparation.log").read_text()
    times, texts = zip(*(line.split("  ", 1) for line in log.splitlines()), strict=True)
    assert all(datetime.fromisoformat(time) for time in times) and list(times) == sorted(times)
    assert texts == (
        "Tiny: 7 images, of which 0 were prepared before",
        "2 of 7 images: train-00000-of-00003 is written",
        "Tiny: 7 images, of which 2 were prepared before",
        "4 of 7 images: train-00001-of-00003 is written",
        "5 of 7 images: train-00002-of-00003 is written",
        "7 of 7 images: test-00000-of-00001 is written",
        "train: 5 rows; 1 finding left out whose box lies outside the image",
        "test: 2 rows",
    )
    assert str(tmp_path) not in log and "ptrain" not in log  # neither where the release lies nor a patient's number


# Splits


def test_the_validation_split_comes_out_of_train_by_patient_and_a_larger_one_keeps_it(release, tmp_path):
    patients = [f"patient{index % 40}" for index in range(80)]
    train = [ImageAnnotation(f"i{index}", (), (), patient_id=patient) for index, patient in enumerate(patients)]
    release = replace(release, annotations={"train": train, "test": release.annotations["test"]})

    def patients_in(share):
        found = {"train": set(), "validation": set(), "test": set()}
        for shard in shards_of(release, share):
            found[shard.split].update(annotation.patient_id for annotation, _ in shard.images)
        return found

    none, few, more = patients_in(0), patients_in(0.2), patients_in(0.4)
    assert none["validation"] == set() and none["train"] == set(patients)
    assert 0 < len(few["validation"]) < len(more["validation"]) < 40 and few["validation"] < more["validation"]
    assert not few["train"] & few["validation"] and few["train"] | few["validation"] == set(patients)
    assert few["test"] == none["test"]


def test_patients_of_dicom_files_stay_on_one_side_of_the_validation_split(release):
    """Where the tables tell no patients."""
    held_out = next(f"P{number}" for number in range(99) if in_validation(f"P{number}", 0.5))
    kept = next(f"P{number}" for number in range(99) if not in_validation(f"P{number}", 0.5))
    for image_id, path in release.images["train"].items():
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
        dataset.PatientID = held_out if image_id in ("train1", "train3") else kept
        dataset.save_as(path, enforce_file_format=True)
    release.annotations["train"] = [replace(image, patient_id="") for image in release.annotations["train"]]
    validation = [image for shard in shards_of(release, 0.5) if shard.split == "validation" for image in shard.images]
    assert [annotation.image_id for annotation, _ in validation] == ["train1", "train3"]
    assert all(annotation.patient_id == "" for annotation, _ in validation)


def test_a_validation_share_that_leaves_a_side_empty_is_refused(release):
    with pytest.raises(ValueError, match="leaves train or validation empty"):
        shards_of(release, 0.999999)


def test_a_shard_that_is_gone_from_a_finished_folder_is_missed(release, tmp_path, monkeypatch):
    monkeypatch.setattr(radiograph_dataset, "ROWS_PER_SHARD", 2)
    prepare(release, tmp_path / "out")
    (tmp_path / "out" / "data" / "train-00001-of-00003.parquet").unlink()
    for use in (prepare, lambda _, folder: load(folder, streaming=True)):
        with pytest.raises(FileNotFoundError, match=r"train-00001-of-00003\.parquet is gone"):
            use(release, tmp_path / "out")


def test_a_folder_whose_name_would_be_a_pattern_or_whose_settings_are_damaged_is_refused(release, tmp_path):
    with pytest.raises(ValueError, match="for a pattern"):
        prepare(release, tmp_path / "out[1]")
    assert not (tmp_path / "out[1]").exists()
    prepare(release, tmp_path / "out")
    (tmp_path / "out" / "preparation.json").write_text("{")
    with pytest.raises(ValueError, match=r"preparation\.json is damaged"):
        prepare(release, tmp_path / "out")


def test_a_validation_split_is_prepared_between_train_and_test(release, tmp_path):
    prepare(release, tmp_path / "out", PreparationOptions(validation_share=0.5))
    sizes = {split: rows.num_rows for split, rows in load(tmp_path / "out", cache_dir=tmp_path / "cache").items()}
    assert list(sizes) == ["train", "validation", "test"]
    assert sizes["train"] + sizes["validation"] == 5 and sizes["validation"] > 0


def test_an_image_that_is_in_two_splits_is_listed_and_warned_of(release, tmp_path, caplog):
    Image.open(release.images["train"]["train4"]).save(release.images["test"]["test1"])
    prepare(release, tmp_path / "out")
    (pair,) = read_csv(tmp_path / "out" / "duplicates.csv")
    assert (pair["image_a"], pair["image_b"], pair["kind"]) == ("train4", "test1", "identical")
    assert "1 pairs of images are in two splits" in caplog.text


# Options


@pytest.mark.parametrize(
    "options",
    [
        {"shortest_edge": 0},
        {"windowing": "lung"},
        {"on_error": "ignore"},
        {"validation_share": 1.0},
        {"timeout_s": 0},
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        PreparationOptions(**options)


def test_what_a_folder_was_made_of_is_written_beside_it(release, tmp_path):
    prepare(release, tmp_path / "out", PreparationOptions(shortest_edge=30))
    found = json.loads((tmp_path / "out" / "preparation.json").read_text())
    assert found["options"]["shortest_edge"] == 30 and len(found["digest"]) == 64
