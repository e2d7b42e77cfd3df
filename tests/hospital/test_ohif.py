"""OHIF in headless Chromium: it lists a study, shows the radiograph, and draws the report's boxes where they are.

Screenshots stay in `outputs/test_hospital`, to be looked at.
"""

import io
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from litegpt.common.overlay import overlay
from litegpt.dicom_output.result_objects import result_objects
from litegpt.dicom_output.source_header import source_header
from litegpt.processing.radiograph import load_radiograph
from tests.hospital.answers import made_up_answer

SCREENSHOTS = Path(__file__).resolve().parents[2] / "outputs" / "test_hospital"
SIZE = {"width": 1200, "height": 800}
PATIENCE = 60_000  # ms: other programs may keep this machine busy
SHOWN = "() => [...document.querySelectorAll('canvas.cornerstone-canvas')].some(canvas => canvas.width > 300)"
DRAWN = "count => document.querySelectorAll('svg.svg-layer polyline').length === count"
WRITTEN = "text => document.body.innerText.replace(/\\s/g, '').includes(text.replace(/\\s/g, ''))"
VIEWPORT = "canvas.cornerstone-canvas"
# 4 pixels of a dashed line are drawn, 4 are not.
LEAST_DRAWN, MOST_DRAWN_BESIDE = 0.4, 0.2


@pytest.fixture
def page(browser):
    """A page that fails the test where a script of it fails, or asks another host for anything."""
    context = browser.new_context(viewport=SIZE)
    # Else a tour through the viewer covers everything.
    context.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors, hosts = [], set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.update(re.findall(r"^(?:https?|wss?)://([^/:]+)", request.url)))
    yield page
    context.close()
    assert errors == []
    assert hosts == {"127.0.0.1"}


def stored(pacs, path: Path, kinds=("SR", "PR"), **answer) -> tuple[pydicom.Dataset, dict]:
    """The tags and the answer of a radiograph that is in the PACS now, with the results of that answer."""
    data = path.read_bytes()
    source = source_header(data, path.name)
    line = made_up_answer(source, **answer)
    pacs.store(data)
    picture = overlay(load_radiograph(path), line, None) if "SC" in kinds else None
    for made in result_objects(source, line, kinds, picture).values():
        buffer = io.BytesIO()
        made.save_as(buffer, enforce_file_format=True)
        pacs.store(buffer.getvalue())
    return source, line


def screenshot(page, name: str) -> np.ndarray:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return np.asarray(Image.open(io.BytesIO(page.screenshot(path=SCREENSHOTS / f"{name}.png"))).convert("RGB")) * 1.0


def open_study(page, viewer, study: str) -> None:
    page.goto(viewer.study_url(study))
    page.wait_for_function(SHOWN)
    wait_for_grey(page)


def open_series(page, name: str, shown: str, argument: int | str) -> None:
    """Opens a series by a double click, as people do, until a JavaScript function says that it is shown."""
    page.get_by_text(name).first.dblclick()
    page.wait_for_function(shown, arg=argument)


def open_report(page, boxes: int) -> None:
    open_series(page, "LiteGPT findings", DRAWN, boxes)
    wait_for_grey(page)


def wait_for_grey(page) -> None:
    """Waits until the viewport shows a picture; one that stays black fails."""
    for _ in range(PATIENCE // 500):
        if viewport_greys(page).std() > 10:
            return
        page.wait_for_timeout(500)
    pytest.fail("the viewport is black")


def viewport_greys(page) -> np.ndarray:
    clip = page.locator(VIEWPORT).first.bounding_box()
    shot = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("L")
    height, width = shot.height, shot.width
    return np.asarray(shot)[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]


def on_screen(box: dict, source: pydicom.Dataset, viewport: dict) -> tuple[float, float, float, float]:
    """Where a box of the radiograph is on the page: the picture fills the viewport's height or width, centred."""
    scale = min(viewport["width"] / source.Columns, viewport["height"] / source.Rows)
    left = viewport["x"] + (viewport["width"] - scale * source.Columns) / 2
    top = viewport["y"] + (viewport["height"] - scale * source.Rows) / 2
    return (
        left + scale * box["xmin"],
        top + scale * box["ymin"],
        left + scale * box["xmax"],
        top + scale * box["ymax"],
    )


def drawn_edges(coloured: np.ndarray, box: tuple[float, float, float, float], beside: int = 0) -> list[float]:
    """The share of each edge of a rectangle, moved outwards by some pixels, that is coloured within a pixel of it."""
    left, top, right, bottom = (round(value) for value in np.add(box, (-beside, -beside, beside, beside)))
    edges = (
        coloured[top - 1 : top + 2, left:right].any(0),
        coloured[bottom - 1 : bottom + 2, left:right].any(0),
        coloured[top:bottom, left - 1 : left + 2].any(1),
        coloured[top:bottom, right - 1 : right + 2].any(1),
    )
    return [float(edge.mean()) for edge in edges]


def test_the_study_list_names_the_studies(page, viewer, pacs, phantom_dicoms):
    stored(pacs, phantom_dicoms[0])
    page.goto(viewer.url)
    page.get_by_text("PHANTOM").first.wait_for()
    assert re.search(r"DX\\PR\\SR|DX\\SR\\PR", page.inner_text("body"))
    screenshot(page, "study_list")


@pytest.mark.parametrize(
    ("findings", "diagnoses", "slower"), [(2, (), 1), (3, ("Pneumonia", "COPD"), 1), (1, ("COPD",), 4)]
)
def test_the_boxes_of_a_report_are_drawn_where_they_are(
    page, viewer, pacs, phantom_dicoms, findings, diagnoses, slower
):
    # On a slow machine OHIF draws them late, or, without the end of our app-config.js, often not at all.
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    source, line = stored(pacs, phantom_dicoms[findings], findings=findings, diagnoses=diagnoses)
    open_study(page, viewer, source.StudyInstanceUID)
    before = screenshot(page, f"radiograph_{findings}")
    open_report(page, findings)
    after = screenshot(page, f"report_{findings}")
    viewport = page.locator(VIEWPORT).first.bounding_box()
    coloured = (np.ptp(after, 2) > 80) & (np.abs(after - before).max(2) > 40)
    for finding in line["findings"]:
        box = on_screen(finding["box"], source, viewport)
        assert min(drawn_edges(coloured, box)) > LEAST_DRAWN, finding
        # On one side of an edge there may be another one's text.
        beside = np.minimum(drawn_edges(coloured, box, beside=6), drawn_edges(coloured, box, beside=-6))
        assert beside.max() < MOST_DRAWN_BESIDE, finding
        assert page.get_by_text(f"{100 * finding['score']:.2f} %").count() > 0


@pytest.mark.parametrize("diagnoses", [(), ("Tuberculosis",)], ids=["nothing", "diagnosis_only"])
def test_a_report_without_boxes_opens_as_text(page, viewer, pacs, phantom_dicoms, diagnoses):
    source, _ = stored(pacs, phantom_dicoms[4 + len(diagnoses)], findings=0, diagnoses=diagnoses)
    open_study(page, viewer, source.StudyInstanceUID)
    open_series(page, "LiteGPT findings", WRITTEN, "No finding is reported.")
    text = page.inner_text("body")
    assert text.count("Present") == len(diagnoses)
    assert all(f"{label}: probability 0.71" in text for label in diagnoses)
    screenshot(page, f"report_0_{len(diagnoses)}")
    open_series(page, "S:1", SHOWN, "")  # and the radiograph is there as before
    wait_for_grey(page)


def test_a_real_radiograph_and_its_secondary_capture_are_shown(page, viewer, pacs, real_cxr):
    path = real_cxr / "real_cxr" / "dicom_derived" / "rg1s_explicit_le.dcm"
    source, line = stored(pacs, path, kinds=("SR", "PR", "SC"), findings=2, diagnoses=("Pneumonia",))
    open_study(page, viewer, source.StudyInstanceUID)
    before = screenshot(page, "real_radiograph")
    open_report(page, 2)
    after = screenshot(page, "real_report")
    viewport = page.locator(VIEWPORT).first.bounding_box()
    coloured = (np.ptp(after, 2) > 80) & (np.abs(after - before).max(2) > 40)
    for finding in line["findings"]:
        assert min(drawn_edges(coloured, on_screen(finding["box"], source, viewport))) > LEAST_DRAWN, finding
    open_series(page, "LiteGPT overlay", WRITTEN, "W:256")  # the window of a picture in colour
    page.wait_for_timeout(2000)
    wait_for_grey(page)
    screenshot(page, "real_secondary_capture")
