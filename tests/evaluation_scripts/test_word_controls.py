import numpy as np

from litegpt.evaluation_scripts.word_controls import (
    SAMPLED_IMAGES,
    blind_answers,
    control_sample,
    shuffled_answers,
)
from litegpt.evaluation_scripts.word_questions import WordQuestion
from litegpt.evaluation_scripts.word_scores import Given

BOX, OTHER = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]


def question(image, about, answer="", truth=None, task="question"):
    return WordQuestion(image, task, about, answer, truth)


def test_the_mean_box_is_that_of_the_same_phrase_and_as_probable_as_the_phrase_was_there():
    learnt = [
        question(0, "heart", truth=[BOX], task="refer"),
        question(1, "heart", truth=[[0.2, 0.2, 0.7, 0.7]], task="refer"),
        question(2, "heart", truth=[], task="refer"),
        question(3, "mass", truth=[], task="refer"),
    ]
    asked = [question(9, "heart", task="refer"), question(9, "mass", task="refer"), question(9, "new", task="refer")]
    blind = blind_answers("refer", asked, learnt)
    assert blind["none"] == [[Given("", [])] * 3]
    (heart, mass, new) = blind["mean_box"][0]
    assert np.allclose(heart.boxes, [[0.1, 0.1, 0.6, 0.6]]) and heart.present == 2 / 3
    assert mass.boxes == new.boxes == heart.boxes  # of phrases never seen with a box: the mean of all
    assert (mass.present, new.present) == (0, 0.5)
    assert blind_answers("refer", asked, learnt[3:])["mean_box"] == [[Given("", [], 0.0)] * 3]


def test_the_most_frequent_answer_is_that_to_the_same_question_or_to_its_kind():
    learnt = [
        question(0, "Is it big?", "No.", True),
        question(1, "Is it big?", "no", True),
        question(2, "Is it big?", "yes", True),
        *[question(3 + number, f"Is it {number}?", "yes", True) for number in range(4)],
        question(8, "Where?", "left", False),
    ]
    asked = [question(9, "Is it big?", "", True), question(9, "Is it new?", "", True), question(9, "What?", "", False)]
    (answers,) = blind_answers("question", asked, learnt)["most_frequent"]
    assert [one.text for one in answers] == ["no", "yes", "left"]
    reports = [question(n, None, text, task="report") for n, text in enumerate(["A b.", "C d.", "C d."])]
    (answers,) = blind_answers("report", reports, reports)["most_frequent"]
    assert {one.text for one in answers} == {"C d."} and answers[0].sentences == [{"text": "C d.", "boxes": []}]


def test_every_question_gets_the_answer_to_the_same_one_about_another_image():
    asked = [question(image, about, truth=True) for image in range(5) for about in ("a?", "b?")]
    asked += [question(0, "alone?", truth=True), question(1, "single?", truth=True), question(2, "open?", truth=False)]
    given = [Given(f"{one.image} {one.about}") for one in asked]
    shuffled = shuffled_answers(asked, given, np.random.default_rng(0))
    for one, answer in zip(asked[:10], shuffled, strict=False):
        image, about = answer.text.split()
        assert about == one.about and int(image) != one.image
    # Nobody else was asked the same: another question of the kind; where there is none, any about another image.
    assert [answer.text for answer in shuffled[10:12]] == ["1 single?", "0 alone?"]
    assert not shuffled[12].text.startswith("2")
    assert shuffled_answers(asked[:2], given[:2], np.random.default_rng(0)) is None


def test_the_control_sample_is_bounded_and_the_same_in_every_run():
    images = list(range(0, 400, 2)) * 3
    sample = control_sample(images)
    assert len(sample) == SAMPLED_IMAGES and sample == sorted(set(sample)) and sample == control_sample(images)
    assert set(sample) <= set(images) and control_sample([7, 3, 3]) == [3, 7]
