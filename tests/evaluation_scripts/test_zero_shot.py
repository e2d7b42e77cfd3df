import numpy as np
import pytest

from litegpt.datasets_scripts.label_prompts import Pair
from litegpt.evaluation_scripts.ranking import figures_and_intervals, label_aurocs, ranking_figures, usable_labels
from litegpt.evaluation_scripts.zero_shot import (
    PairVectors,
    class_accuracy,
    class_scores,
    decision_counts,
    five_classes,
    five_columns,
    macro_auroc,
    pair_scores,
    pair_vectors,
    wording_pairs,
    zero_shot_scores,
)

NAN = np.nan
AXES = np.eye(4, dtype=np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def drawn():
    """300 radiographs with labels that their vectors show: axis 0 and 1 for two labels, half of them abnormal."""
    rng = np.random.default_rng(0)
    truths = np.zeros((300, 2))
    truths[:100, 0] = truths[50:150, 1] = 1
    vectors = unit(0.1 * rng.normal(size=(300, 4)) + np.hstack([2 * truths - 1, np.zeros((300, 2))]))
    return vectors, truths, truths.any(1), PairVectors(AXES[:2], -AXES[:2])


def test_a_sides_vector_is_the_mean_of_its_sentences_at_length_one():
    vector_of = {"a.": AXES[0], "b.": AXES[1], "no a.": AXES[2]}
    pairs = pair_vectors([Pair(("a.", "b."), ("no a.",)), None], vector_of)
    np.testing.assert_allclose(pairs.positive[0], [0.5**0.5, 0.5**0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(pairs.negative[0], AXES[2])
    assert np.isnan(pairs.positive[1]).all()  # a label without sentences has no scores
    scores = pair_scores(AXES[:3], pairs)
    np.testing.assert_allclose(scores[:, 0], [0.5**0.5, 0.5**0.5, -1], atol=1e-6)
    assert np.isnan(scores[:, 1]).all()


def test_auroc_leaves_unknown_labels_out_one_by_one():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.3], [0.1, 0.4]])
    truths = np.array([[1, 1], [NAN, NAN], [0, 0], [1, 0]])
    # Label one: 0.9 beats 0.2, 0.1 does not. Label two: 0.1 beats neither 0.3 nor 0.4.
    np.testing.assert_allclose(label_aurocs(scores, truths, np.ones((1, 4))), [[0.5, 0.0]])
    np.testing.assert_allclose(label_aurocs(scores, truths, np.array([[1, 5, 1, 0]]))[:, 0], [1.0])


def test_labels_need_both_kinds_of_radiographs():
    truths = np.array([[1, 1, 0], [1, 0, 0], [0, 0, NAN], [0, 0, 0]])
    usable, reasons = usable_labels(["a", "b", "c"], truths, 2)
    assert usable.tolist() == [0]
    assert reasons == {
        "b": "1 positive and 3 negative radiographs",
        "c": "0 positive and 3 negative radiographs",
    }


def test_anything_there_is_what_knowing_abnormal_or_not_gives():
    """Two abnormal with the label, one abnormal without it, three normal: 2 x (3 + 1/2) of 2 x 4 pairs."""
    truths = np.array([[1.0], [1], [0], [0], [0], [0]])
    abnormal = np.array([True, True, True, False, False, False])
    statistic = ranking_figures(
        {"score": np.arange(6.0)[:, None]}, truths, abnormal, ["a"], [("score", "anything_there")]
    )
    points, intervals = figures_and_intervals(statistic, 6, None)
    assert points["anything_there", "all", "macro"] == points["anything_there", "all", "per_label", "a"] == 7 / 8
    assert points["anything_there", "abnormal", "macro"] == 0.5  # among abnormal ones it knows nothing
    assert points["score", "all", "macro"] == 0 and points["score", "abnormal", "macro"] == 0
    assert points["score_less_anything_there", "all", "macro"] == -7 / 8
    assert intervals["score_less_anything_there", "all", "macro"][1] < 0


def test_a_perfect_model_gets_one_and_another_radiographs_vectors_one_half(drawn):
    vectors, truths, abnormal, pairs = drawn
    scores = zero_shot_scores(vectors, {"report": pairs}, truths, abnormal, ["a", "b"])
    figures = scores["figures"]
    for among in ("all", "abnormal"):
        assert figures["report"][among]["macro"] == 1.0
        assert figures["shuffled"][among]["macro"] == pytest.approx(0.5, abs=0.08)
    assert figures["report"]["accuracy"] == figures["report"]["f1"] == 1.0
    # Of each label 100 positives, all abnormal; 50 negatives are abnormal, 150 are not.
    assert figures["anything_there"]["all"]["macro"] == pytest.approx((150 + 25) / 200)
    assert figures["report_less_anything_there"]["all"]["macro"] == pytest.approx(1 - 175 / 200)
    assert scores["intervals"]["report_less_anything_there"]["all"]["macro"][0] > 0
    assert scores["intervals"]["report_less_shuffled"]["abnormal"]["macro"][0] > 0.3
    assert scores["labels"]["a"] == {"positives": 100, "negatives": 200, "abnormal_negatives": 50}
    assert macro_auroc(vectors, pairs, truths) == 1.0


def test_a_score_that_only_says_abnormal_is_found_out(drawn):
    """Its AUROC is as high as `anything_there`, and chance among abnormal radiographs."""
    _, truths, abnormal, _ = drawn
    vectors = np.where(abnormal[:, None], AXES[0], -AXES[0])
    both = PairVectors(AXES[[0, 0]], -AXES[[0, 0]])
    figures = zero_shot_scores(vectors, {"report": both}, truths, abnormal, ["a", "b"])["figures"]
    assert figures["report"]["all"]["macro"] == figures["anything_there"]["all"]["macro"] > 0.8
    assert figures["report"]["abnormal"]["macro"] == 0.5


def test_patients_with_many_radiographs_make_intervals_wider(drawn):
    vectors, truths, abnormal, pairs = drawn
    noise = 2 * np.random.default_rng(1).normal(size=(30, 4))
    noisy = unit(vectors + np.repeat(noise, 10, axis=0))  # the radiographs of a patient err alike

    def width(patients):
        found = zero_shot_scores(noisy, {"report": pairs}, truths, abnormal, ["a", "b"], patients)["intervals"]
        low, high = found["report"]["all"]["macro"]
        return high - low

    assert width(np.arange(300) // 10) > 1.2 * width(None)


def test_accuracy_and_f1_are_of_the_nearer_side():
    scores = np.array([[0.1], [-0.1], [0.2], [-0.2], [0.3]])
    right, known, hits, misses = decision_counts(scores, np.array([[1.0], [1], [0], [0], [NAN]]))
    assert [part.sum() for part in (right, known, hits, misses)] == [2, 4, 1, 2]  # F1 2 / (2 + 2)


def test_labels_without_sentences_have_no_pair():
    pairs = wording_pairs(["Edema", "Other lesion"], "paper")
    assert pairs == [Pair(("Edema",), ("No Edema",)), None]
    assert wording_pairs(["Edema", "Pneumonia"], "biovil")[0] is None


def test_the_five_classes_are_those_of_radiographs_with_exactly_one():
    names = ["Edema", "Fracture", "Effusion", "Atelectasis", "Cardiomegaly", "Consolidation"]
    assert five_columns(names) == [3, 4, 5, 0, 2] and five_columns(names[1:]) is None
    truths = np.array([[0, 1, 0, 0, 0], [0, 0, NAN, 0, 1], [1, 1, 0, 0, 0], [NAN, 0, 0, 0, 0]])
    assert five_classes(truths).tolist() == [1, 4, -1, -1]


def test_a_classs_score_is_the_mean_cosine_over_all_its_sentences():
    vector_of = {"a": AXES[0], "b": AXES[1], "c": AXES[2]}
    np.testing.assert_allclose(class_scores(AXES[:3], [["a", "b"], ["c"]], vector_of), [[0.5, 0], [0.5, 0], [0, 1]])


def test_the_accuracy_of_five_classes_stands_beside_its_controls():
    classes = np.repeat(np.arange(5), 40)
    scores = class_accuracy(np.eye(5)[classes], classes)
    assert scores["figures"]["accuracy"] == 1.0 and scores["commonest"] == 0.2 and scores["counts"] == [40] * 5
    assert scores["figures"]["shuffled"] == pytest.approx(0.2, abs=0.1)
    assert scores["intervals"]["accuracy_less_shuffled"][0] > 0.6
