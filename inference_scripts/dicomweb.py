"""A PACS over DICOMweb: a client of it, searches in pages, and its radiographs one after another.

    client = web_client(WebPlace("https://pacs/dicom-web", user="ann", password_file="secret.txt"))
    for found in paged(client.search_for_studies, search_filters={"StudyDate": "20260101-"}):
        first_value(found, STUDY)                        # the study's UID
    for radiograph in radiographs(client, {"StudyDate": "20260101-"}):
        fetched(client, radiograph)                      # the bytes of a DICOM file

In: an address, and filters of QIDO-RS. Out: results in DICOM's JSON model, UIDs, and files by WADO-RS.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import requests
from dicomweb_client.api import DICOMwebClient

from litegpt.inference_scripts.dicom_identity import RADIOGRAPH_CLASSES, is_uid, quietly

PASSWORD, TOKEN = "LITEGPT_DICOMWEB_PASSWORD", "LITEGPT_DICOMWEB_TOKEN"  # of the environment
CONNECTING = 10  # seconds within which a PACS takes a connection
PAGE = 100  # studies, series or radiographs asked for at a time
MODALITIES = ("CR", "DX")
STUDY, SERIES, INSTANCE, SOP_CLASS, MODALITY = ("0020000D", "0020000E", "00080018", "00080016", "00080060")


@dataclass(frozen=True)
class WebPlace:
    """Where a PACS is, and who asks.

    Attributes:
        url: of its DICOMweb.
        user: of basic authentication, with the password of `password_file` or of the environment's PASSWORD.
        token_file: of a bearer token; otherwise the environment's TOKEN.
        ca: authority (PEM) that the PACS's certificate must be of; None: those that requests knows.
        certificate: (certificate, key) or both in one file (PEM), which we show.
        timeout: seconds that it may be silent.
    """

    url: str
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = None
    ca: str | None = None
    certificate: tuple[str, str] | str | None = None
    timeout: float = 60.0


class WebRadiograph(NamedTuple):
    """A radiograph in the PACS, by its UIDs."""

    study: str
    series: str
    uid: str

    def address(self, url: str) -> str:
        return f"{url.rstrip('/')}/studies/{self.study}/series/{self.series}/instances/{self.uid}"

    @classmethod
    def of_address(cls, address: str) -> "WebRadiograph":
        parts = address.split("/")
        return cls(parts[-5], parts[-3], parts[-1])


def web_client(place: WebPlace) -> DICOMwebClient:
    """A client, without the proxies and the .netrc that nobody wrote into our configuration.

    Raises:
        OSError: a file cannot be read.
        ValueError: the URL is none.
    """
    session = requests.Session()
    session.trust_env = False
    if place.ca is not None:
        session.verify = place.ca
    session.cert = place.certificate
    token, password = _secret(place.token_file, TOKEN), _secret(place.password_file, PASSWORD)
    if place.user is not None:
        session.auth = (place.user, password or "")
    elif token is not None:
        session.headers["Authorization"] = f"Bearer {token}"
    client = DICOMwebClient(place.url.rstrip("/"), session, callback=_plain_type, timeout=(CONNECTING, place.timeout))
    client.set_http_retry_params(retry=False)  # our own attempts are the ones that are counted
    return client


def paged(
    search: Callable[..., list[dict[str, Any]]], *args: Any, page: int = PAGE, **kwargs: Any
) -> Iterator[dict[str, Any]]:
    """The results of a search, a page at a time."""
    limit = page
    found = search(*args, limit=limit, **kwargs)
    yield from found
    count = len(found)
    while len(found) == limit:
        following = search(*args, limit=limit, offset=count, **kwargs)
        if following and following != found:
            found, count = following, count + len(following)
            yield from found
            continue
        # That was all, or the server knows no offset, as Orthanc's plugin 1.7, which then answers with nothing.
        limit += count
        found = search(*args, limit=limit, **kwargs)
        yield from found[count:]
        count = max(count, len(found))


def first_value(found: Mapping[str, Any], tag: str) -> Any:
    """The first value of an attribute in DICOM's JSON model (PS3.18, F.2); None where there is none."""
    values = found.get(tag, {}).get("Value") or [None]
    return values[0]


def radiographs(client: DICOMwebClient, filters: Mapping[str, str], page: int = PAGE) -> Iterator[WebRadiograph]:
    """The CR and DX radiographs of the studies that the filters of QIDO-RS let through, in the PACS's order.

    Raises:
        requests.RequestException: the PACS does not answer, or refuses.
    """
    for modality in MODALITIES:
        of_studies = {**filters, "ModalitiesInStudy": modality}
        for found in paged(client.search_for_studies, search_filters=of_studies, page=page):
            if is_uid(study := first_value(found, STUDY)):
                # A study may have both: each series is met with its own modality.
                series = [
                    first_value(found, SERIES)
                    for found in paged(client.search_for_series, study, page=page)
                    if first_value(found, MODALITY) == modality and is_uid(first_value(found, SERIES))
                ]
                for name in series:
                    yield from (WebRadiograph(study, name, uid) for uid in instances(client, study, name, page))


def instances(client: DICOMwebClient, study: str, series: str, page: int = PAGE) -> Iterator[str]:
    """The UIDs of a series' radiographs."""
    for found in paged(client.search_for_instances, study, series, fields=["SOPClassUID"], page=page):
        uid, sop_class = first_value(found, INSTANCE), first_value(found, SOP_CLASS)
        if is_uid(uid) and (sop_class is None or sop_class in RADIOGRAPH_CLASSES):
            yield uid


@quietly
def fetched(client: DICOMwebClient, radiograph: WebRadiograph) -> bytes:
    """A radiograph by WADO-RS, as a DICOM file.

    Raises:
        requests.RequestException: the PACS does not answer, or refuses.
        Exception: what pydicom makes of a damaged one.
    """
    file = BytesIO()
    client.retrieve_instance(*radiograph).save_as(file, enforce_file_format=True)
    return file.getvalue()


def trouble(url: str, error: requests.RequestException) -> str:
    """What is wrong with a PACS, as one sentence."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{url}: the PACS answers with HTTP status {error.response.status_code}."
    return f"{url}: the PACS does not answer ({type(error).__name__})."


def _secret(file: str | None, variable: str) -> str | None:
    return Path(file).read_text(encoding="utf-8").strip() if file is not None else os.environ.get(variable)


def _plain_type(response: requests.Response, *args: Any, **kwargs: Any) -> requests.Response:
    """Without parameters of the content type, with which dicomweb-client overlooks what a PACS says has failed."""
    kind = response.headers.get("Content-Type", "")
    if "json" in kind or "xml" in kind:
        response.headers["Content-Type"] = kind.partition(";")[0].strip()
    return response
