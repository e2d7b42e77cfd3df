import json
import shutil
import subprocess
import sys

import datasets
import pytest

from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr
from litegpt.evaluation_scripts.arguments import ComparisonArguments
from litegpt.evaluation_scripts.compare_runs import main
from litegpt.evaluation_scripts.questions import label_names, true_answer
from litegpt.processing.answers import NO_FINDING


@pytest.fixture(scope="module")
def rows(phantom_release, cache_dir):
    return load_vindr_cxr(phantom_release, split="train", cache_dir=cache_dir).remove_columns("image")


@pytest.fixture
def runs(rows, phantom_release, tmp_path):
    """Run A finds the half of all boxes and doubts what it says, run B finds all and is sure."""
    names, folders = label_names(rows), {}
    for name, kept, score in (("a", 0.5, 0.6), ("b", 1, 0.9)):
        lines = []
        for row in rows:
            boxes = [
                {"label": names["finding"][finding["label"]], "box": finding["box"], "score": score}
                for finding in row["findings"]
            ]
            shared = {"image_id": row["image_id"], "malformed": None}
            truth = {label: index in row["diagnoses"] for index, label in enumerate(names["diagnosis"])}
            lines += [
                {
                    **shared,
                    "task": "identify",
                    "answer": true_answer(row, "identify", names) or "",
                    "findings": boxes[: round(kept * len(boxes))],
                    "probabilities": {NO_FINDING: 0.1 if boxes else 0.9},
                },
                {
                    **shared,
                    "task": "vqa",
                    "answer": true_answer(row, "vqa", names),
                    "diagnoses": [{"label": label, "score": score} for label, present in truth.items() if present],
                    "probabilities": {label: score if present else 1 - score for label, present in truth.items()},
                },
            ]
        folders[name] = tmp_path / name
        write_run(folders[name], lines, {"data": str(phantom_release), "split": "train"})
    return folders


def write_run(folder, lines, settings):
    folder.mkdir(exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "predictions.settings.json").write_text(json.dumps(settings))


def lines_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def compared(runs, cache_dir, **options):
    folders = [str(folder) for folder in (runs.values() if isinstance(runs, dict) else runs)]
    main(ComparisonArguments(folders, num_permutations=999, cache_dir=cache_dir, **options))


def test_the_better_run_is_told_from_the_worse_and_chance_from_neither(runs, cache_dir, tmp_path, capsys):
    output = tmp_path / "comparison.json"
    compared(runs, cache_dir, output=str(output))
    result = json.loads(output.read_text())
    assert (result["a"], result["b"]) == (str(runs["a"]), str(runs["b"]))
    assert result["images"] == 24 and result["tasks"] == ["identify", "vqa"]
    accuracy = result["figures"]["accuracy_at_iou"]["0.5"]
    assert 0 < accuracy["a"] < accuracy["b"] == 1 and accuracy["difference"] == 1 - accuracy["a"]
    assert 0 < accuracy["interval"][0] < accuracy["difference"] < accuracy["interval"][1]
    assert accuracy["p_value"] < 0.05
    # The diagnoses are the same, the probabilities are not, but they rank alike.
    for figure in (result["figures"]["micro_f1"]["vqa"], result["figures"]["auroc"]["macro"]):
        assert figure["difference"] == 0 and figure["interval"] == [0, 0] and figure["p_value"] == 1
    ece = result["figures"]["ece"]["diagnoses"]
    assert ece.keys() == {"after"} and ece["after"]["difference"] == pytest.approx(-0.3)
    table = capsys.readouterr().out
    assert "24 radiographs, [identify], [vqa]" in table
    assert f"| accuracy_at_iou 0.5 | {accuracy['a']:.3f} | 1.000 | +{accuracy['difference']:.3f} | +0." in table


def test_the_runs_in_the_other_order_differ_the_other_way(runs, cache_dir, tmp_path):
    figures = []
    for number, folders in enumerate(((runs["a"], runs["b"]), (runs["b"], runs["a"]))):
        compared(folders, cache_dir, output=str(tmp_path / f"{number}.json"))
        figures.append(json.loads((tmp_path / f"{number}.json").read_text())["figures"]["map"]["0.4"])
    forth, back = figures
    assert (forth["a"], forth["b"]) == (back["b"], back["a"]) and forth["difference"] == -back["difference"]
    assert forth["interval"] == pytest.approx([-bound for bound in reversed(back["interval"])])
    assert forth["p_value"] == back["p_value"]


def test_a_run_is_no_better_than_itself_in_another_order(runs, cache_dir, tmp_path):
    """Answers are paired by radiograph, whatever the order of their lines."""
    write_run(
        tmp_path / "again",
        lines_of(runs["a"])[::-1],
        json.loads((runs["a"] / "predictions.settings.json").read_text()),
    )
    compared((runs["a"], tmp_path / "again"), cache_dir, output=str(tmp_path / "c.json"))
    figures = json.loads((tmp_path / "c.json").read_text())["figures"]
    assert figures["map"]["0.4"]["difference"] == 0 and figures["map"]["0.4"]["p_value"] == 1


def test_comparing_loads_no_library_of_models_and_decodes_no_picture(runs, cache_dir, monkeypatch, capsys):
    """It would take ten seconds and half a gigabyte to import them."""
    script = """
import sys
from litegpt.evaluation_scripts import compare_runs, controls, figures, groups, questions, scoring
compare_runs.main(compare_runs.ComparisonArguments(sys.argv[1:3], num_permutations=9, cache_dir=sys.argv[3]))
print("loaded:", *sys.modules)
"""
    command = [sys.executable, "-c", script, *map(str, runs.values()), cache_dir]
    table, loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("loaded:")
    assert "| micro_f1 vqa |" in table
    assert not {"torch", "transformers", "evaluate", "trl", "peft"} & set(loaded.split())

    monkeypatch.setattr(datasets.Image, "decode_example", lambda *args, **options: pytest.fail("a picture is decoded"))
    compared(runs, cache_dir)
    assert "| micro_f1 vqa |" in capsys.readouterr().out


def test_only_the_tasks_that_both_have_are_compared(runs, cache_dir, tmp_path, capsys):
    settings = json.loads((runs["b"] / "predictions.settings.json").read_text())
    write_run(runs["b"], [line for line in lines_of(runs["b"]) if line["task"] == "vqa"], settings)
    compared(runs, cache_dir)
    table = capsys.readouterr().out
    assert "| micro_f1 vqa |" in table and "identify" not in table and "| map" not in table


def test_data_that_were_moved_are_found_where_one_says(runs, phantom_release, cache_dir, capsys):
    path = runs["a"] / "predictions.settings.json"
    path.write_text(json.dumps({"data": "/moved", "split": "train"}))
    with pytest.raises(SystemExit, match="^The runs answered different radiographs: data is /moved in "):
        compared(runs, cache_dir)
    compared(runs, cache_dir, data_dir=str(phantom_release))
    assert "24 radiographs" in capsys.readouterr().out


def test_runs_that_cannot_be_compared_are_refused_in_one_sentence(runs, cache_dir, tmp_path):
    with pytest.raises(SystemExit, match="^runs must name two folders, not 1"):
        compared((runs["a"],), cache_dir)
    with pytest.raises(SystemExit, match="has no predictions.jsonl with predictions.settings.json"):
        compared((runs["a"], tmp_path), cache_dir)
    with pytest.raises(SystemExit, match="split test, has 0 of the 24 radiographs answered"):
        compared(runs, cache_dir, split="test")
    settings = json.loads((runs["b"] / "predictions.settings.json").read_text())
    shutil.copytree(runs["b"], tmp_path / "fewer")
    write_run(tmp_path / "fewer", lines_of(runs["b"])[:-2], settings)
    with pytest.raises(SystemExit, match="fewer lacks some or has others"):
        compared((runs["a"], tmp_path / "fewer"), cache_dir)
    write_run(tmp_path / "fewer", [{**line, "task": "grounding"} for line in lines_of(runs["b"])[::2]], settings)
    with pytest.raises(SystemExit, match="have no task in common"):
        compared((runs["a"], tmp_path / "fewer"), cache_dir)
