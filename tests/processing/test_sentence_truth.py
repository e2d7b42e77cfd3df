"""The log-odds of sentences, against those of whole texts that are read one by one, without a cache or a tree."""

import math

import pytest
import torch
from transformers import set_seed

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing import sentence_truth
from litegpt.processing.answers import text_to_sentences
from litegpt.processing.report_sentences import contraries, sentence_spans
from litegpt.processing.sentence_truth import probability_of, sentence_log_odds

REPORT = "The heart is enlarged. No effusion. There is a mass, which is new. Please compare. Edema."


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    model, processor = load_checkpoint(tiny_checkpoint)
    set_seed(0)
    model.lm_head.weight.data.normal_(0, 1)
    return model.eval(), processor


def inputs_of(loaded, images, task="report"):
    """The model's inputs, as the pipeline has them; `images`: those of each row."""
    model, processor = loaded
    texts = [processor.prompt(task, num_images=len(of_row)) for of_row in images]
    inputs = dict(processor(images=images, text=texts, padding=True, add_special_tokens=False, return_tensors="pt"))
    image = model.get_image_features(inputs.pop("pixel_values"), inputs.pop("aux_pixel_values"), return_dict=True)
    image.pooler_output = list(image.pooler_output)
    return inputs | {"mm_encoder_outputs": {"image": image}}


def log_probability(loaded, images, task, text, start):
    """Of a text's tokens from the first one on that the text up to `start` does not have."""
    model, processor = loaded
    prompt = processor.prompt(task, num_images=len(images))
    inputs = processor(images=images, text=prompt, add_special_tokens=False, return_tensors="pt")
    tokens = processor.answer_ids(text)
    ids = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    pixels = {name: inputs[name] for name in ("pixel_values", "aux_pixel_values")}
    with torch.no_grad():
        logits = model(input_ids=ids, **pixels).logits[0, -len(tokens) - 1 : -1]
    return logits.log_softmax(dim=-1).gather(1, torch.tensor(tokens)[:, None])[start:, 0].sum().item()


def expected(loaded, images, answer, spans, task="report", contraries_of=contraries):
    odds = []
    for start, end in spans:
        denied = contraries_of(answer[start:end])
        # Neither the sentence nor its contraries have ended.
        texts = [answer[:start] + text.rstrip(".") for text in (answer[start:end], *denied)]
        tokens = list(map(loaded[1].answer_ids, texts))
        if not denied:
            odds.append(None)
            continue
        # Tokens that all begin with have the same probability.
        same = next(n for n, those in enumerate(zip(*tokens, strict=False)) if len(set(those)) > 1)
        said, *others = (log_probability(loaded, images, task, text, same) for text in texts)
        odds.append(said - math.log(sum(math.exp(other - max(others)) for other in others)) - max(others))
    return odds


def close(given, right):
    assert [one is None for one in given] == [one is None for one in right]
    assert [one for one in given if one is not None] == pytest.approx(
        [one for one in right if one is not None], abs=1e-4
    )


def test_log_odds_are_those_of_whole_texts_read_one_by_one(loaded, radiographs):
    spans = sentence_spans(REPORT)
    (given,) = sentence_log_odds(*loaded, inputs_of(loaded, [radiographs[:1]]), [REPORT], [spans])
    close(given, expected(loaded, radiographs[:1], REPORT, spans))
    assert given[3] is None and given.count(None) == 1  # advice has no contrary
    assert max(abs(odds) for odds in given if odds is not None) > 1


def test_a_batch_gives_what_single_reports_give_with_one_view_or_two(loaded, radiographs):
    first, second, third = radiographs
    images = [[first], [second, third], [third]]
    answers = ["No effusion.", REPORT, "Please compare."]
    spans = [sentence_spans(answer) for answer in answers]
    inputs = inputs_of(loaded, images)
    assert inputs["attention_mask"][0, 0] == 0  # it is padded
    given = sentence_log_odds(*loaded, inputs, answers, spans)
    for of_row, answer, where, odds in zip(images, answers, spans, given, strict=True):
        (alone,) = sentence_log_odds(*loaded, inputs_of(loaded, [of_row]), [answer], [where])
        close(odds, alone)
        close(odds, expected(loaded, of_row, answer, where))
    assert given[2] == [None]


def test_the_image_and_what_stands_before_a_sentence_tell(loaded, radiographs):
    spans = sentence_spans(REPORT)
    (one,), (other,) = (
        sentence_log_odds(*loaded, inputs_of(loaded, [[image]]), [REPORT], [spans]) for image in radiographs[:2]
    )
    assert abs(one[0] - other[0]) > 1e-3
    (behind,) = sentence_log_odds(*loaded, inputs_of(loaded, [radiographs[:1]]), ["No effusion."], [[(0, 12)]])
    assert abs(behind[0] - one[1]) > 1e-3


def test_sentences_of_a_grounded_report_stand_between_their_marks(loaded, radiographs):
    answer = "<p>There is a mass.</p> {<1><2><3><4>} <p> No effusion. </p>"
    spans = [sentence.span for sentence in text_to_sentences(answer)]
    inputs = inputs_of(loaded, [radiographs[:1]], "grounded_report")
    (given,) = sentence_log_odds(*loaded, inputs, [answer], [spans])
    # The blanks around a sentence are none of it.
    of_words = [spans[0], (spans[1][0] + 1, spans[1][1] - 1)]
    close(given, expected(loaded, radiographs[:1], answer, of_words, "grounded_report"))


@pytest.mark.parametrize(
    ("sentence", "contrary"),
    [
        ("Mass seen", "Mass"),  # the contrary is how the sentence begins
        ("Mass", "Mass seen"),  # and the reverse
        ("Mass.", "Mass."),
    ],
)
def test_one_that_only_goes_on_behind_the_other_is_not_compared(loaded, radiographs, monkeypatch, sentence, contrary):
    monkeypatch.setattr(
        sentence_truth, "contraries", lambda text: [contrary] if text == sentence else contraries(text)
    )
    answer, spans = f"Edema. {sentence}", [(0, 6), (7, 7 + len(sentence))]
    ids = [loaded[1].answer_ids(f"Edema. {text}") for text in (sentence, contrary)]
    assert ids[0][: len(ids[1])] == ids[1][: len(ids[0])]
    (given,) = sentence_log_odds(*loaded, inputs_of(loaded, [radiographs[:1]]), [answer], [spans])
    assert given[0] is not None and given[1] is None


def test_forms_of_a_contrary_that_cannot_be_compared_are_left_out(loaded, radiographs, monkeypatch):
    forms = {"all": ["Edema seen", "COPD.", "Pneumonia."], "some": ["COPD.", "Pneumonia."]}
    odds = []
    for those in forms.values():
        monkeypatch.setattr(sentence_truth, "contraries", lambda text, those=those: those)
        odds += sentence_log_odds(*loaded, inputs_of(loaded, [radiographs[:1]]), ["Edema."], [[(0, 6)]])
    close(odds[0], odds[1])
    close(odds[1], expected(loaded, radiographs[:1], "Edema.", [(0, 6)], contraries_of=lambda text: forms["some"]))


def test_a_sentence_that_differs_from_its_first_token_on_is_compared_behind_the_prompt(
    loaded, radiographs, monkeypatch
):
    monkeypatch.setattr(sentence_truth, "contraries", lambda text: ["COPD."])
    said, denied = map(loaded[1].answer_ids, ("Pneumonia", "COPD"))
    assert said[0] != denied[0]
    (given,) = sentence_log_odds(*loaded, inputs_of(loaded, [radiographs[:1]]), ["Pneumonia."], [[(0, 10)]])
    close(given, expected(loaded, radiographs[:1], "Pneumonia.", [(0, 10)], contraries_of=lambda text: ["COPD."]))


def test_without_contraries_nothing_is_read(loaded, radiographs):
    def never(**inputs):
        raise AssertionError

    answers, spans = ["Please compare. ...", ""], [[(0, 15), (16, 19)], []]
    assert sentence_log_odds(never, loaded[1], {}, answers, spans) == [[None, None], []]


def test_a_probability_has_no_end_at_which_it_breaks():
    calibration = {"slope": 2.0, "intercept": -1.0, "threshold": 0.5}
    assert probability_of(0.5, calibration) == pytest.approx(0.5)
    assert probability_of(1.0, calibration) == pytest.approx(1 / (1 + math.exp(-1)))
    assert probability_of(-1.0, calibration) == pytest.approx(math.exp(-3) / (1 + math.exp(-3)))
    for odds, right in ((1e6, 1.0), (-1e6, 0.0), (math.inf, 1.0), (-math.inf, 0.0)):
        assert probability_of(odds, calibration) == right
    assert probability_of(3.0, {"slope": 0.0, "intercept": 0.0}) == 0.5
