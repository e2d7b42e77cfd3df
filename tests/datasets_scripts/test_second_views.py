import pytest
from datasets import Dataset

from litegpt.datasets_scripts.second_views import second_views


def test_a_second_view_is_the_first_lateral_of_the_same_study():
    def row(study, view):
        return {"study_id": study, "view": view, "patient_id": "p"}

    studies = [row("a", "PA"), row("a", "LATERAL"), row("a", "LL"), row("b", "AP"), row("", "PA"), row("", "LATERAL")]
    rows = Dataset.from_list(studies)
    assert second_views(rows) == {0: 1}
    assert second_views(rows, [0, 2]) == {0: 2}  # row 1 is not among those that are asked about
    with pytest.raises(ValueError, match="no study_id"):
        second_views(rows.remove_columns("study_id"))
