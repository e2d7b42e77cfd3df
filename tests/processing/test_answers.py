import pytest

from litegpt.processing.answers import (
    AnswerError,
    Finding,
    box_to_text,
    diagnoses_to_text,
    findings_to_text,
    text_to_diagnoses,
    text_to_findings,
)

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
