import json

import numpy as np
import pytest

from datasets_scripts.vindr_cxr import load_vindr_cxr
from processing.answers import Finding, diagnoses_to_text, findings_to_text
from train_scripts import evaluate_litegpt
from train_scripts.evaluate_litegpt import (
    EvaluationArguments,
    label_names,
    main,
    predict,
    prediction_line,
    scores_with_control,
    true_answer,
)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def rows(phantom_release, cache_dir):
    return load_vindr_cxr(phantom_release, cache_dir=cache_dir)["train"]


@pytest.fixture(scope="module")
def labels(rows):
    return label_names(rows)


def perfect_predictions(rows, labels) -> list[dict]:
    predictions = []
    for row in rows:
        findings = [{"label": labels["finding"][f["label"]], "box": f["box"], "score": 1.0} for f in row["findings"]]
        diagnoses = [{"label": labels["diagnosis"][index], "score": 1.0} for index in row["diagnoses"]]
        shared = {"image_id": row["image_id"], "malformed": None}
        texts = {task: true_answer(row, task, labels) or "" for task in ("identify", "vqa")}
        predictions += [
            {**shared, "task": "identify", "answer": texts["identify"], "findings": findings},
            {**shared, "task": "vqa", "answer": texts["vqa"], "diagnoses": diagnoses},
        ]
    return predictions


def test_perfect_answers_score_one_and_shuffled_ones_far_less(rows, labels):
    metrics = scores_with_control(perfect_predictions(rows, labels), rows, ["identify", "vqa"], labels)
    assert metrics["finding_f1"] == 1.0
    assert metrics["accuracy_at_iou"] == {"0.3": 1.0, "0.4": 1.0, "0.5": 1.0}
    assert metrics["vqa"]["classification"]["samples"]["f1"] == 1.0
    assert metrics["control"]["finding_f1"] < 0.7 and metrics["control"]["accuracy_at_iou"]["0.3"] < 0.3
    assert metrics["control"]["vqa"]["classification"]["samples"]["f1"] < 0.9
    for task in ("identify", "vqa"):
        assert metrics[task]["text"]["rougeL"] == metrics[task]["text"]["bleu4"] == 1.0
        assert metrics["control"][task]["text"]["rougeL"] < 0.95


def test_a_malformed_answer_counts_as_wrong(rows, labels):
    predictions = perfect_predictions(rows, labels)
    for prediction in predictions:
        if prediction["task"] == "identify":
            prediction.update(findings=[], malformed="it does not end with a full stop")
    metrics = scores_with_control(predictions, rows, ["identify"], labels)
    assert metrics["finding_f1"] == 0 and metrics["identify"]["classification"]["no_finding"]["recall"] == 0
    assert metrics["accuracy_at_iou"]["0.3"] == 0
    assert metrics["identify"]["num_malformed"] == len(rows)


def test_rows_that_do_not_tell_the_answer_are_counted_and_not_scored(rows, labels):
    table = rows.remove_columns("image").to_dict()
    blank = next(i for i, findings in enumerate(table["findings"]) if not findings)
    table["diagnoses"][blank] = [0]
    changed = type(rows).from_dict(table, features=rows.remove_columns("image").features)
    metrics = scores_with_control(perfect_predictions(rows, labels), changed, ["identify"], labels)
    assert metrics["identify"]["num_unknown"] == 1
    assert metrics["identify"]["classification"]["num_images"] == len(rows) - 1


def test_every_control_image_gets_the_answers_of_another():
    for count in (2, 3, 50):
        others = evaluate_litegpt._others(count, np.random.default_rng(count))
        assert sorted(others) == list(range(count)) and not (others == np.arange(count)).any()


def test_a_prediction_line_has_the_boxes_that_the_answer_states():
    text = findings_to_text([Finding("ILD", (0.1, 0.5, 0.38, 1))])
    output = {
        "findings": [{"label": "ILD", "score": 0.5, "box": {"xmin": 32, "ymin": 50, "xmax": 122, "ymax": 100}}],
        "diagnoses": [],
        "answers": {"identify": text, "vqa": diagnoses_to_text([])[:-1]},
        "malformed": {"identify": None, "vqa": "it does not end with a full stop"},
    }
    identify = prediction_line("an_id", "identify", output, ["ILD"])
    assert identify == {
        "image_id": "an_id",
        "task": "identify",
        "answer": text,
        "findings": [{"label": "ILD", "box": [0.1, 0.5, 0.38, 1.0], "score": 0.5}],
        "malformed": None,
    }
    vqa = prediction_line("an_id", "vqa", output, ["ILD"])
    assert vqa["diagnoses"] == [] and vqa["malformed"] == "it does not end with a full stop"


def arguments(checkpoint, release, cache_dir, output_dir, **changes) -> EvaluationArguments:
    values = {"split": "test", "batch_size": 4, "max_new_tokens": 6, "cache_dir": cache_dir, **changes}
    return EvaluationArguments(str(checkpoint), str(release), str(output_dir), **values)


def test_an_interrupted_run_goes_on_after_the_last_line(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    args = arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path)
    main(args)
    path = tmp_path / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 16 and json.loads(lines[0])["task"] == "identify"
    metrics = (tmp_path / "metrics.json").read_text()
    assert {"finding_f1", "accuracy_at_iou", "control"} <= set(json.loads(metrics))
    report = (tmp_path / "report.md").read_text()
    assert "control" in report and "| ROUGE-1 |" in report and "| CIDEr |" in report

    path.write_text("".join(lines[:5]) + lines[5][:20])  # the sixth line was being written
    asked = []
    original = evaluate_litegpt.prediction_line
    monkeypatch.setattr(evaluate_litegpt, "prediction_line", lambda *a: asked.append(a[0]) or original(*a))
    main(args)
    assert len(asked) == 11
    by_key = {(line["image_id"], line["task"]): line for line in map(json.loads, path.read_text().splitlines())}
    assert by_key == {(line["image_id"], line["task"]): line for line in map(json.loads, lines)}
    assert (tmp_path / "metrics.json").read_text() == metrics


def test_radiographs_with_findings_alone_are_scored_where_asked(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, rows
):
    test_rows = load_vindr_cxr(phantom_release, split="test", cache_dir=cache_dir)
    expected = {row["image_id"] for row in test_rows.remove_columns("image") if row["findings"]}
    assert 0 < len(expected) < len(test_rows)
    main(arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path, tasks=["identify"], with_findings_only=True))
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["image_id"] for line in lines} == expected
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["identify"]["classification"]["num_images"] == len(expected)
    assert metrics["data_set"]["split"] == "test, with findings"
    assert "split `test, with findings`" in (tmp_path / "report.md").read_text()


def test_predictions_of_another_checkpoint_are_not_taken_for_this_ones(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    args = arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path)
    rows = load_vindr_cxr(phantom_release, split="test", cache_dir=cache_dir)
    predict(args, rows, tmp_path / "predictions.jsonl")
    with pytest.raises(SystemExit, match="another checkpoint, split or data set"):
        predict(
            arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path, max_new_tokens=7),
            rows,
            tmp_path / "predictions.jsonl",
        )


def test_a_folder_that_is_no_release_is_refused_in_one_sentence(tiny_checkpoint, tmp_path):
    with pytest.raises(SystemExit, match="no folder: data_dir must be the folder of a VinDr-CXR release"):
        main(arguments(tiny_checkpoint, tmp_path / "nothing", str(tmp_path), tmp_path / "out"))
