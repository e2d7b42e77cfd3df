"""The viewer's server: files of its folder alone, DICOMweb as it comes, and nothing to other sites."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from litegpt.inference_scripts.hospital.children import free_port
from litegpt.inference_scripts.hospital.viewer import APP_CONFIG, Viewer, file_of

LARGE = 3_000_000


class Pacs(BaseHTTPRequestHandler):
    """Answers with what it was asked, and of some paths with large bodies or errors."""

    protocol_version = "HTTP/1.1"
    first_piece_read = threading.Event()

    def log_message(self, *values) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/missing"):
            self.answer(404, b"no such study")
        elif self.path.endswith("/large"):
            self.answer(200, b"x" * LARGE)
        elif self.path.endswith("/slow"):  # its second half comes when the browser has the first
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n")
            second = b"6\r\nsecond\r\n" if self.first_piece_read.wait(10) else b""
            self.wfile.write(second + b"0\r\n\r\n")
        else:
            self.answer(200, f"{self.command} {self.path} {self.headers['Accept']} {self.headers['Cookie']}".encode())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, f"{len(body)} {self.headers['Content-Type']}".encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "3.13.2"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>viewer</title>")
    (folder / "app-config.js").write_text("somebody else's")
    (folder / "assets" / "codec.wasm").write_bytes(b"\0asm")
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def viewer(folder) -> Iterator[Viewer]:
    pacs = ThreadingHTTPServer(("127.0.0.1", 0), Pacs)
    threading.Thread(target=pacs.serve_forever, args=(0.05,), daemon=True).start()
    with Viewer(folder, pacs.server_port) as viewer:
        yield viewer
    pacs.shutdown()
    pacs.server_close()


def ask(viewer: Viewer, method: str, path: str, body=None, headers=None) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(viewer.url.removeprefix("http://"), timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_pages_of_the_viewer_begin_with_its_first_file_and_threads_may_share_memory(viewer):
    for path in ("/", "/viewer?StudyInstanceUIDs=1.2.3", "/local"):
        response, content = ask(viewer, "GET", path)
        assert (response.status, content) == (200, b"<title>viewer</title>")
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert ask(viewer, "GET", "/assets/codec.wasm")[0].headers["Content-Type"] == "application/wasm"


def test_its_settings_are_ours(viewer):
    assert ask(viewer, "GET", "/app-config.js")[1] == APP_CONFIG.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//etc/passwd.txt",
        "/link.txt",
        "/a%00.js",
        "/nothing.js",
    ],
)
def test_no_file_outside_its_folder_is_sent(viewer, path):
    response, content = ask(viewer, "GET", path)
    assert (response.status, content) == (404, b"")


def test_a_path_above_the_folder_without_a_suffix_is_no_file_either(folder):
    assert file_of(folder, "/../../etc/passwd") is None


def test_requests_for_images_go_to_the_pacs_as_they_come(viewer):
    path = "/dicom-web/studies?PatientName=A%5EB&limit=3"
    response, content = ask(viewer, "GET", path, headers={"Accept": "application/dicom+json", "Cookie": "x=1"})
    assert content.decode() == f"GET {path} application/dicom+json None"  # a cookie is of another program
    assert response.headers["Content-Type"] == "application/dicom+json"
    response, content = ask(viewer, "GET", "/dicom-web/missing")
    assert (response.status, content) == (404, b"no such study")
    response, content = ask(viewer, "HEAD", "/dicom-web/large")
    assert (response.headers["Content-Length"], content) == (str(LARGE), b"")
    assert len(ask(viewer, "GET", "/dicom-web/large")[1]) == LARGE
    headers = {"Content-Type": "multipart/related", "Origin": viewer.url}
    assert ask(viewer, "POST", "/dicom-web/studies", b"y" * LARGE, headers)[1] == f"{LARGE} multipart/related".encode()


def test_an_answer_passes_on_before_it_is_whole(viewer):
    connection = http.client.HTTPConnection(viewer.url.removeprefix("http://"), timeout=30)
    connection.request("GET", "/dicom-web/slow")
    response = connection.getresponse()
    assert response.read1(5) == b"first"
    Pacs.first_piece_read.set()
    assert response.read() == b"second"
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Host": "evil.example"}, 403),
        ("GET", "/dicom-web/studies", {"Host": "evil.example:3000"}, 403),
        ("POST", "/dicom-web/studies", {"Origin": "http://evil.example"}, 403),
        ("POST", "/dicom-web/studies", {"Origin": "null"}, 403),
        ("POST", "/dicom-web/studies", {"Transfer-Encoding": "chunked"}, 411),
        ("POST", "/dicom-web/studies", {"Content-Length": "-1"}, 411),
        ("POST", "/viewer", {}, 405),
        ("DELETE", "/dicom-web/studies/1.2.3", {}, 501),
    ],
)
def test_what_is_not_for_it_is_refused(viewer, method, path, headers, status):
    assert ask(viewer, method, path, headers=headers)[0].status == status


def test_a_pacs_that_is_not_there_is_a_bad_gateway(folder):
    with Viewer(folder, free_port()) as viewer:
        assert ask(viewer, "GET", "/dicom-web/studies")[0].status == 502


def test_a_study_has_a_page(viewer):
    assert viewer.study_url("1.2.3") == f"{viewer.url}/viewer?StudyInstanceUIDs=1.2.3"
