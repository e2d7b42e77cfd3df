import csv

import pytest

from litegpt.datasets_scripts.preparation.summary import (
    MANIFEST_COLUMNS,
    missing_radiograph,
    report_losses,
    summary_in_words,
    write_summary,
)
from litegpt.processing.dicom import RadiographError

PICTURE = "it is neither a DICOM file nor a picture (PNG, JPEG, ...)"


def line(split, image_id, outcome="ok", outside="0", pixel_hash=""):
    hashes = [pixel_hash or image_id, ("0" if pixel_hash else "5") * 128]
    return dict(zip(MANIFEST_COLUMNS, [image_id, split, outcome, *hashes, outside, ""], strict=True))


@pytest.fixture
def folder(tmp_path):
    """Five of eight train radiographs were left out for three reasons, and one of test's is in train too."""
    lines = [line("train", "a", pixel_hash="same"), line("train", "b", outside="2"), line("train", "c", outside="1")]
    lines += [line("train", f"d{index}", f"Cannot use d{index}.png: {PICTURE}.", outside="") for index in range(3)]
    lines += [line("train", "e", str(missing_radiograph("e")), outside="")]
    lines += [line("train", "f", "Cannot use f.dcm: its decoder crashed (signal 11).", outside="")]
    lines += [line("test", "g", pixel_hash="same")]
    write_summary(tmp_path, lines, {"train": {"images": 1_010, "images_dropped": 1_002}, "test": {"images": 1}})
    return tmp_path


def test_the_summary_counts_by_split_and_rule(folder):
    with open(folder / "summary.csv", newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)]
    assert rows == [
        ("split", "rule", "count"),
        ("train", "images", "1010"),
        ("train", "images_dropped", "1002"),
        ("test", "images", "1"),
        ("train", "images_left_out", "5"),
        ("train", "images_with_warnings", "0"),
        ("train", "boxes_outside_image", "3"),
        ("test", "images_left_out", "0"),
        ("test", "images_with_warnings", "0"),
        ("test", "boxes_outside_image", "0"),
    ]


def test_in_words_reasons_are_counted_without_the_images_names(folder):
    assert summary_in_words(folder) == [
        "train: 3 rows; 1,002 images dropped that one reader calls normal and another does not; "
        "3 findings left out whose box lies outside the image",
        f"train: 5 of 8 radiographs left out: 3 ({PICTURE}), 1 (there is none), 1 (its decoder crashed (signal 11))",
        "test: 1 row",
        "1 pair of equal or nearly equal images in two splits, see duplicates.csv",
    ]


def test_losses_are_warned_of_or_raised(folder, caplog):
    report_losses(folder, "skip")
    assert caplog.messages == [
        f"train: 5 of 8 radiographs were left out, see {folder / 'manifest.csv'}: d0, d1, d2, e, f",
        f"1 pairs of images are in two splits, see {folder / 'duplicates.csv'}.",
    ]
    with pytest.raises(RadiographError, match="^Cannot use d0.png"):
        report_losses(folder, "raise")
