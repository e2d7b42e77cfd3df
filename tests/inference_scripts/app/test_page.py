"""The page in a real Chromium, against a server of its own: what people see, press and take away."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from litegpt.common.overlay import is_drawn
from litegpt.inference_scripts.hospital.children import free_port

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).resolve().parents[3]
pytest.importorskip("gradio", reason='needs Gradio, of the extra app: pip install ".[app]"')
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives Chromium")
if not Path(CHROMIUM).is_file():
    pytest.skip(f"needs Chromium ({CHROMIUM})", allow_module_level=True)


@pytest.fixture(scope="module")
def server(answered_checkpoint, phantoms, tmp_path_factory):
    """The page's address, and the folder in which it makes its private ones."""
    temporary, port = tmp_path_factory.mktemp("server"), free_port()
    words = ["--model_name_or_path", str(answered_checkpoint[0]), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "litegpt.command", "app", *words, "--examples", str(phantoms[0].parent)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if "Ctrl-C ends it" in line:
            break
    else:
        pytest.fail("".join(said))
    yield f"http://127.0.0.1:{port}/", temporary
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert list(temporary.glob("litegpt_app_*")) == []  # the uploads' folder goes with the program


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, server):
    """Opens the page as a test wants it; whatever it asks another host for, or a script fails at, ends the test."""
    contexts, strangers, errors = [], [], []

    def open_page(**options):
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20000)
        own = (server[0], "data:", "blob:")
        context.on("request", lambda request: None if request.url.startswith(own) else strangers.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server[0])
        page.wait_for_selector("[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert strangers == [] and errors == []


@pytest.fixture
def page(opened, answered_checkpoint):
    """The page with an answer."""
    page = opened()
    drop(page, answered_checkpoint[1])
    return page


def drop(page, *paths) -> None:
    page.set_input_files("[data-id=files]", [str(path) for path in paths])
    count = len(paths)
    page.wait_for_function(
        "(words) => document.querySelector('[data-id=progress]').textContent === words",
        arg="1 file" if count == 1 else f"{count} files",
    )


def outlines(page) -> list[str]:
    return page.locator(".lg-outline").evaluate_all("all => all.map(one => one.dataset.number)")


def row_count(page) -> int:
    return page.locator("[data-id=findings] li").count()


def slide(page, value: float) -> None:
    page.locator("[data-id=threshold]").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})) }", value
    )


def state_words(page) -> str:
    return page.locator("[data-id=window-state]").inner_text()


def test_a_result_is_there_soon_after_a_radiograph_is_dropped(opened, answered_checkpoint):
    page = opened()
    start = time.monotonic()
    drop(page, answered_checkpoint[1])
    assert time.monotonic() - start < 10  # on a quiet machine 1 second
    assert row_count(page) and page.locator("[data-id=diagnoses] li").count() == 6
    assert "127.0.0.1" not in page.locator("[data-id=from]").inner_text()


def test_what_speaks_against_an_answer_is_in_sight_before_and_after_it(page):
    for name, words in (("disclaimer", "not for diagnosis"), ("caution", "not trained"), ("from", "checkpoint")):
        assert page.locator(f"[data-id={name}]").is_visible()
        assert words in page.locator(f"[data-id={name}]").inner_text()
    page.mouse.wheel(0, 3000)
    assert page.locator("[data-id=disclaimer]").bounding_box()["y"] >= 0


def test_the_slider_moves_the_outlines_at_once_and_the_operating_points_are_where_it_starts(page):
    at_points = outlines(page)
    assert page.locator("[data-id=points]").is_checked() and 0 < len(at_points) < row_count(page)
    assert page.locator("[data-id=marks] span").count() > 0
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    slide(page, 0)
    assert not page.locator("[data-id=points]").is_checked() and len(outlines(page)) == row_count(page)
    slide(page, 1)
    assert outlines(page) == []
    page.locator("[data-id=points]").check()
    assert outlines(page) == at_points and requests == []


def test_outlines_are_not_filled_and_lie_on_their_boxes(page, answered_checkpoint):
    slide(page, 0)
    assert set(page.locator(".lg-outline rect").evaluate_all("all => all.map(one => one.getAttribute('fill'))")) == {
        "none"
    }
    stage = page.locator("[data-id=stage]").bounding_box()
    scale = min(stage["width"], stage["height"]) / 128
    (x, width) = page.locator(".lg-outline rect").first.evaluate(
        "one => [Number(one.getAttribute('x')), Number(one.getAttribute('width'))]"
    )
    left = (x - (stage["width"] - 128 * scale) / 2) / scale
    with page.expect_download() as got:
        page.locator("[data-download=json]").click()
    boxes = [finding["box"] for finding in json.loads(Path(got.value.path()).read_text())["findings"]]
    assert any(abs(box["xmin"] - left) < 0.1 and abs(box["xmax"] - left - width / scale) < 0.1 for box in boxes)


def test_downloads_open(page):
    with page.expect_download() as got:
        page.locator("[data-download=overlay]").click()
    assert got.value.suggested_filename.endswith("_overlay.png")
    assert Image.open(got.value.path()).width >= 512 and is_drawn(Path(got.value.path()).read_bytes())
    with page.expect_download() as got:
        page.locator("[data-download=json]").click()
    line = json.loads(Path(got.value.path()).read_text())
    assert line["findings"] and line["not_for_diagnosis"] is True


def test_a_bad_file_gives_its_sentence_and_the_page_lives_on(page, tmp_path, phantoms):
    (tmp_path / "bad.dcm").write_bytes(b"no radiograph")
    page.set_input_files("[data-id=files]", str(tmp_path / "bad.dcm"))
    error = page.locator("[data-id=error]")
    error.wait_for()
    assert error.inner_text() == ("Cannot use bad.dcm: it is neither a DICOM file nor a picture (PNG, JPEG, ...).")
    assert not page.locator("[data-id=answer-box]").is_visible()
    page.locator("[data-id=list] button").first.click()
    assert page.locator("[data-id=answer-box]").is_visible() and not error.is_visible()


def test_several_files_have_a_line_each_and_the_chosen_one_is_shown(opened, phantoms, tmp_path):
    page = opened()
    (tmp_path / "bad.png").write_bytes(b"")
    drop(page, *phantoms[:3], tmp_path / "bad.png")
    words = page.locator("[data-id=list] .lg-summary").all_inner_texts()
    assert sorted(word.split()[0] for word in words)[-1] == "not" and len(words) == 4
    first = page.locator("[data-id=words]").inner_text()
    page.locator("[data-id=list] button").nth(2).click()
    assert page.locator("[data-id=list] button").nth(2).get_attribute("aria-current") == "true"
    page.wait_for_function("document.querySelector('[data-id=depth]').textContent.startsWith('Full')")
    assert first is not None
    page.locator("[data-id=close]").click()
    assert page.locator("[data-id=empty]").is_visible()


def test_the_window_is_the_files_own_depth_and_moves_by_mouse_and_by_key(page):
    page.wait_for_function("document.querySelector('[data-id=depth]').textContent.startsWith('Full')")
    first = state_words(page)
    assert "as the model saw it" in first
    stage = page.locator("[data-id=stage]").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x + 100, y + 60)
    page.mouse.up(button="right")
    page.wait_for_timeout(100)
    dragged = state_words(page)
    assert dragged != first and "as the model saw it" not in dragged
    page.locator("[data-id=stage]").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_timeout(100)
    assert state_words(page) != dragged
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert state_words(page) == first


def test_zoom_and_pan_work_by_wheel_and_by_key_and_a_double_click_resets(page):
    def zoom() -> int:
        return int(state_words(page).partition("zoom ")[2].split()[0])

    stage = page.locator("[data-id=stage]")
    fitted, box = zoom(), stage.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(100)
    assert zoom() > fitted
    stage.dblclick()
    assert zoom() == fitted
    stage.focus()
    page.keyboard.press("+")
    assert zoom() > fitted
    before = page.locator("[data-id=canvas]").evaluate("one => one.style.transform")
    page.keyboard.press("ArrowLeft")
    assert page.locator("[data-id=canvas]").evaluate("one => one.style.transform") != before
    page.keyboard.press("i")
    assert page.locator("[data-do=invert]").get_attribute("aria-pressed") == "true"


def test_a_finding_has_its_heat_map(page):
    page.locator(".lg-map").first.click()
    page.locator("[data-id=heat-bar]").wait_for()
    assert page.locator("[data-id=heat]").is_visible()
    assert "no segmentation" in page.locator("[data-id=heat-words]").inner_text()
    page.locator("[data-id=heat-off]").click()
    assert not page.locator("[data-id=heat]").is_visible()


def test_a_question_is_answered_with_a_note(page):
    page.locator("[data-id=question-box] summary").click()
    page.locator("[data-id=question]").fill("Is the heart large?")
    page.locator("[data-id=ask]").click()
    page.wait_for_function("document.querySelector('[data-id=question-note]').textContent.includes('trained')")


def test_everything_can_be_reached_by_keyboard_and_shows_where_it_is(page):
    reached = set()
    page.locator("[data-id=choose]").focus()
    for _ in range(60):
        name = "one => one.dataset.id || one.dataset.do || one.dataset.download || one.className"
        reached.add(page.locator(":focus").evaluate(name) if page.locator(":focus").count() else "")
        page.keyboard.press("Tab")
    assert {"choose", "choose-folder", "in", "fit", "width", "level", "stage", "points", "threshold"} <= reached
    assert {"json", "overlay", "lg-row", "lg-map"} <= reached
    page.locator("[data-id=points]").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.locator(":focus").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


def test_bars_say_their_value_to_a_screen_reader(page):
    meters = page.get_by_role("meter")
    assert meters.count() == row_count(page) + 6
    assert "operating point" in meters.first.get_attribute("aria-valuetext")


def test_a_phone_has_no_scroll_across_and_the_viewer_before_the_findings(opened, answered_checkpoint):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    drop(page, answered_checkpoint[1])
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    stage = page.locator("[data-id=stage]").bounding_box()
    assert stage["x"] >= 0 and stage["x"] + stage["width"] <= 390
    assert stage["y"] < page.locator("[data-id=findings]").bounding_box()["y"]


def test_an_example_is_offered_and_stays_where_it_is(opened, phantoms):
    page = opened()
    page.locator("[data-id=examples] button").first.click()
    page.wait_for_function("document.querySelector('[data-id=progress]').textContent === '1 file'")
    assert phantoms[0].exists() and not page.locator("[data-id=error]").is_visible()


def test_no_file_stays_on_the_disk(page, server):
    (private,) = server[1].glob("litegpt_app_*")
    assert private.stat().st_mode & 0o777 == 0o700
    assert [path for path in private.rglob("*") if path.is_file()] == []


def test_programs_get_the_line_of_the_predictions(server, answered_checkpoint):
    from gradio_client import Client, handle_file

    client = Client(server[0], verbose=False, analytics_enabled=False)
    line = client.predict(handle_file(str(answered_checkpoint[1])), api_name="/findings")
    assert line["file"] == answered_checkpoint[1].name and line["findings"] and line["model"] == line["checkpoint"]


def test_without_gradio_the_program_says_how_to_get_it(monkeypatch):
    from litegpt.inference_scripts.app import app
    from litegpt.inference_scripts.arguments import AppArguments

    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match='pip install "gradio<7"'):
        app.main(AppArguments("nothing"))


def test_a_phrase_is_drawn_where_it_is_said_to_be_and_a_report_is_called_unverified(page):
    findings = outlines(page)
    assert page.locator("[data-id=unverified]").is_visible()
    page.locator("[data-id=refer] input").fill("enlarged heart")
    page.keyboard.press("Enter")
    said = page.locator("[data-id=said] [data-task=refer]")
    said.wait_for()
    assert "“enlarged heart”" in said.inner_text() and "seen" in said.inner_text()
    row = said.locator("button.lg-row")
    if row.count():  # it has boxes: they stand alone until they are let go
        assert row.get_attribute("aria-pressed") == "true"
        assert "enlarged heart" in page.locator(".lg-name text").first.text_content()
        row.click()
        page.mouse.move(0, 0)
    assert outlines(page) == findings
    page.locator("[data-words=report]").click()
    page.locator("[data-task=report]").wait_for()
    assert page.locator("[data-id=said] > div").first.get_attribute("data-task") == "report"
    with page.expect_download() as got:
        page.locator("[data-download=json]").click()
    line = json.loads(Path(got.value.path()).read_text())
    assert line["phrases"] and "report" in line["answers"]
