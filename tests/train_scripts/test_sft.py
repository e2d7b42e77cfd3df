import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import PeftModel
from trl import ModelConfig, SFTConfig

from datasets_scripts.vindr_cxr import load_vindr_cxr
from train_scripts import sft
from train_scripts.checkpoint import load_checkpoint
from train_scripts.radiograph_store import Movement, RadiographStore

SFT = os.path.abspath(sft.__file__)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def rows(phantom_release, cache_dir):
    return load_vindr_cxr(phantom_release, split="train", cache_dir=cache_dir)


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)[1]


def train(output_dir, checkpoint, release, cache_dir, model_options=None, **options):
    data_options = {
        name: options.pop(name) for name in list(options) if name in sft.DataArguments.__dataclass_fields__
    }
    data_args = sft.DataArguments(str(release), cache_dir=cache_dir, **data_options)
    defaults = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_strategy": "no"}
    training_args = SFTConfig(
        str(output_dir),
        report_to="none",
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        **{**defaults, **options},
    )
    sft.main(data_args, training_args, ModelConfig(str(checkpoint), dtype="float32", **(model_options or {})))


def changed_parameters(before, after) -> set[str]:
    old, new = load_checkpoint(before)[0].state_dict(), load_checkpoint(after)[0].state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_loss_falls_on_the_answer_alone_and_prompts_are_the_processors(rows, processor, tmp_path):
    views = sft.views_of(rows, 0, seed=0)
    store = RadiographStore(rows, processor.tower_image_processors, tmp_path)
    examples = sft.training_examples(rows, views, ["identify", "vqa"], processor)
    collator = sft.ChatCollator(processor, store, views, features=None)
    picked = [examples[0], examples[1], next(e for e in examples if "<p>" in e["answer"])]
    batch = collator(picked)
    for index, example in enumerate(picked):
        prompt = processor(
            images=rows[views[example["view"]][0]]["image"],
            text=processor.prompt(example["task"]),
            add_special_tokens=False,
            return_tensors="pt",
        )
        length = prompt["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][index, :length], prompt["input_ids"][0])
        assert (batch["labels"][index, :length] == -100).all()
        labels = batch["labels"][index][batch["labels"][index] != -100]
        assert labels[-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.decode(labels[:-1]) == example["answer"]
        assert batch["attention_mask"][index].sum() == length + len(labels)
        torch.testing.assert_close(batch["pixel_values"][index], prompt["pixel_values"][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(batch["aux_pixel_values"][index], prompt["aux_pixel_values"][0], atol=1e-6, rtol=0)


def test_radiographs_with_and_without_findings_are_plain_equally_often(rows):
    with_findings = {row for row, findings in enumerate(rows["findings"]) if findings}
    views = sft.views_of(rows, 1, seed=0)
    assert sum(row in with_findings for row, _ in views) == 2 * len(with_findings)
    assert sorted({row for row, _ in views}) == list(range(len(rows)))
    plain = [row for row, movement in views if movement == Movement() and row not in with_findings]
    assert abs(2 * len(plain) - (len(rows) - len(with_findings))) <= len(with_findings)
    assert views == sft.views_of(rows, 1, seed=0) != sft.views_of(rows, 1, seed=1)


def test_a_row_that_does_not_tell_the_answer_is_left_out_of_that_task(rows, processor, capsys):
    unknown = rows.add_column("shadow", range(len(rows))).select(range(4))
    table = unknown.to_dict()
    table["findings"], table["diagnoses"] = [[], [], table["findings"][2], []], [[0], [5], [5], []]
    unknown = type(rows).from_dict(table, features=unknown.features)
    examples = sft.training_examples(unknown, sft.views_of(unknown, 0, 0), ["identify"], processor)
    assert {0, 3}.isdisjoint(examples["view"]) and 1 in examples["view"]
    assert "2 left out" in capsys.readouterr().out


def test_frozen_towers_stay_and_the_rest_learns_with_cached_features(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, cache_features=True, augmented_views=1)
    changed = changed_parameters(tiny_checkpoint, tmp_path / "out" / "checkpoint")
    assert not any("vision_tower" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed) and any(
        "language_model" in name for name in changed
    )


def test_cached_features_give_the_same_weights_as_pixels(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    for name, cached in (("cached", True), ("pixels", False)):
        train(tmp_path / name, tiny_checkpoint, phantom_release, cache_dir, cache_features=cached, augmented_views=1)
    weights = [load_checkpoint(tmp_path / name / "checkpoint")[0].state_dict() for name in ("cached", "pixels")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-4, rtol=1e-3)


def test_towers_are_trained_where_asked(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, train_towers=True, tasks=["vqa"])
    changed = changed_parameters(tiny_checkpoint, tmp_path / "out" / "checkpoint")
    assert any("aux_vision_tower" in name for name in changed)
    with pytest.raises(SystemExit, match="can't be cached"):
        train(tmp_path / "x", tiny_checkpoint, phantom_release, cache_dir, train_towers=True, cache_features=True)


@pytest.mark.parametrize("quantization", [{}, {"load_in_8bit": True}])
def test_lora_adapts_q_and_v_of_the_language_model_and_is_merged(
    quantization, tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    options = {"use_peft": True, "lora_r": 4, **quantization}
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, model_options=options)
    changed = changed_parameters(tiny_checkpoint, tmp_path / "out" / "checkpoint")
    kinds = ("q_proj", "v_proj", "multi_modal_projector", "embed_tokens")
    assert all(any(kind in name for kind in kinds) and "vision_tower" not in name for name in changed)
    assert all(any(kind in name for name in changed) for kind in kinds)
    base, processor = load_checkpoint(tiny_checkpoint)
    adapted = PeftModel.from_pretrained(base, tmp_path / "out" / "adapter").eval()
    merged = load_checkpoint(tmp_path / "out" / "checkpoint")[0].eval()
    inputs = processor(
        images=np.full((64, 64), 99, dtype=np.uint8),
        text=processor.prompt("vqa"),
        add_special_tokens=False,
        return_tensors="pt",
    )
    torch.testing.assert_close(merged(**inputs).logits, adapted(**inputs).logits, atol=1e-4, rtol=1e-3)


def test_an_interrupted_run_goes_on_to_the_same_weights(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "cache_features": True, "augmented_views": 1}
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    expected = load_checkpoint(tmp_path / "out" / "checkpoint")[0].state_dict()
    shutil.rmtree(tmp_path / "out" / "checkpoint")
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, **options)
    for name, tensor in load_checkpoint(tmp_path / "out" / "checkpoint")[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


def test_4_bit_is_refused_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="lose gradients silently"):
        sft.quantization_of_language_model(ModelConfig(load_in_4bit=True))


def test_it_runs_under_accelerate_launch_with_a_yaml_and_flags(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    config = os.path.join(os.path.dirname(SFT), "configs", "tiny_stage2.yaml")
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "1",
        SFT,
        "--config",
        config,
    ]
    options = {
        "model_name_or_path": tiny_checkpoint,
        "data_dir": phantom_release,
        "cache_dir": cache_dir,
        "output_dir": tmp_path / "out",
        "max_steps": 2,
        "use_cpu": True,
    }
    command += [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert process.returncode == 0, process.stderr[-3000:]
    assert (tmp_path / "out" / "checkpoint" / "model.safetensors").exists()
