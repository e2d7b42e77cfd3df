"""Orthanc, a small PACS, on this machine: its configuration, its start, and what is asked of it.

    modality = Modality("LITEGPT", port=11112)           # gets every chest radiograph that Orthanc takes in
    with Orthanc(Path("outputs/hospital/orthanc"), OrthancPorts(http=8042, dicom=4242), modality) as pacs:
        pacs.store(Path("a.dcm").read_bytes())           # {"ID": "6bd1...", "Status": "Success", ...}
        pacs.find("Instance", StudyInstanceUID="1.2.3", Modality="SR")           # [{"ID": ...}]

In: a folder, which gets the configuration, the database and the log. Out: Orthanc at http://127.0.0.1:8042 (its own
pages and `/dicom-web/`) and as PACS@127.0.0.1:4242, until the block ends. It asks for no password, and answers to this
machine alone; objects are sent to it by the modality it knows, and over HTTP. Debian and Ubuntu have it: packages
`orthanc` and `orthanc-dicomweb`.
"""

import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litegpt.common.files import write_text
from litegpt.inference_scripts.dicom_identity import RADIOGRAPH_CLASSES
from litegpt.inference_scripts.hospital.children import Child, ChildError

PROGRAMS = ("Orthanc", "/usr/sbin/Orthanc")  # sbin stands in no ordinary user's PATH
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# Decodes JPEG 2000 and JPEG-LS for Orthanc's own pages; viewers decode them themselves.
GDCM = Path("/usr/share/orthanc/plugins/libOrthancGdcm.so")
INSTALL = "apt-get install orthanc orthanc-dicomweb"
AE_TITLE = "PACS"
START_LIMIT = 60  # seconds
# Every radiograph that comes in is passed on once, as PACS do it; a node that is down then has missed it.
ROUTE = f"""local radiographs = {{ {", ".join(f"['{uid}'] = true" for uid in RADIOGRAPH_CLASSES)} }}
function OnStoredInstance(id, tags, metadata, origin)
  if radiographs[tags.SOPClassUID] then SendToModality(id, 'litegpt') end
end
"""


@dataclass(frozen=True)
class OrthancPorts:
    """Of 127.0.0.1."""

    http: int
    dicom: int


@dataclass(frozen=True)
class Modality:
    """A DICOM node on this machine: its AE title and its port."""

    ae_title: str
    port: int


def missing() -> str | None:
    """What is not installed here, in a sentence; None where Orthanc and its DICOMweb are there."""
    if program() is None or not DICOMWEB.is_file():
        return f"Orthanc and its DICOMweb are needed, and not installed: {INSTALL}"
    return None


class Orthanc(Child):
    """A running Orthanc.

    Attributes:
        url: of its own pages and interface.
        ports: where it listens.

    Args:
        folder: for its files; a database that is there is taken up again.
        ports: two free ones.
        modality: who gets every CR and DX image that is stored; None: nobody.

    Raises:
        ChildError: it is not installed, or does not start.
    """

    def __init__(self, folder: Path, ports: OrthancPorts, modality: Modality | None = None):
        if (reason := missing()) is not None:
            raise ChildError(reason)
        self.ports, self.url = ports, f"http://127.0.0.1:{ports.http}"
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # radiographs with their tags
        write_text(folder / "route.lua", ROUTE)
        write_text(folder / "orthanc.json", json.dumps(configuration(folder, ports, modality), indent=2))
        super().__init__("Orthanc", [program(), str(folder / "orthanc.json")], folder / "orthanc.log")
        try:
            self.wait_for(self._answers, START_LIMIT)
        except BaseException:
            self.stop()
            raise

    def get(self, path: str) -> Any:
        """What Orthanc's own interface answers, such as `/studies`; raises urllib's errors."""
        return self._ask(path)

    def store(self, data: bytes) -> dict[str, Any]:
        """Stores a DICOM file; raises urllib's HTTPError where Orthanc refuses it."""
        return self._ask("/instances", data)

    def send(self, instance: str) -> None:
        """Sends an instance, by Orthanc's ID, to the modality, once more."""
        self._ask("/modalities/litegpt/store", instance.encode())

    def find(self, level: str, **tags: str) -> list[dict[str, Any]]:
        """The patients, studies, series or instances ("Instance") with these tags, with the tags that tell of them."""
        query = {"Level": level, "Query": tags, "Expand": True}
        return self._ask("/tools/find", json.dumps(query).encode())

    def _answers(self) -> bool:
        try:
            return bool(self.get("/system"))
        except OSError:
            return False

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        # No proxy of the environment: it is this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.url + path, data=body), timeout=60) as response:
            return json.loads(response.read() or b"null")


def configuration(folder: Path, ports: OrthancPorts, modality: Modality | None) -> dict[str, Any]:
    """Orthanc's configuration file, with its database in `folder`."""
    node = {} if modality is None else {"litegpt": [modality.ae_title, "127.0.0.1", modality.port]}
    return {
        "Name": "LiteGPT's demonstration",
        "StorageDirectory": str(folder / "database"),
        "IndexDirectory": str(folder / "database"),
        "HttpPort": ports.http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": AE_TITLE,
        "DicomPort": ports.dicom,
        # Its DICOM port is open to the network. Only the modality below may use it, and only from this machine.
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomModalities": node,
        "LuaScripts": [] if modality is None else [str(folder / "route.lua")],
        "Plugins": [str(plugin) for plugin in (DICOMWEB, GDCM) if plugin.is_file()],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
        "OverwriteInstances": False,
        "JobsHistorySize": 100,
        "HttpDescribeErrors": True,
    }


def program() -> str | None:
    """Where Orthanc is; None where it is not installed."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)
