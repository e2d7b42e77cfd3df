"""Looks in the PACS for radiographs that nobody answered, and puts them into the queue.

    sweep = Sweep(client, spool, facts, SweepSettings(days=2), monitor)
    sweep.run(stop, every=600)      # at once, then every 10 minutes
    sweep.once(stop)                # how many it fetched

What routers send to a node that is down is often sent once: Orthanc's job fails and is not repeated. So the node asks:
by QIDO-RS for the CR and DX studies of the last days, for their series and radiographs, and whether its own results,
whose UIDs follow from the radiograph's, are there; by WADO-RS it fetches what has none. A page of studies is held at
a time, and of a study that is complete its number of objects, so that it is not looked at again until that changes.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import UID

from litegpt.dicom_output.result_uids import ImageUids, result_uids
from litegpt.inference_scripts.dicom_identity import RADIOGRAPH_CLASSES, is_uid
from litegpt.inference_scripts.dicomweb import (
    INSTANCE,
    MODALITIES,
    MODALITY,
    PAGE,
    SERIES,
    STUDY,
    first_value,
    instances,
    paged,
)
from litegpt.inference_scripts.node.monitoring import Monitor, kind_and_place
from litegpt.inference_scripts.node.spool import Spool, sync

OBJECTS = "00201208"  # Number of Study Related Instances
MOST_WAITING = 200  # radiographs in the queue at which a sweep waits for the model


@dataclass(frozen=True)
class SweepSettings:
    """What is looked for.

    Attributes:
        days: studies of today and so many days before.
        last_kind: of results, the one that is delivered last: where it is, all are.
        page: studies, series or radiographs asked for at a time.
    """

    days: int = 2
    last_kind: str = "SR"
    page: int = PAGE


class Sweep:
    """Fetches what was missed.

    Attributes:
        trouble: why the last sweep ended early; None if it did not.

    Args:
        facts: of the answerer, from which the results' UIDs follow.
    """

    def __init__(
        self, client: DICOMwebClient, spool: Spool, facts: Mapping[str, Any], how: SweepSettings, monitor: Monitor
    ):
        self.client, self.spool, self.facts, self.how, self.monitor = client, spool, facts, how, monitor
        self.trouble: str | None = None
        self._complete: dict[str, int] = {}  # study -> objects that it had
        self._paged = partial(paged, page=how.page)

    def run(self, stop: threading.Event, every: float) -> None:
        while True:
            try:
                fetched, self.trouble = self.once(stop), None
                self.monitor.log("swept", fetched=fetched)
            except requests.RequestException as error:
                self.trouble = f"the PACS does not answer the sweep ({type(error).__name__})"
            except Exception as error:  # what a library makes of an odd answer
                self.trouble = f"the sweep fails: {kind_and_place(error)}"
            if self.trouble is not None:
                self.monitor.log("sweep_trouble", why=self.trouble)
            if stop.wait(every):
                return

    def once(self, stop: threading.Event) -> int:
        """Fetches all that is missing.

        Raises:
            requests.RequestException: the PACS does not answer.
        """
        fetched, complete = 0, {}
        for study, objects in self._studies():
            if stop.is_set():
                return fetched
            if objects is not None and self._complete.get(study) == objects:
                complete[study] = objects
                continue
            missing = list(self._missing(study))
            if not missing and objects is not None:
                complete[study] = objects
            for series, uid in missing:
                while sum(self.spool.lengths()[name] for name in ("unanswered", "undelivered")) >= MOST_WAITING:
                    if stop.wait(1):
                        return fetched
                fetched += self._fetch(study, series, uid)
        self._complete = complete
        return fetched

    def _studies(self) -> Iterator[tuple[str, int | None]]:
        """The studies of the last days, each with its number of objects where the PACS tells it."""
        today = date.today()
        # A day more: the PACS's clock, or its time zone, may be ahead.
        days = f"{today - timedelta(self.how.days):%Y%m%d}-{today + timedelta(1):%Y%m%d}"
        for modality in MODALITIES:
            filters = {"ModalitiesInStudy": modality, "StudyDate": days}
            for found in self._paged(
                self.client.search_for_studies, search_filters=filters, fields=["NumberOfStudyRelatedInstances"]
            ):
                study, objects = first_value(found, STUDY), first_value(found, OBJECTS)
                if is_uid(study):
                    yield study, None if objects is None else int(objects)

    def _missing(self, study: str) -> Iterator[tuple[str, str]]:
        """Series and UID of each radiograph of a study that is without results."""
        series = {
            first_value(found, SERIES): first_value(found, MODALITY)
            for found in self._paged(self.client.search_for_series, study)
        }
        of_series: dict[str, set[str]] = {}  # of results, asked for once
        for name in (name for name, modality in series.items() if modality in MODALITIES and is_uid(name)):
            for uid in instances(self.client, study, name, self.how.page):
                if self.spool.is_known(uid) or self.spool.has_failed(uid):
                    continue
                source = ImageUids(study, name, uid)
                results, result = result_uids(source, self.facts, self.how.last_kind)
                if results in series and results not in of_series:
                    found_there = self._paged(self.client.search_for_instances, study, results)
                    of_series[results] = {first_value(each, INSTANCE) for each in found_there}
                if result not in of_series.get(results, ()):
                    yield name, uid

    def _fetch(self, study: str, series: str, uid: str) -> int:
        """Puts a radiograph into the queue; 1, or 0 where it is of no class that is answered, or cannot be kept."""
        if self.spool.is_full():
            self.monitor.refuse("disk_full", uid=uid)
            return 0
        part = self.spool.part(uid)
        try:
            radiograph = self.client.retrieve_instance(study, series, uid)
            if UID(radiograph.SOPClassUID) not in RADIOGRAPH_CLASSES or radiograph.SOPInstanceUID != uid:
                return 0
            radiograph.save_as(part, enforce_file_format=True)
            sync(part)
            self.spool.accept(uid, part)
        except (requests.ConnectionError, requests.Timeout):
            raise
        except Exception as error:  # about this one; the others are fetched all the same
            self.monitor.refuse("not_fetched", uid=uid, why=kind_and_place(error))
            return 0
        finally:
            part.unlink(missing_ok=True)
        self.monitor.count("swept")
        self.monitor.log("fetched", uid=uid)
        return 1
