import json
import random
from pathlib import Path

import evaluate
import pytest
from sklearn.metrics import classification_report
from sklearn.preprocessing import MultiLabelBinarizer

METRIC = Path(__file__).parents[2] / "metrics" / "finding_classification"
LABELS = ["COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases"]
NAMES = {"precision": "precision", "recall": "recall", "f1-score": "f1", "support": "support"}


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def random_labels(rng, count, labels, none_label):
    """A quarter `none_label`; some labels are never drawn, so that zero denominators occur."""
    drawn = labels[:-1]
    return [none_label if rng.random() < 0.25 else rng.sample(drawn, rng.randint(1, len(drawn))) for _ in range(count)]


def sklearn_report(references, predictions, labels):
    binarizer = MultiLabelBinarizer(classes=labels).fit([labels])
    return classification_report(
        binarizer.transform([[label for label in image if label in labels] for image in references]),
        binarizer.transform([[label for label in image if label in labels] for image in predictions]),
        target_names=labels,
        output_dict=True,
        zero_division=0,
    )


@pytest.mark.parametrize("labels", [LABELS, [*LABELS, "No finding"]], ids=["without negative", "with negative"])
@pytest.mark.parametrize("seed", range(4))
def test_classes_and_averages_equal_scikit_learns_report(metric, labels, seed):
    rng = random.Random(seed)
    references = random_labels(rng, 60, LABELS, ["No finding"])
    predictions = random_labels(rng, 60, LABELS, rng.choice([[], ["No finding"]]))
    results = metric.compute(predictions=predictions, references=references, labels=labels)
    report = sklearn_report(references, predictions, labels)
    ours = results["per_class"] | {f"{name} avg": results[name] for name in ("micro", "macro", "weighted", "samples")}
    assert set(ours) == set(report)
    for name, values in report.items():
        for theirs, name_of_ours in NAMES.items():
            assert ours[name][name_of_ours] == pytest.approx(values[theirs]), (name, theirs)


ODD_LABELS = [
    [],
    ["No finding"],
    ["No finding", "COPD"],
    ["COPD", "COPD", "Pneumonia"],
    LABELS,
    [*LABELS, "No finding"],
    ["Other diseases"],
]


@pytest.mark.parametrize("labels", [LABELS, [*LABELS, "No finding"]], ids=["without negative", "with negative"])
@pytest.mark.parametrize("seed", range(4))
def test_odd_label_sets_equal_scikit_learns_report(metric, labels, seed):
    """Nothing, everything, a label beside No finding, labels twice; in seeds 2 and 3 all answers are alike."""
    rng = random.Random(seed)
    references = rng.choices(ODD_LABELS[1:], k=30)
    predictions = rng.choices(ODD_LABELS, k=30) if seed < 2 else [ODD_LABELS[3 * seed - 6]] * 30
    results = metric.compute(predictions=predictions, references=references, labels=labels)
    ours = results["per_class"] | {f"{name} avg": results[name] for name in ("micro", "macro", "weighted", "samples")}
    for name, values in sklearn_report(references, predictions, labels).items():
        assert list(ours[name].values()) == pytest.approx([values[theirs] for theirs in NAMES]), name

    has_finding = [image != ["No finding"] for image in references]
    # A malformed answer stands for what the image is not.
    says_finding = [
        image != ["No finding"] if image else not truth for image, truth in zip(predictions, has_finding, strict=True)
    ]
    report = classification_report(has_finding, says_finding, labels=[True, False], output_dict=True, zero_division=0)
    for ours, theirs in (("finding", "True"), ("no_finding", "False")):
        assert list(results[ours].values()) == pytest.approx([report[theirs][name] for name in NAMES])


def test_finding_against_no_finding_by_hand(metric):
    results = metric.compute(
        # In turn: hit, miss, false alarm, true negative, a wrong label (which is still a Finding).
        predictions=[["COPD"], ["No finding"], ["Pneumonia"], ["No finding"], ["Tuberculosis", "No finding"]],
        references=[["COPD", "Pneumonia"], ["COPD"], ["No finding"], [], ["Pneumonia"]],
        labels=LABELS,
    )
    assert results["finding"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert results["no_finding"] == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2})


@pytest.mark.parametrize("reference", [["COPD"], ["No finding"], []])
@pytest.mark.parametrize("labels", [LABELS, [*LABELS, "No finding"]], ids=["without negative", "with negative"])
def test_an_empty_prediction_is_wrong_whatever_the_image_shows(metric, reference, labels):
    """An empty answer read as "No finding" would be right on two thirds of the images."""
    results = metric.compute(predictions=[[]], references=[reference], labels=labels)
    for name in ("finding", "no_finding", "micro", "samples"):
        assert results[name]["precision"] == results[name]["recall"] == results[name]["f1"] == 0
    assert results["finding"]["support"] + results["no_finding"]["support"] == 1
    assert results["num_images"] == results["num_empty_predictions"] == 1


def test_an_empty_prediction_costs_recall_of_one_side_and_precision_of_the_other(metric):
    results = metric.compute(
        predictions=[["COPD"], ["No finding"], []],
        references=[["COPD"], ["No finding"], ["COPD"]],
        labels=LABELS,
    )
    assert (results["finding"]["precision"], results["finding"]["recall"]) == (1, 0.5)
    assert (results["no_finding"]["precision"], results["no_finding"]["recall"]) == (0.5, 1)


def test_an_empty_reference_is_no_finding_among_the_classes_too(metric):
    results = metric.compute(predictions=[["No finding"]], references=[[]], labels=[*LABELS, "No finding"])
    assert results["per_class"]["No finding"] == {"precision": 1, "recall": 1, "f1": 1, "support": 1}


def test_a_label_named_twice_counts_once(metric):
    results = metric.compute(predictions=[["COPD", "COPD"]], references=[["COPD", "COPD"]], labels=LABELS)
    assert results["micro"] == {"precision": 1, "recall": 1, "f1": 1, "support": 1}


def test_one_class_alone_is_not_taken_for_a_binary_task(metric):
    """scikit-learn reads a single column as two classes and adds the score of the zeros."""
    predictions, references = [["COPD"], ["COPD"], ["No finding"]], [["COPD"], [], ["COPD"]]
    results = metric.compute(predictions=predictions, references=references, labels=["COPD"])
    assert results["micro"] == results["macro"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}


def test_another_negative_label_can_be_named(metric):
    results = metric.compute(
        predictions=[["normal"]], references=[["normal"]], labels=["COPD"], negative_label="normal"
    )
    assert results["no_finding"]["f1"] == 1


@pytest.mark.parametrize("side", ["predictions", "references"])
def test_a_label_outside_the_vocabulary_is_an_error_that_names_it(metric, side):
    inputs = {"predictions": [["COPD"], ["COPD"]], "references": [["COPD"], ["COPD"]]}
    inputs[side][1] = ["copd"]
    with pytest.raises(ValueError, match=rf"{side}\[1\] has the label 'copd'"):
        metric.compute(**inputs, labels=LABELS)


def test_no_images_no_labels_and_repeated_labels_are_errors(metric):
    with pytest.raises(ValueError, match="no images"):
        metric.compute(predictions=[], references=[], labels=LABELS)
    for labels in ([], ["COPD", "COPD"]):
        with pytest.raises(ValueError, match="`labels`"):
            metric.compute(predictions=[["COPD"]], references=[["COPD"]], labels=labels)


def test_results_are_plain_json(metric):
    results = metric.compute(predictions=[["COPD"]], references=[["COPD"]], labels=LABELS)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
