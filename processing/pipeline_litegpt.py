"""`pipeline("chest-xray-findings")`: radiographs -> findings with boxes in pixels, and diagnoses, all with scores."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from types import GeneratorType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    AutoModelForImageTextToText,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.configuration_utils import PreTrainedConfig
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline
from transformers.processing_utils import ProcessorMixin

from .answer_maps import DEFAULT_METHOD, METHODS, PIXELS, text_maps
from .answers import AnswerError, box_to_text, text_to_box, text_to_findings
from .box_fusion import (
    ANSWER,
    CANDIDATE,
    DETECTOR,
    FUSED,
    VIEW,
    detected_findings,
    fused_findings,
    fused_views,
)
from .box_scores import Answer, calibrated, calibrated_findings, written_text
from .candidates import candidate_findings
from .grounded_text import GroundedTextProcessor
from .moved_views import MovedView, moved_views
from .radiograph import (
    SquashedRadiograph,
    box_as_given,
    box_as_shown,
    box_in_pixels,
    grid_as_given,
    holds_images,
)
from .sentence_truth import sentence_log_odds
from .tasks import (
    ANSWER_KINDS,
    DEFAULT_TASKS,
    DESCRIPTION,
    DIAGNOSES,
    FINDINGS,
    GROUNDED_REPORT,
    PLACES,
    REPLY,
    REPORT,
    TASKS,
    WORD_TASKS,
    AnswerKind,
    answer_kind,
    is_free_text,
    join_question,
    shows_study,
    split_question,
)
from .word_answers import Question, phrase_of_views, spans_of_sentences, word_entries

TASK = "chest-xray-findings"
UNTRAINED_DETECTOR = "the checkpoint's detector was never trained: detected_findings and fused_findings mean nothing"
KEPT = ("is_last", "task", "about", "view", "images", "size", "turn", "warnings")  # of the inputs, for the answer
LEAST_CANDIDATE = 0.01  # probability from which on a finding that the answer leaves out is looked for
CANDIDATES = 128  # tokens that are kept of each step without the constraint
CUT_OFF = "it is cut off: it does not end within the longest answer (max_new_tokens)"
PIXEL_BOX = re.compile(r"\d+(\.\d+)?(\s+\d+(\.\d+)?){3}")  # of a question about a box
WITHOUT_BOXES = (REPORT, DESCRIPTION, REPLY)  # kinds of answers
UNTRAINED_TASK = "the checkpoint was never trained to answer [{task}]: its answer means nothing"


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
         "malformed": {"identify": None, "vqa": None},
         "warnings": []}

    One radiograph (whatever the processor reads) gives one dictionary, a list or a dataset one each; `batch_size`
    batches. A checkpoint with a detector (`modeling_detector.py`) also gives "detected_findings", what its dense heads
    see without a word, and "fused_findings", what they and the answer say together, each with its "source":
    ["answer"], ["detector"] or both. With `candidates` there are also "candidates", findings that the answer leaves
    out, and with `views` "view_findings", what the answers to several views of the radiograph say together, which then
    stand in the answer's place beside the detector, as "view".

    What `tasks` ask in words is answered in words, each kind under its own name (`word_answers.py`): "phrases" with
    boxes, "descriptions" of boxes, "replies" to questions, "report" and "grounded_report", a sentence each with the
    calibrated probability that it is true of the image. No grammar holds words: they are unverified.

        >>> pipe("radiograph.dicom", tasks=["refer: enlarged heart", "question: Is there a fracture?", "report"])
        >>> pipe({"images": ["frontal.dicom", "lateral.dicom"], "tasks": ["report"]})

    Boxes are in pixels of the radiograph as given, also where it is turned for the model because its file says that
    it is stored mirrored or rotated. `warnings` say what is doubtful about the radiograph: a window that
    does not fit, another body part, a picture that shows nothing (`load_radiograph`). A model that is loaded already,
    quantized or with an adapter, is asked with `pipeline("chest-xray-findings", model=model, processor=processor)`.

    Scores and probabilities are calibrated with the checkpoint's `score_temperatures`. The score of a box is
    `box_score`. The score of a diagnosis is the sum of the probabilities of all answers that name it, as it also
    stands under `probabilities` with those of the diagnoses that the answer does not name; without the constraint it
    is the probability of the label's tokens, and `probabilities` are empty.

    Args:
        tasks: what to ask, ("identify", "vqa") by default: a task, or a task and what it is about, "refer: PHRASE",
            "question: WORDS", "describe: 389 532 829 758"; ("describe", {"xmin": ..., ...}) has the box, in pixels,
            too. A radiograph may have its own, {"images": [radiograph], "tasks": [...]}; a second image there is
            another view of its study, which reports are told. Of a task that this code does not know the answer is
            given as it is written, and only without the constraint.
        max_new_tokens: the longest answer, 512 by default.
        constrained: only answers in the answer language with the checkpoint's labels, the default, and in fewer
            passes. Without it an answer may be malformed: it then has its reason under `malformed` and gives no
            findings or diagnoses.
        threshold: leave out findings with a smaller score; "operating_point" takes the checkpoint's own threshold for
            each label (`score_thresholds`, of calibrate.py). By default all findings are given.
        relative_boxes: boxes in fractions of the radiograph's width and height, in place of pixels.
        written_boxes: boxes as the answer writes them, on a grid of 100, in place of those of most expected IoU, which
            the same probabilities tell (`expected_box`). The answer's text is the same.
        candidates: look for findings that the answer leaves out. True: of at least 1 % probability of standing in it;
            or that least probability. They have scores like the answer's; at the operating point those that reach it
            stand among the findings, each of which then has its "source", "answer" or "candidate".
        views: in how many other views, slightly moved, never mirrored, each radiograph is shown beside itself. With
            `candidates` each view has its own. The boxes of phrases are then those that the views say together.
        compiled: compile the passes of constrained answers: for thousands of radiographs, see `ConstrainedGreedy`.
        explain: give each finding a "map", (g, g) float32, over the whole radiograph as given: what in it speaks for
            the finding's label, `answer_maps`. True for integrated gradients, or a name of `METHODS`. The answer is
            explained as the tokenizer writes it.

    Raises:
        ValueError: "operating_point" is asked of a checkpoint without thresholds; there is no such method; candidates
            of answers that are not constrained.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = True

    def __init__(self, *args, **kwargs):
        # What a call is made with unless it says otherwise, as far as it matters before the library has it.
        self._given = {name: kwargs.get(name) for name in ("candidates", "views", "batch_size", "max_new_tokens")}
        self._prompts: dict[str, dict[str, torch.Tensor]] = {}  # as the processor makes them, the same for every image
        super().__init__(*args, **kwargs)
        self.tokenizer = self.processor.tokenizer  # batches are padded with it

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        given = self._given | kwargs
        if given["max_new_tokens"] is not None:  # the library keeps it for pipelines that hand on to `generate` alone
            kwargs["max_new_tokens"] = given["max_new_tokens"]
        views = given["views"] or 0
        if views:  # those of one radiograph are answered together
            kwargs["batch_size"] = max(views + 1, given["batch_size"] or 1)
        if holds_images(inputs) and not isinstance(inputs, (list, GeneratorType, IterableDataset)):
            # A tuple, a batch of arrays, a column of a data set, whose radiographs are read one by one.
            return list(super().__call__((image for image in inputs), **kwargs))
        if views and not holds_images(inputs) and not isinstance(inputs, Dataset):
            return super().__call__([inputs], **kwargs)[0]
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves a checkpoint: model, processor, and the code of both."""
        save_model_and_processor(self.model, self.processor, save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        tasks: Sequence[Any] | str | None = None,
        max_new_tokens: int | None = None,
        constrained: bool | None = None,
        threshold: float | str | None = None,
        explain: bool | str | None = None,
        relative_boxes: bool | None = None,
        written_boxes: bool | None = None,
        candidates: bool | float | None = None,
        views: int | None = None,
        compiled: bool | None = None,
    ):
        preprocess = {} if tasks is None else {"tasks": tasks}
        if views is not None:
            preprocess["views"] = views
        forward = {"max_new_tokens": max_new_tokens, "constrained": constrained, "compiled": compiled}
        forward = {name: value for name, value in forward.items() if value is not None}
        if candidates is not None:
            least = LEAST_CANDIDATE if candidates else None
            forward["candidates"] = least if isinstance(candidates, bool) else candidates
        if explain is not None:
            forward["explain"] = {True: DEFAULT_METHOD, False: None}.get(explain, explain)
            if forward["explain"] not in (None, *METHODS):
                raise ValueError(f"explain is True, False or one of {', '.join(METHODS)}, not {explain!r}.")
        if isinstance(threshold, str):
            if threshold != "operating_point":
                raise ValueError(f"threshold is a number or 'operating_point', not '{threshold}'.")
            needed = ["score_thresholds"]
            if self._has_detector:
                needed += ["detector_thresholds", "fused_thresholds"]
            needed += ["candidate_thresholds"] if candidates or self._given["candidates"] else []
            needed += ["view_thresholds"] if views or self._given["views"] else []
            missing = [name for name in needed if not getattr(self.processor, name, None)]
            if missing:
                raise ValueError(
                    f"This checkpoint has no operating points ({', '.join(missing)}); evaluation_scripts/calibrate.py "
                    "chooses them."
                )
        postprocess = {"threshold": threshold, "relative_boxes": relative_boxes, "written_boxes": written_boxes}
        return preprocess, forward, {name: value for name, value in postprocess.items() if value is not None}

    def preprocess(
        self, image: Any, tasks: Sequence[Any] | str = DEFAULT_TASKS, views: int = 0
    ) -> Iterator[dict[str, Any]]:
        images = [image]
        if isinstance(image, dict) and "images" in image:
            images, tasks = list(image["images"]), image.get("tasks", tasks)
            if not images:
                raise ValueError('{"images": []} names no radiograph.')
        if not tasks:
            raise ValueError("No task is asked.")
        radiograph, *others = (self.processor.squash(one) for one in images)
        doubts = tuple(doubt for one in (radiograph, *others) for doubt in one.warnings)
        about = {"size": radiograph.size, "turn": radiograph.turn, "warnings": doubts}
        shown = [radiograph, *(view.radiograph(radiograph) for view in moved_views(views))]
        questions = [as_question(asked, radiograph) for asked in ([tasks] if isinstance(tasks, str) else tasks)]
        asked = [
            (question, view) for question in questions for view in range(len(shown) if _is_fused(question[0]) else 1)
        ]
        pixels: dict[tuple[int, int], dict[str, tuple[torch.Tensor]]] = {}
        for index, ((task, subject), view) in enumerate(asked):
            together = [shown[view], *(others if shows_study(task) else ())]
            prompt = self.processor.prompt(task, subject, len(together))
            words = self._prompts.get(prompt)
            if (view, len(together)) not in pixels:
                inputs = self.processor(images=together, text=prompt, add_special_tokens=False, return_tensors="pt")
                # In tuples: the library would keep one image a row of the second tower's.
                pixels[view, len(together)] = {name: (inputs.pop(name),) for name in PIXELS if name in inputs}
                words = dict(inputs)
            elif words is None:
                text = prompt.replace(self.processor.image_token, self.processor.expanded_image)
                words = dict(self.tokenizer([text], add_special_tokens=False, return_tensors="pt"))
            if subject is None:  # there are as many others as phrases and questions
                self._prompts[prompt] = words
            kept = {"task": task, "about": subject, "view": view, "images": len(together), **about}
            yield {"is_last": index == len(asked) - 1, **kept, **words, **pixels[view, len(together)]}

    def _forward(
        self,
        inputs: dict[str, Any],
        max_new_tokens: int = 512,
        constrained: bool = True,
        explain: str | None = None,
        candidates: float | None = None,
        compiled: bool = False,
    ) -> dict[str, Any]:
        if candidates is not None and not constrained:
            raise ValueError("candidates are what a constrained answer leaves out: constrained=False has none.")
        kept = {name: inputs.pop(name) for name in KEPT if name in inputs}
        given = {name: inputs.pop(name) for name in PIXELS if name in inputs}
        pixels = {name: torch.cat([one for (one,) in _of_rows(of)]) for name, of in given.items()}
        # In a batch each row has its own task, view and number of images, alone the one row has.
        tasks, views, counts = (_of_rows(kept[name]) for name in ("task", "view", "images"))
        first = [sum(counts[:row]) for row in range(len(counts))]  # of each row's images, its radiograph
        # A moved view is asked for its answer alone.
        of_plain = ["" if view else task for task, view in zip(tasks, views, strict=True)]
        with torch.no_grad():
            once, numbers = shown_once(pixels)
            features = self.model.get_patch_features(**once)
            detected = self._detected(features, [numbers[image] for image in first], of_plain)
            image = self.model.get_image_features(patch_features=features, return_dict=True)
        tokens = image.pooler_output
        # The same tensor for all rows about a radiograph: what their prompts have in common is read once.
        shown = [[tokens[numbers[first[row] + i]] for i in range(count)] for row, count in enumerate(counts)]

        def asked(rows: Sequence[int]) -> dict[str, Any]:
            visual = type(image)(pooler_output=[one for row in rows for one in shown[row]])
            return {**{name: of[list(rows)] for name, of in inputs.items()}, "mm_encoder_outputs": {"image": visual}}

        limit = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
        with_form = [row for row, task in enumerate(tasks) if constrained and not is_free_text(task)]
        in_words = [row for row in range(len(tasks)) if row not in with_form]
        answered: dict[int, dict[str, Any]] = {}
        if with_form:
            way = self.processor.constrained_greedy(least_insertion=candidates, compiled=compiled)
            output = self.model.generate(
                **asked(with_form), **limit, custom_generate=way, return_dict_in_generate=True
            )
            length = inputs["input_ids"].shape[1]
            for number, row in enumerate(with_form):
                with_candidates = candidates is not None and _has_boxes(tasks[row])
                answered[row] = {
                    "new_tokens": output.sequences[number, length:],
                    "token_probabilities": output.token_probabilities[number],
                    "candidates": output.candidates[number],
                    "candidate_probabilities": output.candidate_probabilities[number],
                    "label_probabilities": output.label_probabilities[number],
                    "inserted": (tuple(output.inserted_findings[number]),) if with_candidates else (),
                    "log_odds": (),
                }
        if in_words:
            answered |= self._in_words(asked, in_words, [tasks[row] for row in in_words], limit, constrained)
        answers = [answered[row] for row in range(len(tasks))]
        new_tokens = [answer["new_tokens"] for answer in answers]
        return {
            **kept,
            **{name: [answer[name] for answer in answers] for name in answers[0]},
            "maps": self._maps(new_tokens, of_plain, {name: of[first] for name, of in pixels.items()}, explain),
            "detected": detected,
        }

    def _in_words(
        self,
        asked: Callable[[Sequence[int]], dict[str, Any]],
        rows: Sequence[int],
        tasks: Sequence[str],
        limit: dict[str, Any],
        constrained: bool,
    ) -> dict[int, dict[str, Any]]:
        """By row the answer to each of `tasks` in plain greedy decoding, and its sentences' log-odds.

        Args:
            asked: gives the model's inputs of some rows.
            limit: how long an answer may be, and that it is greedy.
            constrained: boxes in grounded reports have their form.
        """
        inputs, recorded = asked(rows), GreedyTokenProbabilities()
        grounded = [constrained and answer_kind(task) is GROUNDED_REPORT for task in tasks]
        processors = [GroundedTextProcessor(self.tokenizer, grounded)] if any(grounded) else []
        sequences = self.model.generate(
            **inputs, **limit, logits_processor=LogitsProcessorList([*processors, recorded])
        )
        new_tokens = sequences[:, inputs["input_ids"].shape[1] :]
        probabilities, considered = torch.stack(recorded.steps, dim=1), torch.stack(recorded.candidates, dim=1)
        answered = {}
        for number, (row, task) in enumerate(zip(rows, tasks, strict=True)):
            kept = 1 if answer_kind(task) in WITHOUT_BOXES else None  # the others say where a box may lie
            answered[row] = {
                "new_tokens": new_tokens[number],
                "token_probabilities": probabilities[number].amax(dim=-1),
                "candidates": considered[number, :, :kept].contiguous(),
                "candidate_probabilities": probabilities[number, :, :kept].contiguous(),
                "label_probabilities": {},
                "inserted": (),
                "log_odds": (),
            }
        reports: dict[int, tuple[str, list[tuple[int, int]]]] = {}
        for row, task, tokens in zip(rows, tasks, new_tokens.tolist(), strict=True):
            if task not in WORD_TASKS or self.tokenizer.eos_token_id not in tokens:  # what is cut off is malformed
                continue
            text, _ = _decode(self.tokenizer, tokens)
            with suppress(AnswerError):  # `structured_answers` says so
                if spans := spans_of_sentences(task, text):
                    reports[row] = text, spans
        if reports:
            texts, spans = zip(*reports.values(), strict=True)
            believed = sentence_log_odds(self.model, self.processor, asked(list(reports)), texts, spans)
            for row, log_odds in zip(reports, believed, strict=True):
                answered[row]["log_odds"] = (tuple(log_odds),)
        return answered

    @property
    def _has_detector(self) -> bool:
        return getattr(self.model.config, "num_detector_labels", 0) > 0

    def _detected(
        self, features: torch.Tensor, numbers: Sequence[int], tasks: Sequence[str]
    ) -> list[tuple[np.ndarray, ...]]:
        """For each row the candidates of the model's detector; none without one, or where no boxes are asked for.

        Args:
            features: of each radiograph that is shown.
            numbers: of each row's radiograph.
        """
        if not self._has_detector or not any(map(_has_boxes, tasks)):
            return [()] * len(tasks)
        candidates = self.model.detect(features).float().cpu().numpy()
        return [(candidates[number],) if _has_boxes(task) else () for number, task in zip(numbers, tasks, strict=True)]

    def _maps(
        self,
        new_tokens: Sequence[torch.Tensor],
        tasks: Sequence[str],
        pixels: dict[str, torch.Tensor],
        method: str | None,
    ) -> list[tuple[np.ndarray, ...]]:
        """For each row a map (g, g) of each finding that its answer names; none where nothing is to be explained."""
        maps: list[tuple[np.ndarray, ...]] = [()] * len(new_tokens)
        for task in sorted(set(tasks)) if method is not None else ():
            rows, answers, words = [], [], []
            if not _has_boxes(task):
                continue
            for row in (number for number, asked in enumerate(tasks) if asked == task):
                answer, _ = _decode(self.tokenizer, new_tokens[row].tolist())
                try:
                    named = text_to_findings(answer, self.processor.finding_labels)
                except AnswerError:  # `structured_answers` says so
                    continue
                if named:
                    rows, answers = [*rows, row], [*answers, answer]
                    words.append([[finding.label_span] for finding in named])
            if rows:
                shown = {name: values[rows] for name, values in pixels.items()}
                found = text_maps(self.model, self.processor, shown, answers, words, method, task)
                for row, of_row in zip(rows, found, strict=True):
                    maps[row] = tuple(of_row)
        return maps

    def postprocess(
        self,
        outputs: list[dict[str, Any]],
        threshold: float | str | None = None,
        relative_boxes: bool = False,
        written_boxes: bool = False,
    ) -> dict[str, Any]:
        by_view: dict[int, list[dict[str, Any]]] = {}
        for output in outputs:
            by_view.setdefault(_single(output["view"]), []).append(output)
        answers, *moved = (self.scored_answers(of_view) for of_view in by_view.values())
        warnings = _single(outputs[0].get("warnings", ()))
        if any(answer.detected is not None for answer in answers.values()) and not was_trained(
            self.model.config, DETECTOR
        ):
            warnings = [*warnings, UNTRAINED_DETECTOR]
        warnings = [*warnings, *untrained_tasks(self.model.config, answers)]
        size = None if relative_boxes else _single(outputs[0]["size"])
        shown = Shown(size, _single(outputs[0].get("turn")), warnings)
        return structured_answers(answers, shown, self.processor, threshold, written_boxes, moved)

    def scored_answers(self, outputs: list[dict[str, Any]]) -> dict[str, "Answer"]:
        """What the model wrote about one radiograph, by question."""
        answers = {}
        for output in outputs:
            new_tokens = _single(output["new_tokens"]).reshape(-1).tolist()
            text, starts = _decode(self.tokenizer, new_tokens)
            probabilities = _single(output["token_probabilities"]).reshape(-1).tolist()[: len(starts)]
            candidates, likely = (
                _single(output[name]).flatten(end_dim=-2) for name in ("candidates", "candidate_probabilities")
            )
            considered = self._considered(candidates, likely, text, starts)
            detected, inserted, log_odds = (
                next(iter(_single(output.get(of, ()))), None) for of in ("detected", "inserted", "log_odds")
            )
            answers[join_question(_single(output["task"]), _single(output.get("about")))] = Answer(
                text,
                starts,
                probabilities,
                label_probabilities=_single(output["label_probabilities"]),
                considered=considered,
                maps=_single(output.get("maps", ())),
                detected=detected,
                inserted=inserted,
                log_odds=log_odds or (),
                cut_off=self.tokenizer.eos_token_id not in new_tokens,
            )
        return answers

    def _considered(
        self, candidates: torch.Tensor, probabilities: torch.Tensor, text: str, starts: list[int]
    ) -> dict[int, dict[str, float]]:
        """`Answer.considered` of (tokens, candidates) ids and probabilities."""
        places = [number for number in range(len(starts)) if any(map(str.isdigit, written_text(text, starts, number)))]
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


def shown_once(pixels: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Each radiograph once, and its number for each row: rows about the same one stand one after another."""
    is_other = torch.zeros(len(next(iter(pixels.values()))) - 1, dtype=torch.bool)
    for values in pixels.values():
        is_other |= (values[1:] != values[:-1]).flatten(1).any(dim=1).cpu()
    numbers = [0, *is_other.cumsum(dim=0).tolist()]
    first = [numbers.index(number) for number in range(numbers[-1] + 1)]
    return {name: values[first] for name, values in pixels.items()}, numbers


def _is_fused(task: str) -> bool:
    """Whether the answers about several views of a radiograph can be told as one."""
    return _has_boxes(task) or answer_kind(task) is PLACES


def _has_boxes(task: str) -> bool:
    kind = answer_kind(task)
    return kind is not None and kind.has_boxes


def as_question(asked: Any, radiograph: "SquashedRadiograph | Shown") -> Question:
    """A task and what it is about, of a question string or a pair.

    Args:
        asked: "refer: enlarged heart"; "describe: 389 532 829 758", the box in pixels of the radiograph as given; or
            ("describe", box), likewise: xyxy, or {"xmin", "ymin", "xmax", "ymax"}.
        radiograph: its size, and how it is shown.

    Raises:
        ValueError: the task needs to be told what it is about, or is about the radiograph alone; the box has no area
            in the radiograph.
    """
    task, about = (asked, None) if isinstance(asked, str) else asked
    if about is None or isinstance(about, str):
        task, about = split_question(join_question(task, about))
    if isinstance(about, str) and PIXEL_BOX.fullmatch(about) and task in TASKS and TASKS[task].about == "box":
        about = [float(side) for side in about.split()]
    if about is None or isinstance(about, str):
        return task, about
    sides = ("xmin", "ymin", "xmax", "ymax")
    corners = [about[side] for side in sides] if isinstance(about, dict) else list(about)
    width, height = radiograph.size
    if not (0 <= corners[0] < corners[2] <= width and 0 <= corners[1] < corners[3] <= height):
        box = " ".join(f"{side:g}" for side in corners)
        raise ValueError(f"The box {box} is none in a radiograph of {width} x {height} pixels: xmin ymin xmax ymax.")
    box = tuple(value / side for value, side in zip(corners, (width, height) * 2, strict=True))
    return task, box_to_text(box_as_shown(box, radiograph.turn))


def was_asked(config: PreTrainedConfig, task: str) -> bool:
    """Whether a checkpoint's record of its trainings names a task; True where there is no record."""
    record = getattr(config, "training_record", None) or []
    return not record or any(task in entry["tasks"] for entry in record)


def untrained_tasks(config: PreTrainedConfig, questions: Iterable[str]) -> list[str]:
    """A warning for each task in words that questions ask and the checkpoint was never trained to answer."""
    asked = dict.fromkeys(split_question(question)[0] for question in questions)
    never = [task for task in asked if task in WORD_TASKS and not was_asked(config, task)]
    return [UNTRAINED_TASK.format(task=task) for task in never]


def was_trained(config: PreTrainedConfig, part: str) -> bool:
    """Whether a checkpoint's record of its trainings names a part, such as "detector"."""
    record = getattr(config, "training_record", None) or []
    return any(part in entry["trained"] for entry in record)


def save_model_and_processor(
    model: PreTrainedModel, processor: ProcessorMixin, folder: str | os.PathLike, **kwargs: Any
) -> None:
    """Saves both with their code, which the library copies of classes that are registered; `kwargs` are its own."""
    type(model).register_for_auto_class("AutoModelForImageTextToText")
    type(processor).register_for_auto_class("AutoProcessor")
    model.save_pretrained(folder, **kwargs)
    processor.save_pretrained(folder, **kwargs)


class Shown(NamedTuple):
    """How a radiograph was given, and shown to the model.

    Attributes:
        size: its width and height in pixels; None: boxes are given as fractions of them.
        turn: what it was shown with, which boxes are freed of.
        warnings: what is doubtful about it.
    """

    size: tuple[int, int] | None
    turn: Image.Transpose | None = None
    warnings: Sequence[str] = ()


def structured_answers(
    answers: dict[str, Answer],
    shown: Shown,
    processor: ProcessorMixin,
    threshold: float | str | None = None,
    written_boxes: bool = False,
    moved: Sequence[dict[str, Answer]] = (),
) -> dict[str, Any]:
    """What the pipeline returns for one radiograph.

    Args:
        answers: by question; without `starts` (a server that gives no probabilities) every score is None.
        processor: of the checkpoint, for its labels, temperatures and thresholds.
        threshold, written_boxes: of the findings, see the pipeline.
        moved: the answers to the same radiograph in each of `moved_views`, where it was shown in them.
    """
    result: dict[str, Any] = {kind.output: [] for kind in ANSWER_KINDS}
    result |= {"probabilities": {}, "answers": {}, "malformed": {}, "warnings": list(shown.warnings)}
    for question, answer in answers.items():
        task, about = split_question(question)
        kind = answer_kind(task)
        probabilities = dict(answer.label_probabilities)
        if kind is DIAGNOSES:  # of findings it is the probability of an answer, "No finding", not of a box
            temperature = processor.score_temperatures[kind.name]
            probabilities = {label: calibrated(p, temperature) for label, p in probabilities.items()}
        result["answers"][question], result["probabilities"][question] = answer.text, probabilities
        result["malformed"][question] = None
        if task in WORD_TASKS:
            entries = result.setdefault(kind.output, [])
            try:
                if answer.cut_off:
                    raise AnswerError(CUT_OFF)
                words = word_entries((task, about), answer, processor, written_boxes)
                views = [of_view[question] for of_view in moved if question in of_view]
                if kind is PLACES and views:  # a server is asked about moved views for findings alone
                    words = [phrase_of_views(words[0], views, processor, written_boxes)]
            except AnswerError as error:
                result["malformed"][question] = str(error)
            else:
                entries.extend(_entry_as_given(entry, shown) for entry in words)
        elif kind is not None:
            named = []
            try:
                named = _named(answer, kind, processor, written_boxes)
            except AnswerError as error:
                result["malformed"][question] = str(error)
            found = {kind.output: _kept(named, threshold, processor.score_thresholds) if kind.has_boxes else named}
            if answer.inserted is not None:
                found |= _with_candidates(answer, named, processor, threshold, written_boxes)
            said, who = named, ANSWER
            if moved and kind.has_boxes:
                views = [answer, *(of_view[question] for of_view in moved)]
                said, who = _of_views(views, processor, written_boxes), VIEW
                found["view_findings"] = _kept(said, threshold, processor.view_thresholds)
            if answer.detected is not None:
                found |= _seen(answer.detected, said, who, processor, threshold)
            for name, items in found.items():
                result.setdefault(name, []).extend(_as_given(item, shown.size, shown.turn) for item in items)
    return result


def _with_candidates(
    answer: Answer,
    named: Sequence[dict[str, Any]],
    processor: ProcessorMixin,
    threshold: float | str | None,
    written_boxes: bool,
) -> dict[str, list[dict[str, Any]]]:
    """What the answer leaves out; at the operating point those that reach it are among its findings."""
    temperature = processor.score_temperatures.get(CANDIDATE, 1.0)
    left_out = calibrated_findings(candidate_findings(answer.inserted, named, written_boxes), temperature)
    if threshold != "operating_point":
        return {"candidates": _kept(left_out, threshold, {})}
    kept, taken = (_kept(items, threshold, processor.candidate_thresholds) for items in (named, left_out))
    findings = [{**item, "source": [ANSWER]} for item in kept] + [{**item, "source": [CANDIDATE]} for item in taken]
    return {"findings": findings, "candidates": [item for item in left_out if item not in taken]}


def _of_views(answers: Sequence[Answer], processor: ProcessorMixin, written_boxes: bool) -> list[dict[str, Any]]:
    """What the answers to the radiograph and to its moved views say together; a malformed answer says nothing."""
    seen = []
    for view, answer in zip((MovedView(), *moved_views(len(answers) - 1)), answers, strict=True):
        found: list[dict[str, Any]] = []
        with suppress(AnswerError):  # of the radiograph itself `structured_answers` says so
            named = FINDINGS.scored(answer, processor.finding_labels, 1.0, written_boxes)
            found = [{"label": item.label, "score": score, "box": item.box} for item, score in named]
        found += candidate_findings(answer.inserted or (), found, written_boxes)
        seen.append([{**item, "box": view.box_back(item["box"])} for item in found])
    return calibrated_findings(fused_views(seen), processor.score_temperatures.get(VIEW, 1.0))


def _seen(
    candidates: np.ndarray,
    said: Sequence[dict[str, Any]],
    who: str,
    processor: ProcessorMixin,
    threshold: float | str | None,
) -> dict[str, list[dict[str, Any]]]:
    """What the detector finds, and what it and all that the answer, or several views, said say together."""
    temperatures = {kind: processor.score_temperatures.get(kind, 1.0) for kind in (DETECTOR, FUSED)}
    detected = calibrated_findings(detected_findings(candidates, processor.finding_labels), temperatures[DETECTOR])
    fused = calibrated_findings(fused_findings(said, detected, who), temperatures[FUSED])
    return {
        "detected_findings": _kept(detected, threshold, processor.detector_thresholds),
        "fused_findings": _kept(fused, threshold, processor.fused_thresholds),
    }


def _kept(
    items: Sequence[dict[str, Any]], threshold: float | str | None, thresholds: dict[str, float]
) -> list[dict[str, Any]]:
    """Those whose score reaches the threshold; what has no score is kept."""

    def least(label: str) -> float:
        return thresholds.get(label, 0.0) if threshold == "operating_point" else threshold or 0.0

    return [item for item in items if item["score"] is None or item["score"] >= least(item["label"])]


def _as_given(item: dict[str, Any], size: tuple[int, int] | None, turn: Image.Transpose | None) -> dict[str, Any]:
    """What is named with its box in pixels, or fractions, of the radiograph as given, and its map as that lies."""
    item = dict(item)
    if "box" in item:
        box = box_as_given(item["box"], turn)
        sides = ("xmin", "ymin", "xmax", "ymax")
        item["box"] = dict(zip(sides, box, strict=True)) if size is None else box_in_pixels(box, *size)
    if "map" in item:
        item["map"] = grid_as_given(item["map"], turn)
    return item


def _entry_as_given(entry: dict[str, Any], shown: Shown) -> dict[str, Any]:
    """What is said in words, its boxes as `_as_given` has them."""
    if "boxes" in entry:
        return {**entry, "boxes": [_as_given(box, shown.size, shown.turn) for box in entry["boxes"]]}
    if "box" in entry:  # of a description, as the prompt has it
        return _as_given({**entry, "box": text_to_box(entry["box"])}, shown.size, shown.turn)
    return entry


def _named(answer: Answer, kind: AnswerKind, processor: ProcessorMixin, written_boxes: bool) -> list[dict[str, Any]]:
    """What the answer names, with scores, and boxes and maps as it has them."""
    labels, temperature = getattr(processor, f"{kind.name}_labels"), processor.score_temperatures[kind.name]
    named, options = [], {"written_boxes": written_boxes} if kind.has_boxes else {}
    for number, (item, score) in enumerate(kind.scored(answer, labels, temperature, **options)):
        one = {"label": item.label, "score": score}
        if kind.has_boxes:
            one |= {"box": item.box} | ({"map": answer.maps[number]} if answer.maps else {})
        named.append(one)
    return named


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
    answer = text.removeprefix(" ")  # a byte-level tokenizer begins with the space after `[/INST]`
    return answer, [max(0, start - len(text) + len(answer)) for start in starts]


def _of_rows(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _single(value: Any) -> Any:
    # In a batch the pipeline hands each radiograph's value back in a list of one.
    return value[0] if isinstance(value, list) else value


# For models that are loaded already; a checkpoint that is loaded by its name says so in `config.json`.
if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        TASK, ChestXrayFindingsPipeline, AutoModelForImageTextToText, type="multimodal"
    )

__all__ = ["ChestXrayFindingsPipeline"]
