"""Whether a checkpoint knows which sentences of reports are true of a radiograph: stated probabilities against facts.

    told = told_sentences(image, "report", answer, beliefs, truth, "facts", labels)   # that it wrote itself
    borrowed = borrowed_reports(images, answers)               # of each image the report of another one, whose
    told += told_sentences(...)                                # sentences are true or false of this one
    sentence_statistic(told, 0.5)(np.ones((1, 8)))["auroc",]        # array([0.83])

In: answers, truths by row (`sentence_facts.py`), and log-odds (`word_predictions.sentence_beliefs`). Out: sentences
with a probability and a truth, and figures of them for any weights of the images. The control is the belief in the
same sentences about a third radiograph: what is left there comes of the sentences, not of the picture. A checkpoint
writes what it believes of the radiograph, so a third one's may rank its own sentences worse than chance: 0.5 stands
beside it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.sentence_facts import Truth, affirms
from litegpt.metrics.intervals import Figures, Statistic
from litegpt.metrics.probabilities import auroc
from litegpt.metrics.ratios import ratio
from litegpt.metrics.sentence_truth import sentence_figures
from litegpt.processing.word_answers import spans_of_sentences


class ToldSentence(NamedTuple):
    """A sentence about a row's radiograph whose truth is known.

    Attributes:
        image: number of the row.
        belief: that it is true, a probability or log-odds; None: unknown.
        affirms: whether it says that something is there; None: neither that nor that it is not.
    """

    image: int
    text: str
    belief: float | None
    is_true: bool
    affirms: bool | None


class Borrowed(NamedTuple):
    """The report of another image for an image, and a third one, which is neither."""

    image: int
    answer: str
    third: int


def borrowed_reports(images: Sequence[int], answers: Sequence[str]) -> list[Borrowed]:
    """Of each image another one's report; none where there are fewer than three images.

    Args:
        images: numbers of rows.
        answers: their true reports.
    """
    if len(images) < 3:
        return []
    other = random_cycle(len(images), np.random.default_rng(0))
    return [Borrowed(image, answers[other[place]], images[other[other[place]]]) for place, image in enumerate(images)]


def told_sentences(
    image: int,
    task: str,
    answer: str,
    beliefs: Sequence[float | None],
    truth: Truth | None,
    kind: str,
    labels: tuple[str, ...],
) -> list[ToldSentence]:
    """Those sentences of an answer that are known to be true or false of an image.

    Args:
        task: "report" or "grounded_report", which the answer, well formed, answers.
        beliefs: in each sentence.
        truth, kind: of the image's row, see `sentence_truths`.
        labels: that template sentences speak of.
    """
    told = []
    for (start, end), belief in zip(spans_of_sentences(task, answer), beliefs, strict=True):
        text = answer[start:end]
        is_true = None if truth is None else truth(text)
        if is_true is not None:
            told.append(ToldSentence(image, text, belief, is_true, affirms(text, kind, labels)))
    return told


def sentence_statistic(told: Iterable[ToldSentence], threshold: float) -> Statistic:
    """The figures of sentences of which a probability is known.

    Args:
        threshold: the probability below which a sentence is marked as doubtful.

    Returns:
        (rows, images) weights -> ("auroc",), of all sentences, ("auroc_affirmed",) and ("auroc_denied",), of those
        alone that say that something is there, or that it is not, ("ece",), and ("doubtful_of_false",) and
        ("doubtful_of_true",), the shares that are marked as doubtful.
    """
    known = [one for one in told if one.belief is not None]
    p = np.array([one.belief for one in known], dtype=np.float64)
    true = np.array([one.is_true for one in known], dtype=bool)
    image = np.array([one.image for one in known], dtype=int)
    said = np.array([-1 if one.affirms is None else int(one.affirms) for one in known], dtype=int)
    doubtful = p < threshold

    def statistic(weights: np.ndarray) -> Figures:
        rows = weights[:, image]
        figures = sentence_figures(p, true, image, weights)
        return {
            ("auroc",): figures["auroc",],
            **{
                (f"auroc_{name}",): auroc(p[said == value], true[said == value], rows[:, said == value])
                for name, value in (("affirmed", 1), ("denied", 0))
            },
            ("ece",): figures["ece",],
            ("doubtful_of_false",): ratio(rows @ (doubtful & ~true), rows @ ~true),
            ("doubtful_of_true",): ratio(rows @ (doubtful & true), rows @ true),
        }

    return statistic


def chance(weights: np.ndarray) -> Figures:
    """The figures of `sentence_statistic` for beliefs that are drawn by lot; NaN where they depend on the lot."""
    half, unknown = np.full(len(weights), 0.5), np.full(len(weights), np.nan)
    names = ("auroc", "auroc_affirmed", "auroc_denied", "ece", "doubtful_of_false", "doubtful_of_true")
    return {(name,): half if name.startswith("auroc") else unknown for name in names}


def sentence_counts(told: Sequence[ToldSentence]) -> dict[str, Any]:
    """How many sentences there are, and of how many nothing is believed, as they have no contrary."""
    known = [one for one in told if one.belief is not None]
    return {
        "sentences": len(known),
        "true": sum(one.is_true for one in known),
        "images": len({one.image for one in known}),
        "without_probability": len(told) - len(known),
    }
