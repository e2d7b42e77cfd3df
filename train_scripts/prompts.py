"""Rows -> the prompts of a run of `grpo.py`, in the order in which they are asked -> what TRL's GRPOTrainer takes.

    drawn = drawn_prompts(rows, 1600, rollout_args, processor, seed=42)   # {"row": 17, "task": "identify", "draw": 0}
    collator = PromptCollator(rows, store, processor, moved_share=0.75, seed=42)
    collator([drawn[0]])   # [{"prompt": [{"role": "user", ...}], "image": ..., "findings": [...], ...}]

A run's prompts are drawn before it starts, so that one which was interrupted goes on with the same ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.instructions import answer
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.radiograph import SquashedRadiograph
from litegpt.train_scripts.arguments import RolloutArguments
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement

PLAIN = -1  # a prompt's `draw` where the radiograph is shown as it is
TRIES = 10  # of a view that shows at least one of the findings; then the plain one


@dataclass(frozen=True)
class ShownRadiograph(SquashedRadiograph):
    """A radiograph as it is shown, and what is there to be found: {"label": name, "box": xyxy in [0, 1]}."""

    findings: tuple[dict[str, Any], ...] = ()


def drawn_prompts(
    rows: Dataset, count: int, arguments: RolloutArguments, processor: LiteGPTProcessor, seed: int
) -> Dataset:
    """`count` prompts, (row, task, draw): each radiograph once before any is asked about again.

    Left out are rows that do not tell the answer. With `abnormal_share` those with findings and those without take
    turns by chance, each kind in an order of its own.

    Raises:
        Refusal: no row tells the answer, or there is none of a kind that is asked for.
    """
    known = known_prompts(rows, arguments.tasks, processor)
    rng = np.random.default_rng(seed)
    share, findings = arguments.abnormal_share, rows["findings"][:]
    if share is None:
        turns = _endless(known, rng)
    else:
        kinds = [[prompt for prompt in known if bool(findings[prompt[0]]) == abnormal] for abnormal in (False, True)]
        for kind, wanted, name in zip(kinds, (1 - share, share), ("without", "with"), strict=True):
            if wanted and not kind:
                raise Refusal(f"abnormal_share {share}: there is no radiograph {name} findings.")
        streams = [_endless(kind, rng) for kind in kinds]
        turns = (next(streams[int(rng.random() < share)]) for _ in range(count))
    drawn = [(*next(turns), draw) for draw in range(count)]
    return Dataset.from_dict(dict(zip(("row", "task", "draw"), map(list, zip(*drawn, strict=True)), strict=True)))


def known_prompts(rows: Dataset, tasks: list[str], processor: LiteGPTProcessor) -> list[tuple[int, str]]:
    """(row, task) wherever a row tells the answer; how many do not is printed.

    Raises:
        Refusal: no row does.
    """
    known = [
        (row, task)
        for row, (findings, diagnoses) in enumerate(zip(rows["findings"][:], rows["diagnoses"][:], strict=True))
        for task in tasks
        if answer(findings, diagnoses, task, processor.finding_labels, processor.diagnosis_labels) is not None
    ]
    if not known:
        raise Refusal(f"No radiograph tells the answer to {' or '.join(tasks)}.")
    left_out = len(rows) * len(tasks) - len(known)
    print(f"{len(known)} prompts; {left_out} left out, as their rows do not tell the answer")
    return known


def _endless(items: list, rng: np.random.Generator) -> Iterator:
    while items:
        yield from (items[index] for index in rng.permutation(len(items)))


class PromptCollator:
    """Prompts as `drawn_prompts` gives them -> TRL's: a conversation, its image, and columns for the rewards.

    A prompt that stands several times in a batch, once for each answer that is sampled to it, has one image there.

    Args:
        rows: with findings; `store` holds their radiographs.
        moved_share: how often a radiograph is moved.
        seed: of the movements; a prompt's is drawn from it and the prompt's number.
    """

    def __init__(
        self, rows: Dataset, store: RadiographStore, processor: LiteGPTProcessor, moved_share: float, seed: int
    ):
        self.findings, self.store, self.processor = rows["findings"][:], store, processor
        self.moved_share, self.seed = moved_share, seed

    def __call__(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        shown = {(prompt["row"], prompt["draw"]): None for prompt in prompts}
        shown = {key: self.radiograph(*key) for key in shown}
        return [
            {
                "prompt": [
                    {
                        "role": "user",
                        "content": f"[{prompt['task']}] {self.processor.instructions[prompt['task']]}",
                    }
                ],
                "image": (image := shown[prompt["row"], prompt["draw"]]),
                "findings": list(image.findings),
                "finding_labels": self.processor.finding_labels,
            }
            for prompt in prompts
        ]

    def radiograph(self, row: int, draw: int) -> ShownRadiograph:
        """A row's radiograph as the prompt number `draw` shows it; PLAIN: as it is."""
        movement, findings = Movement(), self.findings[row]
        rng = np.random.default_rng([self.seed, 0 if draw == PLAIN else draw])
        if draw != PLAIN and rng.random() < self.moved_share:
            for _ in range(TRIES):
                moved = Movement.random(rng)
                seen = moved.findings(self.findings[row])
                if seen or not self.findings[row]:  # what was moved out of sight is not "No finding"
                    movement, findings = moved, seen
                    break
        names = self.processor.finding_labels
        named = tuple({"label": names[finding["label"]], "box": list(finding["box"])} for finding in findings)
        squashed = self.store.squashed(row, movement)
        return ShownRadiograph(squashed.size, squashed.pictures, findings=named)
