"""Short answers to questions about images against the true ones, word by word.

In: per question the answer and the true answer, as text, and whether it is closed (yes or no, one of a few choices).
Out: of each question what it is worth; figures, each image counted as often as `weights` say.

    scores = answer_scores(
        ["Yes, there is.", "the left upper lobe"], ["yes", "left lower lobe"], is_closed=[True, False]
    )
    scores.exact  # array([ True, False])
    scores.recall  # array([1.   , 0.667]), two of the three true words
    answer_figures(scores)["closed_accuracy",]  # array([1.])
    answer_figures(scores, np.array([[1, 1], [0, 2]]))["open_f1",]  # array([0.667, 0.667])

Texts are compared in lower case, without punctuation and without "a", "an" and "the".

Sources: Rajpurkar et al., SQuAD (2016), arXiv 1606.05250, section 6.1, for F1 and how texts are compared; Li et al.,
LLaVA-Med (2023), arXiv 2306.00890, section 5, for accuracy of closed and recall of open questions.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import number_or_none, ratio, weight_rows

YES_OR_NO = ("yes", "no")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


class AnswerScores(NamedTuple):
    """What the answers to n questions are worth."""

    image: np.ndarray  # (n,) int, index of the image that each is about
    is_closed: np.ndarray  # (n,) bool
    exact: np.ndarray  # (n,) bool, the same words; of a closed question with yes or no the same of these
    recall: np.ndarray  # (n,) float, share of the true answer's words that the answer has
    f1: np.ndarray  # (n,) float, of words


def answer_scores(
    predictions: Sequence[str], references: Sequence[str], is_closed: ArrayLike, images: ArrayLike | None = None
) -> AnswerScores:
    """Scores n answers.

    Args:
        predictions, references: (n,) the answers and the true ones; no answer is "".
        is_closed: (n,) bool.
        images: (n,) index of the image of each, from 0 on, for weights. None: each is about an image of its own.

    Raises:
        ValueError: the lengths differ, or a true answer has no word.
    """
    count = len(references)
    closed = np.asarray(is_closed, dtype=bool).reshape(-1)
    image = np.arange(count) if images is None else np.asarray(images, dtype=int)
    for values, what in ((predictions, "answers"), (closed, "`is_closed`"), (image, "`images`")):
        if len(values) != count:
            raise ValueError(f"There are {count} true answers, but {len(values)} of {what}.")
    exact, recall, f1 = np.zeros(count, dtype=bool), np.zeros(count), np.zeros(count)
    for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        answered, true = words_of(prediction), words_of(reference)
        if not true:
            raise ValueError(f"references[{index}] is {reference!r}, which has no word.")
        shared = (Counter(answered) & Counter(true)).total()
        recall[index] = shared / len(true)
        f1[index] = 2 * shared / (len(answered) + len(true))
        if closed[index] and true[0] in YES_OR_NO and len(true) == 1:
            answered = answered[:1]  # "Yes, there is."
        exact[index] = answered == true
    return AnswerScores(image, closed, exact, recall, f1)


def words_of(text: str) -> list[str]:
    """The words of a text as answers are compared: lower case, no punctuation, no articles.

    What a punctuation mark joins becomes one word: "X-ray" -> "xray".
    """
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def answer_figures(scores: AnswerScores, weights: np.ndarray | None = None) -> Figures:
    """The figures of answers, for each row of weights; NaN where no question of the kind has a weight.

    Args:
        weights: (images,) or (rows, images), how often each image counts. None: once.

    Returns:
        (rows,) each: ("closed_accuracy",), the share of exact answers to closed questions; ("open_exact",),
        ("open_recall",) and ("open_f1",), the means over open ones.
    """
    rows = weight_rows(weights, scores.image.max(initial=-1) + 1 if weights is None else np.shape(weights)[-1])

    def mean(values: np.ndarray, among: np.ndarray) -> np.ndarray:
        """(rows,) the mean over some of the questions."""
        sums = (
            rows @ np.bincount(scores.image, weights=some, minlength=rows.shape[1]) for some in (values * among, among)
        )
        return ratio(*sums)

    return {
        ("closed_accuracy",): mean(scores.exact, scores.is_closed),
        ("open_exact",): mean(scores.exact, ~scores.is_closed),
        ("open_recall",): mean(scores.recall, ~scores.is_closed),
        ("open_f1",): mean(scores.f1, ~scores.is_closed),
    }


def question_answering_scores(scores: AnswerScores) -> dict[str, Any]:
    """All scores of `metrics/question_answering`: those of `answer_figures`, None where there is no such question.

    Returns:
        "closed_accuracy", "open_exact", "open_recall", "open_f1"; "num_closed", "num_open": questions.
    """
    return {
        **{name: number_or_none(values[0]) for (name,), values in answer_figures(scores).items()},
        "num_closed": int(scores.is_closed.sum()),
        "num_open": int((~scores.is_closed).sum()),
    }
