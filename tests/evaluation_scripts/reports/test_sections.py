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
    lines = report(made_up_metrics(value=0.75, blind=0.25, name="VinDr-CXR")).splitlines()
    first = next(line for line in lines if line.startswith("|"))
    assert first == "| figure | value | 95 % interval | shuffled | noise | black | prior | paper |"
    assert (
        "| True boxes found: Acc@IoU 0.3, all true boxes [identify] | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 "
        "| 0.250 | 0.125 |" in lines
    )
    assert (
        "| Which diagnoses: F1 of the diagnoses, micro average [vqa] | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 "
        "| - | 0.600 |" in lines
    )
    boxes = "Boxes by falling score"
    for figure in (f"{boxes}: mAP at IoU 0.4", f"{boxes}: mAP at IoU 0.5", f"{boxes}: FROC, mean sensitivity"):
        assert f"| {figure} [identify] | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 | 0.250 | - |" in lines
    ranked = "Any finding at all, by probability: AUROC of Finding [identify]"
    assert f"| {ranked} | 0.750 | 0.688 to 0.812 | 0.250 | 0.250 | 0.250 | - | - |" in lines


def verdict_of(controls: dict, **changes) -> str:
    """The verdict where controls reach `controls` in figures, by path; `changes` are of `made_up_metrics`."""
    metrics = made_up_metrics(value=0.75, blind=0.25, **changes)
    for (control, *path, last), value in controls.items():
        place = metrics["controls"][control]
        for key in path:
            place = place[key]
        place[last] = value
    return report(metrics).splitlines()[2]


def test_the_report_opens_with_whether_the_answers_follow_the_image():
    """Lower bounds are 0.6875: what a control reaches there, the figure does not beat."""
    assert verdict_of({}) == "**The answers follow the image in 12 of 12 figures.**"
    assert verdict_of({("noise", "map", "0.4"): 0.6874}).startswith("**The answers follow the image in 12 of 12")
    blind = verdict_of(
        {("shuffled", "map", "0.4"): 0.6875, ("shuffled", "froc", "mean"): 0.9, ("black", "map", "0.5"): 1}
    )
    assert blind.startswith("**The answers follow the image in 9 of 12 figures.**")
    assert (
        "**No better than another image's answers in 2 of 12**: Boxes by falling score: mAP at IoU 0.4 [identify]; "
        "Boxes by falling score: FROC, mean sensitivity [identify]." in blind
    )
    assert "**No better than the answer to a black picture in 1 of 12**" in blind and "noise" not in blind


def test_figures_of_boxes_that_are_not_above_the_location_prior_are_named():
    """It says nothing of whether the answers follow the image: it is another model."""
    above = made_up_metrics(value=0.75, blind=0.25)
    assert "All 6 figures of boxes are above the location prior, which never saw a picture." in report(above)
    assert "learnt from the boxes of 4,394 radiographs of `train`. For mAP" in report(above)
    below = {("prior", "map", "0.4"): 0.6875, ("prior", "froc", "mean"): 0.9}
    verdict = verdict_of(below)
    assert verdict.startswith("**The answers follow the image in 12 of 12 figures.** **No better than boxes given")
    assert (
        "without any picture in 2 of 6 figures of boxes**: Boxes by falling score: mAP at IoU 0.4 [identify]; Boxes "
        "by falling score: FROC, mean sensitivity [identify]." in verdict
    )
    above["controls"]["prior"]["froc"]["mean"] = 0.9
    assert "**In 1 of 6 figures of boxes the answers are not above the location prior**" in report(above)
    assert "FROC, mean sensitivity [identify] 0.750 against 0.900." in report(above)
    above["controls"]["prior"]["source"] = {"split": None, "folds": 5, "radiographs_with_boxes": 30}
    assert "this split's 30 radiographs that have any, each fifth of the patients from the other" in report(above)


def test_without_boxes_and_in_metrics_of_an_older_program_there_is_no_prior():
    older = made_up_metrics()
    del older["controls"]["prior"]
    for metrics in (older, made_up_metrics(tasks=("vqa",))):
        text = report(metrics)
        assert "| figure | value | 95 % interval | shuffled | noise | black |" in text
        assert "location prior, which never" not in text and "`prior`" not in text


def test_what_a_control_or_an_interval_lacks_is_not_judged():
    verdict = verdict_of({("shuffled", "finding_auroc"): None})
    assert verdict.startswith("**The answers follow the image in 11 of 11 figures.** It cannot be told of Any finding")
    metrics = made_up_metrics(tasks=("vqa",))
    metrics["intervals"] = {}
    assert "**Whether the answers follow the image cannot be told**" in report(metrics)


def test_the_report_says_what_was_run_and_how_intervals_were_made():
    metrics = made_up_metrics()
    metrics["weights"] = {"model.safetensors": "26f89470d732" + "0" * 52}
    text = report(metrics)
    assert "Made on 2026-11-26 with litegpt 0.1.0, transformers 5.17.0, torch 2.9.0, Python 3.11.7;" in text
    assert (
        "1,000 resamples, seed 0. Weights by the beginning of their SHA-256: `model.safetensors` 26f89470d732." in text
    )
    assert "bootstrap over the radiographs. The data does not tell the patients" in text
    assert "\nTrained on Some-CXR. Made on" in text and "Caution" not in text
    metrics["run"] |= {"caution": "trained on synthetic radiographs", "trained_on": []}
    assert "\n**Caution about this checkpoint**: trained on synthetic radiographs.\n" in report(metrics)
    metrics["bootstrap"] |= {"unit": "patient", "patients": 588}
    assert "bootstrap over the 588 patients, each with all radiographs" in report(metrics)


def test_sensitivity_specificity_and_predictive_values_stand_with_their_counts():
    text = report(made_up_metrics())
    head = "|  | sensitivity | specificity | PPV | NPV | TP | FP | TN | FN |"
    assert text.count(head) == 2
    assert "| Cardiomegaly | 0.750 | 0.811 | 0.750 | 0.811 | 30 | 10 | 43 | 10 |" in text
    assert "of 40 radiographs with a finding 30 are said to have one, by boxes from their thresholds on" in text
    # No image has the last label: it has no figures, and the mean is that of the two others.
    assert "| Edema | - | - | - | - | 0 | 3 | 90 | 0 |" in text
    assert "| mean of the 2 of 3 labels that an image has | 0.750 | 0.811 | 0.750 | 0.811 | - | - | - | - |" in text


def test_a_label_that_no_image_has_is_dashes():
    metrics = made_up_metrics()
    per_class = metrics["identify"]["classification"]["per_class"]
    per_class["Edema"] = {**per_class["Edema"], "support": 0}
    assert "| Edema | - | - | - | - | 0 | 0 | - | - |" in report(metrics)


def test_what_froc_did_not_measure_stands_in_brackets():
    text = report(made_up_metrics(blind=0.25))
    measured = "0.750 | 0.750 | 0.750 | 0.750 | 0.750"
    assert f"| IoU 0.4 | 0.750 | {measured} | (0.750) | (0.750) | 0.750 |" in text
    assert "In brackets: not measured" in text


def test_a_threshold_of_zero_is_explained():
    metrics = made_up_metrics()
    assert "A threshold of 0" not in report(metrics)
    metrics["identify"]["operating_points"]["Cardiomegaly"]["threshold"] = 0.0
    assert "**A threshold of 0**: all boxes of the label are kept" in report(metrics)


@pytest.mark.parametrize("name", ["Some-CXR", "Phantoms in VinDr-CXR's layout", "VinDr-CXR of another hospital"])
def test_the_papers_numbers_stand_beside_those_of_its_own_data_alone(name):
    """A hospital's report must not look as if the paper had measured its radiographs."""
    text = report(made_up_metrics(name=name))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert not any("paper" in row and "the paper's text" not in row and "the paper's code" not in row for row in rows)
    assert not any("CXR-CLIP" in row for row in rows) and "0.600" not in text
    assert f"The paper's numbers are of VinDr-CXR, these are of {name}" in text
    assert all(figure.paper is None for figure in headlines(made_up_metrics(name=name)))


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
    metrics = made_up_metrics(name="VinDr-CXR")
    for source in (metrics, metrics["intervals"], *metrics["controls"].values()):
        source["auroc"] = source["finding_auroc"] = None
        if source["ece"] is not None:  # the prior has none
            source["ece"]["diagnoses"] = {"before": None, "after": None}
        source["accuracy_at_iou"]["0.3"] = None
    metrics["vqa"]["probabilities"] = metrics["vqa"]["reliability"] = None
    text = report(metrics)
    assert "| True boxes found: Acc@IoU 0.3, all true boxes [identify] | - | - | - | - | - | - | 0.125 |" in text
    assert "| Which diagnoses, by probability: AUROC, mean of the labels [vqa] | - | - | - | - | - | - | - |" in text
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
    text = report(made_up_metrics(name="VinDr-CXR"))
    assert f"| over all 12 true boxes | 0.750 | 0.750 | 0.750 | {' | '.join(['0.250'] * 6)} |" in text
    assert "| over the 8 whose label was named (the paper's text) |" in text
    assert "| the paper's LiteGPT, on VinDr-CXR | 0.125 | 0.105 | 0.081 | - | - | - | - | - | - |" in text
    assert "|  | mAP | at 1/8 | at 1/4 | at 1/2 | at 1 | at 2 | at 4 | at 8 | FROC mean |" in text
    assert "| IoU 0.4, shuffled | 0.250 |" in text and "| IoU 0.4, prior | 0.250 |" in text


def test_the_paper_of_grounding_is_that_of_table_6():
    text = report(made_up_metrics(tasks=("grounding",), name="VinDr-CXR"))
    assert "| the paper's LiteGPT, on VinDr-CXR | 0.120 | 0.103 | 0.080 | - | - | - | - | - | - |" in text
    assert f"Acc@IoU 0.3, all true boxes [grounding] | 0.750 | 0.688 to 0.812 |{' 0.250 |' * 4} 0.120 |" in text
    assert "Tables 1 to 3 and 6, on VinDr-CXR" in text and "and 6" not in report(made_up_metrics(name="VinDr-CXR"))


def test_answers_that_say_little_are_shown():
    text = report(made_up_metrics())
    assert "| Findings [identify] | 93 | 7 | 2 | 17 | 0.125 | 0.108 |" in text


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
    text = report(made_up_metrics(name="VinDr-CXR"))
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
    new, known = (made_up_metrics(tasks=(task,), name="VinDr-CXR") for task in ("triage", like))
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
    for topic in ("decisions", "labels", "others", "operating-points", "honesty", "calibration", "groups"):
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


def test_what_is_found_beside_the_answers_stands_side_by_side():
    metrics = made_up_metrics()
    assert "Beside the answers" not in report(metrics)
    sources = ("answer", "candidates", "detector", "fused", "answer_shuffled", "candidates_shuffled")
    sources += ("detector_shuffled", "fused_shuffled", "candidates_less_answer", "fused_less_detector")
    froc = {"mean": 0.75, "sensitivity": {"0.125": 0.375, "2": 0.875}}
    values = {"map": {"0.4": 0.5, "0.5": 0.25}, "froc": froc, "accuracy_given_label": {"0.3": 0.625}}
    values |= {"sensitivity": 0.9, "box_f1": {"0.5": 0.7}, "ece": 0.05, "boxes": 2.5}
    intervals = {"map": {"0.4": [0.25, 0.75], "0.5": None}, "froc": {"mean": [0.5, 1.0]}}
    metrics["identify"]["box_sources"] = {
        "figures": dict.fromkeys(sources, values),
        "intervals": dict.fromkeys(sources, {**intervals, "accuracy_given_label": {"0.3": None}}),
    }
    shown = report(metrics)
    row = "0.500 (0.250 to 0.750) | 0.250 | 0.750 (0.500 to 1.000) | 0.900 | 0.700 | 0.050 | 0.625 | 2.500 |"
    assert f"| answers and detector | {row}" in shown
    assert "| answers and detector, less the detector | 0.500" in shown
    assert "| with what they leave out, less the answers | 0.500" in shown
    assert "several views" not in shown.split("Beside the answers.**")[1].partition("|")[2]  # not measured
    assert "|  | at 1/8 | at 2 |" in shown and "| with what they leave out | 0.375 | 0.875 |" in shown
