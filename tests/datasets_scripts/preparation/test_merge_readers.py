import subprocess
import sys
import warnings

import numpy as np
import pytest

from litegpt.datasets_scripts.annotations import Finding, Reading
from litegpt.datasets_scripts.preparation.merge_readers import (
    MERGES,
    keep_one_of_overlapping,
    merge_diagnoses,
    merge_readers,
    pairwise_iou,
)

A, B, C = (0.0, 0.0, 10.0, 10.0), (3.0, 0.0, 13.0, 10.0), (6.0, 0.0, 16.0, 10.0)  # IoU A-B and B-C: 7/13; A-C: 4/16
FAR = (50.0, 50.0, 60.0, 70.0)
NO_FINDING = "No finding"


def reading(rad_id, *boxes):
    return Reading(rad_id, tuple(Finding(label, box) for label, box in boxes), ())


def merged(merge, *readings):
    return [(finding.label, finding.box, finding.readers) for finding in merge_readers(readings, merge)]


def random_readings(rng, readers=3, most_boxes=6):
    readings = []
    for reader in range(readers):
        corners = rng.uniform(0, 500, (rng.integers(0, most_boxes + 1), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(600, 1200, corners.shape)], axis=1)
        readings.append(reading(f"R{reader}", *((str(rng.choice(["ILD", "Edema"])), tuple(box)) for box in boxes)))
    return readings


# Overlap


def test_pairwise_iou_equals_counting_cells_of_a_grid():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 30, (12, 2, 2)), axis=1)
    boxes = np.concatenate([corners[:, 0], corners[:, 1] + 1], axis=1)
    masks = np.zeros((12, 31, 31), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    np.testing.assert_allclose(pairwise_iou(boxes.astype(float)), expected)


def test_keep_one_keeps_the_first_of_a_group_and_what_does_not_overlap_it():
    assert keep_one_of_overlapping(np.array([A, B, C])).tolist() == [0, 2]
    assert keep_one_of_overlapping(np.array([B, A, C])).tolist() == [0]


def test_keep_one_does_not_group_at_the_threshold_itself():
    half = np.array([(0, 0, 2, 1), (0, 0, 1, 1)])
    assert keep_one_of_overlapping(half, iou_threshold=0.5).tolist() == [0, 1]
    assert keep_one_of_overlapping(half, iou_threshold=0.49).tolist() == [0]


def test_keep_one_of_random_boxes_leaves_no_overlap_and_loses_no_group():
    rng = np.random.default_rng(1)
    for _ in range(20):
        corner = rng.uniform(0, 10, (15, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 15, (15, 2))], axis=1)
        kept = keep_one_of_overlapping(boxes)
        overlaps = pairwise_iou(boxes) > 0.5
        assert (overlaps[np.ix_(kept, kept)] == np.eye(len(kept), dtype=bool)).all()
        assert overlaps[:, kept].any(axis=1).all()
        assert 0 < len(kept) < 15


def test_keep_one_of_none_is_none_and_a_box_without_area_is_refused():
    assert keep_one_of_overlapping(np.zeros((0, 4))).tolist() == []
    with pytest.raises(ValueError, match="no area"):
        keep_one_of_overlapping(np.array([(0, 0, 1, 1), (5, 5, 5, 9)]))


# Merges worked out by hand: R1 and R2 mark one finding, R3 sees another


@pytest.mark.parametrize(
    "merge, expected",
    [
        ("paper", [("ILD", A, 2), ("ILD", FAR, 1)]),
        ("union", [("ILD", (0, 0, 13, 10), 2), ("ILD", FAR, 1)]),
        ("majority", [("ILD", (1.5, 0, 11.5, 10), 2)]),
        ("weighted_box_fusion", [("ILD", (1.5, 0, 11.5, 10), 2), ("ILD", FAR, 1)]),
    ],
)
def test_two_readers_who_agree_and_one_who_does_not(merge, expected):
    found = merged(merge, reading("R1", ("ILD", A)), reading("R2", ("ILD", B)), reading("R3", ("ILD", FAR)))
    assert [(label, readers) for label, _, readers in found] == [(label, readers) for label, _, readers in expected]
    np.testing.assert_allclose([box for _, box, _ in found], [box for _, box, _ in expected], atol=1e-4)


@pytest.mark.parametrize("merge", MERGES)
def test_boxes_of_different_labels_are_never_merged(merge):
    found = merged(merge, reading("R1", ("ILD", A)), reading("R1", ("Edema", A)))
    assert [(label, readers) for label, _, readers in found] == [("ILD", 1), ("Edema", 1)]


@pytest.mark.parametrize("merge", MERGES)
def test_two_boxes_of_one_reader_count_as_one_reader_also_where_his_rows_are_apart(merge):
    found = merged(merge, reading("R1", ("ILD", A)), reading("R2", ("Edema", FAR)), reading("R1", ("ILD", B)))
    assert [readers for label, _, readers in found if label == "ILD"] == ([] if merge == "majority" else [1])


@pytest.mark.parametrize("merge", MERGES)
def test_the_only_reader_keeps_each_finding(merge):
    found = merged(merge, reading("", ("ILD", A), ("Edema", B), ("ILD", FAR)))
    assert sorted((label, readers) for label, _, readers in found) == [("Edema", 1), ("ILD", 1), ("ILD", 1)]


@pytest.mark.parametrize("merge", MERGES)
def test_no_boxes_give_no_findings(merge):
    assert merge_readers([reading("R1"), reading("R2")], merge) == () == merge_readers([], merge)


@pytest.mark.parametrize("merge", ["paper", "union", "majority"])
def test_findings_keep_the_order_of_the_readings_across_labels(merge):
    found = merged(merge, reading("R1", ("ILD", A), ("Edema", A)), reading("R1", ("ILD", FAR), ("Edema", B)))
    assert [label for label, _, _ in found] == ["ILD", "Edema", "ILD"]


def test_readings_pool_in_their_order_where_the_rows_of_two_readers_alternate():
    alternating = reading("R1", ("ILD", FAR)), reading("R2", ("ILD", A)), reading("R1", ("ILD", B))
    assert merged("paper", *alternating) == [("ILD", FAR, 1), ("ILD", A, 2)]


def test_in_paper_a_box_between_two_kept_ones_counts_for_both_and_in_union_for_the_nearer():
    near_c = (3.5, 0.0, 13.5, 10.0)  # IoU with A: 6.5/13.5, so B is needed to stand between
    readings = reading("R1", ("ILD", A)), reading("R2", ("ILD", C)), reading("R3", ("ILD", B))
    assert merged("paper", *readings) == [("ILD", A, 2), ("ILD", C, 2)]
    # B is as near to A as to C: the first of the two gets it.
    assert merged("union", *readings) == [("ILD", (0, 0, 13, 10), 2), ("ILD", C, 1)]
    readings = reading("R1", ("ILD", A)), reading("R2", ("ILD", C)), reading("R3", ("ILD", near_c))
    assert merged("union", *readings) == [("ILD", A, 1), ("ILD", (3.5, 0, 16, 10), 2)]


def test_majority_counts_readers_without_boxes_and_needs_more_than_half():
    two = [reading("R1", ("ILD", A)), reading("R2", ("ILD", B))]
    assert len(merged("majority", *two, reading("R3"))) == 1
    assert merged("majority", *two, reading("R3"), reading("R4")) == []


def test_majority_takes_the_median_of_each_coordinate():
    boxes = [(0, 0, 10, 10), (1, -1, 11, 12), (0.5, 0.5, 14, 11)]
    found = merged("majority", *(reading(f"R{i}", ("ILD", box)) for i, box in enumerate(boxes)))
    assert found == [("ILD", (0.5, 0, 11, 11), 3)]


# Weighted box fusion


def test_fusion_compares_with_the_mean_so_far():
    # A and B have the mean (1.5, 11.5); its IoU with C is 5.5/14.5, so C, which B overlaps, stays alone.
    found = merged("weighted_box_fusion", *(reading(f"R{i}", ("ILD", box)) for i, box in enumerate((A, B, C))))
    np.testing.assert_allclose([box for _, box, _ in found], [(1.5, 0, 11.5, 10), C], atol=1e-5)
    assert [readers for _, _, readers in found] == [2, 1]


def test_fusion_equals_the_package_called_directly_without_its_warnings_and_prints(capfd):
    from ensemble_boxes import weighted_boxes_fusion

    labels = ["ILD", "Edema"]
    rng = np.random.default_rng(0)
    fused_any = 0
    for _ in range(50):
        readings = random_readings(rng)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = merged("weighted_box_fusion", *readings)
        # Equal scores of few boxes come out of the package's sort in the reverse of their order.
        reverse = [r.findings[::-1] for r in readings[::-1]]
        boxes, scores, numbers = weighted_boxes_fusion(
            [[np.array(finding.box) / 4000 for finding in findings] for findings in reverse],
            [[1.0] * len(findings) for findings in reverse],
            [[labels.index(finding.label) for finding in findings] for findings in reverse],
            iou_thr=0.5,
            conf_type="box_and_model_avg",
        )
        expected = sorted(
            (int(number), *(np.array(box) * 4000), score * 3)
            for number, box, score in zip(numbers, boxes, scores, strict=True)
        )
        ours = sorted((labels.index(label), *box, readers) for label, box, readers in found)
        assert len(ours) == len(expected)
        np.testing.assert_allclose(ours, expected, atol=0.01)
        fused_any += sum(readers > 1 for _, _, readers in found)
    assert fused_any > 50
    assert capfd.readouterr() == ("", "")


def test_fusion_does_not_depend_on_unit_or_origin():
    rng = np.random.default_rng(2)
    readings = random_readings(rng, readers=4)
    moved = [
        reading(r.rad_id, *((f.label, tuple(np.array(f.box) / 5000 - np.tile([3.0, 0.5], 2))) for f in r.findings))
        for r in readings
    ]
    pixels, fractions = merged("weighted_box_fusion", *readings), merged("weighted_box_fusion", *moved)
    assert [(label, n) for label, _, n in pixels] == [(label, n) for label, _, n in fractions]
    back = (np.array([box for _, box, _ in fractions]) + np.tile([3.0, 0.5], 2)) * 5000
    np.testing.assert_allclose(back, [box for _, box, _ in pixels], atol=0.01)


def test_fusion_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ensemble_boxes", None)
    with pytest.raises(ImportError, match="pip install ensemble-boxes"):
        merge_readers([reading("R1", ("ILD", A))], "weighted_box_fusion")


# Labels


@pytest.mark.parametrize(
    "label_sets, paper, union, majority",
    [
        (
            [{"ILD", "Pneumonia"}, {"ILD"}, {"COPD"}],
            {"ILD", "Pneumonia", "COPD"},
            {"ILD", "Pneumonia", "COPD"},
            {"ILD"},
        ),
        ([{NO_FINDING}] * 3, {NO_FINDING}, {NO_FINDING}, {NO_FINDING}),
        ([{NO_FINDING}, {NO_FINDING}, {"ILD"}], None, {"ILD"}, {NO_FINDING}),
        ([{NO_FINDING}, {"ILD"}, {"COPD"}], None, {"ILD", "COPD"}, set()),
        ([{NO_FINDING, "ILD"}, {NO_FINDING, "ILD"}], None, {"ILD"}, {"ILD"}),
        ([{NO_FINDING}, {"ILD"}], None, {"ILD"}, set()),
        ([set(), set()], set(), set(), set()),
        ([["ILD", "ILD"], set(), set()], {"ILD"}, {"ILD"}, set()),
        ([], set(), set(), set()),
    ],
)
def test_labels_of_several_readers(label_sets, paper, union, majority):
    assert merge_diagnoses(label_sets, "paper", NO_FINDING) == paper
    assert merge_diagnoses(label_sets, "weighted_box_fusion", NO_FINDING) == paper
    assert merge_diagnoses(label_sets, "union", NO_FINDING) == union
    assert merge_diagnoses(label_sets, "majority", NO_FINDING) == majority


# Bad input


def test_an_unknown_merge_is_refused_by_name():
    with pytest.raises(ValueError, match="paper, union, majority, weighted_box_fusion, not 'mean'"):
        merge_readers([], "mean")
    with pytest.raises(ValueError, match="not 'mean'"):
        merge_diagnoses([], "mean", NO_FINDING)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 9.0), (5.0, 9.0, 6.0, 5.0), (0.0, float("nan"), 1.0, 1.0)])
def test_a_box_without_area_is_refused(merge, box):
    with pytest.raises(ValueError, match="no area"):
        merge_readers([reading("R1", ("ILD", A), ("ILD", box))], merge)


def test_merging_needs_neither_datasets_nor_torch():
    code = (
        "import sys, litegpt.datasets_scripts.preparation.merge_readers;"
        "print(*{'datasets', 'torch', 'numba'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
    )
