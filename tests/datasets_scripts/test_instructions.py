import json

import pytest

from litegpt.datasets_scripts.instructions import INSTRUCTIONS, answer, instructions_for, questions
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.processing.answers import text_to_sentences

CARDIOMEGALY, AORTA = FINDING_LABELS.index("Cardiomegaly"), FINDING_LABELS.index("Aortic enlargement")
PNEUMONIA, COPD, NO_FINDING = (DIAGNOSIS_LABELS.index(name) for name in ("Pneumonia", "COPD", "No finding"))


def answer_to(task, findings, diagnoses, **options):
    return answer(findings, diagnoses, task, FINDING_LABELS, DIAGNOSIS_LABELS, **options)


def test_instructions_are_the_papers():
    assert INSTRUCTIONS["identify"].startswith(
        "Please describe the critical findings along with their localized bounding"
    )
    assert INSTRUCTIONS["identify"].endswith("state that the chest radiograph shows no findings.")
    assert INSTRUCTIONS["vqa"].endswith("COPD, Lung Tumor, Pneumonia, Tuberculosis, Other Disease, or No Finding?")
    assert INSTRUCTIONS["grounding"] == INSTRUCTIONS["identify"]


def test_vindr_cxrs_diagnoses_are_asked_for_in_the_papers_words_in_any_order():
    assert instructions_for(DIAGNOSIS_LABELS) == instructions_for(DIAGNOSIS_LABELS[::-1]) == INSTRUCTIONS


def test_other_diagnoses_are_asked_for_by_their_labels():
    instructions = instructions_for(["Edema", "Hernia", "No finding"])
    assert instructions["vqa"] == (
        "Given the provided chest X-ray image, which of the following diagnoses are present (select all that apply): "
        "Edema, Hernia, or No finding?"
    )
    assert instructions["identify"] == instructions["grounding"] == INSTRUCTIONS["identify"]


def test_findings_stand_in_label_order_and_from_left_to_right():
    findings = [
        {"label": CARDIOMEGALY, "box": [0.5, 0.5, 0.8, 0.7]},
        {"label": AORTA, "box": [0.4, 0.2, 0.6, 0.3]},
        {"label": CARDIOMEGALY, "box": [0.1, 0.5, 0.3, 0.7]},
    ]
    assert answer_to("identify", findings, [PNEUMONIA]) == (
        "Local diseases of this chest radiograph are <p>Aortic enlargement</p> {<40><20><60><30>},"
        "<p>Cardiomegaly</p> {<10><50><30><70>},<p>Cardiomegaly</p> {<50><50><80><70>}."
    )


def test_findings_by_position_stand_from_top_to_bottom_then_from_left_to_right():
    findings = [
        {"label": AORTA, "box": [0.4, 0.5, 0.6, 0.6]},
        {"label": AORTA, "box": [0.3, 0.2, 0.6, 0.3]},
        {"label": CARDIOMEGALY, "box": [0.1, 0.2, 0.3, 0.7]},
    ]
    assert answer_to("identify", findings, [PNEUMONIA], box_order="position") == (
        "Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<10><20><30><70>},"
        "<p>Aortic enlargement</p> {<30><20><60><30>},<p>Aortic enlargement</p> {<40><50><60><60>}."
    )


def test_no_finding_is_answered_only_where_it_is_known():
    no_finding = "Local diseases of this chest radiograph are No finding."
    assert answer_to("identify", [], [NO_FINDING]) == no_finding
    assert answer_to("identify", [], [PNEUMONIA]) is None
    assert answer_to("identify", [], []) is None


def test_diagnoses_stand_in_the_releases_order():
    assert answer_to("vqa", [], [COPD, PNEUMONIA]) == "Global diseases of this chest radiograph are Pneumonia, COPD."
    assert answer_to("vqa", [], [NO_FINDING]) == "Global diseases of this chest radiograph are No finding."
    assert answer_to("vqa", [{"label": AORTA, "box": [0, 0, 1, 1]}], []) is None


def test_a_task_that_rows_do_not_tell_the_answer_to_is_refused():
    with pytest.raises(ValueError, match=r"no answer to \[describe\], only to identify, vqa, grounding"):
        answer([], [], "describe", FINDING_LABELS, DIAGNOSIS_LABELS)


def test_where_there_are_no_diagnoses_nobody_asks_for_them():
    assert set(instructions_for(DIAGNOSIS_LABELS)) - set(instructions_for(())) == {"vqa"}


UPPER, LOWER = [0.7, 0.1, 0.8, 0.2], [0.2, 0.6, 0.3, 0.7]
WORDS = {
    "findings": [{"label": CARDIOMEGALY, "box": UPPER}, {"label": AORTA, "box": LOWER}],
    "diagnoses": [PNEUMONIA],
    "phrase": [
        {"phrase": "enlarged  heart", "boxes": [UPPER]},
        {"phrase": "clear\nlungs", "boxes": []},
        {"phrase": "enlarged heart", "boxes": [LOWER]},
    ],
    "sentences": [
        {"text": "A {dense} nodule <5 mm.", "boxes": [UPPER, LOWER]},
        {"text": " ", "boxes": []},
        {"text": "No  effusion.", "boxes": []},
    ],
    "report_findings": "A nodule.\n\n No effusion. ",
    "report_impression": "Cancer?",
    "qa": [
        {"question": "Is  it big?", "answer": "no", "closed": True},
        {"question": "Why?", "answer": "", "closed": False},
    ],
    "chat": [
        {"role": "user", "text": "Hello"},
        {"role": "assistant", "text": "Good day."},
        {"role": "user", "text": "Any <edema>?"},
        {"role": "assistant", "text": "None."},
    ],
}  # fmt: skip


def asked(task, row=WORDS, **options):
    found = questions(row, task, FINDING_LABELS, DIAGNOSIS_LABELS, **options)
    return [(question.about, question.answer) for question in found]


def test_the_old_tasks_are_asked_once_about_the_radiograph_alone():
    for task in ("identify", "vqa", "grounding"):
        assert asked(task) == [(None, answer_to(task, WORDS["findings"], WORDS["diagnoses"]))]
    assert asked("vqa", {"findings": [], "diagnoses": []}) == []


def test_a_phrase_is_asked_once_with_all_its_boxes_and_without_any_where_it_is_not_there():
    left_first = "Boxes of this phrase are {<20><60><30><70>},{<70><10><80><20>}."
    assert asked("refer") == [("enlarged heart", left_first), ("clear lungs", "Boxes of this phrase are None.")]
    upper_first = "Boxes of this phrase are {<70><10><80><20>},{<20><60><30><70>}."
    assert asked("refer", box_order="position")[0] == ("enlarged heart", upper_first)


def test_sentences_with_boxes_are_phrases_where_rows_have_none():
    assert [about for about, _ in asked("refer", {**WORDS, "phrase": None})] == ["A {dense} nodule <5 mm."]
    assert asked("refer", {**WORDS, "phrase": []}) == []


def test_a_box_is_described_by_its_label_or_by_its_phrase():
    boxes = ["{<20><60><30><70>}", "{<70><10><80><20>}"]
    assert asked("describe") == list(zip(boxes, ["Aortic enlargement", "Cardiomegaly"], strict=True))
    phrases = asked("describe", {**WORDS, "findings": []})
    assert phrases == [(boxes[1], "enlarged heart"), (boxes[0], "enlarged heart")]


def test_a_report_is_its_findings_section_and_a_grounded_one_can_be_read_again():
    assert asked("report") == [(None, "A nodule. No effusion.")]
    [(about, text)] = asked("grounded_report")
    read = text_to_sentences(text)
    assert about is None and [len(sentence.places) for sentence in read] == [2, 0]
    assert [sentence.text for sentence in read] == ["A (dense) nodule less than 5 mm.", "No effusion."]


def test_questions_and_every_turn_of_the_assistant_are_asked():
    assert asked("question") == [("Is it big?", "no")]
    (first, hello), (second, none) = asked("chat")
    assert (hello, none) == ("Good day.", "None.")
    assert json.loads(first) == [{"role": "user", "content": "Hello"}]
    turns = [(turn["role"], turn["content"]) for turn in json.loads(second)]
    assert turns == [("user", "Hello"), ("assistant", "Good day."), ("user", "Any <edema>?")]


def test_a_row_without_words_is_asked_nothing_about_them():
    bare = {"findings": [], "diagnoses": [NO_FINDING]}
    for row in (bare, bare | {"report_findings": None, "qa": None, "chat": None, "sentences": None, "phrase": None}):
        assert not any(
            asked(task, row) for task in ("refer", "describe", "report", "grounded_report", "question", "chat")
        )
    with pytest.raises(ValueError, match="no task"):
        asked("sing")
