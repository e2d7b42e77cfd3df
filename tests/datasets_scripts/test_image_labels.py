import shutil

import datasets
import numpy as np
import pytest

from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.image_labels import abnormal, label_matrix, label_names, states_of
from litegpt.datasets_scripts.rows import load_rows
from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr

FINDINGS, DIAGNOSES = ("Mass", "Effusion"), ("Effusion", "COPD", "No finding")
LISTED = row_features(FINDINGS, DIAGNOSES)
OF_IMAGES = row_features(FINDINGS, DIAGNOSES, ("image_labels",))
REPORTED = row_features((), ("Edema", "Support Devices", "No finding"), ("mentioned",))
BOX = {"box": [0.1, 0.1, 0.5, 0.5], "readers": 1}


def row(features, findings=(), diagnoses=(), **columns):
    told = {"findings": [{"label": label, **BOX} for label in findings], "diagnoses": list(diagnoses), **columns}
    return dict.fromkeys(features) | told


def rows_of(features, *rows):
    encoded = {name: [told[name] for told in rows] for name in features}
    return datasets.Dataset.from_dict(encoded, features)


def test_labels_are_the_findings_then_the_diagnoses_each_once():
    assert label_names(LISTED) == ["Mass", "Effusion", "COPD", "No finding"]
    assert label_names(REPORTED) == ["Edema", "Support Devices", "No finding"]


def test_a_label_that_a_list_does_not_mark_is_negative():
    states = states_of({"findings": [{"label": 0, **BOX}], "diagnoses": [1]}, LISTED)
    assert states == {"Mass": "positive", "Effusion": "negative", "COPD": "positive", "No finding": "negative"}


def test_a_label_of_both_lists_is_positive_where_either_has_it():
    for told in (row(LISTED, findings=[1]), row(LISTED, diagnoses=[0])):
        assert states_of(told, LISTED)["Effusion"] == "positive"


def test_a_finding_without_a_box_is_positive_by_the_column_of_image_labels():
    told = row(OF_IMAGES, findings=[1], image_labels=[0, 2])
    assert [label for label, state in states_of(told, OF_IMAGES).items() if state == "positive"] == [
        "Mass",
        "Effusion",
        "COPD",
    ]
    assert states_of(row(OF_IMAGES, findings=[1]), OF_IMAGES)["Effusion"] == "positive"  # null: nothing beyond


def test_of_a_report_only_what_it_mentions_is_known():
    mentioned = [{"label": 0, "state": 1}, {"label": 1, "state": 2}, {"label": 2, "state": 0}]
    told = row(REPORTED, diagnoses=[2], mentioned=mentioned)
    assert states_of(told, REPORTED) == {
        "Edema": "negative",
        "Support Devices": "uncertain",
        "No finding": "positive",
    }
    assert states_of(row(REPORTED, diagnoses=[0], mentioned=mentioned[:1]), REPORTED) == {"Edema": "negative"}
    assert states_of(row(REPORTED), REPORTED) == {}


def test_a_matrix_has_ones_zeros_and_nan_for_what_nobody_knows():
    rows = rows_of(
        REPORTED,
        row(REPORTED, mentioned=[{"label": 0, "state": 0}]),
        row(REPORTED, mentioned=[{"label": 0, "state": 1}, {"label": 1, "state": 0}]),
        row(REPORTED, mentioned=[{"label": 0, "state": 2}]),
        row(REPORTED),
    )
    matrix = label_matrix(rows, ["Support Devices", "Edema"])
    assert matrix.dtype == np.float32
    nan = np.nan
    np.testing.assert_array_equal(matrix, [[nan, 1], [1, 0], [nan, nan], [nan, nan]])


def test_a_label_that_rows_do_not_have_is_refused_by_name():
    with pytest.raises(ValueError, match="no label 'Hernia', only Mass, Effusion, COPD, No finding"):
        label_matrix(rows_of(LISTED, row(LISTED)), ["Mass", "Hernia"])


def test_nothing_but_no_finding_and_devices_is_normal():
    listed = rows_of(LISTED, row(LISTED, diagnoses=[2]), row(LISTED), row(LISTED, findings=[0]))
    assert abnormal(listed).tolist() == [False, False, True]
    states = [[(2, 0), (1, 0)], [(0, 2)], [(0, 1)], [(0, 0), (1, 0)]]
    mentioned = [[{"label": label, "state": state} for label, state in told] for told in states]
    reported = rows_of(REPORTED, *(row(REPORTED, mentioned=told) for told in mentioned))
    assert abnormal(reported).tolist() == [False, False, False, True]


def test_pictures_are_not_read(phantom_release, tmp_path):
    rows = load_vindr_cxr(phantom_release, "train", tmp_path / "cache")
    broken = rows.remove_columns("image").add_column("image", [{"bytes": b"no picture", "path": None}] * len(rows))
    broken = broken.cast_column("image", datasets.Image())
    matrix = label_matrix(broken, label_names(broken.features))
    assert matrix.shape == (len(rows), 28) and not np.isnan(matrix).any()
    normal = matrix[:, label_names(rows.features).index("No finding")] == 1
    np.testing.assert_array_equal(abnormal(broken), ~normal)


def test_more_rows_than_a_batch_keep_their_order():
    rows = rows_of(LISTED, *(row(LISTED, findings=[0] if index % 7 == 3 else []) for index in range(2100)))
    np.testing.assert_array_equal(np.flatnonzero(label_matrix(rows, ["Mass"])), np.arange(3, 2100, 7))


def test_real_labels_of_images_are_more_than_their_boxes(real_cxr, tmp_path):
    """The numbers are the table's own."""
    root = tmp_path / "nih"
    (root / "annotations").mkdir(parents=True)
    for name in ("annotations_test.csv", "image_labels_test.csv"):
        shutil.copy(real_cxr / "nih_320" / "annotations" / name, root / "annotations" / name)
    (root / "test").symlink_to(real_cxr / "nih_320" / "test")
    rows = load_rows(str(root), "test", str(tmp_path / "cache"), num_proc=1)
    expected = {
        "Atelectasis": 23,
        "Consolidation": 19,
        "Edema": 22,
        "Infiltration": 35,
        "Lung Opacity": 24,
        "Pleural effusion": 24,
        "Pneumonia": 103,
    }
    matrix = label_matrix(rows, list(expected))
    assert dict(zip(expected, matrix.sum(axis=0).astype(int).tolist(), strict=True)) == expected
    assert len(rows) == 165 and abnormal(rows).sum() == 107
