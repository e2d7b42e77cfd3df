import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from trl import ModelConfig

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.modeling_litegpt.new_checkpoint import main as new_checkpoint
from litegpt.processing.insertion import Insertion
from litegpt.train_scripts import sft
from litegpt.train_scripts.arguments import ExampleArguments, RecipeArguments
from tests.small_training import train

SFT = os.path.abspath(sft.__file__)


def changed_parameters(before, after) -> set[str]:
    old, new = load_checkpoint(before)[0].state_dict(), load_checkpoint(after)[0].state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


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


def test_the_features_of_a_resnet_can_be_cached(tiny_arguments, phantom_release, cache_dir, tmp_path):
    tower = {"model_type": "resnet", "image_size": 64, "layer_type": "basic", "embedding_size": 8}
    tower |= {"hidden_sizes": [8, 16], "depths": [1, 1]}
    new = tmp_path / "new"
    one = {"vision_config": tower, "aux_vision_config": None, "visual_token_group_size": 4}
    new_checkpoint(replace(tiny_arguments, output_dir=str(new), **one))
    train(tmp_path / "out", new, phantom_release, cache_dir, cache_features=True)
    assert not any("vision_tower" in name for name in changed_parameters(new, tmp_path / "out" / "checkpoint"))


def test_towers_are_trained_where_asked(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, train_towers=True, tasks=["vqa"])
    changed = changed_parameters(tiny_checkpoint, tmp_path / "out" / "checkpoint")
    assert any("aux_vision_tower" in name for name in changed)
    with pytest.raises(SystemExit, match="can't be cached"):
        train(tmp_path / "x", tiny_checkpoint, phantom_release, cache_dir, train_towers=True, cache_features=True)


@pytest.mark.parametrize("joint", [False, True])
def test_the_language_model_learns_of_the_detectors_boxes(
    detector_checkpoint, phantom_release, cache_dir, tmp_path, joint, monkeypatch
):
    """The detector stays as it is, unless it is trained along; what tells of it learns."""
    if not joint:
        with pytest.raises(SystemExit, match="detector that was never trained"):
            train(tmp_path / "out", detector_checkpoint, phantom_release, cache_dir)
        monkeypatch.setattr(sft, "was_trained", lambda config, part: True)
    options = {"train_towers": True, "detector_loss_weight": 1.0} if joint else {"cache_features": True}
    train(tmp_path / "out", detector_checkpoint, phantom_release, cache_dir, augmented_views=1, **options)
    changed = {name.split(".")[1] for name in changed_parameters(detector_checkpoint, tmp_path / "out" / "checkpoint")}
    trained_along = {"detector", "vision_tower", "aux_vision_tower"}
    assert {"candidate_tokens", "multi_modal_projector", "language_model"} <= changed
    assert changed & trained_along == (trained_along if joint else set())
    card = (tmp_path / "out" / "checkpoint" / "README.md").read_text()
    assert ("detector" in card.split("projector, language model")[1].splitlines()[0]) == joint


def test_a_detector_is_trained_through_lora_too(detector_checkpoint, phantom_release, cache_dir, tmp_path):
    lora = {"use_peft": True, "lora_r": 2}
    train(tmp_path / "out", detector_checkpoint, phantom_release, cache_dir, lora, detector_loss_weight=1.0)
    changed = {name.split(".")[1] for name in changed_parameters(detector_checkpoint, tmp_path / "out" / "checkpoint")}
    assert {"candidate_tokens", "detector"} <= changed and "vision_tower" not in changed
    # The next stage goes on from the adapter; what it does not train stays as the adapter has it.
    adapter = tmp_path / "out" / "adapter"
    train(tmp_path / "next", adapter, phantom_release, cache_dir, lora, tasks=["vqa"])
    parts = changed_parameters(tmp_path / "out" / "checkpoint", tmp_path / "next" / "checkpoint")
    assert {name.split(".")[1] for name in parts} == {"candidate_tokens", "multi_modal_projector", "language_model"}


def test_a_detector_that_is_not_there_is_not_trained(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    with pytest.raises(SystemExit, match="has no detector"):
        train(tmp_path / "out", tiny_checkpoint, phantom_release, cache_dir, detector_loss_weight=1.0)


def test_boxes_of_maps_stand_in_for_those_of_the_data(tiny_checkpoint, phantom_release, cache_dir, tmp_path, capsys):
    """Other boxes in the file teach other weights, and the card says where they are from."""
    rows = load_rows(str(phantom_release), "train", cache_dir)
    names = rows.features["findings"].feature["label"].names
    files = {}
    for name, moved in (("same", 0.0), ("other", 0.1)):
        lines = []
        for image_id, findings in zip(rows["image_id"][:], rows["findings"][:], strict=True):
            boxes = {names[finding["label"]]: [0.8 * v + moved for v in finding["box"]] for finding in findings}
            regions = {
                label: {"peak": [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], "boxes": [[*box, 0.5]]}
                for label, box in boxes.items()
            }
            lines.append(json.dumps({"image_id": image_id, "malformed": None, "regions": regions}))
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("\n".join(lines) + "\n")
    shared = (tiny_checkpoint, phantom_release, cache_dir)
    for name, file in {"same": files["same"], "again": files["same"], "other": files["other"]}.items():
        train(tmp_path / name, *shared, pseudo_boxes=str(file))
    same, again, other = (tmp_path / name / "checkpoint" for name in ("same", "again", "other"))
    assert not changed_parameters(same, again) and changed_parameters(same, other)
    assert "boxes of maps in place of the data's" in capsys.readouterr().out
    assert "on boxes that a classifier's maps drew" in (same / "README.md").read_text()


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
    with pytest.raises(Refusal, match="lose gradients silently"):
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


def test_the_help_opens_with_commands_and_explains_every_option_of_ours():
    text = sft.argument_parser().format_help()
    assert text.index("--config tiny_stage1 ") < text.index("--data_dir DATA_DIR")
    for arguments in (sft.DataArguments, ExampleArguments, RecipeArguments):
        for option in fields(arguments):
            assert option.metadata["help"].endswith("."), option.name
            assert " ".join(option.metadata["help"].split()[:3]) in " ".join(text.split()), option.name


def test_a_checkpoint_knows_in_which_order_it_names_findings(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    train(tmp_path, tiny_checkpoint, phantom_release, cache_dir, max_steps=1, box_order="position", tasks=["identify"])
    assert json.loads((tmp_path / "checkpoint" / "processor_config.json").read_text())["box_order"] == "position"
    assert load_checkpoint(tmp_path / "checkpoint")[1].constrained_greedy(least_insertion=0.1).insertion == Insertion(
        0.1, "position"
    )
