import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydicom.data import get_testdata_file

from litegpt.command import main
from litegpt.common.files import complete_lines
from tests.small_pacs import radiograph, web_pacs


def arguments(checkpoint: Path, output_dir: Path, *more) -> list[str]:
    options = ["--model_name_or_path", checkpoint, "--output_dir", output_dir, "--shard_size", 3, "--batch_size", 2]
    return ["predict-many", *map(str, [*options, *more])]


def results(output_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output_dir / "results").iterdir())}


def rows(output_dir: Path) -> list[dict]:
    return [row for path in sorted((output_dir / "results").iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def archive(phantom_release, tmp_path_factory) -> Path:
    """Five radiographs, a damaged one, and files that are none."""
    folder = tmp_path_factory.mktemp("archive")
    for path in sorted((phantom_release / "test").iterdir())[:5]:
        shutil.copy(path, folder)
    (folder / "damaged.dcm").write_bytes(path.read_bytes()[:3000])
    shutil.copy(get_testdata_file("test-SR.dcm"), folder / "report.dcm")
    (folder / "notes.txt").write_text("how to start the viewer")
    return folder


@pytest.fixture(scope="module")
def answered(archive, tiny_checkpoint, tmp_path_factory) -> Path:
    """The folder of one process."""
    output_dir = tmp_path_factory.mktemp("answered") / "out"
    assert main(arguments(tiny_checkpoint, output_dir, archive)) == 1  # one cannot be used
    return output_dir


def test_every_file_is_a_row_and_the_summary_says_what_became_of_all(answered, archive):
    found = {Path(row["file"]).name: row for row in rows(answered)}
    assert sorted(found) == sorted(path.name for path in archive.iterdir()) and len(rows(answered)) == 8
    assert found["damaged.dcm"]["error"].startswith("Cannot use") and found["damaged.dcm"]["answers"] is None
    assert found["report.dcm"]["kind"] == "Comprehensive SR" and found["notes.txt"]["kind"] == ".txt"
    assert found["report.dcm"]["error"] is None and len(found["damaged.dcm"]["sha256"]) == 64
    of_radiographs = [row for row in found.values() if row["kind"] is None and row["error"] is None]
    assert len(of_radiographs) == 5 and all(row["sop_instance_uid"] and row["view"] for row in of_radiographs)
    assert {row["width"] for row in of_radiographs} == {128} and len(
        {row["checkpoint_sha256"] for row in of_radiographs}
    ) == 1
    summary = json.loads((answered / "summary.json").read_text())
    assert (summary["answered"], summary["unusable"], summary["shards"]) == (5, 1, 3)
    assert summary["no_radiographs"] == {".txt": 1, "Comprehensive SR": 1} and summary["set_aside"] == []


def test_the_answers_are_those_of_predict(answered, archive, tiny_checkpoint, tmp_path):
    options = [
        "--model_name_or_path",
        str(tiny_checkpoint),
        "--output_dir",
        str(tmp_path / "out"),
        "--batch_size",
        "2",
    ]
    main(["predict", *options, str(archive)])
    here = {row["file"]: row for row in rows(answered)}
    lines = complete_lines(tmp_path / "out" / "predictions.jsonl")
    assert len(lines) == 5
    for line in lines:
        row = here[line["file"]]
        for name in ("sha256", "answers", "malformed", "warnings", "diagnoses", "sop_instance_uid", "caution"):
            assert row[name] == line[name], name
        boxes = [{name: finding[name] for name in ("label", "score", "box")} for finding in row["findings"]]
        # They were answered in other batches: the last digits of a score may differ.
        named = [{**found, "score": pytest.approx(found["score"], rel=1e-6)} for found in line["findings"]]
        assert boxes == named
        assert {item["label"]: item["probability"] for item in row["probabilities"]["vqa"]} == line["probabilities"][
            "vqa"
        ]


def test_datasets_pandas_and_pyarrow_read_all_shards_as_one(answered, tmp_path):
    files = sorted(str(path) for path in (answered / "results").iterdir())
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path), split="train")
    frame = pd.read_parquet(answered / "results")
    assert loaded.num_rows == len(frame) == 8
    assert loaded["image_id"][:] == list(frame["image_id"]) and loaded[0]["answers"] == rows(answered)[0]["answers"]


def test_the_same_command_answers_nothing_twice_and_goes_on_where_a_run_stopped(
    answered, archive, tiny_checkpoint, tmp_path, capsys
):
    folder = tmp_path / "out"
    shutil.copytree(answered, folder)
    whole = results(folder)
    command = arguments(tiny_checkpoint, folder, archive)
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    assert main(command) == 1 and {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "5 radiographs answered; 1 could not be used; 2 files are no radiographs" in capsys.readouterr().out
    (folder / "results" / "shard-000001-of-000003.parquet").unlink()
    assert main(command) == 1 and results(folder) == whole


def test_children_and_shares_of_an_array_write_the_same_bytes(answered, archive, tiny_checkpoint, tmp_path):
    command = arguments(tiny_checkpoint, tmp_path / "children", archive)
    assert main([*command, "--num_workers", "2"]) == 1 and results(tmp_path / "children") == results(answered)
    for share in ("0/2", "1/2"):
        assert not (tmp_path / "array" / "summary.json").exists()
        main([*arguments(tiny_checkpoint, tmp_path / "array", archive), "--shard", share])
    assert results(tmp_path / "array") == results(answered)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (answered, tmp_path / "array")]
    assert [{**summary, "last_run": None} for summary in summaries] == [{**summaries[0], "last_run": None}] * 2


def test_a_plan_is_made_once_and_other_settings_or_sources_are_refused(
    archive, answered, tiny_checkpoint, detector_checkpoint, tmp_path
):
    for other, why in (
        ([archive, "--threshold", "0.5"], "threshold null, not 0.5"),
        ([archive, "--threads", "2"], "threads 1, not 2"),
        ([archive / "notes.txt"], "sources"),
    ):
        with pytest.raises(SystemExit, match=why):
            main(arguments(tiny_checkpoint, answered, *other))
    with pytest.raises(SystemExit, match="checkpoint_sha256"):
        main(arguments(detector_checkpoint, answered, archive))
    moved = tmp_path / "acme" / "moved"
    shutil.copytree(tiny_checkpoint, moved)
    shutil.copy(archive / "damaged.dcm", archive / "later.dcm")
    try:  # another place of the same checkpoint, and a file that was not there when it was planned
        assert main(arguments(moved, answered, archive)) == 1 and len(rows(answered)) == 8
    finally:
        (archive / "later.dcm").unlink()
    (answered / "plan.json").rename(tmp_path / "plan.json")
    try:
        with pytest.raises(SystemExit, match="has results and no plan.json"):
            main(arguments(tiny_checkpoint, answered, archive))
    finally:
        (tmp_path / "plan.json").rename(answered / "plan.json")


def test_a_run_into_the_archive_itself_does_not_answer_its_own_files(archive, tiny_checkpoint, tmp_path):
    inbox = tmp_path / "inbox"
    shutil.copytree(archive, inbox)
    main(arguments(tiny_checkpoint, inbox / "out", inbox))
    main(arguments(tiny_checkpoint, tmp_path / "later", inbox))
    assert [row["image_id"] for row in rows(inbox / "out")] == [row["image_id"] for row in rows(tmp_path / "later")]


def test_parquet_rows_and_a_list_of_files(archive, answered, tiny_checkpoint, tmp_path):
    files = sorted(archive.glob("*.dicom"))
    pictures = [{"bytes": path.read_bytes(), "path": None} for path in files] + [None]
    table = datasets.Dataset.from_dict({"image": pictures, "image_id": ["a", "b", "c", "d", "e", "f"]})
    table.cast_column("image", datasets.Image(decode=False)).to_parquet(tmp_path / "rows.parquet", batch_size=2)
    assert main(arguments(tiny_checkpoint, tmp_path / "out", tmp_path / "rows.parquet")) == 1
    found = rows(tmp_path / "out")
    assert [row["image_id"] for row in found] == list("abcdef") and found[5]["error"].endswith(
        "its row has no picture."
    )
    assert found[1]["file"] == f"{tmp_path / 'rows.parquet'}#1"
    (tmp_path / "list.txt").write_text("".join(f"{path}\n\n" for path in files))
    assert main(arguments(tiny_checkpoint, tmp_path / "listed", "--list_file", tmp_path / "list.txt")) == 0
    by_digest = {row["sha256"]: row["answers"] for row in rows(answered) if row["answers"]}
    for run in (found[:5], rows(tmp_path / "listed")):
        assert {row["sha256"]: row["answers"] for row in run} == by_digest
    shutil.copy(get_testdata_file("test-SR.dcm"), tmp_path / "not.parquet")
    with pytest.raises(SystemExit, match="not.parquet is no Parquet file"):
        main(arguments(tiny_checkpoint, tmp_path / "refused", tmp_path / "not.parquet"))


def test_an_archive_and_its_results_may_lie_in_a_store(archive, answered, tiny_checkpoint, tmp_path, shelf):
    inbox, there = tmp_path / "shelf" / "bucket" / "archive", tmp_path / "shelf" / "bucket" / "out"
    shutil.copytree(archive, inbox)
    command = arguments(tiny_checkpoint, f"{shelf}/out", f"{shelf}/archive")
    assert main(command) == 1
    here, remote = (
        {row["image_id"]: {**row, "file": "", "error": ""} for row in rows(of)} for of in (answered, there)
    )
    assert remote == here and {row["file"] for row in rows(there)} == {
        f"{shelf}/archive/{path.name}" for path in archive.iterdir()
    }
    assert json.loads((there / "summary.json").read_text())["answered"] == 5
    whole = results(there)
    (there / "results" / "shard-000001-of-000003.parquet").unlink()
    for path in inbox.iterdir():  # what is gone since is a row with its reason
        path.rename(tmp_path / path.name)
    assert main(command) == 1
    assert {name: data for name, data in results(there).items() if "000001-of" not in name} == {
        name: data for name, data in whole.items() if "000001-of" not in name
    }
    assert sum("there is no such file" in (row["error"] or "") for row in rows(there)) == 3


def test_radiographs_of_a_pacs_in_pages(tiny_checkpoint, tmp_path):
    for knows_offset in (True, False):
        with web_pacs() as pacs:
            pacs.knows_offset = knows_offset
            for number in range(5):
                data = radiograph(number)
                data.Modality = "CR" if number == 3 else "DX"
                pacs.kept[data.SOPInstanceUID] = data
            pacs.lost = {"1.2.3.2.4.5"}
            options = [
                "--dicomweb_url",
                pacs.url,
                "--dicomweb_filters",
                '{"StudyDate": "20200101-"}',
                "--format",
                "jsonl",
            ]
            folder = tmp_path / str(knows_offset)
            assert main(arguments(tiny_checkpoint, folder, *options)) == 1
            asked = [path for path in pacs.requests if "ModalitiesInStudy" in path]
            assert len(asked) >= 2 and all("StudyDate=20200101-" in path for path in asked)
        found = [row for path in sorted((folder / "results").iterdir()) for row in complete_lines(path)]
        assert sorted(row["image_id"] for row in found) == [f"1.2.3.{number}.4.5" for number in range(5)]
        (lost,) = [row for row in found if row["error"]]
        assert lost["image_id"] == "1.2.3.2.4.5" and "HTTP status 500" in lost["error"]
        assert all(row["study_instance_uid"] in row["file"] for row in found if not row["error"])
        assert "SECRET" not in "".join(path.read_text() for path in (folder / "results").iterdir())


def test_a_pacs_that_does_not_answer_ends_the_run_with_a_sentence(tiny_checkpoint, tmp_path):
    with web_pacs() as pacs:
        pacs.kept["1.2.3.0.4.5"] = radiograph(0)
        options = ["--dicomweb_url", pacs.url]
        assert main(arguments(tiny_checkpoint, tmp_path / "out", *options)) == 0
        shutil.rmtree(tmp_path / "out" / "results")
        pacs.status = 403
        with pytest.raises(SystemExit, match="the PACS answers with HTTP status 403"):
            main(arguments(tiny_checkpoint, tmp_path / "out", *options))
    with pytest.raises(SystemExit, match="the PACS does not answer .ConnectionError."):
        main(arguments(tiny_checkpoint, tmp_path / "none", *options))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "there is nothing to answer"),
        (["a.dcm"], "no such file or folder: a.dcm"),
        (["--list_file", __file__, "--shard", "4/4"], "NUMBER/COUNT"),
        (["--dicomweb_url", "pacs"], "--dicomweb_url is a URL"),
        (["--list_file", __file__, "--base_url", "http://a", "--candidates"], "not to be had from a server"),
    ],
)
def test_what_cannot_be_is_said_at_once(words, why, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments(tmp_path, tmp_path / "out", *words))
    assert why in capsys.readouterr().err


def test_a_checkpoint_that_is_none_is_one_sentence(archive, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(arguments(archive, tmp_path / "out", archive))
    assert isinstance(ended.value.code, str) and "\n" not in ended.value.code


@pytest.mark.slow
def test_ray_writes_the_same_bytes(answered, archive, tiny_checkpoint, tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "litegpt.command", *arguments(tiny_checkpoint, tmp_path / "out", archive)]
    run = subprocess.run([*command, "--ray", "local", "--num_workers", "2"], capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert results(tmp_path / "out") == results(answered)


def test_other_questions_have_their_columns_and_another_run(archive, tiny_checkpoint, tmp_path):
    tasks = ["identify", "refer: enlarged heart", "question: Is there a fracture?"]
    words = [archive, "--tasks", *tasks]
    assert main(arguments(tiny_checkpoint, tmp_path / "out", *words)) == 1
    answered = [row for row in rows(tmp_path / "out") if row["answers"]]
    assert len(answered) == 5 and list(answered[0]["answers"]) == tasks
    assert all(row["phrases"][0]["phrase"] == "enlarged heart" for row in answered)
    assert "report" not in answered[0] and "replies" in answered[0] and answered[0]["diagnoses"] == []
    with pytest.raises(SystemExit, match="planned otherwise .*tasks"):
        main(arguments(tiny_checkpoint, tmp_path / "out", archive))


def test_a_plan_of_an_earlier_version_asks_what_was_asked_then(answered, archive, tiny_checkpoint, tmp_path):
    shutil.copytree(answered, tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    del plan["settings"]["tasks"]
    (tmp_path / "out" / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "out" / "results" / "shard-000001-of-000003.parquet").unlink()
    assert main(arguments(tiny_checkpoint, tmp_path / "out", archive)) == 1
    assert results(tmp_path / "out") == results(answered)
