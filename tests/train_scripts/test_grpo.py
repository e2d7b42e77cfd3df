import json
import shutil

import pytest
import torch
from trl import GRPOConfig, ModelConfig

from litegpt.modeling_litegpt.checkpoints import load_checkpoint, load_processor
from litegpt.modeling_litegpt.provenance import recorded_config
from litegpt.processing.answers import text_to_findings
from litegpt.train_scripts import grpo
from litegpt.train_scripts.arguments import DataArguments, RolloutArguments
from litegpt.train_scripts.rollouts import Rollouts
from tests.two_launched import launch_two

pytestmark = pytest.mark.usefixtures("one_thread")


def reinforce(output_dir, checkpoint, release, cache_dir, model_options=None, **options):
    """Runs `grpo.main`; `options` are those of any of its argument classes."""
    of_class = {
        arguments: {name: options.pop(name) for name in list(options) if name in arguments.__dataclass_fields__}
        for arguments in (DataArguments, RolloutArguments)
    }
    defaults = {"max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "learning_rate": 1e-2}
    defaults |= {"max_completion_length": 64, "save_strategy": "no", "report_to": "none", "logging_steps": 1}
    training_args = GRPOConfig(
        str(output_dir), bf16=False, use_cpu=True, gradient_checkpointing=False, **{**defaults, **options}
    )
    grpo.main(
        DataArguments(str(release), cache_dir=cache_dir, **of_class[DataArguments]),
        RolloutArguments(**of_class[RolloutArguments]),
        training_args,
        ModelConfig(str(checkpoint), dtype="float32", **(model_options or {})),
    )


def weights(checkpoint) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint)[0].state_dict()


def changed(before, after) -> set[str]:
    new = weights(after)
    return {name for name, tensor in weights(before).items() if not torch.equal(tensor, new[name])}


@pytest.fixture
def sampled(monkeypatch) -> list:
    """All rollouts of a run."""
    seen = []
    plain = Rollouts.__call__

    def watched(self, prompts, trainer):
        output = plain(self, prompts, trainer)
        seen.extend(zip(self.last, output["completion_ids"], output["logprobs"], strict=True))
        return output

    monkeypatch.setattr(Rollouts, "__call__", watched)
    return seen


def test_two_steps_change_weights_and_every_rollout_is_an_answer(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, sampled
):
    rewards = {"reward_functions": ["box_f1", "candidate_scores", "answer_format"], "reward_weights": [1.0, 0.5, 0.1]}
    shown = {"abnormal_share": 0.75, "moved_share": 0.5, "report_to": "tensorboard"}
    reinforce(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **rewards, **shown)
    model, processor = load_checkpoint(tmp_path / "out" / "checkpoint")
    assert len(sampled) == 16
    for rollout, completion_ids, logprobs in sampled:
        findings = text_to_findings(rollout.text, processor.finding_labels)  # an AnswerError where it is none
        assert [(f.label, list(f.box)) for f in findings] == [(f["label"], f["box"]) for f in rollout.findings]
        assert all(0 <= finding["score"] <= 1 for finding in rollout.findings)
        assert len(logprobs) == len(completion_ids) and max(logprobs) <= 0
        assert completion_ids[-1] == processor.tokenizer.eos_token_id
    names = changed(tiny_checkpoint, tmp_path / "out" / "checkpoint")
    assert any("language_model" in name for name in names) and any("projector" in name for name in names)
    assert not any("vision_tower" in name for name in names)
    assert not processor.pack_pixel_values
    record = recorded_config(tmp_path / "out" / "checkpoint")["training_record"][-1]
    assert record["program"] == "grpo.py" and record["steps"] == 2 and record["tasks"] == ["identify"]
    assert "reinforced by box_f1 and candidate_scores" in record["trained"]
    assert "`grpo.py`" in (tmp_path / "out" / "checkpoint" / "README.md").read_text()


def test_an_interrupted_run_goes_on_to_the_same_weights(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "moved_share": 0.5}
    reinforce(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    expected = weights(tmp_path / "out" / "checkpoint")
    shutil.rmtree(tmp_path / "out" / "checkpoint")
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    reinforce(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    for name, tensor in weights(tmp_path / "out" / "checkpoint").items():
        torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize(("beta", "quantization"), [(0.0, {}), (0.04, {}), (0.0, {"load_in_8bit": True})])
def test_lora_is_reinforced_and_merged(tiny_checkpoint, phantom_release, cache_dir, tmp_path, beta, quantization):
    lora = {"use_peft": True, "lora_r": 4, **quantization}
    # An untrained model may hit no box at all in two steps; its candidates always score something.
    rewards = {"reward_functions": ["box_f1", "candidate_scores"]}
    reinforce(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, lora, beta=beta, **rewards)
    names = changed(tiny_checkpoint, tmp_path / "out" / "checkpoint")
    kinds = ("q_proj", "v_proj", "multi_modal_projector", "embed_tokens")
    assert names and all(any(kind in name for kind in kinds) and "vision_tower" not in name for name in names)
    assert not load_processor(tmp_path / "out" / "adapter").pack_pixel_values
    assert not (tmp_path / "out" / "adapter" / "ref").exists()


@pytest.fixture
def trainer(monkeypatch) -> list:
    """The trainer of a run, once it has ended."""
    ended = []
    plain = grpo.save
    monkeypatch.setattr(grpo, "save", lambda trainer, *rest: ended.append(trainer) or plain(trainer, *rest))
    return ended


def test_the_reference_is_the_model_as_it_was_given(tiny_checkpoint, phantom_release, cache_dir, tmp_path, trainer):
    """Also where it is given as an adapter, which is merged: TRL would load the base."""
    lora = {"use_peft": True, "lora_r": 4}
    reinforce(tmp_path / "lora", tiny_checkpoint, phantom_release, cache_dir, lora)
    given = tmp_path / "lora" / "adapter"
    reinforce(tmp_path / "out", given, phantom_release, cache_dir, beta=0.04, max_steps=3)
    divergence = [line["kl"] for line in trainer[-1].state.log_history if "kl" in line]
    assert abs(divergence[0]) < 1e-6 < divergence[-1]
    reference = trainer[-1].ref_model.state_dict()
    for name, tensor in weights(given).items():
        assert torch.equal(reference[name], tensor)


def test_validation_shows_rewards_and_scores_of_rows_that_are_not_trained_on(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, trainer
):
    options = {"validation_split": "test[:4]", "eval_strategy": "steps", "eval_steps": 2, "num_generations_eval": 2}
    reinforce(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    logged = {name for line in trainer[-1].state.log_history for name in line}
    assert {"eval_rewards/box_f1/mean", "eval_identify_micro_f1"} <= logged
    assert (tmp_path / "out" / "validation" / "step-2.png").is_file()


def test_frozen_towers_see_each_radiograph_once_and_the_features_are_the_same(tiny_checkpoint, monkeypatch):
    model = load_checkpoint(tiny_checkpoint)[0].model.eval()
    pixels = torch.randn(2, 6, 64, 64)[[0, 1, 0, 0, 1]]
    pixels[4, 0, 0, 0] += 1
    expected = model.get_patch_features(pixels)
    seen = []
    plain = model.get_patch_features
    monkeypatch.setattr(model, "get_patch_features", lambda values: seen.append(len(values)) or plain(values))
    _, options = grpo.seen_once(model, (), {"pixel_values": pixels, "use_cache": False})
    assert seen == [3] and options["pixel_values"] is None and options["use_cache"] is False
    torch.testing.assert_close(options["patch_features"], expected)
    assert grpo.seen_once(model, (), {"input_ids": None}) == ((), {"input_ids": None})


@pytest.mark.slow  # two launches
def test_two_processes_share_a_group_of_answers(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    options = {
        "model_name_or_path": tiny_checkpoint,
        "data_dir": phantom_release,
        "cache_dir": cache_dir,
        "output_dir": tmp_path / "out",
        "max_steps": 2,
        "per_device_train_batch_size": 6,  # 12 answers to 3 prompts: one prompt's lie in both processes
        "num_generations": 4,
        "max_completion_length": 64,
        "logging_steps": 1,
        "save_steps": 1,
        "save_total_limit": 2,
        "abnormal_share": 0.0,  # where an untrained model is right at times, and wrong
        "temperature": 5.0,
        "weight_decay": 0.0,
        "learning_rate": 0.01,
        "warmup_steps": 0,
        "use_cpu": True,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    launch_two(grpo, "--config", "tiny_grpo", *words)
    assert changed(tiny_checkpoint, tmp_path / "out" / "checkpoint")
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert len([line for line in state["log_history"] if "rewards/box_f1/mean" in line]) == 2
    expected = weights(tmp_path / "out" / "checkpoint")
    for name in ("checkpoint", "checkpoint-2"):
        shutil.rmtree(tmp_path / "out" / name)
    assert f"Resuming from {tmp_path / 'out' / 'checkpoint-1'}" in launch_two(grpo, "--config", "tiny_grpo", *words)
    for name, tensor in weights(tmp_path / "out" / "checkpoint").items():
        torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tasks": ["vqa"]}, "vqa has no answer with boxes"),
        ({"reward_functions": ["box_f2"]}, "there is no box_f2"),
        ({"reward_weights": [1.0, 2.0]}, "2 for 1 reward_functions"),
        ({"cache_features": True}, "hands on pixels alone"),
        ({"template_words": True}, "no task about words"),
        ({"total_batch_size": 8}, "generation_batch_size"),
        ({"max_steps": -1}, "say how many steps"),
        ({"max_completion_length": 5}, "may take"),
        ({"shuffle_dataset": False}, "no effect here"),
        ({"save_strategy": "steps", "save_steps": 3, "steps_per_generation": 2}, "every steps_per_generation"),
    ],
)
def test_what_does_not_fit_is_refused(options, reason, tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    with pytest.raises(SystemExit, match=reason):
        reinforce(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
