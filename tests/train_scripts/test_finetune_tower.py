"""`litegpt finetune-tower` on drawn squares: each task learns, runs resume, bad splits are refused."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_towers.finetuned_tower import load_finetuned
from litegpt.modeling_towers.image_towers import load_image_tower
from litegpt.train_scripts import finetune_tower
from litegpt.train_scripts.arguments import FinetuneArguments
from litegpt.train_scripts.finetune_splits import load_splits
from litegpt.train_scripts.memory_per_gpu import FSDP2
from tests.small_cxr_clip import RESNET
from tests.small_finetune import SIDE, VIT, entry, finetune, write_data, write_entries
from tests.two_launched import launch_two

SIZES = {"train": 96, "validation": 32, "test": 48}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("data") / "drawn squares", SIZES, ("patient_id", "mask"))


@pytest.fixture
def run(cache_dir, tmp_path):
    def in_folder(name: str, data_dir: str, task: str = "classification", **options) -> Path:
        finetune(tmp_path / name, data_dir, task, cache_dir=cache_dir, **options)
        return tmp_path / name

    return in_folder


def metrics(output: Path) -> dict:
    return json.loads((output / "metrics.json").read_text())


def log(output: Path, step: int) -> list[dict]:
    return json.loads((output / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_finetuned(output / "checkpoint").state_dict()


# --- Every task learns what is drawn ---------------------------------------------------------------------------------


def test_labels_are_learnt_better_than_the_control_knows_them(run, squares, capsys):
    output = run("out", squares, max_steps=60, labels=["Mass"], eval_steps=20, save_steps=20, save_total_limit=5)
    found = metrics(output)
    area, interval = (found[kind]["tower"]["all"]["macro"] for kind in ("figures", "intervals"))
    assert found["labels"] == ["Mass"] and area > 0.95 and interval[0] > 0.85
    assert found["figures"]["tower_less_shuffled"]["all"]["macro"] > 0.3
    assert area > found["figures"]["anything_there"]["all"]["macro"]
    assert found["data_set"]["radiographs"] == SIZES and found["tower"] == "random weights (vit)"
    entries = [entry["eval_auroc"] for entry in log(output, 60) if "eval_auroc" in entry]
    assert found["training"]["validation"] == max(entries) and found["training"]["chosen_by"] == "auroc"
    said = capsys.readouterr().out
    assert "classification of 48 test radiographs" in said and f"{area:.3f}" in said and "shuffled" in said
    with np.load(output / "predictions.npz") as predictions:
        assert predictions["labels"].tolist() == ["Mass"] and predictions["probabilities"].shape == (48, 1)
        assert predictions["image_ids"][3] == "testimage3"


def test_masks_are_learnt_better_than_nothing_a_place_and_another_ones(run, squares):
    figures = metrics(run("out", squares, "segmentation", max_steps=50))["figures"]
    assert figures["tower"]["with mask"] > 0.7 and figures["tower"]["without mask"] > 0.8
    for control in ("predict_nothing", "prior", "shuffled"):
        assert figures[f"tower_less_{control}"]["all"] > 0.25
    assert figures["predict_nothing"]["all"] == 0.5


def test_boxes_are_learnt_better_than_a_place_and_another_ones(run, squares):
    output = run("out", squares, "detection", max_steps=50, positive_share=0.6)
    found = metrics(output)
    figures = found["figures"]["any_finding"]
    assert found["labels"] == ["Mass", "Nodule"] and found["counts"]["boxes"] == {"Mass": 12, "Nodule": 12}
    assert figures["tower"]["0.4"] > 0.8
    assert figures["tower"]["0.4"] > figures["prior"]["0.4"] + 0.4 and figures["shuffled"]["0.4"] < 0.2
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [line["image_id"] for line in lines] == [f"testimage{number}" for number in range(48)]
    assert {"findings", "any_finding", "task"} < lines[0].keys() and {"label", "box", "score"} == lines[0]["findings"][
        0
    ].keys()


def test_one_of_several_classes_is_learnt_better_than_the_commonest(run, tmp_path):
    entries = {
        split: [entry(number, split, findings=[], diagnoses=[number % 2]) for number in range(count)]
        for split, count in SIZES.items()
    }
    data = write_entries(tmp_path / "classes", entries, diagnoses=["Square", "Nothing"])
    found = metrics(run("out", data, single_label=True, max_steps=40, eval_steps=20, save_steps=20))
    assert found["figures"]["accuracy"]["tower"] > 0.9 > 0.6 > found["figures"]["accuracy"]["constant"]
    assert set(found["figures"]["recall"]) == {"Square", "Nothing"} and found["training"]["chosen_by"] == "accuracy"


# --- Towers ----------------------------------------------------------------------------------------------------------


def test_a_probe_leaves_the_tower_as_it_was_and_other_towers_are_taken(run, squares, tmp_path):
    before = run("first", squares)
    probe = run("probe", squares, tower=str(before / "checkpoint"), frozen=True, learning_rate=0.1)
    old, new = weights(before), weights(probe)
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items() if name.startswith("tower."))
    assert not torch.equal(new["head.linear.weight"], old["head.linear.weight"])
    record = load_image_tower(probe / "checkpoint").config.training_record
    assert [entry["trained"] for entry in record] == [
        "the image tower and a head for classification",
        "a head for classification alone",
    ]
    assert any("was trained on drawn squares before" in warning for warning in metrics(probe)["warnings"])


def test_the_control_has_the_towers_sizes_and_other_weights(run, squares):
    config = {**RESNET, "image_size": SIDE}
    before = run("first", squares, tower_config=config)
    control = run("control", squares, tower=str(before / "checkpoint"), random_weights=True, frozen=True)
    old, new = weights(before), weights(control)
    name = next(name for name in old if name.startswith("tower.") and name.endswith("convolution.weight"))
    assert old.keys() == new.keys() and not torch.equal(old[name], new[name])
    variance = next(tensor for name, tensor in new.items() if name.endswith("running_var"))
    assert not torch.equal(variance, torch.ones_like(variance))  # fresh batch norms were fitted to radiographs
    assert metrics(control)["tower"] == "random weights (first/checkpoint)"


def test_the_saved_model_gives_the_predictions_of_the_test(run, squares, cache_dir):
    output = run("out", squares, min_crop_area=1.0)
    model = load_finetuned(output / "checkpoint")
    rows = load_rows(squares, "test", cache_dir)
    images = [row["image"].convert("RGB") for row in rows]
    pixels = model.tower.processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad(), np.load(output / "predictions.npz") as predictions:
        np.testing.assert_allclose(model(pixels).sigmoid(), predictions["probabilities"], atol=1e-5)


# --- Runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_an_interrupted_run_goes_on_to_the_same_weights_and_scores(task, run, squares, capsys):
    options = {"max_steps": 6, "eval_steps": 2, "save_steps": 2, "save_total_limit": 5, "patience": 3}
    options |= {"tower_config": {**VIT, "hidden_dropout_prob": 0.2}, "per_device_train_batch_size": 32}
    if task == "detection":  # no label has boxes enough to be in a mean
        options |= {"test_split": "test[:16]", "min_positives": 9}
    output = run("out", squares, task, **options)
    expected, expected_metrics, expected_log = weights(output), metrics(output), log(output, 6)
    for name in ("checkpoint", "checkpoint-4", "checkpoint-6"):
        shutil.rmtree(output / name)
    for name in ("metrics.json", "predictions.npz", "predictions.jsonl"):
        (output / name).unlink(missing_ok=True)
    stores = sorted(path.name for path in (output / "cache").iterdir())
    run("out", squares, task, **options)
    assert f"Resuming from {output / 'checkpoint-2'}" in capsys.readouterr().out
    assert [entry["loss"] for entry in log(output, 6) if "loss" in entry] == [
        entry["loss"] for entry in expected_log if "loss" in entry
    ]
    for name, tensor in weights(output).items():
        assert torch.equal(tensor, expected[name]), name
    assert metrics(output) == expected_metrics
    assert sorted(path.name for path in (output / "cache").iterdir()) == stores


def test_a_run_whose_test_was_interrupted_only_tests(run, squares, capsys):
    output = run("out", squares)
    expected = metrics(output)
    (output / "metrics.json").unlink()
    shutil.rmtree(output / "checkpoint-4")
    run("out", squares)
    assert (
        metrics(output) == expected and "to learn from" not in capsys.readouterr().out.split("classification of 48")[1]
    )


def test_a_finished_run_is_shown_at_once_and_another_one_does_not_mix_with_it(run, squares, capsys):
    output = run("out", squares)
    first = capsys.readouterr().out.partition("classification of 48")[2]
    shutil.rmtree(output / "checkpoint")
    run("out", squares)
    assert capsys.readouterr().out.partition("classification of 48")[2] == first
    for options, name in (({"labels": ["Mass"]}, "labels"), ({"learning_rate": 1.0}, "learning_rate")):
        with pytest.raises(SystemExit, match=f"holds a run with --{name} .*choose another output_dir"):
            run("out", squares, **options)


def test_training_stops_where_a_validation_gets_no_better(run, squares):
    output = run(
        "out", squares, max_steps=20, eval_steps=1, save_steps=1, save_total_limit=9, patience=2, learning_rate=0.0
    )
    steps = [entry["step"] for entry in log(output, 3) if "eval_auroc" in entry]
    assert steps == [1, 2, 3] and not (output / "checkpoint-4").exists()
    assert metrics(output)["training"]["steps"] == 1


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_twice_the_batch(run, squares, cache_dir, tmp_path):
    steps = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "save_total_limit": 5}
    expected = run("one", squares, **steps, per_device_train_batch_size=16)
    options = {"data_dir": squares, "task": "classification", "tower_config": VIT, "cache_dir": cache_dir}
    options |= {"output_dir": str(tmp_path / "two"), "min_crop_area": 0.6, "min_positives": 3, **steps}
    options |= {"eval_strategy": "steps", "save_strategy": "steps", "learning_rate": 3e-3, "logging_steps": 1}
    options |= {"report_to": "none", "use_cpu": True, "lr_scheduler_type": "cosine"}
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(options | {"per_device_train_batch_size": 8}))
    launch_two(finetune_tower, "--config", config)
    ours, theirs = (
        [entry["loss"] for entry in log(output, 4) if "loss" in entry] for output in (tmp_path / "two", expected)
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    two, one = metrics(tmp_path / "two"), metrics(expected)
    assert two["figures"]["tower"]["all"]["macro"] == pytest.approx(one["figures"]["tower"]["all"]["macro"], abs=1e-3)


# --- Splits ----------------------------------------------------------------------------------------------------------


def splits_of(data_dir: str, cache_dir: str, task: str = "classification", seed: int = 0, **options):
    return load_splits(FinetuneArguments(data_dir, tower_config=VIT, cache_dir=cache_dir, **options), task, seed)


def test_a_validation_that_is_the_test_or_of_the_training_is_refused(run, squares, capsys):
    for options, both in (
        ({"validation_split": "test"}, "test .validation. and test .test. have 48 radiographs"),
        ({"validation_split": "train[:7]"}, "train .train. and train.:7. .validation. have 7 radiographs"),
        ({"test_split": "train[90:]"}, "train .train. and train.90:. .test. have 6 radiographs"),
    ):
        with pytest.raises(SystemExit, match=both):
            run("out", squares, **options)


def test_patients_on_two_sides_are_refused_unless_one_wants_them(tmp_path, cache_dir):
    data = write_data(tmp_path / "shared", SIZES, test={3: {"patient_id": "trainpatient5"}})
    with pytest.raises(ValueError, match="train .train. and test .test. have 1 patients in common"):
        splits_of(data, cache_dir)
    assert splits_of(data, cache_dir, allow_shared_patients=True).warnings == ["patients in both train and test: 1."]


def test_parts_are_nested_and_keep_patients_together(tmp_path, cache_dir):
    train = {number: {"patient_id": f"p{number // 3}"} for number in range(300)}
    data = write_data(tmp_path / "parts", {"train": 300, "validation": 4, "test": 4}, train=train)
    parts = {part: set(splits_of(data, cache_dir, part=part).train["image_id"][:]) for part in (0.01, 0.1, 1.0)}
    assert parts[0.01] < parts[0.1] < parts[1.0]
    assert [len(parts[part]) for part in (0.01, 0.1, 1.0)] == [3, 30, 300]
    for part in parts.values():
        patients = {int(name.removeprefix("trainimage")) // 3 for name in part}
        assert len(part) == 3 * len(patients)
    assert set(splits_of(data, cache_dir, part=0.1, seed=1).train["image_id"][:]) != parts[0.1]


def test_radiographs_with_labels_and_no_box_are_left_out_of_boxes_and_said(tmp_path, cache_dir):
    entries = {
        split: [entry(number, split, image_labels=[]) for number in range(count)]
        for split, count in (("train", 6), ("validation", 4), ("test", 4))
    }
    entries["train"][1] |= {"image_labels": [0], "diagnoses": []}  # a label, and no square
    entries["train"][3] |= {"diagnoses": [0]}
    data = write_entries(tmp_path / "stated", entries, ("patient_id", "image_labels"))
    splits = splits_of(data, cache_dir, "detection")
    assert splits.train["image_id"][:] == [f"trainimage{number}" for number in (0, 2, 4, 5)]
    assert splits.warnings == ["train: 2 radiographs with labels and no box are left out."]
    assert len(splits_of(data, cache_dir, "classification").train) == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tower_config": None}, "Give --tower"),
        ({"tower_config": {"model_type": "vit"}}, "needs `model_type` and `image_size`"),
        ({"labels": ["Edema"]}, "no label 'Edema', only Mass, Nodule"),
        ({"min_positives": 30}, "test: no label has 30 positive"),
        ({"validation_split": "validation[1:2]"}, "no label has 1 positive"),
        ({"single_label": True, "labels": ["Mass"]}, "it takes no --labels"),
        ({"task": "detection", "single_label": True}, "is an option of classification"),
        ({"task": "segmentation", "labels": ["Mass"]}, "no option of segmentation"),
        ({"task": "detection", "positive_share": 0.0}, "--positive_share must be above 0"),
        ({"train_split": "train[:0]"}, "train.:0.. corresponds to no data"),
        ({"tower": "nowhere", "tower_config": None}, "nowhere"),
        ({"learning_rate": 1e30, "max_steps": 8}, "The loss is"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(options, sentence, run, squares):
    with pytest.raises(SystemExit, match=sentence) as stop:
        run("out", squares, **options)
    assert "\n" not in str(stop.value.code)


def test_our_configurations_have_options_that_there_are():
    known = {
        field.name for arguments in finetune_tower.argument_parser().dataclass_types for field in fields(arguments)
    }
    configs = [path for path in FSDP2.parents[1].joinpath("configs").glob("*.yaml") if path.stem in CONFIGS]
    assert {path.stem for path in configs} == CONFIGS
    for path in configs:
        assert set(yaml.safe_load(path.read_text())) <= known, path.name


CONFIGS = {
    "finetune_chestx_ray14",
    "finetune_chexpert",
    "finetune_rsna",
    "finetune_covidx",
    "segment_siim",
    "segment_rsna",
    "detect_rsna",
    "tiny_classify",
    "tiny_segment",
    "tiny_detect",
}
