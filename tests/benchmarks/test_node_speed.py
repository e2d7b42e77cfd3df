from types import SimpleNamespace

import pytest

from litegpt.benchmarks.node_speed import delivered, differences, steps, taken
from litegpt.inference_scripts.node.monitoring import Monitor


def test_seconds_of_steps_are_read_from_the_metrics_and_are_means_of_what_came_since():
    monitor = Monitor(lambda line: None)
    monitor.took("read", 1.0, 2)
    node = SimpleNamespace(page=lambda name: monitor.metrics({}))
    before = steps(node)
    assert before == {"read": (1.0, 2.0)}
    monitor.took("read", 3.0, 4)
    assert differences(steps(node), before) == {"read": 0.75}


def test_a_radiograph_takes_from_its_acceptance_to_its_delivery():
    events = [
        {"event": "delivered", "uid": "1.2", "time": "2026-01-01T00:00:02.500+00:00"},
        {"event": "answered", "uid": "1.2", "time": "2026-01-01T00:00:01.000+00:00"},
    ]
    node = SimpleNamespace(events=lambda: events)
    accepted = delivered(node)["1.2"] - 0.5
    assert taken(node, SimpleNamespace(accepted_at={"1.2": accepted})) == [pytest.approx(0.5)]
