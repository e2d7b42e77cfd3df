import copy

import pytest

from litegpt.processing.answers import AnswerError
from litegpt.processing.box_scores import Answer
from litegpt.processing.word_answers import spans_of_sentences, word_entries

GROUNDED = "<p>There is a mass.</p> {<10><20><30><40>},{<50><20><60><40>} <p>No effusion.</p>"


@pytest.fixture
def calibrated(processor):
    processor = copy.copy(processor)
    processor.sentence_calibration = {"slope": 1.0, "intercept": 1.0, "threshold": 0.6}
    return processor


def test_a_phrase_is_present_as_far_as_its_answer_is_not_none(processor):
    answer = Answer("Boxes of this phrase are None.", [0], [1.0], label_probabilities={"None": 0.75})
    assert word_entries(("refer", "a mass"), answer, processor) == [{"phrase": "a mass", "present": 0.25, "boxes": []}]
    answer = Answer("Boxes of this phrase are {<10><20><30><40>}.", [], [])
    assert word_entries(("refer", "a mass"), answer, processor) == [
        {"phrase": "a mass", "present": None, "boxes": [{"score": None, "box": (0.1, 0.2, 0.3, 0.4)}]}
    ]


def test_a_report_s_sentences_have_their_calibrated_probabilities_and_doubts(calibrated):
    answer = Answer("Mass. No effusion.  Please compare.", [0], [1.0], log_odds=(-1.0, 0.0, None))
    assert word_entries(("report", None), answer, calibrated) == [
        {"text": "Mass.", "probability": pytest.approx(0.5), "verified": False, "doubtful": True},
        {"text": "No effusion.", "probability": pytest.approx(0.731059), "verified": False, "doubtful": False},
        {"text": "Please compare.", "probability": None, "verified": False, "doubtful": None},
    ]
    assert [one["probability"] for one in word_entries(("report", None), Answer(answer.text, [], []), calibrated)] == [
        None
    ] * 3
    assert word_entries(("report", None), Answer("", [], []), calibrated) == []


def test_a_grounded_report_s_sentences_have_boxes_too(calibrated):
    first, second = word_entries(("grounded_report", None), Answer(GROUNDED, [], [], log_odds=(-1.0, 0.0)), calibrated)
    assert (first["text"], first["probability"], first["doubtful"]) == ("There is a mass.", pytest.approx(0.5), True)
    assert [box["box"] for box in first["boxes"]] == [(0.1, 0.2, 0.3, 0.4), (0.5, 0.2, 0.6, 0.4)]
    assert (second["text"], second["boxes"], second["verified"]) == ("No effusion.", [], False)
    with pytest.raises(AnswerError, match="no sentence of the form"):
        word_entries(("grounded_report", None), Answer("A mass.", [], []), calibrated)


@pytest.mark.parametrize(
    ("text", "verified"),
    [("Cardiomegaly", True), ("cardiomegaly.", True), ("COPD", True), ("A large heart", False), ("", False)],
)
def test_a_description_is_verified_where_it_is_a_label(processor, text, verified):
    answer = Answer(text, [0, 1], [0.5, 0.5])
    entry = {"box": "{<1><2><3><4>}", "text": text, "score": 0.25, "verified": verified}
    assert word_entries(("describe", "{<1><2><3><4>}"), answer, processor) == [entry]


@pytest.mark.parametrize("task", ["question", "chat"])
def test_a_reply_has_the_probability_of_its_tokens_and_is_never_verified(processor, task):
    (entry,) = word_entries((task, "Is there?"), Answer("Cardiomegaly", [0, 6], [0.5, 0.8]), processor)
    assert entry == {"question": "Is there?", "text": "Cardiomegaly", "score": pytest.approx(0.4), "verified": False}
    assert word_entries((task, "Is there?"), Answer("No.", [], []), processor)[0]["score"] is None


def test_only_reports_have_sentences():
    assert spans_of_sentences("report", "Mass. Clear.") == [(0, 5), (6, 12)]
    assert [GROUNDED[slice(*span)] for span in spans_of_sentences("grounded_report", GROUNDED)] == [
        "There is a mass.",
        "No effusion.",
    ]
    assert spans_of_sentences("question", "A. B.") == spans_of_sentences("refer", "A. B.") == []
    with pytest.raises(AnswerError):
        spans_of_sentences("grounded_report", "A. B.")
