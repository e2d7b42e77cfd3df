"""What in a radiograph LiteGPT's answer rests on: maps of the findings that it names, of given names, of its tokens.

    maker = FindingMaps(ExplainArguments(["a.dicom"], "outputs/demo/checkpoint", "outputs/maps", method="integrated"))
    ((found, *others),) = maker.maps(load_radiograph("a.dicom"), [0])
    found.explained, found.grid, found.box(*found.largest)

The answer is the one to [identify]; the ways in which it is explained are `METHODS` of `processing/answer_maps.py`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from litegpt.inference_scripts.arguments import ExplainArguments
from litegpt.inference_scripts.radiograph_maps import MapMaker, RadiographMap
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.modeling_litegpt.provenance import provenance, recorded_config
from litegpt.processing.answer_automaton import answer_tokens
from litegpt.processing.answer_maps import (
    DEFAULT_METHOD,
    METHODS,
    PIXELS,
    CharacterRange,
    check_labels_known,
    label_maps,
    text_maps,
)
from litegpt.processing.answers import NO_FINDING, text_to_findings
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.radiograph import grid_as_given

TASK = "identify"
ANSWER, TOKENS = "answer", "tokens"  # what a question may ask beside the name of a finding


@dataclass(frozen=True, kw_only=True)
class FindingMap(RadiographMap):
    """What in a radiograph speaks for some words.

    Attributes:
        explained: the words: a finding's label, `No finding`, or a token's text.
        answer: in which the model wrote them; None of a name that was given.
        method: of `METHODS`.
        number, maps: which of the maps it is that answer one question about the radiograph, from 1 on, and how many.
        finding: as the pipeline gives it, with score and box; None where the words are no finding of the answer.
    """

    what_it_is: ClassVar[str] = (
        "Colours span this map's own range. It shows what the model's words depend on, not where a finding ends: "
        "no segmentation."
    )

    explained: str
    answer: str | None
    method: str
    number: int
    maps: int
    finding: dict[str, Any] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        found = self.finding or {"score": None, "box": None}
        return {
            "explained": self.explained,
            "number": self.number,
            "maps": self.maps,
            "answer": self.answer,
            "score": found["score"],
            "finding_box": found["box"],
        }

    def words(self, line: Mapping[str, Any]) -> list[str]:
        given = "Given, as if it had been answered" if self.answer is None else f"Answer: {self.answer}"
        return [f'"{self.explained}": {METHODS[self.method]}', given]

    @property
    def findings(self) -> list[dict[str, Any]]:
        return [self.finding] if self.finding is not None else []


class FindingMaps(MapMaker):
    """A LiteGPT checkpoint or adapter, asked what its answers rest on.

    Raises:
        OSError: there is no such checkpoint, or the adapter's base is not found.
        ValueError: its weights do not fit, or it does not know a finding or a method.
    """

    def __init__(self, args: ExplainArguments):
        model, self.processor = load_checkpoint(args.model_name_or_path)
        self.pipe = ChestXrayFindingsPipeline(
            model=model.eval(),
            processor=self.processor,
            device="cuda" if torch.cuda.is_available() else "cpu",
            tasks=(TASK,),
        )
        check_labels_known(self.processor, args.findings or ())
        self.method = args.method or DEFAULT_METHOD
        if self.method not in METHODS:
            raise ValueError(f"--method {self.method}: a LiteGPT has {', '.join(METHODS)}.")
        asked = list(dict.fromkeys(args.findings or [TOKENS if args.tokens else ANSWER]))
        self.questions = [{"explains": words, "method": self.method} for words in asked]
        self.windowing = self.processor.windowing
        self.source = provenance(args.model_name_or_path, recorded_config(args.model_name_or_path))

    def maps(self, radiograph: Image.Image, numbers: Sequence[int]) -> list[list[RadiographMap]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was read before, and its warnings are in its info
            inputs = self.processor(
                images=radiograph, text=self.processor.prompt(TASK), add_special_tokens=False, return_tensors="pt"
            )
            pixels = {name: inputs[name] for name in PIXELS if name in inputs}
            asked = [self.questions[number]["explains"] for number in numbers]
            if asked[0] in (ANSWER, TOKENS):
                return [self._of_answer(radiograph, pixels, asked[0])]
        repeated = {name: values.expand(len(asked), -1, -1, -1) for name, values in pixels.items()}
        grids = label_maps(self.pipe.model, self.processor, repeated, asked, self.method)
        return [
            [self._map(radiograph, grid, explained=label, answer=None, number=1, maps=1)]
            for label, grid in zip(asked, grids, strict=True)
        ]

    def _of_answer(
        self, radiograph: Image.Image, pixels: dict[str, torch.Tensor], explains: str
    ) -> list[RadiographMap]:
        """A map for each finding of the answer, or for each of its tokens."""
        output = self.pipe(radiograph)
        answer, findings = output["answers"][TASK], output["findings"]
        spans: list[CharacterRange]
        if explains == TOKENS:
            _, starts = answer_tokens(self.processor.tokenizer, answer)
            # The bytes of one character start at the same place, and are explained together.
            starts = sorted(set(starts))
            spans, findings = list(zip(starts, [*starts[1:], len(answer)], strict=True)), [None] * len(starts)
        elif findings:
            spans = [finding.label_span for finding in text_to_findings(answer, self.processor.finding_labels)]
        else:
            start = answer.index(NO_FINDING)
            spans, findings = [(start, start + len(NO_FINDING))], [None]
        words = [[[span] for span in spans]]
        (grids,) = text_maps(self.pipe.model, self.processor, pixels, [answer], words, self.method, TASK)
        return [
            self._map(
                radiograph,
                grid,
                explained=answer[slice(*span)],
                answer=answer,
                number=number,
                maps=len(spans),
                finding=finding,
            )
            for number, (grid, span, finding) in enumerate(zip(grids, spans, findings, strict=True), 1)
        ]

    def _map(self, radiograph: Image.Image, grid: np.ndarray, **facts: Any) -> FindingMap:
        return FindingMap(
            grid=grid_as_given(grid, radiograph.info.get("turn")),
            size=radiograph.size,
            seen=(0, 0, *radiograph.size),
            warnings=tuple(radiograph.info.get("warnings", ())),
            method=self.method,
            **facts,
        )
