"""The automaton against the parser, the tokenizers themselves and, as an independent implementation, xgrammar."""

import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
import xgrammar
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from xgrammar.contrib.hf import LogitsProcessor as XGrammarLogitsProcessor

from litegpt.datasets_scripts import chestx_ray14, vindr_cxr
from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answer_automaton import answer_tokens
from litegpt.processing.answer_grammar import AnswerGrammar
from litegpt.processing.answers import (
    DIAGNOSES_PREFIX,
    FINDINGS_PREFIX,
    NO_FINDING,
    PLACES_PREFIX,
    AnswerError,
    Finding,
    diagnoses_to_text,
    findings_to_text,
    places_to_text,
    text_to_diagnoses,
    text_to_findings,
    text_to_places,
)
from tests.llama_like_tokenizer import llama_like_tokenizer
from tests.llama_like_tokenizer import random_box as box
from tests.tokenizer_kinds import TOKENIZERS

TASKS = ("identify", "vqa")
MANY = [f"{side} {name} {n}" for side in ("Left", "Right") for name in ("mass", "opacity") for n in range(38)][:150]
# name -> finding labels, diagnosis labels
LABELS = {
    "VinDr-CXR": (vindr_cxr.FINDING_LABELS, vindr_cxr.DIAGNOSIS_LABELS),
    "ChestX-ray14": (chestx_ray14.FINDING_LABELS, chestx_ray14.DIAGNOSIS_LABELS),
    "one label": (["Mass"], ["Mass"]),
    "one begins another": (["Mass", "Mass effect", "Mass e"], ["Mass", "Mass effect", "Mass e", NO_FINDING]),
    "not ASCII": (["Herzgröße", "心臓", "Épanchement"], ["Herzgröße", NO_FINDING, "心臓", "心"]),
    "quotes": (['a "b" \\ c', "d|e*"], ['a "b" \\ c', "d|e*", "No findings"]),
    "150 labels": (MANY, [*MANY, NO_FINDING]),
}


# Every label set in Llama's tokens; those that are hard for a tokenizer in the others' too.
COMBINATIONS = [("Llama", labels) for labels in LABELS]
COMBINATIONS += [("tiny", labels) for labels in ("VinDr-CXR", "not ASCII")]
COMBINATIONS += [("Llama's file", labels) for labels in ("VinDr-CXR", "not ASCII")]
COMBINATIONS += [("byte level", labels) for labels in ("VinDr-CXR", "one begins another", "not ASCII", "quotes")]


@cache
def grammar_of(tokenizer: str, labels: str) -> AnswerGrammar:
    return AnswerGrammar(TOKENIZERS[tokenizer](*LABELS[labels]), TASKS, *LABELS[labels])


@pytest.fixture(params=COMBINATIONS, ids=", ".join)
def grammar(request) -> AnswerGrammar:
    return grammar_of(*request.param)


@pytest.fixture
def llama_grammar() -> AnswerGrammar:
    return grammar_of("Llama", "VinDr-CXR")


def walk(grammar: AnswerGrammar, task: str, room: int, choose: Callable[[list[int]], int]) -> list[int]:
    """An answer's tokens, the end token among them."""
    state, tokens = grammar.start(task), []
    while state != grammar.END:
        tokens.append(choose(grammar.allowed[state.node]))
        state = grammar.advance(state, tokens[-1], room - len(tokens))
    return tokens


def accepts(grammar: AnswerGrammar, task: str, tokens: list[int], room: int = 10_000) -> bool:
    state = grammar.start(task)
    for count, token in enumerate(tokens, start=1):
        if state == grammar.END or token not in grammar.allowed[state.node]:
            return False
        state = grammar.advance(state, token, room - count)
    return state == grammar.END


def parse(grammar: AnswerGrammar, task: str, text: str) -> list:
    if task == "vqa":
        return text_to_diagnoses(text, grammar.diagnosis_labels)
    if task == "refer":
        return text_to_places(text)
    return text_to_findings(text, grammar.finding_labels)


def written(grammar: AnswerGrammar, tokens: list[int]) -> str:
    """The answer that a walk wrote; a byte-level tokenizer begins it with the space behind `[/INST]`."""
    return grammar.tokenizer.decode(tokens[:-1]).removeprefix(" ")


def training_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return [*answer_tokens(tokenizer, text)[0], tokenizer.eos_token_id]


@pytest.mark.parametrize("task", TASKS)
def test_every_walk_is_a_well_formed_answer_in_the_tokenizers_own_tokens(grammar, task):
    tokenizer, rng, texts = grammar.tokenizer, random.Random(0), set()
    for _ in range(60):
        tokens = walk(grammar, task, room=rng.choice([60, 150, 400]), choose=rng.choice)
        text = written(grammar, tokens)
        parse(grammar, task, text)
        assert tokens == training_tokens(tokenizer, text)
        texts.add(text)
    assert len(texts) > (1 if len(grammar.diagnosis_labels) == 1 else 5) - (task == "vqa")


def test_an_answers_tokens_are_the_same_behind_a_prompt(grammar):
    tokenizer, rng = grammar.tokenizer, random.Random(1)
    for task in TASKS:
        prompt = f"[INST] [{task}] {instructions_for(grammar.diagnosis_labels)[task]} [/INST]"
        for _ in range(5):
            tokens = walk(grammar, task, room=200, choose=rng.choice)
            ids = tokenizer(f"{prompt} {written(grammar, tokens)}", add_special_tokens=False)["input_ids"]
            assert ids[-len(tokens) + 1 :] == tokens[:-1]


def test_every_training_answer_is_accepted_token_by_token(grammar):
    rng = random.Random(2)
    for count in (0, 1, 2, 3, 7):
        # Repeated labels and any order too.
        findings = [Finding(rng.choice(grammar.finding_labels), box(rng)) for _ in range(count)]
        assert accepts(grammar, "identify", training_tokens(grammar.tokenizer, findings_to_text(findings)))
    names = [label for label in grammar.diagnosis_labels if label != NO_FINDING]
    answers = [[label] for label in grammar.diagnosis_labels] + [names]
    answers += [[label for label in names if rng.random() < share] or names[:1] for share in (0.1, 0.3, 0.5, 0.9)]
    for labels in answers:
        assert accepts(grammar, "vqa", training_tokens(grammar.tokenizer, diagnoses_to_text(labels)))


def test_every_coordinate_is_accepted_in_every_place(llama_grammar):
    for low in range(100):
        for high in {low + 1, 100}:
            for corners in ((low, 0, high, 1), (0, low, 1, high), (low, low, high, high)):
                text = findings_to_text([Finding("ILD", tuple(value / 100 for value in corners))] * 2)
                assert accepts(llama_grammar, "identify", training_tokens(llama_grammar.tokenizer, text)), text


FINDING = "<p>Nodule/Mass</p> {<10><20><30><40>}"
MALFORMED_FINDINGS = [
    "",
    "Findings are none.",
    FINDINGS_PREFIX + FINDING,
    FINDINGS_PREFIX + FINDING + ",",
    FINDINGS_PREFIX + FINDING + ",.",
    FINDINGS_PREFIX + FINDING + "..",
    FINDINGS_PREFIX + f"{FINDING}, {FINDING}.",
    FINDINGS_PREFIX + f"{FINDING},No finding.",
    FINDINGS_PREFIX + "No finding",
    FINDINGS_PREFIX + "no finding.",
    FINDINGS_PREFIX + ".",
    FINDINGS_PREFIX + FINDING.replace("Mass", "Mas") + ".",
    FINDINGS_PREFIX + FINDING.replace("Mass", "Masses") + ".",
    FINDINGS_PREFIX + FINDING.replace("Nodule/Mass", "Cat") + ".",
    FINDINGS_PREFIX + FINDING.replace("<30>", "<10>") + ".",
    FINDINGS_PREFIX + FINDING.replace("<30>", "<9>") + ".",
    FINDINGS_PREFIX + FINDING.replace("<40>", "<20>") + ".",
    FINDINGS_PREFIX + FINDING.replace("<40>", "<19>") + ".",
    FINDINGS_PREFIX + FINDING.replace("<30>", "<101>") + ".",
    FINDINGS_PREFIX + FINDING.replace("<30>", "<200>") + ".",
    FINDINGS_PREFIX + FINDING.replace("<10>", "<-1>") + ".",
    FINDINGS_PREFIX + FINDING.replace("<40>", "") + ".",
    FINDINGS_PREFIX + FINDING.replace("<40>", "<40><50>") + ".",
]
MALFORMED_DIAGNOSES = [
    "",
    DIAGNOSES_PREFIX + "COPD",
    DIAGNOSES_PREFIX + "COPD,",
    DIAGNOSES_PREFIX + "COPD, .",
    DIAGNOSES_PREFIX + "COPD, COPD.",
    DIAGNOSES_PREFIX + "COPD, No finding.",
    DIAGNOSES_PREFIX + "No finding, COPD.",
    DIAGNOSES_PREFIX + "Pneumonia,COPD.",
    DIAGNOSES_PREFIX + "Gout.",
    DIAGNOSES_PREFIX + ".",
]


@pytest.mark.parametrize("task, texts", [("identify", MALFORMED_FINDINGS), ("vqa", MALFORMED_DIAGNOSES)])
def test_no_malformed_answer_is_accepted_by_automaton_xgrammar_or_parser(task, texts):
    well_formed = FINDINGS_PREFIX + FINDING + "." if task == "identify" else DIAGNOSES_PREFIX + "Pneumonia, COPD."
    for name in TOKENIZERS:
        grammar = grammar_of(name, "VinDr-CXR")
        tokenizer = grammar.tokenizer
        assert accepts(grammar, task, training_tokens(tokenizer, well_formed))
        for text in texts:
            assert not accepts(grammar, task, training_tokens(tokenizer, text)), text
    matcher = byte_matcher_of(grammar, task)
    assert matches(matcher, well_formed)
    for text in texts:
        assert not matches(matcher, text), text
        with pytest.raises(AnswerError):
            parse(grammar, task, text)


def test_another_order_of_diagnoses_and_other_tokens_of_a_text_are_refused(llama_grammar):
    tokenizer = llama_grammar.tokenizer
    assert not accepts(llama_grammar, "vqa", training_tokens(tokenizer, DIAGNOSES_PREFIX + "COPD, Pneumonia."))
    text = DIAGNOSES_PREFIX + "COPD."
    in_bytes = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in b"COPD"])
    others = [*tokenizer(DIAGNOSES_PREFIX.strip(), add_special_tokens=False)["input_ids"]]
    others += tokenizer.convert_tokens_to_ids(["▁"]) + in_bytes + training_tokens(tokenizer, ".")[1:]
    assert tokenizer.decode(others, skip_special_tokens=True).startswith(text[:-1])
    assert accepts(llama_grammar, "vqa", training_tokens(tokenizer, text))
    assert not accepts(llama_grammar, "vqa", others)


# --- Room ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_no_answer_takes_more_than_max_new_tokens(grammar, task):
    """From `least_room` on, whatever is chosen: at random, or what keeps an answer going for longest."""
    least, rng = grammar.least_room(task), random.Random(3)
    ends = {tokens[-2] for tokens in (walk(grammar, task, least, rng.choice) for _ in range(50))}
    goes_on = [rng.choice, lambda allowed: rng.choice([t for t in allowed if t not in ends] or allowed)]
    for room in [*range(least, least + 40), 120]:
        for choose in goes_on:
            tokens = walk(grammar, task, room, choose)
            assert len(tokens) <= room
            parse(grammar, task, written(grammar, tokens))


def test_an_answer_ends_only_where_it_has_to(llama_grammar):
    """The longest finding over and over: as many as fit, and no token too many at the least room."""
    tokenizer = llama_grammar.tokenizer
    lengths = {label: len(tokenizer(f"x<p>{label}</p>")["input_ids"]) for label in llama_grammar.finding_labels}
    label = max(lengths, key=lengths.get)
    for count in range(1, 8):
        text = findings_to_text([Finding(label, (0.1, 0.1, 1, 1))] * count)
        tokens = training_tokens(tokenizer, text)
        assert accepts(llama_grammar, "identify", tokens, room=len(tokens))
        assert count > 1 or len(tokens) == llama_grammar.least_room("identify")
        assert count == 1 or not accepts(llama_grammar, "identify", tokens, room=len(tokens) - 1)


def test_diagnoses_end_in_time_too():
    grammar = grammar_of("Llama", "150 labels")
    everything = training_tokens(grammar.tokenizer, diagnoses_to_text(MANY))
    assert accepts(grammar, "vqa", everything, room=len(everything)) and len(everything) > 512
    assert not accepts(grammar, "vqa", everything, room=512)


# --- Labels and tokenizers that do not fit ---------------------------------------------------------------------------


def test_a_task_without_labels_has_no_answers():
    tokenizer = llama_like_tokenizer(["Mass"], ["Mass"])
    grammar = AnswerGrammar(tokenizer, ["identify", "grounding", "vqa"], ["Mass"], [])
    assert grammar.tasks == ["identify", "grounding"]
    assert accepts(grammar, "grounding", training_tokens(tokenizer, findings_to_text([])))
    for ask in (grammar.start, grammar.least_room, grammar.ebnf):
        with pytest.raises(
            ValueError, match=r"no labels or no grammar for answers to \[vqa\].*has both for: identify, grounding\.$"
        ):
            ask("vqa")
    assert AnswerGrammar(tokenizer, TASKS, [], ["Mass"]).tasks == ["vqa"]
    assert AnswerGrammar(tokenizer, TASKS, [], []).tasks == []


@pytest.mark.parametrize("diagnosis_labels", [[NO_FINDING], ["Mass"], ["Mass", "Nodule"]])
def test_no_finding_is_an_answer_about_diagnoses_where_it_is_a_label(diagnosis_labels):
    tokenizer = llama_like_tokenizer(["Mass"], diagnosis_labels)
    grammar = AnswerGrammar(tokenizer, ["vqa"], [], diagnosis_labels)
    allowed = NO_FINDING in diagnosis_labels
    assert accepts(grammar, "vqa", training_tokens(tokenizer, diagnoses_to_text([]))) == allowed
    assert matches(byte_matcher_of(grammar, "vqa"), diagnoses_to_text([])) == allowed


@pytest.mark.parametrize("labels", [(["a <b>"], []), ([], ["effusion, left"]), ([], [""])])
def test_a_label_that_the_parser_cannot_read_is_named(labels):
    with pytest.raises(ValueError, match="^The label '.*' cannot stand in an answer: "):
        AnswerGrammar(llama_like_tokenizer(["Mass"], ["Mass"]), TASKS, *labels)


def test_a_tokenizer_that_writes_parts_together_is_refused():
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("}", "merged_with_previous")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    with pytest.raises(ValueError, match="does not work with this tokenizer: its tokens cross the end of"):
        AnswerGrammar(tokenizer, TASKS, ["Mass"], ["Mass"])


def test_it_is_small_and_made_once_for_each_node(llama_grammar):
    assert len(llama_grammar.allowed) < 1000 and sum(map(len, llama_grammar.allowed)) < 5000


# --- Boxes of a phrase -----------------------------------------------------------------------------------------------


@cache
def places_grammar_of(tokenizer: str) -> AnswerGrammar:
    """Of a checkpoint without labels: a phrase needs none."""
    return AnswerGrammar(TOKENIZERS[tokenizer](*LABELS["VinDr-CXR"]), ["refer", "report", "describe"], [], [])


@pytest.fixture(params=TOKENIZERS)
def places_grammar(request) -> AnswerGrammar:
    return places_grammar_of(request.param)


def test_only_tasks_whose_answers_have_a_form_have_a_grammar(places_grammar):
    assert places_grammar.tasks == ["refer"]
    with pytest.raises(
        ValueError, match=r"no labels or no grammar for answers to \[report\]; it has both for: refer\."
    ):
        places_grammar.start("report")


def test_every_walk_is_an_answer_about_a_phrase_in_the_tokenizers_own_tokens(places_grammar):
    rng, numbers = random.Random(7), set()
    for _ in range(60):
        tokens = walk(places_grammar, "refer", room=rng.choice([60, 150, 400]), choose=rng.choice)
        text = written(places_grammar, tokens)
        numbers.add(len(text_to_places(text)))
        assert tokens == training_tokens(places_grammar.tokenizer, text)
        prompt = f"[INST] [refer] Give the bounding boxes of: a mass [/INST] {text}"
        ids = places_grammar.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert ids[-len(tokens) + 1 :] == tokens[:-1]
    assert len(numbers) > 3


def test_every_answer_about_a_phrase_is_accepted_token_by_token(places_grammar):
    rng, tokenizer = random.Random(8), places_grammar.tokenizer
    answers = [[], *([box(rng) for _ in range(count)] for count in (1, 1, 1, 2, 2, 3, 7))]
    low_and_high = [(low / 100, (99 - low) / 100, 1, 1) for low in range(100)]
    answers += [[one] for one in low_and_high] + [low_and_high[:3] * 2]
    answers += [[(0, low / 100, (low + 1) / 100, (low + 1) / 100)] * 2 for low in range(100)]
    for boxes in answers:
        assert accepts(places_grammar, "refer", training_tokens(tokenizer, places_to_text(boxes))), boxes


PLACE = "{<10><20><30><40>}"
MALFORMED_PLACES = [
    "",
    PLACES_PREFIX + PLACE,
    PLACES_PREFIX + f"{PLACE},",
    PLACES_PREFIX + f"{PLACE},.",
    PLACES_PREFIX + f"{PLACE}, {PLACE}.",
    PLACES_PREFIX + f"{PLACE},None.",
    PLACES_PREFIX + f"None,{PLACE}.",
    PLACES_PREFIX + "None",
    PLACES_PREFIX + "No finding.",
    PLACES_PREFIX + ".",
    PLACES_PREFIX + f"<p>Mass</p> {PLACE}.",
    PLACES_PREFIX + PLACE.replace("<30>", "<10>") + ".",
    PLACES_PREFIX + PLACE.replace("<40>", "<19>") + ".",
    PLACES_PREFIX + PLACE.replace("<30>", "<101>") + ".",
    PLACES_PREFIX + PLACE.replace("<10>", "<010>") + ".",
    PLACES_PREFIX + PLACE.replace("<40>", "") + ".",
    FINDINGS_PREFIX + "No finding.",
]


def test_no_malformed_answer_about_a_phrase_is_accepted_by_automaton_xgrammar_or_parser(places_grammar):
    matcher = byte_matcher_of(places_grammar, "refer")
    for text in (places_to_text([]), PLACES_PREFIX + f"{PLACE}.", PLACES_PREFIX + f"{PLACE},{PLACE}."):
        assert accepts(places_grammar, "refer", training_tokens(places_grammar.tokenizer, text))
        assert matches(matcher, text)
    for text in MALFORMED_PLACES:
        assert not accepts(places_grammar, "refer", training_tokens(places_grammar.tokenizer, text)), text
        assert not matches(matcher, text), text
        with pytest.raises(AnswerError):
            text_to_places(text)


def test_no_answer_about_a_phrase_takes_more_than_max_new_tokens(places_grammar):
    least, rng = places_grammar.least_room("refer"), random.Random(9)
    ends = {tokens[-2] for tokens in (walk(places_grammar, "refer", least, rng.choice) for _ in range(50))}
    goes_on = [rng.choice, lambda allowed: rng.choice([t for t in allowed if t not in ends] or allowed)]
    longest = 0
    for room in [*range(least, least + 30), 120]:
        for choose in goes_on:
            tokens = walk(places_grammar, "refer", room, choose)
            assert len(tokens) <= room
            text_to_places(written(places_grammar, tokens))
            longest = max(longest, len(tokens) - room)
    assert longest == 0  # no token is left where one more box fits exactly


def test_xgrammar_accepts_our_answers_about_phrases_and_no_more_boxes_than_fit(places_grammar):
    tokenizer, rng = places_grammar.tokenizer, random.Random(10)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, stop_token_ids=tokenizer.eos_token_id)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(places_grammar.ebnf("refer")))
    for _ in range(20):
        matcher.reset()
        tokens = walk(places_grammar, "refer", 300, rng.choice)
        assert all(matcher.accept_token(token) for token in tokens), tokenizer.decode(tokens)
        assert matcher.is_terminated()
    matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(places_grammar.ebnf("refer", max_new_tokens=100)))
    language, most = places_grammar.languages["place"], 0
    while places_grammar.least_room("refer") + most * language.longest_finding <= 100:
        most += 1
    for count in range(most + 3):
        matcher.reset()
        tokens = training_tokens(tokenizer, places_to_text([(0, 0, 0.5, 0.5)] * count))
        assert all(map(matcher.accept_token, tokens)) == (count <= most)


# --- xgrammar --------------------------------------------------------------------------------------------------------


def byte_matcher_of(grammar: AnswerGrammar, task: str) -> xgrammar.GrammarMatcher:
    """xgrammar on our EBNF, over single bytes."""
    info = xgrammar.TokenizerInfo([bytes([byte]) for byte in range(256)] + [b"</s>"], stop_token_ids=256)
    return xgrammar.GrammarMatcher(xgrammar.GrammarCompiler(info, max_threads=1).compile_grammar(grammar.ebnf(task)))


def matches(matcher: xgrammar.GrammarMatcher, text: str) -> bool:
    matcher.reset()
    return matcher.accept_string(text) and matcher.accept_token(256)


@pytest.mark.parametrize("labels", LABELS)
def test_xgrammar_accepts_our_walks_on_our_ebnf(labels):
    grammar = grammar_of("Llama", labels)
    tokenizer = grammar.tokenizer
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, stop_token_ids=tokenizer.eos_token_id)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    rng = random.Random(4)
    for task in TASKS:
        matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(grammar.ebnf(task)))
        for _ in range(20):
            matcher.reset()
            tokens = walk(grammar, task, 300, rng.choice)
            assert all(matcher.accept_token(token) for token in tokens), tokenizer.decode(tokens)
            assert matcher.is_terminated()


def test_the_ebnf_parts_inside_out_boxes_from_others_exactly():
    matcher = byte_matcher_of(grammar_of("Llama", "one label"), "identify")
    rng = random.Random(5)
    edges = [0, 1, 8, 9, 10, 11, 19, 20, 90, 98, 99, 100]
    for _ in range(3000):
        corners = [rng.choice(edges) if rng.random() < 0.5 else rng.randint(0, 103) for _ in range(4)]
        text = FINDINGS_PREFIX + "<p>Mass</p> {" + "".join(f"<{corner}>" for corner in corners) + "}."
        x1, y1, x2, y2 = corners
        assert matches(matcher, text) == (x1 < x2 <= 100 and y1 < y2 <= 100), text


def test_with_max_new_tokens_the_ebnf_has_no_more_findings_than_fit(llama_grammar):
    tokenizer = llama_grammar.tokenizer
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, stop_token_ids=tokenizer.eos_token_id)
    ebnf = llama_grammar.ebnf("identify", max_new_tokens=100)
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_grammar(ebnf)
    accepted = []
    for count in range(10):
        answer = findings_to_text([Finding("ILD", (0, 0, 0.5, 0.5))] * count)
        matcher = xgrammar.GrammarMatcher(compiled)
        accepted.append(all(matcher.accept_token(token) for token in training_tokens(tokenizer, answer)))
    most = accepted.index(False) - 1
    assert accepted == [count <= most for count in range(10)]
    longest = llama_grammar.least_room("identify") + (most - 1) * llama_grammar.languages["finding"].longest_finding
    assert longest <= 100 < longest + llama_grammar.languages["finding"].longest_finding


class Automaton(LogitsProcessor):
    """Ordinary greedy decoding under our grammar, of one row."""

    def __init__(self, grammar: AnswerGrammar, task: str, max_new_tokens: int):
        self.grammar, self.state, self.room = grammar, None, max_new_tokens
        self.task = task

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self.state is None:
            self.state = self.grammar.start(self.task)
        else:
            self.room -= 1
            self.state = self.grammar.advance(self.state, int(input_ids[0, -1]), self.room)
        return only(self.grammar.allowed[self.state.node], scores)


class Canonical(LogitsProcessor):
    """A model that writes none but the tokens that answers to this task are made of."""

    def __init__(self, grammar: AnswerGrammar, task: str):
        rng = random.Random(6)
        self.tokens = sorted({token for _ in range(500) for token in walk(grammar, task, 500, rng.choice)})

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        return only(self.tokens, scores)


def only(tokens: list[int], scores: torch.FloatTensor) -> torch.FloatTensor:
    kept = torch.full_like(scores, -torch.inf)
    kept[:, tokens] = scores[:, tokens]
    return kept


def test_xgrammars_logits_processor_gives_our_answers(tiny_checkpoint, radiographs):
    """Where the model writes canonical tokens, which xgrammar leaves to it."""
    model, processor = load_checkpoint(tiny_checkpoint)
    tokenizer = processor.tokenizer
    grammar = AnswerGrammar(tokenizer, TASKS, processor.finding_labels, processor.diagnosis_labels)
    info = xgrammar.TokenizerInfo.from_huggingface(
        tokenizer, vocab_size=len(tokenizer), stop_token_ids=tokenizer.eos_token_id
    )
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    ended = 0
    for task in TASKS:
        compiled, canonical = compiler.compile_grammar(grammar.ebnf(task)), Canonical(grammar, task)
        for image in radiographs[:2]:
            inputs = processor(
                images=image, text=processor.prompt(task), add_special_tokens=False, return_tensors="pt"
            )
            answers = []
            for constraint in (Automaton(grammar, task, 80), XGrammarLogitsProcessor(compiled)):
                sequence = model.generate(
                    **inputs,
                    max_new_tokens=80,
                    do_sample=False,
                    logits_processor=LogitsProcessorList([canonical, constraint]),
                )
                answers.append(sequence[0, inputs["input_ids"].shape[1] :].tolist())
            ours, theirs = answers
            parse(grammar, task, tokenizer.decode(ours, skip_special_tokens=True))
            # An engine does not know how much room is left.
            ended += theirs[-1] == tokenizer.eos_token_id
            assert ours[:60] == theirs[:60]
    assert ended >= 2
