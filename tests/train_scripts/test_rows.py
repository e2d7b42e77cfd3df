import pytest
from transformers import AutoProcessor

from datasets_scripts.radiograph_dataset import prepare
from datasets_scripts.vindr_cxr import load_vindr_cxr, read_release
from train_scripts.rows import check_labels, load_rows


def test_a_release_and_its_prepared_folder_give_the_same_rows(phantom_release, tmp_path):
    prepare(read_release(phantom_release), tmp_path / "prepared")
    of_release = load_rows(str(phantom_release), "train[:5]", str(tmp_path / "cache"), num_proc=2)
    of_folder = load_rows(str(tmp_path / "prepared"), "train[:5]", str(tmp_path / "cache"), num_proc=2)
    assert len(of_release) == 5 and of_release.features == of_folder.features
    assert of_release.to_list() == of_folder.to_list()


def test_what_is_neither_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="has neither annotations/annotations_train.csv"):
        load_rows(str(tmp_path), "train", None, 1)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="is no prepared data set, or its preparation was interrupted"):
        load_rows(str(tmp_path), "train", None, 1)


def test_rows_whose_class_numbers_mean_other_labels_than_the_checkpoints_are_refused(
    phantom_release, tiny_checkpoint, tmp_path
):
    processor = AutoProcessor.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    rows = load_vindr_cxr(phantom_release, "test", tmp_path / "cache")
    check_labels(rows, processor)
    processor.finding_labels = list(reversed(processor.finding_labels))
    with pytest.raises(ValueError, match="labels are not those that the checkpoint was made for"):
        check_labels(rows, processor)
