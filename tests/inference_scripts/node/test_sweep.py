"""The sweep: what a node missed is found, and what was answered is left alone."""

import threading
from datetime import date, timedelta

import pydicom
import pytest
import requests

from litegpt.dicom_output.result_uids import result_uids
from litegpt.inference_scripts.node.pacs import dicomweb_client
from litegpt.inference_scripts.node.sweep import Sweep, SweepSettings
from tests.small_pacs import radiograph, web_pacs

FACTS = {"checkpoint": "stand-in", "checkpoint_sha256": "0" * 64}


@pytest.fixture
def pacs():
    with web_pacs() as there:
        for number in range(5):
            keep(there, radiograph(number))
        yield there


@pytest.fixture
def sweep(pacs, spool, monitor, arguments):
    return Sweep(
        dicomweb_client(arguments(dicomweb_url=pacs.url)), spool, FACTS, SweepSettings(days=2, page=2), monitor
    )


def keep(pacs, dataset: pydicom.Dataset) -> None:
    pacs.kept[str(dataset.SOPInstanceUID)] = dataset


def result_of(dataset: pydicom.Dataset, kind: str = "SR") -> pydicom.Dataset:
    """A result in the radiograph's study, as far as a search sees it."""
    result = pydicom.Dataset()
    result.StudyInstanceUID, result.Modality = dataset.StudyInstanceUID, kind
    result.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    result.SeriesInstanceUID, result.SOPInstanceUID = result_uids(dataset, FACTS, kind)
    return result


def incoming(spool) -> list[str]:
    return sorted(path.stem for path in spool.incoming.glob("*.dcm"))


def test_what_has_no_results_is_fetched_as_it_is(sweep, pacs, spool):
    keep(pacs, result_of(radiograph(0)))
    assert sweep.once(threading.Event()) == 4
    assert incoming(spool) == [f"1.2.3.{number}.4.5" for number in range(1, 5)]
    assert pydicom.dcmread(spool.image("1.2.3.2.4.5")).PixelData == radiograph(2).PixelData
    assert sorted(spool.unanswered.get() for _ in range(4)) == incoming(spool)
    assert not list(spool.receiving.iterdir())


def test_the_search_is_for_the_last_days_and_in_pages(sweep, pacs):
    sweep.once(threading.Event())
    studies = [path for path in pacs.requests if path.startswith("/dicom-web/studies?")]
    days = f"{date.today() - timedelta(2):%Y%m%d}-{date.today() + timedelta(1):%Y%m%d}"
    assert all(f"StudyDate={days}" in path and "limit=2" in path for path in studies)
    assert [path for path in studies if "ModalitiesInStudy=DX" in path and "offset=4" in path]
    assert [path for path in studies if "ModalitiesInStudy=CR" in path]


def test_what_is_known_or_has_failed_is_not_fetched_again(sweep, pacs, spool, queued):
    queued(1)
    spool.fail(queued(2), {"why": "x"})
    assert sweep.once(threading.Event()) == 3
    assert sweep.once(threading.Event()) == 0
    assert "1.2.3.2.4.5" not in incoming(spool)


def test_results_of_another_radiograph_of_the_series_do_not_count(sweep, pacs, spool):
    second = radiograph(0)
    second.SOPInstanceUID = "1.2.3.0.4.6"
    keep(pacs, second)
    keep(pacs, result_of(radiograph(0)))
    sweep.once(threading.Event())
    assert "1.2.3.0.4.6" in incoming(spool) and "1.2.3.0.4.5" not in incoming(spool)


def test_a_study_that_is_complete_is_looked_into_again_only_when_it_grows(sweep, pacs):
    for number in range(5):
        keep(pacs, result_of(radiograph(number)))
    assert sweep.once(threading.Event()) == 0
    pacs.requests.clear()
    assert sweep.once(threading.Event()) == 0
    assert all(path.startswith("/dicom-web/studies?") for path in pacs.requests)
    more = radiograph(3)
    more.SOPInstanceUID = "1.2.3.3.4.6"
    keep(pacs, more)
    assert sweep.once(threading.Event()) == 1


def test_a_pacs_that_does_not_answer_is_said_and_tried_again(sweep, pacs, monitor, until):
    pacs.status = 500
    with pytest.raises(requests.RequestException):
        sweep.once(threading.Event())
    stop = threading.Event()
    thread = threading.Thread(target=sweep.run, args=(stop, 0.05))
    thread.start()
    until(lambda: monitor.events("sweep_trouble"))
    assert sweep.trouble is not None
    pacs.status = None
    until(lambda: monitor.events("swept"))
    stop.set()
    thread.join()
    assert sweep.trouble is None
    assert "SECRET" not in "".join(monitor.lines)


def test_other_objects_are_never_fetched(sweep, pacs, spool):
    ct = radiograph(7)
    ct.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    keep(pacs, ct)
    sweep.once(threading.Event())
    assert "1.2.3.7.4.5" not in incoming(spool)
