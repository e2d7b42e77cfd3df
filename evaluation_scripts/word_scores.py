"""Answers in words -> figures for any weights of the images, so that many resamples and controls are scored at once.

    given = [given_answer(line) for line in lines]                      # of questions about a task, in their order
    statistic = word_statistic(asked, given, Reading(template_labels))
    statistic(np.ones((1, 8)))["accuracy_at_iou", "0.5"]                # array([0.71])
    figures = compared(statistic, {"shuffled": [other, another]}, 8, patients=None)
    figures["accuracy_at_iou", "0.5"].differences["shuffled"]           # Difference(0.31, 0.40, [0.33, 0.46])

In: questions about one task (`word_questions.py`), and what each is answered, by the model or by a control. Out: by
name figures, each with a 95 % interval, and how they differ from what controls reach. A malformed answer counts as
wrong; the wording alone of a report (text overlap) is scored as it is.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from litegpt.datasets_scripts.report_labels import label_states, meaning
from litegpt.datasets_scripts.template_words import fact_of
from litegpt.evaluation_scripts.report_models import chexbert_states, radgraph_rewards
from litegpt.evaluation_scripts.word_questions import WordQuestion
from litegpt.metrics.grounded_reports import plain_text, report_counts, report_figures
from litegpt.metrics.intervals import (
    NUM_RESAMPLES,
    Figures,
    Name,
    Statistic,
    means_over_the_same_labels,
    percentile_interval,
    resamples,
)
from litegpt.metrics.phrases import phrase_figures, phrase_overlaps
from litegpt.metrics.ratios import macro_mean, number_or_none, ratio
from litegpt.metrics.report_labels import agreement_figures, label_agreement
from litegpt.metrics.short_answers import answer_figures, answer_scores
from litegpt.processing.answers import text_to_sentences
from litegpt.processing.report_sentences import sentence_spans
from litegpt.processing.tasks import GROUNDED_REPORT, PLACES, REPORT, TASKS

BALANCED_IOU = "0.5"  # of present phrases, in the figure that is the mean of them and of absent ones


class Given(NamedTuple):
    """What a question is answered, by whomever.

    Attributes:
        text: the answer.
        boxes: of refer, xyxy in [0, 1]; None where the answer is malformed.
        present: of refer, the probability that the phrase is present; None where nothing states it.
        sentences: of reports, {"text", "boxes"}; none where the answer is malformed.
        malformed: why it cannot be read; None where it can.
    """

    text: str
    boxes: Sequence[Sequence[float]] | None = None
    present: float | None = None
    sentences: Sequence[Mapping[str, Any]] = ()
    malformed: str | None = None


def given_answer(line: Mapping[str, Any]) -> Given:
    """What a line of the predictions says."""
    kind, malformed = TASKS[line["task"]].kind, line["malformed"]
    entries = line[kind.output]
    if kind is PLACES and malformed is None:
        return Given(line["answer"], [box["box"] for box in entries[0]["boxes"]], entries[0]["present"])
    if kind in (REPORT, GROUNDED_REPORT) and malformed is None:
        sentences = [{"text": entry["text"], "boxes": _boxes(entry)} for entry in entries]
        return Given(line["answer"], sentences=sentences)
    return Given(line["answer"], malformed=malformed)


def _boxes(entry: Mapping[str, Any]) -> list[Sequence[float]]:
    return [box["box"] for box in entry.get("boxes", ())]


def told_answer(task: str, text: str) -> Given:
    """A report, description or reply that was not written by the model, as controls give it."""
    kind = TASKS[task].kind
    if kind is REPORT:
        return Given(text, sentences=plain_sentences(text))
    if kind is GROUNDED_REPORT:
        read = text_to_sentences(text)
        return Given(
            text, sentences=[{"text": one.text, "boxes": [place.box for place in one.places]} for one in read]
        )
    return Given(text)


def plain_sentences(text: str) -> list[dict[str, Any]]:
    """A report's sentences, without boxes."""
    return [{"text": text[slice(*span)], "boxes": []} for span in sentence_spans(text)]


@dataclass(frozen=True)
class Reading:
    """How reports are read: when two sentences say the same, and what else measures them.

    Attributes:
        template_labels: the labels that template sentences speak of; None: the reports are no templates, and sentences
            mean what the labeller of reports reads in them.
        report_models: others' models that measure reports, too: of `REPORT_MODELS`.
    """

    template_labels: tuple[str, ...] | None = None
    report_models: tuple[str, ...] = ()

    def key(self, text: str) -> Hashable:
        """Sentences of the same key are equal."""
        if self.template_labels is None:
            return _meaning(text)
        return fact_of(text, self.template_labels) or plain_text(text)

    def affirms(self, text: str) -> bool:
        """Whether a template sentence says that something is there; a sentence that is no template's does, too."""
        fact = fact_of(text, self.template_labels or ())
        return fact is None or fact.present


# Controls give the same texts over and over.
_meaning, _states = lru_cache(maxsize=100_000)(meaning), lru_cache(maxsize=100_000)(label_states)


def word_statistic(asked: Sequence[WordQuestion], given: Sequence[Given], reading: Reading) -> Statistic:
    """The figures of answers to questions about one task.

    Args:
        asked: not empty, of one task; `image` is the place of its image among the weights.
        given: the answer to each.

    Returns:
        (rows, images) weights -> figures: of refer those of `phrase_figures`, and ("balanced",), the mean of the share
        of present phrases with an IoU of at least 0.5 and of the absent ones that are answered with no box; of
        describe ("exact",); of question those of `answer_figures`; of grounded_report those of `report_figures`; of
        report the overlap of texts, agreement of labels, and of template reports ("sentences", ...), ("affirmed", ...)
        with precision, recall and F1. Affirmed are the sentences that say that something is there.
    """
    return _STATISTICS[asked[0].task](asked, given, reading)


def _refer(asked: Sequence[WordQuestion], given: Sequence[Given], reading: Reading) -> Statistic:
    overlaps = phrase_overlaps(
        [one.boxes for one in given],
        [one.truth for one in asked],
        [one.image for one in asked],
        [np.nan if one.present is None else min(1.0, max(0.0, one.present)) for one in given],
    )

    def statistic(weights: np.ndarray) -> Figures:
        figures = phrase_figures(overlaps, weights)
        both = (figures["accuracy_at_iou", BALANCED_IOU], figures["no_box_correct",])
        return {("balanced",): (both[0] + both[1]) / 2, **figures}

    return statistic


def _describe(asked: Sequence[WordQuestion], given: Sequence[Given], reading: Reading) -> Statistic:
    statistic = _question([one._replace(truth=False) for one in asked], given, reading)
    return lambda weights: {("exact",): statistic(weights)["open_exact",]}


def _question(asked: Sequence[WordQuestion], given: Sequence[Given], reading: Reading) -> Statistic:
    scores = answer_scores(
        ["" if one.malformed else one.text for one in given],
        [one.answer for one in asked],
        [one.truth for one in asked],
        [one.image for one in asked],
    )
    return lambda weights: answer_figures(scores, weights)


def _grounded_report(asked: Sequence[WordQuestion], given: Sequence[Given], reading: Reading) -> Statistic:
    images = np.array([one.image for one in asked])
    answered, true = [one.sentences for one in given], [one.truth for one in asked]
    counts = report_counts(answered, true, reading.key)
    statistics = [lambda weights: report_figures(counts, weights[:, images])]
    if reading.template_labels is not None:
        statistics.append(_affirmed(answered, true, images, reading))
    return _all_of(statistics)


def _report(asked: Sequence[WordQuestion], given: Sequence[Given], reading: Reading) -> Statistic:
    from litegpt.metrics.text_overlap.text_overlap import overlap_figures, text_overlaps  # NLTK takes seconds

    images = np.array([one.image for one in asked])
    overlaps = text_overlaps([one.text for one in given], [one.answer for one in asked])
    agreement = label_agreement(
        [_states("" if one.malformed else one.text) for one in given],
        [_states(one.answer) for one in asked],
    )
    statistics: list[Statistic] = [
        lambda weights: overlap_figures(overlaps, images, weights),
        lambda weights: agreement_figures(agreement, weights[:, images]),
    ]
    statistics += [REPORT_MODELS[name](asked, given, images) for name in reading.report_models]
    if reading.template_labels is not None:
        answered, true = [one.sentences for one in given], [plain_sentences(one.answer) for one in asked]
        counts = report_counts(answered, true, reading.key)
        statistics += [
            lambda weights: _named(report_figures(counts, weights[:, images]), "sentences"),
            _affirmed(answered, true, images, reading),
        ]
    return _all_of(statistics)


def _radgraph(asked: Sequence[WordQuestion], given: Sequence[Given], images: np.ndarray) -> Statistic:
    rewards = radgraph_rewards([one.text for one in given], [one.answer for one in asked])

    def statistic(weights: np.ndarray) -> Figures:
        rows = weights[:, images]
        return {("radgraph", level): ratio(rows @ values, rows.sum(axis=-1)) for level, values in rewards.items()}

    return statistic


def _chexbert(asked: Sequence[WordQuestion], given: Sequence[Given], images: np.ndarray) -> Statistic:
    states = chexbert_states([one.text for one in given] + [one.answer for one in asked])
    agreement = label_agreement(states[: len(given)], states[len(given) :])
    return lambda weights: {
        (f"chexbert_{name}", group): values
        for (name, group), values in agreement_figures(agreement, weights[:, images]).items()
    }


REPORT_MODELS = {"radgraph": _radgraph, "chexbert": _chexbert}


def _affirmed(
    answered: Sequence[Sequence[Mapping[str, Any]]],
    true: Sequence[Sequence[Mapping[str, Any]]],
    images: np.ndarray,
    reading: Reading,
) -> Statistic:
    """Of the sentences that say that something is there, alone."""
    some = [
        [[one for one in sentences if reading.affirms(one["text"])] for sentences in of_all]
        for of_all in (answered, true)
    ]
    counts = report_counts(*some, reading.key)
    return lambda weights: {
        ("affirmed", name): values
        for (_, name), values in _named(report_figures(counts, weights[:, images]), "sentences").items()
    }


def _named(figures: Figures, first: str) -> Figures:
    return {name: values for name, values in figures.items() if name[0] == first}


def _all_of(statistics: Sequence[Statistic]) -> Statistic:
    return lambda weights: {name: values for one in statistics for name, values in one(weights).items()}


_STATISTICS: dict[str, Callable[..., Statistic]] = {
    "refer": _refer,
    "describe": _describe,
    "report": _report,
    "grounded_report": _grounded_report,
    "question": _question,
}


# --- Beside the controls ---------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """What a control reaches, how much more the answers do, and the 95 % interval of that."""

    control: float | None
    more: float | None
    interval: list[float] | None


class Compared(NamedTuple):
    """A figure, its 95 % interval, and its difference to each control; None: it cannot be computed."""

    value: float | None
    interval: list[float] | None
    differences: dict[str, Difference]


def compared(
    statistic: Statistic,
    controls: Mapping[str, Sequence[Statistic]],
    num_images: int,
    patients: np.ndarray | None = None,
) -> dict[Name, Compared]:
    """All figures of the answers, beside what controls reach on the same images.

    Args:
        controls: by name one or more statistics, whose mean is the control's. All have the same figures.
        patients: (images,), as `bootstrap_intervals` takes them.
    """
    once = np.ones((1, num_images))
    observed = statistic(once)
    observed_controls = {name: [one(once) for one in of_control] for name, of_control in controls.items()}
    drawn: dict[Name, list[np.ndarray]] = {name: [] for name in observed}
    drawn_more: dict[tuple[str, Name], list[np.ndarray]] = {
        (control, name): [] for control in controls for name in observed
    }
    for weights in resamples(num_images, NUM_RESAMPLES, patients):
        mine = _resampled(statistic(weights), observed)
        for name, values in mine.items():
            drawn[name].append(values)
        for control, of_control in controls.items():
            theirs = [
                _resampled(one(weights), at_once)
                for one, at_once in zip(of_control, observed_controls[control], strict=True)
            ]
            for name, values in mine.items():
                drawn_more[control, name].append(values - np.mean([figures[name] for figures in theirs], axis=0))
    result = {}
    for name in observed:
        value, differences = _mean(observed[name]), {}
        for control, of_control in observed_controls.items():
            reached = float(np.mean([_mean(figures[name]) for figures in of_control]))
            known = np.isfinite(value - reached)
            interval = percentile_interval(np.concatenate(drawn_more[control, name])) if known else None
            differences[control] = Difference(number_or_none(reached), number_or_none(value - reached), interval)
        interval = percentile_interval(np.concatenate(drawn[name]))
        result[name] = Compared(number_or_none(value), interval, differences)
    return result


def _resampled(figures: Figures, observed: Figures) -> Figures:
    """(rows,) each: a figure by labels as the mean over those that have it on the images themselves."""
    return {name: means_over_the_same_labels(values, observed[name][0]) for name, values in figures.items()}


def _mean(values: np.ndarray) -> float:
    """Of the one row of a figure its value, or the mean over the labels that have one."""
    return float(values[0]) if values.ndim == 1 else float(macro_mean(values)[0])
