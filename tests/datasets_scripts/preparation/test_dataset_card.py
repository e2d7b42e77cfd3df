import io
import re

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from PIL import Image

from litegpt.datasets_scripts.annotations import optional_columns, row_features
from litegpt.datasets_scripts.preparation.dataset_card import card_text, count_split
from litegpt.datasets_scripts.preparation.release import DataSetFacts, Release

FINDINGS = ["Nodule/Mass", "ILD", "odd: {name}"]  # a colon and braces would break YAML or a template
DIAGNOSES = ["Pneumonia", "No finding"]
ROWS = {
    "train": [(["ILD", "ILD", "Nodule/Mass"], ["Pneumonia"]), ([], ["No finding"]), ([], ["Pneumonia"]), ([], [])],
    "test": [([], ["No finding"])],
}


FACTS = {
    "name": "some_cxr",
    "pretty_name": "Some-CXR",
    "homepage": "https://example.org/cxr/1.0/",
    "licence": "Some Health Data License 1.5.0",
    "licence_link": "https://example.org/cxr/1.0/",
}
OPTIONS = {"merge": "paper", "shortest_edge": 512, "windowing": "dicom"}


def write_card(folder, columns=(), splits=None, options=OPTIONS, **facts):
    """A card as a preparation would write it; returns its text."""
    text = card_text(
        Release(DataSetFacts(**{**FACTS, **facts}), FINDINGS, DIAGNOSES, annotations={}, images={}, counts={}),
        columns,
        splits or {split: count_split(rows) for split, rows in ROWS.items()},
        options,
        summary=[("train", "images", 15_000), ("train", "either | or", 3)],
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return text


def write_rows(folder, columns=()):
    """Two shards of train and one of test, beside a CSV that is no data."""
    features = row_features(FINDINGS, DIAGNOSES, columns)
    png = io.BytesIO()
    Image.new("L", (4, 3), 7).save(png, "PNG")
    (folder / "data").mkdir()
    (folder / "manifest.csv").write_text("image_id,split\na,train\n")
    shards = {"train-00000-of-00002": ROWS["train"][:3], "train-00001-of-00002": ROWS["train"][3:]}
    for name, rows in {**shards, "test-00000-of-00001": ROWS["test"]}.items():
        encoded = [
            features.encode_example(
                {
                    "image_id": f"{name}-{i}",
                    "image": {"bytes": png.getvalue(), "path": None},
                    "width": 40,
                    "height": 30,
                    "findings": [{"label": label, "box": [0, 0, 0.5, 1], "readers": 2} for label in findings],
                    "diagnoses": diagnoses,
                    "view": "PA",
                    **({"readings": []} if "readings" in columns else {}),
                }
            )
            for i, (findings, diagnoses) in enumerate(rows)
        ]
        table = datasets.Dataset.from_list(encoded, features=features).data.table
        # Without the schema that `datasets` hides in a Parquet file: what is read below comes from the card.
        pq.write_table(table.replace_schema_metadata(None), folder / "data" / f"{name}.parquet")


@pytest.mark.parametrize("columns", [(), ("readings",)])
@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_takes_splits_and_label_names_from_the_card(tmp_path, streaming, columns):
    (tmp_path / "folder").mkdir()
    write_card(tmp_path / "folder", columns)
    write_rows(tmp_path / "folder", columns)
    loaded = load_dataset(str(tmp_path / "folder"), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train", "test"]
    for split, rows in ROWS.items():
        assert loaded[split].features == row_features(FINDINGS, DIAGNOSES, columns)
        names = loaded[split].features["findings"].feature["label"].names
        assert [[names[f["label"]] for f in row["findings"]] for row in loaded[split]] == [f for f, _ in rows]
    row = next(iter(loaded["train"]))
    assert row["image"].size == (4, 3) and row["image"].mode == "L"
    assert row["diagnoses"] == [0] and row["findings"][0]["box"] == [0, 0, 0.5, 1]


def test_the_cards_own_example_runs(tmp_path):
    (tmp_path / "folder").mkdir()
    text = write_card(tmp_path / "folder")
    write_rows(tmp_path / "folder")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    given = f'load_dataset("{tmp_path / "folder"}", cache_dir="{tmp_path / "cache"}")'
    names: dict = {}
    exec(example.replace('load_dataset("path/to/this/folder")', given), names)
    assert names["labels"] == FINDINGS and names["dataset"]["test"].num_rows == 1


def test_a_missing_shard_is_noticed_when_the_folder_is_loaded(tmp_path):
    (tmp_path / "folder").mkdir()
    write_card(tmp_path / "folder")
    write_rows(tmp_path / "folder")
    (tmp_path / "folder" / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError):
        load_dataset(str(tmp_path / "folder"), cache_dir=str(tmp_path / "cache"))


def test_a_split_is_counted_by_rows_boxes_and_images():
    assert count_split(ROWS["train"]) == {
        "rows": 4,
        "with_findings": 1,
        "no_finding": 1,
        "unknown": 2,
        "boxes": {"ILD": 2, "Nodule/Mass": 1},
        "images": {"ILD": 1, "Nodule/Mass": 1},
        "diagnoses": {"Pneumonia": 2, "No finding": 1},
    }


def test_the_tables_hold_the_counts(tmp_path):
    text = write_card(tmp_path)
    assert "| train | 4 | 1 | 1 | 2 | 3 |" in text
    assert "| ILD | 2 (1) | 0 (0) |" in text
    assert "| odd: {name} | 0 (0) | 0 (0) |" in text
    assert "| Pneumonia | 2 | 0 |" in text
    assert "| train | images | 15,000 |" in text
    assert r"| train | either \| or | 3 |" in text
    assert "| `shortest_edge` | 512 |" in text


def test_the_metadata_are_what_the_hub_accepts(tmp_path):
    text = write_card(tmp_path, splits={"train": {**count_split([]), "rows": 15_000}})
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["license"] == "other"
    assert metadata["license_name"] == "some-health-data-license-1.5.0"
    assert metadata["license_link"] == "https://example.org/cxr/1.0/"
    assert metadata["size_categories"] == "10K<n<100K"
    assert metadata["task_categories"] == ["image-text-to-text", "object-detection", "image-classification"]


def test_what_the_preparation_was_told_is_said(tmp_path):
    text = write_card(tmp_path)
    assert "512 pixels on the shorter side" in text and "the first is kept" in text
    assert "Modality LUT" in text and "`readings`" not in text and "## Citation" not in text
    options = {"shortest_edge": None, "windowing": "paper", "validation_share": 0.05, "keep_readings": True}
    text = write_card(tmp_path, ("readings",), options=options, citation="@article{some}")
    assert "stored in full" in text and "5% of the patients" in text and "appendix A" in text
    assert "`readings`" in text and "```bibtex\n@article{some}\n```" in text
    assert "several readers" not in text


@pytest.mark.parametrize("readings", [(), ("readings",)])
def test_the_card_names_sex_and_age_where_the_rows_have_them(tmp_path, readings):
    without, told = write_card(tmp_path, readings), write_card(tmp_path, ("sex", "age", *readings))
    assert "`sex`" not in without and "Sex and age" not in without
    assert "empty where unknown |\n| `sex`, `age` | F, M or empty" in told
    assert "Sex and age are what the release's public tables say of each image" in told
    names = [feature["name"] for feature in yaml.safe_load(told.split("---\n")[1])["dataset_info"]["features"]]
    assert names[-3:] == (["sex", "age", "readings"] if readings else ["view", "sex", "age"])


def test_every_optional_column_has_its_line_in_the_card_that_has_it_and_in_no_other(tmp_path):
    columns = list(optional_columns(FINDINGS, DIAGNOSES))
    plain, full = write_card(tmp_path).partition("\n# ")[2], write_card(tmp_path, columns).partition("\n# ")[2]
    rows = full[full.index("## Rows") : full.index("## How it was made")]
    for column in columns:
        assert f"`{column}`" in rows and f"`{column}`" not in plain


def test_the_card_says_which_tags_of_a_person_the_folder_holds(tmp_path):
    plain = " ".join(write_card(tmp_path).split())
    assert "only the pixels and the View Position were read" in plain and "no date, age or sex." in plain
    assert "that number served to keep a patient in one split and is not written" in plain
    told = " ".join(write_card(tmp_path, ("patient_id", "sex", "age")).split())
    assert "only the pixels, the View Position and the person's sex and age in years were read" in told
    assert "age or sex" not in told and "is not written" not in told
    assert "`patient_id` is the number that the tables give a patient" in told


def test_the_licence_and_the_people_are_named(tmp_path):
    text = write_card(tmp_path, licence_link="https://example.org/licence", personal_information="They agreed.")
    assert "[Some Health Data License 1.5.0](https://example.org/licence)" in text
    assert "## Personal and sensitive information\n\nThey agreed.\n" in text
    assert "Not for clinical use" in text and "Do not upload" in text
