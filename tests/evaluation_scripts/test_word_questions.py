from datasets import Dataset

from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.template_words import with_template_words
from litegpt.evaluation_scripts.arguments import WORD_QUESTIONS
from litegpt.evaluation_scripts.word_questions import word_questions

BOX, OTHER = [0.125, 0.25, 0.5, 0.75], [0.5, 0.25, 0.75, 0.5]
LABELS = ("Cardiomegaly", "Nodule/Mass"), ("Pneumonia", "No finding")


def rows_of(*rows, columns=("phrase", "sentences", "report_findings", "qa")):
    common = {"image": None, "width": 100, "height": 100, "findings": [], "diagnoses": [], "view": "PA"}
    told = [
        {"image_id": f"image{number}", **common, **dict.fromkeys(columns), **row} for number, row in enumerate(rows)
    ]
    return Dataset.from_list(told, features=row_features(*LABELS, columns=columns))


ROWS = rows_of(
    {
        "findings": [{"label": 0, "box": BOX, "readers": 1}],
        "phrase": [{"phrase": "large heart", "boxes": [BOX, OTHER]}, {"phrase": "effusion", "boxes": []}],
        "sentences": [{"text": " ", "boxes": []}, {"text": "A {large}  heart.", "boxes": [BOX]}],
        "report_findings": "A large heart.",
        "qa": [
            {"question": "Is it large?", "answer": "yes", "closed": True},
            {"question": "Unanswered?", "answer": " ", "closed": True},
            {"question": "Where?", "answer": "left", "closed": False},
            {"question": "How?", "answer": "?!", "closed": False},
        ],
    },
    {},
)


def test_each_question_has_its_true_answer_and_what_its_score_needs():
    (heart, effusion) = word_questions(ROWS, "refer")
    assert heart[:3] == (0, "refer", "large heart") and heart.truth == [BOX, OTHER] and effusion.truth == []
    (described,) = word_questions(ROWS, "describe")
    assert described[2:4] == ("{<12><25><50><75>}", "Cardiomegaly")
    (grounded,) = word_questions(ROWS, "grounded_report")
    assert grounded.truth == [
        {"text": "A (large) heart.", "boxes": [BOX]}
    ]  # the boxes of the row, not of the answer's grid
    assert [one.answer for one in word_questions(ROWS, "report")] == ["A large heart."]
    # What has no answer, or one without a word, is no question.
    asked = word_questions(ROWS, "question")
    assert [(one.about, one.answer, one.truth) for one in asked] == [
        ("Is it large?", "yes", True),
        ("Where?", "left", False),
    ]


def test_some_of_many_questions_are_the_same_in_every_run_and_among_those_of_more():
    phrases = [{"phrase": f"phrase {number}", "boxes": []} for number in range(9)]
    rows = rows_of({"phrase": phrases}, {"phrase": phrases}, {"phrase": phrases[:1]})
    few, more = (word_questions(rows, "refer", most) for most in (2, 5))
    assert few == word_questions(rows, "refer", 2) and set(map(str, few)) <= set(map(str, more))
    assert [one.image for one in few] == [0, 0, 1, 1, 2]
    assert [one.about for one in few[:2]] != [one.about for one in few[2:4]]  # by image, not always the first
    assert all(one.about < other.about for one, other in zip(more[:4], more[1:5], strict=True))  # in the row's order


def test_template_words_tell_all_tasks(rows):
    worded = with_template_words(rows)
    for task in WORD_QUESTIONS:
        assert word_questions(worded, task)
        assert task == "describe" or not word_questions(rows, task)
