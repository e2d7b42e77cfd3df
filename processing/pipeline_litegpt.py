"""`pipeline("chest-xray-findings")`: radiographs -> findings with boxes in pixels, and diagnoses."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.pipelines.base import ChunkPipeline
from transformers.processing_utils import ProcessorMixin

from .answers import AnswerError, text_to_diagnoses, text_to_findings

FINDING_TASKS = ("identify", "grounding")


class ChestXrayFindingsPipeline(ChunkPipeline):
    """Asks a LiteGPT checkpoint for the findings and the diagnoses of radiographs, greedily.

    Example:
        >>> pipe = pipeline("chest-xray-findings", model=checkpoint, trust_remote_code=True)
        >>> pipe("radiograph.dicom")
        {"findings": [{"label": "Cardiomegaly", "score": 0.97,
                       "box": {"xmin": 389, "ymin": 532, "xmax": 829, "ymax": 758}}],
         "diagnoses": [{"label": "Other diseases", "score": 0.91}],
         "answers": {"identify": "Local diseases of ...", "vqa": "Global diseases of ..."},
         "malformed": {"identify": None, "vqa": None}}

    One radiograph (whatever the processor reads) gives one dictionary, a list or a dataset one each; `batch_size`
    batches. Boxes are in pixels of the radiograph as given. An answer that cannot be parsed has its reason under
    `malformed` and gives no findings or diagnoses. `score` is the mean probability of the tokens that write the box
    (for a diagnosis: its label).

    Args:
        tasks: identifiers to ask for, ("identify", "vqa") by default.
        max_new_tokens: the longest answer, 512 by default.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokenizer = self.processor.tokenizer  # batches are padded with it

    def _sanitize_parameters(self, tasks: tuple[str, ...] | None = None, max_new_tokens: int | None = None):
        preprocess = {} if tasks is None else {"tasks": tuple(tasks)}
        forward = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        return preprocess, forward, {}

    def preprocess(self, image: Any, tasks: tuple[str, ...] = ("identify", "vqa")) -> Iterator[dict[str, Any]]:
        radiograph = self.processor.squash(image)
        for index, task in enumerate(tasks):
            inputs = self.processor(
                images=radiograph, text=self.processor.prompt(task), add_special_tokens=False, return_tensors="pt"
            )
            yield {"is_last": index == len(tasks) - 1, "task": task, "size": radiograph.size, **inputs}

    def _forward(self, inputs: dict[str, Any], max_new_tokens: int = 512) -> dict[str, Any]:
        kept = {name: inputs.pop(name) for name in ("is_last", "task", "size")}
        probabilities = GreedyTokenProbabilities()
        sequences = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([probabilities]),
        )
        new_tokens = sequences[:, inputs["input_ids"].shape[1] :]
        return {**kept, "new_tokens": new_tokens, "probabilities": torch.stack(probabilities.steps, dim=1)}

    def postprocess(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        answers = {
            _single(output["task"]): _decode(
                self.tokenizer, output["new_tokens"].reshape(-1).tolist(), output["probabilities"].reshape(-1).tolist()
            )
            for output in outputs
        }
        return structured_answers(answers, _single(outputs[0]["size"]), self.processor)


class Answer(NamedTuple):
    """An answer's text, the character at which each of its tokens starts, and the tokens' probabilities."""

    text: str
    starts: list[int]
    probabilities: list[float]


def structured_answers(answers: dict[str, Answer], size: tuple[int, int], processor: ProcessorMixin) -> dict[str, Any]:
    """What the pipeline returns for one radiograph.

    Args:
        answers: by task; without `starts` (a server that gives no probabilities) every score is None.
        size: width and height of the radiograph, in pixels.
        processor: of the checkpoint, for its labels.
    """
    result: dict[str, Any] = {"findings": [], "diagnoses": [], "answers": {}, "malformed": {}}
    for task, answer in answers.items():
        result["answers"][task], result["malformed"][task] = answer.text, None
        try:
            if task in FINDING_TASKS:
                result["findings"] += [
                    {
                        "label": finding.label,
                        "score": _mean_probability(finding.span, answer),
                        "box": _in_pixels(finding.box, *size),
                    }
                    for finding in text_to_findings(answer.text, processor.finding_labels)
                ]
            else:
                result["diagnoses"] += [
                    {"label": diagnosis.label, "score": _mean_probability(diagnosis.span, answer)}
                    for diagnosis in text_to_diagnoses(answer.text, processor.diagnosis_labels)
                ]
        except AnswerError as error:
            result["malformed"][task] = str(error)
    return result


class GreedyTokenProbabilities(LogitsProcessor):
    """Records the probability of each step's most probable token, (batch,) a step, and changes nothing.

    Unlike `output_scores` it keeps no step's whole vocabulary, which at 32,000 tokens would take gigabytes.
    """

    def __init__(self):
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.steps.append(scores.float().softmax(dim=-1).amax(dim=-1))
        return scores


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int], probabilities: list[float]) -> Answer:
    if tokenizer.eos_token_id in tokens:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    prefixes = [tokenizer.decode(tokens[:count], skip_special_tokens=True) for count in range(len(tokens) + 1)]
    return Answer(prefixes[-1], [len(prefix) for prefix in prefixes[:-1]], probabilities[: len(tokens)])


def _mean_probability(span: tuple[int, int], answer: Answer) -> float | None:
    """Mean over the tokens that write at least one character of `span`."""
    if not answer.starts:
        return None
    ends = answer.starts[1:] + [max(span[1], answer.starts[-1] + 1)]
    inside = [
        probability
        for start, end, probability in zip(answer.starts, ends, answer.probabilities, strict=True)
        if start < span[1] and end > span[0]
    ]
    return sum(inside) / len(inside)


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


__all__ = ["ChestXrayFindingsPipeline"]
