"""OHIF's files and Orthanc's DICOMweb under one address, which is what browsers ask for.

    with Viewer(ohif(Path("outputs/ohif")), pacs_port=8042, port=3000) as viewer:
        viewer.url                                             # http://127.0.0.1:3000
        viewer.study_url("1.2.3")                              # http://127.0.0.1:3000/viewer?StudyInstanceUIDs=1.2.3

In: the folder of the viewer. Out: a server on 127.0.0.1, in a thread, until the block ends: `/dicom-web` goes to
Orthanc as it comes, everything else is a file of the folder, or the viewer's first page. Bodies pass in pieces, both
ways. It asks for no password; it answers requests for this machine by name alone, so that no page of another site,
opened in the same browser, reads radiographs through it.
"""

import http.client
import mimetypes
import shutil
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

APP_CONFIG = Path(__file__).with_name("app-config.js")
PACS = "/dicom-web"
PIECE = 1 << 16  # bytes
PATIENCE = 120  # seconds for Orthanc's answer
TYPES = mimetypes.MimeTypes()  # Python's own table, not the machine's
# Threads of a page share memory only where no other site's page is in reach (the first two). The viewer loads nothing
# from elsewhere, and shall not.
SAFETY = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TO_PACS = ("Accept", "Content-Type", "Content-Length")
FROM_PACS = ("Content-Type", "Content-Length", "Content-Encoding", "Retry-After")


class Viewer:
    """A running server.

    Attributes:
        url: what a person opens.

    Args:
        folder: the built viewer.
        pacs_port: Orthanc's HTTP port on this machine.
        port: to listen on; 0: any that is free.

    Raises:
        OSError: somebody listens on that port.
    """

    def __init__(self, folder: Path, pacs_port: int, port: int = 0):
        handler = type("Handler", (_Handler,), {"folder": folder.resolve(), "pacs_port": pacs_port})
        self._server = _Server(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def study_url(self, study: str) -> str:
        """The page that shows a study."""
        return f"{self.url}/viewer?StudyInstanceUIDs={quote(study)}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def file_of(folder: Path, path: str) -> Path | None:
    """The file that a path of a request means; None where there is none in the folder.

    A path without a suffix is one of the viewer's own pages, which all begin with the same file.
    """
    try:
        file = (folder / unquote(path).lstrip("/")).resolve()
    except ValueError:  # a zero byte
        return None
    if not file.is_relative_to(folder.resolve()):
        return None
    if file == folder.resolve() / "app-config.js":
        return APP_CONFIG
    if file.is_file():
        return file
    return None if "." in path.rpartition("/")[2] else folder / "index.html"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a browser keeps connections open


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    folder: Path
    pacs_port: int

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: addresses name patients where people search for them."""

    def version_string(self) -> str:
        return "LiteGPT"

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        try:
            if host not in ("127.0.0.1", "localhost"):
                self._refuse(HTTPStatus.FORBIDDEN)
            elif path == PACS or path.startswith(f"{PACS}/"):
                self._pass_on()
            elif self.command == "POST":
                self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)
            else:
                self._send_file(file_of(self.folder, path))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):  # the browser went away
            self.close_connection = True

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # its body has not been read
        self._begin(status, {"Content-Length": "0", "Connection": "close"})

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **SAFETY}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_file(self, file: Path | None) -> None:
        if file is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        kind = TYPES.guess_type(file.name)[0] or "application/octet-stream"
        # Names of built files have a digest; the page that names them and our settings do not.
        keep = "no-cache" if file.suffix in (".html", ".json") or file == APP_CONFIG else "max-age=86400"
        headers = {"Content-Type": kind, "Content-Length": str(file.stat().st_size), "Cache-Control": keep}
        with file.open("rb") as content:
            self._begin(HTTPStatus.OK, headers)
            if self.command != "HEAD":
                shutil.copyfileobj(content, self.wfile, PIECE)

    def _pass_on(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
            return
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._refuse(HTTPStatus.FORBIDDEN)  # another site's page wants to store something
            return
        pacs = http.client.HTTPConnection("127.0.0.1", self.pacs_port, timeout=PATIENCE)
        headers = {name: value for name in TO_PACS if (value := self.headers.get(name)) is not None}
        # Orthanc writes addresses into its answers: they shall lead back here.
        headers["Host"] = self.headers["Host"]
        try:
            pacs.request(self.command, self.path, _pieces(self.rfile, int(length)) if int(length) else None, headers)
            response = pacs.getresponse()
        except (OSError, http.client.HTTPException):
            pacs.close()
            self._refuse(HTTPStatus.BAD_GATEWAY)
            return
        headers = {name: value for name in FROM_PACS if (value := response.headers.get(name)) is not None}
        if "Content-Length" not in headers:
            headers["Connection"] = "close"  # the end of the connection is the end of the body
            self.close_connection = True
        self._begin(response.status, headers)
        if self.command != "HEAD":
            while piece := response.read1(PIECE):  # what is there, rather than a whole piece
                self.wfile.write(piece)
        pacs.close()


def _pieces(body: BinaryIO, length: int) -> Iterator[bytes]:
    """The `length` bytes of a request's body."""
    while length and (piece := body.read(min(PIECE, length))):
        length -= len(piece)
        yield piece
