import io

import pytest
from PIL import Image

from litegpt.datasets_scripts.annotations import (
    Finding,
    ImageAnnotation,
    Reading,
    labels_of_images,
    normalise_box,
    optional_columns,
    row_features,
    row_of,
)
from litegpt.datasets_scripts.preparation.decoding_process import DecodedRadiograph

FINDING_LABELS, DIAGNOSIS_LABELS = ("Mass", "Effusion"), ("Pneumonia", "No finding")
DECODED = DecodedRadiograph(b"png", 100, 60, "PA", "M", 70, "0" * 64, "0" * 128, ())


def annotation(patient_id="p7", view="", **optional):
    finding = Finding("Mass", (-10, 30, 50, 60), readers=2)
    return ImageAnnotation("a", (finding,), ("Pneumonia",), (), patient_id, view, optional)


def test_a_row_without_optional_columns_tells_nothing_of_the_person():
    row, outside = row_of(annotation(), DECODED)
    assert row == {
        "image_id": "a",
        "image": {"bytes": b"png", "path": None},
        "width": 100,
        "height": 60,
        "findings": [{"label": "Mass", "box": [0, 0.5, 0.5, 1], "readers": 2}],
        "diagnoses": ["Pneumonia"],
        "view": "PA",
    }
    assert outside == 0 and list(row) == list(row_features(FINDING_LABELS, DIAGNOSIS_LABELS))


def test_the_tables_come_before_the_dicom_file_for_view_sex_and_age():
    row, _ = row_of(annotation(view="AP", sex="F", age=0), DECODED, ("sex", "age"))
    assert (row["view"], row["sex"], row["age"]) == ("AP", "F", 0)
    row, _ = row_of(annotation(sex="", age=None), DECODED, ("sex", "age"))
    assert (row["view"], row["sex"], row["age"]) == ("PA", "M", 70)


def test_the_patients_number_is_written_where_the_column_is_declared_and_nowhere_else():
    assert row_of(annotation(), DECODED, ("patient_id",))[0]["patient_id"] == "p7"
    assert "p7" not in str(row_of(annotation(), DECODED, tuple(set(ALL) - {"patient_id"}))[0])


ALL = tuple(optional_columns(FINDING_LABELS, DIAGNOSIS_LABELS))


def test_every_optional_column_holds_what_a_data_set_gives_it():
    mask = io.BytesIO()
    Image.new("L", (100, 60), 255).save(mask, "PNG")
    outside = (200, 0, 210, 50)
    told = {
        "study_id": "s1",
        "sex": "F",
        "age": 58,
        "report_findings": "A mass.",
        "report_impression": "Mass.",
        "report_distilled": "There is mass.",
        "mentioned": [{"label": "Pneumonia", "state": "uncertain"}],
        "image_labels": ["Effusion", "No finding"],
        "phrase": [{"phrase": "A mass", "boxes": [(0, 30, 50, 60), outside]}, {"phrase": "No effusion", "boxes": []}],
        "sentences": [{"text": "There is a mass.", "boxes": [outside, (0, 30, 50, 60)]}, {"text": "No.", "boxes": []}],
        "qa": [{"question": "Is there a mass?", "answer": "yes", "closed": True}],
        "chat": [{"role": "user", "text": "What is seen?"}, {"role": "assistant", "text": "A mass."}],
        "mask": mask.getvalue(),
    }
    reading = Reading("R1", (Finding("Mass", (0, 30, 50, 60)), Finding("Mass", outside)), ("Pneumonia",))
    image = ImageAnnotation("a", (), (), (reading,), "p7", optional=told)
    row, left_out = row_of(image, DECODED, ALL)
    features = row_features(FINDING_LABELS, DIAGNOSIS_LABELS, ALL)
    assert list(features) == [*row_features(FINDING_LABELS, DIAGNOSIS_LABELS), *ALL] and list(row) == list(features)
    assert left_out == 2  # the phrase's and the sentence's; a reading's box is a finding's too
    stored = features.decode_example(features.encode_example(row | {"image": None}))
    assert stored["study_id"] == "s1" and stored["patient_id"] == "p7"
    assert stored["report_findings"] == "A mass." and stored["report_impression"] == "Mass."
    assert stored["report_distilled"] == "There is mass."
    assert stored["mentioned"] == [{"label": 0, "state": 2}]
    assert stored["image_labels"] == [1, 3]  # of the findings', then the diagnoses'
    assert stored["phrase"] == [
        {"phrase": "A mass", "boxes": [[0, 0.5, 0.5, 1]]},
        {"phrase": "No effusion", "boxes": []},
    ]
    assert stored["sentences"] == [
        {"text": "There is a mass.", "boxes": [[0, 0.5, 0.5, 1]]},
        {"text": "No.", "boxes": []},
    ]
    assert stored["qa"] == told["qa"] and stored["chat"] == told["chat"]
    assert stored["mask"].size == (100, 60) and stored["mask"].getextrema() == (255, 255)
    assert stored["readings"] == [
        {"rad_id": "R1", "findings": [{"label": 0, "box": [0, 0.5, 0.5, 1]}], "diagnoses": [0]}
    ]


def test_a_phrase_whose_boxes_all_lie_outside_is_left_out_and_not_called_absent():
    outside = (200, 0, 210, 50)
    told = {
        "phrase": [{"phrase": "A mass", "boxes": [outside]}],
        "sentences": [{"text": "A mass.", "boxes": [outside]}],
    }
    row, left_out = row_of(annotation(**told), DECODED, tuple(told))
    assert row["phrase"] == [] and row["sentences"] == [{"text": "A mass.", "boxes": []}] and left_out == 2


def test_what_a_data_set_declares_and_does_not_know_is_null():
    row, _ = row_of(ImageAnnotation("a", (), ()), DECODED, ALL)
    unknown = {"study_id", "report_findings", "report_impression", "report_distilled", "mentioned", "image_labels"}
    unknown |= {"phrase", "sentences", "qa", "chat", "mask"}
    assert {column for column in ALL if row[column] is None} == unknown
    assert row["patient_id"] == "" and row["readings"] == []


def test_a_label_that_is_a_finding_and_a_diagnosis_stands_once_among_those_of_images():
    assert labels_of_images(("Mass", "Effusion"), ("Effusion", "No finding")) == ["Mass", "Effusion", "No finding"]


def test_a_column_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match="no column 'weight'; rows may have study_id, patient_id, sex"):
        row_features(FINDING_LABELS, DIAGNOSIS_LABELS, ("sex", "weight"))


@pytest.mark.parametrize(
    ("box", "expected"),
    [((-10, 30, 50, 70), [0, 0.5, 0.5, 1]), ((100, 0, 120, 10), None), ((0, -5, 10, 0), None)],
)
def test_a_box_is_clipped_to_its_image(box, expected):
    assert normalise_box(box, 100, 60) == expected
