import hashlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import AutoProcessor

from litegpt.datasets_scripts import annotations, chestx_ray14, phantom_cxr, vindr_cxr
from litegpt.datasets_scripts.phantom_cxr import write_release
from litegpt.datasets_scripts.phantoms.findings import diagnoses_of
from litegpt.datasets_scripts.phantoms.picture import Phantom
from litegpt.datasets_scripts.preparation.decoding_process import decode
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.preparation.release import PreparationOptions
from litegpt.datasets_scripts.rows import (
    DATA_SETS,
    check_annotations,
    check_labels,
    data_set_facts,
    load_rows,
    recognised,
)
from litegpt.datasets_scripts.vindr_cxr import FINDING_LABELS, load_vindr_cxr, read_release
from tests.small_training import train


@pytest.fixture(scope="module")
def prepared(phantom_release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "folder"
    prepare(read_release(phantom_release), folder)
    return folder


def test_a_release_and_its_prepared_folder_give_the_same_rows(phantom_release, prepared, tmp_path):
    release_rows = load_rows(str(phantom_release), "train[:5]", str(tmp_path / "cache"), num_proc=2)
    folder_rows = load_rows(str(prepared), "train[:5]", str(tmp_path / "cache"), num_proc=2)
    assert len(release_rows) == 5 and release_rows.features == folder_rows.features
    assert release_rows.to_list() == folder_rows.to_list()


@pytest.fixture
def nih_release(tmp_path):
    """Two radiographs in ChestX-ray14's layout."""
    folder = tmp_path / "nih"
    (folder / "images").mkdir(parents=True)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position"
    lines = ["00000001_000.png,Cardiomegaly,0,1,58,M,PA", "00000002_000.png,No Finding,0,2,64,F,AP"]
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *lines]) + "\n")
    (folder / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h]\n")
    (folder / "train_val_list.txt").write_text("00000001_000.png\n")
    (folder / "test_list.txt").write_text("00000002_000.png\n")
    for name in ("00000001_000", "00000002_000"):
        Image.linear_gradient("L").save(folder / "images" / f"{name}.png")
    return folder


def test_a_release_of_any_data_set_gives_its_rows_and_facts(nih_release, tmp_path):
    loaded = load_rows(str(nih_release), "test", str(tmp_path / "cache"), 1)
    assert loaded["image_id"][:] == ["00000002_000"] and (loaded[0]["sex"], loaded[0]["age"]) == ("F", 64)
    assert loaded.features["diagnoses"].feature.names == list(chestx_ray14.DIAGNOSIS_LABELS)
    facts = data_set_facts(str(nih_release))
    assert facts["name"] == "ChestX-ray14" and facts["license_link"] == chestx_ray14.HOMEPAGE
    prepare(chestx_ray14.read_release(nih_release), tmp_path / "prepared")
    assert data_set_facts(str(tmp_path / "prepared")) == facts


def test_every_data_set_has_a_name_for_the_command_line_and_what_is_asked_of_it():
    names = ["vindr-cxr", "chestx-ray14", "chexpert", "rsna-pneumonia", "siim-pneumothorax", "covidx", "open-i"]
    names += ["mimic-cxr", "ms-cxr", "padchest-gr", "vqa-rad", "coco-boxes", "label-studio", "llava-chats"]
    assert list(DATA_SETS) == names
    for data_set in DATA_SETS.values():
        assert data_set.LAYOUT and all(map(callable, (data_set.recognise, data_set.facts, data_set.read_release)))


def test_facts_are_known_without_reading_a_release(phantom_release, nih_release, monkeypatch):
    for data_set in DATA_SETS.values():
        monkeypatch.setattr(data_set, "read_release", lambda *_: pytest.fail("read"))
    assert [data_set_facts(str(folder))["name"] for folder in (phantom_release, nih_release)] == [
        "Phantoms in VinDr-CXR's layout",
        "ChestX-ray14",
    ]


def test_kaggles_train_csv_is_told_from_another_data_sets(tmp_path):
    (tmp_path / "train.csv").write_text("image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n")
    assert recognised(str(tmp_path)) is vindr_cxr
    (tmp_path / "train.csv").write_text("Path,Sex,Age\n")
    with pytest.raises(FileNotFoundError, match="train.csv with a column class_name"):
        recognised(str(tmp_path))


def test_a_folder_of_no_data_set_is_answered_with_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_rows(str(tmp_path), "train", None, 1)
    layouts = ", nor ".join(data_set.LAYOUT for data_set in DATA_SETS.values())
    assert str(error.value) == (
        f"{tmp_path} is no data set that is known: it has neither {layouts}, nor data/ and README.md "
        "(a prepared folder)."
    )
    assert "train.csv with a column class_name (VinDr-CXR), nor Data_Entry_2017_v2020.csv or" in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        data_set_facts(str(tmp_path / "nowhere"))


def test_a_folder_with_the_tables_of_two_data_sets_is_refused(nih_release):
    (nih_release / "annotations").mkdir()
    (nih_release / "annotations" / "image_labels_test.csv").write_text("image_id\n")
    with pytest.raises(ValueError, match="holds the tables of vindr-cxr and chestx-ray14"):
        load_rows(str(nih_release), "train", None, 1)


def test_a_folder_that_earlier_code_prepared_is_a_data_set_like_any_other(phantom_release, tmp_path):
    """Its digest means nothing today, it has no digests of shards, and it may lack optional columns."""
    release = replace(read_release(phantom_release), columns=())
    prepare(release, tmp_path / "old")
    (tmp_path / "old" / "preparation.log").unlink()
    settings = {"digest": "0" * 64, "options": {"shortest_edge": 512, "windowing": "dicom"}}
    (tmp_path / "old" / "preparation.json").write_text(json.dumps(settings))
    old = load_rows(str(tmp_path / "old"), "test", str(tmp_path / "cache"), 1)
    assert "sex" not in old.column_names and old.num_rows == 8
    with pytest.raises(ValueError, match="of other files, or by another version of this code"):
        prepare(release, tmp_path / "old")


def test_to_know_the_data_sets_takes_neither_torch_nor_transformers():
    code = "import sys, litegpt.datasets_scripts.rows; print(*{'torch', 'transformers', 'trl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_is_neither_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="has neither annotations/annotations_train.csv"):
        load_rows(str(tmp_path), "train", None, 1)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="is no prepared data set, or its preparation was interrupted"):
        load_rows(str(tmp_path), "train", None, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"findings": [{"label": 3, "box": [0.1, float("nan"), 0.4, 0.5], "readers": 1}]}, "is not xyxy"),
        ({"findings": [{"label": 3, "box": [0.4, 0.1, 0.1, 0.5], "readers": 1}]}, "is not xyxy"),
        ({"findings": [{"label": 3, "box": [0.1, 0.1, 0.4, 1.5], "readers": 1}]}, "is not xyxy"),
        ({"findings": [{"label": 22, "box": [0.1, 0.1, 0.4, 0.5], "readers": 1}]}, "finding number 22 is not one"),
        ({"findings": [{"label": None, "box": [0.1, 0.1, 0.4, 0.5], "readers": 1}]}, "finding number None is not one"),
        ({"diagnoses": [-2]}, "diagnosis number -2 is not one"),
    ],
)
def test_a_corrupt_row_is_named(change, reason, prepared, tmp_path):
    image_id = spoil(prepared, tmp_path / "corrupt", change)
    with pytest.raises(ValueError, match=f"^{image_id}: .*{reason}"):
        load_rows(str(tmp_path / "corrupt"), "train", str(tmp_path / "cache"), 1)


@pytest.mark.parametrize("box", [[0.1, 0.1, 0.4, 1.5], [0.4, 0.1, 0.1, 0.5], [0.1, 0.1, 0.4, None]])
@pytest.mark.parametrize(("column", "words"), [("phrase", "phrase"), ("sentences", "text")])
def test_a_corrupt_box_of_a_text_is_named(box, column, words):
    features = annotations.row_features(("Mass",), ("No finding",), [column])
    values = [None, [{words: "No mass.", "boxes": []}, {words: "A mass.", "boxes": [[0, 0, 1, 1]]}]]
    rows = {"image_id": ["a", "b"], "findings": [[], []], "diagnoses": [[], []], column: values}
    kept = datasets.Features({name: features[name] for name in rows})
    check_annotations(datasets.Dataset.from_dict(rows, kept))
    values[1][1]["boxes"].append(box)
    with pytest.raises(ValueError, match="^b: the box .* is not xyxy"):
        check_annotations(datasets.Dataset.from_dict(rows, kept))


def test_a_corrupt_row_ends_the_program_before_it_trains(prepared, tiny_checkpoint, tmp_path):
    image_id = spoil(prepared, tmp_path / "corrupt", {"diagnoses": [6]})
    with pytest.raises(SystemExit, match=f"^{image_id}: the diagnosis number 6 is not one of 0 to 5.$"):
        train(tmp_path / "out", tiny_checkpoint, tmp_path / "corrupt", str(tmp_path / "cache"))
    assert not (tmp_path / "out").exists()


def spoil(prepared, folder, change) -> str:
    """A copy of a prepared folder with other values in one row; returns its image_id."""
    shutil.copytree(prepared, folder)
    (shard,) = folder.glob("data/train-*.parquet")
    table = pq.read_table(shard)
    for name, value in change.items():
        values = [*table[name].to_pylist()[:5], value, *table[name].to_pylist()[6:]]
        index, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(index, field, pa.array(values, field.type))
    pq.write_table(table, shard)
    return table["image_id"][5].as_py()


def test_rows_whose_class_numbers_mean_other_labels_than_the_checkpoints_are_refused(
    phantom_release, tiny_checkpoint, tmp_path
):
    processor = AutoProcessor.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    rows = load_vindr_cxr(phantom_release, "test", tmp_path / "cache")
    check_labels(rows, processor)
    processor.finding_labels = list(reversed(processor.finding_labels))
    with pytest.raises(ValueError, match="labels are not those that the checkpoint was made for"):
        check_labels(rows, processor)


# What rows hold, held against their version

ROWS_1 = "b4ae7382f112765684525fdd2c4d40a0380a2f16da87fc540286cc2fcd84005c"


def test_changed_rows_need_another_version(tmp_path, monkeypatch):
    """Where the hash differs, rows hold something else than before: raise ROWS_VERSION and record the hash here.

    Else folders and caches that were prepared before would pass for what today's code makes. The radiographs are of
    whole numbers, so that no library's rounding matters.
    """

    def drawn_in_whole_numbers(rng, size):
        y, x = np.indices(size[::-1])
        pixels = ((7 * x + 13 * y + rng.integers(251)) % 251) / 250
        left, top, width, height = (rng.integers(1, 9, 4) / 16).tolist()
        findings = [(str(rng.choice(FINDING_LABELS)), (left, top, left + width, top + height))] * int(rng.integers(2))
        return Phantom(pixels, findings, diagnoses_of(findings))

    monkeypatch.setattr(phantom_cxr, "draw_phantom", drawn_in_whole_numbers)
    write_release(tmp_path / "release", num_train=12, num_test=3, size=(80, 64), seed=5)
    options = PreparationOptions(validation_share=0.2, keep_readings=True)
    prepare(read_release(tmp_path / "release"), tmp_path / "prepared", options)
    digest = hashlib.sha256()
    for split in ("train", "validation", "test"):
        loaded = load_rows(str(tmp_path / "prepared"), split, str(tmp_path / "cache"), 1)
        digest.update(repr((split, loaded.num_rows, loaded.column_names)).encode())
        for row in loaded:
            digest.update(row["image"].tobytes())
            digest.update(repr(row | {"image": row["image"].size}).encode())
    assert (annotations.ROWS_VERSION, digest.hexdigest()) == (1, ROWS_1)


def test_pictures_are_scaled_down_as_ever(tmp_path):
    """Beside the hash above, to the grey level: the resampling is Pillow's."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    stored = np.asarray(Image.open(io.BytesIO(decode(str(tmp_path / "a.png"), "dicom", 50).png)), int)
    assert stored.shape == (50, 67)
    assert np.abs(stored[[3, 20, 31, 49], [5, 33, 48, 66]] - [83, 160, 121, 135]).max() <= 1
