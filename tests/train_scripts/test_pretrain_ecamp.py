"""`litegpt pretrain-ecamp`, from prepared folders to a tower: shown, resumed, in two processes, into LiteGPT."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, TrainingArguments, ViTModel

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.modeling_litegpt.new_checkpoint import main as new_litegpt
from litegpt.modeling_towers.ecamp_checkpoints import load_ecamp
from litegpt.modeling_towers.image_towers import load_image_tower
from litegpt.train_scripts import pretrain_ecamp
from litegpt.train_scripts.ecamp_drawings import said_words
from litegpt.train_scripts.ecamp_trainer import ECAMPCollator
from tests.small_cxr_clip import row, write_prepared
from tests.small_ecamp import ARGUMENTS, pretrain
from tests.two_launched import launch_two

MAE = {"super_resolution_weight": 0.0, "text_weight": 0.0}
MRM = {"super_resolution_weight": 0.0, "fusion": "add", "mask_descriptors": False, "alpha": 1.0}


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> str:
    """24 radiographs with reports to train on, 8 to validate on."""
    findings = ("There is no pleural effusion. Mark f{}.", "Mild cardiomegaly. There is edema. Mark f{}.")
    train = [row(n, report_findings=findings[n % 2].format(n)) for n in range(24)]
    validation = [row(100 + n, report_findings=findings[n % 2].format(n)) for n in range(8)]
    return write_prepared(
        tmp_path_factory.mktemp("data") / "made-up reports", {"train": train, "validation": validation}
    )


@pytest.fixture
def run(cache_dir, tmp_path):
    def in_folder(name: str, data_dirs: list[str], **options) -> Path:
        pretrain(tmp_path / name, data_dirs, cache_dir=cache_dir, **options)
        return tmp_path / name

    return in_folder


def log(output_dir: Path, step: int) -> list[dict]:
    return json.loads((output_dir / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]


def weights(output_dir: Path) -> dict[str, torch.Tensor]:
    return load_ecamp(output_dir / "checkpoint")[0].state_dict()


def collator_of(output: Path, reports: str) -> ECAMPCollator:
    first = {"data_dirs": [reports], "model_name_or_path": str(output / "checkpoint")}
    arguments = [kind(**(first if kind is ARGUMENTS[0] else {})) for kind in ARGUMENTS]
    arguments[2].max_length = 32
    options = TrainingArguments(str(output / "again"), use_cpu=True, report_to="none", per_device_train_batch_size=8)
    return pretrain_ecamp.prepared_run(*arguments, options).trainer.data_collator


def test_a_run_ends_in_a_checkpoint_and_a_tower_and_shows_what_it_learned(run, reports, tmp_path):
    options = {"validation_split": "validation", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    output = run("out", [reports], **options, save_steps=4, report_to="tensorboard")
    losses = [entry for entry in log(output, 4) if "loss" in entry]
    assert len(losses) == 4
    for entry in losses:
        terms = (entry[name] for name in ("image_loss", "super_resolution_loss", "text_loss"))
        assert entry["loss"] == pytest.approx(sum(terms), rel=1e-3)
    evaluations = [entry for entry in log(output, 4) if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [2, 4]
    for entry in evaluations:
        for name in ("descriptor_accuracy", "word_loss"):
            assert entry[f"eval_{name}"] >= 0 and entry[f"eval_{name}_other_image"] >= 0

    assert [path.name for path in sorted((output / "drawings").iterdir())] == ["step-2.png", "step-4.png"]
    assert Image.open(output / "drawings" / "step-4.png").size == (4 * 64, 4 * 64)
    assert list((output / "runs" / "drawings").glob("events*"))

    model, tokenizer, processor = load_ecamp(output / "checkpoint")
    (entry,) = model.config.training_record
    assert entry["data_set"]["name"] == "made-up reports" and entry["steps"] == 4 and entry["radiographs"] == 24
    card = (output / "checkpoint" / "README.md").read_text()
    assert "made-up reports" in card and "masked reports" in card and str(tmp_path) not in card

    picture = Image.new("RGB", (40, 50), (90, 90, 90))
    tower = AutoModel.from_pretrained(output / "tower", add_pooling_layer=False)
    assert type(tower) is ViTModel
    pixels = AutoImageProcessor.from_pretrained(output / "tower")(picture, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 32, 32) and pixels[0, 0, 0, 0].item() == pytest.approx((90 / 255 - 0.4721) / 0.3037)
    model.mae.vit.config.mask_ratio = 0.0
    with torch.no_grad():
        seen = model.mae.vit(pixels, noise=torch.arange(16.0)[None]).last_hidden_state
        assert torch.allclose(tower(pixels).last_hidden_state, seen, atol=1e-6)
        for folder in ("checkpoint", "tower"):
            tokens = load_image_tower(output / folder).eval()(pixels)
            assert torch.allclose(tokens, seen[:, 1:], atol=1e-6)
    assert "made-up reports" in (output / "tower" / "README.md").read_text()


@pytest.mark.parametrize("stop", [2, 3])  # at the end of an epoch of 3 steps, and within one
def test_an_interrupted_run_goes_on_to_the_same_weights(stop, run, reports):
    start = str(run("start", [reports], max_steps=1) / "start")  # a tokenizer of one's own would differ
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 5, "model_name_or_path": start}
    expected = weights(run("whole", [reports], **options))
    output = run("stopped", [reports], **options)
    shutil.rmtree(output / "checkpoint")
    for later in range(stop + 1, 6):
        shutil.rmtree(output / f"checkpoint-{later}")
    run("stopped", [reports], **options)
    for name, tensor in weights(output).items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name


def test_a_run_that_was_killed_after_its_last_step_is_given_no_other_one(run, reports):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 5, "lr_scheduler_type": "constant"}
    output = run("killed", [reports], **options)
    expected = weights(output)
    shutil.rmtree(output / "checkpoint")
    run("killed", [reports], **options)
    assert not (output / "checkpoint-6").exists()
    for name, tensor in weights(output).items():
        assert torch.equal(tensor, expected[name]), name


def test_two_processes_train_as_one_with_twice_the_batch(run, reports, cache_dir, tmp_path):
    start = str(run("start", [reports], max_steps=1) / "start")  # a tokenizer of one's own would differ
    expected = weights(run("one", [reports], model_name_or_path=start))
    options = {
        "data_dirs": [reports],
        "cache_dir": cache_dir,
        "output_dir": str(tmp_path / "two"),
        "model_name_or_path": start,
        "max_length": 32,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(options))
    launch_two(pretrain_ecamp, "--config", config)
    for name, tensor in weights(tmp_path / "two").items():
        torch.testing.assert_close(
            tensor, expected[name], atol=1e-4, rtol=1e-4, msg=lambda text, name=name: name + text
        )


def test_accumulated_batches_are_one_batch(run, reports):
    start = str(run("start", [reports], max_steps=1, **MAE) / "start")
    expected = weights(run("one", [reports], model_name_or_path=start))
    halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    for name, tensor in weights(run("halves", [reports], model_name_or_path=start, **halves)).items():
        torch.testing.assert_close(
            tensor, expected[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text
        )


def test_plain_mae_mrm_and_the_release_are_flags(run, reports):
    mae = run("mae", [reports], **MAE)
    assert {name.partition(".")[0] for name in weights(mae)} == {"mae"}
    assert "masked reports" not in (mae / "checkpoint" / "README.md").read_text()
    mrm = load_ecamp(run("mrm", [reports], **MRM) / "checkpoint")[0]
    assert mrm.super_resolution is None and mrm.config.fusion == "add"
    release = run("release", [reports], release=True, min_crop_area=0.9)
    assert load_ecamp(release / "checkpoint")[0].config.release
    assert "published code does" in (release / "checkpoint" / "README.md").read_text()


def test_a_tower_is_what_a_run_starts_from_and_litegpt_takes_it(run, reports, tiny_arguments, tmp_path):
    first = run("first", [reports], **MAE)
    second = run("second", [reports], vision_tower=str(first / "tower"), learning_rate=0.0)
    for name, tensor in weights(first).items():
        if name.startswith("mae.vit."):
            assert torch.equal(tensor, weights(second)[name]), name
    assert load_ecamp(second / "checkpoint")[0].config.base_models == ["tower"]
    for number, tower in enumerate(("checkpoint", "tower")):
        values = vars(tiny_arguments) | {"aux_vision_config": None, "visual_token_group_size": 4}
        output = tmp_path / f"litegpt{number}"
        new_litegpt(type(tiny_arguments)(**values | {"vision_tower": str(first / tower), "output_dir": str(output)}))
        taken = load_checkpoint(output)[0].model.vision_tower.state_dict()
        expected = load_image_tower(first / "tower").network.state_dict()
        assert all(torch.equal(taken[name], tensor) for name, tensor in expected.items())


def test_the_masked_words_are_shown_with_what_was_said(run, reports):
    output = run("words", [reports], max_steps=1)
    model, tokenizer, _ = load_ecamp(output / "checkpoint")
    texts = said_words(model.eval(), collator_of(output, reports)([0, 1]), tokenizer)
    assert len(texts) == 2 and all("[" in text and "PAD" not in text for text in texts)


def test_what_is_drawn_of_a_radiograph_hangs_on_its_number_alone(run, reports):
    """So a batch is the same however many processes share it, and windows move along with a crop."""
    output = run("collator", [reports], max_steps=1)
    collator = collator_of(output, reports)
    together, alone = collator([3, 4]), collator([4])
    for name in ("pixel_values", "noise", "windows"):
        assert torch.equal(together[name][1:], alone[name]), name
    length = alone["input_ids"].shape[1]
    assert torch.equal(together["input_ids"][1:, :length], alone["input_ids"])
    next_epoch = collator([4 + len(collator.reports)])
    assert not torch.equal(next_epoch["pixel_values"], alone["pixel_values"])
    collator.windows = [np.tile(np.float32([0, 0, 0.5, 0.5]), (24, 1))]
    windows = collator(list(range(24)))["windows"]
    assert len(torch.unique(windows, dim=0)) > 12 and windows.min() >= 0 and windows.max() <= 1


def test_bad_input_is_one_sentence(run, reports):
    for options, sentence in (
        ({"alpha": 0.0}, "alpha: it must be above 0 and at most 1, not 0.0"),
        ({"context": "similarity"}, "context: similarity needs a context_model"),
        ({"context_model": "somewhere"}, "context: similarity needs a context_model"),
        ({"per_device_train_batch_size": 25}, "A batch of 25 studies is larger than the 24 there are"),
        ({"distilled": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"vision_tower": "nowhere"}, "nowhere"),
        ({"model_name_or_path": "./nowhere"}, "nowhere"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            run(f"bad{abs(hash(sentence + str(options)))}", [reports], **options)


def test_the_help_opens_with_commands_and_explains_every_option_of_ours():
    parser = pretrain_ecamp.argument_parser()
    text = " ".join(parser.format_help().split())
    assert "litegpt pretrain-ecamp --config tiny_ecamp" in text
    for arguments in ARGUMENTS:
        for field in fields(arguments):
            assert f"--{field.name}" in text and field.metadata["help"].split("%")[0][:40] in text
