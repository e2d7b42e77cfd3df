"""The scores of the diagnoses that an answer names.

In: an `Answer`, the labels, the temperature. Out: each diagnosis with its score, the sum of the probabilities of all
answers that name it, calibrated; or the probability of its own tokens, where the former is not known.
"""

from collections.abc import Iterator, Sequence

from .answers import Diagnosis, text_to_diagnoses
from .box_scores import Answer, calibrated, span_probability


def scored_diagnoses(
    answer: Answer, labels: Sequence[str], temperature: float
) -> Iterator[tuple[Diagnosis, float | None]]:
    """Each diagnosis of the answer with its score; None where the answer has no probabilities.

    Raises:
        AnswerError: the answer cannot be parsed.
    """
    for diagnosis in text_to_diagnoses(answer.text, labels):
        probability = answer.label_probabilities.get(diagnosis.label)
        if probability is None and answer.starts:
            probability = span_probability(diagnosis.span, answer)
        yield diagnosis, None if probability is None else calibrated(probability, temperature)
