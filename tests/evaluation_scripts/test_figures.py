import numpy as np
import pytest

from litegpt.benchmarks.scoring import LABELS, TASKS, drawn_answers
from litegpt.evaluation_scripts.figures import headline_figures, nested, row_figures, task_statistics
from litegpt.evaluation_scripts.questions import by_task, question
from litegpt.evaluation_scripts.task_scores import task_scores
from litegpt.metrics.probabilities import expected_calibration_error
from litegpt.processing.box_scores import calibrated

TEMPERATURES = {"finding": 1.7, "diagnosis": 0.8}


@pytest.fixture(scope="module")
def drawn():
    """Rows and answers by task; some answers are malformed, and some rows do not tell what was found."""
    rows, predictions, _ = drawn_answers(120)
    answers = by_task(predictions, TASKS)
    for line in answers["identify"][::17]:
        line |= {"malformed": "a reason", "findings": []}
    for line in answers["vqa"][::19]:
        line |= {"malformed": "a reason", "diagnoses": []}
    for row in rows[::13]:
        row |= {"findings": [], "diagnoses": [0]}
    return rows, answers


def statistics_of(rows, answers):
    return [task_statistics(question(task, rows, LABELS), answers[task], LABELS, TEMPERATURES) for task in TASKS]


def figures_of(rows, answers) -> dict:
    return nested(row_figures(headline_figures(statistics_of(rows, answers), np.ones((1, len(rows))))))


def test_the_figures_are_those_of_the_metrics(drawn):
    rows, answers = drawn
    figures, known = figures_of(rows, answers), {task: question(task, rows, LABELS) for task in TASKS}
    assert 0 < len(known["identify"].images) < len(known["vqa"].images) == len(rows)
    scores = {statistics.task: task_scores(statistics) for statistics in statistics_of(rows, answers)}
    identify, vqa = scores["identify"], scores["vqa"]
    detection = identify["detection"]
    assert 0.1 < detection["map"]["0.4"] < 0.9 and 0.1 < figures["accuracy_at_iou"]["0.5"] < 0.9
    assert figures["finding_f1"] == pytest.approx(identify["classification"]["finding"]["f1"])
    assert figures["vqa_finding_f1"] == pytest.approx(vqa["classification"]["finding"]["f1"])
    for task in TASKS:
        assert figures["micro_f1"][task] == pytest.approx(scores[task]["classification"]["micro"]["f1"])
    assert figures["accuracy_at_iou"] == pytest.approx(identify["localization"]["accuracy_at_iou"])
    assert figures["map"] == pytest.approx(detection["map"])
    assert figures["froc"]["mean"] == pytest.approx(detection["froc"]["0.4"]["mean"])
    assert figures["froc"]["sensitivity"] == pytest.approx(detection["froc"]["0.4"]["sensitivity"])
    probabilities = vqa["probabilities"]
    assert figures["auroc"] == pytest.approx({"macro": probabilities["macro_auroc"], **probabilities["auroc"]})
    assert figures["ece"]["diagnoses"]["after"] == pytest.approx(probabilities["ece"])
    malformed = sum(line["malformed"] is not None for lines in answers.values() for line in lines)
    assert figures["malformed"] == malformed / (2 * len(rows))


def test_an_image_of_weight_two_counts_as_if_it_stood_there_twice(drawn):
    """That is what a resample, a group and a side of a paired test rely on."""
    rows, answers = drawn
    weights = np.random.default_rng(0).integers(0, 3, (4, len(rows)))
    figures = headline_figures(statistics_of(rows, answers), weights.astype(float))
    for number, row in enumerate(weights):
        chosen = np.repeat(np.arange(len(rows)), row)
        repeated = {task: [lines[index] for index in chosen] for task, lines in answers.items()}
        expected = headline_figures(
            statistics_of([rows[index] for index in chosen], repeated), np.ones((1, len(chosen)))
        )
        for name, values in expected.items():
            assert figures[name][number] == pytest.approx(values[0], nan_ok=True), name


def test_the_calibration_error_of_boxes_is_that_of_their_scores_with_and_without_the_temperature(drawn):
    rows, answers = drawn
    statistics = statistics_of(rows, answers)[0]
    figures = figures_of(rows, answers)["ece"]["findings"]
    score, right = statistics.matches["0.4"].score, statistics.matches["0.4"].is_true
    raw = 1 / (1 + np.exp(-TEMPERATURES["finding"] * np.log(score / (1 - score))))
    assert figures["after"] == pytest.approx(expected_calibration_error(score, right))
    assert figures["before"] == pytest.approx(expected_calibration_error(raw, right))
    assert abs(figures["before"] - figures["after"]) > 0.01
    assert sum(one["count"] for one in statistics.reliability()["before"]) == len(score)


def test_taking_the_temperature_out_undoes_the_pipelines_calibration():
    raw = np.array([0.001, 0.3, 0.5, 0.98])
    for temperature in (0.4, 1, 3):
        stated = np.array([calibrated(p, temperature) for p in raw.tolist()])
        assert calibrated(stated, 1 / temperature) == pytest.approx(raw)


@pytest.mark.parametrize("score", [0.0, 1.0, 1.0000001, 1e-300])
def test_certain_scores_give_numbers(drawn, score):
    rows, answers = drawn
    certain = {
        "identify": [
            {
                **line,
                "findings": [{**finding, "score": score} for finding in line["findings"]],
                "probabilities": {"No finding": score},
            }
            for line in answers["identify"]
        ],
        "vqa": [{**line, "probabilities": dict.fromkeys(line["probabilities"], score)} for line in answers["vqa"]],
    }
    figures = figures_of(rows, certain)
    for ece in figures["ece"].values():
        assert ece["before"] == pytest.approx(ece["after"], abs=1e-6) and 0 <= ece["after"] <= 1
    assert figures["finding_auroc"] == figures["auroc"]["macro"] == 0.5


def test_answers_without_probabilities_have_no_figures_of_them(drawn):
    rows, answers = drawn
    plain = {task: [{**line, "probabilities": {}} for line in lines] for task, lines in answers.items()}
    figures = figures_of(rows, plain)
    assert figures["finding_auroc"] is None and set(figures["auroc"].values()) == {None}
    assert figures["ece"]["diagnoses"] == {"before": None, "after": None}
    assert figures["ece"]["findings"]["after"] > 0 and figures["map"]["0.4"] > 0


def test_without_any_true_or_answered_box_nothing_is_divided_by_zero():
    rows = [{"findings": [], "diagnoses": [5]}] * 3
    line = {"task": "identify", "answer": "", "findings": [], "malformed": None, "probabilities": {"No finding": 0.9}}
    statistics = task_statistics(question("identify", rows, LABELS), [line] * 3, LABELS, TEMPERATURES)
    figures = nested(row_figures(headline_figures([statistics], np.ones((1, 3)))))
    assert figures["finding_f1"] == figures["micro_f1"]["identify"] == 0
    assert figures["map"] == {"0.4": None, "0.5": None} and figures["accuracy_at_iou"]["0.3"] is None
    assert figures["froc"]["mean"] is None and figures["ece"]["findings"]["after"] is None
