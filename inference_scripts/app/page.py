"""The Gradio page: one component, `page.html`, drawn by `viewer.js` and `page.js`, and what they call.

    blocks = page(desk)
    blocks.launch(**LAUNCH, server_port=7860)

The model is asked through Gradio's queue, one question at a time ("ask"); files are read and sent beside it. Programs
use the endpoint /findings: `Client("http://127.0.0.1:7860").predict(handle_file("a.dicom"), api_name="/findings")`.
Gradio is imported when a page is made: it takes seconds that no other command should wait for.
"""

import traceback
from pathlib import Path
from typing import Any

import gradio as gr

from litegpt.inference_scripts.app.desk import Desk
from litegpt.processing.dicom import MAX_BYTES

HERE = Path(__file__).resolve().parent
SCRIPTS = ("viewer.js", "page.js")
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # the default's come from Google
MONOSPACED = ("ui-monospace", "Menlo", "Consolas", "monospace")
SWEPT_EVERY = 60  # seconds

# No share link, no telemetry, no history of runs in the browser, no links away.
LAUNCH: dict[str, Any] = {
    "share": False,
    "quiet": True,
    "run_history": False,
    "footer_links": [],
    "ssr_mode": False,
    "pwa": False,
    "mcp_server": False,
    "enable_monitoring": False,
    "max_file_size": MAX_BYTES,
    "theme": gr.themes.Base(primary_hue="sky", neutral_hue="slate", font=SYSTEM_FONTS, font_mono=MONOSPACED),
    "css_paths": HERE / "page.css",
}


def page(desk: Desk) -> gr.Blocks:
    """The page of a desk; what a closed page has opened is forgotten."""
    asked = {"answer": desk.answer, "words": desk.words, "explain": desk.explain, "question": desk.question}

    def ask(event: gr.EventData) -> dict[str, Any]:
        message = event.message
        try:
            reply = asked[message["kind"]](message)
        except Exception:  # the page waits for a reply with this number, whatever happens
            traceback.print_exc()
            reply = {"error": "The server failed at this; its log says why."}
        return {"id": message["id"], **reply}

    def begin(request: gr.Request) -> dict[str, Any]:
        return {"id": 0, "session": request.session_hash}

    def close(request: gr.Request) -> None:
        desk.shelf.forget(request.session_hash)

    def findings(file: str) -> dict[str, Any]:
        """Findings, boxes in pixels, and diagnoses of one radiograph, as a line of predictions.jsonl."""
        name = Path(file).name
        data = desk.taken(file)
        if data is None:
            raise gr.Error(f"Cannot use {name}: it did not arrive.")
        try:
            return desk.line(desk.read(name, data).received)
        except (ValueError, ConnectionError) as error:
            raise gr.Error(str(error)) from None

    def receive(message: dict[str, Any]) -> dict[str, Any]:
        return desk.receive(message)

    def pixels(message: dict[str, Any]) -> dict[str, Any]:
        return desk.pixels(message)

    def download(message: dict[str, Any]) -> dict[str, Any]:
        return desk.download(message)

    def forget(message: dict[str, Any]) -> None:
        desk.shelf.forget(message["session"])

    with gr.Blocks(
        title="LiteGPT: findings in chest radiographs",
        analytics_enabled=False,
        delete_cache=(SWEPT_EVERY, round(desk.shelf.seconds)),
        fill_width=True,
    ) as blocks:
        viewer = gr.HTML(
            value=desk.about(),
            html_template=(HERE / "page.html").read_text(encoding="utf-8"),
            js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
            server_functions=[receive, pixels, download, forget],
            apply_default_css=False,
            elem_id="litegpt",
        )
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}
        quietly = {"show_progress": "hidden", "api_visibility": "private"}
        viewer.ask(ask, None, viewer, trigger_mode="multiple", **one_at_a_time, **quietly)
        blocks.load(begin, None, viewer, **quietly)
        blocks.unload(close)
        gr.Timer(SWEPT_EVERY).tick(desk.shelf.clear_old, **quietly)
        # Of a hidden button, because an endpoint for a file needs components.
        file, line = gr.File(type="filepath", visible=False), gr.JSON(visible=False)
        gr.Button(visible=False).click(findings, file, line, api_name="findings", **one_at_a_time)
    return blocks
