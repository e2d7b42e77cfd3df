import json
from functools import reduce

import numpy as np
import pytest

from litegpt.benchmarks.scoring import LABELS, TASKS, drawn_answers
from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr
from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.figures import HEADLINE, headline_figures, row_figures, task_statistics
from litegpt.evaluation_scripts.groups import group_figures
from litegpt.evaluation_scripts.questions import by_task, label_names, question, true_answer
from litegpt.evaluation_scripts.row_priors import Prior, RowPriors
from litegpt.evaluation_scripts.scoring import (
    Calibration,
    curve_points,
    curves,
    measured_to,
    operating_points,
    score_predictions,
    task_decisions,
)
from litegpt.metrics.boxes import match
from litegpt.metrics.intervals import means_over_the_same_labels, resamples
from litegpt.metrics.labels import classification_scores

TEMPERATURES = {"finding": 1.5, "diagnosis": 1.2}


@pytest.fixture(scope="module")
def rows(phantom_release, cache_dir):
    return load_vindr_cxr(phantom_release, cache_dir=cache_dir)["train"].remove_columns("image")


@pytest.fixture(scope="module")
def labels(rows):
    return label_names(rows)


@pytest.fixture(scope="module")
def drawn():
    return drawn_answers(120)


@pytest.fixture(scope="module")
def metrics(drawn):
    rows, predictions, controls = drawn
    return score_predictions(
        predictions, rows, TASKS, LABELS, controls, Calibration(TEMPERATURES, {"Edema": 0.5, "ILD": 0.3})
    )


def perfect_predictions(rows, labels) -> list[dict]:
    predictions = []
    for row in rows:
        findings = [{"label": labels["finding"][f["label"]], "box": f["box"], "score": 1.0} for f in row["findings"]]
        diagnoses = [{"label": labels["diagnosis"][index], "score": 1.0} for index in row["diagnoses"]]
        present = {name: float(index in row["diagnoses"]) for index, name in enumerate(labels["diagnosis"])}
        shared = {"image_id": row["image_id"], "malformed": None}
        texts = {task: true_answer(row, task, labels) or "" for task in TASKS}
        absent = {"No finding": float(not findings)}
        predictions += [
            {**shared, "task": "identify", "answer": texts["identify"], "findings": findings, "probabilities": absent},
            {**shared, "task": "vqa", "answer": texts["vqa"], "diagnoses": diagnoses, "probabilities": present},
        ]
    return predictions


def test_perfect_answers_score_one_and_shuffled_ones_far_less(rows, labels):
    metrics = score_predictions(perfect_predictions(rows, labels), rows, TASKS, labels)
    shuffled = metrics["controls"]["shuffled"]
    assert metrics["finding_f1"] == metrics["map"]["0.5"] == metrics["froc"]["mean"] == 1.0
    assert metrics["finding_auroc"] == metrics["auroc"]["macro"] == 1.0
    assert metrics["accuracy_at_iou"] == {"0.3": 1.0, "0.4": 1.0, "0.5": 1.0}
    assert metrics["ece"]["findings"] == metrics["ece"]["diagnoses"] == {"before": 0.0, "after": 0.0}
    assert metrics["vqa"]["classification"]["samples"]["f1"] == 1.0
    assert shuffled["finding_f1"] < 0.7 and shuffled["accuracy_at_iou"]["0.3"] < 0.3
    assert shuffled["map"]["0.4"] < 0.2 and 0.3 < shuffled["auroc"]["macro"] < 0.7
    assert shuffled["vqa"]["classification"]["samples"]["f1"] < 0.9
    for task in TASKS:
        assert metrics[task]["text"]["rougeL"] == metrics[task]["text"]["bleu4"] == 1.0
        assert shuffled[task]["text"]["rougeL"] < 0.95


def test_a_malformed_answer_counts_as_wrong(rows, labels):
    predictions = perfect_predictions(rows, labels)
    for prediction in predictions:
        if prediction["task"] == "identify":
            prediction.update(findings=[], malformed="it does not end with a full stop")
    metrics = score_predictions(predictions, rows, ["identify"], labels)
    assert metrics["finding_f1"] == 0 and metrics["identify"]["classification"]["no_finding"]["recall"] == 0
    assert metrics["accuracy_at_iou"]["0.3"] == metrics["map"]["0.4"] == 0
    assert metrics["identify"]["num_malformed"] == len(rows) and metrics["malformed"] == 1
    both = score_predictions(predictions, rows, TASKS, labels)
    assert both["malformed"] == 0.5 and both["intervals"]["malformed"] == [0.5, 0.5]


def test_rows_that_do_not_tell_the_answer_are_counted_and_not_scored(rows, labels):
    changed = [dict(row) for row in rows]
    next(row for row in changed if not row["findings"])["diagnoses"] = [0]
    metrics = score_predictions(perfect_predictions(rows, labels), changed, ["identify"], labels)
    assert metrics["identify"]["num_unknown"] == 1
    assert metrics["identify"]["classification"]["num_images"] == len(rows) - 1
    with pytest.raises(ValueError, match="identify: no radiograph of this split tells the answer"):
        score_predictions([], [{"findings": [], "diagnoses": [0]}], ["identify"], labels)


def test_every_control_image_gets_the_answers_of_another():
    for count in (2, 3, 50):
        others = random_cycle(count, np.random.default_rng(count))
        assert sorted(others) == list(range(count)) and not (others == np.arange(count)).any()


def test_metrics_are_json_of_which_every_figure_has_an_interval_and_controls(metrics):
    json.dumps(metrics, allow_nan=False)
    assert set(metrics) == {*HEADLINE, "intervals", "controls", *TASKS}
    assert set(metrics["controls"]) == {"shuffled", "noise", "black"}

    def check(figures, intervals):
        if isinstance(figures, dict):
            assert set(figures) == set(intervals)
            for key in figures:
                check(figures[key], intervals[key])
        else:
            assert intervals[0] <= figures <= intervals[1]

    for key in HEADLINE:
        check(metrics[key], metrics["intervals"][key])
        for control in metrics["controls"].values():
            assert np.shape(list(np.atleast_1d(control[key]))) == np.shape(list(np.atleast_1d(metrics[key]))), key
    low, high = metrics["intervals"]["map"]["0.4"]
    assert 0.02 < high - low < 0.4


def test_every_image_is_given_a_control_images_answer_in_turn(drawn, metrics):
    rows, _, controls = drawn
    lines = by_task(controls["noise"], ["identify"])["identify"]
    given = [{**lines[index % 8], "image_id": row["image_id"]} for index, row in enumerate(rows)]
    direct = score_predictions(given, rows, ["identify"], LABELS, calibration=Calibration(TEMPERATURES))
    noise = metrics["controls"]["noise"]
    for key in ("finding_f1", "map", "accuracy_at_iou", "finding_auroc"):
        assert noise[key] == direct[key]
    for key in ("classification", "localization", "detection"):
        assert noise["identify"][key] == direct["identify"][key]
    assert direct["identify"]["identical"] == {"share": 15 / 120, "distinct": 8}
    assert metrics["controls"]["black"]["finding_auroc"] == 0.5 != noise["finding_auroc"]
    # What is not asked has no figures.
    assert direct["auroc"] is direct["intervals"]["auroc"] is None and direct["micro_f1"].keys() == {"identify"}


def test_the_prior_has_figures_of_boxes_alone():
    """One box of each label for all: of three true boxes one is met, and of four pictures it is right on one."""
    labels = {"finding": ["ILD", "Edema"], "diagnosis": ["No finding"]}
    box, other = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
    rows = [{"findings": [], "diagnoses": [0]} for _ in range(4)]
    rows[0]["findings"] = [{"label": 0, "box": box}, {"label": 0, "box": other}]
    rows[1]["findings"] = [{"label": 1, "box": other}]
    prior = Prior([{"label": "ILD", "box": box, "score": 0.2}], {"ILD": box, "Edema": box}, {})
    answers = perfect_predictions([{**row, "image_id": "x"} for row in rows], labels)
    source = {"split": "train", "folds": None, "radiographs_with_boxes": 7}
    metrics = score_predictions(answers, rows, TASKS, labels, learnt=RowPriors([prior] * 4, source))
    found = metrics["controls"]["prior"]
    assert found["accuracy_at_iou"] == {threshold: pytest.approx(1 / 3) for threshold in ("0.3", "0.4", "0.5")}
    # Edema: 0. ILD: of four boxes of the same score one is right, which is one of two true ones.
    assert found["map"]["0.4"] == pytest.approx((1 / 4 * 1 / 2 + 0) / 2)
    assert found["froc"]["sensitivity"]["4"] == pytest.approx(1 / 3) and found["source"] == source
    assert found["identify"].keys() == {"localization", "detection"} and "vqa" not in found
    assert {key for key in HEADLINE if found[key] is not None} == {"accuracy_at_iou", "map", "froc"}


def statistics_of(task, rows, answers, labels=LABELS):
    return task_statistics(question(task, rows, labels), answers, labels, TEMPERATURES)


def test_groups_are_scored_as_if_they_were_alone(drawn):
    rows, predictions, _ = drawn
    chosen = [index for index, row in enumerate(rows) if 40 <= row["age"] < 60]
    for task, answers in by_task(predictions, TASKS).items():
        groups, left_out = group_figures(statistics_of(task, rows, answers), rows)
        alone = statistics_of(task, [rows[index] for index in chosen], [answers[index] for index in chosen])
        assert groups["age"]["40-59"]["images"] == len(chosen) >= 10
        for name, expected in row_figures(headline_figures([alone], np.ones((1, len(chosen))))).items():
            figure = reduce(dict.__getitem__, name, groups["age"]["40-59"])
            assert figure == pytest.approx(expected), name
        assert groups["age"].keys() == {"0-39", "40-59", "60-79", "80+"} and left_out["age"] == 0
        assert groups["view"].keys() == {"AP", "PA"} and groups["sex"].keys() == {"F", "M"}


def test_small_groups_and_rows_that_do_not_tell_are_left_out_and_counted(drawn):
    rows, predictions, _ = drawn
    changed = [{**row, "view": "PA", "age": 30, "sex": None} for row in rows]
    for row in changed[:4]:
        row["age"] = 80
    for row in changed[4:20]:
        row["age"] = 79
    for row, age in zip(changed[20:23], (None, -1, 0), strict=True):
        row["age"] = age
    answers = by_task(predictions, ["identify"])["identify"]
    groups, left_out = group_figures(statistics_of("identify", changed, answers), changed)
    assert groups.keys() == {"age"}  # one view, no sex
    assert {band: group["images"] for band, group in groups["age"].items()} == {"0-39": 98, "60-79": 16}
    assert left_out == {"age": 6}
    without = [{key: row[key] for key in ("image_id", "findings", "diagnoses")} for row in rows]
    assert group_figures(statistics_of("identify", without, answers), without) == ({}, {})


def test_operating_points_count_the_boxes_from_their_threshold_on():
    labels = {"finding": ["ILD", "Edema"], "diagnosis": ["No finding"]}
    box, other = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
    rows = [{"findings": [{"label": 0, "box": box}], "diagnoses": []} for _ in range(4)]
    found = [[(box, 0.9)], [(box, 0.5), (other, 0.5)], [(box, 0.4)], []]
    answers = [
        {"findings": [{"label": "ILD", "box": where, "score": score} for where, score in boxes], "malformed": None}
        for boxes in found
    ]
    matches = statistics_of("identify", rows, answers, labels).matches["0.4"]
    assert operating_points(matches, len(rows), {"ILD": 0.5, "Edema": 0.2}) == {
        "ILD": {
            "threshold": 0.5,
            "precision": 2 / 3,
            "recall": 0.5,
            "false_positives_per_image": 0.25,
            "num_boxes": 4,
        },
        "Edema": {
            "threshold": 0.2,
            "precision": None,
            "recall": None,
            "false_positives_per_image": 0.0,
            "num_boxes": 0,
        },
    }
    pooled = [[0.25, 1.0], [0.5, pytest.approx(2 / 3)], [0.75, 0.75]]
    assert curves(matches, len(rows)) == {
        "precision_recall": {"0.4": {"pooled": pooled, "per_class": {"ILD": pooled}}},
        "froc": [[0.0, 0.25], [0.25, 0.5], [0.25, 0.75]],
    }


def test_a_long_curve_keeps_a_hundred_points_and_its_ends():
    x = np.linspace(0, 1, 1234)
    points = curve_points(x, x**2)
    assert len(points) == 100 and points[0] == [0, 0] and points[-1] == [1, 1]
    assert curve_points(np.array([np.nan]), np.array([1.0])) == []


def test_an_image_has_a_finding_from_its_labels_threshold_on():
    """Four images of ILD, answered with scores of 0.9, 0.4 and none, and malformed; one without, with 0.5."""
    labels = {"finding": ["ILD", "Edema"], "diagnosis": ["Pneumonia", "No finding"]}
    box = [0.1, 0.1, 0.5, 0.5]
    rows = [{"findings": [{"label": 0, "box": box}], "diagnoses": [0]} for _ in range(4)]
    rows.append({"findings": [], "diagnoses": [1]})
    answers = [
        {"findings": [{"label": "ILD", "box": box, "score": score}] if score else [], "malformed": None}
        for score in (0.9, 0.4, None, None, 0.5)
    ]
    answers[3]["malformed"] = "a reason"
    statistics = statistics_of("identify", rows, answers, labels)

    def counts(thresholds, label):
        scores = task_decisions(statistics, thresholds)[label]
        return [scores[f"{kind}_{side}"] for kind in ("true", "false") for side in ("positives", "negatives")]

    assert counts({"ILD": 0.5}, "ILD") == [1, 0, 1, 3]  # TP, TN, FP, FN
    assert counts({"ILD": 0.51}, "ILD") == [1, 1, 0, 3]
    assert counts({}, "ILD") == counts({"ILD": 0.0}, "ILD") == [2, 0, 1, 2]
    assert counts({"ILD": 0.51}, "Finding") == [1, 1, 0, 3]
    assert counts({}, "Edema") == [0, 5, 0, 0]
    assert task_decisions(statistics, {})["Edema"]["sensitivity"] is None


def test_a_diagnosis_is_decided_by_its_name_in_the_answer():
    labels = {"finding": ["ILD"], "diagnosis": ["Pneumonia", "No finding"]}
    rows = [{"findings": [], "diagnoses": diagnoses} for diagnoses in ([0], [0], [1], [1])]
    answers = [
        {"diagnoses": [{"label": label, "score": 0.1}], "malformed": None}
        for label in ("Pneumonia", "No finding", "Pneumonia", "No finding")
    ]
    answers[3] = {"diagnoses": [], "malformed": "a reason"}  # wrong of Finding, and names no label
    scores = task_decisions(statistics_of("vqa", rows, answers, labels), {"Pneumonia": 0.5})
    assert scores["Pneumonia"]["sensitivity"] == 0.5 == scores["Pneumonia"]["specificity"]
    assert scores["Finding"]["true_negatives"] == 0 and scores["Finding"]["false_positives"] == 2


def test_malformed_answers_and_decisions_agree_with_the_scores_where_all_boxes_are_kept(drawn):
    rows, predictions, _ = drawn
    for task, answers in by_task(predictions, TASKS).items():
        statistics = statistics_of(task, rows, answers)
        scores = classification_scores(statistics.label_sets)
        for label, counts in task_decisions(statistics, {}).items():
            expected = scores["finding"] if label == "Finding" else scores["per_class"][label]
            assert counts["sensitivity"] == pytest.approx(expected["recall"])
            assert counts["ppv"] == pytest.approx(expected["precision"])


def test_the_froc_is_measured_as_far_as_there_are_false_boxes():
    box, other = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
    answers = [[{"label": "a", "box": where, "score": 0.5} for where in (box, other)], []]
    assert measured_to(match(answers, [[{"label": "a", "box": box}], []], 0.4), 2) == 0.5
    assert measured_to(match([[], []], [[], []], 0.4), 2) == 0


def test_the_interval_of_map_lies_around_it_where_rare_labels_are_the_bad_ones():
    """Twelve labels of one image each are never found, two frequent ones nearly always."""
    rng = np.random.default_rng(0)
    names = ["often", "also often", *(f"rare {number}" for number in range(12))]
    labels = {"finding": names, "diagnosis": ["No finding"]}
    box = [0.1, 0.1, 0.5, 0.5]
    rows, lines = [], []
    for number in range(112):
        label = number % 2 if number < 100 else number - 98
        rows.append({"image_id": str(number), "findings": [{"label": label, "box": box}], "diagnoses": []})
        found = [{"label": names[label], "box": box, "score": float(rng.random())}]
        found = found if label < 2 and rng.random() < 0.9 else []
        line = {"task": "identify", "answer": "", "findings": found, "probabilities": {}, "malformed": None}
        lines.append({"image_id": str(number), **line})
    statistics = [statistics_of("identify", rows, lines, labels)]
    once = np.ones((1, len(rows)))
    figure = headline_figures(statistics, once)["map", "0.4"][0]
    drawn_figures = np.concatenate(
        [headline_figures(statistics, weights, by_label=True)["map", "0.4"] for weights in resamples(len(rows), 1000)]
    )
    observed = headline_figures(statistics, once, by_label=True)["map", "0.4"][0]
    means = means_over_the_same_labels(drawn_figures, observed)
    assert means.mean() == pytest.approx(figure, abs=0.01)
    assert np.nanmean(drawn_figures, axis=1).mean() > figure + 0.04  # labels that dropped out
    low, high = score_predictions(lines, rows, ["identify"], labels)["intervals"]["map"]["0.4"]
    assert low < figure < high and (low + high) / 2 == pytest.approx(figure, abs=0.02)


def test_patients_with_several_radiographs_are_resampled_as_a_whole(drawn):
    rows, predictions, _ = drawn
    answers = by_task(predictions, ["identify"])["identify"]
    rows = [{**row, "patient_id": ""} for row in rows]
    alone = score_predictions(answers, rows, ["identify"], LABELS)["intervals"]
    # Each radiograph and its answer four times, as four radiographs of one patient.
    again = [{**row, "patient_id": row["image_id"]} for row in rows for _ in range(4)]
    lines = [line for line in answers for _ in range(4)]
    by_patient = score_predictions(lines, again, ["identify"], LABELS)["intervals"]
    assert by_patient["finding_f1"] == pytest.approx(alone["finding_f1"])
    assert by_patient["accuracy_at_iou"]["0.4"] == pytest.approx(alone["accuracy_at_iou"]["0.4"])
    singly = score_predictions(lines, [{**row, "patient_id": ""} for row in again], ["identify"], LABELS)["intervals"]
    assert np.diff(singly["finding_f1"])[0] < 0.7 * np.diff(alone["finding_f1"])[0]
