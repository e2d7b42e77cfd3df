"""The queue: folders that survive a kill at any moment, and forget nothing but what is old."""

import os
import time

import pytest

from litegpt.inference_scripts.dicom_identity import is_uid
from litegpt.inference_scripts.node.spool import Spool
from tests.small_pacs import radiograph


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("1.2.840.1", True), ("1", True), ("", False), ("1..2", False), ("../../etc/passwd", False), ("1.2/3", False)]
    + [("1" * 64, True), ("1" * 65, False), ("1.2\n", False), (None, False)],
)
def test_a_uid_is_digits_and_dots_so_that_it_can_be_a_file_name(text, is_one):
    assert is_uid(text) == is_one


def test_a_second_node_is_refused_until_the_first_has_ended(tmp_path):
    with Spool(tmp_path / "spool"):
        with pytest.raises(ValueError, match="is held by another node"):
            Spool(tmp_path / "spool")
    with Spool(tmp_path / "spool"):
        pass


def test_nobody_else_may_look_into_it(spool, queued):
    queued(1)
    folders = [spool.folder, *(path for path in spool.folder.iterdir() if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_a_radiograph_goes_its_way_and_leaves_its_uid_alone(spool, queued, below):
    uid = queued(1)
    assert spool.waits(uid) and spool.is_known(uid) and spool.lengths()["unanswered"] == 1
    spool.keep_results(uid, {"SR": radiograph(7), "PR": radiograph(8)})
    assert not spool.waits(uid) and spool.lengths() == {"unanswered": 0, "undelivered": 1, "failed": 0}
    assert [path.name for path in spool.result_files(uid)] == ["PR.dcm", "SR.dcm"]
    spool.finish(uid)
    assert below(spool.folder) == [f"done/key/{uid}"]
    assert spool.is_known(uid) and not spool.waits(uid) and spool.result_files(uid) == []


@pytest.mark.parametrize("killed", ["coming in", "waiting", "making", "made", "marked", "clearing"])
def test_after_a_kill_at_any_step_each_radiograph_is_done_once(tmp_path, killed):
    folder, uid = tmp_path / "spool", "1.2.3"
    with Spool(folder) as spool:
        spool.remember("key")
        part = spool.part(uid)
        part.write_bytes(b"image")
        if killed != "coming in":
            spool.accept(uid, part)
        if killed == "making":
            (spool.results / f"{uid}.incomplete").mkdir()
            (spool.results / f"{uid}.incomplete" / "SR.dcm").write_bytes(b"half")
        if killed in ("made", "marked", "clearing"):
            spool.keep_results(uid, {"SR": radiograph(7)})
        if killed in ("marked", "clearing"):
            (spool.done / "key" / uid).touch()
        if killed == "clearing":
            os.unlink(spool.results / uid / "SR.dcm")
    with Spool(folder) as spool:
        spool.remember("key")
        unanswered = [] if spool.unanswered.empty() else [spool.unanswered.get()]
        undelivered = [] if spool.undelivered.empty() else [spool.undelivered.get()]
        assert unanswered == ([uid] if killed in ("waiting", "making") else [])
        assert undelivered == ([uid] if killed == "made" else [])
        assert spool.unanswered.empty() and spool.undelivered.empty()
        assert not list(spool.receiving.iterdir()) and not list(spool.results.glob("*.incomplete"))
        assert spool.image(uid).exists() == bool(unanswered or undelivered)


def test_they_are_taken_up_again_in_the_order_in_which_they_came(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        for number, uid in enumerate(("1.9", "1.1", "1.5")):
            part = spool.part(uid)
            part.write_bytes(b"image")
            os.utime(part, (1000 + number, 1000 + number))
            spool.accept(uid, part)
    with Spool(tmp_path / "spool") as spool:
        spool.remember("key")
        assert [spool.unanswered.get() for _ in range(3)] == ["1.9", "1.1", "1.5"]


def test_what_was_done_by_another_checkpoint_may_come_again(tmp_path, queued, spool):
    uid = queued(1)
    spool.keep_results(uid, {"SR": radiograph(7)})
    spool.finish(uid)
    spool.remember("another")
    assert not spool.is_known(uid)


def test_what_fails_is_kept_with_the_reason_and_can_be_sent_again(spool, queued, below):
    uid = queued(1)
    spool.fail(uid, {"step": "read", "why": "it is damaged"})
    assert below(spool.folder) == [f"failed/{uid}/image.dcm", f"failed/{uid}/reason.json"]
    assert spool.has_failed(uid) and not spool.is_known(uid)
    queued(1)
    spool.keep_results(uid, {"SR": radiograph(7)})
    spool.fail(uid, {"step": "send", "why": "the PACS refuses"})
    assert below(spool.failed) == [f"{uid}/image.dcm", f"{uid}/reason.json", f"{uid}/results/SR.dcm"]
    queued(1)
    spool.keep_results(uid, {"SR": radiograph(7)})
    spool.finish(uid)
    assert below(spool.failed) == []


def test_old_failures_and_old_uids_go(spool, queued, below):
    for number in (1, 2):
        spool.finish(queued(number))
    for number in (3, 4):
        spool.fail(queued(number), {"why": "x"})
    old = time.time() - 40 * 24 * 3600
    os.utime(spool.done / "key" / "1.2.3.1.4.5", (old, old))
    os.utime(spool.failed / "1.2.3.3.4.5", (old, old))
    spool.prune(done_days=30, failed_days=14)
    assert below(spool.done) == ["key/1.2.3.2.4.5"] and [path.name for path in spool.failed.iterdir()] == [
        "1.2.3.4.4.5"
    ]


def test_the_reserve_of_the_disk_is_left_free(tmp_path):
    with Spool(tmp_path / "small", reserve=1) as small, Spool(tmp_path / "large", reserve=1 << 60) as large:
        assert not small.is_full() and large.is_full()
