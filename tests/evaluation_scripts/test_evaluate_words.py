import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, Features

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.annotations import row_features
from litegpt.evaluation_scripts import evaluate_words, word_predictions
from litegpt.evaluation_scripts.arguments import WORD_QUESTIONS, WordEvaluationArguments
from litegpt.evaluation_scripts.evaluate_words import main, questions_of_tasks

pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(checkpoint, data_dir, output_dir, cache_dir, **changes):
    values = {"batch_size": 8, "max_new_tokens": 12, "max_questions": 2, "cases": 2, "cache_dir": cache_dir, **changes}
    return WordEvaluationArguments(str(checkpoint), str(data_dir), str(output_dir), **values)


@pytest.fixture(scope="module")
def run(tiny_checkpoint, phantom_release, cache_dir, tmp_path_factory):
    """The arguments of a finished run on template words, and its folder."""
    folder = tmp_path_factory.mktemp("words")
    args = arguments(tiny_checkpoint, phantom_release, folder, cache_dir, template_words=True)
    main(args)
    return args, folder


def test_every_task_has_figures_with_intervals_beside_every_control(run):
    args, folder = run
    metrics = json.loads((folder / "word_metrics.json").read_text())
    assert tuple(metrics["tasks"]) == WORD_QUESTIONS
    assert metrics["tasks"]["report"]["control_radiographs"] == 8
    blind = {"refer": {"none", "mean_box"}}
    for task, scores in metrics["tasks"].items():
        assert scores["prior"] == "train"
        controls = {"shuffled", "noise", "black", *blind.get(task, {"most_frequent"})}
        for name, figure in scores["figures"].items():
            assert set(figure["controls"]) == controls, (task, name)
            assert (figure["value"] is None) == (figure["interval"] is None), (task, name)
    always = metrics["tasks"]["refer"]["figures"]
    assert always["no_box_correct"]["controls"]["none"]["control"] == 1
    assert always["mean_iou"]["controls"]["mean_box"]["control"] > 0
    told = metrics["sentence_truth"]
    assert (told["task"], told["truth"]) == ("report", "facts") and told["borrowed"]["sentences"] > 20
    assert set(told["borrowed"]["figures"]["auroc"]["controls"]) == {"another_image", "chance"}


def test_lines_have_what_was_asked_and_reports_no_path_of_this_machine(run, phantom_release, tmp_path):
    args, folder = run
    lines = [json.loads(line) for line in (folder / "word_predictions.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines} == set(WORD_QUESTIONS)
    assert all({"image_id", "task", "about", "answer", "malformed"} <= set(line) for line in lines)
    refer = [line for line in lines if line["task"] == "refer"]
    assert len(refer) == 16 and all(
        line["phrases"][0]["phrase"] == line["about"] for line in refer if not line["malformed"]
    )
    page, report = (folder / "words.html").read_text(), (folder / "words.md").read_text()
    assert report.startswith("# LiteGPT: answers in words\n\n**") and "figures exceed every control" in report
    assert page.startswith("<!DOCTYPE html>") and page.count('<article class="case">') == 2
    for text in (page, report, (folder / "word_metrics.json").read_text(), "".join(map(json.dumps, lines))):
        for path in (args.model_name_or_path, phantom_release, folder, args.cache_dir):
            assert str(path) not in text and str(Path(path).parent) not in text


def test_an_interrupted_run_goes_on_and_a_finished_one_asks_no_model(run, tmp_path, monkeypatch):
    args, folder = run
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    before = json.loads((folder / "word_metrics.json").read_text())
    path = again / "word_predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-3]))
    asked, lines_of = [], word_predictions.word_lines
    monkeypatch.setattr(word_predictions, "word_lines", lambda *given: asked.append(given[2]) or lines_of(*given))
    main(replace(args, output_dir=str(again)))
    assert sum(map(len, asked)) == 3
    after = json.loads((again / "word_metrics.json").read_text())
    for task in ("describe", "report"):  # scores of other batches may differ in their last digits
        assert after["tasks"][task] == before["tasks"][task]
    monkeypatch.setattr(evaluate_words, "load_pipeline", None)
    main(replace(args, output_dir=str(again)))
    with pytest.raises(SystemExit, match="holds predictions of another checkpoint, split or data set"):
        main(replace(args, output_dir=str(again), split="test[:4]"))


LABELS = ("Cardiomegaly",), ("Pneumonia", "No finding")
REPORTS = (
    "The heart is enlarged. No effusion.",
    "The heart is normal. Small left effusion.",
    "Clear lungs.",
    "No edema.",
)


def test_real_reports_are_held_against_labels_that_are_read_in_them(tiny_checkpoint, tmp_path, monkeypatch, rows):
    """No template, no training split, and of the tasks reports and one question alone."""
    labels = rows.features["findings"].feature["label"].names, rows.features["diagnoses"].feature.names
    pictures = rows[: len(REPORTS)]["image"]
    table = [
        {
            "image_id": f"image{number}",
            "image": picture,
            "width": 128,
            "height": 128,
            "findings": [],
            "diagnoses": [],
            "view": "PA",
            "patient_id": f"patient{number // 2}",
            "report_findings": text,
            "qa": [{"question": "Is it big?", "answer": "yes", "closed": True}] if number == 0 else [],
        }
        for number, (picture, text) in enumerate(zip(pictures, REPORTS, strict=True))
    ]
    features = row_features(*labels, columns=("patient_id", "report_findings", "qa"))
    monkeypatch.setattr(evaluate_words, "load_rows", lambda *given: Dataset.from_list(table, features=features))
    monkeypatch.setattr(evaluate_words, "other_rows", lambda *given: None)
    monkeypatch.setattr(evaluate_words, "data_set_facts", lambda folder: {"name": "Reports"})
    main(arguments(tiny_checkpoint, tmp_path / "data", tmp_path / "out", None))
    metrics = json.loads((tmp_path / "out" / "word_metrics.json").read_text())
    assert list(metrics["tasks"]) == ["report", "question"] and metrics["tasks"]["report"]["prior"] is None
    assert metrics["sentence_truth"]["truth"] == "labels" and metrics["bootstrap"]["patients"] == 2
    told = metrics["sentence_truth"]["borrowed"]
    assert 0 < told["true"] < told["sentences"] <= 6
    assert "sentences.f1" not in metrics["tasks"]["report"]["figures"]
    # One question about one image: there is no other one whose answer it could be given.
    assert set(metrics["tasks"]["question"]["figures"]["closed_accuracy"]["controls"]) <= {
        "most_frequent",
        "noise",
        "black",
    }
    assert "as there is no other: they know its answers" in (tmp_path / "out" / "words.md").read_text()


def test_what_cannot_be_asked_is_said_or_refused_in_a_sentence(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, processor, rows, capsys
):
    asked = questions_of_tasks(rows, ["refer", "describe"], processor)
    assert list(asked) == ["describe"]
    assert "refer: no radiograph of this split tells the answer, so it is not asked." in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"tells the answer to report \(rows with boxes alone: --template_words\)"):
        main(arguments(tiny_checkpoint, phantom_release, tmp_path / "a", cache_dir, tasks=["report"]))
    with pytest.raises(SystemExit, match="RadGraph F1 needs the package radgraph, which is not installed"):
        main(arguments(tiny_checkpoint, phantom_release, tmp_path / "b", cache_dir, report_models=["radgraph"]))
    with pytest.raises(SystemExit, match="second_view: the rows have no study_id"):
        options = {"second_view": True, "template_words": True}
        main(arguments(tiny_checkpoint, phantom_release, tmp_path / "c", cache_dir, **options))
    schema = row_features(*LABELS, columns=("qa",))
    features = Features({name: schema[name] for name in ("image_id", "findings", "diagnoses", "qa")})
    question = {"question": "Is <image> big?", "answer": "yes", "closed": True}
    spoiled = Dataset.from_list([{"image_id": "a", "findings": [], "diagnoses": [], "qa": [question]}], features)
    with pytest.raises(ValueError, match="<image> is a token of the prompt's own"):
        questions_of_tasks(spoiled, ["question"], processor)
    with pytest.raises(Refusal, match="tells the answer to report"):
        questions_of_tasks(spoiled, ["report"], processor)
