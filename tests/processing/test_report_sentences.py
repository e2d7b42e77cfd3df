import random
import time

import pytest

from litegpt.processing.report_sentences import contraries, negated, sentence_spans

CONTRARIES = {
    # What is there, and what is not
    "There is a small effusion in the left base.": "There is no small effusion.",
    "There are several calcified nodules.": "There are no calcified nodules.",
    "There is no evidence of pneumothorax.": "There is pneumothorax.",
    "There is not any consolidation.": "There is any consolidation.",
    "No pneumothorax is seen.": "Pneumothorax is seen.",
    "No effusion.": "There is effusion.",
    "No pleural effusions or pneumothoraces.": "There are pleural effusions or pneumothoraces.",
    "No sign of stenosis of the trachea": "There is stenosis of the trachea",
    "Specifically, no rib fracture.": "There is rib fracture.",
    "Absent left breast shadow.": "There is left breast shadow.",
    "Mild cardiomegaly.": "There is no mild cardiomegaly.",
    "COPD.": "There is no COPD.",
    "A 1.5 cm nodule within the right upper lobe.": "There is no 1.5 cm nodule.",
    "Elevation of the right hemidiaphragm.": "There is no elevation of the right hemidiaphragm.",
    "Bibasilar opacities, which may be atelectasis.": "There are no bibasilar opacities, which may be atelectasis.",
    # What something is
    "The heart is enlarged.": "The heart is not enlarged.",
    "The heart is not enlarged.": "The heart is enlarged.",
    "The mediastinum was unremarkable": "The mediastinum was not unremarkable",
    "Lungs are clear of infiltrates.": "Lungs are not clear of infiltrates.",
    "The right breast shadow is absent.": "The right breast shadow is not absent.",
    "The ribs are without fracture.": "The ribs are not without fracture.",
    "The catheter is no longer seen.": "The catheter is seen.",
    "The tube has been removed.": "The tube has not been removed.",
    "The effusion has resolved.": "The effusion has not resolved.",
    "The lungs have no infiltrates.": "The lungs have infiltrates.",
    "The lungs have coarse markings.": "The lungs have no coarse markings.",
    "This may represent a mass.": "This may not represent a mass.",
    "A mass cannot be excluded.": "A mass can be excluded.",
    "The spine appears intact.": "The spine does not appear intact.",
    "The lungs remain clear.": "The lungs do not remain clear.",
    "Both bases show no opacity.": "Both bases show opacity.",
    "Again seen is a left chest port.": "Again seen is no left chest port.",
    # Without a verb
    "Heart size normal.": "Heart size not normal.",
    "Cardiac contour within normal limits": "Cardiac contour not within normal limits",
    "Normal heart size.": "Abnormal heart size.",
    "Unremarkable soft tissues.": "Remarkable soft tissues.",
    "Heart of normal size.": "Heart of abnormal size.",
    "Negative for fracture.": "Positive for fracture.",
    "Lungs are clear without consolidation.": "Lungs are clear with consolidation.",
    "Hyperinflation with no effusion.": "Hyperinflation with effusion.",
    "Without acute change.": "With acute change.",
    # What stands before or behind a statement stays
    "2. The aorta is tortuous.": "2. The aorta is not tortuous.",
    "Lungs: Clear.": "Lungs: Not clear.",
    "Bones: No fracture!": "Bones: There is fracture!",
    # Two statements; advice; questions; no words
    "The heart is enlarged, and there is no effusion.": None,
    "The heart is large and the lungs are clear.": None,
    "No consolidation, no effusion.": None,
    "No focal consolidation, no definite effusion seen.": None,
    "Heart size normal, lungs clear.": None,
    "Mild edema and no effusion.": None,
    "The lungs are clear; the heart is normal.": None,
    "Recommend a CT of the chest.": None,
    "Clinical correlation is advised.": None,
    "Is there a nodule?": None,
    "": None,
    "...": None,
}


@pytest.mark.parametrize("sentence", CONTRARIES)
def test_a_sentence_has_the_contrary_that_a_reader_would_expect(sentence):
    assert negated(sentence) == CONTRARIES[sentence]


@pytest.mark.parametrize(
    ("sentence", "forms"),
    [
        ("No mass.", ["There is mass.", "There is a mass."]),
        ("There is no effusion", ["There is effusion", "There is an effusion"]),
        ("1. There was no mass.", ["1. There was mass.", "1. There was a mass."]),
        ("No mass is seen.", ["Mass is seen.", "A mass is seen."]),
        ("No masses are seen.", ["Masses are seen."]),
        ("There are no masses.", ["There are masses."]),
        ("There is not an effusion.", ["There is an effusion."]),
        ("There is a mass.", ["There is no mass."]),
        ("The heart is large.", ["The heart is not large."]),
        ("Please compare.", []),
    ],
)
def test_what_is_denied_has_its_contrary_with_an_article_too(sentence, forms):
    assert contraries(sentence) == forms


def test_what_is_denied_twice_is_said_again():
    for sentence in (
        "The heart is enlarged.",
        "The tube has been removed.",
        "There is pneumothorax.",
        "This may be a mass.",
    ):
        assert negated(negated(sentence)) == sentence


@pytest.mark.parametrize(
    "sentences",
    [
        ["The heart is enlarged.", "No effusion."],
        ["A nodule of 1.5 cm.", "It was 2.5 cm on 3.4.2019."],
        ["Reported to Dr. Stone at 3 p.m. by phone.", "No pneumothorax."],
        ["Compared with J. Doe's film, e.g. the lateral view.", "Stable."],
        ["1. Cardiomegaly.", "2. No effusion."],
        ["1. Cardiomegaly", "2. No effusion", "3. Clear lungs"],
        ["It measures 12.", "No effusion."],
        ["Is it a mass?", "(No.)", 'So-called "normal heart."', "The end"],
        ["heart size is normal.", "lungs are clear."],
        ["The heart\nis enlarged.", "No\teffusion."],
        ["Herz größer.", "Épanchement."],
    ],
)
def test_sentences_end_where_a_reader_would_end_them(sentences):
    for gap in (" ", "\n", "  \n"):
        text = f" {gap.join(sentences)}\n"
        assert [text[slice(*span)] for span in sentence_spans(text)] == sentences


def test_spans_leave_out_nothing_but_blanks():
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices(["A", "b", ".", " ", "1", "2. ", "\n", "?", "Dr. ", ")"], k=rng.randint(0, 25)))
        spans, end = sentence_spans(text), 0
        for first, last in spans:
            assert not text[end:first].strip() and first < last and text[first:last].strip() == text[first:last]
            end = last
        assert not text[end:].strip()


def test_long_text_takes_no_long_time():
    """Text that a model repeats until it is cut off, which no expression may try in every possible way."""
    start = time.perf_counter()
    for words in ("the lung is ", "a, ", "no ", "in the ", "and the ", "is, and no ", "which ", "1. ", "seen is "):
        text = words * (6000 // len(words))
        negated(text)
        sentence_spans(text)
    assert time.perf_counter() - start < 20
