import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from litegpt.metrics.intervals import (
    bootstrap_intervals,
    coin_tosses,
    means_over_the_same_labels,
    paired_comparison,
    patient_numbers,
    percentile_interval,
    resamples,
)


def mean_of(values: np.ndarray):
    """The weighted mean of `values`, as figures are given."""
    return lambda weights: {("mean",): (weights @ values) / weights.sum(-1)}


def test_every_resample_draws_as_many_images_as_there_are():
    blocks = list(resamples(40, 300))
    weights = np.concatenate(blocks)
    assert weights.shape == (300, 40) and (weights.sum(1) == 40).all()
    assert 0.34 < (weights == 0).mean() < 0.40  # (1 - 1/40) ** 40 = 0.363
    assert len({row.tobytes() for row in weights}) == 300


def test_many_images_are_resampled_in_blocks_that_a_machine_can_hold(monkeypatch):
    monkeypatch.setattr("litegpt.metrics.intervals.WEIGHTS_AT_ONCE", 1000)
    blocks = list(resamples(400, 7))
    assert [block.shape for block in blocks] == [(2, 400)] * 3 + [(1, 400)]
    assert sum(len(block) for block in coin_tosses(400, 7)) == 7
    assert len(bootstrap_intervals(mean_of(np.arange(400.0)), 400, 7)["mean",]) == 2


def test_the_interval_of_a_mean_is_scipys_percentile_interval():
    values = np.random.default_rng(3).gamma(2, size=200)
    low, high = bootstrap_intervals(mean_of(values), len(values))["mean",]
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, random_state=0)
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.02)


def test_an_interval_is_the_same_in_every_run():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_intervals(mean_of(values), 50) == bootstrap_intervals(mean_of(values), 50)


def test_resamples_that_do_not_give_a_figure_are_left_out_and_none_stands_for_no_interval():
    assert percentile_interval(np.array([np.nan, 1, 1, np.nan])) == [1, 1]
    assert percentile_interval(np.full(3, np.nan)) is None
    intervals = bootstrap_intervals(lambda weights: {("no",): np.full(len(weights), np.nan)}, 5)
    assert intervals == {("no",): None}


def test_the_p_value_is_scipys_of_a_paired_permutation_test():
    rng = np.random.default_rng(1)
    a = rng.random(60)
    b = a + rng.normal(0.05, 0.2, 60)
    comparison = paired_comparison(mean_of(np.concatenate([a, b])), 60, num_permutations=4000)["mean",]
    expected = permutation_test(
        (b, a),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        n_resamples=20_000,
        random_state=0,
    ).pvalue
    assert 0.01 < expected < 0.3  # neither sure nor hopeless: a wrong test would differ
    assert comparison.p_value == pytest.approx(expected, abs=0.02)
    assert (comparison.a, comparison.b) == (pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert comparison.difference == pytest.approx(b.mean() - a.mean())


def test_the_interval_of_a_difference_is_paired():
    """Images differ far more from each other than the runs do: unpaired, the interval would be fifty times as wide."""
    rng = np.random.default_rng(2)
    a = rng.normal(0, 10, 100)
    b = a + 0.5 + rng.normal(0, 0.2, 100)
    comparison = paired_comparison(mean_of(np.concatenate([a, b])), 100)["mean",]
    low, high = comparison.interval
    assert 0.4 < low < 0.5 < high < 0.6
    assert comparison.p_value == 1 / 2001


def test_two_equal_runs_do_not_differ():
    values = np.random.default_rng(0).random(30)
    comparison = paired_comparison(mean_of(np.concatenate([values, values])), 30)["mean",]
    assert comparison.difference == 0 and comparison.interval == [0, 0] and comparison.p_value == 1


def test_a_figure_that_one_run_lacks_is_not_compared():
    def figures_of(weights: np.ndarray):
        return {("figure",): np.where(weights[:, 0] > 0, 1.0, np.nan)}  # of the runs, A alone has it

    comparison = paired_comparison(figures_of, 1)["figure",]
    assert comparison == (1, None, None, None, None)


def label_means(hits: dict[str, list[float]], by_label: bool):
    """The mean over labels of the share of hits; each image has one label."""
    values = np.concatenate(list(hits.values()))
    labels = np.repeat(np.arange(len(hits)), [len(one) for one in hits.values()])

    def figures(weights: np.ndarray):
        sums = np.stack([weights[:, labels == label].sum(-1) for label in range(len(hits))], axis=-1)
        right = np.stack(
            [weights[:, labels == label] @ values[labels == label] for label in range(len(hits))], axis=-1
        )
        shares = np.divide(right, sums, out=np.full(sums.shape, np.nan), where=sums > 0)
        return {("mean",): shares if by_label else np.nanmean(shares, axis=-1)}

    return figures, len(values)


def test_a_mean_over_labels_is_over_the_same_ones_in_every_resample():
    """One label is always right, ten rare ones never: were those left out, the mean would rise, its interval too."""
    hits = {"often": [1.0] * 40, **{f"rare {number}": [0.0] for number in range(10)}}
    figures, num_images = label_means(hits, by_label=True)
    figure = 1 / 11
    assert bootstrap_intervals(figures, num_images)["mean",] == pytest.approx([figure, figure])
    without, _ = label_means(hits, by_label=False)
    low, _ = bootstrap_intervals(without, num_images)["mean",]
    assert low > figure  # the figure would lie outside its own interval


def test_a_label_that_a_resample_lacks_keeps_its_own_figure_there():
    values = np.array([[1.0, np.nan, 0.5], [np.nan, np.nan, np.nan], [0.5, np.nan, 0.0]])
    observed = np.array([0.8, np.nan, 0.2])  # no image has the second label
    assert means_over_the_same_labels(values, observed) == pytest.approx([0.75, 0.5, 0.25])
    assert means_over_the_same_labels(np.array([0.1, np.nan]), np.float64(0.3)).tolist()[0] == 0.1


def test_the_difference_of_two_runs_is_over_the_same_labels_too():
    """Run B is better by a half in one rare label alone; in a third of the resamples no image has it."""
    a = {"often": [1.0] * 30, "rare": [0.0]}
    b = {"often": [1.0] * 30, "rare": [0.5]}
    (of_a, num_images), (of_b, _) = label_means(a, by_label=True), label_means(b, by_label=True)

    def figures(weights: np.ndarray):
        first, second = weights[:, :num_images], weights[:, num_images:]
        is_a = first.sum(-1) >= second.sum(-1)
        return {("mean",): np.where(is_a[:, None], of_a(first)["mean",], of_b(second)["mean",])}

    comparison = paired_comparison(figures, num_images, num_permutations=10)["mean",]
    assert comparison.difference == pytest.approx(0.25)
    assert comparison.interval == pytest.approx([0.25, 0.25])


def test_patients_are_drawn_with_all_of_their_images():
    patients = patient_numbers(["p", "q", "p", "", "q", "q", ""])
    assert patients.tolist() == [0, 1, 0, 2, 1, 1, 3]
    weights = np.concatenate(list(resamples(7, 200, patients)))
    assert weights.shape == (200, 7)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3, 6]].sum(1) == 4).all() and len(set(weights.sum(1))) > 3
    coins = np.concatenate(list(coin_tosses(7, 50, patients)))
    assert (coins[:, 1] == coins[:, 5]).all() and 0 < coins.mean() < 1


def test_images_of_one_patient_that_are_alike_make_the_interval_wider():
    """Ten images a patient, all alike, tell no more than one: drawn singly, the interval would be a third as wide."""
    values = np.repeat(np.random.default_rng(0).random(30), 10)
    patients = np.repeat(np.arange(30), 10)
    single, by_patient = (
        np.diff(bootstrap_intervals(mean_of(values), 300, patients=chosen)["mean",])[0] for chosen in (None, patients)
    )
    one_each = np.diff(bootstrap_intervals(mean_of(values[::10]), 30)["mean",])[0]
    assert by_patient == pytest.approx(one_each) and by_patient > 2.5 * single
