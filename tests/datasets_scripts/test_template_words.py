"""Template words say what labels and boxes say, and no more."""

from itertools import combinations

import pytest

from litegpt.datasets_scripts.annotations import optional_columns
from litegpt.datasets_scripts.template_words import (
    COLUMNS,
    PLACES,
    WHICH_FINDINGS,
    Fact,
    checklist,
    fact_of,
    has_places,
    place_of,
    template_words,
    text_of,
    with_template_words,
    words_of,
)
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS

NODULE, HEART, EFFUSION = (
    FINDING_LABELS.index(label) for label in ("Nodule/Mass", "Cardiomegaly", "Pleural effusion")
)
RIGHT_UPPER, LEFT_LOWER, LEFT_LOWER_TOO = (0.2, 0.1, 0.3, 0.2), (0.7, 0.6, 0.8, 0.7), (0.6, 0.65, 0.7, 0.7)
OTHER_LABELS = ["Lung_mass", "COPD", "Enlarged heart"]


def words(findings, diagnoses=("Other diseases",), image_id="a", labels=FINDING_LABELS):
    findings = [{"label": label, "box": list(box), "readers": 1} for label, box in findings]
    return template_words(image_id, findings, diagnoses, labels)


@pytest.mark.parametrize("labels", [FINDING_LABELS, OTHER_LABELS])
def test_every_sentence_is_read_back_as_the_fact_that_it_says(labels):
    facts = [Fact(label, False) for label in labels] + [Fact(label, True) for label in labels]
    for count in (1, 2, 3):
        facts += [Fact(label, True, places) for label in labels for places in combinations(PLACES, count)]
    sentences = [text_of(fact) for fact in facts]
    assert len(set(sentences)) == len(facts)
    assert [fact_of(sentence, labels) for sentence in sentences] == facts


@pytest.mark.parametrize(
    "sentence",
    ["", "There is cardiomegaly", "There is no cardiomegaly in the left upper zone.", "There is a cardiomegaly.",
     "There is cardiomegaly. There is edema.", "There is edema in the left.", "There is XXXX.", "The heart is large."],
)  # fmt: skip
def test_what_is_no_template_sentence_says_nothing_that_is_known(sentence):
    assert fact_of(sentence) is None


def test_the_left_of_the_picture_is_the_patients_right():
    assert place_of(RIGHT_UPPER) == "right upper zone" and place_of(LEFT_LOWER) == "left lower zone"
    assert (
        place_of((0.1, 0.4, 0.9, 0.5)) == "both middle zones" and place_of((0.4, 0.4, 0.9, 0.5)) == "left middle zone"
    )
    assert not any(map(has_places, ("Aortic enlargement", "Cardiomegaly", "Enlarged PA", "Mediastinal shift")))
    assert has_places("Pleural effusion")


def test_a_report_goes_through_the_checklist_and_adds_what_else_there_is_in_the_labels_order():
    edema = FINDING_LABELS.index("Edema")
    told = words(
        [(NODULE, LEFT_LOWER), (edema, (0.2, 0.3, 0.8, 0.6)), (NODULE, RIGHT_UPPER), (NODULE, LEFT_LOWER_TOO)]
    )
    texts = [sentence["text"] for sentence in told["sentences"]]
    assert told["report_findings"] == " ".join(texts)
    facts = [fact_of(text) for text in texts]
    labels = [fact.label for fact in facts]
    assert labels == [label for label in FINDING_LABELS if label in checklist(FINDING_LABELS) or label == "Edema"]
    assert {fact.label for fact in facts if fact.present} == {"Nodule/Mass", "Edema"}
    nodule = told["sentences"][labels.index("Nodule/Mass")]
    assert nodule["text"] == "There is a nodule or mass in the right upper zone and the left lower zone."
    assert sorted(nodule["boxes"]) == sorted(map(list, (RIGHT_UPPER, LEFT_LOWER, LEFT_LOWER_TOO)))
    assert all(not sentence["boxes"] for sentence in told["sentences"] if " no " in sentence["text"])


def test_phrases_have_all_their_boxes_and_as_many_say_what_is_not_there():
    for number in range(30):  # whatever was drawn by lot
        told = words(
            [(NODULE, LEFT_LOWER), (NODULE, RIGHT_UPPER), (HEART, (0.3, 0.5, 0.7, 0.8))], image_id=str(number)
        )
        boxes = {phrase["phrase"]: phrase["boxes"] for phrase in told["phrase"]}
        present = {phrase for phrase, of_phrase in boxes.items() if of_phrase}
        assert present == {
            "cardiomegaly",
            "nodule or mass",
            "nodule or mass in the right upper zone",
            "nodule or mass in the left lower zone",
        }
        assert boxes["nodule or mass"] == [list(RIGHT_UPPER), list(LEFT_LOWER)]
        assert boxes["nodule or mass in the right upper zone"] == [list(RIGHT_UPPER)]
        absent = set(boxes) - present
        assert len(present) - 1 <= len(absent) <= len(present)
        assert not any(phrase.startswith("cardiomegaly") for phrase in absent)
        assert any(phrase.startswith("nodule or mass in ") for phrase in absent)


def test_a_normal_radiograph_is_asked_for_what_it_does_not_show():
    told = words([], ["No finding"])
    assert len(told["phrase"]) == 2 and not any(phrase["boxes"] for phrase in told["phrase"])
    assert all(
        fact_of(sentence["text"]) == Fact(fact_of(sentence["text"]).label, False) for sentence in told["sentences"]
    )
    answers = {pair["question"]: pair["answer"] for pair in told["qa"]}
    assert answers.pop(WHICH_FINDINGS) == "none" and set(answers.values()) == {"no"} and len(answers) == 2


def test_closed_questions_are_balanced_and_open_ones_tell_place_and_labels():
    told = words([(NODULE, RIGHT_UPPER), (EFFUSION, LEFT_LOWER)])
    closed = [pair["answer"] for pair in told["qa"] if pair["closed"]]
    assert sorted(closed) == ["no", "no", "yes", "yes"]
    answers = {pair["question"]: pair["answer"] for pair in told["qa"]}
    assert (
        answers["Is there a nodule or mass?"] == "yes"
        and answers["Where is the nodule or mass?"] == "right upper zone"
    )
    assert answers[WHICH_FINDINGS] == "nodule or mass, pleural effusion"


def test_a_diagnosis_without_a_box_tells_no_words():
    for diagnoses in (["Pneumonia"], []):
        assert words([], diagnoses) == {"report_findings": None, "sentences": [], "phrase": [], "qa": []}


def test_other_labels_are_told_by_their_own_words():
    assert [words_of(label)[1] for label in OTHER_LABELS] == ["lung mass", "COPD", "enlarged heart"]
    told = words([(0, RIGHT_UPPER)], labels=OTHER_LABELS)
    assert told["report_findings"] == (
        "There is lung mass in the right upper zone. There is no COPD. There is no enlarged heart."
    )


def test_rows_get_the_columns_of_the_schema_and_the_same_words_in_whatever_order(rows):
    told = with_template_words(rows)
    features = optional_columns(FINDING_LABELS, DIAGNOSIS_LABELS)
    assert {column: told.features[column] for column in COLUMNS} == {column: features[column] for column in COLUMNS}
    assert told.remove_columns(list(COLUMNS)).features == rows.features and told["image_id"][:] == rows["image_id"][:]
    backwards = with_template_words(rows.select(range(len(rows) - 1, -1, -1)))
    for column in COLUMNS:
        assert backwards[column][::-1] == told[column][:]
    normal = [diagnoses == [DIAGNOSIS_LABELS.index("No finding")] for diagnoses in rows["diagnoses"]]
    known = [bool(findings) or is_normal for findings, is_normal in zip(rows["findings"], normal, strict=True)]
    assert [report is not None for report in told["report_findings"]] == known and any(known)
    with pytest.raises(ValueError, match="words of their own already"):
        with_template_words(told)
