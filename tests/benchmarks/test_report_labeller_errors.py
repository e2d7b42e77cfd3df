import csv

import pytest

from litegpt.benchmarks.report_labeller_errors import main, studies_with_text, table, tagged


@pytest.fixture
def release(tmp_path):
    """Made-up reports in Kaggle's layout: 1 and 3 are tagged as they read, 2 is not."""
    reports = [
        ("1", "Cardiomegaly;Opacity/lung/base/left", "Cardiomegaly.", "Left basilar opacity."),
        ("2", "normal", "The lungs are clear.", "Possible pneumonia."),
        ("3", "normal", "Normal heart size.", ""),
        ("4", "Medical Device", "", ""),
    ]
    for name, header, rows in (
        ("indiana_reports.csv", ("uid", "MeSH", "findings", "impression"), reports),
        ("indiana_projections.csv", ("uid", "filename", "projection"), []),
    ):
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return str(tmp_path)


def test_reports_without_text_are_left_out(release):
    assert [study.uid for study in studies_with_text(release)] == ["1", "2", "3"]


def test_tags_mean_labels_of_chexpert():
    assert tagged(["Nodule/lung", "Infiltrate/lung", "Thickening/pleura/apex"]) == {
        "Lung Opacity": "positive",
        "Lung Lesion": "positive",
        "Pleural Other": "positive",
    }
    assert tagged(["Medical Device", "Osteophyte/spine"]) == {"Support Devices": "positive", "No Finding": "positive"}


def test_halves_are_counted_apart(release):
    lines = table(studies_with_text(release)).splitlines()
    assert "| Cardiomegaly | odd | 1/1 = 1.00 | 1/1 = 1.00 | 1/1 = 1.00 | 1.00 |" in lines
    assert "| Pneumonia | even | 0/1 = 0.00 | 0/0 | 0/0 | 0.00 |" in lines
    assert "| No Finding | all | 1/1 = 1.00 | 1/1 = 1.00 | 1/2 = 0.50 | 0.67 |" in lines
    assert "| all of them | odd: 2 | | | | micro 1.000, macro 1.000 |" in lines


def test_disagreements_are_shown(release, capsys):
    main(release, disagreements=5)
    assert "2 Pneumonia: rules uncertain, tags - (normal)" in capsys.readouterr().out


def test_a_folder_without_reports_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match="ecgen-radiology"):
        main(str(tmp_path), disagreements=0)
