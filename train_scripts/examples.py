"""Rows -> training examples -> the model's tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.instructions import answer
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.train_scripts.arguments import ExampleArguments
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement


def training_examples(
    rows: Dataset,
    views: list[tuple[int, Movement]],
    numbers: Sequence[int],
    arguments: ExampleArguments,
    processor: LiteGPTProcessor,
) -> Dataset:
    """Examples of a view's number, a task and its answer; left out are tasks whose answer a row doesn't tell.

    The column `length` says how many tokens the whole sequence has, for `group_by_length`.

    Args:
        numbers: which of `views` (the training ones, the validation ones).

    Raises:
        Refusal: no row tells the answer.
    """
    tasks = arguments.tasks
    all_findings, all_diagnoses = rows["findings"][:], rows["diagnoses"][:]
    examples: dict[str, list] = {"view": [], "task": [], "answer": []}
    unknown = dict.fromkeys(tasks, 0)
    for view in numbers:
        row, movement = views[view]
        if arguments.with_findings_only and not all_findings[row]:
            continue
        for task in tasks:
            # Whether the answer is known does not depend on the view: a finding moved out of sight is not unknown.
            known = answer(
                all_findings[row], all_diagnoses[row], task, processor.finding_labels, processor.diagnosis_labels
            )
            if known is None:
                unknown[task] += 1
                continue
            findings = movement.findings(all_findings[row])
            if all_findings[row] and not findings:
                continue
            text = answer(
                findings,
                all_diagnoses[row],
                task,
                processor.finding_labels,
                processor.diagnosis_labels,
                arguments.box_order,
            )
            for column, value in zip(examples.values(), (view, task, text), strict=True):
                column.append(value)
    for task, count in unknown.items():
        print(
            f"{task}: {examples['task'].count(task)} examples; {count} left out, as their rows do not tell the answer"
        )
    if not examples["view"]:
        which = "radiograph with findings" if arguments.with_findings_only else "radiograph"
        raise Refusal(f"No {which} tells the answer to {' or '.join(tasks)}.")
    prompt_lengths = {task: len(prompt_ids(processor, task)) for task in tasks}
    examples["length"] = [
        prompt_lengths[task] + len(processor.answer_ids(text)) + 1
        for task, text in zip(examples["task"], examples["answer"], strict=True)
    ]
    return Dataset.from_dict(examples)


def prompt_ids(processor: LiteGPTProcessor, task: str) -> list[int]:
    """The tokens of a task's prompt, with a placeholder for each visual token."""
    text = processor.prompt(task).replace(processor.image_token, processor.expanded_image)
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
        self.prompt_ids = {task: prompt_ids(processor, task) for task in processor.instructions}

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sequences, labels = [], []
        for example in examples:
            prompt = self.prompt_ids[example["task"]]
            answer_ids = [*self.processor.answer_ids(example["answer"]), self.tokenizer.eos_token_id]
            sequences.append(torch.tensor(prompt + answer_ids))
            labels.append(torch.tensor([-100] * len(prompt) + answer_ids))
        input_ids = torch.nn.utils.rnn.pad_sequence(sequences, True, self.tokenizer.pad_token_id)
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": torch.nn.utils.rnn.pad_sequence(labels, True, -100),
            **self._images([example["view"] for example in examples]),
            **self._boxes([example["view"] for example in examples]),
        }

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
