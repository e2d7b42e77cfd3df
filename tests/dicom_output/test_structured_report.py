from typing import Any

import pydicom
import pytest

from litegpt.dicom_output.result_objects import result_objects
from litegpt.dicom_output.source_header import source_header
from tests.dicom_output.made_up_answer import COLUMNS, answer, radiograph_file

SOURCE = source_header(radiograph_file(), "a.dcm")


def report(**changes: Any) -> pydicom.Dataset:
    return result_objects(SOURCE, answer(**changes), ("SR",))["SR"]


def container(made: pydicom.Dataset, meaning: str) -> list[pydicom.Dataset]:
    found = [item for item in made.ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]
    return list(found[0].ContentSequence) if found else []


def meaning(item: pydicom.Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning


def groups(made: pydicom.Dataset) -> list[dict[str, pydicom.Dataset]]:
    measured = container(made, "Imaging Measurements")
    return [{meaning(item): item for item in group.ContentSequence} for group in measured]


def comments(made: pydicom.Dataset) -> list[str]:
    return [item.TextValue for item in container(made, "Qualitative Evaluations") if item.ValueType == "TEXT"]


def test_each_finding_is_a_group_with_its_code_its_box_its_certainty_and_the_algorithm():
    first, second = groups(report())
    assert first["Finding"].ConceptCodeSequence[0].CodeValue == "Cardiomegaly"
    assert first["Finding Site"].ConceptCodeSequence[0].CodeMeaning == "Heart"
    assert first["Image Region"].GraphicType == "POLYLINE"
    assert list(first["Image Region"].GraphicData) == [30, 50, 75, 50, 75, 95, 30, 95, 30, 50]
    assert first["Certainty of Finding"].MeasuredValueSequence[0].NumericValue == 87.5
    assert first["Algorithm Name"].TextValue == "LiteGPT"
    assert first["Algorithm Parameters"].TextValue == "checkpoint=demo/checkpoint"
    assert second["Finding"].ConceptCodeSequence[0].CodeValue == "36118008"
    assert "Certainty of Finding" not in second, "the answer has no score"


def test_a_box_beyond_the_picture_is_cut_at_its_edge():
    data = list(groups(report())[1]["Image Region"].GraphicData)
    assert data == [0, 10, COLUMNS, 10, COLUMNS, 40, 0, 40, 0, 10]


def test_a_box_of_no_size_still_has_one_and_one_outside_lies_at_the_edge():
    boxes = [{"xmin": 20, "ymin": 30, "xmax": 20, "ymax": 30}, {"xmin": 150, "ymin": 0, "xmax": 160, "ymax": 9}]
    made = report(findings=[{"label": "Edema", "score": 0.5, "box": box} for box in boxes])
    first, second = (list(group["Image Region"].GraphicData) for group in groups(made))
    assert first[:6] == [20, 30, 21, 30, 21, 31] and second[:3] == [COLUMNS - 1, 0, COLUMNS]


def test_diagnoses_are_present_or_absent_with_probabilities_and_in_no_group():
    seen = container(report(), "Qualitative Evaluations")
    said = {meaning(item): item.ConceptCodeSequence[0].CodeMeaning for item in seen if item.ValueType == "CODE"}
    assert said == {"Chronic obstructive lung disease": "Absent", "Pneumonia": "Present"}
    assert "Pneumonia: probability 0.71" in comments(report())
    assert all("Image Region" in group for group in groups(report())), "OHIF shows nothing of a group without one"


def test_warnings_caution_checkpoint_and_disclaimer_travel_with_it():
    said = "\n".join(comments(report()))
    for words in (
        "its ViewPosition is LL",
        "trained on synthetic radiographs",
        "demo/checkpoint",
        "not for diagnosis",
    ):
        assert words in said


def test_it_is_complete_preliminary_and_unverified():
    made = report()
    assert (made.CompletionFlag, made.PreliminaryFlag, made.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )


def test_an_answer_without_findings_says_so_and_has_no_measurements():
    made = report(findings=[], diagnoses=[])
    assert groups(made) == [] and "No finding is reported." in comments(made)


def test_a_report_without_boxes_is_called_so_that_viewers_show_its_text():
    assert report().ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurement Report"
    assert report(findings=[]).ConceptNameCodeSequence[0].CodeMeaning == "Diagnostic Imaging Report"


def test_an_answer_that_was_not_understood_is_no_report_of_nothing():
    made = report(findings=[], malformed={"identify": "it ends within a box", "vqa": None})
    assert "No finding is reported." not in comments(made)
    assert [text for text in comments(made) if "not understood" in text and "it ends within a box" in text]


@pytest.mark.parametrize("label", ["Cardiomegaly", "Nodule/Mass"])
def test_the_local_scheme_is_declared(label):
    made = report(findings=[{"label": label, "score": 0.5, "box": {"xmin": 1, "ymin": 1, "xmax": 9, "ymax": 9}}])
    assert made.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99LITEGPT"


def test_free_text_that_was_not_understood_is_no_matter_of_the_report():
    malformed = {"identify": None, "vqa": None, "report": "it is cut off"}
    made = report(findings=[], malformed=malformed, report=[{"text": "There is cardiomegaly."}])
    assert "No finding is reported." in comments(made)
    assert not any("cut off" in text or "There is" in text for text in comments(made))
