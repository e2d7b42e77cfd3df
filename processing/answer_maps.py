"""Maps over radiographs that explain LiteGPT's answers: what in a radiograph makes certain words of its answer likely.

In: a model, its processor, the pixels of radiographs, and an answer to each, which is given to the model, not written
anew. Out: for each of the words asked about a map (g, g), in the standard view of the whole radiograph, where g is the
side of the larger of the towers' grids of patches.

    pixels = processor(images=radiographs, text=[processor.prompt("identify")] * 2, padding=True, return_tensors="pt")
    label_maps(model, processor, pixels, ["Cardiomegaly", "ILD"], "integrated")      # (2, 14, 14) float32
    text_maps(model, processor, pixels, answers, [[finding.label_span] for finding in ...])   # of words of any answers

`METHODS` says what a map's values are. A map shows what the answer depends on in the model, not where a finding ends:
it is no segmentation.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from .answer_automaton import answer_tokens
from .answers import Finding, findings_to_text, text_to_findings
from .box_scores import tokens_that_write

METHODS = {  # and what the values of its maps are
    "attention": "attention paid to each visual token where the words are about to be written, mean over all layers",
    "gradient_attention": "attention times its gradient, followed through all layers: what the words were made of",
    "integrated": "integrated gradients: what each patch, unlike the average one, adds to the words' log-probability",
    "occlusion": "how much the words' log-probability drops when a part of the radiograph is greyed out",
}
DEFAULT_METHOD = "integrated"
PIXELS = ("pixel_values", "aux_pixel_values")
INTEGRATION_STEPS = 16
ROWS_AT_ONCE = 16  # that are shown to the model together, where it is left to this module
LONGEST_BOX = 64  # tokens that a box may take
ANY_ROOM = 1 << 30  # more new tokens than any answer takes

CharacterRange = tuple[int, int]  # first character, end


class Span(NamedTuple):
    """Words of an answer as tokens: the row of the batch, and their places in its `input_ids`."""

    row: int
    places: Sequence[int]


def answer_maps(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    spans: Sequence[Span],
    method: str = DEFAULT_METHOD,
) -> torch.Tensor:
    """One map for each span of tokens.

    - `attention` (not negative): from the positions that predict the span's tokens, mean over these, heads and layers;
      its sum is the share of the attention that goes to the patches.
    - `gradient_attention` (not negative): Chefer et al.'s relevance (arXiv 2103.15679, equations 5 and 6) for the
      span's log-probability, R = R + E_h[(grad A * A)+] R from the first layer to the last, of the same positions.
    - `integrated`: integrated gradients (Sundararajan et al., arXiv 1703.01365) of it, from where every patch
      has the mean features of its tower's patches in this radiograph; a map's sum is the log-probability minus that of
      such a radiograph, up to the `INTEGRATION_STEPS` of the integral (and but for what candidate tokens of a
      detector say, whose choice jumps on the way).
    - `occlusion`: the drop of the log-probability where a window of about a quarter of the side is in the radiograph's
      mean grey, mean over the windows that cover a cell; 64 to 100 passes a radiograph.

    Args:
        model: in evaluation mode; a PEFT model too. Neither its gradients nor its attention are left changed.
        inputs: `input_ids` (rows, sequence) of prompts and answers, one radiograph in each row, `attention_mask`,
            and pixels as the processor gives them.
        spans: of the answers' tokens.
        method: of `METHODS`.

    Returns:
        (spans, g, g) float32, on the CPU.

    Raises:
        ValueError: there is no such method; a row has another number of visual tokens than one radiograph; a span is
            empty or out of its row; the language model gives no attention; occlusion of packed pixels.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r} to explain answers; there are: {', '.join(METHODS)}")
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    _check(model, inputs, spans)
    sides = model.config.tower_grids
    if not spans:
        return torch.zeros(0, max(sides), max(sides))
    maps = _FUNCTIONS[method](model, inputs, spans).detach().float().cpu()
    if method == "occlusion":
        return maps
    if method in ("attention", "gradient_attention"):
        maps = patch_values(maps, model.config.visual_token_group_size)
    return joined_grids(maps, sides)


def text_maps(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    pixels: Mapping[str, torch.Tensor],
    answers: Sequence[str],
    words: Sequence[Sequence[Sequence[CharacterRange]]],
    method: str = DEFAULT_METHOD,
    task: str = "identify",
) -> list[np.ndarray]:
    """Maps of words of answers to one task.

    Args:
        pixels: `pixel_values`, and `aux_pixel_values` of two towers, of as many radiographs as there are answers, as
            the processor gives them.
        answers: to each radiograph.
        words: of each answer what gets a map, each as ranges of characters, whose tokens are explained together.

    Returns:
        For each radiograph (words, g, g) float32.

    Raises:
        ValueError: see `answer_maps`.
    """
    rows, starts = zip(*(answer_tokens(processor.tokenizer, answer) for answer in answers), strict=True)
    inputs, first = taught_inputs(processor, pixels, rows, task)
    spans = [
        Span(row, [first[row] + number for number in _tokens_of(ranges, starts[row])])
        for row, of_answer in enumerate(words)
        for ranges in of_answer
    ]
    maps = answer_maps(model, inputs, spans, method).numpy()
    ends = np.cumsum([len(of_answer) for of_answer in words])
    return np.split(maps, ends[:-1])


def label_maps(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    pixels: Mapping[str, torch.Tensor],
    labels: Sequence[str],
    method: str = DEFAULT_METHOD,
    explain: str = "label",
) -> np.ndarray:
    """A map of one finding for each radiograph, as if the model had answered that finding first.

    Args:
        pixels: of as many radiographs as there are labels, see `text_maps`; `ROWS_AT_ONCE` are looked at together.
        labels: of the checkpoint's findings.
        explain: "label": the words of the label; "box": the coordinates of the box that the model then writes.

    Returns:
        (radiographs, g, g) float32.

    Raises:
        ValueError: a label is not one of the checkpoint's; see `answer_maps`.
    """
    check_labels_known(processor, labels)
    if explain not in ("label", "box"):
        raise ValueError(f"explain is 'label' or 'box', not {explain!r}")
    side = max(model.config.tower_grids)
    maps = np.zeros((len(labels), side, side), np.float32)
    for start in range(0, len(labels), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        shown = {name: pixels[name][some] for name in PIXELS if name in pixels}
        maps[some] = _label_maps(model, processor, shown, labels[some], method, explain)
    return maps


def _label_maps(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    pixels: Mapping[str, torch.Tensor],
    labels: Sequence[str],
    method: str,
    explain: str,
) -> np.ndarray:
    # What follows the label does not count: the model reads from left to right.
    answers = [findings_to_text([Finding(label, (0, 0, 1, 1))]) for label in labels]
    if explain == "box":
        answers = _with_boxes(model, processor, pixels, answers)
    words = []
    for answer in answers:
        (finding,) = text_to_findings(answer, processor.finding_labels)
        start, end = finding.span
        digits = [(start + d.start(), start + d.end()) for d in re.finditer(r"\d+", answer[start:end])]
        words.append([[finding.label_span] if explain == "label" else digits])
    return np.concatenate(text_maps(model, processor, pixels, answers, words, method))


def check_labels_known(processor: ProcessorMixin, labels: Sequence[str]) -> None:
    """Refuses a label that is not one of the checkpoint's findings; raises a ValueError that names it."""
    for label in labels:
        if label not in processor.finding_labels:
            raise ValueError(f"the checkpoint has no finding {label!r}; it has: {', '.join(processor.finding_labels)}")


def taught_inputs(
    processor: ProcessorMixin,
    pixels: Mapping[str, torch.Tensor],
    answers: Sequence[Sequence[int]],
    task: str = "identify",
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """The model's inputs for radiographs with an answer, and the place of each answer's first token.

    Args:
        answers: tokens, a row for each radiograph.

    Returns:
        `input_ids` and `attention_mask` (radiographs, sequence), padded on the left, and the pixels.
    """
    text = processor.prompt(task).replace(processor.image_token, processor.expanded_image)
    prompt = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = [torch.tensor([*prompt, *answer]) for answer in answers]
    pad = processor.tokenizer.pad_token_id
    input_ids = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    first = [input_ids.shape[1] - len(answer) for answer in answers]
    given = {name: pixels[name] for name in PIXELS if name in pixels}
    return {"input_ids": input_ids, "attention_mask": mask, **given}, first


# --- From tokens to the radiograph -----------------------------------------------------------------------------------


def patch_values(values: torch.Tensor, group_size: int) -> torch.Tensor:
    """(..., visual tokens) to (..., patch tokens): a visual token's value, spread evenly over the patches it is of."""
    return values.repeat_interleave(group_size, dim=-1) / group_size


def joined_grids(values: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """(..., patch tokens of all towers) to (..., g, g): the towers' values put into place, and added.

    The tokens are each tower's patches row by row, one tower after the other. Each tower's grid is brought to the
    largest one by area, so that the sum of a map is that of its values.

    Args:
        sides: of the towers' square grids, in the order of their tokens; g is the largest.
    """
    parts = values.split([side**2 for side in sides], dim=-1)
    joined = 0
    for part, side in zip(parts, sides, strict=True):
        share = _shares(side, max(sides)).to(values)
        joined = joined + share @ part.unflatten(-1, (side, side)) @ share.T
    return joined


def _shares(cells: int, finer: int) -> torch.Tensor:
    """(finer, cells): how much of each of `cells` equal parts of a side lies in each of `finer` parts of it."""
    starts = torch.arange(cells, dtype=torch.float64)[None] / cells
    ends = starts + 1 / cells
    finer_starts = torch.arange(finer, dtype=torch.float64)[:, None] / finer
    overlap = torch.minimum(ends, finer_starts + 1 / finer) - torch.maximum(starts, finer_starts)
    return overlap.clamp(min=0) * cells


# --- The methods -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _attention(model: PreTrainedModel, inputs: dict[str, torch.Tensor], spans: Sequence[Span]) -> torch.Tensor:
    """The share of attention on each visual token: (spans, visual tokens)."""
    with _eager_attention(model):
        attentions = _attentions(_output(model, inputs, spans, output_attentions=True))
    mean = sum(layer.float().mean(1).to(model.device) for layer in attentions) / len(attentions)
    return _of_visual_tokens(model, inputs, spans, (_predicting(span, mean[span.row]) for span in spans))


@torch.enable_grad()
def _gradient_attention(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], spans: Sequence[Span]
) -> torch.Tensor:
    """The relevance of each visual token: (spans, visual tokens)."""
    features = _patch_features(model, inputs).requires_grad_()  # else a model whose weights are frozen has no graph
    with _eager_attention(model):
        output = _output(model, _with_features(inputs, features), spans, output_attentions=True)
    attentions = _attentions(output)
    found: list[torch.Tensor] = [torch.empty(0)] * len(spans)
    for chosen, gradients in _gradients(_log_probabilities(output.logits, inputs, spans), spans, attentions):
        # Of R only the rows of the span are needed: they are followed from the last layer down to the first.
        identity = torch.eye(inputs["input_ids"].shape[1], device=model.device)
        rows = {spans[number].row: _predicting(spans[number], identity) for number in chosen}
        for attention, gradient in zip(reversed(attentions), reversed(gradients), strict=True):
            for row, relevance in rows.items():
                used = (gradient[row].float() * attention[row].float()).relu().mean(0).to(relevance.device)
                rows[row] = relevance + relevance @ used
        for number in chosen:
            found[number] = rows[spans[number].row]
    return _of_visual_tokens(model, inputs, spans, found)


@torch.enable_grad()
def _integrated(model: PreTrainedModel, inputs: dict[str, torch.Tensor], spans: Sequence[Span]) -> torch.Tensor:
    """Integrated gradients of each patch, summed over its width: (spans, patch tokens)."""
    end = _patch_features(model, inputs)
    towers = end.split([side**2 for side in model.config.tower_grids], dim=1)
    # Of three starts that were tried on phantoms this one was the best by far: the largest value lay in the finding's
    # box for 0.79 of 141 findings; from zeros for 0.57, from the features of a blank picture for 0.31.
    start = torch.cat([tower.mean(1, keepdim=True).expand_as(tower) for tower in towers], dim=1)
    values = torch.zeros(len(spans), end.shape[1], device=end.device)
    for step in range(INTEGRATION_STEPS):
        features = (start + (step + 0.5) / INTEGRATION_STEPS * (end - start)).requires_grad_()
        log_probabilities = _log_probabilities(
            _output(model, _with_features(inputs, features), spans).logits, inputs, spans
        )
        for chosen, (gradient,) in _gradients(log_probabilities, spans, [features]):
            for number in chosen:
                row = spans[number].row
                values[number] += (gradient[row] * (end - start)[row]).sum(-1) / INTEGRATION_STEPS
    return values


@torch.no_grad()
def _occlusion(model: PreTrainedModel, inputs: dict[str, torch.Tensor], spans: Sequence[Span]) -> torch.Tensor:
    """The drop of the log-probability where each cell is grey: (spans, g, g)."""
    names = [name for name in PIXELS if name in inputs]
    if len(names) < len(model.config.tower_grids):
        raise ValueError(
            "occlusion takes each tower's pixels by themselves: load the processor without packed pixels."
        )
    side = max(model.config.tower_grids)
    window = max(2, round(side / 4))
    step = window // 2
    starts = range(step - window, side, step)
    corners = [(top, left) for top in starts for left in starts]
    whole = _log_probabilities(_output(model, inputs, spans).logits, inputs, spans)
    drops, covered = torch.zeros(len(spans), side, side, device=whole.device), torch.zeros(side, side)
    for top, left in corners:
        covered[max(0, top) : top + window, max(0, left) : left + window] += 1
    for row in sorted({span.row for span in spans}):
        numbers = [number for number, span in enumerate(spans) if span.row == row]
        for begin in range(0, len(corners), ROWS_AT_ONCE):
            some = corners[begin : begin + ROWS_AT_ONCE]
            shown = {name: value[row : row + 1].repeat_interleave(len(some), 0) for name, value in inputs.items()}
            for name in names:
                height, width = shown[name].shape[-2:]
                grey = _mean_grey(inputs[name][row])
                for picture, (top, left) in zip(shown[name], some, strict=True):
                    rows = slice(max(0, round(top * height / side)), round((top + window) * height / side))
                    columns = slice(max(0, round(left * width / side)), round((left + window) * width / side))
                    picture[:, rows, columns] = grey
            asked = [Span(place, spans[number].places) for place in range(len(some)) for number in numbers]
            values = _log_probabilities(_output(model, shown, asked).logits, shown, asked).view(len(some), -1)
            for (top, left), of_window in zip(some, values, strict=True):
                drops[numbers, max(0, top) : top + window, max(0, left) : left + window] += (
                    whole[numbers] - of_window
                )[:, None, None]
    return drops / covered.to(drops.device)


_FUNCTIONS: dict[str, Callable[[PreTrainedModel, dict[str, torch.Tensor], Sequence[Span]], torch.Tensor]] = {
    "attention": _attention,
    "gradient_attention": _gradient_attention,
    "integrated": _integrated,
    "occlusion": _occlusion,
}


def _output(model: PreTrainedModel, inputs: dict[str, torch.Tensor], spans: Sequence[Span], **options: bool):
    """The model's output, with logits from the first position on that predicts a token of a span."""
    mask = inputs["attention_mask"]
    kept = mask.shape[1] - min(min(span.places) for span in spans) + 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return model(**inputs, position_ids=positions, logits_to_keep=kept, use_cache=False, return_dict=True, **options)


def _log_probabilities(logits: torch.Tensor, inputs: dict[str, torch.Tensor], spans: Sequence[Span]) -> torch.Tensor:
    """(spans,) float32: of each span's tokens together, given all that stands before each.

    Args:
        logits: (rows, positions, vocabulary), of the last positions.
    """
    input_ids, values = inputs["input_ids"].to(logits.device), []
    before = input_ids.shape[1] - logits.shape[1]
    for row, places in spans:
        tokens = torch.tensor(places, device=logits.device)
        scores = logits[row, tokens - 1 - before].float().log_softmax(-1)
        values.append(scores.gather(-1, input_ids[row, tokens, None]).sum())
    return torch.stack(values)


def _gradients(
    log_probabilities: torch.Tensor, spans: Sequence[Span], of: Sequence[torch.Tensor]
) -> Iterator[tuple[list[int], Sequence[torch.Tensor]]]:
    """Numbers of spans, and the gradients of their log-probabilities: one pass serves a span of each row."""
    rounds: list[list[int]] = []
    seen: Counter[int] = Counter()
    for number, span in enumerate(spans):
        if seen[span.row] == len(rounds):
            rounds.append([])
        rounds[seen[span.row]].append(number)
        seen[span.row] += 1
    for count, chosen in enumerate(rounds, 1):
        total = log_probabilities[chosen].sum()
        yield chosen, torch.autograd.grad(total, of, retain_graph=count < len(rounds))


@torch.no_grad()
def _patch_features(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(rows, patch tokens, width) float32: the towers' output, as the projector takes it."""
    given = {name: inputs[name] for name in PIXELS if name in inputs}
    return model.get_image_features(**given, return_dict=True).last_hidden_state.float()


def _with_features(inputs: dict[str, torch.Tensor], features: torch.Tensor) -> dict[str, torch.Tensor]:
    """The inputs with patch features in place of the pixels."""
    return {name: value for name, value in inputs.items() if name not in PIXELS} | {"patch_features": features}


def _mean_grey(pixels: torch.Tensor) -> torch.Tensor:
    """(..., 3, 1, 1): each picture's mean."""
    return pixels.mean(dim=(-2, -1), keepdim=True)


def _predicting(span: Span, rows: torch.Tensor) -> torch.Tensor:
    """The mean of those of (sequence, ...) rows that predict the span's tokens: each the one before."""
    return rows[[place - 1 for place in span.places]].mean(0)


def _of_visual_tokens(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    spans: Sequence[Span],
    values: Iterable[torch.Tensor],
) -> torch.Tensor:
    """(spans, visual tokens), of (sequence,) values for each span."""
    is_visual = inputs["input_ids"] == model.config.image_token_id
    # Of the patches alone: what a detector says stands after them.
    of_patches = slice(model.config.num_visual_tokens - getattr(model.config, "num_candidate_tokens", 0))
    return torch.stack([value[is_visual[span.row]][of_patches] for span, value in zip(spans, values, strict=True)])


def _attentions(output) -> tuple[torch.Tensor, ...]:
    """(rows, heads, sequence, sequence) of each layer."""
    attentions = output.attentions or ()
    if not attentions or any(attention is None for attention in attentions):
        raise ValueError("the language model gives no attention of its layers; take another method than attention.")
    return tuple(attentions)


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Has the language model compute its attention so that it can be seen, which SDPA and flash attention do not."""
    language_model = model.get_decoder()
    before = language_model.config._attn_implementation
    language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        language_model.set_attn_implementation(before)


def _check(model: PreTrainedModel, inputs: dict[str, torch.Tensor], spans: Sequence[Span]) -> None:
    input_ids = inputs["input_ids"]
    for row, count in enumerate((input_ids == model.config.image_token_id).sum(1).tolist()):
        if count != model.config.num_visual_tokens:
            raise ValueError(
                f"row {row} has {count} visual tokens, not the {model.config.num_visual_tokens} of one radiograph"
            )
    for span in spans:
        if not span.places or not all(0 < place < input_ids.shape[1] for place in span.places):
            raise ValueError(f"{span} names no token, or one that is not in its row of {input_ids.shape[1]}")


# --- Words -----------------------------------------------------------------------------------------------------------


def _tokens_of(ranges: Sequence[CharacterRange], starts: Sequence[int]) -> list[int]:
    """Numbers of the tokens that write any character of the ranges."""
    return sorted({number for characters in ranges for number in tokens_that_write(characters, starts)})


def _with_boxes(
    model: PreTrainedModel, processor: ProcessorMixin, pixels: Mapping[str, torch.Tensor], answers: Sequence[str]
) -> list[str]:
    """The answers, each with one finding, with the box that the model writes after the label, greedily."""
    grammar, tokenizer = processor.answer_grammar, processor.tokenizer
    begun = []
    for answer in answers:
        tokens, starts = answer_tokens(tokenizer, answer)
        begun.append([token for token, start in zip(tokens, starts, strict=True) if start <= answer.index("</p>")])
    inputs, first = taught_inputs(processor, pixels, begun)

    def allowed(row: int, tokens: torch.Tensor) -> list[int]:
        written = tokens[first[row] :].tolist()
        if "}" in tokenizer.decode(written):
            return [tokenizer.eos_token_id]
        state = grammar.start("identify")
        for token in written:
            state = grammar.advance(state, token, ANY_ROOM)
        return grammar.allowed[state.node]

    sequences = model.generate(
        **{name: value.to(model.device) for name, value in inputs.items()},
        prefix_allowed_tokens_fn=allowed,
        max_new_tokens=LONGEST_BOX,
        do_sample=False,
        num_beams=1,
    )
    texts = [
        tokenizer.decode(row[start:], skip_special_tokens=True).strip()
        for row, start in zip(sequences, first, strict=True)
    ]
    return [text[: text.index("}") + 1] + "." for text in texts]
