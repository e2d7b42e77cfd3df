"""The findings that an answer names: where the model believes each, and how sure it is that one lies there.

In: an `Answer`, its text with the probabilities of its tokens; the labels; the temperature. Out: each finding with the
box of most expected IoU and its score, `box_score`, calibrated.

    for finding, score in scored_findings(answer, ["Cardiomegaly", "ILD"], temperature=1.0): ...
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from .answers import FINDINGS_PREFIX, Finding, text_to_findings
from .findings_language import GRID

RIGHT_IOU = 0.4  # above which a box counts as right
_DRAWS = np.random.default_rng(0).random((4, 256))  # the same for every box
WITHIN = (10, 4)  # units of the grid around what is written, whose mean may be the better box
DRAWN_CANDIDATES = 32
_DIGITS = re.compile(r"(?P<digits>\d+)(?P<end>\D)?")


class BoxProbabilities(NamedTuple):
    """With which probabilities an answer names a finding."""

    entry: float  # that a finding follows at all, in place of the answer's end
    label: float
    coordinates: np.ndarray  # (4, GRID + 1): of each value of x1, y1, x2 and y2, given what was written before it


def calibrated_findings(items: Sequence[Mapping[str, Any]], temperature: float) -> list[dict[str, Any]]:
    """The same findings with calibrated scores."""
    return [{**item, "score": calibrated(item["score"], temperature)} for item in items]


@dataclass(frozen=True)  # no tuple: those of a pipeline's outputs the library takes apart
class InsertedFinding:
    """A finding that could stand in an answer which does not name it: see `insertion.py`.

    Attributes:
        place: how many findings of the answer stand before it.
        box: xyxy in [0, 1], as it would be written.
        probabilities: "entry" is that the label stands there, "label" 1.
    """

    label: str
    place: int
    box: tuple[float, float, float, float]
    probabilities: BoxProbabilities


class Answer(NamedTuple):
    """An answer's text, the character at which each of its tokens starts, and the tokens' probabilities.

    `label_probabilities` are those of labels over all answers, where they are known; `considered`: number of a token
    that writes digits -> the texts that the model considered in its place, with their probabilities. `maps`: a map of
    each finding that it names, where they were asked for. `detected`: the candidates of the model's detector, where
    it has one. `inserted`: findings that it does not name; None where they were not looked for. `log_odds`: of a
    report's sentences, see `sentence_truth.py`; None of one without a contrary, nothing where they were not asked for.
    `cut_off`: whether it did not end within the longest answer.
    """

    text: str
    starts: list[int]
    probabilities: list[float]
    label_probabilities: dict[str, float] = {}
    considered: dict[int, dict[str, float]] = {}
    maps: Sequence[np.ndarray] = ()
    detected: np.ndarray | None = None
    inserted: Sequence[InsertedFinding] | None = None
    log_odds: Sequence[float | None] = ()
    cut_off: bool = False


def calibrated(probability: float, temperature: float) -> float:
    """sigmoid(logit(probability) / temperature), without a logarithm of 0; also of arrays.

    Source: temperature scaling, Guo et al., arXiv 1706.04599.
    """
    power = 1 / temperature
    return probability**power / (probability**power + (1 - probability) ** power)


def box_score(box: Sequence[float], probabilities: BoxProbabilities) -> float:
    """The score of a box, before calibration: the probability that it is right, as the model sees it.

    That a finding follows, that it has this label, and that a box drawn from the coordinates' probabilities, each by
    itself, has an IoU above 0.4 with it. Over three checkpoints trained on phantoms it ranks right above wrong boxes,
    as they are written, with an AUROC of 0.96, 0.95 and 0.90, the product of the written tokens' probabilities with
    0.90, 0.88 and 0.86. Its calibration error is 0.10, 0.11 and 0.08 without a temperature
    (benchmarks/box_score_definitions.py).
    """
    overlaps = _iou(np.array([box], dtype=float), drawn_boxes(probabilities.coordinates))
    return float(probabilities.entry * probabilities.label * (overlaps > RIGHT_IOU).mean())


def expected_box(box: Sequence[float], coordinates: np.ndarray) -> tuple[float, float, float, float]:
    """The box of most expected IoU: of some that a drawn one may be, the one that agrees best with all draws.

    It lies between the values of the grid where the answer hesitates. The candidates are the written box, the means of
    the coordinates' probabilities (all, and within `WITHIN` units of what is written), their medians, and drawn boxes.

    Args:
        box: as written.
        coordinates: (4, GRID + 1) probabilities, as in `BoxProbabilities`.
    """
    values, written = np.arange(GRID + 1), np.round(GRID * np.asarray(box, dtype=float))
    near = [np.abs(values - written[:, None]) <= units for units in (GRID, *WITHIN)]
    weights = np.stack([np.where(is_near, coordinates, 0) for is_near in near])
    means = weights @ values / np.maximum(weights.sum(-1), 1e-12) / GRID
    medians = (coordinates.cumsum(axis=1) < 0.5).sum(axis=1) / GRID
    drawn = drawn_boxes(coordinates)
    candidates = np.vstack([[box], means, [medians], drawn[:DRAWN_CANDIDATES]])
    # What has no area, or is no box at all, cannot be the answer; 1e-3 keeps a sliver from it.
    candidates = candidates[(candidates[:, 2:] - candidates[:, :2] > 1e-3).all(axis=1)]
    best = candidates[int(np.argmax(_iou(candidates, drawn).mean(axis=1).round(9)))]
    return tuple(best.clip(0, 1).tolist())


def drawn_boxes(coordinates: np.ndarray) -> np.ndarray:
    """(draws, 4) boxes xyxy drawn from the coordinates' probabilities, each by itself; NaN where it is no number."""
    drawn = np.stack(
        [values.cumsum().searchsorted(points) for values, points in zip(coordinates, _DRAWS, strict=True)]
    )
    return np.where(drawn > GRID, np.nan, drawn / GRID).T


def _iou(boxes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(boxes, draws): IoU, 0 where a draw is no box."""
    boxes, drawn = boxes[:, None], drawn[None]
    sides = np.minimum(boxes[..., 2:], drawn[..., 2:]) - np.maximum(boxes[..., :2], drawn[..., :2])
    overlap = np.clip(sides, 0, None).prod(-1)
    areas = [np.clip(some[..., 2:] - some[..., :2], 0, None).prod(-1) for some in (boxes, drawn)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(overlap / (areas[0] + areas[1] - overlap))


def box_probabilities(findings: Sequence[Finding], answer: Answer) -> list[BoxProbabilities]:
    """The probabilities of the findings that `answer`, which has probabilities, names."""
    result, previous_end = [], len(FINDINGS_PREFIX)
    for finding in findings:
        start, end = finding.span
        label_start, label_end = finding.label_span
        result.append(
            BoxProbabilities(
                span_probability((previous_end, label_start), answer),
                span_probability((label_start, label_end), answer),
                box_coordinates((start, end), answer),
            )
        )
        previous_end = end - 1  # the token that writes the last brace also says how the answer continues
    return result


def box_coordinates(span: tuple[int, int], answer: Answer) -> np.ndarray:
    """(4, GRID + 1): of each value of the coordinates of the box that is written at `span`."""
    start, end = span
    numbers = (number.span() for number in re.finditer(r"\d+", answer.text[start:end]))
    return np.stack([_coordinate((start + first, start + last), answer) for first, last in numbers])


def _coordinate(span: tuple[int, int], answer: Answer) -> np.ndarray:
    """(GRID + 1,): of each value of the coordinate that is written at `span`."""
    tokens = tokens_that_write(span, answer.starts)
    texts = [written_text(answer.text, answer.starts, number) for number in tokens]
    considered = [
        {**answer.considered.get(number, {}), text: answer.probabilities[number]}
        for number, text in zip(tokens, texts, strict=True)
    ]
    return coordinate_values(texts, considered)


def coordinate_values(texts: Sequence[str], considered: Sequence[Mapping[str, float]]) -> np.ndarray:
    """(GRID + 1,): the probability of each value of a coordinate.

    Where a coordinate takes several tokens, the model did not look at what follows a digit that it did not write: that
    digit's probability is spread evenly over the values that begin with it.

    Args:
        texts: what its tokens write.
        considered: for each of them what could have stood there, with probabilities; what is written among it.
    """
    values = np.zeros(GRID + 1)
    before, remaining = "", 1.0
    for written, others in zip(texts, considered, strict=True):
        own, same = _digits(written), 0.0
        for text, probability in others.items():
            digits, ends = _digits(text)
            if (digits, ends) == own:
                same += probability
            elif digits or before:
                possible = _values_of(before + digits, ends)
                for value in possible:
                    values[value] += remaining * probability / len(possible)
        before, remaining = before + own[0], remaining * same
    values[int(before)] += remaining
    return values


@cache
def _values_of(digits: str, ends: bool) -> tuple[int, ...]:
    """The coordinates that digits are, or begin unless the number ends behind them."""
    return tuple(v for v in range(GRID + 1) if str(v) == digits or not ends and str(v).startswith(digits))


@lru_cache(maxsize=1 << 16)
def _digits(text: str) -> tuple[str, bool]:
    """The digits that a token writes, and whether a number is at its end behind them."""
    match = _DIGITS.search(text)
    return ("", True) if match is None else (match["digits"], bool(match["end"]))


def written_text(text: str, starts: list[int], number: int) -> str:
    """What the token `number` writes."""
    return text[starts[number] : starts[number + 1] if number + 1 < len(starts) else len(text)]


def scored_findings(
    answer: Answer, labels: Sequence[str], temperature: float, written_boxes: bool = False
) -> Iterator[tuple[Finding, float | None]]:
    """Each finding of the answer with its score; None where the answer has no probabilities.

    Its box is that of most expected IoU; as it is written, with `written_boxes` or without probabilities.

    Raises:
        AnswerError: the answer cannot be parsed.
    """
    findings = text_to_findings(answer.text, labels)
    if not answer.starts:
        return zip(findings, [None] * len(findings), strict=True)
    scored = []
    for finding, probabilities in zip(findings, box_probabilities(findings, answer), strict=True):
        box = finding.box if written_boxes else expected_box(finding.box, probabilities.coordinates)
        scored.append((replace(finding, box=box), calibrated(box_score(box, probabilities), temperature)))
    return iter(scored)


def span_probability(span: tuple[int, int], answer: Answer) -> float:
    """The product over the tokens that write at least one character of `span`."""
    return math.prod(answer.probabilities[number] for number in tokens_that_write(span, answer.starts))


def tokens_that_write(span: tuple[int, int], starts: Sequence[int]) -> range:
    """Numbers of the tokens that write at least one character of `span` (first, end), by where each starts."""
    return range(max(0, bisect_right(starts, span[0]) - 1), bisect_left(starts, span[1]))
