import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler
from trl import SFTConfig

from litegpt.common.programs import Refusal
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.train_scripts import trainer
from litegpt.train_scripts.arguments import RecipeArguments
from litegpt.train_scripts.sampler import EpochSampler, TaskMixture
from litegpt.train_scripts.trainer import linear_warmup_cosine_lr, refuse_options_without_effect, why_a_run_ended
from tests.small_training import train


def history(output_dir, step: int) -> list[dict[str, float]]:
    state = json.loads((output_dir / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


def epochs(count: int, **options) -> list[list[int]]:
    """The indices of the first epochs."""
    arguments = {"num_examples": 10, "batch_size": 4, "steps_per_epoch": 3, "seed": 0, **options}
    return [list(EpochSampler(**arguments, current_epoch=lambda epoch=epoch: epoch)) for epoch in range(count)]


def test_learning_rates_of_the_paper_follow_the_release_in_every_step():
    num_steps, warmup, top, low, first = 20 * 549, 1000, 1e-5, 1e-6, 1e-6
    # Written after the formula in the note on the release, without looking at the trainer.
    steps = np.arange(num_steps)
    expected = np.concatenate(
        [
            np.linspace(first, top, warmup, endpoint=False),
            (top + low) / 2 + (top - low) / 2 * np.cos(steps[warmup:] * np.pi / num_steps),
        ]
    )
    rates = [linear_warmup_cosine_lr(step, num_steps, top, first, warmup, low) for step in steps]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    # The cosine counts the warm-up: it begins below `top`. By hand: 1e-6 + 9e-6 * (1 + cos(pi * 1000 / 10980)) / 2.
    assert rates[999] == pytest.approx(9.991e-6) and rates[1000] == pytest.approx(9.8167e-6, rel=1e-4)
    assert rates[0] == first and rates[-1] == pytest.approx(low, rel=1e-3)


def test_an_epoch_is_a_number_of_steps_with_the_schedule_of_the_release(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    train(
        tmp_path / "out",
        tiny_checkpoint,
        phantom_release,
        cache_dir,
        linear_warmup_cosine_lr=True,
        steps_per_epoch=3,
        num_train_epochs=2,
        max_steps=-1,
        learning_rate=1e-3,
        warmup_lr=1e-4,
        min_lr=2e-4,
        warmup_steps=2,
        save_strategy="epoch",
    )
    log = history(tmp_path / "out", 6)
    cosine = [2e-4 + 4e-4 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert [entry["learning_rate"] for entry in log] == pytest.approx([1e-4, 5.5e-4, *cosine[2:]])
    assert [entry["epoch"] for entry in log] == pytest.approx([step / 3 for step in range(1, 7)])
    assert not any("entropy" in entry or "mean_token_accuracy" in entry for entry in log)
    assert not list((tmp_path / "out").rglob("README.md"))[1:]  # the checkpoint's own card alone, none of TRL


def test_accumulated_batches_have_the_losses_of_one_batch(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 3, "max_grad_norm": 0.0}
    for name, size, accumulated in (("whole", 4, 1), ("parts", 2, 2)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        train(tmp_path / name, tiny_checkpoint, phantom_release, cache_dir, **options, **sizes)
    whole, parts = ([entry["loss"] for entry in history(tmp_path / name, 3)] for name in ("whole", "parts"))
    assert parts == pytest.approx(whole, rel=1e-5) and len(set(whole)) == 3


def test_compiled_layers_have_the_losses_of_plain_ones_and_save_the_same_checkpoint(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    compiled = []
    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **how: (compiled.append(how), plain(layer, **how)))
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 3}
    # Dynamo is run, and its graphs as they are: Inductor takes a minute.
    for name, how in (("plain", {}), ("compiled", {"torch_compile": True, "torch_compile_backend": "eager"})):
        train(tmp_path / name, tiny_checkpoint, phantom_release, cache_dir, **options, **how)
    ours, theirs = ([entry["loss"] for entry in history(tmp_path / name, 3)] for name in ("compiled", "plain"))
    assert ours == pytest.approx(theirs, rel=1e-5) and len(set(ours)) == 3
    layers = json.loads((tiny_checkpoint / "config.json").read_text())["text_config"]["num_hidden_layers"]
    assert [how["backend"] for how in compiled] == ["eager"] * layers
    names = [{file.name for file in (tmp_path / name / "checkpoint-3").iterdir()} for name in ("compiled", "plain")]
    assert names[0] == names[1]
    assert "ACCELERATE_DYNAMO_BACKEND" not in os.environ


def test_every_example_is_seen_once_before_any_is_seen_again_also_from_epoch_to_epoch():
    stream = sum(epochs(5), [])  # 5 epochs of 12, 6 permutations of 10
    assert len(stream) == 60
    permutations = [stream[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(permutation) == list(range(10)) for permutation in permutations)
    assert len({tuple(permutation) for permutation in permutations}) == 6
    assert epochs(5) == epochs(5) and epochs(1) != epochs(1, seed=1)


def test_an_epoch_shows_every_example_where_no_number_of_steps_is_given():
    for epoch in epochs(3, steps_per_epoch=None):
        assert sorted(epoch[:10]) == list(range(10)) and epoch[10:] == epoch[:2]
    (whole_batches,) = epochs(1, num_examples=12, steps_per_epoch=None)
    assert sorted(whole_batches) == list(range(12))


def test_draws_with_replacement_repeat_examples():
    plain, other = epochs(2, steps_per_epoch=1000, with_replacement=True)
    counts = np.bincount(plain, minlength=10)
    assert counts.min() > 320 and counts.max() < 480  # 400 +- 4 standard deviations
    assert len(set(plain[:10])) < 10
    assert plain != other


@pytest.mark.parametrize("with_replacement", [False, True])
def test_grouping_by_length_shows_the_same_examples_in_batches_of_like_length(with_replacement):
    lengths = np.random.default_rng(0).integers(50, 500, size=400)
    options = {"num_examples": 400, "steps_per_epoch": 75, "with_replacement": with_replacement}
    for plain, grouped in zip(epochs(2, **options), epochs(2, lengths=lengths, **options), strict=True):
        assert sorted(plain) == sorted(grouped) and plain != grouped

        def padding(indices):
            batches = lengths[indices].reshape(-1, 4)
            return (batches.max(axis=1, keepdims=True) - batches).mean()

        assert padding(grouped) < 0.1 * padding(plain)
        # Long and short batches come in random order, not one after the other.
        means = lengths[grouped].reshape(-1, 4).mean(axis=1)[:50]
        assert 15 < (np.diff(means) > 0).sum() < 35


def test_two_processes_see_the_batches_of_one_process_with_twice_the_batch():
    options = {"num_examples": 21, "batch_size": 8, "steps_per_epoch": None, "seed": 0, "current_epoch": lambda: 1}
    one = list(BatchSampler(EpochSampler(**options), 8, drop_last=False))
    shards = [BatchSamplerShard(BatchSampler(EpochSampler(**options), 4, drop_last=False), 2, rank) for rank in (0, 1)]
    assert [first + second for first, second in zip(*shards, strict=True)] == one
    assert len(one) == len(shards[0]) == 3 and all(len(batch) == 8 for batch in one)


@pytest.mark.parametrize(
    "option",
    [
        {"loss_type": "dft"},
        {"packing": True},
        {"label_smoothing_factor": 0.1},
        {"train_sampling_strategy": "sequential"},
    ],
)
def test_options_that_would_be_ignored_are_refused(option, tmp_path):
    arguments = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, **option)
    with pytest.raises(Refusal, match=next(iter(option))):
        refuse_options_without_effect(arguments, RecipeArguments())


def test_a_look_at_the_defaults_leaves_the_process_on_the_device_of_the_run(tmp_path, monkeypatch):
    """A second set of arguments chooses the device anew: on a GPU, one for a CPU moved the model back to it."""
    arguments = SFTConfig(str(tmp_path), use_cpu=True, bf16=False)
    arguments.use_cpu = False  # as on a machine with a GPU
    made = []
    monkeypatch.setattr(trainer, "SFTConfig", lambda *_, **options: made.append(options) or arguments)
    refuse_options_without_effect(arguments, RecipeArguments())
    assert [options["use_cpu"] for options in made] == [False]


def test_bugs_keep_their_traceback_and_a_full_gpu_says_what_to_lower():
    assert why_a_run_ended(RuntimeError("shapes do not match")) is None
    assert "per_device_train_batch_size" in why_a_run_ended(torch.OutOfMemoryError("CUDA out of memory."))
    assert "another process" in why_a_run_ended(RuntimeError("[../gloo/transport/tcp/pair.cc:5] Connection closed"))


def test_the_order_without_weights_is_as_it_was():
    """Written down before there were weights: runs that began then resume."""
    assert epochs(2) == [[4, 6, 2, 7, 3, 5, 9, 0, 8, 1, 9, 1], [3, 8, 7, 6, 0, 4, 2, 5, 8, 2, 1, 0]]


TASKS_OF_EXAMPLES = ["identify"] * 90 + ["refer"] * 900 + ["report"] * 10


def mixed(count: int, weights: dict[str, float], **options) -> list[list[int]]:
    mixture = TaskMixture.of(TASKS_OF_EXAMPLES, weights)
    return epochs(count, num_examples=1000, batch_size=10, steps_per_epoch=10, mixture=mixture, **options)


def test_each_task_has_its_share_of_every_epoch_and_batch_whatever_the_number_of_its_examples():
    weights = {"identify": 1, "refer": 2, "report": 1.5}
    found = mixed(200, weights)
    shares = {task: weight / 4.5 for task, weight in weights.items()}
    counts = {task: [sum(TASKS_OF_EXAMPLES[i] == task for i in epoch) for epoch in found] for task in weights}
    for task, share in shares.items():
        assert all(abs(count - 100 * share) < 1 for count in counts[task])
        assert np.mean(counts[task]) == pytest.approx(100 * share, abs=0.1)
        for epoch in found[:5]:
            for start in range(0, 100, 10):
                in_batch = sum(TASKS_OF_EXAMPLES[i] == task for i in epoch[start : start + 10])
                assert abs(in_batch - 10 * share) < 2
    assert all(len(epoch) == 100 for epoch in found)


def test_with_weights_every_example_of_a_task_is_seen_before_any_is_seen_again():
    found = [index for epoch in mixed(40, {"identify": 1, "refer": 2, "report": 1}) for index in epoch]
    for task, size in (("identify", 90), ("refer", 900), ("report", 10)):
        of_task = [index for index in found if TASKS_OF_EXAMPLES[index] == task]
        for start in range(0, len(of_task) - size, size):
            assert len(set(of_task[start : start + size])) == size
        assert len(of_task) > size


def test_a_weighted_order_is_the_seeds_and_the_epochs_alone():
    weights = {"identify": 1, "report": 3}
    assert mixed(4, weights)[2:] == mixed(4, weights)[2:] != mixed(4, weights, seed=1)[2:]
    assert mixed(1, weights, with_replacement=True) == mixed(1, weights, with_replacement=True)
    lengths = list(range(1000))
    assert sorted(mixed(1, weights, lengths=lengths)[0]) == sorted(mixed(1, weights)[0])


def test_a_weight_of_a_task_without_examples_is_refused():
    with pytest.raises(Refusal, match="task_weights: there is no example of chat"):
        TaskMixture.of(TASKS_OF_EXAMPLES, {"chat": 1})


def test_an_interrupted_run_with_weights_goes_on_to_the_same_weights(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    options = {
        "save_strategy": "steps",
        "save_steps": 2,
        "template_words": True,
        "tasks": ["identify", "refer", "report"],
    }
    options["task_weights"] = {"refer": 2.0}
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    expected = load_checkpoint(tmp_path / "out" / "checkpoint")[0].state_dict()
    shutil.rmtree(tmp_path / "out" / "checkpoint")
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    for name, tensor in load_checkpoint(tmp_path / "out" / "checkpoint")[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
