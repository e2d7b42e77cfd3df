import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from litegpt.metrics.intervals import (
    bootstrap_intervals,
    coin_tosses,
    paired_comparison,
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
