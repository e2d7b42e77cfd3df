import random
import re
import time

import pytest

from litegpt.processing.answers import (
    PLACES_PREFIX,
    AnswerError,
    Finding,
    box_to_text,
    diagnoses_to_text,
    findings_to_text,
    places_to_text,
    sentences_to_text,
    text_to_box,
    text_to_diagnoses,
    text_to_findings,
    text_to_places,
    text_to_sentences,
)
from tests.llama_like_tokenizer import random_box

FINDINGS = ["Aortic enlargement", "Cardiomegaly", "Nodule/Mass"]
DIAGNOSES = ["Pneumonia", "Other diseases", "No finding"]
PREFIX = "Local diseases of this chest radiograph are "


def test_answers_are_written_as_the_release_writes_them():
    findings = [Finding("Cardiomegaly", (0.38, 0.52, 0.81, 0.74)), Finding("Cardiomegaly", (0.1, 0.2, 0.3, 0.4))]
    assert findings_to_text(findings) == (
        "Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<38><52><81><74>},"
        "<p>Cardiomegaly</p> {<10><20><30><40>}."
    )
    assert findings_to_text([]) == "Local diseases of this chest radiograph are No finding."
    assert diagnoses_to_text(["Pneumonia", "Other diseases"]) == (
        "Global diseases of this chest radiograph are Pneumonia, Other diseases."
    )
    assert diagnoses_to_text([]) == "Global diseases of this chest radiograph are No finding."


def test_what_is_written_is_read_back():
    findings = [Finding("Nodule/Mass", (0.0, 0.25, 0.5, 1.0)), Finding("Cardiomegaly", (0.38, 0.52, 0.81, 0.74))]
    text = findings_to_text(findings)
    read = text_to_findings(text, FINDINGS)
    assert [(finding.label, finding.box) for finding in read] == [(finding.label, finding.box) for finding in findings]
    assert [text[slice(*finding.span)] for finding in read] == ["{<0><25><50><100>}", "{<38><52><81><74>}"]
    assert text_to_findings(findings_to_text([]), FINDINGS) == []

    text = diagnoses_to_text(DIAGNOSES[:2])
    read = text_to_diagnoses(text, DIAGNOSES)
    assert [text[slice(*diagnosis.span)] for diagnosis in read] == [d.label for d in read] == DIAGNOSES[:2]
    assert [d.label for d in text_to_diagnoses(diagnoses_to_text([]), DIAGNOSES)] == ["No finding"]


def test_every_grid_box_survives_the_round_trip():
    for x1 in range(0, 100, 7):
        for x2 in range(x1 + 1, 101, 7):
            text = findings_to_text([Finding("Cardiomegaly", (x1 / 100, x1 / 100, x2 / 100, x2 / 100))])
            assert text_to_findings(text, FINDINGS)[0].box == (x1 / 100, x1 / 100, x2 / 100, x2 / 100)


def test_a_box_thinner_than_the_grid_gets_an_area_inside_the_image():
    assert box_to_text((0.501, 0.2, 0.502, 0.4)) == "{<50><20><51><40>}"
    assert box_to_text((0.999, 0.0, 1.0, 0.001)) == "{<99><0><100><1>}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with"),
        ("Cardiomegaly", "does not begin with"),
        (PREFIX + "<p>Cardiomegaly</p> {<1><2><3><4>}", "does not end with a full stop"),
        (PREFIX + "<p>Cardiomegaly</p> {<1><2><3>}.", "no finding of the form"),
        (PREFIX + "<p>Cardiomegaly</p>.", "no finding of the form"),
        (PREFIX + "<p>Cardiomegaly</p> {<1><2><3><4>},.", "no finding of the form"),
        (PREFIX + "<p>Cardiomegaly</p> {<1><2><3><4>}; and more.", "neither a comma nor the end"),
        (PREFIX + "<p>Hernia</p> {<1><2><3><4>}.", "an unknown label: 'Hernia'"),
        (PREFIX + "<p>cardiomegaly</p> {<1><2><3><4>}.", "an unknown label: 'cardiomegaly'"),
        (PREFIX + "<p>Cardiomegaly</p> {<1><2><103><4>}.", "a coordinate above 100"),
        (PREFIX + "<p>Cardiomegaly</p> {<5><2><3><4>}.", "a box without area"),
        (PREFIX + "<p>Cardiomegaly</p> {<3><2><3><4>}.", "a box without area"),
        (PREFIX + "No finding, Cardiomegaly.", "no finding of the form"),
    ],
)
def test_a_malformed_answer_about_findings_is_refused_with_the_reason(text, reason):
    with pytest.raises(AnswerError, match=reason):
        text_to_findings(text, FINDINGS)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("Pneumonia, Hernia.", "an unknown label: 'Hernia'"),
        ("Pneumonia,Other diseases.", "an unknown label"),
        ("Pneumonia, Pneumonia.", "stands twice"),
        ("Pneumonia, No finding.", "stands beside another"),
        (".", "an unknown label: ''"),
        ("Pneumonia", "full stop"),
    ],
)
def test_a_malformed_answer_about_diagnoses_is_refused_with_the_reason(body, reason):
    with pytest.raises(AnswerError, match=reason):
        text_to_diagnoses("Global diseases of this chest radiograph are " + body, DIAGNOSES)


# --- Boxes of a phrase, and grounded reports -------------------------------------------------------------------------


def test_places_and_sentences_are_written_in_the_forms_of_the_docstring():
    assert places_to_text([(0.38, 0.52, 0.81, 0.74), (0.11, 0.3, 0.45, 0.8)]) == (
        "Boxes of this phrase are {<38><52><81><74>},{<11><30><45><80>}."
    )
    assert places_to_text([]) == "Boxes of this phrase are None."
    sentences = [("There is cardiomegaly.", [(0.38, 0.52, 0.81, 0.74)]), ("There is no pleural effusion.", [])]
    assert sentences_to_text(sentences) == (
        "<p>There is cardiomegaly.</p> {<38><52><81><74>} <p>There is no pleural effusion.</p>"
    )


def test_random_places_and_sentences_are_read_back_where_they_stand():
    rng = random.Random(0)
    for _ in range(300):
        boxes = [random_box(rng) for _ in range(rng.randint(0, 4))]
        text = places_to_text(boxes)
        places = text_to_places(text)
        assert [place.box for place in places] == boxes
        assert [text[slice(*place.span)] for place in places] == [box_to_text(box) for box in boxes]

        sentences = []
        for _ in range(rng.randint(1, 4)):
            words = "".join(
                rng.choices([" ", "\n", ".", "1", "é", "/p", "None", ",", "There is"], k=rng.randint(0, 6))
            )
            sentences.append((f"{words}A", [random_box(rng) for _ in range(rng.choice([0, 1, 3]))]))
        text = sentences_to_text(sentences)
        read = text_to_sentences(text)
        assert [(one.text, [place.box for place in one.places]) for one in read] == sentences
        assert [text[slice(*one.span)] for one in read] == [words for words, _ in sentences]
        written = [text[slice(*place.span)] for one in read for place in one.places]
        assert written == [box_to_text(box) for _, boxes in sentences for box in boxes]


@pytest.mark.parametrize("words", ["", " ", "\n", "a < b", "a > b", "{", "}", "<p>A.</p>"])
def test_what_cannot_stand_in_a_sentence_is_refused(words):
    with pytest.raises(ValueError, match=f"^The sentence {re.escape(repr(words))} cannot stand in an answer: "):
        sentences_to_text([("A heart.", []), (words, [])])


BOX = "{<1><2><3><4>}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("None", "does not end with a full stop"),
        (".", "no box of the form .* at character 25"),
        ("none.", "no box of the form .* at character 25"),
        ("None,None.", "no box of the form .* at character 25"),
        (f"{BOX},None.", "no box of the form .* at character 40"),
        (f"{BOX}, {BOX}.", "no box of the form .* at character 40"),
        (f"{BOX},.", "no box of the form .* at character 40"),
        (f"{BOX}{BOX}.", "neither a comma nor the end after the box at character 39"),
        (f"{BOX}..", "neither a comma nor the end after the box at character 39"),
        (f"<p>Mass</p> {BOX}.", "no box of the form .* at character 25"),
        ("{<1><2><3>}.", "no box of the form .* at character 25"),
        ("{<1><2><3><4><5>}.", "no box of the form .* at character 25"),
        ("{<01><2><3><4>}.", "no box of the form .* at character 25"),
        ("{<-1><2><3><4>}.", "no box of the form .* at character 25"),
        ("{<\N{ARABIC-INDIC DIGIT ONE}><2><3><4>}.", "no box of the form .* at character 25"),
        ("{<1><2><3><101>}.", "a coordinate above 100 in {<1><2><3><101>}"),
        ("{<3><2><1><4>}.", "a box without area: {<3><2><1><4>}"),
        ("{<1><2><3><2>}.", "a box without area: {<1><2><3><2>}"),
    ],
)
def test_malformed_boxes_of_a_phrase_are_refused_with_their_place(body, reason):
    with pytest.raises(AnswerError, match=reason):
        text_to_places(PLACES_PREFIX + body)


def test_an_answer_about_something_else_is_none_about_a_phrase():
    for text in ("", "None.", PREFIX + "No finding.", f" {PLACES_PREFIX}None."):
        with pytest.raises(AnswerError, match="it does not begin with 'Boxes of this phrase are'"):
            text_to_places(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no sentence of the form <p>sentence</p> at character 0"),
        (" <p>A.</p>", "no sentence .* at character 0"),
        ("A.", "no sentence .* at character 0"),
        ("<p></p>", "no sentence .* at character 0"),
        ("<p> \n</p>", "no sentence .* at character 0"),
        ("<p>A.", "no sentence .* at character 0"),
        ("<p>A. <p>B.</p>", "no sentence .* at character 0"),
        ("<p>5 {mm}</p>", "no sentence .* at character 0"),
        ("<p>A.</p>.", "neither a blank nor the end after the sentence at character 9"),
        ("<p>A.</p><p>B.</p>", "neither a blank nor the end after the sentence at character 9"),
        (f"<p>A.</p>{BOX}", "neither a blank nor the end after the sentence at character 9"),
        ("<p>A.</p> ", "no sentence .* at character 10"),
        ("<p>A.</p>  <p>B.</p>", "no sentence .* at character 10"),
        ("<p>A.</p> B.", "no sentence .* at character 10"),
        (f"<p>A.</p> {BOX} ", "neither a comma nor the end after the box at character 24"),
        (f"<p>A.</p> {BOX} {BOX}", "neither a comma nor the end after the box at character 24"),
        (f"<p>A.</p> {BOX},", "no box of the form .* at character 25"),
        (f"<p>A.</p> {BOX}<p>B.</p>", "neither a comma nor the end after the box at character 24"),
        (f"<p>A.</p> {BOX} <p>B.", "no sentence .* at character 25"),
        ("<p>A.</p> {<1><2><3><0>}", "a box without area: {<1><2><3><0>}"),
        ("<p>A.</p> {<1><2><300><3>} <p>B.</p>", "a coordinate above 100 in {<1><2><300><3>}"),
        ("<p>A.</p> {<1><2><3>} <p>B.</p>", "no box of the form .* at character 10"),
    ],
)
def test_a_malformed_grounded_report_is_refused_with_its_place(text, reason):
    with pytest.raises(AnswerError, match=reason):
        text_to_sentences(text)


def test_a_text_is_a_box_or_the_reason_why_not_is_told():
    assert text_to_box("{<38><52><81><74>}") == (0.38, 0.52, 0.81, 0.74)
    for text, reason in (
        ("left lung", "no box of the form"),
        (f"{BOX}.", "no box"),
        ("{<3><1><2><9>}", "without area"),
    ):
        with pytest.raises(AnswerError, match=reason):
            text_to_box(text)


def test_a_report_without_an_end_is_read_in_no_long_time():
    start = time.perf_counter()
    for text in ("<p>" + "a " * 50_000, "<p>" + " " * 100_000, "<p>A.</p> " + f"{BOX}," * 5000):
        with pytest.raises(AnswerError):
            text_to_sentences(text)
    assert time.perf_counter() - start < 5
