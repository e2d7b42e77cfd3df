"""The PACS, to which results go: by C-STORE over one association that stays open, or by STOW-RS.

    pacs = DicomPacs(args)          # or WebPacs(args)
    pacs.store([sr, pr])            # they are in the PACS; or UnreachableError, or NotStoredError with the reason
    pacs.check()                    # it answers; or UnreachableError
    pacs.rest()                     # nothing to do: the association is released, and opened again when needed

An object that the PACS has already counts as stored: results have the same UIDs each time they are made.
"""

from collections.abc import Sequence
from typing import Protocol

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from litegpt.inference_scripts.arguments import NodeArguments
from litegpt.inference_scripts.dicomweb import CONNECTING, WebPlace, web_client
from litegpt.inference_scripts.node.bounds import send_at_once
from litegpt.inference_scripts.node.tls import client_context

DUPLICATE = 0x0111
OUT_OF_RESOURCES = range(0xA700, 0xA800)


class UnreachableError(Exception):
    """The PACS cannot be asked now, whatever it is asked: one sentence."""


class NotStoredError(Exception):
    """The PACS does not take these objects: one sentence.

    Attributes:
        is_for_now: it says that it has no space; so it may take them later.
    """

    def __init__(self, reason: str, is_for_now: bool = False):
        super().__init__(reason)
        self.is_for_now = is_for_now


class Pacs(Protocol):
    def store(self, datasets: Sequence[Dataset]) -> None: ...

    def check(self) -> None: ...

    def rest(self) -> None: ...


class DicomPacs:
    """A PACS by C-STORE.

    Raises:
        OSError: a certificate cannot be read.
    """

    def __init__(self, args: NodeArguments):
        self.title, self.host, self.port = args.pacs_address()
        self.ae = AE(args.ae_title)
        self.ae.acse_timeout = self.ae.dimse_timeout = self.ae.network_timeout = args.network_timeout
        self.ae.connection_timeout = CONNECTING
        self.tls = None
        if args.pacs_tls:
            self.tls = client_context(args.tls_ca, args.tls_certificate, args.tls_key), self.host
        self.contexts: set[tuple[UID, UID]] = set()  # SOP class and transfer syntax of what was sent so far
        self.association: Association | None = None

    def store(self, datasets: Sequence[Dataset]) -> None:
        wanted = {(data.SOPClassUID, data.file_meta.TransferSyntaxUID) for data in datasets}
        if not wanted <= self.contexts:
            self.contexts |= wanted
            self.rest()
        for data in datasets:
            self._store(data)

    def check(self) -> None:
        status = self._associated().send_c_echo()
        if "Status" not in status:
            self._drop()
            raise UnreachableError("the PACS does not answer C-ECHO")

    def rest(self) -> None:
        if self.association is not None and self.association.is_established:
            self.association.release()
        self.association = None

    def _store(self, data: Dataset) -> None:
        association = self._associated()
        try:
            status = association.send_c_store(data).get("Status")
        except ValueError:  # what pynetdicom says where no presentation context was accepted
            raise NotStoredError(f"the PACS does not accept {UID(data.SOPClassUID).name}") from None
        except RuntimeError:  # it was dropped since it was looked at
            status = None
        if status is None:
            self._drop()
            raise NotStoredError("the PACS ended the association, or gave no answer")
        if not is_stored(status):
            raise NotStoredError(f"the PACS answers with status 0x{status:04X}", status in OUT_OF_RESOURCES)

    def _associated(self) -> Association:
        if self.association is None or not self.association.is_established:
            syntaxes: dict[UID, list[UID]] = {}
            for sop_class, syntax in sorted(self.contexts):
                syntaxes.setdefault(sop_class, []).append(syntax)
            contexts = [build_context(Verification), *(build_context(*context) for context in syntaxes.items())]
            peer = {"ae_title": self.title, "tls_args": self.tls}
            self.association = self.ae.associate(self.host, self.port, contexts, **peer)
            if self.association.is_established:
                send_at_once(self.association)
        if not self.association.is_established:
            why = "rejects the association" if self.association.is_rejected else "does not answer"
            self._drop()
            raise UnreachableError(f"the PACS {why}")
        return self.association

    def _drop(self) -> None:
        if self.association is not None and self.association.is_established:
            self.association.abort()
        self.association = None


class WebPacs:
    """A PACS by STOW-RS.

    Raises:
        OSError, ValueError: as `dicomweb_client`'s.
    """

    def __init__(self, args: NodeArguments):
        self.client = dicomweb_client(args)

    def store(self, datasets: Sequence[Dataset]) -> None:
        try:
            answer = self.client.store_instances(datasets)
        except requests.HTTPError as error:
            code = error.response.status_code
            # 409: none was stored; 400, 413, 415: the objects are not to its liking. All others are about the PACS.
            if code not in (400, 409, 413, 415):
                raise UnreachableError(f"the PACS answers with HTTP status {code}") from None
            answer = _as_dataset(error.response)
            if "FailedSOPSequence" not in answer:
                raise NotStoredError(f"the PACS answers with HTTP status {code}") from None
        except requests.RequestException as error:
            raise UnreachableError(f"the PACS does not answer ({type(error).__name__})") from None
        for item in answer.get("FailedSOPSequence", []):
            reason = int(item.get("FailureReason", 0xC000))
            if not is_stored(reason):
                raise NotStoredError(f"the PACS fails with reason 0x{reason:04X}", reason in OUT_OF_RESOURCES)

    def check(self) -> None:
        try:
            self.client.search_for_studies(limit=1)
        except requests.RequestException as error:
            raise UnreachableError(f"the PACS does not answer ({type(error).__name__})") from None

    def rest(self) -> None:
        pass


def is_stored(status: int) -> bool:
    """Whether a status of C-STORE (PS3.4, table B.2-1) is a success, a warning, or says that it is there already."""
    return status in (0x0000, DUPLICATE) or 0xB000 <= status < 0xC000 or status in (0x0001, 0x0107, 0x0116)


def dicomweb_client(args: NodeArguments) -> DICOMwebClient:
    """A client with the node's certificates and with its password or token, from a file or the environment.

    Raises:
        OSError: a file cannot be read.
        ValueError: the URL is none.
    """
    certificate = args.tls_certificate if args.pacs_tls else None
    if certificate is not None and args.tls_key:
        certificate = (certificate, args.tls_key)
    secrets = (args.dicomweb_user, args.dicomweb_password_file, args.dicomweb_token_file)
    return web_client(WebPlace(args.dicomweb_url, *secrets, args.tls_ca, certificate, args.network_timeout))


def _as_dataset(response: requests.Response) -> Dataset:
    """What a PACS says of objects in DICOM's JSON; nothing where it says something else."""
    try:
        return Dataset.from_json(response.json())
    except Exception:  # whatever its text runs into
        return Dataset()
