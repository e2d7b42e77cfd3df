"""Answering: no radiograph is lost with its batch, none ends the queue, and a server that is away fails nothing."""

import json
import threading

import pytest

from litegpt.benchmarks.node_stand_ins import StandInAnswerer
from litegpt.inference_scripts.ask_server import RefusedError
from litegpt.inference_scripts.node.worker import Worker, WorkSettings


class Answerer(StandInAnswerer):
    """Raises what `errors` has for a UID, or what `next_errors` has for a batch; notes the batches."""

    def __init__(self, errors=None, next_errors=()):
        super().__init__()
        self.errors, self.next_errors, self.batches = errors or {}, list(next_errors), []

    def lines(self, batch):
        uids = [received.facts["sop_instance_uid"] for received in batch]
        self.batches.append(uids)
        if self.next_errors:
            raise self.next_errors.pop(0)
        for uid in uids:
            if uid in self.errors:
                raise self.errors[uid]
        return super().lines(batch)


@pytest.fixture
def working(spool, monitor, monkeypatch):
    """Runs a worker in a thread until the test ends."""
    monkeypatch.setattr("litegpt.inference_scripts.node.backoff.FIRST", 0.01)
    stop, threads = threading.Event(), []

    def start(answerer, **how):
        worker = Worker(spool, answerer, WorkSettings(**how), monitor, stop)
        threads.append(threading.Thread(target=worker.run))
        threads[-1].start()
        worker.end = lambda: (stop.set(), threads[-1].join())
        return worker

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def reason(spool, uid):
    return json.loads((spool.failed / uid / "reason.json").read_text())


def test_each_radiograph_gets_its_results(working, spool, queued, until):
    uids = [queued(number) for number in range(5)]
    working(Answerer())
    until(lambda: all((spool.results / uid).exists() for uid in uids))
    assert all({path.name for path in spool.result_files(uid)} == {"SR.dcm", "PR.dcm"} for uid in uids)
    assert sorted(spool.undelivered.get() for _ in uids) == sorted(uids)
    assert json.loads((spool.folder / "at_work.json").read_text())["ended"] == {}


def test_one_that_fails_does_not_lose_its_batch(working, spool, queued, until):
    uids = [queued(number) for number in range(4)]
    working(Answerer({uids[2]: RuntimeError("SECRET")}))
    until(lambda: spool.has_failed(uids[2]) and sum((spool.results / uid).exists() for uid in uids) == 3)
    assert reason(spool, uids[2])["step"] == "answer" and "SECRET" not in reason(spool, uids[2])["why"]
    assert reason(spool, uids[2])["why"].startswith("it cannot be answered: RuntimeError at ")


def test_what_is_no_radiograph_fails_by_name(working, spool, queued, until):
    uid, good = queued(1), queued(2)
    spool.image(uid).write_bytes(b"SECRET")
    working(Answerer())
    until(lambda: spool.has_failed(uid) and (spool.results / good).exists())
    assert reason(spool, uid)["step"] == "read" and "SECRET" not in json.dumps(reason(spool, uid))


def test_a_server_that_is_away_is_waited_for(working, spool, queued, monitor, until):
    uid = queued(1)
    busy = [ConnectionError("away"), RefusedError("SECRET: 503", 503), RefusedError("429", 429)]
    worker = working(Answerer(next_errors=busy))
    until(lambda: (spool.results / uid).exists())
    assert len(monitor.events("not_answered")) == 3 and worker.trouble is None
    assert not list(spool.failed.iterdir()) and "SECRET" not in "".join(monitor.lines)


def test_a_radiograph_that_a_server_refuses_fails_alone(working, spool, queued, until):
    uids = [queued(number) for number in range(3)]
    working(Answerer({uids[0]: RefusedError("too long", 400)}))
    until(lambda: spool.has_failed(uids[0]) and all((spool.results / uid).exists() for uid in uids[1:]))
    assert reason(spool, uids[0])["why"] == "the server refuses it with HTTP status 400"


def test_a_malformed_answer_is_delivered_and_says_so(working, spool, queued, monitor, until):
    class Malformed(Answerer):
        def line(self, received):
            return {**super().line(received), "findings": [], "malformed": {"identify": "no answer", "vqa": None}}

    uid = queued(1)
    working(Malformed())
    until(lambda: (spool.results / uid).exists() and monitor.events("answered"))
    assert monitor.events("answered")[0]["malformed"] is True


def test_the_boxes_are_those_that_were_asked_for(working, spool, queued, monitor, until):
    class Views(Answerer):
        def line(self, received):
            line = super().line(received)
            return {**line, "view_findings": line["findings"] * 2}

    uid = queued(1)
    working(Views(), source="view_findings")
    until(lambda: (spool.results / uid).exists() and monitor.events("answered"))
    other, plain = spool.result_files(uid)[1], queued(2)
    assert b"Cardiomegaly" in other.read_bytes() and plain


def test_a_picture_is_made_where_it_is_wanted(working, spool, queued, until):
    uid = queued(1)
    working(Answerer(), kinds=("SC",))
    until(lambda: (spool.results / uid).exists())
    assert [path.name for path in spool.result_files(uid)] == ["SC.dcm"]


def test_what_was_at_work_when_the_node_ended_is_answered_alone(working, spool, queued, until):
    uids = [queued(number) for number in range(4)]
    (spool.folder / "at_work.json").write_text(json.dumps({"at_work": uids[1:3], "ended": {uids[3]: 3}}))
    answerer = Answerer()
    working(answerer)
    until(lambda: all((spool.results / uid).exists() for uid in uids[:3]) and spool.has_failed(uids[3]))
    assert answerer.batches[:2] in ([[uids[1]], [uids[2]]], [[uids[2]], [uids[1]]])
    assert reason(spool, uids[3])["why"] == "the node ended 3 times while it was at work on it"


def test_a_stop_leaves_the_queue_as_it_is(working, spool, queued, until):
    uids = [queued(number) for number in range(6)]
    worker = working(Answerer(next_errors=[ConnectionError()] * 10_000), batch_size=2)
    until(lambda: worker.trouble is not None)
    worker.end()
    assert all(spool.waits(uid) for uid in uids)
    assert json.loads((spool.folder / "at_work.json").read_text())["at_work"] == []


def test_a_broken_gpu_ends_the_worker_and_fails_nothing(spool, queued, monitor):
    queued(1)
    worker = Worker(
        spool, Answerer(next_errors=[RuntimeError("CUDA error: x")]), WorkSettings(), monitor, threading.Event()
    )
    with pytest.raises(RuntimeError):
        worker.run()
    assert not list(spool.failed.iterdir())


def test_a_full_disk_is_waited_for_and_nothing_is_lost(working, spool, queued, monitor, until, monkeypatch):
    uid, bad = queued(1), queued(2)
    spool.image(bad).write_bytes(b"no radiograph")
    troubles = {"keep_results": 2, "fail": 1}

    def once_full(name):
        whole = getattr(spool, name)

        def full(*args):
            if troubles[name]:
                troubles[name] -= 1
                raise OSError(28, "No space left on device")
            return whole(*args)

        return full

    for name in troubles:
        monkeypatch.setattr(spool, name, once_full(name))
    monkeypatch.setattr("litegpt.inference_scripts.node.worker.DISK_PAUSE", 0.01)
    working(Answerer())
    until(lambda: (spool.results / uid).exists() and spool.has_failed(bad))
    assert len(monitor.events("spool_trouble")) == 3


def test_a_radiograph_of_which_there_can_be_no_result_does_not_wait_for_ever(
    working, spool, queued, until, monkeypatch
):
    monkeypatch.setattr("litegpt.dicom_output.result_objects.is_drawn_on", lambda source: False)  # as of one in colour
    uid = queued(1)
    working(Answerer(), kinds=("PR",))
    until(lambda: spool.has_failed(uid))
    assert reason(spool, uid) == {"step": "objects", "why": "there can be no PR of it"}
