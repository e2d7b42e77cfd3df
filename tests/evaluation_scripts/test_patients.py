import datasets

from litegpt.evaluation_scripts.patients import apart_from, in_both, patients_of


def rows(patients: list[str] | None, first: int = 0) -> datasets.Dataset:
    names = [f"image{number}" for number in range(first, first + len(patients or "...."))]
    return datasets.Dataset.from_dict({"image_id": names, **({} if patients is None else {"patient_id": patients})})


def test_patients_are_known_where_one_has_two_rows():
    assert patients_of(rows(["a", "b", "a", "", ""])).tolist() == [0, 1, 0, 2, 3]
    assert patients_of(rows(["a", "b", ""])) is None and patients_of(rows(None)) is None


def test_what_stands_in_both_splits_is_counted():
    assert in_both(rows(["a", "b", "b", ""]), rows(["b", "", "c"], first=3)) == {"radiographs": 1, "patients": 1}
    assert in_both(rows(None), rows(["a"], first=9)) == {"radiographs": 0, "patients": 0}


def test_rows_that_share_a_radiograph_or_a_patient_are_left_out():
    apart = apart_from(rows(["b", "", "c", "a", ""], first=3), rows(["a", "b", "", ""]))
    assert apart["image_id"][:] == ["image4", "image5", "image7"]
    assert apart_from(rows(None, first=2), rows(["a", "b", "c"]))["image_id"][:] == ["image3", "image4", "image5"]
