import io

import numpy as np
import pytest
from PIL import Image

from litegpt.command import main
from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.image_labels import states_of
from litegpt.datasets_scripts.preparation.prepare import load_release, prepare
from litegpt.datasets_scripts.preparation.splits import seventy_fifteen_fifteen
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.datasets_scripts.siim_pneumothorax import (
    DIAGNOSIS_LABELS,
    add_runs,
    mask_png,
    read_masks,
    read_release,
)
from tests.small_dicom import small_dicom

STEM = "1.2.276.0.7230010.3.1.4.8323329"
IDS = [f"{STEM}.{number}" for number in range(10)]
SIDE = 1024


def runs_of(mask) -> str:
    """Run lengths of a mask, (rows, columns) bool: the reverse of what is tested."""
    text, gap, length = [], 0, 0
    for inside in [*mask.T.ravel().tolist(), False]:
        if inside:
            length += 1
        elif length:
            text += [gap, length]
            gap, length = 1, 0
        else:
            gap += 1
    return " ".join(map(str, text))


def a_mask(*, x, y):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y[0] : y[1], x[0] : x[1]] = True
    return mask


TALL, WIDE = a_mask(x=(100, 140), y=(300, 500)), a_mask(x=(600, 900), y=(0, 16))


def write_table(root, lines, name="train-rle.csv", header="ImageId, EncodedPixels"):
    (root / name).write_text("\n".join([header, *lines]) + "\n")


LINES = [
    f"{IDS[0]}, {runs_of(TALL)}",
    f"{IDS[0]}, {runs_of(WIDE)}",  # another mask of the same image
    f"{IDS[1]}, {runs_of(TALL)}",
    *(f"{image_id},{' ' * (number % 2)}-1" for number, image_id in enumerate(IDS[2:])),
]


@pytest.fixture(scope="module")
def siim(tmp_path_factory):
    """A release of ten radiographs of 1024 x 1024, as DICOM in folders of studies and series."""
    root = tmp_path_factory.mktemp("siim") / "siim"
    for number, image_id in enumerate(IDS):
        folder = root / "dicom-images-train" / f"1.2.3.{number}" / f"1.2.4.{number}"
        folder.mkdir(parents=True)
        small = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
        dicom = small_dicom(small.repeat(16, axis=0).repeat(16, axis=1))
        dicom.ViewPosition, dicom.PatientSex, dicom.PatientAge, dicom.PatientID = "AP", "M", "031Y", f"secret-{number}"
        dicom.save_as(folder / f"{image_id}.dcm", enforce_file_format=True)
    write_table(root, LINES)
    return root


@pytest.fixture
def small(tmp_path):
    """The same table beside copies of 64 x 48 in PNG."""
    root = tmp_path / "siim_small"
    (root / "png").mkdir(parents=True)
    for image_id in IDS:
        Image.new("L", (64, 48), 9).save(root / "png" / f"{image_id}.png")
    write_table(root, LINES)
    return root


def test_runs_are_relative_and_go_column_by_column():
    mask = np.zeros(12, dtype=bool)  # 3 columns of 4 pixels
    add_runs(mask, "1 2 3 1", "t.csv, line 2")
    np.testing.assert_array_equal(mask.reshape(3, 4).T, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])


def test_a_mask_is_the_union_of_its_lines_and_minus_one_none(small):
    masks = read_masks(str(small / "train-rle.csv"))
    assert list(masks) == IDS and all(masks[image_id] is None for image_id in IDS[2:])
    np.testing.assert_array_equal(np.unpackbits(masks[IDS[0]], axis=1), TALL | WIDE)
    np.testing.assert_array_equal(np.unpackbits(masks[IDS[1]], axis=1), TALL)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("301060 3 1020", "are 3 numbers, not pairs of a gap and a length"),
        ("", "are 0 numbers, not pairs"),
        ("30 3.5", "are not whole numbers: '30 3.5'"),
        ("-1 5", "a run of 5 pixels after a gap of -1 cannot be"),
        ("5 0", "a run of 0 pixels after a gap of 5 cannot be"),
        ("1048570 3 2 2", "a run ends at pixel 1,048,577 of 1,048,576: outside the picture"),
    ],
)
def test_run_lengths_that_cannot_be_are_refused_by_line(small, cell, reason):
    write_table(small, [*LINES[:3], f"{IDS[2]}, {cell}", *LINES[4:]])
    with pytest.raises(ValueError, match=rf"train-rle\.csv, line 5: .*{reason}"):
        read_release(small)


def test_a_run_may_end_with_the_picture(small):
    write_table(small, [*LINES[:3], f"{IDS[2]}, 1048570 6", *LINES[4:]])
    mask = np.unpackbits(read_masks(str(small / "train-rle.csv"))[IDS[2]], axis=1)
    assert mask.sum() == 6 and mask[-6:, -1].all()


def test_rows_go_end_to_end(siim, tmp_path):
    rows = load_release(read_release(siim), cache_dir=tmp_path / "cache")
    assert rows.num_rows == {"train": 7, "validation": 2, "test": 1}
    features = row_features((), DIAGNOSIS_LABELS, ("sex", "age", "mask"))
    assert rows["train"].features == features
    by_id = {row["image_id"]: row for part in rows.values() for row in part}
    first, second, third = (by_id[image_id] for image_id in IDS[:3])
    assert first["mask"].mode == "L" and first["mask"].size == (first["width"], first["height"]) == (SIDE, SIDE)
    np.testing.assert_array_equal(np.asarray(first["mask"]), (TALL | WIDE) * 255)
    np.testing.assert_array_equal(np.asarray(second["mask"]), TALL * 255)
    assert (first["diagnoses"], third["diagnoses"], third["mask"]) == ([0], [], None)
    assert (first["view"], first["sex"], first["age"], first["findings"]) == ("AP", "M", 31, [])
    # Without a pneumothorax, which is not to say without any finding.
    assert states_of(third, features) == {"Pneumothorax": "negative"}
    loaded = load_rows(str(siim), "test", str(tmp_path / "cache"), 1)
    assert loaded["image_id"][:] == rows["test"]["image_id"][:]


def test_all_masks_of_an_image_are_in_one_split_and_the_split_hangs_on_the_names_alone(small):
    read = read_release(small)
    split_of = {image.image_id: split for split, images in read.annotations.items() for image in images}
    assert split_of == seventy_fifteen_fifteen(sorted(IDS)) and len(split_of) == 10
    write_table(small, LINES[::-1])
    again = read_release(small)
    assert split_of == {image.image_id: split for split, images in again.annotations.items() for image in images}


def test_a_mask_has_the_size_of_the_copy_that_lies_there(small):
    read = read_release(small)
    image = next(i for images in read.annotations.values() for i in images if i.image_id == IDS[1])
    mask = np.asarray(Image.open(io.BytesIO(image.optional["mask"])))
    assert mask.shape == (48, 64) and set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (6, 8, 14, 22)
    assert mask_png(np.packbits(TALL, axis=1), (SIDE, SIDE)) != image.optional["mask"]


def test_the_table_of_stage_2_comes_before_that_of_stage_1(small):
    write_table(small, [line.replace(" ", "", 1) for line in LINES[2:]], "stage_2_train.csv", "ImageId,EncodedPixels")
    read = read_release(small)
    assert sum(counts.get("images", 0) for counts in read.counts.values()) == 9
    assert read.counts["none"] == {"files_not_in_table": 1}


def test_what_the_table_holds_is_counted_and_said(small, tmp_path, capsys):
    read = read_release(small)
    assert sum(read.counts[split]["images_with_masks"] for split in read.annotations) == 2
    (small / "png" / f"{IDS[5]}.png").unlink()
    prepare(read_release(small), tmp_path / "out")
    assert "(there is none)" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `mask` |" in card and "images_with_masks" in card


def test_a_folder_without_a_table_or_radiographs_is_refused(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_release(tmp_path / "nowhere")
    (small / "png").rename(tmp_path / "png")
    with pytest.raises(FileNotFoundError, match="holds none of the radiographs"):
        read_release(small)
    (small / "train-rle.csv").write_text("Path,Sex\n")
    with pytest.raises(
        FileNotFoundError, match="neither stage_2_train.csv nor train-rle.csv with the columns ImageId"
    ):
        read_release(small)


def test_the_command_prepares_a_folder_that_tells_no_patient(siim, tmp_path):
    main(["prepare", "siim-pneumothorax", "--data_dir", str(siim), "--output_dir", str(tmp_path / "out")])
    facts = data_set_facts(str(tmp_path / "out"))
    assert facts == data_set_facts(str(siim)) and facts["name"] == "SIIM-ACR Pneumothorax"
    assert load_rows(str(tmp_path / "out"), "train", str(tmp_path / "cache"), 1).num_rows == 7
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
