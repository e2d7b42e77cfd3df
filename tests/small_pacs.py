"""What stands in for a PACS in tests: one by DICOM, one by DICOMweb, in threads at 127.0.0.1; and radiographs."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import Verification

from tests.small_dicom import small_dicom

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def radiograph(number: int, name: str = "SECRET^NAME") -> pydicom.Dataset:
    """A small radiograph, a study of its own; what its patient's tags say must be nowhere but in results."""
    greys = np.arange(64 * 48, dtype=np.uint32).reshape(64, 48) * (number + 3) % 256
    dataset = small_dicom(greys.astype(np.uint8))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.{number}.4"
    dataset.SOPInstanceUID = f"1.2.3.{number}.4.5"
    dataset.PatientName, dataset.PatientID, dataset.BodyPartExamined = name, "SECRETID", "CHEST"
    dataset.StudyDate, dataset.StudyID = "", ""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def as_file(dataset: pydicom.Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


class DicomPacs:
    """Keeps what it gets by C-STORE.

    Attributes:
        stored: SOP Instance UID -> how often it came.
        status: answers a data set's class and UID; 0 by default.
        associations: how many there were.
    """

    def __init__(self, port: int = 0, contexts=AllStoragePresentationContexts, tls=None):
        self.stored: dict[str, int] = {}
        self.associations, self.echoes = 0, 0
        self.status = lambda sop_class, uid: 0x0000
        ae = AE("PACS")
        ae.supported_contexts = [*contexts, build_context(Verification)]
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_ACCEPTED, self._accepted),
        ]
        self.server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
        self.port = self.server.server_address[1]

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.port}"

    def close(self) -> None:
        self.server.shutdown()
        for association in self.server.active_associations:
            association.abort()

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self.status(str(event.request.AffectedSOPClassUID), uid)
        if status is None:
            event.assoc.abort()
            return 0x0000
        if status == 0:
            self.stored[uid] = self.stored.get(uid, 0) + 1
        return status

    def _echo(self, event: evt.Event) -> int:
        self.echoes += 1
        return 0x0000

    def _accepted(self, event: evt.Event) -> None:
        self.associations += 1


@contextmanager
def dicom_pacs(*args: Any, **kwargs: Any) -> Iterator[DicomPacs]:
    pacs = DicomPacs(*args, **kwargs)
    try:
        yield pacs
    finally:
        pacs.close()


class WebPacs(ThreadingHTTPServer):
    """QIDO-RS, WADO-RS and STOW-RS over the data sets in `kept`, by UID.

    Attributes:
        requests: the paths that were asked for, with their queries.
        failures: SOP Instance UID -> failure reason, of what is not stored.
        status: HTTP status of every answer, where it is not None.
        token: that requests must have, where it is not None.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), WebHandler)
        self.kept: dict[str, pydicom.Dataset] = {}
        self.requests: list[str] = []
        self.failures: dict[str, int] = {}
        self.status, self.token = None, None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dicom-web"


class WebHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.refused():
            return
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.removeprefix("/dicom-web/").split("/")
        chosen = list(self.server.kept.values())
        if len(parts) > 1:
            chosen = [data for data in chosen if data.StudyInstanceUID == parts[1]]
        if len(parts) > 3:
            chosen = [data for data in chosen if data.SeriesInstanceUID == parts[3]]
        if len(parts) == 6:
            (data,) = [data for data in chosen if data.SOPInstanceUID == parts[5]]
            body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + as_file(data) + b"\r\n--x--\r\n"
            return self.send(200, 'multipart/related; type="application/dicom"; boundary=x', body)
        if "ModalitiesInStudy" in query:
            studies = {data.StudyInstanceUID for data in chosen if data.Modality == query["ModalitiesInStudy"]}
            chosen = [data for data in chosen if data.StudyInstanceUID in studies]
        level = {1: "StudyInstanceUID", 3: "SeriesInstanceUID", 5: "SOPInstanceUID"}[len(parts)]
        found = list({data[level].value: data for data in chosen}.values())
        start, limit = int(query.get("offset", 0)), int(query.get("limit", 1000))
        answer = [self.result(data, level) for data in found[start : start + limit]]
        self.send(200 if answer else 204, "application/dicom+json", json.dumps(answer).encode() if answer else b"")

    def do_POST(self) -> None:
        self.server.requests.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else b""
        if self.refused():
            return
        boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        failed, stored = [], []
        for part in body.split(b"--" + boundary)[1:-1]:
            data = pydicom.dcmread(BytesIO(part.partition(b"\r\n\r\n")[2]))
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
            if str(data.SOPInstanceUID) in self.server.failures:
                item.FailureReason = self.server.failures[str(data.SOPInstanceUID)]
                failed.append(item)
            else:
                self.server.kept[str(data.SOPInstanceUID)] = data
                stored.append(item)
        answer = pydicom.Dataset()
        answer.FailedSOPSequence, answer.ReferencedSOPSequence = failed, stored
        status = 200 if not failed else 202 if stored else 409
        self.send(status, "application/dicom+json; charset=utf-8", answer.to_json().encode())

    def refused(self) -> bool:
        token = self.server.token
        status = self.server.status
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            status = 401
        if status is not None:
            self.send(status, "text/plain", b"refused")
        return status is not None

    def result(self, data: pydicom.Dataset, level: str) -> dict[str, Any]:
        found = pydicom.Dataset()
        for name in ("SOPClassUID", "SOPInstanceUID", "Modality", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(found, name, data[name].value)
        if level == "StudyInstanceUID":
            of_study = [
                other for other in self.server.kept.values() if other.StudyInstanceUID == data.StudyInstanceUID
            ]
            found.NumberOfStudyRelatedInstances = len(of_study)
        return found.to_json_dict()

    def send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def web_pacs() -> Iterator[WebPacs]:
    pacs = WebPacs()
    pacs.daemon_threads = True
    thread = threading.Thread(target=pacs.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield pacs
    finally:
        pacs.shutdown()
        pacs.server_close()


def encoded(dataset: pydicom.Dataset) -> bytes:
    """The data set as a C-STORE sends it, without a file's header."""
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    file = pydicom.filebase.DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(file, dataset)
    return file.getvalue()
