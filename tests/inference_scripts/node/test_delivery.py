"""Delivery: nothing is lost while the PACS is away, and no object stops those behind it."""

import json
import threading

import pytest

from litegpt.inference_scripts.node.backoff import Backoff
from litegpt.inference_scripts.node.delivery import Delivery
from litegpt.inference_scripts.node.pacs import NotStoredError, UnreachableError
from tests.small_pacs import radiograph


class Pacs:
    """Raises what `answers` says next, or `always`; keeps what is stored."""

    def __init__(self, answers=(), always=None):
        self.answers, self.always, self.stored, self.checks = list(answers), always or {}, [], 0

    def store(self, datasets):
        uid = str(datasets[0].SOPInstanceUID)
        error = self.always.get(uid) or (self.answers.pop(0) if self.answers else None)
        if error is not None:
            raise error
        self.stored += [str(dataset.SOPInstanceUID) for dataset in datasets]

    def check(self):
        self.checks += 1

    def rest(self):
        pass


@pytest.fixture
def running(spool, monitor, monkeypatch):
    """Delivers to a PACS in a thread, with short pauses, until the test ends."""
    monkeypatch.setattr("litegpt.inference_scripts.node.backoff.FIRST", 0.01)
    stop, threads = threading.Event(), []

    def start(pacs, tries=3):
        delivery = Delivery(pacs, spool, monitor, tries)
        threads.append(threading.Thread(target=delivery.run, args=(stop,)))
        threads[-1].start()
        return delivery

    yield start
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def answered(spool, queued):
    def put(number):
        uid = queued(number)
        spool.keep_results(uid, {"SR": radiograph(100 + number), "PR": radiograph(200 + number)})
        return uid

    return put


def test_results_are_delivered_and_the_queue_is_empty(running, answered, spool, below, until):
    uid = answered(1)
    pacs = Pacs()
    running(pacs)
    until(lambda: below(spool.folder) == [f"done/key/{uid}"])
    assert sorted(pacs.stored) == ["1.2.3.101.4.5", "1.2.3.201.4.5"] and pacs.checks == 1


def test_a_pacs_that_is_away_is_waited_for_in_order(running, answered, spool, monitor, until):
    for number in (1, 2, 3):
        answered(number)
    pacs = Pacs([UnreachableError("the PACS does not answer")] * 3)
    delivery = running(pacs)
    until(lambda: len(pacs.stored) == 6)
    until(lambda: delivery.trouble is None)
    assert [uid for uid in pacs.stored if "20" in uid] == ["1.2.3.201.4.5", "1.2.3.202.4.5", "1.2.3.203.4.5"]
    assert len(monitor.events("pacs_unreachable")) == 3 and not list(spool.failed.iterdir())


def test_one_that_is_refused_does_not_stop_others_and_fails_by_name_in_the_end(
    running, answered, spool, monitor, until
):
    for number in (1, 2):
        answered(number)
    pacs = Pacs(always={"1.2.3.201.4.5": NotStoredError("the PACS answers with status 0xA900")})
    running(pacs)
    until(lambda: spool.has_failed("1.2.3.1.4.5"))
    assert "1.2.3.202.4.5" in pacs.stored
    reason = json.loads((spool.failed / "1.2.3.1.4.5" / "reason.json").read_text())
    assert reason == {"step": "send", "why": "the PACS answers with status 0xA900", "attempts": 3}
    assert {path.name for path in (spool.failed / "1.2.3.1.4.5" / "results").iterdir()} == {"SR.dcm", "PR.dcm"}
    assert len(monitor.events("not_stored")) == 2


def test_a_pacs_without_space_is_never_given_up(running, answered, spool, until):
    answered(1)
    pacs = Pacs([NotStoredError("0xA700", is_for_now=True)] * 5)
    running(pacs)
    until(lambda: len(pacs.stored) == 2)
    assert not list(spool.failed.iterdir())


def test_results_that_cannot_be_read_fail_and_are_not_quoted(running, answered, spool, until):
    uid = answered(1)
    (spool.results / uid / "SR.dcm").write_bytes(b"SECRET")
    running(Pacs())
    until(lambda: spool.has_failed(uid))
    assert "SECRET" not in (spool.failed / uid / "reason.json").read_text()


def test_intervals_double_up_to_a_bound_and_differ():
    backoff = Backoff(longest=8)
    assert all(low / 2 <= backoff.next() <= low for low in (1, 2, 4, 8, 8, 8))
    backoff.reset()
    assert backoff.next() <= 1
    assert len({Backoff().next() for _ in range(5)}) == 5
