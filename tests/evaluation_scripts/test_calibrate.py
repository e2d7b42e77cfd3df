import json
import shutil

import numpy as np
import pytest
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from transformers import AutoProcessor

from litegpt.datasets_scripts.annotations import row_features
from litegpt.evaluation_scripts import calibrate, predictions
from litegpt.evaluation_scripts.arguments import CalibrationArguments
from litegpt.evaluation_scripts.calibrate import (
    best_threshold,
    calibration_errors,
    choose_thresholds,
    fit_temperature,
    main,
    operating_point,
    writable_processor_config,
    write_into_checkpoint,
)
from litegpt.evaluation_scripts.questions import question
from litegpt.metrics.boxes import match
from litegpt.processing.box_scores import calibrated
from litegpt.processing.processing_litegpt import LiteGPTProcessor

BOX, ELSEWHERE = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Temperatures


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found_and_calibrates(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0.5, 2, 20_000)
    is_right = rng.random(20_000) < sigmoid(logits)
    scores = sigmoid(logits * temperature)
    found = fit_temperature(scores, is_right)
    assert found == pytest.approx(temperature, rel=0.05)
    errors = calibration_errors(scores, is_right, found)
    assert errors["after"] < 0.01 and (errors["num_scores"], errors["num_right"]) == (20_000, is_right.sum())
    assert temperature == 1 or errors["before"] > 0.05


def test_the_temperature_is_that_of_a_logistic_regression():
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.05, 0.95, 300)
    is_right = rng.random(300) < scores**2
    logits = np.log(scores / (1 - scores))[:, None]
    slope = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10).fit(logits, is_right).coef_[0, 0]
    assert fit_temperature(scores, is_right) == pytest.approx(1 / slope, rel=1e-3)


def test_scores_that_tell_nothing_get_the_highest_temperature_and_sure_ones_are_finite():
    scores = np.array([0.9] * 40 + [0.1] * 40)
    assert fit_temperature(scores, np.array(([True] + [False] * 3) * 20)) == 20
    sure = np.array([1.0] * 50 + [0.0] * 50)
    is_right = sure == 1
    is_right[0] = False
    assert 3 < fit_temperature(sure, is_right) < 5  # 99 of 100 at odds of 1e7: log(1e7) / log(99) = 3.5


@pytest.mark.parametrize("is_right", [[True, False] * 14, [True] * 100, [False] * 100, []])
def test_too_few_scores_or_all_alike_tell_no_temperature(is_right):
    assert fit_temperature(np.full(len(is_right), 0.7), np.array(is_right, dtype=bool)) is None


# Thresholds


def matches_of(label, scores, num_missed=0):
    """Boxes of a label, an image each: (score, is it right), and true boxes that none found."""
    predictions = [[{"label": label, "box": BOX, "score": score}] for score, _ in scores] + [[]] * num_missed
    references = [[{"label": label, "box": BOX if right else ELSEWHERE}] for _, right in scores]
    return predictions, references + [[{"label": label, "box": BOX}]] * num_missed


def test_the_threshold_of_the_best_f1_lies_between_the_last_kept_score_and_the_next():
    # Kept 1, 2, 3, 4, 5, 6 of them: F1 = 2 right / (kept + 6) = 2/7, 4/8, 4/9, 6/10, 6/11, 6/12
    predictions, references = matches_of(
        "ILD", [(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.4, False), (0.3, False)]
    )
    matches = match(predictions, references, 0.4)
    assert best_threshold(matches, "ILD") == best_threshold(matches) == pytest.approx(0.5)
    assert operating_point(matches, 0.5, "ILD") == {
        "threshold": 0.5,
        "precision": 0.75,
        "recall": 0.5,
        "f1": 0.6,
        "num_boxes": 6,
        "num_detections": 4,
    }


def test_all_boxes_are_kept_where_that_is_best_and_of_equal_thresholds_the_highest_is_taken():
    matches = match(*matches_of("ILD", [(0.9, True), (0.8, True)]), 0.4)
    assert best_threshold(matches) == 0
    # F1 is 2/4 with one box and 4/8 with five of which two are right
    scores = [(0.9, True), (0.8, False), (0.7, False), (0.6, False), (0.5, True)]
    predictions, references = matches_of("ILD", scores)
    references[1:4] = [[]] * 3
    matches = match(predictions + [[]], references + [[{"label": "ILD", "box": BOX}]], 0.4)
    assert best_threshold(matches) == pytest.approx(0.85)


def test_labels_with_few_boxes_or_none_right_get_the_threshold_of_all():
    many = matches_of("ILD", [(0.9, True), (0.8, True), (0.2, False), (0.1, False)] * 5, num_missed=5)
    few = matches_of("Edema", [(0.7, True), (0.6, False)])
    wrong = matches_of("Nodule/Mass", [(0.05, False)] * 25)
    predictions, references = (sum(parts, []) for parts in zip(many, few, wrong, strict=True))
    matches = match(predictions, references, 0.4)
    pooled, points = choose_thresholds(matches, ["ILD", "Edema", "Nodule/Mass", "COPD"])
    assert pooled["threshold"] == pytest.approx(0.65) and pooled["num_boxes"] == 52
    assert {label: point["chosen_on"] for label, point in points.items()} == {
        "ILD": "label",
        "Edema": "pooled",
        "Nodule/Mass": "pooled",
        "COPD": "pooled",
    }
    assert points["ILD"]["threshold"] == pytest.approx(0.5)
    assert {points[label]["threshold"] for label in ("Edema", "Nodule/Mass", "COPD")} == {pooled["threshold"]}
    assert (points["Edema"]["precision"], points["Edema"]["recall"]) == (1, 0.5)
    assert (points["Nodule/Mass"]["precision"], points["Nodule/Mass"]["f1"]) == (None, 0)
    assert (points["COPD"]["recall"], points["COPD"]["f1"], points["COPD"]["num_boxes"]) == (None, None, 0)


def test_no_thresholds_where_no_box_is_right():
    assert choose_thresholds(match(*matches_of("ILD", [(0.9, False)] * 9), 0.4), ["ILD"]) == (None, {})
    assert choose_thresholds(match([[]], [[]], 0.4), ["ILD"]) == (None, {})


# The checkpoint


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


RESULT = {"temperatures": {"finding": 1.5, "diagnosis": 0.8}, "thresholds": {"Edema": {"threshold": 0.25, "f1": 1}}}


def files_of(folder, but=()):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in but}


def test_the_checkpoint_stays_as_it_was_but_for_temperatures_and_thresholds(checkpoint):
    path = writable_processor_config(str(checkpoint))
    others, before = files_of(checkpoint, but=[path.name]), json.loads(path.read_text())
    write_into_checkpoint(path, RESULT)
    after = json.loads(path.read_text())
    assert after.pop("score_temperatures") == {"finding": 1.5, "diagnosis": 0.8}
    assert after.pop("score_thresholds") == {"Edema": 0.25}
    assert after == {key: value for key, value in before.items() if not key.startswith("score_")}
    assert files_of(checkpoint, but=[path.name]) == others

    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    assert (processor.score_temperatures, processor.score_thresholds) == (RESULT["temperatures"], {"Edema": 0.25})
    processor.save_pretrained(checkpoint.with_name("again"))
    assert (checkpoint.with_name("again") / path.name).read_text() == path.read_text()


def test_what_was_not_asked_stays_as_it_was(checkpoint):
    path = checkpoint / "processor_config.json"
    write_into_checkpoint(path, RESULT)
    write_into_checkpoint(path, {"temperatures": {"diagnosis": 2.0}})
    processor = LiteGPTProcessor.from_pretrained(checkpoint)
    assert processor.score_temperatures == {"finding": 1.5, "diagnosis": 2.0}
    assert processor.score_thresholds == {"Edema": 0.25}


def test_an_interruption_while_it_is_written_leaves_the_old_file(checkpoint, monkeypatch):
    before = files_of(checkpoint)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("litegpt.common.files.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_into_checkpoint(checkpoint / "processor_config.json", RESULT)
    assert files_of(checkpoint, but=["processor_config.json.incomplete"]) == before


def test_what_cannot_be_written_to_is_refused_in_one_sentence(checkpoint, phantom_release, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="^acme/litegpt is no folder, .* download a checkpoint of the Hub first"):
        main(CalibrationArguments("acme/litegpt", str(phantom_release), str(tmp_path / "out")))
    monkeypatch.setattr(calibrate.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="is read-only, and calibration writes into the checkpoint"):
        writable_processor_config(str(checkpoint))
    (checkpoint / "processor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="processor_config.json is missing"):
        writable_processor_config(str(checkpoint))
    assert not (tmp_path / "out").exists()


# The program


def arguments(checkpoint, data_dir, output_dir, **changes) -> CalibrationArguments:
    values = {"split": "train[-8:]", "batch_size": 8, "max_new_tokens": 30, **changes}
    return CalibrationArguments(str(checkpoint), str(data_dir), str(output_dir), **values)


def settings_of(checkpoint):
    processor = LiteGPTProcessor.from_pretrained(checkpoint)
    return processor.score_temperatures, processor.score_thresholds


def test_calibrating_again_changes_nothing_and_an_interrupted_run_goes_on(
    checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    args = arguments(checkpoint, phantom_release, tmp_path / "one", cache_dir=cache_dir)
    main(args)
    result = json.loads((tmp_path / "one" / "calibration.json").read_text())
    assert (result["split"], result["radiographs"]) == ("train[-8:]", 8)
    assert result["ece"]["diagnoses"]["num_scores"] == 8 * 6
    temperature = result["temperatures"]["diagnosis"]
    assert temperature != 1 and settings_of(checkpoint)[0]["diagnosis"] == temperature

    # The checkpoint now bears temperatures; the answers are scored without them.
    main(args)
    assert json.loads((tmp_path / "one" / "calibration.json").read_text()) == result
    path = tmp_path / "one" / "uncalibrated_predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    before = settings_of(checkpoint)

    (tmp_path / "one" / "calibration.json").unlink()  # as if it had been interrupted while it answered
    path.write_text("".join(lines[:10]))
    asked = []
    original = predictions.prediction_line
    monkeypatch.setattr(predictions, "prediction_line", lambda *a: asked.append(a[0]) or original(*a))
    main(args)
    assert len(asked) == 6
    assert json.loads((tmp_path / "one" / "calibration.json").read_text()) == result
    assert settings_of(checkpoint) == before


def made_up(rng, rows, overconfidence):
    """Rows of images with one box or none, answers whose logits are `overconfidence` times too large."""
    finding_labels, diagnosis_labels = ["ILD", "Edema"], ["Pneumonia", "No finding"]
    table, lines = [], []
    for index in range(rows):
        logits = rng.normal(0, 1.5, 2)
        box_is_right, is_pneumonia = rng.random(2) < sigmoid(logits)
        label = int(index % 50 == 0)
        table.append(
            {
                "image_id": str(index),
                "image": None,
                "width": 10,
                "height": 10,
                "findings": [{"label": label, "box": BOX if box_is_right else ELSEWHERE, "readers": 1}],
                "diagnoses": [0 if is_pneumonia else 1],
                "view": "",
            }
        )
        box_score, pneumonia = sigmoid(logits * overconfidence)
        shared = {"image_id": str(index), "answer": "", "malformed": None}
        box = {"label": finding_labels[label], "box": BOX, "score": box_score}
        lines.append({**shared, "task": "identify", "findings": [box], "probabilities": {"No finding": 0.01}})
        probabilities = {"Pneumonia": pneumonia, "No finding": 1 - pneumonia}
        lines.append({**shared, "task": "vqa", "diagnoses": [], "probabilities": probabilities})
    return Dataset.from_list(table, features=row_features(finding_labels, diagnosis_labels)), lines


def test_overconfident_answers_are_calibrated_and_every_finding_gets_a_threshold(checkpoint, tmp_path, monkeypatch):
    rows, lines = made_up(np.random.default_rng(0), 200, overconfidence=3)
    monkeypatch.setattr(calibrate, "load_rows", lambda *args: rows)
    monkeypatch.setattr(calibrate, "predict", lambda *args: lines)
    main(arguments(checkpoint, "data", tmp_path / "out"))
    result = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert all(2 < temperature < 4 for temperature in result["temperatures"].values())
    for ece in result["ece"].values():
        assert ece["after"] < 0.7 * ece["before"]
    assert {label: point["chosen_on"] for label, point in result["thresholds"].items()} == {
        "ILD": "label",
        "Edema": "pooled",
    }
    temperatures, thresholds = settings_of(checkpoint)
    assert temperatures == result["temperatures"] and set(thresholds) == {"ILD", "Edema"}
    # A threshold is one of calibrated scores: those of the pipeline.
    kept = [
        calibrated(line["findings"][0]["score"], temperatures["finding"]) >= thresholds["ILD"]
        for line in lines[::2]
        if line["findings"][0]["label"] == "ILD"
    ]
    assert 0 < sum(kept) == result["thresholds"]["ILD"]["num_detections"] < len(kept)


def test_scores_that_no_temperature_makes_probabilities_are_named(checkpoint, tmp_path, monkeypatch, capsys):
    rows, lines = made_up(np.random.default_rng(0), 100, overconfidence=-1)
    monkeypatch.setattr(calibrate, "load_rows", lambda *args: rows)
    monkeypatch.setattr(calibrate, "predict", lambda *args: lines)
    main(arguments(checkpoint, "data", tmp_path / "out"))
    assert settings_of(checkpoint)[0] == {"finding": 20.0, "diagnosis": 20.0}
    printed = capsys.readouterr().out
    assert "diagnosis: no temperature from 0.05 to 20.0 makes these scores probabilities." in printed


def test_too_few_answers_leave_the_scores_as_they_are_and_say_so(checkpoint, tmp_path, monkeypatch, capsys):
    rows, lines = made_up(np.random.default_rng(0), 10, overconfidence=3)
    for line in lines[::2]:
        line["findings"][0]["box"] = [0, 0.9, 0.05, 1]
    monkeypatch.setattr(calibrate, "load_rows", lambda *args: rows)
    monkeypatch.setattr(calibrate, "predict", lambda *args: lines)
    main(arguments(checkpoint, "data", tmp_path / "out", split="test[:10]"))
    assert settings_of(checkpoint) == ({"finding": 1.0, "diagnosis": 1.0}, {})
    printed = capsys.readouterr().out
    assert "test[:10] is calibrated on" in printed
    assert "finding: 0 of 10 scores are right, which tells no temperature." in printed
    assert "diagnosis: 10 of 20 scores are right" in printed
    assert "No box is right, so no thresholds are chosen." in printed


def test_a_detectors_boxes_and_both_together_are_calibrated():
    """Scores that are too sure get a temperature above 1; what both say together is fitted to the calibrated ones."""
    rng = np.random.default_rng(0)
    rows, lines = [], []
    for number in range(400):
        is_there = bool(rng.random() < 0.5)
        found = [{"label": 0, "box": BOX}] if is_there else []
        rows.append({"findings": found, "diagnoses": [] if is_there else [1]})
        logit = rng.normal(1.0 if is_there else -1.0, 1.4)
        scored = [{"label": "ILD", "box": BOX, "score": sigmoid(3 * logit)}]
        lines.append(
            {
                "findings": scored if number % 2 else [],
                "detected_findings": scored,
                "fused_findings": [],
                "malformed": None,
            }
        )
    labels = {"finding": ["ILD"], "diagnosis": ["COPD", "No finding"]}
    result = {"temperatures": {"finding": 2.0}, "ece": {}}
    calibrate.calibrate_beside(result, question("identify", rows, labels), lines, ["ILD"])
    assert result["temperatures"]["detector"] == pytest.approx(3 * 1.4**2 / 2, rel=0.3)
    assert result["ece"]["detector"]["after"] < result["ece"]["detector"]["before"]
    assert (
        result["ece"]["fused"]["num_scores"] == 400 and 0.3 < result["detector_thresholds"]["ILD"]["threshold"] < 0.7
    )
    assert set(result["fused_thresholds"]) == {"ILD"}
    untouched = {"temperatures": {}, "ece": {}}
    bare = [{"findings": [], "malformed": None} for _ in rows]
    calibrate.calibrate_beside(untouched, question("identify", rows, labels), bare, ["ILD"])
    assert untouched == {"temperatures": {}, "ece": {}}


def test_a_detectors_thresholds_go_into_the_checkpoint(tmp_path):
    path = tmp_path / "processor_config.json"
    path.write_text("{}")
    write_into_checkpoint(path, {"temperatures": {"fused": 1.5}, "fused_thresholds": {"ILD": {"threshold": 0.4}}})
    assert json.loads(path.read_text()) == {"fused_thresholds": {"ILD": 0.4}, "score_temperatures": {"fused": 1.5}}
