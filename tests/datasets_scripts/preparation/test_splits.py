import csv
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from litegpt.datasets_scripts.preparation import splits
from litegpt.datasets_scripts.preparation.splits import (
    NEAR_DISTANCE,
    duplicates_across_splits,
    in_validation,
    near_pairs,
    perceptual_hash,
    pixel_hash,
    seventy_fifteen_fifteen,
)


def blobs(seed, size=(120, 100)):
    """A smooth random picture: two seeds are as different as two pictures can be."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def distance(image_a, image_b):
    bits = int(perceptual_hash(image_a), 16) ^ int(perceptual_hash(image_b), 16)
    return min(bits.bit_count(), 512 - bits.bit_count())


def changed(image, gamma=1.0, crop=0.0, scale=1.0, quality=95):
    image = image.point([round(255 * (value / 255) ** gamma) for value in range(256)])
    width, height = image.size
    image = image.crop(
        (round(width * crop), round(height * crop), round(width * (1 - crop)), round(height * (1 - crop)))
    )
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")


def manifest_row(split, image_id, image):
    hashes = {"pixel_hash": pixel_hash(image), "perceptual_hash": perceptual_hash(image)}
    return {"image_id": image_id, "split": split, "outcome": "ok", **hashes, "warnings": ""}


# The validation share


def test_who_is_in_validation_is_fixed_for_ever():
    # SHA-256("abc") starts with ba7816bf, SHA-256("") with e3b0c442 (FIPS 180-2): 0.7284 and 0.8894 of the range.
    assert not in_validation("abc", 0.728) and in_validation("abc", 0.729)
    assert not in_validation("", 0.889) and in_validation("", 0.890)
    held_out = [key for key in (f"{patient:08d}" for patient in range(1, 61)) if in_validation(key, 0.1)]
    assert held_out == ["00000022", "00000034"]


def test_a_larger_share_only_adds_and_the_share_is_met():
    keys = [f"patient {number}" for number in range(4000)]
    tenth, fifth = ({key for key in keys if in_validation(key, share)} for share in (0.1, 0.2))
    assert tenth < fifth
    assert len(tenth) / 4000 == pytest.approx(0.1, abs=0.02) and len(fifth) / 4000 == pytest.approx(0.2, abs=0.02)
    assert not any(in_validation(key, 0) for key in keys) and all(in_validation(key, 1) for key in keys)


@pytest.mark.parametrize("share", [-0.1, 1.5, 10, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="from 0 to 1"):
        in_validation("a", share)


# Hashes


def test_the_pixel_hash_tells_every_pixel_and_the_shape():
    image = blobs(0)
    same = Image.fromarray(np.asarray(image).copy())
    other = image.copy()
    other.putpixel((119, 99), image.getpixel((119, 99)) ^ 1)
    assert pixel_hash(image) == pixel_hash(same) != pixel_hash(other)
    assert pixel_hash(Image.new("L", (20, 30))) != pixel_hash(Image.new("L", (30, 20)))


def test_the_perceptual_hash_equals_a_written_out_cosine_transform():
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64), dtype=np.uint8))
    pixels = np.asarray(image)
    ranks = np.array([[(pixels < v).sum() + (pixels == v).sum() / 2 for v in row] for row in pixels]) / 64**2
    position = (np.arange(64) + 0.5) * np.pi / 64
    bits = int(perceptual_hash(image), 16)
    lowest = sorted((u * u + v * v, v, u) for v in range(64) for u in range(64))[1:513]
    for index, (_, v, u) in enumerate(lowest):
        coefficient = (ranks * np.cos(v * position)[:, None] * np.cos(u * position)[None, :]).sum()
        assert bits >> (511 - index) & 1 == (coefficient > 0)


def test_a_perceptual_hash_is_512_bits_in_hexadecimal():
    assert len(perceptual_hash(blobs(0))) == 128


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_a_blank_image_has_the_hash_zero_and_no_rounding_noise(grey):
    assert perceptual_hash(Image.new("L", (70, 90), grey)) == "0" * 128


def test_a_negative_has_all_bits_turned():
    image = blobs(4, (64, 64))
    negative = image.point([255 - value for value in range(256)])
    assert int(perceptual_hash(image), 16) ^ int(perceptual_hash(negative), 16) == 2**512 - 1


CHANGES = [
    {"quality": 60},
    {"scale": 0.5},
    {"gamma": 0.8},
    {"gamma": 1.25},
    {"crop": 0.01},
    {"crop": 0.01, "gamma": 1.25, "scale": 0.5, "quality": 60},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_versions_of_a_real_radiograph_are_near(real_cxr, change):
    for path in sorted((real_cxr / "nih_320" / "test").iterdir())[::8]:
        image = Image.open(path).convert("L")
        assert distance(image, changed(image, **change)) <= NEAR_DISTANCE, path.name


def test_no_two_real_radiographs_of_different_patients_are_near(real_cxr):
    with open(real_cxr / "nih_320" / "manifest.csv", newline="") as file:
        patients = {row["image"]: row["patient_id"] for row in csv.DictReader(file)}
    hashes = [perceptual_hash(Image.open(real_cxr / "nih_320" / name).convert("L")) for name in patients]
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(len(hashes), 8)
    names = list(patients)
    pairs = [(names[a], names[b]) for a, b, _ in near_pairs(words, words) if a < b]
    # One radiograph stands twice in the source, under two numbers of one patient.
    assert pairs == [("train/00002658_001.jpg", "train/00002658_002.jpg")]


# Images in two splits


def test_an_identical_and_a_changed_image_are_found_across_splits_the_identical_first():
    rows = [manifest_row("train", f"a{seed}", blobs(seed)) for seed in range(5)]
    rows += [manifest_row("test", f"b{seed}", blobs(seed)) for seed in range(10, 13)]
    rows += [
        manifest_row("test", "again", blobs(3)),
        manifest_row("validation", "darker", changed(blobs(4), gamma=1.25)),
    ]
    found = duplicates_across_splits(iter(rows))
    assert [pair[:5] for pair in found] == [
        ("train", "a3", "test", "again", "identical"),
        ("train", "a4", "validation", "darker", "near"),
    ]
    assert found[0][5] == 0 < found[1][5] <= NEAR_DISTANCE


def test_a_negative_is_found():
    rows = [manifest_row("train", "a", blobs(1)), manifest_row("test", "b", blobs(1).point(lambda value: 255 - value))]
    assert [pair[4] for pair in duplicates_across_splits(rows)] == ["near"]


def test_duplicates_within_a_split_do_not_count():
    rows = [manifest_row("train", image_id, blobs(0)) for image_id in ("a", "b")]
    assert duplicates_across_splits([*rows, manifest_row("test", "c", blobs(1))]) == []
    assert duplicates_across_splits([]) == []


def test_all_pairs_are_compared_whatever_the_block(monkeypatch):
    monkeypatch.setattr(splits, "BLOCK", 7)
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, 2**64, (count, 8), dtype=np.uint64) for count in (33, 20))
    b[[0, 6, 7, 19]] = a[[32, 7, 6, 0]]
    b[19, 3] ^= np.uint64(0b1011)
    assert sorted(near_pairs(a, b)) == [(0, 19, 3), (6, 7, 0), (7, 6, 0), (32, 0, 0)]


def test_the_limit_itself_is_near_and_one_bit_more_is_not():
    a = np.zeros((1, 8), dtype=np.uint64)
    bits = np.zeros((2, 512), dtype=np.uint8)
    bits[0, :NEAR_DISTANCE] = 1
    bits[1, : NEAR_DISTANCE + 1] = 1
    b = np.packbits(bits, axis=1).view(np.uint64)
    assert near_pairs(a, b) == [(0, 0, NEAR_DISTANCE)]


def test_the_child_process_gets_neither_datasets_nor_torch():
    code = (
        "import sys, litegpt.datasets_scripts.preparation.splits;"
        "print(*{'datasets', 'torch', 'pandas'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
    )


# GLoRIA's split


def test_gloria_s_split_hangs_on_the_keys_and_their_order_alone():
    keys = [f"patient {number:03d}" for number in range(200)]
    split_of = seventy_fifteen_fifteen(keys)
    assert list(sorted(split_of)) == keys and split_of == seventy_fifteen_fifteen(keys)
    assert [list(split_of.values()).count(split) for split in ("train", "validation", "test")] == [140, 30, 30]
    assert split_of != seventy_fifteen_fifteen(keys[::-1])


def test_fewer_keys_than_three_splits_need_are_train():
    assert seventy_fifteen_fifteen(["a", "b", "c"]) == dict.fromkeys("abc", "train")
    assert sorted(seventy_fifteen_fifteen(list("abcd")).values()) == ["test", "train", "train", "validation"]
    assert seventy_fifteen_fifteen([]) == {}
