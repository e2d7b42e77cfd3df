"""`litegpt pretrain-cxr-clip`, from prepared folders to a checkpoint: resumed, in two processes, of several sets."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from litegpt.modeling_towers.checkpoints import load_cxr_clip
from litegpt.train_scripts import pretrain_cxr_clip
from litegpt.train_scripts.arguments import ContrastArguments, CXRCLIPArguments, StudyArguments
from tests.small_cxr_clip import BERT, PLAIN, RESNET, VIT, pretrain, row, write_prepared
from tests.two_launched import launch_two

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> str:
    """24 studies of two pictures with reports; 20 to validate on, half of them without findings."""
    train = [row(n // 2, image_id=f"a{n}", view=("PA", "LATERAL")[n % 2]) for n in range(48)]
    validation = [row(100 + n, labels=[1] if n % 2 else [6]) for n in range(20)]
    return write_prepared(
        tmp_path_factory.mktemp("data") / "made-up reports", {"train": train, "validation": validation}
    )


@pytest.fixture(scope="module")
def labels_alone(tmp_path_factory) -> str:
    """A data set of other labels, without studies and reports."""
    names = ["Mass", "Nodule", "No finding"]
    entries = {
        split: [row(200 + number, labels=[number % 3]) for number in range(count)]
        for split, count in (("train", 16), ("validation", 4))
    }
    return write_prepared(tmp_path_factory.mktemp("data") / "made-up labels", entries, columns=(), labels=names)


@pytest.fixture
def run(cache_dir, tmp_path):
    def in_folder(name: str, data_dirs: list[str], **options) -> Path:
        pretrain(tmp_path / name, data_dirs, cache_dir=cache_dir, **options)
        return tmp_path / name

    return in_folder


def log(output_dir: Path, step: int) -> list[dict]:
    return json.loads((output_dir / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]


def weights(output_dir: Path) -> dict[str, torch.Tensor]:
    return load_cxr_clip(output_dir / "checkpoint")[0].state_dict()


def test_a_run_ends_in_a_checkpoint_with_a_card_and_logs_its_validation(run, reports):
    options = {"validation_split": "validation", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    output = run("out", [reports], **options, save_steps=4, equalise=0.5, max_gamma=0.2, prompts=0.5)
    model, processor = load_cxr_clip(output / "checkpoint")
    (entry,) = model.config.training_record
    assert entry["data_set"]["name"] == "made-up reports" and entry["steps"] == 4 and entry["batch_size"] == 8
    card = (output / "checkpoint" / "README.md").read_text()
    assert "made-up reports" in card and "4" in card and str(output) not in card
    inputs = processor(images=Image.new("L", (40, 50), 90), text=["mark f0 one.", "no edema."])
    assert model(**inputs).logits_per_image.shape == (1, 2)
    evaluations = [entry for entry in log(output, 4) if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [2, 4]
    for entry in evaluations:
        assert {"eval_loss", "eval_zero_shot_auroc", "eval_retrieval_mean_rank"} <= entry.keys()
        assert entry["eval_retrieval_texts"] == 20
    losses = [entry for entry in log(output, 4) if "loss" in entry]
    assert len(losses) == 4 and all({"mvs", "icl", "tcl", "scale"} <= entry.keys() for entry in losses)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("stop", "chunk_size"), [(2, None), (3, 3)])  # within an epoch of three steps, and at its end
def test_an_interrupted_run_goes_on_to_the_same_weights(stop, chunk_size, run, reports, capsys):
    options = {"text_config": {**BERT, **DROPOUT}, "vision_config": {**VIT, **DROPOUT}, "chunk_size": chunk_size}
    options |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 5, "equalise": 0.0, "prompts": 0.5}
    output = run("out", [reports], **options)
    expected, expected_log = weights(output), log(output, 5)
    for name in ("checkpoint", *(f"checkpoint-{step}" for step in range(stop + 1, 6))):
        shutil.rmtree(output / name)
    run("out", [reports], **options)
    assert f"Resuming from {output / f'checkpoint-{stop}'}" in capsys.readouterr().out
    assert [entry["loss"] for entry in log(output, 5) if "loss" in entry] == [
        entry["loss"] for entry in expected_log if "loss" in entry
    ]
    for name, tensor in weights(output).items():
        assert torch.equal(tensor, expected[name]), name


def test_several_data_sets_with_other_labels_are_trained_on_together(run, reports, labels_alone, capsys):
    output = run(
        "out",
        [reports, labels_alone],
        validation_split="validation",
        eval_strategy="steps",
        eval_steps=5,
        max_steps=5,
        save_strategy="steps",
        save_steps=5,
        equalise=0.0,
    )
    said = capsys.readouterr().out
    assert "24 studies, 48 radiographs" in said and "16 studies, 16 radiographs" in said
    names = [entry["data_set"]["name"] for entry in load_cxr_clip(output / "checkpoint")[0].config.training_record]
    assert names == ["made-up reports", "made-up labels"]
    (evaluation,) = [entry for entry in log(output, 5) if "eval_loss" in entry]
    assert {"eval_0_retrieval_mean_rank", "eval_0_zero_shot_auroc"} <= evaluation.keys()
    assert "eval_1_zero_shot_auroc" not in evaluation  # four studies are too few


def test_a_run_goes_on_from_another_ones_checkpoint_and_keeps_its_record(run, reports, labels_alone):
    first = run("first", [reports], **PLAIN)
    second = run("second", [labels_alone], model_name_or_path=str(first / "checkpoint"), learning_rate=0.0, **PLAIN)
    model = load_cxr_clip(second / "checkpoint")[0]
    assert [entry["data_set"]["name"] for entry in model.config.training_record] == [
        "made-up reports",
        "made-up labels",
    ]
    for name, tensor in weights(first).items():
        torch.testing.assert_close(model.state_dict()[name], tensor)
    assert not (second / "start").exists()


def test_images_alone_are_trained_without_any_text(run, reports):
    output = run("out", [reports], multi_view_weight=0.0, text_loss_weight=0.0, equalise=0.0, weight_decay=0.0)
    before, after = load_cxr_clip(output / "start")[0].state_dict(), weights(output)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("vision_model") for name in changed)
    assert not [name for name in changed if name.startswith("text")]


def test_convolutions_learn_in_chunks_too(run, reports):
    output = run("out", [reports], vision_config=RESNET, chunk_size=3, equalise=0.0, bf16=True)
    before, after = load_cxr_clip(output / "start")[0].state_dict(), weights(output)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    tracked = [tensor for name, tensor in after.items() if name.endswith("num_batches_tracked")]
    assert tracked and all(tensor == 4 * 3 for tensor in tracked)
    assert not torch.equal(
        before["vision_model.embedder.embedder.convolution.weight"],
        after["vision_model.embedder.embedder.convolution.weight"],
    )


def test_two_processes_in_chunks_train_as_one_with_twice_the_batch(run, reports, cache_dir, tmp_path):
    start = str(run("start", [reports], max_steps=1, **PLAIN) / "start")  # a tokenizer of one's own would differ
    expected = weights(run("one", [reports], model_name_or_path=start, **PLAIN))
    options = {
        "data_dirs": [reports],
        "cache_dir": cache_dir,
        "output_dir": str(tmp_path / "two"),
        "model_name_or_path": start,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "chunk_size": 3,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        **PLAIN,
    }
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(options))
    launch_two(pretrain_cxr_clip, "--config", config)
    for name, tensor in weights(tmp_path / "two").items():
        torch.testing.assert_close(
            tensor, expected[name], atol=1e-4, rtol=1e-4, msg=lambda text, name=name: name + text
        )
    assert load_cxr_clip(tmp_path / "two" / "checkpoint")[0].config.training_record[0]["batch_size"] == 8


def test_bad_input_is_one_sentence(run, reports, tmp_path):
    for options, sentence in (
        ({"gradient_accumulation_steps": 2}, "accumulated batches do not see each other"),
        ({"per_device_train_batch_size": 25}, "A batch of 25 studies is larger than the 24 there are"),
        ({"max_length": 49}, "max_length: 49 tokens are more than the text tower's 48 positions"),
        ({"vision_model": "somewhere"}, "vision_model, vision_config: name a model to start from"),
        ({"abnormal_share": 0.0}, "abnormal_share: it must be above 0"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            run("out", [reports], equalise=0.0, **options)
    with pytest.raises(SystemExit, match="is no folder"):
        run("out", [str(tmp_path / "nothing")])


def test_the_help_opens_with_commands_and_explains_every_option_of_ours():
    text = " ".join(pretrain_cxr_clip.argument_parser().format_help().split())
    assert "litegpt pretrain-cxr-clip --config tiny_cxr_clip" in text.partition("options:")[0]
    for arguments in (CXRCLIPArguments, StudyArguments, ContrastArguments):
        for option in fields(arguments):
            assert option.metadata["help"].endswith((".", ". ")) or "extra" in option.metadata["help"], option.name
            assert " ".join(option.metadata["help"].split()[:3]) in text, option.name


def test_equalised_contrast_without_its_library_is_refused_before_anything_is_read(run, monkeypatch):
    monkeypatch.setattr(pretrain_cxr_clip, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"equalise: .* pip install opencv-python-headless, or --equalise 0\.$"):
        run("out", ["nowhere"], equalise=0.5)
