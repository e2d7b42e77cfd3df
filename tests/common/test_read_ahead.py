import threading
import time

import pytest

from litegpt.common.read_ahead import ahead


def test_results_come_in_their_order_while_those_that_follow_are_computed():
    done = []

    def slow(number: int) -> int:
        time.sleep(0.02 if number % 2 else 0)
        done.append(number)
        return number * number

    results = ahead(slow, range(20), threads=3, most=5)
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

    assert list(ahead(str, items(), threads=2, most=2)) == ["0", "1", "2", "3"]
    assert set(taken_in) == {threading.get_ident()}


def test_an_error_comes_in_its_place_and_ends_what_has_not_begun():
    begun = []

    def fails(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("3 is bad")
        return number

    results = ahead(fails, range(1000), threads=1, most=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3 is bad"):
        next(results)
    assert max(begun) < 10
    assert list(results) == []


def test_who_stops_asking_waits_for_nothing_that_has_not_begun():
    begun = []
    results = ahead(begun.append, range(1000), threads=1, most=3)
    next(results)
    results.close()
    assert len(begun) <= 4
