"""A PACS, the viewer and a browser, each on this machine alone; `make test-hospital` fetches the viewer first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from litegpt.inference_scripts.hospital.children import free_port
from litegpt.inference_scripts.hospital.ohif import VERSION
from litegpt.inference_scripts.hospital.orthanc import Orthanc, OrthancPorts, missing
from litegpt.inference_scripts.hospital.viewer import Viewer
from tests.hospital.fetch_ohif import FOLDER
from tests.hospital.validators import needs

# Without a GPU WebGL is computed; no connection of the browser's own is wanted.
CHROMIUM = (
    "--no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def ohif_files() -> Path:
    if not (FOLDER / VERSION / "index.html").is_file():
        pytest.skip(f"needs OHIF in {FOLDER} (run `make test-hospital`)")
    return FOLDER / VERSION


@pytest.fixture(scope="session")
def pacs(tmp_path_factory) -> Iterator[Orthanc]:
    """An empty Orthanc that sends nothing on."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Orthanc(tmp_path_factory.mktemp("orthanc"), OrthancPorts(free_port(), free_port())) as orthanc:
        yield orthanc


@pytest.fixture(scope="session")
def viewer(ohif_files, pacs) -> Iterator[Viewer]:
    with Viewer(ohif_files, pacs.ports.http) as viewer:
        yield viewer


@pytest.fixture(scope="session")
def browser():
    needs("chromium", "chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def phantom_dicoms(tmp_path_factory) -> list[Path]:
    """50 synthetic radiographs, in all transfer syntaxes that VinDr-CXR's phantoms have."""
    from litegpt.datasets_scripts.phantom_cxr import write_release

    folder = tmp_path_factory.mktemp("phantoms") / "release"
    write_release(folder, num_train=1, num_test=50, size=(320, 256), seed=3, num_proc=1)
    return sorted((folder / "test").iterdir())
