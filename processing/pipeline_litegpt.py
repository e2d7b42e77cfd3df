"""`pipeline("chest-xray-findings")`: radiographs -> findings with boxes in pixels, and diagnoses, all with scores."""

import math
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from types import GeneratorType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import (
    AutoModelForImageTextToText,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline
from transformers.processing_utils import ProcessorMixin

from .answer_grammar import DIAGNOSIS_TASKS, FINDING_TASKS, GRID
from .answers import FINDINGS_PREFIX, AnswerError, Finding, text_to_diagnoses, text_to_findings
from .radiograph import holds_images

TASK = "chest-xray-findings"
CANDIDATES = 128  # that are kept of each step without the constraint
RIGHT_IOU = 0.4  # above which a box counts as right
_DRAWS = np.random.default_rng(0).random((4, 256))  # the same for every box
_DIGITS = re.compile(r"(?P<digits>\d+)(?P<end>\D)?")


class ChestXrayFindingsPipeline(ChunkPipeline):
    """Asks a LiteGPT checkpoint for the findings and the diagnoses of radiographs, greedily.

    Example:
        >>> pipe = pipeline("chest-xray-findings", model=checkpoint, trust_remote_code=True)
        >>> pipe("radiograph.dicom")
        {"findings": [{"label": "Cardiomegaly", "score": 0.87,
                       "box": {"xmin": 389, "ymin": 532, "xmax": 829, "ymax": 758}}],
         "diagnoses": [{"label": "Other diseases", "score": 0.91}],
         "probabilities": {"identify": {"No finding": 0.02}, "vqa": {"Pneumonia": 0.07, "Other diseases": 0.91, ...}},
         "answers": {"identify": "Local diseases of ...", "vqa": "Global diseases of ..."},
         "malformed": {"identify": None, "vqa": None}}

    One radiograph (whatever the processor reads) gives one dictionary, a list or a dataset one each; `batch_size`
    batches. Boxes are in pixels of the radiograph as given. A model that is loaded already, quantized or with an
    adapter, is asked with `pipeline("chest-xray-findings", model=model, processor=processor)`.

    Scores and probabilities are calibrated with the checkpoint's `score_temperatures`. The score of a box is
    `box_score`. The score of a diagnosis is the sum of the probabilities of all answers that name it, as it also
    stands under `probabilities` with those of the diagnoses that the answer does not name; without the constraint it
    is the probability of the label's tokens, and `probabilities` are empty.

    Args:
        tasks: identifiers to ask for, ("identify", "vqa") by default. Of one that is about neither findings nor
            diagnoses the answer is given as it is written, and only without the constraint.
        max_new_tokens: the longest answer, 512 by default.
        constrained: only answers in the answer language with the checkpoint's labels, the default, and in fewer
            passes. Without it an answer may be malformed: it then has its reason under `malformed` and gives no
            findings or diagnoses.
        threshold: leave out findings with a smaller score; "operating_point" takes the checkpoint's own threshold for
            each label (`score_thresholds`, of calibrate.py). By default all findings are given.

    Raises:
        ValueError: "operating_point" is asked of a checkpoint without thresholds.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokenizer = self.processor.tokenizer  # batches are padded with it

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        if holds_images(inputs) and not isinstance(inputs, (list, GeneratorType, IterableDataset)):
            # A tuple, a batch of arrays, a column of a data set, whose radiographs are read one by one.
            return list(super().__call__((image for image in inputs), **kwargs))
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves a checkpoint: model, processor, and the code of both."""
        save_model_and_processor(self.model, self.processor, save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        tasks: tuple[str, ...] | None = None,
        max_new_tokens: int | None = None,
        constrained: bool | None = None,
        threshold: float | str | None = None,
    ):
        preprocess = {} if tasks is None else {"tasks": tuple(tasks)}
        forward = {"max_new_tokens": max_new_tokens, "constrained": constrained}
        forward = {name: value for name, value in forward.items() if value is not None}
        if isinstance(threshold, str):
            if threshold != "operating_point":
                raise ValueError(f"threshold is a number or 'operating_point', not '{threshold}'.")
            if not self.processor.score_thresholds:
                raise ValueError("This checkpoint has no operating points; train_scripts/calibrate.py chooses them.")
        return preprocess, forward, {} if threshold is None else {"threshold": threshold}

    def preprocess(self, image: Any, tasks: tuple[str, ...] = ("identify", "vqa")) -> Iterator[dict[str, Any]]:
        radiograph = self.processor.squash(image)
        for index, task in enumerate(tasks):
            inputs = self.processor(
                images=radiograph, text=self.processor.prompt(task), add_special_tokens=False, return_tensors="pt"
            )
            yield {"is_last": index == len(tasks) - 1, "task": task, "size": radiograph.size, **inputs}

    def _forward(self, inputs: dict[str, Any], max_new_tokens: int = 512, constrained: bool = True) -> dict[str, Any]:
        kept = {name: inputs.pop(name) for name in ("is_last", "task", "size")}
        greedy = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
        if constrained:
            output = self.model.generate(
                **inputs,
                **greedy,
                custom_generate=self.processor.constrained_greedy(),
                return_dict_in_generate=True,
            )
            sequences, token_probabilities = output.sequences, output.token_probabilities
            candidates = output.candidates, output.candidate_probabilities
            label_probabilities = output.label_probabilities
        else:
            recorded = GreedyTokenProbabilities()
            sequences = self.model.generate(**inputs, **greedy, logits_processor=LogitsProcessorList([recorded]))
            candidate_probabilities = torch.stack(recorded.steps, dim=1)
            token_probabilities = candidate_probabilities.amax(dim=-1)
            candidates = torch.stack(recorded.candidates, dim=1), candidate_probabilities
            label_probabilities = [{}] * len(sequences)
        return {
            **kept,
            "new_tokens": sequences[:, inputs["input_ids"].shape[1] :],
            "token_probabilities": token_probabilities,
            "candidates": candidates[0],
            "candidate_probabilities": candidates[1],
            "label_probabilities": label_probabilities,
        }

    def postprocess(self, outputs: list[dict[str, Any]], threshold: float | str | None = None) -> dict[str, Any]:
        size = _single(outputs[0]["size"])
        return structured_answers(self.scored_answers(outputs), size, self.processor, threshold)

    def scored_answers(self, outputs: list[dict[str, Any]]) -> dict[str, "Answer"]:
        """What the model wrote about one radiograph, by task."""
        answers = {}
        for output in outputs:
            text, starts = _decode(self.tokenizer, output["new_tokens"].reshape(-1).tolist())
            probabilities = output["token_probabilities"].reshape(-1).tolist()[: len(starts)]
            considered = self._considered(output["candidates"][0], output["candidate_probabilities"][0], text, starts)
            answers[_single(output["task"])] = Answer(
                text, starts, probabilities, _single(output["label_probabilities"]), considered
            )
        return answers

    def _considered(
        self, candidates: torch.Tensor, probabilities: torch.Tensor, text: str, starts: list[int]
    ) -> dict[int, dict[str, float]]:
        """`Answer.considered` of (tokens, candidates) ids and probabilities."""
        places = [number for number in range(len(starts)) if any(map(str.isdigit, _written(text, starts, number)))]
        if not places:
            return {}
        decode = self.tokenizer.backend_tokenizer.decode
        texts = {token: decode([token]) for token in candidates[places].unique().tolist()}
        considered = {}
        for place, ids, values in zip(
            places, candidates[places].tolist(), probabilities[places].tolist(), strict=True
        ):
            considered[place] = {}
            for token, value in zip(ids, values, strict=True):
                if value > 0:
                    considered[place][texts[token]] = considered[place].get(texts[token], 0.0) + value
        return considered


def save_model_and_processor(
    model: PreTrainedModel, processor: ProcessorMixin, folder: str | os.PathLike, **kwargs: Any
) -> None:
    """Saves both with their code, which the library copies of classes that are registered; `kwargs` are its own."""
    type(model).register_for_auto_class("AutoModelForImageTextToText")
    type(processor).register_for_auto_class("AutoProcessor")
    model.save_pretrained(folder, **kwargs)
    processor.save_pretrained(folder, **kwargs)


class Answer(NamedTuple):
    """An answer's text, the character at which each of its tokens starts, and the tokens' probabilities.

    `label_probabilities` are those of labels over all answers, where they are known; `considered`: number of a token
    that writes digits -> the texts that the model considered in its place, with their probabilities.
    """

    text: str
    starts: list[int]
    probabilities: list[float]
    label_probabilities: dict[str, float] = {}
    considered: dict[int, dict[str, float]] = {}


def structured_answers(
    answers: dict[str, Answer],
    size: tuple[int, int],
    processor: ProcessorMixin,
    threshold: float | str | None = None,
) -> dict[str, Any]:
    """What the pipeline returns for one radiograph.

    Args:
        answers: by task; without `starts` (a server that gives no probabilities) every score is None.
        size: width and height of the radiograph, in pixels.
        processor: of the checkpoint, for its labels, temperatures and thresholds.
        threshold: of the findings' scores, see the pipeline.
    """
    temperatures = processor.score_temperatures
    result: dict[str, Any] = {"findings": [], "diagnoses": [], "probabilities": {}, "answers": {}, "malformed": {}}
    for task, answer in answers.items():
        temperature = temperatures["finding" if task in FINDING_TASKS else "diagnosis"]
        probabilities = dict(answer.label_probabilities)
        if task not in FINDING_TASKS:  # of findings it is the probability of an answer, "No finding", not of a box
            probabilities = {label: calibrated(p, temperature) for label, p in probabilities.items()}
        result["answers"][task], result["probabilities"][task] = answer.text, probabilities
        result["malformed"][task] = None
        try:
            if task in FINDING_TASKS:
                result["findings"] += [
                    {"label": finding.label, "score": score, "box": _in_pixels(finding.box, *size)}
                    for finding, score in _scored_findings(answer, processor.finding_labels, temperature)
                    if score is None or score >= _least_score(threshold, finding.label, processor)
                ]
            elif task in DIAGNOSIS_TASKS:
                for diagnosis in text_to_diagnoses(answer.text, processor.diagnosis_labels):
                    score = probabilities.get(diagnosis.label)
                    if score is None and answer.starts:
                        score = calibrated(_probability(diagnosis.span, answer), temperature)
                    result["diagnoses"].append({"label": diagnosis.label, "score": score})
        except AnswerError as error:
            result["malformed"][task] = str(error)
    return result


def calibrated(probability: float, temperature: float) -> float:
    """sigmoid(logit(probability) / temperature), without a logarithm of 0; also of arrays.

    Source: temperature scaling, Guo et al., arXiv 1706.04599.
    """
    power = 1 / temperature
    return probability**power / (probability**power + (1 - probability) ** power)


class BoxProbabilities(NamedTuple):
    """With which probabilities an answer names a finding."""

    entry: float  # that a finding follows at all, in place of the answer's end
    label: float
    coordinates: np.ndarray  # (4, GRID + 1): of each value of x1, y1, x2 and y2, given what was written before it


def box_score(box: Sequence[float], probabilities: BoxProbabilities) -> float:
    """The score of a box, before calibration: the probability that it is right, as the model sees it.

    That a finding follows, that it has this label, and that a box drawn from the coordinates' probabilities, each by
    itself, has an IoU above 0.4 with the one written. Over three checkpoints trained on phantoms it ranks right above
    wrong boxes with an AUROC of 0.96, 0.95 and 0.90, the product of the written tokens' probabilities with 0.90, 0.88
    and 0.86. Its calibration error is 0.10, 0.11 and 0.08 without a temperature (benchmarks/box_score_definitions.py).
    """
    coordinates = zip(probabilities.coordinates, _DRAWS, strict=True)
    drawn = np.stack([values.cumsum().searchsorted(points) for values, points in coordinates]) / GRID
    drawn[drawn > 1] = np.nan  # something else than a coordinate; NaN is not near
    x1, y1, x2, y2 = box
    width = np.clip(np.minimum(drawn[2], x2) - np.maximum(drawn[0], x1), 0, None)
    height = np.clip(np.minimum(drawn[3], y2) - np.maximum(drawn[1], y1), 0, None)
    area = np.clip(drawn[2] - drawn[0], 0, None) * np.clip(drawn[3] - drawn[1], 0, None)
    overlap = width * height
    is_near = overlap > RIGHT_IOU * (area + (x2 - x1) * (y2 - y1) - overlap)
    return float(probabilities.entry * probabilities.label * is_near.mean())


def box_probabilities(findings: Sequence[Finding], answer: Answer) -> list[BoxProbabilities]:
    """The probabilities of the findings that `answer`, which has probabilities, names."""
    result, previous_end = [], len(FINDINGS_PREFIX)
    for finding in findings:
        start, end = finding.span
        label_end = start - len("</p> ")
        label_start = label_end - len(finding.label)
        numbers = (number.span() for number in re.finditer(r"\d+", answer.text[start:end]))
        result.append(
            BoxProbabilities(
                _probability((previous_end, label_start), answer),
                _probability((label_start, label_end), answer),
                np.stack([_coordinate((start + first, start + last), answer) for first, last in numbers]),
            )
        )
        previous_end = end - 1  # the token that writes the last brace also says how the answer goes on
    return result


def _coordinate(span: tuple[int, int], answer: Answer) -> np.ndarray:
    """(GRID + 1,): of each value of the coordinate that is written at `span`.

    Where a coordinate takes several tokens, the model did not look at what follows a digit that it did not write: that
    digit's probability is spread evenly over the values that begin with it.
    """
    values = np.zeros(GRID + 1)
    before, remaining = "", 1.0
    first, last = max(0, bisect_right(answer.starts, span[0]) - 1), bisect_left(answer.starts, span[1])
    for number in range(first, last):
        written = _DIGITS.search(_written(answer.text, answer.starts, number))
        for text, probability in answer.considered.get(number, {}).items():
            match = _DIGITS.search(text)
            if match is None or match["digits"] == written["digits"]:
                continue
            begins = before + match["digits"]
            possible = [
                v for v in range(GRID + 1) if str(v) == begins or not match["end"] and str(v).startswith(begins)
            ]
            values[possible] += remaining * probability / max(1, len(possible))
        before, remaining = before + written["digits"], remaining * answer.probabilities[number]
    values[int(before)] += remaining
    return values


def _written(text: str, starts: list[int], number: int) -> str:
    """What the token `number` writes."""
    return text[starts[number] : starts[number + 1] if number + 1 < len(starts) else len(text)]


def _scored_findings(
    answer: Answer, labels: Sequence[str], temperature: float
) -> Iterator[tuple[Finding, float | None]]:
    findings = text_to_findings(answer.text, labels)
    if not answer.starts:
        return zip(findings, [None] * len(findings), strict=True)
    scores = [
        calibrated(box_score(finding.box, p), temperature)
        for finding, p in zip(findings, box_probabilities(findings, answer), strict=True)
    ]
    return zip(findings, scores, strict=True)


def _least_score(threshold: float | str | None, label: str, processor: ProcessorMixin) -> float:
    if threshold == "operating_point":
        return processor.score_thresholds.get(label, 0.0)
    return threshold or 0.0


def _probability(span: tuple[int, int], answer: Answer) -> float:
    """The product over the tokens that write at least one character of `span`."""
    first = max(0, bisect_right(answer.starts, span[0]) - 1)
    return math.prod(answer.probabilities[first : bisect_left(answer.starts, span[1])])


class GreedyTokenProbabilities(LogitsProcessor):
    """Records each step's most probable tokens and their probabilities, (batch, `CANDIDATES`), and changes nothing.

    Unlike `output_scores` it keeps no step's whole vocabulary, which at 32,000 tokens would take gigabytes.
    """

    def __init__(self):
        self.steps: list[torch.Tensor] = []
        self.candidates: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        most = min(CANDIDATES, scores.shape[-1])
        probabilities, candidates = scores.float().softmax(dim=-1).topk(most, dim=-1)
        self.steps.append(probabilities)
        self.candidates.append(candidates)
        return scores


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> tuple[str, list[int]]:
    """The text before the end-of-sequence token, and the character at which each of its tokens starts."""
    if tokenizer.eos_token_id in tokens:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    decode = tokenizer.backend_tokenizer.decode
    starts, length = [], 0
    context: list[int] = []  # the character before, as the first token of a text loses its space
    written: list[int] = []
    for token in tokens:
        starts.append(length)
        written = [*written, token]
        text = decode(context + written)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # bytes that are not yet a character
            length += len(text) - len(decode(context))
            context, written = written, []
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    answer = text.removeprefix(" ")  # a byte-level tokenizer begins with the space behind `[/INST]`
    return answer, [max(0, start - len(text) + len(answer)) for start in starts]


def _in_pixels(box: tuple[float, float, float, float], width: int, height: int) -> dict[str, int]:
    xmin, ymin, xmax, ymax = box
    return {
        "xmin": round(xmin * width),
        "ymin": round(ymin * height),
        "xmax": round(xmax * width),
        "ymax": round(ymax * height),
    }


def _single(value: Any) -> Any:
    # In a batch the pipeline hands each radiograph's value back in a list of one.
    return value[0] if isinstance(value, list) else value


# For models that are loaded already; a checkpoint that is loaded by its name says so in `config.json`.
if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        TASK, ChestXrayFindingsPipeline, AutoModelForImageTextToText, type="multimodal"
    )

__all__ = ["ChestXrayFindingsPipeline"]
