"""Answers in words -> what the pipeline returns of them: phrases with boxes, descriptions, replies, reports.

In: a question, an `Answer` to it, and the checkpoint's processor. Out: an entry of the pipeline's output under the
kind's name, with boxes xyxy in [0, 1] of the picture as it was shown:

    word_entries(("refer", "enlarged heart"), answer, processor)
    # [{"phrase": "enlarged heart", "present": 0.97, "boxes": [{"score": 0.87, "box": (0.38, 0.52, 0.81, 0.74)}]}]
    word_entries(("report", None), answer, processor)
    # [{"text": "There is cardiomegaly.", "probability": 0.91, "verified": False, "doubtful": False}, ...]

What no grammar holds is unverified: words may be wrong however well they are put. Only a description that is one of
the checkpoint's labels counts as verified. `probability`, that a sentence is true of the image, is the model's own
belief, calibrated (`sentence_truth.py`); below the checkpoint's operating point it is doubtful. Where nothing is known
of it (a server, a sentence without a contrary) both are None.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from transformers.processing_utils import ProcessorMixin

from .answers import NO_PLACE, PLACES_PREFIX, AnswerError, Place, text_to_places, text_to_sentences
from .box_fusion import fused_views
from .box_scores import Answer
from .moved_views import MovedView, moved_views
from .place_scores import scored_places
from .report_sentences import sentence_spans
from .sentence_truth import probability_of
from .tasks import DESCRIPTION, GROUNDED_REPORT, PLACES, REPORT, TASKS

Question = tuple[str, str | None]  # a task, and what it is about


def word_entries(
    question: Question, answer: Answer, processor: ProcessorMixin, written_boxes: bool = False
) -> list[dict[str, Any]]:
    """The entries of an answer to one of `WORD_TASKS`.

    Raises:
        AnswerError: an answer with boxes cannot be parsed.
    """
    task, about = question
    kind = TASKS[task].kind
    if kind is PLACES:
        places = text_to_places(answer.text)
        nothing = answer.label_probabilities.get(NO_PLACE)
        boxes = _boxes(places, answer, len(PLACES_PREFIX), processor, written_boxes)
        return [{"phrase": about, "present": None if nothing is None else 1 - nothing, "boxes": boxes}]
    if kind is REPORT:
        spans = sentence_spans(answer.text)
        belief = answer.log_odds or [None] * len(spans)
        return [
            _sentence(answer.text[slice(*span)], odds, processor) for span, odds in zip(spans, belief, strict=True)
        ]
    if kind is GROUNDED_REPORT:
        sentences = text_to_sentences(answer.text)
        belief = answer.log_odds or [None] * len(sentences)
        return [
            _sentence(sentence.text, odds, processor)
            | {"boxes": _boxes(sentence.places, answer, sentence.span[1] + len("</p>"), processor, written_boxes)}
            for sentence, odds in zip(sentences, belief, strict=True)
        ]
    score = math.prod(answer.probabilities) if answer.starts else None
    if kind is DESCRIPTION:
        labels = {label.lower() for label in (*processor.finding_labels, *processor.diagnosis_labels)}
        verified = answer.text.rstrip(".").lower() in labels
        return [{"box": about, "text": answer.text, "score": score, "verified": verified}]
    return [{"question": about, "text": answer.text, "score": score, "verified": False}]


def phrase_of_views(
    plain: dict[str, Any], moved: Sequence[Answer], processor: ProcessorMixin, written_boxes: bool = False
) -> dict[str, Any]:
    """What the answers to a radiograph and to its `moved_views` say of a phrase; a malformed one says nothing.

    `present` is their mean. The boxes are those that most views agree on, fused as findings are, as many as the answer
    to the radiograph itself gives; one, where that says none and all together say that the phrase is there.

    Args:
        plain: the entry of the answer to the radiograph itself.
        moved: the answers to its moved views, in their order.
    """
    phrase = plain["phrase"]
    told = [(MovedView(), plain)]
    for view, answer in zip(moved_views(len(moved)), moved, strict=True):
        with suppress(AnswerError):
            told.append((view, word_entries(("refer", phrase), answer, processor, written_boxes)[0]))
    present = [entry["present"] for _, entry in told if entry["present"] is not None]
    seen = [
        [{**box, "label": phrase, "box": view.box_back(box["box"])} for box in entry["boxes"]] for view, entry in told
    ]
    seen += [[]] * (1 + len(moved) - len(told))  # what a malformed answer does not say counts as not seen
    mean = sum(present) / len(present) if present else None
    is_there = bool(plain["boxes"]) if mean is None else mean >= 0.5
    boxes = fused_views(seen)[: max(1, len(plain["boxes"]))] if is_there else []
    return {"phrase": phrase, "present": mean, "boxes": [{"score": box["score"], "box": box["box"]} for box in boxes]}


def spans_of_sentences(task: str, text: str) -> list[tuple[int, int]]:
    """Where the sentences of a report's text stand, (first character, end); none of another answer.

    Raises:
        AnswerError: a grounded report cannot be parsed.
    """
    kind = TASKS[task].kind
    if kind is GROUNDED_REPORT:
        return [sentence.span for sentence in text_to_sentences(text)]
    return sentence_spans(text) if kind is REPORT else []


def _sentence(text: str, log_odds: float | None, processor: ProcessorMixin) -> dict[str, Any]:
    calibration = processor.sentence_calibration
    probability = None if log_odds is None else probability_of(log_odds, calibration)
    doubtful = None if probability is None else probability < calibration["threshold"]
    return {"text": text, "probability": probability, "verified": False, "doubtful": doubtful}


def _boxes(
    places: Sequence[Place], answer: Answer, begin: int, processor: ProcessorMixin, written_boxes: bool
) -> list[dict[str, Any]]:
    temperature = processor.score_temperatures.get(PLACES.name, 1.0)
    scored = scored_places(places, answer, begin, temperature, written_boxes)
    return [{"score": score, "box": box} for box, score in scored]
