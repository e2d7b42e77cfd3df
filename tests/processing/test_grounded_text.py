"""Grounded reports as they are written, against expressions that are written apart, the parser and xgrammar."""

import random
import re
from functools import cache, partial

import pytest
import torch
import xgrammar
from transformers import LogitsProcessorList, PreTrainedTokenizerBase, set_seed

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answer_automaton import answer_tokens
from litegpt.processing.answer_ebnf import sentences_ebnf
from litegpt.processing.answers import AnswerError, sentences_to_text, text_to_sentences
from litegpt.processing.grounded_text import GroundedText, GroundedTextProcessor
from litegpt.processing.pipeline_litegpt import _decode
from tests.llama_like_tokenizer import random_box
from tests.tokenizer_kinds import TOKENIZERS

LABELS = (["Cardiomegaly", "Pleural effusion"], ["COPD", "No finding"])
NUMBER = r"(0|[1-9][0-9]?|100)"
BOX = r"\{<" + r"><".join([NUMBER] * 4) + r">\}"
SENTENCE = rf"<p>(?=\s*[^\s<])[^<>{{}}]+</p>( {BOX}(,{BOX})*)?"
# Whatever is begun well ends with one of these.
NUMBERS_END = ["", *"0123456789", "00"]
ENDS = [*("<p>x</p>"[n:] for n in range(8)), "x</p>", ""]
ENDS += [number + end for number in NUMBERS_END for end in ("><0><100><100>}", "><100><100>}", "><100>}", ">}")]
ENDS += ["{<0><0><100><100>}"[n:] for n in range(18)] + ["<0><100><100>}", "<100><100>}", "<100>}", "}"]


def is_report(text: str) -> bool:
    if re.fullmatch(rf" ?{SENTENCE}( {SENTENCE})*", text) is None:
        return False
    corners = ([int(n) for n in re.findall(r"\d+", box)] for box in re.findall(r"\{[^}]*\}", text))
    return all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in corners)


def may_become_report(text: str) -> bool:
    return any(is_report(text + end) for end in ENDS)


def random_report(rng: random.Random) -> str:
    words = ["There is", " no", " effusion.", "é", "心", " 1.5 cm", "p>"[:1], " ", "/", "No"]
    sentences = []
    for _ in range(rng.randint(1, 3)):
        text = rng.choice(words[:2]) + "".join(rng.choices(words, k=rng.randint(0, 4)))
        sentences.append((text, [random_box(rng) for _ in range(rng.choice([0, 0, 1, 2]))]))
    return sentences_to_text(sentences)


def mutated(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(0, 2)):
        place, sign = rng.randint(0, len(text)), rng.choice(["", *"<>{}/p, 0159x.\n²٣"])
        text = text[:place] + sign + text[place + rng.randint(0, 1) :]
    return text


def test_it_goes_on_exactly_where_a_report_may():
    rng = random.Random(0)
    counts = {True: 0, False: 0}
    for _ in range(2500):
        text = rng.choice(["", "", " ", "  "]) + mutated(random_report(rng), rng)
        text = text[: rng.randint(0, len(text))] if rng.random() < 0.5 else text
        state = GroundedText().after(text)
        assert (state is not None) == may_become_report(text), text
        assert (state is not None and state.may_end) == is_report(text), text
        counts[state is not None] += 1
        try:
            text_to_sentences(text.removeprefix(" "))
        except AnswerError:
            assert not is_report(text), text
        else:
            assert is_report(text), text
    assert min(counts.values()) > 500


def test_every_box_with_an_area_and_no_other_may_be_written():
    rng = random.Random(1)
    edges = [0, 1, 8, 9, 10, 11, 19, 20, 90, 98, 99, 100]
    for _ in range(3000):
        x1, y1, x2, y2 = (rng.choice(edges) if rng.random() < 0.5 else rng.randint(0, 103) for _ in range(4))
        state = GroundedText().after(f"<p>A.</p> {{<{x1}><{y1}><{x2}><{y2}>}}")
        assert (state is not None) == (x1 < x2 <= 100 and y1 < y2 <= 100), (x1, y1, x2, y2)


def test_xgrammar_accepts_the_same_texts():
    info = xgrammar.TokenizerInfo([bytes([byte]) for byte in range(256)] + [b"</s>"], stop_token_ids=256)
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_grammar(sentences_ebnf())
    rng, accepted = random.Random(2), 0
    for _ in range(1500):
        text = rng.choice(["", "", " "]) + mutated(random_report(rng), rng)
        matcher = xgrammar.GrammarMatcher(compiled)
        is_accepted = matcher.accept_string(text) and matcher.accept_token(256)
        assert is_accepted == is_report(text), text
        accepted += is_accepted
    assert 300 < accepted < 1200


# --- In tokens -------------------------------------------------------------------------------------------------------


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    return TOKENIZERS[kind](*LABELS)


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request) -> PreTrainedTokenizerBase:
    return tokenizer_of(request.param)


@cache
def signs_and_bytes(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that begin or end something, and those that have to make characters."""
    names = enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    return {token for token, name in names if set(tokenizer.decode([token])) & set("<>{}") or name.startswith("<0x")}


def allowed(processor: GroundedTextProcessor, tokens: list[int], width: int) -> list[int]:
    scores = processor(torch.tensor([[1, 1, *tokens]]), torch.zeros(1, width))
    return (scores[0] == 0).nonzero()[:, 0].tolist()


def walk(tokenizer: PreTrainedTokenizerBase, rng: random.Random, longest: int = 300) -> list[int] | None:
    """A report's tokens, drawn from those that may follow; None where it does not end."""
    processor, tokens, width = GroundedTextProcessor(tokenizer, [True]), [], len(tokenizer)
    often = signs_and_bytes(tokenizer)
    while len(tokens) < longest:
        may_follow = allowed(processor, tokens, width)
        if tokenizer.eos_token_id in may_follow and rng.random() < 0.4:
            return [*tokens, tokenizer.eos_token_id]
        some = [token for token in may_follow if token in often] if rng.random() < 0.5 else may_follow
        tokens.append(rng.choice(some or may_follow))
        if tokens[-1] == tokenizer.eos_token_id:
            return tokens
    return None


def test_what_is_written_is_a_report_whatever_tokens_are_chosen(tokenizer):
    rng, ended, boxes = random.Random(3), 0, 0
    for _ in range(60):
        tokens = walk(tokenizer, rng)
        if tokens is not None:
            text, starts = _decode(tokenizer, tokens)
            sentences = text_to_sentences(text)
            assert len(starts) == len(tokens) - 1
            ended, boxes = ended + 1, boxes + sum(len(sentence.places) for sentence in sentences)
    assert ended > 20 and boxes > 5


def test_every_token_of_a_training_answer_may_follow(tokenizer):
    rng, width = random.Random(4), len(tokenizer)
    for _ in range(25):
        text = random_report(rng)
        tokens = [*answer_tokens(tokenizer, text)[0], tokenizer.eos_token_id]
        processor = GroundedTextProcessor(tokenizer, [True])
        for count, token in enumerate(tokens):
            assert token in allowed(processor, tokens[:count], width), (text, tokenizer.decode(tokens[: count + 1]))


def test_one_blank_may_stand_before_a_report_and_no_more(tokenizer):
    blank = answer_tokens(tokenizer, " ")[0][:1] if tokenizer is tokenizer_of("byte level") else None
    blanks = blank or [tokenizer.convert_tokens_to_ids("▁")]
    processor = GroundedTextProcessor(tokenizer, [True])
    first = allowed(processor, [], len(tokenizer))
    assert blanks[0] in first
    second = allowed(processor, blanks, len(tokenizer))
    assert second and all(tokenizer.backend_tokenizer.decode([blanks[0], t]).lstrip(" ")[:1] == "<" for t in second)
    assert not set(second) & {t for t in second if tokenizer.convert_ids_to_tokens(t)[0] in "▁Ġ"}
    assert tokenizer.eos_token_id not in first + second


def test_the_bytes_of_a_character_stay_together():
    """In Llama's tokens a row of bytes of which one character is not complete reads as no character at all."""
    tokenizer = tokenizer_of("Llama")
    euro = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "€".encode()])
    start = answer_tokens(tokenizer, "<p>A")[0]
    sign = tokenizer.convert_tokens_to_ids("<0x3C>")
    follow = partial(allowed, GroundedTextProcessor(tokenizer, [True]), width=len(tokenizer))
    follow([])  # it learns where the prompt ends
    assert sign in follow(start) and euro[0] in follow(start) and euro[1] not in follow(start)
    assert all(name.startswith("<0x") for name in tokenizer.convert_ids_to_tokens(follow([*start, euro[0]])))
    assert sign not in follow([*start, *euro[:2]]) and euro[2] in follow([*start, *euro[:2]])
    assert sign in follow([*start, *euro])


# --- In generate -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    model, processor = load_checkpoint(tiny_checkpoint)
    set_seed(0)
    model.lm_head.weight.data.normal_(0, 1)
    return model.eval(), processor


def prompts(processor, tasks, images):
    texts = [processor.prompt(task) for task in tasks]
    return processor(images=images, text=texts, add_special_tokens=False, padding=True, return_tensors="pt")


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_other_rows_of_a_batch_are_untouched_and_every_way_of_decoding_is_held(loaded, radiographs, options):
    model, processor = loaded
    inputs = prompts(processor, ["report", "grounded_report", "report"], radiographs)
    length, tokenizer = inputs["input_ids"].shape[1], processor.tokenizer
    answers = {}
    for rows in ([False, True, False], [False] * 3):
        set_seed(1)
        grounded = LogitsProcessorList([GroundedTextProcessor(tokenizer, rows)])
        sequences = model.generate(**inputs, max_new_tokens=30, logits_processor=grounded, **options)
        answers[rows[1]] = sequences[:, length:]
    copies = len(sequences) // 3
    for tokens in answers[True][copies : 2 * copies].tolist():
        text, _ = _decode(tokenizer, tokens)
        assert GroundedText().after(text) is not None, text
    if not options:  # beams of a batch and draws do not depend on each other, but on when all have ended
        both = [answers[held][[0, 2]] for held in (True, False)]
        assert torch.equal(*both)
        alone = prompts(processor, ["grounded_report"], radiographs[1:2])
        held = LogitsProcessorList([GroundedTextProcessor(tokenizer, [True])])
        sequence = model.generate(**alone, max_new_tokens=30, logits_processor=held)
        assert torch.equal(sequence[0, alone["input_ids"].shape[1] :], answers[True][1])
