import copy
from collections.abc import Iterator
from math import comb

import numpy as np
import pytest
import torch
from PIL import Image

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing import diagnosis_probabilities as module
from litegpt.processing.answer_grammar import AnswerGrammar
from litegpt.processing.answers import NO_FINDING, text_to_diagnoses
from litegpt.processing.diagnosis_probabilities import diagnosis_probabilities
from litegpt.processing.token_tree import CACHE

LABELS = ["Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "COPD", NO_FINDING]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    model, processor = load_checkpoint(tiny_checkpoint)
    return model.eval(), processor


@pytest.fixture(scope="module")
def grammar(loaded) -> AnswerGrammar:
    return loaded[1].answer_grammar


def grammar_of(processor, diagnosis_labels: list[str]) -> AnswerGrammar:
    other = copy.copy(processor)
    vars(other).pop("answer_grammar", None)
    other.diagnosis_labels = diagnosis_labels
    return other.answer_grammar


@pytest.fixture(scope="module")
def prompts(loaded) -> dict[str, torch.Tensor]:
    """Two prompts about two radiographs; one is shorter and padded."""
    _, processor = loaded
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)) for _ in range(2)]
    texts = [processor.prompt("vqa"), "Look: " + processor.prompt("vqa")]
    return processor(images=images, text=texts, add_special_tokens=False, padding=True, return_tensors="pt")


def prefill(model, inputs):
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    output = model(**inputs, position_ids=positions, use_cache=True)
    return output[CACHE], inputs["attention_mask"], output.logits[:, -1]


def all_answers(grammar, state) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Every answer's tokens, and for each of them the tokens that are allowed in its place."""
    if state == grammar.END:
        yield [], []
        return
    allowed = grammar.allowed[state.node]
    for token in allowed:
        for tokens, choices in all_answers(grammar, grammar.advance(state, token, 512)):
            yield [token, *tokens], [allowed, *choices]


def brute_force(model, processor, grammar, inputs) -> torch.Tensor:
    """The marginals from whole sequences, prompt and answer, for every answer: without a cache, without a trie."""
    answers = list(all_answers(grammar, grammar.start("vqa")))
    assert len(answers) == 32  # No finding and the sets of five diagnoses
    marginals = torch.zeros(len(inputs["input_ids"]), len(processor.diagnosis_labels), dtype=torch.float64)
    for row, kept in enumerate(inputs["attention_mask"].bool()):
        prompt = inputs["input_ids"][row, kept]
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.cat([prompt, torch.tensor(tokens)]) for tokens, _ in answers], batch_first=True
        )  # behind the answer, where no token of it sees the padding
        images = {name: inputs[name][[row] * len(answers)] for name in ("pixel_values", "aux_pixel_values")}
        with torch.no_grad():
            logits = model(input_ids=padded, **images).logits[:, len(prompt) - 1 :].double()
        for (tokens, choices), answer_logits in zip(answers, logits, strict=True):
            probability = 1.0
            for token, allowed, token_logits in zip(tokens, choices, answer_logits, strict=False):
                probability *= float(token_logits[allowed].softmax(-1)[allowed.index(token)])
            text = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            for diagnosis in text_to_diagnoses(text, processor.diagnosis_labels):
                marginals[row, processor.diagnosis_labels.index(diagnosis.label)] += probability
    return marginals.float()


@pytest.fixture(scope="module")
def expected(loaded, grammar, prompts) -> torch.Tensor:
    return brute_force(*loaded, grammar, prompts)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_marginals_are_those_of_all_answers_scored_one_by_one(loaded, grammar, prompts, expected, attention):
    model, _ = loaded
    model.set_attn_implementation(attention)
    with torch.no_grad():
        marginals = diagnosis_probabilities(model, grammar, *prefill(model, prompts))
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(marginals, expected, atol=1e-5, rtol=1e-4)
    assert (marginals[0] - marginals[1]).abs().max() > 1e-3  # the rows are different questions


def test_no_finding_and_any_diagnosis_sum_to_one(loaded, prompts):
    """With one diagnosis, any diagnosis is that diagnosis."""
    model, processor = loaded
    grammar = grammar_of(processor, ["COPD", NO_FINDING])
    with torch.no_grad():
        marginals = diagnosis_probabilities(model, grammar, *prefill(model, prompts))
    torch.testing.assert_close(marginals.sum(-1), torch.ones(2))
    assert marginals.min() > 1e-4


def test_the_cache_stays_as_it_was(loaded, grammar, prompts):
    model, _ = loaded
    with torch.no_grad():
        cache, mask, logits = prefill(model, prompts)
        before = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
        diagnosis_probabilities(model, grammar, cache, mask, logits)
    assert cache.get_seq_length() == mask.shape[1]
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


def test_flash_attention_is_replaced_for_this_pass_alone(loaded, grammar, prompts, expected, monkeypatch):
    model, _ = loaded
    text_config = model.config.get_text_config()
    with torch.no_grad():
        behind_prompt = prefill(model, prompts)
        monkeypatch.setattr(text_config, "_attn_implementation_internal", "flash_attention_2")
        marginals = diagnosis_probabilities(model, grammar, *behind_prompt)
    assert text_config._attn_implementation == "flash_attention_2"
    torch.testing.assert_close(marginals, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_cut_trie_errs_by_no_more_than_the_answers_that_name_more_labels(
    loaded, grammar, prompts, expected, size, monkeypatch
):
    model, processor = loaded
    tries = [module._flat(module._branches(grammar, grammar.start("vqa"), (), n), LABELS) for n in range(1, 6)]
    assert [len(trie.names) for trie in tries] == [6, 16, 26, 31, 32]  # sets of at most n of 5 labels
    # Without the cut: the probability of each answer, by its number of labels.
    names = tries[-1].names
    with torch.no_grad():
        behind_prompt = prefill(model, prompts)
        monkeypatch.setattr(module, "_trie", lambda _: tries[-1]._replace(names=torch.eye(len(names))))
        answers = diagnosis_probabilities(model, grammar, *behind_prompt)
        monkeypatch.setattr(module, "_trie", lambda _: tries[size - 1])
        cut = diagnosis_probabilities(model, grammar, *behind_prompt)
    more = answers[:, names.sum(-1) > size].sum(-1, keepdim=True)
    error = expected - cut
    assert error.min() > -1e-5 and (error <= more + 1e-5).all()
    assert error.max() > 1e-4  # the cut is felt
    no_finding = processor.diagnosis_labels.index(NO_FINDING)
    torch.testing.assert_close(cut[:, no_finding], expected[:, no_finding], atol=1e-5, rtol=1e-4)


def test_a_large_label_set_is_cut_to_the_limit_at_a_whole_number_of_labels(loaded, monkeypatch):
    _, processor = loaded
    labels = [*processor.finding_labels[:8], NO_FINDING]
    grammar = grammar_of(processor, labels)
    monkeypatch.setattr(module, "MAX_TOKENS", 40)
    trie = module._trie(grammar)
    assert len(trie.tokens) <= 40
    assert len(trie.names) == 1 + comb(8, 1) + comb(8, 2)  # No finding, one label, the first two labels
    assert trie is module._trie(grammar)  # made once
