"""Two processes train as one does with twice the batch: with whole copies of the model (DDP) and sharded (FSDP2).

The processes talk over gloo. Accelerate shards on GPUs alone; `tests/two_processes.py` makes it do so on a CPU.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file

import tests.two_processes
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.train_scripts import sft
from litegpt.train_scripts.memory_per_gpu import FSDP2
from tests.small_training import train
from tests.stranger import NOTHING_OF_OURS
from tests.two_launched import launch_two

CONFIGS = sorted(FSDP2.parent.glob("*.yaml"))
OPTIONS = {"max_steps": 4, "cache_features": True, "augmented_views": 1}
SAVING = {"save_strategy": "steps", "save_steps": 2}
LORA = {"model_options": {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0}}


def launch(config: str, runs: list[dict], folder: Path) -> str:
    """What `runs` print in two processes, as `accelerate/CONFIG` says, but in float32."""
    (folder / "runs.json").write_text(json.dumps(runs))
    return launch_two(tests.two_processes, folder / "runs.json", config=config)


def losses(output_dir: Path) -> list[tuple[int, float]]:
    state = json.loads((output_dir / "checkpoint-4" / "trainer_state.json").read_text())
    return [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]


def assert_same_run(output_dir: Path, expected: Path) -> None:
    theirs, ours = losses(expected), losses(output_dir)
    assert [step for step, _ in ours] == [1, 2, 3, 4]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), atol=1e-5, rtol=1e-5)
    weights = load_checkpoint(expected / "checkpoint")[0].state_dict()
    for name, tensor in load_checkpoint(output_dir / "checkpoint")[0].state_dict().items():
        torch.testing.assert_close(
            tensor, weights[name], atol=1e-4, rtol=1e-4, msg=lambda text, name=name: name + text
        )


def loads_alone(checkpoint: Path) -> None:
    program = NOTHING_OF_OURS + (
        "from transformers import AutoModelForImageTextToText\n"
        f"AutoModelForImageTextToText.from_pretrained({str(checkpoint)!r}, trust_remote_code=True)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, timeout=300, cwd=checkpoint.parent
    )


@pytest.fixture
def run(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    def arguments(output_dir: str, **options) -> dict:
        paths = {"checkpoint": tiny_checkpoint, "release": phantom_release, "output_dir": tmp_path / output_dir}
        return {**{name: str(path) for name, path in paths.items()}, "cache_dir": cache_dir, **OPTIONS, **options}

    return arguments


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_configuration_has_no_key_that_accelerate_does_not_know(config):
    load_config_from_file(str(config))  # an unknown key is an error
    known = load_config_from_file(str(config)).to_dict()
    assert known["num_processes"] == yaml.safe_load(config.read_text())["num_processes"]


def test_two_processes_train_lora_on_cached_features_as_one_with_twice_the_batch(run, tmp_path):
    train(**run("one", per_device_train_batch_size=4, **SAVING, **LORA))
    launch("ddp.yaml", [run("two", per_device_train_batch_size=2, **SAVING, **LORA)], tmp_path)
    assert len(list((tmp_path / "two" / "cache").glob("patch-features-*.bin"))) == 1
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_sharded_weights_train_as_whole_ones_and_go_on_where_they_stopped(run, tmp_path):
    train(**run("one", per_device_train_batch_size=4, **SAVING))
    sharded = run("two", per_device_train_batch_size=2, **SAVING)
    lost = [str(tmp_path / "two" / name) for name in ("checkpoint", "checkpoint-4")]
    output = launch("fsdp2.yaml", [sharded, {**sharded, "remove": lost}], tmp_path)
    assert f"Resuming from {tmp_path / 'two' / 'checkpoint-2'}" in output
    assert (tmp_path / "two" / "checkpoint-2" / "pytorch_model_fsdp_0" / "__1_0.distcp").is_file()
    assert_same_run(tmp_path / "two", tmp_path / "one")
    loads_alone(tmp_path / "two" / "checkpoint")


@pytest.mark.parametrize(
    ("sharded_by", "options", "reason"),
    [
        ("is_deepspeed_zero3_enabled", {"cache_features": True}, "whole weights"),
        ("is_deepspeed_zero3_enabled", {"cache_features": False, **LORA}, "not with ZeRO-3"),
        ("is_fsdp_enabled", {"model_options": {"use_peft": True, "load_in_8bit": True}}, "can't be sharded"),
    ],
)
def test_what_cannot_be_sharded_is_refused(sharded_by, options, reason, run, monkeypatch):
    monkeypatch.setattr(sft, sharded_by, lambda: True)
    with pytest.raises(SystemExit, match=reason):
        train(**run("out", **options))
