"""Figures in a checkpoint's card, from made-up metrics."""

import re

import pytest
from huggingface_hub import ModelCard

from litegpt.hub.figures_of_card import with_figures
from litegpt.processing.tasks import DIAGNOSES, TASKS, Task
from tests.made_up_metrics import made_up_metrics


@pytest.fixture(scope="module")
def card(tiny_checkpoint) -> str:
    return (tiny_checkpoint / "README.md").read_text(encoding="utf-8")


def test_figures_stand_in_the_metadata_and_beside_their_control(card):
    metrics = made_up_metrics(value=0.625, blind=0.125)
    for source in (metrics, metrics["intervals"], *metrics["controls"].values()):
        source["map"]["0.5"] = None
    card = with_figures(card, metrics, "acme/litegpt")
    parsed = ModelCard(card)
    assert parsed.data.model_name == "acme/litegpt"
    results = {result.metric_name: result for result in parsed.data.eval_results}
    accuracy = results["[identify] Acc@IoU 0.3, all true boxes"]
    assert (accuracy.metric_value, accuracy.metric_type, accuracy.task_type) == (0.625, "accuracy", "object-detection")
    assert (accuracy.dataset_name, accuracy.dataset_type, accuracy.dataset_split) == ("Some-CXR", "some-cxr", "test")
    assert results["[identify] mAP at IoU 0.4"].metric_type == "mean_average_precision"
    auroc = results["[vqa] AUROC, mean of the labels"]
    assert (auroc.metric_value, auroc.metric_type, auroc.task_type) == (0.625, "roc_auc", "image-classification")
    assert "[identify] mAP at IoU 0.5" not in results  # nothing to measure it on
    assert parsed.data.metrics == ["accuracy", "f1", "froc", "mean_average_precision", "roc_auc"]
    assert "| figure | value | 95 % interval | shuffled | prior |" in card
    assert "| [identify] F1 of Finding | 0.625 | 0.562 to 0.688 | 0.125 | - |" in card
    assert "| [identify] mAP at IoU 0.5 | - | - | - | - |" in card
    assert "Some-CXR, split `test`, 1,500 radiographs" in card
    assert "`[vqa]`: answers that could not be parsed and count as wrong: 2;" in card and "left out: 7." in card


def test_new_figures_replace_the_old_ones_and_leave_what_people_wrote(card):
    edited = card.replace("## Training\n", "## Ours\n\nBy hand.\n\n## Training\n")
    once = with_figures(edited, made_up_metrics(), "acme/litegpt")
    better = made_up_metrics()
    better["finding_f1"] = 0.875
    twice = with_figures(once, better, "acme/litegpt")
    old, new = "F1 of Finding | 0.750 |", "F1 of Finding | 0.875 |"
    assert new in twice and old in once and twice.count("## Figures") == 1
    assert "By hand." in twice and "None are stated" not in twice
    assert ModelCard(twice).text.replace("[identify] " + new, "[identify] " + old) == ModelCard(once).text
    without = re.sub(r"## Figures\n.*?(?=## Licences)", "", edited, flags=re.S)
    assert old in with_figures(without, made_up_metrics(), "acme/litegpt")


def test_figures_of_an_older_program_are_refused(card):
    metrics = made_up_metrics()
    metrics["control"] = metrics.pop("controls")
    with pytest.raises(ValueError, match=r"older evaluate_litegpt.py, .* run it again\.$"):
        with_figures(card, metrics, "acme/litegpt")


def test_words_of_others_cannot_break_the_table_of_figures(card, monkeypatch):
    monkeypatch.setitem(TASKS, "a|b", Task("a|b", DIAGNOSES, "What is it?"))
    text = with_figures(card, made_up_metrics(tasks=("a|b",)), "acme/litegpt")
    assert "| [a\\|b] F1 of Finding | 0.750 | 0.688 to 0.812 | 0.250 |" in text


def test_a_new_task_is_listed_under_the_hubs_task_of_its_kind(card, monkeypatch):
    monkeypatch.setitem(TASKS, "triage", Task("triage", DIAGNOSES, "What is it?"))
    data = ModelCard(with_figures(card, made_up_metrics(tasks=("identify", "triage")), "acme/litegpt")).data
    hub_tasks = {result.metric_name.split()[0]: result.task_type for result in data.eval_results}
    assert hub_tasks == {"[identify]": "object-detection", "[triage]": "image-classification"}
