"""Findings as the yardstick of real boxes takes them, and folds with a few boxed radiographs."""

import numpy as np

from litegpt.benchmarks.box_folds import BoxFolds, Truth
from litegpt.benchmarks.real_box_figures import FEW, as_predictions, few_boxes
from litegpt.benchmarks.small_findings import precisions

BOX, NEAR, FAR = (0.1, 0.1, 0.5, 0.5), (0.1, 0.1, 0.5, 0.52), (0.6, 0.6, 0.9, 0.9)


def test_boxes_of_any_label_are_those_of_all_of_which_overlapping_ones_are_one():
    found = [
        {"label": "Edema", "box": BOX, "score": 0.4},
        {"label": "ILD", "box": NEAR, "score": 0.6},
        {"label": "ILD", "box": FAR, "score": 0.1},
        {"label": "ILD", "box": (0.2, 0.2, 0.2, 0.4), "score": 0.9},  # without an area
    ]
    predictions = as_predictions(found)
    assert predictions["any"] == [(0.6, list(NEAR)), (0.1, list(FAR))]
    assert {label: len(of) for label, of in predictions["labels"].items()} == {"Edema": 1, "ILD": 3}
    assert as_predictions([]) == {"any": [], "labels": {}}


def test_a_fold_with_few_boxes_has_all_its_normal_radiographs():
    number = 60
    truths = [Truth([list(BOX)], {"ILD": [list(BOX)]}) if n % 2 else Truth([], {}) for n in range(number)]
    fold = np.arange(number) % 3
    folds = BoxFolds(None, [str(n) for n in range(number)], fold, np.ones(number, bool), np.ones(number, bool), truths)
    few = few_boxes(folds, 0)
    numbers = few.train_numbers(0)
    assert sum(bool(truths[n].any) for n in numbers) == FEW == len([n for n in numbers if n % 2])
    assert [n for n in numbers if not n % 2] == [n for n in range(number) if n % 3 and not n % 2]
    assert folds.taught.all()


def test_average_precision_is_of_each_label():
    lines = [{"findings": [{"label": "ILD", "box": BOX, "score": 0.5}]}, {"findings": []}]
    true = [[{"label": "ILD", "box": NEAR}], [{"label": "ILD", "box": FAR}, {"label": "Edema", "box": BOX}]]
    assert precisions(lines, true, "findings") == {"ILD": 0.5, "Edema": 0.0}
