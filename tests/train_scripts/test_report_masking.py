"""Which words are masked and what they count: ECAMP's rule, its published code's, a closed case of the weights."""

import numpy as np
import pytest

from litegpt.modeling_towers.new_cxr_clip import word_pieces
from litegpt.train_scripts.arguments import MaskingArguments
from litegpt.train_scripts.report_masking import NOT_ASKED, ReportMasking, balanced_weights

REPORT = (
    "There is no evidence of pleural effusion. The heart has a mild cardiomegaly; no pneumothorax, Edema is small."
)
DRAWS = 2000


@pytest.fixture(scope="module")
def tokenizer():
    return word_pieces([REPORT.lower()] * 3, vocab_size=300, max_length=64)


def masked_shares(masking: ReportMasking, report: str) -> dict[str, float]:
    """{word: how often it is masked}."""
    rng = np.random.default_rng(0)
    ids = np.array(masking.tokenizer(report)["input_ids"])
    counts = sum((masking(report, rng).input_ids[: len(ids)] != ids).astype(float) for _ in range(DRAWS))
    return dict(zip(masking.tokenizer.convert_ids_to_tokens(ids.tolist()), counts / DRAWS, strict=True))


def test_descriptors_are_always_masked_entities_and_other_words_often(tokenizer):
    shares = masked_shares(ReportMasking(tokenizer, MaskingArguments()), REPORT)
    for word in ("of", "pleural", "a", "mild", "no"):
        assert shares[word] == 1.0, word
    for word in ("effusion", "cardiomegaly", "pneumothorax", "edema"):
        assert shares[word] == pytest.approx(0.75, abs=0.04), word
    for word in ("there", "the", "heart", "small", ","):
        assert shares[word] == pytest.approx(0.7, abs=0.04), word
    assert shares["[CLS]"] == shares["[SEP]"] == 0.0


def test_a_descriptor_stands_in_the_entitys_own_sentence(tokenizer):
    masked = ReportMasking(tokenizer, MaskingArguments())("The heart. Effusion is small.", np.random.default_rng(0))
    assert not masked.descriptors.any()
    masked = ReportMasking(tokenizer, MaskingArguments())("no effusion, edema", np.random.default_rng(0))
    words = tokenizer.convert_ids_to_tokens(tokenizer("no effusion, edema")["input_ids"])
    # Two words before "edema" are "no" and an entity, which stays one; the comma is no word.
    assert [word for word, is_one in zip(words, masked.descriptors, strict=True) if is_one] == ["no"]


def test_a_report_without_entities_and_masking_without_descriptors(tokenizer):
    plain = masked_shares(ReportMasking(tokenizer, MaskingArguments()), "the heart is small")
    assert plain["heart"] == pytest.approx(0.75, abs=0.04)
    options = MaskingArguments(mask_descriptors=False, entity_share=0.5, other_share=0.5)
    shares = masked_shares(ReportMasking(tokenizer, options), REPORT)
    assert all(share == pytest.approx(0.5, abs=0.05) for word, share in shares.items() if word[0] != "[")


def test_the_release_masks_descriptors_like_other_words_and_knows_one_form_of_an_entity(tokenizer):
    masking = ReportMasking(tokenizer, MaskingArguments(max_length=64), release=True)
    shares = masked_shares(masking, "there is mild edema.")
    assert shares["mild"] == pytest.approx(0.7, abs=0.04) and shares["edema"] == pytest.approx(0.75, abs=0.04)
    masked = masking("mild edema.", np.random.default_rng(0))
    assert len(masked.input_ids) == 64 and (masked.labels != NOT_ASKED).all()
    assert tokenizer.sep_token_id not in masked.labels
    assert not masking("mild COPD, effusions.", np.random.default_rng(0)).descriptors.any()
    assert ReportMasking(tokenizer, MaskingArguments())("mild effusions", np.random.default_rng(0)).descriptors.any()


def test_pieces_of_a_word_are_masked_together_and_only_masked_words_are_asked_for(tokenizer):
    masking = ReportMasking(tokenizer, MaskingArguments())
    report = "unheard cardiomegaly of the pneumothorax"
    encoded = tokenizer(report)
    assert len(encoded["input_ids"]) > 7  # words of several pieces
    for seed in range(20):
        masked = masking(report, np.random.default_rng(seed))
        hidden = masked.input_ids == tokenizer.mask_token_id
        assert ((masked.labels != NOT_ASKED) == hidden).all()
        assert (masked.labels[hidden] == np.array(encoded["input_ids"])[hidden]).all()
        words = np.array([-1 if word is None else word for word in encoded.word_ids()])
        for word in range(words.max() + 1):
            assert len(set(hidden[words == word])) == 1


def test_the_closed_case_of_the_weights():
    """d = 3 negatives, m = 2 descriptors, k = 2 that are both: e = 29.5."""
    negatives = np.array([1, 1, 1, 0, 0], dtype=bool)
    descriptors = np.array([0, 1, 1, 0, 0], dtype=bool)
    assert balanced_weights(negatives, descriptors, 0.05) == pytest.approx([0.05, 1.475, 1.475, 1, 1])


def test_weights_keep_their_sum_whatever_is_negative_and_a_descriptor():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        length = int(rng.integers(1, 60))
        negatives, descriptors = rng.random((2, length)) < rng.random((2, 1))
        weights = balanced_weights(negatives, descriptors, float(rng.uniform(0.01, 1)))
        assert weights.sum() == pytest.approx(length, rel=1e-5) and (weights > 0).all()
    assert (balanced_weights(negatives, descriptors, 1.0) == 1).all()


def test_the_words_of_a_negative_count_alpha_in_a_report(tokenizer):
    report = "there is no effusion. the heart is small."
    masked = ReportMasking(tokenizer, MaskingArguments())(report, np.random.default_rng(0))
    words = tokenizer.convert_ids_to_tokens(tokenizer(report)["input_ids"])
    weight_of = dict(zip(words, masked.weights.tolist(), strict=True))
    assert weight_of["there"] == pytest.approx(0.05) and weight_of["heart"] == 1
    # m = 2 descriptors ("is", "no"), both among the d = 3.
    assert weight_of["no"] == pytest.approx(0.05 * (0.95 * 1 + 2) / (2 - 0.95 * 2))
    assert masked.weights.sum() == pytest.approx(len(words))
