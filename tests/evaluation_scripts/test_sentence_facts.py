import pytest

from litegpt.datasets_scripts.template_words import with_template_words
from litegpt.evaluation_scripts.sentence_facts import affirms, facts_truth, labels_truth, sentence_truths

LABELS = ("Cardiomegaly", "Nodule/Mass", "Pleural effusion")
TRUTH = facts_truth({"Nodule/Mass": {"left upper zone", "both lower zones"}}, LABELS)


@pytest.mark.parametrize(
    ("sentence", "is_true"),
    [
        ("There is no cardiomegaly.", True),
        ("There is cardiomegaly.", False),
        ("There is a nodule or mass.", True),
        ("There is no nodule or mass.", False),
        ("There is a nodule or mass in the left upper zone.", True),  # it need not name all places
        ("There is a nodule or mass in the left upper zone and both lower zones.", True),
        ("There is a nodule or mass in the right upper zone.", False),
        ("There is a nodule or mass in the left upper zone and the right middle zone.", False),
        ("There is a nodule or mass in the right lower zone.", None),  # both lower zones may hold it
        ("There is pleural effusion in the left lower zone.", False),
        ("The heart is enlarged.", None),
    ],
)
def test_a_template_sentence_is_held_against_what_is_there(sentence, is_true):
    assert TRUTH(sentence) is is_true


def test_the_template_sentences_of_a_row_are_true_of_it_and_rows_that_do_not_tell_say_nothing(rows):
    worded = with_template_words(rows)
    truths = sentence_truths(worded, "facts")
    told = 0
    for sentences, truth in zip(worded["sentences"], truths, strict=True):
        assert (truth is None) == (not sentences)
        for sentence in sentences:
            told += 1
            assert truth(sentence["text"]) is True
            assert truth(sentence["text"].replace("There is no ", "There is ")) in (True, False, None)
    assert told > 20


REPORT = "The heart is enlarged. No effusion. Possible pneumonia."


@pytest.mark.parametrize(
    ("report", "sentence", "is_true"),
    [
        (REPORT, "There is cardiomegaly.", True),
        (REPORT, "Heart size is normal. ", False),
        (REPORT, "There is a small left effusion.", False),
        (REPORT, "No effusion or pneumothorax.", None),  # nothing is said of a pneumothorax
        (REPORT, "No cardiomegaly or pneumothorax.", False),  # one half of it is false
        (REPORT, "There is pneumonia.", None),
        (REPORT, "There is a fracture.", None),
        (REPORT, "Comparison is made with yesterday.", None),
        ("The lungs are clear.", "There is a fracture.", False),  # a report that finds nothing speaks of all
        ("The lungs are clear.", "No pneumothorax.", True),
    ],
)
def test_a_real_sentence_is_held_against_the_labels_of_the_report(report, sentence, is_true):
    assert labels_truth(report)(sentence) is is_true


def test_a_sentence_affirms_or_denies_or_does_neither():
    assert affirms("There is cardiomegaly.", "facts", LABELS) is True
    assert affirms("There is no cardiomegaly.", "facts", LABELS) is False
    assert affirms("Rubbish.", "facts", LABELS) is None
    assert affirms("Small effusion, no pneumothorax.", "labels", LABELS) is True
    assert affirms("No effusion.", "labels", LABELS) is False
    assert affirms("Two views.", "labels", LABELS) is None
