import pytest

from litegpt.processing.answers import PLACES_PREFIX, places_to_text, text_to_places, text_to_sentences
from litegpt.processing.box_scores import Answer
from litegpt.processing.place_scores import scored_places
from litegpt.processing.word_answers import word_entries


def answer_of(tokens: list[tuple[str, float]], **others) -> Answer:
    starts, text = [], ""
    for token, _ in tokens:
        starts.append(len(text))
        text += token
    return Answer(text, starts, [probability for _, probability in tokens], **others)


def box(x1: str, last: str, probability: float = 1.0) -> list[tuple[str, float]]:
    """A box of the image's whole height; its first coordinate has a probability."""
    return [
        (x1, probability),
        ("><", 1.0),
        ("0", 1.0),
        ("><", 1.0),
        ("90", 1.0),
        ("><", 1.0),
        ("100", 1.0),
        (last, 1.0),
    ]


def test_a_score_has_the_probability_that_a_box_follows_and_that_it_lies_there():
    answer = answer_of(
        [
            ("Boxes of this phrase are ", 1.0),
            ("{<", 0.8),
            *box("10", ">}"),
            (",", 0.5),
            ("{<", 1.0),
            *box("20", ">}"),
            (".", 0.9),
        ]
    )
    places = text_to_places(answer.text)
    (first, score), (second, other) = scored_places(places, answer, len(PLACES_PREFIX), 1.0)
    assert (score, other) == (pytest.approx(0.8), pytest.approx(0.5))
    assert first == pytest.approx((0.1, 0, 0.9, 1)) and second == pytest.approx((0.2, 0, 0.9, 1))
    assert scored_places(places, answer, len(PLACES_PREFIX), 2.0)[0][1] == pytest.approx(2 / 3)  # sigmoid(logit / 2)


def test_where_a_coordinate_is_doubtful_the_box_moves_unless_it_is_wanted_as_written():
    tokens = [("Boxes of this phrase are ", 1.0), ("{<", 1.0), *box("10", ">}", 0.5), (".", 1.0)]
    answer = answer_of(tokens, considered={2: {"10": 0.5, "30": 0.5}})
    places = text_to_places(answer.text)
    ((moved, score),) = scored_places(places, answer, len(PLACES_PREFIX), 1.0)
    ((written, same),) = scored_places(places, answer, len(PLACES_PREFIX), 1.0, written_boxes=True)
    assert written == (0.1, 0, 0.9, 1) and 0.1 < moved[0] <= 0.3 and score > 0.9 and same > 0.9


def test_without_probabilities_a_box_is_as_written_and_has_no_score():
    answer = Answer(places_to_text([(0.1, 0.2, 0.3, 0.4)]), [], [])
    assert scored_places(text_to_places(answer.text), answer, len(PLACES_PREFIX), 1.0) == [
        ((0.1, 0.2, 0.3, 0.4), None)
    ]


@pytest.mark.parametrize(
    "marks", [[("</p>", 0.25), (" {<", 0.5)], [("</", 0.25), ("p", 1.0), (">", 1.0), (" ", 0.5), ("{<", 1.0)]]
)
def test_the_box_of_a_sentence_is_as_likely_as_it_is_behind_the_sentence(processor, marks):
    """However likely it was that the sentence ends there."""
    answer = answer_of([("<p>", 1.0), ("A mass", 0.1), *marks, *box("10", ">}")])
    assert len(text_to_sentences(answer.text)) == 1
    (entry,) = word_entries(("grounded_report", None), answer, processor)
    assert entry["boxes"][0]["score"] == pytest.approx(0.5)
