"""Who answers radiographs: a checkpoint in this process, or one at a server.

    answerer = LocalAnswerer(AnswerSettings("outputs/demo/checkpoint", threshold="operating_point"))
    received = receive(Path("a.dicom"), data, sha256, answerer.processor.windowing)
    (line,) = answerer.lines([received])     # as the predictions file has it: boxes in pixels of the file's picture

    ServerAnswerer(AnswerSettings("outputs/demo/checkpoint"), "http://127.0.0.1:8000/v1")   # a vLLM server, likewise
    ServerAnswerer(AnswerSettings("outputs/demo/checkpoint"), [url, other_url])             # several divide a batch

    LocalAnswerer(AnswerSettings("outputs/demo/checkpoint", tasks=("refer: enlarged heart", "report")))

A line carries what `answerer.facts` say: the settings, and of the checkpoint its name, digest, training and caution.
"""

import functools
import types
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from litegpt.common.cpus import threads_for
from litegpt.common.digests import Digests
from litegpt.inference_scripts.ask_server import Client
from litegpt.inference_scripts.inbox import MAX_NEW_TOKENS, Received
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, load_processor
from litegpt.modeling_litegpt.provenance import provenance, recorded_config
from litegpt.processing.pipeline_litegpt import (
    ChestXrayFindingsPipeline,
    Shown,
    as_question,
    untrained_tasks,
    was_asked,
)
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.tasks import DEFAULT_TASKS, split_question

ANY_SIZE = (1 << 20, 1 << 20)  # no radiograph is larger
# A radiograph; or with another view of its study behind it, which reports are told.
Pictures = Image.Image | tuple[Image.Image, ...]


@dataclass(frozen=True)
class AnswerSettings:
    """What makes an answer another answer, beside the radiograph.

    Attributes:
        model: a LiteGPT checkpoint or adapter: folder or Hub repository.
        constrained, threshold, candidates, views: as the `chest-xray-findings` pipeline has them.
        compiled: likewise; it makes no other answer.
        tasks: what is asked, question strings.
        max_new_tokens: the longest answer.
    """

    model: str
    constrained: bool = True
    threshold: float | str | None = None
    candidates: bool = False
    views: int = 0
    compiled: bool = False
    tasks: tuple[str, ...] = DEFAULT_TASKS
    max_new_tokens: int = MAX_NEW_TOKENS

    @property
    def facts(self) -> dict[str, Any]:
        """What a line of the predictions says of them."""
        return {
            "model": self.model,
            "constrained": self.constrained,
            "threshold": self.threshold,
            "with_candidates": self.candidates,
            "views": self.views,
            "tasks": list(self.tasks),
            "max_new_tokens": self.max_new_tokens,
        }


class Answerer:
    """What both have in common.

    Attributes:
        settings: how it answers.
        processor: of the checkpoint.
        source: where its answers are from.
    """

    processor: LiteGPTProcessor

    def __init__(self, settings: AnswerSettings, digests: Digests | None = None):
        self.settings, self.digests = settings, digests or Digests()
        config = recorded_config(settings.model)
        self.source = provenance(settings.model, config)
        self._training = types.SimpleNamespace(training_record=config.get("training_record"))

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What each line says of the settings and of the checkpoint, whose files are read for their digest."""
        digest = self.digests.checkpoint(self.settings.model)
        return {**self.settings.facts, **self.source.line(), "checkpoint_sha256": digest}

    def was_asked(self, task: str) -> bool:
        """Whether the checkpoint knows a task and was trained to answer it, as far as that is recorded."""
        return task in self.processor.instructions and was_asked(self._training, task)

    def check(self, tasks: Sequence[str]) -> None:
        """Refuses what cannot be asked, before a radiograph is read.

        Raises:
            ValueError: the checkpoint does not know a task, or it has to be told what it is about.
        """
        for asked in tasks:
            # A box in pixels is held against each radiograph's own size.
            self.processor.messages(*as_question(asked, Shown(ANY_SIZE)))

    def outputs(self, pictures: Sequence[Pictures], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """What the `chest-xray-findings` pipeline returns for each of several radiographs.

        Args:
            tasks: other ones than the settings'.
        """
        raise NotImplementedError

    def lines(self, batch: Sequence[Received]) -> list[dict[str, Any]]:
        """The answers to a batch of radiographs, in its order, as lines of the predictions file."""
        outputs = self.outputs([received.picture for received in batch]) if batch else []
        return [{**received.facts, **self.facts, **output} for received, output in zip(batch, outputs, strict=True)]


class LocalAnswerer(Answerer):
    """A checkpoint in this process, on its GPU where it has one; on the CPU, with the threads that suit its size.

    Raises:
        OSError: there is no such checkpoint, or the adapter's base is not found.
        ValueError: its weights do not fit; it has no operating points, and they are asked for; as `check`.
    """

    def __init__(self, settings: AnswerSettings, digests: Digests | None = None):
        super().__init__(settings, digests)
        model, self.processor = load_checkpoint(settings.model)
        self.check(settings.tasks)
        torch.set_num_threads(threads_for(model.num_parameters()))
        self.pipe = ChestXrayFindingsPipeline(
            model=model.eval(),
            processor=self.processor,
            device="cuda" if torch.cuda.is_available() else "cpu",
            constrained=settings.constrained,
            threshold=settings.threshold,
            candidates=settings.candidates,
            views=settings.views,
            compiled=settings.compiled,
            max_new_tokens=settings.max_new_tokens,
        )

    def outputs(self, pictures: Sequence[Pictures], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        asked = tuple(self.settings.tasks if tasks is None else tasks)
        shown = [{"images": list(one), "tasks": asked} if isinstance(one, tuple) else one for one in pictures]
        return self.pipe(shown, tasks=asked, batch_size=len(shown) * len(asked))  # a row a task


class ServerAnswerer(Answerer):
    """The checkpoint at a server with an API like OpenAI's, as vLLM has it; `candidates` are not to be had there.

    Several servers that have it divide each batch.

    Raises:
        OSError, ValueError: as `LocalAnswerer`'s.
        ConnectionError: no such server answers there; `outputs` raises it, too.
    """

    def __init__(self, settings: AnswerSettings, base_url: str | Sequence[str], digests: Digests | None = None):
        super().__init__(settings, digests)
        if settings.candidates:
            raise ValueError(f"candidates are not to be had from a server ({base_url}).")
        self.processor = load_processor(settings.model)
        self.check(settings.tasks)
        self.clients = [
            Client(
                url,
                self.processor,
                max_new_tokens=settings.max_new_tokens,
                constrained=settings.constrained,
                views=settings.views,
                threshold=settings.threshold,
            )
            for url in ([base_url] if isinstance(base_url, str) else base_url)
        ]
        for asked in settings.tasks:
            self.clients[0].grammar(split_question(asked)[0])

    def outputs(self, pictures: Sequence[Pictures], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        clients = (self.clients[number % len(self.clients)] for number in range(len(pictures)))
        with ThreadPoolExecutor(len(pictures)) as threads:
            return list(threads.map(lambda client, one: self.output(client, one, tasks), clients, pictures))

    def output(self, client: Client, shown: Pictures, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """What one of the servers answers about a radiograph, with the warnings that the pipeline would give."""
        asked = self.settings.tasks if tasks is None else tasks
        radiograph, *others = shown if isinstance(shown, tuple) else (shown,)
        output = client(radiograph, asked, others)
        output["warnings"] += untrained_tasks(self._training, asked)
        return output
