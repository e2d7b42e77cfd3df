"""What the page shows of a line of the predictions."""

from types import SimpleNamespace

import pytest

from litegpt.inference_scripts.app.results import (
    at_operating_point,
    filed_line,
    is_calibrated,
    shown_answer,
    shown_words,
    with_words,
)

BOX = {"xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40}


def finding(label: str, score: float | None) -> dict:
    return {"label": label, "score": score, "box": BOX}


@pytest.fixture
def processor():
    return SimpleNamespace(
        finding_labels=["Cardiomegaly", "ILD", "Edema"],
        score_temperatures={"finding": 1.0, "diagnosis": 1.3},
        score_thresholds={"Cardiomegaly": 0.6, "ILD": 0.2},
        candidate_thresholds={"Cardiomegaly": 0.9, "ILD": 0.1},
    )


@pytest.fixture
def line():
    return {
        "file": "a.dicom",
        "width": 100,
        "height": 120,
        "threshold": None,
        "findings": [finding("Cardiomegaly", 0.5), finding("ILD", 0.3), finding("Edema", None)],
        "diagnoses": [{"label": "COPD", "score": 0.7}],
        "probabilities": {"identify": {"No finding": 0.02}, "vqa": {"Pneumonia": 0.1, "COPD": 0.7}},
        "answers": {"identify": "Local diseases ...", "vqa": "Global diseases ..."},
        "malformed": {"identify": None, "vqa": "no sentence"},
        "warnings": ["it is lateral"],
    }


def test_a_finding_stands_at_its_own_labels_operating_point_and_what_has_no_score_is_shown(line, processor):
    (source,) = shown_answer(line, processor)["sources"]
    assert [(row["number"], row["label"], row["above"]) for row in source["rows"]] == [
        (1, "Cardiomegaly", False),
        (2, "ILD", True),
        (3, "Edema", True),
    ]
    assert source["rows"][1]["index"] == 1 and source["rows"][2]["threshold"] is None


def test_findings_differ_by_dashes_as_well_as_by_colour(line, processor):
    rows = shown_answer(line, processor)["sources"][0]["rows"]
    assert len({row["dash"] for row in rows}) == len({row["colour"] for row in rows}) == 3


def test_every_diagnosis_has_its_probability_whether_named_or_not(line, processor):
    assert [(row["label"], row["named"]) for row in shown_answer(line, processor)["diagnoses"]] == [
        ("COPD", True),
        ("Pneumonia", False),
    ]


def test_an_answer_that_is_not_understood_is_a_warning_before_those_of_the_radiograph(line, processor):
    assert shown_answer(line, processor)["warnings"] == [
        "The answer to [vqa] is not understood: no sentence",
        "it is lateral",
    ]


def test_boxes_of_candidates_have_their_own_operating_points(line, processor):
    line["candidates"] = [finding("ILD", 0.15)]
    answer, both = shown_answer(line, processor)["sources"]
    assert [len(answer["rows"]), len(both["rows"])] == [3, 4]
    assert {row["threshold"] for row in both["rows"]} == {0.9, 0.1, None}


def test_what_is_filed_reaches_its_operating_point(line, processor):
    line["candidates"] = [finding("ILD", 0.15), finding("Cardiomegaly", 0.2)]
    filed = at_operating_point(line, processor)
    assert filed["threshold"] == "operating_point"
    assert [(f["label"], f["source"]) for f in filed["findings"]] == [
        ("ILD", ["answer"]),
        ("Edema", ["answer"]),
        ("ILD", ["candidate"]),
    ]
    assert [f["label"] for f in filed["candidates"]] == ["Cardiomegaly"]


def test_what_is_filed_are_the_boxes_that_were_chosen_and_they_say_so(line, processor):
    line["fused_findings"] = [finding("ILD", 0.35), finding("Edema", 0.1)]
    processor.fused_thresholds = {"ILD": 0.3, "Edema": 0.2}
    filed = filed_line(line, processor, "fused_findings")
    assert [f["label"] for f in filed["findings"]] == ["ILD"] and filed["boxes"] == "fused_findings"
    assert "boxes" not in filed_line(line, processor, "findings")
    with pytest.raises(ValueError, match="no boxes of view_findings"):
        filed_line(line, processor, "view_findings")


def test_scores_count_as_calibrated_where_those_of_findings_and_diagnoses_are(processor):
    assert not is_calibrated(processor), "a temperature of 1 is none"
    processor.score_temperatures = {"finding": 1.2, "diagnosis": 1.3}
    assert is_calibrated(processor)


def test_what_is_filed_is_what_the_pipeline_gives_at_the_operating_point(answerer, desk, answered_checkpoint):
    _, path = answered_checkpoint
    received = desk.read(path.name, path.read_bytes()).received
    for candidates in (False, True):
        filed = at_operating_point(desk.line(received, candidates), answerer.processor)
        options = {"threshold": "operating_point", "candidates": candidates}
        expected = answerer.pipe(received.picture, **options)
        assert {key: filed[key] for key in expected} == expected


OUTPUT = {
    "answers": {"grounded_report": "..."},
    "probabilities": {"grounded_report": {}},
    "malformed": {"grounded_report": None},
    "warnings": ["never trained"],
    "findings": [],
    "diagnoses": [],
    "grounded_report": [
        {
            "text": "Edema.",
            "probability": 0.9,
            "verified": False,
            "doubtful": False,
            "boxes": [{"score": 0.5, "box": BOX}],
        },
        {"text": "A nodule.", "probability": 0.2, "verified": False, "doubtful": True, "boxes": []},
    ],
}


def test_sentences_are_rows_with_their_outlines_and_doubtful_ones_are_marked():
    shown = shown_words("grounded_report", OUTPUT)
    first, second = shown["rows"]
    assert first["outlines"][0]["box"] == BOX and first["probability"] == 0.9 and first["marks"] == []
    assert second["outlines"] == [] and second["marks"] == ["doubtful"] and shown["malformed"] is None


def test_a_reply_is_marked_unverified_and_a_malformed_answer_says_why():
    reply = {"question": "A fracture?", "text": "No.", "score": 0.9, "verified": False}
    shown = shown_words("question: A fracture?", {"malformed": {"question: A fracture?": None}, "replies": [reply]})
    assert shown["about"] == "A fracture?" and shown["rows"][0]["marks"] == ["unverified"]
    shown = shown_words("report", {"malformed": {"report": "it is cut off"}, "report": []})
    assert shown["rows"] == [] and shown["malformed"] == "it is cut off"


def test_answers_in_words_stand_beside_the_others_of_a_line(line):
    line = {**line, "tasks": ["identify", "vqa"], "warnings": ["it is dark"]}
    merged = with_words(line, {"grounded_report": OUTPUT})
    assert merged["tasks"][-1] == "grounded_report" and set(merged["answers"]) == {*line["answers"], "grounded_report"}
    assert merged["findings"] == line["findings"] and merged["warnings"] == ["it is dark", "never trained"]
    assert merged["grounded_report"] == OUTPUT["grounded_report"] and with_words(line, {}) == line
