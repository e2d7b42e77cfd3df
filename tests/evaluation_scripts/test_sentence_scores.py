import numpy as np
import pytest

from litegpt.evaluation_scripts.sentence_facts import facts_truth
from litegpt.evaluation_scripts.sentence_scores import (
    ToldSentence,
    borrowed_reports,
    chance,
    sentence_counts,
    sentence_statistic,
    told_sentences,
)

LABELS = ("Cardiomegaly", "Edema")


@pytest.mark.parametrize("count", [3, 4, 9])
def test_a_borrowed_report_is_another_images_and_the_third_image_is_neither(count):
    images = [10 * number for number in range(count)]
    borrowed = borrowed_reports(images, [f"report of {image}" for image in images])
    assert [one.image for one in borrowed] == images
    for one in borrowed:
        owner = int(one.answer.split()[-1])
        assert len({one.image, owner, one.third}) == 3
    assert len({one.answer for one in borrowed}) == len({one.third for one in borrowed}) == count


def test_two_images_have_no_third():
    assert borrowed_reports([0, 1], ["a", "b"]) == []


def test_sentences_whose_truth_is_unknown_are_left_out():
    answer = "There is cardiomegaly. Rubbish. There is no edema."
    truth = facts_truth({"Edema": {"both lower zones"}}, LABELS)
    told = told_sentences(4, "report", answer, [0.7, 0.9, None], truth, "facts", LABELS)
    assert told == [
        ToldSentence(4, "There is cardiomegaly.", 0.7, False, True),
        ToldSentence(4, "There is no edema.", None, False, False),
    ]
    assert told_sentences(4, "report", answer, [0.7, 0.9, None], None, "facts", LABELS) == []
    assert sentence_counts(told) == {"sentences": 1, "true": 0, "images": 1, "without_probability": 1}
    grounded = "<p>There is cardiomegaly.</p> {<1><2><3><4>} <p>There is edema.</p>"
    told = told_sentences(0, "grounded_report", grounded, [0.1, 0.2], truth, "facts", LABELS)
    assert [(one.text, one.is_true) for one in told] == [("There is cardiomegaly.", False), ("There is edema.", True)]


def test_what_affirms_and_what_denies_is_ranked_apart_too():
    """Denials are more probable and mostly true: all together rank well, though within either kind it is chance."""
    told = [
        ToldSentence(image, "", belief, is_true, affirms)
        for image in range(10)
        for belief, is_true, affirms in (
            (0.9, image > 0, False),
            (0.9, image > 0, False),
            (0.2, image == 0, True),
        )
    ]
    figures = sentence_statistic(told, threshold=0.5)(np.ones((1, 10)))
    assert figures.keys() == chance(np.ones((1, 10))).keys()
    assert figures["auroc",] > 0.85 and figures["auroc_affirmed",] == figures["auroc_denied",] == 0.5
    assert figures["doubtful_of_false",] == pytest.approx(9 / 11) and figures["doubtful_of_true",] == pytest.approx(
        1 / 19
    )
    # Of the first image alone, twice: one true affirmation, two false denials.
    weights = np.zeros((1, 10))
    weights[0, 0] = 2
    first = sentence_statistic(told, threshold=0.5)(weights)
    assert first["auroc",] == 0 and first["doubtful_of_true",] == 1 and np.isnan(first["auroc_affirmed",])
