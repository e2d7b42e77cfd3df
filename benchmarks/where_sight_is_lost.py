"""Where a LiteGPT loses sight of what its towers see: read-outs of boxes at every step from patches to words.

    LITEGPT_REAL_CXR=path/to/data python benchmarks/where_sight_is_lost.py real --output_dir outputs/sight
    python benchmarks/where_sight_is_lost.py phantoms --data_dir outputs/demo/phantoms \\
        --model_name_or_path outputs/demo/checkpoint --output_dir outputs/sight

In: boxed radiographs, the folds of `box_folds.py` or a release's train and test, and a LiteGPT: `real` trains tiny
ones as the demo does, on each fold's training radiographs, and some that differ in one thing (`RUNS`); `phantoms`
takes a trained checkpoint. Out: `--output` as JSON and tables in Markdown. What is finished is not done again.

Steps, of which each is read by what is linear in it, everything before it frozen:

    patch features      what the towers give, a token a patch
    joined tokens       groups of adjacent patch tokens, side by side: the projector's input, nothing is lost yet
    projected tokens    the language model's input
    decoder, layer n    its states at the visual tokens; the last ones after the last norm
    answer begins       one state, of the token after which the answer names its first finding
    label is named      one state, of the token after which a finding's first number is written, its label given
    words               the numbers that are written after a label that is given: the most likely, or the middle of
                        each number's distribution; as boxes of any label those of all labels in turn, ranked by how
                        likely the answer begins with the label and `box_score`; and the answer without help

A read-out says for every patch of the towers which labels' boxes it lies in, and any box, and where the box's corners
are, and learns by the loss of `pretrain_boxes.py`. At a token of five patches it has five times the outputs, one of
each of its patches; at a single state it has those of all patches. All read-outs have the same views, batches, steps
and optimiser, and features of mean 0 and deviation 1. They differ in how many weights they have, so what they reach on
the radiographs that they learned from stands beside. Of the state after a label there is also a regression of the four
corners by least squares (ridge), the box that is the answer's first.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import nn

from litegpt.benchmarks.box_folds import (
    ACC,
    ANY,
    DIFFERENCES,
    POINT,
    BoxFolds,
    box_folds,
    label_table,
    real_data,
    scores,
    share_met,
    table,
    train_and_test,
    write_fold,
)
from litegpt.benchmarks.commands import command
from litegpt.datasets_scripts.preparation.merge_readers import keep_one_of_overlapping
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.predictions import answer_lines, doubts_unsaid
from litegpt.metrics.boxes import iou_of_pairs
from litegpt.metrics.ratios import number_or_none, ratio
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.processing.answers import Finding, findings_to_text
from litegpt.processing.box_scores import BoxProbabilities, box_score
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.train_scripts.examples import prompt_ids
from litegpt.train_scripts.pretrain_boxes import OFFSET_SCALE, patch_loss
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement, views_of

CONFIGS = Path(__file__).resolve().parents[1] / "train_scripts" / "configs"
TASK = "identify"
# Read-outs.
VIEWS, STEPS, BATCH_SIZE, BOXED_SHARE, LEARNING_RATE, WEIGHT_DECAY = 8, 600, 32, 0.5, 3e-3, 0.05
RIDGE = 0.1  # of the mean of the squares, which is 1
OVERLAP, VOTING, MAX_BOXES = 0.35, 0.5, 10  # boxes of a map: which are one, which have a say in it, how many
AT_ONCE = 64  # radiographs, or sequences, in a forward pass
GRID = 100  # numbers are written from 0 to it
PATCHES, JOINED, PROJECTED = "patch features", "joined tokens", "projected tokens"
BEGINS, NAMED, REGRESSED = "answer begins", "label is named", "label is named, corners regressed"
DECODED = "decoder, last layer"
GREEDY, MIDDLE, FREE = "words, label given", "words, label given, middle", "words, free answer"
BEFORE = "the step before"
STEP_BEFORE = {  # of a decoder's layers the projected tokens
    PATCHES: "",
    JOINED: PATCHES,
    PROJECTED: JOINED,
    BEGINS: DECODED,
    NAMED: DECODED,
    REGRESSED: NAMED,
    GREEDY: DECODED,
    MIDDLE: GREEDY,
    FREE: GREEDY,
}


@dataclass(frozen=True)
class Run:
    """A LiteGPT that is trained on a fold: which tower, how many patches a visual token, and stage one's options.

    Attributes:
        group_size: None: the recipe's.
        steps: of stage one; where a step takes longer fewer, for about the same CPU time.
        reads: at which steps boxes are read; None: at all.
    """

    tower: str = "ViT"
    group_size: int | None = None
    steps: int = 1200
    options: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = (DECODED,)


TODAY = "today"
NOT_CACHED = ("--cache_features", "false")
TOWER_STEPS = {"ViT": 400, "ResNet": 400}
RUNS = {
    TODAY: Run(reads=None),
    "a third of the steps": Run(steps=400),
    "15 moved views, not 3": Run(options=("--augmented_views", "15")),
    "one patch a token": Run(group_size=1, steps=400),
    "towers trained along": Run(steps=400, options=("--train_towers", "true", *NOT_CACHED)),
    "boxed radiographs alone": Run(options=("--with_findings_only", "true")),
    "ResNet": Run("ResNet", options=NOT_CACHED, reads=(PATCHES, DECODED)),
    "ResNet, one patch a token": Run("ResNet", 1, 600, NOT_CACHED),
}


# --- Training --------------------------------------------------------------------------------------------------------


def trained(folder: Path, data: Path, cache: Path, name: str, run: Run, seed: int) -> Path:
    """The checkpoint of a run, trained unless it is there; `cpu_seconds.json` says how long it took."""
    shared = ("--data_dir", data, "--cache_dir", cache, "--training_cache_dir", cache, "--seed", seed)
    quiet = ("--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true")
    start = folder / f"{run.tower} new"
    if not (start / "config.json").is_file():
        config = folder / f"{run.tower}.yaml"
        config.write_text(yaml.safe_dump(model_config(run.tower)), encoding="utf-8")
        command(folder, "new", "--config", config, "--output_dir", start, "--seed", seed)
    towers = folder / f"{run.tower} towers"
    if not (towers / "checkpoint" / "config.json").is_file():
        options = ("--model_name_or_path", start, "--max_steps", TOWER_STEPS[run.tower])
        options += () if run.tower == "ViT" else ("--learning_rate", "1e-3")
        command(folder, "pretrain-boxes", "--config", "tiny_towers", "--output_dir", towers, *options, *shared, *quiet)
    begin = towers / "checkpoint"
    if run.group_size is not None:
        begin = folder / f"{run.tower} towers, {run.group_size} a token"
        if not (begin / "config.json").is_file():
            regroup(towers / "checkpoint", run.group_size, begin, seed)
    output = folder / name
    if not (output / "checkpoint" / "config.json").is_file():
        options = ("--model_name_or_path", begin, "--max_steps", run.steps, *run.options)
        command(folder, "train", "--config", "tiny_stage1", "--output_dir", output, *options, *shared, *quiet)
    return output / "checkpoint"


def model_config(tower: str) -> dict[str, Any]:
    """The demo's model without its detector, with its own towers or with `tiny_detect.yaml`'s ResNet alone."""
    tiny = yaml.safe_load((CONFIGS / "tiny.yaml").read_text(encoding="utf-8")) | {"detector": False}
    if tower == "ViT":
        return tiny
    detect = yaml.safe_load((CONFIGS / "tiny_detect.yaml").read_text(encoding="utf-8"))
    return {**tiny, "vision_config": detect["tower_config"], "aux_vision_config": None}


def regroup(source: Path, group_size: int, output: Path, seed: int) -> None:
    """Writes a checkpoint with another number of patches a visual token; the projector's first layer is fresh."""
    model, processor = load_checkpoint(source)
    config = copy.deepcopy(model.config)
    config.visual_token_group_size = group_size
    torch.manual_seed(seed)
    fresh = LiteGPTForConditionalGeneration(config)
    kept = {name: value for name, value in model.state_dict().items() if "multi_modal_projector.linear_1" not in name}
    fresh.load_state_dict(kept, strict=False)
    processor.image_seq_length = config.num_visual_tokens
    save_checkpoint(fresh, processor, output)


# --- What the model has at each step ---------------------------------------------------------------------------------


class Views(NamedTuple):
    """Radiographs as they are shown.

    Attributes:
        features: (views, patches, width) of the towers.
        findings: of each view {"label": number, "box"}, moved along.
        rows: (views,) of which row each is.
    """

    features: torch.Tensor
    findings: list[list[dict[str, Any]]]
    rows: np.ndarray


class Pairs(NamedTuple):
    """Views with a label that is given.

    Attributes:
        view, label: (pairs,) numbers.
        boxes: of each pair the true boxes; none for a label that is not there.
    """

    view: np.ndarray
    label: np.ndarray
    boxes: list[list[list[float]]]


@torch.no_grad()
def views_seen(
    model: LiteGPTForConditionalGeneration,
    store: RadiographStore,
    findings: Sequence[list[dict[str, Any]]],
    views: Sequence[tuple[int, Movement]],
) -> Views:
    """What the towers make of views, (row, movement)."""
    features = []
    for first in range(0, len(views), AT_ONCE):
        rows, movements = zip(*views[first : first + AT_ONCE], strict=True)
        features.append(model.model.get_patch_features(*store.pixel_values(rows, movements)).float())
    moved = [movement.findings(findings[row]) for row, movement in views]
    return Views(torch.cat(features), moved, np.array([row for row, _ in views]))


@torch.no_grad()
def token_states(
    model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, features: torch.Tensor
) -> dict[str, torch.Tensor]:
    """{step: (views, tokens, width)} of the steps that know no label."""
    group, ids = model.config.visual_token_group_size, [*prompt_ids(processor, TASK), *opening(processor, None)]
    parts: list[dict[str, torch.Tensor]] = []
    for part in features.split(AT_ONCE):
        sequences = torch.tensor([ids] * len(part))
        hidden = model.model(input_ids=sequences, patch_features=part, output_hidden_states=True, use_cache=False)
        visual = sequences[0] == model.config.image_token_id
        found = {PROJECTED: hidden.hidden_states[0][:, visual]}
        found |= {f"decoder, layer {n}": state[:, visual] for n, state in enumerate(hidden.hidden_states[1:-1], 1)}
        found[DECODED] = hidden.last_hidden_state[:, visual]
        parts.append({**found, BEGINS: hidden.last_hidden_state[:, -1:]})
    joined = features.reshape(len(features), features.shape[1] // group, -1)
    return {PATCHES: features, JOINED: joined} | {
        name: torch.cat([part[name] for part in parts]).float() for name in parts[0]
    }


@torch.no_grad()
def named_states(
    model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, features: torch.Tensor, pairs: Pairs
) -> torch.Tensor:
    """(pairs, 1, width): the state after which the label's first number is written."""
    found = torch.zeros(len(pairs.label), 1, model.config.text_config.hidden_size)
    for chosen, sequences in sequences_of_labels(processor, pairs):
        hidden = model.model(input_ids=sequences, patch_features=features[pairs.view[chosen]], use_cache=False)
        found[chosen] = hidden.last_hidden_state[:, -1:].float()
    return found


def sequences_of_labels(processor: LiteGPTProcessor, pairs: Pairs) -> Any:
    """(which pairs, their tokens up to the first number), some pairs of a label at a time."""
    prompt = prompt_ids(processor, TASK)
    for label in sorted(set(pairs.label.tolist())):
        ids = [*prompt, *opening(processor, processor.finding_labels[label])]
        of_label = np.flatnonzero(pairs.label == label)
        for first in range(0, len(of_label), AT_ONCE):
            chosen = of_label[first : first + AT_ONCE]
            yield chosen, torch.tensor([ids] * len(chosen))


def opening(processor: LiteGPTProcessor, label: str | None) -> list[int]:
    """The tokens of an answer up to its first label, or up to the first number after a label.

    Raises:
        ValueError: the tokenizer does not write a number, or the answer's first words, as one token.
    """
    numbers = set(number_tokens(processor))
    given = processor.finding_labels[0] if label is None else label
    ids = processor.answer_ids(findings_to_text([Finding(given, (0, 0, 1, 1))]))
    first = next(place for place, token in enumerate(ids) if token in numbers)
    if label is not None:
        return ids[:first]
    other = processor.answer_ids(findings_to_text([Finding(processor.finding_labels[1], (0, 0, 1, 1))]))
    same = next(place for place, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b)
    # "<p>" or the like is the same for all labels; what is said before it is said of "No finding" too.
    nothing = processor.answer_ids(findings_to_text([]))
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids[:same], nothing, strict=False))]


def number_tokens(processor: LiteGPTProcessor) -> list[int]:
    """The tokens that write the numbers from 0 to 100."""
    vocabulary = processor.tokenizer.get_vocab()
    names = [f"<{number}>" for number in range(GRID + 1)]
    if not all(name in vocabulary for name in names):
        raise ValueError("This program needs a tokenizer that writes each number of a box as one token.")
    return [vocabulary[name] for name in names]


@torch.no_grad()
def written_boxes(
    model: LiteGPTForConditionalGeneration,
    processor: LiteGPTProcessor,
    features: torch.Tensor,
    pairs: Pairs,
    middle: bool,
) -> list[tuple[float, list[float]]]:
    """(score, box) of each pair: the numbers that are written after the label.

    The score is the pipeline's `box_score`, where the label is as likely as an answer begins with it.

    Args:
        middle: each number is the middle of its distribution (the median), not the most likely one.
    """
    tokens, start = torch.tensor(number_tokens(processor)), len(prompt_ids(processor, TASK))
    found: list[Any] = [None] * len(pairs.label)
    for chosen, sequences in sequences_of_labels(processor, pairs):
        numbers, coordinates, length = torch.zeros(len(chosen), 0, dtype=torch.long), [], sequences.shape[1]
        for place in range(4):
            output = model(
                input_ids=sequences,
                patch_features=features[pairs.view[chosen]],
                logits_to_keep=length - start + 1 if place == 0 else 1,
                use_cache=False,
            )
            if place == 0:  # how likely the answer begins so
                written = sequences[:, start:, None]
                begins = output.logits[:, :-1].float().log_softmax(-1).gather(2, written).sum((1, 2)).exp()
            logits = output.logits[:, -1, tokens].float()
            values = torch.arange(GRID + 1).expand_as(logits)
            allowed = values < GRID if place < 2 else values > numbers[:, place - 2, None]
            shares = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
            # Rounding may leave the sum below a half at the last value.
            half = (shares.cumsum(-1) < 0.5).sum(-1).clamp(max=GRID)
            number = half if middle else shares.argmax(-1)
            coordinates.append(shares)
            numbers = torch.cat([numbers, number[:, None]], dim=1)
            sequences = torch.cat([sequences, tokens[number][:, None]], dim=1)
        shares, boxes = torch.stack(coordinates, dim=1).double().numpy(), (numbers / GRID).tolist()
        for pair, label, of_pair, box in zip(chosen, begins.tolist(), shares, boxes, strict=True):
            found[pair] = (box_score(box, BoxProbabilities(1.0, label, of_pair)), box)
    return found


# --- Read-outs -------------------------------------------------------------------------------------------------------


class ReadOut(nn.Module):
    """What a linear layer reads of tokens: of every patch of every tower a logit for each label and four corners."""

    def __init__(self, tokens: torch.Tensor, grids: Sequence[int], num_labels: int):
        super().__init__()
        self.grids, self.num_labels = list(grids), num_labels
        self.num_cells = sum(side * side for side in grids)
        flat = tokens.reshape(-1, tokens.shape[-1])
        self.register_buffer("mean", flat.mean(dim=0))
        self.register_buffer("deviation", flat.std(dim=0).clamp(min=1e-6))
        outputs = (num_labels + 4) * (self.num_cells // tokens.shape[1])
        # A head for each tower, as in `pretrain_boxes.py`: a token may hold patches of both.
        self.heads = nn.ModuleList(nn.Linear(tokens.shape[-1], outputs) for _ in grids)

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Of each tower (images, side * side, labels + 4)."""
        tokens = (tokens - self.mean) / self.deviation
        found, first = [], 0
        for head, side in zip(self.heads, self.grids, strict=True):
            cells = head(tokens).reshape(len(tokens), self.num_cells, self.num_labels + 4)
            found.append(cells[:, first : first + side * side])
            first += side * side
        return found


def learnt_read_out(
    tokens: torch.Tensor,
    findings: Sequence[list[dict[str, Any]]],
    grids: Sequence[int],
    num_labels: int,
    steps: int,
    seed: int,
) -> ReadOut:
    """A read-out that has learned from tokens, (views, tokens, width), and the boxes of each view."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    read_out = ReadOut(tokens, grids, num_labels)
    optimizer = torch.optim.AdamW(read_out.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    has_box = np.array([bool(found) for found in findings])
    boxed, empty = np.flatnonzero(has_box), np.flatnonzero(~has_box)
    num_boxed = round(BATCH_SIZE * BOXED_SHARE) if len(empty) else BATCH_SIZE
    for _ in range(steps):
        batch = rng.choice(boxed, num_boxed)
        if num_boxed < BATCH_SIZE:
            batch = np.concatenate([batch, rng.choice(empty, BATCH_SIZE - num_boxed)])
        shown = [findings[view] for view in batch]
        outputs = read_out(tokens[batch])
        loss = sum(patch_loss(output, shown, side, num_labels) for output, side in zip(outputs, grids, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return read_out.eval()


@torch.no_grad()
def boxes_read(read_out: ReadOut, tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (images, cells, labels), boxes (images, cells, 4), and the cells' centres (cells, 2)."""
    parts = [torch.cat(read_out(part), dim=1) for part in tokens.split(AT_ONCE)]
    found, centres = torch.cat(parts), []
    for side in read_out.grids:
        places = (np.arange(side) + 0.5) / side
        y, x = np.meshgrid(places, places, indexing="ij")
        centres.append(np.stack([x.ravel(), y.ravel()], axis=1))
    centre = np.concatenate(centres)
    boxes = found[..., -4:].numpy() / OFFSET_SCALE + np.tile(centre, 2)
    return found[..., :-4].sigmoid().numpy(), boxes.clip(0, 1), centre


def peaks(scores: np.ndarray, boxes: np.ndarray, most: int = MAX_BOXES) -> list[tuple[float, list[float]]]:
    """(score, box) of a map's best cells; of boxes that overlap the best one stays, at the mean of those like it."""
    order, found = np.argsort(-scores, kind="stable"), []
    left = np.ones(len(scores), dtype=bool)
    for cell in order:
        if not left[cell]:
            continue
        overlaps = iou_of_pairs(np.repeat(boxes[cell][None], len(boxes), axis=0), with_area(boxes))
        like = left & (overlaps > VOTING)
        like[cell] = True
        mean = np.average(boxes[like], axis=0, weights=scores[like])
        found.append((float(scores[cell]), mean.tolist()))
        left &= overlaps <= OVERLAP
        left[cell] = False
        if len(found) == most:
            break
    return found


def with_area(boxes: np.ndarray) -> np.ndarray:
    """The boxes, those without an area as a point's surroundings."""
    low = np.minimum(boxes[:, :2], 1 - 1e-3)
    return np.concatenate([low, np.maximum(boxes[:, 2:], low + 1e-3)], axis=1)


def regressed_boxes(
    states: torch.Tensor, boxes: Sequence[Sequence[float]], others: torch.Tensor
) -> list[tuple[float, list[float]]]:
    """Corners of `others`' states by ridge regression from states, (n, 1, width), with the boxes (n, 4)."""
    x, z, y = states[:, 0].double(), others[:, 0].double(), torch.tensor(boxes, dtype=torch.float64)
    mean, deviation, centre = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6), y.mean(dim=0)
    x, z = (x - mean) / deviation, (z - mean) / deviation
    inner = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    found = z @ torch.linalg.solve(inner, x.T @ (y - centre)) + centre
    return [(1.0, box) for box in found.clamp(0, 1).tolist()]


# --- Measuring -------------------------------------------------------------------------------------------------------


def measured(
    checkpoint: Path,
    folds: BoxFolds,
    fold: int,
    cache: Path,
    num_views: int,
    steps: int,
    seed: int,
    reads: Sequence[str] | None,
) -> dict[str, dict[str, Any]]:
    """What is read at each step, and what is written, of the radiographs that a fold tests.

    Returns:
        {step: {"predictions": as `box_folds.scores` takes them, "learnt": Acc given the label on the boxed radiographs
        that were learned from}}.
    """
    model, processor = load_checkpoint(checkpoint)
    model.eval()
    train, test = folds.train_numbers(fold), folds.test_numbers(fold)
    store = RadiographStore(folds.rows, processor.tower_image_processors, cache)
    findings = folds.rows["findings"][:]
    views = views_of(folds.rows.select(train), num_views - 1, seed)
    learnt = views_seen(model, store, findings, [(int(train[place]), movement) for place, movement in views])
    known = [int(row) for row in train if folds.truths[row].any]
    shown = views_seen(model, store, findings, [(int(row), Movement()) for row in [*test, *known]])
    truths, labels = [folds.truths[row] for row in shown.rows], processor.finding_labels
    asked = sorted({labels.index(label) for truth in truths for label in truth.labels})
    results = read_from_tokens(model, processor, learnt, shown, asked, reads, steps, seed)
    # Of tested radiographs each label that there is, so that one may be given another's; of the others their own.
    own = [{labels.index(name): boxes for name, boxes in truth.labels.items()} for truth in truths]
    pairs = pairs_of([dict.fromkeys(asked, []) | of if n < len(test) else of for n, of in enumerate(own)])
    if reads is None:
        results |= read_from_label(model, processor, learnt, shown, pairs, steps, seed)
    for step, middle in ((GREEDY, False), (MIDDLE, True)):
        print(f"  {step}", flush=True)
        found = written_boxes(model, processor, shown.features, pairs, middle)
        results[step] = [
            {**one, ANY: of_any([pair for of in one["labels"].values() for pair in of])}
            for one in of_pairs(found, pairs, labels, len(truths))
        ]
    results[FREE] = free_answers(model, processor, folds, shown.rows)

    ids = folds.rows["image_id"][:]
    names = [ids[row] for row in test]
    return {
        step: {
            "predictions": dict(zip(names, found[: len(test)], strict=True)),
            "learnt": share_met(found[len(test) :], truths[len(test) :]),
        }
        for step, found in results.items()
    }


def read_from_tokens(
    model: LiteGPTForConditionalGeneration,
    processor: LiteGPTProcessor,
    learnt: Views,
    shown: Views,
    asked: Sequence[int],
    reads: Sequence[str] | None,
    steps: int,
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """{step: predictions of each view that is shown} of maps of all labels and of any.

    Args:
        asked: labels whose boxes are predicted.
        reads: steps; None: all.
    """
    labels, grids, results = processor.finding_labels, model.config.tower_grids, {}
    any_label = len(labels)
    findings = [[*found, *({**one, "label": any_label} for one in found)] for found in learnt.findings]
    of_learnt, of_shown = (token_states(model, processor, views.features) for views in (learnt, shown))
    for step in of_learnt if reads is None else reads:
        print(f"  reading {step}", flush=True)
        read_out = learnt_read_out(of_learnt[step], findings, grids, any_label + 1, steps, seed)
        maps, boxes, centres = boxes_read(read_out, of_shown[step])
        results[step] = [
            {
                ANY: peaks(of_image[:, any_label], box),
                "labels": {labels[n]: peaks(of_image[:, n], box, most=1) for n in asked},
                POINT: centres[of_image[: grids[0] ** 2, any_label].argmax()].tolist(),
            }
            for of_image, box in zip(maps, boxes, strict=True)
        ]
    return results


def read_from_label(
    model: LiteGPTForConditionalGeneration,
    processor: LiteGPTProcessor,
    learnt: Views,
    shown: Views,
    pairs: Pairs,
    steps: int,
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """{step: predictions of each view that is shown} of the state after a label that is given.

    Args:
        pairs: of `shown`.
    """
    print(f"  reading {NAMED}", flush=True)
    of_views = pairs_of([grouped(found) for found in learnt.findings])
    at_learnt, at_shown = (
        named_states(model, processor, views.features, of) for views, of in ((learnt, of_views), (shown, pairs))
    )
    alone = [[{"label": 0, "box": box} for box in boxes] for boxes in of_views.boxes]
    maps, boxes, _ = boxes_read(learnt_read_out(at_learnt, alone, model.config.tower_grids, 1, steps, seed), at_shown)
    drawn = [peaks(of_pair[:, 0], box, most=1)[0] for of_pair, box in zip(maps, boxes, strict=True)]
    regressed = regressed_boxes(at_learnt, [boxes[0] for boxes in of_views.boxes], at_shown)
    return {
        step: of_pairs(found, pairs, processor.finding_labels, len(shown.rows))
        for step, found in ((NAMED, drawn), (REGRESSED, regressed))
    }


def of_any(found: Sequence[tuple[float, list[float]]]) -> list[tuple[float, list[float]]]:
    """Boxes of any label, of those of all labels: of boxes that overlap the best one stays."""
    ordered = sorted(found, key=lambda pair: -pair[0])
    boxes = np.array([box for _, box in ordered]).reshape(-1, 4)
    return [ordered[place] for place in keep_one_of_overlapping(boxes, OVERLAP)] if ordered else []


def grouped(findings: Sequence[Mapping[str, Any]]) -> dict[int, list[list[float]]]:
    """{label: its boxes}."""
    found: dict[int, list[list[float]]] = {}
    for finding in findings:
        found.setdefault(finding["label"], []).append(finding["box"])
    return found


def pairs_of(boxes: Sequence[Mapping[int, list[list[float]]]]) -> Pairs:
    """All pairs of a view and a label, of {label: boxes} for each view."""
    items = [(view, label, of) for view, labels in enumerate(boxes) for label, of in labels.items()]
    return Pairs(
        np.array([view for view, _, _ in items], dtype=int),
        np.array([label for _, label, _ in items], dtype=int),
        [of for _, _, of in items],
    )


def of_pairs(
    found: Sequence[tuple[float, list[float]]], pairs: Pairs, labels: Sequence[str], num_views: int
) -> list[dict[str, Any]]:
    """Predictions of each view, from those of each pair."""
    predictions: list[dict[str, Any]] = [{"labels": {}} for _ in range(num_views)]
    for one, view, label in zip(found, pairs.view, pairs.label, strict=True):
        predictions[view]["labels"][labels[label]] = [one]
    return predictions


def free_answers(
    model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, folds: BoxFolds, rows: np.ndarray
) -> list[dict[str, Any]]:
    """The boxes that the answers name, with the pipeline's scores."""
    pipe = ChestXrayFindingsPipeline(model=model, processor=processor, device="cpu")
    found = []
    with doubts_unsaid():
        lines = answer_lines(
            pipe, folds.rows.select(rows), TASK, batch_size=16, max_new_tokens=512, written_boxes=True
        )
        for line in lines:
            labels: dict[str, list] = {}
            for one in line["findings"]:
                labels.setdefault(one["label"], []).append((one["score"], one["box"]))
            found.append({ANY: [pair for of in labels.values() for pair in of], "labels": labels})
    return found


def kept(path: Path, measure: Any) -> dict[str, Any]:
    """What a file has, or what is measured now and written there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.dumps(measure())
        path.with_suffix(".incomplete").write_text(found, encoding="utf-8")
        path.with_suffix(".incomplete").replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def pooled(parts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The measurements of several folds as one; "learnt" is their mean."""
    return {
        step: {
            "predictions": {name: one for part in parts for name, one in part[step]["predictions"].items()},
            "learnt": float(np.mean([part[step]["learnt"] for part in parts])),
        }
        for step in parts[0]
    }


def scored(
    folds: BoxFolds, found: Mapping[str, Any], which: Sequence[int], today: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """{step: scores, also less those of the step before and less today's, and what was reached where it learned}."""
    results = {}
    for step, of_step in found.items():
        others = {BEFORE: found.get(STEP_BEFORE.get(step, PROJECTED)), TODAY: (today or {}).get(step)}
        against = {name: other["predictions"] for name, other in others.items() if other and other is not of_step}
        results[step] = scores(folds, of_step["predictions"], which, against) | {"learnt": of_step["learnt"]}
    return results


def naming(folds: BoxFolds, predictions: Mapping[str, Any], which: Sequence[int]) -> dict[str, float | None]:
    """What answers name: shares of radiographs and of pairs of a radiograph and one of its labels."""
    ids, rows = folds.rows["image_id"][:], [row for fold in which for row in folds.test_numbers(fold)]
    answers, truths = [predictions[ids[row]] for row in rows], [folds.truths[row] for row in rows]
    has_box, boxed = np.array([bool(a[ANY]) for a in answers]), np.array([bool(t.any) for t in truths])
    alone = [
        t._replace(labels={n: b for n, b in t.labels.items() if n in a["labels"]})
        for a, t in zip(answers, truths, strict=True)
    ]
    figures = {
        "a box, where there is one": ratio(has_box[boxed].sum(), boxed.sum()),
        "a box, where there is none": ratio(has_box[~boxed].sum(), (~boxed).sum()),
        "a label that is there": ratio(sum(len(t.labels) for t in alone), sum(len(t.labels) for t in truths)),
        "Acc of those": share_met(answers, alone),
    }
    return {name: number_or_none(float(value)) for name, value in figures.items()}


def naming_table(results: Mapping[str, Any]) -> str:
    """What free answers name, in Markdown, a line a run."""
    columns = list(next(iter(results.values()))["free_answer"])
    lines = [f"| run | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, result in results.items():
        values = ["" if value is None else f"{value:.2f}" for value in result["free_answer"].values()]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)


def shown_table(results: Mapping[str, Any], other: str) -> str:
    """The scores in Markdown, also less the other's, with a last column of the radiographs that were learned from."""
    lines = table(results, differences=(*DIFFERENCES, (other, ACC), (other, "ap_0.3"))).splitlines()
    more = ["acc where learned", "---", *(f"{result['learnt']:.3f}" for result in results.values())]
    return "\n".join(f"{line} {cell} |" for line, cell in zip(lines, more, strict=True))


# --- Parts -----------------------------------------------------------------------------------------------------------


def real(options: argparse.Namespace) -> dict[str, Any]:
    folder = options.output_dir / "real"
    folds = box_folds(real_data(options.real_data), folder / "cache")
    found, seconds, results = {}, {}, {}
    for name in options.runs:
        run, parts, costs = RUNS[name], [], []
        for fold in options.folds:
            of_fold = folder / f"fold_{fold}_seed_{options.seed}"
            data = write_fold(folds, fold, folder / f"fold_{fold}" / "data")
            cache = folder / f"fold_{fold}" / "cache"
            of_fold.mkdir(parents=True, exist_ok=True)
            checkpoint = trained(of_fold, data, cache, name, run, options.seed)
            print(f"fold {fold}, {name}", flush=True)
            how = (folder / "cache", options.views, options.steps, options.seed, run.reads)
            path = of_fold / name / "measured.json"
            parts.append(kept(path, lambda c=checkpoint, f=fold, h=how: measured(c, folds, f, *h)))
            noted = json.loads((of_fold / "cpu_seconds.json").read_text(encoding="utf-8"))
            costs.append([noted[f"{run.tower} towers"], noted[name]])
        found[name], seconds[name] = pooled(parts), np.mean(costs, axis=0).tolist()
    for name, of_run in found.items():
        results[name] = {
            "cpu_seconds": seconds[name],
            "steps": scored(folds, of_run, options.folds, found.get(TODAY)),
            "free_answer": naming(folds, of_run[FREE]["predictions"], options.folds),
        }
        print(f"\n{name}, folds {options.folds}\n\n{shown_table(results[name]['steps'], BEFORE)}\n", flush=True)
    for step in (PATCHES, DECODED, GREEDY, MIDDLE, FREE):
        of_step = {
            "{} (CPU s: towers {:.0f}, stage one {:.0f})".format(name, *result["cpu_seconds"]): result["steps"][step]
            for name, result in results.items()
            if step in result["steps"]
        }
        print(f"\n{step}\n\n{shown_table(of_step, TODAY)}\n")
    print(f"\nWhat the free answers name\n\n{naming_table(results)}")
    for name, result in results.items():
        for step in (PATCHES, GREEDY):
            if step in result["steps"]:
                print(f"\n{name}, {step}, by label\n\n{label_table(result['steps'][step])}")
    return results


def phantoms(options: argparse.Namespace) -> dict[str, Any]:
    folder = options.output_dir / "phantoms"
    split = (f"train[:{options.num_train}]", f"test[:{options.num_test}]")
    train, test = (load_rows(str(options.data_dir), part, str(folder / "cache")) for part in split)
    folds = train_and_test(train, test)
    how = (folder / "cache", 2, options.steps, options.seed, None)
    found = kept(folder / "measured.json", lambda: measured(options.model_name_or_path, folds, 0, *how))
    results = scored(folds, found, [0])
    names = naming(folds, found[FREE]["predictions"], [0])
    result = {"checkpoint": {"steps": results, "free_answer": names}}
    print(f"\nphantoms\n\n{shown_table(results, BEFORE)}\n\n{naming_table(result)}\n")
    return result


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    if options.what == "real":
        name, results = f"real, folds {' '.join(map(str, options.folds))}, seed {options.seed}", real(options)
    else:
        name, results = "phantoms", phantoms(options)
    output = options.output or options.output_dir / "where_sight_is_lost.json"
    before = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    before[name] = before.get(name, {}) | results
    output.write_text(json.dumps(before, indent=1), encoding="utf-8")
    print(f"Everything is in {output}.")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["real", "phantoms"])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/where_sight_is_lost"))
    parser.add_argument("--output", type=Path, help="the figures; where_sight_is_lost.json in output_dir by default")
    parser.add_argument("--real_data", help="folder with nih_320; else LITEGPT_REAL_CXR names it")
    parser.add_argument("--folds", type=int, nargs="+", default=[0], help="that are trained for and tested")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--data_dir", type=Path, help="phantoms: a release with train and test")
    parser.add_argument("--model_name_or_path", type=Path, help="phantoms: what was trained on that train")
    parser.add_argument("--num_train", type=int, default=1500, help="phantoms that read-outs learn from")
    parser.add_argument("--num_test", type=int, default=300)
    parser.add_argument("--views", type=int, default=VIEWS, help="of a boxed radiograph that read-outs learn from")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a read-out")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
