import json

import torch
from transformers import TrainingArguments

from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.train_scripts.arguments import TowerArguments
from litegpt.train_scripts.pretrain_boxes import OFFSET_SCALE, RowIndices, main, patch_loss, patch_targets


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
