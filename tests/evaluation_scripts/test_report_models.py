"""Stand-ins have the signatures of radgraph 0.1.18 and f1chexbert 0.0.2; neither is installed here."""

import subprocess
import sys
from types import ModuleType

import pytest

from litegpt.evaluation_scripts.report_models import (
    NEEDS,
    chexbert_scores,
    chexbert_states,
    radgraph_rewards,
    radgraph_scores,
)
from litegpt.metrics.report_labels import CHEXPERT_LABELS


class F1RadGraph:
    """The rewards of a pair are the share of equal words, half of it, and a quarter."""

    asked: list = []

    def __init__(self, reward_level, model_type=None, **kwargs):
        assert reward_level == "all" and model_type in ("radgraph", "radgraph-xl", "echograph", "modern-radgraph-xl")

    def __call__(self, refs, hyps):
        assert refs and len(refs) == len(hyps) and all(refs) and all(hyps)
        F1RadGraph.asked += zip(hyps, refs, strict=True)
        sets = [(set(hyp.split()), set(ref.split())) for hyp, ref in zip(hyps, refs, strict=True)]
        shares = [len(a & b) / len(a | b) for a, b in sets]
        rewards = ([*shares], [share / 2 for share in shares], [share / 4 for share in shares])
        return tuple(sum(values) / len(values) for values in rewards), rewards, [], []


class F1CheXbert:
    """Edema is as the text begins; No Finding where it says normal."""

    asked: list = []

    def __init__(self, refs_filename=None, hyps_filename=None, device=None, **kwargs):
        self.target_names = list(CHEXPERT_LABELS)

    def get_label(self, report, mode="rrg"):
        assert mode == "classification"
        F1CheXbert.asked.append(report)
        values = dict.fromkeys(self.target_names, "")
        if "edema" in report.lower():
            values["Edema"] = {"No": 0, "Possible": -1}.get(report.split()[0], 1)
        values["No Finding"] = 1 if "normal" in report else ""
        return list(values.values())


@pytest.fixture
def packages(monkeypatch):
    for stand_in in (F1RadGraph, F1CheXbert):
        module = ModuleType(stand_in.__name__.lower().removeprefix("f1") if stand_in is F1RadGraph else "f1chexbert")
        setattr(module, stand_in.__name__, stand_in)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(stand_in, "asked", [])


def test_without_the_packages_there_is_no_score_but_a_sentence(monkeypatch):
    for name in ("radgraph", "f1chexbert"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
        assert f"pip install {name}==" in NEEDS[name] and "\n" not in NEEDS[name]
    assert radgraph_scores(["a"], ["a"]) is None and radgraph_rewards(["a"], ["a"]) is None
    assert chexbert_scores(["a"], ["a"]) is None and chexbert_states(["a"]) is None


def test_radgraph_is_asked_by_name_and_each_pair_once(packages):
    answers, truths = ["a b", "b  b\nc", "a b", "", "a"], ["a b", "b d", "a b", "a", " "]
    rewards = radgraph_rewards(answers, truths)
    assert F1RadGraph.asked == [("a b", "a b"), ("b b c", "b d")]
    assert rewards["simple"] == pytest.approx([1, 1 / 3, 1, 0, 0])  # an empty text has nothing in common
    assert rewards["complete"] == pytest.approx(rewards["simple"] / 4)
    scores = radgraph_scores(answers, truths)
    assert scores == pytest.approx({"simple": 7 / 15, "partial": 7 / 30, "complete": 7 / 60})


def test_empty_reports_alone_ask_nothing(packages):
    assert radgraph_scores(["", "a"], ["a", ""]) == {"simple": 0, "partial": 0, "complete": 0}
    assert radgraph_scores([], []) == {"simple": None, "partial": None, "complete": None}
    assert F1RadGraph.asked == []


def test_chexberts_labels_are_states_and_each_text_is_read_once(packages):
    states = chexbert_states(["Edema.", "No edema", "Possible edema", "All normal", "Edema."])
    assert states == [
        {"Edema": "positive"},
        {"Edema": "negative"},
        {"Edema": "uncertain"},
        {"No Finding": "positive"},
        {"Edema": "positive"},
    ]
    assert len(F1CheXbert.asked) == 4


def test_chexbert_counts_uncertain_as_positive(packages):
    scores = chexbert_scores(["Possible edema", "All normal"], ["Edema.", "Edema."])
    assert scores["per_label"]["Edema"]["f1"] == pytest.approx(2 / 3)
    assert scores["micro_f1"]["14"] == pytest.approx(2 / 4) and scores["num_images"] == 2


def test_as_many_answers_as_truths_are_needed(packages):
    for scores in (radgraph_scores, chexbert_scores):
        with pytest.raises(ValueError, match="1 answered reports and 0 true ones"):
            scores(["a"], [])


def test_a_package_that_is_there_and_broken_is_not_taken_for_missing(monkeypatch, tmp_path):
    (tmp_path / "radgraph.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "radgraph", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        radgraph_scores(["a"], ["a"])


def test_nothing_of_torch_is_imported():
    script = "import sys, litegpt.evaluation_scripts.report_models; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
