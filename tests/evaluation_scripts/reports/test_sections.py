import copy
import re
import subprocess
import sys

import pytest
from jinja2 import UndefinedError

from litegpt.common.templates import template
from litegpt.evaluation_scripts.reports import sections as module
from litegpt.evaluation_scripts.reports.published_figures import paper_figures
from litegpt.evaluation_scripts.reports.sections import (
    Table,
    at,
    headlines,
    report_sections,
    write_report,
)
from litegpt.processing.tasks import DIAGNOSES, FINDINGS, TASKS, Task
from tests.made_up_metrics import made_up_metrics


def report(metrics) -> str:
    return write_report(metrics, "some/checkpoint", "some/data")


def as_markdown(table: Table) -> str:
    return template(module.__file__, "table.md.jinja").module.markdown_table(*table)


def test_each_headline_stands_beside_its_interval_the_controls_and_the_papers_number():
    lines = report(made_up_metrics(value=0.75, blind=0.25)).splitlines()
    first = next(line for line in lines if line.startswith("|"))
    assert first == "| figure | value | 95 % interval | shuffled | noise | black | paper |"
    assert (
        "| [identify] Acc@IoU 0.3, all true boxes | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 | 0.125 |" in lines
    )
    assert (
        "| [vqa] F1 of the diagnoses, micro average | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 | 0.600 |"
        in lines
    )
    for figure in ("mAP at IoU 0.4", "mAP at IoU 0.5", "FROC, mean sensitivity", "AUROC of Finding"):
        assert f"| [identify] {figure} | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 | - |" in lines


def test_the_papers_numbers_are_said_to_compare_on_its_own_data_alone():
    assert "do not compare" not in report(made_up_metrics(name="VinDr-CXR"))
    elsewhere = report(made_up_metrics(name="Some-CXR"))
    assert "The paper's numbers are of VinDr-CXR, these are of Some-CXR" in elsewhere
    assert "They do not compare with these of Some-CXR" in elsewhere


def test_auroc_stands_beside_what_others_report_of_the_data_set():
    on_vindr, on_nih = (report(made_up_metrics(name=name)) for name in ("VinDr-CXR", "ChestX-ray14"))
    assert "| CXR-CLIP | fine-tuned on VinDr-CXR | 18 findings and diagnoses | 0.916 |" in on_vindr
    assert "| ECAMP |" not in on_vindr and "| CXR-CLIP |" not in on_nih
    assert "| ECAMP | fine-tuned on ChestX-ray14 | 14 labels | 0.865 |" in on_nih
    assert "| this checkpoint | [vqa] on ChestX-ray14 | 3 labels | 0.750 |" in on_nih


def test_what_was_not_computed_is_a_dash():
    """Answers that were not constrained have no probabilities; a label without true boxes has no curve."""
    metrics = made_up_metrics()
    for source in (metrics, metrics["intervals"], *metrics["controls"].values()):
        source["auroc"] = source["finding_auroc"] = None
        source["ece"]["diagnoses"] = {"before": None, "after": None}
        source["accuracy_at_iou"]["0.3"] = None
    metrics["vqa"]["probabilities"] = metrics["vqa"]["reliability"] = None
    text = report(metrics)
    assert "| [identify] Acc@IoU 0.3, all true boxes | - | - | - | - | - | 0.125 |" in text
    assert "| [vqa] AUROC, mean of the labels | - | - | - | - | - | - |" in text
    assert "| Pneumonia | 0.750 | 0.750 | 0.750 | 0.250 | 10 | - | - | - |" in text
    assert "| diagnoses | 1.000 | - | - | - |" in text
    assert "| Edema | 0.750 | 0.750 | 0.750 | 0.250 | 10 | 0 | - | - |" in text
    assert "None" not in text and "nan" not in text


@pytest.mark.parametrize("tasks", [("identify",), ("vqa",), ("grounding", "vqa"), ("identify", "grounding", "vqa")])
def test_the_report_has_what_was_asked_and_no_more(tasks):
    metrics = made_up_metrics(tasks=tasks)
    sections = report_sections(metrics)
    assert {name for section in sections for name in [section.name.partition("-")[0]] if "-" in section.name} == {
        *tasks
    }
    assert {section.task.name for section in sections if section.task is not None} == {*tasks}
    assert len({section.name for section in sections}) == len(sections)
    figures = headlines(metrics)
    boxes = [task for task in tasks if task != "vqa"]
    assert {figure.task.name for figure in figures} == {*boxes[-1:], *(["vqa"] if "vqa" in tasks else [])}
    assert all(figure.value == 0.75 for figure in figures)
    for table in (block for section in sections for block in section.blocks if isinstance(block, Table)):
        assert all(len(row) == len(table.head) for row in table.rows) and table.rows


def test_boxes_are_counted_by_three_definitions_and_ranked():
    text = report(made_up_metrics())
    assert "| over all 12 true boxes | 0.750 | 0.750 | 0.750 | 0.250 | 0.250 | 0.250 |" in text
    assert "| over the 8 whose label was named (the paper's text) |" in text
    assert "| the paper's LiteGPT, on VinDr-CXR | 0.125 | 0.105 | 0.081 | - | - | - |" in text
    assert "|  | mAP | at 1/8 | at 1/4 | at 1/2 | at 1 | at 2 | at 4 | at 8 | FROC mean |" in text
    assert "| IoU 0.4, shuffled | 0.250 |" in text


def test_the_paper_of_grounding_is_that_of_table_6():
    text = report(made_up_metrics(tasks=("grounding",)))
    assert "| the paper's LiteGPT, on VinDr-CXR | 0.120 | 0.103 | 0.080 | - | - | - |" in text
    assert "[grounding] Acc@IoU 0.3, all true boxes | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 | 0.120 |" in text
    assert "Tables 1 to 3 and 6, on VinDr-CXR" in text and "and 6" not in report(made_up_metrics())


def test_answers_that_say_little_are_shown():
    text = report(made_up_metrics())
    assert "| `[identify]` | 93 | 7 | 2 | 17 | 0.125 | 0.108 |" in text


def test_groups_stand_in_the_report_only_where_the_data_tells_them():
    metrics = made_up_metrics()
    text = report(metrics)
    assert "| by | group | images | F1, micro | AUROC |" in text and "| sex | F | 5 | 0.750 | 0.750 |" in text
    assert "does not tell: sex: 3." in text
    for task in ("identify", "vqa"):
        metrics[task]["groups"] = metrics[task]["groups_left_out"] = {}
    assert "By view, sex and age" not in report(metrics)


def test_a_checkpoint_without_thresholds_is_said_to_have_none():
    metrics = made_up_metrics()
    assert "| Cardiomegaly | 0.312 | 0.500 | 0.500 | 0.062 | 4 |" in report(metrics)
    metrics["identify"]["operating_points"] = {}
    assert "This checkpoint has no thresholds; `evaluation_scripts/calibrate.py` chooses them" in report(metrics)


def test_the_wording_stands_beside_the_papers():
    text = report(made_up_metrics())
    assert "| ROUGE-1 | 0.750 | 0.250 | 0.501 |" in text and "| CIDEr | 0.750 | 0.250 | 7.520 |" in text
    assert "| METEOR without synonyms | 0.750 | 0.250 | - |" in text and "| METEOR |" not in text


def test_metrics_of_an_older_program_are_refused():
    metrics = copy.deepcopy(made_up_metrics())
    metrics["control"] = metrics.pop("controls")
    with pytest.raises(ValueError, match=r"metrics.json is of an older evaluate_litegpt.py, .* run it again\.$"):
        report(metrics)


def test_a_label_cannot_break_a_table():
    assert as_markdown(Table(["a|b"], [["c|d"]])).splitlines() == ["| a\\|b |", "| --- |", "| c\\|d |"]


def test_words_of_others_cannot_break_a_table_or_become_html():
    metrics = made_up_metrics()
    label = "<img src=x>|a & b|\"c\" 'd'"
    metrics["identify"]["classification"]["per_class"][label] = metrics["identify"]["classification"]["finding"]
    metrics["data_set"]["name"] = "<b>|&"
    text = report(metrics)
    assert "| &lt;img src=x>\\|a &amp; b\\|\"c\" 'd' | 0.750 | 0.750 | 0.750 | - | 10 | 0 | - | - |" in text
    assert "| this checkpoint | [vqa] on &lt;b>\\|&amp; | 3 labels | 0.750 |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_what_the_report_is_not_given_is_an_error_and_no_gap():
    with pytest.raises(UndefinedError, match="sections"):
        template(module.__file__, "report.md.jinja").render(introduction="")
    with pytest.raises(UndefinedError, match="head"):
        template(module.__file__, "report.md.jinja").render(introduction="", sections=[{"title": "", "blocks": [3]}])


@pytest.mark.parametrize("kind, like", [(DIAGNOSES, "vqa"), (FINDINGS, "identify")])
def test_a_new_task_has_all_that_a_task_of_its_kind_has(kind, like, monkeypatch):
    monkeypatch.setitem(TASKS, "triage", Task("triage", kind, "What is it?"))
    new, known = (made_up_metrics(tasks=(task,)) for task in ("triage", like))
    assert [(figure.name, figure.value, figure.interval, figure.controls) for figure in headlines(new)] == [
        (figure.name.replace(like, "triage"), figure.value, figure.interval, figure.controls)
        for figure in headlines(known)
    ]
    assert any(figure.paper is not None for figure in headlines(known))
    assert all(figure.paper is None for figure in headlines(new)) and paper_figures("triage") == {}
    sections, expected = report_sections(new), report_sections(known)
    assert [(section.topic, section.title) for section in sections] == [
        (section.topic, section.title.replace(f"[{like}]", "[triage]")) for section in expected
    ]
    for topic in ("labels", "others", "operating-points", "honesty", "calibration", "groups"):
        ours, theirs = ([one.blocks for one in both if one.topic == topic] for both in (sections, expected))
        assert str(ours) == str(theirs).replace(f"[{like}]", "[triage]")
    text = report(new)
    assert f"[{like}]" not in text and "None" not in text
    if kind is DIAGNOSES:
        assert "| Pneumonia | 0.750 | 0.750 | 0.750 | 0.250 | 10 | 0.750 | 0.688 to 0.812 | 0.750 |" in text


def test_figures_of_one_task_do_not_stand_for_another_of_its_kind(monkeypatch):
    """Those on top of metrics.json are of the last one."""
    monkeypatch.setitem(TASKS, "triage", Task("triage", DIAGNOSES, "What is it?"))
    sections = {section.name: section for section in report_sections(made_up_metrics(tasks=("vqa", "triage")))}
    ours = {task: sections[f"{task}-others"].blocks[1].rows[0] for task in ("vqa", "triage")}
    assert ours["triage"] == ["this checkpoint", "[triage] on Some-CXR", "3 labels", "0.750"]
    assert ours["vqa"][-1] == "-" == sections["vqa-labels"].blocks[1].rows[0][6]


def test_the_sections_need_no_library_that_takes_seconds_to_import():
    program = "import sys, litegpt.evaluation_scripts.reports.sections; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets", "pyarrow", "matplotlib"} & set(loaded)


def test_a_path_that_ends_early_has_no_figure():
    assert at({"a": {"b": 0.0}}, "a", "b") == 0.0
    assert at({"a": None}, "a", "b") is None and at({}, "a", "b") is None and at({"a": 1.0}, "a", "b") is None
