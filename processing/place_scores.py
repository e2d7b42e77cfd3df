"""The boxes that an answer gives for a phrase or a sentence, each with its score.

In: an `Answer` and the `Place`s that it writes. Out: boxes of most expected IoU with `box_score`s, as of findings.

    scored_places(text_to_places(answer.text), answer, len(PLACES_PREFIX), temperature=1.0)
    # [((0.38, 0.52, 0.81, 0.74), 0.87)]
"""

from collections.abc import Sequence

from .answers import Place
from .box_scores import (
    Answer,
    BoxProbabilities,
    box_coordinates,
    box_score,
    calibrated,
    expected_box,
    span_probability,
)

Scored = tuple[tuple[float, float, float, float], float | None]


def scored_places(
    places: Sequence[Place], answer: Answer, begin: int, temperature: float, written_boxes: bool = False
) -> list[Scored]:
    """Each box, xyxy in [0, 1], with its score; None where the answer has no probabilities.

    Args:
        begin: the character at which the answer could have gone on without a box.
        written_boxes: boxes as they are written, in place of those of most expected IoU.
    """
    if not answer.starts:
        return [(place.box, None) for place in places]
    scored = []
    for place in places:
        start, end = place.span
        coordinates = box_coordinates((start, end), answer)
        probabilities = BoxProbabilities(span_probability((begin, start + 1), answer), 1.0, coordinates)
        box = place.box if written_boxes else expected_box(place.box, coordinates)
        scored.append((box, calibrated(box_score(box, probabilities), temperature)))
        begin = end - 1  # the token that writes the last brace also says how the answer continues
    return scored
