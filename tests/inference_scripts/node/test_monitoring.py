"""What the node says of itself, and that it quotes no file."""

import json
import urllib.error
import urllib.request
import warnings

import pydicom
import pytest

from litegpt.inference_scripts.node.monitoring import Monitor, Pages, kind_and_place, silence_libraries


def test_a_line_of_the_log_is_json_with_its_time(monitor):
    monitor.log("received", uid="1.2.3", bytes=7)
    line = json.loads(monitor.lines[0])
    assert line["time"].endswith("+00:00") and {**line, "time": 0} == {
        "time": 0,
        "event": "received",
        "uid": "1.2.3",
        "bytes": 7,
    }
    assert monitor.last["received"] > 1e9


def test_metrics_are_in_prometheus_format(monitor):
    monitor.count("received", by=2)
    monitor.refuse("disk_full", uid="1.2")
    monitor.took("answer", 1.5, 3)
    with monitor.timed("send"):
        pass
    lines = monitor.metrics({"unanswered_radiographs": 4}).splitlines()
    assert "litegpt_node_received_total 2" in lines and "litegpt_node_delivered_total 0" in lines
    assert 'litegpt_node_refused_total{reason="disk_full"} 1' in lines
    assert 'litegpt_node_step_seconds_sum{step="answer"} 1.500000' in lines
    assert 'litegpt_node_step_seconds_count{step="answer"} 3' in lines
    assert "litegpt_node_unanswered_radiographs 4" in lines
    assert all(line.startswith(("#", "litegpt_node_")) for line in lines)


def test_pages_say_what_is_wrong_by_their_status(monitor):
    wrong: list[str] = []
    pages = Pages(monitor, lambda: (wrong, {"queue": 3}, {"free_bytes": 1}), ("127.0.0.1", 0))
    url = f"http://127.0.0.1:{pages.port}"
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as page:
            assert json.load(page) == {"status": "ok", "wrong": [], "queue": 3}
        wrong.append("the PACS does not answer")
        with pytest.raises(urllib.error.HTTPError) as trouble:
            urllib.request.urlopen(f"{url}/health", timeout=10)
        assert trouble.value.code == 503 and json.load(trouble.value)["wrong"] == wrong
        with urllib.request.urlopen(f"{url}/alive", timeout=10) as page:
            assert page.status == 200
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as page:
            assert b"litegpt_node_free_bytes 1" in page.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/../etc/passwd", timeout=10)
    finally:
        pages.close()


def test_of_an_error_the_kind_and_the_place_are_said_and_not_the_message():
    try:
        raise ValueError("SECRET^NAME is no date")
    except ValueError as error:
        said = kind_and_place(error)
    assert said.startswith("ValueError at test_monitoring.py:")


def test_libraries_that_quote_values_are_silent(capfd):
    with warnings.catch_warnings():
        silence_libraries()
        dataset = pydicom.Dataset()
        dataset.StudyInstanceUID = "SECRET"
    assert "SECRET" not in "".join(capfd.readouterr())
    assert Monitor  # its default writes to standard error
