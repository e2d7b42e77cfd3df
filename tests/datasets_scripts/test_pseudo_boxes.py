"""Boxes of maps in place of the data's own: which are taken, what they cover, what is refused."""

import json

import pytest

from litegpt.datasets_scripts.pseudo_boxes import coverage_text, widest_at_peak, with_pseudo_boxes
from litegpt.datasets_scripts.rows import load_rows
from tests.small_finetune import entry, write_entries

BOX = [0.1, 0.2, 0.5, 0.6]


@pytest.fixture
def rows(tmp_path, cache_dir):
    """Two radiographs with a "Mass" each, one in the file's box and one elsewhere, and a normal one."""
    entries = [entry(number) for number in range(3)]
    for number, (box, diagnosis) in enumerate([(BOX, 0), ([0.6, 0.6, 0.9, 0.9], 0), (None, 1)]):
        entries[number]["findings"] = [{"label": 0, "box": box, "readers": 1}] if box else []
        entries[number]["diagnoses"] = [diagnosis]
    return load_rows(write_entries(tmp_path / "data", {"train": entries}), "train", cache_dir)


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def line(number: int, **regions) -> dict:
    return {"image_id": f"image{number}", "task": "localize", "malformed": None, "regions": regions}


def drawn(*boxes, peak=(0.3, 0.4)) -> dict:
    return {"peak": peak, "boxes": [[*box, 0.5] for box in boxes]}


def test_each_label_that_a_radiograph_has_gets_its_maps_box_and_no_other_has_one(rows, tmp_path):
    lines = [
        line(0, Mass=drawn([0.25, 0.3, 0.35, 0.5], BOX), Nodule=drawn([0.0, 0.0, 1.0, 1.0])),
        line(1, Mass=drawn(BOX)),
        line(2, Mass=drawn(BOX)),  # which this one does not have
        line(9, Mass=drawn(BOX)),  # of a radiograph that is not asked about
    ]
    found, covered = with_pseudo_boxes(rows, write_lines(tmp_path / "lines.jsonl", lines))
    findings = found["findings"][:]
    assert [[one["label"] for one in of_row] for of_row in findings] == [[0], [0], []]
    assert findings[0][0]["box"] == pytest.approx(BOX) and findings[1][0]["box"] == pytest.approx(BOX)
    assert covered == {"0.1": 0.5, "0.3": 0.5, "0.5": 0.5, "boxes": 2}
    assert "place of the data's 2, of which they cover 0.500 above IoU 0.1" in coverage_text(covered)
    assert found.features == rows.features and found["image_id"][:] == rows["image_id"][:]
    assert found[1]["image"].size == rows[1]["image"].size


def test_rows_without_boxes_get_them_and_nothing_is_said_to_be_covered(tmp_path, cache_dir):
    entries = [entry(number, findings=[], diagnoses=[0]) for number in range(2)]
    data = write_entries(tmp_path / "labels", {"train": entries}, diagnoses=["Mass", "No finding"])
    lines = [line(0, Mass=drawn(BOX)), line(1, Mass={"peak": None, "boxes": []})]
    found, covered = with_pseudo_boxes(
        load_rows(data, "train", cache_dir), write_lines(tmp_path / "lines.jsonl", lines)
    )
    assert covered is None and [len(findings) for findings in found["findings"]] == [1, 0]


def test_the_widest_box_that_holds_the_highest_place_is_taken():
    assert widest_at_peak(drawn([0.0, 0.0, 0.2, 0.2], [0.2, 0.3, 0.4, 0.5], BOX)) == BOX
    assert widest_at_peak(drawn([0.0, 0.0, 0.2, 0.2])) is None
    assert widest_at_peak(None) is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(0), line(2)], "1 of 3 radiographs have no line, such as image1"),
        ([{"image_id": "image0", "task": "identify", "malformed": None}], "no predictions file of litegpt localize"),
    ],
)
def test_a_file_of_other_radiographs_or_of_another_kind_is_refused(rows, tmp_path, lines, said):
    with pytest.raises(ValueError, match=said):
        with_pseudo_boxes(rows, write_lines(tmp_path / "lines.jsonl", lines))
