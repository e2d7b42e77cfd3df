import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from litegpt.common.read_ahead import ahead, helping_processes


def test_results_come_in_their_order_while_those_that_follow_are_computed():
    done = []

    def slow(number: int) -> int:
        time.sleep(0.02 if number % 2 else 0)
        done.append(number)
        return number * number

    with ThreadPoolExecutor(3) as pool:
        results = ahead(slow, range(20), pool, most=5)
        assert next(results) == 0
        time.sleep(0.3)
        assert len(done) == 6  # the one that was asked for, and five more
        assert list(results) == [number * number for number in range(1, 20)]


def test_items_are_taken_where_results_are_asked_for():
    taken_in = []

    def items():
        for number in range(4):
            taken_in.append(threading.get_ident())
            yield number

    with ThreadPoolExecutor(2) as pool:
        assert list(ahead(str, items(), pool, most=2)) == ["0", "1", "2", "3"]
    assert set(taken_in) == {threading.get_ident()}


def test_an_error_comes_in_its_place_and_ends_what_has_not_begun():
    begun = []

    def fails(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("3 is bad")
        return number

    with ThreadPoolExecutor(1) as pool:
        results = ahead(fails, range(1000), pool, most=4)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="3 is bad"):
            next(results)
        assert list(results) == []
    assert max(begun) < 10


def test_who_stops_asking_waits_for_nothing_that_has_not_begun():
    begun = []
    with ThreadPoolExecutor(1) as pool:
        results = ahead(begun.append, range(1000), pool, most=3)
        next(results)
        results.close()
    assert len(begun) <= 4


def test_helping_processes_are_others_and_leave_interruptions_to_this_one():
    with helping_processes(1) as pool:
        (process,) = ahead(process_and_its_interruptions, [None], pool, most=1)
    assert process[0] != os.getpid() and process[1] == signal.SIG_IGN


def process_and_its_interruptions(_: None) -> tuple[int, object]:
    return os.getpid(), signal.getsignal(signal.SIGINT)
