import json

import numpy as np
import pytest
from PIL import Image

from litegpt.benchmarks.real_words_data import main
from litegpt.datasets_scripts import open_i, vqa_rad

REPORTS = "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"


@pytest.fixture
def folders(tmp_path):
    """Two folders with studies 2 and 1000 of Open-i, and an image of VQA-RAD, in the layout that the program reads."""
    openi, reports = tmp_path / "openi", tmp_path / "reports"
    for path in (openi / "images", reports / "train", reports / "test", reports / "openi"):
        path.mkdir(parents=True)
    (openi / "indiana_reports.csv").write_text(REPORTS + "2,normal,normal,,,,Clear lungs.,Normal.\n")
    (openi / "indiana_projections.csv").write_text("uid,filename,projection\n2,2_IM-1.dcm.jpg,Frontal\n")
    (reports / "openi" / "indiana_reports.csv").write_text(
        REPORTS + "2,normal,,,,,Clear lungs.,Normal.\n1000,Opacity/lung,,,,,An opacity.,\n3,normal,,,,,Clear.,\n"
    )
    views = [("test/openi_1000_IM-2.jpg", "PA"), ("test/openi_1000_IM-3.jpg", "LATERAL")]
    question = {"question": "Normal?", "answer": "Yes", "answer_type": "CLOSED", "question_type": "ABN"}
    studies = [
        {"study_id": "openi_1000", "split": "test", "source": "open-i", "qa": []}
        | {"images": [{"file": file, "view": view} for file, view in views]},
        {"study_id": "covid_1", "split": "train", "source": "covid", "images": [], "qa": []},
        {"study_id": "vqarad_synpic1", "split": "train", "source": "vqa-rad"}
        | {"images": [{"file": "train/vqarad_synpic1.jpg", "view": "FRONTAL"}]}
        | {"qa": [question | {"phrase_type": "para", "source_split": "test"}]},
    ]
    (reports / "studies.jsonl").write_text("\n".join(map(json.dumps, studies)) + "\n")
    pictures = [openi / "images" / "2_IM-1.dcm.jpg", reports / "train" / "vqarad_synpic1.jpg"]
    for number, path in enumerate([*pictures, *(reports / file for file, _ in views)]):
        Image.fromarray(np.full((8, 8), number * 50, np.uint8)).save(path)
    return ["--reports_dir", str(reports), "--openi_dir", str(openi), "--output_dir", str(tmp_path / "out")]


def test_both_are_laid_out_as_releases_that_their_loaders_read(folders, tmp_path):
    for _ in range(2):  # the same command again changes nothing
        main(folders)
    read = open_i.read_release(tmp_path / "out" / "open-i")
    assert {split: [(i.image_id, i.view) for i in images] for split, images in read.annotations.items()} == {
        "train": [("2_IM-1", "Frontal")],
        "test": [("1000_IM-2", "Frontal"), ("1000_IM-3", "Lateral")],
    }
    assert read.annotations["test"][0].optional["report_findings"] == "An opacity."
    assert all(len(read.images[split]) == len(images) for split, images in read.annotations.items())
    assert all(path.is_symlink() for path in (tmp_path / "out").rglob("*.jpg"))
    read = vqa_rad.read_release(tmp_path / "out" / "vqa-rad")
    (image,) = read.annotations["train"]  # by its own split, not by the question's
    assert image.optional["qa"] == [{"question": "Normal?", "answer": "yes", "closed": True}]


def test_a_study_that_both_folders_have_is_refused(folders, tmp_path):
    path = tmp_path / "reports" / "studies.jsonl"
    path.write_text(path.read_text().replace("openi_1000", "openi_2"))
    with pytest.raises(SystemExit, match="Study 2 is in "):
        main(folders)
