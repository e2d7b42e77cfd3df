"""What the page asks, and what it gets: radiographs read, answered, explained, asked about, and their files.

    desk = Desk(LocalAnswerer(AnswerSettings("outputs/demo/checkpoint")), uploads=Path("/tmp/private"))
    desk.receive({"session": "s", "path": "/tmp/private/1/a.dicom", "name": "a.dicom"})    # {"token": ..., ...}
    desk.answer({"token": token})          # {"shown": ...}, as `results.py` makes it
    desk.words({"token": token, "task": "refer", "about": "enlarged heart"})   # {"rows": ..., "question": ...}
    desk.pixels({"token": token, "deep": True})

Everything is a dictionary, as JSON has it. What a person can mend comes back as {"error": sentence}, with
{"gone": True} where the radiograph is no longer in memory: the page then sends its file again. No Gradio in here.
"""

import base64
import functools
import hashlib
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from litegpt.common.overlay import DISCLAIMER, is_drawn
from litegpt.inference_scripts.answerers import Answerer, LocalAnswerer, ServerAnswerer
from litegpt.inference_scripts.app import downloads
from litegpt.inference_scripts.app.heat import finding_map
from litegpt.inference_scripts.app.results import ANSWERED, is_calibrated, shown_answer, shown_words
from litegpt.inference_scripts.app.shelf import Radiograph, Shelf
from litegpt.inference_scripts.app.values import pixels_message, values_behind
from litegpt.inference_scripts.ask_server import data_url, fetch_json
from litegpt.inference_scripts.dicom_identity import other_kind
from litegpt.inference_scripts.inbox import Received, receive
from litegpt.processing.chat_pipeline_litegpt import RadiographTextPipeline
from litegpt.processing.dicom import MAX_BYTES, RadiographError, unusable
from litegpt.processing.radiograph import in_standard_view
from litegpt.processing.tasks import TASKS, WORD_TASKS, join_question

GONE = "It is no longer in this server's memory: drop the file again."
NEW_TOKENS = 256  # of the answer to a question of one's own
MOST_VIEWS = 8
IN_WORDS = ("refer", "question", "report", "grounded_report")  # tasks that the page offers

Message = dict[str, Any]


def _in_a_sentence(function: Callable[..., Message]) -> Callable[..., Message]:
    """What a person can mend, as {"error": sentence}."""

    @functools.wraps(function)
    def answering(self: "Desk", asked: Message) -> Message:
        try:
            return function(self, asked)
        except KeyError as error:
            if error.args != (asked.get("token"),):
                raise
            return {"error": GONE, "gone": True}
        except (ValueError, ConnectionError) as error:
            return {"error": str(error).strip().splitlines()[0]}

    return answering


class Desk:
    """One checkpoint, and the radiographs that people have open.

    Args:
        answerer: the checkpoint here or at a server, without a threshold: the page has its own.
        uploads: the folder that files come into; no other is read, and a file goes when it is read.
        examples: files that are offered; they stay where they are.
        shelf: what is kept in memory.
    """

    def __init__(self, answerer: Answerer, uploads: Path, examples: Sequence[Path] = (), shelf: Shelf | None = None):
        self.answerer, self.processor = answerer, answerer.processor
        self.uploads, self.examples = uploads.resolve(), list(examples)
        self.shelf = shelf or Shelf()
        # A line's own is how the server was started: a path of its machine.
        self.facts = {**answerer.facts, "model": answerer.source.checkpoint}

    def about(self) -> Message:
        """What the page says before any radiograph."""
        local = isinstance(self.answerer, LocalAnswerer)
        return {
            **self.answerer.source.line(),
            "disclaimer": DISCLAIMER,
            "calibrated": is_calibrated(self.processor),
            "has_operating_points": bool(self.processor.score_thresholds),
            "local": local,
            "server": None if local else self.answerer.clients[0].base_url,
            "most_views": MOST_VIEWS if local else 0,
            "tasks": [{"name": name, "words": words} for name, words in own_questions(self.processor).items()],
            "words": [task for task in IN_WORDS if self.answerer.was_asked(task)],
            "examples": [path.name for path in self.examples],
            "minutes": round(self.shelf.seconds / 60),
        }

    def warm_up(self) -> None:
        """One answer about nothing, so that the first person need not wait for what is worked out once."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.answerer.outputs([Image.new("L", (64, 64))])

    # --- Reading -----------------------------------------------------------------------------------------------------

    @_in_a_sentence
    def receive(self, asked: Message) -> Message:
        """Reads a file that was sent, or an example: {"token", "width", "height", "warnings", "is_dicom"}."""
        name = str(asked["name"])
        if "example" in asked:
            path = self.examples[int(asked["example"])]
            name, data = path.name, path.read_bytes()
        else:
            data = self.taken(str(asked["path"]))
            if data is None:
                return {"error": f"Cannot use {name}: it did not arrive.", "gone": True}
        radiograph = self.read(name, data)
        token = self.shelf.put(str(asked["session"]), radiograph)
        received = radiograph.received
        return {
            "token": token,
            "name": name,
            "width": received.picture.width,
            "height": received.picture.height,
            "warnings": list(received.picture.info.get("warnings", ())),
            "is_dicom": downloads.is_dicom(radiograph),
        }

    def read(self, name: str, data: bytes) -> Radiograph:
        """A radiograph of a file's bytes.

        Raises:
            RadiographError: it cannot be used, or is none.
        """
        if is_drawn(data):
            raise unusable(name, "it is a picture with answers drawn on it, no radiograph")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are in the picture's info, and go with the answer
                received = receive(Path(name), data, hashlib.sha256(data).hexdigest(), self.processor.windowing)
        except RadiographError:
            kind = other_kind(data, name)
            if kind is None:
                raise
            raise unusable(name, f"it is no radiograph ({kind})") from None
        return Radiograph(data, received)

    def taken(self, path: str) -> bytes | None:
        """The bytes of a file that was sent, which leaves the disk; None where it is not there.

        Raises:
            ValueError: it lies elsewhere, or is too large.
        """
        file = Path(path).resolve()
        if not file.is_relative_to(self.uploads):
            raise ValueError("Only files that were sent are read.")
        try:
            if file.stat().st_size > MAX_BYTES:
                raise ValueError(f"Cannot use {file.name}: it is larger than {MAX_BYTES >> 30} GiB.")
            return file.read_bytes()
        except OSError:
            return None
        finally:
            file.unlink(missing_ok=True)

    @_in_a_sentence
    def pixels(self, asked: Message) -> Message:
        """The picture as the model saw it; with "deep" the values behind it, {"none": True} where there are none."""
        radiograph = self.shelf.get(asked["token"])
        picture = radiograph.received.picture
        if not asked.get("deep"):
            return pixels_message(np.asarray(picture))
        values = values_behind(radiograph.data, picture)
        if values is None:
            return {"none": True}
        table = base64.b64encode(values.table.tobytes()).decode()
        return pixels_message(values.pixels, table=table, slope=values.slope, intercept=values.intercept)

    # --- Asking the model --------------------------------------------------------------------------------------------

    @_in_a_sentence
    def answer(self, asked: Message) -> Message:
        """Findings and diagnoses: {"shown": ..., "seconds": ...}."""
        radiograph = self.shelf.get(asked["token"])
        start = time.monotonic()
        radiograph.line = self.line(
            radiograph.received, bool(asked.get("candidates")), min(int(asked.get("views") or 0), MOST_VIEWS)
        )
        radiograph.words = {}
        shown = shown_answer(radiograph.line, self.processor)
        return {"shown": shown, "seconds": round(time.monotonic() - start, 2)}

    def line(self, received: Received, candidates: bool = False, views: int = 0) -> dict[str, Any]:
        """The answer to a radiograph as a line of the predictions file, without a path of this machine."""
        beside = {"with_candidates": candidates, "views": views}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(self.answerer, LocalAnswerer):
                (output,) = self.answerer.pipe([received.picture], candidates=candidates, views=views, batch_size=1)
            elif candidates or views:
                raise ValueError("To find more, the checkpoint must be in this process, not at a server.")
            else:
                (output,) = self.answerer.outputs([received.picture])
        return {**received.facts, **self.facts, **beside, **output}

    @_in_a_sentence
    def words(self, asked: Message) -> Message:
        """The answer to one of `IN_WORDS`, as `shown_words` has it."""
        radiograph = self.shelf.get(asked["token"])
        task, about = str(asked["task"]), str(asked.get("about") or "").strip()
        if task not in IN_WORDS or not self.answerer.was_asked(task):
            raise ValueError(f"The checkpoint was not trained to answer [{task}].")
        needed = TASKS[task].about
        if needed and not about:
            raise ValueError(f"The {needed} is empty.")
        question = join_question(task, about if needed else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are in the picture's info, and go with the answer
            (output,) = self.answerer.outputs([radiograph.received.picture], tasks=[question])
        radiograph.words[question] = output
        return shown_words(question, output)

    @_in_a_sentence
    def explain(self, asked: Message) -> Message:
        """The map of a finding, see `heat.py`."""
        radiograph = self.shelf.get(asked["token"])
        if not isinstance(self.answerer, LocalAnswerer):
            raise ValueError("Maps need the checkpoint in this process, not at a server.")
        if radiograph.line is None:
            raise ValueError("There is no answer yet.")
        return finding_map(self.answerer, radiograph, asked)

    @_in_a_sentence
    def question(self, asked: Message) -> Message:
        """The model's own words to a question of one's own: {"text": ..., "note": what speaks against it or None}."""
        radiograph = self.shelf.get(asked["token"])
        text = str(asked["text"]).strip()
        if not text:
            raise ValueError("The question is empty.")
        return {"text": self._words(radiograph.received.picture, text), "note": question_note(text, self.processor)}

    def _words(self, picture: Image.Image, text: str) -> str:
        if isinstance(self.answerer, ServerAnswerer):
            client = self.answerer.clients[0]
            image = {"type": "image_url", "image_url": {"url": data_url(in_standard_view(picture))}}
            content = [image, {"type": "text", "text": text}]
            request = {"model": client.model, "messages": [{"role": "user", "content": content}]}
            request |= {"max_tokens": NEW_TOKENS, "temperature": 0}
            completion = fetch_json(f"{client.base_url}/chat/completions", request)
            return completion["choices"][0]["message"]["content"].strip()
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
        ((answer,),) = [self._chat(images=picture, text=prompt, return_full_text=False, generate_kwargs=options)]
        return answer["generated_text"].strip()

    @functools.cached_property
    def _chat(self) -> RadiographTextPipeline:
        pipe = self.answerer.pipe
        return RadiographTextPipeline(model=pipe.model, processor=self.processor, device=pipe.device)

    # --- Files -------------------------------------------------------------------------------------------------------

    @_in_a_sentence
    def download(self, asked: Message) -> Message:
        """One of `downloads.KINDS`: {"name", "type", "data"} in base64."""
        radiograph = self.shelf.get(asked["token"])
        if radiograph.line is None:
            raise ValueError("There is no answer yet.")
        made = downloads.made(asked["kind"], radiograph, self.processor, asked.get("source", ANSWERED))
        return {"name": made.name, "type": made.type, "data": base64.b64encode(made.data).decode()}


def own_questions(processor: Any) -> dict[str, str]:
    """The checkpoint's tasks that are about the radiograph alone, by name, with their words."""
    return {
        name: words
        for name, words in processor.instructions.items()
        if name not in TASKS or (TASKS[name].about is None and name not in WORD_TASKS)
    }


def question_note(text: str, processor: Any) -> str | None:
    """What speaks against the answer to a question; None of a task's own, as the checkpoint was trained with."""
    known = ", ".join(f"[{task}]" for task in processor.instructions)
    for task, words in own_questions(processor).items():
        if text == f"[{task}] {words}":
            return None
    if text.startswith("[") and text[1:].partition("]")[0] not in processor.instructions:
        return f"The checkpoint does not know {text.partition(']')[0]}], only {known}: its answer means nothing."
    return (
        f"The checkpoint was trained on its own questions alone ({known}): it answers others badly, or as if one of "
        "these had been asked."
    )
