"""Rows -> training examples -> the model's tensors.

    examples = training_examples(rows, views, range(len(views)), arguments, processor)
    examples[0]    # {"view": 0, "second_view": -1, "task": "refer", "about": "edema", "answer": "...", "length": 82}
    batch = ChatCollator(processor, store, views, features=None)([examples[0], examples[1]])

An example is a question about one radiograph, or two of one study, and its true answer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets

from litegpt.common.programs import Refusal, refuse_bad_input
from litegpt.datasets_scripts.instructions import Asked, questions
from litegpt.datasets_scripts.second_views import second_views
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.train_scripts.arguments import ExampleArguments
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement

TOLD = ("findings", "diagnoses", "phrase", "sentences", "report_findings", "qa", "chat")  # columns that tell answers
ROWS_TOGETHER, EXAMPLES_TOGETHER = 1000, 10_000  # what is held as Python objects at once
NO_VIEW = -1
SCHEMA = {
    "view": pa.int32(),
    "second_view": pa.int32(),
    "task": pa.string(),
    "about": pa.string(),
    "answer": pa.string(),
    "length": pa.int32(),
}


def training_examples(
    rows: Dataset,
    views: list[tuple[int, Movement]],
    numbers: Sequence[int],
    arguments: ExampleArguments,
    processor: LiteGPTProcessor,
    with_lengths: bool = True,
) -> Dataset:
    """Examples: a view's number, a task, what it is about (null: nothing) and its answer.

    Left out are tasks whose answer a row doesn't tell. `second_view` is the number of a further view that [report] is
    asked with, or -1. The column `length` says how many tokens the whole sequence has, for `group_by_length`.

    Args:
        numbers: which of `views` (the training ones, the validation ones).
        with_lengths: False leaves out `length`: counting takes a millisecond an example.

    Raises:
        Refusal: no row tells the answer, or a question cannot stand in a prompt.
    """
    tasks = arguments.tasks
    counts = {task: [0, 0] for task in tasks}  # examples; views whose row does not tell the answer
    seconds = _second_views(rows, views, numbers) if arguments.second_view else {}
    length_of = _length_counter(processor)

    def examples() -> Iterator[dict[str, Any]]:
        for view, task, asked in _asked(rows, views, numbers, arguments, processor):
            if asked is None:
                counts[task][1] += 1
                continue
            counts[task][0] += 1
            second = seconds.get(views[view][0], NO_VIEW) if task == "report" else NO_VIEW
            example = {"view": view, "second_view": second, "task": task, "about": asked.about, "answer": asked.answer}
            yield {**example, "length": length_of(example)} if with_lengths else example

    schema = pa.schema([field for field in SCHEMA.items() if with_lengths or field[0] != "length"])
    parts = [Dataset(pa.Table.from_pylist(part, schema=schema)) for part in _in_parts(examples(), EXAMPLES_TOGETHER)]
    for task, (count, unknown) in counts.items():
        print(f"{task}: {count} examples; {unknown} left out, as their rows do not tell the answer")
    if not parts:
        which = "radiograph with findings" if arguments.with_findings_only else "radiograph"
        raise Refusal(f"No {which} tells the answer to {' or '.join(tasks)}.")
    return concatenate_datasets(parts)


def _asked(
    rows: Dataset,
    views: list[tuple[int, Movement]],
    numbers: Sequence[int],
    arguments: ExampleArguments,
    processor: LiteGPTProcessor,
) -> Iterator[tuple[int, str, Asked | None]]:
    """(view, task, question) for all of them; None for a question where the view's row does not tell the answer."""
    labels = (processor.finding_labels, processor.diagnosis_labels, arguments.box_order)
    told = rows.select_columns([column for column in TOLD if column in rows.column_names])
    start, part, known_row, known = 0, [], None, {}
    for view in numbers:
        row, movement = views[view]
        if not start <= row < start + len(part):
            start = row - row % ROWS_TOGETHER
            part = told[start : start + ROWS_TOGETHER]
            part = [dict(zip(part, values, strict=True)) for values in zip(*part.values(), strict=True)]
        content = part[row - start]
        if arguments.with_findings_only and not content["findings"]:
            continue
        if row != known_row:
            # Whether the answer is known does not depend on the view: a finding moved out of sight is not unknown.
            known_row, known = row, {task: questions(content, task, *labels) for task in arguments.tasks}
        moved = content if movement == Movement() else movement.row(content)
        for task in arguments.tasks:
            if not known[task]:
                yield view, task, None
            elif moved["findings"] or not content["findings"]:
                asked = known[task] if moved is content else questions(moved, task, *labels)
                yield from ((view, task, one) for one in asked)


def _second_views(rows: Dataset, views: list[tuple[int, Movement]], numbers: Iterable[int]) -> dict[int, int]:
    """{row of a frontal radiograph: the number of the first view of the first lateral of its study}.

    Raises:
        Refusal: the rows do not say which study they are of.
    """
    first_view: dict[int, int] = {}
    for view in numbers:
        first_view.setdefault(views[view][0], view)
    try:
        laterals = second_views(rows, first_view)
    except ValueError as error:
        raise Refusal(str(error)) from None
    return {row: first_view[lateral] for row, lateral in laterals.items()}


def _in_parts(items: Iterable[dict], size: int) -> Iterator[list[dict]]:
    part: list[dict] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _length_counter(processor: LiteGPTProcessor) -> Callable[[dict[str, Any]], int]:
    """Tokens of an example's whole sequence; what is alike, as most phrases of templates, is counted once."""

    @lru_cache(maxsize=100_000)
    def of_prompt(task: str, about: str | None, num_images: int) -> int:
        return len(prompt_ids(processor, task, about, num_images))

    @lru_cache(maxsize=100_000)
    def of_answer(text: str) -> int:
        return len(processor.answer_ids(text)) + 1

    def length_of(example: dict[str, Any]) -> int:
        return of_prompt(example["task"], example["about"], num_images(example)) + of_answer(example["answer"])

    return length_of


def num_images(example: dict[str, Any]) -> int:
    """Radiographs that an example shows."""
    return 1 if example["second_view"] == NO_VIEW else 2


def prompt_ids(processor: LiteGPTProcessor, task: str, about: str | None = None, num_images: int = 1) -> list[int]:
    """The tokens of a task's prompt, with a placeholder for each visual token of each image.

    Raises:
        Refusal: what the question is about holds a token of the prompt's own.
    """
    with refuse_bad_input():
        text = processor.prompt(task, about, num_images)
    text = text.replace(processor.image_token, processor.expanded_image)
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


class ChatCollator:
    """Examples -> the model's tensors, padded on the right; the loss falls on the answer and the end token alone.

    Args:
        features: of all views, where the towers' output is cached.
        boxes: for a detector that is trained as well, of each row its findings, and (rows, labels) 1 or 0, of which
            labels its boxes are known.
    """

    def __init__(
        self,
        processor: LiteGPTProcessor,
        store: RadiographStore,
        views: list[tuple[int, Movement]],
        features: torch.Tensor | None,
        boxes: tuple[list[list[dict]], torch.Tensor] | None = None,
    ):
        self.processor, self.tokenizer, self.boxes = processor, processor.tokenizer, boxes
        self.store, self.views, self.features = store, views, features
        # Prompts about the radiograph alone are few, others as many as examples.
        self._prompts_alone: dict[tuple[str, int], list[int]] = {}

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sequences, labels = [], []
        for example in examples:
            prompt = self._prompt(example)
            answer_ids = [*self.processor.answer_ids(example["answer"]), self.tokenizer.eos_token_id]
            sequences.append(torch.tensor(prompt + answer_ids))
            labels.append(torch.tensor([-100] * len(prompt) + answer_ids))
        input_ids = torch.nn.utils.rnn.pad_sequence(sequences, True, self.tokenizer.pad_token_id)
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        # One radiograph for each run of placeholders, in their order.
        views = [view for example in examples for view in (example["view"], example["second_view"]) if view != NO_VIEW]
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": torch.nn.utils.rnn.pad_sequence(labels, True, -100),
            **self._images(views),
            **self._boxes(views),
        }

    def _prompt(self, example: dict[str, Any]) -> list[int]:
        key = (example["task"], num_images(example))
        if example["about"] is not None:
            return prompt_ids(self.processor, key[0], example["about"], key[1])
        if key not in self._prompts_alone:
            self._prompts_alone[key] = prompt_ids(self.processor, key[0], None, key[1])
        return self._prompts_alone[key]

    def _boxes(self, views: list[int]) -> dict[str, Any]:
        if self.boxes is None:
            return {}
        findings, known = self.boxes
        moved = [movement.findings(findings[row]) for row, movement in (self.views[view] for view in views)]
        return {"findings": moved, "known": known[[self.views[view][0] for view in views]]}

    def _images(self, views: list[int]) -> dict[str, torch.Tensor]:
        if self.features is not None:
            return {"patch_features": self.features[views]}
        rows, movements = zip(*(self.views[view] for view in views), strict=True)
        return dict(zip(("pixel_values", "aux_pixel_values"), self.store.pixel_values(rows, movements), strict=False))
