"""Radiographs in memory: for whom, how many and how long."""

from pathlib import Path

import pytest
from PIL import Image

from litegpt.inference_scripts.app.shelf import Radiograph, Shelf
from litegpt.inference_scripts.inbox import Received


def radiograph(size: int = 1000) -> Radiograph:
    return Radiograph(b"0" * size, Received(Path("a.png"), Image.new("L", (1, 1)), {}))


def test_a_closed_page_leaves_nothing_behind_and_others_stay():
    shelf = Shelf()
    mine, other = shelf.put("mine", radiograph()), shelf.put("other", radiograph())
    shelf.forget("mine")
    with pytest.raises(KeyError):
        shelf.get(mine)
    assert shelf.get(other) and len(shelf) == 1


def test_what_nobody_uses_leaves_after_a_while_and_what_is_used_stays():
    now = 0.0
    shelf = Shelf(seconds=10, clock=lambda: now)
    used, unused = shelf.put("s", radiograph()), shelf.put("s", radiograph())
    now = 8.0
    shelf.get(used)
    now = 12.0
    shelf.clear_old()
    assert len(shelf) == 1 and shelf.get(used)
    with pytest.raises(KeyError):
        shelf.get(unused)


def test_memory_is_bounded_by_what_was_used_longest_ago():
    shelf = Shelf(most_bytes=2500)
    tokens = [shelf.put("s", radiograph()) for _ in range(3)]
    assert len(shelf) == 2 and shelf.get(tokens[2]) and shelf.get(tokens[1])
    large = shelf.put("s", radiograph(9000))
    assert len(shelf) == 1 and shelf.get(large)
