"""The texts that ECAMP reads: reports with their distilled ones in them, or prompts of labels."""

import json

import numpy as np
import pytest

from litegpt.train_scripts.arguments import ReportArguments
from litegpt.train_scripts.reports import Reports
from tests.small_cxr_clip import row, rows_of


def texts(reports: Reports, number: int, count: int = 60) -> set[str]:
    return {reports.text(number, np.random.default_rng(seed)) for seed in range(count)}


@pytest.fixture
def distilled(tmp_path) -> str:
    path = tmp_path / "distilled.jsonl"
    lines = [{"study_id": f"study{number}", "distilled": f"there is no fact{number}."} for number in (0, 1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_the_distilled_report_stands_at_any_end_of_a_sentence_four_times_of_five(distilled):
    reports = Reports(rows_of([row(0), row(1), row(2)]), ReportArguments(distilled=distilled))
    original = "Mark f0 one. Mark f0 two. Mark f0 three. Mark i0 one. Mark i0 two."
    found = texts(reports, 0)
    sentences = original.replace(". ", ".|").split("|")
    places = [" ".join([*sentences[:at], "there is no fact0.", *sentences[at:]]) for at in range(6)]
    assert found == {original, *places}
    drawn = [reports.text(0, np.random.default_rng(seed)) for seed in range(500)]
    assert np.mean([text == original for text in drawn]) == pytest.approx(0.2, abs=0.05)
    assert len(texts(reports, 2)) == 1 and reports.without_distilled == 1
    assert "1 reports not distilled" in reports.remarks
    assert set(reports.corpus()) >= {original, "there is no fact0."}


def test_rows_without_a_report_have_prompts_and_those_without_any_label_are_left_out():
    silent = {"report_findings": "", "report_impression": None}
    reports = Reports(rows_of([row(0), row(1, **silent), row(2, labels=[6], **silent)]), ReportArguments())
    assert len(reports) == 3 and reports.left_out == 0
    assert len(texts(reports, 1)) > 5 and all(text.endswith(".") for text in texts(reports, 1))
    with pytest.raises(ValueError, match="there is no text to train on"):
        Reports(rows_of([row(0, labels=[], **silent)], labels=["Other lesion"]), ReportArguments())


def test_the_control_gives_another_radiographs_text():
    rows = rows_of([row(number) for number in range(12)])
    own = Reports(rows, ReportArguments())
    shuffled = Reports(rows, ReportArguments(shuffle_reports=True), seed=1)
    rng = np.random.default_rng(0)
    given = [shuffled.text(number, rng) for number in range(12)]
    true = [own.text(number, rng) for number in range(12)]
    assert sorted(given) == sorted(true) and sum(a == b for a, b in zip(given, true, strict=True)) < 4
