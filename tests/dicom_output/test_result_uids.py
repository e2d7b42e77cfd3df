import pytest

from litegpt.dicom_output.result_uids import result_uids
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
