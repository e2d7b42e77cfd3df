import json
import shutil
from operator import itemgetter

import pytest

from litegpt.command import main
from litegpt.common.files import complete_lines


@pytest.fixture(scope="module")
def answers(tiny_checkpoint, phantom_release, tmp_path_factory):
    """Output folder of predict-many: the release's test radiographs."""
    folder = tmp_path_factory.mktemp("answers") / "many"
    options = ["--model_name_or_path", tiny_checkpoint, "--output_dir", folder, "--shard_size", 3, "--candidates"]
    main(["predict-many", *map(str, options), str(phantom_release / "test")])
    return folder


@pytest.fixture
def evaluate(tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    """Runs the program; returns its output folder."""

    def run(name, *more):
        options = ["--model_name_or_path", tiny_checkpoint, "--data_dir", phantom_release, "--cache_dir", cache_dir]
        main(["evaluate", *map(str, [*options, "--output_dir", tmp_path / name, *more])])
        return tmp_path / name

    return run


def test_answers_of_predict_many_are_scored_as_those_that_are_asked_for(evaluate, answers):
    asked, given = evaluate("asked"), evaluate("given", "--answers", answers)
    there, here = (complete_lines(folder / "predictions.jsonl") for folder in (asked, given))
    order = itemgetter("image_id", "task")
    for line, own in zip(sorted(there, key=order), sorted(here, key=order), strict=True):
        for name in ("image_id", "task", "answer", "malformed", "width", "height"):
            assert line[name] == own[name]
        assert own["probabilities"] == pytest.approx(line["probabilities"], abs=1e-4)
        for name in ("findings", "candidates"):
            assert len(line.get(name, [])) == len(own.get(name, []))
            for finding, other in zip(line.get(name, []), own.get(name, []), strict=True):
                assert other["label"] == finding["label"] and other["box"] == pytest.approx(finding["box"], abs=0.005)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (asked, given)]
    assert metrics[0]["identify"]["classification"]["micro"] == metrics[1]["identify"]["classification"]["micro"]
    assert metrics[0]["vqa"]["text"] == metrics[1]["vqa"]["text"] and metrics[0]["weights"] == metrics[1]["weights"]


def changed(folder, tmp_path, **settings):
    shutil.copytree(folder, tmp_path / "changed")
    plan = json.loads((folder / "plan.json").read_text())
    plan["settings"] |= settings
    (tmp_path / "changed" / "plan.json").write_text(json.dumps(plan))
    return tmp_path / "changed"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"checkpoint_sha256": "0" * 64}, "answers of another checkpoint"),
        ({"constrained": False}, "--constrained false"),
        ({"threshold": 0.5}, "without --threshold"),
    ],
)
def test_answers_that_were_made_otherwise_are_refused(evaluate, answers, tmp_path, settings, why):
    with pytest.raises(SystemExit, match=why):
        evaluate("given", "--answers", changed(answers, tmp_path, **settings))


def test_radiographs_without_an_answer_are_named(evaluate, answers, tmp_path):
    folder = changed(answers, tmp_path)
    (folder / "results" / "shard-000000-of-000003.parquet").unlink()
    with pytest.raises(SystemExit, match="lacks answers to 3 of 8 radiographs: "):
        evaluate("given", "--answers", folder)
    with pytest.raises(SystemExit, match="it has no plan.json"):
        evaluate("given", "--answers", tmp_path)
    with pytest.raises(SystemExit, match="no answers to grounding"):
        evaluate("given", "--answers", answers, "--tasks", "grounding")
