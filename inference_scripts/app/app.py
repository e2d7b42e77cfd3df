"""A page where people drop radiographs and see what is found.

    litegpt app --model_name_or_path outputs/demo/checkpoint        # then open http://127.0.0.1:7860

DICOM, PNG and JPEG files, or folders of them, come in; on the page stand the findings as outlines with calibrated
probabilities, the diagnoses, what speaks against the answer and where it is from. Window and zoom are a radiologist's.
Answers can be taken away as JSON, as a picture and, of DICOM files, as DICOM objects. Nothing is kept: a file leaves
the disk when it is read, and memory when the page is closed. No other host is asked.

    ... --base_url http://127.0.0.1:8000/v1     # a vLLM server answers; the radiographs are sent to it
    ... --examples phantoms/test                # files that the page offers
    ... --host 0.0.0.0 --port 8080              # for everybody who reaches this machine: there is no password

Needs Gradio, of the extra `app`: pip install ".[app]" in a clone, or pip install "gradio<7".
"""

import importlib.util
import os
import signal
import sys
import tempfile
from pathlib import Path

from litegpt.common.arguments import parse
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.inference_scripts.arguments import AppArguments

# Gradio and the Hub's client report that they are used unless they are told not to, before they are imported.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_TELEMETRY": "1"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_EXAMPLES = 12


@program
def main(args: AppArguments) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise Refusal('The page needs Gradio: pip install "gradio<7"')
    os.environ.update(QUIET)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Ctrl-C, so that the uploads' folder goes
    with tempfile.TemporaryDirectory(prefix="litegpt_app_") as uploads:  # for this user alone, and gone at the end
        os.environ["GRADIO_TEMP_DIR"] = uploads
        return serve(args, Path(uploads))


def serve(args: AppArguments, uploads: Path) -> int:
    """Loads the checkpoint, opens the page, and stays until it is interrupted."""
    from litegpt.inference_scripts.answerers import AnswerSettings, LocalAnswerer, ServerAnswerer
    from litegpt.inference_scripts.app.desk import Desk
    from litegpt.inference_scripts.listing import files_below

    settings = AnswerSettings(args.model_name_or_path)
    examples = files_below([Path(args.examples)]).files[:MOST_EXAMPLES] if args.examples else []
    with refuse_bad_input():
        answerer = ServerAnswerer(settings, args.base_url) if args.base_url else LocalAnswerer(settings)
        answerer.source.warn()
        desk = Desk(answerer, uploads, examples)
        desk.warm_up()

        from litegpt.inference_scripts.app.page import LAUNCH, page

        blocks = page(desk)
        place = {"server_name": args.host, "server_port": args.port}
        _, url, _ = blocks.launch(**LAUNCH, **place, prevent_thread_lock=True)
    if args.host not in LOOPBACK:
        print(
            f"Everybody who reaches {args.host}:{args.port} can use the page: there is no password.", file=sys.stderr
        )
    print(f"LiteGPT: {url} (Ctrl-C ends it)", flush=True)
    blocks.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main(*parse([AppArguments], None, "app.py", __doc__)))
