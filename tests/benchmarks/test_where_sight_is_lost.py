"""Read-outs at every step of a tiny LiteGPT, in a form that a test can afford."""

import json

import numpy as np
import pytest
import torch

from litegpt.benchmarks import where_sight_is_lost as sight
from litegpt.benchmarks.box_folds import ANY, POINT, scores, train_and_test
from litegpt.metrics.boxes import iou_of_pairs
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answers import Finding, findings_to_text
from litegpt.train_scripts.examples import prompt_ids
from litegpt.train_scripts.pretrain_boxes import patch_targets
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement


@pytest.fixture(scope="module")
def folds(rows):
    return train_and_test(rows.select(range(16)), rows.select(range(16, 24)))


@pytest.fixture(scope="module")
def found(tiny_checkpoint, folds, cache_dir, one_thread):
    return sight.measured(tiny_checkpoint, folds, 0, cache_dir, num_views=2, steps=3, seed=0, reads=None)


def test_every_step_is_read_and_can_be_scored(found, folds):
    steps = [sight.PATCHES, sight.JOINED, sight.PROJECTED, "decoder, layer 1", sight.DECODED, sight.BEGINS]
    words = [sight.GREEDY, sight.MIDDLE, sight.FREE]
    assert list(found) == [*steps, sight.NAMED, sight.REGRESSED, *words]
    ids = folds.test_rows(0)["image_id"][:]
    for step, of_step in found.items():
        assert list(of_step["predictions"]) == ids and 0 <= of_step["learnt"] <= 1
        for one in of_step["predictions"].values():
            assert (POINT in one) == (step in steps) and (ANY in one) == (step in [*steps, *words])
            boxes = [box for of in [one.get(ANY, []), *one["labels"].values()] for _, box in of]
            assert all(0 <= v <= 1 for box in boxes for v in box)
    result = sight.scored(folds, {sight.GREEDY: found[sight.GREEDY]}, [0])
    assert result[sight.GREEDY]["figures"]["own"]["acc"] >= 0
    assert sight.shown_table(result, sight.BEFORE).count("\n") == 2
    names = sight.naming(folds, found[sight.FREE]["predictions"], [0])
    assert 0 <= names["a label that is there"] <= 1
    assert "| run |" in sight.naming_table({"tiny": {"free_answer": names}})
    assert "figures" in scores(folds, found[sight.NAMED]["predictions"])


def test_what_is_written_after_a_label_is_what_a_free_answer_writes_after_it(tiny_checkpoint, folds, cache_dir):
    model, processor = load_checkpoint(tiny_checkpoint)
    model.eval()
    store = RadiographStore(folds.rows, processor.tower_image_processors, cache_dir)
    views = sight.views_seen(model, store, folds.rows["findings"][:], [(row, Movement()) for row in range(8)])
    states = sight.token_states(model, processor, views.features)[sight.BEGINS]
    start = sight.opening(processor, None)
    named = sight.opening(processor, processor.finding_labels[0])[len(start)]
    with torch.no_grad():  # else it would find nothing
        model.lm_head.weight[named] = 10 * states.mean(dim=(0, 1))
    free = sight.free_answers(model, processor, folds, np.arange(8))
    named = [list(one["labels"].items())[:1] for one in free]
    assert any(named)
    pairs = sight.pairs_of([{processor.finding_labels.index(label): [] for label, _ in first} for first in named])
    written = sight.written_boxes(model, processor, views.features, pairs, middle=False)
    for (score, box), [(_, boxes)] in zip(written, filter(None, named), strict=True):
        assert box == pytest.approx(boxes[0][1]) and 0 <= score <= 1


def test_states_are_those_after_which_labels_and_numbers_are_written(tiny_checkpoint):
    _, processor = load_checkpoint(tiny_checkpoint)
    first, other = processor.finding_labels[:2]
    answer = processor.answer_ids(findings_to_text([Finding(other, (0.12, 0.2, 0.3, 0.4))]))
    start, named = sight.opening(processor, None), sight.opening(processor, other)
    assert answer[: len(start)] == start == processor.answer_ids(findings_to_text([]))[: len(start)]
    assert answer[: len(named)] == named and answer[len(named)] == sight.number_tokens(processor)[12]
    assert sight.opening(processor, first) != named and prompt_ids(processor, sight.TASK)


def test_a_read_out_learns_where_boxes_are_from_tokens_that_hold_several_patches():
    """Four tokens of four patches each, one tower of 4 x 4: what a token says of its patches is read for each."""
    rng = np.random.default_rng(0)
    findings = [
        [{"label": 0, "box": [x / 4, y / 4, x / 4 + 0.5, y / 4 + 0.25]}] if n % 4 else []
        for n, (x, y) in enumerate(rng.integers(0, 3, (80, 2)))
    ]
    inside, _ = patch_targets(findings, 4, 1)
    tokens = inside[..., 0].reshape(80, 4, 4) + 0.01 * torch.randn(80, 4, 4)
    read_out = sight.learnt_read_out(tokens, findings, [4], 1, steps=800, seed=0)
    maps, boxes, centres = sight.boxes_read(read_out, tokens)
    assert maps.shape == (80, 16, 1) and boxes.shape == (80, 16, 4) and centres[1].tolist() == [0.375, 0.125]
    right = [
        iou_of_pairs(np.array([sight.peaks(of[:, 0], box, 1)[0][1]]), np.array([true[0]["box"]]))[0] > 0.3
        for of, box, true in zip(maps, boxes, findings, strict=True)
        if true
    ]
    assert np.mean(right) > 0.9


def test_a_map_s_best_boxes_do_not_overlap():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.02, 0, 0.52, 0.5], [0.6, 0.6, 1, 1], [0.3, 0.3, 0.3, 0.3]])
    found = sight.peaks(np.array([0.9, 0.3, 0.5, 0.1]), boxes)
    assert [score for score, _ in found] == [0.9, 0.5, 0.1]
    assert found[0][1] == pytest.approx([0.005, 0, 0.505, 0.5])  # the two that overlap, by their scores


def test_a_regression_finds_corners_that_are_linear_in_a_state():
    states = torch.randn(200, 1, 6, generator=torch.Generator().manual_seed(0))
    boxes = (0.5 + 0.05 * states[:, 0] @ torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    found = sight.regressed_boxes(states, boxes.tolist(), states[:5])
    assert np.allclose([box for _, box in found], boxes[:5], atol=0.05)


def test_patches_are_regrouped_and_everything_else_stays(tiny_checkpoint, tmp_path):
    sight.regroup(tiny_checkpoint, 1, tmp_path / "one", seed=0)
    (model, _), (other, processor) = load_checkpoint(tiny_checkpoint), load_checkpoint(tmp_path / "one")
    assert other.config.num_visual_tokens == processor.image_seq_length == model.config.num_patch_tokens
    theirs, fresh = other.state_dict(), "multi_modal_projector.linear_1"
    assert all(torch.equal(value, theirs[n]) for n, value in model.state_dict().items() if fresh not in n)


def test_what_is_measured_is_kept(tmp_path):
    path = tmp_path / "run" / "measured.json"
    assert sight.kept(path, lambda: {"a": 1}) == {"a": 1} == sight.kept(path, lambda: {"b": 2})


def test_folds_are_pooled():
    parts = [{"s": {"predictions": {n: {}}, "learnt": v}} for n, v in (("a", 0.2), ("b", 0.4))]
    assert sight.pooled(parts) == {"s": {"predictions": {"a": {}, "b": {}}, "learnt": pytest.approx(0.3)}}


def test_runs_are_measured_once_and_shown_beside_todays(tiny_checkpoint, folds, tmp_path, monkeypatch, capsys):
    asked = []

    def trained(folder, data, cache, name, run, seed):
        asked.append(name)
        (folder / "cpu_seconds.json").write_text(json.dumps({"ViT towers": 1, **dict.fromkeys(asked, 2)}))
        return tiny_checkpoint

    monkeypatch.setattr(sight, "trained", trained)
    monkeypatch.setattr(sight, "real_data", lambda given: tmp_path)
    monkeypatch.setattr(sight, "box_folds", lambda folder, cache: folds)
    monkeypatch.setattr(sight, "write_fold", lambda folds, fold, folder: folder)
    names = [sight.TODAY, "boxed radiographs alone"]
    words = ["real", "--output_dir", str(tmp_path), "--views", "1", "--steps", "1", "--runs", *names]
    sight.main(sight.parser().parse_args(words))
    shown = capsys.readouterr().out
    assert asked == names and "| boxed radiographs alone (CPU s: towers 1, stage one 2) |" in shown
    results = json.loads((tmp_path / "where_sight_is_lost.json").read_text())["real, folds 0, seed 0"]
    assert list(results) == names
    steps = results["boxed radiographs alone"]["steps"]  # the same checkpoint
    assert steps[sight.GREEDY]["figures"]["less_today"]["acc"] == 0
    monkeypatch.setattr(sight, "measured", None)
    sight.main(sight.parser().parse_args([*words[:-2], *names]))
    assert "reading" in shown and "reading" not in capsys.readouterr().out
