"""Shards of radiographs as work for `common/shard_runs.py`: a worker holds the model, reads a shard and answers it.

    work = PredictionWork(plan, AnswerSettings("outputs/demo/checkpoint"))
    answer_shard = work.start()         # loads the checkpoint
    answer_shard(123)                   # results/shard-000123-of-000200.parquet is there

What makes an answer's last digits is in the plan, so that results are the same bytes however they are computed: a
batch is so many radiographs that follow each other in the shard, and a worker has so many threads.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from litegpt.common.programs import Refusal
from litegpt.common.read_ahead import ahead
from litegpt.inference_scripts.answerers import Answerer, AnswerSettings, LocalAnswerer, ServerAnswerer
from litegpt.inference_scripts.dicomweb import WebPlace
from litegpt.inference_scripts.inbox import Received, Rejected, sort_out
from litegpt.inference_scripts.many.plan import Plan
from litegpt.inference_scripts.many.reading import Reader
from litegpt.inference_scripts.many.results import results_there, row_of, write_results
from litegpt.inference_scripts.many.sources import Item
from litegpt.processing.doubts import RadiographError


@dataclass
class PredictionWork:
    """A `ShardWork`: the radiographs of a plan, answered.

    Attributes:
        plan: of the run.
        settings: how they are answered.
        base_urls: servers that have the checkpoint; none: it is loaded in the worker.
        dicomweb: the PACS in which radiographs lie.
    """

    plan: Plan
    settings: AnswerSettings
    base_urls: Sequence[str] = ()
    dicomweb: WebPlace | None = None

    @property
    def folder(self) -> str:
        return self.plan.folder

    def name(self, number: int) -> str:
        return self.plan.name(number)

    def is_done(self, number: int) -> bool:
        """Whether its results were there when first one was asked for: a folder is listed once."""
        return self.name(number) in self._results

    @functools.cached_property
    def _results(self) -> set[str]:
        return results_there(self.folder, self.plan.settings["format"])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_results"}  # workers need none

    def start(self) -> Callable[[int], None]:
        import torch
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # each worker would show how it loads
        try:
            answerer = (
                ServerAnswerer(self.settings, self.base_urls) if self.base_urls else LocalAnswerer(self.settings)
            )
        except (OSError, ValueError) as error:
            raise Refusal(str(error).strip().splitlines()[0]) from error
        torch.set_num_threads(self.plan.settings["threads"])
        return functools.partial(self._answer_shard, answerer, Reader(self.dicomweb))

    def _answer_shard(self, answerer: Answerer, reader: Reader, number: int) -> None:
        facts = {"checkpoint_sha256": self.plan.settings["checkpoint_sha256"]}
        facts |= {name: answerer.source.line()[name] for name in ("checkpoint", "caution")}
        items = self.plan.items(number)
        try:
            rows = list(answered_rows(items, reader, answerer, self.plan.settings, facts))
        except ConnectionError as error:  # of a server
            raise Refusal(str(error)) from error
        write_results(self.folder, self.name(number), rows, self.plan.settings)


def answered_rows(
    items: Sequence[Item], reader: Reader, answerer: Answerer, settings: dict[str, Any], facts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rows of a shard: while a batch of radiographs is answered, the next one is read, in the plan's order."""
    size, windowing = settings["batch_size"], answerer.processor.windowing
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(settings["threads"]) as decoding:
        of_items = zip(items, ahead(lambda item: read(item, reader), items, reading, size), strict=True)
        found_ahead = ahead(lambda of_item: found_of(*of_item, windowing), of_items, decoding, size)
        while batch := list(islice(found_ahead, size)):
            pictures = [found.picture for _, _, found in batch if isinstance(found, Received)]
            outputs = iter(answerer.outputs(pictures) if pictures else [])
            for item, sha256, found in batch:
                output = next(outputs) if isinstance(found, Received) else {}
                yield row_of(item, sha256, found, output, facts, settings["tasks"])


def read(item: Item, reader: Reader) -> tuple[bytes, str] | RadiographError:
    """A radiograph's bytes and their digest, or why there are none."""
    try:
        data = reader.read(item)
    except RadiographError as error:
        return error
    return data, hashlib.sha256(data).hexdigest()


def found_of(
    item: Item, was_read: tuple[bytes, str] | RadiographError, windowing: str
) -> tuple[Item, str | None, Received | Rejected]:
    """The radiograph, or why there is none, with the digest of its bytes."""

    def given() -> tuple[bytes, str]:
        if isinstance(was_read, RadiographError):
            raise was_read
        return was_read

    sha256 = None if isinstance(was_read, RadiographError) else was_read[1]
    return item, sha256, sort_out(item.name, given, windowing)
