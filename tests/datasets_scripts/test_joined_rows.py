import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.joined_rows import has_other_labels, joined_rows


def rows_of(names: list[str], labels: list[str], columns: dict[str, list]) -> Dataset:
    features = row_features(labels, ["No finding"], [column for column in columns if column != "findings"])
    count = len(names)
    table = {
        "image_id": names,
        "image": [Image.fromarray(np.full((4, 4), number, np.uint8)) for number in range(count)],
        "width": [4] * count,
        "height": [4] * count,
        "findings": [[{"label": 0, "box": [0.1, 0.2, 0.3, 0.4], "readers": 1}]] * count,
        "diagnoses": [[0]] * count,
        "view": ["PA"] * count,
        **columns,
    }
    return Dataset.from_dict({name: table[name] for name in features}, features=features)


@pytest.fixture
def own() -> Dataset:
    return rows_of(["a", "b"], ["Cardiomegaly"], {})


def test_words_of_a_data_set_with_other_labels_stay_and_its_labels_do_not(own):
    asked = [[{"question": "Is it enlarged?", "answer": "no", "closed": True}]]
    other = rows_of(["c"], ["Something else"], {"qa": asked, "mentioned": [[{"label": 0, "state": 1}]]})
    assert has_other_labels(own, other)
    joined = joined_rows(own, [other])
    assert joined["image_id"][:] == ["a", "b", "c"] and joined["qa"][:] == [None, None, asked[0]]
    assert joined["findings"][2] == joined["diagnoses"][2] == []
    assert joined["findings"][1] == own["findings"][1] and joined.features["findings"] == own.features["findings"]
    assert "mentioned" not in joined.column_names
    assert joined[2]["image"].getpixel((0, 0)) == other[0]["image"].getpixel((0, 0))


def test_labels_of_a_data_set_that_has_the_same_ones_are_kept(own):
    other = rows_of(["c"], ["Cardiomegaly"], {"report_findings": ["Large heart."]})
    assert not has_other_labels(own, other)
    joined = joined_rows(own, [other])
    assert joined["findings"][2] == own["findings"][0] and joined["diagnoses"][2] == [0]
    assert joined["report_findings"][:] == [None, None, "Large heart."]


def test_studies_of_two_data_sets_with_the_same_number_stay_two():
    one, other = (rows_of([name], ["Cardiomegaly"], {"study_id": ["7"]}) for name in ("a", "b"))
    assert len(set(joined_rows(one, [other])["study_id"])) == 2


def test_rows_alone_are_the_same_rows(own):
    assert joined_rows(own, []) is own  # with their fingerprint, by which caches know them
