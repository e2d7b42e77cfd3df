import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainingArguments

from litegpt.datasets_scripts.rows import load_rows
from litegpt.datasets_scripts.vindr_cxr import LABEL_COLUMNS
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.train_scripts.arguments import TowerArguments
from litegpt.train_scripts.dense_box_loss import detector_loss
from litegpt.train_scripts.pretrain_boxes import (
    OFFSET_SCALE,
    RowIndices,
    TowerTrainingModel,
    main,
    patch_loss,
    patch_targets,
)
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement


def test_a_patch_belongs_to_the_smallest_box_around_its_centre():
    large, small = {"label": 0, "box": [0.0, 0.0, 1.0, 1.0]}, {"label": 1, "box": [0.5, 0.5, 1.0, 1.0]}
    inside, boxes = patch_targets([[small, large], []], side=4, num_labels=2)
    inside, boxes = inside.view(2, 4, 4, 2), boxes.view(2, 4, 4, 4)
    assert inside[0, ..., 0].all() and inside[0, ..., 1].sum() == 4 and inside[0, 2:, 2:, 1].all()
    assert torch.allclose(boxes[0, 2, 3], torch.tensor(small["box"]))
    assert torch.allclose(boxes[0, 0, 3], torch.tensor(large["box"]))
    assert inside[1].sum() == 0 and boxes[1].sum() == 0


def test_a_box_between_patch_centres_still_has_a_patch():
    inside, boxes = patch_targets([[{"label": 0, "box": [0.26, 0.01, 0.3, 0.05]}]], side=4, num_labels=1)
    assert inside.view(4, 4).nonzero().tolist() == [[0, 1]]
    assert torch.allclose(boxes.view(4, 4, 4)[0, 1], torch.tensor([0.26, 0.01, 0.3, 0.05]))


def test_the_right_output_has_the_smallest_loss():
    findings = [[{"label": 1, "box": [0.0, 0.5, 0.5, 1.0]}]]
    inside, boxes = patch_targets(findings, side=2, num_labels=3)
    centres = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]).repeat(1, 2)
    right = torch.cat([(inside[0] - 0.5) * 20, OFFSET_SCALE * (boxes[0] - centres)], dim=1)[None]
    loss = patch_loss(right, findings, 2, 3)
    assert loss < 0.05
    moved_box, other_label = right.clone(), right.clone()
    moved_box[0, 2, 3] += 1
    other_label[0, :, [0, 1]] = other_label[0, :, [1, 0]]
    assert patch_loss(moved_box, findings, 2, 3) > loss + 0.1
    assert patch_loss(other_label, findings, 2, 3) > loss + 1


def test_radiographs_with_findings_are_repeated():
    assert list(RowIndices([[], ["a finding"], []], repeat_findings=3)) == [0, 1, 1, 1, 2]


def test_training_changes_the_towers_alone_and_learns(tiny_checkpoint, phantom_release, tmp_path):
    arguments = TowerArguments(str(tiny_checkpoint), str(phantom_release), cache_dir=str(tmp_path / "cache"))
    output_dir = str(tmp_path / "towers")
    training = TrainingArguments(
        output_dir, max_steps=12, per_device_train_batch_size=8, learning_rate=5e-3, logging_steps=4, report_to="none"
    )
    main(arguments, training)
    before, after = (
        load_checkpoint(tiny_checkpoint)[0].state_dict(),
        load_checkpoint(f"{output_dir}/checkpoint")[0].state_dict(),
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("vision_tower" in name for name in changed)
    assert any("aux_vision_tower" in name for name in changed)
    state = torch.load(f"{output_dir}/checkpoint-12/optimizer.pt", weights_only=True)
    assert len(state["state"]) > 0


def test_boxes_of_maps_stand_in_for_those_of_the_data(tiny_checkpoint, phantom_release, tmp_path, capsys):
    rows = load_rows(str(phantom_release), "train", str(tmp_path / "cache"))
    names = rows.features["findings"].feature["label"].names
    region = {"peak": [0.5, 0.5], "boxes": [[0.25, 0.25, 0.75, 0.75, 0.5]]}
    lines = [
        {"image_id": image_id, "malformed": None, "regions": {names[one["label"]]: region for one in findings}}
        for image_id, findings in zip(rows["image_id"][:], rows["findings"][:], strict=True)
    ]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = TowerArguments(
        str(tiny_checkpoint), str(phantom_release), cache_dir=str(tmp_path / "cache"), pseudo_boxes=str(file)
    )
    training = TrainingArguments(
        str(tmp_path / "towers"), max_steps=1, per_device_train_batch_size=8, report_to="none", save_strategy="no"
    )
    main(arguments, training)
    assert f"{file}: boxes of maps in place of the data's" in capsys.readouterr().out
    assert "on boxes that a classifier's maps drew" in (tmp_path / "towers" / "checkpoint" / "README.md").read_text()


@pytest.mark.parametrize("patch_heads", [True, False])
def test_the_detector_learns_with_the_towers_and_stays(
    detector_checkpoint, phantom_release, cache_dir, tmp_path, patch_heads
):
    data = {"cache_dir": cache_dir, "view_strength": 1.3, "max_gamma": 0.4}
    arguments = TowerArguments(str(detector_checkpoint), str(phantom_release), patch_heads=patch_heads, **data)
    options = {"max_steps": 20, "per_device_train_batch_size": 8, "learning_rate": 1e-2}
    main(arguments, TrainingArguments(str(tmp_path), report_to="none", save_strategy="no", use_cpu=True, **options))
    before, after = (load_checkpoint(folder)[0] for folder in (detector_checkpoint, tmp_path / "checkpoint"))
    changed = {
        name.split(".")[1]
        for name, value in before.state_dict().items()
        if not torch.equal(value, after.state_dict()[name])
    }
    assert changed == {"vision_tower", "aux_vision_tower", "detector"}
    rows = load_rows(str(phantom_release), "train", cache_dir)
    assert detection_loss(after, rows) < detection_loss(before, rows) - 0.1
    assert "towers, detector" in (tmp_path / "checkpoint" / "README.md").read_text()


def test_the_detector_learns_alone_on_frozen_towers(detector_checkpoint, phantom_release, cache_dir, tmp_path):
    data = {"cache_dir": cache_dir, "freeze_towers": True}
    training = TrainingArguments(str(tmp_path), max_steps=2, report_to="none", save_strategy="no", use_cpu=True)
    main(TowerArguments(str(detector_checkpoint), str(phantom_release), **data), training)
    folders = (detector_checkpoint, tmp_path / "checkpoint")
    before, after = (load_checkpoint(folder)[0].state_dict() for folder in folders)
    assert {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])} == {"detector"}
    assert "| detector |" in (tmp_path / "checkpoint" / "README.md").read_text()


def detection_loss(model, rows) -> float:
    _, processor = load_checkpoint(model.name_or_path)
    store = RadiographStore(rows, processor.tower_image_processors, rows.cache_files[0]["filename"] + "-store")
    with torch.no_grad():
        features = model.get_patch_features(*store.pixel_values(range(len(rows)), [Movement()] * len(rows)))
        return detector_loss(model.model.detector, features, rows["findings"][:], None).item()


def test_a_detector_is_added_where_asked(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    training = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", save_strategy="no", use_cpu=True)
    data = {"cache_dir": cache_dir, "detector": True, "num_candidate_tokens": 2}
    main(TowerArguments(str(tiny_checkpoint), str(phantom_release), **data), training)
    model, processor = load_checkpoint(tmp_path / "checkpoint")
    assert model.model.detector is not None and processor.image_seq_length == 18


def test_a_radiograph_that_does_not_say_where_is_left_out(detector_checkpoint, tmp_path, capsys):
    """Two of six have labels without any box; one that has another box is known of all but its own label."""
    folder = small_release(tmp_path / "release")
    training = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", save_strategy="no", use_cpu=True)
    main(TowerArguments(str(detector_checkpoint), str(folder), cache_dir=str(tmp_path / "cache")), training)
    assert "2 of 6 radiographs have labels but no box, and are left out" in capsys.readouterr().out


def small_release(folder):
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    (folder / "annotations").mkdir()
    rng = np.random.default_rng(0)
    labelled = {0: ["ILD"], 1: ["ILD", "Edema"], 2: ["Edema"], 3: ["Edema"], 4: [], 5: []}
    boxes, labels = ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max"], []
    for number, names in labelled.items():
        image = Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8))
        image.save(folder / "train" / f"{number:032x}.png")
        if "ILD" in names:
            boxes.append(f"{number:032x},R1,ILD,8,8,40,40")
        stated = set(names or ["No finding"])
        labels.append(f"{number:032x},R1," + ",".join(str(int(name in stated)) for name in LABEL_COLUMNS))
    (folder / "annotations" / "annotations_train.csv").write_text("\n".join(boxes) + "\n")
    header = ",".join(["image_id", "rad_id", *LABEL_COLUMNS])
    (folder / "annotations" / "image_labels_train.csv").write_text("\n".join([header, *labels]) + "\n")
    return folder


def test_nothing_to_learn_for_is_refused(tiny_checkpoint, phantom_release, tmp_path):
    training = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", use_cpu=True)
    with pytest.raises(SystemExit, match="patch_heads"):
        main(TowerArguments(str(tiny_checkpoint), str(phantom_release), patch_heads=False), training)


def test_where_nothing_is_known_of_boxes_nothing_is_learnt(detector_checkpoint):
    detector = load_checkpoint(detector_checkpoint)[0].model.detector
    features = torch.randn(2, 80, 32)
    detector_loss(detector, features, [[], []], torch.zeros(2, 22)).backward()
    assert all(p.grad is None or not p.grad.any() for p in detector.parameters())
    detector_loss(detector, features, [[], []], torch.ones(2, 22)).backward()
    assert detector.head.logits.bias.grad.all()


def test_weights_in_half_precision_learn_in_float32(detector_checkpoint, phantom_release, cache_dir, tmp_path):
    """In float16 the optimizer's smallest number is 0: a step would be as large as any."""
    model, processor = load_checkpoint(detector_checkpoint, dtype=torch.float16)
    save_checkpoint(model, processor, tmp_path / "half")
    training = TrainingArguments(
        str(tmp_path), max_steps=3, learning_rate=1e-4, report_to="none", save_strategy="no", use_cpu=True
    )
    main(TowerArguments(str(tmp_path / "half"), str(phantom_release), cache_dir=cache_dir), training)
    after = load_checkpoint(tmp_path / "checkpoint", dtype="auto")[0]
    assert after.dtype == torch.float16
    for name, before in model.state_dict().items():
        assert (after.state_dict()[name].float() - before.float()).abs().max() < 2e-3, name


def test_labels_alone_teach_no_detector(detector_checkpoint, phantom_release, cache_dir, tmp_path):
    training = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", save_strategy="no", use_cpu=True)
    data = {"cache_dir": cache_dir, "labels_only": True}
    with pytest.raises(SystemExit, match="of labels alone it learns nothing"):
        main(TowerArguments(str(detector_checkpoint), str(phantom_release), detector=True, **data), training)
    main(TowerArguments(str(detector_checkpoint), str(phantom_release), **data), training)
    assert "towers, detector" not in (tmp_path / "checkpoint" / "README.md").read_text()


def test_beside_patch_heads_the_detector_teaches_the_towers_nothing(detector_checkpoint, phantom_release, cache_dir):
    model, processor = load_checkpoint(detector_checkpoint)
    rows = load_rows(str(phantom_release), "train", cache_dir)
    store = RadiographStore(rows, processor.tower_image_processors, rows.cache_files[0]["filename"] + "-store")
    boxed = [number for number, findings in enumerate(rows["findings"][:]) if findings][:4]
    pixels, findings = store.pixel_values(boxed, [Movement()] * len(boxed)), [rows["findings"][n] for n in boxed]
    gradients = {}
    for heads in (True, False):
        training = TowerTrainingModel(model.model, 22, patch_heads=heads)
        for head in training.heads:
            torch.nn.init.zeros_(head.weight)  # so that it teaches them nothing either
        training(pixels, findings)["loss"].backward()
        gradients[heads] = sum(p.grad.abs().sum() for p in model.model.vision_tower.parameters() if p.grad is not None)
        assert model.model.detector.head.boxes.weight.grad.any()
        model.zero_grad()
    assert gradients[True] == 0 < gradients[False]
