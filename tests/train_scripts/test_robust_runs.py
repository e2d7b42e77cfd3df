"""Runs that are killed go on exactly; runs that cannot go on end in one sentence, the last checkpoint intact.

Runs that are killed are children of a fork server, which imports torch once for all of them.
"""

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import get_worker_info
from transformers import TrainerState

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.train_scripts.examples import ChatCollator
from litegpt.train_scripts.trainer import LiteGPTTrainer
from tests.small_training import train

# LoRA's dropout needs the random state; epochs of 4 steps end between two checkpoints.
OPTIONS = {
    "max_steps": 9,
    "steps_per_epoch": 4,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 1,
    "per_device_train_batch_size": 2,
    "cache_features": True,
    "train_sampling_strategy": "group_by_length",
    "model_options": {"use_peft": True, "lora_r": 4, "lora_dropout": 0.2},
}
MOMENTS = ["in a step", "weights written", "state half written", "older deleted in part", "after the last checkpoint"]


def losses(output_dir: Path) -> list[tuple[int, float, float]]:
    state = json.loads((output_dir / "checkpoint-9" / "trainer_state.json").read_text())
    return [
        (entry["step"], entry["loss"], entry["learning_rate"]) for entry in state["log_history"] if "loss" in entry
    ]


def checkpoints(output_dir: Path) -> list[str]:
    return sorted(folder.name for folder in output_dir.glob("checkpoint-*"))


def kill_after(function, killing_step: int):
    """`function`, after which the process kills itself at a step of the run."""

    def killed(self, *args, **kwargs):
        result = function(self, *args, **kwargs)
        if self.state.global_step == killing_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return killed


def write_half_a_state(self, json_path: str) -> None:
    Path(json_path).write_text('{"best_global_step": null, "epo')
    os.kill(os.getpid(), signal.SIGKILL)


def delete_older_in_part(folder, rmtree=shutil.rmtree, **kwargs) -> None:
    if Path(folder).name == "checkpoint-3":
        os.unlink(Path(folder) / "optimizer.pt")
        os.kill(os.getpid(), signal.SIGKILL)
    rmtree(folder, **kwargs)


def run_in_child(moment: str | None, environment: dict[str, str], output_dir: Path, *args) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    errors = output_dir.with_name(f"errors{os.environ.get('RANK', '')}.txt")
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if moment == "in a step":
        LiteGPTTrainer.training_step = kill_after(LiteGPTTrainer.training_step, killing_step=4)
    elif moment == "weights written":
        LiteGPTTrainer.save_model = kill_after(LiteGPTTrainer.save_model, killing_step=6)
    elif moment == "state half written":
        TrainerState.save_to_json = write_half_a_state
    elif moment == "older deleted in part":
        shutil.rmtree = delete_older_in_part
    elif moment == "after the last checkpoint":
        LiteGPTTrainer._save_checkpoint = kill_after(LiteGPTTrainer._save_checkpoint, killing_step=9)
    train(output_dir, *args, **OPTIONS)


@pytest.fixture(scope="module")
def start_run(tiny_checkpoint, phantom_release, cache_dir):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.small_training"])

    def start(output_dir: Path, moment: str | None = None, **environment: str) -> multiprocessing.Process:
        arguments = (moment, environment, output_dir, tiny_checkpoint, phantom_release, cache_dir)
        process = context.Process(target=run_in_child, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def uninterrupted(start_run, tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("uninterrupted") / "out"
    process = start_run(output_dir)
    process.join()
    assert process.exitcode == 0
    return output_dir


def assert_same_run(output_dir: Path, uninterrupted: Path) -> None:
    assert [step for step, _, _ in losses(uninterrupted)] == list(range(1, 10))
    assert losses(output_dir) == losses(uninterrupted)  # bit for bit
    assert checkpoints(output_dir) == ["checkpoint-9"]
    weights = [load_checkpoint(folder / "checkpoint")[0].state_dict() for folder in (output_dir, uninterrupted)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_a_run_that_is_killed_at_any_moment_goes_on_exactly(start_run, uninterrupted, tmp_path):
    left = {
        "in a step": ["checkpoint-3"],
        "weights written": ["checkpoint-3", "checkpoint-6"],
        "state half written": ["checkpoint-3", "checkpoint-6"],
        "older deleted in part": ["checkpoint-3", "checkpoint-6"],
        "after the last checkpoint": ["checkpoint-9"],
    }
    for moment in MOMENTS:
        process = start_run(tmp_path / "out", moment)
        process.join()
        assert process.exitcode == -signal.SIGKILL, moment
        assert checkpoints(tmp_path / "out") == left[moment], moment
    assert not (tmp_path / "out" / "checkpoint").exists()
    process = start_run(tmp_path / "out")
    process.join()
    assert process.exitcode == 0
    assert_same_run(tmp_path / "out", uninterrupted)


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_goes_on_exactly(start_run, uninterrupted, tmp_path):
    started = time.monotonic()
    process = start_run(tmp_path / "timed")
    process.join()
    duration = time.monotonic() - started
    for _ in range(8):
        process = start_run(tmp_path / "out")
        process.join(timeout=random.uniform(0, duration))
        process.kill()
        process.join()
    process = start_run(tmp_path / "out")
    process.join()
    assert_same_run(tmp_path / "out", uninterrupted)


def test_a_process_that_dies_ends_the_others_in_one_sentence(start_run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first = start_run(tmp_path / "out", RANK="0", LOCAL_RANK="0", **group)
    second = start_run(tmp_path / "out", "in a step", RANK="1", LOCAL_RANK="1", **group)
    first.join()
    second.join()
    assert (first.exitcode, second.exitcode) == (1, -signal.SIGKILL)
    sentence = (tmp_path / "errors0.txt").read_text().strip().splitlines()[-1]
    assert re.match(r"Ended at step \d: another process of the run has died", sentence)
    assert sentence.endswith(f"the same command resumes from {tmp_path / 'out' / 'checkpoint-3'}.")
    assert checkpoints(tmp_path / "out") == ["checkpoint-3"]


def test_a_full_disk_ends_the_run_in_one_sentence_and_leaves_the_last_checkpoint(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch, capsys
):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = LiteGPTTrainer._save_optimizer_and_scheduler

    def save_on_a_full_disk(self, output_dir):
        if self.state.global_step == 4:  # files end at 4 kB from now on, as they do where a quota is used up
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        save(self, output_dir)

    monkeypatch.setattr(LiteGPTTrainer, "_save_optimizer_and_scheduler", save_on_a_full_disk)
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    try:
        with pytest.raises(SystemExit) as ended:
            train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "checkpoint-4 could not be written" in str(ended.value) and "\n" not in str(ended.value)
    assert str(ended.value).endswith(f"the same command resumes from {tmp_path / 'out' / 'checkpoint-2'}.")
    assert checkpoints(tmp_path / "out") == ["checkpoint-2"]
    monkeypatch.undo()
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    assert "Resuming from" in capsys.readouterr().out and checkpoints(tmp_path / "out") == ["checkpoint-4"]


def test_trained_towers_go_on_from_their_own_weights(tiny_checkpoint, phantom_release, cache_dir, tmp_path, capsys):
    """Files name a ViT's weights in another way than the network; what the library does not find there it leaves."""
    options = {"train_towers": True, "save_strategy": "steps", "save_steps": 2}
    train(tmp_path / "whole", tiny_checkpoint, phantom_release, cache_dir, **options)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    train(tmp_path / "resumed", tiny_checkpoint, phantom_release, cache_dir, **options)
    assert "Resuming from" in capsys.readouterr().out
    whole, resumed = (load_checkpoint(tmp_path / run / "checkpoint")[0].state_dict() for run in ("whole", "resumed"))
    assert [name for name, weights in whole.items() if not torch.equal(weights, resumed[name])] == []


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    options = {"learning_rate": 1e30, "save_strategy": "steps", "save_steps": 2}
    with pytest.raises(SystemExit, match=r"step \d: the loss is (nan|inf): .*; no checkpoint was saved before\.$"):
        train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    # The weights break in the first step already, whose loss is fine: a checkpoint of them must not be written.
    options |= {"save_steps": 1, "max_grad_norm": 0.0, "learning_rate": 1e39}
    with pytest.raises(SystemExit, match=r"is not finite: .*; no checkpoint was saved before\.$"):
        train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    assert not checkpoints(tmp_path / "out")


def test_a_data_process_that_dies_ends_the_run_in_one_sentence(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    collate = ChatCollator.__call__

    def die_in_the_third_batch(self, examples):
        self.count = getattr(self, "count", 0) + 1
        if get_worker_info() is not None and self.count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return collate(self, examples)

    monkeypatch.setattr(ChatCollator, "__call__", die_in_the_third_batch)
    options = {"dataloader_num_workers": 1, "save_strategy": "steps", "save_steps": 1, "dataloader_prefetch_factor": 1}
    with pytest.raises(SystemExit, match="a process that loads data has died") as ended:
        train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    last = checkpoints(tmp_path / "out")[-1:]
    assert "\n" not in str(ended.value) and (not last or str(ended.value).endswith(f"{last[0]}."))


def test_a_data_process_that_dies_while_a_checkpoint_is_written_is_named_too(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    def report_death(self, output_dir):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(LiteGPTTrainer, "_save_rng_state", report_death)
    with pytest.raises(SystemExit, match="a process that loads data has died .*; no checkpoint was saved before"):
        train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, save_strategy="steps", save_steps=1)
    assert not checkpoints(tmp_path / "out")
