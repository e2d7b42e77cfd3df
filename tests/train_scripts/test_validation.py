import json

import numpy as np
import pytest
from PIL import Image, ImageColor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litegpt.common.overlay import ANSWERED, LINE, SIDE, TRUE, panel
from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr
from litegpt.evaluation_scripts.evaluate_litegpt import label_names
from litegpt.evaluation_scripts.predictions import answer_lines
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.train_scripts import validation
from litegpt.train_scripts.validation import validation_scores
from tests.small_training import train

TASKS = ["identify", "vqa"]


@pytest.fixture(scope="module")
def run(tiny_checkpoint, phantom_release, cache_dir, tmp_path_factory):
    """A run with LoRA and dropout that answers after steps 2 and 4."""
    folder = tmp_path_factory.mktemp("validated")
    train_with_dropout(
        folder,
        tiny_checkpoint,
        phantom_release,
        cache_dir,
        validation_split="test[:4]",
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="eval_identify_finding_f1",
        report_to="tensorboard",
    )
    return folder


def train_with_dropout(folder, checkpoint, release, cache_dir, **options):
    lora = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.5}
    train(folder, checkpoint, release, cache_dir, lora, tasks=TASKS, save_strategy="steps", save_steps=2, **options)


def state(folder) -> dict:
    return json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())


def lines_of(folder, step) -> list[dict]:
    return [json.loads(line) for line in (folder / "validation" / f"step-{step}.jsonl").read_text().splitlines()]


def test_the_training_is_the_same_as_without_answers(run, tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    """Dropout draws from the random state that an evaluation must leave as it was."""
    train_with_dropout(tmp_path, tiny_checkpoint, phantom_release, cache_dir)
    losses = [
        [entry["loss"] for entry in state(folder)["log_history"] if "loss" in entry] for folder in (run, tmp_path)
    ]
    assert len(losses[0]) == 4 and losses[0] == losses[1]


def test_the_last_answers_are_those_of_the_checkpoint(run, phantom_release, cache_dir):
    rows = load_vindr_cxr(phantom_release, split="test[:4]", cache_dir=cache_dir)
    lines = lines_of(run, 4)
    assert [(line["image_id"], line["task"]) for line in lines] == [
        (i, task) for task in TASKS for i in rows["image_id"]
    ]
    model, processor = load_checkpoint(run / "checkpoint")
    pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor)
    for task in TASKS:
        of_task = [line for line in lines if line["task"] == task]
        longest = 2 * max(
            len(ids) for ids in processor.tokenizer([line["true_answer"] for line in lines])["input_ids"]
        )
        expected = answer_lines(pipe, rows, task, batch_size=2, max_new_tokens=longest, constrained=False)
        assert [line["answer"] for line in of_task] == [line["answer"] for line in expected]


def test_scores_are_in_the_log_in_tensorboard_and_choose_the_best_checkpoint(run, phantom_release, cache_dir):
    logged = [entry for entry in state(run)["log_history"] if "eval_identify_finding_f1" in entry]
    assert [entry["step"] for entry in logged] == [2, 4]
    assert {name for name in logged[0] if name.startswith(("eval_identify", "eval_vqa"))} == {
        "eval_identify_finding_f1",
        "eval_identify_micro_f1",
        "eval_identify_malformed",
        "eval_identify_accuracy_at_iou_0.3",
        "eval_identify_accuracy_at_iou_0.5",
        "eval_vqa_finding_f1",
        "eval_vqa_micro_f1",
        "eval_vqa_malformed",
    }
    assert state(run)["best_metric"] == max(entry["eval_identify_finding_f1"] for entry in logged)
    lines = lines_of(run, 4)
    malformed = [line["malformed"] is not None for line in lines if line["task"] == "vqa"]
    assert logged[1]["eval_vqa_malformed"] == np.mean(malformed)

    (folder,) = (run / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("eval/identify_finding_f1")] == [2, 4]
    assert [event.step for event in events.Images("validation")] == [2, 4]
    assert events.Images("validation")[0].width == Image.open(run / "validation" / "step-2.png").width


def perfect_line(row, task, labels) -> dict:
    findings = [{"label": labels["finding"][f["label"]], "box": f["box"], "score": 1.0} for f in row["findings"]]
    diagnoses = [{"label": labels["diagnosis"][index], "score": 1.0} for index in row["diagnoses"]]
    return {"malformed": None, **({"diagnoses": diagnoses} if task == "vqa" else {"findings": findings})}


def test_perfect_answers_score_one_and_malformed_ones_nothing(rows):
    truths, labels = list(rows.remove_columns("image")), label_names(rows)
    lines = {task: {i: perfect_line(row, task, labels) for i, row in enumerate(truths)} for task in TASKS}
    scores = validation_scores(lines, truths, labels)
    assert len(scores) == 8
    assert all(value == (0 if "malformed" in name else 1) for name, value in scores.items())
    wrong = {task: {i: {**line, "malformed": "why"} for i, line in of_task.items()} for task, of_task in lines.items()}
    for of_row in wrong["identify"].values():
        of_row["findings"] = []
    scores = validation_scores(wrong, truths, labels)
    assert all(value == (1 if "malformed" in name else 0) for name, value in scores.items())
    assert validation_scores({"identify": {}}, truths, labels) == {}


def test_a_picture_shows_both_boxes_where_they_are():
    image = Image.new("L", (100, 200))
    row = {"findings": [{"label": 0, "box": [0.1, 0.2, 0.5, 0.6]}], "diagnoses": [0]}
    answered = {"findings": [{"label": "ILD", "box": [0.6, 0.4, 0.9, 0.8], "score": 1.0}], "malformed": None}
    lines = {"identify": answered, "vqa": {"diagnoses": [], "malformed": "it does not end with a full stop"}}
    picture = panel(image, row, lines, {"finding": ["ILD"], "diagnosis": ["COPD"]})
    assert picture.size == (SIDE, SIDE + 4 * LINE)
    scale = SIDE / 200  # the radiograph is as high as the panel, and half as wide
    for colour, (x, y) in ((TRUE, (0.1, 0.4)), (TRUE, (0.3, 0.6)), (ANSWERED, (0.6, 0.6)), (ANSWERED, (0.75, 0.4))):
        assert picture.getpixel((round(100 * x * scale), round(200 * y * scale))) == ImageColor.getrgb(colour)
    below = np.asarray(picture)[SIDE:].reshape(4, LINE, SIDE, 3)
    for line, colour in zip(below, (TRUE, ANSWERED, TRUE, ANSWERED), strict=True):
        assert (line == ImageColor.getrgb(colour)).all(-1).any()


def test_a_full_disk_does_not_end_the_run(tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(validation, "write_text", full)
    options = {"validation_split": "test", "eval_strategy": "steps", "eval_steps": 2, "max_steps": 2}
    train(tmp_path, tiny_checkpoint, phantom_release, cache_dir, **options)
    assert (tmp_path / "checkpoint" / "config.json").exists()
    assert "The answers of step 2 could not be written: [Errno 28] No space left on device" in capsys.readouterr().out


@pytest.mark.parametrize("tasks", [["identify", "refer", "report"], ["refer", "question"]])
def test_tasks_about_words_count_by_their_loss(tasks, tiny_checkpoint, phantom_release, cache_dir, tmp_path, capsys):
    options = {"validation_split": "test[:4]", "eval_strategy": "steps", "eval_steps": 2, "max_steps": 2}
    options |= {"tasks": tasks, "template_words": True, "save_strategy": "steps", "save_steps": 2}
    train(tmp_path, tiny_checkpoint, phantom_release, cache_dir, **options)
    log = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert any("eval_loss" in entry for entry in log)
    assert any("eval_identify_finding_f1" in entry for entry in log) == ("identify" in tasks)
    assert f"of {', '.join(tasks[-2:])} it shows the loss alone" in capsys.readouterr().out
