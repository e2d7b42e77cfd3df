import json
from pathlib import Path

from litegpt.inference_scripts.listing import files_below


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_linked_folder_is_entered_once_and_no_loop_is_followed(tmp_path):
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    touch(inbox / "a.png", inbox / "below" / "b.png", elsewhere / "c.png", elsewhere / "deep" / "d.png")
    for name in ("first", "second"):
        (inbox / name).symlink_to(elsewhere)
    (inbox / "below" / "up").symlink_to(inbox)
    (elsewhere / "deep" / "round").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(inbox)
    (inbox / "around").symlink_to(tmp_path)
    files = files_below([inbox]).files
    assert [str(path.relative_to(inbox)) for path in files] == [
        "a.png",
        "below/b.png",
        "first/c.png",
        "first/deep/d.png",
    ]


def test_what_is_given_twice_is_listed_once(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "below" / "b.png")
    given = [tmp_path / "below", tmp_path / "a.png", tmp_path]
    assert files_below(given).files == [tmp_path / "below" / "b.png", tmp_path / "a.png"]


def test_a_link_that_leads_nowhere_is_not_dropped(tmp_path):
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nowhere.dcm")
    assert files_below([tmp_path]).files == [tmp_path / "gone.dcm"]


def test_hidden_files_and_what_runs_write_are_left_out(tmp_path):
    touch(tmp_path / ".hidden.png", tmp_path / ".folder" / "a.png", tmp_path / "00000_a.png", tmp_path / "00001_a.png")
    touch(tmp_path / "digests.jsonl", tmp_path / "00002_a.png.incomplete", tmp_path / "b.png")
    lines = [json.dumps({"overlay": "00000_a.png"}), json.dumps({"image_id": "a"}), "[]", "cut o"]
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines))
    listing = files_below([tmp_path])
    assert listing.files == [tmp_path / "00001_a.png", tmp_path / "b.png"]
    assert listing.drawn == [tmp_path / "00000_a.png"]


def test_a_remote_folder_is_listed_as_one_on_this_machine(tmp_path, shelf):
    folder = tmp_path / "shelf" / "bucket" / "inbox"
    touch(folder / ".hidden.png", folder / ".folder" / "a.png", folder / "00000_a.png", folder / "00001_a.png")
    touch(folder / "digests.jsonl", folder / "below" / "c.png", folder / "d.png.incomplete", folder / "e.png")
    touch(*(folder / "run" / name for name in ("plan.json", "plan/a.jsonl", "results/a.parquet")))
    (folder / "predictions.jsonl").write_text(json.dumps({"overlay": "00000_a.png"}))
    here, there = files_below([folder]), files_below([f"{shelf}/inbox/"])
    assert [f"{shelf}/inbox/{path.relative_to(folder)}" for path in here.files] == there.files
    assert there.files == [f"{shelf}/inbox/{name}" for name in ("00001_a.png", "below/c.png", "e.png")]
    assert there.drawn == [f"{shelf}/inbox/00000_a.png"]
    assert files_below([f"{shelf}/inbox/e.png", f"{shelf}/none.png"]).files == [
        f"{shelf}/inbox/e.png",
        f"{shelf}/none.png",
    ]
