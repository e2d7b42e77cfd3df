import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoProcessor

from datasets_scripts.radiograph_dataset import prepare
from datasets_scripts.vindr_cxr import load_vindr_cxr, read_release
from tests.small_training import train
from train_scripts.rows import check_labels, load_rows


@pytest.fixture(scope="module")
def prepared(phantom_release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "folder"
    prepare(read_release(phantom_release), folder)
    return folder


def test_a_release_and_its_prepared_folder_give_the_same_rows(phantom_release, prepared, tmp_path):
    of_release = load_rows(str(phantom_release), "train[:5]", str(tmp_path / "cache"), num_proc=2)
    of_folder = load_rows(str(prepared), "train[:5]", str(tmp_path / "cache"), num_proc=2)
    assert len(of_release) == 5 and of_release.features == of_folder.features
    assert of_release.to_list() == of_folder.to_list()


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
