"""Findings, boxes and diagnoses of radiographs from a server that has the checkpoint, as JSON lines.

    make serve CHECKPOINT=outputs/demo/checkpoint PORT=8000
    litegpt ask --base_url http://127.0.0.1:8000/v1 \\
        --model_name_or_path outputs/demo/checkpoint --output_dir outputs/predictions \\
        radiograph.dicom more.png folder_of_radiographs

The server is vLLM, or another one that speaks OpenAI's chat completions. The radiographs (DICOM, PNG, JPEG) are read
here, and their pixels alone are sent, as PNG: no tag of a DICOM file leaves this machine. Of the checkpoint, a folder
or a Hub repository, only the processor is read: labels, instructions, window.

Each request has the grammar of the answers, as vLLM takes it (`structured_outputs`), so that no answer is malformed
unless it exceeds `--max_new_tokens`. Other servers may refuse it (`--constrained false` leaves it out) or ignore it:
answers that cannot be parsed are reported as ever. Scores are made of the server's probabilities, which are among what
the grammar allows if vLLM is started with `--logprobs-mode processed_logprobs`, as `make serve` does. A box's score
differs from the pipeline's by some hundredths, as a server tells 20 tokens in a coordinate's place; a diagnosis's is
the probability of its words, not the sum over all answers. `--views 4` asks about moved views of each radiograph, too.
Findings that the answers leave out would need the probabilities of all continuations, which no server tells.

Writes `predictions.jsonl`, a line for each radiograph as `predict.py` writes it. A file that cannot be used is named
with the reason, the others are answered; the status is 1. What is no image is skipped and named at the end. The same
command resumes where an interrupted run stopped, and answers anew what has been replaced since.
"""

import base64
import json
import math
import sys
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.inference_scripts.arguments import AskArguments
from litegpt.inference_scripts.inbox import Inbox, Received
from litegpt.modeling_litegpt.checkpoints import load_processor
from litegpt.modeling_litegpt.provenance import provenance, recorded_config
from litegpt.processing.box_scores import Answer
from litegpt.processing.moved_views import moved_views
from litegpt.processing.pipeline_litegpt import Shown, structured_answers
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.radiograph import in_standard_view
from litegpt.processing.tasks import DEFAULT_TASKS, TASKS

UNFUSED_VIEWS = "its views are not fused: the server gave an answer without probabilities, which they are weighed by"
TIMEOUT = 600  # seconds that a server may take for one answer, waiting in its queue included


@program
def main(args: AskArguments) -> int:
    with refuse_bad_input():
        processor = load_processor(args.model_name_or_path)
        source = provenance(args.model_name_or_path, recorded_config(args.model_name_or_path))
        client = Client(args.base_url, processor, args.max_new_tokens, args.constrained, args.views)
    source.warn()
    settings = {"model": args.model_name_or_path, "constrained": args.constrained, "views": args.views}
    predictions = Path(args.output_dir) / "predictions.jsonl"
    inbox = Inbox(args.radiographs, settings, source.line(), predictions)
    radiographs = inbox.readable(inbox.pending, processor.windowing)
    progress = tqdm(radiographs, total=len(inbox.pending), desc="Radiographs", unit="image")
    with refuse_bad_input(), predictions.open("a", encoding="utf-8") as file:
        for received, output in in_order(client, progress, args.concurrency):
            file.write(json.dumps(inbox.answer(received, output)) + "\n")
            file.flush()
    print(inbox.summary())
    return inbox.status


class Client:
    """Asks a server as the `chest-xray-findings` pipeline asks a model.

    Args:
        base_url: of an API like OpenAI's; the first model that it lists is asked.
        processor: of the checkpoint that the server has.
        max_new_tokens: the longest answer.
        constrained: send the grammar of the answers with each request.
        views: moved views of each radiograph that the server is asked about, too.
        threshold: leave out findings with a smaller score, as the pipeline has it.

    Raises:
        ConnectionError: no such server answers there.
        ValueError: the checkpoint has no operating points, and they are asked for; a longest answer may take more
            than `max_new_tokens`, or there are no labels that a grammar could have.
    """

    def __init__(
        self,
        base_url: str,
        processor: LiteGPTProcessor,
        max_new_tokens: int = 512,
        constrained: bool = True,
        views: int = 0,
        threshold: float | str | None = None,
    ):
        if threshold == "operating_point" and not processor.score_thresholds:
            raise ValueError("This checkpoint has no operating points; evaluation_scripts/calibrate.py chooses them.")
        self.views, self.threshold = moved_views(views), threshold
        self.base_url, self.processor, self.max_new_tokens = base_url.rstrip("/"), processor, max_new_tokens
        self.grammars = {}
        if constrained:
            self.grammars = {task: processor.answer_grammar.ebnf(task, max_new_tokens) for task in DEFAULT_TASKS}
        models = fetch_json(f"{self.base_url}/models")
        try:
            self.model = models["data"][0]["id"]
        except (KeyError, IndexError, TypeError):
            raise ConnectionError(f"{self.base_url}: the server lists no model") from None

    def __call__(self, radiograph: Image.Image) -> dict[str, Any]:
        """What the pipeline returns for one radiograph, as `load_radiograph` gives it: boxes in its pixels.

        It is sent as the model would be shown it: turned, where its file says that it is stored mirrored or rotated.
        `score` is None where the server gives no probabilities with its tokens.

        Raises:
            ConnectionError: the server does not answer, or refuses to.
        """
        shown = in_standard_view(radiograph)
        url = data_url(shown)
        answers = {task: self.ask(url, task) for task in DEFAULT_TASKS}
        with_boxes = [task for task in DEFAULT_TASKS if TASKS[task].kind.has_boxes]
        moved = [{task: self.ask(data_url(view.picture(shown)), task) for task in with_boxes} for view in self.views]
        turn, doubts = radiograph.info.get("turn"), radiograph.info.get("warnings", ())
        of_boxes = [view[task] for view in (answers, *moved) for task in with_boxes]
        if moved and not all(answer.starts for answer in of_boxes):
            moved, doubts = [], [*doubts, UNFUSED_VIEWS]
        shown_as = Shown(radiograph.size, turn, doubts)
        return structured_answers(answers, shown_as, self.processor, self.threshold, moved=moved)

    def ask(self, image_url: str, task: str) -> Answer:
        """The greedy answer; without probabilities where the server gives none, or none that spell the text."""
        content = [
            {"type": "image_url", "image_url": {"url": image_url}},
            {"type": "text", "text": f"[{task}] {self.processor.instructions[task]}"},
        ]
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_new_tokens,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 20,  # the most that servers give: for the coordinates that the model also considered
        }
        url = f"{self.base_url}/chat/completions"
        completion = self._completion(url, request, task)
        try:
            choice = completion["choices"][0]
            text = choice["message"]["content"] or ""
            tokens = (choice.get("logprobs") or {}).get("content") or []
            starts, probabilities = _located(text, [(token["token"], token["logprob"]) for token in tokens])
            considered = {
                number: {other["token"]: math.exp(other["logprob"]) for other in token.get("top_logprobs") or []}
                for number, token in enumerate(tokens[: len(starts)])
                if any(map(str.isdigit, token["token"]))
            }
        except (KeyError, IndexError, TypeError):
            raise ConnectionError(f"{url}: the answer is no chat completion") from None
        # vLLM decodes an answer as what follows the prompt: a space may stand before it.
        answer = text.lstrip()
        starts = [start - len(text) + len(answer) for start in starts]
        return Answer(answer, starts, probabilities, considered=considered)

    def _completion(self, url: str, request: dict[str, Any], task: str) -> Any:
        if task not in self.grammars:
            return fetch_json(url, request)
        try:
            return fetch_json(url, {**request, "structured_outputs": {"grammar": self.grammars[task]}})
        except RefusedError as refusal:
            try:
                fetch_json(url, request)
            except ConnectionError:
                raise refusal from None
            reason = f"{refusal}; it answers without the grammar of the answers: --no-constrained"
            raise ConnectionError(reason) from None


def in_order(
    client: Client, radiographs: Iterable[Received], concurrency: int
) -> Iterator[tuple[Received, dict[str, Any]]]:
    """The radiographs with their outputs, in their order; `concurrency` of them are asked about at a time."""
    waiting: deque[tuple[Received, Future]] = deque()
    with ThreadPoolExecutor(concurrency) as threads:
        try:
            for received in radiographs:
                waiting.append((received, threads.submit(client, received.picture)))
                if len(waiting) > concurrency:  # one more than are asked about: no thread waits for the reading
                    received, output = waiting.popleft()
                    yield received, output.result()
            while waiting:
                received, output = waiting.popleft()
                yield received, output.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def data_url(radiograph: Image.Image) -> str:
    """The pixels as a PNG in a data URL, exact."""
    png = BytesIO()
    radiograph.save(png, "PNG", compress_level=1)  # a third of the time of the default, hardly larger
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


class RefusedError(ConnectionError):
    """The server answers that it will not.

    Attributes:
        code: its HTTP status.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def fetch_json(url: str, body: dict[str, Any] | None = None) -> Any:
    """What the server answers to a GET, or to a POST of `body`.

    Raises:
        RefusedError: the server refuses, with its reason.
        ConnectionError: it does not answer, or not in JSON; one sentence.
    """
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        raise RefusedError(f"{url}: the server refuses: {error.code} {_reason(error)}", error.code) from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: `url` is none
        raise ConnectionError(f"{url}: no answer from a server ({error})") from None
    try:
        return json.loads(content)
    except ValueError:
        raise ConnectionError(f"{url}: the server's answer is no JSON") from None


def _reason(error: urllib.error.HTTPError) -> str:
    # OpenAI's form of an error; a server's own message may repeat the whole request.
    try:
        return json.loads(error.read())["error"]["message"][:300]
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return error.reason


def _located(text: str, tokens: list[tuple[str, float]]) -> tuple[list[int], list[float]]:
    """Where each token starts in `text`, and its probability; nothing where the tokens do not spell the text."""
    starts, probabilities, end = [], [], 0
    for token, logprob in tokens:
        if end == len(text):  # the end token
            break
        starts.append(end)
        probabilities.append(math.exp(logprob))
        end += len(token)
    spelled = "".join(token for token, _ in tokens[: len(starts)])
    return (starts, probabilities) if spelled == text else ([], [])


if __name__ == "__main__":
    sys.exit(main(*parse([AskArguments], None, "ask_server.py", __doc__)))
