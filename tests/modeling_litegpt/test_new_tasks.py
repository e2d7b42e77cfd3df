"""Older checkpoints learn tasks that they do not know."""

import json
from pathlib import Path

import pytest
import torch

from litegpt.datasets_scripts.instructions import INSTRUCTIONS
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.modeling_litegpt.new_checkpoint import main as new_checkpoint
from litegpt.modeling_litegpt.new_tasks import add_tasks
from litegpt.processing import processing_litegpt
from litegpt.processing.processing_litegpt import IDENTIFIER_TOKENS
from tests.small_training import train

OLD = ("identify", "vqa", "grounding")
LORA = {"use_peft": True, "lora_r": 4, "lora_alpha": 8}


@pytest.fixture(scope="module")
def older_checkpoint(tiny_arguments, tmp_path_factory) -> Path:
    """A checkpoint from before there were tasks about words: without their tokens and instructions."""
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("older") / "checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processing_litegpt, "IDENTIFIER_TOKENS", tuple(f"[{task}]" for task in OLD))
        new_checkpoint(replace(tiny_arguments, output_dir=str(folder)))
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["instructions"] = {task: settings["instructions"][task] for task in OLD}
    file.write_text(json.dumps(settings))
    return folder


def test_new_tokens_start_as_the_mean_of_their_pieces_and_all_else_stays(older_checkpoint, tmp_path):
    model, processor = load_checkpoint(older_checkpoint)
    pieces = processor.tokenizer("[refer]", add_special_tokens=False)["input_ids"]
    assert len(pieces) > 1
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    said = add_tasks(model, processor, ["identify", "refer", "question", "no such task"])
    assert said.startswith("[refer], [question], and 1 new tokens")
    number = processor.tokenizer.convert_tokens_to_ids("[refer]")
    assert model.config.text_config.vocab_size == len(processor.tokenizer) == number + 1
    for name, weight in model.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name:
            torch.testing.assert_close(weight[number], before[name][pieces].mean(0))
            weight = weight[:number]
        assert torch.equal(weight, before[name]), name
    assert processor.instructions["refer"] == INSTRUCTIONS["refer"]
    assert processor.prompt("refer", "nodule").count("[refer]") == 1
    assert add_tasks(model, processor, ["refer"]) is None
    save_checkpoint(model, processor, tmp_path / "saved")
    again, loaded = load_checkpoint(tmp_path / "saved")
    assert loaded.instructions == processor.instructions
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_training_teaches_an_older_checkpoint_a_new_task(
    older_checkpoint, phantom_release, cache_dir, tmp_path, capsys
):
    options = {"tasks": ["identify", "refer"], "template_words": True}
    train(tmp_path / "out", older_checkpoint, phantom_release, cache_dir, **options)
    assert "did not know all tasks; added: [refer], and 1 new tokens" in capsys.readouterr().out
    model, processor = load_checkpoint(tmp_path / "out" / "checkpoint")
    assert "refer" in processor.instructions and "report" not in processor.instructions
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer)


def test_an_adapter_that_brought_a_task_loads_on_its_older_base_and_learns_another(
    older_checkpoint, phantom_release, cache_dir, tmp_path
):
    shared = (phantom_release, cache_dir, LORA)
    train(tmp_path / "one", older_checkpoint, *shared, tasks=["refer"], template_words=True)
    model, processor = load_checkpoint(tmp_path / "one" / "adapter")
    merged, _ = load_checkpoint(tmp_path / "one" / "checkpoint")
    number = processor.tokenizer.convert_tokens_to_ids("[refer]")
    assert all(torch.equal(weight, merged.state_dict()[name]) for name, weight in model.state_dict().items())
    base, _ = load_checkpoint(older_checkpoint)
    add_tasks(base, processor := load_checkpoint(older_checkpoint)[1], ["refer"])
    start, learned = (one.get_input_embeddings().weight[number] for one in (base, merged))
    assert not torch.equal(start, learned)
    # The next stage goes on from it with one task more, and loses nothing of what it has learned.
    train(tmp_path / "two", tmp_path / "one" / "adapter", *shared, tasks=["describe"], template_words=True)
    last, processor = load_checkpoint(tmp_path / "two" / "adapter")
    assert {"refer", "describe"} <= processor.instructions.keys()
    torch.testing.assert_close(last.get_input_embeddings().weight[number], learned, atol=1e-6, rtol=0)


def test_lora_trains_only_tokens_that_the_vocabulary_has(older_checkpoint, phantom_release, cache_dir, tmp_path):
    train(tmp_path / "out", older_checkpoint, phantom_release, cache_dir, LORA, tasks=["vqa"])
    _, processor = load_checkpoint(tmp_path / "out" / "adapter")
    trained = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())["trainable_token_indices"]
    assert len(trained["embed_tokens"]) == 3 + len(OLD) and max(trained["embed_tokens"]) < len(processor.tokenizer)
    assert len(IDENTIFIER_TOKENS) > len(OLD)
