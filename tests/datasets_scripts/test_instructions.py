import pytest

from litegpt.datasets_scripts.instructions import INSTRUCTIONS, answer, instructions_for
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS

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
