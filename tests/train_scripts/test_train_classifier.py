"""`litegpt train-classifier` on drawn squares: labels are learnt, runs resume, bad input is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers.classifier_checkpoints import load_classifier
from litegpt.modeling_towers.image_towers import new_image_tower, save_image_tower
from litegpt.train_scripts import train_classifier
from tests.small_classifier import RESNET, train
from tests.small_finetune import VIT, entry, write_data, write_entries
from tests.two_launched import launch_two

SIZES = {"train": 96, "validation": 48, "test": 16}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("data") / "drawn squares", SIZES)


@pytest.fixture
def run(cache_dir, tmp_path):
    def in_folder(name: str, data_dir: str, **options) -> Path:
        train(tmp_path / name, data_dir, cache_dir=cache_dir, **options)
        return tmp_path / name

    return in_folder


def metrics(output: Path) -> dict:
    return json.loads((output / "metrics.json").read_text())


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_classifier(output / "checkpoint")[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_labels_are_learnt_without_a_look_at_boxes_or_the_test(run, squares, tmp_path, capsys):
    output = run("out", squares, max_steps=60, eval_steps=20, save_steps=20, save_total_limit=5)
    found = metrics(output)
    area = found["figures"]["tower"]["all"]["macro"]
    assert area > 0.9 and abs(found["figures"]["shuffled"]["all"]["macro"] - 0.5) < 0.2
    assert found["labels"] == ["Mass", "Nodule", "Tumor"]
    said = capsys.readouterr().out
    assert "classification of 48 validation radiographs by random weights (resnet)" in said
    assert "48 training radiographs have boxes: these were not read" in said
    # The same labels without boxes, and with other boxes, teach the same weights.
    other = {
        split: [
            entry(number, split, findings=[{**finding, "box": [0.0, 0.0, 0.1, 0.1]} for finding in one["findings"]])
            for number in range(count)
            for one in [entry(number, split)]
        ]
        for split, count in SIZES.items()
    }
    data = write_entries(tmp_path / "other boxes", other)
    assert same(weights(run("again", data, max_steps=4)), weights(run("boxes", squares, max_steps=4)))


def test_from_which_score_on_a_label_is_present_is_chosen_on_the_validation(run, squares):
    output = run("out", squares, max_steps=40, eval_steps=20, save_steps=20)
    present = metrics(output)["present"]
    config = load_classifier(output / "checkpoint")[0].config
    assert config.present == {label: point["threshold"] for label, point in present.items()}
    assert all(point["f1"] >= 2 / 3 and point["chosen_on"] in ("label", "pooled") for point in present.values())


def test_a_killed_run_goes_on_to_the_same_weights(run, squares, tmp_path, monkeypatch):
    options = {"max_steps": 4, "save_steps": 2, "eval_steps": 2, "min_crop_area": 0.6, "max_gamma": 0.4}
    whole = run("whole", squares, **options, save_total_limit=5)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(train_classifier, "save_classifier", killed)
        run("half", squares, **options, save_total_limit=5)
    shutil.rmtree(tmp_path / "half" / "checkpoint-4")
    half = run("half", squares, **options, save_total_limit=5)
    assert same(weights(half), weights(whole)) and not (half / "checkpoint-6").exists()
    before = (half / "metrics.json").read_bytes()
    run("half", squares, **options, save_total_limit=5)  # is finished, and is shown
    assert (half / "metrics.json").read_bytes() == before


def test_a_tower_is_the_trunk_and_its_random_weights_the_control(run, squares, tmp_path):
    tower = new_image_tower(RESNET, image_processor(32))
    save_image_tower(tower, tmp_path / "tower")
    known = run("known", squares, trunk=str(tmp_path / "tower"), max_steps=1, learning_rate=0.0)
    for name, value in tower.network.state_dict().items():
        if "num_batches" not in name and "running" not in name:
            assert torch.equal(weights(known)[f"trunk.{name}"], value)
    fresh = run("fresh", squares, trunk=str(tmp_path / "tower"), random_weights=True, max_steps=1)
    name = "embedder.embedder.convolution.weight"
    assert (weights(fresh)[f"trunk.{name}"] - tower.network.state_dict()[name]).abs().max() > 0.01
    assert metrics(fresh)["tower"].startswith("random weights (")


@pytest.mark.parametrize("pooling", ["average", "max", "pcam"])
def test_every_pooling_is_trained_and_kept(run, squares, pooling):
    output = run("out", squares, pooling=pooling, max_steps=2)
    assert load_classifier(output / "checkpoint")[0].config.pooling == pooling


def test_bad_input_ends_in_one_sentence(run, squares, tmp_path):
    for options, said in (
        ({"validation_split": "train[:8]"}, "radiographs in common"),
        ({"labels": ["Mss"]}, "no label 'Mss'"),
        ({"trunk_config": {"model_type": "resnet"}}, "`image_size`"),
        ({"trunk": str(tmp_path / "nothing")}, "nothing"),
        ({"trunk_config": None}, "Give --trunk"),
    ):
        with pytest.raises(SystemExit) as ended:
            run("out", squares, **options)
        assert said in str(ended.value) and "\n" not in str(ended.value).strip()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_two_processes_learn_as_one(run, squares, cache_dir, tmp_path):
    """Batch norms see half of a batch each, so the trunk is a ViT."""
    settings = {
        "data_dir": squares, "cache_dir": str(cache_dir), "trunk_config": VIT, "max_steps": 3, "balance": "none",
        "learning_rate": 1e-3, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({**settings, "per_device_train_batch_size": 8}))
    launch_two(train_classifier, "--config", config, "--output_dir", tmp_path / "two")
    one = run("one", squares, **{k: v for k, v in settings.items() if k not in ("data_dir", "cache_dir")})
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, atol=5e-4, rtol=1e-3)
