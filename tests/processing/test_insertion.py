"""Findings that an answer leaves out have the probabilities of whole sequences, scored one by one without a cache."""

import copy
import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answer_grammar import AnswerGrammar
from litegpt.processing.answers import Finding, text_to_findings
from litegpt.processing.findings_language import GRID, on_grid
from litegpt.processing.insertion import Insertion, inserted_findings, standing
from litegpt.processing.token_tree import CACHE
from tests.tokenizer_kinds import TOKENIZERS

LABELS = ["Cardiomegaly", "Odd shadow", "Odd shade", "ILD"]  # two of several tokens, with the same beginning
ANSWERS = [
    [Finding("Cardiomegaly", (0.38, 0.52, 0.81, 0.74)), Finding("Odd shade", (0.07, 0.1, 0.3, 0.07 + 0.34))],
    [],
]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    model, processor = load_checkpoint(tiny_checkpoint)
    processor = copy.copy(processor)
    processor.finding_labels = LABELS
    return model.eval(), processor


@pytest.fixture(scope="module")
def prompts(loaded) -> dict[str, torch.Tensor]:
    """Two prompts about two radiographs; one is shorter and padded."""
    _, processor = loaded
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)) for _ in range(2)]
    texts = [processor.prompt("identify"), "Look: " + processor.prompt("identify")]
    return processor(images=images, text=texts, add_special_tokens=False, padding=True, return_tensors="pt")


def prefilled(model, inputs):
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        output = model(**inputs, position_ids=positions, use_cache=True)
    return output[CACHE], inputs["attention_mask"]


def row_of(inputs, row):
    kept = inputs["attention_mask"][row].bool()
    return inputs["input_ids"][row, kept], {name: inputs[name][[row]] for name in ("pixel_values", "aux_pixel_values")}


def token_probabilities(model, grammar, inputs, row, tokens) -> list[dict[int, float]]:
    """For each of an answer's tokens what the grammar allows in its place, from one pass over the whole sequence."""
    prompt, images = row_of(inputs, row)
    with torch.no_grad():
        logits = model(input_ids=torch.cat([prompt, torch.tensor(tokens)])[None], **images).logits[0].double()
    state, result = grammar.start("identify"), []
    for place, token in enumerate(tokens):
        allowed = grammar.allowed[state.node]
        of_place = logits[len(prompt) - 1 + place, allowed].softmax(-1).tolist()
        result.append(dict(zip(allowed, of_place, strict=True)))
        state = grammar.advance(state, token, 512) if place + 1 < len(tokens) else state
    return result


def last_y2(findings) -> int | None:
    """The coordinate that an answer with these findings has written last."""
    return on_grid(findings[-1].box)[3] if findings else None


def written(language, findings) -> list[int]:
    """The tokens of an answer up to the last coordinate of its last finding."""
    tokens = []
    for number, finding in enumerate(findings):
        tokens += language.continuations(last_y2(findings[:number]))[finding.label]
        tokens += language.box_start(finding.box)
    return tokens


def following(model, grammar, inputs, row, findings) -> np.ndarray:
    """(labels + 1,): the probability of each label, or the end, behind `findings`, whose last box is as written."""
    language = grammar.languages["finding"]
    start = written(language, findings)
    likelihoods = []
    for path in language.continuations(last_y2(findings)).values():
        steps = token_probabilities(model, grammar, inputs, row, start + list(path))[len(start) :]
        likelihoods.append(np.prod([step[token] for step, token in zip(steps, path, strict=True)]))
    return np.array(likelihoods) / np.sum(likelihoods)


def test_what_is_written_is_the_tokenizer_s_own_answer(loaded):
    _, processor = loaded
    language = processor.answer_grammar.languages["finding"]
    text = "Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<38><52><81><74>},<p>Odd shade</p> {<7>"
    tokens = processor.answer_ids(f"{text}<10><30><41>}}.")
    ours = [*written(language, ANSWERS[0]), *language.continuations(last_y2(ANSWERS[0]))[None]]
    assert ours == [*tokens, processor.tokenizer.eos_token_id]
    assert len(language.continuations(None)["Odd shade"]) > len(language.continuations(None)["ILD"])


@pytest.fixture(scope="module")
def inserted(loaded, prompts):
    model, processor = loaded
    return inserted_findings(model, processor.answer_grammar, prefilled(model, prompts), ANSWERS, Insertion(0.0))


# Before Cardiomegaly, the first label, nothing; behind it itself once more and what comes before "Odd shade".
PLACES = [{1: LABELS[:2], 2: LABELS[2:]}, {0: LABELS}]


@pytest.mark.parametrize("box_order", ["label", "position"])
def test_every_label_at_every_place_has_its_exact_probability(loaded, prompts, inserted, box_order):
    model, processor = loaded
    if box_order == "position":
        behind = prefilled(model, prompts)
        order = Insertion(0.0, "position")
        inserted = inserted_findings(model, processor.answer_grammar, behind, ANSWERS, order)
    for row, findings in enumerate(ANSWERS):
        found = {(finding.place, finding.label): finding.probabilities.entry for finding in inserted[row]}
        expected = {}
        for place in range(len(findings) + 1):
            comes_next = following(model, processor.answer_grammar, prompts, row, findings[:place])
            for number, label in enumerate(LABELS):
                if box_order == "label" and label in PLACES[row].get(place, ()):
                    expected[place, label] = comes_next[number] / comes_next[number:].sum()
                elif box_order == "position" and [label] != [f.label for f in findings[place : place + 1]]:
                    expected[place, label] = comes_next[number]
        assert found == pytest.approx(expected, rel=1e-3) and len(found) == len(inserted[row])


def test_its_box_and_coordinates_are_those_of_greedy_decoding_behind_that_beginning(loaded, prompts, inserted):
    model, processor = loaded
    grammar = processor.answer_grammar
    language = grammar.languages["finding"]
    for finding in inserted[0]:
        named = ANSWERS[0][: finding.place]
        tokens = written(language, named)
        tokens += language.continuations(last_y2(named))[finding.label]
        values = []
        for corner in range(4):  # this tokenizer has a token for each value
            step = token_probabilities(model, grammar, prompts, 0, [*tokens, 0])[
                -1
            ]  # 0: whatever is not read any more
            for token, probability in step.items():
                value = number(processor, token)
                assert finding.probabilities.coordinates[corner][value] == pytest.approx(probability, rel=1e-3)
            tokens.append(max(step, key=step.get))
            values.append(number(processor, tokens[-1]))
        assert [round(GRID * v) for v in finding.box] == values


def number(processor, token) -> int:
    return int("".join(filter(str.isdigit, processor.tokenizer.decode([token]))))


def test_alone_and_in_a_batch_they_are_the_same(loaded, prompts, inserted):
    model, processor = loaded
    for row in range(2):
        ids, images = row_of(prompts, row)
        alone = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], **images}
        (found,) = inserted_findings(
            model, processor.answer_grammar, prefilled(model, alone), [ANSWERS[row]], Insertion(0.0)
        )
        assert [(f.label, f.place, f.box) for f in found] == [(f.label, f.place, f.box) for f in inserted[row]]
        for one, other in zip(found, inserted[row], strict=True):
            np.testing.assert_allclose(one.probabilities.coordinates, other.probabilities.coordinates, atol=1e-5)
            assert one.probabilities.entry == pytest.approx(other.probabilities.entry, abs=1e-5)


def test_below_the_probability_nothing_is_decoded(loaded, prompts, inserted):
    model, processor = loaded
    entries = sorted(finding.probabilities.entry for of_row in inserted for finding in of_row)
    least = float(np.mean(entries[-3:-1]))
    some = inserted_findings(model, processor.answer_grammar, prefilled(model, prompts), ANSWERS, Insertion(least))
    assert sum(map(len, some)) == sum(entry >= least for entry in entries) < len(entries)
    behind, passes = prefilled(model, prompts), []
    with model.register_forward_hook(lambda *_: passes.append(1)):
        none = inserted_findings(model, processor.answer_grammar, behind, ANSWERS, Insertion(1.1))
    assert none == [[], []] and len(passes) == 1  # over the answers


def test_by_position_any_label_may_follow():
    comes_next = np.array([0.1, 0.2, 0.3, 0.4])  # of three labels and the end
    assert standing(comes_next, "position").tolist() == [0.1, 0.2, 0.3]
    assert standing(comes_next, "label") == pytest.approx([0.1, 0.2 / 0.9, 0.3 / 0.7])


def test_generate_gives_them_beside_the_same_answers(loaded, prompts):
    model, processor = loaded
    options = {"max_new_tokens": 64, "do_sample": False, "return_dict_in_generate": True}
    plain = model.generate(**prompts, **options, custom_generate=processor.constrained_greedy())
    output = model.generate(**prompts, **options, custom_generate=processor.constrained_greedy(least_insertion=0.05))
    assert plain.inserted_findings is None
    assert torch.equal(plain.sequences, output.sequences)
    named = []
    for sequence in output.sequences:
        text = processor.tokenizer.decode(sequence[prompts["input_ids"].shape[1] :], skip_special_tokens=True)
        named.append(text_to_findings(text.removeprefix(" "), LABELS))
    expected = inserted_findings(model, processor.answer_grammar, prefilled(model, prompts), named, Insertion(0.05))
    key = [[(finding.label, finding.place, finding.box) for finding in of_row] for of_row in expected]
    assert [[(f.label, f.place, f.box) for f in of_row] for of_row in output.inserted_findings] == key
    assert any(key)


# Tokenizers that write coordinates in several tokens


@pytest.fixture(scope="module", params=["Llama", "byte level"])
def several_tokens(request):
    """A language model and a grammar over a tokenizer that writes labels and coordinates in several tokens."""
    labels = ["Cardiomegaly", "Nodule/Mass"]
    tokenizer = TOKENIZERS[request.param](labels, ["COPD"])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).eval(), AnswerGrammar(tokenizer, ["identify"], labels, [])


def test_labels_and_coordinates_of_several_tokens_have_exact_probabilities_and_greedy_boxes(several_tokens):
    model, grammar = several_tokens
    language = grammar.languages["finding"]
    named = [Finding("Cardiomegaly", (0.07, 0.1, 0.3, 0.74))]
    prompt = grammar.tokenizer("Look at the chest. [/INST]", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        cache = model(prompt, use_cache=True)[CACHE]
    mask = torch.ones_like(prompt)
    (found,) = inserted_findings(model, grammar, (cache, mask), [named], Insertion(0.0, "position"))
    assert {(finding.place, finding.label) for finding in found} == {
        (0, "Nodule/Mass"),
        (1, "Cardiomegaly"),
        (1, "Nodule/Mass"),
    }

    def steps(tokens):
        """For each token after the prompt what the grammar allows in its place; with one more place behind them."""
        with torch.no_grad():
            logits = model(torch.cat([prompt, torch.tensor([tokens], dtype=torch.long)], 1)).logits[0].double()
        state = grammar.start("identify")
        for place, token in enumerate([*tokens, None]):
            allowed = grammar.allowed[state.node]
            values = logits[prompt.shape[1] - 1 + place, allowed].softmax(-1).tolist()
            yield dict(zip(allowed, values, strict=True)), state
            state = state if token is None else grammar.advance(state, token, 512)

    for finding in found:
        before = named[: finding.place]
        start = written(language, before)
        paths = language.continuations(last_y2(before))
        likelihood = {
            label: np.prod(
                [of[token] for (of, _), token in zip(list(steps([*start, *path]))[len(start) :], path, strict=False)]
            )
            for label, path in paths.items()
        }
        expected = likelihood[finding.label] / sum(likelihood.values())
        assert finding.probabilities.entry == pytest.approx(expected, rel=1e-3)
        tokens = [*start, *paths[finding.label]]
        text_before = len(tokens)
        while True:
            *_, (following, state) = steps(tokens)
            if state == grammar.END or state.node == language.done:
                break
            tokens.append(max(following, key=following.get))
            if grammar.advance(state, tokens[-1], 512) == grammar.END:
                break
        digits = re.findall(r"\d+", grammar.tokenizer.decode(tokens[: len(tokens)])[-40:])
        assert len(tokens) - text_before > 4  # several tokens a coordinate
        assert [round(GRID * value) for value in finding.box] == [int(number) for number in digits[-4:]]
        assert finding.probabilities.coordinates.sum(axis=1) == pytest.approx(np.ones(4))
