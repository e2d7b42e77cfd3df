import numpy as np
import pytest

from litegpt.evaluation_scripts import word_scores
from litegpt.evaluation_scripts.word_questions import WordQuestion
from litegpt.evaluation_scripts.word_scores import (
    Given,
    Reading,
    compared,
    given_answer,
    told_answer,
    word_statistic,
)

BOX, ELSEWHERE = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
LABELS = ("Cardiomegaly", "Pleural effusion", "Nodule/Mass")
TEMPLATES = Reading(LABELS)
ONCE = np.ones((1, 4))


def figures(task, pairs, reading=TEMPLATES, weights=ONCE):
    """Of (true answer, truth, given) of images 0, 1, ..."""
    asked = [WordQuestion(image, task, None, answer, truth) for image, (answer, truth, _) in enumerate(pairs)]
    return word_statistic(asked, [given for *_, given in pairs], reading)(weights)


def test_lines_become_answers_and_a_malformed_one_says_nothing():
    line = {"task": "refer", "answer": "...", "malformed": None}
    phrase = {"phrase": "heart", "present": 0.9, "boxes": [{"score": 0.5, "box": BOX}]}
    assert given_answer({**line, "phrases": [phrase]}) == Given("...", [BOX], 0.9)
    assert given_answer({**line, "phrases": [], "malformed": "why"}) == Given("...", malformed="why")
    sentences = [{"text": "A.", "boxes": [{"score": 0.5, "box": BOX}]}, {"text": "B."}]
    report = {"task": "grounded_report", "answer": "...", "malformed": None, "grounded_report": sentences}
    assert given_answer(report).sentences == [{"text": "A.", "boxes": [BOX]}, {"text": "B.", "boxes": []}]
    assert told_answer("report", "A b. C d.").sentences == [
        {"text": "A b.", "boxes": []},
        {"text": "C d.", "boxes": []},
    ]
    told = told_answer("grounded_report", "<p>A b.</p> {<10><10><50><50>}")
    assert told.sentences == [{"text": "A b.", "boxes": [(0.1, 0.1, 0.5, 0.5)]}]


def test_refer_is_right_on_present_and_on_absent_phrases():
    found = figures(
        "refer",
        [
            ("", [BOX], Given("", [BOX], 0.9)),
            ("", [BOX], Given("", [ELSEWHERE], 0.6)),
            ("", [], Given("", [], 0.1)),
            ("", [], Given("", None, None, malformed="why")),
        ],
    )
    assert (found["mean_iou",], found["accuracy_at_iou", "0.5"], found["no_box_correct",]) == (0.5, 0.5, 0.5)
    assert found["balanced",] == 0.5 and found["auroc",] == 1


def test_descriptions_and_replies_are_compared_word_by_word():
    assert figures("describe", [("Lung Opacity", None, Given("lung opacity."))])["exact",] == 1
    found = figures(
        "question",
        [
            ("yes", True, Given("Yes, there is.")),
            ("no", True, Given("no", malformed="it is cut off")),
            ("the left lower lobe", False, Given("left upper lobe")),
        ],
        weights=np.ones((1, 3)),
    )
    assert found["closed_accuracy",] == 0.5  # what is cut off is wrong, whatever it begins with
    assert found["open_exact",] == 0 and found["open_recall",] == pytest.approx(2 / 3)


NORMAL = "There is no cardiomegaly. There is no pleural effusion."
ILL = "There is cardiomegaly. There is no pleural effusion."


def test_a_constant_normal_report_has_most_sentences_and_affirms_nothing():
    found = figures(
        "report",
        [(ILL, None, told_answer("report", NORMAL)), (NORMAL, None, told_answer("report", NORMAL))],
        weights=np.ones((1, 2)),
    )
    assert found["sentences", "f1"] == 0.75 and found["affirmed", "f1"] == 0
    assert found["rouge_l",] > 0.9 and found["micro_f1", "14"] < 0.7
    # Words of no template count as a statement that is wrong, in any figure of sentences.
    found = figures("report", [(ILL, None, told_answer("report", ILL + " Rubbish."))], weights=np.ones((1, 1)))
    assert found["affirmed", "precision"] == 0.5 and found["affirmed", "recall"] == 1
    assert found["sentences", "precision"] == pytest.approx(2 / 3)


def test_a_template_sentence_counts_with_its_places_and_real_ones_by_what_they_state():
    there, elsewhere = (f"There is a nodule or mass in the {side} upper zone." for side in ("left", "right"))
    assert (
        figures("report", [(there, None, told_answer("report", elsewhere))], weights=ONCE[:, :1])["sentences", "f1"]
        == 0
    )
    real = figures(
        "grounded_report",
        [
            (
                "",
                [{"text": "There is a left effusion.", "boxes": [BOX]}],
                Given("", sentences=[{"text": "Effusion on the left.", "boxes": [ELSEWHERE]}]),
            )
        ],
        Reading(),
        ONCE[:, :1],
    )
    assert real["sentences", "f1"] == 1 and real["sentences_with_boxes", "f1"] == 0 and ("affirmed", "f1") not in real


def test_a_malformed_report_has_no_sentence_and_no_label_but_its_words():
    found = figures("report", [(ILL, None, Given(ILL, malformed="it is cut off"))], weights=ONCE[:, :1])
    assert found["sentences", "f1"] == 0 and found["micro_f1", "14"] == 0 and found["rouge_l",] == 1


def test_reports_are_measured_by_others_models_where_these_are_asked_for(monkeypatch):
    levels = ("simple", "partial", "complete")
    monkeypatch.setattr(
        word_scores, "radgraph_rewards", lambda a, b: {level: np.array([1.0, 0.0]) for level in levels}
    )
    monkeypatch.setattr(word_scores, "chexbert_states", lambda texts: [{"Edema": "positive"}] * len(texts))
    pairs = [(ILL, None, told_answer("report", ILL)), (ILL, None, told_answer("report", ILL))]
    found = figures("report", pairs, Reading(LABELS, ("radgraph", "chexbert")), np.array([[3.0, 1.0]]))
    assert found["radgraph", "partial"] == 0.75 and found["chexbert_micro_f1", "14"] == 1


def test_a_figure_stands_beside_controls_on_the_same_resampled_images():
    hits = np.array([1.0, 1.0, 1.0, 0.0] * 25)

    def share(values):
        return lambda weights: {("share",): weights @ values / weights.sum(axis=-1)}

    result = compared(share(hits), {"same": [share(hits)], "blind": [share(0 * hits), share(hits / 2)]}, 100)
    figure = result["share",]
    assert figure.value == 0.75 and figure.interval[0] < 0.75 < figure.interval[1]
    assert figure.differences["same"] == (0.75, 0.0, [0.0, 0.0])  # paired: the same answers never differ
    blind = figure.differences["blind"]  # the mean of its two
    assert (blind.control, blind.more) == (0.1875, 0.5625) and 0.4 < blind.interval[0] < 0.5625 < blind.interval[1]
    nothing = compared(share(hits * np.nan), {"blind": [share(hits)]}, 100)["share",]
    assert (nothing.value, nothing.interval, nothing.differences["blind"].more) == (None, None, None)
    # Patients are drawn with all of their images: of one patient alone nothing varies.
    assert compared(share(hits), {}, 100, np.zeros(100, dtype=int))["share",].interval == [0.75, 0.75]
