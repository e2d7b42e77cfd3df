import json
import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr
from litegpt.evaluation_scripts import evaluate_litegpt, predictions
from litegpt.evaluation_scripts.arguments import EvaluationArguments
from litegpt.evaluation_scripts.evaluate_litegpt import (
    bootstrap_facts,
    control_images,
    load_processor,
    main,
)
from litegpt.evaluation_scripts.predictions import predict, prediction_line
from litegpt.processing.answer_maps import DEFAULT_METHOD, METHODS, text_maps
from litegpt.processing.answers import Finding, diagnoses_to_text, findings_to_text, text_to_findings


def test_a_prediction_line_has_the_pipelines_boxes_as_lists_and_what_stands_beside_them():
    text = findings_to_text([Finding("ILD", (0.1, 0.5, 0.38, 1))])
    output = {
        "findings": [{"label": "ILD", "score": 0.5, "box": {"xmin": 0.1, "ymin": 0.5, "xmax": 0.3812345, "ymax": 1}}],
        "candidates": [{"label": "Edema", "score": 0.0123456, "box": {"xmin": 0, "ymin": 0, "xmax": 0.5, "ymax": 1}}],
        "diagnoses": [],
        "probabilities": {"identify": {"No finding": 0.1}, "vqa": {}},
        "answers": {"identify": text, "vqa": diagnoses_to_text([])[:-1]},
        "malformed": {"identify": None, "vqa": "it does not end with a full stop"},
    }
    identify = prediction_line("an_id", "identify", output)
    assert identify == {
        "image_id": "an_id",
        "task": "identify",
        "answer": text,
        "findings": [{"label": "ILD", "box": [0.1, 0.5, 0.38123, 1.0], "score": 0.5}],
        "candidates": [{"label": "Edema", "box": [0, 0, 0.5, 1], "score": 0.012346}],
        "probabilities": {"No finding": 0.1},
        "malformed": None,
    }
    doubtful = prediction_line("an_id", "identify", {**output, "warnings": ["it is black"]})
    assert doubtful == {**identify, "warnings": ["it is black"]}
    assert prediction_line("an_id", "identify", {**output, "warnings": []}) == identify
    vqa = prediction_line("an_id", "vqa", output)
    assert (
        vqa["diagnoses"] == [] and "candidates" not in vqa and vqa["malformed"] == "it does not end with a full stop"
    )


def test_the_control_images_are_one_black_and_eight_of_noise_the_same_in_every_run(processor):
    rows, again = control_images(processor), control_images(processor)
    assert rows["image_id"][:] == ["black", *(f"noise-{number}" for number in range(8))]
    pixels = [np.asarray(image) for image in rows["image"]]
    assert not pixels[0].any() and all(image.dtype == np.uint8 and image.ndim == 2 for image in pixels)
    for image, same in zip(pixels[1:], again["image"][1:], strict=True):
        assert (image == np.asarray(same)).all()
        # The towers see noise, too, not the grey that it has on average.
        for seen in processor.squash(Image.fromarray(image)).pictures.values():
            assert len(np.unique(np.asarray(seen))) == 256
    assert len({image.tobytes() for image in pixels}) == 9


def test_intervals_are_by_patient_where_the_rows_tell_them():
    def rows(*names):
        return Dataset.from_dict({"patient_id": list(names)})

    assert bootstrap_facts(rows("p", "q", "p", "")) == {
        "resamples": 1000,
        "seed": 0,
        "unit": "patient",
        "patients": 3,
    }
    assert bootstrap_facts(rows("", ""))["patients"] is None
    assert bootstrap_facts(Dataset.from_dict({"image_id": ["a"]}))["unit"] == "radiograph"


def arguments(checkpoint, release, cache_dir, output_dir, **changes) -> EvaluationArguments:
    values = {"split": "test", "batch_size": 4, "max_new_tokens": 40, "cache_dir": cache_dir, **changes}
    return EvaluationArguments(str(checkpoint), str(release), str(output_dir), **values)


def test_an_interrupted_run_goes_on_after_the_last_line(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    args = arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path)
    main(args)
    path, controls = tmp_path / "predictions.jsonl", tmp_path / "controls.jsonl"
    lines, of_controls = path.read_text().splitlines(keepends=True), controls.read_text().splitlines(keepends=True)
    assert len(lines) == 16 and json.loads(lines[0])["task"] == "identify"
    assert len(of_controls) == 18
    metrics = (tmp_path / "metrics.json").read_text()
    assert {"finding_f1", "map", "intervals", "temperatures", "thresholds", "weights"} <= set(json.loads(metrics))
    assert json.loads(metrics)["controls"].keys() == {"shuffled", "noise", "black", "prior"}
    assert json.loads(metrics)["controls"]["prior"]["source"]["split"] == "train"
    report = (tmp_path / "report.md").read_text()
    assert "black" in report and "noise" in report and "ROUGE-1" in report and "CIDEr" in report
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    # They are passed on: names stand in them, and no path of this machine.
    for text in (metrics, report, page, (tmp_path / "predictions.jsonl").read_text()):
        for folder in (tiny_checkpoint, phantom_release, tmp_path, cache_dir):
            assert str(folder) not in text and str(Path(folder).parent) not in text
    run, bootstrap = (json.loads(metrics)[key] for key in ("run", "bootstrap"))
    versions = {"date", "litegpt", "transformers", "torch", "python"}
    assert run.keys() == {"checkpoint", "trained_on", "caution", "not_for_diagnosis", "constrained", *versions}
    assert run["caution"] in report and f"({phantom_release.name})" in report.replace("`", "")
    assert bootstrap == {"resamples": 1000, "seed": 0, "unit": "radiograph", "patients": None}
    assert run["transformers"] == version("transformers") and f"Made on {run['date']} with litegpt" in report

    path.write_text("".join(lines[:5]) + lines[5][:20])  # the sixth line was being written
    controls.write_text("".join(of_controls[:7]))
    asked, loaded = [], []
    line_of, load = predictions.prediction_line, evaluate_litegpt.load_pipeline
    monkeypatch.setattr(predictions, "prediction_line", lambda *a: asked.append(a[0]) or line_of(*a))
    monkeypatch.setattr(evaluate_litegpt, "load_pipeline", lambda *a: loaded.append(a) or load(*a))
    main(args)
    assert len(asked) == 11 + 11 and len(loaded) == 1
    for file, before in ((path, lines), (controls, of_controls)):
        by_key = {(line["image_id"], line["task"]): line for line in map(json.loads, file.read_text().splitlines())}
        for line in map(json.loads, before):
            again = by_key.pop((line["image_id"], line["task"]))
            assert again["answer"] == line["answer"]
            assert again["probabilities"] == pytest.approx(line["probabilities"], abs=1e-5)
        assert not by_key
    # All is answered: no model is needed.
    assert len(predict(args, control_images(load_processor(tiny_checkpoint)), controls)) == 18 and len(loaded) == 1


def test_with_explain_the_report_has_maps_of_the_answers_that_are_in_the_predictions_file(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    """The checkpoint is not trained: answers without and with findings are written into its predictions."""
    changes = {"tasks": ["identify"], "split": "test[:4]"}
    args = arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path, **changes)
    main(args)
    report, path = tmp_path / "report.html", tmp_path / "predictions.jsonl"
    nothing = {"answer": findings_to_text([]), "findings": [], "candidates": [], "malformed": None}
    lines = [{**json.loads(line), **nothing} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    main(args)
    without_findings = report.read_text()
    loaded, load = [], evaluate_litegpt.load_pipeline
    monkeypatch.setattr(evaluate_litegpt, "load_pipeline", lambda *a: loaded.append(load(*a)) or loaded[-1])
    explained = replace(args, explain=True)
    main(explained)
    # No finding is shown: there are no maps, and no model is needed.
    assert not loaded and report.read_text() == without_findings and "litegpt localize" not in without_findings

    boxes = {"ILD": (0.1, 0.2, 0.5, 0.9), "Nodule/Mass": (0.01, 0.02, 0.05, 0.09)}
    answer = findings_to_text([Finding(label, box) for label, box in boxes.items()])
    named = [
        {"label": label, "box": list(box), "score": score}
        for (label, box), score in zip(boxes.items(), (0.5, 0.75), strict=True)
    ]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0] |= {"answer": answer, "findings": named}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    main(args)
    plain = report.read_text()
    assert not loaded and "litegpt localize" not in plain and "explained" not in plain
    asked = []
    monkeypatch.setattr(
        evaluate_litegpt,
        "text_maps",
        lambda *a, **k: asked.append((a[3], a[4], k, text_maps(*a, **k))) or asked[-1][3],
    )
    main(explained)
    text = report.read_text()
    spans = [[finding.label_span] for finding in text_to_findings(answer, loaded[0].processor.finding_labels)]
    ((answers, words, options, (grids,)),) = asked  # once, though it is shown with two boxes
    assert (answers, words, options) == ([answer], [spans[::-1]], {"task": "identify"}) and len(loaded) == 1
    assert np.abs(grids).max(axis=(1, 2)).min() > 0 and np.abs(grids[0] - grids[1]).max() > 0
    assert path.read_text() == "".join(json.dumps(line) + "\n" for line in lines)
    section = text.partition('<section id="identify-gallery">')[2].partition("</section>")[0]
    shown = section.split('<div class="explained">')[1:]
    assert len(shown) >= 2 and "<code>litegpt localize</code>" in section
    for one in shown:
        radiograph, *maps = re.findall(r'href="(data:image/jpeg;base64,[^"]+)"', one.partition("\n</div>\n</div>")[0])
        assert len({radiograph, *maps}) == 3
        meaning = METHODS[DEFAULT_METHOD].replace("'", "&#39;").removeprefix("i")
        assert one.count(f"I{meaning}. No segmentation.") == 2
        assert one.index("<b>Nodule/Mass</b><br>score 0.750<br>I") < one.index("<b>ILD</b><br>score 0.500<br>I")
    # Without the option the report is what it was.
    main(args)
    assert report.read_text() == plain and len(asked) == len(loaded) == 1


def test_constrained_answers_are_never_malformed_and_have_probabilities(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    """The checkpoint is not trained: what it writes by itself is nonsense."""
    rows = load_vindr_cxr(phantom_release, split="test[:2]", cache_dir=cache_dir)
    lines = {}
    for constrained in (True, False):
        folder = tmp_path / str(constrained)
        folder.mkdir()
        args = arguments(tiny_checkpoint, phantom_release, cache_dir, folder, constrained=constrained)
        lines[constrained] = predict(args, rows, folder / "predictions.jsonl")
    assert {line["malformed"] for line in lines[True]} == {None}
    assert all(line["malformed"] is not None and line["probabilities"] == {} for line in lines[False])
    for line in lines[True]:
        names = {"identify": {"No finding"}, "vqa": set(rows.features["diagnoses"].feature.names)}[line["task"]]
        assert line["probabilities"].keys() == names and all(0 <= p <= 1 for p in line["probabilities"].values())


def test_radiographs_with_findings_alone_are_scored_where_asked(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    test_rows = load_vindr_cxr(phantom_release, split="test", cache_dir=cache_dir)
    expected = {row["image_id"] for row in test_rows.remove_columns("image") if row["findings"]}
    assert 0 < len(expected) < len(test_rows)
    main(arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path, tasks=["identify"], with_findings_only=True))
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["image_id"] for line in lines} == expected
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["identify"]["classification"]["num_images"] == len(expected)
    assert metrics["finding_auroc"] is None  # there is no radiograph without findings
    assert metrics["data_set"]["split"] == "test, with findings"
    assert "split `test, with findings`" in (tmp_path / "report.md").read_text()


def test_predictions_made_in_another_way_are_not_taken_for_this_runs(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    rows = load_vindr_cxr(phantom_release, split="test[:1]", cache_dir=cache_dir)
    path = tmp_path / "predictions.jsonl"
    args = arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path)
    predict(args, rows, path)
    for changes in ({"max_new_tokens": 41}, {"constrained": False}, {"split": "test[:2]"}):
        with pytest.raises(Refusal, match="another checkpoint, split or data set, or decoded or calibrated"):
            predict(arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path, **changes), rows, path)
    processor = load_processor(tiny_checkpoint)
    processor.score_temperatures = {"finding": 1.3, "diagnosis": 1.0}
    monkeypatch.setattr(predictions, "load_processor", lambda folder: processor)
    with pytest.raises(Refusal, match="calibrated in another way"):
        predict(args, rows, path)


def test_a_folder_that_is_no_release_is_refused_in_one_sentence(tiny_checkpoint, tmp_path):
    with pytest.raises(SystemExit, match="no folder: data_dir is a prepared folder or a release of a data set"):
        main(arguments(tiny_checkpoint, tmp_path / "nothing", str(tmp_path), tmp_path / "out"))


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything_is_written(phantom_release, cache_dir, tmp_path):
    with pytest.raises(SystemExit, match="nothing"):
        main(arguments(tmp_path / "nothing", phantom_release, cache_dir, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_that_failed_before_its_first_answer_does_not_stand_in_the_way(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(predictions, "answer_lines", lambda *args, **options: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        main(arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path, max_new_tokens=41))
    monkeypatch.undo()
    main(arguments(tiny_checkpoint, phantom_release, cache_dir, tmp_path))
    assert (tmp_path / "report.html").is_file()


def test_a_task_that_the_checkpoint_does_not_know_is_refused_in_one_sentence(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    older = tmp_path / "older"
    shutil.copytree(tiny_checkpoint, older)
    config = json.loads((older / "processor_config.json").read_text())
    del config["instructions"]["grounding"]
    (older / "processor_config.json").write_text(json.dumps(config))
    known = "this checkpoint knows: .*identify"
    with pytest.raises(SystemExit, match=f"no instruction for the task 'grounding'; {known}"):
        main(arguments(older, phantom_release, cache_dir, tmp_path / "out", tasks=["grounding"]))
