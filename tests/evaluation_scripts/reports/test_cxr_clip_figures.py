"""The published figures of CXR-CLIP, held against each other."""

from litegpt.evaluation_scripts.reports.cxr_clip_figures import CONTRADICTIONS, TABLES, sums_that_do_not_add_up


def test_every_sum_of_the_papers_tables_but_one_adds_up():
    assert sums_that_do_not_add_up() == [("Table 3", "R, M", 216.9, 215.9)]
    assert all(len(values) == len(table.columns) for table in TABLES.values() for values in table.rows.values())


def test_the_contradictions_are_those_of_the_tables():
    text = " ".join(CONTRADICTIONS)
    one, other = TABLES[4].recalls("tcl"), TABLES[3].recalls("r_m_c")[:6]
    assert one != other
    for recalls in (one, other):
        assert all(", ".join(map(str, part)) in text for part in (recalls[:3], recalls[3:]))
    assert TABLES[4].rows["tcl"][0] == TABLES[2].rows["r_m_c"][-1] == 61.7
    assert TABLES[2].rows["r_m_c"][3] == 81.7 and TABLES[2].rows["r_m"][-1] == 56.2
    assert round(sum(TABLES[3].recalls("r_m")[6:]), 1) == 24.3 and round(sum(other), 1) == 176.4
