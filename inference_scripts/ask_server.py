"""Asks a server that has the checkpoint, as the `chest-xray-findings` pipeline asks a model.

    client = Client("http://127.0.0.1:8000/v1", processor)
    client(radiograph)                                        # findings and diagnoses, boxes in its pixels
    client(radiograph, ["refer: enlarged heart", "report"], others=[lateral])

The server is vLLM, or another one that speaks OpenAI's chat completions. Pixels alone are sent, as PNG. Each request
has the grammar of the answers, as vLLM takes it (`structured_outputs`), so that no answer is malformed unless it
exceeds `max_new_tokens`; of a grounded report it holds the boxes, and free text has none. Scores are made of the
server's probabilities, which are among what the grammar allows if vLLM is started with `--logprobs-mode
processed_logprobs`, as `make serve` does. What a server does not tell: findings that answers leave out, which need the
probabilities of all continuations; a sentence's probability of being true, which needs those of its contrary.
"""

import base64
import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from io import BytesIO
from typing import Any

from PIL import Image

from litegpt.processing.answer_ebnf import sentences_ebnf
from litegpt.processing.answers import NO_PLACE, PLACES_PREFIX
from litegpt.processing.box_scores import Answer, span_probability
from litegpt.processing.moved_views import moved_views
from litegpt.processing.pipeline_litegpt import Shown, as_question, structured_answers
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.radiograph import in_standard_view
from litegpt.processing.tasks import (
    DEFAULT_TASKS,
    GROUNDED_REPORT,
    PLACES,
    answer_kind,
    is_free_text,
    join_question,
    shows_study,
)

UNFUSED_VIEWS = "its views are not fused: the server gave an answer without probabilities, which they are weighed by"
TIMEOUT = 600  # seconds that a server may take for one answer, waiting in its queue included


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
        ValueError: the checkpoint has no operating points, and they are asked for.
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
        self.views, self.threshold, self.constrained = moved_views(views), threshold, constrained
        self.base_url, self.processor, self.max_new_tokens = base_url.rstrip("/"), processor, max_new_tokens
        self.grammars: dict[str, str] = {}  # by task, made when it is first asked
        models = fetch_json(f"{self.base_url}/models")
        try:
            self.model = models["data"][0]["id"]
        except (KeyError, IndexError, TypeError):
            raise ConnectionError(f"{self.base_url}: the server lists no model") from None

    def __call__(
        self, radiograph: Image.Image, tasks: Sequence[str] = DEFAULT_TASKS, others: Sequence[Image.Image] = ()
    ) -> dict[str, Any]:
        """What the pipeline returns for one radiograph, as `load_radiograph` gives it: boxes in its pixels.

        It is sent as the model would be shown it: turned, where its file says that it is stored mirrored or rotated.
        `score` is None where the server gives no probabilities with its tokens.

        Args:
            tasks: question strings.
            others: other views of its study, which reports are told.

        Raises:
            ConnectionError: the server does not answer, or refuses to.
            ValueError: as `grammar`; the checkpoint does not know a task.
        """
        doubts = [doubt for one in (radiograph, *others) for doubt in one.info.get("warnings", ())]
        shown_as = Shown(radiograph.size, radiograph.info.get("turn"), doubts)
        questions = [as_question(asked, shown_as) for asked in tasks]
        shown = in_standard_view(radiograph)
        url, urls = data_url(shown), [data_url(in_standard_view(one)) for one in others]
        answers = {}
        for task, about in questions:
            together = [url, *(urls if shows_study(task) else ())]
            answers[join_question(task, about)] = self.ask(together, task, about)
        with_boxes = [task for task, _ in questions if (kind := answer_kind(task)) is not None and kind.has_boxes]
        views = self.views if with_boxes else ()
        moved = [{task: self.ask([data_url(view.picture(shown))], task) for task in with_boxes} for view in views]
        of_boxes = [view[task] for view in (answers, *moved) for task in with_boxes]
        if moved and not all(answer.starts for answer in of_boxes):
            moved, shown_as = [], shown_as._replace(warnings=[*doubts, UNFUSED_VIEWS])
        return structured_answers(answers, shown_as, self.processor, self.threshold, moved=moved)

    def ask(self, image_urls: Sequence[str], task: str, about: str | None = None) -> Answer:
        """The greedy answer; without probabilities where the server gives none, or none that spell the text.

        Args:
            image_urls: of the radiograph, and of other views.
            about: what the task is about, see `TASKS`.
        """
        request = {
            "model": self.model,
            "messages": with_images(self.processor.messages(task, about, len(image_urls)), image_urls),
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
            cut_off = choice.get("finish_reason") == "length"
        except (KeyError, IndexError, TypeError):
            raise ConnectionError(f"{url}: the answer is no chat completion") from None
        # vLLM decodes an answer as what follows the prompt: a space may stand before it.
        answer = text.lstrip()
        starts = [start - len(text) + len(answer) for start in starts]
        found = Answer(answer, starts, probabilities, considered=considered, cut_off=cut_off)
        if answer_kind(task) is PLACES:
            found = found._replace(label_probabilities=_no_place(found))
        return found

    def grammar(self, task: str) -> str | None:
        """What holds the answers to a task; None where nothing does: text is free.

        Raises:
            ValueError: a longest answer may take more than `max_new_tokens`; there are no labels that it could have.
        """
        if not self.constrained:
            return None
        if answer_kind(task) is GROUNDED_REPORT:
            self.grammars.setdefault(task, sentences_ebnf())
        elif not is_free_text(task) and task not in self.grammars:
            self.grammars[task] = self.processor.answer_grammar.ebnf(task, self.max_new_tokens)
        return self.grammars.get(task)

    def _completion(self, url: str, request: dict[str, Any], task: str) -> Any:
        grammar = self.grammar(task)
        if grammar is None:
            return fetch_json(url, request)
        try:
            return fetch_json(url, {**request, "structured_outputs": {"grammar": grammar}})
        except RefusedError as refusal:
            try:
                fetch_json(url, request)
            except ConnectionError:
                raise refusal from None
            reason = f"{refusal}; it answers without the grammar of the answers: --no-constrained"
            raise ConnectionError(reason) from None


def with_images(messages: Sequence[dict[str, Any]], urls: Sequence[str]) -> list[dict[str, Any]]:
    """The turns of a chat, as the processor has them, with the pictures that stand for their images."""
    left = iter(urls)
    return [
        {
            **message,
            "content": [
                {"type": "image_url", "image_url": {"url": next(left)}} if item["type"] == "image" else item
                for item in message["content"]
            ]
            if isinstance(message["content"], list)
            else message["content"],
        }
        for message in messages
    ]


def _no_place(answer: Answer) -> dict[str, float]:
    """The probability that an answer about a phrase says that there is none, of the token that decides it."""
    begin = len(PLACES_PREFIX)
    if not (answer.starts and answer.text.startswith(PLACES_PREFIX)):
        return {}
    if answer.text.startswith(NO_PLACE, begin):
        return {NO_PLACE: span_probability((begin, begin + len(NO_PLACE)), answer)}
    return {NO_PLACE: 1 - span_probability((begin, begin + 1), answer)}


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
