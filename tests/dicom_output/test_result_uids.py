import pytest

from litegpt.dicom_output.result_uids import result_uids, with_boxes_of
from litegpt.dicom_output.source_header import source_header
from tests.dicom_output.made_up_answer import answer, radiograph_file

SOURCE = source_header(radiograph_file(), "a.dcm")


def test_the_same_radiograph_and_checkpoint_give_the_same_uids_whatever_was_answered():
    other = answer(findings=[], warnings=[], checkpoint="moved/elsewhere")
    assert result_uids(SOURCE, answer(), "SR") == result_uids(SOURCE, other, "SR")


def test_what_is_known_before_the_answer_gives_them_too():
    facts = {
        name: answer()[name] for name in ("checkpoint", "checkpoint_sha256", "constrained", "with_candidates", "views")
    }
    assert result_uids(SOURCE, facts, "SR") == result_uids(SOURCE, answer(), "SR")


@pytest.mark.parametrize(
    "change",
    [{"checkpoint_sha256": "cd34"}, {"threshold": 0.5}, {"views": 4}, {"with_candidates": True}, {"boxes": "x"}],
)
def test_another_checkpoint_or_another_question_makes_another_series(change):
    before, after = result_uids(SOURCE, answer(), "SR"), result_uids(SOURCE, answer(**change), "SR")
    assert before[0] != after[0] and before[1] != after[1]


def test_kinds_and_radiographs_have_their_own_and_radiographs_of_a_series_share_a_series():
    other = source_header(radiograph_file(SOPInstanceUID="1.2.3.5"), "b.dcm")
    uids = [result_uids(source, answer(), kind) for source in (SOURCE, other) for kind in ("SR", "PR", "SC")]
    assert len({instance for _, instance in uids}) == 6 and len({series for series, _ in uids}) == 3


def test_they_are_uids():
    for uid in result_uids(SOURCE, answer(), "PR"):
        assert uid.is_valid and len(uid) <= 64


def test_other_boxes_than_the_answers_stand_in_its_place_and_make_another_object():
    line = answer(fused_findings=[{"label": "Edema", "score": 0.5, "box": {}}])
    chosen = with_boxes_of(line, "fused_findings")
    assert chosen["findings"] == line["fused_findings"] and with_boxes_of(line, "findings") == line
    assert result_uids(SOURCE, chosen, "SR") != result_uids(SOURCE, line, "SR")
    with pytest.raises(KeyError):
        with_boxes_of(line, "view_findings")
    malformed = answer(malformed={"identify": "it ends within a box"}, findings=[])
    assert with_boxes_of(malformed, "fused_findings")["findings"] == []
