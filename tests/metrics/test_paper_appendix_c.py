"""The LiteGPT paper's tables by class (arXiv 2407.12064, appendix C) against its own averages and its main text.

`paper_appendix_c.csv` has Tables 8 to 13 as printed. Their rows have two digits; what they allow is worked out in
whole images: a row stands for the pairs (right, named) of counts that scikit-learn would print as that row. Two
statements agree where such counts can give both. What is found is told in metrics/finding_classification/README.md.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import pytest

HALF_A_DIGIT = 0.005 + 1e-9  # 1e-9: halves are printed up or down
NUM_IMAGES = 3000  # the test set, section 4.1
NUM_NO_FINDING = 2051  # support of "No finding", Tables 11 to 13
FINDINGS, DIAGNOSES = (8, 9, 10), (11, 12, 13)
ALL = FINDINGS + DIAGNOSES

# Main text, in percent: precision, recall, F1 of Finding and of No finding (Table 1), F1 (Table 2). The appendix has
# no table for MiniGPT-v2.
TABLE_1 = {
    "MiniGPT-v2": ((73, 59, 66), (83, 90, 86)),
    "BiomedCLIP": ((88, 54, 67), (82, 97, 89)),
    "PubMedCLIP": ((73, 49, 59), (80, 92, 85)),
    "both": ((84, 59, 70), (83, 95, 89)),
}
TABLE_2 = {"KAD": 40.22, "MiniGPT-v2": 53, "BiomedCLIP": 59, "PubMedCLIP": 55, "both": 60}
TABLE_3 = {"MiniGPT-v2": (5.9, 5.01, 3.38), "both": (12.54, 10.5, 8.12)}
TABLE_5 = {
    "BiomedCLIP": {"rougeL": 95.18, "bleu1": 94.43, "bleu2": 92.69, "bleu3": 91.61, "meteor": 94.8, "cider": 7.57},
    "both": {"rougeL": 95.12, "bleu1": 94.45, "bleu2": 92.70, "bleu3": 91.60, "meteor": 94.74, "cider": 7.52},
}
# The captions are lost in the text at hand. Tables 11 to 13 are told apart by Table 1 (test below); 8 to 10 are taken
# in that order.
MODELS = {8: "both", 9: "BiomedCLIP", 10: "PubMedCLIP", 11: "both", 12: "BiomedCLIP", 13: "PubMedCLIP"}


class Row(NamedTuple):
    label: str
    precision: float
    recall: float
    f1: float
    support: int

    @property
    def scores(self) -> tuple[float, float, float]:
        return self.precision, self.recall, self.f1


def read_tables() -> tuple[dict[int, list[Row]], dict[int, dict[str, Row]]]:
    """The rows of the classes and, apart from them, those of the averages: {table: ...}."""
    classes, averages = {table: [] for table in ALL}, {table: {} for table in ALL}
    with open(Path(__file__).parent / "paper_appendix_c.csv") as file:
        for line in csv.DictReader(file):
            table, label, support = int(line["table"]), line["label"], int(line["support"])
            row = Row(label, *(float(line[name]) for name in ("precision", "recall", "f1")), support)
            if label.endswith(" avg"):
                averages[table][label.removesuffix(" avg")] = row
            else:
                classes[table].append(row)
    return classes, averages


CLASSES, AVERAGES = read_tables()


def scores_of(right: int, named: int, support: int) -> tuple[float, float, float]:
    """Precision, recall and F1, 0 where a denominator is 0."""
    return right / max(named, 1), right / max(support, 1), 2 * right / max(named + support, 1)


def printed_as(scores: tuple[float, ...], printed: tuple[float, ...]) -> bool:
    return all(abs(score - digits) <= HALF_A_DIGIT for score, digits in zip(scores, printed, strict=True))


def possible_counts(row: Row) -> list[tuple[int, int]]:
    """All pairs (images rightly named, images named) that are printed as `row`."""
    return [
        (right, named)
        for right in range(row.support + 1)
        if abs(right / max(row.support, 1) - row.recall) <= HALF_A_DIGIT
        for named in range(right, NUM_IMAGES - row.support + right + 1)
        if printed_as(scores_of(right, named, row.support), row.scores)
    ]


COUNTS = {table: [possible_counts(row) for row in CLASSES[table]] for table in ALL}


def score_ranges(table: int) -> list[list[tuple[float, float]]]:
    """For precision, recall and F1: the least and largest value of each class."""
    class_scores = [
        list(zip(*(scores_of(*counts, row.support) for counts in possible), strict=True))
        for row, possible in zip(CLASSES[table], COUNTS[table], strict=True)
    ]
    return [[(min(values), max(values)) for values in score] for score in zip(*class_scores, strict=True)]


def micro_ranges(table: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Least and largest number of labels rightly named, and of labels named, over all classes.

    A class of which nothing is right may have been named any number of times, so the most is known from the micro
    average's precision alone.
    """
    micro = AVERAGES[table]["micro"]
    right = (
        max(
            sum(min(right for right, _ in possible) for possible in COUNTS[table]),
            (micro.recall - 0.005) * micro.support,
        ),
        min(
            sum(max(right for right, _ in possible) for possible in COUNTS[table]),
            (micro.recall + 0.005) * micro.support,
        ),
    )
    at_least = sum(min(named for _, named in possible) for possible in COUNTS[table])
    return right, (max(at_least, right[0] / (micro.precision + 0.005)), right[1] / (micro.precision - 0.005))


def test_the_transcript_has_all_rows_and_the_supports_add_up():
    assert [len(CLASSES[table]) for table in ALL] == [22] * 3 + [6] * 3
    for table in ALL:
        total = sum(row.support for row in CLASSES[table])
        assert total == (2108 if table in FINDINGS else 3200)
        assert {name: row.support for name, row in AVERAGES[table].items()} == dict.fromkeys(
            ("micro", "macro", "weighted", "samples"), total
        )
    for tables in (FINDINGS, DIAGNOSES):
        assert len({tuple((row.label, row.support) for row in CLASSES[table]) for table in tables}) == 1


@pytest.mark.parametrize("table", ALL)
def test_every_class_row_can_come_from_whole_images(table):
    for row, possible in zip(CLASSES[table], COUNTS[table], strict=True):
        assert possible, row


def test_whole_images_do_not_give_every_row():
    """Else the tests of this file could not fail: half of the support and half precision are not an F1 of 0.6."""
    assert not possible_counts(Row("Edema", 0.50, 0.50, 0.60, 100))
    assert not possible_counts(Row("Edema", 0.50, 0.33, 0.40, 2))
    assert possible_counts(Row("Edema", 0.33, 0.50, 0.40, 2)) == [(1, 3)]


@pytest.mark.parametrize("table", ALL)
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_macro_and_weighted_averages_agree_with_the_classes(table, average):
    weights = [row.support if average == "weighted" else 1 for row in CLASSES[table]]
    for ranges, printed in zip(score_ranges(table), AVERAGES[table][average].scores, strict=True):
        low, high = (
            sum(map(float.__mul__, map(float, weights), end)) / sum(weights) for end in zip(*ranges, strict=True)
        )
        assert low - HALF_A_DIGIT <= printed <= high + HALF_A_DIGIT
        assert high - low < 0.01  # so that this says something


@pytest.mark.parametrize("table", ALL)
def test_micro_averages_agree_with_the_classes(table):
    micro = AVERAGES[table]["micro"]
    least = sum(min(right for right, _ in possible) for possible in COUNTS[table])
    most = sum(max(right for right, _ in possible) for possible in COUNTS[table])
    assert least / micro.support - HALF_A_DIGIT <= micro.recall <= most / micro.support + HALF_A_DIGIT
    at_least_named = sum(min(named for _, named in possible) for possible in COUNTS[table])
    assert micro.precision <= most / at_least_named + HALF_A_DIGIT
    assert micro.recall == AVERAGES[table]["weighted"].recall  # the same number by definition
    right, named = micro_ranges(table)
    assert 2 * right[0] / (named[1] + micro.support) - HALF_A_DIGIT <= micro.f1
    assert micro.f1 <= 2 * right[1] / (named[0] + micro.support) + HALF_A_DIGIT


def test_macro_averages_count_edema_which_no_image_has():
    """Over the 21 findings that occur, Table 8's macro precision would be printed 0.16."""
    low, _ = zip(*score_ranges(8)[0], strict=True)
    assert sum(low) / 21 > AVERAGES[8]["macro"].precision + HALF_A_DIGIT
    assert next(row for row in CLASSES[8] if row.label == "Edema").support == 0


@pytest.mark.parametrize("model", TABLE_1)
def test_table_1_has_a_solution_in_whole_images(model):
    """Both of its rows at once: an image that is not said to be one is said to be the other."""
    assert list(table_1_counts(model))


def table_1_counts(model: str):
    """Pairs (right, named) of No finding that give both rows of Table 1, of 949 and 2,051 images."""
    finding, no_finding = ([value / 100 for value in row] for row in TABLE_1[model])
    num_finding = NUM_IMAGES - NUM_NO_FINDING
    for right, named in possible_counts(Row("No finding", *no_finding, NUM_NO_FINDING)):
        scores = scores_of(num_finding - (named - right), NUM_IMAGES - named, num_finding)
        if printed_as(scores, finding):
            yield right, named


@pytest.mark.parametrize("table", DIAGNOSES)
def test_table_1_is_of_the_diagnoses_answers_and_tells_the_tables_apart(table):
    row = next(row for row in CLASSES[table] if row.label == "No finding")
    matching = [model for model, rows in TABLE_1.items() if rows[1] == tuple(round(100 * v) for v in row.scores)]
    assert matching == [MODELS[table]]


@pytest.mark.parametrize("table", FINDINGS)
def test_disagreement_samples_averages_of_findings_are_not_over_the_test_set(table):
    """An image's recall is at most its number of rightly named labels, so all recalls together are at most their sum.

    The same holds for precision. Over 3,000 images the averages would be at most 0.20, 0.19 and 0.13.
    """
    samples, most_right = AVERAGES[table]["samples"], micro_ranges(table)[0][1]
    largest_possible = most_right / NUM_IMAGES
    assert largest_possible < samples.precision - HALF_A_DIGIT
    num_images = {8: 1923, 9: 1942, 10: 1648}  # at most
    assert int(most_right / (samples.precision - HALF_A_DIGIT)) == num_images[table]


@pytest.mark.parametrize("table", DIAGNOSES)
def test_samples_averages_of_diagnoses_can_be_over_the_test_set(table):
    samples, most_right = AVERAGES[table]["samples"], micro_ranges(table)[0][1]
    assert max(samples.precision, samples.recall) - HALF_A_DIGIT <= most_right / NUM_IMAGES


def test_disagreement_table_2_has_none_of_the_appendixes_averages():
    for table in ALL:
        for row in AVERAGES[table].values():
            assert abs(row.f1 - TABLE_2[MODELS[table]] / 100) > 0.12  # rounding would be 0.01 at most


def pooled_f1(tables: tuple[int, ...]) -> tuple[float, float]:
    """Least and largest micro F1 over the classes of all `tables`."""
    right, named = zip(*map(micro_ranges, tables), strict=True)
    support = sum(AVERAGES[table]["micro"].support for table in tables)
    least_right, most_right = (sum(values) for values in zip(*right, strict=True))
    least_named, most_named = (sum(values) for values in zip(*named, strict=True))
    return 2 * least_right / (most_named + support), 2 * most_right / (least_named + support)


@pytest.mark.parametrize("findings, diagnoses", [(8, 11), (9, 12), (10, 13)])
def test_table_2_can_be_the_micro_average_over_findings_and_diagnoses_together(findings, diagnoses):
    assert MODELS[findings] == MODELS[diagnoses]
    low, high = pooled_f1((findings, diagnoses))
    assert low - HALF_A_DIGIT <= TABLE_2[MODELS[findings]] / 100 <= high + HALF_A_DIGIT
    assert high - low < 0.012


def test_disagreement_the_smallest_gain_in_table_2_is_one_point_and_not_five():
    """Section 4.5.1: "an improvement from 5 to 19.78". 5 leaves out the model with BiomedCLIP alone."""
    gains = {model: TABLE_2["both"] - f1 for model, f1 in TABLE_2.items() if model != "both"}
    assert max(gains.values()) == pytest.approx(19.78) and gains["PubMedCLIP"] == 5
    assert min(gains.values()) == gains["BiomedCLIP"] == 1


def test_disagreement_both_towers_do_not_lead_all_of_table_5():
    """Section 4.5.3: both lead ROUGE and CIDEr of both tasks, BiomedCLIP alone leads BLEU and METEOR."""
    said_to_lead = {"rougeL": "both", "cider": "both"} | dict.fromkeys(
        ("bleu1", "bleu2", "bleu3", "meteor"), "BiomedCLIP"
    )
    leads = {name: max(TABLE_5, key=lambda model, name=name: TABLE_5[model][name]) for name in said_to_lead}
    assert {name for name in leads if leads[name] != said_to_lead[name]} == {"rougeL", "cider", "bleu1", "bleu2"}


def test_gains_of_table_3_agree_with_the_text():
    """Section 4.5.2; the paper has no table by class for boxes."""
    gains = [ours - theirs for ours, theirs in zip(TABLE_3["both"], TABLE_3["MiniGPT-v2"], strict=True)]
    assert gains == pytest.approx([6.64, 5.49, 4.74])


def test_one_image_decides_which_model_has_the_best_macro_f1_of_diagnoses():
    """COPD has two test images; Table 11's model finds one. Over the other five classes Table 12's is ahead."""
    by_label = {table: {row.label: row for row in CLASSES[table]} for table in (11, 12)}
    assert by_label[11]["COPD"].support == 2 and possible_counts(by_label[11]["COPD"]) == [(1, 3)]
    assert AVERAGES[11]["macro"].f1 > AVERAGES[12]["macro"].f1
    without = {
        table: [f1 for row, f1 in zip(CLASSES[table], score_ranges(table)[2], strict=True) if row.label != "COPD"]
        for table in (11, 12)
    }
    largest_of_11, least_of_12 = sum(high for _, high in without[11]), sum(low for low, _ in without[12])
    assert largest_of_11 / 5 < least_of_12 / 5
